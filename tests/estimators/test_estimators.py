"""The scikit-learn face: its numbers in this process, the same words and rules on Dask data."""

import pickle
import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import sklearn.neural_network as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import dasknn
from dasknn import MLPClassifier, MLPRegressor, WeightAveraging
from dasknn.callbacks import Callback, LambdaCallback
from dasknn.exceptions import DataSkewWarning, NonFiniteLossError, PartitionError

SETTINGS = [
    {},
    {"solver": "sgd"},
    {"solver": "sgd", "nesterovs_momentum": False, "learning_rate": "invscaling"},
    {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.5},
    {"activation": "tanh"},
    {"activation": "logistic", "hidden_layer_sizes": (7, 6)},
    {"activation": "identity", "shuffle": False, "batch_size": 64},
    {"hidden_layer_sizes": (), "alpha": 0.1},
]


def assert_same_training(ours, theirs, rtol=1e-10):
    for mine, other in zip(
        [*ours.coefs_, *ours.intercepts_], [*theirs.coefs_, *theirs.intercepts_], strict=True
    ):
        assert_allclose(mine, other, atol=rtol, rtol=rtol)
    assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert_allclose([ours.loss_, ours.best_loss_], [theirs.loss_, theirs.best_loss_], rtol=rtol)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_classifier_in_this_process_has_scikit_learns_numbers(digits, settings, weighted):
    X, y = digits
    weight = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weighted else None
    settings = {"hidden_layer_sizes": (20,), "max_iter": 5, "random_state": 3, **settings}
    ours = MLPClassifier(**settings).fit(X, y, weight)
    theirs = reference.MLPClassifier(**settings).fit(X, y, weight)
    assert_same_training(ours, theirs)
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
    assert ours.score(X, y) == theirs.score(X, y)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_regressor_in_this_process_has_scikit_learns_numbers(loss, n_outputs, solver):
    X, y = load_diabetes(return_X_y=True)
    y = y / 100
    if n_outputs > 1:
        y = np.column_stack([y, 1 + y**2, np.sqrt(y)])
    settings = {"hidden_layer_sizes": (20,), "max_iter": 5, "random_state": 3, "solver": solver}
    ours = MLPRegressor(loss, **settings).fit(X, y)
    theirs = reference.MLPRegressor(loss, **settings).fit(X, y)
    assert_same_training(ours, theirs)
    assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)


def test_two_classes_and_many_labels_have_scikit_learns_numbers():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor"])
    for features, target in (
        (X[:100], names[y[:100]]),
        make_multilabel_classification(200, 8, n_classes=4, random_state=0),
    ):
        settings = {"hidden_layer_sizes": (9,), "max_iter": 5, "random_state": 0}
        ours = MLPClassifier(**settings).fit(features, target)
        theirs = reference.MLPClassifier(**settings).fit(features, target)
        assert_same_training(ours, theirs)
        assert_array_equal(ours.predict(features), theirs.predict(features))
        assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-10)
        assert_array_equal(ours.classes_, theirs.classes_)


def test_sparse_data_trains_as_dense_data_does(digits):
    X, y = digits
    settings = {"hidden_layer_sizes": (9,), "max_iter": 2, "random_state": 0}
    dense = MLPClassifier(**settings).fit(X, y)
    thin = MLPClassifier(**settings).fit(sparse.csr_matrix(X), y)
    assert_same_training(dense, thin)
    assert_allclose(thin.predict_proba(sparse.csr_matrix(X)), dense.predict_proba(X), atol=1e-12)


