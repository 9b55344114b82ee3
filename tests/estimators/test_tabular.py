"""The estimators for tables: raw columns of every kind in, predictions out, alike wherever the rows are."""

import pickle
import warnings

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import bits
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import dasknn
from dasknn import TabularClassifier, TabularRegressor
from dasknn.exceptions import DataSkewWarning, PartitionError
from tests.data.tables.raw_tables import mixed

SMALL = {"members": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "batch_size": 32, "random_state": 0}
N = 120
FRAME = mixed(N)
NUMBERS = FRAME["age"].to_numpy(np.float64)
LABELS = np.where(NUMBERS > 50, "old", "young")


def classifier(**settings):
    return TabularClassifier(**{**SMALL, **settings})


def regressor(**settings):
    return TabularRegressor(**{**SMALL, **settings})


def on_dask(values, n_partitions=3):
    if isinstance(values, pd.DataFrame):
        return dd.from_pandas(values, npartitions=n_partitions)
    chunks = tuple(len(part) for part in np.array_split(values, n_partitions))
    return da.from_array(values, chunks=(chunks, -1)[: values.ndim])


def assert_same(found, expected):
    """Predictions are the same up to the rounding of products, which depends on how many rows there are."""
    found = np.asarray(found.compute() if hasattr(found, "compute") else found)
    if expected.dtype.kind == "f":
        assert_allclose(found, expected, rtol=1e-6)
    else:
        assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def of_labels():
    return classifier().fit(FRAME, LABELS)


@pytest.fixture(scope="module")
def of_numbers():
    return regressor().fit(FRAME, NUMBERS)


@pytest.fixture(scope="module")
def of_quantiles():
    return regressor(quantiles=[0.9, 0.1, 0.5]).fit(FRAME, NUMBERS)


# --- scikit-learn's API ------------------------------------------------------------------------------

_MIXED = "columns are learned, and rows are mixed into mini-batches, without regard to weights"
DEPARTURES = {
    **{f"check_sample_weight_equivalence_on_{kind}_data": _MIXED for kind in ("dense", "sparse")},
    "check_dataframe_column_names_consistency": "columns are found by their names, in any order",
}


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_check_estimator_passes_but_for_the_departures(kind):
    model = kind(members=2, hidden_layer_sizes=(8,), embedding_dim=4, max_iter=15, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_fail="raise", on_skip=None, expected_failed_checks=DEPARTURES)
    statuses = {result["check_name"]: result["status"] for result in results}
    assert set(statuses.values()) <= {"passed", "skipped", "xfail"}
    assert {name for name, status in statuses.items() if status == "xfail"} <= set(DEPARTURES)
    assert {name for name, status in statuses.items() if status == "skipped"} <= {
        "check_array_api_input",
        "check_classifiers_multilabel_output_format_decision_function",
    }
    assert len(results) >= 50


@pytest.mark.parametrize("make", [classifier, regressor])
def test_parameters_are_kept_copied_and_set(make):
    model = make(embedding="encoding", n_bins=7, categorical_features=["age"])
    assert clone(model).get_params() == model.get_params()
    assert clone(model.set_params(n_bins=9)).n_bins == 9
    assert "n_bins=9" in repr(model)
    with pytest.raises(ValueError, match="Invalid parameter 'bin'"):
        model.set_params(bin=3)


def test_a_search_a_pipeline_and_cross_validation_take_raw_tables():
    search = GridSearchCV(classifier(), {"embedding_dim": [2, 3]}, cv=2).fit(FRAME, LABELS)
    assert search.best_params_["embedding_dim"] in (2, 3)
    steps = make_pipeline(FunctionTransformer(lambda X: X.drop(columns="stay")), classifier())
    assert set(steps.fit(FRAME, LABELS).predict(FRAME)) <= {"old", "young"}
    assert_array_equal(steps[-1].feature_names_in_, [name for name in FRAME if name != "stay"])
    assert len(cross_val_score(regressor(), FRAME, NUMBERS, cv=2)) == 2


