"""What workers spend their time on: seen by the scheduler, or told by the members themselves."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from dasknn import MLPClassifier
from dasknn.callbacks import LambdaCallback
from dasknn.cluster.clock import Clock
from dasknn.training.peers import OnPeers, Report

ROADS = {
    "peers": {"transport": "peer", "strategy": "gradients"},
    "tasks": {"transport": "tasks", "strategy": "gradients"},
    "predictions": {"strategy": "predictions"},
    "lbfgs": {"solver": "lbfgs"},
}


def clocks(client):
    return client.run_on_scheduler(
        lambda dask_scheduler: [name for name in dask_scheduler.plugins if "clock" in name]
    )


@pytest.mark.parametrize("road", ROADS)
def test_the_time_of_each_worker_adds_up_to_that_of_the_epoch(client, dask_digits, road):
    model = MLPClassifier((16,), max_iter=2, replicas=4, random_state=0, **ROADS[road]).fit(*dask_digits)
    for entry in model.history_:
        assert set(entry["workers"]) == set(client.nthreads())
        for parts in entry["workers"].values():
            assert parts["compute"] > 0
            assert min(parts.values()) >= 0
            assert sum(parts.values()) == pytest.approx(entry["seconds"], rel=1e-6)


def test_training_in_this_process_has_no_workers(digits):
    model = MLPClassifier((4,), max_iter=1).fit(*digits)
    assert model.history_[0]["workers"] == {}


def test_the_scheduler_keeps_no_clock_after_a_training(client, dask_digits):
    seen = []
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.extend(clocks(client)))
    MLPClassifier((4,), max_iter=1, callbacks=[look], **ROADS["tasks"]).fit(*dask_digits)
    assert len(seen) == 1
    deadline = time.monotonic() + 20
    while clocks(client):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(clock, key, worker, *parts):
    startstops = [{"action": action, "start": 10.0, "stop": 10.0 + seconds} for action, seconds in parts]
    clock.transition(key, "processing", "memory", worker=worker, startstops=startstops)


def test_the_clock_counts_tasks_of_its_client_by_what_they_did():
    clock = Clock("me")
    clock.update_graph(None, client="me", keys={"dasknn-apply-abc-7"})
    clock.update_graph(None, client="somebody", keys={"dasknn-apply-def-7"})
    ended(clock, "dasknn-gradient-abc-1", "a", ("compute", 2.0), ("transfer", 0.5), ("disk-read", 9.0))
    ended(clock, "dasknn-gradient-abc-2", "a", ("compute", 1.0))
    ended(clock, "dasknn-gradient-abc-3", "gone", ("compute", 1.0))
    ended(clock, "dasknn-gradient-def-1", "a", ("compute", 64.0))
    ended(clock, ("users", 1), "a", ("compute", 64.0))
    clock.transition("dasknn-gradient-abc-4", "waiting", "processing", worker="a")
    scheduler = SimpleNamespace(workers={"a": SimpleNamespace(nthreads=2)})
    assert clock.take(scheduler) == {"a": (1.5, 0.25), "gone": (1.0, 0.0)}
    assert clock.take(scheduler) == {}


def test_the_clock_goes_with_its_client():
    removed = []
    scheduler = SimpleNamespace(remove_plugin=removed.append)
    clock = Clock("me")
    clock.remove_client(scheduler, "somebody")
    assert removed == []
    clock.remove_client(scheduler, "me")
    assert removed == [clock.name]


def test_who_came_last_to_a_round_did_not_wait():
    # b comes last to the first round, a to the second; an exchange by itself takes 1 s.
    a = Report(None, 0, 0, 10.0, np.array([4.0, 1.0]))
    b = Report(None, 0, 0, 12.0, np.array([1.0, 3.0]))
    transport = object.__new__(OnPeers)
    transport._spent = {}
    transport._count([a, b], ["a", "b"])
    assert transport.spent() == {"a": (10.0, 2.0), "b": (12.0, 2.0)}
    assert transport.spent() == {}