def test_training_stops_when_the_loss_does_not_fall_and_warns_when_it_still_does(digits):
    X, y = digits
    settings = {"hidden_layer_sizes": (20,), "random_state": 0, "tol": 0.1, "n_iter_no_change": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = MLPClassifier(**settings).fit(X, y)
        assert ours.n_iter_ == reference.MLPClassifier(**settings).fit(X, y).n_iter_ < 200
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached and the opt"):
        MLPClassifier((5,), max_iter=2).fit(X, y)


@pytest.mark.parametrize(("given_dtype", "dtype", "expected"), [
    ("float64", None, "float64"), ("float32", None, "float32"),
    ("uint8", None, "float64"), ("float64", "float32", "float32"),
])  # fmt: skip
def test_the_dtype_follows_x_unless_it_is_given(digits, given_dtype, dtype, expected):
    X, y = digits[0].astype(given_dtype), digits[1]
    in_process = MLPClassifier((5,), max_iter=1, dtype=dtype).fit(X, y)
    on_dask = MLPClassifier((5,), max_iter=1, dtype=dtype).fit(da.from_array(X), da.from_array(y))
    for model in (in_process, on_dask):
        assert {array.dtype.name for array in [*model.coefs_, *model.intercepts_]} == {expected}


# --- on Dask collections, without a cluster ---------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "gradients", "weights", "predictions"])
def test_dask_data_trains_on_the_local_scheduler(dask_digits, strategy):
    X, y = dask_digits
    settings = {"max_iter": 25, "random_state": 0, "batch_size": 64, "replicas": 2}
    model = MLPClassifier((30,), strategy=strategy, **settings).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.replicas_ == 2
    assert len(model.history_) == model.n_iter_ == 25
    assert {"epoch", "loss", "learning_rate", "n_samples", "seconds"} <= set(model.history_[0])


def test_one_replica_with_full_batches_agrees_with_training_in_process(digits, dask_digits):
    # Where no order of rows is drawn, both roads compute the same steps.
    X, y = dask_digits
    settings = {"max_iter": 6, "random_state": 0, "batch_size": "full", "hidden_layer_sizes": (12,)}
    plain = MLPClassifier(**settings).fit(*digits)
    for replicas in (1, 3):
        model = MLPClassifier(replicas=replicas, **settings).fit(X, y)
        for ours, other in zip(model.coefs_, plain.coefs_, strict=True):
            assert_allclose(ours, other, rtol=1e-9, atol=1e-10)
        assert_allclose(model.loss_curve_, plain.loss_curve_, rtol=1e-10)


def test_plain_data_with_a_strategy_is_cut_into_a_partition_a_replica(digits):
    X, y = digits
    model = MLPClassifier((30,), strategy=WeightAveraging(), replicas=2, max_iter=30)
    model.set_params(batch_size=32, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.9
    assert model.strategy_ == WeightAveraging()


def test_predictions_of_an_ensemble_are_the_mean_of_its_members(dask_digits, digits):
    X, y = dask_digits
    strategy = dasknn.PredictionAveraging(members=3)
    model = MLPClassifier((10,), strategy=strategy, max_iter=3, random_state=0).fit(X, y)
    assert model.replicas_ == 3
    network = model._network_
    members = [network.predict(params, digits[0]) for params in model._members]
    assert_allclose(model.predict_proba(digits[0]), np.mean(members, axis=0), rtol=1e-12)
    with pytest.raises(AttributeError, match="An ensemble of 3 members has no coefs_ of its own"):
        _ = model.coefs_


def test_predictions_are_lazy_and_of_the_kind_of_their_input(digits):
    X, y = digits
    model = MLPClassifier((20,), max_iter=20, random_state=0)
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(64)], index=np.arange(5, len(X) + 5))
    model.fit(frame, y)
    ddf = dd.from_pandas(frame, npartitions=3)
    labels = model.predict(ddf)
    assert isinstance(labels, dd.Series)
    assert_array_equal(labels.compute().to_numpy(), model.predict(frame))
    assert_array_equal(labels.compute().index, frame.index)
    chances = model.predict_proba(ddf)
    assert isinstance(chances, dd.DataFrame)
    assert list(chances.columns) == [str(label) for label in range(10)]
    assert_allclose(chances.compute().to_numpy(), model.predict_proba(frame), rtol=1e-12)

    model.fit(X, y)
    array = da.from_array(X, chunks=(500, -1))
    labels, chances = model.predict(array), model.predict_proba(array)
    assert isinstance(labels, da.Array)
    assert labels.shape == (1797,)
    assert chances.chunks == (array.chunks[0], (10,))
    assert_array_equal(labels.compute(), model.predict(X))
    assert_allclose(model.predict_log_proba(array).compute(), np.log(model.predict_proba(X)), rtol=1e-9)
    assert labels.dtype == labels.compute().dtype