def test_a_pickle_predicts_the_same_bits(of_labels, of_quantiles):
    assert_array_equal(
        pickle.loads(pickle.dumps(of_labels)).predict_proba(FRAME), of_labels.predict_proba(FRAME)
    )
    loaded = pickle.loads(pickle.dumps(of_quantiles))
    assert_array_equal(loaded.predict_quantiles(FRAME), of_quantiles.predict_quantiles(FRAME))


def test_what_was_not_fitted_cannot_predict():
    for ask in (classifier().predict, regressor().predict, regressor().predict_quantiles):
        with pytest.raises(NotFittedError):
            ask(FRAME)


@pytest.mark.parametrize(("settings", "message"), [
    ({"members": 0}, "'members' parameter"),
    ({"embedding": "linear"}, "'embedding' parameter"),
    ({"learning_rate": "adaptive"}, "'learning_rate' parameter"),
    ({"activation": "rleu"}, "Expected an activation, received 'rleu'"),
    ({"hidden_layer_sizes": (0,)}, "units to be at least 1, received 0"),
    ({"n_bins": 1}, "'n_bins' parameter"),
    ({"min_frequency": 1.5}, "'min_frequency' parameter"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        classifier(**settings).fit(FRAME, LABELS)


# --- raw tables --------------------------------------------------------------------------------------


def test_a_table_of_every_kind_of_column_is_learned_from():
    frame = mixed(400)
    rng = np.random.default_rng(0)
    y = np.where(frame["member"] ^ (frame["job"] == "pilot") ^ (rng.random(400) < 0.05), "yes", "no")
    model = classifier(max_iter=30, hidden_layer_sizes=(32,), members=4).fit(frame[:300], y[:300])
    assert model.score(frame[300:], y[300:]) > 0.85
    assert model.n_features_in_ == 11
    assert_array_equal(model.feature_names_in_, frame.columns)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_dask_dataframes_are_learned_and_predicted_as_they_are_in_this_process(make):
    y = LABELS if make is classifier else NUMBERS
    settings = {"strategy": "gradients", "replicas": 3}
    plain = make(**settings).fit(FRAME, y)
    ours = make(**settings).fit(on_dask(FRAME), on_dask(y))
    assert ours._table == plain._table
    assert bits(ours) == bits(plain)
    found = ours.predict(on_dask(FRAME))
    assert isinstance(found, dd.Series)
    assert_same(found, plain.predict(FRAME))
    assert_array_equal(found.compute().index, FRAME.index)
    assert ours.score(on_dask(FRAME), on_dask(y)) == pytest.approx(plain.score(FRAME, y), abs=1e-8)


@pytest.mark.parametrize("name", FRAME.columns.drop(["constant", "nothing"]))
def test_each_kind_of_column_alone_predicts_alike_in_pandas_and_dask(name):
    frame = FRAME[[name]]
    model = classifier(max_iter=1).fit(frame, LABELS)
    chances = model.predict_proba(frame)
    assert np.isfinite(chances).all()
    assert len(np.unique(chances, axis=0)) > 1
    assert_same(model.predict_proba(on_dask(frame)), chances)


@pytest.mark.parametrize("form", ["array", "dask array", "csr", "coo", "list", "objects"])
def test_arrays_and_sparse_matrices_are_tables_without_names(form):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((60, 4)) < 0.5, 0, rng.integers(1, 9, (60, 4))).astype(np.float64)
    y = (X[:, 0] > 2).astype(int)
    forms = {
        "array": X,
        "dask array": on_dask(X),
        "csr": sparse.csr_matrix(X),
        "coo": sparse.coo_matrix(X),
        "list": X.tolist(),
        "objects": X.astype(object),
    }
    data = forms[form]
    settings = {"strategy": "gradients", "replicas": 1}
    expected = classifier(**settings).fit(X, y)
    found = classifier(**settings).fit(data, on_dask(y) if form == "dask array" else y)
    assert bits(found) == bits(expected)
    assert_same(found.predict_proba(data), expected.predict_proba(X))


def test_a_list_of_rows_may_hold_text():
    rows = [[1.5, "a"], [2.5, "b"], [3.5, "a"], [4.5, "b"]]
    model = classifier().fit(rows, [0, 1, 0, 1])
    assert [column.kind for column in model._table.columns] == ["number", "category"]
    assert set(model.predict(rows)) <= {0, 1}


@pytest.mark.parametrize(
    "chosen", [[0, 2], [True, False, True], np.array([True, False, True]), ["a", "c"]], ids=str
)
def test_numbers_are_categories_by_name_by_position_or_by_a_mask(chosen):
    frame = pd.DataFrame(np.arange(90).reshape(30, 3) % 5, columns=["a", "b", "c"])
    y = np.arange(30) % 2
    for X in (frame, on_dask(frame)):
        model = classifier(categorical_features=chosen).fit(X, y if X is frame else on_dask(y))
        assert [column.kind for column in model._table.columns] == ["category", "number", "category"]
    with pytest.raises(ValueError, match="names of columns, positions from 0 to 2 or a mask, received 'd'"):
        classifier(categorical_features=["d"]).fit(frame, y)
    with pytest.raises(ValueError, match=r"received 'cc'. Did you mean 'c'\? Columns: a, b, c"):
        classifier(categorical_features=["cc"]).fit(frame, y)
    if not isinstance(chosen[0], str):
        model = classifier(categorical_features=chosen).fit(frame.to_numpy(), y)
        assert [column.kind for column in model._table.columns] == ["category", "number", "category"]


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_a_column_that_is_missing_is_named_with_the_most_similar_one(of_labels, where):
    other = FRAME.rename(columns={"job": "jobs"})
    with pytest.raises(ValueError, match=r"Expected column 'job' in X, as in fit. Did you mean 'jobs'\?"):
        of_labels.predict(other if where == "pandas" else on_dask(other))


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_more_columns_make_no_difference(of_labels, where):
    more = FRAME.assign(unknown="?", target=LABELS)
    more = more[["target", *FRAME.columns, "unknown"]]
    found = of_labels.predict_proba(more if where == "pandas" else on_dask(more))
    assert_same(found, of_labels.predict_proba(FRAME))


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_columns_in_another_order_are_found_by_their_names(of_labels, where):
    # Two of a kind change places, so that positions would give other predictions.
    other = FRAME[FRAME.columns[::-1]]
    other = other if where == "pandas" else on_dask(other)
    expected = of_labels.predict_proba(FRAME)
    assert_same(of_labels.predict_proba(other), expected)
    assert of_labels.score(other, LABELS if where == "pandas" else on_dask(LABELS)) == pytest.approx(
        of_labels.score(FRAME, LABELS)
    )


def test_validation_rows_have_their_columns_found_by_name():
    in_order, other = (
        classifier(max_iter=2).fit(FRAME, LABELS, X_val=X_val, y_val=LABELS)
        for X_val in (FRAME, FRAME[FRAME.columns[::-1]])
    )
    assert in_order.validation_scores_ == other.validation_scores_


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_two_columns_of_a_name_are_refused_at_predict(of_labels, where):
    twice = pd.concat([FRAME, FRAME[["age"]]], axis=1)
    with pytest.raises(ValueError, match=r"received \['age'\] more than once"):
        of_labels.predict(twice if where == "pandas" else dd.from_pandas(twice, npartitions=2))


@pytest.mark.parametrize("where", ["pandas", "dask"])
def test_two_columns_of_a_name_are_refused_in_fit(where):
    twice = FRAME[["age", "age"]]
    with pytest.raises(ValueError, match=r"received \['age'\] more than once. Rename them") as caught:
        regressor().fit(on_dask(twice) if where == "dask" else twice, NUMBERS)
    assert type(caught.value) is ValueError


def test_columns_that_are_called_by_numbers_are_found():
    frame = pd.DataFrame(np.random.default_rng(0).random((40, 3)))
    y = np.arange(40) % 2
    model = classifier().fit(frame, y)
    assert_same(model.predict_proba(on_dask(frame)), model.predict_proba(frame))
    assert_array_equal(model.predict_proba(frame.assign(more=1)), model.predict_proba(frame))
    assert_array_equal(model.predict_proba(frame[[2, 0, 1]]), model.predict_proba(frame))
    assert_array_equal(model.predict_proba(frame.to_numpy()), model.predict_proba(frame))


def test_a_level_that_was_never_seen_is_predicted_as_a_missing_one(of_labels):
    for name in ("job", "region"):
        unseen, missing = FRAME.assign(**{name: "astronaut"}), FRAME.assign(**{name: None})
        assert_array_equal(of_labels.predict_proba(unseen), of_labels.predict_proba(missing))


def test_missing_values_where_fit_had_none_are_predicted(of_labels):
    for name in FRAME:
        chances = of_labels.predict_proba(FRAME.assign(**{name: None}))
        assert np.isfinite(chances).all(), name


def test_a_column_of_missing_values_alone_is_ignored():
    frame = pd.DataFrame({"nothing": [np.nan] * 40, "x": np.arange(40.0)})
    y = np.arange(40) % 2
    with_nothing, without = (classifier().fit(X, y) for X in (frame, frame[["x"]]))
    assert bits(with_nothing) == bits(without)
    assert_array_equal(
        with_nothing.predict_proba(frame.assign(nothing="something")), without.predict_proba(frame[["x"]])
    )


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_infinity_is_refused_with_its_column_row_and_partition(of_labels, method):
    frame = FRAME.copy()
    frame.loc[50, "income"] = np.inf

    def run(X, y):
        found = classifier().fit(X, y) if method == "fit" else of_labels.predict(X)
        return found if X is frame or method == "fit" else found.compute()

    with pytest.raises(PartitionError, match=r"^Column 'income' holds infinity in row 50"):
        run(frame, LABELS)
    with pytest.raises(PartitionError, match=r"Partition 1: Column 'income' holds infinity in row 10\b"):
        run(on_dask(frame), on_dask(LABELS))


@pytest.mark.parametrize("dtype", ["boolean", "bool[pyarrow]", "Int64", "int64[pyarrow]", "category"])
def test_nullable_labels_keep_their_kind_as_on_dask(dtype):
    labels = pd.Series(LABELS == "old", name="is_old")
    labels = (labels.astype(int) if dtype.lower().startswith("int") else labels).astype(dtype)
    models = [
        classifier().fit(FRAME, labels),
        classifier().fit(on_dask(FRAME), dd.from_pandas(labels, npartitions=3)),
    ]
    kind = "i" if dtype.lower().startswith("int") else "b"
    assert [model.classes_.dtype.kind for model in models] == [kind, kind]
    assert models[0].predict(FRAME).dtype.kind == kind
    assert [model.target_name_ for model in models] == ["is_old", "is_old"]


def test_one_class_is_always_predicted():
    for X, y in ((FRAME, np.full(N, "same")), (on_dask(FRAME), on_dask(np.full(N, "same")))):
        model = classifier().fit(X, y)
        assert set(model.predict(FRAME)) == {"same"}
        assert_array_equal(model.predict_proba(FRAME), np.ones((N, 1)))


def test_a_constant_target_is_predicted():
    model = regressor().fit(FRAME, np.full(N, 3.5))
    assert_array_equal(model.predict(FRAME), np.full(N, 3.5))


def test_one_row_is_refused_and_two_are_enough():
    with pytest.raises(ValueError, match="at least 2 rows to train on, received n_samples = 1"):
        classifier().fit(FRAME[:1], LABELS[:1])
    with pytest.raises(ValueError, match="at least one column of X that varies, received 11"):
        classifier().fit(on_dask(FRAME[:1], 1), on_dask(LABELS[:1], 1))
    model = classifier().fit(FRAME[:2], ["a", "b"])
    assert len(model.predict(FRAME)) == N


@pytest.mark.parametrize(
    "X", [pd.DataFrame({"a": [1] * 20, "b": ["x"] * 20}), np.ones((20, 2))], ids=["frame", "array"]
)
def test_columns_that_are_all_constant_are_refused(X):
    with pytest.raises(ValueError, match="at least one column of X that varies, received 2 with one value"):
        classifier().fit(X, np.arange(20) % 2)


def test_a_column_of_20_000_names_is_hashed():
    n = 20_050
    frame = pd.DataFrame({"name": [f"u{i}" for i in range(n)], "x": np.arange(n) % 7})
    model = classifier(max_iter=1, batch_size=4096, members=1).fit(frame, frame["x"] > 3)
    assert model._table.columns[0].kind == "hashed category"
    assert model.predict(frame[:3].assign(name="another")).shape == (3,)


@pytest.mark.parametrize(("y", "message"), [
    (np.where(np.arange(N) == 7, np.nan, NUMBERS), "NaN"),
    (NUMBERS[1:], "X has 120 rows, y has 119"),
    (None, "requires y to be passed"),
    (LABELS, "Expected numbers in y, .*such as 'old'. Use a classifier"),
    (pd.Series(pd.date_range("2026", periods=N)), "Expected numbers in y"),
])  # fmt: skip
def test_targets_that_cannot_be_learned_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        regressor().fit(FRAME, y)


@pytest.mark.parametrize("settings", [
    {"embedding": None}, {"embedding": "encoding"}, {"bins": "tree"}, {"bins": "quantile", "n_bins": 4},
    {"members": 1}, {"dropout": 0.0}, {"learning_rate": "cosine"}, {"learning_rate": "constant"},
    {"hidden_layer_sizes": ()}, {"hidden_layer_sizes": [8, 4], "adapters": "all"}, {"activation": "silu"},
    {"clipnorm": 1e-3}, {"weight_decay": 0.0}, {"batch_size": "full"}, {"dtype": "float64"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("make", [classifier, regressor])
def test_every_setting_trains_and_makes_a_difference(make, settings, of_labels, of_numbers):
    y = LABELS if make is classifier else NUMBERS
    model = make(**settings).fit(FRAME, y)
    assert np.isfinite(model.loss_curve_).all()
    ordinary = of_labels if make is classifier else of_numbers
    assert bits(model) != bits(ordinary)
    assert len(model.predict(FRAME)) == N


# --- targets, weights, classes -----------------------------------------------------------------------


def test_multi_label_data_has_a_probability_for_each_label():
    Y = np.column_stack([NUMBERS > 40, NUMBERS > 60, NUMBERS < 30]).astype(int)
    model = classifier(max_iter=40).fit(FRAME, Y)
    chances = model.predict_proba(FRAME)
    assert chances.shape == Y.shape
    assert_array_equal(model.predict(FRAME), chances > 0.5)
    assert model.score(FRAME, Y) > 0.6
    assert_same(model.predict(on_dask(FRAME)), model.predict(FRAME))


def test_several_targets_are_predicted_side_by_side():
    Y = np.column_stack([NUMBERS, -2 * NUMBERS])
    model = regressor(max_iter=60).fit(FRAME, Y)
    assert model.predict(FRAME).shape == (N, 2)
    assert model.score(FRAME, Y) > 0.6
    mean, std = model.predict(on_dask(FRAME), return_std=True)
    assert list(std.columns) == ["0", "1"]
    assert_same(mean, model.predict(FRAME))


def test_rows_of_weight_0_change_no_gradient():
    # All rows in one batch, without noise: what is left is the sum over rows.
    settings = {"batch_size": "full", "dropout": 0.0, "dtype": "float64", "max_iter": 5}
    weight = np.where(np.arange(N) % 3, 1.0, 0.0)
    model = classifier(**settings).fit(FRAME, LABELS, weight)
    other = np.where(weight == 0, LABELS[::-1], LABELS)
    assert bits(classifier(**settings).fit(FRAME, other, weight)) == bits(model)
    assert bits(classifier(**settings).fit(FRAME, other)) != bits(model)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        classifier().fit(FRAME, LABELS, np.zeros(N))


@pytest.mark.parametrize("move", [lambda values: values, on_dask], ids=["here", "on Dask"])
def test_what_only_rows_of_weight_0_have_breaks_nothing(move):
    n = 300
    rng = np.random.default_rng(0)
    is_known = np.arange(n) % 6 > 0
    x = rng.uniform(-2, 2, n)
    frame = pd.DataFrame({
        "x": x,
        "number": np.where(is_known, 0.0, x),
        "word": np.where(is_known, "one", rng.choice(["two", "three"], n)),
        "missing": np.where(is_known, 1.0, np.nan),
    })  # fmt: skip
    labels, weight = np.where(is_known, np.where(x > 0, "high", "low"), "unknown"), is_known * 2.0
    for settings in ({}, {"class_weight": "balanced"}, {"bins": "tree"}, {"select_members": True}):
        model = classifier(max_iter=12, **settings).fit(move(frame), move(labels), move(weight))
        assert model.classes_.tolist() == ["high", "low", "unknown"]
        assert set(model.predict(frame[is_known])) == {"high", "low"}
        assert model.score(frame, labels, weight) > 0.8
    numbers = np.where(is_known, x, 1e9)
    model = regressor(max_iter=12).fit(move(frame), move(numbers), move(weight))
    assert model.score(frame, numbers, weight) > 0.8
    low, high = model.predict_interval(frame, 0.9).T
    assert (high - low).max() < 3


def test_columns_are_learned_without_regard_to_weights():
    weighted = regressor().fit(FRAME, NUMBERS, np.arange(N) % 7.0)
    assert weighted._table == regressor().fit(FRAME, NUMBERS)._table


@pytest.mark.parametrize(("is_weighted", "what"), [
    (np.arange(N) < 100, "held out"), (np.arange(N) > 110, "trained on"),
])  # fmt: skip
def test_rows_without_a_weight_are_not_trained_on_or_scored_alone(is_weighted, what):
    with pytest.raises(
        ValueError, match=f"at least one of the rows that are {what} to have a weight above 0"
    ):
        regressor(hold_out="last").fit(FRAME, NUMBERS, is_weighted * 1.0)


def test_weights_of_classes_are_weights_of_their_rows():
    settings = {"strategy": "gradients", "replicas": 1}
    of_classes = classifier(class_weight={"old": 3.0}, **settings).fit(FRAME, LABELS)
    of_rows = classifier(**settings).fit(FRAME, LABELS, np.where(LABELS == "old", 3.0, 1.0))
    assert_allclose(of_classes._members, of_rows._members, rtol=1e-4, atol=1e-5)
    balanced = classifier(class_weight="balanced").fit(FRAME, LABELS)
    assert bits(balanced) != bits(classifier().fit(FRAME, LABELS))


def test_partitions_sorted_by_class_are_told():
    order = np.argsort(LABELS, kind="stable")
    frame = FRAME.iloc[order].reset_index(drop=True)
    with pytest.warns(DataSkewWarning, match="sorted by class"):
        classifier(replicas=2).fit(on_dask(frame), on_dask(LABELS[order]))


# --- members -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    {}, {"strategy": "predictions", "replicas": 2}, {"hidden_layer_sizes": (8, 8), "adapters": "all"},
], ids=str)  # fmt: skip
def test_predictions_are_the_mean_of_those_of_the_members(settings):
    n_members = 2 * settings.get("replicas", 1)
    # Calibration is of the mean.
    model = classifier(calibrate=None, **settings).fit(FRAME, LABELS)
    members = model.members_
    assert len(members) == n_members
    chances = [member.predict_proba(FRAME) for member in members]
    assert len({each.tobytes() for each in chances}) == n_members
    assert_allclose(model.predict_proba(FRAME), np.mean(chances, axis=0), atol=1e-6)

    model = regressor(**settings).fit(FRAME, NUMBERS)
    numbers = [member.predict(FRAME) for member in model.members_]
    mean, std = model.predict(FRAME, return_std=True)
    assert_array_equal(mean, model.predict(FRAME))
    assert_allclose(mean, np.mean(numbers, axis=0), rtol=1e-6)
    assert_allclose(std, np.std(numbers, axis=0), rtol=1e-3, atol=1e-5)
    assert std.min() > 0
    for part, expected in zip(model.predict(on_dask(FRAME), return_std=True), (mean, std), strict=True):
        assert_allclose(part.compute(), expected, rtol=1e-5, atol=1e-6)


def test_a_member_is_a_model_of_its_own(of_labels, tmp_path):
    member = of_labels.members_[1]
    (own,) = member.members_
    assert_array_equal(own.predict_proba(FRAME), member.predict_proba(FRAME))
    member.save(tmp_path / "member.safetensors")
    loaded = dasknn.load(tmp_path / "member.safetensors")
    assert_array_equal(loaded.predict_proba(FRAME), member.predict_proba(FRAME))


def test_one_network_has_no_deviation():
    model = regressor(members=1).fit(FRAME, NUMBERS)
    assert len(model.members_) == 1
    with pytest.raises(ValueError, match=r"needs an ensemble, received one network\. Fit with members=8"):
        model.predict(FRAME, return_std=True)


def test_the_entropy_is_that_of_the_probabilities(of_labels):
    P = of_labels.predict_proba(FRAME).astype(np.float64)
    expected = -(P * np.log(P)).sum(axis=1)
    assert_allclose(of_labels.predictive_entropy(FRAME), expected, rtol=1e-6)
    assert_allclose(of_labels.predictive_entropy(on_dask(FRAME)).compute(), expected, rtol=1e-6)


# --- quantiles ---------------------------------------------------------------------------------------


def test_quantiles_ascend_and_the_prediction_is_the_median(of_quantiles):
    quantiles = of_quantiles.predict_quantiles(FRAME)
    assert quantiles.shape == (N, 3)
    assert np.all(np.diff(quantiles, axis=1) >= 0)
    assert_array_equal(of_quantiles.predict(FRAME), quantiles[:, 1])
    lazy = of_quantiles.predict_quantiles(on_dask(FRAME))
    assert list(lazy.columns) == ["0.1", "0.5", "0.9"]
    assert_same(lazy, quantiles)
    assert_same(of_quantiles.predict(on_dask(FRAME)), quantiles[:, 1])


def test_members_of_quantiles_have_quantiles_and_a_deviation(of_quantiles):
    quantiles = [member.predict_quantiles(FRAME) for member in of_quantiles.members_]
    assert np.all(np.diff(quantiles, axis=2) >= 0)
    mean, std = of_quantiles.predict(FRAME, return_std=True)
    assert_array_equal(mean, of_quantiles.predict(FRAME))
    assert mean.shape == std.shape == (N,)
    assert std.min() > 0


def test_quantiles_cover_their_share_of_new_rows():
    rng = np.random.default_rng(0)

    def draw(n):
        x = rng.uniform(-1, 1, (n, 1))
        return x, 3 * x[:, 0] + (1.1 + x[:, 0]) * rng.standard_normal(n)

    model = regressor(quantiles=(0.1, 0.5, 0.9), hidden_layer_sizes=(32,), max_iter=15).fit(*draw(4_000))
    x, y = draw(4_000)
    below = (y[:, np.newaxis] < model.predict_quantiles(x)).mean(axis=0)
    assert_allclose(below, [0.1, 0.5, 0.9], atol=0.05)
    # The noise grows with x, and so does the range.
    narrow, wide = (np.diff(model.predict_quantiles([[at]])[:, [0, 2]])[0, 0] for at in (-0.8, 0.8))
    assert wide > 2 * narrow


@pytest.mark.parametrize("quantiles", [[], [0.5, 1.0], [-0.1], ["half"], [np.nan], [None]], ids=str)
def test_quantiles_that_are_none_are_refused_before_the_table_is_read(quantiles):
    with pytest.raises(ValueError, match="Expected quantiles between 0 and 1"):
        regressor(quantiles=quantiles).fit(FRAME.assign(income=np.inf), NUMBERS)


def test_quantiles_are_those_of_one_target(of_numbers):
    with pytest.raises(ValueError, match="quantiles are those of one target, received y with 2 columns"):
        regressor(quantiles=[0.5]).fit(FRAME, np.column_stack([NUMBERS, NUMBERS]))
    with pytest.raises(ValueError, match="Expected a model of quantiles, received one of the mean"):
        of_numbers.predict_quantiles(FRAME)
