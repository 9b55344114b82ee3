"""Rounds between workers: the same bits by every road, whatever fails, and nothing left behind."""

import asyncio
import os
import pickle
import random
import signal
import socket
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial

import dask
import dask.array as da
import numpy as np
import pytest
from conftest import assert_nothing_left, assert_workers_clean, bits
from distributed import Client, Security
from scipy import sparse

import dasknn
from dasknn import (
    GradientAveraging,
    MLPClassifier,
    OuterNesterov,
    PowerSGD,
    PredictionAveraging,
    Sequential,
    WeightAveraging,
    layers,
)
from dasknn.callbacks import Callback
from dasknn.cluster import collective, costs, process_group
from dasknn.cluster.comm import core, tcp
from dasknn.cluster.comm import dask as comm_dask
from dasknn.cluster.comm.core import DASK, SOCKET
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.reduction import ALGORITHMS, ASSUMED
from dasknn.data import loading, shards
from dasknn.exceptions import LinkError
from dasknn.strategies import overlap
from dasknn.strategies.learner import LinkSpeed
from dasknn.strategies.overlap import EarlySum

ON_BOTH = {
    "gradients": GradientAveraging(),
    "weights": WeightAveraging(),
    "weights every 3": WeightAveraging(every=3),
    "weights every 2, outer": WeightAveraging(every=2, outer=OuterNesterov()),
}
ON_PEERS = {
    "float16": GradientAveraging(compression="float16"),
    "PowerSGD": GradientAveraging(compression=PowerSGD(rank=2, start_after=3)),
    "delayed": GradientAveraging(delay=1),
}
STRATEGIES = {**ON_BOTH, **ON_PEERS}
# Tests of what does not depend on an engine use the one that SETTINGS name.
ENGINES = ("numpy", "numba")
SETTINGS = {
    "hidden_layer_sizes": (16,),
    "max_iter": 3,
    "random_state": 1,
    "batch_size": 160,
    "replicas": 8,
    "dtype": "float32",
    "engine": "numba",
}


@pytest.fixture(scope="module")
def data(request):
    """Digits as recomputable Dask arrays of 5 uneven partitions."""
    X, y = request.getfixturevalue("digits")
    chunks = (700, 97, 500, 3, 497)
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


def fit(strategy, data, **settings):
    return MLPClassifier(strategy=STRATEGIES[strategy], **{**SETTINGS, **settings}).fit(*data)


@pytest.fixture(scope="module")
def local_bits(data):
    """What one member gives, in this process."""
    return {strategy: bits(fit(strategy, data)) for strategy in STRATEGIES}


@pytest.fixture(scope="module")
def bits_of_engines(data, local_bits):
    """The same of each engine."""
    of_numpy = {strategy: bits(fit(strategy, data, engine="numpy")) for strategy in STRATEGIES}
    return {"numpy": of_numpy, "numba": local_bits}