def test_predict_of_unknown_and_empty_chunks(digits):
    X, y = digits
    model = MLPClassifier((5,), max_iter=1).fit(X, y)
    array = da.from_array(X, chunks=(500, -1))
    some = array[array[:, 2] > 14]
    assert_array_equal(model.predict(some).compute(), model.predict(X[X[:, 2] > 14]))
    empty = da.concatenate([array[:0], array[:3]])
    assert len(model.predict(empty).compute()) == 3


def test_scores_of_dask_data_are_those_of_the_rows(digits, dask_digits):
    X, y = digits
    weight = np.random.default_rng(0).uniform(0, 1, len(y))
    model = MLPClassifier((10,), max_iter=5, random_state=0).fit(X, y)
    chunked = da.from_array(weight, chunks=dask_digits[1].chunks)
    assert model.score(*dask_digits) == pytest.approx(model.score(X, y), rel=1e-12)
    assert model.score(*dask_digits, chunked) == pytest.approx(model.score(X, y, weight), rel=1e-12)
    regressor = MLPRegressor(hidden_layer_sizes=(10,), max_iter=5, random_state=0).fit(X, y)
    assert regressor.score(*dask_digits) == pytest.approx(regressor.score(X, y), rel=1e-9)


def test_labels_are_those_of_the_whole_data(client):
    X = da.from_array(np.random.default_rng(0).standard_normal((90, 3)), chunks=(30, -1))
    y = da.from_array(np.repeat(["north", "south", "west"], 30), chunks=30)
    with pytest.warns(DataSkewWarning, match="sorted by class"):
        model = MLPClassifier((5,), max_iter=2, replicas=2).fit(X, y)
    assert model.classes_.tolist() == ["north", "south", "west"]
    assert set(model.predict(X).compute()) <= set(model.classes_)


def test_the_default_number_of_replicas_leaves_each_enough_rows(client, dask_digits):
    X, y = dask_digits
    assert MLPClassifier((5,), max_iter=1, batch_size=64).fit(X, y).replicas_ == 2
    assert MLPClassifier((5,), max_iter=1, batch_size=16).fit(X, y).replicas_ == 1
    assert MLPClassifier((5,), max_iter=1, batch_size="full").fit(X, y).replicas_ == 2
    assert MLPClassifier((5,), max_iter=1).fit(X, y).replicas_ == 2
    # Less than ten steps of its own, for each of two.
    assert MLPClassifier((5,), max_iter=1, strategy="weights").fit(X, y).replicas_ == 1


@pytest.mark.parametrize("where", ["in process", "local scheduler", "cluster"])
def test_validation_data_is_scored_after_each_epoch(digits, dask_digits, where, request, capsys):
    X, y = digits
    data, held_out = (X, y), (X[:200], y[:200])
    if where != "in process":
        data, held_out = dask_digits, (da.from_array(X[:200], (60, -1)), da.from_array(y[:200], 60))
    if where == "cluster":
        request.getfixturevalue("client")
    settings = {"batch_size": 64, "max_iter": 3, "random_state": 0, "replicas": 1}
    model = MLPClassifier((10,), verbose=2, **settings).fit(*data, validation_data=held_out)
    assert len(model.validation_scores_) == 3
    assert model.validation_scores_[-1] == model.score(X[:200], y[:200])
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert [entry["validation_score"] for entry in model.history_] == model.validation_scores_
    assert f"validation={model.validation_scores_[-1]:.4f}" in capsys.readouterr().err


def test_x_val_and_y_val_say_the_same_as_validation_data(digits):
    X, y = digits
    weight = np.linspace(0, 1, 200)
    scores = [
        MLPClassifier((10,), max_iter=2, random_state=0).fit(X, y, **held_out).validation_scores_
        for held_out in (
            {"validation_data": (X[:200], y[:200], weight)},
            {"X_val": X[:200], "y_val": y[:200], "sample_weight_val": weight},
        )
    ]
    assert scores[0] == scores[1]
    for held_out, message in (
        ({"X_val": X}, "X_val is provided, but y_val was not"),
        ({"y_val": y}, "y_val is provided, but X_val was not"),
        ({"sample_weight_val": weight}, "sample_weight_val is provided, but X_val was not"),
        ({"X_val": X, "y_val": y, "validation_data": (X, y)}, "received both"),
    ):
        with pytest.raises(ValueError, match=message):
            MLPClassifier().fit(X, y, **held_out)


