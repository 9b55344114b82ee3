"""Counts from which curves and confusion matrices follow, made where the rows are, and merged.

    partition (X, y, weight)  ──  counts ──┐
    partition (X, y, weight)  ──  counts ──┼── merged, eight at a time ── counts of all rows
    partition (X, y, weight)  ──  counts ──┘

Their size does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data.partitions import Part, columns_of, n_samples
from dasknn.data.targets import as_array, first_missing
from dasknn.exceptions import PartitionError

# Distinct scores that are kept apart, for all curves of a picture together.
_N_SCORES = 2**17
# A single curve has at most so many bins, and one of many at least so many.
_MOST_BINS, _FEWEST_BINS = 2**15, 2**10
# More distinct labels than this are no classes, or make no picture.
_MOST_LABELS = 1_000


def bins_for(n_curves: int) -> int:
    """Return the number of bins that each of so many curves may have."""
    return min(_MOST_BINS, max(_FEWEST_BINS, _N_SCORES // max(n_curves, 1)))


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """What positive and negative rows weigh at each score: scores (m,) ascending, positive, negative (m,).

    n_rows: rows that weigh anything. n_bins: up to twice as many distinct scores are kept as they are; of
    more, neighbors share a bin, at their mean. A bin holds equal shares of the positive and the negative
    weight together: where few rows are positive, the curve is as fine as elsewhere.
    """

    scores: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    n_rows: int
    n_bins: int = _MOST_BINS

    @classmethod
    def of(cls, is_positive, scores, weight=None, n_bins: int = _MOST_BINS) -> ScoreCounts:
        """is_positive (n,) bool; scores (n,) finite; weight (n,) >= 0 or None."""
        scores = np.asarray(scores, dtype=np.float64)
        weight = np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=np.float64)
        positive = np.where(is_positive, weight, 0.0)
        return _sorted(scores, positive, weight - positive, int(np.count_nonzero(weight)), n_bins)

    @classmethod
    def merged(cls, parts: Sequence[ScoreCounts]) -> ScoreCounts:
        """Return the counts of all rows of the parts."""
        scores, positive, negative = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("scores", "positive", "negative")
        )
        return _sorted(scores, positive, negative, sum(part.n_rows for part in parts), parts[0].n_bins)

    @property
    def totals(self) -> tuple[float, float]:
        """Weight of all positive rows, and of all negative ones."""
        return float(self.positive.sum()), float(self.negative.sum())

    def as_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (is_positive, score, weight): a few rows that weigh what all rows do, for scikit-learn."""
        is_positive = np.repeat([True, False], len(self.scores))
        return is_positive, np.tile(self.scores, 2), np.concatenate([self.positive, self.negative])

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Return the scores below which these shares of the weight lie, interpolated as numpy does."""
        weight = self.positive + self.negative
        ends = np.cumsum(weight)
        # As many rows of the mean weight: numpy places the first at 0 and the last at 1.
        a_row = ends[-1] / self.n_rows
        begins = ends - weight
        last_rows = np.maximum(ends - a_row, begins)
        positions = np.column_stack([begins, last_rows]).ravel()
        return np.interp(shares * last_rows[-1], positions, np.repeat(self.scores, 2))

    def binned(self, edges: np.ndarray) -> BinnedScores:
        """Return the sums of bins between these edges."""
        weight = self.positive + self.negative
        return BinnedScores.of_sums(self.scores, weight, self.positive, edges)


def _sorted(scores, positive, negative, n_rows: int, n_bins: int) -> ScoreCounts:
    """Return counts of scores in any order, several of which may be equal."""
    kept = np.flatnonzero(positive + negative)
    kept = kept[np.argsort(scores[kept], kind="stable")]
    scores, positive, negative = scores[kept], positive[kept], negative[kept]
    if len(scores):
        begins = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
        scores, positive, negative = (
            scores[begins],
            np.add.reduceat(positive, begins),
            np.add.reduceat(negative, begins),
        )
    if len(scores) > 2 * n_bins:
        scores, positive, negative = _in_bins(scores, positive, negative, n_bins)
    return ScoreCounts(scores, positive, negative, n_rows, n_bins)


def _in_bins(scores, positive, negative, n_bins: int):
    """Put neighboring scores together, so that at most n_bins are left."""
    shares = sum(part / total for part in (positive, negative) if (total := part.sum()))
    ends = np.cumsum(shares)
    # By their middles: a score that many rows have does not draw its neighbors into its bin.
    bins = ((ends - shares / 2) / ends[-1] * n_bins).astype(np.intp)
    begins = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    weight = positive + negative
    means = np.add.reduceat(scores * weight, begins) / np.add.reduceat(weight, begins)
    return means, np.add.reduceat(positive, begins), np.add.reduceat(negative, begins)


@dataclass(frozen=True, eq=False)
class BinnedScores:
    """Sums over the rows of each bin: their weight, weight * score, and the weight of positive rows; (m,)."""

    weight: np.ndarray
    score_sum: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(cls, is_positive, scores, weight, edges: np.ndarray) -> BinnedScores:
        """is_positive, scores (n,); weight (n,) or None; edges (m + 1,): a bin holds its right edge."""
        scores = np.asarray(scores, dtype=np.float64)
        weight = np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=np.float64)
        return cls.of_sums(scores, weight, np.where(is_positive, weight, 0.0), edges)

    @classmethod
    def of_sums(cls, scores, weight, positive, edges: np.ndarray) -> BinnedScores:
        """scores (n,), what all rows weigh at each, and what positive ones do."""
        bins = np.searchsorted(edges[1:-1], scores)
        return cls(
            *(np.bincount(bins, values, len(edges) - 1) for values in (weight, weight * scores, positive))
        )

    @classmethod
    def merged(cls, parts: Sequence[BinnedScores]) -> BinnedScores:
        """Return the sums over all rows of the parts."""
        return cls(
            *(
                np.sum([getattr(part, name) for part in parts], axis=0)
                for name in ("weight", "score_sum", "positive")
            )
        )

    @property
    def totals(self) -> tuple[float, float]:
        """Weight of all positive rows, and of all negative ones."""
        positive = float(self.positive.sum())
        return positive, float(self.weight.sum()) - positive

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (share of positive rows, mean score) of each bin that holds any."""
        held = self.weight > 0
        return self.positive[held] / self.weight[held], self.score_sum[held] / self.weight[held]


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
