"""Sums over the rows of slices, exact and for bootstrap replicates, that add up over parts; and intervals.

    block (n, k)           numbers of each row, times its weight
      counts (n, 1 + B)    1, then how often each of B replicates has drawn the row: Poisson with mean 1
      counts.T @ block     (1 + B, k) of each slice: the sums of all replicates at once
    ranking (n,)           scores whose order counts: weights by score, and of all replicates in coarse cells

A replicate of a bootstrap draws n rows of n with replacement. If rows are in many places, each is drawn a
Poisson number of times instead, independently (Chamandy et al. 2012, "Estimating uncertainty for massive data
streams"). The draws of a row depend only on the seed, its partition and its place in the partition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from dasknn.evaluation.score_sketch import CellTally, cells, level_for
from dasknn.seeds import Stream, generator

# Rows whose draws are in memory at a time. The draws depend on it.
_CHUNK_ROWS = 4_096
# Cells of the scores of replicates: most for a slice, all of a way of slicing (512 each for up to 32 slices),
# and fewest for a slice.
_MOST_CELLS, _CELLS_OF_ALL, _FEWEST_CELLS = 512, 16_384, 32


def _table() -> np.ndarray:
    """Return 2**16 numbers; one drawn at random has the Poisson distribution with mean 1."""
    n = 2**16
    counts = np.array([round(n * math.exp(-1) / math.factorial(drawn)) for drawn in range(9)])
    # Rounding loses a little; draws of 0, 1 and 2 make up for it, so that the mean is 1.
    missing = n - int(counts @ np.arange(len(counts)))
    counts[2] += missing
    counts[1] -= missing
    counts[0] += n - counts.sum()
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


_POISSON = _table()


def draws(seed: int, part: int, chunk: int, n_rows: int, n_replicates: int) -> np.ndarray:
    """Return how often each replicate draws each row of a chunk of a part, (n_rows, n_replicates) uint8."""
    bits = generator(seed, Stream.REPLICATES, part, chunk).bit_generator
    n = n_rows * n_replicates
    return _POISSON[bits.random_raw(-(-n // 4)).view(np.uint16)[:n]].reshape(n_rows, n_replicates)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scores whose order counts.

    Attributes
    ----------
    keys : int64 array (n,)
        See `score_sketch`.
    is_positive : bool array (n,)
    weight : array (n,)
    """

    keys: np.ndarray
    is_positive: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class Moments:
    """The columns of a block for the weight of rows, their targets less a center, and the squares.

    Sums of squares keep their digits only near the mean, so each slice of each part has its own center.

    Attributes
    ----------
    block : int
        The number of the block.
    weight, first, second : int
        The column of the weight, and the first of the q columns of targets and of their squares.
    center : array (q,)
    """

    block: int
    weight: int
    first: int
    second: int
    center: np.ndarray

    def of_rows(self, block: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Return a block with the center of each row moved by shift (n, q)."""
        moved, q = block.copy(), len(self.center)
        weight = block[:, [self.weight]]
        first = moved[:, self.first : self.first + q]
        first -= weight * shift
        square = np.divide(first**2, weight, out=np.zeros_like(first), where=weight != 0)
        moved[:, self.second : self.second + q] = square
        return moved

    def mean_of(self, block: np.ndarray) -> np.ndarray:
        """Return the mean of these rows, less the center (q,); 0 if they weigh nothing."""
        weight, q = block[:, self.weight].sum(), len(self.center)
        return block[:, self.first : self.first + q].sum(axis=0) / weight if weight else np.zeros(q)

    def moved(self, sums: tuple[np.ndarray, ...], center: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return sums about another center."""
        gap, q = self.center - center, len(center)
        moved = sums[self.block].copy()
        weight = moved[:, [self.weight]]
        numbers = moved[:, self.first : self.first + q]
        moved[:, self.second : self.second + q] += 2 * gap * numbers + gap**2 * weight
        moved[:, self.first : self.first + q] += gap * weight
        return (*sums[: self.block], moved, *sums[self.block + 1 :])


@dataclass(frozen=True, eq=False)
class SliceSums:
    """The sums over the rows of a slice.

    Attributes
    ----------
    n_rows : int
    sums : arrays (1 + B, k), one for each block
        Of all rows, then of each replicate.
    tallies : CellTally of each ranking
        Weights (m, 2) of negative and positive rows.
    resampled : CellTally of each ranking
        In coarse cells, weights (m, 2, 1 + B): of all rows, then of each replicate.
    moments : tuple of Moments
        The centers of sums of squares.
    """

    n_rows: int
    sums: tuple[np.ndarray, ...]
    tallies: tuple[CellTally, ...]
    resampled: tuple[CellTally, ...]
    moments: tuple[Moments, ...] = ()

    def __add__(self, other: SliceSums) -> SliceSums:
        sums = other.sums
        for mine, theirs in zip(self.moments, other.moments, strict=True):
            sums = theirs.moved(sums, mine.center)
        return SliceSums(
            self.n_rows + other.n_rows,
            tuple(a + b for a, b in zip(self.sums, sums, strict=True)),
            tuple(a + b for a, b in zip(self.tallies, other.tallies, strict=True)),
            tuple(a + b for a, b in zip(self.resampled, other.resampled, strict=True)),
            self.moments,
        )


@dataclass(frozen=True, eq=False)
class PartSums:
    """All slices of some partitions: for each way of slicing, sums by the values of its slices."""

    slices: tuple[dict[tuple, SliceSums], ...]

    def __add__(self, other: PartSums) -> PartSums:
        return PartSums(_merged(self.slices, other.slices))


def _merged(
    some: Sequence[dict[tuple, SliceSums]], others: Sequence[dict[tuple, SliceSums]]
) -> tuple[dict[tuple, SliceSums], ...]:
    merged = []
    for mine, theirs in zip(some, others, strict=True):
        both = dict(mine)
        for values, one in theirs.items():
            both[values] = both[values] + one if values in both else one
        merged.append({values: _within(one, _cells_for(len(both))) for values, one in both.items()})
    return tuple(merged)


def _cells_for(n_values: int) -> int:
    return max(_FEWEST_CELLS, min(_MOST_CELLS, _CELLS_OF_ALL // max(n_values, 1)))


def _within(one: SliceSums, most: int) -> SliceSums:
    if all(tally.limit <= most for tally in one.resampled):
        return one
    return replace(one, resampled=tuple(tally.within(most) for tally in one.resampled))


@dataclass(frozen=True, eq=False)
class Draws:
    """How often the rows of a part are drawn: a function of these settings."""

    seed: int
    part: int
    n_replicates: int

    def chunks(self, n_rows: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (slice of rows, float64 counts (rows, 1 + B)) of a part with n_rows rows."""
        for chunk, begin in enumerate(range(0, n_rows, _CHUNK_ROWS)):
            n = min(_CHUNK_ROWS, n_rows - begin)
            counts = np.empty((n, 1 + self.n_replicates))
            counts[:, 0] = 1
            counts[:, 1:] = draws(self.seed, self.part, chunk, n, self.n_replicates)
            yield slice(begin, begin + n), counts


def sum_slices(
    blocks_of: Callable[[slice], Sequence[np.ndarray]],
    rankings: Sequence[Ranking],
    groups: Sequence[tuple[np.ndarray, list[tuple]]],
    draws: Draws,
    moments: tuple[Moments, ...] = (),
) -> PartSums:
    """Sum blocks and tally rankings over the slices of a part that has rows.

    Parameters
    ----------
    blocks_of : callable (slice of rows) -> arrays (n, k)
        Returns the blocks of these rows.
    rankings : sequence of Ranking
    groups : sequence of (codes (n,), values)
        For each way of slicing, the codes of rows and the values that they stand for.
    draws : Draws
    moments : tuple of Moments
        The columns of blocks that are less a center.
    """
    n_rows = len(groups[0][0])
    ways = [_Way(codes, values, draws.n_replicates, moments) for codes, values in groups]
    for ranking in rankings:
        by_key = np.argsort(ranking.keys, kind="stable")
        for way in ways:
            way.add_ranking(ranking, by_key)
    for rows, counts in draws.chunks(n_rows):
        blocks = blocks_of(rows)
        for way in ways:
            way.add(rows, counts, blocks)
    return PartSums(tuple(way.found() for way in ways))


class _Way:
    """Sums of one way of slicing, chunk by chunk."""

    def __init__(
        self, codes: np.ndarray, values: list[tuple], n_replicates: int, moments: tuple[Moments, ...]
    ):
        # At most 1,000 values (`slicing.MOST_VALUES`): numpy sorts small integers by radix.
        self.codes, self.values = codes.astype(np.int16), values
        self.sums: list[np.ndarray] = []
        self.ranked: list[_Ranked] = []
        self.n_replicates = n_replicates
        self.moments = moments
        # How far the center of each slice is from that of the part; NaN before its first row.
        self.shifts = [np.full((len(values), len(one.center)), np.nan) for one in moments]

    def add_ranking(self, ranking: Ranking, by_key: np.ndarray) -> None:
        # order: rows by slice, within it by score
        order = by_key[np.argsort(self.codes[by_key], kind="stable")]
        self.ranked.append(_Ranked(ranking, order, self.codes, len(self.values), self.n_replicates))

    def add(self, rows: slice, counts: np.ndarray, blocks: Sequence[np.ndarray]) -> None:
        n_values = len(self.values)
        self.sums = self.sums or [np.zeros((n_values, counts.shape[1], block.shape[1])) for block in blocks]
        codes = self.codes[rows]
        blocks = self._about_own_centers(codes, blocks)
        if n_values == 1:
            for sums, block in zip(self.sums, blocks, strict=True):
                sums[0] += counts.T @ block
        else:
            order = np.argsort(codes, kind="stable")
            edges = np.searchsorted(codes[order], np.arange(n_values + 1))
            present = np.flatnonzero(edges[1:] > edges[:-1]).tolist()
            sorted_counts = counts[order]
            for sums, block in zip(self.sums, blocks, strict=True):
                sorted_block = block[order]
                for code in present:
                    own = slice(edges[code], edges[code + 1])
                    sums[code] += sorted_counts[own].T @ sorted_block[own]
        for ranked in self.ranked:
            ranked.add(rows, counts)

    def _about_own_centers(self, codes: np.ndarray, blocks: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Return blocks whose targets are less a center of their slice: the mean of its first rows."""
        blocks = list(blocks)
        for moments, shifts in zip(self.moments, self.shifts, strict=True):
            block = blocks[moments.block]
            for code in np.unique(codes).tolist():
                if np.isnan(shifts[code, 0]):
                    shifts[code] = moments.mean_of(block[codes == code])
            blocks[moments.block] = moments.of_rows(block, shifts[codes])
        return blocks

    def found(self) -> dict[tuple, SliceSums]:
        n_rows = np.bincount(self.codes, minlength=len(self.values)).tolist()
        return {
            values: SliceSums(
                n_rows[code],
                # Copies, so that a slice does not keep all others in memory.
                tuple(sums[code].copy() for sums in self.sums),
                tuple(ranked.tallies[code] for ranked in self.ranked),
                tuple(ranked.resampled(code) for ranked in self.ranked),
                tuple(
                    replace(one, center=one.center + shifts[code])
                    for one, shifts in zip(self.moments, self.shifts, strict=True)
                ),
            )
            for code, values in enumerate(self.values)
        }


class _Ranked:
    """The tallies of one ranking by slice, and the weights that replicates draw from each coarse cell."""

    def __init__(
        self, ranking: Ranking, order: np.ndarray, codes: np.ndarray, n_values: int, n_replicates: int
    ):
        self.weight = ranking.weight
        self.limit = _cells_for(n_values)
        keys, is_positive = ranking.keys[order], ranking.is_positive[order]
        weights = np.zeros((len(order), 2))
        weights[np.arange(len(order)), is_positive.astype(np.intp)] = ranking.weight[order]
        edges = np.searchsorted(codes[order], np.arange(n_values + 1))
        self.tallies, self.levels, self.cells = [], [], []
        # place (n,) of each row: twice the number of its cell over all slices, and 1 more if it is positive
        place, n_cells = np.empty(len(order), dtype=np.intp), 0
        for begin, end in pairwise(edges):
            own = keys[begin:end]
            self.tallies.append(CellTally.of_sorted(own, weights[begin:end]))
            level = level_for(own, self.limit)
            found, number = np.unique(cells(own, level), return_inverse=True)
            place[begin:end] = 2 * (n_cells + number) + is_positive[begin:end]
            n_cells += len(found)
            self.levels.append(level)
            self.cells.append(found)
        self.place = np.empty_like(place)
        self.place[order] = place
        self.drawn = np.zeros((2 * n_cells, 1 + n_replicates))
        self.ends = np.cumsum([0, *(len(found) for found in self.cells)])

    def add(self, rows: slice, counts: np.ndarray) -> None:
        places, number = np.unique(self.place[rows], return_inverse=True)
        n = len(number)
        into = sparse.csr_array((self.weight[rows], (number, np.arange(n))), shape=(len(places), n))
        self.drawn[places] += into @ counts

    def resampled(self, code: int) -> CellTally:
        own = slice(2 * self.ends[code], 2 * self.ends[code + 1])
        weights = self.drawn[own].reshape(len(self.cells[code]), 2, -1).copy()
        return CellTally(self.cells[code], weights, self.levels[code], self.limit)


def interval(
    replicates: np.ndarray,
    confidence: float,
    shift: float = 0.0,
    least: float = -np.inf,
    most: float = np.inf,
) -> tuple[float, float]:
    """Return the percentile interval of replicates (B,), moved by `shift`, within [least, most].

    Its ends are the order statistics at `(B + 1) * (1 -/+ confidence) / 2` (Davison and Hinkley 1997, sec.
    5.3): with a few hundred replicates other rules make it too narrow. Replicates in which the metric is not
    defined are left out; the ends are NaN if there are no others.
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail], method="weibull") + shift
    return float(np.clip(low, least, most)), float(np.clip(high, least, most))


def interval_of_none(share: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return the interval of a share that is 0 or 1 of so many trials (Clopper and Pearson 1934).

    It holds the chances for which none of the trials, or all of them, are not too unlikely.
    """
    reach = ((1 - confidence) / 2) ** (1 / trials) if trials > 0 else 0.0
    return (0.0, 1 - reach) if share == 0 else (reach, 1.0)
