"""Faults of real processes: the same bits, at most the running epoch done again, and a story to tell.

Workers of the shared cluster are started again by their nannies, so one cluster serves many tests.
"""

import gc
import json
import logging
import os
import signal
import threading
import time
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import programs
import pytest
from conftest import assert_nothing_left, bits
from distributed import Client, wait

from dasknn import Checkpoint, MLPClassifier, PredictionAveraging, Sequential, WeightAveraging, layers
from dasknn.callbacks import Callback
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.faults import JOINED, LOST, RETIRED, SILENT
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.placement import place
from dasknn.cluster.process_group import ProcessGroup
from dasknn.data import loading, shards, stations
from dasknn.exceptions import (
    ClusterTimeoutError,
    DataLostError,
    LinkError,
    SchedulerLostError,
    WorkerLeftError,
)

SETTINGS = {
    "hidden_layer_sizes": (16,),
    "max_iter": 4,
    "random_state": 1,
    "batch_size": 256,
    "replicas": 4,
    "engine": "numba",
}
# strategy, transport, engine: all roads that a training may take over a cluster.
ROADS = {
    "gradients on peers": {"strategy": "gradients", "transport": "peer"},
    "weights on peers": {"strategy": WeightAveraging(every=3), "transport": "peer"},
    "gradients on tasks": {"strategy": "gradients", "transport": "tasks"},
    "gradients on peers, in numpy": {"strategy": "gradients", "transport": "peer", "engine": "numpy"},
    "weights on tasks, in numpy": {
        "strategy": WeightAveraging(every=3),
        "transport": "tasks",
        "engine": "numpy",
    },
    "weights on tasks": {"strategy": WeightAveraging(every=3), "transport": "tasks"},
    "predictions": {"strategy": PredictionAveraging(hop=False)},
    "members that hop": {"strategy": "predictions"},
    "lbfgs": {"solver": "lbfgs"},
    "early stopping": {"early_stopping": True},
}
BOTH = ["gradients on peers", "gradients on tasks", "members that hop"]


@pytest.fixture(scope="module")
def crew(start_cluster):
    """Two worker processes whose nannies start them again."""
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(crew):
    """A client of the crew, complete again; fails the test that leaves a task on the scheduler."""
    with Client(crew) as client:
        client.wait_for_workers(2, timeout=180)
        yield client
        assert_nothing_left(client)


def data_of(digits):
    X, y = digits
    chunks = (700, 97, 500, 3, 497)
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


@pytest.fixture(scope="module")
def data(digits):
    """Digits as recomputable Dask arrays of 5 uneven partitions."""
    return data_of(digits)


def fit(road, data, max_faults=10, **settings):
    return MLPClassifier(**{**SETTINGS, **ROADS[road], **settings}).fit(*data, max_faults=max_faults)


@pytest.fixture(scope="module")
def calm_bits(data):
    """What training without a cluster gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
        return {road: bits(fit(road, data, transport="auto")) for road in ROADS}


class At(Callback):
    """Call a function once, at an event of an epoch (from 0)."""

    def __init__(self, event, epoch, function):
        self.event, self.epoch, self.function = event, epoch, function

    def on_epoch_begin(self, epoch, logs=None):
        self._come_to("begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._come_to("end", epoch)

    def _come_to(self, event, epoch):
        if (event, epoch) == (self.event, self.epoch) and self.function is not None:
            function, self.function = self.function, None
            function()


def pids(client):
    return client.run(os.getpid)


def kill(*processes):
    for pid in processes:
        os.kill(pid, signal.SIGKILL)


def die_in_a_round():
    """Make this worker's process end in the middle of a round, whatever the transport."""
    import itertools
    import os
    import signal

    import dasknn.cluster.collective as collective
    import dasknn.training.hopping as hopping
    import dasknn.training.tasks as tasks

    sums, visits, legs = itertools.count(), itertools.count(), itertools.count()
    all_reduce, visit, travel = collective.Group.all_reduce, tasks._visit, hopping._travel

    def dying_all_reduce(*args, **settings):
        if next(sums) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return all_reduce(*args, **settings)

    def dying_visit(*args):
        if next(visits) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return visit(*args)

    def dying_travel(*args):
        if next(legs) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return travel(*args)

    collective.Group.all_reduce, tasks._visit = dying_all_reduce, dying_visit
    hopping._travel = dying_travel


