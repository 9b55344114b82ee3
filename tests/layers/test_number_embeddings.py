"""Periodic and piecewise linear embeddings: formulas, gradients, and bins learned where the data is."""

import json
import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import Sequential, layers, load_model
from dasknn.engine.network import Network
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.estimators.tabular_losses import HalfSquares
from dasknn.layers import Dense, Input, PBLDEmbedding, PeriodicEmbedding, PiecewiseLinearEmbedding, periodic
from dasknn.layers.piecewise import coordinates
from dasknn.optimizers import Adam


def kind_of(layer):
    """The name of a layer in the names of tests: its settings may hold functions, whose texts differ."""
    return type(layer).__name__


RNG = np.random.default_rng(0)
EDGES = [[-1.0, -0.2, 0.5, 2.0], [0.0, 1.0], [-3.0, -1.0, 0.3]]
LAYERS = [
    PeriodicEmbedding(5, 4, 0.3),
    PeriodicEmbedding(5, 4, 0.3, None),
    PeriodicEmbedding(5, 4, 0.3, "tanh", lite=True),
    PBLDEmbedding(5, 4),
    PBLDEmbedding(5, 3, activation="silu"),
    PiecewiseLinearEmbedding(EDGES, 4),
    PiecewiseLinearEmbedding(EDGES, None),
]


def rows(n=19):
    """Numbers (n, 3) of which none is at an edge of a bin, and some are outside of all bins."""
    X = RNG.uniform(-3, 3, (n, 3))
    return np.where(np.abs(X - np.rint(10 * X) / 10) < 1e-3, X + 0.01, X)


