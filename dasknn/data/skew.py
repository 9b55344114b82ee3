"""Whether partitions look alike: of sorted data, replicas learn from rows that say nothing of the whole.

Classes are compared by their shares, numbers by the shares of their tenths:

    distance = sum over partitions p of w[p] * |shares[p] - shares of the whole| / 2

w[p] is the share of the rows; without the partitions themselves it is a total variation. It is compared
with what chance alone would give, and with that of sorted data, whose partitions hold one class each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from dasknn.data.targets import ClassSummary
from dasknn.exceptions import DataSkewWarning, caller_stacklevel

# Warn beyond this: 0 is what chance gives, 1 is sorted data (in two partitions, about 0.5).
_MOST_DISTANCE = 0.4
# Fewer rows out of place than this may be so by chance.
_FEWEST_ROWS = 10
# Numbers of at most so many values are compared value by value, others by tenths.
_BINS = 10
# As improbable differences between rows held out last and those before them are not by chance.
_LEAST_PROBABILITY = 1e-3
# A group of which all rows are held out: there may be many groups.
_LEAST_PROBABILITY_OF_A_GROUP = 1e-6
# One partition of so many that holds more than this share of the rows holds the others up.
_MOST_SHARE = 0.5
_FEWEST_PARTITIONS = 4


@dataclass(frozen=True)
class Distance:
    """How far partitions are from the whole, from 0 (chance) to 1 (sorted), and where it shows most.

    rows: how many are out of place. In partition `at` (an index), group `group` has the share `there`, and
    `overall` in the whole.
    """

    value: float = 0.0
    rows: float = 0.0
    at: int = 0
    group: int = 0
    there: float = 0.0
    overall: float = 0.0

    @property
    def is_large(self) -> bool:
        """Whether it harms, and is not by chance."""
        return self.value > _MOST_DISTANCE and self.rows >= _FEWEST_ROWS


def distance(counts: Sequence[np.ndarray], n_rows: Sequence[int]) -> Distance:
    """Return how far partitions are from the whole, for the counts (k,) of each one's rows by group.

    n_rows: the rows of each partition, of which counts may be a sample.
    """
    weights = np.asarray(n_rows) / sum(n_rows)
    shares = [found / found.sum() for found in counts]
    overall = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    # Shares of 1 come out a bit larger.
    variance = np.maximum(overall * (1 - overall), 0)
    found = by_chance = 0.0
    worst = (0.0, 0)
    for p, (weight, share, own) in enumerate(zip(weights, shares, counts, strict=True)):
        away = weight * np.abs(share - overall).sum()
        worst = max(worst, (away, p))
        found += away
        # A mean deviation is at most the standard deviation, and that of a rare group twice its share.
        deviation = np.sqrt(variance * (1 - weight) / own.sum())
        by_chance += weight * np.minimum(deviation, 2 * variance).sum()
    of_sorted = 2 * variance.sum()
    if of_sorted - by_chance <= 0.1 * of_sorted:
        # Partitions of a row or two always hold one class.
        return Distance()
    at = worst[1]
    group = int((shares[at] - overall).argmax())
    return Distance(
        value=float((found - by_chance) / (of_sorted - by_chance)),
        rows=float((found - by_chance) / 2 * sum(own.sum() for own in counts)),
        at=at,
        group=group,
        there=float(shares[at][group]),
        overall=float(overall[group]),
    )


def warn_of_skew(
    summaries: Sequence[Any], n_rows: Sequence[int], names: Iterable[str], is_ours: bool
) -> bool:
    """Warn, once, of partitions that differ much in their targets or in their numbers of rows.

    summaries: what `targets` says of y in each partition. names: of X, y and weight, those that there are.
    is_ours: the partitions are not the user's, who gave plain data. Returns whether targets differ.
    """
    full = [p for p, n in enumerate(n_rows) if n]
    if len(full) < 2:
        return False
    of_targets = _of_targets([summaries[p] for p in full], [n_rows[p] for p in full], full)
    of_sizes = None if is_ours else _of_sizes(n_rows, full)
    if of_targets:
        of_targets += f" Mix the rows once: {_shuffled(names)}."
    if found := " ".join(filter(None, [of_targets, of_sizes])):
        warnings.warn(found, DataSkewWarning, stacklevel=caller_stacklevel())
    return of_targets is not None


def warn_of_split(left: Sequence[Any], held_out: Sequence[Any], names: Iterable[str]) -> None:
    """Warn of rows held out last whose targets differ much from those of the rows that are left.

    left, held_out: what `targets` says of y in the blocks of each side, none without rows. names: of X, y and
    weight, those that there are.
    """
    if isinstance(left[0], ClassSummary):
        found = _of_classes_held_out(reduce(add, left), reduce(add, held_out))
    else:
        found = _of_numbers_held_out(left, held_out)
    if found is None:
        return
    warnings.warn(
        f"validation_split takes the last rows, which differ from those before them: {found}. The validation "
        f"then says little of the model. Mix the rows once: {_shuffled(names)}; or pass validation_data.",
        DataSkewWarning,
        stacklevel=caller_stacklevel(),
    )


def _shuffled(names: Iterable[str]) -> str:
    columns = ", ".join("sample_weight" if name == "weight" else name for name in names)
    return f"{columns} = dasknn.shuffle({columns})"


def _of_targets(summaries: list, n_rows: list[int], numbers: list[int]) -> str | None:
    # Summaries that do not go together say so when they are added.
    whole = reduce(add, summaries)
    if not isinstance(whole, ClassSummary):
        return _of_numbers([summary.sample for summary in summaries], n_rows, numbers)
    return None if whole.multilabel else _of_classes(summaries, whole.labels, n_rows, numbers)


def _of_classes(
    summaries: list[ClassSummary], labels: np.ndarray, n_rows: list[int], numbers: list[int]
) -> str | None:
    found = distance([_counts(summary, labels) for summary in summaries], n_rows)
    if not found.is_large:
        return None
    return (
        f"The data looks sorted by class: the classes of its {len(numbers)} partitions are {found.value:.0%} "
        f"as far apart as in sorted data (mixed rows: 0%). Class {_shown(labels, found.group)} has "
        f"{found.there:.0%} of the rows of partition {numbers[found.at]}, and {found.overall:.0%} of all. "
        "Replicas that learn from different classes learn worse."
    )


def _counts(summary: ClassSummary, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(labels))
    counts[np.searchsorted(labels, summary.labels)] = summary.rows
    return counts


def _shown(labels: np.ndarray, at: int) -> str:
    # Nanoseconds would become a number.
    return str(labels[at]) if labels.dtype.kind in "mM" else repr(labels.tolist()[at])


def _of_numbers(samples: list[np.ndarray], n_rows: list[int], numbers: list[int]) -> str | None:
    columns = range(samples[0].shape[1])
    binned = [_bins([sample[:, column] for sample in samples]) for column in columns]
    distances = [distance(counts, n_rows) for _, counts in binned]
    column = max(columns, key=lambda column: distances[column].value * distances[column].is_large, default=0)
    if not distances or not (found := distances[column]).is_large:
        return None
    means = [float(sample[:, column].mean()) for sample in samples]
    low, high = int(np.argmin(means)), int(np.argmax(means))
    return (
        f"The data looks sorted by y: the values of y in its {len(numbers)} partitions are {found.value:.0%} "
        f"as far apart as in sorted data (mixed rows: 0%). The mean is {means[low]:.3g} in partition "
        f"{numbers[low]}, and {means[high]:.3g} in partition {numbers[high]}. Replicas that learn from "
        "different values learn worse."
    )


def _bins(parts: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return edges between at most _BINS values or tenths of all parts, and the counts of each part."""
    together = np.concatenate(parts)
    edges = np.unique(together)
    if len(edges) > _BINS:
        edges = np.unique(np.quantile(together, np.arange(1, _BINS) / _BINS, method="lower"))
    counts = [np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) for part in parts]
    return edges, counts


