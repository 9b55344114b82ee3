"""Metrics of a fitted model on slices of the data, with confidence intervals, computed where the data is.

    partition (X, y, weight, columns to slice by)
      outcomes     the model's answers, and which values rows have to slice by: X is done with
      sums         of all slices, for the whole and for each bootstrap replicate
    merged in the order of partitions, eight at a time ── a table on the driver

Only where edges of buckets are to be found in the data, two steps become of it: outcomes of all partitions
stay where they are until the edges are known.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from dasknn import measures, slicing
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph, merge_tree
from dasknn.cluster.local import LocalExecutor
from dasknn.data import inputs, partitions
from dasknn.data.blocks import Block, cast, in_partition, load_block, refuse_problems, select
from dasknn.data.columns import check_columns
from dasknn.data.targets import ClassEncoder, as_numbers
from dasknn.engine.outputs import MARGINS, PROBABILITIES, Outputs, from_signs
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.exceptions import PartitionError
from dasknn.losses import CLASSES, NUMBERS
from dasknn.measures import BINARY, MULTICLASS, REGRESSION, Answers, Ledger, Problem
from dasknn.models.sequential import Sequential
from dasknn.ranking import Tally
from dasknn.resampling import Draws, Moments, PartSums, SliceSums, interval, interval_of_none, sum_slices
from dasknn.responses import bare, place_of
from dasknn.slicing import Buckets, Slices
from dasknn.training.prediction import Predictor

# Plain data is cut into parts of so many rows: a constant, so that draws do not depend on the machine.
_ROWS_OF_PART = 65_536
# Models of more bytes go to one worker first, not into the graph.
_INLINE_BYTES = 5_000_000
# What columns of slice_data are called while they travel with X.
_FOR_SLICES = "dasknn slice_data "


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
    metrics : names as in scikit-learn, functions (y_true, y_pred) -> a number for each row, or `RowMetric`s.
        None: a few that suit the model.
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
    settings = _Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
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
    settings = _Settings(confidence, min_rows, n_bootstrap, pos_label, random_state)
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


# --- the pass over the data --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    """What to make of the sums. ValueError: settings that make no sense."""

    confidence: float
    min_rows: int
    n_bootstrap: int
    pos_label: Any
    seed: int

    def __post_init__(self):
        if not 0 < self.confidence < 1:
            raise ValueError(f"Expected confidence in (0, 1), such as 0.95, received {self.confidence!r}.")
        for name, least in (("min_rows", 0), ("n_bootstrap", 0), ("seed", 0)):
            number = getattr(self, name)
            if not isinstance(number, int | np.integer) or number < least:
                called = "random_state" if name == "seed" else name
                raise ValueError(f"Expected {called} to be an integer >= {least}, received {number!r}.")
        fewest = int(np.ceil(2 / (1 - self.confidence) - 1 - 1e-9))
        if 0 < self.n_bootstrap < fewest:
            raise ValueError(
                f"Expected n_bootstrap of {fewest} or more for confidence={self.confidence}, received "
                f"{self.n_bootstrap}. Use 0 for no intervals."
            )


@dataclass(frozen=True)
class _Slice:
    name: str
    sums: SliceSums


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A metric of a slice, and of its replicates (B,).

    shift: how far replicates lie from where they belong, since their scores are in coarse cells, or since
    drawing rows again moves the metric. trials: of a share, the number of rows that it is a share of.
    """

    value: float
    replicates: np.ndarray
    shift: float = 0.0
    trials: float | None = None

    def __sub__(self, other: _Estimate) -> _Estimate:
        replicates = (self.replicates + self.shift) - (other.replicates + other.shift)
        return _Estimate(self.value - other.value, replicates)

    def interval(self, confidence: float, metric: measures.Metric | None = None) -> tuple[float, float]:
        if np.isnan(self.value):
            return float("nan"), float("nan")
        if self.trials is not None and self.value in (0.0, 1.0) and len(self.replicates):
            # All replicates of such a share are alike, as if it were certain.
            return interval_of_none(self.value, self.trials, confidence)
        bounds = (-np.inf, np.inf) if metric is None else (metric.least, metric.most)
        return interval(self.replicates, confidence, self.shift, *bounds)


