"""Searches in this process: all kinds of networks, of rows that are scored, of scores, of ends."""

import logging

import dask.array as da
import dask.dataframe as dd
import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes
from sklearn.metrics import accuracy_score, get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GroupKFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dasknn
from dasknn import (
    GridSearch,
    HyperbandSearch,
    HyperbandSearchCV,
    IncrementalSearchCV,
    MLPClassifier,
    MLPRegressor,
    PredictionAveraging,
    RandomSearch,
    Sequential,
    SuccessiveHalvingSearch,
    SuccessiveHalvingSearchCV,
    TablePreprocessor,
    TabularClassifier,
    TabularRegressor,
    layers,
    optimizers,
)
from dasknn.callbacks import Callback
from dasknn.data import stations
from dasknn.exceptions import PartitionError
from dasknn.search import ahead
from dasknn.training.hopping import Hopper
from tests.search.searches import RATES, SHORT, build, digits, halving, same_each_time

X, y = digits()
D, d = load_diabetes(return_X_y=True)
D = D.astype("float32")
SMALL = {"members": 2, "hidden_layer_sizes": (8,)}
OF_NUMBERS = ["r2", "neg_mean_squared_error", "neg_median_absolute_error", "neg_max_error"]
STOPS_EARLY = MLPClassifier((16,), early_stopping=True, n_iter_no_change=2)


