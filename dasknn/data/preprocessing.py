"""Encodes tables as columns of numbers: categories one-hot, numbers standardized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial, reduce
from numbers import Integral, Real
from operator import add
from typing import Any, ClassVar

import dask
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dasknn._compat.sklearn import Interval, StrOptions
from dasknn.cluster.connect import connect
from dasknn.cluster.graph import Graph
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions
from dasknn.data.blocks import refuse
from dasknn.data.column_kinds import (
    KINDS,
    Categories,
    CategorySummary,
    Encoder,
    Numbers,
    NumberSummary,
    TableSummary,
    check_column,
    column_from,
    encode_table,
    summary_kind,
)
from dasknn.data.columns import require_columns
from dasknn.saving import schema
from dasknn.saving.serialization import JSONEncoder


class TablePreprocessor(Placed, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Encode a pandas or Dask dataframe as columns of numbers, which are learned in one pass over its rows.

    Columns of numbers are standardized, as by scikit-learn's `StandardScaler`. Missing numbers become the
    mean, and if there are any in `fit`, a column `missingindicator_x` says where column `x` misses a value.
    Columns of text, booleans or categories are one-hot encoded, as by `OneHotEncoder` with
    `handle_unknown="ignore"`: missing values count as one more value, and values that are new in `transform`
    become zeros. Columns keep their order. As in `ColumnTransformer`, `transform` finds columns by their
    names and ignores all others.

    Parameters
    ----------
    drop : list of str, default=()
        Columns to leave out.
    categorical : list of str, default=()
        Columns of numbers that are codes, and are encoded like text.
    min_frequency : int, float or None, default=None
        Values with fewer rows (int), or with a smaller share of all rows (float), share one column,
        `x_infrequent_sklearn`.
    max_categories : int, default=1000
        Most columns that a single column may become; a column with more values raises an error.
    dtype : {'float32', 'float64'}, default='float32'
        Data type of the columns that come out.

    Attributes
    ----------
    columns_ : list
        Kind of each column with what was learned of it: mean and scale, or values.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns that `transform` needs.
    n_features_in_ : int
        Number of these columns.
    n_samples_seen_ : int
        Number of rows in `fit`.

    Examples
    --------
    >>> import pandas, dasknn
    >>> table = pandas.DataFrame({"age": [20, 40], "city": ["Rome", "Oslo"]})
    >>> dasknn.TablePreprocessor().fit_transform(table)
       age  city_Oslo  city_Rome
    0 -1.0        0.0        1.0
    1  1.0        1.0        0.0
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

    def __init__(
        self,
        *,
        drop: Sequence[str] = (),
        categorical: Sequence[str] = (),
        min_frequency: int | float | None = None,
        max_categories: int = 1000,
        dtype: str = "float32",
    ):
        self.drop = drop
        self.categorical = categorical
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.dtype = dtype

    def fit(self, X: Any, y: Any = None) -> TablePreprocessor:
        """Learn the columns of a dataframe.

        Parameters
        ----------
        X : pandas or Dask dataframe of shape (n_samples, n_columns)
            Frames of polars and of other libraries with Arrow become pandas.
        y : None
            Ignored.

        Returns
        -------
        TablePreprocessor
            The object itself.

        Raises
        ------
        ValueError
            A column of dates or of anything but numbers, text and booleans; infinite numbers; more distinct
            values than `max_categories`. A `PartitionError`, which names the partition, where X is a Dask
            dataframe.
        TypeError
            X is not a dataframe.
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

    def _kinds(self, X: Any) -> dict[str, Any]:
        """Return the class that summarizes each column, by name. ValueError: a column that cannot be used."""
        names = list(X.columns)
        check_names_of_columns(names)
        dropped, codes = ([str(name) for name in given] for given in (self.drop, self.categorical))
        require_columns(names, dropped, "X, as named in drop")
        require_columns(names, codes, "X, as named in categorical")
        kinds = {name: summary_kind(name, X[name], name in codes) for name in names if name not in dropped}
        if not kinds:
            raise ValueError(f"Expected at least one column besides those dropped, {sorted(dropped)}.")
        return kinds

    def _find(self, X: Any, kinds: dict[str, Any]) -> TableSummary:
        if not partitions.is_distributed(X):
            found = TableSummary.in_table(kinds, X)
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
        # In the order of partitions, so that rounding is the same each time.
        return reduce(add, parts)

    def _learn(self, name: str, summary: NumberSummary | CategorySummary) -> Numbers | Categories:
        if isinstance(summary, NumberSummary):
            return summary.learn(name)
        return summary.learn(name, self.min_frequency, self.max_categories)

    def transform(self, X: Any) -> Any:
        """Encode a dataframe.

        Parameters
        ----------
        X : pandas or Dask dataframe of shape (n_samples, n_columns)
            With the columns of `fit`, in any order; other columns are ignored.

        Returns
        -------
        pandas or Dask dataframe of shape (n_samples, n_columns_out)
            With the index of X. Lazy if X is a Dask dataframe.

        Raises
        ------
        ValueError
            A column of `fit` is missing.
        """
        check_is_fitted(self)
        X = _table(X)
        names = [column.name for column in self.columns_]
        require_columns(X.columns, names, "X, as in fit")
        encoder = Encoder(tuple(self.columns_), self.dtype)
        if not partitions.is_distributed(X):
            return encoder(X)
        token = dask.base.tokenize(encoder.columns, encoder.dtype)
        # One object for the whole graph, not one for each partition.
        shared = dask.delayed(encoder, name=f"dasknn-table-{token}")
        empty = encoder(X._meta[names].iloc[:0])
        return X[names].map_partitions(encode_table, shared, meta=empty, enforce_metadata=False)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns that come out.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        return np.array(Encoder(tuple(self.columns_), self.dtype).names, dtype=object)

    def set_output(self, *, transform: str | None = None) -> TablePreprocessor:
        """Accept the only container there is: `transform` returns a dataframe of the kind of X.

        Parameters
        ----------
        transform : {None, 'default', 'pandas'}, default=None
            No effect.

        Returns
        -------
        TablePreprocessor
            The object itself.

        Raises
        ------
        ValueError
            Another container is requested.
        """
        if transform not in (None, "default", "pandas"):
            raise ValueError(
                f"Expected transform='default' or 'pandas', received {transform!r}. transform returns a "
                "dataframe of the kind that it is given, pandas or Dask."
            )
        return self

    def describe(self) -> dict[str, Any]:
        """Return the parameters and the learned columns in the types of JSON, for a file."""
        check_is_fitted(self)
        kinds = {kind: name for name, kind in KINDS.items()}
        parameters = {
            name: list(map(str, value)) if name in ("drop", "categorical") else value
            for name, value in self.get_params().items()
        }
        columns = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns_]
        description = {"parameters": parameters, "columns": columns, "n_samples_seen": self.n_samples_seen_}
        return JSONEncoder().encode(description, "the table")

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TablePreprocessor:
        """Return the transformer that `describe` has described. ModelFileError: a damaged description."""
        with schema.refusing(
            "The description of the table", "one", "Use the version of dasknn that wrote it."
        ):
            _TABLE(description, "")
            table = cls(**description["parameters"])
            table._validate_params()
            table.columns_ = [column_from(config) for config in description["columns"]]
            table.n_samples_seen_ = description["n_samples_seen"]
            check_names_of_columns([column.name for column in table.columns_])
        table.feature_names_in_ = np.array([column.name for column in table.columns_], dtype=object)
        table.n_features_in_ = len(table.columns_)
        return table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


