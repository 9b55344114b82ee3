"""Raw tables, one column at a time: numbers, dates and labels, from pandas, numpy or scipy.sparse.

    dataframe, array, CSR ── Table ── column ── read ── Reading(kind, values, labels)

What kind a column is follows from its dtype; the objects of a column are looked at, each distinct one once.
pandas is imported only where the table came as a dataframe.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from dasknn.data.blocks import refuse_kinds
from dasknn.data.columns import require_columns
from dasknn.data.partitions import is_dataframe
from dasknn.data.preprocessing import check_names_of_columns, named_by_text
from dasknn.data.targets import is_decimal, is_missing
from dasknn.exceptions import PartitionError
from dasknn.saving.serialization import did_you_mean

# Kinds of columns. "missing": no value is known, so it may be a part of a column of any kind.
NUMBER, BOOLEAN, DURATION, DATE, CATEGORY, MISSING = (
    "number",
    "boolean",
    "duration",
    "date",
    "category",
    "missing",
)
# Words for their values in errors.
VALUES = {NUMBER: "numbers", BOOLEAN: "booleans", DURATION: "durations", DATE: "dates", CATEGORY: "text"}
# Each column of numbers becomes many inputs, so wide sparse data would not stay what it is.
_MOST_SPARSE = 2_000
# In so few rows of text, a loop finds the distinct values sooner than pandas does.
_FEW_ROWS = 16
# Beginnings of the names of dtypes that no kind takes.
_STRANGE = ("period", "interval", "list", "struct", "map", "complex")


# --- tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Columns of a dataframe, array or CSR matrix X (n, p), in this process.

    is_named: the names are those of a dataframe, and not made up for positions.
    """

    X: Any
    names: tuple[str, ...]
    is_named: bool

    @classmethod
    def of(cls, X: Any) -> Table:
        """Return the table of X (n, p). ValueError: another shape, strange names, too wide."""
        if is_dataframe(X):
            X = named_by_text(X)
            check_names_of_columns(list(X.columns))
            return cls(X, tuple(X.columns), True)
        if sparse.issparse(X):
            if X.shape[1] > _MOST_SPARSE:
                raise PartitionError(
                    f"Expected sparse X with at most {_MOST_SPARSE:,} columns, received {X.shape[1]:,}. Each "
                    "column is encoded by itself, and becomes dense. Select columns, or reduce them first: "
                    "sklearn.decomposition.TruncatedSVD."
                )
            return cls(X.tocsc(), names_of_positions(X.shape[1]), False)
        if not hasattr(X, "dtype"):
            rows = np.asarray(X)
            # Of numbers and text in a list, numpy would make text.
            X = np.array(X, dtype=object) if rows.dtype.kind in "US" else rows
        if X.ndim == 1 and hasattr(X, "to_frame"):
            raise PartitionError("Expected X of shape (n, p), received a Series. Use X.to_frame().")
        if X.ndim != 2:
            raise PartitionError(
                f"Expected X of shape (n, p), received shape {X.shape}. Reshape it with X.reshape(-1, 1) if "
                "it has a single column, or with X.reshape(1, -1) if it has a single row."
            )
        refuse_kinds("X", X, "")
        return cls(np.asarray(X), names_of_positions(X.shape[1]), False)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    def column(self, place: int) -> Any:
        """Return a column as a pandas series, or as an array (n,)."""
        if self.is_named:
            # Names are all different; by its position, pandas would take ten times as long to find it.
            return self.X[self.names[place]]
        if sparse.issparse(self.X):
            # tocoo() adds up entries that a matrix may hold twice.
            return self.X[:, [place]].toarray()[:, 0]
        return self.X[:, place]

    def places(self, names: Sequence[str], by_name: bool = True, what: str = "X, as in fit") -> list[int]:
        """Return the places of the columns with these names, or if it has no names of them, of all columns.

        by_name: the names are those of a dataframe. ValueError: a column is missing.
        """
        if self.is_named and by_name:
            require_columns(self.names, names, what)
            places = {name: place for place, name in enumerate(self.names)}
            return [places[name] for name in names]
        if len(self.names) != len(names):
            raise ValueError(f"Expected {len(names)} columns in {what}, received {len(self.names)}.")
        return list(range(len(names)))


def names_of_positions(n_columns: int) -> tuple[str, ...]:
    """Return the names of columns that have none, as in scikit-learn."""
    return tuple(f"x{place}" for place in range(n_columns))


