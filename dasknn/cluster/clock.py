"""How workers spend their time in a training by tasks, which the scheduler sees as each task ends."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin


class Clock(SchedulerPlugin):
    """Adds up, on the scheduler, the seconds that tasks of one client's trainings take on each worker.

    It is removed by `stop`, or when the client leaves.
    """

    def __init__(self, client: str):
        self.name = _name(client)
        self._client = client
        self._runs: set[str] = set()
        # (compute, transfer) by worker
        self._spent: dict[str, tuple[float, float]] = {}

    def update_graph(self, scheduler: Any, *, client: str, keys: Iterable[Hashable], **_: Any) -> None:
        """Remember the client's graphs: see `graph.Graph`."""
        if client == self._client:
            self._runs |= {run for key in keys if (run := _run_of(key))}

    def transition(
        self,
        key: Hashable,
        start: str,
        finish: str,
        *_: Any,
        worker: Any = None,
        startstops: Iterable[Mapping[str, Any]] = (),
        **__: Any,
    ) -> None:
        """Count the seconds of a task that has ended."""
        if start != "processing" or finish != "memory" or _run_of(key) not in self._runs:
            return
        seconds = {"compute": 0.0, "transfer": 0.0}
        for part in startstops:
            if part["action"] in seconds:
                seconds[part["action"]] += part["stop"] - part["start"]
        compute, transfer = self._spent.get(worker, (0.0, 0.0))
        self._spent[worker] = compute + seconds["compute"], transfer + seconds["transfer"]

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Remove the clock with its client."""
        if client == self._client:
            scheduler.remove_plugin(self.name)

    def take(self, scheduler: Any) -> dict[str, tuple[float, float]]:
        """Return (seconds of computing, of fetching data) since the last call, by worker.

        They are a mean over the worker's threads.
        """
        spent, self._spent = self._spent, {}
        self._runs.clear()
        workers = scheduler.workers
        threads = {at: workers[at].nthreads if at in workers else 1 for at in spent}
        return {
            at: (compute / threads[at], transfer / threads[at]) for at, (compute, transfer) in spent.items()
        }


def _name(client: str) -> str:
    return f"dasknn-clock-{client}"


def _run_of(key: Hashable) -> str | None:
    parts = key.rsplit("-", 2) if isinstance(key, str) and key.startswith("dasknn-") else ()
    return parts[1] if len(parts) == 3 else None


# --- functions that a client runs on the scheduler --------------------------------------------------


def start(client: str, dask_scheduler: Any) -> None:
    """Start counting the tasks of a client, unless it has already left: nobody would stop the clock."""
    if client in dask_scheduler.clients:
        dask_scheduler.add_plugin(Clock(client), idempotent=True, name=_name(client))


def take(client: str, dask_scheduler: Any) -> dict[str, tuple[float, float]]:
    """Return the seconds counted since the last call: see `Clock.take`."""
    clock = dask_scheduler.plugins.get(_name(client))
    return clock.take(dask_scheduler) if clock else {}


def stop(client: str, dask_scheduler: Any) -> None:
    """Stop counting."""
    if _name(client) in dask_scheduler.plugins:
        dask_scheduler.remove_plugin(_name(client))
