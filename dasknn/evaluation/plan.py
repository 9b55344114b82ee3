"""The plan of an evaluation: what tasks compute from each partition, and how their sums merge.

outcomes    answers of each model, targets, weights, columns to slice by: X is not needed any more
tallies     of columns whose edges are to be found (only for such)
edges       of all buckets
sums        of all slices (`bootstrap`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import cloudpickle
import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph, merge_tree
from dasknn.data import inputs, partitions
from dasknn.data.blocks import in_partition, load_targets, select
from dasknn.data.targets import ClassEncoder, as_numbers
from dasknn.engine.outputs import from_signs
from dasknn.evaluation import slicing
from dasknn.evaluation.bootstrap import Draws, PartSums, sum_slices
from dasknn.evaluation.estimates import Slice
from dasknn.evaluation.ledger import Ledger
from dasknn.evaluation.parts import FOR_SLICES
from dasknn.evaluation.problem import Answers, Problem
from dasknn.evaluation.responders import Responder
from dasknn.evaluation.score_sketch import CellTally
from dasknn.evaluation.slicing import Buckets, Dimension, Slices
from dasknn.exceptions import PartitionError

# Models of more bytes go to one worker first, not into the graph.
_INLINE_BYTES = 5_000_000


def run(
    tasks: Executor, plan: Plan, responders: Sequence[Responder], parts: Sequence[partitions.Part]
) -> tuple[PartSums, dict]:
    """Return the sums of all partitions, and the edges of buckets."""
    sums, edges = tasks.values_of(lambda graph: _add_sums(tasks, graph, plan, responders, parts))
    return sums, edges


def _add_sums(
    tasks: Executor,
    graph: Graph,
    plan: Plan,
    responders: Sequence[Responder],
    parts: Sequence[partitions.Part],
) -> list[Any]:
    given = add_models(tasks, graph, responders)
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


def add_models(tasks: Executor, graph: Graph, responders: Any) -> Any:
    """Add models to a graph, or send them to a worker if they are large; return an argument for tasks."""
    if len(cloudpickle.dumps(responders)) <= _INLINE_BYTES:
        return graph.add_value("dasknn-model", responders)
    return tasks.put([responders], [None])[0]


def _merged(graph: Graph, wanted: list[Any]) -> Any:
    """Add tasks that merge neighbors, a few at a time; return a reference to the sum of all."""
    return graph.add_tree(partial(merge_tree, _add), wanted)[0]


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, tuple):
        return tuple(x + y for x, y in zip(a, b, strict=True))
    return a + b


def in_order(slices: Slices, sums: PartSums, edges: dict, orders: dict) -> list[Slice]:
    """Return all slices by name, in their order. ValueError: too many values.

    Parameters
    ----------
    slices : Slices
    sums : PartSums
        Of all partitions.
    edges : dict of Buckets to their edges
    orders : dict of dimensions to the rank of their values, or None
    """
    ordered = []
    for dimensions, found in zip(slices, sums.slices, strict=True):
        slicing.check_number(", ".join(map(_name_of, dimensions)), len(found), [])
        values = slicing.in_order(found, [orders[dimension] for dimension in dimensions])
        names = [slicing.described(dimensions, one, edges) for one in values]
        if len(set(names)) < len(names):
            # The text "1" and the number 1 are two slices.
            names = [slicing.described(dimensions, one, edges, exactly=True) for one in values]
        ordered += [Slice(name, found[one]) for name, one in zip(names, values, strict=True)]
    return ordered


def _name_of(dimension: Dimension) -> str:
    return str(slicing.column_of(dimension))


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """A partition after its models have predicted.

    Attributes
    ----------
    number : int
        Of the partition.
    y : array
        Numbers of classes (n,), or numbers (n, q).
    answers : tuple of Answers
        Of each model; empty without rows.
    weight : array (n,) or None
    columns : dict
        For each dimension codes (n,) and their values; for Buckets numbers (n,).
    """

    number: int
    y: np.ndarray
    answers: tuple[Answers, ...]
    weight: np.ndarray | None
    columns: dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """The work on a partition, as a picklable object.

    Attributes
    ----------
    ledgers : tuple of Ledger
        The layout of the sums of each model.
    slices : Slices
    names : tuple of tuples of str
        The columns that each source of a partition holds: X, y, weight, slice_data.
    feature_names : list or None
        The columns of X that models take, in their order.
    seed, n_bootstrap : int
    """

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

    def outcomes(self, number: int, responders: Sequence[Responder], *values: Any) -> _Outcomes:
        """Let the models predict a partition. PartitionError: bad data."""
        with in_partition(number):
            return self._outcomes(number, responders, *values)

    def _outcomes(self, number: int, responders: Sequence[Responder], *values: Any) -> _Outcomes:
        columns = {"slice_data": None, **partitions.columns_of(self.names, values)}
        X, beside = columns["X"], columns["slice_data"]
        if X is None:
            raise PartitionError("X is None: expected an array or dataframe of rows.")
        n_rows = partitions.n_samples(X)
        n_beside = getattr(X, "attrs", {}).get(FOR_SLICES, n_rows) if beside is None else len(beside)
        if n_beside != n_rows:
            raise PartitionError(f"X has {n_rows} rows, slice_data has {n_beside}.")
        inputs.check_order({name: columns[name] for name in columns if columns[name] is not None})
        block = load_targets(n_rows, columns["y"], columns["weight"])
        block.check()
        problem = self.ledgers[0].problem
        assert block.y is not None, "there is no evaluation without y"
        y = targets_of(problem, block.y)
        found = self._columns(X, beside)
        if self.feature_names is not None:
            own = [name for name in X.columns if not str(name).startswith(FOR_SLICES)]
            X = select(X[own] if len(own) < len(X.columns) else X, self.feature_names)
        if not n_rows:
            return _Outcomes(number, y, (), block.weight, found)
        answers = tuple(
            responder.answers(X, ledger.needs_labels, ledger.needs_proba)
            for responder, ledger in zip(responders, self.ledgers, strict=True)
        )
        for answer in answers:
            check_answers(problem, answer, n_rows)
        return _Outcomes(number, y, answers, block.weight, found)

    def _columns(self, X: Any, beside: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for dimension in slicing.dimensions_of(self.slices):
            name = slicing.column_of(dimension)
            if beside is not None and name in beside.columns:
                column = beside[name]
            elif f"{FOR_SLICES}{name}" in X.columns:
                column = X[f"{FOR_SLICES}{name}"]
            else:
                column = X[name]
            if isinstance(dimension, Buckets):
                found[dimension] = dimension.numbers(column)
            else:
                found[dimension] = slicing.column_values(name, column)
        return found

    def tallies(self, outcomes: _Outcomes) -> tuple[CellTally, ...]:
        """Return a tally of the numbers of each column whose edges are to be found."""
        return tuple(one.tally(outcomes.columns[one]) for one in self.open_buckets)

    def edges(self, tallies: Sequence[CellTally]) -> dict[Buckets, tuple[float, ...]]:
        """Return the edges of all buckets."""
        edges = {one: one.n for one in self._buckets if not one.needs_edges}
        return edges | {one: one.edges(tally) for one, tally in zip(self.open_buckets, tallies, strict=True)}  # type: ignore[return-value]

    def sums(self, outcomes: _Outcomes, edges: dict) -> PartSums:
        """Return the sums of a partition. PartitionError: too many values, or a user's metric that fails."""
        with in_partition(outcomes.number):
            return self._sums(outcomes, edges)

    def _sums(self, outcomes: _Outcomes, edges: dict) -> PartSums:
        n_rows = len(outcomes.y)
        if not n_rows:
            return PartSums(tuple({} for _ in self.slices))
        center = self.ledgers[0].problem.center_of(outcomes.y)
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
            slicing.check_number(", ".join(map(_name_of, dimensions)), len(values), values)
            groups.append((codes, values))
        draws = Draws(self.seed, outcomes.number, self.n_bootstrap)
        moments = (ledger.moments(block, center) for block, ledger in enumerate(self.ledgers))
        return sum_slices(
            blocks_of, rankings, groups, draws, tuple(one for one in moments if one is not None)
        )

    def sums_at_once(self, number: int, responders: Sequence[Responder], *values: Any) -> PartSums:
        """Return the sums of a partition if all edges of buckets are known."""
        return self.sums(self.outcomes(number, responders, *values), self.edges(()))