def events(model, *kinds):
    found = [event for entry in model.history_ for event in entry["faults"]]
    return [event for event in found if event["what"] in kinds] if kinds else found


def check_loss_is_told(model, worker):
    """The event names what, when, who, which replicas, where to, and what it cost."""
    (event,) = events(model, LOST)
    assert event["worker"] == worker
    assert event["replicas"]
    assert len(event["moved_to"]) == len(event["replicas"])
    assert worker not in event["moved_to"]
    assert 1 <= event["epoch"] <= len(model.history_)
    assert event["time"].startswith("20")
    assert event["seconds"] >= 0
    json.dumps(model.history_)


# --- a worker dies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("road", [road for road in ROADS if road != "early stopping"])
def test_a_worker_killed_in_the_middle_of_a_round_changes_no_bit(client, data, calm_bits, road, caplog):
    worker = next(iter(pids(client)))
    client.run(die_in_a_round, workers=[worker])
    with caplog.at_level(logging.WARNING, "dasknn"):
        model = fit(road, data)
    assert bits(model) == calm_bits[road]
    check_loss_is_told(model, worker)
    told = [record for record in caplog.records if record.name == "dasknn"]
    assert any(worker in record.getMessage() and record.levelno == logging.WARNING for record in told)


@pytest.mark.parametrize("road", [*BOTH, "early stopping"])
@pytest.mark.parametrize("event", ["begin", "end"])
def test_a_worker_killed_before_or_after_a_round_changes_no_bit(client, data, calm_bits, road, event):
    worker, pid = next(iter(pids(client).items()))
    model = fit(road, data, callbacks=[At(event, 1, lambda: kill(pid))])
    assert bits(model) == calm_bits[road]
    check_loss_is_told(model, worker)


def test_a_worker_that_dies_with_the_state_changes_no_bit(client, data, calm_bits, monkeypatch):
    # Large states are on a worker, too.
    monkeypatch.setattr("dasknn.training.tasks._INLINE_BYTES", 0)
    worker = next(iter(pids(client)))
    client.run(die_in_a_round, workers=[worker])
    assert bits(fit("gradients on tasks", data)) == calm_bits["gradients on tasks"]


@pytest.mark.parametrize("road", BOTH)
def test_all_workers_may_die_and_come_back(client, data, calm_bits, road):
    model = fit(road, data, callbacks=[At("end", 1, lambda: kill(*pids(client).values()))])
    assert bits(model) == calm_bits[road]
    assert len(events(model, LOST)) == 2


def test_workers_that_never_come_back_are_waited_for_no_longer_than_allowed(start_cluster, data):
    def leave():
        cluster.scale(0)
        gone.training.transport._executor.timeout = 2

    gone = At("end", 0, leave)
    with start_cluster(1) as cluster, Client(cluster) as client:
        with pytest.raises(ClusterTimeoutError, match="no worker for 2 s"):
            fit("gradients on peers", data, max_iter=10**6, tol=0, n_iter_no_change=10**9, callbacks=[gone])
        assert_nothing_left(client)


