"""What counts as a fault, and how often."""

import pytest

from dasknn.cluster import faults
from dasknn.cluster.faults import JOINED, LOST, RETIRED
from dasknn.exceptions import LinkError, WorkerLeftError


def test_events_that_cost_nothing_do_not_count():
    log = faults.FaultLog(max_faults=0)
    found = faults.changes(["a"], ["a"], [faults.Event(LOST, "b"), faults.Event(RETIRED, "c")], ["d"])
    log.recovered(1.0, found)
    assert [event["what"] for event in log.take()] == [LOST, RETIRED, JOINED]
    assert log.take() == []
    assert log.n_faults == 0


def test_workers_lost_at_one_moment_are_one_fault():
    log = faults.FaultLog(max_faults=1)
    rack = [faults.Event(LOST, f"worker {i}") for i in range(11)]
    homes = [event.worker for event in rack]
    log.recovered(1.0, faults.changes(homes, ["left"] * 11, rack, []))
    assert log.n_faults == 1
    assert len(log.take()) == 11


def test_an_attempt_that_failed_and_the_workers_it_has_cost_are_one_fault():
    log = faults.FaultLog(max_faults=1)
    log.failed(LinkError("broke"))
    rack = [faults.Event(LOST, f"worker {i}") for i in range(11)]
    log.recovered(1.0, faults.changes([event.worker for event in rack], ["left"] * 11, rack, []))
    assert log.n_faults == 1
    with pytest.raises(LinkError):
        log.failed(LinkError("broke"))


def test_the_fault_that_ends_a_fit_is_counted_once():
    log = faults.FaultLog(max_faults=0)
    with pytest.raises(WorkerLeftError) as first:
        log.recovered(1.0, [faults.Event(LOST, "a", replicas=(0,))])
    # As those do that take it for a fault of what they have tried.
    with pytest.raises(WorkerLeftError) as again:
        log.failed(first.value)
    assert again.value is first.value
    assert log.n_faults == len(first.value.__notes__) == 1


def while_restoring():
    error = LinkError("a lost worker could not be reached")
    error.while_restoring = True
    return error


def test_attempts_that_meet_what_the_last_one_left_behind_are_the_same_fault(monkeypatch):
    log = faults.FaultLog(max_faults=1)
    log.failed(LinkError("broke"))
    for _ in range(20):
        log.failed(while_restoring())
    assert log.n_faults == 1
    log.recovered(1.0, [faults.Event(LOST, "a", replicas=(0,))])
    assert log.n_faults == 1
    with pytest.raises(LinkError, match="could not be reached"):
        log.failed(while_restoring())


def test_attempts_that_had_begun_again_are_faults_of_their_own():
    log = faults.FaultLog(max_faults=1)
    log.failed(LinkError("broke"))
    with pytest.raises(LinkError, match="broke again"):
        log.failed(LinkError("broke again"))


def test_workers_that_can_never_connect_end_the_fit(monkeypatch):
    monkeypatch.setattr(faults, "_SAME_FAULT_SECONDS", 0)
    log = faults.FaultLog(max_faults=3)
    for _ in range(3):
        log.failed(while_restoring())
    with pytest.raises(LinkError):
        log.failed(while_restoring())


def test_a_task_that_kills_several_workers_counts_as_often_whenever_it_does():
    log = faults.FaultLog(max_faults=4)
    log.failed(LinkError("broke"))
    error = while_restoring()
    error.allowed_failures = 3
    with pytest.raises(LinkError):
        log.failed(error)
    assert log.n_faults == 5
