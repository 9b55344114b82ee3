"""Metrics of fitted models on slices of the data, with confidence intervals, computed where the data is.

    partition (X, y, weight, columns to slice by)
      outcomes     the model's answers, and the slices of rows: X is not needed any more
      sums         of all slices, exact and for each bootstrap replicate
    merged in the order of partitions, eight at a time ── a table in this process

If edges of buckets are to be found in the data, this takes two steps: the outcomes of all partitions stay
where they are until the edges are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dasknn.cluster.connect import connect
from dasknn.cluster.local import LocalExecutor
from dasknn.data import inputs, partitions
from dasknn.evaluation import metrics as evaluation_metrics
from dasknn.evaluation import slicing
from dasknn.evaluation.bootstrap import SliceSums
from dasknn.evaluation.estimates import Estimates, Settings
from dasknn.evaluation.ledger import Ledger
from dasknn.evaluation.metrics import WEIGHT, Metric
from dasknn.evaluation.parts import columns_to_slice_by, order_of, parts_of
from dasknn.evaluation.plan import Plan, in_order, run
from dasknn.evaluation.problem import check_alike
from dasknn.evaluation.responders import place_of, problem_for, responder_of, rows_for


def evaluate(
    model: Any,
    X: Any,
    y: Any,
    metrics: Any = None,
    slices: Any = (),
    *,
    sample_weight: Any = None,
    slice_data: Any = None,
    confidence: float = 0.95,
    min_rows: int = 100,
    n_bootstrap: int = 200,
    pos_label: Any = None,
    random_state: int = 0,
) -> Any:
    """Return the metrics of a model on all rows and on slices of them, each with a confidence interval.

    The data is read once, where it is, and predicted once. The same partitions give the same bits on any
    cluster.

    Parameters
    ----------
    model : estimator of dasknn, Sequential, Pipeline or any fitted estimator
        A pipeline may end in any of the others. Another estimator needs scikit-learn's `predict`, and
        `predict_proba` for metrics of probabilities; it is applied to one partition after the other.
    X : dataframe or array (n, p), of Dask or plain
    y : labels (n,), or numbers (n,) or (n, q), of Dask or plain
    metrics : str, function, `RowMetric`, or a list of these, default=None
        Names are those of scikit-learn. A function (y_true, y_pred) returns a number for each row. None: a
        few that suit the model.
    slices : str, `Buckets`, tuple, or a list of these, default=()
        Columns whose values make slices; a tuple makes slices by several columns.
    sample_weight : array (n,), default=None
    slice_data : dataframe or named series, default=None
        More columns to slice by, with the same rows as X; the model does not see them.
    confidence : float, default=0.95
        Of the intervals.
    min_rows : int, default=100
        Slices with fewer rows are listed, with NaN for their metrics.
    n_bootstrap : int, default=200
        Replicates from which intervals are made. 0: no intervals.
    pos_label : label, default=None
        The positive class of two. None: the second of the model's classes.
    random_state : int, default=0
        Seed of the replicates.

    Returns
    -------
    pandas.DataFrame
        One row for each slice, all rows first: `slice`, `rows`, and for each metric `m` the columns `m`,
        `m_low` and `m_high`. `attrs["buckets"]` has the edges of buckets.

    Raises
    ------
    ValueError
        Unknown metrics, slices or columns, or a slice with too many values.
    PartitionError
        Bad data; the message names the partition.
    NotFittedError
        The model is not fitted.

    See Also
    --------
    compare : Two models on the same rows.
    assert_thresholds : Fail if a slice is not good enough.

    Notes
    -----
    Intervals are percentiles of a Poisson bootstrap over rows: they say how much a metric would differ on
    other rows of the same kind, not after another training.
    """
    settings = Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
    estimates = _estimates([model], X, y, metrics, slices, sample_weight, slice_data, settings)

    def columns(sums: SliceSums, metric: Metric) -> dict[str, Any]:
        name, estimate = metric.name, estimates.estimate(sums, 0, metric)
        low, high = estimate.interval(confidence, metric)
        return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}

    return estimates.frame(columns, settings)


def compare(
    model_a: Any,
    model_b: Any,
    X: Any,
    y: Any,
    metrics: Any = None,
    slices: Any = (),
    *,
    sample_weight: Any = None,
    slice_data: Any = None,
    confidence: float = 0.95,
    min_rows: int = 100,
    n_bootstrap: int = 200,
    pos_label: Any = None,
    random_state: int = 0,
) -> Any:
    """Return the metrics of two models on the same rows and slices, and their differences.

    Both models predict in one pass over the data, and each replicate draws the same rows for both: a
    difference is known more precisely than either metric.

    Parameters
    ----------
    model_a, model_b : fitted models
        They predict the same classes, or both numbers.
    X, y, metrics, slices, and all keyword arguments
        See `evaluate`.

    Returns
    -------
    pandas.DataFrame
        One row for each slice, all rows first: `slice`, `rows`, and for each metric `m` the columns `m_a`,
        `m_b`, `m_difference` (a minus b), `m_difference_low`, `m_difference_high`, and `m_differs`: whether
        that interval excludes 0. Among many slices, some will by chance.

    Raises
    ------
    ValueError
        As for `evaluate`, and for models that predict different things.
    """
    settings = Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
    estimates = _estimates([model_a, model_b], X, y, metrics, slices, sample_weight, slice_data, settings)

    def columns(sums: SliceSums, metric: Metric) -> dict[str, Any]:
        name = metric.name
        a, b = (estimates.estimate(sums, number, metric) for number in (0, 1))
        difference = a - b
        low, high = difference.interval(confidence)
        return {
            f"{name}_a": a.value,
            f"{name}_b": b.value,
            f"{name}_difference": difference.value,
            f"{name}_difference_low": low,
            f"{name}_difference_high": high,
            f"{name}_differs": bool(low > 0 or high < 0),
        }

    return estimates.frame(columns, settings)


def _estimates(
    models: Sequence[Any],
    X: Any,
    y: Any,
    metrics: Any,
    slices: Any,
    sample_weight: Any,
    slice_data: Any,
    settings: Settings,
) -> Estimates:
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    X, y, sample_weight = inputs.admit(X, y, sample_weight)
    slice_data = inputs.admitted("slice_data", slice_data)
    responders, problems = [], []
    for model in models:
        responders.append(responder_of(model))
        problems.append(problem_for(responders[-1], y, settings.pos_label))
        X = _rows_for(model, X)
    check_alike(problems)
    resolved_slices = slicing.resolve(slices, columns_to_slice_by(X, slice_data))
    has_proba = all(responder.has_proba for responder in responders)
    resolved = tuple(evaluation_metrics.resolve(metrics, problems[0], has_proba))
    ledgers = tuple(Ledger(problem, resolved) for problem in problems)
    parts, feature_names = parts_of(X, y, sample_weight, slice_data)
    plan = Plan(ledgers, resolved_slices, parts[0].names, feature_names, settings.seed, settings.n_bootstrap)
    data = (X, y, sample_weight, slice_data)
    is_distributed = any(map(partitions.is_distributed, data))
    place = next((place for place in map(place_of, models) if any(place.values())), place_of(models[0]))
    with connect(**place, distributed=True, data=data) if is_distributed else LocalExecutor() as tasks:
        sums, edges = run(tasks, plan, responders, parts)
    everything = sums.slices[0].get(())
    if everything is None:
        raise ValueError(
            f"Expected at least one row to evaluate, found 0 samples in {len(parts)} partitions."
        )
    weight = everything.sums[0][0, ledgers[0].columns[WEIGHT]]
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    orders = {name: order_of(name, X, slice_data) for name in slicing.dimensions_of(resolved_slices)}
    return Estimates(in_order(resolved_slices, sums, edges, orders), ledgers, settings.min_rows, edges)


def _rows_for(model: Any, X: Any) -> Any:
    try:
        return rows_for(model, X)
    except ValueError as error:
        error.add_note("Pass columns to slice by that the model does not take as slice_data.")
        raise
