"""Graphs that run in this process."""

import dask.system
import distributed.system

from dasknn.cluster.local import LocalExecutor


def test_processors_and_memory_are_those_of_the_container(monkeypatch):
    monkeypatch.setattr(dask.system, "CPU_COUNT", 2)
    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 12345)
    with LocalExecutor() as tasks:
        assert tasks.slots() == [None, None]
        assert tasks.memory_limit() == 12345
