"""Tasks that end in any order: each is started when there is room for it, and looked at when it has ended.

`Executor.run` waits for all results of a graph. Where one result decides what is computed next, while others
still run, a `Pool` starts small graphs one by one:

    submit(ticket, graph, kept, wanted)     begins at once
    wait(seconds)                           -> what has ended in the meantime
    wake()                                  ends a wait early; any thread may call it
"""

from __future__ import annotations

import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import dask
import dask.local

from dasknn._compat.dask import TaskRef
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.waiting import Wait

# How often the state of running tasks is looked at; most looks cost nothing.
_LOOK_SECONDS = 0.2


class Ended(NamedTuple):
    """A task that has ended.

    Attributes
    ----------
    ticket : int
        What it was submitted with.
    kept : list of held results
        Results that stay where they are, until they are dropped; none after an error.
    value : object
        The result that has come here.
    error : exception or None
    """

    ticket: int
    kept: list[Any]
    value: Any
    error: BaseException | None


class Pool(ABC):
    """Runs small graphs side by side."""

    def __init__(self) -> None:
        self._ready: queue.SimpleQueue = queue.SimpleQueue()

    @abstractmethod
    def submit(self, ticket: int, graph: Graph, kept: Sequence[TaskRef], wanted: TaskRef) -> None:
        """Start to compute: `kept` stay on workers, the value of `wanted` comes here."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ended]:
        """Return what has ended, as soon as there is something, or `wake` is called, or after some seconds.

        Raises
        ------
        WorkerLeftError
            A worker that is waited for does not answer, and is left out from now on.
        ClusterTimeoutError
            No task has made progress for too long.
        """

    def out_of_reach(self) -> list[int]:
        """Return the tickets of tasks that wait for what only workers have that do not answer."""
        return []

    @abstractmethod
    def give_up(self, ticket: int) -> None:
        """Forget a task that was submitted: its results are released, and it never ends for the caller."""

    @abstractmethod
    def close(self) -> None:
        """Give up whatever runs."""

    def wake(self) -> None:
        """End a wait."""
        self._ready.put(None)

    def _next(self, seconds: float) -> list[int | None]:
        """Return the tickets that have ended, as `wait` does, and None for each call of `wake`."""
        found: list[int | None] = []
        with suppress(queue.Empty):
            found.append(self._ready.get(timeout=seconds))
            while True:
                found.append(self._ready.get_nowait())
        return found


class LocalPool(Pool):
    """Runs graphs in threads of this process, each graph in one."""

    def __init__(self, executor: LocalExecutor):
        super().__init__()
        self._threads = ThreadPoolExecutor(len(executor.slots()), thread_name_prefix="dasknn-pool")
        self._running: dict[int, Any] = {}

    def submit(self, ticket: int, graph: Graph, kept: Sequence[TaskRef], wanted: TaskRef) -> None:
        keys = [ref.key for ref in (*kept, wanted)]
        running = self._running[ticket] = self._threads.submit(
            dask.local.get_sync, graph.layers().to_dict(), keys
        )
        running.add_done_callback(lambda _: self._ready.put(ticket))

    def wait(self, seconds: float) -> list[Ended]:
        ended = []
        for ticket in self._next(seconds):
            if ticket is None:
                continue
            if (running := self._running.pop(ticket, None)) is None or running.cancelled():
                continue
            if (error := running.exception()) is not None:
                ended.append(Ended(ticket, [], None, error))
            else:
                *kept, value = running.result()
                ended.append(Ended(ticket, kept, value, None))
        return ended

    def give_up(self, ticket: int) -> None:
        if (running := self._running.pop(ticket, None)) is not None:
            running.cancel()

    def close(self) -> None:
        # What runs cannot be stopped; nobody waits for it.
        self._threads.shutdown(wait=False, cancel_futures=True)


class ClusterPool(Pool):
    """Runs graphs on a cluster."""

    def __init__(self, executor: ClusterExecutor):
        super().__init__()
        self._executor = executor
        self._running: dict[int, list[Any]] = {}
        self._wait: Wait | None = None

    def submit(self, ticket: int, graph: Graph, kept: Sequence[TaskRef], wanted: TaskRef) -> None:
        held = self._running[ticket] = self._executor.start(graph, [*kept, wanted])
        held[-1].add_done_callback(lambda _: self._ready.put(ticket))
        # Something new is waited for.
        self._wait = None

    def wait(self, seconds: float) -> list[Ended]:
        deadline = time.monotonic() + seconds
        while True:
            found = self._next(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic())))
            tickets = [ticket for ticket in found if ticket is not None and ticket in self._running]
            if tickets:
                self._wait = None
                return self._ended(tickets)
            if None in found:
                return []
            if self._running and not self._ready.qsize():
                self._look()
            if time.monotonic() >= deadline:
                return []

    def _look(self) -> None:
        if self._wait is None:
            self._wait = Wait(self._executor, [held[-1] for held in self._running.values()], ())
        try:
            self._wait.look()
        except Exception:
            self._wait = None
            raise

    def _ended(self, tickets: list[int]) -> list[Ended]:
        last = [self._running[ticket][-1] for ticket in tickets]
        good = [future for future in last if future.status == "finished"]
        values: dict[str, Any] = {}
        lost: BaseException | None = None
        try:
            values = {future.key: value for future, value in zip(good, self._gather(good), strict=True)}
        except self._executor.faults as error:
            lost = error
        ended = []
        for ticket, future in zip(tickets, last, strict=True):
            held = self._running.pop(ticket)
            if future.key in values:
                ended.append(Ended(ticket, held[:-1], values[future.key], None))
                self._executor.drop_later(held[-1:])
                continue
            failure = lost if future in good else self._error_of(future)
            self._executor.drop(held)
            ended.append(Ended(ticket, [], None, failure))
        return ended

    def _gather(self, futures: list[Any]) -> list[Any]:
        return self._executor.gather(futures, ()) if futures else []

    def _error_of(self, future: Any) -> BaseException:
        from dasknn._compat.distributed import FutureCancelledError

        if future.status != "error":
            return FutureCancelledError(future.key, future.status)
        error = future.exception(timeout=self._executor.timeout)
        error.cause = self._executor.cause_of(future)
        return error

    def out_of_reach(self) -> list[int]:
        if not self._running or not self._executor.left_out:
            return []
        broken = self._executor.broken([held[-1] for held in self._running.values()])
        return [ticket for ticket, is_broken in zip(self._running, broken, strict=True) if is_broken]

    def give_up(self, ticket: int) -> None:
        # An interrupt may have come before it was noted, or after it was forgotten.
        self._executor.drop(self._running.pop(ticket, []))
        self._wait = None

    def close(self) -> None:
        for ticket in list(self._running):
            self.give_up(ticket)


def pool_of(executor: Executor) -> Pool:
    """Return a pool of the workers of an executor, which only the thread of the executor may use."""
    if isinstance(executor, ClusterExecutor):
        return ClusterPool(executor)
    assert isinstance(executor, LocalExecutor)
    return LocalPool(executor)
