"""Training on real clusters: the same bits whatever the cluster, and nothing left behind."""

import asyncio
import os
import signal
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest
from conftest import assert_nothing_left, bits, tasks_left
from distributed import Client, Event, wait

from dasknn import MLPClassifier, MLPRegressor
from dasknn.callbacks import Callback, LambdaCallback
from dasknn.cluster.blas import single_blas_thread
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.data import loading
from dasknn.exceptions import ClusterTimeoutError

STRATEGIES = ["gradients", "weights", "predictions"]
# Other ways through a fit, whose bits must not depend on the cluster either.
TRAININGS = {
    **{strategy: {"strategy": strategy} for strategy in STRATEGIES},
    "lbfgs": {"solver": "lbfgs"},
    "early stopping": {"early_stopping": True, "class_weight": "balanced"},
}
SETTINGS = {
    "hidden_layer_sizes": (16,),
    "max_iter": 3,
    "random_state": 1,
    "batch_size": 128,
    "replicas": 3,
}


def fit(training, data, **settings):
    return MLPClassifier(**{**SETTINGS, **TRAININGS[training], **settings}).fit(*data)


@pytest.fixture(scope="module")
def data(request):
    """Digits as recomputable Dask arrays of 5 uneven partitions, with rows of no weight."""
    X, y = request.getfixturevalue("digits")
    chunks = (700, 97, 500, 3, 497)
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


@pytest.fixture(scope="module")
def local_bits(data):
    """What training without a cluster gives."""
    return {training: bits(fit(training, data)) for training in TRAININGS}


# --- the same bits ----------------------------------------------------------------------------------


def test_strategies_differ_and_seeds_matter(data, local_bits):
    assert len(set(local_bits.values())) == len(TRAININGS)
    assert bits(fit("weights", data, random_state=2)) != local_bits["weights"]


@pytest.mark.parametrize(
    ("n_workers", "processes", "threads_per_worker"),
    [(1, True, 1), (3, True, 1), (1, False, 3), (3, False, 1), (2, True, 2)],
)
def test_any_number_of_workers_threads_and_processes_gives_the_same_bits(
    new_cluster, data, local_bits, n_workers, processes, threads_per_worker
):
    client = new_cluster(n_workers, processes=processes, threads_per_worker=threads_per_worker)
    found = {training: bits(fit(training, data)) for training in TRAININGS}
    assert found == local_bits
    assert_nothing_left(client)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_order_of_arrival_gives_the_same_bits(client, data, local_bits, strategy, monkeypatch):
    # Workers take random naps before each task, other ones in each run.
    def nap_on_worker():
        import random

        import dasknn.cluster.graph as graph

        if not hasattr(graph, "_call_at_once"):
            graph._call_at_once = graph._call
            graph._call = lambda *task: (time.sleep(random.random() / 50), graph._call_at_once(*task))[1]

    def wake_up():
        import dasknn.cluster.graph as graph

        graph._call = graph.__dict__.pop("_call_at_once")

    client.run(nap_on_worker)
    try:
        assert bits(fit(strategy, data)) == local_bits[strategy]
    finally:
        client.run(wake_up)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_streamed_data_gives_the_bits_of_data_in_memory(client, data, local_bits, strategy, monkeypatch):
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    assert bits(fit(strategy, data)) == local_bits[strategy]


def test_large_states_travel_apart_and_give_the_same_bits(client, data, local_bits, monkeypatch):
    monkeypatch.setattr("dasknn.training.tasks._INLINE_BYTES", 100)
    assert {training: bits(fit(training, data)) for training in TRAININGS} == local_bits


def test_plain_data_sent_to_workers_gives_the_bits_of_training_without_a_cluster(digits, cluster):
    from distributed import Client

    without = bits(fit("gradients", digits))
    with Client(cluster) as client:
        assert bits(fit("gradients", digits)) == without
        assert_nothing_left(client)


def test_many_replicas_merge_through_a_tree_with_the_same_bits(client, data, monkeypatch):
    settings = {**SETTINGS, "replicas": 19, "max_iter": 1}
    on_cluster = fit("gradients", data, **settings)
    with monkeypatch.context() as patch:
        patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
        assert bits(fit("gradients", data, **settings)) == bits(on_cluster)


# --- where things are -------------------------------------------------------------------------------


