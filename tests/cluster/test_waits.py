"""Waits for a cluster: what they ask for, when they end, and whom they name."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left, bits
from distributed import Client, KilledWorker
from distributed.comm import CommClosedError

import dasknn
from dasknn import MLPClassifier, Sequential, TablePreprocessor, layers
from dasknn.callbacks import LambdaCallback
from dasknn.cluster import clock, waiting
from dasknn.cluster.connect import connect
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.data import loading
from dasknn.exceptions import ClusterTimeoutError, SchedulerLostError, WorkerLeftError
from dasknn.plots import ConfusionMatrixDisplay

DEADLINE = 60


@pytest.fixture(scope="module")
def rows():
    X = np.random.default_rng(0).standard_normal((200, 4))
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture
def data(rows):
    return da.from_array(rows[0], chunks=(50, -1)), da.from_array(rows[1], chunks=50)


def classifier(**settings):
    return MLPClassifier((4,), max_iter=3, batch_size=16, tol=0, random_state=0, **settings)


def sequential():
    model = Sequential([layers.Input((4,)), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    return model


# --- for workers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adaptive(start_cluster):
    """An adaptive cluster with Dask's default minimum of no workers, which go as soon as they are idle."""
    with start_cluster(0, processes=False) as cluster:
        cluster.adapt(maximum=2, interval="200ms", wait_count=8)
        yield cluster


@pytest.fixture
def idle(adaptive):
    """A client of the adaptive cluster while it has no workers."""
    with Client(adaptive) as client, dask.config.set({"dasknn.timeout": DEADLINE}):
        deadline = time.monotonic() + DEADLINE
        while client.nthreads():
            assert time.monotonic() < deadline, "its workers did not go"
            time.sleep(0.1)
        yield client
        assert_nothing_left(client)


WAYS = {
    "fit": lambda model, X, y: classifier(replicas=2).fit(X, y),
    "Sequential.fit": lambda model, X, y: sequential().fit(X, y, verbose=0),
    "score": lambda model, X, y: model.score(X, y),
    "plain data": lambda model, X, y: classifier(strategy="weights").fit(X.compute(), y.compute()),
    "evaluate": lambda model, X, y: dasknn.evaluate(model, X, y),
    "predict": lambda model, X, y: model.predict(X).compute(),
    "shuffle": lambda model, X, y: dasknn.shuffle(X, random_state=0).compute(),
    "recommend": lambda model, X, y: dasknn.recommend(None, classifier(replicas=1), X),
    "preprocess": lambda model, X, y: TablePreprocessor().fit(
        dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}), npartitions=1)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_adaptive_cluster_without_workers_is_asked_for_some(idle, rows, data, way):
    model = classifier().fit(*rows)
    WAYS[way](model, *data)


def test_data_sent_from_here_waits_for_workers(idle):
    with connect(idle, True) as tasks:
        assert tasks.again(lambda: dict(tasks.fetch(tasks.put([1, 2], [None, None])))) == {0: 1, 1: 2}


def test_workers_that_do_not_come_end_the_wait_and_leave_nothing(new_cluster, data):
    client = new_cluster(0, processes=False)
    with (
        dask.config.set({"dasknn.timeout": 1}),
        pytest.raises(ClusterTimeoutError, match="no worker for 1 s"),
    ):
        classifier().fit(*data)
    assert_nothing_left(client)


def test_a_worker_that_comes_and_leaves_again_is_waited_for(new_cluster, data, monkeypatch):
    new_cluster(1, processes=False)
    real, answers = ClusterExecutor.alive, []
    monkeypatch.setattr(ClusterExecutor, "alive", lambda self: answers.pop(0) if answers else real(self))

    def lose_workers(epoch, logs):
        # None, then one which has gone again when the next question comes.
        answers.extend([{}, {"inproc://10.0.0.9/1/1": 1}, {}][: 3 * (epoch == 0)])

    model = classifier(replicas=2, callbacks=[LambdaCallback(on_epoch_end=lose_workers)])
    assert model.fit(*data).n_iter_ == 3


def test_a_worker_that_is_gone_before_data_comes_to_it_is_a_fault_with_its_name(client):
    with ClusterExecutor(client) as tasks:
        with pytest.raises(WorkerLeftError, match=r"tcp://127\.0\.0\.1:1\b") as caught:
            tasks.put([1], ["tcp://127.0.0.1:1"])
        assert isinstance(caught.value, tasks.faults)


