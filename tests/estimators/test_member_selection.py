"""Members that are chosen after training: those whose mean predicts rows that were held out best."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import log_loss

import dasknn
from dasknn import TabularClassifier, TabularRegressor
from dasknn.data.blocks import Block
from dasknn.data.targets import ClassEncoder, ClassWeights, NumberEncoder
from dasknn.estimators.member_selection import choose_members
from dasknn.estimators.tabular_losses import BinaryCrossentropy, HalfSquares
from dasknn.losses import MemberLoss
from dasknn.strategies import PredictionAveraging

SMALL = {
    "members": 6,
    "hidden_layer_sizes": (16,),
    "max_iter": 4,
    "learning_rate_init": 0.1,
    "random_state": 0,
}


class Given:
    """A predictor whose members' outputs (n, members, 1) are its rows, and rows in two parts."""

    dtype = "float64"
    n_outputs = 1

    def __init__(self, outputs, y, loss, encoder):
        self._outputs, self._y, self.encoder = np.asarray(outputs, float), np.asarray(y), encoder
        self.n_members = self._outputs.shape[1]
        self.loss = MemberLoss(loss, self.n_members)
        self.network, self.members = self, [None]

    def member_outputs(self, params, X):
        return X[:, :, np.newaxis]

    def total(self, function, predictor):
        half = len(self._y) // 2
        parts = (slice(0, half), slice(half, None))
        return sum(function(predictor, Block(self._outputs[rows], self._y[rows])) for rows in parts)


def chosen_for(outputs, y):
    given = Given(outputs, y, HalfSquares(), NumberEncoder(1, "float64"))
    return choose_members(given, given, None)


def loss_of(outputs, y, members):
    return float(np.square(outputs[:, members].mean(axis=1) - y).sum())


@pytest.mark.parametrize("seed", range(5))
def test_no_member_that_is_added_or_all_together_make_the_loss_less(seed):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(40)
    outputs = y[:, np.newaxis] + rng.standard_normal((40, 7)) * rng.uniform(0.5, 2, 7)
    chosen = chosen_for(outputs, y)
    least = loss_of(outputs, y, chosen)
    others = sorted(set(range(7)) - set(chosen))
    assert all(loss_of(outputs, y, [*chosen, other]) >= least for other in others)
    assert least <= loss_of(outputs, y, list(range(7)))
    assert least <= min(loss_of(outputs, y, [number]) for number in range(7))


def test_members_whose_errors_cancel_are_chosen_and_the_others_left_out():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    outputs = np.column_stack([y + 5, y + 1.1, y + 3, y - 1, y - 7])
    assert chosen_for(outputs, y) == [1, 3]


def test_of_equals_the_lower_number_is_chosen():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    outputs = np.column_stack([y + 9, y + 1, y + 1, y + 1])
    assert chosen_for(outputs, y) == [1]


def test_all_members_are_kept_if_they_are_as_good_or_nothing_can_be_said():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert chosen_for(np.column_stack([y, y, y]), y) == [0, 1, 2]
    # The search ends with member 0, although all three are better than it.
    errors = np.array([[1, 1, 1, 1], [-4, 3, -4, 3], [3, -4, 3, -4]])
    outputs = (y + errors).T
    assert loss_of(outputs, y, [0, 1]) > loss_of(outputs, y, [0]) > loss_of(outputs, y, [0, 1, 2])
    assert chosen_for(outputs, y) == [0, 1, 2]
    assert chosen_for(np.empty((0, 3)), np.empty(0)) == [0, 1, 2]


def test_a_member_that_is_not_finite_is_left_out():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert chosen_for(np.column_stack([y * np.nan, y + 1, y - 1]), y) == [1, 2]


def test_unknown_labels_keep_all_members_and_weights_of_classes_count():
    P = np.array([[0.9, 0.2], [0.9, 0.2], [0.9, 0.2], [0.7, 0.1]])
    y = np.array([1, 1, 1, 0])
    encoder = ClassEncoder(np.arange(2), "float64")
    given = Given(P, y, BinaryCrossentropy(), encoder)
    assert choose_members(given, given, None) == [0]
    assert choose_members(given, given, ClassWeights(encoder, np.array([100.0, 1.0]))) == [1]
    given = Given(P, y + 7, BinaryCrossentropy(), encoder)
    for weights in (None, ClassWeights(encoder, np.ones(2))):
        assert choose_members(given, given, weights) == [0, 1]


def table(n=600):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.uniform(-2, 2, n), "b": rng.uniform(-2, 2, n)})
    return frame, np.sin(2 * frame.a) * frame.b + rng.normal(0, 0.3, n)


FRAME, NUMBERS = table()
LABELS = np.where(NUMBERS > 0, "high", "low")
TRAIN, HELD = slice(0, 400), slice(400, 600)
GIVEN = {"X_val": FRAME[HELD], "y_val": NUMBERS[HELD]}


