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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import pairwise
from operator import add
from typing import Any

import dask.array as da
import numpy as np
from dask.base import is_dask_collection
from scipy import sparse

from dasknn.cluster import inputs, sources
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph, graph_of
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.placement import place
from dasknn.exceptions import PartitionError
from dasknn.targets import as_array, first_missing, has_decimals, is_decimal

# Slices that follow one another are put together up to this size: fewer tasks, better shuffling.
_SHARD_BYTES = 32 * 2**20
# A border between replicas snaps to one between partitions when that is this close, as a share of the rows
# of a replica: most data is then read once only.
_SNAP = 0.05
# First number of the seed sequence of rows held out; those of `strategies` are other ones.
_HELD_OUT_STREAM = 4
# Share of the workers' memory that the data may take; Dask spills from 0.6 on.
_MEMORY_SHARE = 0.5
# Kinds of dtypes that numpy turns into numbers without a word: dates, durations, complex numbers, records.
_NO_NUMBERS = "mMcV"


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


@dataclass(frozen=True)
class Block:
    """One partition, cast: X (n, p) C-ordered or CSR, y (n,) or (n, k) as it came, weight (n,) or None.

    problem: why it cannot be trained on, where that was looked for.
    """

    X: Any
    y: np.ndarray | None
    weight: np.ndarray | None
    problem: str | None = None


@dataclass(frozen=True)
class BlockInfo:
    """What the driver learns of a block; `problem` says why it cannot be trained on."""

    n_rows: int
    n_features: int
    nbytes: int
    weight_sum: float
    targets: Any = None
    problem: str | None = None


@dataclass(frozen=True)
class Slice:
    """Rows begin to end of a block."""

    block: int
    begin: int
    end: int

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.end - self.begin


def is_distributed(*collections) -> bool:
    """Return whether any of them is a Dask collection."""
    return any(is_dask_collection(collection) for collection in collections)


def is_dataframe(X) -> bool:
    """Return whether X is a pandas or Dask dataframe."""
    # A Dask series has columns, too.
    return hasattr(X, "columns") and hasattr(X, "dtypes") and getattr(X, "ndim", None) == 2


