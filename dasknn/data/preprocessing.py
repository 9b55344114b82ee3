"""Tables become columns of numbers: text and the like one-hot, numbers standardized.

    partition ── Found: a summary of each column ─┐
    partition ── Found ───────────────────────────┴─ sum, in order ── Numbers and Categories, one a column

What each partition holds is found where it is, in one pass, and adds up. What is learned of a column is a
small value that workers get once, and that a file holds as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from numbers import Integral, Real
from operator import add
from typing import Any, ClassVar

import dask
import numpy as np
from dask.base import is_dask_collection
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dasknn._compat.sklearn import Interval, StrOptions
from dasknn.cluster.connect import connect
from dasknn.cluster.graph import Graph
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions
from dasknn.data.blocks import refuse
from dasknn.data.targets import has_decimals, is_decimal
from dasknn.exceptions import PartitionError
from dasknn.saving import schema
from dasknn.saving.serialization import JSONEncoder, did_you_mean

# More distinct values than this are not even counted, whatever becomes of rare ones.
_MOST_VALUES = 100_000
# How scikit-learn's OneHotEncoder calls the column of values that are rare, and that of missing ones.
_INFREQUENT, _MISSING = "infrequent_sklearn", "nan"


def require_columns(available: Iterable[Any], names: Iterable[str], what: str = "the data") -> None:
    """ValueError: a name is not among the columns that are available; it says what may have been meant."""
    columns = [str(name) for name in available]
    missing = [name for name in names if name not in columns]
    if missing:
        meant = did_you_mean(missing[0], columns)
        shown = ", ".join(columns[:30]) + (", ..." if len(columns) > 30 else "")
        raise ValueError(
            f"Expected column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))} in {what}.{meant} "
            f"Received {len(columns)} column{'s' * (len(columns) != 1)}: {shown}."
        )


# --- what a part of a column holds -------------------------------------------------------------------


@dataclass(frozen=True)
class NumberSummary:
    """The numbers of a part of a column: how many, their mean, m2, least and greatest; how many are missing.

    m2 is the sum of squared deviations from the mean. Sums are those of Chan, Golub and LeVeque (1979).
    """

    n: int
    mean: float
    m2: float
    least: float
    greatest: float
    n_missing: int

    @classmethod
    def of(cls, column) -> NumberSummary:
        """Summarize a pandas series. PartitionError: it holds infinity, or what is no number."""
        values = _numbers(column)
        known = values[~np.isnan(values)]
        n_missing = len(values) - len(known)
        if not len(known):
            return cls(0, 0.0, 0.0, np.inf, -np.inf, n_missing)
        least, greatest = float(known.min()), float(known.max())
        if not np.isfinite([least, greatest]).all():
            raise PartitionError(
                f"Column {column.name!r} holds infinity in row {int(np.isinf(values).argmax())}. Expected "
                "finite numbers: drop such rows, or make them missing values."
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
        """Return the column that these are all numbers of."""
        # A constant column becomes zeros.
        scale = 1.0 if self.least >= self.greatest else float(np.sqrt(self.m2 / self.n)) or 1.0
        return Numbers(name, self.mean, scale, self.n_missing > 0)


@dataclass(frozen=True)
class CategorySummary:
    """The distinct values of a part of a column, with the number of rows of each; None: missing ones."""

    counts: dict[Any, int]

    @classmethod
    def of(cls, column) -> CategorySummary:
        """Summarize a pandas series. PartitionError: values that are no text, boolean or number; too many."""
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
        """Return the column that these are all values of. ValueError: too many values, or of several kinds.

        min_frequency: values of fewer rows, or of a smaller share of all rows, share one column.
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


def _too_many(name: str, most: int) -> str:
    return (
        f"Column {name!r} holds more than {most:,} distinct values, each of which would be an input of the "
        f"network. Leave it out (drop=[{name!r}]), give those that are rare one column (min_frequency=100), "
        "or raise max_categories. If they are numbers, convert them: X.astype({...: 'float64'})."
    )


