"""Life in other people's code: pipelines, searches, threads, tasks; weights, ensembles, columns."""

import pickle
import threading
import warnings

import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.neural_network as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LinearRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

import dasknn
from dasknn import MLPClassifier, MLPRegressor, PredictionAveraging
from dasknn.callbacks import Callback

SMALL = {"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}


def weights_of(model):
    return [*model.coefs_, *model.intercepts_]


def assert_same_weights(ours, theirs, **tolerance):
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        assert_allclose(mine, other, **tolerance)


# --- searches and pipelines -------------------------------------------------------------------------


@pytest.mark.parametrize("search", [
    GridSearchCV(MLPClassifier(**SMALL), {"alpha": [1e-4, 1.0], "solver": ["adam", "lbfgs"]}, cv=3),
    HalvingRandomSearchCV(
        MLPClassifier(**SMALL), {"alpha": loguniform(1e-5, 1), "learning_rate_init": loguniform(1e-3, 1e-1)},
        random_state=0, n_candidates=4, factor=2,
    ),
    HalvingRandomSearchCV(
        MLPClassifier((8,), random_state=0), {"alpha": loguniform(1e-5, 1)},
        random_state=0, n_candidates=3, resource="max_iter", max_resources=9,
    ),
], ids=["grid", "halving rows", "halving epochs"])  # fmt: skip
def test_a_search_by_tasks_finds_what_a_search_here_finds(client, digits, search):
    # Each fit stays inside its task, on plain arrays: no fit waits for another.
    X, y = digits[0][:600], digits[1][:600]
    here = clone(search).fit(X, y)
    with joblib.parallel_config(backend="dask"):
        by_tasks = clone(search).fit(X, y)
    assert_array_equal(by_tasks.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])
    assert_same_weights(by_tasks.best_estimator_, here.best_estimator_, rtol=1e-9, atol=1e-12)


