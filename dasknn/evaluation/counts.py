"""Counts for plots: made from each partition where it is, and merged on the way to this process.

    partition (X, y, weight)  ──  counts ──┐
    partition (X, y, weight)  ──  counts ──┼── merged, eight at a time ── counts of all rows
    partition (X, y, weight)  ──  counts ──┘

Confusion matrices follow from `LabelCounts`, curves from a `score_sketch.Tally` each. The size of counts does
not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.data import partitions
from dasknn.data.blocks import load_targets, select
from dasknn.data.partitions import Part, columns_of, n_samples
from dasknn.engine.outputs import from_signs
from dasknn.evaluation.responders import ANYWHERE, Responder

# More distinct labels than this are hardly classes, and make no readable picture.
_MOST_LABELS = 1_000

#: (responder, X, y (n,) or (n, k), weight (n,) or None) -> counts, each of a type with `merged`.
Count = Callable[[Responder, Any, np.ndarray, np.ndarray | None], list]


# --- labels ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """The weight of rows by true and predicted label.

    Attributes
    ----------
    labels : array (k,), ascending
    matrix : float64 array (k, k)
        A row for each true label, a column for each predicted one.
    """

    labels: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None = None) -> LabelCounts:
        """Count labels (n,), with weights (n,). ValueError: they are not labels of one kind."""
        labels = _union([_distinct(y_true), _distinct(y_pred)])
        k = len(labels)
        cells = np.searchsorted(labels, y_true) * k + np.searchsorted(labels, y_pred)
        if weight is not None:
            weight = np.asarray(weight, dtype=np.float64)
        return cls(labels, np.bincount(cells, weight, k * k).astype(np.float64).reshape(k, k))

    @classmethod
    def merged(cls, parts: Sequence[LabelCounts]) -> LabelCounts:
        """Return the counts of all rows of the parts. ValueError: their labels are of several kinds."""
        labels = _union([part.labels for part in parts])
        matrix = np.zeros((len(labels), len(labels)))
        for part in parts:
            at = np.searchsorted(labels, part.labels)
            matrix[np.ix_(at, at)] += part.matrix
        return cls(labels, matrix)

    def of_labels(self, labels: Sequence | np.ndarray) -> np.ndarray:
        """Return the matrix of these labels in this order; 0 for labels that no row has."""
        known = {label: i for i, label in enumerate(self.labels.tolist())}
        wanted = [known.get(label) for label in np.asarray(labels).tolist()]
        here = [i for i, number in enumerate(wanted) if number is not None]
        at = [number for number in wanted if number is not None]
        matrix = np.zeros((len(wanted), len(wanted)))
        matrix[np.ix_(here, here)] = self.matrix[np.ix_(at, at)]
        return matrix


def _distinct(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f" and np.any(labels != np.floor(labels)):
        fraction = labels[labels != np.floor(labels)][0]
        raise ValueError(
            f"Expected labels of classes, received numbers with fractions such as {fraction:g}. Use "
            "RocCurveDisplay, PrecisionRecallDisplay or CalibrationDisplay for scores and probabilities."
        )
    try:
        return np.unique(labels)
    except TypeError:
        raise ValueError(
            f"Expected labels of one kind, received several, such as {labels[:5].tolist()}."
        ) from None


def _union(several: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sorted distinct labels of all. ValueError: several kinds, or too many for classes."""
    several = [labels for labels in several if len(labels)] or list(several[:1])
    text = [labels.dtype.kind in "OUST" for labels in several]
    if any(text) and not all(text):
        examples = {is_text: labels[0] for is_text, labels in zip(text, several, strict=True)}
        raise ValueError(
            f"Expected labels of one kind, received text such as {str(examples[True])!r} and numbers such as "
            f"{examples[False]}."
        )
    union = np.unique(np.concatenate(several))
    if len(union) > _MOST_LABELS:
        raise ValueError(
            f"Expected classes, received more than {_MOST_LABELS} distinct labels, such as "
            f"{union[:3].tolist()}."
        )
    return union