# --- errors -----------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_training_and_leaves_nothing(client, digits):
    X, y = digits[0].copy(), digits[1]
    X[1000, 7] = np.nan
    with_nan = da.from_array(X, chunks=(500, -1))
    ones, zeros = da.ones((10, 4), chunks=(5, -1)), da.zeros(10, dtype=int, chunks=5)
    for bad_X, bad_y, message in (
        (with_nan, da.from_array(y, chunks=500), "Partition 2: X holds nan in row 0, column 7"),
        (ones[:0], zeros[:0], "found 0 samples"),
        (ones, zeros[:9], "X has 10 rows, y has 9"),
        (ones[:, 0], zeros, r"shape \(n, p\), received shape \(10,\)"),
    ):
        events = Recorder()
        with pytest.raises(ValueError, match=message):
            MLPClassifier((5,), callbacks=[events]).fit(bad_X, bad_y)
        assert events.seen == []


def test_columns_that_are_not_numbers_are_named():
    frame = pd.DataFrame({"age": [1, 2], "city": ["x", "y"], "kind": pd.Categorical(["a", "b"])})
    with pytest.raises(ValueError, match=r"received 'city' \(\w+\), 'kind' \(category\)\. Encode them"):
        MLPClassifier().fit(dd.from_pandas(frame, npartitions=1), da.from_array(np.array([0, 1])))


def test_other_features_at_predict_are_refused(digits):
    X, y = digits
    model = MLPClassifier((5,), max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="X has 63 features, but MLPClassifier is expecting 64"):
        model.predict(da.from_array(X[:, 1:]))
    frame = pd.DataFrame(X).rename(columns=str)
    model.fit(dd.from_pandas(frame, npartitions=2), da.from_array(y, chunks=899))
    with pytest.raises(ValueError, match=r"feature names should match"):
        model.predict(dd.from_pandas(frame.rename(columns={"3": "three"}), npartitions=2))


@pytest.mark.parametrize(("settings", "message"), [
    ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be > 0, got"),
    ({"strategy": "mean"}, "'strategy' parameter"),
    ({"batch_size": "half"}, "'batch_size' parameter"),
    ({"dtype": "int8"}, "'dtype' parameter"),
    ({"replicas": 0}, "'replicas' parameter"),
])  # fmt: skip
def test_bad_parameters_are_refused_at_fit(digits, settings, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).fit(*digits)


def test_what_was_not_fitted_cannot_predict():
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(da.ones((3, 2)))


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_weights(dask_digits):
    X, y = dask_digits
    model = MLPRegressor(
        hidden_layer_sizes=(5,), solver="sgd", learning_rate_init=1e200, max_iter=50, random_state=0
    )
    with pytest.raises(NonFiniteLossError, match=r"non-finite .* in epoch 1"):
        model.fit(X * 1.0, y)
    assert all(np.isfinite(W).all() for W in model.coefs_)


# --- life with others -------------------------------------------------------------------------------


class Recorder(Callback):
    def __init__(self):
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, round(logs["loss"], 6)))

    def on_train_end(self, logs=None):
        self.seen.append("end")


class StopAfterThree(Recorder):
    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.estimator = self.model
        self.training.stop_training = epoch == 2


def test_callbacks_hear_of_each_epoch_and_may_stop(dask_digits):
    callback = StopAfterThree()
    model = MLPClassifier((5,), max_iter=9, callbacks=[callback]).fit(*dask_digits)
    assert callback.estimator is model
    # What users keep of a callback keeps neither data nor client.
    assert callback.model is callback.training is None
    pickle.dumps(model)
    clone(model)
    assert model.n_iter_ == 3
    losses = [(entry["epoch"] - 1, round(entry["loss"], 6)) for entry in model.history_]
    assert callback.seen == ["begin", *losses, "end"]