def test_searches_of_dask_ml(client, digits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dask_ml.model_selection import GridSearchCV as GridSearchOnDask
        from dask_ml.wrappers import Incremental, ParallelPostFit

    X, y = digits
    grid = GridSearchOnDask(MLPClassifier(**SMALL), {"alpha": [1e-4, 1.0]}, cv=3).fit(X, y)
    assert grid.best_score_ > 0.1
    array, labels = da.from_array(X, (600, -1)), da.from_array(y, 600)
    incremental = Incremental(MLPClassifier(**SMALL, shuffle=False), shuffle_blocks=False)
    incremental.fit(array, labels, classes=np.arange(10))
    alone = MLPClassifier(**SMALL, shuffle=False)
    for begin in range(0, len(X), 600):
        alone.partial_fit(X[begin : begin + 600], y[begin : begin + 600], classes=np.arange(10))
    assert_same_weights(incremental.estimator_, alone, rtol=1e-9)
    post = ParallelPostFit(MLPClassifier(**SMALL)).fit(X, y)
    assert_array_equal(post.predict(array).compute(), post.estimator.predict(X))


def test_models_are_trained_piece_by_piece_in_tasks(client, digits):
    # As adaptive searches do: a model goes from task to task, and each is a copy of its own.
    def train(model, X, y):
        return clone_with_state(model).partial_fit(X, y, classes=np.arange(10))

    def clone_with_state(model):
        return pickle.loads(pickle.dumps(model))

    X, y = digits
    model = client.submit(MLPClassifier, (8,), random_state=0)
    alone = MLPClassifier((8,), random_state=0)
    for begin in (0, 600, 1200):
        model = client.submit(train, model, X[begin : begin + 600], y[begin : begin + 600])
        alone.partial_fit(X[begin : begin + 600], y[begin : begin + 600], classes=np.arange(10))
    assert_same_weights(model.result(timeout=60), alone, rtol=1e-9)
    del model


def test_weights_are_routed_through_pipelines_and_searches(digits):
    X, y = pd.DataFrame(digits[0]).add_prefix("p"), digits[1]
    weight = np.random.default_rng(0).random(len(y))
    scores = []
    with sklearn.config_context(enable_metadata_routing=True):
        for kind in (MLPClassifier, reference.MLPClassifier):
            model = kind(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=3).fit(X, y, sample_weight=weight)
            scaler = StandardScaler().set_fit_request(sample_weight=False)
            pipeline = make_pipeline(scaler, model).set_output(transform="pandas")
            pipeline.fit(X, y, sample_weight=weight)
            # The pipeline hands its columns on with their names.
            assert list(pipeline[-1].feature_names_in_) == list(X.columns)
            scores.append(
                [*search.cv_results_["mean_test_score"], pipeline.score(X, y, sample_weight=weight)]
            )
    assert_allclose(*scores, rtol=1e-12)


# --- threads and processes --------------------------------------------------------------------------


def test_two_fits_at_once_give_the_bits_of_one_after_the_other(client, dask_digits):
    settings = {**SMALL, "batch_size": 128, "replicas": 2}

    def fit(seed):
        found[seed] = MLPClassifier(**{**settings, "random_state": seed}).fit(*dask_digits)

    found: dict = {}
    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    at_once = dict(found)
    for seed in range(2):
        fit(seed)
        assert_same_weights(at_once[seed], found[seed], rtol=0)


@pytest.mark.parametrize("how", ["pickle", "joblib", "cloudpickle"])
def test_a_pickled_model_goes_on_as_the_model_does(client, dask_digits, digits, tmp_path, how):
    model = MLPClassifier(**SMALL, early_stopping=False)
    model.client = client
    model.partial_fit(*dask_digits, classes=np.arange(10))
    if how == "joblib":
        joblib.dump(model, tmp_path / "model")
        again = joblib.load(tmp_path / "model")
    else:
        module = pickle if how == "pickle" else pytest.importorskip("cloudpickle")
        again = pickle.loads(module.dumps(model))
    assert again.client is None
    for one in (model, again):
        one.partial_fit(*digits)
    assert_same_weights(again, model, rtol=0)
    assert again.history_[0] == model.history_[0]
    # A search trains where its estimator was told to.
    assert clone(model).client is client


# --- going on where the data is ---------------------------------------------------------------------


def test_partial_fit_on_dask_collections_goes_on_with_optimizer_and_epochs(client, dask_digits, digits):
    # Without shuffling and with one replica, the steps are those of scikit-learn.
    X, y = dask_digits
    settings = {"hidden_layer_sizes": (8,), "shuffle": False, "batch_size": 599, "random_state": 0}
    ours, theirs = MLPClassifier(replicas=1, **settings), reference.MLPClassifier(**settings)
    for _ in range(4):
        ours.partial_fit(X, y, classes=np.arange(10))
        theirs.partial_fit(*digits, classes=np.arange(10))
    assert_same_weights(ours, theirs, rtol=1e-8, atol=1e-12)
    assert_allclose(ours.loss_curve_, theirs.loss_curve_)
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    # From Dask to plain data and back.
    ours.partial_fit(*digits).partial_fit(X, y)
    theirs.partial_fit(*digits).partial_fit(*digits)
    assert_same_weights(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("strategy", ["gradients", "weights", "predictions"])
def test_a_warm_start_on_dask_data_visits_rows_in_new_orders(client, dask_digits, strategy):
    settings = {"hidden_layer_sizes": (8,), "batch_size": 64, "random_state": 0, "replicas": 2}
    model = MLPClassifier(warm_start=True, max_iter=2, strategy=strategy, **settings)
    losses = []
    for _ in range(3):
        model.fit(*dask_digits)
        losses.append(model.loss_)
    assert [entry["epoch"] for entry in model.history_] == [1, 2, 3, 4, 5, 6]
    assert losses[2] < losses[1] < losses[0]
    assert len(model.loss_curve_) == 6
    assert len(model.members_) == (2 if strategy == "predictions" else 1)


def test_an_ensemble_goes_on_with_as_many_members_as_it_has(client, dask_digits):
    settings = {"hidden_layer_sizes": (4,), "batch_size": 64, "random_state": 0, "strategy": "predictions"}
    model = MLPClassifier(replicas=3, **settings).partial_fit(*dask_digits, classes=np.arange(10))
    before = [member.coefs_[0].copy() for member in model.members_]
    model.set_params(replicas=None).partial_fit(*dask_digits)
    assert len(model.members_) == 3
    for member, weights in zip(model.members_, before, strict=True):
        assert 0 < np.abs(member.coefs_[0] - weights).max() < 0.1


def test_going_on_with_other_layers_members_or_labels_is_refused(dask_digits):
    X, y = dask_digits
    model = MLPClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"with the layers that were fitted, \[\(64, 8\), \(8, 10\)\]"):
        model.set_params(hidden_layer_sizes=(9,)).partial_fit(X, y)
    model.set_params(hidden_layer_sizes=(8,))
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"continue with 1 members.*strategy for 3"):
        model.set_params(strategy=PredictionAveraging(3)).partial_fit(X, y)
    # What was refused has changed nothing.
    assert model.score(X, y) > 0


