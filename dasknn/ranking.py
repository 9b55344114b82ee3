"""How scores rank rows: weights by distinct score that add up over parts, and areas under curves, quantiles.

    scores (n,)     probabilities, or any numbers
      keys          int64 in the same order; neighbors share their high bits
      Tally         weights by distinct key, sorted. Beyond a limit, low bits of all keys are dropped
      roc_auc, average_precision, edges

Tallies of parts add up to the tally of the whole, in whatever order they are added: how many bits are dropped
depends on the distinct keys of all of them alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
