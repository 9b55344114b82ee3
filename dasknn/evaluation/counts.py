"""Counts from which curves and confusion matrices follow, made where the rows are, and merged.

    partition (X, y, weight)  ──  counts ──┐
    partition (X, y, weight)  ──  counts ──┼── merged, eight at a time ── counts of all rows
    partition (X, y, weight)  ──  counts ──┘

Their size does not grow with the number of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.data import partitions
from dasknn.data.blocks import select
from dasknn.data.partitions import Part, columns_of, n_samples
from dasknn.data.targets import as_array, first_missing
from dasknn.engine.outputs import MARGINS, from_signs
from dasknn.evaluation.responders import (
    ANYWHERE,
    Classifier,
    Given,
    Network,
    place_of,
    responder_of,
    rows_for,
)
from dasknn.exceptions import PartitionError

# More distinct labels than this are no classes, or make no picture.
_MOST_LABELS = 1_000


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """What rows weigh by true and predicted label: labels (k,) sorted; matrix (k, k), rows by true label."""

    labels: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, y_true, y_pred, weight=None) -> LabelCounts:
        """y_true, y_pred (n,) of labels; weight (n,) or None. ValueError: what is not labels of one kind."""
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

    def of_labels(self, labels: Sequence) -> np.ndarray:
        """Return the matrix of these labels in this order, 0 for those that no row has."""
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
            f"Expected labels of classes, received numbers with fractions such as {fraction:g}. Scores and "
            "probabilities are for RocCurveDisplay, PrecisionRecallDisplay and CalibrationDisplay."
        )
    try:
        return np.unique(labels)
    except TypeError:
        raise ValueError(
            f"Expected labels of one kind, received several, such as {labels[:5].tolist()}."
        ) from None


def _union(several: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sorted distinct labels of all. ValueError: of several kinds, or too many for classes."""
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


# --- over partitions ---------------------------------------------------------------------------------


def count_rows(tasks: Executor, parts: Sequence[Part], count: Callable, model: Any) -> list:
    """Return the merged counts of all parts. count(model, X, y, weight) returns a list of them for one.

    y and weight (n,) or None. PartitionError: rows that do not match, missing targets, weights below 0; the
    partition is named, in a note for what `count` raises.
    """

    def add_counts(graph: Graph) -> list[Any]:
        given = graph.add_value("dasknn-model", model)
        found: list[Any] = [
            graph.add("dasknn-count", partial(_count, count, part.names, number), given, *part.add_to(graph))
            for number, part in enumerate(parts)
        ]
        # By a tree on the workers: this process gets the counts of all rows, not those of each partition.
        return graph.add_tree(_merged, found)

    return tasks.values_of(add_counts)[0]


def _count(count: Callable, names, number: int, model, *values) -> list:
    columns = columns_of(names, values)
    X, y, weight = columns["X"], as_array(columns["y"]), columns["weight"]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if weight is not None:
        weight = as_array(weight).reshape(-1).astype(np.float64)
    if problem := _problem(n_samples(X), y, weight):
        raise PartitionError(f"Partition {number}: {problem}")
    try:
        return count(model, X, y, weight)
    except Exception as error:
        error.add_note(f"This happened in partition {number}.")
        raise


def _problem(n_rows: int, y: np.ndarray, weight: np.ndarray | None) -> str | None:
    for name, column in (("targets", y), ("sample weights", weight)):
        if column is not None and len(column) != n_rows:
            return f"expected as many {name} as rows, {n_rows}, received {len(column)}."
    if (row := first_missing(y)) is not None:
        return f"the target in row {row} is {y[row]}. Drop such rows."
    if weight is not None and not np.all((weight >= 0) & (weight < np.inf)):
        row = int(np.argmin((weight >= 0) & (weight < np.inf)))
        return f"the sample weight in row {row} is {weight[row]:g}; expected finite numbers >= 0."
    return None


def _merged(*several: list) -> list:
    return [type(counts[0]).merged(counts) for counts in zip(*several, strict=True)]


# More lines than this cannot be told apart.
MOST_CURVES = 28