# --- for partitions to load, and for all that is not a round ----------------------------------------


@pytest.fixture(scope="module")
def crew(start_cluster):
    """Two worker processes whose nannies start them again."""
    with start_cluster(2) as cluster:
        yield cluster


def slow_rows(number):
    """Rows of a partition that take a moment to read."""
    time.sleep(0.1)
    return np.random.default_rng(number).standard_normal((20, 4))


@pytest.fixture
def slow_data():
    """Rows and labels of 16 partitions that take a moment each."""
    sources = [dask.delayed(slow_rows)(number) for number in range(16)]
    X = da.concatenate([da.from_delayed(source, (20, 4), float) for source in sources])
    return X, (X[:, 0] > 0).astype(int)


def once_loading(monkeypatch, function):
    """Call a function when partitions have begun to load for the first time."""
    start, n_started = loading._Loading._start, []

    def watch(self, *args):
        started = start(self, *args)
        n_started.append(len(started))
        if len(n_started) == 1:
            function()
        return started

    monkeypatch.setattr(loading._Loading, "_start", watch)


def test_a_worker_that_stops_while_partitions_load_is_left_out(crew, slow_data, monkeypatch):
    with dask.config.set({"dasknn.silence": 1, "dasknn.timeout": DEADLINE}), Client(crew) as client:
        calm = bits(classifier(replicas=2).fit(*slow_data))
        pid = next(iter(client.run(os.getpid).values()))
        once_loading(monkeypatch, lambda: os.kill(pid, signal.SIGSTOP))
        try:
            model = classifier(replicas=2).fit(*slow_data)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert bits(model) == calm
        client.wait_for_workers(2, timeout=DEADLINE)


@pytest.fixture
def threads(start_cluster):
    """A cluster of two workers in this process, and a function that has all of them replaced."""
    with start_cluster(2, processes=False) as cluster:

        def restart():
            with Client(cluster, set_as_default=False) as boss:
                boss.restart(timeout=DEADLINE, wait_for_workers=False)
            # Those that are gone count as its workers for a while.
            cluster.scale(4)

        yield cluster, restart


@pytest.mark.parametrize("kind", ["lazy", "plain"])
def test_a_restart_while_partitions_load_costs_no_more_than_loading_again(
    threads, slow_data, kind, monkeypatch
):
    cluster, restart = threads
    with Client(cluster):
        data = slow_data if kind == "lazy" else dask.compute(*slow_data)
        settings = {"replicas": 2, "strategy": "gradients"}
        calm = bits(classifier(**settings).fit(*data))
        once_loading(monkeypatch, restart)
        model = classifier(**settings).fit(*data)
        assert bits(model) == calm
        assert model.history_[0]["faults"]


def die_on_it(block):
    os.kill(os.getpid(), signal.SIGKILL)
    return block


def test_a_partition_that_ends_its_workers_is_named_after_as_many_as_faults_may_be(crew, rows):
    killers = da.from_array(rows[0], chunks=(100, -1)).map_blocks(die_on_it, meta=np.empty((0, 0)))
    X = da.concatenate([da.from_array(rows[0][:100]), killers[:100]])
    y = da.from_array(rows[1][:200], chunks=100)
    with Client(crew) as client:
        with pytest.raises(KilledWorker) as caught:
            classifier().fit(X, y, max_faults=3)
        assert "while partition 1 was loaded" in caught.value.__notes__[0]
        assert "before its first epoch" in caught.value.__notes__[1]
        client.wait_for_workers(2, timeout=DEADLINE)


