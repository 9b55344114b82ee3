"""How scores rank rows: weights by distinct score that add up over parts, and areas under curves, quantiles.

    scores (n,)     probabilities, or any numbers
      keys          int64 in the same order; neighbors share their high bits
      Tally         weights by distinct key, sorted. Beyond a limit, low bits of all keys are dropped
      roc_auc, average_precision, edges

Tallies of parts add up to the tally of the whole, in whatever order they are added: how many bits are dropped
depends on the distinct keys of all of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Distinct scores that are kept apart, for all curves of a picture together.
_N_SCORES = 2**17
# A single curve has at most so many bins, and one of many at least so many.
_MOST_BINS, _FEWEST_BINS = 2**15, 2**10


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


# A tally has at most so many distinct values before it drops digits.
MOST_DISTINCT = 100_000
# The bits of 0.5: where the two halves of probabilities meet.
_HALF = int(np.array(0.5).view(np.int64))


def keys_of_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return scores in [0, 1] as int64 (n,) in the same order.

    Their distance follows that to 0 or to 1, whichever is nearer: when bits are dropped, 0.999999 and 0.9999
    stay as far apart as 0.000001 and 0.0001.
    """
    scores = np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0) + 0.0
    is_low = scores <= 0.5
    # 1 - s is exact for s in [0.5, 1].
    nearest = np.where(is_low, scores, 1.0 - scores).view(np.int64)
    return np.where(is_low, nearest, 2 * _HALF - nearest)


def keys_of_numbers(values: np.ndarray) -> np.ndarray:
    """Return any numbers but NaN as int64 (n,) in the same order."""
    # Without 0.0 a negative zero would come before it.
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.int64)
    # Negative floats have the order of their sizes.
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def numbers_of_keys(keys: np.ndarray) -> np.ndarray:
    """Return the numbers (n,) that `keys_of_numbers` made these keys of."""
    return np.where(keys < 0, keys ^ np.int64(2**63 - 1), keys).view(np.float64)


@dataclass(frozen=True, eq=False)
class Tally:
    """Weights by distinct key.

    keys (m,) int64, ascending; weights (m, ...) float64: what the rows of a key add up to. level: so many low
    bits of all keys were dropped. limit: the most keys there may be.
    """

    keys: np.ndarray
    weights: np.ndarray
    level: int = 0
    limit: int = MOST_DISTINCT

    @classmethod
    def of(cls, keys: np.ndarray, weights: np.ndarray, limit: int = MOST_DISTINCT) -> Tally:
        """Tally rows: keys (n,) in any order, weights (n, ...)."""
        order = np.argsort(keys, kind="stable")
        return cls.of_sorted(keys[order], weights[order], limit)

    @classmethod
    def of_sorted(cls, keys: np.ndarray, weights: np.ndarray, limit: int = MOST_DISTINCT) -> Tally:
        """Tally rows whose keys ascend."""
        return cls(*_together(keys, np.asarray(weights, dtype=np.float64)), 0, limit).within(limit)

    def __add__(self, other: Tally) -> Tally:
        level = max(self.level, other.level)
        mine, others = self.at_level(level), other.at_level(level)
        keys = np.concatenate([mine.keys, others.keys])
        order = np.argsort(keys, kind="stable")
        weights = np.concatenate([mine.weights, others.weights])[order]
        limit = min(self.limit, other.limit)
        return Tally(*_together(keys[order], weights), level, limit).within(limit)

    def at_level(self, level: int) -> Tally:
        """Return the tally with at least so many bits dropped."""
        if level <= self.level:
            return self
        return Tally(*_together(cells(self.keys, level), self.weights), level, self.limit)

    def within(self, limit: int) -> Tally:
        """Return the tally with as many bits dropped as it takes to have no more keys than the limit."""
        fitting = self if len(self.keys) <= limit else self.at_level(level_for(self.keys, limit))
        return Tally(fitting.keys, fitting.weights, fitting.level, limit)


def cells(keys: np.ndarray, level: int) -> np.ndarray:
    """Return keys with so many low bits dropped: the least key of the cell that each is in."""
    return (keys >> level) << level


def level_for(keys: np.ndarray, limit: int) -> int:
    """Return the least number of low bits to drop from ascending keys, so that at most `limit` differ."""
    low, high = 0, 63
    while low < high:
        middle = (low + high) // 2
        if n_distinct(keys >> middle) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def n_distinct(ascending: np.ndarray) -> int:
    """Return how many different values there are."""
    return int(np.count_nonzero(ascending[1:] != ascending[:-1])) + bool(len(ascending))


def _together(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct ascending keys, and the sums of their weights."""
    if n_distinct(keys) == len(keys):
        return keys, weights
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.add.reduceat(weights, begins, axis=0)


# --- from weights (m, 2, ...) of negative and positive rows, by ascending score -----------------------


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


# --- from a tally of numbers -------------------------------------------------------------------------


def equal_frequency_edges(tally: Tally, n: int) -> np.ndarray:
    """Return the edges of at most n intervals of about as many rows each, from the least to the greatest.

    tally: of numbers, by `keys_of_numbers`, with weights (m,). Fewer where a value has more than its share.
    """
    values = numbers_of_keys(tally.keys)
    ends = np.cumsum(tally.weights)
    # the value of the row with which interval i begins
    inner = values[np.searchsorted(ends, ends[-1] * np.arange(1, n) / n, side="right")]
    return np.unique(np.concatenate([values[:1], inner, values[-1:]]))