def counted(count: Callable, responder, X, y, sample_weight, place: Mapping[str, Any] = ANYWHERE) -> list:
    """Return what count(responder, X, y, weight) comes to over all rows, counted where they are."""
    if partitions.is_distributed(X, y, sample_weight):
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        with connect(**place, distributed=True, data=(X, y, sample_weight)) as tasks:
            return count_rows(tasks, parts, partial(_with_columns, count, names), responder)
    with LocalExecutor() as tasks:
        return count_rows(tasks, partitions.parts(X, y, sample_weight), count, responder)


def _with_columns(count: Callable, names: list | None, responder, X, y, weight) -> list:
    # A Dask dataframe may announce its columns in another order than its partitions have them.
    return count(responder, select(X, names), y, weight)


def check_lengths(**columns) -> None:
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


# --- labels ------------------------------------------------------------------------------------------


def count_labels(responder, X, y, weight) -> list[LabelCounts]:
    """Count the labels that a model predicts for X."""
    labels = responder.labels(X) if partitions.n_samples(X) else responder.classes[:0]
    if isinstance(responder, Network) and responder.says.scale == MARGINS:
        y = from_signs(y)
    return _pairs(y, labels, weight)


def count_given_labels(_, y_pred, y, weight) -> list[LabelCounts]:
    """Count labels that were predicted before."""
    labels = as_array(y_pred)
    return _pairs(y, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels, weight)


def _pairs(y, labels, weight) -> list[LabelCounts]:
    if y.ndim == 2 and labels.ndim == 1 and set(np.unique(y).tolist()) <= {0, 1}:
        # One-hot, as Keras's categorical_crossentropy takes them.
        y = y.argmax(axis=1)
    if y.ndim != 1 or labels.ndim != 1:
        raise ValueError(
            f"Expected true and predicted labels (n,), received shapes {y.shape} and {labels.shape}. Of "
            "several labels a row, draw one column after the other."
        )
    return [LabelCounts.of(y, labels, weight)]


# --- scores ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """The counts of the curves of a picture: one, or one for each class."""

    counts: list
    classes: list
    pos_label: Any

    @property
    def is_single(self) -> bool:
        """Whether there is one curve."""
        return len(self.counts) == 1

    def names(self, name: str | None) -> list[str | None]:
        """Return what to call each curve, of a model of that name."""
        if self.is_single:
            return [name]
        return [str(label) if name is None else f"{name}, {label}" for label in self.classes]


def curves_of_model(count: Callable, method: str, estimator, X, y, sample_weight, pos_label) -> Curves:
    """Count the scores of a model: of pos_label, of the second of two classes, or of each class."""
    responder = responder_of(estimator, method)
    if len(responder.classes) == 1:
        raise ValueError(
            f"Expected a classifier of two classes or more, received one of {responder.classes[0]!r} alone."
        )
    columns = _columns_of(responder, pos_label)
    X = rows_for(estimator, X)
    return _curves(count, responder, columns, X, y, sample_weight, place_of(estimator))


def curves_of_scores(count: Callable, y_true, y_score, sample_weight, pos_label, labels) -> Curves:
    """Count scores that there are already: (n,) of the positive class, or (n, k), a column a class."""
    check_lengths(y_true=y_true, y_score=y_score, sample_weight=sample_weight)
    if not hasattr(y_score, "ndim"):
        y_score = np.asarray(y_score)
    n_columns = 1 if y_score.ndim == 1 else _n_columns(y_score)
    if n_columns == 1:
        if labels is not None:
            raise ValueError(
                f"Expected scores (n, k), a column for each of labels={labels!r:.80}, received one column."
            )
        # As they are: they are those of the positive class.
        responder = Given(np.asarray([1 if pos_label is None else pos_label]), binary=pos_label is None)
        return _curves(count, responder, [0], y_score, y_true, sample_weight)
    as_text = labels is None and partitions.is_dataframe(y_score)
    if labels is None:
        labels = [str(name) for name in y_score.columns] if as_text else list(range(n_columns))
        pos_label = str(pos_label) if as_text and pos_label is not None else pos_label
    if len(labels) != n_columns:
        raise ValueError(f"Expected labels for {n_columns} columns of scores, received {len(labels)}.")
    wide = getattr(y_true, "ndim", np.ndim(y_true)) == 2 and _n_columns(y_true) > 1
    responder = Given(np.asarray(labels), multilabel=wide, as_text=as_text)
    return _curves(count, responder, _columns_of(responder, pos_label), y_score, y_true, sample_weight)


