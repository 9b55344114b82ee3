"""Layers: their derivatives against differences, normalization against figures that Keras computed."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from dasknn import Sequential, activations, layers
from dasknn.engine.network import Network
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    Input,
    LayerNormalization,
    LeakyReLU,
    ReLU,
    Softmax,
)
from dasknn.layers import layer as layer_module
from dasknn.losses import MeanSquaredError
from dasknn.optimizers import SGD
from dasknn.regularizers import BatchL2

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "layers.json").read_text())
BATCHES, COTANGENT = np.array(GOLDEN["batches"]), np.array(GOLDEN["cotangent"])
CASES = [
    pytest.param(case, id=f"{case['class_name']}-{number}") for number, case in enumerate(GOLDEN["layers"])
]
N_ROWS, N_INPUTS, N_OUTPUTS = 12, 4, 2


def named(item):
    """A name for a test's case, the same in every process."""
    return re.sub(r"<[^>]*>|functools\.partial", "", str(item))


ACTIVATIONS = [*activations._ACTIVATIONS, activations.relu(0.8, 0.2, 0.1), activations.elu(0.5)]
LAYERS = [
    Dense(5, use_bias=False),
    Dense(5, "tanh", activity_regularizer="l2"),
    Dense(5, "relu", activity_regularizer="l1"),
    Activation("gelu"),
    ReLU(),
    ReLU(max_value=0.8, negative_slope=0.2, threshold=0.1),
    LeakyReLU(),
    ELU(alpha=0.7),
    Softmax(),
    BatchNormalization(),
    BatchNormalization(scale=False),
    BatchNormalization(center=False),
    BatchNormalization(trainable=False),
    LayerNormalization(),
    LayerNormalization(scale=False),
    LayerNormalization(center=False),
    Dropout(0.4),
    GaussianDropout(0.3),
    GaussianNoise(0.5),
]
# Keras takes moments in float32, even of float64.
RTOL = 1e-5
# Settings, without what all layers have.
COMMON = ("name", "trainable", "dtype")


def check_gradient(*stack):
    """In a random direction, the gradient is the slope of the loss; noise is the same in each call."""
    network = Network(N_INPUTS, stack, MeanSquaredError(), "float64")
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(N_ROWS, N_INPUTS)), rng.normal(size=(N_ROWS, network.n_outputs))
    params = rng.normal(size=network.n_params)
    direction = rng.normal(size=network.n_params)
    for variable in network.variables:
        if not variable.is_learned:
            params[variable.span] = np.abs(params[variable.span])
            direction[variable.span] = 0

    def along(step):
        return loss_and_grad(network, params + step * direction, X, y, rng=np.random.default_rng(3))

    step = 1e-6
    slope = (along(step)[0] - along(-step)[0]) / (2 * step)
    assert abs(slope) > 1e-3
    assert_allclose(direction @ along(0)[1], slope, rtol=1e-6)


@pytest.mark.parametrize("function", ACTIVATIONS, ids=named)
def test_a_dense_layer_is_differentiated_through_its_activation(function):
    check_gradient(Dense(5, function), Dense(N_OUTPUTS))


@pytest.mark.parametrize("layer", LAYERS, ids=named)
def test_a_layer_between_others_is_differentiated(layer):
    check_gradient(Dense(5, "tanh"), layer, Dense(N_OUTPUTS))


@pytest.mark.parametrize("layer", LAYERS, ids=named)
def test_a_last_layer_is_differentiated(layer):
    check_gradient(Dense(5), layer)


@pytest.mark.parametrize(
    "layer", [BatchNormalization(), LayerNormalization(), Dropout(0.4), GaussianNoise(0.1)], ids=named
)
def test_a_first_layer_is_differentiated(layer):
    check_gradient(layer, Dense(5, "tanh"), Dense(N_OUTPUTS))


@pytest.mark.parametrize("layer", LAYERS, ids=named)
def test_new_data_goes_through_a_layer_as_a_mini_batch_without_noise_does(layer):
    network = Network(N_INPUTS, (layer,), MeanSquaredError(), "float64")
    rng = np.random.default_rng(1)
    X, params = rng.normal(size=(N_ROWS, N_INPUTS)), rng.uniform(0.5, 2, network.n_params)
    outputs = network.predict(params, X)
    assert outputs.shape == (N_ROWS, layer.n_outputs(N_INPUTS))
    if layer.is_noisy:
        assert_array_equal(outputs, X)
    elif not isinstance(layer, BatchNormalization):
        bound = layer.bind(N_ROWS, N_INPUTS, "float64")
        assert_allclose(bound.forward(X, network.views(params)[0], None), outputs, rtol=1e-12, atol=1e-12)


