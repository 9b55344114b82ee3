"""Searches where features meet: folds with patience, weights with scores, pipelines with spaces of steps."""

import os
import signal
import threading

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes
from sklearn.metrics import get_scorer, r2_score
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from dasknn import MLPClassifier, MLPRegressor, RandomSearch, TabularClassifier, optimizers
from dasknn.callbacks import Callback
from dasknn.data.loading import NoWeightError
from dasknn.ensembles import EnsembleClassifier
from dasknn.estimators import tabular_classifier
from dasknn.search import selection
from dasknn.search.division import Division
from dasknn.search.trials import Run
from dasknn.training.fit import Columns
from tests.search.searches import RATES, SHORT, build, digits, halving

X, y = (rows[:400] for rows in digits())
D, d = load_diabetes(return_X_y=True)
REGRESSOR = MLPRegressor(hidden_layer_sizes=(8,))
LAZY = da.from_array(X, chunks=(100, -1)), da.from_array(y, chunks=100)
SEVERAL = np.eye(10, dtype=int)[y][:, :3]


def search(estimator=None, parameters=None, n_trials=2, **settings):
    estimator = MLPClassifier((16,)) if estimator is None else estimator
    return RandomSearch(estimator, parameters or RATES, n_trials=n_trials, **{**SHORT, **settings})


# --- folds ----------------------------------------------------------------------------------------------


def test_the_best_trial_has_the_first_rank_where_folds_end_at_different_epochs():
    found = search(cv=3, patience=1, max_iter=12, n_trials=6, refit=False, max_ensemble=0).fit(X, y)
    assert found.cv_results_["rank_test_score"][found.best_index_] == 1


def test_a_number_of_folds_may_be_one_of_numpy():
    assert search(cv=np.int64(3)).fit(X, y).n_splits_ == 3


@pytest.mark.parametrize("splitter", [TimeSeriesSplit(3), PredefinedSplit(np.arange(400) % 3), GroupKFold(3)])
def test_a_splitter_that_dask_collections_cannot_follow_is_refused(splitter):
    with pytest.raises(ValueError, match="number of folds, or KFold or StratifiedKFold"):
        search(cv=splitter).fit(*LAZY)


@pytest.mark.parametrize("cv", [3, LeaveOneGroupOut()])
def test_no_group_is_in_two_folds(cv):
    groups = np.arange(400) % 3
    folds = Division(cv=cv, groups=groups).fixed(Columns(X, y, None)).cv
    assert sorted(groups[test][0] for _, test in folds) == [0, 1, 2]
    assert all(not np.isin(groups[train], groups[test]).any() for train, test in folds)
    assert search(cv=cv).fit(X, y, groups=groups).n_splits_ == 3


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_a_splitter_that_cuts_groups_is_refused():
    with pytest.raises(ValueError, match="rows of each group in one fold"):
        search(cv=KFold(3)).fit(X, y, groups=np.arange(400) // 7)


def test_trials_whose_rows_are_prepared_in_different_ways_have_the_same_folds():
    drawn = Division(cv=StratifiedKFold(3, shuffle=True)).fixed(Columns(X, y, None))
    again = Division(cv=StratifiedKFold(3, shuffle=True)).fixed(Columns(X, y, None))
    for one, other in zip(drawn.cv, again.cv, strict=True):
        assert_array_equal(one[1], other[1])
    # Both settings stand for the same trial.
    both = {"class_weight": [None, dict.fromkeys(range(10), 1.0)], "random_state": [0]}
    scores = search(cv=KFold(3, shuffle=True), parameters=both).fit(X, y).cv_results_["mean_test_score"]
    assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_folds_of_a_function_are_of_all_classes():
    order = np.argsort(y, kind="stable")
    weights = {"class_weight": [None, {0: 2.0}]}
    found = search(build, weights, cv=3, scoring="accuracy").fit(X[order], y[order])
    assert found.cv_results_["mean_test_score"].min() > 0.5


class _Unsteady:
    """Reads blocks: the third of them has a nan after it has been read once."""

    def __init__(self, path):
        self.path = path

    def __call__(self, block, block_info=None):
        if block_info[0]["chunk-location"][0] != 2:
            return block
        with open(self.path, "ab") as file:
            file.write(b".")
            return block if file.tell() == 1 else np.where(block == block.max(), np.nan, block)


@pytest.mark.parametrize("cv", [None, 2])
def test_a_partition_that_changes_is_named_in_folds_too(cv, tmp_path, monkeypatch):
    monkeypatch.setattr("dasknn.data.loading._MEMORY_SHARE", 1e-9)
    changing = LAZY[0].map_blocks(_Unsteady(tmp_path / "count"), meta=X[:0])
    with pytest.raises(ValueError, match="PartitionError: Partition 2: X holds nan in row"):
        search(cv=cv).fit(changing, LAZY[1])


# --- scores ---------------------------------------------------------------------------------------------


def test_targets_far_from_zero_have_the_r2_of_scikit_learn():
    far = d + 1e9
    found = search(REGRESSOR, n_trials=1, scoring="r2", validation=(D[:99], far[:99]))
    found.fit(D[99:], far[99:])
    assert_allclose(found.best_score_, r2_score(far[:99], found.predict(D[:99])), rtol=1e-6)


def test_r2_of_rows_on_several_stations_is_that_of_all(monkeypatch):
    monkeypatch.setattr("dasknn.data.stations.STATION_BYTES", 1500)
    found = search(REGRESSOR, n_trials=1, scoring="r2", validation=(D[:99], d[:99]))
    found.fit(D[99:], d[99:])
    assert_allclose(found.best_score_, r2_score(d[:99], found.predict(D[:99])), rtol=1e-9)


@pytest.mark.parametrize(
    ("estimator", "scoring", "message"),
    [(None, "f1", "Target is multiclass"), (REGRESSOR, "accuracy", "continuous")],
)
def test_scores_of_other_problems_are_refused_as_by_scikit_learn(estimator, scoring, message):
    with pytest.raises(ValueError, match=message):
        search(estimator, scoring=scoring).fit(X, y)


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro"])
def test_rows_of_several_labels_have_scikit_learns_scores(scoring):
    rows = X[:100], SEVERAL[:100]
    found = search(n_trials=1, scoring=scoring, validation=rows).fit(X[100:], SEVERAL[100:])
    assert_allclose(found.best_score_, get_scorer(scoring)(found.best_estimator_, *rows))


def test_scores_that_know_no_weights_leave_out_rows_without_one():
    weight = np.ones(99)
    weight[::2] = 0
    rows = (D[:99], d[:99], weight)
    found = search(REGRESSOR, n_trials=1, scoring="neg_max_error", validation=rows)
    found.fit(D[99:], d[99:], np.ones(len(d) - 99))
    errors = np.abs(d[:99] - found.predict(D[:99]))
    assert_allclose(-found.best_score_, errors[1::2].max())


@pytest.mark.parametrize(
    ("estimator", "parameters", "targets"),
    [(None, None, y), (REGRESSOR, None, y), (build, {"units": [8]}, y)],
    ids=["classes", "numbers", "function"],
)
@pytest.mark.parametrize(("weighs", "message"), [(0, "train on"), (1, "score")])
def test_a_side_whose_rows_all_weigh_nothing_is_refused(estimator, parameters, targets, weighs, message):
    weight = np.where(np.arange(400) < 340, weighs == 1, weighs == 0).astype(float)
    with pytest.raises(NoWeightError, match=f"above 0 to {message}"):
        search(estimator, parameters, hold_out="last").fit(X, targets, weight)


def test_rows_of_one_class_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="at least two classes, received 3 alone"):
        search().fit(X, np.full(400, 3))