def _of_classes_held_out(left: ClassSummary, held_out: ClassSummary) -> str | None:
    labels = np.union1d(left.labels, held_out.labels)
    sides = _counts(left, labels), _counts(held_out, labels)
    if not _are_apart(*sides):
        return None
    of_left, of_held_out = (counts / counts.sum() for counts in sides)
    group = int((of_held_out - of_left).argmax())
    return (
        f"class {_shown(labels, group)} has {of_held_out[group]:.0%} of the rows held out, and "
        f"{of_left[group]:.0%} of those to train on"
    )


def _of_numbers_held_out(left: Sequence[Any], held_out: Sequence[Any]) -> str | None:
    n_columns = left[0].sample.shape[1]
    for column in range(n_columns):
        parts = [summary.sample[:, column] for summary in (*left, *held_out)]
        n_rows = [summary.n_rows for summary in (*left, *held_out)]
        _, counts = _bins(parts)
        sides = slice(len(left)), slice(len(left), None)
        if not _are_apart(*(_together(counts[side], n_rows[side]) for side in sides)):
            continue
        means = [
            np.average([part.mean() for part in parts[side]], weights=n_rows[side]).item() for side in sides
        ]
        return (
            f"the mean of {'y' if n_columns == 1 else 'a column of y'} is {means[1]:.3g} in the rows held "
            f"out, and {means[0]:.3g} in those to train on"
        )
    return None


