"""Members in one network: gradients, and that the shared products are what each member would compute."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn.engine.network import Network
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.estimators.tabular_losses import BinaryCrossentropy, Crossentropy, HalfSquares, Pinball
from dasknn.layers import (
    Activation,
    BinEmbedding,
    BinEncoding,
    ByteDropout,
    ColumnGroups,
    Dense,
    Dropout,
    Embedding,
    MemberDense,
    MemberHeads,
    MemberScale,
    OneHot,
    Scale,
)
from dasknn.layers.regularization import NoiseGenerator, strength_of
from dasknn.losses import MemberLoss

RNG = np.random.default_rng(0)
N = 23


def columns():
    """A table of two numbers with coordinates, a plain column, and two columns of codes; and its layer."""
    X = np.column_stack(
        [
            RNG.standard_normal((N, 2)),
            RNG.uniform(-1, 4, (N, 1)),
            RNG.uniform(-1, 7, (N, 1)),
            RNG.integers(0, 2, (N, 1)),
            RNG.integers(0, 5, (N, 1)),
            RNG.integers(0, 3, (N, 1)),
        ]
    )
    groups = (
        (4, BinEmbedding((3, 6), 4, rate_factor=0.3)),
        (1, Activation("linear")),
        (1, Embedding(5, 3)),
        (1, OneHot((3,))),
    )
    return X, ColumnGroups(groups)


def network_of(loss, n_outputs, members=3, **adapters):
    """A network for the table of `columns`, with parameters that are nowhere 0."""
    X, table = columns()
    layers = (
        table,
        Scale(),
        MemberScale(members, (4, 4, 1, 3, 2)),
        MemberDense(6, members, "silu", **adapters),
        MemberDense(5, members, "tanh", **adapters),
        MemberHeads(n_outputs, members, loss.activation),
    )
    network = Network(X.shape[1], layers, MemberLoss(loss, members))
    return network, X, 0.5 * RNG.standard_normal(network.n_params)


LOSSES = [
    (Crossentropy(), 4, RNG.integers(0, 4, N)),
    (Crossentropy(0.2), 4, RNG.integers(0, 4, N)),
    (BinaryCrossentropy(0.1), 1, RNG.integers(0, 2, (N, 1)).astype(float)),
    (BinaryCrossentropy(), 3, RNG.integers(0, 2, (N, 3)).astype(float)),
    (HalfSquares(), 2, RNG.standard_normal((N, 2))),
    (Pinball((0.1, 0.5, 0.9)), 3, RNG.standard_normal((N, 1))),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "adapters",
    [{}, {"scales_inputs": True}, {"scales_outputs": True}, {"scales_inputs": True, "scales_outputs": True}],
    ids=str,
)
@pytest.mark.parametrize(("loss", "n_outputs", "y"), LOSSES, ids=lambda value: str(value)[:40])
def test_gradients_are_those_of_the_loss(loss, n_outputs, y, adapters, weighted):
    network, X, params = network_of(loss, n_outputs, **adapters)
    weight = RNG.uniform(0, 2, N) if weighted else None
    _, grad = loss_and_grad(network, params, X, y, weight)
    for _ in range(4):
        direction = RNG.standard_normal(network.n_params)
        step = 1e-6
        ahead, behind = (
            loss_and_grad(network, params + sign * step * direction, X, y, weight)[0] for sign in (1, -1)
        )
        assert_allclose(grad @ direction, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


def derivative_by_inputs(layers, X, n_outputs=2):
    """Compare the derivative by the inputs of some layers with finite differences of their outputs."""
    network = Network(X.shape[1], (*layers, Dense(n_outputs)), HalfSquares(), "float64")
    params = RNG.standard_normal(network.n_params)
    before = Network(X.shape[1], (Activation("linear"), *network.layers), HalfSquares(), "float64")
    workspace = Workspace(before, len(X))
    y = RNG.standard_normal((len(X), n_outputs))
    workspace.take(X, y, None, slice(0, len(X)))
    workspace.loss_and_grad(before.views(params), before.views(np.empty_like(params)))
    found = workspace._layers[0].dA
    step = 1e-6
    for _ in range(3):
        direction = RNG.standard_normal(X.shape)
        ahead, behind = (
            HalfSquares().rows(y, network.predict(params, X + sign * step * direction)).sum()
            for sign in (1, -1)
        )
        assert_allclose((found * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        (Scale(),),
        (MemberScale(2),),
        (MemberScale(2), MemberDense(3, 2, "tanh", scales_inputs=True, scales_outputs=True)),
        (MemberDense(3, 2, "tanh"),),
        (BinEmbedding((3, 5), 3),),
        (BinEncoding((3, 5, 2, 4)),),
        (ColumnGroups(((2, Dense(3, "tanh")), (2, BinEncoding((4, 4))))),),
    ],
    ids=lambda layers: type(layers[-1]).__name__,
)
def test_the_derivative_by_the_inputs(layers):
    X = RNG.uniform(-1, 6, (9, 4))
    # Not at an edge between two bins, where there is none.
    derivative_by_inputs(layers, np.where(np.abs(X - np.rint(X)) < 0.01, X + 0.1, X))


def test_heads_pass_on_the_derivative():
    X = RNG.standard_normal((7, 6))
    layer = MemberHeads(2, 3, "linear")
    weights = [RNG.standard_normal(weight.shape) for weight in layer.weights(6)]
    bound = layer.bind(7, 6, "float64")
    bound.forward(X, weights, None)
    bound.dA[...] = RNG.standard_normal(bound.dA.shape)
    dX = np.empty_like(X)
    bound.backward(X, weights, [np.empty_like(weight) for weight in weights], dX)
    expected = np.einsum("nku,kdu->nkd", bound.dA.reshape(7, 3, 2), weights[0]).reshape(7, 6)
    assert_allclose(dX, expected, rtol=1e-12)


@pytest.mark.parametrize("adapters", [{}, {"scales_inputs": True, "scales_outputs": True}], ids=str)
def test_a_network_of_members_is_its_members_side_by_side(adapters):
    network, X, params = network_of(HalfSquares(), 2, **adapters)
    table, scale, views, first, second, heads = network.views(params)
    columns_layer = network.layers[0]
    outputs = []
    for j in range(3):
        A = columns_layer.outputs(X, *table) * scale[0] * views[0][j]
        for layer, weights in zip(network.layers[3:5], (first, second), strict=True):
            kernel, *others = weights
            Z = (A * others[0][j] if layer.scales_inputs else A) @ kernel
            Z = Z * others[-2][j] + others[-1][j] if layer.scales_outputs else Z + others[-1][0]
            layer.activation.forward(Z, None)
            A = Z
        outputs.append(A @ heads[0][j] + heads[1][j])
    assert_allclose(network.predict(params, X), np.mean(outputs, axis=0), rtol=1e-12)
    assert_allclose(network.member_outputs(params, X), np.stack(outputs, axis=1), rtol=1e-12)


def test_training_and_new_data_give_the_same_outputs():
    network, X, params = network_of(HalfSquares(), 2, scales_outputs=True)
    workspace = Workspace(network, N)
    workspace.take(X, np.zeros((N, 2)), None, slice(0, N))
    workspace.loss_and_grad(network.views(params), network.views(np.empty_like(params)))
    of_training = workspace._layers[-1].A.reshape(N, 3, 2)
    assert_allclose(of_training, network.member_outputs(params, X), rtol=1e-12)


def test_the_loss_is_the_mean_of_the_losses_of_the_members():
    network, X, params = network_of(Crossentropy(), 4)
    y = RNG.integers(0, 4, N)
    of_members = network.member_outputs(params, X)
    expected = np.mean([-np.log(of_members[np.arange(N), j, y]).sum() for j in range(3)])
    assert_allclose(loss_and_grad(network, params, X, y)[0], expected, rtol=1e-12)


def test_members_differ_at_the_start_only_in_how_they_weigh_columns():
    network, _, _ = network_of(HalfSquares(), 1, scales_inputs=True, scales_outputs=True)
    params = network.initial_params(np.random.default_rng(1))
    *_, views, first, second, heads = network.views(params)
    for group in np.split(views[0], np.cumsum([4, 4, 1, 3]), axis=1):
        assert_array_equal(group, np.repeat(group[:, :1], group.shape[1], axis=1))
    assert len(np.unique(views[0])) == 3 * 5
    for weights in (first, second):
        assert_array_equal(weights[3], np.tile(weights[3][:1], (3, 1)))
        assert (weights[1] == 1).all()
        assert (weights[2] == 1).all()
    assert not heads[0].any()
    assert not heads[1].any()


def test_signs_are_signs():
    drawn = MemberScale(50, distribution="signs").weights(3)[0].draw(np.random.default_rng(0))
    assert_array_equal(np.unique(drawn), [-1, 1])


def test_the_encoding_of_bins():
    encoding = BinEncoding((3, 2)).outputs(np.array([[-0.5, 0.25], [1.5, 1.0], [3.5, 2.5]]))
    assert_array_equal(encoding, [[-0.5, 0, 0, 0.25, 0], [1, 0.5, 0, 1, 0], [1, 1, 1.5, 1, 1.5]])


def test_an_embedding_of_bins_is_linear_in_the_encoding():
    layer = BinEmbedding((3, 6), 4)
    V, linear, bias = (RNG.standard_normal(weight.shape) for weight in layer.weights(4))
    Z, U = RNG.standard_normal((N, 2)), np.column_stack([RNG.uniform(-1, 4, N), RNG.uniform(-1, 7, N)])
    found = layer.outputs(np.hstack([Z, U]), V, linear, bias).reshape(N, 2, 4)
    for i, n_bins in enumerate((3, 6)):
        encoding = BinEncoding((n_bins,)).outputs(U[:, i : i + 1])
        assert_allclose(found[:, i], Z[:, i : i + 1] * linear[i] + bias[i] + encoding @ V[i, :n_bins])


def test_codes_outside_of_a_table_raise():
    with pytest.raises(ValueError, match="integers from 0 to 4 in column 1, received 5"):
        Embedding(5, 2).outputs(np.array([[0.0, 5.0]]), np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"integers from 0 to 2 in column 0, received 0\.5"):
        OneHot((3,)).outputs(np.array([[0.5]]))


def test_dropout_between_members_is_independent():
    network = Network(2, (MemberScale(4), Dropout(0.5), MemberHeads(1, 4, "linear")), HalfSquares())
    workspace = Workspace(Network(2, network.layers, MemberLoss(HalfSquares(), 4)), 200)
    workspace.take(np.ones((200, 2)), np.zeros((200, 1)), None, slice(0, 200))
    params = np.ones(network.n_params)
    workspace.loss_and_grad(
        network.views(params), network.views(np.empty_like(params)), np.random.default_rng(0)
    )
    dropped = workspace._layers[1].A.reshape(200, 4, 2) == 0
    assert 0.4 < dropped.mean() < 0.6
    assert (dropped[:, 0] != dropped[:, 1]).any()


@pytest.mark.parametrize("kind", [ByteDropout, Dropout])
@pytest.mark.parametrize(("rate", "strength"), [(0.25, 1.0), (0.5, 0.5), (0.5, 0.0), (0.1, 1.0)])
def test_dropout_of_a_strength_drops_that_share_of_its_rate_and_keeps_the_mean(kind, rate, strength):
    dropout = kind(rate).bind(400, 250, "float64")
    rng = NoiseGenerator.of(np.random.default_rng(0), strength)
    A = dropout.forward(np.ones((400, 250)), (), rng)
    # Of bytes, the share is the nearest multiple of 1/256; of 100,000 draws, five standard deviations.
    assert abs((A == 0).mean() - rate * strength) < 0.0075 + (kind is ByteDropout) / 512
    assert A.mean() == pytest.approx(1, abs=0.02)
    (factor,) = np.unique(A[A > 0])
    assert factor == pytest.approx(1 / (1 - rate * strength), rel=2e-3)
    dropout.dA[...] = 1
    dX = np.empty_like(A)
    dropout.backward(np.ones_like(A), (), (), dX)
    assert_array_equal(dX, A)


def test_dropout_of_bytes_at_any_rate_keeps_something():
    dropout = ByteDropout(0.9999).bind(100, 100, "float32")
    A = dropout.forward(np.ones((100, 100), "float32"), (), np.random.default_rng(0))
    assert np.isfinite(A).all()
    assert 0 < (A > 0).mean() < 0.02


def test_the_strength_of_noise_changes_no_draw():
    weak, plain = NoiseGenerator.of(np.random.default_rng(3), 0.2), np.random.default_rng(3)
    assert (strength_of(weak), strength_of(plain)) == (0.2, 1.0)
    assert_array_equal(weak.random(9), plain.random(9))


def test_inputs_that_are_not_those_of_members_raise():
    with pytest.raises(
        ValueError, match=r"received 5 inputs, which is no multiple of 3. Put MemberScale\(3\)"
    ):
        MemberDense(2, 3).weights(5)


@pytest.mark.parametrize("adapters", [{}, {"scales_inputs": True, "scales_outputs": True}], ids=str)
def test_chosen_members_predict_what_they_did_in_the_whole(adapters):
    network, X, params = network_of(Crossentropy(), 4, **adapters)
    fewer, kept = network.with_members(params, [2, 0])
    assert_allclose(fewer.member_outputs(kept, X), network.member_outputs(params, X)[:, [2, 0]], rtol=1e-12)
    assert fewer.loss.members == fewer.n_members == 2


def test_the_work_of_a_step_grows_with_members_that_share_a_kernel():
    def work(k):
        layers = (MemberScale(k), MemberDense(32, k, "relu"), MemberHeads(3, k, "softmax"))
        network = Network(10, layers, MemberLoss(Crossentropy(), k))
        return network.n_multiplications, network.n_weights

    assert work(1) == (10 * 32 + 32 * 3, 10 * 32 + 32 * 3)
    assert work(16) == (16 * (10 * 32 + 32 * 3), 10 * 32 + 16 * 32 * 3)