def _of_one_kind(name: str, values: list) -> list:
    examples = {_kind(value): value for value in values}
    if len(examples) > 1:
        received = ", ".join(f"{kind} such as {value!r}" for kind, value in sorted(examples.items()))
        raise ValueError(
            f"Expected values of one kind in column {name!r}, received {received}. Make them text: "
            f"X.assign(**{{{name!r}: X[{name!r}].astype(str)}}); or leave it out (drop=[{name!r}])."
        )
    return values


def _kind(value) -> str:
    return "text" if isinstance(value, str) else "booleans" if isinstance(value, bool) else "numbers"


def _numbers(column) -> np.ndarray:
    """Return a pandas series as float64; missing ones are NaN. PartitionError: it holds something else."""
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise PartitionError(
            f"Expected numbers in column {column.name!r}, received {column.dtype} ({error}). If it holds "
            f"codes or text, name it in categorical=[{column.name!r}]."
        ) from None


def _distinct(column) -> tuple[np.ndarray, list]:
    """Return (code of each row, -1 for missing ones; distinct values) of a pandas series."""
    import pandas as pd

    try:
        codes, values = pd.factorize(_numbers(column) if is_decimal(column.dtype) else column)
    except TypeError as error:
        # Lists, say, which cannot be told apart.
        raise PartitionError(_strange(column, str(error))) from None
    return codes, [_category(column, value) for value in values.tolist()]


def _category(column, value):
    # Codes that are whole numbers are floats in partitions where some are missing.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | bool | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise PartitionError(_strange(column, f"{type(value).__name__} {value!r:.60}"))


def _strange(column, received: str) -> str:
    return (
        f"Expected text, booleans or numbers in column {column.name!r}, received {received}. Convert it, "
        f"numbers by X.astype({{{column.name!r}: 'float64'}}), or leave it out (drop=[{column.name!r}])."
    )


@dataclass(frozen=True)
class Found:
    """What a part of a table holds: its rows, and a summary of each column; or why it cannot be used."""

    n_rows: int
    columns: dict[str, NumberSummary | CategorySummary]
    problem: str | None = None

    @classmethod
    def in_table(cls, kinds: Mapping[str, Any], X) -> Found:
        """Summarize the columns of a pandas dataframe, each as its kind says."""
        try:
            columns = {name: kind.of(_column(X, name)) for name, kind in kinds.items()}
        except PartitionError as error:
            return cls(len(X), {}, str(error))
        return cls(len(X), columns)

    def __add__(self, other: Found) -> Found:
        # A part without rows may have columns of any type.
        if not (self.n_rows and other.n_rows):
            return self if self.n_rows else other
        columns: dict[str, Any] = {name: one + other.columns[name] for name, one in self.columns.items()}  # type: ignore[operator]
        return Found(self.n_rows + other.n_rows, columns)


def _column(X, name: str):
    if name not in X.columns:
        raise PartitionError(
            f"Expected column {name!r}, as the dataframe announces, received {list(X.columns)}."
        )
    return X[name]