@pytest.fixture(scope="module")
def of_all():
    return TabularRegressor(**SMALL).fit(FRAME[TRAIN], NUMBERS[TRAIN], **GIVEN)


@pytest.fixture(scope="module")
def of_some():
    return TabularRegressor(select_members=True, **SMALL).fit(FRAME[TRAIN], NUMBERS[TRAIN], **GIVEN)


def test_predictions_are_the_mean_of_the_members_that_were_chosen(of_all, of_some):
    numbers = of_some.selected_members_
    assert of_all.selected_members_ is None
    assert 0 < len(numbers) < 6
    assert len(of_some.members_) == len(numbers)
    of_members = [of_all.members_[number].predict(FRAME) for number in numbers]
    assert_allclose(of_some.predict(FRAME), np.mean(of_members, axis=0), rtol=1e-4, atol=1e-5)
    if len(numbers) > 1:
        _, std = of_some.predict(FRAME, return_std=True)
        assert_allclose(std, np.std(of_members, axis=0), rtol=1e-3, atol=1e-5)
    assert of_some.score(FRAME[HELD], NUMBERS[HELD]) > of_all.score(FRAME[HELD], NUMBERS[HELD])
    assert of_some.validation_scores_ == of_all.validation_scores_


def test_intervals_are_those_of_the_members_that_were_chosen(of_some):
    errors = np.sort(np.abs(of_some.predict(FRAME[HELD]) - NUMBERS[HELD]))
    low, high = of_some.predict_interval(FRAME[:5], 0.8).T
    assert_allclose((high - low) / 2, errors[int(np.ceil(201 * 0.8)) - 1], rtol=1e-4)


def test_probabilities_are_calibrated_for_the_members_that_were_chosen():
    given = {"X_val": FRAME[HELD], "y_val": LABELS[HELD]}
    model = TabularClassifier(select_members=True, **SMALL).fit(FRAME[TRAIN], LABELS[TRAIN], **given)
    assert len(model.selected_members_) < 6
    P = model.predict_proba(FRAME[HELD])
    logits = np.log(P) * model.temperature_

    def loss(temperature):
        powers = np.exp(logits / temperature)
        return log_loss(LABELS[HELD], powers / powers.sum(axis=1, keepdims=True))

    assert loss(model.temperature_) <= min(loss(model.temperature_ * factor) for factor in (0.8, 1.25))


def test_rows_on_dask_choose_the_same_members(of_some):
    X, y = dd.from_pandas(FRAME[HELD], npartitions=3), dd.from_pandas(NUMBERS[HELD], npartitions=3)
    model = TabularRegressor(select_members=True, **SMALL)
    model.fit(FRAME[TRAIN], NUMBERS[TRAIN], X_val=X, y_val=y)
    assert model.selected_members_ == of_some.selected_members_


def test_files_keep_the_members_that_were_chosen(of_all, of_some, tmp_path):
    of_some.save(tmp_path / "model.safetensors")
    loaded = dasknn.load(tmp_path / "model.safetensors")
    assert loaded.selected_members_ == of_some.selected_members_
    assert_array_equal(loaded.predict(FRAME), of_some.predict(FRAME))
    assert len(loaded.members_) == len(of_some.members_)
    of_all.save(tmp_path / "all.safetensors")
    assert dasknn.load(tmp_path / "all.safetensors").selected_members_ is None


def test_quantiles_and_several_targets_choose_members():
    settings = {"select_members": True, **SMALL}
    model = TabularRegressor(quantiles=[0.1, 0.9], **settings).fit(FRAME[TRAIN], NUMBERS[TRAIN], **GIVEN)
    assert len(model.members_) == len(model.selected_members_) < 6
    both = np.column_stack([NUMBERS, FRAME.a])
    model = TabularRegressor(**settings).fit(FRAME, both)
    assert len(model.members_) == len(model.selected_members_)
    assert model.predict(FRAME).shape == (600, 2)


def test_what_rules_members_out_is_refused():
    for settings, message in (
        ({"early_stopping": False}, r"needs rows that are held out, received early_stopping=False"),
        ({"refit": "all"}, r"received refit='all', whose second network is trained on all rows"),
        ({"strategy": "predictions"}, r"received strategy 'predictions', which trains several networks"),
        ({"strategy": PredictionAveraging(members=2)}, r"received strategy 'predictions'"),
        ({"select_members": 3}, r"'select_members' parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            TabularRegressor(**{**SMALL, "select_members": True, **settings}).fit(FRAME, NUMBERS)


def test_tables_that_are_too_small_to_hold_rows_out_keep_all_members():
    model = TabularRegressor(select_members=True, **SMALL).fit(FRAME[:40], NUMBERS[:40])
    assert model.selected_members_ is None
    assert len(model.members_) == 6
