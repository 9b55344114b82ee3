"""Kinds of data that both APIs accept, and advice for all others.

    numpy, scipy.sparse, lists, pandas; Dask arrays, dataframes and series     used as they are
    frames of other libraries (polars, pyarrow, ...)                           converted to pandas
    Delayed, Futures, bags, xarray on Dask, pydata/sparse, unknown widths      an error that says what to call

Frames of other libraries are read through Arrow's streams, or through the dataframe interchange protocol if
they have no streams. None of these libraries is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
from dask.base import is_dask_collection
from dask.delayed import Delayed
from scipy import sparse

from dasknn.exceptions import PartitionError


def admit(*columns: Any, names: tuple[str, ...] = ("X", "y", "sample_weight")) -> list[Any]:
    """Return X, y and sample_weight, as many as are given, as data of the accepted kinds.

    Nothing is computed. ValueError: data of another kind; the message says what to call.
    """
    return [admitted(name, data) for name, data in zip(names, columns, strict=False)]


def admitted(name: str, data: Any) -> Any:
    """Return data called `name`; frames of other libraries become pandas. ValueError: another kind."""
    refuse(name, data)
    return _as_pandas(data) if _is_foreign(data) else data


# --- kinds that are refused ----------------------------------------------------------------------------


def refuse(name: str, data: Any) -> None:
    """Raise ValueError for data of a kind that is not accepted; the message says what to call."""
    if isinstance(data, da.Array):
        _refuse_blocks(name, data)
    elif problem := _problem(name, data):
        kind, remedy = problem
        raise ValueError(
            f"Expected {name} to be a Dask array, dataframe or series, or data in this process (numpy, "
            f"scipy.sparse, a dataframe, a list), received {kind}. Use {remedy}."
        )


def _problem(name: str, data: Any) -> tuple[str, str] | None:
    """Return (kind of the data, what to call) for a kind that is not accepted."""
    if isinstance(data, list | tuple) and data and (kind := _lazy_kind(data[0]) or _dask_kind(data[0])):
        return f"a {type(data).__name__} of {kind}s", _CALLS_FOR_LISTS.format(name=name)
    if kind := _lazy_kind(data):
        return f"a {kind}", _CALLS[kind].format(name=name)
    root = type(data).__module__.partition(".")[0]
    called = f"{root}.{type(data).__name__}"
    if is_dask_collection(data):
        if root == "xarray":
            call = "data" if hasattr(data, "data") else "to_dask_dataframe()"
            return f"an {called} on Dask", f"{name}.{call}"
        if not (hasattr(data, "map_partitions") and hasattr(data, "_meta")):
            return f"a {called}", "its to_dask_array() or to_dask_dataframe()"
    elif hasattr(data, "collect_schema") and hasattr(data, "collect"):
        # A lazy frame of polars or narwhals, which has no rows yet.
        return f"a {called}", f"{name}.collect()"
    elif _is_other_sparse(data):
        return f"a {called}", f"{name}.tocsr()"
    return None


_CALLS = {
    "Delayed": "dask.array.from_delayed({name}, shape, dtype) for one that becomes an array, "
    "dask.dataframe.from_delayed([{name}]) for one that becomes a dataframe",
    "Future": "dask.array.from_delayed({name}, shape, dtype) for one that holds an array, "
    "dask.dataframe.from_delayed([{name}]) for one that holds a dataframe, or {name}.result()",
    "Bag": "{name}.to_dataframe(meta=...), with the names and dtypes of its columns",
}
_CALLS_FOR_LISTS = (
    "dask.dataframe.from_delayed({name}) for dataframes, dask.array.concatenate([dask.array.from_delayed("
    "part, shape, dtype) for part in {name}]) for arrays; dask.array.concatenate({name}) for Dask arrays, "
    "dask.dataframe.concat({name}) for Dask dataframes"
)


def _lazy_kind(data: Any) -> str | None:
    """Return the name of a kind without known rows: Delayed, Future or Bag."""
    if isinstance(data, Delayed):
        return "Delayed"
    kind = type(data)
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    if ("distributed", "Future") in names:
        return "Future"
    return "Bag" if ("dask", "Bag") in names else None


def _dask_kind(data: Any) -> str | None:
    """Return the name of a kind of Dask collections, None for other data."""
    return f"Dask {type(data).__name__}" if is_dask_collection(data) else None


def _refuse_blocks(name: str, data: da.Array) -> None:
    if any(np.isnan(n) for n in data.shape[1:]):
        raise ValueError(
            f"Expected {name} with a known number of columns, received a Dask array of shape {data.shape}. "
            f"Pass the number, as in dask.array.from_delayed(..., shape=(numpy.nan, 5)), or call "
            f"{name}.compute_chunk_sizes() first."
        )
    if _is_other_sparse(data._meta):
        kind = type(data._meta)
        raise ValueError(
            f"Expected {name} in blocks of numpy or scipy.sparse, received a Dask array of "
            f"{kind.__module__.partition('.')[0]}.{kind.__name__} blocks. Use "
            f"{name}.map_blocks(lambda block: block.tocsr(), dtype={name}.dtype)."
        )


def _is_other_sparse(data: Any) -> bool:
    return hasattr(data, "todense") and hasattr(data, "tocsr") and not sparse.issparse(data)


# --- frames of other libraries -------------------------------------------------------------------------


def _is_foreign(data: Any) -> bool:
    """Return whether it is a frame or series of a library other than pandas, numpy and Dask."""
    if isinstance(data, np.ndarray) or is_dask_collection(data) or hasattr(data, "iloc"):
        return False
    return any(
        hasattr(data, protocol) for protocol in ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__")
    )


def _as_pandas(data: Any) -> Any:
    """Return a frame of another library as a pandas dataframe, a series as a series.

    ImportError: pyarrow is not installed.
    """
    try:
        import pandas as pd
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(
            f"A {type(data).__module__}.{type(data).__name__} is read through pyarrow, which is not "
            "installed. Use pip install 'dasknn[dataframe]', or pass a numpy array."
        ) from error

    def dtype(kind: Any) -> Any:
        # Not objects of Python, whose type is not known in advance.
        return pd.ArrowDtype(kind) if pa.types.is_decimal(kind) else None

    return _in_arrow(data, pa).to_pandas(types_mapper=dtype, date_as_object=False)


def _in_arrow(data: Any, pa: Any) -> Any:
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.RecordBatchReader.from_stream(data).read_all()
        except pa.ArrowInvalid:
            # The stream of a series is not a table.
            return pa.chunked_array(data)
    if hasattr(data, "__arrow_c_array__"):
        return pa.array(data)
    from pyarrow.interchange import from_dataframe

    return from_dataframe(data)


# --- order of rows -------------------------------------------------------------------------------------


def check_order(data: Mapping[str, Any]) -> None:
    """Raise PartitionError for pandas objects whose indexes have the same values in different orders.

    data: X, y and sample_weight by name, in this process. Rows are matched by position, so one of the two was
    sorted or shuffled without the other. Indexes with different values are accepted.
    """
    indexed = [(name, column.index) for name, column in data.items() if hasattr(column, "iloc")]
    for name, index in indexed[1:]:
        first, expected = indexed[0]
        if (row := _first_out_of_order(expected, index)) is not None:
            there, here = (rows[row : row + 1].tolist()[0] for rows in (expected, index))
            raise PartitionError(
                f"Expected the rows of {first} and {name} in one order, received the same index in two "
                f"orders: row {row} of {first} is {there!r}, of {name} {here!r}. Take both from one "
                f"dataframe, or align them with {name}.loc[{first}.index]. If they do belong together by "
                "position, drop the index of both: reset_index(drop=True)."
            )


def _first_out_of_order(expected: Any, index: Any) -> int | None:
    """Return the first row that differs between two indexes with the same values; None if there is none."""
    if len(index) != len(expected) or index.equals(expected):
        return None
    from pandas.util import hash_pandas_object

    try:
        there, here = (hash_pandas_object(rows, index=False).to_numpy() for rows in (expected, index))
    except TypeError:
        # Values that cannot be hashed are not compared.
        return None
    differ = there != here
    # Sums do not depend on the order. Sorting could fail for values of several kinds.
    return int(differ.argmax()) if differ.any() and there.sum() == here.sum() else None
