"""Pools: tasks that end in any order, and waits for them that end as soon as there is something to do."""

import threading
import time

import pytest
from conftest import assert_nothing_left

from dasknn.cluster.connect import connect
from dasknn.cluster.graph import Graph
from dasknn.cluster.pool import pool_of

# Much longer than a test may take.
FOREVER = 10_000
DEADLINE = 60


@pytest.fixture(params=["local", "cluster"])
def executor(request):
    """Runs tasks in threads of this process, or on the two workers."""
    is_distributed = request.param == "cluster"
    if is_distributed:
        request.getfixturevalue("client")
    with connect(None, is_distributed) as executor:
        yield executor


@pytest.fixture
def pool(executor):
    pool = pool_of(executor)
    yield pool
    pool.close()


def submit(pool, ticket, function, *arguments):
    graph = Graph()
    pool.submit(ticket, graph, [], graph.add("dasknn-test", function, *arguments))


def ends(pool):
    """Return what ends before a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not (found := pool.wait(1)):
        assert time.monotonic() < deadline
    return found


@pytest.mark.timeout(DEADLINE)
def test_a_call_from_before_ends_the_wait_at_once(pool):
    pool.wake()
    assert pool.wait(FOREVER) == []


@pytest.mark.timeout(DEADLINE)
def test_another_thread_ends_a_wait_for_a_task_that_is_not_done(pool, tmp_path):
    def last(path):
        while not path.exists():
            time.sleep(0.01)
        return 7

    submit(pool, 3, last, tmp_path / "end")
    caller = threading.Timer(0.3, pool.wake)
    caller.start()
    try:
        assert pool.wait(FOREVER) == []
    finally:
        (tmp_path / "end").touch()
        caller.join()
    (ended,) = ends(pool)
    assert (ended.ticket, ended.value, ended.error) == (3, 7, None)


@pytest.mark.timeout(DEADLINE)
def test_an_exception_ends_the_wait_and_others_go_on(pool):
    submit(pool, 1, int, "seven")
    (ended,) = ends(pool)
    assert (ended.ticket, type(ended.error)) == (1, ValueError)
    submit(pool, 2, int, "7")
    (ended,) = ends(pool)
    assert (ended.ticket, ended.value) == (2, 7)


def test_what_was_given_up_never_ends_for_the_caller(pool, tmp_path):
    submit(pool, 1, time.sleep, 0.1)
    pool.give_up(1)
    submit(pool, 2, int, "7")
    assert [ended.ticket for ended in ends(pool)] == [2]
    assert pool.wait(0.5) == []


def test_nothing_is_left_after_a_pool_is_closed(client):
    with connect(None, True) as executor:
        pool = pool_of(executor)
        submit(pool, 1, time.sleep, 0.1)
        pool.close()
    assert_nothing_left(client)
