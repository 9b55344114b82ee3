"""Losses: against figures that Keras computed, and derivatives through a network."""

import json
import pickle
import re
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import layers, losses
from dasknn.engine.network import Network
from dasknn.engine.workspace import loss_and_grad
from dasknn.estimators.losses import CategoricalLogLoss
from dasknn.layers import Dense

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses_and_metrics.json").read_text())
WEIGHT = np.array(GOLDEN["weight"])
N_ROWS, N_INPUTS, N_OUTPUTS = 12, 5, 3


def name_of(case):
    settings = [f"{name}={value}" for name, value in case["settings"].items()]
    return "-".join([case["class"], *settings, case["targets"], case["outputs"]])


CASES = [pytest.param(case, id=name_of(case)) for case in GOLDEN["losses"]]
ONE_OF_EACH = list({case["class"]: case for case in GOLDEN["losses"]}.values())


def loss_of(case, **settings):
    return getattr(losses, case["class"])(**case["settings"], **settings)


def data_of(case):
    return np.array(GOLDEN["targets"][case["targets"]]), np.array(GOLDEN["outputs"][case["outputs"]])


@pytest.mark.parametrize("case", CASES)
def test_rows_have_keras_losses(case):
    y, P = data_of(case)
    # Keras takes means in float32 on PyTorch.
    assert_allclose(loss_of(case).rows(y, P), case["rows"], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_has_keras_loss(case):
    y, P = data_of(case)
    loss = loss_of(case)
    assert loss(y, P) == pytest.approx(case["value"], rel=2e-6)
    assert loss(y, P, WEIGHT) == pytest.approx(case["weighted"], rel=2e-6)
    by_weight = loss_of(case, reduction="mean_with_sample_weight")
    assert by_weight(y, P, WEIGHT) == pytest.approx(case["by_weight"], rel=2e-6)
    assert by_weight(y, P) == pytest.approx(case["value"], rel=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_float32_gives_the_same_loss_in_float32(case):
    y, P = data_of(case)
    loss = loss_of(case)
    y, P = y if loss.takes_labels else y.astype(np.float32), P.astype(np.float32)
    assert loss.rows(y, P).dtype == np.float32
    # float32 has no number that is 1e-7 below 1, and some of these outputs are 1.
    rel = 0.01 if case["outputs"] == "multi" else 1e-4
    assert loss(y, P, WEIGHT) == pytest.approx(case["weighted"], rel=rel)


@pytest.mark.parametrize("case", CASES)
def test_a_configuration_is_keras_own_and_comes_back(case):
    loss = loss_of(case)
    config = loss.get_config()
    # Keras forgets delta, which we write where it is not the default.
    config.pop("delta", None)
    assert config == case["config"]
    assert losses.deserialize(losses.serialize(loss)) == loss
    assert losses.get(losses.serialize(loss)) == loss
    assert type(loss).from_config(case["config"]).name == loss.name
    assert pickle.loads(pickle.dumps(loss)) == loss


# Last activations whose range the loss can take.
PROBABILITIES, ANYTHING = ("logistic", "softmax"), ("identity", "tanh", "softmax")
GRADIENTS = [
    (losses.MeanSquaredError(), "real", ANYTHING),
    (losses.MeanAbsoluteError(), "real", ANYTHING),
    (losses.MeanAbsolutePercentageError(), "counts", ANYTHING),
    (losses.MeanSquaredLogarithmicError(), "counts", ("exp", "logistic")),
    (losses.Huber(0.7), "real", ANYTHING),
    (losses.LogCosh(), "real", ANYTHING),
    (losses.CosineSimilarity(), "real", ANYTHING),
    (losses.Poisson(), "counts", ("exp", "logistic")),
    (losses.Hinge(), "signs", ANYTHING),
    (losses.Hinge(), "multi", ANYTHING),
    (losses.SquaredHinge(), "signs", ANYTHING),
    (losses.CategoricalHinge(), "one_hot", ANYTHING),
    (losses.KLDivergence(), "distribution", PROBABILITIES),
    (losses.BinaryCrossentropy(), "multi", PROBABILITIES),
    (losses.BinaryCrossentropy(label_smoothing=0.2), "multi", PROBABILITIES),
    (losses.BinaryCrossentropy(True), "multi", ANYTHING),
    (losses.BinaryCrossentropy(True, 0.2), "multi", ANYTHING),
    (losses.BinaryFocalCrossentropy(), "multi", PROBABILITIES),
    (losses.BinaryFocalCrossentropy(True, 0.3, 1.5, label_smoothing=0.2), "multi", PROBABILITIES),
    (losses.BinaryFocalCrossentropy(from_logits=True), "multi", ANYTHING),
    (losses.BinaryFocalCrossentropy(gamma=0.0), "multi", PROBABILITIES),
    (losses.CategoricalCrossentropy(), "one_hot", (*PROBABILITIES, "exp")),
    (losses.CategoricalCrossentropy(), "distribution", (*PROBABILITIES, "exp")),
    (losses.CategoricalCrossentropy(label_smoothing=0.2), "one_hot", (*PROBABILITIES, "exp")),
    (losses.CategoricalCrossentropy(), "multi", PROBABILITIES),
    (losses.CategoricalCrossentropy(True), "one_hot", ANYTHING),
    (losses.CategoricalCrossentropy(True, 0.2), "one_hot", ANYTHING),
    (losses.CategoricalFocalCrossentropy(), "one_hot", (*PROBABILITIES, "exp")),
    (losses.CategoricalFocalCrossentropy(0.4, 1.5, label_smoothing=0.2), "one_hot", PROBABILITIES),
    (losses.CategoricalFocalCrossentropy(from_logits=True), "one_hot", ANYTHING),
    (losses.SparseCategoricalCrossentropy(), "labels", (*PROBABILITIES, "exp")),
    (losses.SparseCategoricalCrossentropy(True), "labels", ANYTHING),
]


def network_of(loss, last, dtype="float64", n_outputs=N_OUTPUTS):
    return Network(N_INPUTS, (Dense(7, "tanh"), Dense(n_outputs, last)), loss, dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "targets", "last"),
    [
        pytest.param(loss, targets, last, id=f"{i}-{loss.name}-{targets}-{last}")
        for i, (loss, targets, activations) in enumerate(GRADIENTS)
        for last in activations
    ],
)
def test_the_gradient_is_the_slope_in_a_random_direction(loss, targets, last, weighted):
    rng = np.random.default_rng(3)
    network = network_of(loss, last)
    params, direction = rng.standard_normal((2, network.n_params))
    X, y = rng.standard_normal((N_ROWS, N_INPUTS)), np.array(GOLDEN["targets"][targets])
    weight, step = WEIGHT if weighted else None, 1e-6

    _, grad = loss_and_grad(network, params, X, y, weight)
    above, _ = loss_and_grad(network, params + step * direction, X, y, weight)
    below, _ = loss_and_grad(network, params - step * direction, X, y, weight)
    assert_allclose(grad @ direction, (above - below) / (2 * step), rtol=1e-6, atol=1e-7)


LAYERS = [
    Dense(5, "tanh", activity_regularizer="l2"),
    layers.Activation("gelu"),
    layers.ReLU(max_value=0.8, negative_slope=0.2, threshold=0.1),
    layers.LeakyReLU(),
    layers.ELU(alpha=0.7),
    layers.Softmax(),
    layers.BatchNormalization(),
    layers.LayerNormalization(),
    layers.Dropout(0.4),
    layers.GaussianDropout(0.3),
    layers.GaussianNoise(0.5),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize(
    ("loss", "targets", "last"),
    [
        pytest.param(loss, targets, activations[0], id=f"{i}-{loss.name}-{targets}-{activations[0]}")
        for i, (loss, targets, activations) in enumerate(GRADIENTS)
    ],
)
def test_every_layer_passes_on_the_gradient_of_every_loss(loss, targets, last, layer):
    rng = np.random.default_rng(5)
    stack = (Dense(7, "tanh"), layer, Dense(N_OUTPUTS, last))
    network = Network(N_INPUTS, stack, loss, "float64")
    params, direction = rng.standard_normal((2, network.n_params))
    direction[network.n_learned :] = 0
    X, y = rng.standard_normal((N_ROWS, N_INPUTS)), np.array(GOLDEN["targets"][targets])
    step = 1e-6

    def along(at):
        return loss_and_grad(network, params + at * direction, X, y, WEIGHT, rng=np.random.default_rng(1))

    slope = (along(step)[0] - along(-step)[0]) / (2 * step)
    assert_allclose(along(0)[1] @ direction, slope, rtol=2e-6, atol=1e-7)


def test_every_loss_has_its_gradient_checked():
    assert {type(loss).__name__ for loss, _, _ in GRADIENTS} == {case["class"] for case in GOLDEN["losses"]}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_that_is_trained_is_the_sum_over_rows(case):
    y, P = data_of(case)
    loss, out = loss_of(case), np.empty_like(P)
    bound, rows = loss.bind(*P.shape, P.dtype, ""), loss.rows(y, P)
    assert bound(P, y, None, out) == pytest.approx(rows.sum(), rel=1e-12)
    assert bound(P, y, WEIGHT, out) == pytest.approx(WEIGHT @ rows, rel=1e-12)
    assert bound.mean(P, y, WEIGHT) == pytest.approx(np.average(rows, weights=WEIGHT), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "last", "y"),
    [
        (losses.BinaryCrossentropy(), "logistic", np.array([[0.0, 1, 1]])),
        (losses.CategoricalCrossentropy(), "softmax", np.array([[0.0, 0, 1]])),
        (losses.SparseCategoricalCrossentropy(), "softmax", np.array([2])),
    ],
)
def test_a_network_that_is_sure_of_the_wrong_class_still_learns(loss, last, y):
    bound, dP = loss.bind(1, 3, "float32", last), np.empty((1, 3), "float32")
    P = np.array([[1, 0, 0]], "float32")
    loss_sum = bound(P, y.astype("float32") if y.ndim == 2 else y, None, dP)
    assert bound.to_logits
    assert np.isfinite(loss_sum)
    k = 3 if last == "logistic" else 1
    assert_allclose(k * dP, P - [[0, 1, 1]] if last == "logistic" else P - [[0, 0, 1]])


@pytest.mark.parametrize("from_logits", [True, False])
def test_only_a_matching_last_activation_is_differentiated_in_closed_form(from_logits):
    for kind, matching in [
        (losses.BinaryCrossentropy, "logistic"),
        (losses.CategoricalCrossentropy, "softmax"),
        (losses.SparseCategoricalCrossentropy, "softmax"),
    ]:
        for last in ("logistic", "softmax", "identity", ""):
            bound = kind(from_logits=from_logits).bind(2, 3, "float32", last)
            assert bound.to_logits == (last == matching and not from_logits)


@pytest.mark.parametrize("from_logits", [True, False])
def test_logits_far_out_do_not_overflow(from_logits):
    z = np.array([[500.0, -500.0, 90.0]], np.float32)
    P = z if from_logits else np.array([[1, 0, 1]], np.float32)
    one_hot, label = np.array([[0, 1, 0]], np.float32), np.array([1])
    with np.errstate(all="raise", under="ignore"):
        for loss, y in [
            (losses.BinaryCrossentropy(from_logits), one_hot),
            (losses.CategoricalCrossentropy(from_logits), one_hot),
            (losses.SparseCategoricalCrossentropy(from_logits), label),
        ]:
            dP = np.empty_like(P)
            assert np.isfinite(loss.bind(1, 3, "float32", "")(P, y, None, dP))
            assert np.isfinite(dP).all()


@pytest.mark.parametrize(
    ("loss", "last"),
    [
        (losses.MeanSquaredError(), "identity"),
        (losses.BinaryCrossentropy(), "logistic"),
        (losses.BinaryCrossentropy(label_smoothing=0.1), "softmax"),
        (losses.BinaryCrossentropy(True), "identity"),
        (losses.CategoricalCrossentropy(), "softmax"),
        (losses.CategoricalCrossentropy(label_smoothing=0.1), "logistic"),
        (losses.CategoricalCrossentropy(True), "identity"),
        (losses.SparseCategoricalCrossentropy(), "softmax"),
        (losses.SparseCategoricalCrossentropy(), "logistic"),
        (losses.SparseCategoricalCrossentropy(True), "identity"),
    ],
)
def test_a_step_of_a_common_loss_allocates_no_array(loss, last):
    n_rows, n_outputs = 2048, 32
    rng = np.random.default_rng(0)
    P = rng.uniform(0.1, 0.9, (n_rows, n_outputs)).astype("float32")
    y = rng.integers(0, n_outputs, n_rows)
    if not loss.takes_labels:
        y = np.eye(n_outputs, dtype="float32")[y]
    weight, dP = np.ones(n_rows, "float32"), np.empty_like(P)
    bound = loss.bind(n_rows, n_outputs, "float32", last)
    bound(P, y, weight, dP)
    tracemalloc.start()
    try:
        peaks = []
        for _ in range(5):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            bound(P, y, weight, dP)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # An array of the outputs has 262 kB; numpy's buffers for broadcasting come and go.
    assert min(peaks) < 70_000


@pytest.mark.parametrize("case", [pytest.param(case, id=case["class"]) for case in ONE_OF_EACH])
def test_a_loss_leaves_targets_and_outputs_as_they_are(case):
    y, P = data_of(case)
    y_before, P_before = y.copy(), P.copy()
    loss_of(case)(y, P, WEIGHT)
    assert_array_equal(y, y_before)
    assert_array_equal(P, P_before)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["class"]) for case in ONE_OF_EACH])