@dataclass(frozen=True)
class _Found:
    """All slices in order, with what their sums are of."""

    slices: list[_Slice]
    ledgers: tuple[Ledger, ...]
    min_rows: int
    edges: dict[Buckets, tuple[float, ...]] = field(default_factory=dict)

    def estimate(self, sums: SliceSums, number: int, metric: measures.Metric) -> _Estimate:
        """Return a metric of model `number`; NaN for too few rows."""
        ledger = self.ledgers[number]
        block, n_curves = sums.sums[number], len(ledger.ranked_classes)
        if sums.n_rows < max(self.min_rows, metric.least_rows):
            return _Estimate(float("nan"), np.full(len(block) - 1, np.nan))
        own = slice(number * n_curves, (number + 1) * n_curves)
        if metric.curve is None:
            values = ledger.value(metric, block, ())
            exact, values = float(values[0]), values[1:]
            shift = exact - np.nanmean(values) if metric.centered and len(values) else 0.0
        else:
            exact = float(ledger.value(metric, block, [tally.weights for tally in sums.tallies[own]]))
            coarse = ledger.value(metric, block, [tally.weights for tally in sums.resampled[own]])
            shift, values = exact - coarse[0], coarse[1:]
        trials = ledger.trials(metric, block[0])
        if trials is not None:
            weight = float(block[0, ledger.columns[measures.WEIGHT]][0])
            trials *= sums.n_rows / weight if weight else 0.0
        return _Estimate(exact, values, float(shift), trials)

    def frame(self, table: list[dict[str, Any]], settings: _Settings):
        from dasknn.frames import WholeFrame

        frame = WholeFrame(table)
        frame.attrs["confidence"] = settings.confidence
        frame.attrs["min_rows"] = settings.min_rows
        frame.attrs["greater_is_better"] = {
            metric.name: metric.greater_is_better for metric in self.ledgers[0].metrics
        }
        if self.edges:
            frame.attrs["buckets"] = {bucket.column: list(edges) for bucket, edges in self.edges.items()}
        return frame


def _find(models, X, y, metrics, slices, sample_weight, slice_data, settings: _Settings) -> _Found:
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    X, y, sample_weight = inputs.admit(X, y, sample_weight)
    slice_data = inputs.admitted("slice_data", slice_data)
    respondents, X = _asked(models, X, y, settings.pos_label)
    slices = slicing.resolve(slices, _columns(X, slice_data))
    problems = [respondent.problem for respondent in respondents]
    _check_alike(problems)
    has_proba = all(respondent.has_proba for respondent in respondents)
    resolved = tuple(measures.resolve(metrics, problems[0], has_proba))
    ledgers = tuple(Ledger(problem, resolved) for problem in problems)
    respondents = [
        replace(respondent, needs_labels=ledger.needs_labels, needs_proba=ledger.needs_proba)
        for respondent, ledger in zip(respondents, ledgers, strict=True)
    ]
    parts, feature_names = _parts(X, y, sample_weight, slice_data)
    plan = _Plan(ledgers, slices, parts[0].names, feature_names, settings.seed, settings.n_bootstrap)
    is_distributed = any(map(partitions.is_distributed, (X, y, sample_weight, slice_data)))
    place = next((place for place in map(place_of, models) if any(place.values())), place_of(models[0]))
    data = (X, y, sample_weight, slice_data)
    with connect(**place, distributed=True, data=data) if is_distributed else LocalExecutor() as tasks:
        sums, edges = _run(tasks, plan, respondents, parts)
    everything = sums.slices[0].get(())
    if everything is None:
        raise ValueError(
            f"Expected at least one row to evaluate, found 0 samples in {len(parts)} partitions."
        )
    weight = everything.sums[0][0, ledgers[0].columns[measures.WEIGHT]]
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    orders = {name: _order_of(name, X, slice_data) for name in slicing.dimensions_of(slices)}
    return _Found(_in_order(slices, sums, edges, orders), ledgers, settings.min_rows, edges)


def _run(tasks: Executor, plan: _Plan, respondents, parts) -> tuple[PartSums, dict]:
    """Return the sums of all partitions, and the edges of buckets."""
    found = tasks.values_of(lambda graph: _add_sums(tasks, graph, plan, respondents, parts))
    return tuple(found)  # type: ignore[return-value]


