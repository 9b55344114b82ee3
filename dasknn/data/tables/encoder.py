"""Encodes raw tables as dense matrices of floats, for a network whose first layers embed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np

from dasknn.data import inputs, partitions
from dasknn.data.columns import require_columns
from dasknn.data.preprocessing import named_by_text
from dasknn.data.tables.kinds import (
    Binned,
    CategoryColumn,
    Column,
    NumberColumn,
    check_column,
    column_from,
    describe_column,
)
from dasknn.data.tables.reading import Table
from dasknn.exceptions import PartitionError
from dasknn.saving import schema
from dasknn.saving.serialization import JSONEncoder


@dataclass(frozen=True)
class TableEncoder:
    """Encodes the columns of a raw table, which `learn_table` has learned, as numbers and codes.

    The encoded columns are four groups, in this order:

    1. z of each embedded number: scaled robustly and clipped smoothly, from -3 to 3; 0 where missing.
    2. u of each embedded number: its coordinate among the edges of its bins; 0 where missing. Component t of
       its piecewise-linear encoding is clip(u - t, 0, 1), the first not clipped below, the last not above.
    3. Plain inputs: numbers of which there were two and booleans as -1 and 1, 0 where missing; and 1 where a
       number is missing, for columns that missed values in fit.
    4. Codes of categories: 0 where missing, then one for each value; rare values share one code, values of
       columns with very many share `hash_bins`. Values that were never seen count as rare ones, or if there
       were none, as missing.

    Parameters
    ----------
    columns : tuple of columns
        All columns of the table, also those that are ignored. Each has a `name`, a `kind`, and a text of what
        was `learned`.
    dtype : {'float32', 'float64'}
        Of the encoded columns.
    is_named : bool
        Whether columns are found by their names; if not, by their positions.

    See Also
    --------
    dasknn.data.tables.learning.learn_table
    """

    columns: tuple[Column, ...]
    dtype: str = "float32"
    is_named: bool = True

    # --- what comes out ------------------------------------------------------------------------------

    @property
    def feature_names_in(self) -> tuple[str, ...]:
        """Names of the columns of the table."""
        return tuple(column.name for column in self.columns)

    @property
    def n_features_in(self) -> int:
        """Number of columns of the table."""
        return len(self.columns)

    @property
    def names(self) -> list[str]:
        """Names of the encoded columns, all different."""
        names: list[str] = []
        seen: set[str] = set()
        for _, name in self._encoded():
            unique, number = name, 2
            while unique in seen:
                unique, number = f"{name}_{number}", number + 1
            seen.add(unique)
            names.append(unique)
        return names

    @property
    def groups(self) -> tuple[int, ...]:
        """For each encoded column, the place of the column of the table that it was made of."""
        return tuple(place for place, _ in self._encoded())

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return len(self._encoded())

    @property
    def edges(self) -> tuple[tuple[float, ...], ...]:
        """Edges of the bins of each embedded number."""
        return tuple(part.edges for part in self._binned())

    @property
    def n_bins(self) -> tuple[int, ...]:
        """Number of bins of each embedded number."""
        return tuple(part.n_bins for part in self._binned())

    @property
    def n_numbers(self) -> int:
        """Number of embedded numbers: of columns in each of the first two groups."""
        return len(self._binned())

    @property
    def n_plain(self) -> int:
        """Number of plain inputs."""
        return self.width - 2 * self.n_numbers - len(self.n_codes)

    @property
    def n_codes(self) -> tuple[int, ...]:
        """Number of codes of each category, with the code 0."""
        return tuple(column.n_codes for column in self.columns if isinstance(column, CategoryColumn))

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Of each category, whether values are told apart by their hashes."""
        return tuple(column.hashed for column in self.columns if isinstance(column, CategoryColumn))

    def _binned(self) -> list[Binned]:
        columns = [column for column in self.columns if isinstance(column, NumberColumn)]
        return [part for column in columns for part in column.parts if isinstance(part, Binned)]

    def _encoded(self) -> list[tuple[int, str]]:
        """Return (place of the column of the table, name) of each encoded column, in their order."""
        scaled, coordinates, plain, codes = [], [], [], []
        for place, column in enumerate(self.columns):
            if isinstance(column, CategoryColumn):
                codes.append((place, column.name))
            elif isinstance(column, NumberColumn):
                for part in column.parts:
                    name = f"{column.name}_{part.part}" if part.part else column.name
                    if isinstance(part, Binned):
                        scaled.append((place, name))
                        coordinates.append((place, f"{name}_bin"))
                    else:
                        plain.append((place, name))
                if column.indicator:
                    plain.append((place, f"missingindicator_{column.name}"))
        return [*scaled, *coordinates, *plain, *codes]

    # --- encoding ------------------------------------------------------------------------------------

    def encode(self, X: Any) -> np.ndarray:
        """Return the encoded rows of data in this process.

        Parameters
        ----------
        X : dataframe, array or sparse matrix of shape (n_samples, n_features_in)
            Columns of a dataframe are found by their names, and others are ignored. If the table that was
            learned or X has no names, they are found by their positions.

        Returns
        -------
        ndarray of shape (n_samples, width)
            C-ordered, finite.

        Raises
        ------
        ValueError
            A column is missing. A `PartitionError` for infinity, which names the row, and for columns of
            another kind than in fit.
        """
        table = Table.of(inputs.admitted("X", X))
        places = table.places(self.feature_names_in, self.is_named)
        out = np.zeros((table.n_rows, self.width), self.dtype)
        z, u, plain, code = np.cumsum([0, self.n_numbers, self.n_numbers, self.n_plain]).tolist()
        for column, place in zip(self.columns, places, strict=True):
            if isinstance(column, CategoryColumn):
                out[:, code] = column.codes(table.column(place))
                code += 1
            elif isinstance(column, NumberColumn):
                numbers, is_missing = column.read(table.column(place))
                for part in column.parts:
                    x = numbers[part.part]
                    if isinstance(part, Binned):
                        out[:, z], out[:, u] = part.scaled_and_coordinates(x)
                        z, u = z + 1, u + 1
                    else:
                        out[:, plain] = part.signs(x)
                        plain += 1
                if column.indicator:
                    out[:, plain] = is_missing
                    plain += 1
        return out

    def transform(self, X: Any) -> Any:
        """Return the encoded rows of data in this process or of a Dask collection.

        Parameters
        ----------
        X : dataframe, array or sparse matrix of shape (n_samples, n_features_in), or a Dask collection
            See `encode`.

        Returns
        -------
        pandas or Dask dataframe, ndarray or Dask array of shape (n_samples, width)
            A dataframe, with the index of X, if X is one; lazy if X is a Dask collection.

        Raises
        ------
        ValueError
            As `encode` does; in lazy results, when they are computed.
        """
        X = inputs.admitted("X", X)
        if isinstance(X, da.Array):
            partitions.check_chunks(X)
            if X.ndim != 2 or X.shape[1] != self.n_features_in:
                raise ValueError(
                    f"Expected {self.n_features_in} columns in X, as in fit, received shape {X.shape}."
                )
            chunks, meta = (X.chunks[0], (self.width,)), np.empty((0, 0), self.dtype)
            encode: Any = encode_block
            return X.map_blocks(encode, self._shared(), dtype=self.dtype, chunks=chunks, meta=meta)
        if not partitions.is_dataframe(X):
            return self.encode(X)
        X = named_by_text(X)
        if not partitions.is_distributed(X):
            return encode_frame(X, self)
        if self.is_named:
            require_columns(X.columns, self.feature_names_in, "X, as in fit")
            X = X[list(self.feature_names_in)]
        empty = encode_frame(X._meta.iloc[:0], self)
        return X.map_partitions(encode_frame, self._shared(), meta=empty, enforce_metadata=False)

    def _shared(self) -> Any:
        # One object for the whole graph, not one for each partition.
        token = dask.base.tokenize(self.columns, self.dtype, self.is_named)
        return dask.delayed(self, name=f"dasknn-table-{token}", traverse=False)

    # --- JSON ----------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return the encoder in the types of JSON, for a file."""
        description = {
            "columns": [describe_column(column) for column in self.columns],
            "dtype": self.dtype,
            "is_named": self.is_named,
        }
        return JSONEncoder().encode(description, "the table")

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TableEncoder:
        """Return the encoder that `describe` has described. ModelFileError: a damaged description."""
        with schema.refusing(
            "The description of the table", "one", "Use the version of dasknn that wrote it."
        ):
            _TABLE(description, "")
            columns = tuple(column_from(config) for config in description["columns"])
            if twice := [name for name, n in Counter(column.name for column in columns).items() if n > 1]:
                raise schema.Mismatch(f"expected a different name for each column, received {twice}")
            return cls(columns, description["dtype"], description["is_named"])


# The dashboard shows tasks by the names of these functions. Dask passes the number of the block or partition
# under the names block_id and partition_info.


def encode_block(X: Any, encoder: TableEncoder, block_id: tuple[int, ...] | None = None) -> Any:
    """Return encoder.encode(X). PartitionError: bad data, with the number of the block."""
    return _encoded(X, encoder, block_id[0] if block_id else None)


def encode_frame(X: Any, encoder: TableEncoder, partition_info: dict[str, Any] | None = None) -> Any:
    """Return a pandas dataframe of the encoded rows of one, with its index. PartitionError: as above."""
    import pandas as pd

    values = _encoded(X, encoder, partition_info["number"] if partition_info else None)
    return pd.DataFrame(values, index=X.index, columns=encoder.names, copy=False)


def _encoded(X: Any, encoder: TableEncoder, number: int | None) -> np.ndarray:
    try:
        return encoder.encode(X)
    except PartitionError as error:
        if number is None:
            raise
        raise PartitionError(f"Partition {number}: {error}") from None


_TABLE = schema.record(
    {
        "columns": schema.each(check_column, least=1),
        "dtype": schema.one_of("float32", "float64"),
        "is_named": schema.flag,
    }
)
