"""Searches have the same bits wherever they run and whatever fails; workers are left as they were."""

import os
import signal
import threading
import time
from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest
from conftest import assert_nothing_left, assert_workers_clean
from distributed import Client

from dasknn import MLPClassifier, RandomSearch, TabularClassifier
from dasknn.data import loading, stations
from dasknn.search import trials
from dasknn.search.course import Course
from dasknn.training import hopping, hops
from tests.search.searches import RATES, SHORT, build, digits, halving, same_each_time

# Long enough that something can happen meanwhile.
X, y = (np.tile(part, (8, *[1] * (part.ndim - 1))) for part in digits())
KINDS = {
    "numba": {"estimator": MLPClassifier(engine="numba")},
    "numpy": {"estimator": MLPClassifier(engine="numpy")},
    "sobol": {"sampler": "sobol"},
    "folds": {"cv": 2, "n_trials": 4},
    "refit on all rows": {"refit": "all", "n_trials": 4},
}


@pytest.fixture(autouse=True)
def small_stations(monkeypatch):
    """Networks have somewhere to travel to."""
    monkeypatch.setattr(stations, "STATION_BYTES", 1_000_000)


@pytest.fixture(scope="module")
def trio(start_cluster):
    """Three worker processes, whose nannies start them again."""
    with start_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def workers(trio):
    """A client of the trio, complete again; fails the test that leaves something there."""
    with Client(trio) as client:
        client.wait_for_workers(3, timeout=180)
        yield client
        assert_nothing_left(client)


def lazy(n=2000):
    return da.from_array(X, chunks=(n, -1)), da.from_array(y, chunks=n)


