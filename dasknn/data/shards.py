"""Shards: rows dealt out to replicas, held where they are trained on, or computed again in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data.blocks import Block, concatenate
from dasknn.data.bundles import Group
from dasknn.data.loading import Loaded
from dasknn.exceptions import PartitionError

if TYPE_CHECKING:
    from dasknn.engine.schedule import Piece

# Consecutive slices are joined up to this size: fewer tasks, better shuffling.
_SHARD_BYTES = 32 * 2**20
# A border between replicas moves to a border between partitions if there is one within this share of the rows
# of a replica, so that few partitions are read twice.
_SNAP = 0.05


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


# --- deal --------------------------------------------------------------------------------------------


def deal(rows: Sequence[int], replicas: int, shares: Sequence[float] | None = None) -> list[list[Slice]]:
    """Deal blocks with these numbers of rows out to replicas: slices in order, equally many rows for each.

    shares: of all rows, for each replica, instead; each gets at least one row.

    Replica r takes blocks r, r + replicas, r + 2 replicas, ..., so that sorted data is mixed. A block at a
    border between two replicas is cut. Empty blocks are left out.
    """
    order = [i for first in range(replicas) for i in range(first, len(rows), replicas) if rows[i]]
    starts = np.cumsum([0, *(rows[block] for block in order)])
    total = int(starts[-1])
    ends = [total * replica // replicas for replica in range(1, replicas)]
    if shares is not None:
        ends = [int(total * end) for end in np.cumsum(shares[:-1])]
    cuts = [0]
    for replica, end in enumerate(ends, start=1):
        cut = min(max(end, cuts[-1] + 1), total - (replicas - replica))
        nearest = int(starts[np.abs(starts - cut).argmin()])
        is_near = abs(nearest - cut) <= _SNAP * total / replicas and cuts[-1] < nearest < total
        cuts.append(nearest if is_near else cut)
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
    """Join consecutive slices while they are small."""
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
    """The data of a training, dealt out to replicas. Shards are numbered over all replicas.

    streamed: shards are computed again in each epoch, since they do not all fit in memory.
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

    def deal_again(self, shares: Sequence[float]) -> None:
        """Deal the rows out to the replicas by other shares, and make the shards unless they are streamed."""
        self.tasks.drop(list(self._in_memory.values()))
        self._in_memory, self._placed = {}, {}
        self._deal(len(self.replicas), shares)
        if not self.streamed:
            self.spread()

    def _deal(self, replicas: int, shares: Sequence[float] | None = None) -> None:
        rows = [info.n_rows for info in self.loaded.infos]
        bytes_per_row = sum(info.nbytes for info in self.loaded.infos) / self.loaded.n_rows
        self.slices, self.replicas = [], []
        for slices in deal(rows, replicas, shares):
            made = _shards_of(slices, bytes_per_row)
            first = len(self.slices)
            self.slices += made
            self.replicas.append(list(range(first, first + len(made))))

    def spread(self) -> None:
        """Make all shards, each at the home of its replica, and release the blocks."""
        self._hold(
            set(), {shard for own in self.replicas for shard in own}, self.tasks.homes(len(self.replicas))
        )
        # The tasks above keep blocks in memory as long as they need them.
        self.loaded.release(self.tasks)

    def add_to(self, graph: Graph, shard: int, home: str | None) -> Any:
        """Add the task that makes a shard to a graph; return a reference to the shard."""
        pieces = {piece.block: piece for piece in self.slices[shard]}
        groups = [
            self._rows_of(graph, group, pieces) for group in self.loaded.add_blocks(graph, list(pieces), home)
        ]
        at = [group.at for group in groups]
        make = partial(_make_shard, self.make_shard, list(pieces.values()), self.loaded.n_features, at)
        return graph.add("dasknn-shard", make, *(group.reference for group in groups), home=home)

    def _rows_of(self, graph: Graph, group: Group, pieces: dict[int, Slice]) -> Group:
        """Return a reference to no more rows than are needed of the blocks in a bundle."""
        takes = [(at, pieces[number], self._shape(number)) for number, at in group.at.items()]
        # The others are checked where the shard is made.
        if len(takes) == group.size and not any(piece.n_rows < shape[0] for _, piece, shape in takes):
            return group
        # Rows that are not needed do not travel.
        take = partial(_take_rows, takes, len(pieces) == 1)
        return Group.of(graph.add("dasknn-rows", take, group.reference), group.at)

    def _shape(self, number: int) -> tuple[int, int]:
        # After a split; the whole block is checked before it.
        info = self.loaded.infos[number]
        return info.n_rows, info.n_features

    def hold_for(
        self, wave: Iterable[Iterable[Iterable[Piece]]], homes: Sequence[str | None]
    ) -> dict[int, Any]:
        """Return the shards in memory that a wave of rounds may use.

        When streamed, only shards that the next wave needs, too, are held; others are released.
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

    def hold(self, wanted: set[int], homes: Sequence[str | None]) -> dict[int, Any]:
        """Return these shards, held in memory; when streamed, all others are released."""
        if self.streamed:
            self._hold(wanted, wanted, homes)
        with self.named():
            self.tasks.wait_for([self._in_memory[shard] for shard in wanted])
        return self._in_memory

    def repair(self) -> None:
        """Make the shards again that cannot be recovered, or that only unresponsive workers have."""
        found = self.tasks.broken(list(self._in_memory.values()))
        broken = {shard for shard, is_broken in zip(self._in_memory, found, strict=True) if is_broken}
        if broken:
            self._hold(set(self._in_memory) - broken, broken, self.tasks.homes(len(self.replicas)))

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add a note with the number of the partition to exceptions of its computation."""
        try:
            yield
        except Exception as error:
            self.loaded.explain(error)
            raise

    def _hold(self, kept: set[int], wanted: set[int], homes: Sequence[str | None]) -> dict[int, Any]:
        """Release all shards except those in kept, and make those in wanted; return all in memory."""
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


