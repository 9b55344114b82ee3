"""Chooses where graphs run: on a cluster, or in this process."""

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
    client: Any,
    distributed: bool,
    max_faults: int = MAX_FAULTS,
    *,
    workers: Any = None,
    data: Collection[Any] = (),
) -> Iterator[Executor]:
    """Yield the executor to use: of the client's cluster, or the current client's, or of this process.

    Inside a task, plain data stays in its process, so that a search with as many fits as threads cannot wait
    for itself; a Dask collection is trained on the cluster by a task that secedes.

    Parameters
    ----------
    client : distributed.Client or None
        None for the current one, if there is one.
    distributed : bool
        Whether the data is a Dask collection.
    max_faults : int, default=10
    workers : str, list of str or None
        Workers that may be used, see `origins.selection`.
    data : collections
        The data that will be used.

    Raises
    ------
    ValueError
        Another cluster holds one of the collections, or there are `workers` and no client.
    TypeError
        The client is asynchronous, or not a client.
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
                    f"Expected a client, since the model has workers set, {workers!r}; received none. "
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


def _current_client() -> Any:
    """Return the current client of this process, without importing distributed for that."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