# --- what is learned of a column ---------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """A column of numbers: (x - mean) / scale, 0 where x is missing.

    indicator: a second column tells where x is missing.
    """

    name: str
    mean: float
    scale: float
    indicator: bool

    @property
    def names(self) -> list[str]:
        """Names of the columns that it becomes."""
        return [self.name, *([f"missingindicator_{self.name}"] if self.indicator else [])]

    def write(self, column, out: np.ndarray) -> None:
        """Write what a pandas series becomes to out (n, k), which holds zeros."""
        values = _numbers(column)
        missing = np.isnan(values)
        values = (values - self.mean) / self.scale
        values[missing] = 0.0
        out[:, 0] = values
        if self.indicator:
            out[:, 1] = missing


@dataclass(frozen=True)
class Categories:
    """A column of values: for each of `values` (None: missing) 1 where it is this one, else 0.

    Those that are infrequent share a last column. Values that are neither give zeros alone.
    """

    name: str
    values: tuple
    infrequent: tuple = ()

    @property
    def names(self) -> list[str]:
        """Names of the columns that it becomes."""
        ends = [_MISSING if value is None else str(value) for value in self.values]
        return [f"{self.name}_{end}" for end in [*ends, *([_INFREQUENT] if self.infrequent else [])]]

    def write(self, column, out: np.ndarray) -> None:
        """Write what a pandas series becomes to out (n, k), which holds zeros.

        PartitionError: values of another kind than those that it was fitted to.
        """
        codes, values = _distinct(column)
        self._check_kind(values)
        places = {value: place for place, value in enumerate(self.values)}
        places.update(dict.fromkeys(self.infrequent, len(self.values)))
        # place of each distinct value; the last one, which code -1 points to, is that of missing ones
        table = np.array([*(places.get(value, -1) for value in values), places.get(None, -1)], dtype=np.intp)
        at = table[codes]
        rows = np.flatnonzero(at >= 0)
        out[rows, at[rows]] = 1

    def _check_kind(self, values: list) -> None:
        kinds = {_kind(value) for value in (*self.values, *self.infrequent) if value is not None}
        for value in values:
            if kinds and _kind(value) not in kinds:
                raise PartitionError(
                    f"Expected {'/'.join(kinds)} in column {self.name!r}, as it was fitted to, received "
                    f"{_kind(value)} such as {value!r}. Convert the column first."
                )


_COLUMNS = {"numbers": Numbers, "categories": Categories}


@dataclass(frozen=True)
class Encoder:
    """Encodes tables: pandas (n, ...) -> pandas (n, k) of numbers of one dtype, in order of the columns."""

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

    def __call__(self, X):
        """Return what the columns of a pandas dataframe become, with its index."""
        import pandas as pd

        names = self.names
        out = np.zeros((len(X), len(names)), self.dtype)
        first = 0
        for column in self.columns:
            width = len(column.names)
            column.write(_column(X, column.name), out[:, first : first + width])
            first += width
        return pd.DataFrame(out, index=X.index, columns=names, copy=False)


def encode_table(X, encoder: Encoder):
    """Return encoder(X): a task, which the dashboard shows by this name."""
    return encoder(X)


# --- the transformer ---------------------------------------------------------------------------------


class TablePreprocessor(Placed, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Make columns of numbers of a table, in one pass over a pandas or Dask dataframe.

    Columns of numbers are standardized, as by scikit-learn's StandardScaler: missing ones become the mean,
    and a column `missingindicator_x` says where, if there were some in the data that it was fitted to.
    Columns of text, booleans or categories become a column for each value, as by its OneHotEncoder with
    handle_unknown="ignore": missing values are a value of their own, and values that come later for the
    first time give zeros. Columns keep their order, and are found by their names, as by its
    ColumnTransformer: whatever else a table holds later is ignored.

    Parameters
    ----------
    drop : list of str, default=()
        Columns to leave out.
    categorical : list of str, default=()
        Columns of numbers that are codes, to be treated as text is.
    min_frequency : int, float or None, default=None
        Values of fewer rows, or of a smaller share of all rows, become one column `x_infrequent_sklearn`.
    max_categories : int, default=1000
        Most columns that one column may become; more raise an error.
    dtype : {'float32', 'float64'}, default='float32'
        Numbers that come out.

    Attributes
    ----------
    columns_ : list of Numbers and Categories; what was learned of each column.
    feature_names_in_, n_features_in_ : the columns that are needed, without those left out.
    n_samples_seen_ : int; rows that it was fitted to.
    """

    _parameter_constraints: ClassVar[dict] = {
        "drop": ["array-like"],
        "categorical": ["array-like"],
        "min_frequency": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "max_categories": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions({"float32", "float64"})],
    }

    def __init__(self, *, drop=(), categorical=(), min_frequency=None, max_categories=1000, dtype="float32"):
        self.drop = drop
        self.categorical = categorical
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.dtype = dtype

    def fit(self, X, y=None):
        """Learn the columns of a pandas or Dask dataframe X; return self. y is not used.

        Raises ValueError (or its kind, PartitionError, which names the partition) for dates and other columns
        that are no numbers, text or booleans, for infinity, and for more distinct values than max_categories;
        TypeError for what is no dataframe.
        """
        self._validate_params()
        X = _table(X)
        kinds = self._kinds(X)
        found = self._find(X, kinds)
        if not found.n_rows:
            raise ValueError("Expected at least one row to learn from, found none.")
        self.columns_ = [self._learn(name, found.columns[name]) for name in kinds]
        self.feature_names_in_ = np.array(list(kinds), dtype=object)
        self.n_features_in_ = len(kinds)
        self.n_samples_seen_ = found.n_rows
        return self

    def _kinds(self, X) -> dict[str, Any]:
        """Return what summarizes each column that is not dropped. ValueError: one that cannot be used."""
        names = list(X.columns)
        _check_names(names)
        dropped, codes = ([str(name) for name in given] for given in (self.drop, self.categorical))
        require_columns(names, dropped, "X, since drop names them")
        require_columns(names, codes, "X, since categorical names them")
        kinds = {name: _kind_of(name, X[name], name in codes) for name in names if name not in dropped}
        if not kinds:
            raise ValueError(f"Expected at least one column besides those dropped, {sorted(dropped)}.")
        return kinds

    def _find(self, X, kinds: dict[str, Any]) -> Found:
        if not partitions.is_distributed(X):
            found = Found.in_table(kinds, X)
            refuse(found.problem)
            return found
        # sources: one Delayed for each partition -> a tuple of one pandas dataframe
        sources = partitions.together([X[list(kinds)]])
        find = partial(_find_in_tuple, kinds)

        def add_summaries(graph: Graph) -> list[Any]:
            return [graph.add("dasknn-summarize", find, graph.add_source(source)) for source in sources]

        with connect(self.client, distributed=True, workers=self.workers, data=(X,)) as tasks:
            parts = tasks.values_of(add_summaries)
        for number, part in enumerate(parts):
            refuse(part.problem, number)
        # In the order of partitions, whichever came first.
        return reduce(add, parts)

    def _learn(self, name: str, summary: NumberSummary | CategorySummary) -> Numbers | Categories:
        if isinstance(summary, NumberSummary):
            return summary.learn(name)
        return summary.learn(name, self.min_frequency, self.max_categories)

    def transform(self, X):
        """Return the columns of numbers that a dataframe X becomes, with its index.

        Of a pandas dataframe a pandas dataframe, of a Dask dataframe a lazy one. As by scikit-learn's
        ColumnTransformer, columns are found by their names: their order is of no matter, and columns that
        were not there in fit are ignored. ValueError: a column is missing; it says which may have been meant.
        """
        check_is_fitted(self)
        X = _table(X)
        names = [column.name for column in self.columns_]
        require_columns(X.columns, names, "X, since they were there in fit")
        encoder = Encoder(tuple(self.columns_), self.dtype)
        if not partitions.is_distributed(X):
            return encoder(X)
        token = dask.base.tokenize(encoder.columns, encoder.dtype)
        # One object for the whole graph, not one a partition.
        shared = dask.delayed(encoder, name=f"dasknn-table-{token}")
        empty = encoder(X._meta[names].iloc[:0])
        return X[names].map_partitions(encode_table, shared, meta=empty, enforce_metadata=False)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns that come out. input_features is not used."""
        check_is_fitted(self)
        return np.array(Encoder(tuple(self.columns_), self.dtype).names, dtype=object)

    def set_output(self, *, transform=None):
        """Return self: a dataframe gives a dataframe of its kind. ValueError: another form is asked for."""
        if transform not in (None, "default", "pandas"):
            raise ValueError(
                f"Expected transform='default' or 'pandas', received {transform!r}: dataframes give "
                "dataframes of their kind."
            )
        return self

    def describe(self) -> dict[str, Any]:
        """Return parameters and what was learned, in JSON's types."""
        check_is_fitted(self)
        kinds = {kind: name for name, kind in _COLUMNS.items()}
        parameters = {
            name: list(map(str, value)) if name in ("drop", "categorical") else value
            for name, value in self.get_params().items()
        }
        columns = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns_]
        description = {"parameters": parameters, "columns": columns, "n_samples_seen": self.n_samples_seen_}
        return JSONEncoder().encode(description, "the table")

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TablePreprocessor:
        """Return the transformer that `describe` saw. ModelFileError: a description that makes no sense."""
        with schema.refusing(
            "The description of the table", "one", "Use the version of dasknn that wrote it."
        ):
            _TABLE(description, "")
            table = cls(**description["parameters"])
            table._validate_params()
            table.columns_ = [_column_from(config) for config in description["columns"]]
            table.n_samples_seen_ = description["n_samples_seen"]
            _check_names([column.name for column in table.columns_])
        table.feature_names_in_ = np.array([column.name for column in table.columns_], dtype=object)
        table.n_features_in_ = len(table.columns_)
        return table

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


