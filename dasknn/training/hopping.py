"""Networks that travel: each visits one station after the other, while others use the rest of the cluster.

    any thread     journey = Journey([(station, visit), ...], carry, ...); hopper.send(journey).result()
    one thread     hopper.run(until)        starts legs where there is room, and takes what comes back

A *journey* carries a value through stations, in an order that it has from the start: carry = visit(carry,
station). A *leg* is a part of it that one worker can do, in one task. Visits are pure functions, so where
legs begin, where they run and what fails cannot change a bit.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home
from dasknn.cluster.pool import Ended, Pool, pool_of
from dasknn.data.stations import Station, Stations
from dasknn.exceptions import WorkerLeftError

Visit = Callable[[Any, Station], Any]

# About how long a leg should last: long beside the 10 to 20 ms that a task costs, short beside an epoch.
_LEG_SECONDS = 1.0
# Legs that wait on each worker beside those that run there, so that it need not wait for the next one.
_AHEAD = 1
# A carry of more bytes goes from worker to worker, a smaller one through this process.
_INLINE_BYTES = 1_000_000
# How often the workers of the cluster are looked at.
_LOOK_SECONDS = 0.5
# A leg that has lost so many workers, one after the other, is taken to be what ends them.
_MOST_LOST = 3


@dataclass(eq=False)
class Journey:
    """A value that is carried through stations.

    Attributes
    ----------
    visits : sequence of (int, callable)
        Numbers of stations, with the function (carry, station) -> carry that is called there.
    carry : object
        The value at the start.
    nbytes : int
        About how many bytes it has.
    pace : hashable
        Journeys with the same one take about the same time for a row.
    priority : tuple
        Of those that wait, the one with the least comes first.
    may_stop : bool
        Whether `Hopper.stop` ends it.
    """

    visits: Sequence[tuple[int, Visit]]
    carry: Any
    nbytes: int = 0
    pace: Hashable = None
    priority: tuple = ()
    may_stop: bool = False
    result: Future = field(default_factory=Future)
    #: Seconds of computing, by worker.
    spent: dict[Home, float] = field(default_factory=dict)
    #: How many visits are done, the value after them, and the held result if it stays on a worker.
    _at: int = 0
    _value: Any = None
    _held: Any = None
    _n_lost: int = 0

    def __post_init__(self) -> None:
        self._value = self.carry


@dataclass(frozen=True)
class _Leg:
    """A part of a journey that is on its way."""

    journey: Journey
    home: Home
    end: int
    #: Stations that are brought to the worker for it.
    brought: tuple[int, ...]


class Hopper:
    """Sends networks through stations, and keeps all workers busy.

    Parameters
    ----------
    executor : Executor
        Only the thread that calls `run` uses it.
    stations : Stations
    n_networks : int or None, default=None
        How many networks travel, for messages about faults. None: as many as there are stations.

    Attributes
    ----------
    computed : dict
        Seconds that each worker has computed, by address, all of its threads together.
    busy : dict
        Seconds that each worker had something to do, all of its threads together.
    seconds : float
        From the start of the first leg to the end of the last.
    bytes_moved : int
        Bytes of carries that have gone to workers and come back.
    """

    def __init__(self, executor: Executor, stations: Stations, n_networks: int | None = None):
        self._executor, self.stations = executor, stations
        self._n_networks = n_networks
        self._pool: Pool = pool_of(executor)
        self._inbox: queue.SimpleQueue[Journey] = queue.SimpleQueue()
        # All that have no result yet; those of them that wait here.
        self._open: set[Journey] = set()
        self._waiting: list[Journey] = []
        self._legs: dict[int, _Leg] = {}
        # How many legs are on their way, by pace and by worker; and when that of a worker has changed last.
        self._on_way: Counter[Hashable] = Counter()
        self._n_legs: Counter[Home] = Counter()
        self._changed: dict[Home, float] = {}
        self._tickets = itertools.count()
        self._slots: Counter[Home] = Counter()
        self._next_look = 0.0
        self._closing = threading.Lock()
        self._closed: BaseException | None = None
        self._stopped: BaseException | None = None
        # Seconds of a row, by pace.
        self._paces: dict[Hashable, float] = {}
        self.computed: dict[Home, float] = defaultdict(float)
        self.busy: dict[Home, float] = defaultdict(float)
        self.bytes_moved = 0
        self._first = self._last = 0.0

    # --- for any thread ----------------------------------------------------------------------------

    def send(self, journey: Journey) -> Future:
        """Let a journey begin; return the future of the value at its end."""
        with self._closing:
            closed = self._closed or (self._stopped if journey.may_stop else None)
            if closed is not None:
                _settle(journey.result, error=closed)
                return journey.result
            self._open.add(journey)
            self._inbox.put(journey)
        self._pool.wake()
        return journey.result

    def wake(self) -> None:
        """Let `run` look whether it is done."""
        self._pool.wake()

    # --- for one thread ----------------------------------------------------------------------------

    def run(self, is_done: Callable[[], bool]) -> None:
        """Serve journeys until `is_done`.

        Raises
        ------
        Exception
            More faults of the cluster than are allowed, or no progress for too long. All journeys end with
            it.
        """
        try:
            self._look(time.monotonic())
            while True:
                self._take_new()
                if is_done():
                    # What has happened since is part of it.
                    self._look(time.monotonic())
                    return
                self._start_legs()
                self._step()
        except KeyboardInterrupt:
            # What is ended is the decision of those who are interrupted.
            raise
        except BaseException as error:
            self.end(error)
            raise

    def _step(self) -> None:
        faults = self._executor.faults
        try:
            for ended in self._pool.wait(_LOOK_SECONDS):
                self._end_leg(ended)
            now = time.monotonic()
            if now >= self._next_look:
                self._look(now)
        except faults as error:
            self._executor.failed(error)
            self._look(time.monotonic())

    def stop(self, error: BaseException, everything: bool = False) -> None:
        """End journeys that may be stopped with an exception, those that come later, too, until `resume`.

        everything: also all others that are on their way.
        """
        with self._closing:
            self._stopped = error
        self._take_new()
        self._end_some([one for one in self._open if everything or one.may_stop], error)

    def resume(self) -> None:
        """Let journeys begin again after `stop`."""
        with self._closing:
            self._stopped = None

    def end(self, error: BaseException) -> None:
        """End all journeys, those that come later, too, with an exception."""
        with self._closing:
            self._closed = error
        self._take_new()
        self._end_some(list(self._open), error)

    def _end_some(self, journeys: Sequence[Journey], error: BaseException) -> None:
        ended = set(journeys)
        for ticket, leg in list(self._legs.items()):
            if leg.journey in ended:
                self._forget(ticket)
                self._pool.give_up(ticket)
        self._waiting = [journey for journey in self._waiting if journey not in ended]
        for journey in journeys:
            self._fail(journey, error)

    def close(self) -> None:
        """Release whatever is on workers."""
        self._pool.close()
        self.stations.close()

    # --- journeys ----------------------------------------------------------------------------------

    def _take_new(self) -> None:
        with suppress(queue.Empty):
            while True:
                journey = self._inbox.get_nowait()
                if journey.visits:
                    self._waiting.append(journey)
                else:
                    self._succeed(journey)

    def _succeed(self, journey: Journey) -> None:
        self._open.discard(journey)
        _settle(journey.result, journey._value)

    def _fail(self, journey: Journey, error: BaseException) -> None:
        self._open.discard(journey)
        self._release(journey)
        _settle(journey.result, error=error)

    def _release(self, journey: Journey) -> None:
        if journey._held is not None:
            self._executor.drop([journey._held])
            journey._held = None

    # --- legs --------------------------------------------------------------------------------------

    def _start_legs(self) -> None:
        """Give each worker that has room a leg, those first whose station it holds."""
        self._waiting.sort(key=lambda journey: journey.priority)
        running = self._n_legs
        free = Counter({home: n - running[home] for home, n in self._slots.items() if n > running[home]})
        self._start_where(self._holders, self._waiting, free)
        if free:
            # No worker that is free holds these stations: first those that most journeys wait for.
            wanted = Counter(map(_next_of, self._waiting))
            rest = sorted(self._waiting, key=lambda j: (self._is_held(j), -wanted[_next_of(j)], j.priority))
            self._start_where(self._bringer, rest, free)
        if not free and self._executor.is_remote:
            room = Counter({home: n + _AHEAD - running[home] for home, n in self._slots.items()})
            self._start_where(self._holders, self._waiting, +room)

    def _start_where(
        self,
        find: Callable[[Journey, Counter[Home]], list[Home]],
        journeys: Sequence[Journey],
        free: Counter[Home],
    ) -> None:
        """Start legs of journeys, in their order, at workers that `find` returns; take these off `free`."""
        for journey in list(journeys):
            if not free:
                return
            if homes := find(journey, free):
                home = max(homes, key=lambda home: (free[home], str(home)))
                self._start(journey, home)
                free.subtract([home])
                if not free[home]:
                    del free[home]

    def _holders(self, journey: Journey, free: Counter[Home]) -> list[Home]:
        """Return the workers with room that hold the journey's next station."""
        return [home for home in self.stations.homes(_next_of(journey)) if free[home] > 0]

    def _bringer(self, journey: Journey, free: Counter[Home]) -> list[Home]:
        """Return a worker to which the journey's next station can be brought, one with most room, if any."""
        number = _next_of(journey)
        for home, _ in sorted(free.items(), key=lambda item: (-item[1], str(item[0]))):
            if self.stations.has_room(number, home, self._wanted_at(home)):
                return [home]
        return []

    def _is_held(self, journey: Journey) -> bool:
        return bool(self.stations.homes(_next_of(journey)))

    def _wanted_at(self, home: Home) -> set[int]:
        """Return the stations that legs at a worker visit, or that journeys wait for."""
        wanted = {_next_of(journey) for journey in self._waiting}
        for leg in self._legs.values():
            if leg.home == home:
                wanted.update(number for number, _ in leg.journey.visits[leg.journey._at : leg.end])
        return wanted

    def _start(self, journey: Journey, home: Home) -> None:
        """Start the next leg of a journey at a worker."""
        graph = Graph()
        begin = journey._at
        end = self._end_of_leg(journey, home)
        numbers = list(dict.fromkeys(number for number, _ in journey.visits[begin:end]))
        there = {n: self.stations.held(n, home) for n in numbers if home in self.stations.homes(n)}
        brought = tuple(n for n in numbers if n not in there)
        kept = [self.stations.bring(graph, n, home, self._wanted_at(home)) for n in brought]
        found = {**there, **dict(zip(brought, kept, strict=True))}
        visits = [visit for _, visit in journey.visits[begin:end]]
        travels = journey.nbytes > _INLINE_BYTES and self._executor.is_remote
        carry = journey._held
        if carry is None:
            carry = journey._value
            if travels:
                (carry,) = self._executor.put([carry], [home])
                journey._held = carry
            else:
                carry = graph.add_value("dasknn-network", carry)
        is_last = end == len(journey.visits)
        stops = [found[number] for number, _ in journey.visits[begin:end]]
        done = graph.add("dasknn-visit", _travel, tuple(visits), carry, *stops, home=home)
        if travels and not is_last:
            # The network stays on the worker; its seconds come here.
            kept.append(done)
            done = graph.add("dasknn-arrive", _seconds_of, done, home=home)
        elif not travels:
            self.bytes_moved += 2 * journey.nbytes
        ticket = next(self._tickets)
        self._waiting.remove(journey)
        self._first = self._first or time.monotonic()
        self._legs[ticket] = leg = _Leg(journey, home, end, brought)
        self._count(leg, 1)
        self._pool.submit(ticket, graph, kept, done)

    def _forget(self, ticket: int) -> _Leg | None:
        """Return a leg that is no longer on its way; None: it was not."""
        leg = self._legs.pop(ticket, None)
        if leg is not None:
            self._count(leg, -1)
        return leg

    def _count(self, leg: _Leg, change: int) -> None:
        """Note that a leg begins, 1, or ends, -1."""
        home, now = leg.home, time.monotonic()
        n_at_work = min(self._n_legs[home], self._slots[home])
        self.busy[home] += n_at_work * (now - self._changed.get(home, now))
        self._changed[home] = now
        self._n_legs[home] += change
        self._on_way[leg.journey.pace] += change

    def _end_of_leg(self, journey: Journey, home: Home) -> int:
        """Return the end of the next leg: as many visits as the worker can do in about a second."""
        begin, pace = journey._at, self._paces.get(journey.pace)
        end, seconds = begin + 1, 0.0
        if pace is None:
            return end
        while end < len(journey.visits):
            seconds += pace * self.stations.n_rows(journey.visits[end - 1][0])
            number = journey.visits[end][0]
            if seconds > _LEG_SECONDS or home not in self.stations.homes(number):
                break
            end += 1
        return end

    def _end_leg(self, ended: Ended) -> None:
        if (leg := self._forget(ended.ticket)) is None:
            return
        journey = leg.journey
        if isinstance(ended.error, self._executor.faults):
            self._lose(leg, ended.error)
            self._executor.failed(ended.error)
            return
        if ended.error is not None:
            self.stations.explain(ended.error)
            self._fail(journey, ended.error)
            return
        kept = list(ended.kept)
        for number in leg.brought:
            self.stations.arrived(number, leg.home, kept.pop(0))
        self._release(journey)
        if kept:
            (journey._held,) = kept
            seconds = ended.value
        else:
            journey._value, seconds = ended.value
        self._note(leg, seconds)
        journey._at, journey._n_lost = leg.end, 0
        if leg.end == len(journey.visits):
            self._succeed(journey)
        else:
            self._waiting.append(journey)

    def _note(self, leg: _Leg, seconds: float) -> None:
        journey = leg.journey
        n_rows = sum(self.stations.n_rows(number) for number, _ in journey.visits[journey._at : leg.end])
        self._paces[journey.pace] = seconds / max(n_rows, 1)
        self.computed[leg.home] += seconds
        journey.spent[leg.home] = journey.spent.get(leg.home, 0.0) + seconds
        self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds from the start of the first leg to the end of the last."""
        return max(0.0, self._last - self._first)

    def pace(self, pace: Hashable) -> float | None:
        """Return the seconds of a row of journeys of this pace; None: there were none."""
        return self._paces.get(pace)

    def is_on_way(self, pace: Hashable) -> bool:
        """Return whether a leg of a journey of this pace is on a worker."""
        return self._on_way[pace] > 0

    @property
    def n_threads(self) -> dict[Home, int]:
        """Threads of each worker that is used."""
        return dict(self._slots)

    def _lose(self, leg: _Leg, error: BaseException, counts: bool = True) -> None:
        """Let a journey go on from where a leg began that was lost with its worker."""
        journey = leg.journey
        journey._n_lost += counts
        if journey._n_lost >= _MOST_LOST:
            self._fail(journey, error)
            return
        if journey._held is not None and self._executor.broken([journey._held]) == [True]:
            self._release(journey)
            journey._at, journey._value = 0, journey.carry
        self._waiting.append(journey)

    # --- workers -----------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Find out which workers there are; take legs back from those that have gone."""
        self._next_look = now + _LOOK_SECONDS
        replicas = self._n_networks or max(len(self.stations), 1)
        self._executor.rebalance(replicas)
        # This notes which workers have come and gone.
        self._executor.homes(replicas)
        slots = Counter(self._executor.slots())
        gone, known = set(self._slots) - set(slots), bool(self._slots)
        if slots != self._slots:
            self._slots = slots
            if gone or not known:
                self.stations.look(slots)
            else:
                self.stations.measure()
        stuck = set(self._pool.out_of_reach())
        for ticket, leg in list(self._legs.items()):
            if leg.home in gone or ticket in stuck:
                self._forget(ticket)
                self._pool.give_up(ticket)
                # A leg that only waits for what others have was not ended by its own worker.
                self._lose(leg, WorkerLeftError(f"The cluster has lost {leg.home}."), leg.home in gone)
        self._executor.recovered(0.0)


class _Arrived(NamedTuple):
    """What a leg brings: the carry, and the seconds of its visits."""

    carry: Any
    seconds: float


def _next_of(journey: Journey) -> int:
    return journey.visits[journey._at][0]


def _settle(result: Future, value: Any = None, error: BaseException | None = None) -> None:
    # It may have been cancelled by those who wait for it.
    with suppress(InvalidStateError):
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)


def _seconds_of(arrived: _Arrived) -> float:
    return arrived.seconds


def _travel(visits: Sequence[Visit], carry: Any, *stations: Station) -> _Arrived:
    """Carry a value through stations."""
    if isinstance(carry, _Arrived):
        carry = carry.carry
    began = time.perf_counter()
    for visit, station in zip(visits, stations, strict=True):
        carry = visit(carry, station)
    return _Arrived(carry, time.perf_counter() - began)
