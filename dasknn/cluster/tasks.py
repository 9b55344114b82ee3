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

import asyncio
import queue
import sys
import threading
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from itertools import islice
from math import inf
from types import EllipsisType
from typing import Any

import dask
import dask.threaded
import numpy as np
from dask._task_spec import DataNode, GraphNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from threadpoolctl import ThreadpoolController

from dasknn.cluster.faults import JOINED, LOST, RETIRED, SILENT, Event, FaultLog, changes, pause_before
from dasknn.cluster.limits import available_cpus, available_memory
from dasknn.cluster.liveness import Liveness
from dasknn.cluster.origins import Selection, check_client, scheduler_of, selection
from dasknn.cluster.placement import Home, place
from dasknn.cluster.renaming import first_name, names_again, renamed
from dasknn.cluster.waiting import Awaited, Wait, out_of_reach, what_becomes_of
from dasknn.exceptions import (
    ClusterTimeoutError,
    DataLostError,
    LinkError,
    SchedulerLostError,
    WorkerLeftError,
)

# A state of more bytes goes to one worker first, not into the graph.
_INLINE_BYTES = 1_000_000
# States of so many bytes, for all workers together, travel with the tasks that begin from them.
_GIVEN_BYTES = 5_000_000
# Contributions that one task merges: a power of two, so that the binary tree stays what it is.
_MERGE_WIDTH = 8
# A wave should last about this long: short enough to show progress, long enough to hide the client.
_WAVE_SECONDS = 1.0
_MOST_TASKS_IN_WAVE = 2_000
# How often a task that raises is tried, where others do not wait for it: sources may be out of reach for
# a moment.
_RETRIES = 2
# By default, a fit survives so many faults of the cluster.
MAX_FAULTS = 10
# How often to look whether workers are still there that nothing can go on without.
_WATCH_SECONDS = 0.5
# When all workers were silent and one answers, others may follow within so long.
_FOLLOW_SECONDS = 1.0
# How often the scheduler is asked the same where the connection has broken.
_MOST_ASKED = 5
# What the status of a client is that answers nothing any more.
_CLOSED = ("closing", "closed")
# Results that are ready within this time come in one message.
_BATCH_SECONDS = 0.1
#: Topic of the scheduler's events under which trainings tell of themselves.
TOPIC = "dasknn"
# For how long the scheduler may not take an announcement before it is dropped.
_ANNOUNCING_SECONDS = 10.0


class Graph:
    """Tasks to submit together: names, functions, arguments, and the worker each should run on.

    `add` returns a reference by which other tasks take the result as an argument. Arguments are such
    references, held results (`Tasks.start`), or plain objects, passed as they are.
    """

    def __init__(self):
        self.run = uuid.uuid4().hex[:12]
        self.tasks: dict[Hashable, GraphNode] = {}
        self.homes: dict[Hashable, str] = {}
        self._strict: set[Hashable] = set()
        self._sources: dict[int, tuple[HighLevelGraph, set]] = {}

    def add(
        self, name: str, function: Callable, *args, home: str | None = None, strict: bool = False
    ) -> TaskRef:
        """Add function(*args); the dashboard shows it as `name`, and it prefers to run at `home`.

        strict: it runs nowhere else, and waits for ever when that worker is gone; see `fetch`.
        """
        key = self._key(name)
        self.tasks[key] = Task(key, _call, function, *args)
        if home is not None:
            self.homes[key] = home
        if strict:
            self._strict.add(key)
        return TaskRef(key)

    @property
    def is_strict(self) -> bool:
        """Whether tasks of it may run in one place only, where others may wait for them."""
        return bool(self._strict)

    def add_value(self, name: str, value) -> TaskRef:
        """Add a value that travels with the graph."""
        key = self._key(name)
        self.tasks[key] = DataNode(key, value)
        return TaskRef(key)

    def add_source(self, delayed) -> TaskRef:
        """Add what computes a Delayed object of the user's."""
        graph = delayed.__dask_graph__()
        self._sources.setdefault(id(graph), (graph, set()))[1].add(delayed.key)
        return TaskRef(delayed.key)

    def _key(self, name: str) -> str:
        return f"{name}-{self.run}-{len(self.tasks)}"

    def layers(self, confined: bool = False) -> HighLevelGraph:
        """Return everything as one graph, with soft pins to the homes where they are not strict.

        confined: whoever submits it says which workers may run it. Homes that are not strict do not count
        then, and sources are computed under names of their own: what the scheduler knows already stays where
        it is, and waits there.
        """
        sources, tasks = [_cull(*source) for source in self._sources.values()], self.tasks
        # A strict pin would leave its task pending for ever when that worker dies.
        annotations: dict[str, Any] = {
            "workers": self.homes.get,
            "allow_other_workers": lambda key: key not in self._strict,
        }
        if confined:
            annotations = {"workers": lambda key: self.homes.get(key) if key in self._strict else None}
            names = names_again(self.run, sources)
            sources = [renamed(source, names) for source in sources]
            tasks = {key: task.substitute(names) for key, task in tasks.items()}
        own = MaterializedLayer(tasks, annotations=annotations)
        graph = HighLevelGraph({f"dasknn-{self.run}": own}, {f"dasknn-{self.run}": set()})
        return HighLevelGraph.merge(graph, *sources)


