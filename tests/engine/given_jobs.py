"""Networks, rows and trainings on which both engines are compared."""

from dataclasses import replace

import numpy as np

from dasknn import activations
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import Shard, TrainingJob
from dasknn.estimators.losses import BinaryLogLoss, CategoricalLogLoss, SquaredError
from dasknn.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from dasknn.regularizers import BatchL2
from dasknn.strategies import GradientAveraging
from dasknn.strategies.local_trainer import LocalTrainer, batch_bounds

DTYPES = ("float64", "float32")
ENGINES = (engines.NUMPY, engines.NUMBA)
# Of the largest number of an array.
GRADIENT_TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
# Adam's first steps divide by numbers near 0, which magnifies what rounding has done.
STEPS_TOLERANCE = {"float64": 1e-10, "float32": 2e-4}

N_ROWS, N_INPUTS = 53, 6
NOT_COMPILED = ("softmax", "log_softmax")
ACTIVATIONS = [
    *(activations.get(name) for name in activations._ACTIVATIONS if name not in NOT_COMPILED),
    activations.relu(2.0, 0.1, 0.5),
    activations.relu(None, 0.1),
    activations.leaky_relu(0.3),
    activations.elu(0.7),
]
# Losses, the activation of the last layer, and its units.
LOSSES = [
    (CategoricalLogLoss(), "softmax", 3),
    (BinaryLogLoss(), "logistic", 1),
    (BinaryLogLoss(), "logistic", 3),
    (SquaredError(), "identity", 1),
    (SquaredError(), "identity", 3),
    (SquaredError(), "tanh", 3),
    (CategoricalCrossentropy(), "softmax", 4),
    (CategoricalCrossentropy(label_smoothing=0.1), "softmax", 4),
    (CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), None, 4),
    (SparseCategoricalCrossentropy(), "softmax", 4),
    (SparseCategoricalCrossentropy(from_logits=True), None, 4),
    (SparseCategoricalCrossentropy(from_logits=True), "tanh", 4),
    (BinaryCrossentropy(), "sigmoid", 1),
    (BinaryCrossentropy(label_smoothing=0.2), "sigmoid", 3),
    (BinaryCrossentropy(from_logits=True), None, 1),
    (BinaryCrossentropy(from_logits=True, reduction="mean_with_sample_weight"), None, 2),
    (MeanSquaredError(), None, 1),
    (MeanSquaredError(), "relu", 3),
]


def shard_of(loss, k, dtype, weighted=False, n=N_ROWS, n_inputs=N_INPUTS, seed=0):
    """Return rows with targets that a loss of k outputs takes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_inputs)).astype(dtype)
    if loss.takes_labels or isinstance(loss, CategoricalLogLoss):
        y = rng.integers(0, k, n)
    elif isinstance(loss, CategoricalCrossentropy):
        y = rng.dirichlet(np.ones(k), n).astype(dtype)
    elif isinstance(loss, BinaryCrossentropy | BinaryLogLoss):
        y = rng.integers(0, 2, (n, k)).astype(dtype)
    else:
        y = rng.standard_normal((n, k)).astype(dtype)
    return Shard(X, y, rng.uniform(0.1, 2, n).astype(dtype) if weighted else None)


def job_of(layers, loss, optimizer, dtype="float64", n_inputs=N_INPUTS, l2=1e-2, **settings):
    return TrainingJob(
        Network(n_inputs, tuple(layers), loss, dtype), optimizer, BatchL2(l2), 8, 3, **settings
    )


def on(job, engine):
    return replace(job, engine=engine)


def params_of(job):
    """Return parameters larger than initial ones, with biases."""
    params = job.init_params(0)
    return (params * 1.3 + np.random.default_rng(9).normal(0, 0.05, len(params))).astype(params.dtype)


def first_state(job):
    return GradientAveraging().init_state(job, params_of(job), 1)


def trained(job, engine, shard, order=None, bounds=None, number=1, state=None):
    """Return the state after steps on batches of a shard."""
    order = np.random.default_rng(1).permutation(len(shard)) if order is None else order
    bounds = batch_bounds(len(shard), 8) if bounds is None else bounds
    trainer = LocalTrainer(on(job, engine), first_state(job) if state is None else state)
    trainer.train(shard, order, bounds, number)
    return trainer.state()


def gradient(job, engine, shard, rows=None, step=1):
    """Return the sum of gradients over rows, with the divisor of their loss."""
    total = engines.get(engine).gradient_sum(on(job, engine), params_of(job))
    total.begin()
    rows = slice(0, len(shard)) if rows is None else rows
    divisor = total.add(shard.X, shard.y, shard.weight, rows, job.noise(step, 2, 3))
    return total, divisor


def assert_near(found, expected, tolerance):
    """Fail unless the difference is a small share of the largest number."""
    found, expected = (np.asarray(array, np.float64) for array in (found, expected))
    assert found.shape == expected.shape
    if expected.size:
        largest = max(np.abs(expected).max(), 1e-6)
        np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=tolerance)


def assert_same_training(found, expected, tolerance):
    """Fail unless two states agree in all that they hold."""
    for name in ("params", "slots", "loss_total", "weight_sum", "metric_sums"):
        assert_near(getattr(found, name), getattr(expected, name), tolerance)
    assert (found.step, found.n_samples) == (expected.step, expected.n_samples)
