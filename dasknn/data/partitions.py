"""Any input becomes row-aligned shards, dealt out to replicas.

    X, y, sample_weight      Dask or plain, in any chunks
      parts       Part, one for each partition: what brings X, y, weight; nothing is computed
      load        Block(X (n, p) cast, y, weight) and BlockInfo: checked and counted where the data is
      deal        for each replica, slices of blocks: as many rows as for any other
      Shards      Shard(X, y encoded, weight), at the home of its replica or made anew when needed

Blocks are kept in cluster memory while all of them fit in half of it. Beyond that they are let go, and a
shard is computed again whenever an epoch comes to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask.base import is_dask_collection
from scipy import sparse

from dasknn.cluster.graph import Graph
from dasknn.data import inputs, sources
from dasknn.data.targets import as_array
from dasknn.exceptions import PartitionError


@dataclass(frozen=True)
class Part:
    """One partition as it came: sources (Delayed or plain data), and which of X, y, weight each brings.

    A dataframe and its columns come from one source, as a tuple: dask.dataframe may fuse the partitions
    of collections that it optimizes one by one, each in its own way.
    """

    sources: tuple[Any, ...]
    names: tuple[tuple[str, ...], ...]

    def add_to(self, graph: Graph) -> list:
        """Add the sources to a graph; return the arguments to pass to a task."""
        return [graph.add_source(data) if is_dask_collection(data) else data for data in self.sources]


def columns_of(names: tuple[tuple[str, ...], ...], values: Sequence[Any]) -> dict[str, Any]:
    """Return X, y and weight (None where absent) from the values of the sources of a Part."""
    columns: dict[str, Any] = {"X": None, "y": None, "weight": None}
    for group, value in zip(names, values, strict=True):
        columns.update(zip(group, value if len(group) > 1 else [value], strict=True))
    return columns


def is_distributed(*collections) -> bool:
    """Return whether any of them is a Dask collection."""
    return any(is_dask_collection(collection) for collection in collections)


def is_dataframe(X) -> bool:
    """Return whether X is a pandas or Dask dataframe."""
    # A Dask series has columns, too.
    return hasattr(X, "columns") and hasattr(X, "dtypes") and getattr(X, "ndim", None) == 2


def argument_name(name: str) -> str:
    """Return what users call X, y or weight."""
    return "sample_weight" if name == "weight" else name


# --- parts -------------------------------------------------------------------------------------------


def parts(X, y=None, weight=None, n_parts: int = 1) -> list[Part]:
    """Return row-aligned partitions of X (n, p), y and weight; plain data is cut into at most n_parts.

    ValueError: a kind of data that is not worked with, chunks of columns, no rows at all, partitions that
    cannot be aligned without knowing their lengths, or plain rows in two orders (`inputs.check_order`).
    """
    data = {"X": X, "y": y, "weight": weight}
    data = {name: _with_rows(name, column) for name, column in data.items() if column is not None}
    X = data["X"]
    if is_distributed(X):
        return _distributed_parts(data)
    if is_distributed(*data.values()):
        raise ValueError(
            f"X is a {type(X).__name__} in this process, but y or sample_weight is a Dask collection. "
            "Pass all of them as Dask collections, or none: for instance dask.array.from_array(X)."
        )
    _check_lengths(data)
    # Before they are cut: pieces could hold other rows each.
    inputs.check_order({argument_name(name): column for name, column in data.items()})
    n_parts = max(1, min(n_parts, n_samples(X)))
    edges = [n_samples(X) * i // n_parts for i in range(n_parts + 1)]
    names = tuple((name,) for name in data)
    return [
        Part(tuple(_rows(column, slice(*edge)) for column in data.values()), names)
        for edge in pairwise(edges)
    ]


def _with_rows(name: str, data):
    """Return data whose rows can be sliced: lists become arrays. ValueError: it has no rows, or cannot be."""
    data = inputs.admitted(argument_name(name), data)
    if is_dask_collection(data):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if isinstance(data, list | tuple):
        data = to_array(name, data)
    if np.ndim(data) == 0:
        raise ValueError(
            f"Expected {argument_name(name)} to be an array or list with an entry for each row, received "
            f"{data!r:.80}."
        )
    return data


def _distributed_parts(data: dict[str, Any]) -> list[Part]:
    data = _in_chunks_of_x(data)
    frames = tuple(name for name in data if is_dask_frame(data[name]))
    blocks = sources.of_arrays({name: data[name] for name in data if isinstance(data[name], da.Array)})
    if len(frames) > 1 and "X" in frames:
        names: list[tuple[str, ...]] = [frames]
        first = together([data[name] for name in frames])
    else:
        names = [("X",)]
        first = blocks["X"] if "X" in blocks else sources.of_frame(data["X"])
    lengths = _lengths(data["X"])
    columns = [first]
    for name in data:
        if name not in names[0]:
            if name in blocks:
                own = blocks[name]
            elif is_dask_collection(data[name]):
                own = sources.of_frame(data[name])
            else:
                own = _cut_as_x(name, data[name], lengths)
            _check_number(name, own, len(first))
            columns.append(own)
            names.append((name,))
    return [Part(part, tuple(names)) for part in zip(*columns, strict=True)]


def _in_chunks_of_x(data: dict[str, Any]) -> dict[str, Any]:
    """Return Dask arrays in the chunks of X, where lengths are known.

    ValueError: chunks of columns, or other lengths than X has.
    """
    lengths, aligned = _lengths(data["X"]), dict(data)
    for name, array in data.items():
        if not isinstance(array, da.Array):
            continue
        check_chunks(array)
        own = _lengths(array)
        if lengths is not None and own is not None and own != lengths:
            if sum(own) != sum(lengths):
                raise ValueError(f"X has {sum(lengths)} rows, {argument_name(name)} has {sum(own)}.")
            aligned[name] = array.rechunk({0: tuple(lengths)})
    return aligned


def _lengths(data) -> list[int] | None:
    """Return the numbers of rows of the blocks of a Dask array; None where they are not known."""
    if not isinstance(data, da.Array) or any(np.isnan(length) for length in data.chunks[0]):
        return None
    return list(data.chunks[0])


def is_dask_frame(data) -> bool:
    """Return whether it is a Dask dataframe or series."""
    return (
        is_dask_collection(data)
        and hasattr(data, "map_partitions")
        and hasattr(data, "_meta")
        and (not isinstance(data, da.Array))
    )


def together(frames: list) -> list:
    """Return one Delayed for each partition of dataframes and series that go together: a tuple of them."""
    counts = {frame.npartitions for frame in frames}
    if len(counts) > 1:
        raise ValueError(
            "Expected X, y and sample_weight to have the same partitions, received "
            f"{', '.join(str(frame.npartitions) for frame in frames)}. Take them from one dataframe."
        )
    import dask.dataframe as dd

    packed = dd.map_partitions(
        _pack, *frames, meta=frames[0]._meta, align_dataframes=False, enforce_metadata=False
    )
    # From one source, both are read together, and only the columns that are wanted. Several sources could
    # fuse their partitions each in its own way.
    sources = {leaf._name for leaf in packed.expr.walk() if not leaf.dependencies()}
    return packed.to_delayed(optimize_graph=len(sources) == 1)


def _pack(*frames):
    return frames


def _check_lengths(data: dict[str, Any]) -> None:
    rows = {name: n_samples(column) for name, column in data.items()}
    for name, n in rows.items():
        if n != rows["X"]:
            raise ValueError(f"X has {rows['X']} rows, {argument_name(name)} has {n}.")


def n_samples(X) -> int:
    """Return the number of rows of plain data."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _rows(data, rows: slice):
    return data.iloc[rows] if hasattr(data, "iloc") else data[rows]