def table():
    """Rows with text and gaps, and two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X[:600, :6]).rename(columns=lambda n: f"c{n}")
    frame["text"] = rng.choice(list("abc"), 600)
    frame.loc[::7, "c3"] = np.nan
    return frame, np.where(y[:600] > 4, "high", "low")


def search(estimator=None, parameters=None, n_trials=3, **settings):
    return RandomSearch(
        MLPClassifier((16,)) if estimator is None else estimator,
        parameters or RATES,
        n_trials=n_trials,
        **{**SHORT, **settings},
    )


# --- kinds ----------------------------------------------------------------------------------------------


def test_a_search_is_an_estimator_of_scikit_learn():
    found = clone(halving()).fit(X, y)
    assert found.best_score_ > 0.8
    assert found.best_params_ == found.cv_results_["params"][found.best_index_]
    assert found.best_score_ == found.cv_results_["mean_test_score"].max()
    assert found.cv_results_["rank_test_score"][found.best_index_] == 1
    assert found.best_estimator_.learning_rate_init == found.best_params_["learning_rate_init"]
    assert is_classifier(found)
    assert not is_regressor(found)
    assert_array_equal(found.classes_, np.arange(10))
    assert found.n_features_in_ == 64
    assert found.score(X, y) == accuracy_score(y, found.predict(X))
    assert found.predict_proba(X[:5]).shape == (5, 10)
    assert not hasattr(halving(MLPRegressor()), "predict_proba")


def test_the_best_estimator_has_the_score_that_was_found():
    left, held = slice(0, 1400), slice(1400, None)
    found = halving(validation=(X[held], y[held])).fit(X[left], y[left])
    assert found.best_estimator_.score(X[held], y[held]) == found.best_score_
    assert found.best_epoch_ == found.cv_results_["best_epoch"][found.best_index_]


@pytest.mark.parametrize(
    ("estimator", "parameters", "data"),
    [
        (MLPRegressor(hidden_layer_sizes=(8,)), RATES, (D, d)),
        (TabularClassifier(**SMALL), RATES, table()),
        (TabularClassifier(**SMALL), {"n_bins": [4, 8], "dropout": [0.0, 0.1]}, table()),
        (TabularRegressor(**SMALL), RATES, (pd.DataFrame(D).rename(columns=str), d)),
        (build, {"units": [8, 16], "batch_size": [32, 64]}, (X, y)),
        (
            make_pipeline(TablePreprocessor(), MLPClassifier((8,))),
            {"mlpclassifier__alpha": [1e-4, 1e-2], "tablepreprocessor__min_frequency": [None, 30]},
            table(),
        ),
        (MLPClassifier((8,), class_weight="balanced"), {"class_weight": [None, "balanced"]}, (X, y)),
        (MLPClassifier((8,)), RATES, (X, np.eye(10, dtype=int)[y][:, :3])),
        (MLPRegressor(hidden_layer_sizes=(8,)), RATES, (D, np.column_stack([d, -d]))),
    ],
    ids=["regressor", "table", "tables of two kinds", "table of numbers", "sequential", "pipeline",
         "weights of classes", "several labels", "several targets"],
)  # fmt: skip
def test_all_kinds_of_networks_are_searched_and_averaged(estimator, parameters, data):
    found = search(estimator, parameters, n_trials=2).fit(*data)
    assert list(found.cv_results_["error"]) == ["", ""]
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    both = found.ensemble(4)
    predicted = both.predict(data[0])
    assert len(predicted) == len(data[1])
    assert np.ndim(predicted) == np.ndim(data[1])
    if estimator is not build:
        assert np.isfinite(both.score(*data))


def test_steps_before_the_network_are_fitted_once_for_all_trials_that_share_them():
    fits = []

    class Counted(TablePreprocessor):
        def fit(self, X, y=None):
            fits.append(self.min_frequency)
            return super().fit(X, y)

    pipeline = make_pipeline(Counted(), MLPClassifier((8,)))
    step = "counted__min_frequency"
    search(pipeline, {"mlpclassifier__alpha": [1e-4, 1e-3, 1e-2], step: [None, 30]}, n_trials=6).fit(*table())
    assert sorted(fits, key=str) == [30, None]


def test_any_transformers_may_come_before_the_network():
    found = search(make_pipeline(StandardScaler(), MLPClassifier((8,))), {"mlpclassifier__alpha": [1e-4]}, 1)
    found.set_params(max_ensemble=0).fit(X, y)
    assert found.best_estimator_.score(X, y) == found.score(X, y)


def test_a_sequential_is_scored_by_its_loss_or_by_what_it_logs():
    by_loss = search(build, {"units": [4, 16]}, 2).fit(X, y)
    by_accuracy = search(build, {"units": [4, 16]}, 2, scoring="val_accuracy").fit(X, y)
    assert by_loss.best_score_ < 0 < by_accuracy.best_score_ <= 1
    assert isinstance(by_loss.best_estimator_, Sequential)
    loss = [entry["val_loss"] for entry in by_loss.history_ if entry["trial"] == by_loss.best_index_]
    assert by_loss.best_score_ == -min(loss)


def test_an_epoch_of_a_trial_is_what_one_machine_does(monkeypatch):
    # Rows of several stations, in an order of the trial's own; each station is shuffled.
    monkeypatch.setattr(stations, "STATION_BYTES", 100_000)
    held = (X[:300], y[:300])
    found = search(n_trials=1, max_iter=3, validation=held).fit(X[300:], y[300:])
    entries = [entry for entry in found.history_ if entry["trial"] == 0]
    assert [entry["n_samples"] for entry in entries] == [1497] * 3


# --- rows that are scored ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dask", [False, True])
def test_a_share_of_the_rows_is_scored(dask):
    data = (da.from_array(X, chunks=(300, -1)), da.from_array(y, chunks=300)) if dask else (X, y)
    found = search(validation=0.25).fit(*data)
    assert found.history_[0]["n_samples"] == 1797 - -(-1797 // 4)


def test_rows_of_a_group_are_on_one_side():
    # Each group has a label of its own: if rows of all groups were trained on, scores would be good.
    groups = np.arange(len(y)) % 30
    labels = np.random.default_rng(0).permutation(30)[groups] % 2
    rows = np.eye(30, dtype="float32")[groups]
    found = search(n_trials=2, max_iter=20, validation=0.4)
    assert found.fit(rows, labels).best_score_ == 1
    assert found.fit(rows, labels, groups=groups).best_score_ < 0.9


def test_the_latest_rows_are_scored():
    # The latest rows have the opposite labels.
    late = np.arange(800) >= 600
    rows, labels = X[:800], y[:800] % 2 ^ late
    order = np.random.default_rng(0).permutation(800)
    by_time = search(validation=0.25).fit(rows[order], labels[order], time=order)
    last = search(validation=0.25, hold_out="last").fit(rows, labels)
    for found in (by_time, last):
        assert found.history_[0]["n_samples"] == 600
        assert found.cv_results_["mean_test_score"].min() < 0.4


def test_folds_are_scored_by_networks_that_have_not_seen_them():
    found = search(n_trials=2, cv=3).fit(X, y)
    results = found.cv_results_
    splits = np.column_stack([results[f"split{k}_test_score"] for k in range(3)])
    assert_allclose(results["mean_test_score"], splits.mean(axis=1))
    assert_allclose(results["std_test_score"], splits.std(axis=1))
    assert len(set(splits[0])) > 1
    seen = {(entry["split"], entry["n_samples"]) for entry in found.history_}
    assert seen == {(0, 1198), (1, 1198), (2, 1198)}
    # Networks of all folds are members; the best estimator was trained on all rows.
    assert len(found.ensemble(1).members) == 3
    assert found.best_estimator_.history_[0]["n_samples"] == 1797


def test_folds_of_dask_collections_are_of_partitions_or_of_groups():
    frame = pd.DataFrame(X).rename(columns=str).assign(y=y, group=np.arange(len(y)) % 20)
    lazy = dd.from_pandas(frame, npartitions=6)
    rows, labels = lazy.drop(columns=["y", "group"]), lazy["y"]
    by_parts = search(n_trials=1, cv=3).fit(rows, labels)
    by_groups = search(n_trials=1, cv=3).fit(rows, labels, groups=lazy["group"])
    for found in (by_parts, by_groups):
        trained = {entry["split"]: entry["n_samples"] for entry in found.history_}
        assert len(trained) == 3
        # Each row is scored once, so it is trained on twice.
        assert sum(trained.values()) == 2 * len(y)


def test_splitters_of_scikit_learn_say_what_the_folds_are():
    groups = np.arange(len(y)) // 60
    found = search(n_trials=1, cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert found.n_splits_ == 3
    with pytest.raises(ValueError, match="train on all others, received TimeSeriesSplit"):
        search(cv=TimeSeriesSplit(3)).fit(X, y)


@pytest.mark.parametrize("refit", ["all", False])
def test_the_best_network_may_be_trained_on_all_rows_or_left_out(refit):
    found = search(refit=refit, n_trials=2).fit(X, y)
    if refit:
        assert found.best_estimator_.history_[0]["n_samples"] == 1797
        assert len(found.best_estimator_.history_) == found.best_epoch_
    else:
        with pytest.raises(AttributeError, match="refit=False"):
            found.predict(X)
        assert found.ensemble(2).score(X, y) > 0.5


# --- scores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scoring",
    ["accuracy", "balanced_accuracy", "neg_log_loss", "f1_macro", "roc_auc_ovr", "top_k_accuracy"],
)
def test_scores_have_scikit_learns_names_and_values(scoring):
    left, held = slice(0, 1400), slice(1400, None)
    found = search(scoring=scoring, validation=(X[held], y[held]), n_trials=2).fit(X[left], y[left])
    expected = get_scorer(scoring)(found.best_estimator_, X[held], y[held])
    assert_allclose(found.best_score_, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "scoring", ["r2", "neg_mean_squared_error", "neg_median_absolute_error", "neg_max_error"]
)
@pytest.mark.parametrize(
    "estimator", [MLPRegressor(hidden_layer_sizes=(8,)), TabularRegressor(members=2, hidden_layer_sizes=(8,))]
)
def test_scores_of_numbers_have_scikit_learns_names_and_values(scoring, estimator):
    left, held = slice(0, 350), slice(350, None)
    found = search(estimator, scoring=scoring, validation=(D[held], d[held]), n_trials=2).fit(
        D[left], d[left]
    )
    expected = get_scorer(scoring)(found.best_estimator_, D[held], d[held])
    assert_allclose(found.best_score_, expected, rtol=1e-4)


def test_functions_and_scorers_score():
    left, held = slice(0, 1400), slice(1400, None)

    def right(estimator, X, y):
        return (estimator.predict(X) == y).sum()

    auc = make_scorer(roc_auc_score, response_method="predict_proba", multi_class="ovr")
    for scoring, expected in ((right, right), (auc, auc)):
        found = search(scoring=scoring, validation=(X[held], y[held]), n_trials=2).fit(X[left], y[left])
        assert_allclose(found.best_score_, expected(found.best_estimator_, X[held], y[held]), rtol=1e-6)


def test_weights_of_rows_count_in_scores():
    # Rows of weight 0 have wrong labels.
    weight = (np.arange(len(y)) % 2).astype("float32")
    wrong = np.where(weight == 0, (y + 1) % 10, y)
    assert search(max_iter=20).fit(X, wrong, weight).best_score_ > 0.9


# --- trials -------------------------------------------------------------------------------------------------


def test_paused_trials_go_on_and_nothing_is_trained_twice():
    found = halving().fit(X, y)
    for trial in range(9):
        epochs = [entry["epoch"] for entry in found.history_ if entry["trial"] == trial]
        assert epochs == list(range(1, found.cv_results_["n_epochs"][trial] + 1))
    assert set(found.cv_results_["status"]) == {"finished", "paused"}
    # A trial that was paused has the numbers of one that was not.
    whole = RandomSearch(
        MLPClassifier(), found.parameters, n_trials=9, max_iter=9, random_state=0, verbose=False
    ).fit(X, y)
    scores = {(entry["trial"], entry["epoch"]): entry["score"] for entry in whole.history_}
    assert all(scores[entry["trial"], entry["epoch"]] == entry["score"] for entry in found.history_)


def test_epochs_that_are_trained_at_once_change_nothing(monkeypatch):
    expected = same_each_time(halving().fit(X, y))
    monkeypatch.setattr("dasknn.search.ahead._MOST_EPOCHS", 1)
    assert same_each_time(halving().fit(X, y)) == expected


def test_networks_that_are_scored_on_the_way_have_the_same_scores(monkeypatch):
    expected = same_each_time(halving().fit(X, y))
    monkeypatch.setattr(ahead.Ahead, "answer", lambda self, question: None)
    assert same_each_time(halving().fit(X, y)) == expected


def test_a_network_is_scored_on_the_way_once_if_others_weights_predict(monkeypatch):
    score, n_scored = ahead._score, []
    monkeypatch.setattr(ahead, "_score", lambda *args: n_scored.append(1) or score(*args))
    monkeypatch.setattr(ahead, "_MOST_EPOCHS", 1)

    def averaged(units):
        model = Sequential([layers.Dense(units, "relu"), layers.Dense(10, "softmax")])
        model.compile(optimizers.Adam(use_ema=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    RandomSearch(averaged, {"units": [8]}, n_trials=1, max_iter=6, random_state=0, verbose=False).fit(X, y)
    assert len(n_scored) == 1


def test_scores_come_before_trainings(monkeypatch):
    send, sent = Hopper.send, []
    monkeypatch.setattr(Hopper, "send", lambda hopper, journey: sent.append(journey) or send(hopper, journey))
    halving().fit(X, y)
    # Only trainings may be stopped.
    scores = [journey.priority for journey in sent if not journey.may_stop]
    assert max(scores) < min(journey.priority for journey in sent if journey.may_stop)


def test_what_a_callback_changes_is_not_trained_ahead():
    class Slower(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.training.learning_rate = self.training.learning_rate / 2

    found = search(MLPClassifier((16,), callbacks=[Slower()]), n_trials=2, max_iter=8).fit(X, y)
    for entry in found.history_:
        first = next(one for one in found.history_ if one["trial"] == entry["trial"])
        assert entry["learning_rate"] == first["learning_rate"] / 2 ** (entry["epoch"] - 1)


@pytest.mark.parametrize(
    "settings",
    [{"patience": 2}, {"estimator": STOPS_EARLY}],
)
def test_trials_end_by_themselves(settings):
    found = search(max_iter=60, **settings).fit(X, y)
    assert set(found.cv_results_["status"]) == {"stopped"}
    assert (found.cv_results_["n_epochs"] < 60).all()
    assert (found.cv_results_["best_epoch"] < found.cv_results_["n_epochs"]).all()


def test_a_trial_that_fails_is_a_row_and_not_the_end(caplog):
    parameters = {"alpha": [-1.0, 1e-4], "learning_rate_init": [1e-3, 1e20], "solver": ["adam", "lbfgs"]}
    with caplog.at_level(logging.WARNING, "dasknn"):
        found = GridSearch(MLPClassifier((8,)), parameters, **SHORT).fit(X, y)
    results = found.cv_results_
    good = results["status"] == "finished"
    assert good.sum() == 1
    assert set(results["status"][~good]) == {"failed"}
    errors = " ".join(results["error"])
    assert "NonFiniteLossError" in errors
    assert "The 'alpha' parameter" in errors
    assert "Use solver='adam'" in errors
    assert np.isnan(results["mean_test_score"][~good]).all()
    assert (results["rank_test_score"][~good] > 1).all()
    assert "Trial 0 has failed" in caplog.text
    assert found.best_estimator_.alpha == 1e-4


def test_a_grid_is_tried_in_scikit_learns_order():
    found = GridSearch(MLPClassifier(), {"alpha": [1e-4, 1e-2], "hidden_layer_sizes": [(4,), (8,)]}, **SHORT)
    params = found.fit(X, y).cv_results_["params"]
    assert params[1] == {"alpha": 1e-4, "hidden_layer_sizes": (8,)}
    assert list(found.cv_results_["param_alpha"]) == [1e-4, 1e-4, 1e-2, 1e-2]


def test_time_that_is_over_ends_the_search_with_what_was_found():
    found = SuccessiveHalvingSearch(
        MLPClassifier((16,)), RATES, n_trials=None, max_iter=9, time_budget=1.0, random_state=0, verbose=False
    ).fit(X, y)
    assert found.timed_out_
    assert not found.interrupted_
    assert len(found.cv_results_["params"]) > 1
    assert found.score(X, y) > 0.1


def test_searches_of_the_same_seed_are_the_same_and_others_are_not():
    one, again = (same_each_time(halving().fit(X, y)) for _ in range(2))
    assert one == again
    assert same_each_time(halving(random_state=1).fit(X, y)) != one


@pytest.mark.parametrize("sampler", ["sobol", optuna.samplers.TPESampler(n_startup_trials=3)])
def test_samplers_propose(sampler):
    found = [search(sampler=sampler, n_trials=20, max_iter=2).fit(X, y).cv_results_ for _ in range(2)]
    assert found[0]["params"] == found[1]["params"]
    assert len({one["learning_rate_init"] for one in found[0]["params"]}) == 20


def test_what_asks_and_tells_proposes():
    class Bisection:
        def __init__(self):
            self.told = []

        def ask(self):
            return {"learning_rate_init": 0.1 / 2 ** len(self.told)}

        def tell(self, settings, score, n_epochs):
            self.told.append((settings["learning_rate_init"], score, n_epochs))

    study = Bisection()
    found = search(sampler=study, n_trials=20).fit(X, y)
    # The last proposals know of all results but the 16 before them.
    assert len(study.told) == 4
    assert study.told[0][1:] == (found.cv_results_["mean_test_score"][0], 4)


@pytest.mark.parametrize(
    "found",
    [
        HyperbandSearchCV(MLPClassifier((8,)), RATES, 9, 3, random_state=0, test_size=0.2),
        SuccessiveHalvingSearchCV(MLPClassifier((8,)), RATES, 9, 1, random_state=0, patience=True),
        IncrementalSearchCV(MLPClassifier((8,)), RATES, 3, max_iter=9, random_state=0),
        IncrementalSearchCV(MLPClassifier((8,)), {"alpha": [1e-4, 1e-2]}, "grid", max_iter=9),
    ],
    ids=["hyperband", "halving", "incremental", "grid"],
)
def test_searches_take_the_arguments_of_dask_ml(found):
    clone(found).fit(X, y)
    found.fit(X, y)
    assert max(found.cv_results_["n_epochs"]) == 9
    assert found.best_score_ == max(entry["score"] for entry in found.model_history_[found.best_index_])


# --- ensembles ----------------------------------------------------------------------------------------


def test_each_network_that_is_added_is_the_one_that_helps_most():
    held = (X[1400:], y[1400:])
    found = search(validation=held, n_trials=6, max_iter=6, max_ensemble=5).fit(X[:1400], y[:1400])

    def loss(members):
        proba = np.mean([found._models[number][0].predict_proba(held[0]) for number in members], axis=0)
        return -np.log(np.maximum(proba[np.arange(len(held[1])), held[1]], 1e-7)).mean()

    for k in range(1, 6):
        assert_allclose(found.ensemble_losses_[k - 1], loss(found.ensemble_path_[:k]), rtol=1e-5)
        both = found.ensemble(k)
        expected = np.mean(
            [found._models[n][0].predict_proba(X[:9]) for n in found.ensemble_path_[:k]], axis=0
        )
        assert_allclose(both.predict_proba(X[:9]), expected, rtol=1e-5)
    # Greedy: no other network would have been better in the last step.
    others = [loss([*found.ensemble_path_[:4], number]) for number in found._models]
    assert found.ensemble_losses_[4] <= min(others) + 1e-6
    weights = found.cv_results_["ensemble_weight"]
    assert weights.sum() == 5
    gains = found.cv_results_["ensemble_gain"]
    assert_allclose(gains.sum(), found.ensemble_losses_[0] - found.ensemble_losses_[-1])


def test_an_ensemble_is_saved_and_loaded(tmp_path):
    both = halving().fit(X, y).ensemble(4)
    dasknn.save(both, tmp_path / "both.safetensors")
    again = dasknn.load(tmp_path / "both.safetensors")
    assert_array_equal(again.predict_proba(X), both.predict_proba(X))


@pytest.mark.parametrize("k", [0, 17])
def test_ensembles_have_from_one_to_max_ensemble_members(k):
    with pytest.raises(ValueError, match="from 1 to 16, for which this search has chosen"):
        search().fit(X, y).ensemble(k)


# --- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: search(parameters={"alhpa": [1]}), ValueError, "Did you mean 'alpha'"),
        (lambda: search(parameters={"alpha": []}), ValueError, "at least one value"),
        (lambda: RandomSearch(MLPClassifier(), {}), ValueError, "at least one setting"),
        (lambda: search(build, {"unit": [1]}), ValueError, "Did you mean 'units'"),
        (lambda: search(build(), {"units": [1]}), TypeError, "function that builds and compiles"),
        (lambda: search(StandardScaler(), {"copy": [True]}), TypeError, "received StandardScaler"),
        (lambda: search(MLPClassifier(strategy="weights")), ValueError, "strategy='auto'"),
        (lambda: search(scoring="acuracy"), ValueError, "Did you mean 'accuracy'"),
        (lambda: search(scoring="val_acc"), ValueError, "scoring to be in the logs"),
        (lambda: search(cv=1), ValueError, "at least 2"),
        (lambda: search(cv=3, hold_out="last"), ValueError, "cv and hold_out"),
        (lambda: search(cv=3, validation=(X, y)), ValueError, "validation=.X, y. and cv"),
        (lambda: search(validation=1.5), ValueError, "validation"),
        (lambda: search(validation=(X,)), ValueError, "received 1 items"),
        (lambda: search(n_trials=None), ValueError, "n_trials or time_budget"),
        (lambda: search(parameters={"alpha": [-1.0, -2.0]}), ValueError, "None of 2 trials could be scored"),
        (lambda: search(sampler="sobel"), ValueError, "Did you mean 'sobol'"),
        (lambda: GridSearch(MLPClassifier(), RATES), ValueError, "RandomSearch"),
    ],
)
def test_what_cannot_be_searched_is_refused(made, error, message):
    with pytest.raises(error, match=message):
        made().fit(X, y)


def test_data_that_cannot_be_trained_on_is_no_fault_of_a_trial():
    bad = X.copy()
    bad[5, 3] = np.nan
    with pytest.raises(PartitionError, match="nan in row 5"):
        search().fit(bad, y)


def test_rows_of_one_class_are_not_enough_to_score():
    order = np.argsort(y, kind="stable")
    with pytest.raises(ValueError, match="at least two classes to be scored, received 9 alone, of 10"):
        search(hold_out="last", validation=0.05).fit(X[order], y[order])


def test_folds_need_partitions():
    with pytest.raises(ValueError, match="partition for each of 5 folds, received 2"):
        search(cv=5).fit(da.from_array(X, chunks=(1000, -1)), da.from_array(y, chunks=1000))


def test_rows_that_cannot_be_trained_on_leave_no_search_in_the_folder(tmp_path):
    with pytest.raises(PartitionError):
        halving().fit(np.where(X > 0.99, np.nan, X), y, checkpoint=tmp_path)
    halving(n_trials=2, max_iter=1).fit(X, y, checkpoint=tmp_path)


def test_a_folder_holds_one_search(tmp_path):
    first = halving().fit(X, y, checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="already holds a search"):
        halving().fit(X, y, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="max_iter was 9, and is 3 now"):
        halving(max_iter=3).fit(X, y, checkpoint=tmp_path, resume=True)
    assert same_each_time(halving().fit(X, y, checkpoint=tmp_path, resume=True)) == same_each_time(first)
    with pytest.raises(ValueError, match="folder to resume from"):
        halving().fit(X, y, resume=True)


def test_members_that_hop_see_all_rows_each_in_an_order_of_its_own(monkeypatch):
    monkeypatch.setattr(stations, "STATION_BYTES", 100_000)
    lazy = da.from_array(X, chunks=(400, -1)), da.from_array(y, chunks=400)
    ensemble = MLPClassifier((16,), strategy=PredictionAveraging(3, hop=True), max_iter=2, random_state=0)
    ensemble.fit(*lazy)
    assert ensemble.transport_ == "hop"
    assert [entry["n_samples"] for entry in ensemble.history_] == [3 * len(y)] * 2
    assert len({member.coefs_[0].tobytes() for member in ensemble.members_}) == 3
    model = Sequential([layers.Dense(10, "softmax")])
    with PredictionAveraging(2, hop=True).scope():
        model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*lazy, epochs=2, verbose=0)
    assert model.history.entries[-1]["n_samples"] == 2 * len(y)


def test_hyperband_tries_some_for_few_epochs_and_few_for_many():
    found = HyperbandSearch(MLPClassifier((8,)), RATES, max_iter=9, random_state=0, verbose=False).fit(X, y)
    results = found.cv_results_
    assert list(np.bincount(results["bracket"])) == [9, 5, 3]
    first = {bracket: results["n_epochs"][results["bracket"] == bracket].min() for bracket in range(3)}
    assert first == {0: 1, 1: 3, 2: 9}
