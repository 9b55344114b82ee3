"""Distribution of a column of numbers as sorted values and their numbers of rows, which add up.

    partition ── NumberSketch: distinct values, rows of each ──┐
    partition ── NumberSketch ─────────────────────────────────┴── sum ── quantiles, bins

A sketch is exact up to `MOST_VALUES` distinct values. Beyond, neighbors are put together: the smallest and
the greatest value and all values of many rows stay, and between them groups of about equally many rows are
represented by the value in their middle. Each time that happens, ranks move by at most 0.05 % of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Distinct values that a sketch holds before it is compressed.
MOST_VALUES = 20_000
# Groups of a compressed sketch; values of as many rows as a group would have stay alone. About as many again.
_GROUPS = 2_048


@dataclass(frozen=True, eq=False)
class NumberSketch:
    """values (k,) float64, sorted and distinct; weights (k,) int64: the number of rows of each, above 0."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray) -> NumberSketch:
        """Return the sketch of finite numbers (n,)."""
        # Adding 0 turns -0.0 into 0.0, whichever of them comes first.
        values, weights = np.unique(numbers + 0.0, return_counts=True)
        return cls(*_compressed(values, weights.astype(np.int64)))

    def __add__(self, other: NumberSketch) -> NumberSketch:
        values = np.concatenate([self.values, other.values])
        order = np.argsort(values, kind="stable")
        weights = np.concatenate([self.weights, other.weights])
        return NumberSketch(*_compressed(*_distinct(values[order], weights[order])))

    def less(self, origin: float) -> NumberSketch:
        """Return the sketch of the differences from an origin."""
        # Rounding may make two of them equal.
        return NumberSketch(*_distinct(self.values - origin, self.weights))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.weights.sum())

    def quantiles(self, shares: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the numbers below which these shares of the rows are, as numpy.quantile does."""
        at = np.asarray(shares) * (self.n_rows - 1)
        below = np.floor(at).astype(np.int64)
        passed = np.cumsum(self.weights)
        low, high = (
            self.values[np.searchsorted(passed, np.minimum(rank, self.n_rows - 1), side="right")]
            for rank in (below, below + 1)
        )
        part = at - below
        with np.errstate(over="ignore", invalid="ignore"):
            # numpy's own order of operations, to the last bit.
            width = high - low
            found = np.where(part < 0.5, low + width * part, high - width * (1 - part))
        # Between numbers that are further apart than the greatest one.
        return np.where(np.isfinite(width), found, low * (1 - part) + high * part)

    def center_and_scale(self) -> tuple[float, float]:
        """Return the median, and 1 / the distance of the quartiles, or 2 / the range if they coincide.

        This is the robust scale of RealMLP (Holzmüller, Grinsztajn, Steinwart 2024). Both are finite, and the
        scale is above 0, for at least two distinct numbers.
        """
        low, median, high = self.quantiles((0.25, 0.5, 0.75)).tolist()
        width = high - low if high > low else (float(self.values[-1]) - float(self.values[0])) / 2
        greatest = float(np.finfo(np.float64).max)
        return median, min(1 / min(width, greatest), greatest) if width > 1 / greatest else greatest


def _distinct(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted values without repetitions, and the sum of the weights of each."""
    is_new = np.ones(len(values), bool)
    is_new[1:] = values[1:] != values[:-1]
    first = np.flatnonzero(is_new)
    return values[first], np.add.reduceat(weights, first)


def _compressed(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(values) <= MOST_VALUES:
        return values, weights
    alone = weights * _GROUPS >= weights.sum()
    alone[[0, -1]] = True
    light = np.where(alone, 0, weights)
    # Groups of equally many rows, which end where a value stays alone. Integers: no rounding.
    group = (np.cumsum(light) - light) * _GROUPS // light.sum()
    begins = np.concatenate([[True], (group[1:] != group[:-1]) | alone[1:] | alone[:-1]])
    first = np.flatnonzero(begins)
    sums = np.add.reduceat(weights, first)
    passed = np.cumsum(weights)
    middle = np.searchsorted(passed, passed[first] - weights[first] + (sums + 1) // 2)
    return values[middle], sums
