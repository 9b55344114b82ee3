"""Checks whether partitions look alike: if data is sorted, each replica learns from unrepresentative rows.

Partitions are compared by the shares of classes in their rows, or of the tenths of all numbers:

    distance = sum over partitions p of w[p] * |shares[p] - shares in all rows| / 2

w[p] is the share of the rows in p. The score is 0 for the distance that shuffled data has by chance, and 1
for that of sorted data, with one class in each partition.
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

# A higher score draws a warning: 0 is shuffled data, 1 is sorted data (in two partitions, about 0.5).
_MOST_DISTANCE = 0.4
# Fewer rows in excess of chance draw no warning.
_FEWEST_ROWS = 10
# Numbers with at most this many distinct values are compared by value, others by tenths.
_BINS = 10
# Less probable differences between the held-out last rows and the others are not by chance.
_LEAST_PROBABILITY = 1e-3
# The same for groups of which all rows are held out: there may be many groups.
_LEAST_PROBABILITY_OF_A_GROUP = 1e-6
# Of at least this many partitions, one with a larger share of the rows lets the others wait.
_MOST_SHARE = 0.5
_FEWEST_PARTITIONS = 4


@dataclass(frozen=True)
class Distance:
    """Score of the differences between partitions, from 0 (shuffled) to 1 (sorted), and the largest of them.

    rows: number of rows in excess of chance. In partition `at` (an index), group `group` has the share
    `there` of the rows, and the share `overall` of all rows.
    """

    value: float = 0.0
    rows: float = 0.0
    at: int = 0
    group: int = 0
    there: float = 0.0
    overall: float = 0.0

    @property
    def is_large(self) -> bool:
        """Whether differences are harmful, and not by chance."""
        return self.value > _MOST_DISTANCE and self.rows >= _FEWEST_ROWS


def distance(counts: Sequence[np.ndarray], n_rows: Sequence[int]) -> Distance:
    """Return the Distance of partitions.

    counts: rows (k,) of each partition by group, or of a sample of its rows. n_rows: rows of each partition.
    """
    weights = np.asarray(n_rows) / sum(n_rows)
    shares = [found / found.sum() for found in counts]
    overall = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    # By rounding, a share of 1 may be a bit larger.
    variance = np.maximum(overall * (1 - overall), 0)
    found = by_chance = 0.0
    worst = (0.0, 0)
    for p, (weight, share, own) in enumerate(zip(weights, shares, counts, strict=True)):
        away = weight * np.abs(share - overall).sum()
        worst = max(worst, (away, p))
        found += away
        # A mean deviation is at most the standard deviation, and for rare groups at most twice the share.
        deviation = np.sqrt(variance * (1 - weight) / own.sum())
        by_chance += weight * np.minimum(deviation, 2 * variance).sum()
    of_sorted = 2 * variance.sum()
    if of_sorted - by_chance <= 0.1 * of_sorted:
        # Partitions of one or two rows hold one class even in shuffled data.
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
    summaries: Sequence[Any], n_rows: Sequence[int], names: Iterable[str], are_cut: bool
) -> bool:
    """Warn once of partitions that differ much in their targets or numbers of rows.

    summaries: of y in each partition (see `targets`). names: those of X, y and weight that are there.
    are_cut: whether the data is plain and dasknn cut it. Returns whether targets differ.
    """
    full = [p for p, n in enumerate(n_rows) if n]
    if len(full) < 2:
        return False
    of_targets = _of_targets([summaries[p] for p in full], [n_rows[p] for p in full], full)
    of_sizes = None if are_cut else _of_sizes(n_rows, full)
    if of_targets:
        of_targets += f" Shuffle the rows once: {_shuffled(names)}."
    if found := " ".join(filter(None, [of_targets, of_sizes])):
        warnings.warn(found, DataSkewWarning, stacklevel=caller_stacklevel())
    return of_targets is not None


def warn_of_split(left: Sequence[Any], held_out: Sequence[Any], names: Iterable[str]) -> None:
    """Warn of held-out last rows whose targets differ much from those of the other rows.

    left, held_out: summaries of y in the blocks of each side (see `targets`), all with rows. names: those of
    X, y and weight that are there.
    """
    if isinstance(left[0], ClassSummary):
        found = _of_classes_held_out(reduce(add, left), reduce(add, held_out))
    else:
        found = _of_numbers_held_out(left, held_out)
    if found is None:
        return
    warnings.warn(
        f"validation_split takes the last rows, which differ from the others: {found}. Validation scores "
        f"then say little about the model. Shuffle the rows once: {_shuffled(names)}; or pass "
        "validation_data.",
        DataSkewWarning,
        stacklevel=caller_stacklevel(),
    )


def _shuffled(names: Iterable[str]) -> str:
    columns = ", ".join("sample_weight" if name == "weight" else name for name in names)
    return f"{columns} = dasknn.shuffle({columns})"


def _of_targets(summaries: list, n_rows: list[int], numbers: list[int]) -> str | None:
    # Adding summaries of different kinds raises an error.
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
        f"The data looks sorted by class: its {len(numbers)} partitions {_differ(found)}. Class "
        f"{_shown(labels, found.group)} has {found.there:.0%} of the rows of partition {numbers[found.at]}, "
        f"and {found.overall:.0%} of all rows. Replicas that learn from different classes learn worse."
    )


def _differ(found: Distance) -> str:
    score = f"{found.value:.0%}"
    if score == "100%":
        return "are as different as if the data were sorted (score 100%; shuffled data scores 0%)"
    return f"differ much (score {score}; sorted data scores 100%, shuffled data 0%)"


def _counts(summary: ClassSummary, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(labels))
    counts[np.searchsorted(labels, summary.labels)] = summary.rows
    return counts


def _shown(labels: np.ndarray, at: int) -> str:
    # tolist() makes numbers of dates in nanoseconds.
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
        f"The data looks sorted by y: its {len(numbers)} partitions {_differ(found)}. The mean of y is "
        f"{means[low]:.3g} in partition {numbers[low]}, and {means[high]:.3g} in partition {numbers[high]}. "
        "Replicas that learn from different values learn worse."
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
        f"class {_shown(labels, group)} has {of_held_out[group]:.0%} of the held-out rows, and "
        f"{of_left[group]:.0%} of the others"
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
            f"the mean of {'y' if n_columns == 1 else 'a column of y'} is {means[1]:.3g} in the held-out "
            f"rows, and {means[0]:.3g} in the others"
        )
    return None


def _together(counts: list[np.ndarray], n_rows: list[int]) -> np.ndarray:
    """Return counts (k,) of all parts; each part, of which counts are a sample, weighs as its n_rows."""
    shares = [own / own.sum() for own in counts]
    return np.average(shares, axis=0, weights=n_rows) * sum(own.sum() for own in counts)


def _are_apart(left: np.ndarray, held_out: np.ndarray) -> bool:
    """Return whether counts (k,) by group of two sides differ so much that it is harmful and not by chance.

    Either the total variation, from 0 (alike) to 1 (no group in common), is large, or all rows of a group are
    held out.
    """
    n_left, n_held_out = left.sum(), held_out.sum()
    shares = (left + held_out) / (n_left + n_held_out)
    is_whole = (left == 0) & (
        held_out * np.log(n_held_out / (n_left + n_held_out)) < np.log(_LEAST_PROBABILITY_OF_A_GROUP)
    )
    if is_whole.any():
        return True
    # Two sides of n rows each would differ as much by chance.
    n = n_left * n_held_out / (n_left + n_held_out)
    by_chance = np.minimum(np.sqrt(shares * (1 - shares) / n), 2 * shares).sum() / 2
    excess = np.abs(left / n_left - held_out / n_held_out).sum() / 2 - by_chance
    # Each row changes it by at most 1 / n (McDiarmid 1989).
    is_by_chance = np.exp(-2 * n * excess**2) > _LEAST_PROBABILITY
    return bool(excess > _MOST_DISTANCE * (1 - by_chance) and not is_by_chance)


def _of_sizes(n_rows: Sequence[int], full: list[int]) -> str | None:
    largest = int(np.argmax(n_rows))
    if len(full) < _FEWEST_PARTITIONS or n_rows[largest] <= _MOST_SHARE * sum(n_rows):
        return None
    return (
        f"Partition {largest} holds {n_rows[largest]} of {sum(n_rows)} rows, {len(full) - 1} others the "
        "rest: one worker loads it while the others wait. Cut the data evenly before training: "
        'df.repartition(partition_size="100MB"), or for arrays '
        f"X.rechunk({{0: {-(-sum(n_rows) // len(full))}}}) and y likewise."
    )