# --- early stopping where the data is ---------------------------------------------------------------


class KeepScores(Callback):
    """Keeps parameters and validation scores of each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        training = self.training
        self.seen.append((logs["validation_score"], training.n_samples, training.state.params.copy()))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_early_stopping_on_dask_data_restores_the_best_epoch(
    client, dask_digits, kind, streamed, monkeypatch
):
    if streamed:
        monkeypatch.setattr("dasknn.cluster.distributed.ClusterExecutor.memory_limit", lambda self: 1000)
    keep = KeepScores()
    settings = {"batch_size": 256, "learning_rate_init": 0.05, "random_state": 0, "replicas": 2}
    model = kind(
        hidden_layer_sizes=(20,), early_stopping=True, validation_fraction=0.2, n_iter_no_change=2,
        max_iter=60, callbacks=[keep], **settings,
    ).fit(*dask_digits)  # fmt: skip
    scores, n_samples, params = zip(*keep.seen, strict=True)
    assert model.n_iter_ < 60
    assert list(scores) == model.validation_scores_
    assert model.best_validation_score_ == max(scores)
    assert model.best_loss_ is None
    assert_array_equal(np.asarray(model._members)[0], params[int(np.argmax(scores))])
    # As in scikit-learn, a fifth, rounded up, is held out.
    assert set(n_samples) == {1797 - 360}


def test_rows_held_out_are_those_of_the_partitions_and_no_others(client):
    # Each row has a feature of its own, whose weights change only if the row is learned from.
    n_rows = (7, 0, 50, 1, 43)
    X = da.from_array(np.eye(101), chunks=(n_rows, -1))
    y = da.from_array(np.random.default_rng(0).integers(0, 2, 101), chunks=(n_rows,))
    settings = {"batch_size": "full", "learning_rate_init": 0.1, "max_iter": 30, "alpha": 0}
    model = MLPClassifier((), random_state=3, early_stopping=True, n_iter_no_change=np.inf, **settings)
    start = MLPClassifier((), random_state=3, max_iter=1, learning_rate_init=1e-12).fit(X, y).coefs_[0]
    model.set_params(tol=0).fit(X, y)
    untouched = np.flatnonzero(np.abs(model.coefs_[0] - start)[:, 0] < 1e-6)
    if len(untouched) == 101:
        pytest.fail("the best epoch was the first: choose another seed")
    assert len(untouched) == 11
    per_block, _ = np.histogram(untouched, np.cumsum([0, *n_rows]))
    assert_allclose(per_block, np.array(n_rows) * 11 / 101, atol=1)
    # They are the rows that were scored.
    assert model.best_validation_score_ == model.score(X[untouched], y[untouched])
    assert model.best_validation_score_ < model.score(X, y)


def test_validation_data_takes_the_place_of_rows_held_out(dask_digits, digits):
    X, y = digits
    for data in (digits, dask_digits):
        model = MLPClassifier(**SMALL, early_stopping=True).fit(*data, validation_data=(X[:300], y[:300]))
        assert model.t_ == 4 * len(X)
        assert model.best_validation_score_ == max(model.validation_scores_) == model.score(X[:300], y[:300])


@pytest.mark.parametrize("held_out", ["words", "columns", "numbers"])
def test_validation_data_that_cannot_be_scored_is_refused(dask_digits, digits, held_out):
    X, y = digits
    kind = MLPRegressor if held_out == "numbers" else MLPClassifier
    target, message = {
        "words": (y.astype(str), r"expected labels among \[0 1 .*received \['0'"),
        "columns": (np.column_stack([y > 1, y > 2]).astype(int), "expected y with 1 columns of labels"),
        "numbers": (np.column_stack([y, y]), "expected y with 1 columns, as for training, received 2"),
    }[held_out]
    for data in (digits, dask_digits):
        with pytest.raises(ValueError, match=message):
            kind(**SMALL).fit(*data, validation_data=(X, target))


def test_weights_of_classes_count_in_rows_held_out_but_not_in_validation_data(digits, dask_digits):
    X, y = digits
    settings = {**SMALL, "class_weight": {label: 1 + label for label in range(10)}, "early_stopping": True}
    for data in (digits, dask_digits):
        model = MLPClassifier(**settings).fit(*data, validation_data=(X[:300], y[:300]))
        assert model.best_validation_score_ == model.score(X[:300], y[:300])
        # 540 rows are held out. Only if all weigh the same, the share of right ones is a multiple of 1 / 540.
        for class_weight, whole in ((None, True), (settings["class_weight"], False)):
            model = MLPClassifier(**{**settings, "class_weight": class_weight}, validation_fraction=0.3)
            right = np.array(model.fit(*data).validation_scores_) * 540
            assert (np.abs(right - right.round()).max() < 1e-9) == whole


def test_a_score_that_is_not_a_number_is_never_the_best(digits):
    X, y = digits
    weight = np.zeros(len(y))
    weight[:2] = 1
    for kind in (MLPClassifier, MLPRegressor):
        model = kind(**SMALL, early_stopping=True).fit(X, y, weight)
        assert np.isnan(model.validation_scores_).all()
        assert model.best_validation_score_ == -np.inf


def test_too_few_rows_to_hold_out_are_refused(dask_digits):
    X, y = dask_digits
    with pytest.raises(ValueError, match=r"The validation set is too small\. Increase 'validation_fraction'"):
        MLPClassifier(early_stopping=True, validation_fraction=0.0001).fit(X, y)
    with pytest.raises(ValueError, match=r"The validation set is too small\. Increase 'validation_fraction'"):
        MLPClassifier(early_stopping=True, validation_fraction=0.0).fit(np.ones((9, 2)), np.arange(9))


# --- weights of classes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rare():
    """X scaled, y of text with one class in ten of another."""
    X, y = load_breast_cancer(return_X_y=True)
    keep = (y == 1) | (np.random.default_rng(0).random(len(y)) < 0.15)
    return StandardScaler().fit_transform(X[keep])[:, :3], np.array(["bad", "good"])[y[keep]]


@pytest.mark.parametrize("class_weight", ["balanced", {"bad": 7.5}, {"bad": 3, "good": 0.5}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_factors_of_the_weights_of_rows(rare, class_weight, weighted):
    X, y = rare
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    settings = {**SMALL, "solver": "lbfgs", "alpha": 1.0, "max_iter": 100}
    ours = MLPClassifier(class_weight=class_weight, **settings)
    in_process = clone(ours).fit(X, y, weight)
    chunks = (100, 150, len(y) - 250)
    partitioned = [None if column is None else da.from_array(column, (chunks, -1)[: column.ndim])
                   for column in (X, y, weight)]  # fmt: skip
    on_dask = clone(ours).fit(*partitioned)
    classes = np.unique(y)
    if class_weight == "balanced" and weighted:
        counts = np.array([weight[y == label].sum() for label in classes])
        of_class = counts.sum() / (2 * counts)
    else:
        of_class = compute_class_weight(class_weight, classes=classes, y=y)
    rows = of_class[np.searchsorted(classes, y)] * (1 if weight is None else weight)
    expected = reference.MLPClassifier(**settings).fit(X, y, rows)
    assert_same_weights(in_process, expected, rtol=1e-6, atol=1e-9)
    assert on_dask.loss_ == pytest.approx(expected.loss_, rel=1e-6)


def test_balanced_classes_find_the_rare_one(rare):
    X, y = rare
    settings = {"hidden_layer_sizes": (), "max_iter": 200, "random_state": 0, "solver": "lbfgs"}
    recalls = [
        recall_score(y, MLPClassifier(class_weight=choice, **settings).fit(X, y).predict(X), pos_label="bad")
        for choice in (None, "balanced")
    ]
    assert recalls[1] > recalls[0]


def test_class_weights_that_cannot_be_are_refused(rare):
    X, y = rare
    with pytest.raises(ValueError, match="partial_fit sees a part of it"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="received multi-label data"):
        MLPClassifier(class_weight={0: 2}).fit(X, np.column_stack([y == "bad", y == "good"]).astype(int))
    with pytest.raises(ValueError, match=r"class_weight expects numbers >= 0, received \{'bad': -1\}"):
        MLPClassifier(class_weight={"bad": -1}).fit(X, y)
    with pytest.raises(ValueError, match="are not in class_weight"):
        MLPClassifier(class_weight={"worse": 2}).fit(X, y)
    model = MLPClassifier(**SMALL, class_weight={"bad": 2}).partial_fit(X, y, classes=np.unique(y))
    assert model.n_iter_ == 1


# --- CSR blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("settings", [
    {}, {"solver": "lbfgs"}, {"early_stopping": True}, {"strategy": "weights", "replicas": 2},
], ids=str)  # fmt: skip
def test_csr_blocks_train_and_predict_as_dense_ones(client, dask_digits, make, settings):
    X, y = dask_digits
    thin = X.map_blocks(make, dtype=X.dtype, meta=make((0, 0)))
    model = MLPClassifier(**SMALL, **settings).fit(thin, y)
    dense = MLPClassifier(**SMALL, **settings).fit(X, y)
    assert_same_weights(model, dense, rtol=1e-9, atol=1e-11)
    assert_allclose(model.predict_proba(thin).compute(), dense.predict_proba(X).compute(), atol=1e-12)
    assert_array_equal(model.predict(thin).compute(), dense.predict(X).compute())
    assert model.score(thin, y) == dense.score(X, y)


def test_wide_csr_blocks_are_never_dense_at_once(client):
    # Dense, a partition would be 800 MB; workers have no more than that to give in this test.
    def make(block):
        rng = np.random.default_rng(int(block[0, 0]))
        columns, values = rng.integers(0, 100_000, 10_000), rng.random(10_000)
        return sparse.csr_array((values, (np.repeat(np.arange(1000), 10), columns)), shape=(1000, 100_000))

    numbers = da.from_array(np.arange(3000.0)[:, None], (1000, 1))
    X = numbers.map_blocks(make, dtype=float, chunks=(numbers.chunks[0], (100_000,)),
                           meta=sparse.csr_array((0, 0)))  # fmt: skip
    y = da.from_array(np.arange(3000) % 2, 1000)

    def peak():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    before = client.run(peak)
    model = MLPClassifier((2,), max_iter=1, batch_size=50, random_state=0).fit(X, y)
    model.predict(X).compute()
    after = client.run(peak)
    assert all(after[worker] - before[worker] < 600 for worker in before), (before, after)


# --- ensembles --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble():
    X, y = load_diabetes(return_X_y=True)
    frame = pd.DataFrame(X).add_prefix("c")
    model = MLPRegressor(**SMALL, strategy=PredictionAveraging(3), batch_size=20)
    return frame, y, model.fit(frame, y)


def test_members_are_estimators_whose_mean_is_the_ensemble(ensemble):
    frame, _, model = ensemble
    assert len(model.members_) == 3
    predictions = [member.predict(frame) for member in model.members_]
    assert np.ptp(predictions, axis=0).min() > 0
    mean, std = model.predict(frame, return_std=True)
    assert_allclose(mean, np.mean(predictions, axis=0))
    assert_allclose(std, np.std(predictions, axis=0))
    assert_array_equal(mean, model.predict(frame))
    first = model.members_[0]
    assert first.coefs_[0].shape == (10, 8)
    assert list(first.feature_names_in_) == list(frame.columns)
    assert first.strategy == "auto"
    with pytest.raises(AttributeError, match=r"ensemble of 3 members has no coefs_ of its own"):
        _ = model.coefs_


def test_a_member_can_be_saved_converted_and_trained_further(ensemble, tmp_path):
    frame, y, model = ensemble
    first = model.members_[0]
    before = first.predict(frame)
    first.save(tmp_path / "member")
    for one in (dasknn.load(tmp_path / "member"), first.to_sklearn(), first):
        assert_array_equal(one.predict(frame), before)
        one.partial_fit(frame, y)
        assert len(one.loss_curve_) == 1
        assert np.abs(one.predict(frame) - before).max() > 0
    # The ensemble's own member is another one.
    assert_array_equal(model.members_[0].predict(frame), before)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_deviations_are_lazy_on_dask_data(ensemble, n_outputs):
    frame, y, model = ensemble
    if n_outputs == 2:
        model = clone(model).fit(frame, np.column_stack([y, -2 * y]))
    expected = model.predict(frame, return_std=True)
    found = model.predict(dd.from_pandas(frame, npartitions=3), return_std=True)
    assert all(type(part) is type(model.predict(dd.from_pandas(frame, npartitions=3))) for part in found)
    for mine, other in zip(found, expected, strict=True):
        assert_allclose(mine.compute().to_numpy(), other)
        assert_array_equal(mine.compute().index, frame.index)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        arrays = model.predict(da.from_array(frame.to_numpy(), (100, -1)), return_std=True)
        for mine, other in zip(arrays, expected, strict=True):
            assert mine.shape == other.shape
            assert_allclose(mine.compute(), other)


def test_one_network_has_no_deviation_and_is_its_only_member(ensemble):
    frame, y, _ = ensemble
    model = MLPRegressor(**SMALL).fit(frame, y)
    with pytest.raises(ValueError, match=r"needs an ensemble.*PredictionAveraging\(members=5\)"):
        model.predict(frame, return_std=True)
    (only,) = model.members_
    assert_array_equal(only.predict(frame), model.predict(frame))


@pytest.mark.parametrize("strategy", ["auto", PredictionAveraging(3)])
def test_the_entropy_of_predictions(digits, strategy):
    X, y = digits
    model = MLPClassifier(**SMALL, strategy=strategy).fit(X, y)
    chances = model.predict_proba(X)
    assert_allclose(model.predictive_entropy(X), -(chances * np.log(chances)).sum(axis=1), atol=1e-9)
    on_dask = model.predictive_entropy(da.from_array(X, (600, -1)))
    assert isinstance(on_dask, da.Array)
    assert_allclose(on_dask.compute(), model.predictive_entropy(X))
    two = MLPClassifier(**SMALL).fit(X, y > 4)
    assert_allclose(two.predictive_entropy(X), -(p := two.predict_proba(X), (p * np.log(p)).sum(axis=1))[1])
    labels = np.column_stack([y > 4, y % 2 == 0]).astype(int)
    many = MLPClassifier(**SMALL).fit(X, labels)
    p = many.predict_proba(X)
    assert_allclose(
        many.predictive_entropy(X), -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1), atol=1e-9
    )


# --- scikit-learn's own estimators ------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["numbers", "text", "two", "many", "target"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_to_sklearn_and_back_predicts_the_same(digits, labels, dtype):
    X, y = digits[0].astype(dtype), digits[1]
    y = {"numbers": y, "text": y.astype(str), "two": y > 4, "target": y * 1.5,
         "many": np.column_stack([y > 4, y % 2 == 0, y == 1]).astype(int)}[labels]  # fmt: skip
    kind = MLPRegressor if labels == "target" else MLPClassifier
    model = kind(**SMALL, batch_size="full", replicas=1).fit(X, y)
    theirs = model.to_sklearn()
    again = dasknn.from_sklearn(theirs)
    assert type(theirs).__module__.startswith("sklearn.")
    assert type(again) is kind
    for other in (theirs, again):
        assert_array_equal(other.predict(X), model.predict(X))
        assert other.score(X, y) == model.score(X, y)
        if kind is MLPClassifier:
            assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert again.loss_curve_ == theirs.loss_curve_ == model.loss_curve_
    # Neither shares its arrays with the model, and both may be trained further.
    before = model.predict(X)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got `batch_size`")
        theirs.partial_fit(X, y)
        again.partial_fit(X, y)
    assert_array_equal(model.predict(X), before)
    assert again.t_ == theirs.t_ == 5 * len(X)
    assert len(again.loss_curve_) == len(theirs.loss_curve_) == 5


def test_scikit_learn_goes_on_with_a_stopping_rule_that_began_here(digits):
    X, y = digits
    settings = {"early_stopping": True, "warm_start": True, "learning_rate_init": 1e-9}
    model = MLPClassifier(**SMALL, **settings).fit(X, y)
    theirs = model.to_sklearn().set_params(n_iter_no_change=1, tol=1.0, max_iter=9)
    theirs.best_validation_score_ = 1.1
    theirs.fit(X, y)
    # Nothing was better, so it stopped after two epochs with the weights that it came with.
    assert theirs.n_iter_ == 2
    assert_same_weights(theirs, model, rtol=0)


def test_names_of_columns_go_with_a_conversion(ensemble):
    frame, y, model = ensemble
    one = MLPRegressor(**SMALL).fit(frame, y)
    assert list(one.to_sklearn().feature_names_in_) == list(frame.columns)
    assert list(dasknn.from_sklearn(one.to_sklearn()).feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match=r"ensemble of 3\. Convert each of members_"):
        model.to_sklearn()


def test_what_is_no_mlp_of_scikit_learn_is_refused():
    with pytest.raises(TypeError, match=r"received sklearn\.linear_model.*LinearRegression"):
        dasknn.from_sklearn(LinearRegression())
    with pytest.raises(sklearn.exceptions.NotFittedError):
        dasknn.from_sklearn(reference.MLPClassifier())


# --- columns of text --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people():
    """A table with columns of text and categories, and a target that depends on them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "age": rng.integers(18, 80, 400),
        "city": rng.choice(["x", "y", "z"], 400),
        "kind": pd.Categorical(rng.choice(["a", "b"], 400)),
    })  # fmt: skip
    return frame, np.where((frame["age"] > 50) ^ (frame["city"] == "x"), "yes", "no")