def test_an_interrupted_training_keeps_its_last_epoch(dask_digits):
    class Interrupt(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        model = MLPClassifier((5,), max_iter=9, callbacks=[Interrupt()]).fit(*dask_digits)
    assert model.n_iter_ == 2


@pytest.mark.parametrize("where", ["in process", "on tasks"])
def test_lbfgs_can_be_watched_stopped_and_interrupted(digits, dask_digits, where):
    class InterruptAtThree(Recorder):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    data = digits if where == "in process" else dask_digits
    losses = []
    for callback, ending in ((StopAfterThree(), "end"), (InterruptAtThree(), "end")):
        model = MLPClassifier((5,), solver="lbfgs", random_state=0, callbacks=[callback])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(*data)
        interrupted = isinstance(callback, InterruptAtThree)
        assert [str(warning.message) for warning in caught] == ["Training interrupted by user."] * interrupted
        assert model.interrupted_ is interrupted
        assert model.n_iter_ == 3
        assert callback.seen[0] == "begin"
        assert callback.seen[-1] == ending
        assert len(callback.seen) == 5
        losses.append(model.loss_)
        # The network is that of the third iteration.
        assert model.history_[-1]["loss"] == model.loss_
    assert losses[0] == losses[1]


def test_progress_is_shown_as_a_bar_or_in_lines(dask_digits, capsys):
    MLPClassifier((5,), max_iter=2, verbose=2).fit(*dask_digits)
    bar = capsys.readouterr().err
    assert "epoch 2/2" in bar
    assert "rows/s" in bar
    assert "loss=" in bar
    model = MLPClassifier((5,), max_iter=2, verbose=True).fit(*dask_digits)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Iteration %d, loss = %.8f" % (i + 1, loss) for i, loss in enumerate(model.loss_curve_)]


def test_estimators_can_be_cloned_and_pickled_without_their_client(client, digits):
    model = MLPClassifier((5,), max_iter=2, strategy="weights", replicas=2, random_state=0)
    model.client = client
    model.fit(*digits)
    again = pickle.loads(pickle.dumps(model))
    assert again.client is None
    assert_array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))
    assert clone(model).get_params() == model.get_params()


def test_plain_arrays_and_dask_collections_train_where_distributed_is_not_installed():
    program = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'distributed': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import numpy as np, dask.array as da, dasknn\n"
        "X = np.random.default_rng(0).random((60, 3)); y = (X[:, 0] > 0.5).astype(int)\n"
        "dasknn.MLPClassifier((4,), max_iter=2).fit(X, y)\n"
        "model = dasknn.MLPClassifier((4,), max_iter=2)\n"
        "print(model.fit(da.from_array(X), da.from_array(y)).score(da.from_array(X), da.from_array(y)))\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", program]
    assert 0 <= float(subprocess.run(run, check=True, timeout=60, capture_output=True).stdout) <= 1


def test_an_asynchronous_client_is_refused_with_the_remedy(digits):
    class Asynchronous:
        asynchronous = True

    model = MLPClassifier((5,), strategy="gradients")
    model.client = Asynchronous()
    with pytest.raises(TypeError, match=r"Expected a synchronous client.*asyncio\.to_thread"):
        model.fit(*digits)


def test_models_with_equal_weights_and_other_labels_are_told_apart(digits):
    X, y = digits[0], digits[1] % 2
    settings = {"hidden_layer_sizes": (4,), "max_iter": 1, "random_state": 0}
    numbers = MLPClassifier(**settings).fit(X, y)
    words = MLPClassifier(**settings).fit(X, np.array(["no", "yes"])[y])
    array = da.from_array(X, chunks=(600, -1))
    both = dask.compute(numbers.predict(array), words.predict(array))
    assert_array_equal(both[0], numbers.predict(X))
    assert_array_equal(both[1], words.predict(X))