def flat_rows(X):
    """Return X (n, ...) as (n, p), plain or a Dask array; of one dimension as (n, 1). Dataframes as they
    are, a Dask series as one.
    """
    if is_dataframe(X) or X.ndim == 2:
        return X
    if is_dask_frame(X):
        return X.to_frame()
    width = math.prod(int(n) for n in X.shape[1:])
    if not isinstance(X, da.Array):
        # A mask stays, so that it is seen.
        return np.asanyarray(X).reshape(len(X), width)
    if X.ndim > 2:
        X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    settings: dict[str, Any] = {"drop_axis": list(range(2, X.ndim))} if X.ndim > 2 else {"new_axis": 1}
    return X.map_blocks(_flatten, dtype=X.dtype, chunks=(X.chunks[0], (width,)), **settings)


def _flatten(block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), math.prod(block.shape[1:]))


def check_chunks(data: da.Array) -> None:
    """Raise ValueError for an array that is chunked by columns, or has other than 1 or 2 dimensions."""
    if data.ndim == 2 and data.numblocks[1] > 1:
        raise ValueError(
            f"Expected an array that is chunked by rows only, received {data.numblocks[1]} chunks of "
            "columns. Use X.rechunk({1: -1})."
        )
    if data.ndim not in (1, 2):
        raise ValueError(f"Expected 1 or 2 dimensions, received shape {data.shape}.")


def _cut_as_x(name: str, data, lengths: list[int] | None) -> list:
    """Return plain y or sample_weight in pieces that go with the blocks of X, which have these lengths."""
    called = argument_name(name)
    if lengths is None:
        raise ValueError(
            f"{called} is a {type(data).__name__} in this process, but the partitions of X have unknown "
            f"lengths. Pass {called} as a Dask collection, or X as an array with known chunks: "
            "X.to_dask_array(lengths=True)."
        )
    if n_samples(data) != sum(lengths):
        raise ValueError(f"X has {sum(lengths)} rows, {called} has {n_samples(data)}.")
    return [_rows(data, slice(begin, end)) for begin, end in pairwise(np.cumsum([0, *lengths]))]


def _check_number(name: str, own: Sequence[Any], n_parts: int) -> None:
    if len(own) != n_parts:
        raise ValueError(
            f"X has {n_parts} partitions, {argument_name(name)} has {len(own)}, and not all of their "
            "lengths are known. Pass columns of the dataframe that X comes from as they are, df[...] without "
            ".values or to_dask_array(), or call compute_chunk_sizes() on arrays."
        )


def to_array(name: str, data) -> np.ndarray:
    try:
        return as_array(data)
    except ValueError:
        raise PartitionError(
            f"Expected {argument_name(name)} to have rows of one length; those of a "
            f"{type(data).__name__} differ."
        ) from None
