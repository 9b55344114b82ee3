"""Floors 1 to 3: derivatives, optimizers, and the hot loop."""

import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from dasknn import activations
from dasknn.engine.network import Network
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.estimators.losses import BinaryLogLoss, CategoricalLogLoss, HalfPoisson, SquaredError
from dasknn.initializers import GlorotUniform
from dasknn.layers import Dense
from dasknn.optimizers import SGD, Adam
from dasknn.regularizers import BatchL2

N_ROWS, N_INPUTS, N_OUTPUTS = 12, 5, 3
HIDDEN = ("identity", "relu", "tanh", "logistic", "softmax")
# Activations of the last layer whose range a loss can take.
LOSSES = [
    (CategoricalLogLoss(), "softmax"),
    (CategoricalLogLoss(), "logistic"),
    (BinaryLogLoss(), "logistic"),
    (BinaryLogLoss(), "softmax"),
    (SquaredError(), "identity"),
    (SquaredError(), "tanh"),
    (SquaredError(), "relu"),
    (HalfPoisson(), "exp"),
    (HalfPoisson(), "logistic"),
]


def network_of(hidden="tanh", loss=None, last="softmax", dtype="float64", units=(7, 4)):
    loss = loss or CategoricalLogLoss()
    layers = [
        Dense(n, hidden, kernel_initializer=GlorotUniform(), bias_initializer=GlorotUniform()) for n in units
    ]
    layers.append(
        Dense(N_OUTPUTS, last, kernel_initializer=GlorotUniform(), bias_initializer=GlorotUniform())
    )
    return Network(N_INPUTS, tuple(layers), loss, dtype)


def targets_of(loss, rng):
    if isinstance(loss, CategoricalLogLoss):
        return rng.integers(0, N_OUTPUTS, N_ROWS)
    if isinstance(loss, BinaryLogLoss):
        return rng.integers(0, 2, (N_ROWS, N_OUTPUTS)).astype(float)
    if isinstance(loss, HalfPoisson):
        return rng.poisson(2.0, (N_ROWS, N_OUTPUTS)).astype(float)
    return rng.standard_normal((N_ROWS, N_OUTPUTS))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("hidden", "case"), list(itertools.product(HIDDEN, LOSSES)))
def test_the_gradient_is_the_slope_in_a_random_direction(hidden, case, weighted):
    loss, last = case
    rng = np.random.default_rng(3)
    network = network_of(hidden, loss, last)
    params = network.initial_params(rng)
    X, y = rng.standard_normal((N_ROWS, N_INPUTS)), targets_of(loss, rng)
    weight = rng.uniform(0.1, 2, N_ROWS) if weighted else None
    direction = rng.standard_normal(network.n_params)
    step = 1e-6

    _, grad = loss_and_grad(network, params, X, y, weight)
    above, _ = loss_and_grad(network, params + step * direction, X, y, weight)
    below, _ = loss_and_grad(network, params - step * direction, X, y, weight)
    slope = (above - below) / (2 * step)
    if isinstance(loss, SquaredError):
        slope *= N_OUTPUTS  # The loss is averaged over outputs, its gradient summed (see the class).
    assert_allclose(grad @ direction, slope, rtol=2e-5, atol=1e-6)


def test_a_label_out_of_range_raises():
    network = network_of()
    params = network.initial_params(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"Labels must lie in \[0, 3\), received 0 to 3"):
        loss_and_grad(network, params, np.zeros((2, N_INPUTS)), np.array([0, 3]))


def test_targets_of_another_shape_raise():
    network = network_of(loss=SquaredError(), last="identity")
    params = network.initial_params(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"expects targets of shape \(n, 3\), received \(2,\)"):
        loss_and_grad(network, params, np.zeros((2, N_INPUTS)), np.zeros(2))


def test_an_unknown_activation_raises():
    with pytest.raises(ValueError, match=r"Expected an activation, received .sine."):
        Dense(3, "sine")


def test_no_rows_have_no_gradient():
    network = network_of()
    params = network.initial_params(np.random.default_rng(0))
    loss_sum, grad = loss_and_grad(network, params, np.empty((0, N_INPUTS)), np.empty(0, int))
    assert loss_sum == 0
    assert not grad.any()


@pytest.mark.parametrize("name", [*HIDDEN, "exp"])
def test_activations_agree_with_and_without_scratch(name):
    Z = np.random.default_rng(0).standard_normal((6, 4))
    activation = activations.get(name)
    with_scratch, without = Z.copy(), Z.copy()
    activation.forward(with_scratch, activation.scratch(6, 4, Z.dtype))
    activation.forward(without, None)
    assert_array_equal(with_scratch, without)


