"""Runs graphs on Dask's local scheduler, in this process."""

from __future__ import annotations

import dask
import dask.threaded

from dasknn.cluster.executor import Executor
from dasknn.cluster.limits import available_cpus, available_memory


class LocalExecutor(Executor):
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
