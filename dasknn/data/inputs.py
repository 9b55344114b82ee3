"""The door of both faces: which kinds of data come in, as what, and what to call for all others.

    numpy, scipy.sparse, lists, pandas; Dask arrays, dataframes and series     as they are
    frames of others (polars, pyarrow, ...)                                    pandas, by their names
    Delayed, Futures, bags, xarray on Dask, pydata/sparse, unknown widths      an error that says what to call

Frames of others come through Arrow's stream, or through the dataframe interchange protocol where they have
that alone; none of those libraries is needed here.
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


def admit(*columns, names: tuple[str, ...] = ("X", "y", "sample_weight")) -> list[Any]:
    """Return X, y and sample_weight as one of the kinds that are worked with; what is absent is left out.

    Nothing is computed. ValueError: another kind; it says what to call.
    """
    return [admitted(name, data) for name, data in zip(names, columns, strict=False)]


def admitted(name: str, data):
    """Return data called `name`: frames of other libraries become pandas, all else stays as it is."""
    refuse(name, data)
    return _as_pandas(data) if _is_foreign(data) else data


# --- what is refused -----------------------------------------------------------------------------------


def refuse(name: str, data) -> None:
    """Raise ValueError for a kind of data that is not worked with: it names the kind and what to call."""
    if isinstance(data, da.Array):
        _refuse_blocks(name, data)
    elif problem := _problem(name, data):
        kind, remedy = problem
        raise ValueError(
            f"Expected {name} to be a Dask array, dataframe or series, or data in this process (numpy, "
            f"scipy.sparse, a dataframe, a list), received {kind}. Use {remedy}."
        )


def _problem(name: str, data) -> tuple[str, str] | None:
    """Return (what data is, what to call), if it is of a kind that is not worked with."""
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
        # A plan of polars' or narwhals', which has no rows yet.
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
    "part, shape, dtype) for part in {name}]) for arrays; of Dask arrays dask.array.concatenate({name}), of "
    "Dask dataframes dask.dataframe.concat({name})"
)


def _lazy_kind(data) -> str | None:
    """Return the name of a kind whose rows nobody knows: Delayed, Future or Bag."""
    if isinstance(data, Delayed):
        return "Delayed"
    kind = type(data)
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    if ("distributed", "Future") in names:
        return "Future"
    return "Bag" if ("dask", "Bag") in names else None


def _dask_kind(data) -> str | None:
    """Return what a Dask collection is called, None for other data."""
    return f"Dask {type(data).__name__}" if is_dask_collection(data) else None


def _refuse_blocks(name: str, data: da.Array) -> None:
    if any(np.isnan(n) for n in data.shape[1:]):
        raise ValueError(
            f"Expected {name} with a known number of columns, received a Dask array of shape {data.shape}. "
            f"Say it, dask.array.from_delayed(..., shape=(numpy.nan, 5)), or call "
            f"{name}.compute_chunk_sizes() first."
        )
    if _is_other_sparse(data._meta):
        kind = type(data._meta)
        raise ValueError(
            f"Expected {name} in blocks of numpy or scipy.sparse, received a Dask array of "
            f"{kind.__module__.partition('.')[0]}.{kind.__name__} blocks. Use "
            f"{name}.map_blocks(lambda block: block.tocsr(), dtype={name}.dtype)."
        )


def _is_other_sparse(data) -> bool:
    return hasattr(data, "todense") and hasattr(data, "tocsr") and not sparse.issparse(data)


# --- frames of other libraries -------------------------------------------------------------------------


def _is_foreign(data) -> bool:
    """Return whether it is a frame or series of a library other than pandas, numpy and Dask."""
    if isinstance(data, np.ndarray) or is_dask_collection(data) or hasattr(data, "iloc"):
        return False
    return any(
        hasattr(data, protocol) for protocol in ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__")
    )


def _as_pandas(data):
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

    def dtype(kind):
        # Not Python's objects, of which nobody could tell what they hold.
        return pd.ArrowDtype(kind) if pa.types.is_decimal(kind) else None

    return _in_arrow(data, pa).to_pandas(types_mapper=dtype, date_as_object=False)


def _in_arrow(data, pa):
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.RecordBatchReader.from_stream(data).read_all()
        except pa.ArrowInvalid:
            # A stream of one column is no table.
            return pa.chunked_array(data)
    if hasattr(data, "__arrow_c_array__"):
        return pa.array(data)
    from pyarrow.interchange import from_dataframe

    return from_dataframe(data)


# --- rows that go together -----------------------------------------------------------------------------


def check_order(data: Mapping[str, Any]) -> None:
    """Raise PartitionError for pandas objects whose indexes hold the same values in another order.

    data: X, y and sample_weight by name, in this process. Rows go together by their positions, so one of the
    two was sorted or mixed without the other. Indexes of different values say nothing.
    """
    indexed = [(name, column.index) for name, column in data.items() if hasattr(column, "iloc")]
    for name, index in indexed[1:]:
        first, expected = indexed[0]
        if (row := _first_out_of_order(expected, index)) is not None:
            there, here = (rows[row : row + 1].tolist()[0] for rows in (expected, index))
            raise PartitionError(
                f"Expected the rows of {first} and {name} in one order, received the same index in two: row "
                f"{row} of {first} is {there!r}, of {name} {here!r}. Take both from one dataframe; of "
                f"pandas, {name}.loc[{first}.index] brings them together. If they do go together by "
                "position, drop the index of both: reset_index(drop=True)."
            )


def _first_out_of_order(expected, index) -> int | None:
    """Return the first row in which two indexes differ that hold the same values; None if there is none."""
    if len(index) != len(expected) or index.equals(expected):
        return None
    from pandas.util import hash_pandas_object

    try:
        there, here = (hash_pandas_object(rows, index=False).to_numpy() for rows in (expected, index))
    except TypeError:
        # Of values that cannot be hashed nobody can say.
        return None
    differ = there != here
    # Sums do not depend on the order. Sorting could fail, of values of several kinds.
    return int(differ.argmax()) if differ.any() and there.sum() == here.sum() else None