def _find_in_tuple(kinds: Mapping[str, Any], frames: Sequence[Any]) -> Found:
    return Found.in_table(kinds, frames[0])


def _table(X):
    """Return a pandas or Dask dataframe X; frames of other libraries become pandas, names that are integers
    text. TypeError: no dataframe.
    """
    X = inputs.admitted("X", X)
    if not partitions.is_dataframe(X):
        raise TypeError(
            f"Expected a pandas or Dask dataframe, received {type(X).__name__}. Give its columns names: "
            "pandas.DataFrame(X, columns=[...]), dask.dataframe.from_dask_array(X, columns=[...])."
        )
    return named_by_text(X)


def named_by_text(X):
    """Return a dataframe X whose columns are called by text, where they were called by integers."""
    numbered = {name: str(name) for name in X.columns if isinstance(name, Integral)}
    if not numbered:
        return X
    if partitions.is_distributed(X):
        # Not by its rename: dask.dataframe would look for integers in Parquet files, which have text.
        return X.map_partitions(named_by_text, meta=named_by_text(X._meta), enforce_metadata=False)
    return X.rename(columns=numbered)


def _check_names(names: list) -> None:
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise ValueError(
            f"Expected names of columns that are text or integers, received {strange[0]!r}. Use "
            "X.rename(columns=str)."
        )
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(
            f"Expected another name for each column, received {twice} twice or more. Rename them."
        )


