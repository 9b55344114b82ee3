"""Partitions: X, y and sample_weight as row-aligned parts, on the way to shards.

    X, y, sample_weight      Dask or plain, in any chunks
      parts       Part, one for each partition: sources of X, y, weight; nothing is computed
      load        Block(X (n, p) cast, y, weight) and BlockInfo: checked and summarized where the data is
      deal        for each replica, slices of blocks with equally many rows
      Shards      Shard(X, y encoded, weight), at the home of its replica, or computed in each epoch

Blocks stay in the memory of the cluster if all of them fit in half of it. Otherwise they are released, and
shards are computed again in each epoch.
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
    """One partition: its sources (Delayed or plain data), and the names of X, y, weight that each holds.

    A dataframe and its columns are one source, a tuple: if dask.dataframe optimizes collections one by one,
    it may fuse their partitions in different ways.
    """

    sources: tuple[Any, ...]
    names: tuple[tuple[str, ...], ...]

    def add_to(self, graph: Graph) -> list:
        """Add the sources to a graph; return the arguments for a task."""
        return [graph.add_source(data) if is_dask_collection(data) else data for data in self.sources]


def are_kept(parts: Sequence[Part]) -> bool:
    """Return whether the user holds X in memory: persisted, or as plain data."""
    first = [part.sources[0] for part in parts]
    # A graph has no task for what is persisted.
    return all(source.key not in source.__dask_graph__() for source in first if is_dask_collection(source))


def columns_of(names: tuple[tuple[str, ...], ...], values: Sequence[Any]) -> dict[str, Any]:
    """Return X, y and weight (None if absent) by name, from the values of the sources of a Part."""
    columns: dict[str, Any] = {"X": None, "y": None, "weight": None}
    for group, value in zip(names, values, strict=True):
        columns.update(zip(group, value if len(group) > 1 else [value], strict=True))
    return columns


def is_distributed(*collections: Any) -> bool:
    """Return whether any of the collections is one of Dask."""
    return any(is_dask_collection(collection) for collection in collections)


def is_dataframe(X: Any) -> bool:
    """Return whether X is a pandas or Dask dataframe."""
    # A Dask series also has columns.
    return hasattr(X, "columns") and hasattr(X, "dtypes") and getattr(X, "ndim", None) == 2


def argument_name(name: str) -> str:
    """Return the argument of users for X, y or weight."""
    return "sample_weight" if name == "weight" else name


# --- parts -------------------------------------------------------------------------------------------


def parts(X: Any, y: Any = None, weight: Any = None, n_parts: int = 1) -> list[Part]:
    """Return row-aligned partitions of X (n, p), y and weight; plain data is cut into at most n_parts.

    ValueError: a kind of data that is not accepted, chunks of columns, no rows, partitions of unknown lengths
    that cannot be aligned, or plain rows in two orders (see `inputs.check_order`).
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
    # Before they are cut: pieces of two orders may hold different rows.
    inputs.check_order({argument_name(name): column for name, column in data.items()})
    n_parts = max(1, min(n_parts, n_samples(X)))
    edges = [n_samples(X) * i // n_parts for i in range(n_parts + 1)]
    names = tuple((name,) for name in data)
    return [
        Part(tuple(_rows(column, slice(*edge)) for column in data.values()), names)
        for edge in pairwise(edges)
    ]


def _with_rows(name: str, data: Any) -> Any:
    """Return data whose rows can be sliced: lists become arrays. ValueError: it has no rows."""
    data = inputs.admitted(argument_name(name), data)
    if is_dask_collection(data):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if isinstance(data, list | tuple):
        data = to_array(name, data)
    if np.ndim(data) == 0:
        raise ValueError(
            f"Expected {argument_name(name)} to be an array or list with one entry for each row, received "
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
    """Return Dask arrays in the chunks of X, if lengths are known.

    ValueError: chunks of columns, or another number of rows than X has.
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


def _lengths(data: Any) -> list[int] | None:
    """Return the numbers of rows of the blocks of a Dask array; None if they are unknown."""
    if not isinstance(data, da.Array) or any(np.isnan(length) for length in data.chunks[0]):
        return None
    return list(data.chunks[0])


def is_dask_frame(data: Any) -> bool:
    """Return whether data is a Dask dataframe or series."""
    return (
        is_dask_collection(data)
        and hasattr(data, "map_partitions")
        and hasattr(data, "_meta")
        and (not isinstance(data, da.Array))
    )


def together(frames: list) -> list:
    """Return one Delayed for each partition of aligned dataframes and series: a tuple of their partitions."""
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
    # Frames of one source are read together, and only the columns that are needed. Several sources could each
    # fuse their partitions differently.
    sources = {leaf._name for leaf in packed.expr.walk() if not leaf.dependencies()}
    return packed.to_delayed(optimize_graph=len(sources) == 1)


def _pack(*frames: Any) -> tuple:
    return frames


def _check_lengths(data: dict[str, Any]) -> None:
    rows = {name: n_samples(column) for name, column in data.items()}
    for name, n in rows.items():
        if n != rows["X"]:
            raise ValueError(f"X has {rows['X']} rows, {argument_name(name)} has {n}.")


def n_samples(X: Any) -> int:
    """Return the number of rows of plain data."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _rows(data: Any, rows: slice) -> Any:
    return data.iloc[rows] if hasattr(data, "iloc") else data[rows]


def flat_rows(X: Any) -> Any:
    """Return an array X (n, ...), plain or Dask, as (n, p), and dataframes as they are.

    Data of one dimension becomes (n, 1), a Dask series a dataframe.
    """
    if is_dataframe(X) or X.ndim == 2:
        return X
    if is_dask_frame(X):
        return X.to_frame()
    width = math.prod(int(n) for n in X.shape[1:])
    if not isinstance(X, da.Array):
        # Masked arrays stay masked, so that they are refused later.
        return np.asanyarray(X).reshape(len(X), width)
    if X.ndim > 2:
        X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    settings: dict[str, Any] = {"drop_axis": list(range(2, X.ndim))} if X.ndim > 2 else {"new_axis": 1}
    return X.map_blocks(_flatten, dtype=X.dtype, chunks=(X.chunks[0], (width,)), **settings)


def _flatten(block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), math.prod(block.shape[1:]))


def check_chunks(data: da.Array) -> None:
    """Raise ValueError for an array that is chunked by columns, or does not have 1 or 2 dimensions."""
    if data.ndim == 2 and data.numblocks[1] > 1:
        raise ValueError(
            f"Expected an array that is chunked by rows only, received {data.numblocks[1]} chunks of "
            "columns. Use X.rechunk({1: -1})."
        )
    if data.ndim not in (1, 2):
        raise ValueError(f"Expected 1 or 2 dimensions, received shape {data.shape}.")


def _cut_as_x(name: str, data: Any, lengths: list[int] | None) -> list:
    """Return plain y or sample_weight in pieces as long as the blocks of X, which have these lengths."""
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


def to_array(name: str, data: Any) -> np.ndarray:
    """Return data as an array. PartitionError: rows of different lengths."""
    try:
        return as_array(data)
    except ValueError:
        raise PartitionError(
            f"Expected {argument_name(name)} to have rows of one length; those of a "
            f"{type(data).__name__} differ."
        ) from None