def _add_sums(tasks: Executor, graph: Graph, plan: _Plan, respondents, parts) -> list[Any]:
    size = len(cloudpickle.dumps(respondents))
    given = (
        graph.add_value("dasknn-model", respondents)
        if size <= _INLINE_BYTES
        else tasks.put([respondents], [None])[0]
    )
    sources = [part.add_to(graph) for part in parts]
    if plan.open_buckets:
        outcomes = [
            graph.add("dasknn-predict", plan.outcomes, number, given, *own)
            for number, own in enumerate(sources)
        ]
        tallies = _merged(graph, [graph.add("dasknn-tally", plan.tallies, outcome) for outcome in outcomes])
        edges = graph.add("dasknn-edges", plan.edges, tallies)
        wanted = [graph.add("dasknn-evaluate", plan.sums, outcome, edges) for outcome in outcomes]
    else:
        edges = graph.add("dasknn-edges", plan.edges, ())
        wanted = [
            graph.add("dasknn-evaluate", plan.sums_at_once, number, given, *own)
            for number, own in enumerate(sources)
        ]
    return [_merged(graph, wanted), edges]


def _merged(graph: Graph, wanted: list):
    """Add what merges neighbors, a few at a time; return a reference to the sum of all."""
    return graph.add_tree(partial(merge_tree, _add), wanted)[0]


def _add(a, b):
    if isinstance(a, tuple):
        return tuple(x + y for x, y in zip(a, b, strict=True))
    return a + b


def _in_order(slices: Slices, sums: PartSums, edges: dict, orders: dict) -> list[_Slice]:
    ordered = []
    for dimensions, found in zip(slices, sums.slices, strict=True):
        slicing.check_number(", ".join(map(_said, dimensions)), len(found), [])
        values = slicing.in_order(found, [orders[dimension] for dimension in dimensions])
        names = [slicing.described(dimensions, one, edges) for one in values]
        if len(set(names)) < len(names):
            # The text "1" and the number 1 are two slices.
            names = [slicing.described(dimensions, one, edges, exactly=True) for one in values]
        ordered += [_Slice(name, found[one]) for name, one in zip(names, values, strict=True)]
    return ordered


