"""When the estimators for tables stop, which weights they keep, and what callbacks and plots make of them."""

import csv

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import bits
from numpy.testing import assert_allclose, assert_array_equal

import dasknn
from dasknn import TabularClassifier, TabularRegressor, plots
from dasknn.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    ModelCheckpoint,
)
from dasknn.estimators.tabular_stopping import BestEpoch, best_epoch_of
from tests.data.tables.raw_tables import mixed

N = 120
FRAME = mixed(N)
NUMBERS = FRAME["age"].to_numpy(np.float64)
LABELS = np.where(NUMBERS > 50, "old", "young")
SMALL = {
    "members": 2,
    "hidden_layer_sizes": (8,),
    "max_iter": 4,
    "batch_size": 32,
    "random_state": 0,
    # One order of sums, whatever the cluster.
    "replicas": 1,
}


def classifier(**settings):
    return TabularClassifier(**{**SMALL, **settings})


class Weights(Callback):
    """Keeps the weights after each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.training.state.params.copy())


# --- when training stops -----------------------------------------------------------------------------


class _State:
    def __init__(self, params):
        self.params = params


class _Training:
    """A training as far as BestEpoch knows it."""

    stop_training = False


def stopped_after(scores, n_iter_no_change=np.inf, ends=(), monitor="validation_score"):
    """Return (epochs until the stop, the epoch whose weights are kept) for these scores."""
    patience = BestEpoch(n_iter_no_change, ends, monitor, False)
    patience.training = _Training()
    for epoch, score in enumerate(scores):
        patience.training.state = _State(epoch + 1)
        patience.on_epoch_end(epoch, {"validation_score": score, "val_loss": score})
        if patience.training.stop_training:
            break
    assert patience.best_params == patience.best_epoch
    return epoch + 1, patience.best_epoch


def test_the_best_epoch_is_kept_and_of_equals_the_last():
    assert stopped_after([1, 3, 2]) == (3, 2)
    assert stopped_after([1, 3, 2, 3, 2]) == (5, 4)
    assert stopped_after([1, np.nan, 0]) == (3, 1)
    assert stopped_after([3, 1, 2], monitor="val_loss") == (3, 2)


@pytest.mark.parametrize("scores", [[1, 3, 2], [1, 3, 2, 3, 2], [1, np.nan, 0], [4, 4]], ids=str)
@pytest.mark.parametrize("monitor", ["validation_score", "val_loss"])
def test_the_best_epoch_of_a_history_is_the_one_that_was_kept(scores, monitor):
    history = [{"validation_score": score, "val_loss": score} for score in scores]
    assert best_epoch_of([*history, {"loss": 1.0}], monitor) == stopped_after(scores, monitor=monitor)[1]
    assert best_epoch_of([{"loss": 1.0}], monitor) is None


def test_training_stops_at_the_end_of_a_cycle_without_a_better_epoch():
    ends = [2, 5, 9]
    assert stopped_after([1, 2, 2.5, 2, 2, 3, 2, 2, 2, 9], ends=ends) == (10, 10)
    assert stopped_after([1, 2, 1, 1, 1, 9], ends=ends) == (5, 2)
    # Not in the middle of a cycle, and not at the end of the first.
    assert stopped_after([2, 1, 1, 1, 3, 1, 1, 1, 1, 9], ends=ends) == (9, 5)


def test_training_stops_after_more_than_so_many_epochs_without_a_better_one():
    assert stopped_after([1, 2, 1, 1, 1, 9], 2) == (5, 2)
    assert stopped_after([1, 2, 1, 2, 1, 9], 2) == (5, 4)
    assert stopped_after([1, 2, 1, 1, 3, 1], 2) == (6, 5)


@pytest.mark.parametrize(("epochs", "ends"), [(15, [1, 3, 7, 15]), (32, [3, 7, 15, 32]), (4, [1, 1, 2, 4])])
def test_cycles_end_where_the_schedule_is_0(epochs, ends):
    model = classifier(max_iter=epochs, early_stopping=False).fit(FRAME, LABELS)
    assert model._ends_of_cycles() == ends
    assert classifier(learning_rate="cosine").fit(FRAME, LABELS)._ends_of_cycles() == []


def test_a_training_ends_with_a_cycle_and_has_the_weights_of_its_best_epoch():
    # Targets that cannot be learned: the longer, the worse.
    y = np.random.default_rng(3).standard_normal(N)
    weights = Weights()
    model = TabularRegressor(**{**SMALL, "max_iter": 30}, early_stopping=True, callbacks=weights)
    model.fit(FRAME, y)
    assert model.n_iter_ in model._ends_of_cycles()
    assert model.n_iter_ < 30
    scores = np.array(model.validation_scores_)
    best = np.flatnonzero(scores == scores.max())[-1]
    assert_array_equal(model._members[0], weights.seen[best])
    assert model.best_validation_score_ == scores.max()
    assert model.best_epoch_ == best + 1


def test_there_is_no_best_epoch_where_no_row_chose_one():
    small = {**SMALL, "max_iter": 2}
    model = TabularClassifier(**small, early_stopping=False).fit(FRAME, LABELS, X_val=FRAME, y_val=LABELS)
    assert len(model.validation_scores_) == 2
    assert model.best_epoch_ is None
    # 18 rows are enough for a choice, 3 are not.
    assert TabularClassifier(**small).fit(FRAME, LABELS).best_epoch_ in (1, 2)
    assert TabularClassifier(**small).fit(FRAME[:20], LABELS[:20]).best_epoch_ is None


def test_quantiles_are_stopped_by_their_loss():
    weights = Weights()
    model = TabularRegressor(
        **{**SMALL, "max_iter": 8, "learning_rate_init": 0.5},
        quantiles=[0.1, 0.9],
        early_stopping=True,
        callbacks=weights,
    ).fit(FRAME, NUMBERS)
    losses = [entry["val_loss"] for entry in model.history_]
    assert_array_equal(model._members[0], weights.seen[int(np.argmin(losses))])


# --- which rows are held out -------------------------------------------------------------------------


def test_small_tables_hold_nothing_out_unless_they_are_told_to():
    few, labels = FRAME[:90], LABELS[:90]
    model = classifier().fit(few, labels)
    assert model.validation_scores_ is None
    assert model.history_[0]["n_samples"] == 90
    assert model.n_iter_ == 4
    told = classifier(early_stopping=True).fit(few, labels)
    assert told.history_[0]["n_samples"] == 76
    assert classifier().fit(FRAME, LABELS).history_[0]["n_samples"] == 102
    assert classifier(validation_fraction=0.5).fit(FRAME, LABELS).history_[0]["n_samples"] == 60


def test_without_early_stopping_all_rows_are_trained_on_to_the_end():
    weights = Weights()
    model = classifier(early_stopping=False, callbacks=weights).fit(FRAME, LABELS)
    assert model.n_iter_ == 4
    assert model.validation_scores_ is None
    assert [entry["n_samples"] for entry in model.history_] == [N] * 4
    assert_array_equal(model._members[0], weights.seen[-1])


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_rows_to_validate_with_are_scored_and_not_trained_on(where):
    # Labels are exchanged: the longer it trains, the worse.
    X_val, y_val = FRAME[:40], np.where(LABELS[:40] == "old", "young", "old")
    held_out = (X_val, y_val)
    if where == "dask":
        held_out = dd.from_pandas(X_val, npartitions=2), da.from_array(y_val, chunks=20)
    weights = Weights()
    # 70 rows alone would hold nothing out; those to validate with are enough.
    model = classifier(max_iter=20, learning_rate_init=0.1, callbacks=weights)
    model.fit(FRAME[50:], LABELS[50:], X_val=held_out[0], y_val=held_out[1])
    assert model.history_[0]["n_samples"] == 70
    scores = np.array(model.validation_scores_)
    best = np.flatnonzero(scores == scores.max())[-1]
    assert best < len(scores) - 1
    assert_array_equal(model._members[0], weights.seen[best])
    assert model.score(X_val, y_val) == scores.max()
    last = classifier(max_iter=2, early_stopping=False).fit(
        FRAME[50:], LABELS[50:], X_val=held_out[0], y_val=held_out[1]
    )
    assert last.validation_scores_[-1] == last.score(X_val, y_val)


def test_rows_to_validate_with_that_have_other_columns_are_refused():
    with pytest.raises(ValueError, match="Expected column 'job' in X, as in fit"):
        classifier().fit(FRAME, LABELS, X_val=FRAME.drop(columns="job"), y_val=LABELS)
    with pytest.raises(ValueError, match="y_val was not provided"):
        classifier().fit(FRAME, LABELS, X_val=FRAME)


@pytest.mark.parametrize("fraction", [0.0, 0.001])
def test_a_share_of_no_rows_is_refused(fraction):
    with pytest.raises(ValueError, match="validation set is too small"):
        classifier(early_stopping=True, validation_fraction=fraction).fit(FRAME, LABELS)
    assert classifier(validation_fraction=fraction).fit(FRAME, LABELS).validation_scores_ is None


@pytest.mark.parametrize(("batch_size", "n_steps"), [(16, 8), (50, 3), ("full", 1), (10_000, 1)])
def test_epochs_have_the_steps_of_their_batches(batch_size, n_steps):
    counted = []

    class Steps(Callback):
        def on_epoch_end(self, epoch, logs=None):
            counted.append(self.training.state.step)

    classifier(batch_size=batch_size, max_iter=2, early_stopping=False, callbacks=Steps()).fit(FRAME, LABELS)
    assert counted == [n_steps, 2 * n_steps]


def test_the_history_has_the_rate_of_the_schedule():
    rates = {
        name: [
            entry["learning_rate"]
            for entry in classifier(max_iter=15, learning_rate=name, early_stopping=False)
            .fit(FRAME, LABELS)
            .history_
        ]
        for name in ("constant", "cosine", "coslog4")
    }
    assert set(rates["constant"]) == {0.04}
    assert rates["cosine"][-1] < 0.01 < max(rates["cosine"])
    # After a step of the fourth before the end of a cycle, which is an epoch's last.
    ends = np.array([1, 3, 7, 15]) - 1
    assert min(np.delete(rates["coslog4"], ends)) > 0
    assert rates["coslog4"][-1] < 0.01


# --- callbacks ---------------------------------------------------------------------------------------


def test_callbacks_of_the_user_see_every_epoch(tmp_path):
    history = History()
    events = []
    model = classifier(
        early_stopping=True,
        callbacks=[
            ModelCheckpoint(tmp_path / "model-{epoch}.safetensors"),
            CSVLogger(tmp_path / "log.csv"),
            history,
            LambdaCallback(on_epoch_end=lambda epoch, logs: events.append((epoch, logs["val_loss"]))),
        ],
    ).fit(FRAME, LABELS)
    n = model.n_iter_
    assert [epoch for epoch, _ in events] == list(range(n))
    assert history.history["validation_score"] == model.validation_scores_
    with open(tmp_path / "log.csv", newline="") as file:
        found = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert_allclose(found, [loss for _, loss in events])
    saved = [dasknn.load(tmp_path / f"model-{epoch}.safetensors") for epoch in range(1, n + 1)]
    assert len({bits(one) for one in saved}) == n
    assert set(saved[0].predict(FRAME)) <= {"old", "young"}


def test_early_stopping_of_the_user_stops_it():
    stops = EarlyStopping("loss", baseline=0.0, patience=1)
    model = classifier(max_iter=20, early_stopping=False, callbacks=stops).fit(FRAME, LABELS)
    assert model.n_iter_ < 20


def test_a_checkpoint_goes_on_to_the_same_bits_in_this_process(tmp_path):
    class Stops(Exception):
        pass

    def stop(epoch, logs):
        if epoch == 2:
            raise Stops

    settings = {"early_stopping": True, "max_iter": 6, "n_iter_no_change": 9}
    with pytest.raises(Stops):
        classifier(callbacks=LambdaCallback(on_epoch_begin=stop), **settings).fit(
            FRAME, LABELS, checkpoint=tmp_path
        )
    resumed = classifier(**settings).fit(FRAME, LABELS, checkpoint=tmp_path, resume=True)
    calm = classifier(**settings).fit(FRAME, LABELS)
    assert bits(resumed) == bits(calm)
    assert resumed.validation_scores_ == calm.validation_scores_
    assert resumed.temperature_ == calm.temperature_


# --- evaluation and plots ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return classifier(max_iter=15, early_stopping=True).fit(FRAME, LABELS)


@pytest.fixture(scope="module", params=["pandas", "dask"])
def data(request):
    if request.param == "pandas":
        return FRAME, LABELS
    y = dd.from_pandas(pd.Series(LABELS, FRAME.index, name="age group"), npartitions=3)
    return dd.from_pandas(FRAME, npartitions=3), y


def test_evaluations_have_the_score_of_the_model(fitted, data):
    found = dasknn.evaluate(fitted, *data, slices=["job"], metrics=["accuracy"], min_rows=1)
    of_slices = dict(zip(found["slice"], found["accuracy"], strict=True))
    assert of_slices["all"] == pytest.approx(fitted.score(FRAME, LABELS))
    is_pilot = (FRAME["job"] == "pilot").to_numpy()
    assert of_slices["job=pilot"] == pytest.approx(fitted.score(FRAME[is_pilot], LABELS[is_pilot]))
    other = classifier(random_state=1).fit(FRAME, LABELS)
    both = dasknn.compare(fitted, other, *data, metrics=["accuracy"])
    assert "accuracy" in str(both)


def test_importances_and_averages_take_raw_tables(fitted, data):
    found = dasknn.permutation_importance(fitted, *data, n_repeats=2)
    text = str(found)
    for name in FRAME:
        assert name in text
    averages = dasknn.partial_dependence(fitted, data[0], ["age", "job"])
    assert "age" in str(averages)
    assert "job" in str(averages)


def test_plots_draw_it(fitted, data):
    plt = pytest.importorskip("matplotlib.pyplot")
    shown = plots.ConfusionMatrixDisplay.from_estimator(fitted, *data)
    assert np.asarray(shown.confusion_matrix).sum() == N
    plots.RocCurveDisplay.from_estimator(fitted, *data)
    plots.CalibrationDisplay.from_estimator(fitted, *data)
    plots.LearningCurveDisplay.from_estimator(fitted)
    plt.close("all")


@pytest.mark.parametrize("by_groups", [False, True])
def test_refit_trains_a_second_network_on_all_rows(by_groups):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (600, 2))
    y = np.sin(2 * X[:, 0]) + X[:, 1]
    settings = {"members": 2, "hidden_layer_sizes": (16,), "max_iter": 6, "random_state": 0}
    given = {"groups": np.arange(600) // 10} if by_groups else {}
    first = TabularRegressor(**settings).fit(X, y, **given)
    both = TabularRegressor(refit="all", **settings).fit(X, y, **given)
    best = int(np.flatnonzero(np.array(first.validation_scores_) == first.best_validation_score_)[-1]) + 1
    assert both.validation_scores_ == first.validation_scores_
    assert len(both.history_) == first.n_iter_ + best
    assert both.recipe_ == first.recipe_
    assert both.best_epoch_ == first.best_epoch_ == best
    assert [entry["n_samples"] for entry in both.history_[-best:]] == [600] * best
    assert both.history_[0]["n_samples"] < 600
    assert (both.predict(X) != first.predict(X)).any()


def test_refit_does_not_follow_rows_for_validation_that_were_passed():
    X = np.random.default_rng(0).uniform(-2, 2, (300, 2))
    model = TabularRegressor(refit="all", members=2, hidden_layer_sizes=(8,), max_iter=3, random_state=0)
    model.fit(X, X[:, 0], X_val=X[:100], y_val=X[:100, 0])
    assert len(model.history_) == 3