def params_of(network, case):
    """What Keras began with."""
    params = network.initial_params(np.random.default_rng(0))
    for variable in network.variables:
        if variable.name in ("gamma", "beta"):
            variable.view(params)[...] = GOLDEN[variable.name]
    return params


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_normalization_in_training_is_that_of_keras(case, dtype):
    layer = layers.deserialize(case)
    network = Network(3, (layer,), MeanSquaredError(), dtype)
    views = network.views(params_of(network, case))[0]
    bound = layer.bind(5, 3, dtype)
    for batch, outputs, derivatives in zip(BATCHES, case["outputs"], case["derivatives"], strict=True):
        X = batch.astype(dtype)
        assert_allclose(bound.forward(X, views, None), outputs, rtol=RTOL, atol=RTOL)
        grads, dX = [np.empty_like(view) for view in views], np.empty_like(X)
        bound.dA[...] = COTANGENT
        bound.backward(X, views, grads, dX)
        learned = grads[: len(derivatives["weights"])]
        assert_allclose(learned, derivatives["weights"], rtol=RTOL, atol=RTOL)
        assert_allclose(dX, derivatives["inputs"], rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_after_three_batches_normalization_of_new_data_is_that_of_keras(case, dtype):
    network = Network(3, (layers.deserialize(case),), MeanSquaredError(), dtype)
    params, grad = params_of(network, case), np.empty(network.n_params, dtype)
    optimizer = SGD(0.0)
    updater = Updater(
        optimizer,
        BatchL2(),
        network.n_weights,
        params,
        np.zeros((0, len(params)), dtype),
        grad,
        network.variables,
    )
    workspace = Workspace(network, 5)
    weight = np.full(5, 0.5, dtype)
    for step, batch in enumerate(BATCHES, 1):
        workspace.take(batch.astype(dtype), np.zeros((5, 3), dtype), weight, slice(0, 5))
        workspace.loss_and_grad(network.views(params), network.views(grad))
        updater.step(network.loss.divisor(5, weight), step, 0.0)
    for variable in network.variables:
        assert_allclose(variable.view(params), case["weights"][variable.name], rtol=RTOL, atol=RTOL)
    assert_allclose(network.predict(params, BATCHES[0].astype(dtype)), case["new_data"], rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_of_normalization_is_that_of_keras(case):
    written = json.loads(json.dumps(layers.serialize(layers.deserialize(case))))["config"]
    left_out = {name for name in case["config"] if name not in written}
    assert left_out <= set(layer_module._ONLY_KERAS)
    assert written == {name: value for name, value in case["config"].items() if name not in left_out}


@pytest.mark.parametrize(
    "layer", [*LAYERS, Flatten(), Input((3,)), Dense(2, activations.elu(0.3))], ids=named
)
def test_a_layer_survives_its_configuration_and_pickling(layer):
    written = json.loads(json.dumps(layers.serialize(layer)))
    again = layers.deserialize(written)
    assert layers.serialize(again) == written
    assert {k: v for k, v in vars(again).items() if k not in COMMON} == {
        k: v for k, v in vars(layer).items() if k not in COMMON
    }
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(pickle.loads(pickle.dumps(layer))) == hash(layer)


def test_dropout_keeps_the_mean_and_drops_its_share():
    bound = Dropout(0.25).bind(200, 500, "float64")
    A = bound.forward(np.ones((200, 500)), (), np.random.default_rng(0))
    assert_allclose((A == 0).mean(), 0.25, atol=0.01)
    assert_allclose(np.unique(A), [0, 1 / 0.75])
    assert_allclose(A.mean(), 1, atol=0.01)


@pytest.mark.parametrize(("layer", "mean", "std"), [
    (GaussianDropout(0.2), 2.0, 2 * 0.5), (GaussianNoise(0.3), 2.0, 0.3),
])  # fmt: skip
def test_noise_has_the_mean_and_deviation_it_says(layer, mean, std):
    A = layer.bind(200, 500, "float32").forward(
        np.full((200, 500), 2, np.float32), (), np.random.default_rng(0)
    )
    assert_allclose([A.mean(), A.std()], [mean, std], rtol=0.01)


def test_dropout_of_everything_gives_zeros():
    bound = Dropout(1.0).bind(2, 3, "float32")
    assert not bound.forward(np.ones((2, 3), np.float32), (), np.random.default_rng(0)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(0), "units to be an integer of at least 1"),
        (lambda: Dropout(1.5), r"rate to be in \[0, 1\]"),
        (lambda: GaussianDropout(1.0), r"rate to be in \[0, 1\)"),
        (lambda: GaussianNoise(-1.0), "stddev to be at least 0"),
        (lambda: BatchNormalization(axis=2), "expects axis=-1"),
        (lambda: Dense(3, dtype="float16"), "dtype None or 'float32'"),
        (lambda: Dense(3, "rellu"), "Did you mean 'relu'"),
        (lambda: Dense(3).output_shape((2, 2)), r"Put Flatten\(\) before it"),
        (lambda: Input(), "shape of a row"),
        (lambda: layers.deserialize({"class_name": "Conv2D", "config": {}}), "Expected a layer among"),
        (lambda: Dense.from_config({"units": 3, "width": 3}), "received width"),
        (lambda: Dense.from_config({"units": 3, "lora_rank": 2}), "does not implement lora_rank"),
    ],
)
def test_settings_that_make_no_sense_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- arguments that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.ReLU(negative_slope=None), "ReLU expects negative_slope to be a number, received N"),
        (lambda: layers.ReLU(threshold=None), "ReLU expects threshold to be a number, received None"),
        (lambda: layers.ReLU(max_value=-1), "ReLU expects max_value to be at least 0, received -1"),
        (lambda: layers.LeakyReLU(-0.1), "LeakyReLU expects negative_slope to be at least 0, received -0.1"),
        (lambda: layers.LeakyReLU(None), "LeakyReLU expects negative_slope to be a number, received None"),
        (lambda: layers.ELU("1"), "ELU expects alpha to be a number, received '1'"),
        (lambda: layers.Dropout("0.5"), "Dropout expects rate to be a number, received '0.5'"),
        (lambda: layers.BatchNormalization(epsilon=None), "expects epsilon to be a number, received None"),
        (lambda: layers.Dense(4.0), "Dense expects units to be an integer, received 4.0"),
        (lambda: layers.Dense(True), "Dense expects units to be an integer, received True"),
        (lambda: layers.Dense(3, use_bias="no"), "use_bias to be True or False, received 'no'"),
        (
            lambda: layers.Input((4,), batch_shape=(None, 5)),
            r"shape or batch_shape, received shape=\(4,\) and",
        ),
        (lambda: layers.Input(batch_size=2, batch_shape=(None, 5)), "batch_size or batch_shape"),
        (
            lambda: layers.Input((4,), input_shape=(5,)),
            r"one shape of a row, received \(4,\) and input_shape",
        ),
        (lambda: layers.Dense(3, input_shape=(4,), input_dim=5), "input_shape or input_dim, received"),
    ],
)
def test_arguments_that_no_layer_can_take_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_input_takes_its_shape_in_any_of_keras_ways():
    ways = [{"shape": (4,)}, {"batch_shape": (None, 4)}, {"input_shape": (4,)}, {"input_dim": 4}]
    assert [layers.Input(**way).shape for way in ways] == [(4,)] * 4
    assert layers.Input.from_config({"batch_input_shape": [None, 4], "name": "first"}).shape == (4,)


@pytest.mark.parametrize(
    "first",
    [
        layers.Dropout(0.5),
        layers.GaussianNoise(0.1),
        layers.Activation("tanh"),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.Dense(3, activity_regularizer="l2"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_any_first_layer_takes_sparse_rows(first):
    X = sparse.random(40, 6, 0.3, format="csr", dtype=np.float32, random_state=0)
    y = np.asarray(X.sum(axis=1), np.float32)
    model = Sequential([layers.Input((6,)), first, layers.Dense(1, activity_regularizer="l2")])
    model.compile(loss="mse")
    model.fit(X, y, validation_data=(X, y), verbose=0)
    assert_allclose(model.predict(X, verbose=0), model.predict(X.toarray(), verbose=0), rtol=1e-5, atol=1e-6)
    assert model.evaluate(X, y, verbose=0) == pytest.approx(
        model.evaluate(X.toarray(), y, verbose=0), rel=1e-5
    )