def _said(dimension) -> str:
    return str(slicing.column_of(dimension))


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
    both.attrs[_FOR_SLICES] = len(slice_data)
    for name in slice_data.columns:
        both[f"{_FOR_SLICES}{name}"] = slice_data[name].array if len(slice_data) == len(X) else None
    return both


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """What is kept of a partition: codes or numbers y, answers of each model, weight (n,) or None.

    columns: for each dimension codes (n,) and values; of Buckets numbers (n,).
    """

    number: int
    y: np.ndarray
    answers: tuple[Answers, ...]
    weight: np.ndarray | None
    columns: dict[Any, Any]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What workers do with a partition. names: what its sources bring; feature_names: columns of X."""

    ledgers: tuple[Ledger, ...]
    slices: Slices
    names: tuple[tuple[str, ...], ...]
    feature_names: list | None
    seed: int
    n_bootstrap: int

    @property
    def open_buckets(self) -> list[Buckets]:
        """Buckets whose edges are to be found."""
        return [one for one in self._buckets if one.needs_edges]

    @property
    def _buckets(self) -> list[Buckets]:
        return [one for one in slicing.dimensions_of(self.slices) if isinstance(one, Buckets)]

    def outcomes(self, number: int, respondents, *values) -> _Outcomes:
        """Ask the models about a partition. PartitionError: bad data."""
        with in_partition(number):
            return self._outcomes(number, respondents, *values)

    def _outcomes(self, number: int, respondents, *values) -> _Outcomes:
        columns = {"slice_data": None, **partitions.columns_of(self.names, values)}
        X, beside = columns["X"], columns["slice_data"]
        if X is None:
            raise PartitionError("X is None: expected an array or dataframe of rows.")
        n_rows = partitions.n_samples(X)
        n_beside = getattr(X, "attrs", {}).get(_FOR_SLICES, n_rows) if beside is None else len(beside)
        if n_beside != n_rows:
            raise PartitionError(f"X has {n_rows} rows, slice_data has {n_beside}.")
        inputs.check_order({name: columns[name] for name in columns if columns[name] is not None})
        # y and weights are looked at as everywhere, beside an X without columns.
        names = (("X",), ("y",), ("weight",)) if columns["weight"] is not None else (("X",), ("y",))
        rows = (np.empty((n_rows, 0)), columns["y"], columns["weight"])[: len(names)]
        block = load_block(names, np.float64, None, *rows)
        refuse_problems(block)
        problem = respondents[0].problem
        assert block.y is not None, "there is no evaluation without y"
        y = _targets(problem, block.y)
        found = self._found(X, beside)
        if self.feature_names is not None:
            own = [name for name in X.columns if not str(name).startswith(_FOR_SLICES)]
            X = select(X[own] if len(own) < len(X.columns) else X, self.feature_names)
        if not n_rows:
            return _Outcomes(number, y, (), block.weight, found)
        answers = tuple(respondent.answers(X) for respondent in respondents)
        for answer in answers:
            _check_answers(problem, answer, n_rows)
        return _Outcomes(number, y, answers, block.weight, found)

    def _found(self, X, beside) -> dict:
        found: dict[Any, Any] = {}
        for dimension in slicing.dimensions_of(self.slices):
            name = slicing.column_of(dimension)
            if beside is not None and name in beside.columns:
                column = beside[name]
            elif f"{_FOR_SLICES}{name}" in X.columns:
                column = X[f"{_FOR_SLICES}{name}"]
            else:
                column = X[name]
            if isinstance(dimension, Buckets):
                found[dimension] = dimension.numbers(column)
            else:
                found[dimension] = slicing.column_values(name, column)
        return found

    def tallies(self, outcomes: _Outcomes) -> tuple[Tally, ...]:
        """Return how many rows each number has, of each column whose edges are to be found."""
        return tuple(one.tally(outcomes.columns[one]) for one in self.open_buckets)

    def edges(self, tallies: Sequence[Tally]) -> dict[Buckets, tuple[float, ...]]:
        """Return the edges of all buckets."""
        edges = {one: one.n for one in self._buckets if not one.needs_edges}
        return edges | {one: one.edges(tally) for one, tally in zip(self.open_buckets, tallies, strict=True)}  # type: ignore[return-value]

    def sums(self, outcomes: _Outcomes, edges: dict) -> PartSums:
        """Return the sums of a partition. PartitionError: too many values, or own metrics that fail."""
        with in_partition(outcomes.number):
            return self._sums(outcomes, edges)

    def _sums(self, outcomes: _Outcomes, edges: dict) -> PartSums:
        n_rows = len(outcomes.y)
        if not n_rows:
            return PartSums(tuple({} for _ in self.slices))
        # A center near the mean keeps the digits of squares.
        center = outcomes.y.mean(axis=0) if self.ledgers[0].problem.kind == REGRESSION else np.zeros(1)
        asked = list(zip(self.ledgers, outcomes.answers, strict=True))

        def blocks_of(rows: slice) -> list[np.ndarray]:
            weight = None if outcomes.weight is None else outcomes.weight[rows]
            return [
                ledger.block(outcomes.y[rows], answers[rows], weight, center) for ledger, answers in asked
            ]

        rankings = [
            ranking
            for ledger, answers in asked
            for ranking in ledger.rankings(outcomes.y, answers, outcomes.weight)
        ]
        columns = {
            dimension: dimension.codes(found, edges[dimension]) if isinstance(dimension, Buckets) else found
            for dimension, found in outcomes.columns.items()
        }
        groups = []
        for dimensions in self.slices:
            codes, values = slicing.combined([columns[one] for one in dimensions], n_rows)
            slicing.check_number(", ".join(map(_said, dimensions)), len(values), values)
            groups.append((codes, values))
        draws = Draws(self.seed, outcomes.number, self.n_bootstrap)
        return sum_slices(blocks_of, rankings, groups, draws, self._moments(center))

    def sums_at_once(self, number: int, respondents, *values) -> PartSums:
        """Return the sums of a partition, whose buckets have known edges."""
        return self.sums(self.outcomes(number, respondents, *values), self.edges(()))

    def _moments(self, center: np.ndarray) -> tuple[Moments, ...]:
        found = []
        for block, ledger in enumerate(self.ledgers):
            columns = ledger.columns
            if measures.TARGETS in columns:
                begin, q = columns[measures.TARGETS].start, len(center)
                found.append(Moments(block, columns[measures.WEIGHT].start, begin, begin + q, center))
        return tuple(found)


def _targets(problem: Problem, y: np.ndarray) -> np.ndarray:
    """Return numbers of classes (n,), or numbers (n, q). ValueError: y that does not go with the model."""
    if problem.classes is None:
        numbers = as_numbers(y).astype(np.float64).reshape(len(y), -1)
        if numbers.shape[1] != problem.n_outputs:
            raise ValueError(f"Expected y with {problem.n_outputs} columns, received {numbers.shape[1]}.")
        return numbers
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    k = len(problem.classes)
    if y.ndim == 2:
        if problem.one_hot and y.shape[1] == k and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
            return y.argmax(axis=1)
        raise ValueError(
            f"Expected one label a row, received y with {y.shape[1]} columns. Of multi-label data evaluate "
            "one column after the other, with a function of labels as the model."
        )
    if not len(y):
        return np.empty(0, dtype=np.intp)
    if problem.signed:
        y = from_signs(y)
    return ClassEncoder(problem.classes, "float64").numbers(y)


def _check_answers(problem: Problem, answers: Answers, n_rows: int) -> None:
    columns = () if problem.classes is not None else (problem.n_outputs,)
    expected = {"predictions": (answers.labels, (n_rows, *columns))}
    if answers.proba is not None:
        assert problem.classes is not None
        expected["probabilities"] = (answers.proba, (n_rows, len(problem.classes)))
    for name, (found, shape) in expected.items():
        if found.shape != shape:
            raise ValueError(f"Expected {name} of shape {shape} from the model, received {found.shape}.")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            row = int(np.argwhere(~np.isfinite(found))[0][0])
            raise ValueError(f"The model's {name} are not finite in row {row}.")


# --- models ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Network:
    """A network of ours: one way through it gives labels and probabilities.

    says: what its outputs say of classes; None for a regression. names: the columns of a dataframe.
    """

    predictor: Predictor
    problem: Problem
    says: Outputs | None
    names: list | None
    needs_labels: bool = True
    needs_proba: bool = True

    @property
    def has_proba(self) -> bool:
        return self.says is not None and self.says.has_probabilities

    def answers(self, X) -> Answers:
        values = cast(partitions.flat_rows(X), self.predictor.network.dtype)
        self._check(values)
        outputs = self.predictor.outputs(values)
        if self.says is None:
            return Answers(outputs)
        scores = self.says.scores(outputs)
        return Answers(self.says.labels(scores), scores if self.has_proba else None)

    def _check(self, values) -> None:
        """PartitionError: NaN or infinity; it names the column."""
        try:
            refuse_problems(Block(values, None, None))
        except PartitionError:
            if self.names is None:
                raise
            row, column = np.argwhere(~np.isfinite(values))[0].tolist()
            raise PartitionError(
                f"X holds {values[row, column]} in row {row}, column {self.names[column]!r}. Expected finite "
                "numbers: drop such rows, or fill them (dask.dataframe's fillna, or an imputer)."
            ) from None


def _labels(proba: np.ndarray) -> np.ndarray:
    """Return the numbers of the likeliest classes (n,); of two, the second one only above 0.5."""
    if proba.shape[1] == 2:
        return (proba[:, 1] > 0.5).astype(np.intp)
    return proba.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class _Estimator:
    """Any fitted estimator, applied to a partition as it is."""

    model: Any
    problem: Problem
    has_proba: bool
    needs_labels: bool = True
    needs_proba: bool = True

    def answers(self, X) -> Answers:
        if self.problem.classes is None:
            numbers = np.asarray(self.model.predict(X), dtype=np.float64)
            return Answers(numbers.reshape(len(numbers), -1))
        proba = None
        if self.needs_proba or self._is_ours:
            proba = np.asarray(self.model.predict_proba(X))
        if self._is_ours:
            assert proba is not None
            # One way through the pipeline is enough.
            return Answers(_labels(proba), proba)
        if not self.needs_labels:
            assert proba is not None
            return Answers(np.zeros(len(proba), dtype=np.intp), proba)
        labels = np.asarray(self.model.predict(X))
        return Answers(ClassEncoder(self.problem.classes, "float64").numbers(labels), proba)

    @property
    def _is_ours(self) -> bool:
        return hasattr(self.model, "steps") and isinstance(self.model[-1], MLPClassifier)


def _asked(models: Sequence[Any], X, y, pos_label) -> tuple[list[Any], Any]:
    """Return what asks each model, and X as all of them take it."""
    respondents: list[_Network | _Estimator] = []
    respondent: _Network | _Estimator
    for model in models:
        if isinstance(model, Sequential):
            respondent, X = _sequential(model, X, pos_label)
        elif isinstance(model, MLPClassifier | MLPRegressor):
            respondent = _mlp(model, X, pos_label)
        else:
            respondent = _estimator(model, y, pos_label)
        respondents.append(respondent)
    return respondents, X


def _mlp(model, X, pos_label) -> _Network:
    predictor = model._predictor()
    try:
        check_columns(model, X if hasattr(X, "ndim") else np.asarray(X), reset=False)
    except ValueError as error:
        error.add_note("Columns to slice by that the model must not see go to slice_data.")
        raise
    names = list(X.columns) if partitions.is_dataframe(X) else None
    if isinstance(model, MLPRegressor):
        return _Network(predictor, Problem(REGRESSION, None, model.n_outputs_), None, names)
    if not isinstance(predictor.encoder, ClassEncoder):
        raise ValueError(_MULTILABEL)
    problem = _classes(predictor.encoder.classes, pos_label)
    return _Network(predictor, problem, Outputs(CLASSES, PROBABILITIES, predictor.network.n_outputs), names)


_MULTILABEL = (
    "Expected a model of one label a row, received one of several labels. Evaluate one label after the other."
)


def _sequential(model: Sequential, X, pos_label) -> tuple[_Network, Any]:
    if not model.built:
        raise NotFittedError("This Sequential is not built yet. Call 'fit' first.")
    names = list(X.columns) if partitions.is_dataframe(X) else None
    X = model._ready(X)
    network = model._built_network()
    assert model._members is not None
    predictor = Predictor(network, model._members, None)
    says = Outputs.of_network(network)
    if says.of == NUMBERS:
        return _Network(predictor, Problem(REGRESSION, None, network.n_outputs), None, names), X
    if says.is_multilabel:
        raise ValueError(_MULTILABEL)
    problem = _classes(says.classes, pos_label)
    problem = replace(problem, one_hot=says.of == CLASSES, signed=says.scale == MARGINS)
    return _Network(predictor, problem, says, names), X


def _estimator(model, y, pos_label) -> _Estimator:
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise TypeError(
            f"Expected a fitted model with predict (an estimator, a Pipeline or a Sequential), received "
            f"{model!r:.80}."
        )
    if hasattr(model, "steps") and isinstance(model[-1], Sequential):
        raise ValueError(
            "Expected a Pipeline that ends in a classifier or a regressor, received one that ends in a "
            "Sequential. Evaluate its last step: dasknn.evaluate(pipeline[-1], pipeline[:-1].transform(X), "
            "y, slice_data=X)."
        )
    check_is_fitted(model)
    model = bare(model)
    if is_regressor(model):
        n_outputs = np.shape(y)[1] if np.ndim(y) == 2 else 1
        return _Estimator(model, Problem(REGRESSION, None, int(n_outputs)), has_proba=False)
    classes = getattr(model, "classes_", None)
    if not is_classifier(model) or classes is None:
        raise TypeError(
            f"Expected a classifier with classes_ or a regressor, received {type(model).__name__}."
        )
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise ValueError(_MULTILABEL)
    return _Estimator(model, _classes(np.asarray(classes), pos_label), hasattr(model, "predict_proba"))


def _classes(classes: np.ndarray, pos_label) -> Problem:
    known = classes.tolist()
    if len(known) < 2:
        raise ValueError(f"Expected a classifier of two classes or more, received one of {known} alone.")
    if pos_label is None:
        return Problem(BINARY if len(known) == 2 else MULTICLASS, classes)
    if len(known) > 2 or pos_label not in known:
        raise ValueError(
            f"Expected pos_label to be one of two classes, received {pos_label!r} for {known[:20]}."
        )
    return Problem(BINARY, classes, positive=known.index(pos_label))


def _check_alike(problems: Sequence[Problem]) -> None:
    for other in problems[1:]:
        first = problems[0]
        one, two = (None if p.classes is None else p.classes.tolist() for p in (first, other))
        if (first.kind, one) != (other.kind, two):
            raise ValueError(
                f"Expected two models that predict the same, received {first.kind} of {one} and {other.kind} "
                f"of {two}."
            )