def test_bad_data_is_refused_at_predict_and_score_too(digits):
    X, y = digits[0].copy(), digits[1]
    model = MLPClassifier((4,), max_iter=1).fit(X, y)
    X[700, 3] = np.nan
    array, labels = da.from_array(X, chunks=(600, -1)), da.from_array(y, chunks=600)
    with pytest.raises(PartitionError, match="Partition 1: X holds nan in row 100, column 3"):
        model.predict(array).compute()
    with pytest.raises(PartitionError, match="Partition 1: X holds nan in row 100, column 3"):
        model.score(array, labels)
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(64)])
    model.fit(frame.fillna(0), y)
    ddf = dd.from_pandas(frame, npartitions=3)
    series, gaps = (
        dd.from_pandas(pd.Series(values), npartitions=3)
        for values in (y, np.where(np.arange(len(y)) == 1300, np.nan, y))
    )
    for use in (lambda: model.predict(ddf).compute(), lambda: model.score(ddf, series)):
        with pytest.raises(PartitionError, match="Partition 1: X holds nan in row 101, column 'p3'"):
            use()
    with pytest.raises(PartitionError, match="Partition 2: y holds nan in row 102"):
        model.score(ddf.fillna(0), gaps)
    with pytest.raises(ValueError, match="received 2 chunks of columns"):
        model.predict_proba(array.rechunk((600, 32)))


def test_columns_are_taken_by_name_whatever_order_partitions_have_them_in(client):
    # X - X.mean() announces its columns sorted, and computes them as they were.
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((300, 3)) * [1, 5, 9] + [0, 3, 7], columns=["c", "a", "b"])
    frame["empty"] = 0.0
    X = dd.from_pandas(frame, npartitions=3, sort=False)
    X = (X - X.mean()) / X.std().replace(0, 1)
    labels = dd.from_pandas((frame["c"] > 0).astype(int), npartitions=3, sort=False)
    settings = {"batch_size": 30, "learning_rate_init": 0.1, "random_state": 0, "max_iter": 10}
    model = MLPClassifier((), **settings).fit(X, labels)
    assert model.score(X, labels) > 0.95
    names = list(model.feature_names_in_)
    scaled = ((frame - frame.mean()) / frame.std().replace(0, 1))[names]
    assert_array_equal(model.predict(scaled), model.predict(X).compute())
    assert np.abs(model.coefs_[0]).argmax() == names.index("c")


def test_fitting_in_threads_leaves_the_filters_of_warnings_as_they_are(dask_digits):
    before = list(warnings.filters)
    for dtype in ("float32", "float64"):
        MLPClassifier((4,), max_iter=1, dtype=dtype).fit(*dask_digits)
    assert warnings.filters == before


def test_callbacks_are_callbacks(digits):
    with pytest.raises(ValueError, match=r"Expected callbacks to be objects of subclasses of dasknn\.callb"):
        MLPClassifier(callbacks=[print]).fit(*digits)