def _kind_of(name: str, column, is_code: bool) -> type:
    dtype = column.dtype
    kind = getattr(dtype, "kind", "O")
    if kind in "mMcV" or str(dtype).startswith(("period", "interval")):
        raise ValueError(
            f"Expected numbers, text, booleans or categories in column {name!r}, received {dtype}. Use "
            "numbers of it, such as the year or the days since the first date, or leave it out "
            f"(drop=[{name!r}])."
        )
    # A pandas category of numbers has the kind "O".
    # What objects on a cluster are is not known here.
    is_number = (
        kind in "iuf" or is_decimal(dtype) or (not is_dask_collection(column) and has_decimals(column))
    )
    return NumberSummary if is_number and not is_code else CategorySummary


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


def _check_column(config: Any, where: str) -> None:
    schema.record({"kind": schema.one_of(*_COLUMN_KINDS)}, others=schema.anything)(config, where)
    _COLUMN_KINDS[config["kind"]](config, where)


_NAMES = schema.each(schema.text)
_TABLE = schema.record(
    {
        "parameters": schema.record({}, {"drop": _NAMES, "categorical": _NAMES}, schema.anything),
        "columns": schema.each(_check_column, least=1),
        "n_samples_seen": schema.integer(1),
    },
    others=schema.anything,
)


def _column_from(config: Mapping[str, Any]) -> Numbers | Categories:
    if config["kind"] == "numbers":
        return Numbers(config["name"], config["mean"], config["scale"], config["indicator"])
    return Categories(config["name"], tuple(config["values"]), tuple(config["infrequent"]))
