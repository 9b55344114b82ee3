"""Slices of rows: by the values of columns, by buckets of numbers, or by several of these.

    column values   codes (n,) and the values that they stand for, found part by part
    Buckets         numbers (n,), which become codes once the edges are known
    combined        codes (n,) of a slice of several columns, and their values as tuples

A value is None where it is missing. That of a bucket is its number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dasknn.evaluation.score_sketch import CellTally, equal_frequency_edges, keys_of_numbers
from dasknn.saving.serialization import did_you_mean

# More values than this are hardly meant as slices.
MOST_VALUES = 1_000
# The column of all rows, which have no value of their own.
ALL = "all"


@dataclass(frozen=True)
class Buckets:
    """Slices of a column of numbers: `Buckets("age", 5)`, `Buckets("age", [18, 40, 65])`.

    Parameters
    ----------
    column : str
        The name of the column.
    n : int, or sequence of float
        The number of buckets, with about as many rows each; or their edges, ascending. A bucket holds its
        lower edge, not its upper one; rows beyond the edges have buckets of their own.

    Raises
    ------
    ValueError
        Fewer than 2 buckets, or edges that do not ascend.

    Notes
    -----
    If `n` is a number, edges are found in the data: they are values of it, exact up to 100,000 distinct ones,
    and beyond that to some 3 digits. There are fewer buckets if one value has more than its share of the
    rows.
    """

    column: Hashable
    n: int | Sequence[float]

    def __post_init__(self) -> None:
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

    def numbers(self, column: Any) -> np.ndarray:
        """Return a column as float64 (n,), NaN where a value is missing. ValueError: it has no numbers."""
        kind = getattr(column.dtype, "kind", "O")
        if kind not in "biuf":
            raise ValueError(
                f"Expected numbers in column {self.column!r} for Buckets, received dtype {column.dtype}. "
                f"Slice by its values: slices=[{self.column!r}]."
            )
        return column.to_numpy(dtype=np.float64, na_value=np.nan)

    def tally(self, numbers: np.ndarray) -> CellTally:
        """Return a tally of numbers (n,), in which edges can be found."""
        present = numbers[~np.isnan(numbers)]
        return CellTally.of(keys_of_numbers(present), np.ones(len(present)))

    def edges(self, tally: CellTally) -> tuple[float, ...]:
        """Return the edges for a tally of all rows, from the least value to the greatest."""
        assert isinstance(self.n, int | np.integer), "edges that are given are not to be found"
        if not len(tally.keys):
            return ()
        return tuple(equal_frequency_edges(tally, int(self.n)).tolist())

    def codes(self, numbers: np.ndarray, edges: Sequence[float]) -> tuple[np.ndarray, list]:
        """Return the number of the bucket of each row, -1 if its value is missing, and all such numbers."""
        inner = edges[1:-1] if self.needs_edges else edges
        codes = np.searchsorted(np.asarray(inner), numbers, side="right")
        codes[np.isnan(numbers)] = -1
        return codes, list(range(len(inner) + 1))

    def described(self, number: int | None, edges: Sequence[float]) -> str:
        """Return the name of a bucket, such as age=[17, 28)."""
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


#: The name of a column, or Buckets.
Dimension = Any
#: Dimensions by which rows are sliced together; () for all rows.
Slices = tuple[tuple[Dimension, ...], ...]


def resolve(slices: Any, columns: Sequence[Hashable]) -> Slices:
    """Return slices as tuples of dimensions, all rows first.

    Parameters
    ----------
    slices : str, Buckets, or a list of these and of tuples of them
    columns : sequence
        The names of the columns that there are.

    Raises
    ------
    ValueError
        A column that does not exist, or twice the same in one slice.
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
    """Return the name of the column of a dimension."""
    return dimension.column if isinstance(dimension, Buckets) else dimension


def _not_there(column: Hashable, columns: Sequence[Hashable]) -> str:
    hint = did_you_mean(column, columns)
    there = ", ".join(repr(name) for name in list(columns)[:20]) or "none with a name"
    return (
        f"Expected slices by columns of X or of slice_data, received {column!r}.{hint} There are: {there}. "
        "Pass other columns, with the same rows as X, as slice_data=frame[[...]]."
    )


def dimensions_of(slices: Slices) -> list[Dimension]:
    """Return all dimensions of the slices, each once."""
    return list(dict.fromkeys(dimension for dimensions in slices for dimension in dimensions))


def column_values(name: Hashable, column: Any) -> tuple[np.ndarray, list]:
    """Return codes (n,) of a pandas column, -1 if a value is missing, and the values that they stand for.

    ValueError: too many values, or values that cannot be compared.
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
    """Raise ValueError for too many values for slices."""
    if n > MOST_VALUES:
        some = ", ".join(repr(value) for value in list(values)[:3])
        raise ValueError(
            f"Expected at most {MOST_VALUES:,} values for slices by {name!r}, received more, such as {some}. "
            "Make buckets of numbers with Buckets(column, 5); merge rare values of text into one first."
        )


def combined(parts: Sequence[tuple[np.ndarray, list]], n_rows: int) -> tuple[np.ndarray, list[tuple]]:
    """Return codes (n,) of rows by several dimensions, and the values of each code as a tuple."""
    numbers = np.zeros(n_rows, dtype=np.int64)
    for codes, values in parts:
        numbers = numbers * (len(values) + 1) + (codes + 1)
        # Numbered again after each dimension, so that many dimensions do not overflow.
        _, numbers = np.unique(numbers, return_inverse=True)
    _, first, codes = np.unique(numbers, return_index=True, return_inverse=True)
    rows = [
        [None if code < 0 else values[code] for code in part_codes[first].tolist()]
        for part_codes, values in parts
    ]
    return codes, list(zip(*rows, strict=True)) if rows else [()] * len(first)


def in_order(values: Iterable[tuple], orders: Sequence[dict | None]) -> list[tuple]:
    """Return tuples of values sorted, missing ones last; orders has the rank of values by dimension."""
    return sorted(values, key=lambda one: [_rank(v, o) for v, o in zip(one, orders, strict=True)])


def _rank(value: Any, order: dict | None) -> tuple:
    if value is None:
        return (3, 0, "")
    if order is not None and value in order:
        return (0, order[value], "")
    if isinstance(value, bool | int | float):
        return (1, value, "")
    return (2, 0, str(value))


def described(dimensions: Sequence[Dimension], values: Sequence, edges: dict, exactly: bool = False) -> str:
    """Return the name of a slice, such as "region=EU, age=[17, 28)"; exactly: with text in quotes."""
    if not dimensions:
        return ALL
    names = []
    for dimension, value in zip(dimensions, values, strict=True):
        if isinstance(dimension, Buckets):
            names.append(dimension.described(value, edges[dimension]))
        else:
            names.append(f"{dimension}={_text_of(value, exactly)}")
    return ", ".join(names)


def _text_of(value: Any, exactly: bool) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float) and value.is_integer():
        # In partitions with missing values, whole numbers are floats.
        return str(int(value))
    if isinstance(value, str) and exactly:
        return repr(value)
    return str(value).removesuffix(" 00:00:00")


def _short(edges: Sequence[float]) -> list[str]:
    """Return edges as text: whole numbers as they are, others with the fewest digits that tell them apart."""
    for digits in range(4, 18):
        names = [str(int(e)) if e.is_integer() else f"{e:.{digits}g}" for e in map(float, edges)]
        if len(set(names)) == len(names):
            break
    return names