@pytest.mark.parametrize("way", ["validation", "held out", "score", "evaluate", "count", "preprocess"])
def test_whatever_is_computed_beside_rounds_is_begun_again_after_a_fault(client, data, way, monkeypatch):
    model = classifier().fit(*data)
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}), npartitions=2)
    ways = {
        "validation": lambda: classifier().fit(*data, validation_data=data).validation_scores_,
        "held out": lambda: classifier(early_stopping=True).fit(*data).validation_scores_,
        "score": lambda: model.score(*data),
        "evaluate": lambda: dasknn.evaluate(model, *data).to_dict(),
        "count": lambda: ConfusionMatrixDisplay.from_estimator(model, *data).confusion_matrix.tolist(),
        "preprocess": lambda: TablePreprocessor().fit(frame).n_samples_seen_,
    }
    real, failed = ClusterExecutor.run, []

    def fail_once(self, graph, wanted):
        names = {str(key).partition("-")[2].partition("-")[0] for key in graph.tasks}
        if not failed and names & {"score", "evaluate", "count", "summarize"}:
            failed.append(names)
            raise WorkerLeftError("The cluster has lost a worker.")
        return real(self, graph, wanted)

    calm = ways[way]()
    monkeypatch.setattr(ClusterExecutor, "run", fail_once)
    assert ways[way]() == calm
    assert failed


def test_rows_held_out_that_are_lost_with_all_workers_are_read_again(threads, slow_data):
    cluster, restart = threads
    settings = {"replicas": 2, "early_stopping": True}
    with Client(cluster):
        calm = classifier(**settings).fit(*slow_data).validation_scores_
        lose = LambdaCallback(on_epoch_begin=lambda epoch, logs: restart() if epoch == 0 else None)
        assert classifier(**settings, callbacks=[lose]).fit(*slow_data).validation_scores_ == calm


def test_a_question_is_asked_again_when_the_connection_has_broken(client, data, monkeypatch):
    asked = []
    with ClusterExecutor(client) as tasks:

        async def answer():
            asked.append(True)
            if len(asked) == 1:
                raise CommClosedError("away for a moment")
            return 7

        assert tasks.scheduler.call(answer) == 7


# --- for a client that is closed --------------------------------------------------------------------


def plugins(client):
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))


@pytest.mark.parametrize("stage", ["loading", "training", "validation"])
@pytest.mark.parametrize("transport", ["peer", "tasks"])
def test_a_client_that_is_closed_while_it_fits_is_named(cluster, slow_data, transport, stage, monkeypatch):
    client = Client(cluster, set_as_default=False)
    closing = threading.Thread(target=client.close, daemon=True)
    data = slow_data if stage == "loading" else dask.compute(*slow_data)
    model = classifier(replicas=2, strategy="gradients", transport=transport)
    model.client, model.max_iter, model.n_iter_no_change = client, 100_000, 100_000
    validation = None
    if stage == "loading":
        once_loading(monkeypatch, closing.start)
    elif stage == "training":
        model.callbacks = [LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 1 and closing.start())]
    else:
        validation = data
        real = ClusterExecutor.values_of
        monkeypatch.setattr(
            ClusterExecutor, "values_of", lambda self, add: [closing.start(), real(self, add)][1]
        )
    with pytest.raises(SchedulerLostError, match="the client was closed"):
        model.fit(*data, validation_data=validation)
    closing.join(DEADLINE)
    with Client(cluster, set_as_default=False) as other:
        deadline = time.monotonic() + DEADLINE
        while other.run_on_scheduler(
            lambda dask_scheduler: [p for p in dask_scheduler.plugins if "clock" in p]
        ):
            assert time.monotonic() < deadline, "a clock was left"
            time.sleep(0.1)


def test_a_clock_is_not_started_for_a_client_that_has_gone(client):
    client.run_on_scheduler(clock.start, "nobody")
    assert "dasknn-clock-nobody" not in plugins(client)


# --- for results ------------------------------------------------------------------------------------


class _Sharing:
    """A cluster where nothing becomes of our task, while others put their own on its worker."""

    timeout, silence = 0.2, DEADLINE
    check_present, stranded = staticmethod(lambda at: None), staticmethod(set)
    liveness = SimpleNamespace(left_out=set())

    def __init__(self):
        self.n_others = 0

    def awaited(self, held):
        self.n_others += 1
        return waiting.Awaited(1, {"tcp://busy": ["ours"]}, [], {"tcp://busy": self.n_others})


def test_a_wait_ends_whatever_becomes_of_the_tasks_of_others(monkeypatch):
    monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.01)
    wait, deadline = waiting.Wait(_Sharing(), [], ()), time.monotonic() + DEADLINE

    def look_on():
        while time.monotonic() < deadline:
            wait.look()
            time.sleep(0.01)

    with pytest.raises(ClusterTimeoutError, match=r"tcp://busy: ours .* tasks of others"):
        look_on()