def graph_of(delayed) -> HighLevelGraph:
    """Return the tasks that compute a Delayed object, and no others."""
    return _cull(delayed.__dask_graph__(), {delayed.key})


def _cull(graph, keys: set) -> HighLevelGraph:
    if not isinstance(graph, HighLevelGraph):
        graph = HighLevelGraph.from_collections(str(id(graph)), graph, dependencies=())
    return graph.cull(keys)


class _SingleBlasThread:
    """While any task of this process runs, BLAS has one thread: its number of threads changes bits.

    The setting belongs to the process, so the first task to begin makes it and the last to end undoes it.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._tasks = 0
        self._limiter: Any = None

    def __enter__(self):
        with self._lock:
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter = _blas().limit(limits=1, user_api="blas")
            self._tasks += 1

    def __exit__(self, *exc_info):
        with self._lock:
            self._tasks -= 1
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter.restore_original_limits()
                _let_any_thread_set_limits()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, so once a process.
    return ThreadpoolController()


def _let_any_thread_set_limits() -> None:
    # From threadpoolctl 3.8 on, only the thread that set a limit first may set the next; calls of others
    # do nothing, silently. Our tasks begin and end in any thread.
    for library in _blas().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


single_blas_thread = _SingleBlasThread()


def _call(function, *args):
    # A training that diverges is noticed by its loss; numpy's warnings on workers would reach nobody.
    with single_blas_thread, np.errstate(over="ignore", invalid="ignore"):
        return function(*args)


class Tasks(ABC):
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

    def until_done(
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

        result = self._until_done(begin)
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
            return self._until_done(begin)
        finally:
            self._lost += last - began

    def values_of(self, add: Callable[[Graph], Sequence[TaskRef]]) -> list[Any]:
        """Return the values of what add(graph) says is wanted: of a new graph after each fault."""

        def attempt():
            graph = Graph()
            return self.run(graph, add(graph))

        return self.again(attempt)

    def _until_done(self, attempt: Callable[[], Any]):
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

        shards (`partitions.Shards`) puts the data into graphs. on_wave sees the state after each wave.
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

        return self.until_done(job.replicas, state.epoch, attempt, usual)

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


def merge_tree(merge: Callable, *items):
    """Merge items pairwise, neighbours first: a binary tree that depends on their number alone."""
    level = list(items)
    while len(level) > 1:
        pairs = [merge(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


class LocalTasks(Tasks):
    """Runs graphs on Dask's local scheduler (threads, unless dask.config says otherwise)."""

    @property
    def at_once(self) -> int:
        return 2 * len(self.slots())

    def slots(self):
        return [None] * (dask.config.get("num_workers", None) or available_cpus())

    def memory_limit(self):
        return available_memory()

    def start(self, graph, wanted):
        name = dask.config.get("scheduler", None)
        # A client that is current sets its own name; what shall stay in this process does not go there.
        is_local = name not in (None, "dask.distributed", "distributed")
        get = dask.base.get_scheduler(scheduler=name) if is_local else dask.threaded.get
        return list(get(graph.layers().to_dict(), [ref.key for ref in wanted]))

    def fetch(self, held, at=()):
        return enumerate(held)

    def wait_for(self, held):
        pass

    def put(self, values, homes):
        return list(values)

    def drop(self, held):
        pass

    def close(self):
        pass

    def explain_loss(self, error):
        pass


