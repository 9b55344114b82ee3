"""Losses of the estimators for tables: scikit-learn's numbers, and derivatives of what they say."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import log_loss, mean_pinball_loss, mean_squared_error

from dasknn.estimators.tabular_losses import BinaryCrossentropy, Crossentropy, HalfSquares, Pinball

N = 40
RNG = np.random.default_rng(0)
WEIGHT = RNG.uniform(0, 2, N)
LABELS = RNG.integers(0, 4, N)
BITS = RNG.integers(0, 2, (N, 3)).astype(float)
NUMBERS = RNG.standard_normal((N, 1))
LEVELS = (0.1, 0.5, 0.8)
# loss, targets, logits
CASES = {
    "classes": (Crossentropy(), LABELS, RNG.standard_normal((N, 4))),
    "smoothed classes": (Crossentropy(0.2), LABELS, RNG.standard_normal((N, 4))),
    "labels": (BinaryCrossentropy(), BITS, RNG.standard_normal((N, 3))),
    "smoothed labels": (BinaryCrossentropy(0.2), BITS, RNG.standard_normal((N, 3))),
    "squares": (HalfSquares(), NUMBERS, RNG.standard_normal((N, 1))),
    "quantiles": (Pinball(LEVELS), NUMBERS, RNG.standard_normal((N, 3))),
}
ACTIVATIONS = {"softmax": lambda Z: softmax(Z, axis=1), "logistic": expit, "identity": lambda Z: Z}


def of(loss, y, Z, weight=None):
    """The summed loss of logits Z, and its derivatives by them."""
    P = ACTIVATIONS[loss.activation](Z)
    out = np.empty_like(P)
    return loss.bind(len(P), P.shape[1], P.dtype, loss.activation)(P, y, weight, out), out


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_losses_are_those_of_scikit_learn(weight):
    total = N if weight is None else weight.sum()
    (_, y, Z), mean = CASES["classes"], {}
    mean["classes"] = log_loss(y, softmax(Z, axis=1), sample_weight=weight, labels=range(4))
    mean["labels"] = sum(
        log_loss(BITS[:, k], expit(CASES["labels"][2][:, k]), sample_weight=weight) for k in range(3)
    )
    mean["squares"] = mean_squared_error(NUMBERS, CASES["squares"][2], sample_weight=weight) / 2
    Q = CASES["quantiles"][2]
    mean["quantiles"] = sum(
        mean_pinball_loss(NUMBERS, Q[:, [k]], sample_weight=weight, alpha=level)
        for k, level in enumerate(LEVELS)
    )
    for name, expected in mean.items():
        assert of(*CASES[name], weight)[0] / total == pytest.approx(expected, rel=1e-12), name


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_slopes_are_the_derivatives_by_the_logits(name, weight):
    loss, y, Z = CASES[name]
    _, slopes = of(loss, y, Z, weight)
    direction = np.random.default_rng(1).standard_normal(Z.shape)
    step = 1e-6
    ahead, behind = (of(loss, y, Z + sign * step * direction, weight)[0] for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx((slopes * direction).sum(), rel=1e-6)


def test_smoothed_losses_are_those_of_smoothed_targets():
    _, y, Z = CASES["classes"]
    P = softmax(Z, axis=1)
    target = 0.8 * np.eye(4)[y] + 0.2 / 4
    assert of(Crossentropy(0.2), y, Z)[0] == pytest.approx(-(target * np.log(P)).sum())
    # Two classes as one logit have the loss of two classes as two.
    z, two = RNG.standard_normal((N, 1)), RNG.integers(0, 2, N)
    as_one = of(BinaryCrossentropy(0.3), two[:, np.newaxis].astype(float), z)[0]
    as_two = of(Crossentropy(0.3), two, np.hstack([np.zeros_like(z), z]))[0]
    assert as_one == pytest.approx(as_two, rel=1e-12)


def test_the_least_pinball_loss_is_at_the_quantile():
    y = np.sort(RNG.standard_normal(101))[:, np.newaxis]
    for level in (0.1, 0.5, 0.9):
        losses = [of(Pinball((level,)), y, np.full((101, 1), at))[0] for at in y[:, 0]]
        assert y[int(np.argmin(losses)), 0] == np.quantile(y, level)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_of_0_have_a_finite_loss(dtype):
    P = np.array([[1, 0], [0, 1]], dtype)
    assert np.isfinite(Crossentropy().rows(np.array([1, 0]), P)).all()
    assert np.isfinite(BinaryCrossentropy().rows(P[::-1], P)).all()
    assert Crossentropy().rows(np.array([0, 1]), P).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("loss", "y", "n_outputs", "message"),
    [
        (Crossentropy(), np.array([0, 3]), 3, r"labels in \[0, 3\), received 0 to 3"),
        (Crossentropy(), np.array([0.0, 1.0]), 3, "integer dtype"),
        (BinaryCrossentropy(), np.zeros((5, 2)), 3, r"shape \(n, 3\), received \(5, 2\)"),
        (HalfSquares(), np.zeros(5), 1, r"shape \(n, 1\), received \(5,\)"),
        (Pinball(LEVELS), np.zeros((5, 3)), 3, r"shape \(n, 1\) for quantiles"),
    ],
)
def test_targets_that_do_not_fit_raise(loss, y, n_outputs, message):
    with pytest.raises(ValueError, match=message):
        loss.check_targets(y, n_outputs)


@pytest.mark.parametrize("kind", [Crossentropy, BinaryCrossentropy])
@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_raises(kind, smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing to be in \[0, 1\)"):
        kind(smoothing)
