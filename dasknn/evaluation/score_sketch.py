"""Weights by distinct score or number: one mergeable sketch for rankings, curves, bins and edges.

    scores (n,)     probabilities, or any numbers
      keys          their order: int64 (`keys_of_probabilities`, `keys_of_numbers`), or the scores themselves
      Tally         distinct keys (m,), ascending, and the summed weights (m, ...) of their rows
      roc_auc, average_precision, quantiles, equal_frequency_edges

Tallies of parts merge into the tally of all rows. Up to a limit of distinct keys this is exact. Beyond it,
neighboring keys are counted together, by one of two rules, because no rule keeps both promises:

`CellTally`: cells whose borders depend on no data (keys without their low bits). Tallies then add up to the
same tally in any order, the replicates of a bootstrap have the cells of the exact weights, and edges are
numbers of the data. But a single cell can hold most of the rows, if others are scattered over many cells:
no error of an area is guaranteed. `evaluate` and `Buckets` use it.

`ShareTally`: bins that hold equal shares of the weight. They bound the error of an area, however close scores
are together. But borders follow from the rows that were merged so far, so the bins depend on the order of
merging. The curves of plots use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

# Most distinct keys of a CellTally before low bits are dropped.
MOST_DISTINCT = 100_000
# Most bins of one curve, fewest of one of many, and bins of all curves of a plot together.
_MOST_BINS, _FEWEST_BINS, _BINS_OF_ALL = 2**15, 2**10, 2**17
# The bits of 0.5, where the two halves of the probabilities meet.
_HALF = int(np.array(0.5).view(np.int64))


# --- keys --------------------------------------------------------------------------------------------


def keys_of_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return scores in [0, 1] as int64 (n,) in the same order.

    The distance of two keys follows that to 0 or to 1, which is nearer: when bits are dropped, 0.999999 and
    0.9999 stay as far apart as 0.000001 and 0.0001.
    """
    scores = np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0) + 0.0
    is_low = scores <= 0.5
    # 1 - s is exact for s in [0.5, 1].
    nearest = np.where(is_low, scores, 1.0 - scores).view(np.int64)
    return np.where(is_low, nearest, 2 * _HALF - nearest)


def keys_of_numbers(values: np.ndarray) -> np.ndarray:
    """Return numbers other than NaN as int64 (n,) in the same order."""
    # Without 0.0 a negative zero would come before it.
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.int64)
    # Negative floats have the order of their sizes.
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def numbers_of_keys(keys: np.ndarray) -> np.ndarray:
    """Return the numbers (n,) from which `keys_of_numbers` made these keys."""
    return np.where(keys < 0, keys ^ np.int64(2**63 - 1), keys).view(np.float64)


# --- the sketch --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tally(ABC):
    """Summed weights by distinct key; tallies of parts merge into the tally of all rows.

    Attributes
    ----------
    keys : array (m,), ascending and distinct
    weights : float64 array (m, ...)
        The sums over the rows of each key. For rankings (m, 2, ...): of negative and of positive rows.
    """

    keys: np.ndarray
    weights: np.ndarray

    @classmethod
    @abstractmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Return the tally of all rows of the parts."""

    def __add__(self, other: Self) -> Self:
        return self.merged([self, other])

    @property
    def totals(self) -> np.ndarray:
        """Weights of all rows, (...)."""
        return self.weights.sum(axis=0)


def _joined(parts: Sequence[Tally]) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of all parts, ascending and distinct, and their summed weights."""
    keys, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "weights"))
    return sums_by_key(keys, weights)