def test_no_rows_have_no_loss(case):
    y, P = data_of(case)
    assert loss_of(case)(y[:0], P[:0]) == 0


def test_one_output_may_come_flat_and_labels_in_a_column():
    y, P = data_of({"targets": "binary", "outputs": "binary"})
    loss = losses.BinaryCrossentropy()
    assert loss(y[:, 0], P[:, 0], WEIGHT) == loss(y, P, WEIGHT[:, np.newaxis]) == loss(y[:, 0], P, WEIGHT)
    y, P = data_of({"targets": "labels", "outputs": "distribution"})
    loss = losses.SparseCategoricalCrossentropy()
    assert loss(y, P) == loss(y[:, np.newaxis], P) == loss(y.astype(float), P) == loss(y.tolist(), P.tolist())


def test_labels_for_a_loss_on_one_hot_targets_raise():
    labels, P = np.array([0, 2, 1]), np.full((3, 3), 1 / 3)
    for y in (labels, labels[:, np.newaxis]):
        with pytest.raises(
            ValueError, match=r"shape \(n, 3\), received .*Use loss='sparse_categorical_crossen"
        ):
            losses.CategoricalCrossentropy()(y, P)


def test_one_hot_targets_for_a_loss_on_labels_raise():
    with pytest.raises(ValueError, match=r"received shape \(2, 3\) .* Use loss='categorical_crossentropy'"):
        losses.SparseCategoricalCrossentropy()(np.eye(3)[:2], np.full((2, 3), 1 / 3))