def check_gradients(stack, X, n_outputs=2):
    """Compare the gradient, and the derivative by the inputs, with finite differences."""
    network = Network(X.shape[1], stack, HalfSquares(), "float64")
    params, y = RNG.standard_normal(network.n_params), RNG.standard_normal((len(X), network.n_outputs))
    _, grad = loss_and_grad(network, params, X, y)
    before = Network(X.shape[1], (layers.Activation("linear"), *stack), HalfSquares(), "float64")
    workspace = Workspace(before, len(X))
    workspace.take(X, y, None, slice(0, len(X)))
    workspace.loss_and_grad(before.views(params), before.views(np.empty_like(params)))
    d_inputs = workspace._layers[0].dA

    def loss(params, X):
        return HalfSquares().rows(y, network.predict(params, X)).sum()

    step = 1e-6
    for _ in range(3):
        of_params, of_inputs = RNG.standard_normal(params.shape), RNG.standard_normal(X.shape)
        slope = (loss(params + step * of_params, X) - loss(params - step * of_params, X)) / (2 * step)
        assert_allclose(grad @ of_params, slope, rtol=1e-6, atol=1e-6)
        slope = (loss(params, X + step * of_inputs) - loss(params, X - step * of_inputs)) / (2 * step)
        assert_allclose((d_inputs * of_inputs).sum(), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_a_first_layer_is_differentiated(layer):
    check_gradients((layer, Dense(2)), rows())


@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_a_last_layer_is_differentiated(layer):
    check_gradients((layer,), rows())


@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_a_layer_behind_another_is_differentiated(layer):
    check_gradients((Dense(3, "tanh"), layer, Dense(2)), rows())


@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_new_data_goes_through_a_layer_as_a_mini_batch_does(layer, monkeypatch):
    monkeypatch.setattr(periodic, "_WAVES_AT_ONCE", 100)
    X = rows()
    weights = [RNG.standard_normal(weight.shape) for weight in layer.weights(3)]
    outputs = layer.outputs(X, *weights)
    assert outputs.shape == (len(X), layer.n_outputs(3)) == (len(X), *layer.output_shape((3,)))
    assert_allclose(layer.bind(len(X), 3, "float64").forward(X, weights, None), outputs, rtol=1e-12)
    assert layer.outputs(X.astype("float32"), *[w.astype("float32") for w in weights]).dtype == "float32"


def test_a_periodic_embedding_is_a_dense_layer_of_waves():
    layer, X = PeriodicEmbedding(5, 4, 0.3), rows()
    frequencies, kernel, bias = (RNG.standard_normal(weight.shape) for weight in layer.weights(3))
    found = layer.outputs(X, frequencies, kernel, bias).reshape(len(X), 3, 4)
    for i in range(3):
        angles = 2 * np.pi * X[:, i : i + 1] * frequencies[i]
        waves = np.hstack([np.cos(angles), np.sin(angles)])
        assert_allclose(found[:, i], np.maximum(waves @ kernel[i] + bias[i], 0), rtol=1e-10, atol=1e-10)


def test_a_lite_embedding_has_one_dense_layer_for_all_columns():
    layer, whole, X = PeriodicEmbedding(5, 4, lite=True), PeriodicEmbedding(5, 4), rows()
    frequencies, kernel, bias = (RNG.standard_normal(weight.shape) for weight in layer.weights(3))
    repeated = frequencies, np.stack([kernel] * 3), np.stack([bias] * 3)
    assert_allclose(layer.outputs(X, frequencies, kernel, bias), whole.outputs(X, *repeated), rtol=1e-12)


def test_a_pbld_embedding_begins_with_the_number_itself():
    layer, X = PBLDEmbedding(5, 4), rows()
    frequencies, phases, kernel, bias = (RNG.standard_normal(weight.shape) for weight in layer.weights(3))
    found = layer.outputs(X, frequencies, phases, kernel, bias).reshape(len(X), 3, 4)
    assert_array_equal(found[..., 0], X)
    for i in range(3):
        waves = np.cos(2 * np.pi * X[:, i : i + 1] * frequencies[i] + phases[i])
        assert_allclose(found[:, i, 1:], waves @ kernel[i] + bias[i], rtol=1e-10, atol=1e-10)


def test_initial_weights_of_periodic_embeddings():
    rng = np.random.default_rng(0)
    frequencies, kernel, bias = (w.draw(rng) for w in PeriodicEmbedding(500, 24, 0.01).weights(40))
    assert_allclose(frequencies.std(), 0.01, rtol=0.02)
    assert 0.0299 < np.abs(frequencies).max() <= 0.03
    for uniform in (kernel, bias):
        assert_allclose(np.abs(uniform).max(), 1000**-0.5, rtol=0.01)
    _, phases, _, _ = (w.draw(rng) for w in PBLDEmbedding(100).weights(40))
    assert_allclose([phases.min(), phases.max()], [-np.pi, np.pi], rtol=0.01)
    assert {weight.rate_factor for weight in PBLDEmbedding().weights(2)} == {0.1}


# --- bins ----------------------------------------------------------------------------------------------


def test_coordinates_among_bins():
    x = np.array([-20.0, -1.0, 0.0, 0.25, 1.0, 5.5, 10.0, 19.0, 1000.0])
    u, slopes = coordinates(x, np.array([0.0, 1.0, 10.0]))
    assert_allclose(u, [-4, -1, 0, 0.25, 1, 1.5, 2, 3, 6])
    assert_allclose(slopes, [0, 1, 1, 1, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 0])


def test_an_embedding_is_linear_in_the_encoding():
    X, d = rows(), 4
    layer, encoding = PiecewiseLinearEmbedding(EDGES, d), PiecewiseLinearEmbedding(EDGES, None).outputs
    V, linear, bias = (RNG.standard_normal(weight.shape) for weight in layer.weights(3))
    found = layer.outputs(X, V, linear, bias).reshape(len(X), 3, d)
    ends = np.cumsum([0, 3, 1, 2])
    for i, edges in enumerate(EDGES):
        code = encoding(X)[:, ends[i] : ends[i + 1]]
        z = 2 * code.sum(axis=1, keepdims=True) / (len(edges) - 1) - 1
        assert_allclose(found[:, i], z * linear[i] + bias[i] + code @ V[i, : len(edges) - 1], atol=1e-12)


def test_few_values_are_all_edges_and_frequent_ones_have_bins_of_their_own():
    X = np.column_stack(
        [RNG.integers(0, 5, 1000), np.where(RNG.random(1000) < 0.9, 0, RNG.normal(size=1000))]
    )
    few, spiked = PiecewiseLinearEmbedding(n_bins=16).adapt(X).boundaries
    assert few == (0, 1, 2, 3, 4)
    place = spiked.index(0)
    near = np.unique(X[:, 1])
    at = np.searchsorted(near, 0)
    assert spiked[place - 1 : place + 2] == tuple(near[at - 1 : at + 2])
    assert len(spiked) <= 17


def test_a_constant_column_has_a_bin():
    (edges,) = PiecewiseLinearEmbedding().adapt(np.full((5, 1), 3e9)).boundaries
    assert edges[0] == 3e9 < edges[1]


@pytest.mark.parametrize("kind", ["array", "columns in chunks", "frame"])
def test_bins_of_dask_data_are_those_of_plain_data(kind):
    X = np.round(RNG.normal(size=(700, 3)), 1)
    plain = PiecewiseLinearEmbedding(n_bins=8).adapt(X)
    lazy = {
        "array": lambda: da.from_array(X, chunks=(90, 3)),
        "columns in chunks": lambda: da.from_array(X, chunks=(90, 2)),
        "frame": lambda: dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=4),
    }[kind]()
    assert PiecewiseLinearEmbedding(n_bins=8).adapt(lazy) == plain


