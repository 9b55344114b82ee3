"""Which rows belong to which slice: by the values of columns, by buckets of numbers, or by several of them.

    column values   codes (n,) and the values that they stand for, found part by part
    Buckets         numbers (n,), which become codes once the edges are known
    combined        codes (n,) of a slice of several columns, and their values as tuples

A value is None where it is missing. That of a bucket is its number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dasknn.evaluation.score_sketch import Tally, equal_frequency_edges, keys_of_numbers
from dasknn.saving.serialization import did_you_mean

# A slice with more values than this was hardly meant.
MOST_VALUES = 1_000
# The column of all rows, which have no value of their own.
ALL = "all"


@dataclass(frozen=True)
class Buckets:
    """Slices of a column of numbers.

    Parameters
    ----------
    column : str
        Its name.
    n : int or sequence of float
        How many buckets, with about as many rows each; or their edges, ascending. A bucket holds its lower
        edge, not its upper one; rows beyond the edges have buckets of their own.

    Notes
    -----
    `Buckets("age", 5)`, `Buckets("age", [18, 40, 65])`. Edges that are asked for by number are found in the
    data: they are values of it, exact up to 100,000 distinct ones, and beyond that to some 3 digits. There
    are fewer buckets where one value has more than its share of the rows.

    ValueError: fewer than 2 buckets, edges that do not ascend.
    """

    column: Hashable
    n: int | Sequence[float]

    def __post_init__(self):
        if isinstance(self.n, int | np.integer):
            if isinstance(self.n, bool) or self.n < 2:
                raise ValueError(f"Expected at least 2 buckets of {self.column!r}, received {self.n}.")
            return
        try:
            edges = tuple(float(edge) for edge in self.n)
        except (TypeError, ValueError):
            edges = ()
        if not edges or not all(a < b for a, b in pairwise(edges)) or np.isnan(edges[0]):
            raise ValueError(
                f"Expected a number of buckets of {self.column!r}, or edges that ascend, such as "
                f"[18, 40, 65]; received {self.n!r}."
            )
        object.__setattr__(self, "n", edges)

    @property
    def needs_edges(self) -> bool:
        """Whether the edges are to be found in the data."""
        return isinstance(self.n, int | np.integer)

    def numbers(self, column) -> np.ndarray:
        """Return a column as float64 (n,), NaN where a value is missing. ValueError: it has no numbers."""
        kind = getattr(column.dtype, "kind", "O")
        if kind not in "biuf":
            raise ValueError(
                f"Expected numbers in column {self.column!r} for Buckets, received dtype {column.dtype}. "
                f"Slice by its values: slices=[{self.column!r}]."
            )
        return column.to_numpy(dtype=np.float64, na_value=np.nan)

    def tally(self, numbers: np.ndarray) -> Tally:
        """Return how many rows each number has, to find edges by."""
        present = numbers[~np.isnan(numbers)]
        return Tally.of(keys_of_numbers(present), np.ones(len(present)))

    def edges(self, tally: Tally) -> tuple[float, ...]:
        """Return the edges that a tally of all rows gives: the least value, ..., the greatest."""
        assert isinstance(self.n, int | np.integer)
        if not len(tally.keys):
            return ()
        return tuple(equal_frequency_edges(tally, int(self.n)).tolist())

    def codes(self, numbers: np.ndarray, edges: Sequence[float]) -> tuple[np.ndarray, list]:
        """Return the number of the bucket of each row, -1 where it is missing, and the buckets' numbers."""
        inner = edges[1:-1] if self.needs_edges else edges
        codes = np.searchsorted(np.asarray(inner), numbers, side="right")
        codes[np.isnan(numbers)] = -1
        return codes, list(range(len(inner) + 1))

    def described(self, number: int | None, edges: Sequence[float]) -> str:
        """Return what a bucket is called, such as age=[17, 28)."""
        if number is None:
            return f"{self.column}=missing"
        names = _short(edges)
        if not self.needs_edges:
            if number == 0:
                return f"{self.column}<{names[0]}"
            if number == len(edges):
                return f"{self.column}>={names[-1]}"
            return f"{self.column}=[{names[number - 1]}, {names[number]})"
        if len(edges) == 1:
            return f"{self.column}={names[0]}"
        end = "]" if number == len(edges) - 2 else ")"
        return f"{self.column}=[{names[number]}, {names[number + 1]}{end}"


Dimension = Any  # the name of a column, or Buckets
Slices = tuple[tuple[Dimension, ...], ...]