def _take_rows(
    takes: list[tuple[int, Slice, tuple[int, int]]], is_alone: bool, blocks: Sequence[Block]
) -> list[Block]:
    """Return the rows of slices. PartitionError: a block has changed.

    takes: position in the bundle, slice, shape of X of the whole block. is_alone: whether the slice becomes a
    shard by itself; else it is copied then, together with others.
    """
    taken = []
    for at, piece, shape in takes:
        block = blocks[at]
        # First: a block that has changed has other rows.
        block.check(piece.block, shape)
        if piece.n_rows < shape[0]:
            rows = block.rows(piece.begin, piece.end)
            # A view would keep the whole block in memory.
            block = rows.copy() if is_alone and not rows.stays else rows
        taken.append(block)
    return taken


def _make_shard(
    make: Callable, pieces: list[Slice], n_features: int, at: list[dict[int, int]], *bundles: list[Block]
) -> Any:
    """Return what make(X, y, weight) makes of the rows of slices.

    at: positions of blocks, by number, in each bundle; they have the rows of the slices and no others.
    """
    found = {
        number: bundle[position]
        for bundle, positions in zip(bundles, at, strict=True)
        for number, position in positions.items()
    }
    blocks = [found[piece.block] for piece in pieces]
    for piece, block in zip(pieces, blocks, strict=True):
        block.check(piece.block, (piece.n_rows, n_features))
    columns = [
        [column for block in blocks if (column := getattr(block, name)) is not None]
        for name in ("X", "y", "weight")
    ]
    try:
        return make(*(concatenate(column) for column in columns))
    except ValueError:
        _raise_for_piece(make, pieces, blocks)
        raise


def _raise_for_piece(make: Callable, pieces: list[Slice], blocks: Sequence[Block]) -> None:
    """Raise PartitionError for the first piece that cannot be made into a shard alone."""
    for piece, block in zip(pieces, blocks, strict=True):
        try:
            make(block.X, block.y, block.weight)
        except ValueError as error:
            raise PartitionError(f"Partition {piece.block}: {error}") from None


def make_shards(tasks: Executor, loaded: Loaded, replicas: int, make_shard: Callable) -> Shards:
    """Deal loaded data out to replicas, and make their shards unless they are streamed.

    make_shard(X, y, weight) encodes rows. ValueError: fewer rows than replicas.
    """
    if loaded.n_rows < replicas:
        raise ValueError(
            f"Expected at least one row for each of {replicas} replicas, received {loaded.n_rows}. "
            "Use fewer replicas."
        )
    result = Shards(tasks, loaded, make_shard, streamed=loaded.blocks is None)
    result._deal(replicas)
    if not result.streamed:
        result.spread()
    return result
