"""Waits for results: what becomes of them, whom they take, and when a wait ends.

Every wait has a deadline. We judge only workers that have to do with keys of this run, and count only what
becomes of those keys: a cluster is not ours alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol

from dasknn.cluster.liveness import Liveness
from dasknn.exceptions import ClusterTimeoutError, WorkerLeftError

# How often to look what becomes of our tasks, or after so many times what a look takes.
_POLL_SECONDS = 2.0
_LOOK_SHARE = 20
# Times `dasknn.silence` for tasks that may be the user's and keep a process busy; members are asked sooner.
_PATIENCE = 4


class Awaited(NamedTuple):
    """What tasks that are waited for stand at.

    n_unfinished: how many, with what they need. running: keys that workers have got, by address. holding: who
    has results that they need. others: how many tasks of other people the same workers have got.
    """

    n_unfinished: int
    running: dict[str, list[Hashable]]
    holding: list[str]
    others: dict[str, int]

    @property
    def workers(self) -> set[str]:
        """All workers that these tasks have to do with."""
        return {*self.running, *self.holding}

    def same_of_ours(self, earlier: Awaited | None) -> bool:
        """Return whether nothing has become of our tasks since, whatever has become of those of others."""
        return earlier is not None and self._replace(others=earlier.others) == earlier


class Tasks(Protocol):
    """What a wait asks of `ClusterTasks`."""

    timeout: float
    silence: float
    liveness: Liveness

    def check_present(self, at: Sequence[str | None]) -> None:
        """Raise WorkerLeftError if one of these workers is gone."""

    def stranded(self) -> set[str]:
        """Return keys of held results that no worker which is left may compute."""

    def awaited(self, held: Sequence[Any]) -> Awaited:
        """Return what held results stand at."""


class Wait:
    """A wait for held results that take their time: who is asked whether they live, and when it ends.

    at: workers without which there will be no result.
    """

    def __init__(self, tasks: Tasks, held: Sequence[Any], at: Sequence[str | None]):
        self._tasks, self._held, self._at = tasks, held, at
        # Since when nothing has changed, when workers have last shown that they live, when to look again.
        self._since = self._heard = time.monotonic()
        self._next_look = self._since + _POLL_SECONDS
        self._seen: Awaited | None = None

    def look(self) -> None:
        """WorkerLeftError: someone whom it takes is gone, or does not answer and is left out from now on.
        ClusterTimeoutError: nothing has become of it for too long.
        """
        tasks, now = self._tasks, time.monotonic()
        if self._at:
            self.check_members()
        if now < self._next_look:
            return
        if lost := tasks.stranded():
            raise WorkerLeftError(f"The cluster has lost all workers that {len(lost)} tasks were given to.")
        seen = tasks.awaited(self._held)
        after = time.monotonic()
        self._next_look = after + max(_POLL_SECONDS, _LOOK_SHARE * (after - now))
        if not seen.same_of_ours(self._seen):
            self._seen, self._since = seen, after
        elif after - self._since > tasks.timeout:
            raise ClusterTimeoutError(self._story(seen))
        if not self._at and after - self._heard > _PATIENCE * tasks.silence:
            # Those who are left out have been asked: there may be no other way than to wait for them.
            self._leave_out(
                tasks.liveness.silent(seen.workers - tasks.liveness.left_out, tasks.silence), seen.running
            )
            self._heard = time.monotonic()

    def check_members(self) -> None:
        """WorkerLeftError: one of `at` is gone, or does not answer and is left out from now on."""
        tasks = self._tasks
        tasks.check_present(self._at)
        if time.monotonic() - self._heard < tasks.silence:
            return
        workers, keys = set(map(str, self._at)), [future.key for future in self._held]
        silent = tasks.liveness.silent(workers, tasks.silence)
        self._leave_out(silent, dict.fromkeys(silent, keys))
        self._heard = time.monotonic()

    def _leave_out(self, silent: Set[str], running: Mapping[str, Sequence[Hashable]]) -> None:
        if silent:
            self._tasks.liveness.leave_out({worker: running.get(worker, ()) for worker in silent})
            raise WorkerLeftError(
                f"No answer for {self._tasks.silence:g} s from {', '.join(sorted(silent))}, left out until "
                "there is one."
            )

    def _story(self, seen: Awaited) -> str:
        tasks = self._tasks
        told = []
        for address in sorted({*seen.running, *(seen.workers & tasks.liveness.left_out)}):
            keys, others = seen.running.get(address, []), seen.others.get(address, 0)
            name = f"{address} (does not answer)" if address in tasks.liveness.left_out else address
            own = ", ".join(map(str, keys[:5])) + ", ..." * (len(keys) > 5) or "results that it holds"
            told.append(f"{name}: {own}" + f" ({others} tasks of others are there, too)" * bool(others))
        return (
            f"No task has ended for {tasks.timeout:.0f} s. Waited for "
            f"{'; '.join(told) or 'workers: none is running a task of ours'}. Look at these workers on the "
            "dashboard, or raise dask.config 'dasknn.timeout'."
        )


# Functions that the scheduler calls are made inside others: so they are sent as they are, and need no dasknn
# in its process.


def what_becomes_of(keys: Collection[Hashable]) -> Callable:
    """Return a function that asks the scheduler for the fields of `Awaited`, of these keys."""

    def look(dask_scheduler):
        tasks = dask_scheduler.tasks
        todo = [tasks[key] for key in keys if key in tasks]
        seen, n_unfinished = set(todo), 0
        running: dict[str, list] = {}
        holding: set[str] = set()
        while todo:
            task = todo.pop()
            if task.state == "memory":
                holding.update(worker.address for worker in task.who_has)
                continue
            n_unfinished += 1
            if task.processing_on is not None:
                running.setdefault(task.processing_on.address, []).append(task.key)
            new = task.dependencies - seen
            seen |= new
            todo += new
        workers = dask_scheduler.workers
        others = {at: len(workers[at].processing) - len(own) for at, own in running.items() if at in workers}
        return n_unfinished, running, sorted(holding), others

    return look


def out_of_reach(keys: Collection[Hashable], silent: Collection[str]) -> Callable:
    """Return a function that asks the scheduler which of these keys nobody but silent workers can bring."""

    def find(dask_scheduler):
        tasks = dask_scheduler.tasks
        todo = [tasks[key] for key in keys if key in tasks]
        seen, stuck = set(todo), []
        while todo:
            task = todo.pop()
            if task.state == "memory":
                at = task.who_has
            else:
                at = [task.processing_on] if task.processing_on is not None else []
                new = task.dependencies - seen
                seen |= new
                todo += new
            if at and all(worker.address in silent for worker in at):
                stuck.append(task)
        found = set()
        while stuck:
            task = stuck.pop()
            if task not in found:
                found.add(task)
                stuck += [user for user in task.dependents if user in seen and user.state != "memory"]
        return [key for key in keys if tasks.get(key) in found]

    return find