def targets_of(problem: Problem, y: np.ndarray) -> np.ndarray:
    """Return numbers of classes (n,), or numbers (n, q). ValueError: y does not fit the model."""
    if problem.classes is None:
        numbers = as_numbers(y).astype(np.float64).reshape(len(y), prod(y.shape[1:]))
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
            f"Expected one label a row, received y with {y.shape[1]} columns. Evaluate multi-label data one "
            "column after the other, with a model of each."
        )
    if not len(y):
        return np.empty(0, dtype=np.intp)
    if problem.signed:
        y = from_signs(y)
    return ClassEncoder(problem.classes, "float64").numbers(y)


def check_answers(problem: Problem, answers: Answers, n_rows: int) -> None:
    """Raise ValueError for predictions of another shape, or that are not finite."""
    columns = () if problem.classes is not None else (problem.n_outputs,)
    expected = {"predictions": (answers.labels, (n_rows, *columns))}
    if answers.proba is not None:
        assert problem.classes is not None, "a regression has no probabilities"
        expected["probabilities"] = (answers.proba, (n_rows, len(problem.classes)))
    for name, (found, shape) in expected.items():
        if found.shape != shape:
            raise ValueError(f"Expected {name} of shape {shape} from the model, received {found.shape}.")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            row = int(np.argwhere(~np.isfinite(found))[0][0])
            raise ValueError(f"The model's {name} are not finite in row {row}.")
