"""Stations: rows that stay where they lie, while networks come to visit them.

A station is a shard. In memory, it has one worker that always holds it; others that have nothing to do, and
room, take a copy. Streamed, workers read a station when a network comes, and keep it while others may come.
How many stations there are follows from the data alone, so that results do not depend on the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home, place
from dasknn.data.blocks import Block
from dasknn.data.loading import Loaded
from dasknn.data.shards import Shards, deal
from dasknn.engine.state import Shard

#: A station has about so many bytes: with fewer, a visit would be short beside the way there; with more, few
# workers could be visited at the same time.
STATION_BYTES = 32 * 2**20
# Share of the memory of a worker that stations may take.
_MEMORY_SHARE = 0.5

MakeShard = Callable[[Any, np.ndarray, "np.ndarray | None"], Shard]


class Station(NamedTuple):
    """The rows of a station: as networks train on them, and as their predictions are scored.

    Attributes
    ----------
    shard : Shard or None
        None: nobody trains here.
    block : Block or None
        None: nothing is scored here.
    """

    shard: Shard | None
    block: Block | None


def _make(make_shard: MakeShard | None, scored: bool, X: Any, y: Any, weight: Any) -> Station:
    shard = None if make_shard is None else make_shard(X, y, weight)
    # Both have the same X in memory.
    X = X if shard is None else shard.X
    return Station(shard, Block(X, y, weight, None) if scored else None)


@dataclass
class _Place:
    """Where a station is: held results by worker; the first is never given up while it is in memory."""

    nbytes: float
    n_rows: int
    held: dict[Home, Any] = field(default_factory=dict)


class Stations:
    """All stations of some networks, numbered from 0.

    Parameters
    ----------
    executor : Executor
    """

    def __init__(self, executor: Executor):
        self._executor = executor
        self._shards: list[Shards] = []
        # Number of a station -> (its Shards, its number among them)
        self._local: list[tuple[Shards, int]] = []
        self._places: list[_Place] = []
        self._room: dict[Home, float] = {}

    def add(
        self, loaded: Loaded, make_shard: MakeShard | None, scored: bool, n: int | None = None
    ) -> list[int]:
        """Make stations of loaded rows; return their numbers.

        Parameters
        ----------
        loaded : Loaded
            Its blocks stay as they are.
        make_shard : callable(X, y, weight) -> Shard, or None
            None: no network trains on these rows.
        scored : bool
            Whether predictions are scored on these rows.
        n : int or None, default=None
            How many. None: as their bytes say.
        """
        if not loaded.n_rows:
            return []
        nbytes = sum(info.nbytes for info in loaded.infos)
        n = n or max(1, min(math.ceil(nbytes / STATION_BYTES), loaded.n_rows))
        make = partial(_make, make_shard, scored)
        shards = Shards(self._executor, loaded, make, streamed=loaded.blocks is None)
        first = len(self._local)
        for number, slices in enumerate(deal([info.n_rows for info in loaded.infos], n)):
            n_rows = sum(piece.n_rows for piece in slices)
            shards.slices.append(slices)
            shards.replicas.append([number])
            self._local.append((shards, number))
            self._places.append(_Place(nbytes * n_rows / loaded.n_rows, n_rows))
        self._shards.append(shards)
        return list(range(first, len(self._local)))

    def __len__(self) -> int:
        return len(self._local)

    def n_rows(self, number: int) -> int:
        """Return the number of rows of a station."""
        return self._places[number].n_rows

    def spread(self) -> None:
        """Bring stations that fit in memory to their workers; return when they are there."""
        kept = [n for n, (shards, _) in enumerate(self._local) if not shards.streamed]
        kept = [n for n in kept if not self._places[n].held]
        if not kept:
            return
        homes = place(self._executor.slots(), len(kept))

        def attempt() -> None:
            graph, wanted = Graph(), []
            for number, home in zip(kept, homes, strict=True):
                shards, local = self._local[number]
                shards.loaded.repair(self._executor)
                wanted.append(shards.add_to(graph, local, home))
            started = self._executor.start(graph, wanted)
            try:
                self._executor.wait_for(started)
            except BaseException as error:
                self.explain(error)
                self._executor.drop(started)
                raise
            for number, held, at in zip(kept, started, self._executor.where(started), strict=True):
                self._places[number].held = {next(iter(sorted(at, key=str)), None): held}

        self._executor.again(attempt)

    # --- where they are ----------------------------------------------------------------------------

    def homes(self, number: int) -> set[Home]:
        """Return the workers that hold a station."""
        return set(self._places[number].held)

    def measure(self) -> None:
        """Ask how much memory the workers have."""
        self._room = {
            home: _MEMORY_SHARE * bytes_ for home, bytes_ in self._executor.memory_of_workers().items()
        }

    def has_room(self, number: int, home: Home, wanted: Iterable[int]) -> bool:
        """Return whether a worker can take a station, after it has given up others.

        wanted: numbers of stations that it should not give up.
        """
        return self._give_up_for(number, home, set(wanted)) is not None

    def _give_up_for(self, number: int, home: Home, wanted: set[int]) -> list[int] | None:
        """Return the stations that a worker gives up to make room for another; None: there is none."""
        held = [n for n, own in enumerate(self._places) if home in own.held]
        left = self._room.get(home, 0.0) - sum(self._places[n].nbytes for n in held)
        given = []
        for n in held:
            if left >= self._places[number].nbytes:
                break
            if n not in wanted and self._may_go(n, home):
                given.append(n)
                left += self._places[n].nbytes
        # One station must be possible, however small the memory is.
        is_alone = len(given) == len(held)
        return given if left >= self._places[number].nbytes or is_alone else None

    def _may_go(self, number: int, home: Home) -> bool:
        shards, _ = self._local[number]
        return shards.streamed or next(iter(self._places[number].held)) != home

    def bring(self, graph: Graph, number: int, home: Home, wanted: Iterable[int]) -> TaskRef:
        """Add the task that brings a station to a worker, which gives up others for it.

        When it is there, `arrived` has to be called.
        """
        for n in self._give_up_for(number, home, set(wanted)) or ():
            self._drop(n, home)
        held = self._places[number].held
        if held:
            return graph.add("dasknn-shard", _same, next(iter(held.values())), home=home)
        shards, local = self._local[number]
        shards.loaded.repair(self._executor)
        return shards.add_to(graph, local, home)

    def held(self, number: int, home: Home) -> Any:
        """Return the held result of a station at a worker."""
        return self._places[number].held[home]

    def add_to(self, graph: Graph, number: int) -> tuple[Any, Home]:
        """Return (a reference to a station, a worker that holds it); None: none does, the graph makes it."""
        held = self._places[number].held
        if not held:
            return self.bring(graph, number, None, ()), None
        home = min(held, key=str)
        return held[home], home

    def arrived(self, number: int, home: Home, held: Any) -> None:
        """Note that a worker holds a station now."""
        own = self._places[number].held
        if home in own:
            self._executor.drop([held])
        else:
            own[home] = held

    def _drop(self, number: int, home: Home) -> None:
        self._executor.drop([self._places[number].held.pop(home)])

    def explain(self, error: BaseException) -> None:
        """Add the partition to the notes of an exception of reading it again."""
        for shards in self._shards:
            # Several may be of the same partition: it is named once.
            if shards.loaded.explain(error):
                return

    def look(self, present: Iterable[Home]) -> None:
        """Find out again where stations are, after workers have gone or do not answer."""
        present = set(present)
        for number, own in enumerate(self._places):
            if not own.held or set(own.held) <= present:
                continue
            broken = dict(zip(own.held, self._executor.broken(list(own.held.values())), strict=True))
            for home in [home for home in own.held if broken[home] or home not in present]:
                is_streamed = self._local[number][0].streamed
                # Dask makes the last one again, from its source, wherever it likes.
                if broken[home] or is_streamed or len(own.held) > 1:
                    self._drop(number, home)
        lone = [n for n, own in enumerate(self._places) if own.held and not set(own.held) <= present]
        found = self._executor.where([next(iter(self._places[n].held.values())) for n in lone])
        for number, at in zip(lone, found, strict=True):
            own = self._places[number]
            (held,) = own.held.values()
            own.held = {next(iter(sorted(at & present, key=str)), _NOWHERE): held}
        self.measure()

    def release_blocks(self) -> None:
        """Release the blocks that stations in memory were made of."""
        for shards in self._shards:
            # Tasks keep blocks in memory as long as they need them.
            shards.loaded.release(self._executor)

    def close(self) -> None:
        """Release all stations."""
        self._executor.drop([held for own in self._places for held in own.held.values()])
        for own in self._places:
            own.held = {}


#: The home of a station that Dask is making again, and that no worker holds yet.
_NOWHERE = "nowhere"


def _same(station: Station) -> Station:
    return station
