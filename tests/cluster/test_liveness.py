"""Which workers are silent: what counts as silence on a machine that has too much to do."""

import asyncio
import os
import signal
import threading
import time
from types import SimpleNamespace

import dask
import pytest

from dasknn.cluster import lag, waiting
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.lag import Lag
from dasknn.cluster.liveness import Inquiry
from dasknn.exceptions import WorkerLeftError

DEADLINE = 60


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def loop():
    """An event loop in a thread, and an event until which something may block it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    end = threading.Event()
    yield loop, end
    end.set()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_silence_grows_while_the_event_loop_is_late_and_shrinks_again(loop, monkeypatch):
    monkeypatch.setattr(lag, "_HALF_LIFE_SECONDS", 0.1)
    loop, end = loop
    found = Lag(loop)
    loop.call_soon_threadsafe(end.wait)
    until(lambda: found.patience(0.1) > 0.1)
    # However late it is, somebody who is gone is noticed.
    until(lambda: found.patience(0.1) == pytest.approx(0.4))
    assert found.patience(1000.0) == 1000.0
    end.set()
    until(lambda: found.patience(0.5) == 0.5)
    found.close()


def test_an_executor_is_more_patient_while_its_clients_loop_is_blocked(client):
    with dask.config.set({"dasknn.silence": 0.2}), ClusterExecutor(client) as tasks:
        end = threading.Event()
        client.loop.add_callback(end.wait)
        try:
            until(lambda: tasks.silence > 0.2)
        finally:
            end.set()


def test_a_worker_that_answers_late_makes_silence_longer(new_cluster):
    client = new_cluster(1)
    ((worker, pid),) = client.run(os.getpid).items()
    with dask.config.set({"dasknn.silence": 0.5}), ClusterExecutor(client) as tasks:
        os.kill(pid, signal.SIGSTOP)
        inquiry = tasks.liveness.ask([worker], DEADLINE)
        time.sleep(1)
        assert inquiry.missing == {worker}
        os.kill(pid, signal.SIGCONT)
        until(lambda: not inquiry.missing)
        until(lambda: tasks.silence > 0.5)


class _Cluster:
    """A cluster whose workers never answer, in a time of its own."""

    timeout, silence = 1e9, 10.0
    check_present = staticmethod(lambda at: None)

    def __init__(self, patch):
        self.now, self.asked, self.left = 0.0, [], []
        patch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.liveness = SimpleNamespace(
            ask=self.ask, alive=lambda: {"a": 1, "b": 1}, leave_out=self.left.append
        )

    def ask(self, workers, seconds):
        self.asked.append(self.now)
        return Inquiry(workers)


def test_a_member_is_left_out_that_has_not_answered_for_the_time_of_silence(monkeypatch):
    cluster = _Cluster(monkeypatch)
    wait = waiting.Wait(cluster, [], ["a", "b"])

    def look_for(seconds):
        for _ in range(round(2 * seconds)):
            cluster.now += 0.5
            wait.check_members()

    look_for(12)
    (asked,) = cluster.asked
    assert asked <= cluster.silence / 2
    with pytest.raises(WorkerLeftError, match="No answer for 10 s from a, b"):
        look_for(2)
    assert cluster.left == [{"a": [], "b": []}]


def test_a_wait_that_was_itself_away_takes_nobody_for_silent(monkeypatch):
    cluster = _Cluster(monkeypatch)
    wait = waiting.Wait(cluster, [], ["a", "b"])
    for _ in range(8):
        # Between two looks this process was stopped, or the scheduler did not answer.
        cluster.now += 1000
        wait.check_members()
    assert cluster.asked
