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

from dasknn.exceptions import DataSkewWarning
from dasknn.targets import ClassSummary

# Warn beyond this: 0 is what chance gives, 1 is sorted data (in two partitions, about 0.5).
_MOST_DISTANCE = 0.4
# Fewer rows out of place than this may be so by chance.
_FEWEST_ROWS = 10
# Numbers of at most so many values are compared value by value, others by tenths.
_BINS = 10
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


def warn_of_skew(summaries: Sequence[Any], n_rows: Sequence[int], names: Iterable[str], is_ours: bool):
    """Warn, once, of partitions that differ much in their targets or in their numbers of rows.

    summaries: what `targets` says of y in each partition. names: of X, y and weight, those that there are.
    is_ours: the partitions are not the user's, who gave plain data.
    """
    full = [p for p, n in enumerate(n_rows) if n]
    if len(full) < 2:
        return
    of_targets = _of_targets([summaries[p] for p in full], [n_rows[p] for p in full], full)
    of_sizes = None if is_ours else _of_sizes(n_rows, full)
    if of_targets:
        columns = ", ".join("sample_weight" if name == "weight" else name for name in names)
        of_targets += f" Mix the rows once: {columns} = dasknn.shuffle({columns})."
    if found := " ".join(filter(None, [of_targets, of_sizes])):
        warnings.warn(found, DataSkewWarning, stacklevel=4)


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
        f"as far apart as in sorted data (mixed rows: 0%). Class {labels[found.group].tolist()!r} has "
        f"{found.there:.0%} of the rows of partition {numbers[found.at]}, and {found.overall:.0%} of all. "
        "Replicas that learn from different classes learn worse."
    )


def _counts(summary: ClassSummary, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(labels))
    counts[np.searchsorted(labels, summary.labels)] = summary.rows
    return counts


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