def test_shards_are_spread_over_workers_and_no_partition_moves_during_training(client, data):
    class Watch(Callback):
        places = ()
        received = ()
        rounds = ()

        def on_epoch_end(self, epoch, logs=None):
            who_has = client.who_has()
            self.places += ({key: who for key, who in who_has.items() if "dasknn-shard" in str(key)},)
            self.received += (sum(client.run(bytes_received).values()),)
            self.blocks = [key for key, who in who_has.items() if who and "dasknn-load" in str(key)]
            self.rounds += (sum("dasknn-apply" in key for key in tasks_left(client)),)

    X = da.random.default_rng(0).standard_normal((40_000, 100), chunks=(5_000, -1))
    y = (X.sum(axis=1) > 0).astype(int)
    watch = Watch()
    MLPClassifier((4,), max_iter=20, batch_size=8000, replicas=4, callbacks=[watch]).fit(X, y)
    first, *later = watch.places
    assert sorted(len(who) for who in first.values()) == [1] * len(first)
    workers = [who[0] for who in first.values()]
    assert set(workers) == set(client.nthreads())
    assert all(places == first for places in later)
    # Parameters and gradients travel; of 32 MB of data not even one partition's share does.
    assert watch.received[-1] - watch.received[0] < 1_000_000
    # What shards were made of is let go, and so are rounds: 100 of them ran.
    assert watch.blocks == []
    assert max(watch.rounds) <= 10


def bytes_received(dask_worker):
    log = dask_worker.transfer_incoming_log
    return sum(entry["total"] for entry in log if any("shard" in str(key) for key in entry["keys"]))


def test_data_that_the_user_persisted_stays(client, data):
    X, y = (collection.persist() for collection in data)
    wait([X, y])
    before = sorted(tasks_left(client))
    fit("gradients", (X, y))
    assert_nothing_left(client, but=before)
    assert sorted(tasks_left(client)) == before
    del X, y


def test_tasks_carry_names_that_the_dashboard_groups(client, data):
    seen = set()

    class Watch(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.update(client.run_on_scheduler(groups))

    fit("gradients", data, callbacks=[Watch()])
    assert {"dasknn-gradient", "dasknn-apply", "dasknn-shard", "dasknn-load"} <= seen


def groups(dask_scheduler):
    return list(dask_scheduler.task_prefixes)


def test_a_thousand_partitions(new_cluster):
    # On workers in this process, since nearly all of the time is Dask's own, for each task.
    new_cluster(2, processes=False)
    rows = np.random.default_rng(0).random((20_000, 5))
    X, y = da.from_array(rows, chunks=(20, -1)), da.from_array((rows[:, 0] > 0.5).astype(int), chunks=20)
    settings = {"batch_size": 1000, "learning_rate_init": 0.1, "random_state": 0, "replicas": 2}
    model = MLPClassifier((8,), max_iter=3, **settings).fit(X, y)
    assert model.history_[0]["n_samples"] == 20_000
    assert model.score(X, y) > 0.9


def test_blas_has_one_thread_inside_tasks():
    from threadpoolctl import threadpool_info, threadpool_limits

    def look():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    graph = Graph()
    wanted = [graph.add("dasknn-look", look) for _ in range(4)]
    # The limit was set by another thread than those that tasks run in.
    with threadpool_limits(2, "blas"):
        assert look() == {2}
        assert LocalExecutor().run(graph, wanted) == [{1}] * 4


def test_blas_gets_its_threads_back_when_the_last_task_ends():
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        assert threads() == {2}
        with single_blas_thread:
            inner = threading.Thread(target=single_blas_thread.__enter__)
            inner.start()
            inner.join()
            assert threads() == {1}
        # The first has ended, in another thread than the second, which still runs.
        assert threads() == {1}
        single_blas_thread.__exit__(None, None, None)
        assert threads() == {2}


@pytest.mark.parametrize("processes", [True, False])
def test_a_fit_inside_a_task_ends_on_one_thread(new_cluster, digits, processes):
    client = new_cluster(1, processes=processes)

    def search(X, y, chunks):
        if chunks:
            X, y = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=chunks)
        return bits(fit("gradients", (X, y), max_iter=1))

    with dask.config.set({"dasknn.timeout": 20}):
        for chunks in (None, 600):
            inside = client.submit(search, *digits, chunks, pure=False).result(timeout=60)
            assert inside == search(*digits, chunks)


# --- nothing left behind ----------------------------------------------------------------------------


class Fail(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        raise self.error


def test_an_exception_in_fit_leaves_nothing(client, data):
    with pytest.raises(RuntimeError, match="of the user's own"):
        fit("gradients", data, callbacks=[Fail(RuntimeError("of the user's own"))])


def test_an_interruption_between_waves_leaves_nothing(client, data):
    with pytest.warns(UserWarning, match="interrupted by user"):
        fit("gradients", data, callbacks=[Fail(KeyboardInterrupt())])


@pytest.mark.parametrize("stage", ["load", "train"])
def test_ctrl_c_while_tasks_run_leaves_nothing(client, stage):
    def slow(block):
        time.sleep(1.0)
        return block

    X = da.ones((400, 3), chunks=(40, -1))
    y = da.arange(400, chunks=40) % 2
    if stage == "load":
        X = X.map_blocks(slow)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    begins = LambdaCallback(on_train_begin=lambda logs: timer.start())
    model = MLPClassifier((5,), max_iter=10**6, tol=0, n_iter_no_change=10**9, batch_size=40)
    try:
        if stage == "load":
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, y)
        else:
            model.set_params(callbacks=[begins])
            with pytest.warns(UserWarning, match="interrupted by user"):
                model.fit(X, y)
    finally:
        timer.cancel()