def _together(counts: list[np.ndarray], n_rows: list[int]) -> np.ndarray:
    """Return counts (k,) of as many rows as were counted, with the shares that parts of n_rows each give."""
    shares = [own / own.sum() for own in counts]
    return np.average(shares, axis=0, weights=n_rows) * sum(own.sum() for own in counts)


def _are_apart(left: np.ndarray, held_out: np.ndarray) -> bool:
    """Return whether counts (k,) by group, of two sides, differ so much that it harms, and is not by chance.

    That is their total variation, from 0 (alike) to 1 (no group in common), or a group that is held out
    whole.
    """
    n_left, n_held_out = left.sum(), held_out.sum()
    shares = (left + held_out) / (n_left + n_held_out)
    is_whole = (left == 0) & (
        held_out * np.log(n_held_out / (n_left + n_held_out)) < np.log(_LEAST_PROBABILITY_OF_A_GROUP)
    )
    if is_whole.any():
        return True
    # As many rows in each of two sides of one size would differ as much.
    n = n_left * n_held_out / (n_left + n_held_out)
    by_chance = np.minimum(np.sqrt(shares * (1 - shares) / n), 2 * shares).sum() / 2
    excess = np.abs(left / n_left - held_out / n_held_out).sum() / 2 - by_chance
    # Each row moves it by at most 1 / n (McDiarmid 1989).
    is_by_chance = np.exp(-2 * n * excess**2) > _LEAST_PROBABILITY
    return bool(excess > _MOST_DISTANCE * (1 - by_chance) and not is_by_chance)


def _of_sizes(n_rows: Sequence[int], full: list[int]) -> str | None:
    largest = int(np.argmax(n_rows))
    if len(full) < _FEWEST_PARTITIONS or n_rows[largest] <= _MOST_SHARE * sum(n_rows):
        return None
    return (
        f"Partition {largest} holds {n_rows[largest]} of {sum(n_rows)} rows, {len(full) - 1} others the "
        "rest: one worker loads it, while the others wait. Cut the data evenly before it is trained on: "
        'df.repartition(partition_size="100MB"), or for arrays '
        f"X.rechunk({{0: {-(-sum(n_rows) // len(full))}}}) and y likewise."
    )
