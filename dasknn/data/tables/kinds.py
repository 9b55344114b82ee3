"""What was learned of the columns of a table, and what each becomes: numbers and codes of categories.

These are small values, which workers get once and which a file holds as JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dasknn.data.tables.reading import (
    BOOLEAN,
    CATEGORY,
    DATE,
    DURATION,
    MISSING,
    NUMBER,
    Reading,
    kind_of_label,
    read_again,
)
from dasknn.data.tables.summaries import DATE_PARTS, numbers_of
from dasknn.exceptions import PartitionError
from dasknn.saving import schema

# Coordinates of outliers stay within so many widths of the first bin below it, and of the last above it.
_MOST_OUTSIDE = 4.0
# Edges that are closer than this, as scaled numbers, become one.
_LEAST_WIDTH = 1e-9
# Codes are written as float32, which holds integers exactly up to 2**24.
MOST_CODES = 2**22
MOST_BINS = 10_000


# --- numbers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Binned:
    """Numbers of which a network gets a scaled value and a coordinate among bins.

    part: what of a date it is; "" for other columns. edges: of the bins, ascending, at least two.
    """

    part: str
    center: float
    scale: float
    edges: tuple[float, ...]

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Return z / sqrt(1 + (z / 3)^2), for z = scale * (x - center), of x (n,); 0 where x is NaN."""
        with np.errstate(over="ignore"):
            z = np.clip((x - self.center) * self.scale, -1e100, 1e100)
        z /= np.sqrt(1 + np.square(z / 3))
        z[np.isnan(x)] = 0.0
        return z

    def coordinates(self, x: np.ndarray) -> np.ndarray:
        """Return t + (z - e_t) / (e_(t+1) - e_t) of x (n,), which is in bin t; 0 where x is NaN.

        z and the edges e are scaled as in `scaled`: within the wide bins of a long tail, numbers near the
        others would else all have one coordinate. Below the first edge and above the last it is linear as in
        the first and the last bin, and ends after 4 bins. So clip(u - t, 0, 1) is component t of the
        piecewise-linear encoding of x.
        """
        return self.scaled_and_coordinates(x)[1]

    def scaled_and_coordinates(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what `scaled` and `coordinates` return, at once."""
        edges, z = self.scaled(np.array(self.edges)), self.scaled(x)
        t = np.clip(np.searchsorted(edges, z, side="right") - 1, 0, self.n_bins - 1)
        u = t + (z - edges[t]) / np.diff(edges)[t]
        u = np.clip(u, -_MOST_OUTSIDE, self.n_bins + _MOST_OUTSIDE)
        u[np.isnan(x)] = 0.0
        return z, u

    @classmethod
    def of(cls, part: str, center: float, scale: float, edges: np.ndarray) -> Binned:
        """Return the number with those edges that stay apart when they are scaled."""
        scaled = cls(part, center, scale, ()).scaled(edges)
        apart = np.concatenate([[True], np.diff(scaled) > _LEAST_WIDTH])
        if not apart[1:].any():
            apart[-1] = True
        return cls(part, center, scale, tuple(edges[apart].tolist()))

    def __str__(self) -> str:
        bins = f"{self.n_bins} bin{'s' * (self.n_bins > 1)} from {self.edges[0]:.7g} to {self.edges[-1]:.7g}"
        return f"{self.part + ': ' if self.part else ''}median {self.center:.7g}, {bins}"


@dataclass(frozen=True)
class Binary:
    """Numbers of which there were two, low and high, which become -1 and 1."""

    part: str
    low: float
    high: float

    def signs(self, x: np.ndarray) -> np.ndarray:
        """Return -1 for low, 1 for high, 0 where x (n,) is NaN; other numbers in proportion, within ±3."""
        # Halves: the distance of two numbers may be greater than the greatest number.
        with np.errstate(over="ignore"):
            signs = 2 * ((x / 2 - self.low / 2) / (self.high / 2 - self.low / 2)) - 1
        signs = np.clip(signs, -3.0, 3.0)
        signs[np.isnan(x)] = 0.0
        return signs

    def __str__(self) -> str:
        return f"{self.part + ': ' if self.part else ''}{self.low:.7g} or {self.high:.7g}"


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, booleans, durations or dates.

    holds: "number", "boolean", "duration" or "date". parts: the numbers that it becomes, several for dates,
    none if they do not vary. indicator: rows of fit had missing values, so a network is told of them. zone:
    time zone of dates. origin: the first date, in days since 1970.
    """

    name: str
    holds: str
    parts: tuple[Binned | Binary, ...]
    indicator: bool
    zone: str | None = None
    origin: float | None = None

    @property
    def kind(self) -> str:
        """Kind of the column, for readers."""
        if self.holds in (NUMBER, BOOLEAN) and self.parts and isinstance(self.parts[0], Binary):
            return "binary"
        return self.holds

    @property
    def has_missing(self) -> bool:
        """Whether rows of fit missed a value."""
        return self.indicator

    @property
    def learned(self) -> str:
        """What was learned of the column, for readers."""
        texts = [str(part) for part in self.parts] or ["all known values are equal"]
        if self.zone:
            texts.insert(0, f"time zone {self.zone}")
        return "; ".join([*texts, *(["may be missing"] if self.indicator else [])])

    def read(self, column: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return (numbers (n,) of each part by its name, whether each row is missing (n,)) of a column.

        PartitionError: it holds values of another kind than in fit, or infinity.
        """
        found = read_again(self.name, column, self.holds, self.zone)
        if found.kind == MISSING:
            return {part.part: found.values for part in self.parts}, np.isnan(found.values)
        numbers = named_numbers(found)
        if self.origin is not None:
            numbers["days"] = numbers["days"] - self.origin
        return numbers, np.isnan(found.values)


def part_names(kind: str) -> tuple[str, ...]:
    """Return the names of the numbers that a column of a kind becomes."""
    return DATE_PARTS if kind == DATE else ("",)


def named_numbers(found: Reading) -> dict[str, np.ndarray]:
    """Return the numbers (n,) that a column becomes, NaN where missing, by the names of its parts."""
    return dict(zip(part_names(found.kind), numbers_of(found), strict=True))


# --- categories --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories becomes a code: 0 where it is missing, then one for each of `values`, sorted.

    All other values share n_shared more codes, each by its hash: rare values one code, the values of a column
    that has too many of them thousands. Values that were never seen are among these; if there are no shared
    codes, they have the code 0. holds: "text", "numbers" or "booleans". has_missing: whether rows of fit
    missed a value; None: not known.
    """

    name: str
    holds: str
    values: tuple[Any, ...]
    n_shared: int
    has_missing: bool | None = None

    @property
    def n_codes(self) -> int:
        """Number of codes, with that of missing values."""
        return 1 + len(self.values) + self.n_shared

    @property
    def hashed(self) -> bool:
        """Whether values are told apart by their hashes."""
        return self.n_shared > 1

    @property
    def kind(self) -> str:
        """Kind of the column, for readers."""
        return "hashed category" if self.hashed else CATEGORY

    @property
    def learned(self) -> str:
        """What was learned of the column, for readers."""
        n = len(self.values)
        texts = [f"{n:,} value{'s' * (n != 1)}"] if n else []
        if self.hashed:
            texts.append(f"{'others' if n else 'all values'} in {self.n_shared:,} codes by their hashes")
        elif self.n_shared:
            texts.append("rare ones share a code")
        return "; ".join(texts)

    def codes(self, column: Any) -> np.ndarray:
        """Return the codes (n,) of a column. PartitionError: it holds values of another kind than in fit."""
        found = read_again(self.name, column, CATEGORY)
        if found.kind == MISSING:
            return np.zeros(len(found.values))
        received = kind_of_label(found.labels[0])
        if received != self.holds:
            raise PartitionError(
                f"Expected {self.holds} in column {self.name!r}, as in the data of fit, received {received} "
                f"such as {found.labels[0]!r:.60}. Convert the column first."
            )
        codes = {value: code for code, value in enumerate(self.values, 1)}
        table = [codes.get(label) or self._shared_code(label) for label in found.labels]
        # The last entry, at place -1, is that of missing values.
        return np.array([*table, 0], np.float64)[found.values]

    def _shared_code(self, value: Any) -> int:
        if self.n_shared < 2:
            return self.n_shared and 1 + len(self.values)
        # Python's own hash of text differs from process to process.
        digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return 1 + len(self.values) + int.from_bytes(digest, "big") % self.n_shared


# --- neither -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IgnoredColumn:
    """A column that becomes nothing. learned: why. has_missing: as of a `CategoryColumn`."""

    name: str
    learned: str
    has_missing: bool | None = None

    @property
    def kind(self) -> str:
        """Kind of the column, for readers."""
        return "ignored"


Column = NumberColumn | CategoryColumn | IgnoredColumn


# --- JSON --------------------------------------------------------------------------------------------

_KINDS: Mapping[str, type] = {"numbers": NumberColumn, "category": CategoryColumn, "ignored": IgnoredColumn}
_NUMBER = schema.number(finite=True)
_PARTS: Mapping[str, tuple[type, schema.Check]] = {
    "binned": (
        Binned,
        schema.record(
            {
                "kind": schema.text,
                "part": schema.one_of("", *DATE_PARTS),
                "center": _NUMBER,
                "scale": schema.number(finite=True, least=0),
                "edges": schema.each(_NUMBER, 2, MOST_BINS + 1),
            }
        ),
    ),
    "binary": (
        Binary,
        schema.record(
            {
                "kind": schema.text,
                "part": schema.one_of("", *DATE_PARTS),
                "low": _NUMBER,
                "high": _NUMBER,
            }
        ),
    ),
}


def _check_part(config: Any, where: str) -> None:
    schema.record({"kind": schema.one_of(*_PARTS)}, others=schema.anything)(config, where)
    _PARTS[config["kind"]][1](config, where)


# The first files did not say it.
_MAYBE: Mapping[str, schema.Check] = {"has_missing": schema.optional(schema.flag)}
_COLUMNS: Mapping[str, schema.Check] = {
    "numbers": schema.record(
        {
            "kind": schema.text,
            "name": schema.text,
            "holds": schema.one_of(NUMBER, BOOLEAN, DURATION, DATE),
            "parts": schema.each(_check_part, most=len(DATE_PARTS)),
            "indicator": schema.flag,
            "zone": schema.optional(schema.text),
            "origin": schema.optional(_NUMBER),
        }
    ),
    "category": schema.record(
        {
            "kind": schema.text,
            "name": schema.text,
            "holds": schema.one_of("text", "numbers", "booleans"),
            "values": schema.each(schema.label, most=MOST_CODES),
            "n_shared": schema.integer(0, MOST_CODES),
        },
        _MAYBE,
    ),
    "ignored": schema.record({"kind": schema.text, "name": schema.text, "learned": schema.text}, _MAYBE),
}


def describe_column(column: Column) -> dict[str, Any]:
    """Return a column in the types of JSON, but for tuples."""
    kinds = {kind: name for name, kind in _KINDS.items()}
    description = {"kind": kinds[type(column)], **asdict(column)}
    if isinstance(column, NumberColumn):
        names = {kind: name for name, (kind, _) in _PARTS.items()}
        description["parts"] = [{"kind": names[type(part)], **asdict(part)} for part in column.parts]
    return description


def check_column(config: Any, where: str) -> None:
    """Expect what `describe_column` returns."""
    schema.record({"kind": schema.one_of(*_COLUMNS)}, others=schema.anything)(config, where)
    _COLUMNS[config["kind"]](config, where)


def column_from(config: Mapping[str, Any]) -> Column:
    """Return the column that `describe_column` has described. Mismatch: it makes no sense."""
    settings = {name: value for name, value in config.items() if name != "kind"}
    name = settings["name"]
    if config["kind"] == "numbers":
        settings["parts"] = tuple(_part_from(name, part) for part in settings["parts"])
        allowed = part_names(settings["holds"])
        parts = [part.part for part in settings["parts"]]
        if len(set(parts)) < len(parts) or not set(parts) <= set(allowed):
            raise schema.Mismatch(f"expected parts of column {name!r} among {allowed}, received {parts}")
        if (settings["holds"] == DATE) != (settings["origin"] is not None):
            raise schema.Mismatch(f"expected an origin for dates alone, not so in column {name!r}")
    if config["kind"] == "category":
        settings["values"] = tuple(settings["values"])
        _check_values(name, settings["values"], settings["holds"])
    column: Column = _KINDS[config["kind"]](**settings)
    return column


def _part_from(name: str, config: Mapping[str, Any]) -> Binned | Binary:
    settings = {key: value for key, value in config.items() if key != "kind"}
    if config["kind"] == "binned":
        settings["edges"] = tuple(map(float, settings["edges"]))
    ends = settings["edges"] if config["kind"] == "binned" else (settings["low"], settings["high"])
    if not all(low < high for low, high in pairwise(ends)):
        raise schema.Mismatch(f"expected ascending numbers for column {name!r}, received others")
    part: Binned | Binary = _PARTS[config["kind"]][0](**settings)
    # Coordinates are divided by the distances of scaled edges.
    if isinstance(part, Binned) and not np.all(np.diff(part.scaled(np.array(part.edges))) > 0):
        raise schema.Mismatch(f"expected edges that stay apart when they are scaled, for column {name!r}")
    return part


def _check_values(name: str, values: Sequence[Any], holds: str) -> None:
    if len(set(values)) < len(values) or any(kind_of_label(value) != holds for value in values):
        raise schema.Mismatch(f"expected different values, all {holds}, of column {name!r}, received others")
