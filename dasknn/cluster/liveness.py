"""Who answers, and who is left out of our rounds until it does.

A cluster is not ours alone: a worker that does not answer gets no more of our work and is asked again; nobody
ends it. We judge only workers that have to do with keys of this run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from typing import Any

# Whoever is left out is asked again after so long, in the background.
_AGAIN_SECONDS = 0.5


class Liveness:
    """The workers of a cluster, as far as they answer.

    loop: the client's event loop. in_loop(function, *args): what a coroutine function brings, called there.
    nthreads, call_on: methods of the client: the threads of workers, and calls there, past all tasks.
    """

    def __init__(self, loop, in_loop: Callable[..., Any], nthreads: Callable, call_on: Callable):
        self._loop, self._in_loop = loop, in_loop
        self._nthreads, self._call_on = nthreads, call_on
        #: Workers that did not answer, or did not end what we gave up, and get no work.
        self.left_out: set[str] = set()
        # What the event loop has found out of them: who answers, and whether nothing of ours runs there.
        self._is_free: dict[str, bool] = {}
        self._watches: dict[str, asyncio.Task] = {}

    def alive(self) -> dict[str, int]:
        """Return the threads of each worker that the scheduler knows, by address."""
        threads = self._in_loop(self._nthreads)
        self._forget(self.left_out - set(threads))
        return threads

    def call(self, function: Callable, *args, workers: Collection[str], seconds: float) -> set[str]:
        """Call a short function in these workers' processes, past all that runs there.

        Return those that have answered within so long.
        """
        alive = [worker for worker in self.alive() if worker in workers]

        async def ask(worker: str) -> dict:
            with suppress(TimeoutError, OSError):
                answer = self._call_on(function, *args, workers=[worker], on_error="ignore")
                return await asyncio.wait_for(answer, seconds)
            return {}

        async def ask_all() -> set[str]:
            return set().union(*await asyncio.gather(*map(ask, alive)))

        return self._in_loop(ask_all)

    def silent(self, workers: Collection[str], seconds: float) -> set[str]:
        """Return those of these workers that are there, and have not answered within so long."""
        hung = set(workers) - self.call(_answer, workers=workers, seconds=seconds)
        return hung & set(self.alive()) if hung else hung

    def leave_out(self, workers: Mapping[str, Collection[Hashable]]) -> None:
        """Give these workers no more work until they answer and run none of these tasks any more."""
        for worker, keys in workers.items():
            if worker not in self.left_out:
                self.left_out.add(worker)
                # A loop that is closed runs nothing.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._watch, worker, frozenset(keys))

    def _watch(self, worker: str, keys: frozenset) -> None:
        async def watch() -> None:
            # However long it takes: nobody waits for it, and `close` ends it.
            while not self._is_free.get(worker):
                with suppress(Exception):
                    answers = await self._call_on(_runs_none_of, keys, workers=[worker], on_error="ignore")
                    self._is_free.update(answers)
                await asyncio.sleep(_AGAIN_SECONDS)

        self._watches[worker] = asyncio.create_task(watch())

    def take_back(self, also_busy: bool = False) -> None:
        """Let those work again that have answered in the meantime.

        also_busy: those, too, on which something still runs that we gave up.
        """
        self._forget({worker for worker, is_free in self._is_free.copy().items() if is_free or also_busy})

    def _forget(self, workers: Collection[str]) -> None:
        for worker in workers:
            self.left_out.discard(worker)
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end_watch, worker)

    def _end_watch(self, worker: str) -> None:
        if (task := self._watches.pop(worker, None)) is not None:
            task.cancel()
        self._is_free.pop(worker, None)

    def close(self) -> None:
        """Ask nobody any more."""
        self._forget(list(self.left_out))


def _answer() -> None:
    """What a worker does to show that it lives."""


def _runs_none_of(keys: Collection[Hashable], dask_worker) -> bool:
    return not any(task.key in keys for task in dask_worker.state.all_running_tasks)