def _find_in_tuple(kinds: Mapping[str, Any], frames: Sequence[Any]) -> TableSummary:
    return TableSummary.in_table(kinds, frames[0])


def _table(X: Any) -> Any:
    """Return a pandas or Dask dataframe X, with names as text. TypeError: X is not a dataframe."""
    X = inputs.admitted("X", X)
    if not partitions.is_dataframe(X):
        raise TypeError(
            f"Expected a pandas or Dask dataframe, received {type(X).__name__}. Give its columns names: "
            "pandas.DataFrame(X, columns=[...]), dask.dataframe.from_dask_array(X, columns=[...])."
        )
    return named_by_text(X)


def named_by_text(X: Any) -> Any:
    """Return a dataframe X in which names of columns that are integers have become text."""
    numbered = {name: str(name) for name in X.columns if isinstance(name, Integral)}
    if not numbered:
        return X
    if partitions.is_distributed(X):
        # With its own rename, dask.dataframe would look for integers in Parquet files, whose names are text.
        return X.map_partitions(named_by_text, meta=named_by_text(X._meta), enforce_metadata=False)
    return X.rename(columns=numbered)


def check_names_of_columns(names: list) -> None:
    """Raise ValueError for names of columns that are not text, or not all different."""
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise ValueError(
            f"Expected columns whose names are text or integers, received the name {strange[0]!r}. Use "
            "X.rename(columns=str)."
        )
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(
            f"Expected a different name for each column, received {twice} more than once. Rename them."
        )


_NAMES = schema.each(schema.text)
_TABLE = schema.record(
    {
        "parameters": schema.record({}, {"drop": _NAMES, "categorical": _NAMES}, schema.anything),
        "columns": schema.each(check_column, least=1),
        "n_samples_seen": schema.integer(1),
    },
    others=schema.anything,
)