def chosen_columns(chosen: Any, names: Sequence[str]) -> frozenset[str]:
    """Return the names of columns that are given by name, by position or by a mask.

    ValueError: there is no such column.
    """
    given = np.asarray([] if chosen is None else chosen, dtype=object).reshape(-1).tolist()
    if given and all(isinstance(one, bool | np.bool_) for one in given):
        if len(given) != len(names):
            raise ValueError(
                f"Expected categorical_features with one entry for each of {len(names)} columns, received "
                f"{len(given)}."
            )
        return frozenset(name for name, is_chosen in zip(names, given, strict=True) if is_chosen)
    found = set()
    for one in given:
        if isinstance(one, str) and one in names:
            found.add(one)
        elif isinstance(one, int | np.integer) and 0 <= one < len(names):
            found.add(names[int(one)])
        else:
            meant = did_you_mean(one, names) if isinstance(one, str) else ""
            raise ValueError(
                "Expected categorical_features to be names of columns, positions from 0 to "
                f"{len(names) - 1} or a mask, received {one!r}.{meant} Columns: {', '.join(names[:30])}"
                f"{', ...' if len(names) > 30 else ''}."
            )
    return frozenset(found)


# --- columns -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """The values of a column in a part of a table, or in all of it.

    values (n,): float64, NaN where missing; for dates datetime64[us], NaT where missing; for categories the
    place in `labels` of each row's value, -1 where missing. Durations are seconds. zone: time zone of dates,
    which are read as the clock there showed them; None: they have no zone.
    """

    kind: str
    values: np.ndarray
    labels: tuple[str | bool | int | float, ...] = ()
    zone: str | None = None


def read(name: str, column: Any, as_category: bool = False, zone: str | None = None) -> Reading:
    """Read a pandas series or an array (n,).

    as_category: its values are categories, whatever they are. zone: dates of other time zones are moved to
    this one. PartitionError: infinity, values that no kind takes, or values of several kinds.
    """
    found = _read(name, column, as_category, zone)
    is_missing = found.values < 0 if found.kind == CATEGORY else np.isnan(found.values)
    if is_missing.all():
        return Reading(MISSING, np.full(len(found.values), np.nan))
    if found.kind == NUMBER and np.isinf(found.values).any():
        raise PartitionError(
            f"Column {name!r} holds infinity in row {int(np.isinf(found.values).argmax())}. Expected finite "
            "numbers: drop such rows, or replace infinity by missing values."
        )
    return found


def _read(name: str, column: Any, as_category: bool, zone: str | None) -> Reading:
    dtype = column.dtype
    if as_category:
        return _as_category(name, *_distinct(name, column))
    kind, called = getattr(dtype, "kind", "O"), str(dtype)
    if called == "category" or called.startswith("dictionary"):
        return _as_category(name, *_distinct(name, column))
    if kind == "b":
        return Reading(BOOLEAN, _floats(column))
    if kind in "iuf" or is_decimal(dtype):
        return Reading(NUMBER, _floats(column))
    if kind == "m":
        return Reading(DURATION, _seconds(_in_microseconds(column, "m8[us]")))
    if kind == "M":
        return _dates(name, column, zone)
    if kind in "cV" or called.startswith(_STRANGE):
        raise PartitionError(
            f"Expected numbers, dates, text, booleans or categories in column {name!r}, received {called}. "
            f"Convert it, for instance to text: X.astype({{{name!r}: str}}); or leave it out: "
            f"X.drop(columns=[{name!r}])."
        )
    return _of_objects(name, *_distinct(name, column), zone)


def _of_objects(name: str, codes: np.ndarray, values: list, zone: str | None) -> Reading:
    """Return the reading of objects. codes (n,): place of each row's value, -1 where missing."""
    kinds = {_kind_of(value): value for value in values}
    _check_one_kind(name, {VALUES[kind]: value for kind, value in kinds.items()})
    if CATEGORY in kinds or not kinds:
        return _as_category(name, codes, values)
    kind = next(iter(kinds))
    if kind == DATE:
        found = [_moment(name, value, zone) for value in values]
        zones = {one for _, one in found}
        if len(zones) > 1:
            raise PartitionError(
                f"Expected dates with a time zone or without one in column {name!r}, received both. Use "
                "pandas.to_datetime(..., utc=True)."
            )
        table = np.array([*(moment for moment, _ in found), np.datetime64("NaT")], "M8[us]")
        return Reading(DATE, table[codes], zone=zones.pop())
    if kind == DURATION:
        spans = [_since_midnight(value) if isinstance(value, time) else value for value in values]
        return Reading(DURATION, _seconds(np.array([*spans, np.timedelta64("NaT")], "m8[us]"))[codes])
    try:
        return Reading(kind, np.array([*map(float, values), np.nan])[codes])
    except OverflowError as error:
        raise PartitionError(_strange_value(name, f"an integer that is too large ({error})")) from None


