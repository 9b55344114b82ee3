"""Loading: partitions become blocks on the workers, and the client gets the size and targets of each.

Few partitions are loaded one by one. Of many, the first few show how large they are; the others are loaded in
bundles (`data/bundles.py`), each by one task.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from dask.base import is_dask_collection
from numpy.typing import DTypeLike

from dasknn.cluster.executor import Executor
from dasknn.cluster.fusing import Recipe, Sources
from dasknn.cluster.graph import Graph, graph_of
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.placement import Home, place
from dasknn.data import bundles
from dasknn.data.blocks import (
    Block,
    BlockInfo,
    in_partition,
    inspect,
    load_block,
    refuse,
)
from dasknn.data.bundles import Bundle, Group, Spot, Together, groups_of
from dasknn.data.partitions import Part, are_kept
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
    return block.map(lambda column: column[rows])


def _take_sides(takes: list[tuple[int, Callable[[Block], Block]]], blocks: Sequence[Block]) -> list[Block]:
    return [take(blocks[at]) for at, take in takes]


def _drop(tasks: Executor, held: Iterable[Bundle]) -> None:
    """Release bundles that nobody else uses."""
    unused = []
    for bundle in held:
        bundle.n_users -= 1
        if bundle.n_users == 0:
            unused.append(bundle.held)
    tasks.drop(unused)


@dataclass
class Loaded:
    """Infos of all blocks, and the blocks themselves if they fit in memory.

    shapes: of X in each block before any split. numbers: of the partitions that blocks are from. recipes: to
    load partitions in bundles; none if each is loaded by itself. split: is still to be applied to the blocks.
    taken: was applied to them.
    """

    parts: list[Part]
    load_block: Callable
    infos: list[BlockInfo]
    blocks: list[Spot] | None
    shapes: tuple[tuple[int, int], ...]
    numbers: Sequence[int]
    recipes: Sequence[Recipe | None] = ()
    split: Split | None = None
    taken: Split | None = None

    def repair(self, tasks: Executor) -> None:
        """Load the held blocks again that cannot be recovered."""
        held = self._bundles
        broken = {own for own, lost in zip(held, tasks.broken([b.held for b in held]), strict=True) if lost}
        if not self.blocks or not broken:
            return
        lost = [number for number, spot in enumerate(self.blocks) if spot.bundle in broken]
        graph, source = Graph(), replace(self, blocks=None, split=self.taken)
        groups = source.add_blocks(graph, lost)
        _drop(tasks, broken)
        started = tasks.start(graph, [group.reference for group in groups])
        for number, spot in bundles.spots_of(groups, started).items():
            self.blocks[number] = spot

    def add_blocks(
        self, graph: Graph, numbers: Sequence[int] | None = None, home: Home = None
    ) -> list[Group]:
        """Return references to blocks (None: to all), which are held, or are loaded and checked again."""
        numbers = range(len(self.parts)) if numbers is None else numbers
        if self.blocks is None:
            return self._add_loads(graph, numbers, home)
        groups = groups_of(self.blocks, numbers)
        return groups if self.split is None else [self._add_split(graph, group, home) for group in groups]

    def _add_split(self, graph: Graph, group: Group, home: Home) -> Group:
        assert self.split is not None
        takes = [(at, self.split.take(number, self.shapes[number])) for number, at in group.at.items()]
        taken = graph.add("dasknn-split", partial(_take_sides, takes), group.reference, home=home)
        return Group.of(taken, group.at)

    def _add_loads(self, graph: Graph, numbers: Sequence[int], home: Home) -> list[Group]:
        recipes = {number: recipe for number in numbers if (recipe := self._recipe(number)) is not None}
        groups = []
        for run in bundles.by_bytes(list(recipes), [info.nbytes for info in self.infos]):
            calls = [
                (self._load_again(n), f"This happened while partition {self.numbers[n]} was read again.")
                for n in run
            ]
            made = graph.add_recipes("dasknn-load", calls, [recipes[n] for n in run], home)
            groups.append(Group.of(made, run))
        for number in numbers:
            if number not in recipes:
                load = partial(_one, self._load_again(number))
                made = graph.add("dasknn-load", load, *self.parts[number].add_to(graph), home=home)
                groups.append(Group.of(made, [number]))
        return groups

    def _recipe(self, number: int) -> Recipe | None:
        return self.recipes[number] if self.recipes else None

    def _load_again(self, number: int) -> Callable[..., Block]:
        shape = self.shapes[number]
        take = None if self.split is None else self.split.take(number, shape)
        return partial(_load_again, self.load_block, self.numbers[number], shape, take)

    @property
    def _bundles(self) -> list[Bundle]:
        return list(dict.fromkeys(spot.bundle for spot in self.blocks or ()))

    def release(self, tasks: Executor) -> None:
        """Hold the blocks no more; from now on, each use of a block loads it again."""
        _drop(tasks, self._bundles)
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
            groups = held_out.add_blocks(graph)
            started = tasks.start(graph, [group.reference for group in groups])
            spots = bundles.spots_of(groups, started)
            held_out.blocks = [spots[number] for number in range(len(self.parts))]
            held_out.split, held_out.taken = None, held_out.split
        return left, held_out

    def divided(self, numbers_of_parts: Sequence[Sequence[int]]) -> list[Loaded]:
        """Return blocks with these numbers, before any split, as data of their own; use this data no more."""
        found = [self._part(numbers) for numbers in numbers_of_parts]
        users = Counter(bundle for part in found for bundle in part._bundles)
        for bundle, n_users in users.items():
            bundle.n_users = n_users
        return found

    def _part(self, numbers: Sequence[int]) -> Loaded:
        assert self.split is None, "only whole blocks can be chosen"
        return replace(
            self,
            parts=[self.parts[number] for number in numbers],
            infos=[self.infos[number] for number in numbers],
            blocks=None if self.blocks is None else [self.blocks[number] for number in numbers],
            shapes=tuple(self.shapes[number] for number in numbers),
            numbers=[self.numbers[number] for number in numbers],
            recipes=[self.recipes[number] for number in numbers] if self.recipes else (),
        )

    def explain(self, error: BaseException) -> bool:
        """Add a note to an exception of a task that reads a partition again; return whether it is of one."""
        if (key := getattr(error, "cause", None)) is None:
            return False
        at = _partition_of(key, self.parts)
        if at is not None:
            error.add_note(f"This happened while partition {self.numbers[at]} was read again.")
        return at is not None

    @property
    def n_rows(self) -> int:
        """Number of rows of all blocks."""
        return sum(info.n_rows for info in self.infos)

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return next(info.n_features for info in self.infos if info.n_rows)

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
    replicas: int = 1,
) -> Loaded:
    """Compute, cast, check and summarize every partition, where it is.

    summarize(y, weight) returns a mergeable summary of a part of y, or raises ValueError. on_partition is
    called after each partition. replicas: how many will probably share the rows. PartitionError: a partition
    with a problem, or with another number of features than the others.
    """
    to_block = partial(load_block, data[0].names, dtype, feature_names, stays=are_kept(data))
    loading = _Loading(tasks, data, to_block, summarize, on_partition, replicas)
    for numbers in bundles.portions(tasks, len(data)):
        loading.load(numbers)
    infos = [loading.infos[number] for number in range(len(data))]
    _check_together(infos)
    shapes = tuple((info.n_rows, info.n_features) for info in infos)
    numbers = range(len(data))
    return Loaded(loading.parts(), to_block, infos, loading.in_order(), shapes, numbers, loading.recipes)


class _Loading:
    """Loads partitions a few at a time; after a fault, only those that are missing are loaded again."""

    def __init__(
        self,
        tasks: Executor,
        data: Sequence[Part],
        to_block: Callable,
        summarize: Callable,
        on_partition: Callable,
        replicas: int,
    ):
        self._tasks, self._data, self._to_block = tasks, data, to_block
        self._summarize, self._on_partition = summarize, on_partition
        self._replicas = replicas
        self._budget = _Budget(tasks, len(data))
        self.infos: dict[int, BlockInfo] = {}
        self.recipes: Sequence[Recipe | None] = ()
        # None: not all of them fit in memory.
        self._blocks: dict[int, Spot] | None = {}
        # By column, references to plain data on the workers; None for a Dask collection.
        self._sent: list[list[Any] | None] = []

    def load(self, numbers: Sequence[int]) -> None:
        """Load and inspect these partitions."""
        self._tasks.again(lambda: self._attempt(numbers))

    def parts(self) -> list[Part]:
        """Return the parts, with references to data that was sent to the workers."""
        self._tasks.keep([held for column in self._sent for held in column or ()])
        return [self._part(number) for number in range(len(self._data))]

    def in_order(self) -> list[Spot] | None:
        """Return the blocks, None if they do not fit in memory."""
        return None if self._blocks is None else [self._blocks[number] for number in range(len(self._data))]

    def _attempt(self, numbers: Sequence[int]) -> None:
        self._send()
        self._drop_broken()
        unseen = [number for number in numbers if number not in self.infos]
        missing = unseen if self._blocks is None else [n for n in numbers if n not in self._blocks]
        graph = Graph()
        made, looks = [], []
        for those in self._cut(missing):
            group, look = self._add(graph, those)
            made.append(group)
            looks.append(look)
        if self._blocks is not None:
            # A fault may have taken what was seen of blocks that are held.
            unseen = [number for number in unseen if number in self._blocks]
            looks += [self._add_look(graph, group) for group in groups_of(self._blocks, unseen)]
        looks = [look for look in looks if look.at]
        wanted = [] if self._blocks is None else [group.reference for group in made]
        started = self._start(graph, wanted + [look.reference for look in looks], missing)
        if self._blocks is not None:
            self._blocks.update(bundles.spots_of(made, started[: len(wanted)]))
        self._fetch(started[len(wanted) :], looks)

    def _cut(self, numbers: Sequence[int]) -> list[Together]:
        """Return which partitions are loaded together."""
        if not self.infos or not bundles.are_bundled(self._tasks, len(self._data)):
            return [Together((number,), None) for number in numbers]
        sources = Sources([self._part(number).sources for number in range(len(self._data))])
        known = self._tasks.known(sources.keys)
        self.recipes = sources.recipes(known)
        slots, nbytes = self._tasks.slots(), max(info.nbytes for info in self.infos.values())
        # A replica on each thread: data is made where it will stay. Else it is made wherever there is time.
        homes = self._tasks.homes(self._replicas) if self._replicas == len(slots) else [None] * self._replicas
        return bundles.cut(numbers, self.recipes, known, len(slots), nbytes, homes)

    def _add(self, graph: Graph, those: Together) -> tuple[Group, Group]:
        """Add the tasks that load partitions, and that look at those which have not been seen."""
        numbers = those.numbers
        recipes = [recipe for n in numbers if self.recipes and (recipe := self.recipes[n]) is not None]
        if not recipes:
            (number,) = numbers
            sources = self._part(number).add_to(graph)
            # Blocks have no home yet: each is made where its data is.
            made = graph.add("dasknn-load", partial(_one, self._to_block), *sources)
        elif self._blocks is not None:
            calls = [(self._to_block, _while_loaded(number)) for number in numbers]
            made = graph.add_recipes("dasknn-load", calls, recipes, those.home)
        else:
            # What does not stay is looked at by the same task, which has one block at a time.
            look = partial(_load_and_inspect, self._to_block, self._summarize)
            calls = [(look, _while_loaded(number)) for number in numbers]
            seen = Group.of(graph.add_recipes("dasknn-inspect", calls, recipes, those.home), numbers)
            return seen, seen
        group = Group.of(made, numbers)
        unseen = {number: at for number, at in group.at.items() if number not in self.infos}
        return group, self._add_look(graph, Group(made, unseen, group.size))

    def _add_look(self, graph: Graph, group: Group) -> Group:
        if not group.at:
            return group
        inspect_all = partial(_inspect_all, self._summarize, group.at)
        return Group.of(graph.add("dasknn-inspect", inspect_all, group.reference), group.at)

    def _start(self, graph: Graph, wanted: list, missing: Sequence[int]) -> list[Any]:
        try:
            return self._tasks.start(graph, wanted)
        except Exception as error:
            if isinstance(self._tasks, LocalExecutor):
                parts = [self._part(number) for number in missing]
                failed = _first_that_fails(self._tasks, self._to_block, parts)
                if failed is not None:
                    _note(error, missing[failed])
            raise

    def _fetch(self, held: list[Any], looks: list[Group]) -> None:
        """Take what was found out about blocks."""
        try:
            for position, infos in self._tasks.fetch(held):
                for number, info in zip(looks[position].at, infos, strict=True):
                    self._take(number, info)
        except Exception as error:
            if (failed := getattr(error, "held_position", None)) is not None:
                numbers = list(looks[failed].at)
                # Its own tasks have named the partition, unless one that it waited for has failed.
                cause, parts = getattr(error, "cause", None), [self._part(n) for n in numbers]
                at = 0 if len(numbers) == 1 else _partition_of(cause, parts)
                if at is not None:
                    _note(error, numbers[at])
            raise
        finally:
            self._tasks.drop(held)

    def _take(self, number: int, info: BlockInfo) -> None:
        refuse(info.problem, number)
        self.infos[number] = info
        self._budget.add(info.nbytes)
        self._on_partition()
        if self._blocks is not None and self._budget.is_exceeded():
            _drop(self._tasks, {spot.bundle for spot in self._blocks.values()})
            self._blocks = None

    def _drop_broken(self) -> None:
        """Forget blocks that cannot be recovered."""
        if not self._blocks:
            return
        held = list({spot.bundle for spot in self._blocks.values()})
        lost = self._tasks.broken([bundle.held for bundle in held])
        broken = {bundle for bundle, is_broken in zip(held, lost, strict=True) if is_broken}
        _drop(self._tasks, broken)
        self._blocks = {n: spot for n, spot in self._blocks.items() if spot.bundle not in broken}

    def _send(self) -> None:
        """Send plain data to the workers, spread over them, unless it is there already."""
        for at, values in enumerate(zip(*(part.sources for part in self._data), strict=True)):
            if at == len(self._sent):
                is_plain = not is_dask_collection(values[0])
                self._sent.append(self._tasks.put(values, self._homes()) if is_plain else None)
            elif (held := self._sent[at]) is not None:
                for number, is_broken in enumerate(self._tasks.broken(held)):
                    if is_broken:
                        (held[number],) = self._tasks.put([values[number]], [self._homes()[number]])

    def _homes(self) -> list[Home]:
        return place(self._tasks.slots(), len(self._data))

    def _part(self, number: int) -> Part:
        part = self._data[number]
        sources = (
            source if held is None else held[number]
            for source, held in zip(part.sources, self._sent, strict=True)
        )
        return Part(tuple(sources), part.names)


def _one(load: Callable[..., Block], *values: Any) -> list[Block]:
    """Return a bundle of one block."""
    return [load(*values)]


def _load_and_inspect(load: Callable[..., Block], summarize: Callable, *values: Any) -> BlockInfo:
    return inspect(summarize, load(*values))


def _inspect_all(summarize: Callable, at: Mapping[int, int], blocks: Sequence[Block]) -> list[BlockInfo]:
    infos = []
    for number, position in at.items():
        try:
            infos.append(inspect(summarize, blocks[position]))
        except Exception as error:
            _note(error, number)
            raise
    return infos


def _note(error: BaseException, number: int) -> None:
    """Add the number of a partition that was loaded to an exception, once."""
    note = _while_loaded(number)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _while_loaded(number: int) -> str:
    return f"This happened while partition {number} was loaded."


def _partition_of(key: Any, parts: Sequence[Part]) -> int | None:
    """Return the position of the first part whose sources depend on the task with this key."""
    for position, part in enumerate(parts):
        for source in filter(is_dask_collection, part.sources):
            if key == source.key or key in graph_of(source):
                return position
    return None


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
    # How often workers are asked for their memory: each answer of the scheduler takes a moment.
    _ASK_SECONDS = 1.0

    def __init__(self, tasks: Executor, n_parts: int):
        self._tasks, self._n_parts = tasks, n_parts
        self._n_bytes = self._n_seen = 0
        self._limit = 0.0
        self._asked = -math.inf

    def add(self, n_bytes: int) -> None:
        """Add a partition."""
        self._n_bytes += n_bytes
        self._n_seen += 1
        if self._n_seen.bit_count() == 1 and time.monotonic() - self._asked > self._ASK_SECONDS:
            # Asked again now and then: a worker may import modules that take much of its memory.
            self._asked = time.monotonic()
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


def _load_again(
    load: Callable[..., Block],
    number: int,
    shape: tuple[int, int],
    take: Callable[[Block], Block] | None,
    *values: Any,
) -> Block:
    """Return a block that was loaded before, or what is taken of it. PartitionError: it has changed."""
    block = load(*values)
    block.check(number, shape)
    return block if take is None else take(block)


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