@contextmanager
def links_of(kind):
    """Make members connect by that kind of link."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_group, "SOCKET", kind)
        yield


# --- the same bits ----------------------------------------------------------------------------------


def test_strategies_and_engines_differ(bits_of_engines):
    found = {found for engine in bits_of_engines.values() for found in engine.values()}
    assert len(found) == 2 * len(STRATEGIES)


@pytest.mark.parametrize("strategy", ON_BOTH)
@pytest.mark.parametrize("engine", ENGINES)
def test_tasks_give_the_bits_of_peers(client, data, bits_of_engines, engine, strategy):
    for transport in ("tasks", "peer"):
        model = fit(strategy, data, transport=transport, engine=engine)
        assert (model.engine_, model.transport_) == (engine, transport)
        assert bits(model) == bits_of_engines[engine][strategy]


@pytest.mark.parametrize(
    ("n_workers", "threads_per_worker", "kind", "engine"),
    [
        # One that has nobody to connect to.
        (1, 1, SOCKET, "numba"),
        (1, 3, SOCKET, "numba"),
        *((*shape, kind, "numba") for shape in ((2, 2), (3, 1), (4, 1)) for kind in (SOCKET, DASK)),
        (2, 2, SOCKET, "numpy"),
        (3, 1, DASK, "numpy"),
    ],
)
def test_any_number_of_workers_and_both_kinds_of_link_give_the_same_bits(
    new_cluster, data, bits_of_engines, n_workers, threads_per_worker, kind, engine
):
    client = new_cluster(n_workers, threads_per_worker=threads_per_worker)
    with links_of(kind):
        found = {strategy: bits(fit(strategy, data, engine=engine)) for strategy in STRATEGIES}
    assert found == bits_of_engines[engine]
    assert_nothing_left(client)


@pytest.mark.parametrize("algorithm", ["measured", *ALGORITHMS])
def test_any_assignment_of_replicas_all_algorithms_and_hosts_give_the_same_bits(
    new_cluster, data, local_bits, algorithm, monkeypatch
):
    new_cluster(4, processes=False)
    fits = []
    assignments = set()

    def homes(tasks, replicas):
        # The same throughout a fit, another one in the next.
        assignment = random.Random(len(fits)).choices(tasks.slots(), k=replicas)
        assignments.add(tuple(assignment))
        return assignment

    def hosts(addresses):
        return tuple(random.Random(len(fits)).choices(range(2), k=len(addresses)))

    asked = []

    def settings_of(group):
        found = costs_settings(group)
        asked.append((found.algorithm, found.costs == ASSUMED))
        return found

    costs_settings = costs.settings_of
    monkeypatch.setattr(ClusterExecutor, "homes", homes)
    monkeypatch.setattr(process_group, "_hosts", hosts)
    monkeypatch.setattr(costs, "settings_of", settings_of)
    with dask.config.set({"dasknn.collective": algorithm}):
        for _ in range(2):
            for strategy in STRATEGIES:
                fits.append(strategy)
                assert bits(fit(strategy, data)) == local_bits[strategy]
    assert set(asked) == {(None, False) if algorithm == "measured" else (algorithm, True)}
    assert len(assignments) > 10


@pytest.mark.parametrize("batch_size", [160, 5])
@pytest.mark.parametrize("n_workers", [2, 3])
def test_sums_of_the_last_layers_that_start_early_have_the_same_bits(
    new_cluster, data, n_workers, batch_size, monkeypatch
):
    settings = {"hidden_layer_sizes": (16, 12, 9), "engine": "numpy", "batch_size": batch_size, "max_iter": 2}
    # Some batches have fewer rows than there are replicas; pieces of others are of several partitions.
    expected = bits(fit("gradients", data, **settings))
    client = new_cluster(n_workers, processes=False, threads_per_worker=2)
    begun = []
    begin = overlap.EarlySum.begin

    def begin_and_note(early, replicas, *args):
        begun.append((early.first_layer, len(list(replicas))))
        begin(early, replicas, *args)

    monkeypatch.setattr(overlap.EarlySum, "begin", begin_and_note)
    assert bits(fit("gradients", data, **settings)) == expected
    # The network is small, so nothing would be gained.
    assert not begun
    monkeypatch.setattr(overlap, "_LEAST_SECONDS", -1.0)
    assert bits(fit("gradients", data, **settings)) == expected
    assert begun
    assert {layer for layer, _ in begun} <= {1, 2, 3}
    assert_nothing_left(client)


def test_a_way_to_sum_that_is_not_known_is_refused(client, data):
    with dask.config.set({"dasknn.collective": "ring"}), pytest.raises(ValueError, match="received 'ring'"):
        fit("gradients", data)


@pytest.mark.parametrize("strategy", ON_BOTH)
@pytest.mark.parametrize("engine", ENGINES)
def test_streamed_data_gives_the_bits_of_data_in_memory(client, data, engine, strategy, monkeypatch):
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    # Small shards, so that an epoch takes several waves.
    monkeypatch.setattr(shards, "_SHARD_BYTES", 20_000)
    in_waves = fit(strategy, data, engine=engine)
    assert (in_waves.engine_, in_waves.transport_) == (engine, "peer")
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 0.5)
    assert bits(fit(strategy, data, engine=engine)) == bits(in_waves)


def test_waves_of_any_length_give_the_same_bits(client, data, local_bits, monkeypatch):
    for rounds in (1, 5):
        monkeypatch.setattr("dasknn.training.peers.OnPeers._FIRST_WAVE", rounds)
        assert {strategy: bits(fit(strategy, data)) for strategy in STRATEGIES} == local_bits


def test_states_too_large_for_a_message_give_the_same_bits(client, data, local_bits, monkeypatch):
    monkeypatch.setattr("dasknn.training.peers._GIVEN_BYTES", 10)
    assert bits(fit("gradients", data)) == local_bits["gradients"]


def test_rounds_in_which_some_replicas_have_no_rows_give_the_bits_of_tasks(client, data):
    X, y = data
    few = X[:120].rechunk(((40, 3, 50, 27), -1)), y[:120].rechunk(((40, 3, 50, 27),))
    settings = {"batch_size": 5, "max_iter": 1}
    found = {bits(fit("gradients", few, transport=name, **settings)) for name in ("tasks", "peer")}
    assert len(found) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["plain", "dropout", "metrics", "CSR rows"])
def test_what_rounds_have_to_do_besides_gives_the_bits_of_tasks(client, data, kind, engine):
    X, y = data
    if kind == "CSR rows":
        X = X.map_blocks(sparse.csr_matrix)
    found = []
    for transport in ("tasks", "peer"):
        dasknn.set_random_seed(1)
        between = [layers.Dropout(0.3)] if kind == "dropout" else []
        with GradientAveraging(replicas=5).scope():
            model = Sequential(
                [layers.Input((64,)), layers.Dense(9, "relu"), *between, layers.Dense(10, "softmax")]
            )
            metrics = ["accuracy"] if kind == "metrics" else None
            loss = "sparse_categorical_crossentropy"
            model.compile("adam", loss, metrics=metrics, transport=transport, engine=engine)
        history = model.fit(X, y, batch_size=100, epochs=2, verbose=0)
        assert (model.engine_, model.transport_) == (engine, transport)
        found.append((bits(model), history.history))
    assert found[0] == found[1]


def test_members_that_disagree_are_found_out(new_cluster, data, monkeypatch):
    # Workers in this process: one of them gets other rows.
    new_cluster(2, processes=False)
    from dasknn.strategies.gradients import GradientLearner

    apply = GradientLearner.apply
    lock, first = threading.Lock(), []

    def one_is_wrong(self, total):
        with lock:
            if not first:
                first.append(threading.get_ident())
        apply(self, total)
        if threading.get_ident() == first[0]:
            self._params += 1e-3

    monkeypatch.setattr(GradientLearner, "apply", one_is_wrong)
    with pytest.raises(RuntimeError, match="other weights than"):
        fit("gradients", data)


# --- what is sent -----------------------------------------------------------------------------------


def test_history_has_the_bytes_sent(client, data):
    sent = {strategy: fit(strategy, data).history_[0]["bytes_sent"] for strategy in STRATEGIES}
    # Two workers, 12 rounds, 1,210 float32, and 80 bytes of frame at most.
    vectors = 2 * 12 * 4 * 1210
    assert vectors < sent["gradients"] < vectors + 2 * 12 * 80
    assert 0.5 < sent["float16"] / sent["gradients"] < 0.53
    assert sent["PowerSGD"] < 0.7 * sent["gradients"]
    # Weights and two moments.
    assert 3 * vectors / 12 < sent["weights"] < 3.1 * vectors / 12
    assert fit("gradients", data, transport="tasks").history_[0]["bytes_sent"] > vectors


def test_nothing_is_sent_within_one_process(data):
    assert fit("gradients", data).history_[0]["bytes_sent"] == 0


def test_float16_learns_as_float32_does(data):
    scores = [fit(s, data, max_iter=30).score(*data) for s in ("gradients", "float16")]
    assert min(scores) > 0.9
    assert abs(scores[0] - scores[1]) < 0.01


def test_power_sgd_learns_with_few_numbers(data):
    X, y = data
    strategy = GradientAveraging(compression=PowerSGD(rank=4))
    settings = {**SETTINGS, "hidden_layer_sizes": (64,), "solver": "sgd", "learning_rate_init": 0.1}
    model = MLPClassifier(**{**settings, "max_iter": 20}, strategy=strategy).fit(X / 16, y)
    assert model.score(X / 16, y) > 0.95


# --- choices ----------------------------------------------------------------------------------------


def test_short_rounds_go_between_workers_and_ensembles_hop_or_go_through_tasks(client, data):
    roads = (
        (GradientAveraging(), "peer"),
        (PredictionAveraging(hop=False), "tasks"),
        (PredictionAveraging(), "hop"),
    )
    for strategy, transport in roads:
        model = MLPClassifier((8,), max_iter=1, strategy=strategy, replicas=2).fit(*data)
        assert model.transport_ == transport


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "predictions", "transport": "peer"}, "members of an ensemble exchange nothing"),
        ({"strategy": STRATEGIES["float16"], "transport": "tasks"}, "received transport='tasks'"),
        ({"solver": "lbfgs", "transport": "peer"}, "received transport='peer'"),
        ({"transport": "socket"}, "transport"),
    ],
)
def test_transports_that_do_not_fit_are_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier((8,), max_iter=1, **settings).fit(*data)


def test_workers_that_cannot_reach_one_another_average_through_the_scheduler(client, data, monkeypatch):
    def fail(self):
        raise LinkError("No route.")

    monkeypatch.setattr(process_group.ProcessGroup, "connect", fail)
    with pytest.warns(UserWarning, match=r"through the scheduler: No route\."):
        model = fit("weights", data, max_iter=1)
    assert model.transport_ == "tasks"
    with pytest.raises(LinkError):
        fit("float16", data)


def test_where_sockets_fail_dasks_comms_take_over(client, data, local_bits, monkeypatch, caplog):
    kinds = []
    connect = process_group.ProcessGroup.connect

    def watch(self):
        connect(self)
        kinds.append(self.kind)

    def refuse(dask_worker):
        tcp.socket_create_connection = tcp.socket.create_connection

        def fail(*args, **kwargs):
            raise ConnectionRefusedError("a firewall")

        tcp.socket.create_connection = fail

    def allow(dask_worker):
        tcp.socket.create_connection = tcp.socket_create_connection

    tried = []
    connect_by = process_group.ProcessGroup._connect_by
    monkeypatch.setattr(
        process_group.ProcessGroup,
        "_connect_by",
        lambda self, kind: [tried.append(kind), connect_by(self, kind)],
    )
    monkeypatch.setattr(process_group.ProcessGroup, "connect", watch)
    client.run(refuse)
    try:
        for _ in range(2):
            assert bits(fit("gradients", data)) == local_bits["gradients"]
    finally:
        client.run(allow)
    assert kinds == [DASK, DASK]
    # The second one knows, and the reason is told once.
    assert tried == [SOCKET, DASK, DASK]
    (told,) = [record.getMessage() for record in caplog.records if record.name == "dasknn"]
    assert "ConnectionRefusedError" in told
    assert "dasknn.ports" in told
    # Another client tries again.
    with Client(client.scheduler.address, set_as_default=False) as other, ClusterExecutor(other) as tasks:
        assert not tasks.without_sockets


def test_where_a_system_lacks_calls_for_sockets_dasks_comms_take_over(
    new_cluster, data, local_bits, monkeypatch, caplog
):
    new_cluster(2, processes=False)
    # One of those that Windows lacks.
    monkeypatch.delattr(socket, "MSG_DONTWAIT")
    model = fit("gradients", data, transport="peer")
    assert (model.transport_, bits(model)) == ("peer", local_bits["gradients"])
    (told,) = [record.getMessage() for record in caplog.records if record.name == "dasknn"]
    assert "over Dask's own connections" in told
    assert "has no MSG_DONTWAIT" in told


# --- faults -----------------------------------------------------------------------------------------


class Later(Callback):
    """Call a function some time after training has begun."""

    def __init__(self, seconds, function):
        self.seconds, self.function = seconds, function

    def on_train_begin(self, logs=None):
        self.timer = threading.Timer(self.seconds, self.function)
        self.timer.start()

    def on_train_end(self, logs=None):
        self.timer.join()


class AtEpochEnd(Callback):
    """Call a function at the end of each epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function()


