"""Which workers answer, and which are left out of the rounds until they do.

A cluster may be shared: a worker that does not answer gets no more work from here and is asked again, but is
never stopped. Only workers that have to do with keys of this run are judged.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from typing import Any

from dasknn.cluster.lag import Lag
from dasknn.cluster.scheduler import SchedulerConnection

# How often a worker that is left out is asked again, in the background.
_AGAIN_SECONDS = 0.5
# How long a message to a worker that does not answer is kept.
_TELL_SECONDS = 60.0


class Inquiry:
    """Questions to workers whether they live, whatever tasks run there; answers come in the background.

    Attributes
    ----------
    missing : set of str
        Addresses of those that have not answered yet.
    """

    def __init__(self, workers: Collection[str]):
        self.missing = set(workers)


class Liveness:
    """The workers of a cluster, and whether they answer.

    Attributes
    ----------
    lag : Lag
        How late this client and the answers of workers are.
    left_out : set of str
        Addresses of workers that did not answer, or did not end work that was given up. They get no work.
    """

    def __init__(self, scheduler: SchedulerConnection):
        self._scheduler = scheduler
        self.lag = Lag(scheduler.loop)
        self.left_out: set[str] = set()
        # What the event loop has found out about them: which answer, and whether nothing given up runs there.
        self._is_free: dict[str, bool] = {}
        self._watches: dict[str, asyncio.Task] = {}
        self._asking: set[asyncio.Task] = set()

    def alive(self) -> dict[str, int]:
        """Return the number of threads of each worker that the scheduler knows, by address."""
        threads = self._scheduler.call(self._scheduler.client.nthreads)
        self._forget(self.left_out - set(threads))
        return threads

    def call(
        self, function: Callable[..., Any], *args: Any, workers: Collection[str], seconds: float
    ) -> dict[str, Any]:
        """Call a short function in these workers' processes, past all tasks that run there.

        Return the results of those that have answered within so many seconds, by address.
        """
        alive = [worker for worker in self.alive() if worker in workers]

        async def ask(worker: str) -> dict[str, Any]:
            with suppress(TimeoutError, OSError):
                return await asyncio.wait_for(self._call_on(worker, function, *args), seconds)
            return {}

        async def ask_all() -> dict[str, Any]:
            return {
                worker: found
                for one in await asyncio.gather(*map(ask, alive))
                for worker, found in one.items()
            }

        return self._scheduler.call(ask_all, quick=False)

    def ask(self, workers: Collection[str], seconds: float) -> Inquiry:
        """Ask workers whether they live; return at once. Whoever asks may lose interest in the answers.

        An answer after so many seconds, or more, does not count.
        """
        inquiry, began = Inquiry(workers), time.monotonic()

        def note(worker: str) -> None:
            inquiry.missing.discard(worker)
            self.lag.note(time.monotonic() - began)

        self._begin(_answer, (), workers, seconds, note)
        return inquiry

    def tell(self, function: Callable[..., Any], *args: Any, workers: Collection[str]) -> None:
        """Call a short function in these workers' processes, if they wake up soon; return at once."""
        self._begin(function, args, workers, _TELL_SECONDS, lambda worker: None)

    def _begin(
        self,
        function: Callable[..., Any],
        args: tuple,
        workers: Collection[str],
        seconds: float,
        note: Callable[[str], None],
    ) -> None:
        """Call a function on workers in the background, for so many seconds; note(worker) when it returns."""

        async def call(worker: str) -> None:
            with suppress(TimeoutError, OSError):
                if await asyncio.wait_for(self._call_on(worker, function, *args), seconds):
                    note(worker)

        def begin() -> None:
            for worker in workers:
                task = self._scheduler.loop.create_task(call(worker))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

        self._scheduler.soon(begin)

    def leave_out(self, workers: Mapping[str, Collection[Hashable]]) -> None:
        """Give workers no more work until they answer and run none of these tasks any more.

        workers: keys of tasks, by the address of the worker.
        """
        for worker, keys in workers.items():
            if worker not in self.left_out:
                self.left_out.add(worker)
                self._scheduler.soon(self._watch, worker, frozenset(keys))

    def _watch(self, worker: str, keys: frozenset) -> None:
        async def watch() -> None:
            # There is no deadline: nobody waits for it, and `close` ends it.
            while not self._is_free.get(worker):
                with suppress(Exception):
                    is_free = (await self._call_on(worker, _runs_none_of, keys)).get(worker)
                    if is_free is not None:
                        self._is_free[worker] = False
                    if is_free:
                        self._is_free[worker] = await self._takes_tasks(worker)
                await asyncio.sleep(_AGAIN_SECONDS)

        self._watches[worker] = asyncio.create_task(watch())

    async def _takes_tasks(self, worker: str) -> bool:
        """Return whether a worker runs a task, as soon as it has.

        It answers questions over a new connection. That over which tasks come is older: where the network was
        gone for a while, TCP tries again only after about as much time again, and all would wait for it.
        """
        ended = asyncio.Event()
        key = f"dasknn-probe-{uuid.uuid4().hex[:12]}"
        probe = self._scheduler.client.submit(_answer, key=key, workers=[worker])
        try:
            probe.add_done_callback(lambda _: self._scheduler.soon(ended.set))
            await ended.wait()
            return probe.status == "finished"
        finally:
            probe.release()

    def _call_on(self, worker: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return what to await: {worker: result}, or {} where it failed. Only in the event loop."""
        return self._scheduler.client.run(function, *args, workers=[worker], on_error="ignore")

    def take_back(self, also_busy: bool = False) -> None:
        """Let those workers work again that have answered in the meantime.

        also_busy: also those on which something that was given up still runs.
        """
        self._forget({worker for worker, is_free in self._is_free.copy().items() if is_free or also_busy})

    def _forget(self, workers: Collection[str]) -> None:
        for worker in workers:
            self.left_out.discard(worker)
            self._scheduler.soon(self._end_watch, worker)

    def _end_watch(self, worker: str) -> None:
        if (task := self._watches.pop(worker, None)) is not None:
            task.cancel()
        self._is_free.pop(worker, None)

    def close(self) -> None:
        """Stop asking workers."""
        self._forget(list(self.left_out))
        self.lag.close()
        self._scheduler.soon(lambda: [task.cancel() for task in self._asking])


def _answer() -> None:
    """Do nothing: a worker that returns from this is alive."""


def _runs_none_of(keys: Collection[Hashable], dask_worker: Any) -> bool:
    return not any(task.key in keys for task in dask_worker.state.all_running_tasks)