# By client, the schedulers whose workers cannot connect by sockets: to find that out takes seconds.
_without_sockets: weakref.WeakKeyDictionary[Any, set[str | None]] = weakref.WeakKeyDictionary()


class ClusterTasks(Tasks):
    """Runs graphs on the cluster of a distributed client.

    A wait for tasks ends when for `dasknn.timeout` seconds (a setting of dask.config, 600 by default) nothing
    has become of them or of what they wait for, whatever becomes of other people's tasks; a wait for an
    answer of the scheduler ends after as long. selection: the workers that may be used, None for all.
    """

    at_once = 1_000_000

    def __init__(self, client, max_faults: int = MAX_FAULTS, selection: Selection | None = None):
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        super().__init__(max_faults)
        if client.status != "running":
            raise SchedulerLostError(
                f"Expected a client with a scheduler, received a {client.status} one. Connect a new one."
            )
        self.client = client
        self.address = client.scheduler.address
        self._selection = selection
        self._broken = CommClosedError
        self.faults = (KilledWorker, FutureCancelledError, CommClosedError, LinkError, WorkerLeftError)
        self.timeout = float(dask.config.get("dasknn.timeout", 600))
        self.silence = float(dask.config.get("dasknn.silence", 15))
        self._held: dict[str, Any] = {}
        self._irreplaceable: dict[str, Any] = {}
        #: The only workers that may run these held results, while others are left out.
        self._confined: dict[str, frozenset[str]] = {}
        self.liveness = Liveness(client.loop.asyncio_loop, self._in_loop, client.nthreads, client.run)
        self._late: list[Any] = []
        self._announcing: asyncio.Task | None = None
        self._has_clock = False

    @property
    def without_sockets(self) -> bool:
        """Whether workers of this cluster could not connect by sockets, the last time a training tried."""
        return scheduler_of(self.client) in _without_sockets.get(self.client, ())

    @without_sockets.setter
    def without_sockets(self, value: bool) -> None:
        known = _without_sockets.setdefault(self.client, set())
        (known.add if value else known.discard)(scheduler_of(self.client))

    def alive(self) -> dict[str, int]:
        """Return the threads of each worker, by address."""
        return self.liveness.alive()

    @property
    def left_out(self) -> Set[str]:  # type: ignore[override]
        """Workers that do not answer, and get no work until they do."""
        return self.liveness.left_out

    def rebalance(self, replicas):
        self.liveness.take_back()
        super().rebalance(replicas)

    def _in_loop(self, function: Callable, *args, look: Callable[[], None] | None = None, **settings):
        """Return what a method of the client brings, called in its event loop.

        Client.sync, which these methods use elsewhere, waits with locks that the loop takes, too. Ctrl-C may
        come when one has been taken and leave it so: the loop would hang, and every later call with it.

        look: called now and then while it takes its time; what it raises ends the wait. A question of the
        scheduler alone, without it, is asked again where the connection has broken.
        """
        n_left = _MOST_ASKED if look is None else 1
        with self._still_open(function.__name__):
            while True:
                answer, error = self._ask_once(function, args, settings, look)
                n_left -= 1
                # A client without a scheduler has errors of its own.
                was_away = error is not None and self.client.status != "running"
                if was_away or isinstance(error, OSError):
                    self._check_connected(function.__name__, error)
                    if n_left and (was_away or isinstance(error, self._broken)):
                        continue
                if error is not None:
                    raise error
                return answer

    def _ask_once(self, function: Callable, args: tuple, settings: dict[str, Any], look) -> tuple[Any, Any]:
        """Return (what it brings, None) or (None, what it raises)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        loop = self.client.loop.asyncio_loop
        calls: list[asyncio.Task] = []

        async def call():
            try:
                answers.put((await function(*args, **settings), None))
            except asyncio.CancelledError:
                # Its loop ends: whoever asked would wait for ever.
                answers.put((None, self._broken("The question was withdrawn.")))
                raise
            except Exception as error:
                answers.put((None, error))

        loop.call_soon_threadsafe(lambda: calls.append(loop.create_task(call())))
        try:
            return self._await(answers, function.__name__, look)
        finally:
            with suppress(RuntimeError):
                # What has ended is not changed by it; a loop that is closed runs nothing.
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in calls])

    def _ask(self, name: str, **settings):
        """Return the scheduler's answer to a question of this name."""

        async def ask():
            return await getattr(self.client.scheduler, name)(**settings)

        ask.__name__ = name
        return self._in_loop(ask)

    @contextmanager
    def _still_open(self, question: str) -> Iterator[None]:
        """Raise SchedulerLostError instead of whatever it is that a closed client raises."""
        try:
            yield
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except Exception as error:
            if self.client.status in _CLOSED:
                raise self._no_answer(question) from error
            raise

    def _await(self, answers: queue.SimpleQueue, question: str, look: Callable[[], None] | None):
        began = time.monotonic()
        while True:
            with suppress(queue.Empty):
                return answers.get(timeout=_WATCH_SECONDS)
            if self.client.status in _CLOSED:
                # Nobody answers any more.
                raise self._no_answer(question)
            if look is not None:
                look()
            if time.monotonic() - began > self.timeout:
                raise self._no_answer(question)

    def _check_connected(self, question: str, error: OSError) -> None:
        """Wait while the client tries to reach the scheduler again. SchedulerLostError: it has given up."""
        deadline = time.monotonic() + self.timeout
        # It notices no sooner than whoever asks.
        time.sleep(_WATCH_SECONDS)
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(_WATCH_SECONDS)
        if self.client.status != "running":
            raise self._no_answer(question) from error

    def _no_answer(self, question: str) -> Exception:
        if self.client.status == "running":
            return ClusterTimeoutError(
                f"The scheduler {self.address} has not answered {question!r} for {self.timeout:.0f} s. Look "
                "whether it and its workers are well, or raise dask.config 'dasknn.timeout'."
            )
        return SchedulerLostError(
            f"The connection to the scheduler {self.address} is {self.client.status}: the scheduler has "
            "gone, or the client was closed. The model has the weights of the last whole epoch. Connect a "
            "new client; with fit(..., checkpoint='folder', resume=True) training goes on where it was."
        )

    def _departure(self, address):
        if address in self.left_out:
            return Event(SILENT, address)
        # What the scheduler says of it; (time, event) each.
        told = self._ask("events", topic=address) or ()
        by_will = any(event.get("expected") for _, event in told if isinstance(event, dict))
        return Event(RETIRED if by_will else LOST, address)

    def slots(self):
        while not (threads := self._without_silent(self._usable() or self._wait_for_workers())):
            self._wait_for_an_answer()
        # One thread of every worker first, so that replicas spread over machines.
        ranked = sorted((thread, address) for address, n in threads.items() for thread in range(n))
        return [address for _, address in ranked]

    def _usable(self) -> dict[str, int]:
        """Return the threads of each worker that may be used, by address."""
        threads = self.alive()
        if self._selection is None:
            return threads
        if not self._selection.knows(threads):
            self._selection.look_at(self._workers())
        return {address: n for address, n in threads.items() if self._selection.allows(address)}

    def _workers(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler says of each worker, by address."""
        return self._ask("identity", n_workers=-1)["workers"]

    def _wait_for_workers(self) -> dict[str, int]:
        """Return the threads of workers that may be used, as soon as there are any."""
        deadline = time.monotonic() + self.timeout
        graph = Graph()
        # An adaptive cluster starts workers for tasks that wait, and asks for nothing else.
        wanted = self.start(graph, [graph.add("dasknn-wait-for-workers", _nothing)])
        try:
            while not (threads := self._usable()):
                if time.monotonic() > deadline:
                    raise ClusterTimeoutError(self._story_of_waiting())
                time.sleep(_WATCH_SECONDS)
            return threads
        finally:
            self.drop(wanted)

    def _story_of_waiting(self) -> str:
        if self._selection is None:
            return (
                f"The scheduler {self.address} has had no worker for {self.timeout:g} s. Start workers, or "
                "raise dask.config 'dasknn.timeout'."
            )
        others = ", ".join(sorted(self.alive())) or "none"
        return (
            f"The scheduler {self.address} has had none of the workers {self._selection} for "
            f"{self.timeout:g} s; it has: {others}. Start them, name others, or raise dask.config "
            "'dasknn.timeout'."
        )

    def _without_silent(self, threads: dict[str, int]) -> dict[str, int]:
        return {address: n for address, n in threads.items() if address not in self.left_out}

    def _wait_for_an_answer(self) -> None:
        """Wait until one of the workers that may be used answers: all of them were left out."""
        silent, deadline = sorted(self.left_out), time.monotonic() + self.timeout
        while not self._without_silent(self._usable()):
            if time.monotonic() > deadline:
                raise ClusterTimeoutError(
                    f"No worker of the scheduler {self.address} has answered for {self.timeout:g} s. Waited "
                    f"for {', '.join(silent)}. Look whether these processes run, start other workers, or "
                    "raise dask.config 'dasknn.timeout'."
                )
            time.sleep(_WATCH_SECONDS)
            self.liveness.take_back(also_busy=True)
        # What has stopped all of them ends for all of them, more or less.
        time.sleep(_FOLLOW_SECONDS)
        self.liveness.take_back(also_busy=True)

    def memory_limit(self):
        usable = set(self.slots())
        return sum(_memory_for_data(about) for at, about in self._workers().items() if at in usable)

    def start(self, graph, wanted):
        # Of what has no place of its own: as soon as a selected worker is there, no other is asked.
        where = {"workers": self._selection.words, "allow_other_workers": True} if self._selection else {}
        # To the scheduler, a silent worker is one that has nothing to do.
        only = frozenset(self._without_silent(self._usable()) if self.left_out else ())
        if only:
            where = {"workers": sorted(only)}
        layers, retries = graph.layers(confined=bool(only)), None if graph.is_strict else _RETRIES
        with self._still_open("start"):
            futures = self.client.get(
                layers, [ref.key for ref in wanted], sync=False, retries=retries, **where
            )
        self._held.update((future.key, future) for future in futures)
        if only:
            self._confined.update((future.key, only) for future in futures)
        late, self._late = self._late, []
        self.drop(late)
        return list(futures)

    def drop_later(self, held):
        # After a message to the scheduler the client waits 10 ms before it sends another: letting go
        # right before something else is started would delay that.
        self._late += held

    def put(self, values, homes):
        anywhere = sorted(set(self.slots()))
        futures = []
        for value, home in zip(values, homes, strict=True):
            key = f"dasknn-value-{uuid.uuid4().hex[:12]}"
            futures.append(self._send(key, value, anywhere if home is None else [home]))
        self._held.update((future.key, future) for future in futures)
        return futures

    def keep(self, held):
        self._irreplaceable.update((future.key, future) for future in held)

    def _send(self, key: str, value, where: Sequence[str]) -> Any:
        """Hold a value at one of these workers. WorkerLeftError: one is gone, or does not answer."""
        settings: dict[str, Any] = {"workers": where, "hash": False, "timeout": self.timeout}
        look = Wait(self, [], where).check_members
        try:
            sent = self._in_loop(self.client.scatter, {key: value}, asynchronous=True, look=look, **settings)
            return sent[key]
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except TimeoutError as error:
            # This is what the scheduler says where all of them are paused or about to leave.
            raise ClusterTimeoutError(
                f"For {self.timeout:g} s no data could be sent to {', '.join(where)}: paused, since memory "
                "is full, or about to leave. Look at these workers on the dashboard, or raise dask.config "
                "'dasknn.timeout'."
            ) from error
        except (KeyError, OSError) as error:
            # The scheduler knows the worker no more, or cannot reach it any longer.
            raise WorkerLeftError(f"No data could be sent to {', '.join(where)}: {error!r}.") from error

    def drop(self, held):
        for future in held:
            self._held.pop(future.key, None)
            self._irreplaceable.pop(future.key, None)
            self._confined.pop(future.key, None)
            future.release()

    def start_clock(self):
        from dasknn.cluster import clock

        if self._has_clock:
            return
        # A scheduler that cannot import dasknn keeps no time.
        with suppress(ImportError, AttributeError):
            self._in_loop(self.client.run_on_scheduler, clock.start, self.client.id)
            self._has_clock = True

    def spent(self):
        from dasknn.cluster import clock

        if not self._has_clock:
            return {}
        return self._in_loop(self.client.run_on_scheduler, clock.take, self.client.id)

    def _stop_clock(self) -> None:
        from dasknn.cluster import clock

        async def stop() -> None:
            with suppress(Exception):
                await self.client.run_on_scheduler(clock.stop, self.client.id)

        # Whatever has become of the scheduler, nobody waits for it here.
        loop = self.client.loop.asyncio_loop
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: loop.create_task(stop()))

    def close(self):
        # Releasing, not cancelling: what runs ends by itself, and is forgotten with all that waits for it.
        self.drop(list(self._held.values()))
        self.liveness.close()
        if self._has_clock:
            self._stop_clock()

    def announce(self, event, patience=0.0):
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        loop = self.client.loop.asyncio_loop
        message = {**event, "client": self.client.id}

        async def tell(before: asyncio.Task | None) -> None:
            with suppress(Exception):
                if before is not None:
                    # Two messages could take two connections, and pass each other.
                    await before
                sent = self.client.scheduler.log_event(topic=TOPIC, msg=message)
                await asyncio.wait_for(sent, _ANNOUNCING_SECONDS)
            arrived.put(None)

        def begin() -> None:
            self._announcing = loop.create_task(tell(self._announcing))

        # A loop that is closed runs nothing.
        with suppress(RuntimeError, queue.Empty):
            loop.call_soon_threadsafe(begin)
            if patience:
                arrived.get(timeout=patience)

    def broken(self, held):
        away = self.stranded()
        if self.left_out:
            find = out_of_reach([future.key for future in held], self.left_out)
            away |= set(self._in_loop(self.client.run_on_scheduler, find))
        return [future.status in ("error", "cancelled", "lost") or future.key in away for future in held]

    def stranded(self) -> set[str]:
        """Return keys of held results that are not there, and that no worker which is left may compute."""
        if not self._confined:
            return set()
        alive = set(self.alive())
        lost = {key for key, workers in self._confined.items() if not workers & alive}
        return {key for key in lost if self._held[key].status != "finished"}

    def explain_loss(self, error):
        if self.client.status in _CLOSED:
            raise self._no_answer("restart") from error
        lost = [key for key, future in self._irreplaceable.items() if future.status in ("cancelled", "lost")]
        if lost:
            raise DataLostError(
                f"{len(lost)} parts of the data were sent from this process to workers that are gone, "
                "and cannot be computed again. Train from a Dask collection that reads its data on the "
                "workers, for example dask.dataframe.read_parquet."
            ) from error

    def fetch(self, held, at=()):
        positions: dict[str, list[int]] = {}
        for position, future in enumerate(held):
            positions.setdefault(future.key, []).append(position)
        for batch in self._batches(held, at):
            # One message brings a whole batch.
            for future, value in zip(batch, self._gather(batch, at), strict=True):
                for position in positions[future.key]:
                    yield position, value

    def _gather(self, batch: list, at: Sequence[str | None]) -> list:
        """Return the values of results that are ready, unless a worker of `at` is gone with them."""
        # By itself, gather would wait until the lost result has been computed again. One that is given up and
        # does not skip what fails leaves asyncio with exceptions that nobody retrieves, each a traceback.
        look = Wait(self, batch, at).look
        values = self._in_loop(self.client.gather, batch, errors="skip", asynchronous=True, look=look)
        if len(values) < len(batch):
            # This raises the error of the one that failed.
            values = self._in_loop(self.client.gather, batch, asynchronous=True, look=look)
        return values

    def check_present(self, at: Sequence[str | None]) -> None:
        """Raise WorkerLeftError if one of these workers is gone."""
        if gone := sorted(set(map(str, at)) - set(self.alive())):
            raise WorkerLeftError(f"The cluster has lost {', '.join(gone)}.")

    def wait_for(self, held):
        missing = [future for future in held if future.status != "finished"]
        for _ in self._batches(missing, ()):
            pass

    def _batches(self, held: Sequence[Any], at: Sequence[str | None]) -> Iterator[list]:
        """Yield held results as they become ready; raise what one of them has raised."""
        first: dict[str, tuple[int, Any]] = {}
        for position, future in enumerate(held):
            first.setdefault(future.key, (position, future))
        ready: queue.SimpleQueue = queue.SimpleQueue()
        with self._still_open("wait"):
            for _, future in first.values():
                future.add_done_callback(ready.put)
        left = {key: future for key, (_, future) in first.items()}
        while left:
            batch = [self._next(ready, list(left.values()), at)]
            self._take_more(batch, ready, len(left))
            for future in batch:
                del left[future.key]
            failed = [future for future in batch if future.status == "error"]
            if failed:
                with self._still_open("exception"):
                    error = failed[0].exception(timeout=self.timeout)
                error.held_position = first[failed[0].key][0]
                error.cause = self._cause(failed[0])
                raise error.with_traceback(failed[0].traceback(timeout=self.timeout))
            yield batch

    def _cause(self, failed):
        """Return the key of the task that has raised what a failed future was told."""
        return first_name(self._ask("get_error_cause", keys=[failed.key]))

    def _take_more(self, batch: list, ready: queue.SimpleQueue, most: int) -> None:
        """Add what is ready within a moment."""
        deadline = time.monotonic() + _BATCH_SECONDS
        while len(batch) < most and (seconds := deadline - time.monotonic()) > 0:
            try:
                batch.append(ready.get(timeout=seconds))
            except queue.Empty:
                break

    def _next(self, ready: queue.SimpleQueue, left: Sequence[Any], at: Sequence[str | None]):
        """Return the next future that is ready; give up if the cluster does nothing for us any more."""
        wait = Wait(self, left, at)
        while True:
            with suppress(queue.Empty):
                return ready.get(timeout=_WATCH_SECONDS)
            wait.look()

    def awaited(self, held: Sequence[Any]) -> Awaited:
        """Return what held results that are waited for stand at."""
        look = what_becomes_of([future.key for future in held])
        return Awaited(*self._in_loop(self.client.run_on_scheduler, look))

    def outcomes(
        self, held: Sequence[Any], at: Sequence[str | None], seconds: float
    ) -> list[BaseException | EllipsisType | None]:
        """Return what became of each held result within so long: its exception, None, or ... if unknown.

        Nobody waits for a result of a worker that is gone.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            alive = self.alive()
            if not any(f.status == "pending" and place in alive for f, place in zip(held, at, strict=True)):
                break
            time.sleep(0.05)
        return [self._outcome(future) for future in held]

    def _outcome(self, future) -> BaseException | EllipsisType | None:
        if future.status == "pending":
            return ...
        return future.exception(timeout=self.timeout) if future.status == "error" else None


def _memory_for_data(worker: dict[str, Any]) -> float:
    """Return the bytes that a worker may use, less what its process takes by itself."""
    if not worker["memory_limit"]:
        # It may use all it likes.
        return inf
    used = worker.get("metrics", {})
    return max(0, worker["memory_limit"] - used.get("memory", 0) + used.get("managed_bytes", 0))


def _nothing() -> None:
    """A task that is there to be waited for."""


@contextmanager
def connect(
    client, distributed: bool, max_faults: int = MAX_FAULTS, *, workers=None, data: Collection[Any] = ()
) -> Iterator[Tasks]:
    """Yield where to run graphs: the cluster of the client, or of the current one, or this process.

    workers: which of them may be used, see `origins.selection`. data: the collections that will be used;
    ValueError: one of them is held by another cluster.

    Inside a task, plain data (`distributed` False) stays in its process, so that a search with as many fits
    as threads cannot wait for itself; a Dask collection is trained on the cluster by a task that secedes.
    TypeError: an asynchronous client, or no client.
    """
    with ExitStack() as stack:
        if _inside_a_task():
            from distributed import worker_client

            client = stack.enter_context(worker_client()) if distributed else None
        else:
            client = client or _current_client()
        if client is None:
            if workers is not None and not _inside_a_task():
                raise ValueError(
                    f"Expected a client, since the model was told its workers, {workers!r}; received none. "
                    "Set model.client, or connect one: distributed.Client(address or cluster)."
                )
            yield LocalTasks(max_faults)
            return
        if getattr(client, "asynchronous", False):
            raise TypeError(
                "Expected a synchronous client, received one with asynchronous=True. Fit with "
                "Client(..., asynchronous=False), or in a thread: asyncio.to_thread(est.fit, X, y)."
            )
        from distributed import Client

        if not isinstance(client, Client):
            raise TypeError(
                f"Expected a distributed Client, received {type(client).__name__}: {client!r}. Use "
                "distributed.Client(address or cluster)."
            )
        check_client(client, data)
        yield stack.enter_context(ClusterTasks(client, max_faults, selection(workers, data)))


def _inside_a_task() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _current_client():
    """Return the client that is current in this process, without importing distributed for it."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