# --- waits that end ---------------------------------------------------------------------------------


def test_a_cluster_without_workers_is_said_to_have_none(new_cluster, data):
    new_cluster(0)
    with dask.config.set({"dasknn.timeout": 0.5}), pytest.raises(ClusterTimeoutError, match="no worker"):
        fit("gradients", data)


def test_a_task_that_hangs_is_named_after_the_timeout(client, monkeypatch):
    monkeypatch.setattr("dasknn.cluster.waiting._POLL_SECONDS", 0.2)
    graph = Graph()
    key = graph.add("dasknn-sleep", time.sleep, 8)
    with dask.config.set({"dasknn.timeout": 1.0}), ClusterExecutor(client) as tasks:
        results = tasks.fetch(tasks.start(graph, [key]))
        began = time.monotonic()
        with pytest.raises(ClusterTimeoutError, match=r"for 1 s\. Waited for tcp://.*dasknn-sleep"):
            next(results)
        assert time.monotonic() - began < 6


@pytest.fixture
def busy_others(client):
    """Somebody else, whose short tasks come and go."""
    over = threading.Event()

    def work():
        with Client(client.scheduler.address, set_as_default=False) as other:
            while not over.is_set():
                other.gather(other.map(time.sleep, [0.05] * 4, pure=False))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.timeout(60)
def test_tasks_of_others_do_not_prolong_the_wait_for_ours(client, busy_others, monkeypatch):
    monkeypatch.setattr("dasknn.cluster.waiting._POLL_SECONDS", 0.2)
    graph = Graph()
    key = graph.add("dasknn-sleep", time.sleep, 8)
    with dask.config.set({"dasknn.timeout": 2.0}), ClusterExecutor(client) as tasks:
        held = tasks.start(graph, [key])
        with pytest.raises(ClusterTimeoutError, match="dasknn-sleep"):
            next(tasks.fetch(held))


def test_what_our_tasks_wait_for_is_followed_and_nothing_else(client):
    gate = Event("gate", client)
    source = client.submit(lambda: Event("gate").wait(60), key="source")
    other = client.submit(lambda: Event("gate").wait(60), key="other")
    graph = Graph()
    wanted = graph.add("dasknn-use", repr, source)
    with ClusterExecutor(client) as tasks:
        held = tasks.start(graph, [wanted])
        deadline = time.monotonic() + 60
        while (found := tasks.awaited(held)).n_unfinished < 2 or not found.running:
            assert time.monotonic() < deadline
        assert list(found.running.values()) == [["source"]]
        gate.set()
        assert dict(tasks.fetch(held)) == {0: "True"}
        done = tasks.awaited(held)
        assert (done.n_unfinished, done.running) == (0, {})
        assert done.workers <= set(tasks.alive())
    del source, other


def test_an_answer_that_never_comes_is_not_waited_for_beyond_the_timeout(client):
    with dask.config.set({"dasknn.timeout": 1.0}), ClusterExecutor(client) as tasks:
        expected = rf"{client.scheduler.address} has not answered 'sleep' for 1 s"
        with pytest.raises(ClusterTimeoutError, match=expected):
            tasks.scheduler.call(asyncio.sleep, 60)


@pytest.mark.timeout(20)
def test_a_timeout_of_the_client_itself_is_raised_and_not_waited_for(client):
    async def fail():
        raise TimeoutError("of the client")

    with ClusterExecutor(client) as tasks, pytest.raises(TimeoutError, match="of the client"):
        tasks.scheduler.call(fail, look=tasks.alive)


def test_a_source_that_raises_is_said_with_its_partition(client):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 3:
            raise OSError("no such disk")
        return block

    X = da.ones((50, 2), chunks=(10, -1)).map_blocks(fail, meta=np.ones((1, 1)))
    with pytest.raises(OSError, match="no such disk") as caught:
        MLPClassifier((5,)).fit(X, da.ones(50, chunks=10))
    assert "partition 3 was loaded" in caught.value.__notes__[-1]


def test_a_regressor_on_a_cluster(client):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + 3
    arrays = da.from_array(X, chunks=(300, -1)), da.from_array(y, chunks=300)
    model = MLPRegressor(hidden_layer_sizes=(), max_iter=60, batch_size=100, learning_rate_init=0.05)
    assert model.set_params(random_state=0).fit(*arrays).score(*arrays) > 0.99