def test_bins_of_many_values_in_many_blocks_are_about_the_quantiles():
    X = RNG.standard_exponential((100_000, 1))
    (edges,) = PiecewiseLinearEmbedding(n_bins=10).adapt(da.from_array(X, chunks=(7_777, 1))).boundaries
    assert edges[0] == X.min()
    assert edges[-1] == X.max()
    shares = np.searchsorted(np.sort(X[:, 0]), edges[1:-1]) / len(X)
    assert_allclose(shares, np.arange(1, 10) / 10, atol=0.002)


# --- in a model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_a_layer_survives_its_configuration_and_pickling(layer):
    written = json.loads(json.dumps(layers.serialize(layer)))
    assert layers.deserialize(written).get_config() == layer.get_config()
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(pickle.loads(pickle.dumps(layer))) == hash(layer)


@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
@pytest.mark.parametrize("layer", LAYERS, ids=kind_of)
def test_a_model_survives_its_file(layer, ending, tmp_path):
    X = rows(64).astype("float32")
    model = Sequential([Input((3,)), layer, Dense(1)])
    model.compile("adam", "mse")
    model.fit(X, X.sum(axis=1), verbose=0)
    model.summary(print_fn=lambda text: None)
    model.save(tmp_path / f"model{ending}")
    again = load_model(tmp_path / f"model{ending}")
    assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    copy = Sequential.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert_array_equal(copy.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize(
    "layer",
    [PeriodicEmbedding(8, 8, 0.5), PBLDEmbedding(rate_factor=1.0), PiecewiseLinearEmbedding(n_bins=8)],
)
def test_an_embedding_learns_what_a_line_cannot(layer):
    X = RNG.uniform(-3, 3, (2000, 1)).astype("float32")
    y = np.sin(2 * X)
    if isinstance(layer, PiecewiseLinearEmbedding):
        layer = PiecewiseLinearEmbedding(n_bins=8).adapt(X)
    model = Sequential([Input((1,)), layer, Dense(1)])
    model.compile(Adam(0.03), "mse")
    model.fit(X, y, epochs=60, verbose=0)
    # A line leaves 0.46.
    assert model.evaluate(X, y, verbose=0) < 0.1


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PeriodicEmbedding(0), "n_frequencies to be at least 1, received 0"),
        (lambda: PBLDEmbedding(embedding_dim=1), "embedding_dim to be at least 2, received 1"),
        (lambda: PeriodicEmbedding(frequency_scale=0.0), "frequency_scale to be above 0"),
        (lambda: PeriodicEmbedding().output_shape((2, 2)), r"Put Flatten\(\) before it"),
        (
            lambda: PiecewiseLinearEmbedding([[0.0]]),
            r"ascending boundaries of each column, received \(0\.0,\)",
        ),
        (lambda: PiecewiseLinearEmbedding([[0, 1], [1, 1]]), "for column 1"),
        (lambda: PiecewiseLinearEmbedding(n_bins=0), "n_bins to be at least 1, received 0"),
        (lambda: PiecewiseLinearEmbedding().weights(3), r"no boundaries yet. Call adapt\(X\)"),
        (lambda: PiecewiseLinearEmbedding([[0, 1]]).weights(3), "boundaries of 1 columns, received 3"),
        (lambda: PiecewiseLinearEmbedding().adapt(np.zeros(3)), r"Use X.reshape\(-1, 1\)"),
        (lambda: PiecewiseLinearEmbedding().adapt([[1.0], [np.nan]]), "received nan in column 0"),
        (lambda: PiecewiseLinearEmbedding().adapt(np.zeros((0, 2))), "data with rows to adapt to"),
        (lambda: PiecewiseLinearEmbedding().adapt([["a"]]), "expects numbers, received object such as 'a'"),
    ],
)
def test_what_makes_no_sense_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