def calm(**settings):
    """What a search without a cluster finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
        return same_each_time(halving(**settings).fit(*lazy()))


def pids(client):
    return client.run(os.getpid)


class During(threading.Thread):
    """Call a function once the networks of a search have been trained for so many epochs together."""

    def __init__(self, monkeypatch, function, n_epochs=4):
        super().__init__(daemon=True)
        self._come, self._function, self.is_done = threading.Event(), function, False
        note, left = trials.Run.note, iter(range(n_epochs))

        def counted(run, entry):
            note(run, entry)
            if next(left, None) is None:
                self._come.set()

        monkeypatch.setattr(trials.Run, "note", counted)
        self.start()

    def run(self):
        assert self._come.wait(120)
        self._function()
        self.is_done = True


# --- the same bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_search_finds_the_same_on_any_cluster(workers, kind, n_workers, monkeypatch):
    found = halving(**KINDS[kind])
    found.workers = list(pids(workers))[:n_workers]
    assert same_each_time(found.fit(*lazy())) == calm(**KINDS[kind])
    assert {address for address, one in found.workers_.items() if one["threads"]} == set(found.workers)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_find_the_same_as_processes(new_cluster, threads):
    new_cluster(2, processes=False, threads_per_worker=threads)
    assert same_each_time(halving().fit(*lazy())) == calm()


def test_large_networks_travel_from_worker_to_worker(workers, monkeypatch):
    expected = calm()
    monkeypatch.setattr(hopping, "_INLINE_BYTES", 1000)
    # Else all epochs of a trial are one leg.
    monkeypatch.setattr(hopping, "_LEG_SECONDS", 0.0)
    found = halving().fit(*lazy())
    assert same_each_time(found) == expected
    assert found.bytes_moved_ == 0


def test_data_that_does_not_fit_in_memory_is_visited_as_it_is_read(workers, monkeypatch):
    # A worker may hold one station of five at a time.
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    monkeypatch.setattr(stations, "_MEMORY_SHARE", 1e-9)
    assert same_each_time(halving(n_trials=4).fit(*lazy())) == calm(n_trials=4)


def test_tables_and_functions_find_the_same(workers):
    tables = RandomSearch(TabularClassifier(members=2, hidden_layer_sizes=(8,)), RATES, n_trials=2, **SHORT)
    sequential = RandomSearch(build, {"units": [8, 16]}, n_trials=2, **SHORT)
    for search in (tables, sequential):
        found = same_each_time(search.fit(*lazy()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
            assert same_each_time(search.fit(*lazy())) == found


def test_trials_that_wait_for_a_worker_do_not_count_as_running(workers, monkeypatch):
    tick, counts = Course.tick, []

    def looked_at(course):
        is_done = tick(course)
        counts.append(Counter(map(course.status, course.trials)))
        return is_done

    monkeypatch.setattr(Course, "tick", looked_at)
    halving(n_trials=12).fit(*lazy())
    # Each of three workers computes one leg, and has the next.
    assert max(count["running"] for count in counts) <= 6
    assert max(count["waiting"] for count in counts) >= 6
    assert counts[-1]["running"] == counts[-1]["waiting"] == 0


# --- faults -------------------------------------------------------------------------------------------------


def test_workers_that_die_change_no_bit(workers, monkeypatch, caplog):
    expected = calm()
    first, second, _ = pids(workers).values()

    def kill():
        os.kill(first, signal.SIGKILL)
        time.sleep(0.5)
        os.kill(second, signal.SIGKILL)

    killing = During(monkeypatch, kill)
    found = halving().fit(*lazy())
    assert same_each_time(found) == expected
    killing.join(60)
    assert killing.is_done
    assert [one["what"] for one in found.faults_].count("worker lost") == 2
    # Told without words of trainings that know nothing of a search.
    assert "worker lost" in caplog.text
    assert "replica" not in caplog.text
    assert "epoch" not in caplog.text.lower()


def test_a_worker_that_is_paused_is_left_out_and_changes_no_bit(workers, monkeypatch):
    expected = calm()
    paused = next(iter(pids(workers).values()))
    During(monkeypatch, lambda: os.kill(paused, signal.SIGSTOP))
    try:
        with dask.config.set({"dasknn.silence": 1}):
            assert same_each_time(halving().fit(*lazy())) == expected
    finally:
        os.kill(paused, signal.SIGCONT)
    assert paused in pids(workers).values()


def test_a_network_that_ends_workers_is_a_failed_trial_and_not_the_end(workers, monkeypatch):
    monkeypatch.setattr(hops, "_train", train_unless_seven)
    search = halving(n_trials=4)
    search.parameters = {"hidden_layer_sizes": [(7,), (8,), (9,), (10,)]}
    found = search.fit(*lazy(), max_faults=20)
    (failed,) = np.flatnonzero(found.cv_results_["status"] == "failed")
    assert found.cv_results_["params"][failed] == {"hidden_layer_sizes": (7,)}
    assert "lost" in found.cv_results_["error"][failed]


TRAIN = hops._train


def train_unless_seven(job, piece, state, station):
    """End the process when a network of 7 units comes."""
    if job.network.layers[0].units == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return TRAIN(job, piece, state, station)


def test_workers_that_join_take_work_at_once(new_cluster, monkeypatch):
    client = new_cluster(1)
    expected = calm()
    During(monkeypatch, lambda: client.cluster.scale(3))
    search = halving(max_iter=60)
    found = search.fit(*lazy())
    assert len([one for one in found.workers_.values() if one["compute"]]) > 1
    assert same_each_time(halving().fit(*lazy())) == expected


def test_ctrl_c_keeps_what_was_found_and_the_search_goes_on(workers, monkeypatch, tmp_path):
    expected = calm()
    with monkeypatch.context() as patch:
        During(patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        found = halving().fit(*lazy(), checkpoint=tmp_path)
    assert found.interrupted_
    assert found.predict(X[:5]).shape == (5,)
    assert found.ensemble(2).predict(X[:5]).shape == (5,)
    assert same_each_time(halving().fit(*lazy(), checkpoint=tmp_path, resume=True)) == expected


def test_a_search_whose_program_was_killed_goes_on_with_the_same_bits(workers, start_program, tmp_path):
    program = start_program(search_until_killed, workers.scheduler.address, str(tmp_path))
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("trial-*/*.safetensors"))) < 8:
        assert time.monotonic() < deadline
        assert program.is_alive()
        time.sleep(0.01)
    program.kill()
    program.join()
    assert same_each_time(halving().fit(*lazy(), checkpoint=tmp_path, resume=True)) == calm()


def search_until_killed(address, folder):
    stations.STATION_BYTES = 1_000_000
    with Client(address):
        halving().fit(*lazy(), checkpoint=folder)


# --- many at once -------------------------------------------------------------------------------------


def test_two_searches_at_once_do_not_disturb_each_other(workers):
    expected = [calm(), calm(random_state=1)]
    found = {}

    def run(seed):
        search = halving(random_state=seed)
        search.client = workers
        found[seed] = same_each_time(search.fit(*lazy()))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert [found[0], found[1]] == expected


def test_all_workers_are_used_and_left_as_they_were(workers):
    found = RandomSearch(MLPClassifier((32,)), RATES, n_trials=12, **SHORT)
    found.fit(*lazy())
    assert len(found.workers_) == 3
    assert all(0 < one["compute"] <= one["busy"] <= one["seconds"] for one in found.workers_.values())
    assert_nothing_left(workers)
    assert_workers_clean(workers)
    assert not [one for one in threading.enumerate() if one.name.startswith("dasknn-trial")]


def test_a_search_of_an_inner_task_stays_in_its_process(workers):
    def search():
        return halving(n_trials=2).fit(X[:500], y[:500]).best_score_

    assert workers.submit(search).result(timeout=120) > 0
