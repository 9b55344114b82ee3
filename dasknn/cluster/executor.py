"""The only place that submits tasks: runs graphs, and repeats what a fault of the cluster has cost.

An `Executor` knows graphs, held results and workers, and nothing of what is trained. `LocalExecutor` runs
graphs on Dask's local scheduler, `ClusterExecutor` on a distributed cluster; `connect` finds the right one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from typing import Any

from dasknn._compat.dask import TaskRef
from dasknn.cluster.faults import JOINED, LOST, RETIRED, Event, FaultLog, changes, pause_before
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home, place

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

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