def sums_by_key(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct keys, ascending, and the summed weights of their rows."""
    order = np.argsort(keys, kind="stable")
    return _sums_of_sorted(keys[order], weights[order])


def _sums_of_sorted(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if n_distinct(keys) == len(keys):
        return keys, weights
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.add.reduceat(weights, begins, axis=0)


def n_distinct(ascending: np.ndarray) -> int:
    """Return the number of different values in an ascending array."""
    return int(np.count_nonzero(ascending[1:] != ascending[:-1])) + bool(len(ascending))


# --- cells that depend on no data ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellTally(Tally):
    """A tally by int64 keys whose low bits are dropped, as many as it takes to stay within a limit.

    How many bits that is depends on the distinct keys of all rows alone, so the order of merging is free.

    Attributes
    ----------
    level : int
        The number of low bits that were dropped from all keys.
    limit : int
        The most keys that there may be.
    """

    level: int = 0
    limit: int = MOST_DISTINCT

    @classmethod
    def of(cls, keys: np.ndarray, weights: np.ndarray, limit: int = MOST_DISTINCT) -> Self:
        """Tally rows: keys (n,) in any order, weights (n, ...)."""
        order = np.argsort(keys, kind="stable")
        return cls.of_sorted(keys[order], weights[order], limit)

    @classmethod
    def of_sorted(cls, keys: np.ndarray, weights: np.ndarray, limit: int = MOST_DISTINCT) -> Self:
        """Tally rows whose keys ascend."""
        return cls(*_sums_of_sorted(keys, np.asarray(weights, dtype=np.float64)), 0, limit).within(limit)

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        level, limit = max(part.level for part in parts), min(part.limit for part in parts)
        return cls(*_joined([part.at_level(level) for part in parts]), level, limit).within(limit)

    def at_level(self, level: int) -> Self:
        """Return the tally with at least so many bits dropped."""
        if level <= self.level:
            return self
        return type(self)(*_sums_of_sorted(cells(self.keys, level), self.weights), level, self.limit)

    def within(self, limit: int) -> Self:
        """Return the tally with as many bits dropped as it takes to have no more keys than the limit."""
        fitting = self if len(self.keys) <= limit else self.at_level(level_for(self.keys, limit))
        return type(self)(fitting.keys, fitting.weights, fitting.level, limit)


def cells(keys: np.ndarray, level: int) -> np.ndarray:
    """Return keys with so many low bits dropped: the least key of the cell that each is in."""
    return (keys >> level) << level


def level_for(keys: np.ndarray, limit: int) -> int:
    """Return the least number of low bits to drop from ascending keys so that at most `limit` differ."""
    low, high = 0, 63
    while low < high:
        middle = (low + high) // 2
        if n_distinct(keys >> middle) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


# --- bins of equal shares --------------------------------------------------------------------------------


def bins_for(n_curves: int) -> int:
    """Return the number of bins that each of so many curves may have."""
    return min(_MOST_BINS, max(_FEWEST_BINS, _BINS_OF_ALL // max(n_curves, 1)))


@dataclass(frozen=True, eq=False)
class ShareTally(Tally):
    """A tally by score of negative and positive rows, weights (m, 2).

    Up to twice `n_bins` distinct scores are kept as they are. Of more, neighbors share a bin, at their mean.
    A bin holds equal shares of the negative and the positive weight together: if few rows are positive, the
    curve is as fine there as elsewhere.

    A bin with the shares p and q of the positive and negative rows moves the area under a ROC curve by at
    most p q / 2. Since p + q is about 2 / n_bins, all bins move it by at most about 1 / (2 n_bins).

    Attributes
    ----------
    n_rows : int
        The number of rows that weigh anything.
    n_bins : int
    """

    n_rows: int
    n_bins: int = _MOST_BINS

    @classmethod
    def of(
        cls,
        is_positive: np.ndarray,
        scores: np.ndarray,
        weight: np.ndarray | None = None,
        n_bins: int = _MOST_BINS,
    ) -> Self:
        """Tally rows: is_positive (n,) bool; scores (n,), finite; weight (n,) >= 0 or None."""
        weights = weights_by_class(is_positive, weight)
        kept = np.flatnonzero(weights.sum(axis=1))
        scores = np.asarray(scores, dtype=np.float64)[kept]
        return cls._within(*sums_by_key(scores, weights[kept]), len(kept), n_bins)

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        return cls._within(*_joined(parts), sum(part.n_rows for part in parts), parts[0].n_bins)

    @classmethod
    def _within(cls, scores: np.ndarray, weights: np.ndarray, n_rows: int, n_bins: int) -> Self:
        if len(scores) > 2 * n_bins:
            scores, weights = _merge_neighbors(scores, weights, n_bins)
        return cls(scores, weights, n_rows, n_bins)

    def as_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (is_positive, score, weight) of a few rows that weigh what all rows do, for scikit-learn."""
        is_positive = np.repeat([True, False], len(self.keys))
        return is_positive, np.tile(self.keys, 2), np.concatenate([self.weights[:, 1], self.weights[:, 0]])

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Return the scores below which these shares of the weight lie, interpolated as numpy does."""
        weight = self.weights.sum(axis=1)
        ends = np.cumsum(weight)
        # As if n_rows rows had the mean weight: numpy places the first at 0 and the last at 1.
        a_row = ends[-1] / self.n_rows
        begins = ends - weight
        last_rows = np.maximum(ends - a_row, begins)
        positions = np.column_stack([begins, last_rows]).ravel()
        return np.interp(shares * last_rows[-1], positions, np.repeat(self.keys, 2))


def weights_by_class(is_positive: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Return (n, 2): what a row weighs as a negative and as a positive one."""
    weight = np.ones(len(is_positive)) if weight is None else np.asarray(weight, dtype=np.float64)
    positive = np.where(is_positive, weight, 0.0)
    return np.column_stack([weight - positive, positive])


def in_bins(scores: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> CellTally:
    """Tally scores by bin.

    Parameters
    ----------
    scores : array (n,)
    weights : array (n, 2)
        Of negative and positive rows.
    edges : array (n_bins + 1,)
        A bin holds its right edge.

    Returns
    -------
    CellTally
        Of numbers of bins; weights (m, 3): of negative rows, of positive rows, and weight * score of both.
    """
    bins = np.searchsorted(edges[1:-1], scores)
    scored = weights.sum(axis=1) * scores
    return CellTally.of(bins, np.column_stack([weights, scored]), limit=len(edges))


def _merge_neighbors(scores: np.ndarray, weights: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Put neighboring scores together, so that at most n_bins are left."""
    shares = sum(part / total for part in weights.T if (total := part.sum()))
    ends = np.cumsum(shares)
    # By their middles: a score that many rows have does not draw its neighbors into its bin.
    bins = ((ends - shares / 2) / ends[-1] * n_bins).astype(np.intp)
    begins = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    weight = weights.sum(axis=1)
    means = np.add.reduceat(scores * weight, begins) / np.add.reduceat(weight, begins)
    return means, np.add.reduceat(weights, begins, axis=0)


# --- areas, from weights (m, 2, ...) of negative and positive rows, by ascending score ------------------


def roc_auc(weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve, shape weights.shape[2:]; NaN without rows of both classes.

    It is the chance that a positive row scores higher than a negative one, ties counted half.
    """
    negatives, positives = weights[:, 0], weights[:, 1]
    below = np.cumsum(negatives, axis=0) - 0.5 * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positives * below).sum(axis=0) / (positives.sum(axis=0) * negatives.sum(axis=0))


def average_precision(weights: np.ndarray) -> np.ndarray:
    """Return the mean of precision over the recall that each score adds, shape weights.shape[2:].

    As in scikit-learn, it is not interpolated, and 0 without positive rows.
    """
    from_above = weights[::-1]
    positives = from_above[:, 1]
    true_positives = np.cumsum(positives, axis=0)
    chosen = np.cumsum(from_above.sum(axis=1), axis=0)
    precision = np.divide(true_positives, chosen, out=np.zeros_like(chosen), where=chosen > 0)
    total = positives.sum(axis=0)
    return np.divide((precision * positives).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)


# --- edges -------------------------------------------------------------------------------------------


def equal_frequency_edges(tally: CellTally, n: int) -> np.ndarray:
    """Return the edges of at most n intervals of about as many rows each, from the least to the greatest.

    Parameters
    ----------
    tally : CellTally
        Of numbers, by `keys_of_numbers`, with weights (m,).
    n : int
        Fewer are made if a value has more than its share of the rows.
    """
    values = numbers_of_keys(tally.keys)
    ends = np.cumsum(tally.weights)
    # the value of the row with which interval i begins
    inner = values[np.searchsorted(ends, ends[-1] * np.arange(1, n) / n, side="right")]
    return np.unique(np.concatenate([values[:1], inner, values[-1:]]))