class Once:
    """Calls a function the first time it is called."""

    def __init__(self, function):
        self.function, self.done = function, False

    def __call__(self):
        if not self.done:
            self.done = True
            self.function()


def silent(model):
    """Workers that the history of a model says were silent."""
    events = [event for entry in model.history_ for event in entry["faults"]]
    return [event["worker"] for event in events if event["what"] == "worker silent"]


LONG = {"max_iter": 40, "tol": 0, "n_iter_no_change": 10**6}


@pytest.mark.timeout(240)
def test_a_worker_killed_at_any_time_changes_no_bit(new_cluster, data):
    client = new_cluster(3)
    rng = random.Random(0)
    strategies = ["gradients", "weights every 2, outer", "float16", "PowerSGD", "weights every 3", "delayed"]
    long = {**LONG, "max_iter": 12}
    expected, killed = {}, []

    def kill():
        pid = rng.choice(list(client.run(os.getpid).values()))
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    for strategy in strategies:
        began = time.monotonic()
        expected[strategy] = bits(fit(strategy, data, **long))
        seconds = time.monotonic() - began
        # Nannies start workers again, some of them late.
        client.wait_for_workers(2, timeout=60)
        model = fit(strategy, data, callbacks=[Later(rng.uniform(0, 0.9 * seconds), kill)], **long)
        assert bits(model) == expected[strategy], strategy
    assert len(killed) == len(strategies)
    assert_nothing_left(client)


