"""Shuffles rows across all partitions.

    frames   partition ── a random key for each row ── Dask's shuffle by the key ── partitions sorted by it
    arrays   chunk ── rows in random order, cut into one piece for each new chunk ── pieces of a new chunk
             joined, in random order again

Everything is lazy, and a pure function of the seed: the order of the rows does not depend on which worker
computes them, or in which order they arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import dask.array as da
import numpy as np
import sklearn.utils
from dask.base import is_dask_collection, tokenize
from dask.delayed import delayed
from dask.highlevelgraph import HighLevelGraph
from sklearn.utils import check_random_state

from dasknn._compat.dask import Task, TaskRef
from dasknn.data import partitions
from dasknn.data.blocks import concatenate, select
from dasknn.exceptions import PartitionError
from dasknn.seeds import Stream, generator

# Name of the column of random keys.
_KEY = "key"


def shuffle(*collections: Any, random_state: Any = None) -> Any:
    """Shuffle the rows of collections across all partitions, in the same random order for all collections.

    Use it once on sorted data, since each replica learns from some of the partitions only.

    Parameters
    ----------
    *collections : Dask or plain data with the same number of rows
        Dask dataframes and series with the same partitions; or Dask arrays of shape (n, ...) with known
        chunks; or plain data, as for `sklearn.utils.shuffle`.
    random_state : int, RandomState instance or None, default=None
        An integer gives the same order on any cluster.

    Returns
    -------
    collection, or tuple of collections
        As many as were given, with about equally many rows in each partition. The number of dataframe
        partitions stays; all arrays get the same new chunks, one for each chunk that had rows.

    Raises
    ------
    ValueError
        Collections of different kinds or lengths, or arrays with unknown chunks.

    Notes
    -----
    The result of Dask collections is lazy: `persist()` it, or write it to Parquet once. Otherwise the data is
    shuffled whenever it is computed, which may be in each epoch if it does not fit in memory.

    Dataframes are shuffled by Dask, peer to peer if there is a distributed client. Each chunk of an array
    sends a piece to each new chunk, so reduce more than a few hundred chunks with `rechunk` first.

    Examples
    --------
    ::

        X, y = dask.persist(*dasknn.shuffle(X, y, random_state=0))
    """
    if not collections:
        raise ValueError("Expected at least one collection to shuffle, received none.")
    kinds = [_kind(collection) for collection in collections]
    if len(set(kinds)) > 1:
        names = ", ".join(type(collection).__name__ for collection in collections)
        raise ValueError(
            f"Expected collections of one kind, received {names}. Pass Dask dataframes and series, or Dask "
            "arrays (df.to_dask_array(lengths=True)), or plain data."
        )
    if kinds[0] == "plain":
        shuffled = sklearn.utils.shuffle(*collections, random_state=random_state)
        return shuffled if len(collections) == 1 else tuple(shuffled)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    shuffled = _WAYS[kinds[0]](collections, seed)
    return shuffled[0] if len(collections) == 1 else tuple(shuffled)


def _kind(collection: Any) -> str:
    if isinstance(collection, da.Array):
        return "array"
    if partitions.is_dask_frame(collection):
        return "frame"
    if is_dask_collection(collection):
        raise ValueError(
            f"Expected Dask arrays, dataframes or series, received {type(collection).__name__}. Use its "
            "to_dataframe()."
        )
    return "plain"


# --- dataframes --------------------------------------------------------------------------------------


def _shuffled_frames(frames: Sequence[Any], seed: int) -> list:
    import dask.dataframe as dd

    # together: one Delayed for each partition -> a tuple of pandas objects
    together = partitions.together(list(frames))
    metas = [frame._meta for frame in frames]
    with_keys = partial(_keyed, seed, [_names(meta) for meta in metas])
    lazily = delayed(with_keys, pure=True)
    keyed = dd.from_delayed(
        [lazily(number, part) for number, part in enumerate(together)],
        meta=with_keys(0, metas),
        verify_meta=False,
        prefix="dasknn-keyed",
    )
    mixed = keyed.shuffle(on=_KEY, npartitions=keyed.npartitions, ignore_index=True)
    begins = np.cumsum([0, *(1 + _width(meta) for meta in metas)]).tolist()
    return [
        mixed.map_partitions(partial(_in_order, begin, meta), meta=meta, enforce_metadata=False)
        for begin, meta in zip(begins[:-1], metas, strict=True)
    ]


def _names(frame: Any) -> list | None:
    return list(frame.columns) if frame.ndim == 2 else None


def _width(frame: Any) -> int:
    return frame.shape[1] if frame.ndim == 2 else 1


def _keyed(seed: int, names: list[list | None], number: int, frames: Sequence[Any]) -> Any:
    """Return one dataframe with the index and the columns of each frame, and a random key for each row.

    Columns are named by their positions, since their own names may occur twice.
    """
    n_rows = len(frames[0])
    columns: list[Any] = []
    for frame, own_names in zip(frames, names, strict=True):
        frame = select(frame, own_names)
        if len(frame) != n_rows:
            raise PartitionError(
                f"Partition {number}: expected as many rows in each collection, received {n_rows} in the "
                f"first and {len(frame)} in another."
            )
        own = [frame] if frame.ndim == 1 else [frame.iloc[:, i] for i in range(_width(frame))]
        columns += [column.array for column in (frame.index, *own)]
    # Keys of two rows are equal with a probability of 2**-63; their order is then not determined.
    keys = generator(seed, Stream.SHUFFLE_KEYS, number).integers(2**63, size=n_rows, dtype=np.uint64)
    named = {str(position): column for position, column in enumerate(columns)}
    return _pandas().DataFrame({**named, _KEY: keys.astype(np.int64)})


def _in_order(begin: int, meta: Any, mixed: Any) -> Any:
    """Return the rows of one frame in a shuffled partition, sorted by their keys."""
    order = np.argsort(mixed[_KEY].to_numpy(), kind="stable")
    index = _pandas().Index(mixed.iloc[order, begin].array, name=meta.index.name)
    if meta.ndim == 1:
        return mixed.iloc[order, begin + 1].set_axis(index).rename(meta.name)
    frame = mixed.iloc[order, begin + 1 : begin + 1 + _width(meta)]
    return frame.set_axis(index).set_axis(meta.columns, axis=1)


def _pandas() -> Any:
    # It need not be installed to shuffle arrays.
    import pandas as pd

    return pd


# --- arrays ------------------------------------------------------------------------------------------


def _shuffled_arrays(arrays: Sequence[da.Array], seed: int) -> list[da.Array]:
    for x in arrays:
        if x.ndim == 0 or np.isnan(x.shape[0]):
            raise ValueError(
                f"Expected arrays with known chunks, received chunks {x.chunks}. Call compute_chunk_sizes() "
                "on the array first, or shuffle the dataframe that it comes from."
            )
        if x.shape[0] != arrays[0].shape[0]:
            raise ValueError(
                f"Expected as many rows in each array, received {arrays[0].shape[0]} in the first and "
                f"{x.shape[0]} in another."
            )
    lengths = arrays[0].chunks[0]
    n_new = max(1, sum(n > 0 for n in lengths))
    # cuts[i, j]: number of rows from chunk i to new chunk j, as if each row chose a new chunk at random
    cuts = generator(seed, Stream.SHUFFLE_CUTS).multinomial(lengths, np.full(n_new, 1 / n_new))
    return [_shuffled_array(x.rechunk(_by_rows(x, lengths)), cuts, seed) for x in arrays]


def _by_rows(x: da.Array, lengths: tuple[int, ...]) -> dict[int, Any]:
    return {0: lengths, **dict.fromkeys(range(1, x.ndim), -1)}


def _shuffled_array(x: da.Array, cuts: np.ndarray, seed: int) -> da.Array:
    """Return the rows of x in new chunks; x has one chunk in all other dimensions."""
    token = tokenize(x, seed)
    name, rest = f"dasknn-shuffle-{token}", (0,) * (x.ndim - 1)
    tasks: dict[Any, Task] = {}

    def add(key: Any, function: Callable, *args: Any) -> TaskRef:
        tasks[key] = Task(key, function, *args)
        return TaskRef(key)

    pieces = [
        add((f"dasknn-cut-{token}", i), partial(_cut, seed, i, tuple(row)), TaskRef((x.name, i, *rest)))
        for i, row in enumerate(cuts.tolist())
    ]
    for j in range(cuts.shape[1]):
        # A new chunk without rows is an empty piece.
        senders = np.flatnonzero(cuts[:, j]).tolist() or [0]
        own = [add((f"dasknn-piece-{token}", i, j), itemgetter(j), pieces[i]) for i in senders]
        add((name, j, *rest), partial(_joined, seed, j), *own)
    sources: list[Any] = [x]
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=sources)
    return da.Array(graph, name, (tuple(cuts.sum(axis=0).tolist()), *x.chunks[1:]), meta=x._meta)


def _cut(seed: int, number: int, sizes: tuple[int, ...], chunk: Any) -> list:
    """Return the rows of a chunk in random order, in pieces of these sizes."""
    mixed = chunk[generator(seed, Stream.SHUFFLE_CHUNK, number).permutation(sum(sizes))]
    return [mixed[begin:end] for begin, end in pairwise(np.cumsum([0, *sizes]))]


def _joined(seed: int, number: int, *pieces: Any) -> Any:
    """Return the rows of all pieces in random order."""
    rows = concatenate(list(pieces))
    return rows[generator(seed, Stream.SHUFFLE_NEW_CHUNK, number).permutation(rows.shape[0])]


_WAYS = {"frame": _shuffled_frames, "array": _shuffled_arrays}