@pytest.mark.parametrize(("labels", "received"), [([0, 3], "0 to 3"), ([-1, 2], "-1 to 2")])
def test_a_label_out_of_range_raises(labels, received):
    network = network_of(losses.SparseCategoricalCrossentropy(), "softmax")
    with pytest.raises(ValueError, match=rf"labels in \[0, 3\), received {received}"):
        loss_and_grad(network, np.zeros(network.n_params), np.zeros((2, N_INPUTS)), np.array(labels))


def test_targets_of_another_width_raise():
    network = network_of(losses.MeanSquaredError(), "identity")
    with pytest.raises(ValueError, match=r"targets of shape \(n, 3\), received \(2, 2\)\. .* 2 units"):
        loss_and_grad(network, np.zeros(network.n_params), np.zeros((2, N_INPUTS)), np.zeros((2, 2)))


@pytest.mark.parametrize("reduction", ["sum", "none", None])
def test_a_reduction_that_has_no_share_for_a_replica_raises(reduction):
    with pytest.raises(ValueError, match=r"Expected reduction 'sum_over_batch_size' or .* received"):
        losses.MeanSquaredError(reduction)


def test_settings_that_mean_nothing_here_raise():
    with pytest.raises(ValueError, match="Expected axis -1, received 0"):
        losses.CategoricalCrossentropy(axis=0)
    with pytest.raises(ValueError, match="Expected ignore_class None, received 2"):
        losses.SparseCategoricalCrossentropy(ignore_class=2)
    with pytest.raises(ValueError, match="Expected dtype None or 'float32', received 'float16'"):
        losses.Huber(dtype="float16")
    with pytest.raises(ValueError, match="expects settings among"):
        losses.MeanSquaredError.from_config({"momentum": 1})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", losses.MeanSquaredError),
        ("MAE", losses.MeanAbsoluteError),
        ("mape", losses.MeanAbsolutePercentageError),
        ("msle", losses.MeanSquaredLogarithmicError),
        ("bce", losses.BinaryCrossentropy),
        ("kld", losses.KLDivergence),
        ("kl_divergence", losses.KLDivergence),
        ("log_cosh", losses.LogCosh),
        ("logcosh", losses.LogCosh),
        ("huber", losses.Huber),
        ("poisson", losses.Poisson),
        ("cosine_similarity", losses.CosineSimilarity),
        ("binary_focal_crossentropy", losses.BinaryFocalCrossentropy),
        ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy),
        ("CategoricalHinge", losses.CategoricalHinge),
    ],
)
def test_losses_go_by_keras_names(name, kind):
    assert losses.get(name) == losses.get(kind) == kind()


