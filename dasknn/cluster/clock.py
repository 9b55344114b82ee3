"""What workers spend their time on in a training by tasks; the scheduler hears when each task ends."""

from __future__ import annotations

from distributed.diagnostics.plugin import SchedulerPlugin


class Clock(SchedulerPlugin):
    """Adds up, on the scheduler, what the tasks of one client's trainings take on each worker.

    It goes when it is told to, or with the client.
    """

    def __init__(self, client: str):
        self.name = _name(client)
        self._client = client
        self._runs: set[str] = set()
        # (compute, transfer) by worker
        self._spent: dict[str, tuple[float, float]] = {}

    def update_graph(self, scheduler, *, client, keys, **_):
        """Remember which graphs are ours: see `graph.Graph`."""
        if client == self._client:
            self._runs |= {run for key in keys if (run := _run_of(key))}

    def transition(self, key, start, finish, *_, worker=None, startstops=(), **__):
        """Count the seconds of a task that has ended."""
        if start != "processing" or finish != "memory" or _run_of(key) not in self._runs:
            return
        seconds = {"compute": 0.0, "transfer": 0.0}
        for part in startstops:
            if part["action"] in seconds:
                seconds[part["action"]] += part["stop"] - part["start"]
        compute, transfer = self._spent.get(worker, (0.0, 0.0))
        self._spent[worker] = compute + seconds["compute"], transfer + seconds["transfer"]

    def remove_client(self, scheduler, client):
        """Leave nothing behind."""
        if client == self._client:
            scheduler.remove_plugin(self.name)

    def take(self, scheduler) -> dict[str, tuple[float, float]]:
        """Return (seconds of computing, of fetching data) of each worker since the last call.

        Seconds of its threads, divided by their number.
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


def _run_of(key) -> str | None:
    parts = key.rsplit("-", 2) if isinstance(key, str) and key.startswith("dasknn-") else ()
    return parts[1] if len(parts) == 3 else None


# --- what the client has the scheduler do -----------------------------------------------------------


def start(client: str, dask_scheduler) -> None:
    """Begin to count the tasks of a client, unless it has gone meanwhile: nobody would stop it."""
    if client in dask_scheduler.clients:
        dask_scheduler.add_plugin(Clock(client), idempotent=True, name=_name(client))


def take(client: str, dask_scheduler) -> dict[str, tuple[float, float]]:
    """Return what has been counted since the last call."""
    clock = dask_scheduler.plugins.get(_name(client))
    return clock.take(dask_scheduler) if clock else {}


def stop(client: str, dask_scheduler) -> None:
    """Count no more."""
    if _name(client) in dask_scheduler.plugins:
        dask_scheduler.remove_plugin(_name(client))
