"""Loading: partitions become blocks on the workers, and the client gets the size and targets of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from dask.base import is_dask_collection
from numpy.typing import DTypeLike

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph, graph_of
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.placement import place
from dasknn.data.blocks import (
    Block,
    BlockInfo,
    in_partition,
    inspect,
    load_block,
    refuse,
)
from dasknn.data.partitions import Part
from dasknn.exceptions import PartitionError
from dasknn.seeds import Stream, generator

# Share of the workers' memory that the data may take; Dask spills from 0.6.
_MEMORY_SHARE = 0.5


class NoWeightError(ValueError):
    """No row has a weight above 0."""


@dataclass(frozen=True)
class Split:
    """Rows of each block that are held out, and the side of the split: the held-out rows or the others.

    seed: rows are chosen at random; None: the last rows.
    """

    seed: int | None
    n_held_out: tuple[int, ...]
    held_out: bool

    def take(self, number: int, shape: tuple[int, int]) -> Callable[[Block], Block]:
        """Return a function that takes the rows of this side from block `number`, whose X has this shape."""
        # It is sent with each task, so it holds nothing about other blocks.
        return partial(_take_side, self.seed, number, self.n_held_out[number], self.held_out, shape)


def _take_side(
    seed: int | None, number: int, n_held_out: int, held_out: bool, shape: tuple[int, int], block: Block
) -> Block:
    """Return a block with the rows of one side, in order. PartitionError: the block has changed."""
    block.check(number, shape)
    n_rows = block.X.shape[0]
    if seed is None:
        order = np.arange(n_rows)[::-1]
    else:
        order = generator(seed, Stream.HELD_OUT, number).permutation(n_rows)
    rows = np.sort(order[:n_held_out] if held_out else order[n_held_out:])
    columns = (block.X, block.y, block.weight)
    return Block(*(None if column is None else column[rows] for column in columns))


@dataclass
class Loaded:
    """Infos of all blocks, and the blocks themselves if they fit in memory.

    shapes: of X in each block before any split. numbers: of the partitions that blocks are from. split: is
    still to be applied to the blocks. taken: was applied to them.
    """

    parts: list[Part]
    load_block: Callable
    infos: list[BlockInfo]
    blocks: list[Any] | None
    shapes: tuple[tuple[int, int], ...]
    numbers: Sequence[int]
    split: Split | None = None
    taken: Split | None = None

    def repair(self, tasks: Executor) -> None:
        """Load the held blocks again that cannot be recovered."""
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
        """Return a reference to a block, which is held, or is loaded and checked again."""
        if self.blocks is not None:
            block = self.blocks[number]
        else:
            sources = self.parts[number].add_to(graph)
            load_again = partial(_load_again, self.load_block, self.numbers[number], self.shapes[number])
            block = graph.add("dasknn-load", load_again, *sources, home=home)
        if self.split is None:
            return block
        return graph.add("dasknn-split", self.split.take(number, self.shapes[number]), block, home=home)

    def release(self, tasks: Executor) -> None:
        """Hold the blocks no more; from now on, each use of a block loads it again."""
        tasks.drop(self.blocks or [])
        self.blocks = None
        if self.taken is not None:
            self.split, self.taken = self.taken, None

    def hold_out(self, tasks: Executor, fraction: float, seed: int) -> tuple[Loaded, Loaded]:
        """Return (rows to train on, held-out rows), each block in proportion to its number of rows.

        Rows stay where they are. The total is rounded up, as in scikit-learn.
        """
        rows = np.cumsum([0, *(info.n_rows for info in self.infos)])
        # Exact in total, and within one row for each block.
        edges = rows * math.ceil(rows[-1] * fraction) // max(int(rows[-1]), 1)
        return self._split(tasks, seed, tuple(int(n) for n in np.diff(edges)))

    def hold_out_last(self, tasks: Executor, n_held_out: int) -> tuple[Loaded, Loaded]:
        """Return (rows to train on, the last n_held_out rows); rows stay where they are."""
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

    def part(self, numbers: Sequence[int]) -> Loaded:
        """Return the blocks with these numbers, before any split, as data of its own."""
        assert self.split is None, "only whole blocks can be chosen"
        blocks = None if self.blocks is None else [self.blocks[number] for number in numbers]
        parts = [self.parts[number] for number in numbers]
        infos = [self.infos[number] for number in numbers]
        shapes = tuple(self.shapes[number] for number in numbers)
        own = [self.numbers[number] for number in numbers]
        return replace(self, parts=parts, infos=infos, blocks=blocks, shapes=shapes, numbers=own)

    def explain(self, error: BaseException) -> bool:
        """Add a note to an exception of a task that reads a partition again; return whether it is of one."""
        if (key := getattr(error, "cause", None)) is None:
            return False
        for number, part in zip(self.numbers, self.parts, strict=True):
            for source in filter(is_dask_collection, part.sources):
                if key == source.key or key in graph_of(source):
                    error.add_note(f"This happened while partition {number} was read again.")
                    return True
        return False

    def add_blocks(self, graph: Graph) -> list[Any]:
        """Return references to all blocks."""
        return [self.add_block(graph, number) for number in range(len(self.parts))]

    @property
    def n_rows(self) -> int:
        """Number of rows of all blocks."""
        return sum(info.n_rows for info in self.infos)

    @property
    def targets(self) -> Any:
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
    """Compute, cast, check and summarize every partition, where it is.

    summarize(y, weight) returns a mergeable summary of a part of y, or raises ValueError. on_partition is
    called after each partition. PartitionError: a partition with a problem, or with another number of
    features than the others.
    """
    to_block = partial(load_block, data[0].names, dtype, feature_names)
    loading = _Loading(tasks, data, to_block, summarize, on_partition)
    for first in range(0, len(data), tasks.at_once):
        loading.load(range(first, min(first + tasks.at_once, len(data))))
    infos = [loading.infos[number] for number in range(len(data))]
    _check_together(infos)
    shapes = tuple((info.n_rows, info.n_features) for info in infos)
    return Loaded(loading.parts(), to_block, infos, loading.in_order(), shapes, range(len(data)))


class _Loading:
    """Loads partitions a few at a time; after a fault, only those that are missing are loaded again."""

    def __init__(
        self,
        tasks: Executor,
        data: Sequence[Part],
        to_block: Callable,
        summarize: Callable,
        on_partition: Callable,
    ):
        self._tasks, self._data, self._to_block = tasks, data, to_block
        self._summarize, self._on_partition = summarize, on_partition
        self._budget = _Budget(tasks, len(data))
        self.infos: dict[int, BlockInfo] = {}
        # None: not all of them fit in memory.
        self._blocks: dict[int, Any] | None = {}
        # By column, references to plain data on the workers; None for a Dask collection.
        self._sent: list[list[Any] | None] = []

    def load(self, numbers: Sequence[int]) -> None:
        """Load and inspect these partitions."""
        # Blocks have no home yet: each is made where its data is.
        self._tasks.again(lambda: self._attempt(numbers))

    def parts(self) -> list[Part]:
        """Return the parts, with references to data that was sent to the workers."""
        self._tasks.keep([held for column in self._sent for held in column or ()])
        return [self._part(number) for number in range(len(self._data))]

    def in_order(self) -> list[Any] | None:
        """Return the blocks, None if they do not fit in memory."""
        return None if self._blocks is None else [self._blocks[number] for number in range(len(self._data))]

    def _attempt(self, numbers: Sequence[int]) -> None:
        self._send()
        self._drop_broken()
        unseen = [number for number in numbers if number not in self.infos]
        missing = unseen if self._blocks is None else [n for n in numbers if n not in self._blocks]
        held = {} if self._blocks is None else self._blocks
        graph = Graph()
        loads = {n: graph.add("dasknn-load", self._to_block, *self._part(n).add_to(graph)) for n in missing}
        looks = [
            graph.add("dasknn-inspect", partial(inspect, self._summarize), loads.get(n, held.get(n)))
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
        refuse(info.problem, number)
        self.infos[number] = info
        self._budget.add(info.nbytes)
        self._on_partition()
        if self._blocks is not None and self._budget.is_exceeded():
            self._tasks.drop(list(self._blocks.values()))
            self._blocks = None

    def _drop_broken(self) -> None:
        """Forget blocks that cannot be recovered."""
        if not self._blocks:
            return
        broken = zip(list(self._blocks), self._tasks.broken(list(self._blocks.values())), strict=True)
        self._tasks.drop([self._blocks.pop(number) for number, is_broken in broken if is_broken])

    def _send(self) -> None:
        """Send plain data to the workers, spread over them, unless it is there already."""
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
    """Return the position of the first part that cannot be loaded; the local scheduler does not name it."""
    for position, part in enumerate(batch):
        graph = Graph()
        try:
            tasks.start(graph, [graph.add("dasknn-load", to_block, *part.add_to(graph))])
        except Exception:
            return position
    return None


class _Budget:
    """Memory that data may take on the workers, and whether all partitions fit."""

    # After this many partitions, an estimate of twice the limit is believed.
    _SAMPLE = 8

    def __init__(self, tasks: Executor, n_parts: int):
        self._tasks, self._n_parts = tasks, n_parts
        self._n_bytes = self._n_seen = 0
        self._limit = 0.0

    def add(self, n_bytes: int) -> None:
        """Add a partition."""
        self._n_bytes += n_bytes
        self._n_seen += 1
        if self._n_seen.bit_count() == 1:
            # Asked again now and then: a worker may import modules that take much of its memory.
            self._limit = _MEMORY_SHARE * self._tasks.memory_limit()

    def is_exceeded(self) -> bool:
        """Return whether the partitions do not fit, or all of them will clearly not."""
        in_all = self._n_bytes / self._n_seen * self._n_parts
        return self._n_bytes > self._limit or (self._n_seen >= self._SAMPLE and in_all > 2 * self._limit)


def load_checked(
    number: int,
    names: tuple[tuple[str, ...], ...],
    dtype: DTypeLike,
    feature_names: list | None,
    *values: Any,
) -> Block:
    """Return the Block of a partition that is read once. PartitionError: it has a problem."""
    with in_partition(number):
        block = load_block(names, dtype, feature_names, *values)
        block.check()
    return block


def _load_again(load: Callable, number: int, shape: tuple[int, int], *values: Any) -> Block:
    """Return a block that was loaded before. PartitionError: it has changed."""
    block = load(*values)
    block.check(number, shape)
    return block


def _check_together(infos: list[BlockInfo]) -> None:
    """Check that blocks without a problem go together. ValueError: no rows, no weight, or other widths."""
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
        raise NoWeightError("Sample weights must contain at least one non-zero number.")
