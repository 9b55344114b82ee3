"""Finds where to run graphs: on a cluster, or in this process."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.origins import check_client, selection


@contextmanager
def connect(
    client, distributed: bool, max_faults: int = MAX_FAULTS, *, workers=None, data: Collection[Any] = ()
) -> Iterator[Executor]:
    """Yield where to run graphs: the cluster of the client, or of the current one, or this process.

    workers: which of them may be used, see `origins.selection`. data: the collections that will be used;
    ValueError: one of them is held by another cluster.

    Inside a task, plain data (`distributed` False) stays in its process, so that a search with as many fits
    as threads cannot wait for itself; a Dask collection is trained on the cluster by a task that secedes.
    TypeError: an asynchronous client, or no client.
    """
    with ExitStack() as stack:
        if _inside_a_task():
            from distributed import worker_client

            client = stack.enter_context(worker_client()) if distributed else None
        else:
            client = client or _current_client()
        if client is None:
            if workers is not None and not _inside_a_task():
                raise ValueError(
                    f"Expected a client, since the model was told its workers, {workers!r}; received none. "
                    "Set model.client, or connect one: distributed.Client(address or cluster)."
                )
            yield LocalExecutor(max_faults)
            return
        if getattr(client, "asynchronous", False):
            raise TypeError(
                "Expected a synchronous client, received one with asynchronous=True. Fit with "
                "Client(..., asynchronous=False), or in a thread: asyncio.to_thread(est.fit, X, y)."
            )
        from distributed import Client

        if not isinstance(client, Client):
            raise TypeError(
                f"Expected a distributed Client, received {type(client).__name__}: {client!r}. Use "
                "distributed.Client(address or cluster)."
            )
        check_client(client, data)
        yield stack.enter_context(ClusterExecutor(client, max_faults, selection(workers, data)))


def _inside_a_task() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _current_client():
    """Return the client that is current in this process, without importing distributed for it."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