def _kind_of(value: Any) -> str:
    if isinstance(value, str):
        return CATEGORY
    if isinstance(value, bool | np.bool_):
        return BOOLEAN
    # Intervals of pandas have no number, and numpy's durations are of the abstract kind of integers.
    if isinstance(value, timedelta | np.timedelta64 | time):
        return DURATION
    if isinstance(value, date | np.datetime64):
        return DATE
    return NUMBER if isinstance(value, Real | Decimal) else CATEGORY


def _floats(column: Any) -> np.ndarray:
    if isinstance(column, np.ndarray):
        return column.astype(np.float64)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _distinct(name: str, column: Any) -> tuple[np.ndarray, list]:
    """Return (place of each row's value, -1 where it is missing; distinct values) of a column."""
    try:
        if isinstance(column, np.ndarray):
            return _distinct_in_array(column)
        import pandas as pd

        if len(column) <= _FEW_ROWS and isinstance(column.dtype, pd.StringDtype):
            return _distinct_in_array(column.to_numpy(dtype=object))
        if is_decimal(column.dtype):
            column = pd.Series(_floats(column))
        codes, values = pd.factorize(column)
    except TypeError as error:
        # Values that cannot be hashed, such as lists.
        raise PartitionError(_strange_value(name, str(error))) from None
    return codes, values.tolist()


def _distinct_in_array(column: np.ndarray) -> tuple[np.ndarray, list]:
    places: dict[Hashable, int] = {}
    codes = np.empty(len(column), np.intp)
    # As objects numpy's dates would be numbers, depending on their unit.
    values = column if column.dtype.kind in "mM" else column.tolist()
    for row, value in enumerate(values):
        codes[row] = -1 if is_missing(value) else places.setdefault(value, len(places))
    return codes, list(places)


# --- labels of categories ----------------------------------------------------------------------------


def _as_category(name: str, codes: np.ndarray, values: list) -> Reading:
    labels = tuple(_label(name, value) for value in values)
    _check_one_kind(name, {kind_of_label(label): label for label in labels})
    return Reading(CATEGORY, codes, labels)


def _check_one_kind(name: str, kinds: Mapping[str, Any]) -> None:
    """Raise PartitionError for values of several kinds. kinds: an example of each."""
    if len(kinds) > 1:
        received = ", ".join(f"{kind} such as {value!r}" for kind, value in sorted(kinds.items()))
        raise PartitionError(
            f"Expected values of one kind in column {name!r}, received {received}. Convert them to text: "
            f"X.astype({{{name!r}: str}})."
        )


def kind_of_label(label: str | bool | int | float) -> str:
    """Return "text", "booleans" or "numbers"."""
    return "text" if isinstance(label, str) else "booleans" if isinstance(label, bool) else "numbers"


def _label(name: str, value: Any) -> str | bool | int | float:
    """Return a value as a label that JSON holds and that is the same in every partition."""
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, Real | Decimal) and np.isfinite(number := float(value)):
        # In partitions with missing values, codes that are whole numbers are floats.
        return int(number) if number.is_integer() else number
    # Intervals, periods, dates and identifiers have a text that says all of them.
    if type(value).__module__.partition(".")[0] in ("pandas", "datetime", "numpy", "uuid"):
        return str(value)
    raise PartitionError(_strange_value(name, f"{type(value).__name__} {value!r:.60}"))


def _strange_value(name: str, received: str) -> str:
    return (
        f"Expected numbers, dates, text or booleans in column {name!r}, received {received}. Convert it, for "
        f"instance to text: X.astype({{{name!r}: str}}); or leave it out: X.drop(columns=[{name!r}])."
    )


# --- dates and durations -----------------------------------------------------------------------------