def count_labels(responder: Responder, X: Any, y: np.ndarray, weight: np.ndarray | None) -> list[LabelCounts]:
    """Count the labels that a responder predicts for X (see `Count`).

    ValueError: several labels for each row, or values that are not labels.
    """
    # Estimators of other packages refuse X without rows.
    is_empty = not n_samples(X) and responder.classes is not None
    labels = responder.known_classes[:0] if is_empty else responder.labels(X)
    if responder.signed:
        y = from_signs(y)
    if y.ndim == 2 and labels.ndim == 1 and set(np.unique(y).tolist()) <= {0, 1}:
        # One-hot, as Keras's categorical_crossentropy takes them.
        y = y.argmax(axis=1)
    if y.ndim != 1 or labels.ndim != 1:
        raise ValueError(
            f"Expected true and predicted labels (n,), received shapes {y.shape} and {labels.shape}. If rows "
            "have several labels, draw a confusion matrix for each column."
        )
    return [LabelCounts.of(y, labels, weight)]


# --- over partitions ---------------------------------------------------------------------------------


def counted(
    count: Count,
    responder: Responder,
    X: Any,
    y: Any,
    sample_weight: Any,
    place: Mapping[str, Any] = ANYWHERE,
) -> list:
    """Return the counts of all rows, made where the rows are.

    Parameters
    ----------
    count : Count
        Is applied to each partition.
    responder : Responder
    X, y, sample_weight : Dask collections or plain data
    place : settings of `connect`

    Raises
    ------
    PartitionError
        Columns of different lengths, missing targets, weights below 0; it names the partition. A note names
        it for errors of `count`.
    """
    if partitions.is_distributed(X, y, sample_weight):
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        with connect(**place, distributed=True, data=(X, y, sample_weight)) as tasks:
            return _count_parts(tasks, parts, partial(_with_columns, count, names), responder)
    with LocalExecutor() as tasks:
        return _count_parts(tasks, partitions.parts(X, y, sample_weight), count, responder)


def _count_parts(tasks: Executor, parts: Sequence[Part], count: Count, responder: Responder) -> list:
    def add_counts(graph: Graph) -> list[Any]:
        given = graph.add_value("dasknn-model", responder)
        found: list[Any] = [
            graph.add("dasknn-count", partial(_count, count, part.names, number), given, *part.add_to(graph))
            for number, part in enumerate(parts)
        ]
        # Merged by tasks: this process gets the counts of all rows, not those of each partition.
        return graph.add_tree(_merged, found)

    return tasks.values_of(add_counts)[0]


def _with_columns(
    count: Count,
    names: list | None,
    responder: Responder,
    X: Any,
    y: np.ndarray,
    weight: np.ndarray | None,
) -> list:
    # The partitions of a Dask dataframe may have its columns in another order.
    return count(responder, select(X, names), y, weight)


def _count(
    count: Count, names: tuple[tuple[str, ...], ...], number: int, responder: Responder, *values: Any
) -> list:
    columns = columns_of(names, values)
    block = load_targets(n_samples(columns["X"]), columns["y"], columns["weight"])
    block.check(number)
    y = block.y
    assert y is not None, "there are no counts without targets"
    try:
        return count(responder, columns["X"], y[:, 0] if y.shape[1:] == (1,) else y, block.weight)
    except Exception as error:
        error.add_note(f"This happened in partition {number}.")
        raise


def _merged(*several: list) -> list:
    return [type(counts[0]).merged(counts) for counts in zip(*several, strict=True)]


def check_lengths(**columns: Any) -> None:
    """Raise ValueError for lengths that are known and differ."""
    lengths = {
        name: partitions.n_samples(column)
        for name, column in columns.items()
        if column is not None and not (partitions.is_dask_frame(column) or isinstance(column, float | int))
    }
    known = {name: n for name, n in lengths.items() if not np.isnan(n)}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in known.items())
        raise ValueError(f"Expected as many rows in each, received: {told}.")
