"""Kinds of columns of a table: numbers and categories, what is found of them and what they become.

    partition ── TableSummary: a summary of each column ──┐
    partition ── TableSummary ────────────────────────────┴── sum, in order ── Numbers, Categories ── Encoder

Summaries add up, so each partition is summarized where it is, in one pass. What is learned of a column is a
small value, which workers get once and which a file holds as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.base import is_dask_collection

from dasknn.data.targets import has_decimals, is_decimal
from dasknn.exceptions import PartitionError
from dasknn.saving import schema

# Columns with more distinct values than this are refused, even if rare values would share one column.
_MOST_VALUES = 100_000
# Names that scikit-learn's OneHotEncoder gives to the columns of rare and of missing values.
_INFREQUENT, _MISSING = "infrequent_sklearn", "nan"


# --- summaries of a part of a column -----------------------------------------------------------------


@dataclass(frozen=True)
class NumberSummary:
    """Count, mean, squared deviations, range and missing values of the numbers in a part of a column.

    m2 is the sum of squared deviations from the mean. Summaries are added as by Chan, Golub and LeVeque
    (1979).
    """

    n: int
    mean: float
    m2: float
    least: float
    greatest: float
    n_missing: int

    @classmethod
    def of(cls, column: Any) -> NumberSummary:
        """Summarize a pandas series. PartitionError: it holds infinity, or values that are not numbers."""
        values = _numbers(column)
        known = values[~np.isnan(values)]
        n_missing = len(values) - len(known)
        if not len(known):
            return cls(0, 0.0, 0.0, np.inf, -np.inf, n_missing)
        least, greatest = float(known.min()), float(known.max())
        if not np.isfinite([least, greatest]).all():
            raise PartitionError(
                f"Column {column.name!r} holds infinity in row {int(np.isinf(values).argmax())}. Expected "
                "finite numbers: drop such rows, or replace infinity by missing values."
            )
        # From the first value, so that a constant column has exactly its value as mean.
        mean = float(known[0] + (known - known[0]).mean())
        return cls(len(known), mean, float(np.square(known - mean).sum()), least, greatest, n_missing)

    def __add__(self, other: NumberSummary) -> NumberSummary:
        n_missing = self.n_missing + other.n_missing
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        n = self.n + other.n
        if not n:
            return NumberSummary(0, 0.0, 0.0, least, greatest, n_missing)
        delta = other.mean - self.mean
        mean = self.mean + delta * other.n / n if self.n else other.mean
        m2 = self.m2 + other.m2 + delta * delta * self.n * other.n / n
        return NumberSummary(n, mean, m2, least, greatest, n_missing)

    def learn(self, name: str) -> Numbers:
        """Return the kind of the column, of which this is the summary of all numbers."""
        # A constant column becomes zeros.
        scale = 1.0 if self.least >= self.greatest else float(np.sqrt(self.m2 / self.n)) or 1.0
        return Numbers(name, self.mean, scale, self.n_missing > 0)


@dataclass(frozen=True)
class CategorySummary:
    """Number of rows of each distinct value in a part of a column; the key None counts missing values."""

    counts: dict[Any, int]

    @classmethod
    def of(cls, column: Any) -> CategorySummary:
        """Summarize a pandas series.

        PartitionError: values that are not text, booleans or numbers, or too many distinct values.
        """
        codes, values = _distinct(column)
        if len(values) > _MOST_VALUES:
            raise PartitionError(_too_many(column.name, _MOST_VALUES))
        counts = np.bincount(codes + 1, minlength=len(values) + 1).tolist()
        known = dict(zip(values, counts[1:], strict=True))
        return cls({None: counts[0], **known} if counts[0] else known)

    def __add__(self, other: CategorySummary) -> CategorySummary:
        counts = dict(self.counts)
        for value, n in other.counts.items():
            counts[value] = counts.get(value, 0) + n
        return CategorySummary(counts)

    def learn(self, name: str, min_frequency: int | float | None, most: int) -> Categories:
        """Return the kind of the column, of which these are the counts of all values.

        min_frequency: values of fewer rows, or of a smaller share of all rows, share one column.
        ValueError: more than `most` values, or values of several kinds.
        """
        values = sorted(_of_one_kind(name, [value for value in self.counts if value is not None]))
        everything = [*values, *([None] if None in self.counts else [])]
        least = min_frequency or 0
        if isinstance(min_frequency, float):
            least = min_frequency * sum(self.counts.values())
        kept = [value for value in everything if self.counts[value] >= least]
        if len(kept) > most:
            raise ValueError(_too_many(name, most))
        return Categories(name, tuple(kept), tuple(value for value in everything if value not in set(kept)))


def summary_kind(name: str, column: Any, is_code: bool) -> type[NumberSummary] | type[CategorySummary]:
    """Return the class that summarizes a pandas or Dask series. ValueError: a dtype that cannot be used.

    is_code: numbers of the column are codes of categories.
    """
    dtype = column.dtype
    kind = getattr(dtype, "kind", "O")
    if kind in "mMcV" or str(dtype).startswith(("period", "interval")):
        raise ValueError(
            f"Expected numbers, text, booleans or categories in column {name!r}, received {dtype}. Convert "
            "it to numbers, such as the year or the days since the first date, or leave it out "
            f"(drop=[{name!r}])."
        )
    # A pandas category of numbers has the kind "O". Objects of a Dask column cannot be looked at here.
    is_number = (
        kind in "iuf" or is_decimal(dtype) or (not is_dask_collection(column) and has_decimals(column))
    )
    return NumberSummary if is_number and not is_code else CategorySummary


def _too_many(name: str, most: int) -> str:
    return (
        f"Column {name!r} holds more than {most:,} distinct values, each of which would be an input of the "
        f"network. Leave it out (drop=[{name!r}]), let rare values share one column (min_frequency=100), "
        "or raise max_categories. If they are numbers, convert them: X.astype({...: 'float64'})."
    )


def _of_one_kind(name: str, values: list) -> list:
    examples = {_kind(value): value for value in values}
    if len(examples) > 1:
        received = ", ".join(f"{kind} such as {value!r}" for kind, value in sorted(examples.items()))
        raise ValueError(
            f"Expected values of one kind in column {name!r}, received {received}. Convert them to text: "
            f"X.assign(**{{{name!r}: X[{name!r}].astype(str)}}); or leave the column out (drop=[{name!r}])."
        )
    return values


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "booleans" if isinstance(value, bool) else "numbers"


def _numbers(column: Any) -> np.ndarray:
    """Return a pandas series as float64, missing values as NaN. PartitionError: it holds something else."""
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise PartitionError(
            f"Expected numbers in column {column.name!r}, received {column.dtype} ({error}). If it holds "
            f"codes or text, name it in categorical=[{column.name!r}]."
        ) from None


def _distinct(column: Any) -> tuple[np.ndarray, list]:
    """Return (code of each row, -1 for missing values; distinct values) of a pandas series."""
    import pandas as pd

    try:
        codes, values = pd.factorize(_numbers(column) if is_decimal(column.dtype) else column)
    except TypeError as error:
        # Values that cannot be hashed, such as lists.
        raise PartitionError(_strange(column, str(error))) from None
    return codes, [_category(column, value) for value in values.tolist()]


def _category(column: Any, value: Any) -> str | bool | int | float:
    # In partitions with missing values, codes that are whole numbers are floats.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | bool | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise PartitionError(_strange(column, f"{type(value).__name__} {value!r:.60}"))


def _strange(column: Any, received: str) -> str:
    return (
        f"Expected text, booleans or numbers in column {column.name!r}, received {received}. Convert it "
        f"(to numbers with X.astype({{{column.name!r}: 'float64'}})), or leave it out "
        f"(drop=[{column.name!r}])."
    )


@dataclass(frozen=True)
class TableSummary:
    """Number of rows of a part of a table and a summary of each column; problem: why it cannot be used."""

    n_rows: int
    columns: dict[str, NumberSummary | CategorySummary]
    problem: str | None = None

    @classmethod
    def in_table(cls, kinds: Mapping[str, Any], X: Any) -> TableSummary:
        """Summarize columns of a pandas dataframe. kinds: the class of the summary, by name of the column."""
        try:
            columns = {name: kind.of(_column(X, name)) for name, kind in kinds.items()}
        except PartitionError as error:
            return cls(len(X), {}, str(error))
        return cls(len(X), columns)

    def __add__(self, other: TableSummary) -> TableSummary:
        # In a part without rows, columns may have any dtype.
        if not (self.n_rows and other.n_rows):
            return self if self.n_rows else other
        columns: dict[str, Any] = {name: one + other.columns[name] for name, one in self.columns.items()}  # type: ignore[operator]
        return TableSummary(self.n_rows + other.n_rows, columns)


def _column(X: Any, name: str) -> Any:
    if name not in X.columns:
        raise PartitionError(
            f"Expected column {name!r}, as the dataframe announces, received {list(X.columns)}."
        )
    return X[name]


# --- kinds of columns --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """A column of numbers becomes (x - mean) / scale, and 0 where x is missing.

    indicator: it also becomes a second column, 1 where x is missing.
    """

    name: str
    mean: float
    scale: float
    indicator: bool

    @property
    def names(self) -> list[str]:
        """Names of the columns that come out."""
        return [self.name, *([f"missingindicator_{self.name}"] if self.indicator else [])]

    def write(self, column: Any, out: np.ndarray) -> None:
        """Write the columns that come out for a pandas series to out (n, k), which holds zeros."""
        values = _numbers(column)
        missing = np.isnan(values)
        values = (values - self.mean) / self.scale
        values[missing] = 0.0
        out[:, 0] = values
        if self.indicator:
            out[:, 1] = missing


@dataclass(frozen=True)
class Categories:
    """A column of categories becomes a column for each of `values` (None: missing), 1 where x has this value.

    Infrequent values share one more column. For values that are neither, all columns are 0.
    """

    name: str
    values: tuple
    infrequent: tuple = ()

    @property
    def names(self) -> list[str]:
        """Names of the columns that come out."""
        ends = [_MISSING if value is None else str(value) for value in self.values]
        return [f"{self.name}_{end}" for end in [*ends, *([_INFREQUENT] if self.infrequent else [])]]

    def write(self, column: Any, out: np.ndarray) -> None:
        """Write the columns that come out for a pandas series to out (n, k), which holds zeros.

        PartitionError: values of another kind than in the data that it was fitted to.
        """
        codes, values = _distinct(column)
        self._check_kind(values)
        places = {value: place for place, value in enumerate(self.values)}
        places.update(dict.fromkeys(self.infrequent, len(self.values)))
        # table: the column of each distinct value; the last entry, at code -1, is that of missing values
        table = np.array([*(places.get(value, -1) for value in values), places.get(None, -1)], dtype=np.intp)
        at = table[codes]
        rows = np.flatnonzero(at >= 0)
        out[rows, at[rows]] = 1

    def _check_kind(self, values: list) -> None:
        kinds = {_kind(value) for value in (*self.values, *self.infrequent) if value is not None}
        for value in values:
            if kinds and _kind(value) not in kinds:
                raise PartitionError(
                    f"Expected {'/'.join(kinds)} in column {self.name!r}, as in the data of fit, received "
                    f"{_kind(value)} such as {value!r}. Convert the column first."
                )


KINDS = {"numbers": Numbers, "categories": Categories}


@dataclass(frozen=True)
class Encoder:
    """Encodes a pandas dataframe (n, p) as one of numbers (n, k), in the order of the columns."""

    columns: tuple[Numbers | Categories, ...]
    dtype: str

    @property
    def names(self) -> list[str]:
        """Names of the columns that come out, all different."""
        names: list[str] = []
        seen: set[str] = set()
        for name in (name for column in self.columns for name in column.names):
            unique, number = name, 2
            while unique in seen:
                unique, number = f"{name}_{number}", number + 1
            seen.add(unique)
            names.append(unique)
        return names

    def __call__(self, X: Any) -> Any:
        """Return the encoded dataframe, with the index of X."""
        import pandas as pd

        names = self.names
        out = np.zeros((len(X), len(names)), self.dtype)
        first = 0
        for column in self.columns:
            width = len(column.names)
            column.write(_column(X, column.name), out[:, first : first + width])
            first += width
        return pd.DataFrame(out, index=X.index, columns=names, copy=False)


def encode_table(X: Any, encoder: Encoder) -> Any:
    """Return encoder(X). The dashboard shows tasks by the name of this function."""
    return encoder(X)


_VALUES = schema.each(schema.optional(schema.label))
_COLUMN_KINDS = {
    "numbers": schema.record(
        {
            "kind": schema.text,
            "name": schema.text,
            "mean": schema.number(finite=True),
            "scale": schema.number(finite=True),
            "indicator": schema.flag,
        }
    ),
    "categories": schema.record(
        {"kind": schema.text, "name": schema.text, "values": _VALUES, "infrequent": _VALUES}
    ),
}


def check_column(config: Any, where: str) -> None:
    schema.record({"kind": schema.one_of(*_COLUMN_KINDS)}, others=schema.anything)(config, where)
    _COLUMN_KINDS[config["kind"]](config, where)


def column_from(config: Mapping[str, Any]) -> Numbers | Categories:
    if config["kind"] == "numbers":
        return Numbers(config["name"], config["mean"], config["scale"], config["indicator"])
    return Categories(config["name"], tuple(config["values"]), tuple(config["infrequent"]))