def test_what_is_no_loss_raises():
    with pytest.raises(ValueError, match="Did you mean 'mean_squared_error'"):
        losses.get("mean_square_error")
    with pytest.raises(ValueError, match=r"cannot differentiate. Subclass dasknn.losses.RowLoss"):
        losses.get(lambda y_true, y_pred: 0)
    assert losses.get(None) is None


@dataclass(frozen=True)
class Cubed(losses.RowLoss):
    name: str = "cubed"

    def rows(self, y, P):
        return (np.abs(P - y) ** 3).sum(axis=1)

    def slopes(self, y, P):
        return 3 * (P - y) * np.abs(P - y)


def test_a_loss_of_ones_own_needs_rows_and_slopes():
    rng = np.random.default_rng(0)
    network = network_of(losses.get(Cubed()), "identity")
    params, direction = rng.standard_normal((2, network.n_params))
    X, y = rng.standard_normal((4, N_INPUTS)), rng.standard_normal((4, N_OUTPUTS))
    _, grad = loss_and_grad(network, params, X, y)
    above, below = (loss_and_grad(network, params + h * direction, X, y)[0] for h in (1e-6, -1e-6))
    assert_allclose(grad @ direction, (above - below) / 2e-6, rtol=1e-6)


def test_what_a_sum_is_divided_by_depends_on_the_reduction():
    assert losses.MeanSquaredError().divisor(12, WEIGHT) == 12
    assert losses.MeanSquaredError("mean_with_sample_weight").divisor(12, WEIGHT) == WEIGHT.sum()
    assert losses.MeanSquaredError("mean_with_sample_weight").divisor(12, None) == 12
    assert CategoricalLogLoss().divisor(12, WEIGHT) == WEIGHT.sum()


