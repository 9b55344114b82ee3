"""Where compiled steps could be silently wrong, or wait for ever."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import MLPClassifier, activations
from dasknn.cluster.connect import connect
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import Contribution, Shard, TrainingJob
from dasknn.layers import Dense
from dasknn.losses import MeanSquaredError
from dasknn.optimizers import SGD, Adam
from dasknn.regularizers import L2, BatchL2
from dasknn.strategies import GradientAveraging
from dasknn.strategies.local_trainer import LocalTrainer

NUMBA = engines.get("numba")
X = np.random.default_rng(0).standard_normal((600, 3)).astype("float32")
Y = X[:, :2] + 1


def job_of(*layers, optimizer=None, engine="numba", dtype="float32"):
    network = Network(3, layers, MeanSquaredError(), dtype)
    return TrainingJob(network, optimizer or SGD(0.1), BatchL2(), 10, 0, engine=engine)


@pytest.mark.parametrize(
    "name", ["relu", "tanh", "logistic", "gelu", "silu", "elu", "leaky_relu", "softplus"]
)
def test_what_is_not_a_number_reaches_outputs_and_weights(name):
    job = job_of(Dense(4, activations.get(name)), Dense(2))
    params = job.init_params(0)
    bad = X.copy()
    bad[7, 1] = np.nan
    outputs = NUMBA.predict(job.network, params, bad)
    assert np.isnan(outputs[7]).all()
    assert np.isfinite(np.delete(outputs, 7, axis=0)).all()
    total = NUMBA.gradient_sum(job, params)
    total.add(bad, Y, None, slice(0, 10))
    assert np.isnan(total.loss_sum)
    assert np.isnan(total.vector).any()


@pytest.mark.parametrize("beta_2", [0.999, 0.999999, 1 - 1e-8])
def test_moments_that_move_slowly_are_numpys(beta_2):
    found = []
    for engine in ("numpy", "numba"):
        job = job_of(Dense(4, "relu"), Dense(2), optimizer=Adam(0.01, beta_2=beta_2), engine=engine)
        state = GradientAveraging().init_state(job, job.init_params(0), 1)
        trainer = LocalTrainer(job, state)
        trainer.train(Shard(X, Y), slice(0, 30), [0, 10, 20, 30])
        found.append(trainer.state().params)
    assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_a_step_leaves_the_summed_gradient_as_it_was():
    job = job_of(Dense(4, kernel_regularizer=L2(0.1)), Dense(2))
    state = GradientAveraging().init_state(job, job.init_params(0), 1)
    vector = np.ones(job.network.n_params, "float32")
    vector.setflags(write=False)
    total = Contribution.of(vector, 1.0, 10.0, 10)
    first = GradientAveraging().apply(job, state, total).params.copy()
    assert_array_equal(GradientAveraging().apply(job, state, total).params, first)
    assert_array_equal(vector, 1)


def test_a_thread_that_fails_ends_the_round(monkeypatch):
    from dasknn.engine.compiled import cache
    from dasknn.engine.compiled.crew import Crew, Request
    from dasknn.engine.compiled.program import PREDICTIONS

    job = job_of(Dense(2))
    params, serve = job.init_params(0), cache.serve

    def fail(lane, *args):
        if lane:
            raise MemoryError("no room")
        return serve(lane, *args)

    monkeypatch.setattr(cache, "serve", fail)
    crew = Crew(job, 2)
    edges = np.array([0, 10], np.int64)
    requests = [
        Request(
            PREDICTIONS, X, None, None, None, edges, params.ctypes.data, seen=np.empty((10, 2), "float32")
        )
        for _ in range(2)
    ]
    with pytest.raises(RuntimeError, match="thread with compiled steps") as info:
        crew.run(requests)
    assert isinstance(info.value.__cause__, MemoryError)
    monkeypatch.undo()
    # It can be used again.
    assert len(crew.run(requests)) == 2
    crew.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "dasknn-replica"]


def test_csr_rows_are_not_kept():
    from scipy import sparse

    job = job_of(Dense(2))
    total = NUMBA.gradient_sum(job, job.init_params(0))
    total.add(sparse.csr_matrix(X), Y, None, slice(0, 600))
    assert not total._crew._columns


def wait_for_file(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_fit_does_not_wait_for_a_worker_that_it_does_not_use(client, tmp_path):
    path = str(tmp_path / "go on")
    model = MLPClassifier((4,), engine="numba", replicas=1, strategy="gradients", max_iter=1)
    with connect(client, distributed=True) as executor:
        home = executor.homes(1)[0]
    other = next(address for address in client.nthreads() if address != home)
    busy = client.submit(wait_for_file, path, workers=[other])
    model.fit(X, (X[:, 0] > 0).astype(int))
    assert model.engine_ == "numba"
    assert not busy.done()
    Path(path).touch()
    busy.result()
