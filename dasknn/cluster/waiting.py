"""Waits for results: what state they are in, which workers they need, and when a wait ends.

Every wait has a deadline. A cluster may be shared: only workers that have to do with keys of this run are
judged, and only what happens to those keys counts as progress.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from dasknn.cluster.liveness import Inquiry, Liveness
from dasknn.cluster.placement import Home
from dasknn.cluster.scheduler import WATCH_SECONDS
from dasknn.exceptions import ClusterTimeoutError, WorkerLeftError

# Seconds between two looks at the state of tasks, or this many times what a look takes if that is more.
_POLL_SECONDS = 2.0
_LOOK_SHARE = 20
# Tasks may be the user's and keep a process busy, so their workers may be silent for this many times
# `dasknn.silence`.
_PATIENCE = 4
# Members of a process group are asked when so much of `dasknn.silence` is over, and have all of it to answer.
_FIRST_SHARE = 0.25
# Between two looks no more time passes for workers: in what it took longer, this process or the scheduler was
# away, and could not have heard them.
_LONGEST_STEP_SECONDS = 2 * WATCH_SECONDS


class Awaited(NamedTuple):
    """The state of tasks that are waited for.

    Attributes
    ----------
    n_unfinished : int
        How many of them, and of the tasks that they depend on, have no result.
    running : dict
        Keys of those that were sent to workers, by address.
    holding : list of str
        Addresses of the workers that hold results which they depend on.
    others : dict
        How many other tasks the same workers have, by address.
    """

    n_unfinished: int
    running: dict[str, list[Hashable]]
    holding: list[str]
    others: dict[str, int]

    @property
    def workers(self) -> set[str]:
        """All workers that these tasks have to do with."""
        return {*self.running, *self.holding}

    def has_not_moved_since(self, earlier: Awaited | None) -> bool:
        """Return whether nothing has happened to these tasks since; tasks of others do not count."""
        return earlier is not None and self._replace(others=earlier.others) == earlier


class ClusterView(ABC):
    """What a wait needs to know of the cluster; `ClusterExecutor` implements it.

    Attributes
    ----------
    timeout : float
        Seconds without progress after which a wait ends.
    silence : float
        Seconds that a worker may be silent; more while this machine or the workers are late.
    liveness : Liveness
    """

    timeout: float
    liveness: Liveness

    @property
    @abstractmethod
    def silence(self) -> float: ...

    @abstractmethod
    def check_present(self, at: Sequence[Home]) -> None:
        """Raise WorkerLeftError if one of these workers is gone."""

    @abstractmethod
    def stranded(self) -> set[str]:
        """Return keys of held results that are missing, and that no remaining worker may compute."""

    @abstractmethod
    def awaited(self, held: Sequence[Any]) -> Awaited:
        """Return the state of held results."""


class Wait:
    """A wait for held results: asks workers whether they live, and decides when the wait ends.

    Parameters
    ----------
    cluster : ClusterView
    held : sequence of held results
    at : sequence of addresses
        Workers without which there will be no result.
    """

    def __init__(self, cluster: ClusterView, held: Sequence[Any], at: Sequence[Home]):
        self._cluster, self._held, self._at = cluster, held, at
        # When something last changed, and when to look again.
        self._since = time.monotonic()
        self._next_look = self._since + _POLL_SECONDS
        self._seen: Awaited | None = None
        # Seconds that workers had to show that they live, at what of them they did, and at what they were
        # asked.
        self._passed = self._heard = self._asked = 0.0
        self._looked = self._since
        self._inquiry: Inquiry | None = None

    def look(self) -> None:
        """Check whether the wait has to end. Call it often: most calls cost nothing.

        Raises
        ------
        WorkerLeftError
            A worker that is needed is gone, or does not answer and is left out from now on.
        ClusterTimeoutError
            There was no progress for too long.
        """
        cluster, now = self._cluster, time.monotonic()
        if self._at:
            self.check_members()
        else:
            self._pass(now)
        if now < self._next_look:
            return
        if lost := cluster.stranded():
            raise WorkerLeftError(f"The cluster has lost all workers that {len(lost)} tasks were sent to.")
        seen = cluster.awaited(self._held)
        after = time.monotonic()
        self._next_look = after + max(_POLL_SECONDS, _LOOK_SHARE * (after - now))
        if not seen.has_not_moved_since(self._seen):
            self._seen, self._since = seen, after
        elif after - self._since > cluster.timeout:
            raise ClusterTimeoutError(self._no_progress(seen))
        if not self._at:
            # Workers that are left out have been asked already: there may be no choice but to wait for them.
            workers = seen.workers - cluster.liveness.left_out
            self._leave_out(self._silent(workers, (_PATIENCE - 1) * cluster.silence), seen.running)
            if self._inquiry is not None:
                self._next_look = min(self._next_look, after + cluster.silence)

    def check_members(self) -> None:
        """Raise WorkerLeftError if one of `at` is gone, or does not answer and is left out from now on."""
        self._pass(time.monotonic())
        self._cluster.check_present(self._at)
        silent = self._silent(set(map(str, self._at)), _FIRST_SHARE * self._cluster.silence)
        self._leave_out(silent, {worker: [future.key for future in self._held] for worker in silent})

    def _pass(self, now: float) -> None:
        self._passed += min(now - self._looked, _LONGEST_STEP_SECONDS)
        self._looked = now

    def _silent(self, workers: Set[str], seconds: float) -> set[str]:
        """Return those of these workers that exist, and did not answer within `silence` when they were asked.

        They are asked after so many seconds without a sign of life. This does not wait for answers.
        """
        cluster, inquiry = self._cluster, self._inquiry
        if inquiry is None:
            if self._passed - self._heard >= seconds:
                # What is asked for longer than any silence may be is given up by itself.
                self._inquiry = cluster.liveness.ask(workers, 2 * _PATIENCE * cluster.silence)
                self._asked = self._passed
            return set()
        if not inquiry.missing:
            self._inquiry, self._heard = None, self._passed
            return set()
        if self._passed - self._asked < cluster.silence:
            return set()
        self._inquiry, self._heard = None, self._passed
        return inquiry.missing & workers & set(cluster.liveness.alive())

    def _leave_out(self, silent: Set[str], running: Mapping[str, Sequence[Hashable]]) -> None:
        if silent:
            self._cluster.liveness.leave_out({worker: running.get(worker, ()) for worker in silent})
            raise WorkerLeftError(
                f"No answer for {self._cluster.silence:g} s from {', '.join(sorted(silent))}, left out until "
                "there is one."
            )

    def _no_progress(self, seen: Awaited) -> str:
        cluster, silent = self._cluster, self._cluster.liveness.left_out
        told = []
        for address in sorted({*seen.running, *(seen.workers & silent)}):
            keys, others = seen.running.get(address, []), seen.others.get(address, 0)
            name = f"{address} (does not answer)" if address in silent else address
            own = ", ".join(map(str, keys[:5])) + ", ..." * (len(keys) > 5) or "results that it holds"
            told.append(f"{name}: {own}" + f" ({others} tasks of others are there, too)" * bool(others))
        return (
            f"None of dasknn's tasks has ended for {cluster.timeout:.0f} s. Waited for "
            f"{'; '.join(told) or 'workers: none of them runs such a task'}. Look at these workers on the "
            "dashboard, or raise dask.config 'dasknn.timeout'."
        )


# Functions that the scheduler calls are defined inside others: then they are sent by value, and the scheduler
# needs no dasknn.


def state_of_tasks(keys: Collection[Hashable]) -> Callable[[Any], tuple]:
    """Return a function that finds the fields of `Awaited` for these keys, on the scheduler."""

    def look(dask_scheduler: Any) -> tuple:
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


def out_of_reach(keys: Collection[Hashable], silent: Collection[str]) -> Callable[[Any], list]:
    """Return a function that finds which of these keys only silent workers can bring, on the scheduler."""

    def find(dask_scheduler: Any) -> list:
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