def _n_columns(table) -> int:
    return len(table.columns) if partitions.is_dataframe(table) else int(np.shape(table)[1])


def _columns_of(responder: Classifier | Network | Given, pos_label) -> list[int]:
    """Return which columns of scores have a curve: pos_label, the second of two classes, or each."""
    classes = responder.classes.tolist()
    if pos_label is not None:
        if pos_label not in classes:
            raise ValueError(f"Expected pos_label to be one of {classes[:20]}, received {pos_label!r}.")
        return [classes.index(pos_label)]
    return [1] if len(classes) == 2 and not responder.multilabel else list(range(len(classes)))


def _curves(count, responder, columns: list[int], X, y, sample_weight, place=ANYWHERE) -> Curves:
    if len(columns) > MOST_CURVES:
        raise ValueError(
            f"Expected at most {MOST_CURVES} classes to draw a curve each, received {len(columns)}. Choose "
            "one with pos_label=..."
        )
    counts = counted(partial(_count_columns, count, columns), responder, X, y, sample_weight, place)
    classes = responder.classes[columns].tolist()
    drawn = [(found, label) for found, label in zip(counts, classes, strict=True) if all(found.totals)]
    if not drawn:
        positive, negative = counts[0].totals
        raise ValueError(
            f"Expected rows of {classes[0]!r} and others, received rows that weigh {positive:g} and "
            f"{negative:g}. Look at the labels of y and, where there is one, at pos_label."
        )
    if missing := [label for found, label in zip(counts, classes, strict=True) if not all(found.totals)]:
        warnings.warn(
            f"No curve for {missing}: there are no rows of that class, or no others.",
            UndefinedMetricWarning,
            stacklevel=5,
        )
    shown = [label for _, label in drawn]
    return Curves([found for found, _ in drawn], shown, classes[0] if len(columns) == 1 else None)


def _count_columns(count: Callable, columns: list[int], responder, X, y, weight) -> list:
    """Return count(n_curves, is_positive, scores, weight) for each of these columns of scores."""
    k = len(responder.classes)
    scores = responder.scores(X) if len(y) else np.empty((0, k))
    if scores.shape[1] != k or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected scores of numbers (n, {k}), received {scores.shape} of dtype {scores.dtype}. Use "
            "predict_proba, not the labels that predict returns."
        )
    bad = ~np.isfinite(scores).all(axis=1)
    if bad.any():
        raise ValueError(f"Expected finite scores, received {scores[bad][0]} in row {int(bad.argmax())}.")
    if getattr(responder, "binary", False):
        _check_binary(y)
    if y.ndim == 2 and y.shape[1] != k:
        raise ValueError(f"Expected targets (n,) or (n, {k}), received shape {y.shape}.")
    if y.ndim == 1 and getattr(responder, "as_text", False):
        y = y.astype(str)
    of_classes = (y[:, j] == 1 if y.ndim == 2 else y == responder.classes[j] for j in columns)
    return [
        count(len(columns), np.broadcast_to(is_positive, len(y)), scores[:, j], weight)
        for is_positive, j in zip(of_classes, columns, strict=True)
    ]


def _check_binary(y: np.ndarray) -> None:
    if y.ndim != 1:
        raise ValueError(f"Expected y_true (n,) for scores (n,), received shape {y.shape}.")
    found = set(np.unique(y).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        raise ValueError(
            f"y_true takes value in {sorted(found)[:10]} and pos_label is not specified: either make y_true "
            "take value in {0, 1} or {-1, 1} or pass pos_label explicitly."
        )
