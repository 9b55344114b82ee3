"""Probabilities that hold, and intervals that cover: what rows that were held out say of predictions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

import dasknn
from dasknn import TabularClassifier, TabularRegressor
from dasknn.data.blocks import Block
from dasknn.data.tables.sketch import NumberSketch
from dasknn.data.targets import ClassEncoder, MultilabelEncoder
from dasknn.estimators.calibration import _losses, fit_temperature, margin
from dasknn.training.prediction import tempered

SETTINGS = {"members": 2, "hidden_layer_sizes": (32,), "max_iter": 8}


class Given:
    """A predictor whose outputs are its rows, and rows in two parts."""

    def __init__(self, outputs, y, encoder):
        self.encoder, self._outputs, self._y = encoder, outputs, y

    def outputs(self, X):
        return X

    def total(self, function, predictor):
        half = len(self._y) // 2
        parts = (slice(0, half), slice(half, None))
        return sum(function(predictor, Block(self._outputs[rows], self._y[rows])) for rows in parts)


def probabilities(n, k, sharpness, rng):
    """Probabilities, labels drawn from them, and the same probabilities made too sure of themselves."""
    logits = rng.standard_normal((n, k))
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (P.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, k - 1)
    too_sure = np.exp(sharpness * logits)
    return labels, too_sure / too_sure.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_the_temperature_undoes_too_sure_and_too_unsure_probabilities(sharpness):
    labels, P = probabilities(4000, 3, sharpness, np.random.default_rng(0))
    given = Given(P, labels, ClassEncoder(np.arange(3), "float64"))
    temperature = fit_temperature(given, given)
    assert temperature == pytest.approx(sharpness, rel=0.1)

    def loss(log):
        return log_loss(labels, tempered(P, np.exp(log), given.encoder))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
    assert np.log(temperature) == pytest.approx(best, abs=0.02)


def test_the_temperature_of_two_classes_is_that_of_both_outputs():
    labels, P = probabilities(4000, 2, 3.0, np.random.default_rng(1))
    one = Given(P[:, 1:], labels, ClassEncoder(np.arange(2), "float64"))
    assert fit_temperature(one, one) == pytest.approx(3.0, rel=0.1)
    assert_allclose(
        tempered(P[:, 1:], 3.0, one.encoder)[:, 0], tempered(P, 3.0, ClassEncoder(np.arange(3), ""))[:, 1]
    )


def test_few_rows_that_are_all_right_do_not_make_probabilities_certain():
    P = np.tile([[0.05, 0.95]], (20, 1))
    given = Given(P, np.ones(20, int), ClassEncoder(np.arange(2), "float64"))
    given._outputs = P[:, 1:]
    assert 0.3 < fit_temperature(given, given) < 1


def test_no_rows_and_unknown_labels_leave_the_temperature_alone():
    labels, P = probabilities(10, 3, 1.0, np.random.default_rng(0))
    encoder = ClassEncoder(np.arange(3), "float64")
    for given in (Given(P[:0], labels[:0], encoder), Given(P, labels + 5, encoder)):
        assert fit_temperature(given, given) == 1


def test_labels_of_several_have_one_temperature():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3000, 4))
    y = (rng.random((3000, 4)) < 1 / (1 + np.exp(-logits))).astype(float)
    given = Given(1 / (1 + np.exp(-2 * logits)), y, MultilabelEncoder(np.arange(4), "float64"))
    assert fit_temperature(given, given) == pytest.approx(2, rel=0.1)


def test_losses_of_parts_add_up():
    labels, P = probabilities(50, 3, 1.0, np.random.default_rng(0))
    given = Given(P, labels, ClassEncoder(np.arange(3), "float64"))
    logs = (-1.0, 0.0, 1.0)
    whole = _losses(logs, given, Block(P, labels))
    assert_allclose(given.total(lambda predictor, block: _losses(logs, predictor, block), given), whole)
    assert whole[1] == pytest.approx(50 * log_loss(labels, P))


def test_a_calibrated_classifier_has_a_smaller_log_loss_and_the_same_labels():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (4000, 3))
    y = X[:, 0] + X[:, 1] ** 2 + rng.standard_normal(4000) > 1
    scores, labels = [], []
    for calibrate in (None, "temperature"):
        model = TabularClassifier(
            calibrate=calibrate, random_state=0, dropout=0.0, weight_decay=0.0, **{**SETTINGS, "max_iter": 30}
        ).fit(X[:1500], y[:1500])
        scores.append(log_loss(y[1500:], model.predict_proba(X[1500:])))
        labels.append(model.predict(X[1500:]))
        assert (model.temperature_ == 1) == (calibrate is None)
    assert scores[1] < scores[0]
    assert_array_equal(*labels)


@pytest.mark.parametrize("quantiles", [None, [0.05, 0.5, 0.95]])
def test_intervals_cover_the_share_that_was_asked_for(quantiles):
    covered = {0.5: [], 0.9: []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.uniform(-2, 2, (3000, 2))
        y = X[:, 0] + (0.2 + np.abs(X[:, 1])) * rng.standard_normal(3000)
        model = TabularRegressor(quantiles=quantiles, random_state=seed, **SETTINGS).fit(X[:1000], y[:1000])
        for coverage, found in covered.items():
            low, high = model.predict_interval(X[1000:], coverage).T
            found.append(np.mean((low <= y[1000:]) & (y[1000:] <= high)))
    # 150 rows held out, four times: a standard deviation of 0.02.
    for coverage, found in covered.items():
        assert np.mean(found) == pytest.approx(coverage, abs=0.07)


def test_intervals_of_quantiles_are_wider_where_the_noise_is():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (3000, 2))
    y = (0.1 + np.abs(X[:, 1])) * rng.standard_normal(3000)
    model = TabularRegressor(quantiles=[0.05, 0.95], random_state=0, **SETTINGS).fit(X, y)
    low, high = model.predict_interval([[0, 0.0], [0, 2.0]]).T
    assert high[1] - low[1] > 2 * (high[0] - low[0])


def test_the_margin_is_the_conformal_quantile():
    errors = NumberSketch.of(np.arange(1.0, 100.0))
    assert margin(errors, 0.9) == 90
    assert margin(errors, 0.99) == 99
    with pytest.raises(
        ValueError, match=r"at most 0\.99 with the 99 rows that were held out, received 0\.995"
    ):
        margin(errors, 0.995)


def test_intervals_without_rows_held_out_raise(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 2)), rng.standard_normal(200)
    model = TabularRegressor(early_stopping=False, **SETTINGS).fit(X, y)
    with pytest.raises(ValueError, match="Intervals need rows that were held out"):
        model.predict_interval(X)
    model = TabularRegressor(random_state=0, **SETTINGS).fit(X, y)
    with pytest.raises(ValueError, match="Expected coverage between 0 and 1, received 1"):
        model.predict_interval(X, coverage=1)
    model.save(tmp_path / "model.safetensors")
    loaded = dasknn.load(tmp_path / "model.safetensors")
    assert_array_equal(loaded.predict_interval(X, 0.8), model.predict_interval(X, 0.8))
