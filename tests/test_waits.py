"""Waits for a cluster: what they ask for, when they end, and whom they name."""

import time

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from distributed import Client, LocalCluster

import dasknn
from dasknn import MLPClassifier, Sequential, TablePreprocessor, layers
from dasknn.callbacks import LambdaCallback
from dasknn.cluster.tasks import ClusterTasks, connect
from dasknn.exceptions import ClusterTimeoutError, WorkerLeftError

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
def adaptive():
    """An adaptive cluster with Dask's default minimum of no workers, which go as soon as they are idle."""
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        cluster.adapt(maximum=2, interval="100ms", wait_count=1)
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
        held = tasks.put([1, 2], [None, None])
        assert dict(tasks.fetch(held)) == {0: 1, 1: 2}


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
    real, answers = ClusterTasks.alive, []
    monkeypatch.setattr(ClusterTasks, "alive", lambda self: answers.pop(0) if answers else real(self))

    def lose_workers(epoch, logs):
        # None, then one which has gone again when the next question comes.
        answers.extend([{}, {"inproc://10.0.0.9/1/1": 1}, {}][: 3 * (epoch == 0)])

    model = classifier(replicas=2, callbacks=[LambdaCallback(on_epoch_end=lose_workers)])
    assert model.fit(*data).n_iter_ == 3


def test_a_worker_that_is_gone_before_data_comes_to_it_is_a_fault_with_its_name(client):
    with ClusterTasks(client) as tasks:
        with pytest.raises(WorkerLeftError, match=r"tcp://127\.0\.0\.1:1\b") as caught:
            tasks.put([1], ["tcp://127.0.0.1:1"])
        assert isinstance(caught.value, tasks.faults)
