"""Metrics of a fitted model on slices of the data, with confidence intervals, computed where the data is.

    partition (X, y, weight, columns to slice by)
      outcomes     the model's answers, and which values rows have to slice by: X is done with
      sums         of all slices, for the whole and for each bootstrap replicate
    merged in the order of partitions, eight at a time ── a table on the driver

Only where edges of buckets are to be found in the data, two steps become of it: outcomes of all partitions
stay where they are until the edges are known.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from dasknn.cluster.connect import connect
from dasknn.cluster.local import LocalExecutor
from dasknn.data import inputs, partitions
from dasknn.evaluation import metrics as evaluation_metrics
from dasknn.evaluation import slicing
from dasknn.evaluation.estimates import Found, Settings
from dasknn.evaluation.metrics import Ledger
from dasknn.evaluation.plan import FOR_SLICES, Plan, in_order, run
from dasknn.evaluation.responders import check_alike, place_of, responders_of
from dasknn.evaluation.slicing import Buckets

# Plain data is cut into parts of so many rows: a constant, so that draws do not depend on the machine.
_ROWS_OF_PART = 65_536


# --- what users call ---------------------------------------------------------------------------------


def evaluate(
    model,
    X,
    y,
    metrics=None,
    slices=(),
    *,
    sample_weight=None,
    slice_data=None,
    confidence: float = 0.95,
    min_rows: int = 100,
    n_bootstrap: int = 200,
    pos_label=None,
    random_state: int = 0,
):
    """Return the metrics of a model on all rows and on slices of them, each with a confidence interval.

    Parameters
    ----------
    model : a fitted MLPClassifier, MLPRegressor or Sequential, a Pipeline, or any fitted estimator with
        scikit-learn's `predict` (and `predict_proba`), which is applied to one partition after the other.
    X : Dask or plain dataframe or array (n, p), as the model takes it.
    y : (n,) labels or numbers; of a regression also (n, q).
    metrics : names as in scikit-learn, functions (y_true, y_pred) -> a number for each row, or objects of
        class `RowMetric`. None: a few that suit the model.
    slices : what to look at apart: names of columns, `Buckets`, and tuples of these for slices by several.
    sample_weight : (n,) or None, as scikit-learn's metrics take it.
    slice_data : dataframe or series with more columns to slice by, row by row as X; the model does not see
        it.
    confidence : of the intervals.
    min_rows : slices with fewer rows are listed, with NaN for their metrics.
    n_bootstrap : replicates that the intervals are made of; 0: no intervals.
    pos_label : of two classes, the one that is looked for; None: the second of the model's classes.
    random_state : seed of the replicates.

    Returns
    -------
    pandas.DataFrame, one row a slice, all rows first: `slice`, `rows`, and for each metric `m` the columns
    `m`, `m_low`, `m_high`. `attrs["buckets"]` has the edges of buckets.

    The data is read once, where it is, and predicted once. The same partitions give the same bits on any
    cluster. Intervals are percentiles of a Poisson bootstrap over rows (see `resampling`): they say how much
    a metric would differ for other rows of the same kind, not for another training.

    ValueError: metrics, slices or columns that are not known, or a slice with too many values.
    PartitionError: bad data, with its partition. NotFittedError: the model is not fitted.
    """
    settings = Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
    found = _find([model], X, y, metrics, slices, sample_weight, slice_data, settings)
    table = []
    for one in found.slices:
        row: dict[str, Any] = {"slice": one.name, "rows": one.sums.n_rows}
        for metric in found.ledgers[0].metrics:
            estimate = found.estimate(one.sums, 0, metric)
            low, high = estimate.interval(confidence, metric)
            row |= {metric.name: estimate.value, f"{metric.name}_low": low, f"{metric.name}_high": high}
        table.append(row)
    return found.frame(table, settings)


def compare(
    model_a,
    model_b,
    X,
    y,
    metrics=None,
    slices=(),
    *,
    sample_weight=None,
    slice_data=None,
    confidence: float = 0.95,
    min_rows: int = 100,
    n_bootstrap: int = 200,
    pos_label=None,
    random_state: int = 0,
):
    """Return the metrics of two models on the same rows and slices, and by how much a is above b.

    Arguments are those of `evaluate`. Both models are asked in one pass over the data, and each replicate
    draws the same rows for both: so differences are known better than either metric.

    Returns a pandas.DataFrame, one row a slice: `slice`, `rows`, and for each metric `m` the columns `m_a`,
    `m_b`, `m_difference` (a less b) with `m_difference_low` and `m_difference_high`, and `m_differs`: whether
    that interval excludes 0. Of many slices, some will by chance.

    ValueError: as for `evaluate`, and models that predict different things.
    """
    settings = Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
    found = _find([model_a, model_b], X, y, metrics, slices, sample_weight, slice_data, settings)
    table = []
    for one in found.slices:
        row: dict[str, Any] = {"slice": one.name, "rows": one.sums.n_rows}
        for metric in found.ledgers[0].metrics:
            name = metric.name
            a, b = (found.estimate(one.sums, number, metric) for number in (0, 1))
            difference = a - b
            low, high = difference.interval(confidence)
            row |= {f"{name}_a": a.value, f"{name}_b": b.value, f"{name}_difference": difference.value}
            row |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
            row[f"{name}_differs"] = bool(low > 0 or high < 0)
        table.append(row)
    return found.frame(table, settings)


def _find(models, X, y, metrics, slices, sample_weight, slice_data, settings: Settings) -> Found:
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    X, y, sample_weight = inputs.admit(X, y, sample_weight)
    slice_data = inputs.admitted("slice_data", slice_data)
    respondents, X = responders_of(models, X, y, settings.pos_label)
    slices = slicing.resolve(slices, _columns(X, slice_data))
    problems = [respondent.problem for respondent in respondents]
    check_alike(problems)
    has_proba = all(respondent.has_proba for respondent in respondents)
    resolved = tuple(evaluation_metrics.resolve(metrics, problems[0], has_proba))
    ledgers = tuple(Ledger(problem, resolved) for problem in problems)
    respondents = [
        replace(respondent, needs_labels=ledger.needs_labels, needs_proba=ledger.needs_proba)
        for respondent, ledger in zip(respondents, ledgers, strict=True)
    ]
    parts, feature_names = _parts(X, y, sample_weight, slice_data)
    plan = Plan(ledgers, slices, parts[0].names, feature_names, settings.seed, settings.n_bootstrap)
    is_distributed = any(map(partitions.is_distributed, (X, y, sample_weight, slice_data)))
    place = next((place for place in map(place_of, models) if any(place.values())), place_of(models[0]))
    data = (X, y, sample_weight, slice_data)
    with connect(**place, distributed=True, data=data) if is_distributed else LocalExecutor() as tasks:
        sums, edges = run(tasks, plan, respondents, parts)
    everything = sums.slices[0].get(())
    if everything is None:
        raise ValueError(
            f"Expected at least one row to evaluate, found 0 samples in {len(parts)} partitions."
        )
    weight = everything.sums[0][0, ledgers[0].columns[evaluation_metrics.WEIGHT]]
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    orders = {name: _order_of(name, X, slice_data) for name in slicing.dimensions_of(slices)}
    return Found(in_order(slices, sums, edges, orders), ledgers, settings.min_rows, edges)


def _order_of(dimension, X, slice_data) -> dict | None:
    """Return the rank of each category of an ordered column, None where values have their own order."""
    for data in (slice_data, X):
        if isinstance(dimension, Buckets) or dimension not in _names(data):
            continue
        dtype = getattr(_column(data, dimension), "dtype", None)
        if getattr(dtype, "ordered", False):
            categories = dtype.categories.tolist()  # type: ignore[union-attr]
            return {value: rank for rank, value in enumerate(categories)}
    return None


# --- X, y, weights and columns to slice by, partition by partition ------------------------------------


def _names(data) -> list[Hashable]:
    if partitions.is_dataframe(data):
        return list(data.columns)
    name = getattr(data, "name", None)
    return [name] if _is_series(data) and name is not None else []


def _is_series(data) -> bool:
    # A Dask array has a name, too.
    return getattr(data, "ndim", None) == 1 and hasattr(data, "to_frame")


def _column(data, name):
    return data[name] if partitions.is_dataframe(data) else data


def _columns(X, slice_data) -> list[Hashable]:
    """Return what can be sliced by. ValueError: slice_data without names."""
    if slice_data is not None and not _names(slice_data):
        raise ValueError(
            f"Expected slice_data to be a dataframe, or a series with a name, received "
            f"{type(slice_data).__name__}. Use pandas.DataFrame or dask.dataframe.from_dask_array(..., "
            "columns=[...])."
        )
    return list(dict.fromkeys([*_names(slice_data), *_names(X)]))


def _parts(X, y, sample_weight, slice_data) -> tuple[list[partitions.Part], list | None]:
    """Return the partitions, and the columns of X, where it is a dataframe.

    In them, slice_data is a source of its own, or further columns of X where both are Dask dataframes.
    """
    names = _names(X) if partitions.is_dataframe(X) else None
    n_parts = 1
    if not partitions.is_distributed(X, y, sample_weight, slice_data):
        n_parts = max(1, -(-partitions.n_samples(X) // _ROWS_OF_PART))
    if slice_data is None:
        return partitions.parts(X, y, sample_weight, n_parts), names
    if _is_series(slice_data):
        slice_data = slice_data.to_frame()
    if partitions.is_dask_frame(X) and partitions.is_dask_frame(slice_data):
        return partitions.parts(_side_by_side(X, slice_data), y, sample_weight, n_parts), names
    parts = partitions.parts(X, y, sample_weight, n_parts)
    try:
        beside = partitions.parts(X, None, slice_data, n_parts)
    except ValueError as error:
        raise ValueError(str(error).replace("sample_weight", "slice_data")) from None
    joined = [
        partitions.Part((*part.sources, own.sources[-1]), (*part.names, ("slice_data",)))
        for part, own in zip(parts, beside, strict=True)
    ]
    return joined, names


def _side_by_side(X, slice_data):
    """Return Dask dataframes as one, partition by partition, so that a source of both is read once."""
    if X.npartitions != slice_data.npartitions:
        raise ValueError(
            f"Expected X and slice_data to have the same partitions, received {X.npartitions} and "
            f"{slice_data.npartitions}. Take them from one dataframe."
        )
    import dask.dataframe as dd

    meta = _joined(X._meta, slice_data._meta)
    return dd.map_partitions(
        _joined, X, slice_data, meta=meta, align_dataframes=False, enforce_metadata=False
    )


def _joined(X, slice_data):
    # copies no column
    both = X.copy(deep=False)
    # Whoever knows the number of the partition compares.
    both.attrs[FOR_SLICES] = len(slice_data)
    for name in slice_data.columns:
        both[f"{FOR_SLICES}{name}"] = slice_data[name].array if len(slice_data) == len(X) else None
    return both