def test_a_sequential_model_tells_of_faults_in_its_history(client, data):
    model = Sequential([layers.Dense(16, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    worker, pid = next(iter(pids(client).items()))
    history = model.fit(
        *data, epochs=3, batch_size=128, verbose=0, callbacks=[At("end", 0, lambda: kill(pid))]
    )
    found = [event for entry in history.entries for event in entry["faults"] if event["what"] == LOST]
    assert [event["worker"] for event in found] == [worker]


def stream(monkeypatch):
    """Read data anew whenever an epoch comes to it, each partition by itself."""
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 1)
    monkeypatch.setattr(stations, "_MEMORY_SHARE", 1e-9)
    monkeypatch.setattr(stations, "STATION_BYTES", 100_000)


# --- too much ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", BOTH)
def test_more_faults_than_allowed_end_the_fit_with_the_story_of_all(client, data, road):
    first, second = pids(client).items()

    class KillBoth(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch in (0, 2):
                client.wait_for_workers(2, timeout=180)
                kill((first if epoch == 0 else second)[1])

    with pytest.raises((LinkError, WorkerLeftError)) as caught:
        fit(road, data, max_faults=1, max_iter=50, tol=0, callbacks=[KillBoth()])
    (story,) = caught.value.__notes__
    assert "fault 2 of this fit" in story
    assert "max_faults=1" in story
    assert f"worker lost {first[0]}" in story


def test_attempts_that_still_try_to_reach_a_lost_worker_are_no_more_faults(
    client, data, calm_bits, monkeypatch
):
    connect, failures = ProcessGroup.connect, []

    def connect_at_last(self):
        # As long as the scheduler lists the worker that is gone.
        if failures:
            raise LinkError(failures.pop())
        connect(self)

    def lose_a_worker():
        failures.extend(["not there", "not there", "not there"])
        kill(next(iter(pids(client).values())))

    monkeypatch.setattr(ProcessGroup, "connect", connect_at_last)
    model = fit(BOTH[0], data, max_faults=1, callbacks=[At("end", 1, lose_a_worker)])
    assert not failures
    assert bits(model) == calm_bits[BOTH[0]]


def test_scattered_data_that_is_lost_is_explained(client, digits):
    worker_dies = At("end", 0, lambda: kill(next(iter(pids(client).values()))))
    with pytest.raises(DataLostError, match="Train from a Dask collection"):
        fit("gradients on peers", digits, callbacks=[worker_dies])


@pytest.mark.parametrize("road", BOTH)
def test_a_source_that_fails_while_data_is_streamed_is_named(client, data, road, monkeypatch, tmp_path):
    stream(monkeypatch)
    flag = str(tmp_path / "broken")

    def read(block, block_info=None):
        if os.path.exists(flag) and block_info[0]["chunk-location"][0] == 2:
            raise OSError("no such disk")
        return block

    X = data[0].map_blocks(read, meta=np.ones((1, 1)))
    breaks = At("end", 0, lambda: open(flag, "w").close())
    with pytest.raises(OSError, match="no such disk") as caught:
        fit(road, (X, data[1]), replicas=1, callbacks=[breaks])
    assert "partition 2 was read again" in "".join(caught.value.__notes__)


def test_a_source_that_fails_for_a_moment_is_read_again(client, data, monkeypatch, tmp_path):
    stream(monkeypatch)
    flag = str(tmp_path / "broken")

    def read(block):
        try:
            os.remove(flag)
        except FileNotFoundError:
            return block
        raise OSError("out of reach")

    X = data[0].map_blocks(read, meta=np.ones((1, 1)))
    expected = bits(fit("gradients on tasks", data, replicas=1))
    breaks = At("end", 1, lambda: open(flag, "w").close())
    assert bits(fit("gradients on tasks", (X, data[1]), replicas=1, callbacks=[breaks])) == expected
    assert not os.path.exists(flag)


@pytest.fixture
def mortal(start_program, tmp_path_factory):
    """A scheduler process that may be killed; the current client is one of it, with one worker."""
    where = ["--scheduler-file", tmp_path_factory.mktemp("mortal") / "scheduler.json", "--no-dashboard"]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s", "dasknn.timeout": 10}):
        scheduler = start_program(programs.dask, "scheduler", "--port", 0, *where)
        start_program(programs.dask, "worker", *where, "--no-nanny")
        with Client(scheduler_file=str(where[1]), timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
            yield scheduler


@pytest.mark.parametrize("road", BOTH)
def test_a_scheduler_that_dies_ends_the_fit_with_what_to_do_and_with_all_that_was_learned(
    mortal, data, tmp_path, road
):
    class Best(Callback):
        """As callbacks that restore the best weights do, and writers that are open until the end."""

        def state(self):
            return None

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.params = self.training.state.params.copy()
            if epoch == 2:
                mortal.kill()

        def on_train_end(self, logs=None):
            self.training.state = replace(self.training.state, params=self.params)

    best = Best()
    model = MLPClassifier(**{**SETTINGS, "max_iter": 10**6, "tol": 0, "callbacks": [best], **ROADS[road]})
    with pytest.raises(SchedulerLostError, match="resume=True"):
        model.fit(*data, checkpoint=Checkpoint(tmp_path, every=100))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["epoch-00003.safetensors"]
    np.testing.assert_array_equal(model._members, np.atleast_2d(best.params))


def test_a_scheduler_that_dies_in_the_end_takes_nothing_of_what_was_learned(mortal, data):
    dies = At("end", SETTINGS["max_iter"] - 1, mortal.kill)
    assert fit("gradients on peers", data, callbacks=[dies]).n_iter_ == SETTINGS["max_iter"]


# --- workers that do not answer for a while ---------------------------------------------------------


@pytest.fixture(scope="module")
def trio(start_cluster):
    """Three worker processes, which tests stop for a while and never end."""
    with start_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def sleepers(trio):
    """A client of the trio; wakes all of them in the end, and fails the test that has cost one of them."""
    with Client(trio) as client:
        # A process that imports what it needs for the first time may not answer for seconds, either.
        client.run(lambda: __import__("dasknn.training.transport"))
        before = pids(client)
        yield client
        wake(*before.values())
        assert pids(client) == before
        assert_nothing_left(client)


def stop(*processes):
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)


def wake(*processes):
    for pid in processes:
        os.kill(pid, signal.SIGCONT)


class Nap(Callback):
    """Stop processes after the first epoch; wake them after an epoch that went on without them."""

    def __init__(self, processes):
        self.processes = processes

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            stop(*self.processes.values())
        if any(event["what"] == SILENT for event in self.training.history[-1]["faults"]):
            wake(*self.processes.values())
            liveness = self.training.transport._executor.liveness
            deadline = time.monotonic() + 60
            while not all(liveness._is_free.get(worker) for worker in self.processes):
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.mark.parametrize(("road", "streamed"), [(BOTH[0], False), (BOTH[1], False), (BOTH[1], True)], ids=str)
def test_workers_that_are_paused_are_left_out_and_come_back(
    sleepers, data, calm_bits, road, streamed, monkeypatch
):
    expected = calm_bits[road]
    if streamed:
        # Other shards, so other bits.
        stream(monkeypatch)
        expected = bits(fit(road, data))
    paused = dict(list(pids(sleepers).items())[:2])
    with dask.config.set({"dasknn.silence": 2}):
        model = fit(road, data, callbacks=[Nap(paused)])
    assert bits(model) == expected
    # On a busy machine the third may have been silent, too.
    assert set(paused) <= {event["worker"] for event in events(model, SILENT)}
    assert set(paused) <= {event["worker"] for event in events(model, JOINED) if event["replicas"]}
    assert set(paused) <= set(model.history_[-1]["workers"])


@pytest.mark.parametrize("road", BOTH)
def test_workers_that_are_all_paused_are_waited_for(sleepers, data, calm_bits, road):
    processes = pids(sleepers).values()
    alarm = threading.Timer(6, wake, processes)

    def nap():
        stop(*processes)
        alarm.start()

    with dask.config.set({"dasknn.silence": 1}):
        model = fit(road, data, callbacks=[At("end", 0, nap)])
    alarm.join()
    assert bits(model) == calm_bits[road]
    assert events(model)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("road", BOTH)
def test_workers_that_stay_paused_are_named_after_the_timeout(sleepers, data, road):
    processes = pids(sleepers)
    falls_asleep = At("end", 0, lambda: stop(*processes.values()))
    with (
        dask.config.set({"dasknn.silence": 1, "dasknn.timeout": 12}),
        pytest.raises(ClusterTimeoutError, match="Waited for") as caught,
    ):
        fit(road, data, callbacks=[falls_asleep])
    assert all(worker in str(caught.value) for worker in processes)


def test_data_that_only_a_paused_worker_has_is_waited_for(sleepers, digits, calm_bits):
    X, y = (array.persist() for array in data_of(digits))
    wait([X, y])
    (worker, pid), *_ = pids(sleepers).items()
    alarm = threading.Timer(6, wake, [pid])

    def nap():
        stop(pid)
        alarm.start()

    with dask.config.set({"dasknn.silence": 1}):
        model = fit(BOTH[0], (X, y), callbacks=[At("end", 0, nap)])
    alarm.join()
    assert bits(model) == calm_bits[BOTH[0]]
    assert [event["worker"] for event in events(model, SILENT)] == [worker]


def until_there(path):
    while not path.exists():
        time.sleep(0.05)
    return "there"


def test_a_worker_that_computes_for_others_is_not_ours_to_judge(sleepers, tmp_path):
    ours, theirs, _ = sorted(sleepers.nthreads())
    pid = pids(sleepers)[theirs]
    result = sleepers.submit(until_there, tmp_path / "sign", workers=[theirs], pure=False)
    deadline = time.monotonic() + 60
    while result.key not in map(str, sleepers.processing()[theirs]):
        assert time.monotonic() < deadline
    # As one does that computes and holds the interpreter's lock.
    stop(pid)
    with dask.config.set({"dasknn.silence": 0.3}), ClusterExecutor(sleepers) as tasks:
        slow, waits = Graph(), Graph()
        wanted = [slow.add("dasknn-slow", time.sleep, 3, home=ours, strict=True)]
        tasks.run(slow, wanted)
        assert theirs not in tasks.left_out
        # One that has work of ours is, and is left out; it loses nothing.
        wanted = [waits.add("dasknn-waits", time.sleep, 0, home=theirs, strict=True)]
        with pytest.raises(WorkerLeftError, match=f"{theirs}.*, left out"):
            tasks.run(waits, wanted)
        assert theirs in tasks.left_out
        assert theirs not in tasks.slots()
    wake(pid)
    (tmp_path / "sign").touch()
    assert result.result(timeout=60) == "there"


def test_a_worker_on_which_given_up_work_still_runs_comes_back_when_that_has_ended(sleepers):
    worker = min(sleepers.nthreads())
    with ClusterExecutor(sleepers) as tasks:
        graph = Graph()
        (held,) = tasks.start(graph, [graph.add("dasknn-long", time.sleep, 3, home=worker, strict=True)])
        deadline = time.monotonic() + 60
        while held.key not in map(str, sleepers.processing()[worker]):
            assert time.monotonic() < deadline
        tasks.liveness.leave_out({worker: [held.key]})
        while worker not in tasks.liveness._is_free:
            assert time.monotonic() < deadline
        tasks.rebalance(1)
        assert worker not in tasks.slots()
        while not tasks.liveness._is_free[worker]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        tasks.rebalance(1)
        assert worker in tasks.slots()


# --- workers come and go ----------------------------------------------------------------------------


@pytest.mark.parametrize("road", BOTH)
def test_workers_join_and_retire_in_the_course_of_a_training(new_cluster, data, calm_bits, road):
    client = new_cluster(1)
    first = next(iter(client.nthreads()))

    class Change(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                client.cluster.scale(2)
                client.wait_for_workers(2, timeout=180)
            if epoch == 2:
                client.retire_workers([first])

    model = fit(road, data, callbacks=[Change()])
    assert bits(model) == calm_bits[road]
    joined, retired = events(model)
    assert (joined["what"], joined["epoch"]) == (JOINED, 2)
    assert len(joined["replicas"]) == 2
    assert (retired["what"], retired["worker"], retired["epoch"]) == (RETIRED, first, 4)
    assert sorted(joined["replicas"] + retired["replicas"]) == [0, 1, 2, 3]
    assert set(retired["moved_to"]) == {joined["worker"]}
    assert_nothing_left(client)


def test_a_worker_that_retires_is_no_fault(new_cluster, data, calm_bits):
    client = new_cluster(2)
    leaves = At("end", 1, lambda: client.retire_workers(list(client.nthreads())[:1]))
    assert bits(fit("gradients on peers", data, max_faults=0, callbacks=[leaves])) == calm_bits[BOTH[0]]


@pytest.mark.parametrize("road", BOTH)
def test_an_adaptive_cluster_grows_and_shrinks_and_changes_no_bit(start_cluster, data, calm_bits, road):
    def wait_for(n):
        deadline = time.monotonic() + 60
        while len(client.nthreads()) != n:
            assert time.monotonic() < deadline, client.nthreads()
            time.sleep(0.1)

    class Crowd(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                # Somebody else has much to do for a while.
                tasks = client.map(time.sleep, [0.5] * 40, pure=False)
                wait_for(2)
                client.cancel(tasks)
            if epoch == 1:
                wait_for(1)

    with start_cluster(1) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=1, maximum=2, interval="200ms", target_duration="1s")
        model = fit(road, data, callbacks=[Crowd()])
        assert bits(model) == calm_bits[road]
        assert_nothing_left(client)
    # How often, the cluster decides, by its own load.
    assert {event["what"] for event in events(model)} == {JOINED, RETIRED}


# --- who works where --------------------------------------------------------------------------------


def test_replicas_are_spread_over_threads_with_neighbors_together():
    assert place(["a", "b"], 4) == ["a", "a", "b", "b"]
    assert place(["a", "b", "a"], 3) == ["a", "a", "b"]
    assert place(["a", "b", "c"], 2) == ["a", "b"]


def test_only_what_must_move_moves():
    before = ["a", "a", "b", "b"]
    assert place(["b", "c"], 4, before) == ["c", "c", "b", "b"]
    assert place(["b"], 4, before) == ["b"] * 4
    assert place(["a", "b", "c"], 6, ["a", "a", "a", "b", "b", "b"]) == ["a", "a", "c", "b", "b", "c"]
    # What is left over stays with who has it.
    assert place(["a", "b"], 3, ["a", "b", "b"]) == ["a", "b", "b"]


def test_attempts_that_fail_at_once_are_made_at_longer_and_longer_intervals(monkeypatch):
    pauses = []
    monkeypatch.setattr("dasknn.cluster.executor.time.sleep", pauses.append)

    def attempt(homes, ready):
        raise LinkError("broke")

    tasks = LocalExecutor(max_faults=8)
    tasks.faults = (LinkError,)
    with pytest.raises(LinkError):
        tasks.retry(1, 0, attempt)
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_a_result_that_is_lost_while_it_is_fetched_leaves_no_traceback(new_cluster, caplog, tmp_path):
    client = new_cluster(2)
    home, pid = next(iter(client.run(os.getpid).items()))
    future = client.submit(computed_once, tmp_path, workers=[home], allow_other_workers=True)
    wait(future)
    os.kill(pid, signal.SIGKILL)
    tasks = ClusterExecutor(client)
    with pytest.raises(WorkerLeftError):
        tasks.gather([future], [home])
    future.cancel()
    future.release()
    (tmp_path / "over").touch()
    client.submit(int, pure=False).result()
    gc.collect()
    assert "never retrieved" not in caplog.text


def computed_once(folder):
    """Return an array; when it is computed again, on whichever worker, not before the test is over."""
    try:
        (folder / "computed").touch(exist_ok=False)
    except FileExistsError:
        until_there(folder / "over")
    return np.ones(1000)


def test_results_of_which_one_failed_raise_its_error(client):
    fine, failed = client.submit(int, pure=False), client.submit(int, "x", pure=False)
    wait([fine, failed])
    with pytest.raises(ValueError, match="invalid literal"):
        ClusterExecutor(client).gather([fine, failed], [None, None])
    with pytest.raises(ValueError, match="invalid literal"):
        ClusterExecutor(client).gather([failed], [])
    client.cancel([fine, failed])