# Its gradient is so long, and takes so long to compute, that its last layers are sent early.
WIDE = {"hidden_layer_sizes": (1024, 512), "engine": "numpy", "replicas": 2, "batch_size": 800, "max_iter": 3}


def test_a_worker_killed_while_last_layers_are_on_their_way_changes_no_bit(new_cluster, data):
    expected = bits(fit("gradients", data, **WIDE))
    client = new_cluster(2)
    worker, pid = max(client.run(os.getpid).items())
    client.run(in_a_round, os.kill, pid, signal.SIGKILL, workers=[worker])
    model = fit("gradients", data, **WIDE)
    assert bits(model) == expected
    assert [event for entry in model.history_ for event in entry["faults"]]
    assert_nothing_left(client)


def test_the_bytes_of_gradients_in_two_parts_are_announced(new_cluster, data, capsys):
    client = new_cluster(2)
    model = fit("gradients", data, **WIDE)
    assert EarlySum(model._network_, 400, LinkSpeed(ASSUMED.latency, ASSUMED.per_byte)).first_layer == 1
    (row,) = [r for r in dasknn.recommend(client, model, data[0]).rows if r.measured_bytes]
    assert row.bytes_sent == row.measured_bytes
    # Two messages for each of the three steps and workers, with a header and numbers each.
    assert row.bytes_sent > 2 * 3 * (4 * model._network_.n_params + 2 * collective.HEADER_BYTES)