def resolve(slices, columns: Sequence[Hashable]) -> Slices:
    """Return slices as tuples of dimensions, all rows first. ValueError: a column that is not there.

    slices: names of columns, Buckets, and tuples of them; or one of these.
    """
    if isinstance(slices, str | Buckets):
        slices = [slices]
    resolved: list[tuple] = [()]
    for wanted in slices:
        dimensions = wanted if isinstance(wanted, tuple) else (wanted,)
        for dimension in dimensions:
            column = column_of(dimension)
            if column not in columns:
                raise ValueError(_not_there(column, columns))
        if not dimensions or len(set(map(column_of, dimensions))) < len(dimensions):
            raise ValueError(f"Expected a slice of one or more different columns, received {wanted!r}.")
        if dimensions not in resolved:
            resolved.append(dimensions)
    return tuple(resolved)


def column_of(dimension: Dimension) -> Hashable:
    """Return the name of the column that a dimension looks at."""
    return dimension.column if isinstance(dimension, Buckets) else dimension


def _not_there(column, columns: Sequence[Hashable]) -> str:
    hint = did_you_mean(column, columns)
    there = ", ".join(repr(name) for name in list(columns)[:20]) or "none with a name"
    return (
        f"Expected slices by columns of X or of slice_data, received {column!r}.{hint} There are: {there}. "
        "Pass other columns, row by row as X, as slice_data=frame[[...]]."
    )


def dimensions_of(slices: Slices) -> list[Dimension]:
    """Return all dimensions of the slices, each once."""
    return list(dict.fromkeys(dimension for dimensions in slices for dimension in dimensions))


def column_values(name: Hashable, column) -> tuple[np.ndarray, list]:
    """Return codes (n,) of a pandas column, -1 where it is missing, and the values that they stand for.

    ValueError: too many values, or such as cannot be compared.
    """
    import pandas as pd

    try:
        codes, found = pd.factorize(column, use_na_sentinel=True)
    except TypeError:
        raise ValueError(
            f"Expected text, numbers, booleans or dates in column {name!r} for a slice, received other "
            f"objects, such as {column.iloc[0]!r:.80}."
        ) from None
    values = found.tolist()
    check_number(name, len(values), values)
    return np.asarray(codes), values


def check_number(name: Any, n: int, values: Sequence) -> None:
    """ValueError: too many values for slices."""
    if n > MOST_VALUES:
        some = ", ".join(repr(value) for value in list(values)[:3])
        raise ValueError(
            f"Expected at most {MOST_VALUES:,} values for slices by {name!r}, received more, such as {some}. "
            "Of numbers make Buckets(column, 5); of text put rare values together first."
        )


def combined(parts: Sequence[tuple[np.ndarray, list]], n_rows: int) -> tuple[np.ndarray, list[tuple]]:
    """Return codes (n,) of rows by several dimensions, and for each code its values."""
    numbers = np.zeros(n_rows, dtype=np.int64)
    for codes, values in parts:
        numbers = numbers * (len(values) + 1) + (codes + 1)
        # Small again after each dimension, so that many of them do not overflow.
        _, numbers = np.unique(numbers, return_inverse=True)
    _, first, codes = np.unique(numbers, return_index=True, return_inverse=True)
    rows = [
        [None if code < 0 else values[code] for code in part_codes[first].tolist()]
        for part_codes, values in parts
    ]
    return codes, list(zip(*rows, strict=True)) if rows else [()] * len(first)


def in_order(values, orders: Sequence[dict | None]) -> list[tuple]:
    """Return tuples of values sorted, missing ones last; orders: for a dimension, the rank of its values."""
    return sorted(values, key=lambda one: [_rank(v, o) for v, o in zip(one, orders, strict=True)])


def _rank(value, order: dict | None) -> tuple:
    if value is None:
        return (3, 0, "")
    if order is not None and value in order:
        return (0, order[value], "")
    if isinstance(value, bool | int | float):
        return (1, value, "")
    return (2, 0, str(value))


def described(dimensions: Sequence[Dimension], values: Sequence, edges: dict, exactly: bool = False) -> str:
    """Return what a slice is called: region=EU, age=[17, 28); exactly: text in quotes."""
    if not dimensions:
        return ALL
    names = []
    for dimension, value in zip(dimensions, values, strict=True):
        if isinstance(dimension, Buckets):
            names.append(dimension.described(value, edges[dimension]))
        else:
            names.append(f"{dimension}={_said(value, exactly)}")
    return ", ".join(names)


def _said(value, exactly: bool) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float) and value.is_integer():
        # A partition with missing values has numbers as floats.
        return str(int(value))
    if isinstance(value, str) and exactly:
        return repr(value)
    return str(value).removesuffix(" 00:00:00")


def _short(edges: Sequence[float]) -> list[str]:
    """Return edges as text: whole numbers as they are, others with as few digits as tell them apart."""
    for digits in range(4, 18):
        names = [str(int(e)) if e.is_integer() else f"{e:.{digits}g}" for e in map(float, edges)]
        if len(set(names)) == len(names):
            break
    return names