def test_scores_that_are_all_nan_are_called_so():
    with pytest.raises(ValueError, match="received NaN for all of 2 trials"):
        search(scoring=lambda estimator, X, y: np.nan).fit(X, y)


@pytest.mark.parametrize("scoring", [None, "accuracy"])
def test_averages_of_weights_are_what_is_scored_and_what_users_get(scoring):
    def averaged(units):
        model = build(units)
        model.compile(optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9), model.loss, metrics=["accuracy"])
        return model

    rows = X[:100], y[:100]
    found = search(averaged, {"units": [16]}, 1, max_iter=8, scoring=scoring, validation=rows)
    loss, accuracy = found.fit(X[100:], y[100:]).best_estimator_.evaluate(*rows, verbose=0)
    assert_allclose(found.best_score_, accuracy if scoring else -loss, rtol=1e-6)


class _Seen(Callback):
    """Counts the epochs of its training."""

    def on_train_begin(self, logs=None):
        self.own, self.n_epochs = self.training, 0

    def on_epoch_end(self, epoch, logs=None):
        self.n_epochs += 1
        logs["mine"] = self.n_epochs * (self.own is self.training)


def test_trials_share_no_callback_that_is_in_the_space():
    space = {"callbacks": [[_Seen()]], "alpha": [1e-4, 1e-2]}
    found = search(parameters=space).fit(X, y)
    assert [entry["mine"] for entry in found.history_] == [1, 2, 3, 4] * 2


# --- pipelines ------------------------------------------------------------------------------------------


def test_a_pipeline_may_be_of_the_network_alone():
    found = search(Pipeline([("mlp", MLPClassifier((8,)))]), {"mlp__alpha": [1e-4, 1e-2]}).fit(X, y)
    assert list(found.cv_results_["error"]) == ["", ""]
    assert found.predict(X[:3]).shape == (3,)


def test_steps_in_the_space_stay_as_they_are():
    steps = [StandardScaler(), MinMaxScaler()]
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((8,)))
    found = search(pipeline, {"standardscaler": steps}).fit(X, y)
    assert list(found.cv_results_["error"]) == ["", ""]
    assert not any(hasattr(step, "n_features_in_") for step in steps)