def wake(pid):
    os.kill(pid, signal.SIGCONT)


def in_a_round(function, *args):
    """Call a function in this worker, once, in the middle of a wave: before its sixth sum."""
    import itertools

    from dasknn.cluster import collective

    sums, all_reduce = itertools.count(), collective.Group.all_reduce

    def call_and_sum(*given, **settings):
        if next(sums) == 5:
            function(*args)
        return all_reduce(*given, **settings)

    collective.Group.all_reduce = call_and_sum


@pytest.mark.parametrize("kind", [SOCKET, DASK])
def test_a_worker_that_falls_silent_is_left_out_within_seconds(new_cluster, data, local_bits, kind):
    client = new_cluster(2)
    worker, pid = max(client.run(os.getpid).items())
    # Between waves there would be more time.
    client.run(in_a_round, os.kill, pid, signal.SIGSTOP, workers=[worker])
    began = time.monotonic()
    try:
        with dask.config.set({"dasknn.silence": 3}), links_of(kind):
            model = fit("gradients", data)
    finally:
        wake(pid)
    assert bits(model) == local_bits["gradients"]
    assert worker in silent(model)
    # By itself, a wait would end after ten minutes.
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("moment", ["between epochs", "when its report is fetched"])
def test_a_worker_that_hangs_while_the_driver_waits_for_it_is_left_out(
    new_cluster, data, local_bits, monkeypatch, moment
):
    client = new_cluster(2)
    stopped = list(client.run(os.getpid).values())[1]
    stop = Once(lambda: os.kill(stopped, signal.SIGSTOP))
    callbacks = []
    if moment == "between epochs":
        callbacks = [AtEpochEnd(stop)]
    else:
        gather = ClusterExecutor.gather

        def stop_and_gather(tasks, batch, at):
            if batch[0].key.startswith("dasknn-train"):
                stop()
            return gather(tasks, batch, at)

        monkeypatch.setattr(ClusterExecutor, "gather", stop_and_gather)
    try:
        with dask.config.set({"dasknn.silence": 3}):
            model = fit("gradients", data, callbacks=callbacks)
    finally:
        wake(stopped)
    assert stop.done
    assert silent(model)
    assert bits(model) == local_bits["gradients"]


def test_what_a_member_raises_of_its_own_is_raised(new_cluster, data, monkeypatch):
    new_cluster(2, processes=False)
    from dasknn.strategies.gradients import GradientLearner

    def fail(self, total):
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(GradientLearner, "apply", fail)
    with pytest.raises(ZeroDivisionError, match="of its own"):
        fit("gradients", data)