@pytest.mark.parametrize("hop", [False, True])
def test_members_with_automatic_batches_take_steps_of_200_rows(hop):
    X = da.random.default_rng(0).random((8000, 3), chunks=(1000, -1))
    settings = {"strategy": dasknn.PredictionAveraging(hop=hop), "max_iter": 1, "replicas": 4}
    model = MLPClassifier((2,), **settings)
    seen = []

    class Steps(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model.set_params(callbacks=[Steps()]).fit(X, (X[:, 0] > 0.5).astype(int))
    # Each sees all rows, or a share.
    assert seen == [(8000 if hop else 2000) // 200]


def test_layers_where_the_regressors_loss_stands_are_refused_with_the_remedy(digits):
    for sizes in ((64,), 64, [64, 32]):
        with pytest.raises(
            ValueError, match=r"The 'loss' parameter of MLPRegressor must be .*its loss"
        ) as raised:
            MLPRegressor(sizes).fit(*digits)
        assert str(raised.value).endswith(f"MLPRegressor(hidden_layer_sizes={sizes!r}).")


def test_a_fit_that_failed_leaves_nothing_fitted(digits):
    X, y = digits
    model = MLPClassifier((4,), max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_contradictions_are_refused(digits):
    for strategy in ("weights", dasknn.PredictionAveraging(2)):
        with pytest.raises(ValueError, match=r"gradient over all rows in each iteration"):
            MLPClassifier(solver="lbfgs", strategy=strategy).fit(*digits)
    strategy = dasknn.PredictionAveraging(members=4)
    with pytest.raises(ValueError, match=r"Expected replicas=4.*received 3"):
        MLPClassifier(strategy=strategy, replicas=3).fit(*digits)
    with pytest.raises(ValueError, match=r"validation_data to be \(X, y\) or .* received 1 items"):
        MLPClassifier().fit(*digits, validation_data=(digits[0],))


def test_a_class_with_one_member_is_named_as_scikit_learn_names_it():
    X, y = np.random.default_rng(0).standard_normal((40, 3)), np.zeros(40, int)
    y[3] = 1
    said = []
    for kind in (MLPClassifier, reference.MLPClassifier):
        with pytest.raises(ValueError, match="least populated") as error:
            kind(early_stopping=True).fit(X, y)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_one_callback_alone_is_a_list_of_one(digits):
    X, y = digits
    seen = []
    watcher = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with pytest.warns(ConvergenceWarning):
        MLPClassifier((5,), max_iter=2, callbacks=watcher).fit(X, y)
    assert seen == [0, 1]


@pytest.mark.parametrize("labels", [[0, 1], [False, True], ["no", "yes"], [0.0, 2.0], [0, 1, 2]], ids=str)
def test_probabilities_in_a_dataframe_go_to_parquet(labels, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).random((30, 2)), columns=["a", "b"])
    model = MLPClassifier((3,), max_iter=1).fit(frame, np.resize(labels, 30))
    model.predict_proba(dd.from_pandas(frame, npartitions=2)).to_parquet(tmp_path)
    read = pd.read_parquet(tmp_path)
    assert list(read.columns) == [str(label) for label in model.classes_]
    assert_allclose(read, model.predict_proba(frame))


def test_several_outputs_in_a_dataframe_go_to_parquet(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).random((30, 2)), columns=["a", "b"])
    ensemble = dasknn.PredictionAveraging(members=2)
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=1, strategy=ensemble).fit(frame, frame.to_numpy())
    ddf = dd.from_pandas(frame, npartitions=2)
    for number, predicted in enumerate((model.predict(ddf), *model.predict(ddf, return_std=True))):
        predicted.to_parquet(tmp_path / str(number))
        assert list(pd.read_parquet(tmp_path / str(number)).columns) == ["0", "1"]
    labels = MLPClassifier((3,), max_iter=1).fit(frame, frame.to_numpy() > 0.5)
    labels.predict(ddf).to_parquet(tmp_path / "labels")


def test_validation_data_on_dask_is_taken_by_name_and_scored_where_it_is(client):
    frame = pd.DataFrame(np.random.default_rng(0).random((90, 2)), columns=["a", "b"])
    y = (frame["a"] > 0.5).astype(int)
    X_val, y_val = (dd.from_pandas(data, npartitions=2) for data in (frame, y))
    model = MLPClassifier((3,), max_iter=3, random_state=0)
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*same order"):
        model.fit(frame, y, validation_data=(X_val[["b", "a"]], y_val))
    model.fit(frame, y, validation_data=client.persist([X_val, y_val]))
    here = MLPClassifier((3,), max_iter=3, random_state=0).fit(frame, y, validation_data=(frame, y))
    assert model.validation_scores_ == here.validation_scores_
    assert_array_equal(model.coefs_[0], here.coefs_[0])


@pytest.mark.parametrize("form", ["pandas", "Dask"])
def test_columns_called_by_integers_are_not_mixed_up(form):
    frame = pd.DataFrame(np.random.default_rng(0).random((60, 3)))
    frame, y = (
        dd.from_pandas(data, npartitions=2) if form == "Dask" else data
        for data in (frame, (frame[0] > 0.5).astype(int))
    )
    model = MLPClassifier((3,), max_iter=1).fit(frame, y)
    for use in (model.predict, lambda X: model.score(X, y)):
        use(frame)
        with pytest.raises(ValueError, match=r"same order as they were in fit.*Use X\[\[0, 1, 2\]\]"):
            use(frame[[2, 0, 1]])