@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy", "sparse_categorical_crossentropy"])
@pytest.mark.parametrize("shape", [(1, 4), (4, 4), (1,), (2, 2), (4, 1, 1)])
def test_weights_of_another_shape_raise(loss, shape):
    y = np.arange(4) if loss.startswith("sparse") else np.eye(4)
    with pytest.raises(
        ValueError, match=rf"sample_weight of shape \(4,\).*received shape {re.escape(str(shape))}"
    ):
        losses.get(loss)(y, np.full((4, 4), 0.25), np.ones(shape))


def test_a_number_is_the_weight_of_each_row():
    y, P = np.eye(4), np.full((4, 4), 0.25)
    assert losses.MeanSquaredError()(y, P, 2) == pytest.approx(2 * losses.MeanSquaredError()(y, P))
    by_weights = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert by_weights(y, P, 2) == pytest.approx(by_weights(y, P))
    assert losses.MeanSquaredError()(y, P, np.arange(4)[:, np.newaxis]) == pytest.approx(
        losses.MeanSquaredError()(y, P, np.arange(4))
    )


@pytest.mark.parametrize(
    ("loss", "y"),
    [("binary_focal_crossentropy", 2), ("poisson", -1), ("categorical_crossentropy", -1), ("bce", -0.5)],
)
def test_targets_whose_loss_has_no_bound_raise(loss, y):
    with pytest.raises(ValueError, match=r"expects targets (of at least 0|in .0, 1.), received"):
        losses.get(loss)(np.full((2, 3), y), np.full((2, 3), 0.3))


def test_targets_that_rounding_has_left_a_little_outside_are_taken():
    assert losses.BinaryCrossentropy()(np.full((2, 1), 1 + 1e-7), np.full((2, 1), 0.5)) == pytest.approx(
        np.log(2)
    )