def test_two_trainings_at_once_on_one_slot_a_worker_both_end(client, data, local_bits):
    found = {}

    def train(name, strategy):
        found[name] = bits(fit(strategy, data))

    jobs = [("gradients", "gradients"), ("again", "gradients"), ("weights every 3", "weights every 3")]
    threads = [threading.Thread(target=train, args=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {name: local_bits[strategy] for name, strategy in jobs}


# --- nothing left behind ----------------------------------------------------------------------------


class Raise(Callback):
    def __init__(self, error):
        self.error = error

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise self.error


@pytest.mark.parametrize("kind", [SOCKET, DASK])
@pytest.mark.parametrize("end", ["fit", "error", "interruption", "Ctrl-C"])
def test_no_endpoint_connection_or_thread_is_left(client, data, kind, end):
    settings = {"max_iter": 4}
    if end in ("error", "interruption"):
        error = RuntimeError("of the user") if end == "error" else KeyboardInterrupt()
        settings["callbacks"] = [Raise(error)]
    elif end == "Ctrl-C":
        interrupt = Later(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
        settings = {**LONG, "max_iter": 10**6, "callbacks": [interrupt]}
    with links_of(kind), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Training interrupted by user")
        if end == "error":
            with pytest.raises(RuntimeError, match="of the user"):
                fit("gradients", data, **settings)
        else:
            fit("gradients", data, **settings)
    assert_nothing_left(client)
    assert_workers_clean(client)


def slow_down(path):
    """Make each sum of this worker take a while; the sixth one leaves a sign."""
    import itertools
    import time

    from dasknn.cluster import collective

    sums, all_reduce = itertools.count(), collective.Group.all_reduce

    def nap_and_sum(*given, **settings):
        time.sleep(0.2)
        if next(sums) == 5:
            open(path, "w").close()
        return all_reduce(*given, **settings)

    collective.Group.all_reduce, collective.Group.quick = nap_and_sum, all_reduce


def speed_up():
    from dasknn.cluster import collective

    collective.Group.all_reduce = collective.Group.quick
    del collective.Group.quick


def test_an_aborted_wave_ends_within_seconds(client, data, tmp_path):
    sign = tmp_path / "in a wave"

    def interrupt():
        deadline = time.monotonic() + 60
        while not sign.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    client.run(slow_down, str(sign))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dasknn.training.peers.OnPeers._FIRST_WAVE", 10**9)
            # A wave of 899 rounds takes minutes.
            with pytest.warns(UserWarning, match="interrupted by user"):
                fit("gradients", data, batch_size=2, replicas=2, callbacks=[Later(0, interrupt)])
        assert sign.exists()
        assert_workers_clean(client)
    finally:
        client.run(speed_up)


# --- TLS and strangers ------------------------------------------------------------------------------


class Wire:
    """A proxy on the way to a listener, which keeps the bytes that pass."""

    def __init__(self, host, port):
        self.bytes = bytearray()
        self._to = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    async def _listen(self):
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _pass_on(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection(*self._to)

        async def copy(source, to):
            while data := await source.read(65536):
                self.bytes += data
                to.write(data)
                await to.drain()
            to.close()

        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer), return_exceptions=True)

    def close(self):
        async def end():
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


wires = []


def through_a_wire(handle):
    """Take the place of process_group._contact in workers of this process."""
    endpoint = handle.endpoint()
    host, port, address = endpoint.contact
    protocol, _, place = address.partition("://")
    if host is None:
        host, _, port = place.rpartition(":")
    wire = Wire(host, int(port))
    wires.append(wire)
    if endpoint.contact[0] is None:
        return None, None, f"{protocol}://127.0.0.1:{wire.port}"
    return "127.0.0.1", wire.port, address


@pytest.mark.parametrize("kind", [SOCKET, DASK])
@pytest.mark.parametrize("tls", [False, True])
def test_bytes_on_the_wire_are_encrypted_where_the_cluster_has_tls(
    start_cluster, data, local_bits, kind, tls, monkeypatch
):
    security = Security.temporary() if tls else None
    protocol = "tls://" if tls else "tcp://"
    wires.clear()
    monkeypatch.setattr(process_group, "_contact", through_a_wire)
    cluster = start_cluster(2, processes=False, protocol=protocol, security=security)
    with cluster, Client(cluster) as client, links_of(kind):
        model = fit("gradients", data)
        assert bits(model) == local_bits["gradients"]
        assert_nothing_left(client)
    seen = b"".join(wire.bytes for wire in wires)
    for wire in wires:
        wire.close()
    vectors = model.history_[0]["bytes_sent"]
    assert len(seen) > 2 * vectors
    # The mark of our frames can be read unless the connection is encrypted.
    assert (collective._MAGIC in seen) == (not tls)
    assert any(wire.bytes[:2] == b"\x16\x03" for wire in wires) == tls


@pytest.mark.parametrize("noise", [b"", b"x", b"GET / HTTP/1.1\r\n\r\n", bytes(100), None])
def test_strangers_are_not_let_in_and_hold_nobody_up(noise):
    """noise: what a stranger sends; None: bytes without an end."""
    run, secret = core.new_run(), core.Secret()
    ends = [tcp.SocketEndpoint(run, 1, secret, f"worker-{i}", "127.0.0.1") for i in range(2)]
    contacts = [end.contact for end in ends]
    stop = threading.Event()
    refused = threading.Event()

    def disturb():
        with tcp.socket.create_connection(contacts[0][:2], timeout=10) as stranger:
            try:
                while not stop.is_set():
                    stranger.sendall(noise if noise is not None else os.urandom(65536))
                    if noise is not None:
                        # The nonce comes, then the end: never a greeting.
                        while stranger.recv(4096):
                            pass
                        break
            except OSError:
                pass
            refused.set()

    strangers = [threading.Thread(target=disturb, daemon=True) for _ in range(5)]
    for stranger in strangers:
        stranger.start()
    first = threading.Thread(target=ends[0].connect, args=(0, contacts), daemon=True)
    first.start()
    time.sleep(0.3)
    began = time.monotonic()
    ends[1].connect(1, contacts)
    first.join(5)
    assert time.monotonic() - began < 3
    assert (set(ends[0].links), set(ends[1].links)) == ({1}, {0})
    assert refused.wait(tcp._HELLO_SECONDS + 3)
    stop.set()
    for end in ends:
        end.close()


@pytest.mark.parametrize("tls", [False, True])
def test_however_many_strangers_say_nothing_members_are_heard(tls, monkeypatch):
    monkeypatch.setattr(tcp, "_HELLO_SECONDS", 60.0)
    monkeypatch.setattr(core, "CONNECT_SECONDS", 60.0)
    security = Security.temporary()
    contexts = (
        security.get_listen_args("worker")["ssl_context"],
        security.get_connection_args("worker")["ssl_context"],
    )
    run, secret = core.new_run(), core.Secret()
    ends = [
        tcp.SocketEndpoint(run, 1, secret, f"worker-{i}", "127.0.0.1", contexts if tls else None)
        for i in range(2)
    ]
    contacts = [end.contact for end in ends]
    first = threading.Thread(target=ends[0].connect, args=(0, contacts), daemon=True)
    with ExitStack() as stack:

        def call(n):
            for _ in range(n):
                stack.enter_context(tcp.socket.create_connection(contacts[0][:2], timeout=10))

        call(100)
        first.start()
        caller = threading.Thread(target=call, args=(200,), daemon=True)
        caller.start()
        ends[1].connect(1, contacts)
        caller.join(30)
        first.join(30)
        assert (set(ends[0].links), set(ends[1].links)) == ({1}, {0})
        for end in ends:
            end.close()


@pytest.mark.parametrize("difference", ["secret", "run", "attempt"])
def test_members_of_another_run_attempt_or_secret_are_strangers(difference, monkeypatch):
    for module in (core, tcp):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    run, secret = core.new_run(), core.Secret()
    other = {"run": run, "attempt": 1, "secret": secret}
    other[difference] = {"secret": core.Secret(), "run": core.new_run(), "attempt": 2}[difference]
    ends = [
        tcp.SocketEndpoint(run, 1, secret, "worker-0", "127.0.0.1"),
        tcp.SocketEndpoint(other["run"], other["attempt"], other["secret"], "worker-1", "127.0.0.1"),
    ]
    contacts = [end.contact for end in ends]

    def first():
        with pytest.raises(LinkError, match=r"worker-0 waited 1 s for worker-1"):
            ends[0].connect(0, contacts)

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    with pytest.raises(LinkError):
        ends[1].connect(1, contacts)
    thread.join(5)
    assert not thread.is_alive()
    assert not ends[0].links


def test_a_client_without_certificate_is_not_let_in():
    server = Security.temporary()
    contexts = tuple(
        getter("worker")["ssl_context"] for getter in (server.get_listen_args, server.get_connection_args)
    )
    run, secret = core.new_run(), core.Secret()
    end = tcp.SocketEndpoint(run, 1, secret, "worker-0", "127.0.0.1", contexts)
    stranger = tcp.SocketEndpoint(run, 1, secret, "worker-1", "127.0.0.1")
    contacts = [end.contact, stranger.contact]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "CONNECT_SECONDS", 1.0)
        patch.setattr(tcp, "_HELLO_SECONDS", 1.0)

        def wait():
            with pytest.raises(LinkError):
                end.connect(0, contacts)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        # It knows the secret, and has no certificate.
        with pytest.raises(LinkError):
            stranger.connect(1, contacts)
        thread.join(5)
    assert not end.links


def test_an_endpoint_that_is_written_to_disk_stays_open_until_its_run_ends():
    import pickle

    def handle():
        tcp.SocketEndpoint(run, 1, core.Secret(), "worker", "127.0.0.1")
        return core.Handle(run, 1, "worker")

    run = core.new_run()
    written = handle()
    disk = pickle.dumps(written)
    del written
    assert pickle.loads(disk).endpoint().contact
    core.close(run)
    with pytest.raises(LinkError, match="no longer there"):
        pickle.loads(disk).endpoint()
    forgotten = handle()
    del forgotten
    assert not core._of_run(run)


def test_messages_of_strangers_and_stale_ones_are_dropped_by_dasks_handler(new_cluster):
    client = new_cluster(1, processes=False)
    (worker,) = client.cluster.workers.values()
    run, secret = core.new_run(), core.Secret()
    end = comm_dask.DaskEndpoint(run, 2, secret, worker)
    handler = worker.handlers["dasknn_frame"]
    data = np.zeros(3, np.uint8)
    proof = end._proof(1)
    strange = [{"proof": "text"}, {"proof": b"wrong"}, {"rank": "1"}, {"rank": 2**40}, {"rank": 2}]
    for change in ({"run": b"other"}, {"attempt": 1}, *strange):
        handler(**{"run": run, "attempt": 2, "rank": 1, "number": 0, "proof": proof, "data": data, **change})
    assert not end._early
    for number in range(2 * comm_dask._MOST_WAITING):
        handler(run=run, attempt=2, rank=1, number=number, proof=proof, data=data)
    assert len(end._early[1]) == comm_dask._MOST_WAITING
    end.close()
    assert "dasknn_frame" not in worker.handlers
    handler(run=run, attempt=2, rank=1, number=0, proof=proof, data=data)


def test_no_log_and_no_error_has_a_secret_and_each_attempt_and_kind_has_its_own(new_cluster, monkeypatch):
    made, new = [], core.secrets.token_bytes

    def token_bytes(n):
        made.append(new(n))
        return made[-1]

    monkeypatch.setattr(core.secrets, "token_bytes", token_bytes)
    client = new_cluster(1, processes=False)
    X, y = da.random.random((80, 3), chunks=20), da.ones(80, chunks=20)
    model = MLPClassifier((3,), max_iter=1, replicas=2, transport="peer", strategy="gradients")
    with tcp.socket.create_server(("127.0.0.1", 0)) as taken, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with dask.config.set({"dasknn.ports": str(taken.getsockname()[1])}):
            model.fit(X, y)
    assert model.transport_ == "peer"
    logs = repr((client.get_worker_logs(), client.get_scheduler_logs()))
    assert "dasknn-open" in logs
    found = [value for value in made if len(value) == 32]
    assert len(found) == 2
    for value in found:
        assert repr(value)[2:-1].replace("\\", "") not in logs.replace("\\", "")
        assert value.hex() not in logs
    secret = core.Secret()
    assert repr(partial(print, secret)).endswith("<Secret>)")
    assert pickle.loads(pickle.dumps(secret)).proof(b"a", b"b") == secret.proof(b"ab")


def test_ports_are_taken_from_the_range_that_is_set():
    with tcp.socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"No port of '{port}-{port}' is free at 127"
        with dask.config.set({"dasknn.ports": f"{port}-{port}"}), pytest.raises(LinkError, match=message):
            tcp.SocketEndpoint(b"r" * 16, 1, core.Secret(), "worker", "127.0.0.1")
    with dask.config.set({"dasknn.ports": f"{port}-{port + 20}"}):
        end = tcp.SocketEndpoint(b"r" * 16, 1, core.Secret(), "worker", "127.0.0.1")
    assert port <= end.contact[1] <= port + 20
    end.close()