def test_columns_of_text_are_named_wherever_they_come(people):
    frame, y = people
    fitted = MLPClassifier(**SMALL).fit(frame[["age"]].assign(city=0, kind=1), y)
    for action in (
        lambda: MLPClassifier().fit(frame, y),
        lambda: MLPClassifier().fit(dd.from_pandas(frame, npartitions=2), da.from_array(y, 200)),
        lambda: MLPClassifier(strategy="weights").fit(frame, y),
        lambda: fitted.predict(frame),
        lambda: fitted.predict(dd.from_pandas(frame, npartitions=2)),
    ):
        with pytest.raises(
            ValueError, match=r"received 'city' \(\w+\), 'kind' \(category\)\. Encode .*Column"
        ):
            action()


def test_a_pipeline_encodes_columns_of_text_here_and_on_workers(client, people):
    frame, y = people
    prepare = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(sparse_output=False), make_column_selector(dtype_exclude="number")),
    )
    settings = {"learning_rate_init": 0.05, "max_iter": 40, "random_state": 0, "batch_size": 100}
    assert make_pipeline(prepare, MLPClassifier((16,), **settings)).fit(frame, y).score(frame, y) > 0.9
    prepare.set_output(transform="pandas").fit(frame)
    ddf = dd.from_pandas(frame, npartitions=3)
    X = ddf.map_partitions(prepare.transform, meta=prepare.transform(frame[:1])[:0])
    labels = dd.from_pandas(pd.Series(y, index=frame.index), npartitions=3)
    model = MLPClassifier((16,), **settings).fit(X, labels)
    assert model.score(X, labels) > 0.9
    assert list(model.feature_names_in_) == list(prepare.get_feature_names_out())