def _called(name: str) -> str:
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
    inputs.check_order({_called(name): column for name, column in data.items()})
    n_parts = max(1, min(n_parts, n_samples(X)))
    edges = [n_samples(X) * i // n_parts for i in range(n_parts + 1)]
    names = tuple((name,) for name in data)
    return [
        Part(tuple(_rows(column, slice(*edge)) for column in data.values()), names)
        for edge in pairwise(edges)
    ]


def _with_rows(name: str, data):
    """Return data whose rows can be sliced: lists become arrays. ValueError: it has no rows, or cannot be."""
    data = inputs.admitted(_called(name), data)
    if is_dask_collection(data):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if isinstance(data, list | tuple):
        data = _to_array(name, data)
    if np.ndim(data) == 0:
        raise ValueError(
            f"Expected {_called(name)} to be an array or list with an entry for each row, received "
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
                raise ValueError(f"X has {sum(lengths)} rows, {_called(name)} has {sum(own)}.")
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
            raise ValueError(f"X has {rows['X']} rows, {_called(name)} has {n}.")


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
    called = _called(name)
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
            f"X has {n_parts} partitions, {_called(name)} has {len(own)}, and not all of their lengths are "
            f"known. Pass columns of the dataframe that X comes from as they are, df[...] without .values or "
            "to_dask_array(), or call compute_chunk_sizes() on arrays."
        )


# --- load --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Which rows of each block are held out: so many, whatever the other blocks hold.

    seed: what chooses them; None: the last ones.
    """

    seed: int | None
    n_held_out: tuple[int, ...]
    held_out: bool

    def take(self, number: int, shape: tuple[int, int]) -> Callable[[Block], Block]:
        """Return what takes the rows of this side from block `number`, whose X has this shape."""
        # It goes with each task, so it must know of no other blocks.
        return partial(_take_side, self.seed, number, self.n_held_out[number], self.held_out, shape)


def _take_side(
    seed: int | None, number: int, n_held_out: int, held_out: bool, shape: tuple[int, int], block: Block
) -> Block:
    """Return a block with the rows of one side alone, in order. PartitionError: it is not what it was."""
    check_again(number, shape, block)
    n_rows = block.X.shape[0]
    if seed is None:
        order = np.arange(n_rows)[::-1]
    else:
        order = np.random.default_rng([seed, _HELD_OUT_STREAM, number]).permutation(n_rows)
    rows = np.sort(order[:n_held_out] if held_out else order[n_held_out:])
    columns = (block.X, block.y, block.weight)
    return Block(*(None if column is None else column[rows] for column in columns))


@dataclass
class Loaded:
    """What load found: infos of all blocks, and the blocks themselves where they fit in memory.

    split: take the rows of one side of it from each block. taken: the split whose side is all that the blocks
    hold. shapes: of X in each block, before any split.
    """

    parts: list[Part]
    load_block: Callable
    infos: list[BlockInfo]
    blocks: list[Any] | None
    shapes: tuple[tuple[int, int], ...]
    split: Split | None = None
    taken: Split | None = None

    def repair(self, tasks: Executor) -> None:
        """Load anew what is lost for good of the blocks that are held."""
        if not self.blocks:
            return
        lost = [number for number, is_lost in enumerate(tasks.broken(self.blocks)) if is_lost]
        if lost:
            graph, source = Graph(), replace(self, blocks=None, split=self.taken)
            wanted = [source.add_block(graph, number) for number in lost]
            tasks.drop([self.blocks[number] for number in lost])
            for number, held in zip(lost, tasks.start(graph, wanted), strict=True):
                self.blocks[number] = held

    def add_block(self, graph: Graph, number: int, home: str | None = None) -> Any:
        """Return a reference to a block: as it is held, or to be loaded and checked again."""
        if self.blocks is not None:
            block = self.blocks[number]
        else:
            sources = self.parts[number].add_to(graph)
            load_again = partial(_load_again, self.load_block, number, self.shapes[number])
            block = graph.add("dasknn-load", load_again, *sources, home=home)
        if self.split is None:
            return block
        return graph.add("dasknn-split", self.split.take(number, self.shapes[number]), block, home=home)

    def hold_out(self, tasks: Executor, fraction: float, seed: int) -> tuple[Loaded, Loaded]:
        """Return (what is left to train on, what is held out), from each block in proportion to its rows.

        Rows stay where they are. In all, the share is rounded up, as in scikit-learn.
        """
        rows = np.cumsum([0, *(info.n_rows for info in self.infos)])
        # Exact for the whole, and within one row for each block.
        edges = rows * math.ceil(rows[-1] * fraction) // max(int(rows[-1]), 1)
        return self._split(tasks, seed, tuple(int(n) for n in np.diff(edges)))

    def hold_out_last(self, tasks: Executor, n_held_out: int) -> tuple[Loaded, Loaded]:
        """Return (what is left to train on, the last n_held_out rows); rows stay where they are."""
        ends = np.cumsum([0, *(info.n_rows for info in self.infos)])
        of_blocks = np.diff(np.maximum(ends, self.n_rows - n_held_out))
        return self._split(tasks, None, tuple(int(n) for n in of_blocks))

    def _split(self, tasks: Executor, seed: int | None, n_held_out: tuple[int, ...]) -> tuple[Loaded, Loaded]:
        left, held_out = (
            replace(
                self,
                split=Split(seed, n_held_out, side),
                infos=_infos_of_side(self.infos, n_held_out, side),
            )
            for side in (False, True)
        )
        if self.blocks is not None:
            graph = Graph()
            held_out.blocks = tasks.start(graph, held_out.add_blocks(graph))
            held_out.split, held_out.taken = None, held_out.split
        return left, held_out

    def part_with(self, key) -> int | None:
        """Return the number of the first partition that the task with this key is part of."""
        for number, part in enumerate(self.parts):
            for source in filter(is_dask_collection, part.sources):
                if key == source.key or key in graph_of(source):
                    return number
        return None

    def add_blocks(self, graph: Graph) -> list[Any]:
        """Return references to all blocks."""
        return [self.add_block(graph, number) for number in range(len(self.parts))]

    @property
    def n_rows(self) -> int:
        """Rows of all blocks."""
        return sum(info.n_rows for info in self.infos)

    @property
    def targets(self):
        """Summary of y over all blocks."""
        return reduce(add, (info.targets for info in self.infos))


def _infos_of_side(infos: list[BlockInfo], n_held_out: Sequence[int], held_out: bool) -> list[BlockInfo]:
    sides = []
    for info, n in zip(infos, n_held_out, strict=True):
        n_rows = n if held_out else info.n_rows - n
        sides.append(replace(info, n_rows=n_rows, nbytes=info.nbytes * n_rows // max(info.n_rows, 1)))
    return sides


def load(
    tasks: Executor,
    data: Sequence[Part],
    dtype: str,
    summarize: Callable[[np.ndarray, np.ndarray | None], Any],
    feature_names: list | None = None,
    on_partition: Callable[[], Any] = lambda: None,
) -> Loaded:
    """Compute, cast, check and count every partition, where it is.

    summarize(y, weight) returns a mergeable summary of a part of y, or raises ValueError. on_partition is
    called after each partition. Raises PartitionError for a partition that holds NaN or infinity, differs in
    features, or whose rows do not match.
    """
    to_block = partial(_load_and_look, data[0].names, dtype, feature_names)
    loading = _Loading(tasks, data, to_block, summarize, on_partition)
    for first in range(0, len(data), tasks.at_once):
        loading.load(range(first, min(first + tasks.at_once, len(data))))
    infos = [loading.infos[number] for number in range(len(data))]
    _check_together(infos)
    shapes = tuple((info.n_rows, info.n_features) for info in infos)
    return Loaded(loading.parts(), to_block, infos, loading.in_order(), shapes)


class _Loading:
    """Partitions on their way into memory: what is there of each already, whatever faults have cost."""

    def __init__(self, tasks: Executor, data: Sequence[Part], to_block: Callable, summarize, on_partition):
        self._tasks, self._data, self._to_block = tasks, data, to_block
        self._summarize, self._on_partition = summarize, on_partition
        self._budget = _Budget(tasks, len(data))
        self.infos: dict[int, BlockInfo] = {}
        # None: memory does not hold all of them.
        self._blocks: dict[int, Any] | None = {}
        # By column, what is held of plain data; None for a Dask collection.
        self._sent: list[list[Any] | None] = []

    def load(self, numbers: Sequence[int]) -> None:
        """Load these partitions, and look at each."""
        # No place is given to blocks: they come to be where their data is.
        self._tasks.again(lambda: self._attempt(numbers))

    def parts(self) -> list[Part]:
        """Return where each partition comes from; what was sent from here is not sent again."""
        self._tasks.keep([held for column in self._sent for held in column or ()])
        return [self._part(number) for number in range(len(self._data))]

    def in_order(self) -> list[Any] | None:
        """Return the blocks that are held, None where they do not fit."""
        return None if self._blocks is None else [self._blocks[number] for number in range(len(self._data))]

    def _attempt(self, numbers: Sequence[int]) -> None:
        self._send()
        self._let_broken_go()
        unseen = [number for number in numbers if number not in self.infos]
        missing = unseen if self._blocks is None else [n for n in numbers if n not in self._blocks]
        held = {} if self._blocks is None else self._blocks
        graph = Graph()
        loads = {n: graph.add("dasknn-load", self._to_block, *self._part(n).add_to(graph)) for n in missing}
        looks = [
            graph.add("dasknn-inspect", partial(_inspect, self._summarize), loads.get(n, held.get(n)))
            for n in unseen
        ]
        wanted = [] if self._blocks is None else list(loads.values())
        started = self._start(graph, wanted + looks, missing)
        if self._blocks is not None:
            self._blocks.update(zip(missing, started, strict=False))
        infos = started[len(wanted) :]
        try:
            for position, info in self._tasks.fetch(infos):
                self._take(unseen[position], info)
        except Exception as error:
            if (failed := getattr(error, "held_position", None)) is not None:
                error.add_note(f"This happened while partition {unseen[failed]} was loaded.")
            raise
        finally:
            self._tasks.drop(infos)

    def _start(self, graph: Graph, wanted: list, missing: Sequence[int]) -> list[Any]:
        try:
            return self._tasks.start(graph, wanted)
        except Exception as error:
            if isinstance(self._tasks, LocalExecutor):
                parts = [self._part(number) for number in missing]
                failed = _first_that_fails(self._tasks, self._to_block, parts)
                if failed is not None:
                    error.add_note(f"This happened while partition {missing[failed]} was loaded.")
            raise

    def _take(self, number: int, info: BlockInfo) -> None:
        if info.problem:
            raise PartitionError(f"Partition {number}: {info.problem}")
        self.infos[number] = info
        self._budget.add(info.nbytes)
        self._on_partition()
        if self._blocks is not None and self._budget.is_exceeded():
            self._tasks.drop(list(self._blocks.values()))
            self._blocks = None

    def _let_broken_go(self) -> None:
        if not self._blocks:
            return
        broken = zip(list(self._blocks), self._tasks.broken(list(self._blocks.values())), strict=True)
        self._tasks.drop([self._blocks.pop(number) for number, is_broken in broken if is_broken])

    def _send(self) -> None:
        """Send what is not a Dask collection to the workers, spread over them, unless it is there."""
        homes = place(self._tasks.slots(), len(self._data))
        for at, values in enumerate(zip(*(part.sources for part in self._data), strict=True)):
            if at == len(self._sent):
                self._sent.append(None if is_dask_collection(values[0]) else self._tasks.put(values, homes))
            elif (held := self._sent[at]) is not None:
                for number, is_broken in enumerate(self._tasks.broken(held)):
                    if is_broken:
                        (held[number],) = self._tasks.put([values[number]], [homes[number]])

    def _part(self, number: int) -> Part:
        part = self._data[number]
        sources = (
            source if held is None else held[number]
            for source, held in zip(part.sources, self._sent, strict=True)
        )
        return Part(tuple(sources), part.names)


def _first_that_fails(tasks: LocalExecutor, to_block: Callable, batch: Sequence[Part]) -> int | None:
    """Return the position of the first part that cannot be loaded: Dask's local scheduler names no task."""
    for position, part in enumerate(batch):
        graph = Graph()
        try:
            tasks.start(graph, [graph.add("dasknn-load", to_block, *part.add_to(graph))])
        except Exception:
            return position
    return None


class _Budget:
    """How much of the workers' memory data may take, and whether so many partitions are too much."""

    # After so many partitions it is plain whether all of them are twice too much.
    _SAMPLE = 8

    def __init__(self, tasks: Executor, n_parts: int):
        self._tasks, self._n_parts = tasks, n_parts
        self._n_bytes = self._n_seen = 0
        self._limit = 0.0

    def add(self, n_bytes: int) -> None:
        """Count a partition."""
        self._n_bytes += n_bytes
        self._n_seen += 1
        if self._n_seen.bit_count() == 1:
            # Again and again: a worker may just have imported what takes much of its memory.
            self._limit = _MEMORY_SHARE * self._tasks.memory_limit()

    def is_exceeded(self) -> bool:
        """Return whether they do not fit, or all of them plainly will not."""
        in_all = self._n_bytes / self._n_seen * self._n_parts
        return self._n_bytes > self._limit or (self._n_seen >= self._SAMPLE and in_all > 2 * self._limit)


def load_block(names, dtype, feature_names: list | None, *values) -> Block:
    """Return the Block that the values of the sources of a Part make; X in that dtype.

    PartitionError: what is not of rows of numbers, y that is not of targets, rows in two orders.
    """
    columns = columns_of(names, values)
    given = [name for group in names for name in group]
    for name in given:
        if columns[name] is None:
            raise PartitionError(f"{_called(name)} is None: expected an array or dataframe of rows.")
    inputs.check_order({_called(name): columns[name] for name in given})
    y, weight = columns["y"], columns["weight"]
    return Block(
        cast(select(columns["X"], feature_names), dtype),
        None if y is None else _targets(y),
        None if weight is None else _weights(weight, dtype),
    )


def load_checked(number: int, names, dtype, feature_names: list | None, *values) -> Block:
    """Return the Block of a partition that is looked at once. PartitionError, which names it: bad data."""
    with in_partition(number):
        block = load_block(names, dtype, feature_names, *values)
        refuse_problems(block, feature_names)
    return block


@contextmanager
def in_partition(number: int) -> Iterator[None]:
    """Say which partition it was, if something is wrong with it."""
    try:
        yield
    except ValueError as error:
        told = str(error)
        raise PartitionError(
            told if told.startswith("Partition ") else f"Partition {number}: {told}"
        ) from error
    except Exception as error:
        error.add_note(f"This happened with partition {number}.")
        raise


def _targets(y) -> np.ndarray:
    # Dates may be labels. Who wants numbers refuses them.
    refuse_kinds("y", y, "cV")
    y = _to_array("y", y)
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise PartitionError(f"Expected y of shape (n,) or (n, k), received shape {y.shape}.")
    return y


def _weights(weight, dtype) -> np.ndarray:
    refuse_kinds("sample_weight", weight)
    weight = _one_column(_numbers("sample_weight", _to_array("sample_weight", weight), dtype))
    if weight.ndim != 1:
        raise PartitionError(f"Expected sample_weight of shape (n,), received shape {weight.shape}.")
    return weight


def _to_array(name: str, data) -> np.ndarray:
    try:
        return as_array(data)
    except ValueError:
        raise PartitionError(
            f"Expected {_called(name)} to have rows of one length; those of a {type(data).__name__} differ."
        ) from None


def _load_and_look(names, dtype, feature_names: list | None, *values) -> Block:
    """Return the Block that the values make, with its problem if it has one.

    It is found here, since a scheduler that computes a lost block again calls nothing else.
    """
    try:
        block = load_block(names, dtype, feature_names, *values)
    except PartitionError as error:
        return Block(np.empty((0, 0), dtype), None, None, str(error))
    return replace(block, problem=_problem(block, feature_names))


def _load_again(load: Callable, number: int, shape: tuple[int, int], *values) -> Block:
    """Return a block that was loaded before. PartitionError: it is not what it was."""
    block = load(*values)
    check_again(number, shape, block)
    return block


def check_again(number: int, shape: tuple[int, int], block: Block) -> None:
    """Raise PartitionError for a block that may have been computed again, and is not what it was.

    shape: of X, when it was first read.
    """
    if block.problem:
        raise PartitionError(f"Partition {number}: {block.problem}")
    for what, before, now in zip(("rows", "features"), shape, block.X.shape, strict=True):
        if now != before:
            raise PartitionError(
                f"Partition {number} had {before} {what} when it was first read, and has {now} now. Training "
                "goes over the data many times: its source must give the same rows each time; persist it "
                "or write it to Parquet once."
            )


def _one_column(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def select(X, feature_names: list | None):
    """Return the columns of a dataframe in this order. PartitionError: one of them is missing.

    A Dask dataframe may announce its columns in another order than its partitions have them: X - X.mean()
    does.
    """
    if feature_names is None or not is_dataframe(X) or list(X.columns) == feature_names:
        return X
    missing = [name for name in feature_names if name not in X.columns]
    if missing or len(X.columns) != len(feature_names):
        raise PartitionError(
            f"Expected the columns {feature_names} that the dataframe announces, received {list(X.columns)}."
        )
    return X[feature_names]


def cast(X, dtype):
    """Return X (n, p) as a C-ordered array or CSR matrix of that dtype; not copied where it is one.

    PartitionError: X of another shape, or of anything but numbers.
    """
    if not hasattr(X, "dtype") and not is_dataframe(X):
        X = _to_array("X", X)
    if X.ndim != 2:
        raise PartitionError(
            f"Expected X of shape (n, p), received shape {X.shape}. Reshape it with X.reshape(-1, 1) if it "
            "has a single feature."
        )
    refuse_kinds("X", X)
    return _numbers("X", X, dtype)


def _numbers(name: str, data, dtype):
    """Return data as numbers of that dtype. PartitionError: it holds something else."""
    if sparse.issparse(data):
        return data.tocsr().astype(dtype, copy=False)
    try:
        if hasattr(data, "to_numpy"):
            # Missing values of every kind become NaN, which is looked for afterwards.
            data = data.to_numpy(dtype=dtype, na_value=np.nan)
        return np.ascontiguousarray(data, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise PartitionError(
            f"Expected numbers in {name}, received {_strange(data)}. Encode what is none, or drop it."
        ) from error


def _strange(data) -> str:
    """Say what of data is not of numbers."""
    if is_dataframe(data):
        return "columns " + ", ".join(f"{name!r} ({kind})" for name, kind in columns_of_text(data).items())
    for value in np.asarray(data).reshape(-1):
        try:
            # None is a missing number.
            float(0 if value is None else value)
        except (TypeError, ValueError):
            return f"{value!r:.80} (dtype {data.dtype})"
    return f"dtype {data.dtype}"


def columns_of_text(X) -> dict[str, str]:
    """Return the columns of a dataframe that hold anything but numbers, with their dtypes."""
    strange = {}
    for position, (name, kind) in enumerate(X.dtypes.items()):
        if getattr(kind, "kind", "O") in "biuf" or is_decimal(kind):
            continue
        # Of objects on a cluster nobody knows here what they are.
        if is_dask_collection(X) or not has_decimals(X.iloc[:, position]):
            strange[str(name)] = str(kind)
    return strange


def refuse_kinds(name: str, data, kinds: str = _NO_NUMBERS) -> None:
    """Raise PartitionError for data of these kinds of dtypes, and for values behind a mask.

    Data without a dtype is passed over.
    """
    dtypes = dict(data.dtypes) if is_dataframe(data) else {None: getattr(data, "dtype", None)}
    for column, dtype in dtypes.items():
        if getattr(dtype, "kind", "O") in kinds:
            where = "" if column is None else f", column {column!r}"
            raise PartitionError(
                f"Expected numbers in {name}{where}, received dtype {dtype}. Use real numbers: of dates "
                "the days since the first one, of complex numbers their parts as columns."
            )
    if isinstance(data, np.ma.MaskedArray) and (mask := np.ma.getmaskarray(data)).any():
        row = int(np.argwhere(mask)[0][0]) if data.ndim else 0
        raise PartitionError(f"{name} holds a masked value in row {row}. {_REMEDY}")


def _inspect(summarize, block: Block) -> BlockInfo:
    n_rows, n_features = block.X.shape
    info = partial(BlockInfo, n_rows, n_features, _nbytes(block))
    if block.problem:
        return info(0.0, problem=block.problem)
    try:
        targets = None if block.y is None else summarize(block.y, block.weight)
    except ValueError as error:
        return info(0.0, problem=str(error))
    return info(float(n_rows if block.weight is None else block.weight.sum()), targets)


def refuse_problems(block: Block, feature_names: list | None = None) -> None:
    """Raise PartitionError for a block that holds NaN or infinity, or whose rows do not match."""
    if problem := _problem(block, feature_names):
        raise PartitionError(problem)


def _problem(block: Block, feature_names) -> str | None:
    X, weight = block.X, block.weight
    columns = [("y", block.y), ("sample_weight", weight)]
    for name, column in columns:
        if column is not None and len(column) != X.shape[0]:
            return f"X has {X.shape[0]} rows, {name} has {len(column)}."
    values = X.data if sparse.issparse(X) else X
    # The sum is finite if all values are, up to overflow, and takes no memory.
    if not np.isfinite(values.sum(dtype=np.float64)) and not np.isfinite(values).all():
        return _first_bad(X, feature_names)
    for name, column in columns:
        if column is not None and (row := first_missing(column)) is not None:
            remedy = "Drop rows without a target." if name == "y" else _REMEDY
            return f"{name} holds {column[row]} in row {row}. {remedy}"
    if weight is not None and len(weight) and weight.min() < 0:
        row = int(weight.argmin())
        return f"sample_weight holds {weight[row]} in row {row}; expected >= 0."
    return None


_REMEDY = "Expected finite numbers: drop such rows, or fill them (dask.dataframe's fillna, or an imputer)."


def _first_bad(X, feature_names) -> str:
    if sparse.issparse(X):
        X = X.tocoo()
        at = int(np.isfinite(X.data).argmin())
        row, column, value = X.row[at], X.col[at], X.data[at]
    else:
        row, column = np.unravel_index(np.isfinite(X).argmin(), X.shape)
        value = X[row, column]
    name = f"column {column}" if feature_names is None else f"column {feature_names[column]!r}"
    if not sparse.issparse(X) and X.shape[0] > 1 and not np.isfinite(X[:, column]).any():
        name += (
            ", and in all other rows of the partition (was a constant column divided by its deviation, 0?)"
        )
    return f"X holds {value} in row {row}, {name}. {_REMEDY}"


def _nbytes(block: Block) -> int:
    X = block.X
    arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
    arrays += [array for array in (block.y, block.weight) if array is not None]
    return sum(array.nbytes for array in arrays)


def _check_together(infos: list[BlockInfo]) -> None:
    if sum(info.n_rows for info in infos) == 0:
        raise ValueError(
            f"Expected at least one row to learn from, found 0 samples in {len(infos)} partitions."
        )
    widths = [(i, info.n_features) for i, info in enumerate(infos) if info.n_rows]
    at_first, first = widths[0]
    for i, width in widths:
        if width != first:
            raise PartitionError(
                f"Partition {at_first} of X has {first} features, partition {i} has {width}."
            )
    if sum(info.weight_sum for info in infos) == 0:
        raise ValueError("Sample weights must contain at least one non-zero number.")


# --- deal --------------------------------------------------------------------------------------------


def deal(rows: Sequence[int], replicas: int) -> list[list[Slice]]:
    """Deal blocks with these numbers of rows out to replicas: slices, in order, evenly by rows.

    Replica r takes blocks r, r + replicas, r + 2 replicas, ..., so that sorted data is mixed; a block at
    a border between two replicas is cut. Empty blocks vanish.
    """
    order = [i for first in range(replicas) for i in range(first, len(rows), replicas) if rows[i]]
    starts = np.cumsum([0, *(rows[block] for block in order)])
    total = int(starts[-1])
    cuts = [0]
    for replica in range(1, replicas):
        cut = total * replica // replicas
        nearest = int(starts[np.abs(starts - cut).argmin()])
        cuts.append(nearest if abs(nearest - cut) <= _SNAP * total / replicas else cut)
    cuts.append(total)

    dealt: list[list[Slice]] = []
    for first, last in pairwise(cuts):
        overlapping = range(
            int(np.searchsorted(starts, first, side="right")) - 1, int(np.searchsorted(starts, last))
        )
        dealt.append(
            [
                Slice(
                    order[i], max(first - int(starts[i]), 0), min(last, int(starts[i + 1])) - int(starts[i])
                )
                for i in overlapping
            ]
        )
    return dealt


def _shards_of(slices: list[Slice], bytes_per_row: float) -> list[list[Slice]]:
    """Put slices that follow one another together while they are small."""
    shards: list[list[Slice]] = []
    n_rows = 0
    for piece in slices:
        if shards and (n_rows + piece.n_rows) * bytes_per_row <= _SHARD_BYTES:
            shards[-1].append(piece)
            n_rows += piece.n_rows
        else:
            shards.append([piece])
            n_rows = piece.n_rows
    return shards


# --- shards ------------------------------------------------------------------------------------------


@dataclass
class Shards:
    """The data of a training, dealt out to replicas; numbers of shards count over all replicas.

    streamed: shards are computed again in each epoch, since memory does not hold all of them.
    """

    tasks: Executor
    loaded: Loaded
    make_shard: Callable
    streamed: bool
    slices: list[list[Slice]] = field(default_factory=list)
    replicas: list[list[int]] = field(default_factory=list)
    _in_memory: dict[int, Any] = field(default_factory=dict)
    _placed: dict[int, Any] = field(default_factory=dict)

    def rows_of_replicas(self) -> list[dict[int, int]]:
        """Return, for each replica, the number of rows of each of its shards."""
        return [
            {shard: sum(piece.n_rows for piece in self.slices[shard]) for shard in shards}
            for shards in self.replicas
        ]

    def spread(self) -> None:
        """Make all shards, each at the home of its replica, and let the blocks go."""
        self._hold(
            set(), {shard for own in self.replicas for shard in own}, self.tasks.homes(len(self.replicas))
        )
        # From here on the blocks live only as long as the tasks above need them.
        self.tasks.drop(self.loaded.blocks or [])
        self.loaded.blocks = None

    def add_to(self, graph: Graph, shard: int, home) -> Any:
        """Add to a graph what makes a shard; return a reference to it."""
        pieces = self.slices[shard]
        blocks = [self.loaded.add_block(graph, piece.block, home) for piece in pieces]
        # Whole blocks of what is split have been checked already.
        shapes = [
            (self.loaded.infos[piece.block].n_rows, self.loaded.infos[piece.block].n_features)
            for piece in pieces
        ]
        make = partial(_make_shard, self.make_shard, pieces, shapes)
        return graph.add("dasknn-shard", make, *blocks, home=home)

    def hold_for(self, wave, homes) -> dict[int, Any]:
        """Return what is in memory of the shards of a wave of rounds.

        When streamed, those are the shards that the next wave goes on with; others are let go.
        """
        if not self.streamed:
            return self._in_memory
        rows = {shard: n for replica in self.rows_of_replicas() for shard, n in replica.items()}
        last = {
            piece.shard: piece
            for pieces_of_replicas in wave
            for pieces in pieces_of_replicas
            for piece in pieces
        }
        unfinished = {shard for shard, piece in last.items() if piece.end < rows[shard]}
        return self._hold(set(last), unfinished, homes)

    def hold(self, wanted: set[int], homes) -> dict[int, Any]:
        """Return these shards, held in memory; when streamed, all others are let go."""
        if self.streamed:
            self._hold(wanted, wanted, homes)
        with self.named():
            self.tasks.wait_for([self._in_memory[shard] for shard in wanted])
        return self._in_memory

    def repair(self) -> None:
        """Make anew what was lost for good, and what only workers could bring that do not answer."""
        found = self.tasks.broken(list(self._in_memory.values()))
        broken = {shard for shard, is_broken in zip(self._in_memory, found, strict=True) if is_broken}
        if broken:
            self._hold(set(self._in_memory) - broken, broken, self.tasks.homes(len(self.replicas)))

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say which partition it was, if computing one of them raises an exception."""
        try:
            yield
        except Exception as error:
            cause = getattr(error, "cause", None)
            if (number := self.loaded.part_with(cause)) is not None:
                error.add_note(f"This happened while partition {number} was read again.")
            raise

    def _hold(self, kept: set[int], wanted: set[int], homes) -> dict[int, Any]:
        """Let go of all but the kept, and make the wanted; return what is in memory then."""
        self.tasks.drop([held for shard, held in self._in_memory.items() if shard not in kept])
        self._in_memory = {shard: held for shard, held in self._in_memory.items() if shard in kept}
        missing = sorted(wanted - set(self._in_memory))
        if missing:
            graph = Graph()
            replica_of = {shard: replica for replica, own in enumerate(self.replicas) for shard in own}
            self._placed.update({shard: homes[replica_of[shard]] for shard in missing})
            keys = [self.add_to(graph, shard, self._placed[shard]) for shard in missing]
            self._in_memory.update(zip(missing, self.tasks.start(graph, keys), strict=True))
        return self._in_memory


def _make_shard(make, pieces: list[Slice], shapes: list[tuple[int, int]], *blocks: Block):
    columns: list[list] = [[], [], []]
    for piece, shape, block in zip(pieces, shapes, blocks, strict=True):
        check_again(piece.block, shape, block)
        for column, data in zip(columns, (block.X, block.y, block.weight), strict=True):
            if data is not None:
                column.append(_copy_of_rows(data, piece.begin, piece.end))
    try:
        return make(*(concatenate(column) for column in columns))
    except ValueError:
        _raise_for_piece(make, pieces, blocks)
        raise


def _raise_for_piece(make, pieces: list[Slice], blocks: Sequence[Block]) -> None:
    """Raise PartitionError for the first piece that cannot be made alone."""
    for piece, block in zip(pieces, blocks, strict=True):
        columns = (block.X, block.y, block.weight)
        try:
            make(*(None if data is None else data[piece.begin : piece.end] for data in columns))
        except ValueError as error:
            raise PartitionError(f"Partition {piece.block}: {error}") from None


def _copy_of_rows(data, begin: int, end: int):
    if begin == 0 and end == data.shape[0]:
        return data
    # A view would keep the whole block in memory.
    return data[begin:end].copy()


def concatenate(arrays: list):
    """Return the rows of dense or sparse arrays together; of none, None."""
    if len(arrays) < 2:
        return arrays[0] if arrays else None
    if sparse.issparse(arrays[0]):
        return sparse.vstack(arrays, format="csr")
    return np.concatenate(arrays)


def shards(tasks: Executor, loaded: Loaded, replicas: int, make_shard: Callable) -> Shards:
    """Deal loaded data out to replicas and put it in place.

    make_shard(X, y, weight) encodes. ValueError: fewer rows than replicas.
    """
    if loaded.n_rows < replicas:
        raise ValueError(
            f"Expected at least one row for each of {replicas} replicas, received {loaded.n_rows}. "
            "Use fewer replicas."
        )
    result = Shards(tasks, loaded, make_shard, streamed=loaded.blocks is None)
    rows = [info.n_rows for info in loaded.infos]
    bytes_per_row = sum(info.nbytes for info in loaded.infos) / loaded.n_rows
    for slices in deal(rows, replicas):
        made = _shards_of(slices, bytes_per_row)
        first = len(result.slices)
        result.slices += made
        result.replicas.append(list(range(first, first + len(made))))
    if not result.streamed:
        result.spread()
    return result