def test_networks_that_cannot_be_averaged_are_named():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((8,)))
    found = search(pipeline, {"mlpclassifier__alpha": [1e-4, 1e-2]}).fit(X, y)
    with pytest.raises(TypeError, match="received Pipelines of other steps"):
        found.ensemble(2)
    with pytest.raises(ValueError, match="received one with max_ensemble=0"):
        search(max_ensemble=0).fit(X, y).ensemble(1)


def test_an_interrupted_search_with_folds_of_a_pipeline_keeps_a_network(monkeypatch):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((8,)))
    found = search(pipeline, {"mlpclassifier__alpha": [1e-4, 1e-2]}, cv=2, max_iter=60)
    note, left = Run.note, iter(range(20))

    def interrupted(run, entry):
        note(run, entry)
        if next(left, None) == 19:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "note", interrupted)
    found.fit(X, y)
    assert found.interrupted_
    assert found.predict(X[:3]).shape == (3,)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_networks_that_have_learned_nothing_are_not_calibrated_after_ctrl_c(monkeypatch):
    note, calibrate = Run.note, tabular_classifier.fit_temperature
    first, calibrated = [True], []

    def interrupted(run, entry):
        note(run, entry)
        if first:
            first.pop()
            interrupt()

    def noted(*args):
        calibrated.append(args)
        return calibrate(*args)

    monkeypatch.setattr(Run, "note", interrupted)
    monkeypatch.setattr(tabular_classifier, "fit_temperature", noted)
    found = search(TabularClassifier(members=2, hidden_layer_sizes=(8,)), n_trials=20).fit(X, y)
    assert found.interrupted_
    assert 0 < len(calibrated) == (found.cv_results_["n_epochs"] > 0).sum() < 20
    assert set(found.cv_results_["status"]) == {"paused"}


def test_ctrl_c_while_an_ensemble_is_chosen_keeps_what_was_chosen(monkeypatch):
    predict = selection._predict

    def interrupted(*args):
        interrupt()
        return predict(*args)

    monkeypatch.setattr(selection, "_predict", interrupted)
    found = search(n_trials=4, max_ensemble=5).fit(X, y)
    assert found.interrupted_
    assert found.predict(X[:3]).shape == found.ensemble(1).predict(X[:3]).shape == (3,)
    with pytest.raises(ValueError, match="It was interrupted"):
        found.ensemble(2)


@pytest.mark.parametrize(
    ("settings", "kind"), [({"cv": 2}, EnsembleClassifier), ({"refit": "all"}, MLPClassifier)]
)
def test_ctrl_c_while_the_best_is_trained_again_keeps_what_there_was_before(monkeypatch, settings, kind):
    note = Run.note

    def interrupted(run, entry):
        note(run, entry)
        if run.split < 0 and len(run.entries) == 1:
            interrupt()

    monkeypatch.setattr(Run, "note", interrupted)
    found = search(n_trials=2, **settings).fit(X, y)
    assert found.interrupted_
    assert isinstance(found.best_estimator_, kind)
    assert found.predict(X[:3]).shape == (3,)


def test_a_pipeline_may_end_in_a_function():
    found = search(Pipeline([("scale", StandardScaler()), ("net", build)]), {"net__units": [8, 16]}).fit(X, y)
    assert list(found.cv_results_["error"]) == ["", ""]
    assert found.predict(X[:3]).shape == (3, 10)


@pytest.mark.parametrize("name", ["mlpclassifier", "steps", "mlpclassifier__alpa"])
def test_what_is_no_setting_of_a_step_is_refused_before_anything_is_trained(name):
    with pytest.raises(ValueError, match="Expected settings of the pipeline"):
        search(make_pipeline(StandardScaler(), MLPClassifier()), {name: [1e-3]}).fit(X, y)


def test_a_strategy_in_the_space_is_refused_as_one_of_the_estimator_is():
    found = search(parameters={"strategy": ["auto", "weights"]}).fit(X, y)
    assert sorted("Expected strategy='auto'" in error for error in found.cv_results_["error"]) == [
        False,
        True,
    ]


def test_a_search_of_a_function_has_the_same_methods_before_and_after_fit():
    found = search(build, {"units": [8]}, 1)
    names = ["predict", "predict_proba", "predict_log_proba", "score"]
    before = [hasattr(found, name) for name in names]
    assert before == [hasattr(found.fit(X, y), name) for name in names]


# --- ends -----------------------------------------------------------------------------------------------


class _Ends:
    """Proposes some trials, and no more; the first have begun by then."""

    n_asked = 0

    def ask(self):
        self.n_asked += 1
        if self.n_asked > 18:
            raise ValueError("no more settings")
        return {"alpha": 1e-3}

    def tell(self, settings, score, n_epochs):
        """Learn nothing."""


def _threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("dasknn-trial")]


def test_no_thread_waits_for_a_search_that_has_failed():
    with pytest.raises(ValueError, match="no more settings"):
        halving(sampler=_Ends(), n_trials=30).fit(X, y)
    for thread in _threads():
        thread.join(10)
    assert not _threads()
