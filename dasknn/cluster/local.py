"""Runs graphs on Dask's local scheduler, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import dask
import dask.system
import dask.threaded

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home


class LocalExecutor(Executor):
    """Runs graphs on Dask's local scheduler (threads, unless dask.config says otherwise).

    Its held results are the values themselves.
    """

    @property
    def at_once(self) -> int:
        return 2 * len(self.slots())

    def slots(self) -> list[Home]:
        return [None] * (dask.config.get("num_workers", None) or dask.system.CPU_COUNT)

    def memory_limit(self) -> float:
        # Not at the top: distributed takes a while to import, and most processes without a cluster never ask.
        try:
            import distributed.system
        except ImportError:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return distributed.system.MEMORY_LIMIT

    def start(self, graph: Graph, wanted: Sequence[TaskRef]) -> list[Any]:
        name = dask.config.get("scheduler", None)
        # A current client sets its own name; what has to stay in this process does not go there.
        is_local = name not in (None, "dask.distributed", "distributed")
        get = dask.base.get_scheduler(scheduler=name) if is_local else dask.threaded.get
        return list(get(graph.layers().to_dict(), [ref.key for ref in wanted]))

    def fetch(self, held: Sequence[Any], at: Sequence[Home] = ()) -> Iterator[tuple[int, Any]]:
        return enumerate(held)

    def wait_for(self, held: Sequence[Any]) -> None:
        pass

    def put(self, values: Sequence[Any], homes: Sequence[Home]) -> list[Any]:
        return list(values)

    def drop(self, held: Sequence[Any]) -> None:
        pass

    def close(self) -> None:
        pass

    def explain_loss(self, error: BaseException) -> None:
        pass