def _in_microseconds(column: Any, unit: str) -> np.ndarray:
    # Microseconds reach from the first year to the last, which nanoseconds do not.
    if isinstance(column, np.ndarray):
        return column.astype(unit)
    return column.to_numpy(dtype=unit, na_value=np.array("NaT", unit)[()])


def _seconds(values: np.ndarray) -> np.ndarray:
    # NaT becomes NaN.
    return values / np.timedelta64(1, "s")


def _since_midnight(clock: time) -> timedelta:
    return datetime.combine(date.min, clock.replace(tzinfo=None)) - datetime.min


def _dates(name: str, column: Any, zone: str | None) -> Reading:
    if isinstance(column, np.ndarray):
        return Reading(DATE, column.astype("M8[us]"))
    import pandas as pd

    if str(column.dtype).startswith(("date32", "date64")):
        import pyarrow as pa

        column = column.astype(pd.ArrowDtype(pa.timestamp("us")))
    own = column.dt.tz
    if own is None:
        return Reading(DATE, _in_microseconds(column, "M8[us]"))
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        # pandas 2.2 turns dates of Arrow into those of UTC when it takes their zone away.
        column = column.astype(pd.DatetimeTZDtype("us", own))
    if zone not in (None, str(own)):
        try:
            column = column.dt.tz_convert(zone)
        except Exception as error:
            # Names of zones mean something in the library that made them.
            raise PartitionError(_other_zone(name, str(own), zone)) from error
    values = _in_microseconds(column.dt.tz_localize(None), "M8[us]")
    return Reading(DATE, values, zone=zone or str(own))


def _moment(name: str, value: Any, zone: str | None) -> tuple[Any, str | None]:
    """Return (datetime64, time zone) of a date or datetime, in the zone if it has one; else in UTC."""
    if getattr(value, "tzinfo", None) is None:
        return np.datetime64(value.to_datetime64() if hasattr(value, "to_datetime64") else value, "us"), None
    there: Any = UTC
    if zone not in (None, "UTC"):
        from zoneinfo import ZoneInfo

        try:
            there = ZoneInfo(zone)
        except Exception as error:
            raise PartitionError(_other_zone(name, str(value.tzinfo), zone)) from error
    moment: datetime = value.astimezone(there).replace(tzinfo=None)
    return _moment(name, moment, None)[0], zone or "UTC"


def _other_zone(name: str, received: str, zone: Any) -> str:
    return (
        f"Expected dates in the time zone {zone} in column {name!r}, as in the data of fit, received "
        f"{received}. Convert them: X[{name!r}].dt.tz_convert(...)."
    )


# --- later data --------------------------------------------------------------------------------------


def read_again(name: str, column: Any, kind: str, zone: str | None = None) -> Reading:
    """Read a column of which the kind, and the time zone of dates, are known from the data of fit.

    PartitionError: it holds values of another kind, or what `read` refuses.
    """
    found = read(name, column, kind == CATEGORY, zone)
    if found.kind == MISSING:
        return found
    if found.kind == CATEGORY != kind and kind_of_label(found.labels[0]) != "text":
        # A pandas category of numbers.
        table = np.array([*map(float, found.labels), np.nan])
        found = Reading(NUMBER, table[found.values])
    # True and False are 1 and 0.
    if found.kind != kind and {found.kind, kind} != {NUMBER, BOOLEAN}:
        received = VALUES[found.kind]
        if found.kind == CATEGORY:
            received += f" such as {found.labels[0]!r:.60}"
        raise PartitionError(
            f"Expected {VALUES[kind]} in column {name!r}, as in the data of fit, received {received}. "
            f"Convert the column first{_CONVERSIONS.get(kind, '').format(name=name)}."
        )
    if found.kind == DATE and found.zone != zone:
        ours, theirs = ("with a time zone" if one else "without a time zone" for one in (zone, found.zone))
        raise PartitionError(
            f"Expected dates {ours} in column {name!r}, as in the data of fit, received dates {theirs}. Use "
            f"X[{name!r}].dt.tz_localize(...)."
        )
    return found


_CONVERSIONS = {
    NUMBER: ": X.astype({{{name!r}: 'float64'}})",
    DATE: ": X.assign(**{{{name!r}: pandas.to_datetime(X[{name!r}])}})",
    DURATION: ": X.assign(**{{{name!r}: pandas.to_timedelta(X[{name!r}])}})",
}
