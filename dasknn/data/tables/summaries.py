"""What is found of the columns of a raw table, partition by partition, in one pass.

    partition ── TableSummary: of each column a summary of its kind ──┐
    partition ── TableSummary ────────────────────────────────────────┴── sum, in order

Summaries add up, and stay small: a sketch of numbers has thousands of values, and the values of a category
are counted as long as there are not too many. A part of a column without a known value fits every kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dasknn.cluster.graph import merge_tree
from dasknn.data.tables.reading import (
    BOOLEAN,
    CATEGORY,
    DATE,
    MISSING,
    NUMBER,
    VALUES,
    Reading,
    Table,
    kind_of_label,
    read,
)
from dasknn.data.tables.sketch import NumberSketch
from dasknn.data.targets import as_array, first_missing
from dasknn.exceptions import PartitionError
from dasknn.seeds import Stream, generator

# Distinct values of a category that are counted; columns with more are hashed.
MOST_VALUES = 20_000
# Rows by which trees choose bins.
SAMPLE_ROWS = 20_000
# What dates become: numbers with these names.
DATE_PARTS = ("year", "month", "day", "weekday", "hour", "minute", "second", "days")


def numbers_of(found: Reading) -> list[np.ndarray]:
    """Return the columns of numbers (n,) float64, NaN where missing, that a column becomes.

    Dates become `DATE_PARTS`: weekday is 0 on Mondays, days are those since 1970, with their fractions.
    """
    if found.kind != DATE:
        return [found.values]
    is_missing = np.isnat(found.values)
    moments = np.where(is_missing, np.datetime64(0, "us"), found.values)
    days, months = moments.astype("M8[D]"), moments.astype("M8[M]")
    n_days, n_months = days.astype(np.int64), months.astype(np.int64)
    second_of_day = (moments - days) // np.timedelta64(1, "s")
    parts = (
        1970 + n_months // 12,
        n_months % 12 + 1,
        (days - months.astype("M8[D]")).astype(np.int64) + 1,
        # The first day of 1970 was a Thursday.
        (n_days + 3) % 7,
        second_of_day // 3600,
        second_of_day // 60 % 60,
        second_of_day % 60,
        moments.astype(np.int64) / 86_400e6,
    )
    return [np.where(is_missing, np.nan, part.astype(np.float64)) for part in parts]


# --- columns -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumbersSummary:
    """A part of a column of numbers, booleans, durations or dates.

    sketches: of each column of numbers that it becomes. n_missing: rows without a value. zone: of dates.
    """

    kind: str
    sketches: tuple[NumberSketch, ...]
    n_missing: int
    zone: str | None = None

    @classmethod
    def of(cls, found: Reading, numbers: Sequence[np.ndarray]) -> NumbersSummary:
        """Summarize a reading, which became these numbers."""
        known = [each[~np.isnan(each)] for each in numbers]
        sketches = tuple(map(NumberSketch.of, known))
        return cls(found.kind, sketches, len(found.values) - len(known[0]), found.zone)

    @property
    def holds(self) -> str:
        """What the values are, for errors."""
        with_zone = f" of the time zone {self.zone}" if self.zone else ""
        return VALUES[self.kind] + with_zone

    def __add__(self, other: NumbersSummary) -> NumbersSummary:
        sketches = (one + two for one, two in zip(self.sketches, other.sketches, strict=True))
        # True and False are 1 and 0 among numbers.
        kind = self.kind if self.kind == other.kind else NUMBER
        return NumbersSummary(kind, tuple(sketches), self.n_missing + other.n_missing, self.zone)

    def fits(self, other: Any) -> bool:
        """Return whether the two may be parts of one column."""
        if not isinstance(other, NumbersSummary):
            return False
        kinds = {self.kind, other.kind}
        return (len(kinds) == 1 or kinds == {NUMBER, BOOLEAN}) and self.zone == other.zone


@dataclass(frozen=True)
class CategorySummary:
    """A part of a column of categories.

    counts: rows of each distinct value; None if there are more than `MOST_VALUES`. n_missing: rows without a
    value. holds: "text", "numbers" or "booleans".
    """

    counts: Mapping[Any, int] | None
    n_missing: int
    holds: str

    @classmethod
    def of(cls, found: Reading) -> CategorySummary:
        """Summarize a reading."""
        rows = np.bincount(found.values + 1, minlength=len(found.labels) + 1).tolist()
        counts: dict[Any, int] = {}
        for label, n in zip(found.labels, rows[1:], strict=True):
            # A category of pandas may be declared and absent.
            if n:
                counts[label] = counts.get(label, 0) + n
        return cls(_bounded(counts), rows[0], kind_of_label(found.labels[0]))

    def __add__(self, other: CategorySummary) -> CategorySummary:
        n_missing = self.n_missing + other.n_missing
        if self.counts is None or other.counts is None:
            return CategorySummary(None, n_missing, self.holds)
        counts = dict(self.counts)
        for value, n in other.counts.items():
            counts[value] = counts.get(value, 0) + n
        return CategorySummary(_bounded(counts), n_missing, self.holds)

    def fits(self, other: Any) -> bool:
        """Return whether the two may be parts of one column."""
        return isinstance(other, CategorySummary) and self.holds == other.holds


def _bounded(counts: dict[Any, int]) -> dict[Any, int] | None:
    return counts if len(counts) <= MOST_VALUES else None


@dataclass(frozen=True)
class MissingSummary:
    """A part of a column of any kind, in which no value is known."""

    n_missing: int


ColumnSummary = NumbersSummary | CategorySummary | MissingSummary


def _added(name: str, one: ColumnSummary, two: ColumnSummary) -> ColumnSummary:
    """Return the summary of two parts of a column. PartitionError: they hold values of different kinds."""
    if isinstance(one, MissingSummary):
        return replace(two, n_missing=one.n_missing + two.n_missing)
    if isinstance(two, MissingSummary):
        return replace(one, n_missing=one.n_missing + two.n_missing)
    if not one.fits(two):
        raise PartitionError(
            f"Expected values of one kind in column {name!r}, received {one.holds} in some partitions and "
            f"{two.holds} in others. Convert the column first, for instance to text: "
            f"X.astype({{{name!r}: str}})."
        )
    return one + two  # type: ignore[operator]


# --- samples of rows ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RowSample:
    """Rows of a table, drawn where they lie: those with the smallest of random keys, in their order.

    keys (m,); y (m,) or (m, k); numbers: for each column that has any, arrays (m,) of the numbers that it
    becomes, NaN where missing.
    """

    keys: np.ndarray
    y: np.ndarray
    numbers: Mapping[str, tuple[np.ndarray, ...]]

    @classmethod
    def of(cls, number: int, y: np.ndarray, numbers: Mapping[str, Sequence[np.ndarray]]) -> RowSample:
        """Draw from the rows of a partition. number: of the partition."""
        keys = generator(0, Stream.TABLE_SAMPLE, number).random(len(y))
        return cls(keys, y, {name: tuple(parts) for name, parts in numbers.items()})._bounded()

    def __add__(self, other: RowSample) -> RowSample:
        numbers = {}
        for name in {**self.numbers, **other.numbers}:
            n_parts = len(self.numbers.get(name) or other.numbers[name])
            sides = [
                each.numbers.get(name) or (np.full(len(each.keys), np.nan),) * n_parts
                for each in (self, other)
            ]
            numbers[name] = tuple(np.concatenate(pair) for pair in zip(*sides, strict=True))
        keys, y = np.concatenate([self.keys, other.keys]), np.concatenate([self.y, other.y])
        return RowSample(keys, y, numbers)._bounded()

    def _bounded(self) -> RowSample:
        if len(self.keys) <= SAMPLE_ROWS:
            return self
        rows = np.sort(np.argpartition(self.keys, SAMPLE_ROWS)[:SAMPLE_ROWS])
        numbers = {name: tuple(part[rows] for part in parts) for name, parts in self.numbers.items()}
        return RowSample(self.keys[rows], self.y[rows], numbers)


# --- tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TableSummary:
    """Number of rows of a part of a table and a summary of each column; problem: why it cannot be used."""

    n_rows: int
    columns: Mapping[str, ColumnSummary]
    sample: RowSample | None = None
    problem: str | None = None

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        categories: frozenset[str],
        X: Any,
        y: Any = None,
        number: int | None = None,
    ) -> TableSummary:
        """Summarize X (n, p), plain data, with a sample of its rows if there is y.

        names: of the columns that are expected. categories: those that are categories whatever they hold.
        number: of the partition, for errors and for random draws.
        """
        try:
            return cls._of(names, categories, X, y, number or 0)
        except ValueError as error:
            return cls(0, {}, problem=str(error) if number is None else f"Partition {number}: {error}")

    @classmethod
    def _of(
        cls, names: Sequence[str], categories: frozenset[str], X: Any, y: Any, number: int
    ) -> TableSummary:
        table = Table.of(X)
        places = table.places(names, what="X, as the Dask collection announces")
        columns: dict[str, ColumnSummary] = {}
        numbers: dict[str, Sequence[np.ndarray]] = {}
        for name, place in zip(names, places, strict=True):
            found = read(name, table.column(place), name in categories)
            if found.kind == MISSING:
                columns[name] = MissingSummary(table.n_rows)
            elif found.kind == CATEGORY:
                columns[name] = CategorySummary.of(found)
            else:
                parts = numbers_of(found)
                columns[name] = NumbersSummary.of(found, parts)
                if y is not None:
                    numbers[name] = parts
        return cls(table.n_rows, columns, _sample(number, table.n_rows, y, numbers))

    def __add__(self, other: TableSummary) -> TableSummary:
        if self.problem or other.problem:
            return self if self.problem else other
        # In a part without rows, columns and y may have any dtype.
        if not (self.n_rows and other.n_rows):
            return self if self.n_rows else other
        try:
            columns = {name: _added(name, one, other.columns[name]) for name, one in self.columns.items()}
        except PartitionError as error:
            return TableSummary(0, {}, problem=str(error))
        sample = None if self.sample is None or other.sample is None else self.sample + other.sample
        return TableSummary(self.n_rows + other.n_rows, columns, sample)


def _sample(
    number: int, n_rows: int, y: Any, numbers: Mapping[str, Sequence[np.ndarray]]
) -> RowSample | None:
    if y is None:
        return None
    y = as_array(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if len(y) != n_rows:
        raise PartitionError(f"X has {n_rows} rows, y has {len(y)}.")
    if (row := first_missing(y)) is not None:
        raise PartitionError(f"y holds {y[row]} in row {row}. Drop rows without a target.")
    return RowSample.of(number, y, numbers)


def merged(*parts: TableSummary) -> TableSummary:
    """Return the summary of neighboring parts: a sum in an order that depends on their number alone."""
    return merge_tree(TableSummary.__add__, *parts)
