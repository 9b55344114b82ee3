"""The only place that submits tasks.

A training is a value (the state), handed from wave to wave. A wave is a graph of some rounds:

    state ──┬── visit(shard 0) ── visit(shard 3) ── finish ──┐
            ├── visit(shard 1) ──────────────────── finish ──┼── merge ── apply ── state of the next round
            └── visit(shard 2) ── visit(shard 4) ── finish ──┘

Only the last state of a wave comes back to the driver, and nothing of the wave stays behind. Rounds that
follow one another inside a graph spare the way through the client, which is half the cost of a round.
`ClusterTasks` runs graphs on a distributed cluster, `LocalTasks` on Dask's local scheduler.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from dask._task_spec import TaskRef

from dasknn.cluster.faults import JOINED, LOST, RETIRED, Event, FaultLog, changes, pause_before
from dasknn.cluster.graph import Graph, merge_tree
from dasknn.cluster.placement import Home, place

# A state of more bytes goes to one worker first, not into the graph.
_INLINE_BYTES = 1_000_000
# States of so many bytes, for all workers together, travel with the tasks that begin from them.
_GIVEN_BYTES = 5_000_000
# Contributions that one task merges: a power of two, so that the binary tree stays what it is.
_MERGE_WIDTH = 8
# A wave should last about this long: short enough to show progress, long enough to hide the client.
_WAVE_SECONDS = 1.0
_MOST_TASKS_IN_WAVE = 2_000
# By default, a fit survives so many faults of the cluster.
MAX_FAULTS = 10
#: Topic of the scheduler's events under which trainings tell of themselves.
TOPIC = "dasknn"


class Executor(ABC):
    """Runs graphs somewhere, and holds what they leave there until `close`.

    max_faults: so many faults of the cluster may cost work before one of them is raised.
    """

    def __init__(self, max_faults: int = MAX_FAULTS):
        self.log = FaultLog(max_faults)
        self._homes: dict[int, list[Home]] = {}
        #: Numbers of replicas that are to be placed anew.
        self._unsettled: set[int] = set()
        self._known: set[Home] = set()
        self._changes: list[Event] = []
        # The epoch that was begun last, if any was, and seconds that faults have cost since.
        self._epoch: int | None = None
        self._lost = 0.0
        #: Seconds of a round, in the fastest wave so far.
        self._pace: float | None = None

    @abstractmethod
    def slots(self) -> list[str | None]:
        """Return the places where replicas can work at the same time: one address for each thread."""

    @abstractmethod
    def memory_limit(self) -> float:
        """Return the bytes that all workers together may use for data."""

    @property
    @abstractmethod
    def at_once(self) -> int:
        """Number of partitions that may be loaded before the first of them is looked at."""

    @abstractmethod
    def start(self, graph: Graph, wanted: Sequence[TaskRef]) -> list[Any]:
        """Start computing what is wanted; return held results, to pass to other graphs or to `fetch`."""

    @abstractmethod
    def fetch(self, held: Sequence[Any], at: Sequence[str | None] = ()) -> Iterator[tuple[int, Any]]:
        """Yield (position, value) of held results as they become ready.

        at: workers without which there will be none. WorkerLeftError: one of them is gone, or a worker that
        we wait for does not answer; it is left out, and others can do its part when all is started anew.
        """

    @abstractmethod
    def wait_for(self, held: Sequence[Any]) -> None:
        """Return when all held results are there."""

    @abstractmethod
    def put(self, values: Sequence[Any], homes: Sequence[str | None]) -> list[Any]:
        """Hold values of the driver's at their homes."""

    def keep(self, held: Sequence[Any]) -> None:
        """Take down that the driver will not send these values again: see `explain_loss`."""
        return

    @abstractmethod
    def drop(self, held: Sequence[Any]) -> None:
        """Let go of held results."""

    def drop_later(self, held: Sequence[Any]) -> None:
        """Let go of held results when something else is started, or at the end."""
        self.drop(held)

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    def announce(self, event: dict[str, Any], patience: float = 0.0) -> None:
        """Tell whoever looks at the cluster of an event, after those of earlier calls, if there is a cluster.

        Nothing fails by it, and nobody waits for it, unless so many seconds for its arrival.
        """
        return

    def run(self, graph: Graph, wanted: Sequence[TaskRef]) -> list[Any]:
        """Return the values of what is wanted, in this order; nothing of them stays held."""
        held = self.start(graph, wanted)
        try:
            values = dict(self.fetch(held))
        except self.faults as error:
            self.explain_loss(error)
            raise
        finally:
            self.drop(held)
        return [values[position] for position in range(len(wanted))]

    def homes(self, replicas: int) -> list[Home]:
        """Return where each replica works: where it did before, unless one of these places is gone."""
        before, slots = self._homes.get(replicas), self.slots()
        if before is None or replicas in self._unsettled or not set(before) <= set(slots):
            self._place(replicas, slots)
        return self._homes[replicas]

    def start_clock(self) -> None:
        """Count from now on what workers spend their time on, where somebody can."""
        return

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return seconds of computing and of fetching data, by worker, since the last call."""
        return {}

    def rebalance(self, replicas: int) -> None:
        """From the next look on, give workers that have joined their share of the replicas."""
        # Looking costs an answer of the scheduler, which short epochs would feel.
        self._unsettled.add(replicas)

    def _place(self, replicas: int, slots: Sequence[Home]) -> None:
        self._unsettled.discard(replicas)
        before, workers = self._homes.get(replicas), set(slots)
        after = self._homes[replicas] = place(slots, replicas, before or ())
        if before is not None:
            gone = [self._departure(address) for address in sorted(self._known - workers, key=str)]
            joined = sorted(workers - self._known, key=str)
            self._changes += changes(before, after, gone, joined)
        self._known = workers

    def _departure(self, address: Home) -> Event:
        """Return the event of a worker that is gone."""
        return Event(LOST, address)

    def retry(
        self, replicas: int, epoch: int, attempt: Callable[[list[Home], Callable[[], None]], Any], usual=None
    ):
        """Return attempt(homes, ready), which is made again from the beginning after each fault.

        attempt calls ready() when what was lost is there again and new work begins. usual: seconds that it
        takes from then on, if that is known. Raises the last fault when there were more than max_faults.
        """
        self._epoch = epoch
        began = ready_at = time.monotonic()

        def ready() -> None:
            nonlocal ready_at
            ready_at = time.monotonic()

        def begin():
            homes = self.homes(replicas)
            ready()
            return attempt(homes, ready)

        result = self._retry(begin)
        lost = ready_at - began
        if usual is not None:
            # Dask has made good by itself what was lost in the meantime.
            lost += max(0.0, time.monotonic() - ready_at - usual)
        lost, self._lost = lost + self._lost, 0.0
        found, self._changes = self._changes, []
        self.log.recovered(epoch, lost, found)
        return result

    def again(self, attempt: Callable[[], Any]):
        """Return attempt(), which is made again after each fault: work that is not the rounds of an epoch.

        What it cost is told with the next epoch. An attempt repairs what it goes on from.
        """
        began = last = time.monotonic()

        def begin():
            nonlocal last
            last = time.monotonic()
            return attempt()

        try:
            return self._retry(begin)
        finally:
            self._lost += last - began

    def values_of(self, add: Callable[[Graph], Sequence[TaskRef]]) -> list[Any]:
        """Return the values of what add(graph) says is wanted: of a new graph after each fault."""

        def attempt():
            graph = Graph()
            return self.run(graph, add(graph))

        return self.again(attempt)

    def _retry(self, attempt: Callable[[], Any]):
        n_failed = 0
        while True:
            try:
                return attempt()
            except self.faults as error:
                self.explain_loss(error)
                with suppress(*self.faults):
                    # Who is gone says whether it counts.
                    for replicas in list(self._homes):
                        self.homes(replicas)
                self.log.failed(self._epoch, error, counts=not self._was_planned())
                # What fails at once may need a moment to be well again.
                time.sleep(pause_before(n_failed))
                n_failed += 1

    def _was_planned(self) -> bool:
        """Return whether all workers that have gone since work went on were told to."""
        reasons = {event.what for event in self._changes if event.what != JOINED}
        return reasons == {RETIRED}

    def run_epoch(self, strategy, job, state, shards, on_wave: Callable[[Any], None]):
        """Run one epoch of a strategy; return the state after it.

        shards (`shards.Shards`) puts the data into graphs. on_wave sees the state after each wave.
        """
        rounds = strategy.rounds(job, shards.rows_of_replicas(), state.epoch)
        most = max(1, _MOST_TASKS_IN_WAVE // (job.replicas + 1))
        size = min(8, most)
        self.rebalance(job.replicas)
        while wave := list(islice(rounds, size)):
            begin = time.perf_counter()
            usual = None if self._pace is None else self._pace * len(wave)
            state = self._run_wave(add_rounds, strategy, job, state, shards, wave, usual)
            on_wave(state)
            seconds = time.perf_counter() - begin
            self._pace = min(seconds / len(wave), self._pace or float("inf"))
            # How rounds are cut into waves changes no bit, so it may follow the clock.
            size = max(1, min(most, 4 * size, round(size * _WAVE_SECONDS / max(seconds, 1e-3))))
        return state

    def total(self, strategy, job, state, shards):
        """Return what all replicas bring to the first round of an epoch, merged; nothing is applied."""
        self.rebalance(job.replicas)
        wave = [next(iter(strategy.rounds(job, shards.rows_of_replicas(), state.epoch)))]
        return self._run_wave(add_total, strategy, job, state, shards, wave)

    def _run_wave(self, add, strategy, job, state, shards, wave, usual=None):
        def attempt(homes, ready):
            graph, scattered = Graph(), []
            shards.repair()
            held = shards.hold_for(wave, homes)
            try:
                # states: what each replica begins with, a reference into the graph or a held result
                states, scattered = self._states(graph, strategy, state, job.replicas)
                last = add(graph, strategy, job, states, wave, shards, held, homes)
                ready()
                with shards.named():
                    (result,) = self.run(graph, [last])
                # Dask makes good by itself what a worker takes with it: who was lost in the meantime?
                self.homes(job.replicas)
            finally:
                self.drop(scattered)
            return result

        return self.retry(job.replicas, state.epoch, attempt, usual)

    def give(self, state, n: int) -> tuple[list[Any], list[Any]]:
        """Return a state as an argument for each of n tasks, and what to drop afterwards."""
        if n * (state.params.nbytes + state.slots.nbytes) <= _GIVEN_BYTES:
            return [state] * n, []
        held = self.put([state], [None])
        return held * n, held

    #: Exceptions that mean that the cluster failed, not the task.
    faults: tuple[type[BaseException], ...] = ()
    #: Workers that did not answer, and get no work.
    left_out: Set[str] = frozenset()
    #: Seconds that a worker may be silent before the others go on without it; in this process there is none.
    silence = 0.0

    def broken(self, held: Sequence[Any]) -> list[bool]:
        """Return whether each held result is lost for good, or out of reach, and must be started anew."""
        return [False] * len(held)

    @abstractmethod
    def explain_loss(self, error: BaseException) -> None:
        """Raise DataLostError if the fault took data that cannot be computed again."""

    def _states(self, graph: Graph, strategy, state, replicas: int):
        shares = [strategy.share(state, replica) for replica in range(replicas)]
        whole_is_shared = all(share is state for share in shares)
        values = [state] if whole_is_shared else [state, *shares]
        if state.params.nbytes + state.slots.nbytes > _INLINE_BYTES:
            nodes = scattered = self.put(values, [None] * len(values))
        else:
            nodes, scattered = [graph.add_value("dasknn-state", value) for value in values], []
        if whole_is_shared:
            nodes = nodes * (replicas + 1)
        return nodes, scattered

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


def add_rounds(graph: Graph, strategy, job, states, wave, shards, held, homes) -> TaskRef:
    """Add the rounds of a wave, one after the other; return a reference to the state after the last.

    states[0] is the whole state, states[1 + r] what replica r sees of it.
    """
    apply = partial(_apply, strategy, job)
    whole, seen = states[0], states[1:]
    references: dict[int, Any] = dict(held)
    for pieces_of_replicas in wave:
        contributions = _add_round(graph, strategy, job, seen, pieces_of_replicas, shards, references, homes)
        whole = graph.add("dasknn-apply", apply, whole, *contributions, home=homes[0])
        seen = [whole] * job.replicas
    return whole


def add_total(graph: Graph, strategy, job, states, wave, shards, held, homes) -> TaskRef:
    """Add the one round of a wave; return a reference to its merged contributions, which are not applied."""
    contributions = _add_round(graph, strategy, job, states[1:], wave[0], shards, dict(held), homes)
    merge = partial(merge_tree, strategy.merge)
    return graph.add("dasknn-merge", merge, *contributions, home=homes[0])


def _add_round(graph: Graph, strategy, job, seen, pieces_of_replicas, shards, references, homes) -> list:
    """Add a round; return references to at most _MERGE_WIDTH contributions."""
    visit, finish = partial(strategy.visit, job), partial(strategy.finish, job)
    merge = partial(merge_tree, strategy.merge)
    contributions = []
    for replica, pieces in enumerate(pieces_of_replicas):
        carry, home = None, homes[replica]
        for piece in pieces:
            if piece.shard not in references:
                references[piece.shard] = shards.add_to(graph, piece.shard, home)
            last = finish if piece is pieces[-1] else None
            carry = graph.add(
                strategy.task_name,
                partial(_visit, visit, last),
                *(seen[replica], carry, references[piece.shard], piece),
                home=home,
            )
        if carry is not None:
            contributions.append(carry)
    while len(contributions) > _MERGE_WIDTH:
        groups = range(0, len(contributions), _MERGE_WIDTH)
        contributions = [
            graph.add("dasknn-merge", merge, *contributions[i : i + _MERGE_WIDTH]) for i in groups
        ]
    return contributions


def _visit(visit, finish, state, carry, shard, piece):
    carry = visit(state, carry, shard, piece)
    return carry if finish is None else finish(state, carry)


def _apply(strategy, job, state, *contributions):
    return strategy.apply(job, state, merge_tree(strategy.merge, *contributions))
