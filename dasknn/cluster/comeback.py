"""A preload for Dask's workers: one that has lost its scheduler is started again by its nanny.

    dask worker tcp://scheduler:8786 --nanny --preload dasknn.cluster.comeback

A worker whose connection to the scheduler breaks ends, since Dask's workers do not reconnect, and tells its
nanny to end, too. So a host that was cut off for longer than `distributed.comm.timeouts.tcp` (30 s) never
comes back, although nothing is wrong with it. With this preload the nanny stays. The new process waits for
the scheduler, for as long as `--death-timeout` allows. A worker that the scheduler closes or retires ends as
before.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("dasknn")

# What Dask's worker gives as the reason when its connection breaks.
_BROKEN = "worker-handle-scheduler-connection-broken"


def dask_setup(worker: Any) -> None:
    """Let the nanny of this worker stay when the connection to the scheduler breaks; called by Dask."""
    if not getattr(worker, "nanny", None):
        logger.warning("%s has no nanny that could start it again; use dask worker --nanny.", worker)
        return
    close = worker.close

    async def close_alone(*args: Any, **settings: Any) -> Any:
        if settings.get("reason") == _BROKEN:
            settings["nanny"] = False
        return await close(*args, **settings)

    worker.close = close_alone
