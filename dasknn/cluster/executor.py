"""The base of what runs graphs of tasks, and repeats work that was lost to faults of the cluster.

An `Executor` knows graphs, held results and workers, but not what is trained. `LocalExecutor` runs graphs on
Dask's local scheduler, `ClusterExecutor` on a distributed cluster; `connect` finds the right one. Nothing
else submits tasks.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence, Set
from contextlib import suppress
from typing import Any, Self, TypeVar

from dasknn._compat.dask import TaskRef
from dasknn.cluster.faults import JOINED, LOST, RETIRED, Event, FaultLog, changes, pause_before
from dasknn.cluster.fusing import Place
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home, place

#: How many faults of the cluster a fit survives by default.
MAX_FAULTS = 10
#: Topic of the scheduler's events to which trainings write.
TOPIC = "dasknn"

Result = TypeVar("Result")


class Executor(ABC):
    """Runs graphs somewhere, and holds their results until `close`.

    A held result is a distributed Future, or on the local scheduler the value itself. An executor is a
    context manager that closes itself.

    Parameters
    ----------
    max_faults : int, default=10
        How many faults of the cluster may cost work before the next one is raised.

    Attributes
    ----------
    log : FaultLog
        What has happened to the cluster.
    faults : tuple of exception types
        Exceptions that mean that the cluster failed, not the task.
    silence : float
        Seconds that a worker may be silent before the others continue without it; 0 in this process.
    is_remote : bool
        Whether other processes run the tasks.
    """

    faults: tuple[type[BaseException], ...] = ()
    is_remote = False

    def __init__(self, max_faults: int = MAX_FAULTS):
        self.log = FaultLog(max_faults)
        self._homes: dict[int, list[Home]] = {}
        #: Numbers of replicas that have to be placed again.
        self._unsettled: set[int] = set()
        self._known: set[Home] = set()
        self._changes: list[Event] = []
        # Seconds that faults have cost since an epoch was started.
        self._lost = 0.0

    @property
    def silence(self) -> float:
        return 0.0

    @abstractmethod
    def slots(self) -> list[Home]:
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
        """Start to compute `wanted`; return held results, to pass to other graphs or to `fetch`."""

    @abstractmethod
    def fetch(self, held: Sequence[Any], at: Sequence[Home] = ()) -> Iterator[tuple[int, Any]]:
        """Yield (position, value) of held results as they become ready.

        Parameters
        ----------
        held : sequence of held results
        at : sequence of addresses
            Workers that have to take part for the results to exist.

        Raises
        ------
        WorkerLeftError
            One of `at` is gone, or a worker that is waited for does not answer. It is left out, so that
            others can do its part when the work is started again.
        """

    @abstractmethod
    def wait_for(self, held: Sequence[Any]) -> None:
        """Return when all held results are ready."""

    def where(self, held: Sequence[Any]) -> list[set[Home]]:
        """Return the workers that have each held result in memory now."""
        return [{None} for _ in held]

    def known(self, keys: Collection[Hashable]) -> dict[Hashable, Place]:
        """Return what the scheduler knows of these keys; none of them on a local scheduler."""
        return {}

    def memory_of_workers(self) -> dict[Home, float]:
        """Return the bytes that each worker that may be used has for data."""
        return {None: self.memory_limit()}

    @abstractmethod
    def put(self, values: Sequence[Any], homes: Sequence[Home]) -> list[Any]:
        """Send values of this process to their homes; return them as held results."""

    def keep(self, held: Sequence[Any]) -> None:
        """Note that this process will not send these values again: see `explain_loss`."""
        return

    @abstractmethod
    def drop(self, held: Sequence[Any]) -> None:
        """Release held results."""

    def drop_later(self, held: Sequence[Any]) -> None:
        """Release held results when something else is started, or at the end."""
        self.drop(held)

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    def announce(self, event: dict[str, Any], patience: float = 0.0) -> None:
        """Publish an event on the scheduler, after those of earlier calls, if there is a cluster.

        Never fails, and does not wait for the event to arrive, except for up to `patience` seconds.
        """
        return

    def run(self, graph: Graph, wanted: Sequence[TaskRef]) -> list[Any]:
        """Return the values of `wanted`, in this order; none of them stays held."""
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

    def answers(self, question: Callable[[], Any]) -> dict[Home, Any]:
        """Return question(), a short function of a module, as each worker that may be used computes it."""
        return {None: question()}

    def require(self, question: Callable[[], Any], answer: Any) -> None:
        """Use only workers that answer a question in this way, also of those that join."""
        return

    def problems(self, preparation: Callable[[], str], replicas: int) -> dict[Home, str]:
        """Prepare the workers of so many replicas, by a task on each; return their problems, "" for none.

        preparation() may take long. A worker on which it found no problem is not asked again.
        """
        return {None: preparation()}

    def start_clock(self) -> None:
        """Count from now on what workers spend their time on, where the scheduler can do that."""
        return

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return seconds of computing and of fetching data since the last call, by worker."""
        return {}

    def rebalance(self, replicas: int) -> None:
        """Give workers that have joined their share of the replicas, from the next call of `homes` on."""
        # Looking costs an answer of the scheduler, which would slow down short epochs.
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
        self,
        replicas: int,
        epoch: int,
        attempt: Callable[[list[Home], Callable[[], None]], Result],
        usual: float | None = None,
    ) -> Result:
        """Return attempt(homes, ready), which is repeated from the start after each fault.

        The last fault is raised if there were more than `max_faults`.

        Parameters
        ----------
        replicas : int
        epoch : int
            Number of the epoch, from 0.
        attempt : callable
            Does the work, given the home of each replica. Calls `ready()` when what was lost is restored
            and new work begins.
        usual : float or None
            Seconds from `ready()` to the end, if known. What it takes longer counts as lost.
        """
        self.log.begin(epoch)
        began = ready_at = time.monotonic()

        def ready() -> None:
            nonlocal ready_at
            ready_at = time.monotonic()

        def begin() -> Result:
            homes = self.homes(replicas)
            ready()
            return attempt(homes, ready)

        result = self._retry(begin)
        lost = ready_at - began
        if usual is not None:
            # Dask itself has recomputed what was lost in the meantime.
            lost += max(0.0, time.monotonic() - ready_at - usual)
        self.recovered(lost)
        return result

    def recovered(self, seconds: float) -> None:
        """Note that work resumes, after changes that have cost so many seconds."""
        seconds, self._lost = seconds + self._lost, 0.0
        found, self._changes = self._changes, []
        self.log.recovered(seconds, found)

    def again(self, attempt: Callable[[], Result]) -> Result:
        """Return attempt(), which is repeated after each fault: work outside the rounds of an epoch.

        Its cost is reported with the next epoch. An attempt first repairs what it depends on.
        """
        began = last = time.monotonic()

        def begin() -> Result:
            nonlocal last
            last = time.monotonic()
            return attempt()

        try:
            return self._retry(begin)
        finally:
            self._lost += last - began

    def values_of(self, add: Callable[[Graph], Sequence[TaskRef]]) -> list[Any]:
        """Return the values of the references that add(graph) returns, in a new graph after each fault."""

        def attempt() -> list[Any]:
            graph = Graph()
            return self.run(graph, add(graph))

        return self.again(attempt)

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        n_failed = 0
        while True:
            try:
                return attempt()
            except self.faults as error:
                self.failed(error)
                # What fails at once may need a moment to recover.
                time.sleep(pause_before(n_failed))
                n_failed += 1

    def failed(self, error: BaseException) -> None:
        """Note that a fault of the cluster has cost work. Raises it if there were too many.

        DataLostError: it took data that cannot be computed again.
        """
        self.explain_loss(error)
        with suppress(*self.faults):
            # Which workers are gone decides whether it counts.
            for replicas in list(self._homes):
                self.homes(replicas)
        self.log.failed(error, counts=not self._was_planned())

    def _was_planned(self) -> bool:
        """Return whether all workers that have gone since work resumed were told to go."""
        reasons = {event.what for event in self._changes if event.what != JOINED}
        return reasons == {RETIRED}

    @property
    def left_out(self) -> Set[str]:
        """Workers that do not answer, and get no work until they do."""
        return frozenset()

    def broken(self, held: Sequence[Any]) -> list[bool]:
        """Return whether each held result is lost for good, or out of reach, and must be started again."""
        return [False] * len(held)

    @abstractmethod
    def explain_loss(self, error: BaseException) -> None:
        """Raise DataLostError if the fault took data that cannot be computed again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