def test_parameters_are_one_vector_and_weights_come_first():
    network = network_of()
    vector = np.arange(network.n_params, dtype=float)
    views = network.views(vector)
    flat = np.concatenate([W.ravel() for W, _ in views] + [b for _, b in views])
    assert_array_equal(flat, vector)
    assert all(np.shares_memory(W, vector) and np.shares_memory(b, vector) for W, b in views)
    assert network.n_weights == network.n_multiplications == sum(W.size for W, _ in views)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_do_not_depend_on_how_rows_are_batched_or_stored(dtype, monkeypatch):
    for module in ("network", "workspace"):
        monkeypatch.setattr(f"dasknn.engine.{module}.ROWS_AT_ONCE", 5)
    rng = np.random.default_rng(0)
    network = network_of(dtype=dtype)
    params = network.initial_params(rng)
    X = rng.standard_normal((23, N_INPUTS)).astype(dtype)
    outputs = network.predict(params, X)
    assert outputs.dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    by_row = np.vstack([network.predict(params, X[i : i + 1]) for i in range(23)])
    assert_allclose(outputs, by_row, rtol=tolerance)
    assert_allclose(outputs, network.predict(params, sparse.csr_matrix(X)), rtol=tolerance)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_gradients_do_not_depend_on_how_many_rows_go_at_once(make, monkeypatch):
    rng = np.random.default_rng(0)
    network = network_of()
    params, X = network.initial_params(rng), rng.standard_normal((23, N_INPUTS))
    y, weight = rng.integers(0, network.n_outputs, 23), rng.uniform(0, 2, 23)
    whole = loss_and_grad(network, params, X, y, weight)
    for module in ("network", "workspace"):
        monkeypatch.setattr(f"dasknn.engine.{module}.ROWS_AT_ONCE", 5)
    monkeypatch.setattr("dasknn.engine.workspace._SPARSE_ELEMENTS_AT_ONCE", 3 * N_INPUTS)
    seen = []

    class Recorded(Workspace):
        def take(self, *args):
            super().take(*args)
            seen.append(self.n_rows)

    monkeypatch.setattr("dasknn.engine.workspace.Workspace", Recorded)
    parts = loss_and_grad(network, params, make(X), y, weight)
    assert seen == ([5, 5, 5, 5, 3] if make is np.asarray else [3] * 7 + [2])
    assert parts[0] == pytest.approx(whole[0])
    assert_allclose(parts[1], whole[1], rtol=1e-10, atol=1e-12)


def test_sparse_batches_have_the_gradient_of_dense_ones():
    rng = np.random.default_rng(0)
    network = network_of()
    params = network.initial_params(rng)
    X = rng.standard_normal((N_ROWS, N_INPUTS)) * (rng.random((N_ROWS, N_INPUTS)) < 0.3)
    y = rng.integers(0, N_OUTPUTS, N_ROWS)
    dense, sparse_one = (loss_and_grad(network, params, data, y) for data in (X, sparse.csr_matrix(X)))
    assert dense[0] == sparse_one[0]
    assert_array_equal(dense[1], sparse_one[1])


def test_a_network_can_be_pickled():
    network = network_of()
    params = network.initial_params(np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(network))
    X = np.ones((2, N_INPUTS))
    assert_array_equal(again.predict(params, X), network.predict(params, X))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(0.01, 0.8, 0.95, 1e-7), lambda p: AdamOptimizer(p, 0.01, 0.8, 0.95, 1e-7)),
        (SGD(0.01, 0.8, True), lambda p: SGDOptimizer(p, 0.01, "constant", 0.8, True)),
        (SGD(0.01, 0.8, False), lambda p: SGDOptimizer(p, 0.01, "constant", 0.8, False)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers_take_scikit_learns_steps(ours, theirs, dtype):
    rng = np.random.default_rng(0)
    n = 70_000  # More than two blocks.
    params = rng.standard_normal(n).astype(dtype)
    expected = params.copy()
    slots, grad = np.zeros((ours.n_slots, n), dtype), np.empty(n, dtype)
    updater = Updater(ours, BatchL2(0.0), n // 2, params, slots, grad)
    reference = theirs([expected])
    for step in range(1, 6):
        grad[:] = rng.standard_normal(n)
        reference.update_params([expected], [grad / 3])
        updater.step(3, step, ours.learning_rate)
        if dtype == "float64":
            assert_array_equal(params, expected)
        else:
            # scikit-learn's learning rate of Adam is a float64 scalar, so it computes in float64 there.
            assert_allclose(params, expected, rtol=1e-5, atol=1e-6)


def test_the_penalty_is_on_weights_alone():
    params, grad = np.ones(6), np.zeros(6)
    updater = Updater(SGD(1.0, 0.0, False), BatchL2(0.5), 4, params, np.zeros((1, 6)), grad)
    updater.step(2.0, 1, 1.0)
    assert_allclose(params, [0.75] * 4 + [1.0] * 2)
    assert BatchL2(0.5).penalty(np.full(4, 2.0)) == 0.25 * 16


@pytest.mark.parametrize(("loss", "last"), [(CategoricalLogLoss(), "softmax"), (BinaryLogLoss(), "logistic")])
def test_a_step_allocates_nothing_of_the_size_of_a_layer(loss, last):
    rng = np.random.default_rng(0)
    layers = (Dense(256, "relu"), Dense(128, "relu"), Dense(10, last))
    network = Network(300, layers, loss, "float32")
    params, slots = network.initial_params(rng), np.zeros((2, network.n_params), "float32")
    grad = np.empty_like(params)
    X = rng.standard_normal((5000, 300)).astype("float32")
    y = rng.integers(0, 10, 5000)
    if isinstance(loss, BinaryLogLoss):
        y = rng.integers(0, 2, (5000, 10)).astype("float32")
    weight = np.ones(5000, "float32")
    order = rng.permutation(5000)
    workspace = Workspace(network, 512)
    updater = Updater(Adam(), BatchL2(1e-4), network.n_weights, params, slots, grad)
    param_views, grad_views = network.views(params), network.views(grad)

    def step(number):
        workspace.take(X, y, weight, order[number * 512 : (number + 1) * 512])
        workspace.loss_and_grad(param_views, grad_views)
        updater.step(512.0, number + 1, 1e-3)

    step(0)
    tracemalloc.start()
    try:
        step(1)
        peaks = []
        for number in range(2, 8):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            step(number)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # The smallest hidden layer has 512 * 128 numbers, 262 kB. numpy's own buffer for broadcasting, of 8,192
    # numbers, comes and goes, and so do views. Other threads of the process may add to a peak, not take away.
    assert min(peaks) < 50_000
