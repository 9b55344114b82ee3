"""The preload by which workers come back: tests/lab does it with hosts that are cut off."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from distributed import Worker

from dasknn.cluster import comeback


@pytest.mark.parametrize(("reason", "nanny"), [(comeback._BROKEN, False), ("scheduler-close", True)])
def test_only_a_broken_connection_leaves_the_nanny_alone(reason, nanny):
    closed = []

    async def close(nanny=True, reason=""):
        closed.append((reason, nanny))

    worker = SimpleNamespace(nanny="tcp://10.0.0.1:4000", close=close)
    comeback.dask_setup(worker)
    asyncio.run(worker.close(reason=reason))
    assert closed == [(reason, nanny)]


def test_dask_still_gives_that_reason_for_a_broken_connection():
    assert f'close(reason="{comeback._BROKEN}")' in inspect.getsource(Worker.handle_scheduler)
    assert "nanny" in inspect.signature(Worker.close).parameters


def test_a_worker_without_a_nanny_is_told_of(caplog):
    comeback.dask_setup(SimpleNamespace(nanny=None))
    assert "--nanny" in caplog.text
