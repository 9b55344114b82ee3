"""Ensembles of fitted models: their mean, plain and lazy, in files, in evaluations, and as estimators."""

import pickle
import warnings
from itertools import pairwise

import dask
import dask.array as da
import dask.dataframe as dd
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from distributed import get_worker
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, r2_score
from sklearn.model_selection import cross_val_score
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

import dasknn
from dasknn import (
    EnsembleClassifier,
    EnsembleRegressor,
    Input,
    MLPClassifier,
    MLPRegressor,
    Sequential,
    plots,
)
from dasknn.exceptions import ModelFileError
from dasknn.layers import Dense, Flatten
from dasknn.saving import safetensors_file
from tests.ensembles.fitted_members import (
    LABELS,
    NUMBER,
    PAIR,
    THREE,
    TWO,
    N,
    X,
    classifiers,
    numbers_of,
    proba_of,
    regressors,
    sequential,
)

matplotlib.use("Agg")

CLASSES = {"three classes": THREE, "two classes": TWO, "labels": LABELS}
NUMBERS = {"a number": NUMBER, "two numbers": PAIR}
EDGES = (0, 100, 110, N)
KINDS = ["mlp", "wider", "tabular", "sequential", "pipeline", "pipeline of a sequential"]


@pytest.fixture(scope="module")
def of_classes():
    """Fitted classifiers by kind, for each y in CLASSES."""
    return {name: classifiers(y) for name, y in CLASSES.items()}


@pytest.fixture(scope="module")
def of_numbers():
    """Fitted regressors by kind, for each y in NUMBERS."""
    return {name: regressors(y) for name, y in NUMBERS.items()}


def in_parts(rows):
    """A Dask dataframe or array of three uneven partitions."""
    if isinstance(rows, pd.DataFrame | pd.Series):
        parts = [dask.delayed(rows.iloc[i:j]) for i, j in pairwise(EDGES)]
        return dd.from_delayed(parts, meta=rows.iloc[:0])
    return da.from_array(rows, chunks=(tuple(np.diff(EDGES)), *rows.shape[1:]))


def part_by_part(method, rows):
    """What a method returns for each partition of `in_parts`, one after the other."""
    found = [np.asarray(method(rows.iloc[i:j])) for i, j in pairwise(EDGES)]
    return np.concatenate(found)


# --- the mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("y", CLASSES)
def test_probabilities_are_the_weighted_mean_of_the_members(of_classes, y, weights):
    members = list(of_classes[y].values())
    model = EnsembleClassifier(members, weights)
    by_hand = np.average([proba_of(member) for member in members], axis=0, weights=weights)
    P = model.predict_proba(X)
    # Some members compute in float32.
    assert_allclose(P, by_hand, rtol=1e-6)
    if y != "labels":
        assert_allclose(P.sum(axis=1), 1, rtol=1e-14)
    expected = (by_hand > 0.5).astype(int) if y == "labels" else model.classes_[by_hand.argmax(axis=1)]
    assert_array_equal(model.predict(X), expected)
    assert_array_equal(model.predict_log_proba(X), np.log(P))
    chances = np.hstack([P, 1 - P]) if y == "labels" else P
    assert_allclose(model.predictive_entropy(X), -(chances * np.log(chances)).sum(axis=1))
    assert model.score(X, CLASSES[y]) == pytest.approx(accuracy_score(CLASSES[y], expected))


def test_the_mean_of_equal_shares_has_the_bits_of_numpys_mean(of_classes):
    for kinds in (["mlp", "wider"], ["sequential", "tabular", "pipeline", "pipeline of a sequential"]):
        members = [of_classes["three classes"][kind] for kind in kinds]
        each = [proba_of(member) for member in members]
        expected = np.mean(np.array(each, np.float64), axis=0).astype(each[0].dtype)
        assert_array_equal(EnsembleClassifier(members).predict_proba(X), expected)


@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("y", NUMBERS)
def test_numbers_are_the_weighted_mean_of_the_members_and_deviations_theirs(of_numbers, y, weights):
    members = list(of_numbers[y].values())
    model = EnsembleRegressor(members, weights)
    each = [numbers_of(member) for member in members]
    mean = np.average(each, axis=0, weights=weights)
    std = np.sqrt(np.average((each - mean) ** 2, axis=0, weights=weights))
    shape = (N, 2) if y == "two numbers" else (N,)
    found = model.predict(X, return_std=True)
    assert found[0].shape == found[1].shape == model.predict(X).shape == shape
    assert_allclose(found[0], mean.reshape(shape), rtol=1e-12)
    assert_allclose(found[1], std.reshape(shape), rtol=1e-9)
    assert_array_equal(model.predict(X), found[0])
    assert isinstance(found, tuple)
    assert model.score(X, NUMBERS[y]) == pytest.approx(r2_score(NUMBERS[y], mean))


def test_deviations_are_those_of_networks_that_were_trained_together():
    together = MLPRegressor(
        hidden_layer_sizes=(4,), max_iter=3, random_state=0, strategy="predictions", replicas=3
    )
    together.fit(X, NUMBER)
    model = EnsembleRegressor(together.members_)
    for found, expected in zip(
        model.predict(X, return_std=True), together.predict(X, return_std=True), strict=True
    ):
        assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="return_std=True needs two members or more, received one"):
        EnsembleRegressor([together]).predict(X, return_std=True)


def test_one_member_and_equal_members_give_its_own_bits(of_classes):
    for member in of_classes["three classes"].values():
        for members, weights in (([member], [3.0]), ([member] * 3, None)):
            found = EnsembleClassifier(members, weights).predict_proba(X)
            expected = proba_of(member)
            assert found.dtype == expected.dtype
            assert_allclose(found, expected, rtol=0 if len(members) == 1 else 1e-15)


def test_equal_weights_change_no_bit_and_shares_sum_to_1(of_classes):
    members = list(of_classes["three classes"].values())[:3]
    expected = EnsembleClassifier(members).predict_proba(X)
    assert_array_equal(EnsembleClassifier(members, [0.7, 0.7, 0.7]).predict_proba(X), expected)
    assert_array_equal(EnsembleClassifier(members, (1, 1, 2)).weights_, [0.25, 0.25, 0.5])
    assert EnsembleClassifier(members).weights_.sum() == pytest.approx(1)


def test_the_mean_has_the_widest_dtype_of_the_members(of_classes):
    members = of_classes["two classes"]
    narrow = EnsembleClassifier([members["tabular"], members["sequential"]])
    assert narrow.predict_proba(X).dtype == np.float32
    assert EnsembleClassifier([members["tabular"], members["mlp"]]).predict_proba(X).dtype == np.float64


def test_columns_are_those_of_the_classes_of_the_first_member():
    words = np.array(["no", "yes"])[TWO]
    first = MLPClassifier((4,), max_iter=3, random_state=0).fit(X, words)
    second = MLPClassifier((6,), max_iter=3, random_state=1).fit(X, words)
    P = second.predict_proba(X)
    other_way = MLPClassifier((6,), max_iter=3, random_state=1).fit(X, np.array(["yes", "no"])[TWO])
    other_way.classes_ = np.array(["yes", "no"])
    found = EnsembleClassifier([first, other_way]).predict_proba(X)
    assert_allclose(found, (first.predict_proba(X) + other_way.predict_proba(X)[:, ::-1]) / 2)
    assert_array_equal(EnsembleClassifier([first, second]).classes_, ["no", "yes"])
    assert_allclose(EnsembleClassifier([first, second]).predict_proba(X), (first.predict_proba(X) + P) / 2)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, np.nan], [1, np.inf], ["a", "b"], 2.0])
def test_weights_that_are_no_shares_are_refused(of_classes, weights):
    members = list(of_classes["two classes"].values())[:2]
    with pytest.raises(ValueError, match="Expected weights above 0, one for each of 2 members, received"):
        EnsembleClassifier(members, weights).predict(X)


# --- Dask collections -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "predictive_entropy"])
@pytest.mark.parametrize("y", CLASSES)
def test_lazy_answers_of_a_dataframe_have_the_bits_and_the_index_of_plain_ones(of_classes, y, method):
    model = EnsembleClassifier(list(of_classes[y].values()), [1, 2, 3, 4, 5, 6])
    lazy = getattr(model, method)(in_parts(X))
    assert dask.is_dask_collection(lazy)
    found = lazy.compute()
    assert_array_equal(found.to_numpy(), part_by_part(getattr(model, method), X))
    assert_array_equal(found.index, X.index)
    pd.testing.assert_index_equal(lazy._meta.index[:0], found.index[:0])
    assert (lazy.dtypes == found.dtypes).all() if found.ndim == 2 else lazy.dtype == found.dtype
    if method == "predict_proba":
        assert list(found.columns) == [str(name) for name in range(found.shape[1])]


@pytest.mark.parametrize("y", NUMBERS)
def test_lazy_numbers_of_a_dataframe_have_the_bits_and_the_index_of_plain_ones(of_numbers, y):
    model = EnsembleRegressor(list(of_numbers[y].values()), [1, 2, 3, 4, 5, 6])
    for found, number in zip(model.predict(in_parts(X), return_std=True), (0, 1), strict=True):
        found = found.compute()
        plain = part_by_part(lambda rows, number=number: model.predict(rows, return_std=True)[number], X)
        assert_array_equal(found.to_numpy(), plain)
        assert_array_equal(found.index, X.index)
        assert found.ndim == np.ndim(NUMBERS[y])


@pytest.mark.parametrize("knows_lengths", [True, False])
def test_lazy_answers_of_an_array_have_the_bits_of_plain_ones(knows_lengths):
    rows = X.to_numpy()
    members = [
        MLPClassifier((4,), max_iter=3, random_state=0).fit(rows, THREE),
        dasknn.TabularClassifier(max_iter=2, members=2, hidden_layer_sizes=(8,), random_state=0).fit(
            rows, THREE
        ),
        sequential(3, "softmax", "sparse_categorical_crossentropy", THREE, rows=rows),
    ]
    model = EnsembleClassifier(members)
    lazy = in_parts(rows)
    if not knows_lengths:
        lazy = lazy[lazy[:, 0] < np.inf]
    for method in ("predict", "predict_proba", "predictive_entropy"):
        answer = getattr(model, method)(lazy)
        assert isinstance(answer, da.Array)
        found = answer.compute()
        plain = [getattr(model, method)(rows[i:j]) for i, j in pairwise(EDGES)]
        assert_array_equal(found, np.concatenate(plain))
        assert answer.dtype == found.dtype
        assert answer.ndim == found.ndim


@pytest.mark.parametrize("kind", ["U", "O"])
def test_labels_of_text_are_text_in_a_dask_series(kind):
    words = np.array(["no", "yes"])[TWO].astype(kind)
    members = [MLPClassifier((n,), max_iter=2, random_state=0).fit(X, words) for n in (3, 4)]
    model = EnsembleClassifier(members)
    lazy = model.predict(in_parts(X))
    assert lazy.dtype == lazy.compute().dtype == members[0].predict(in_parts(X)).dtype
    assert_array_equal(lazy.compute().to_numpy(), model.predict(X))
    assert list(model.predict_proba(in_parts(X)).columns) == ["no", "yes"]


def test_the_scheduler_changes_no_bit(client, of_classes):
    model = EnsembleClassifier(list(of_classes["three classes"].values()))
    with dask.config.set(scheduler="synchronous"):
        expected = model.predict_proba(in_parts(X)).compute()
    # Dask's client is the default scheduler now.
    assert_array_equal(model.predict_proba(in_parts(X)).compute(), expected)


@pytest.mark.parametrize("y", CLASSES)
def test_dask_data_is_scored_as_plain_data(of_classes, y):
    model = EnsembleClassifier(list(of_classes[y].values()))
    weight = np.linspace(0, 2, N)
    targets = CLASSES[y]
    lazy = in_parts(targets) if y != "labels" else dd.from_dask_array(in_parts(targets))
    found = model.score(in_parts(X), lazy, in_parts(pd.Series(weight, X.index)))
    assert found == pytest.approx(model.score(X, targets, weight))


@pytest.mark.parametrize("y", NUMBERS)
def test_dask_numbers_are_scored_as_plain_ones(of_numbers, y):
    model = EnsembleRegressor(list(of_numbers[y].values()))
    targets = NUMBERS[y]
    lazy = in_parts(targets) if y == "a number" else dd.from_dask_array(in_parts(targets))
    assert model.score(in_parts(X), lazy) == pytest.approx(model.score(X, targets))


def test_rows_that_cannot_be_scored_are_named_by_their_partition(of_classes):
    model = EnsembleClassifier(list(of_classes["two classes"].values()))
    y = TWO.astype(float)
    y.iloc[105] = np.nan
    with pytest.raises(ValueError, match="artition 1"):
        model.score(in_parts(X), in_parts(y))
    with pytest.raises(ValueError, match="at least one row with a weight above 0"):
        model.score(in_parts(X), in_parts(TWO), in_parts(pd.Series(np.zeros(N), X.index)))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("y", CLASSES)
def test_each_kind_of_classifier_comes_back_from_a_file_with_the_same_bits(of_classes, y, kind, tmp_path):
    members = [of_classes[y][kind], of_classes[y]["mlp"]]
    model = EnsembleClassifier(members, [1, 3])
    model.save(tmp_path / "m")
    again = dasknn.load(tmp_path / "m")
    assert type(again) is EnsembleClassifier
    assert [type(member) for member in again.members_] == [type(member) for member in members]
    assert again.weights == [1, 3]
    # Nobody trains an ensemble on.
    assert not [name for name in safetensors_file.read(tmp_path / "m")[1] if name.endswith("slots")]
    assert_array_equal(again.classes_, model.classes_)
    assert_array_equal(again.feature_names_in_, X.columns)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("y", NUMBERS)
def test_each_kind_of_regressor_comes_back_from_a_file_with_the_same_bits(of_numbers, y, kind):
    model = EnsembleRegressor([of_numbers[y]["wider"], of_numbers[y][kind]])
    dasknn.save(model, "memory://ensemble.safetensors")
    again = dasknn.load("memory://ensemble.safetensors")
    assert type(again) is EnsembleRegressor
    assert again.weights is None
    assert_array_equal(again.predict(X, return_std=True), model.predict(X, return_std=True))


def margin_loss(y_true, y_pred):
    return (y_true - y_pred) ** 2


def test_functions_of_members_are_passed_on(tmp_path):
    member = sequential(1, None, "mse", NUMBER)
    member.compile("adam", "mse", metrics=[margin_loss])
    EnsembleRegressor([member]).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="margin_loss"):
        dasknn.load(tmp_path / "m")
    again = dasknn.load(tmp_path / "m", custom_objects={"margin_loss": margin_loss})
    assert_array_equal(again.predict(X), EnsembleRegressor([member]).predict(X))


@pytest.fixture
def saved(of_classes, tmp_path):
    members = of_classes["two classes"]
    EnsembleClassifier([members["mlp"], members["pipeline"]], [1, 2]).save(tmp_path / "m")
    return tmp_path / "m"


def test_every_damaged_byte_is_noticed(saved):
    data = saved.read_bytes()
    for at in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[at] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            dasknn.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, a: d.update(members=[]), "a list of 1"),
        (lambda d, a: d.update(kind="EnsembleRegressor"), "Expected members that predict numbers"),
        (lambda d, a: d.update(weights=[1]), "one for each of 2 members"),
        (lambda d, a: d.update(weights=[1, -1]), "weights above 0"),
        (lambda d, a: d.update(weights=[1, "x"]), r"a finite number at weights\[1\]"),
        (lambda d, a: d.pop("versions"), "expected 'versions'"),
        (lambda d, a: d["members"].pop(), "arrays of 1 members, received '1.members'"),
        (lambda d, a: a.pop("0.members"), "the array '0.members'"),
        (lambda d, a: a.update({"2.members": a["0.members"]}), "arrays of 2 members"),
        (lambda d, a: a.update({"0.members": a["1.members"]}), "Expected parameters of shape"),
        (lambda d, a: d["members"][0].update(kind="EnsembleClassifier"), r"at members\[0\].kind"),
        (lambda d, a: d["members"][0].update(kind="TablePreprocessor"), r"at members\[0\].kind"),
        (
            lambda d, a: d["members"][0]["targets"].update(classes=[0, 5]),
            "Expected members that predict the same",
        ),
        (lambda d, a: d["members"][1]["steps"][0]["columns"].pop(), r"members\[1\]"),
        (lambda d, a: d["members"][0]["fitted"].update(predict=5), r"members\[0\].*received 'predict'"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused_and_says_where(saved, change, message):
    description, arrays = safetensors_file.read(saved)
    change(description, arrays)
    safetensors_file.write(saved, description, arrays)
    with pytest.raises(ModelFileError, match=message) as caught:
        dasknn.load(saved)
    assert str(caught.value).count(str(saved)) == 1


def test_a_file_that_keras_would_have_is_refused(of_classes, tmp_path):
    with pytest.raises(ValueError, match=r"such as 'model\.safetensors'"):
        EnsembleClassifier([of_classes["two classes"]["mlp"]]).save(tmp_path / "m.keras")


# --- members --------------------------------------------------------------------------------------


def test_members_that_know_other_classes_are_refused(of_classes):
    two, three = of_classes["two classes"], of_classes["three classes"]
    with pytest.raises(ValueError, match=r"classes \[0, 1, 2\] of members\[0\] and the classes \[0, 1\] of"):
        EnsembleClassifier([three["mlp"], two["sequential"]]).predict(X)
    words = MLPClassifier((3,), max_iter=2).fit(X, np.array(["no", "yes"])[TWO])
    with pytest.raises(ValueError, match="Expected members that predict the same"):
        EnsembleClassifier([two["mlp"], words]).predict_proba(X)
    with pytest.raises(ValueError, match=r"and the labels \[0, 1, 2\]"):
        EnsembleClassifier([three["mlp"], of_classes["labels"]["mlp"]]).predict(X)


def test_members_of_other_targets_or_columns_are_refused(of_classes, of_numbers):
    one, two = of_numbers["a number"], of_numbers["two numbers"]
    with pytest.raises(ValueError, match=r"received 1 numbers of members\[0\] and 2 numbers of members\[1\]"):
        EnsembleRegressor([one["mlp"], two["tabular"]]).predict(X)
    narrow = MLPRegressor(max_iter=1).fit(X[["a", "b"]], NUMBER)
    with pytest.raises(ValueError, match=r"3 columns of members\[0\] and 2 of members\[1\]"):
        EnsembleRegressor([one["mlp"], narrow]).predict(X)
    turned = MLPRegressor(max_iter=1).fit(X[["c", "b", "a"]], NUMBER)
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\] and \['c', 'b', 'a'\]"):
        EnsembleRegressor([one["sequential"], turned]).predict(X)
    with pytest.raises(ValueError, match="Use EnsembleRegressor"):
        EnsembleClassifier([one["sequential"]]).predict(X)
    with pytest.raises(ValueError, match="Use EnsembleClassifier"):
        EnsembleRegressor([of_classes["two classes"]["sequential"]]).predict(X)


@pytest.mark.parametrize("models", [[LogisticRegression()], [1], ["mlp"], None, 5, MLPClassifier()])
def test_what_cannot_be_a_member_is_refused(models):
    with pytest.raises(TypeError, match="Expected members"):
        EnsembleClassifier(models).predict(X)
    with pytest.raises(ValueError, match="Expected at least one member, received none"):
        EnsembleClassifier([]).predict(X)


def test_margins_are_no_probabilities():
    member = sequential(1, None, "hinge", 2 * TWO - 1)
    with pytest.raises(ValueError, match=r"whose outputs are margins\. Train it with a crossentropy"):
        EnsembleClassifier([member]).predict(X)


def test_columns_of_other_names_are_refused_as_by_a_member(of_classes):
    model = EnsembleClassifier(list(of_classes["two classes"].values()))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"a": "z"}))


# --- scikit-learn's conventions -------------------------------------------------------------------


def test_there_is_nothing_to_fit(of_classes):
    model = EnsembleClassifier([of_classes["two classes"]["mlp"]])
    with pytest.raises(NotImplementedError, match="Fit the members, or search for some"):
        model.fit(X, TWO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(FrozenEstimator(model), X, TWO, cv=2)
    assert len(scores) == 2


def test_a_clone_is_not_fitted(of_classes, of_numbers):
    for model in (
        EnsembleClassifier(list(of_classes["two classes"].values()), [1, 2, 3, 4, 5, 6]),
        EnsembleRegressor(list(of_numbers["a number"].values())[:2]),
    ):
        check_is_fitted(model)
        twin = clone(model)
        assert twin.weights == model.weights
        assert [type(member) for member in twin.members] == [type(member) for member in model.members]
        assert not hasattr(twin, "members_")
        with pytest.raises(NotFittedError, match="has members that are not fitted"):
            twin.predict(X)
        with pytest.raises(NotFittedError):
            check_is_fitted(twin)


def test_parameters_are_those_that_were_given(of_classes):
    members = list(of_classes["two classes"].values())[:2]
    model = EnsembleClassifier(members, weights=[1, 2])
    assert model.get_params(deep=False) == {"members": members, "weights": [1, 2]}
    assert model.set_params(weights=None).weights_.tolist() == [0.5, 0.5]
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


def test_it_is_shown_in_a_line(of_classes):
    members = of_classes["two classes"]
    model = EnsembleClassifier([members["mlp"], members["wider"], members["pipeline"]], [1, 2, 1])
    assert repr(model) == "EnsembleClassifier(<2 MLPClassifier, 1 Pipeline>, weights=[1, 2, 1])"
    assert repr(EnsembleRegressor([])) == "EnsembleRegressor(<none>)"
    # Also where parameters are wrong, since errors show it.
    assert (
        repr(EnsembleRegressor(None, np.array([0.5, 2]))) == "EnsembleRegressor(<none>, weights=[0.5, 2.0])"
    )
    assert repr(EnsembleRegressor([], 2)) == "EnsembleRegressor(<none>, weights=2)"
    html = model._repr_html_()
    assert "EnsembleClassifier" in html
    assert "hidden_layer_sizes=(4,), max_iter=3, random_state" not in html


def test_tags_are_those_that_all_members_have(of_classes, of_numbers):
    members = of_classes["two classes"]
    tabular = EnsembleClassifier([members["tabular"]])
    assert is_classifier(tabular)
    assert get_tags(tabular).input_tags.allow_nan
    assert get_tags(tabular).classifier_tags.multi_label
    mixed = EnsembleClassifier([members["tabular"], members["mlp"]])
    assert not get_tags(mixed).input_tags.allow_nan
    assert get_tags(mixed).input_tags.sparse
    assert is_regressor(EnsembleRegressor([of_numbers["a number"]["mlp"]]))
    assert get_tags(EnsembleRegressor(None)).estimator_type == "regressor"


def test_it_knows_what_its_members_know(of_classes):
    members = of_classes["two classes"]
    model = EnsembleClassifier([members["sequential"], members["mlp"]])
    assert model.n_features_in_ == 3
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.members_ == [members["sequential"], members["mlp"]]
    named = MLPClassifier((3,), max_iter=1).fit(X, TWO.rename("bought"))
    assert EnsembleClassifier([members["sequential"], named]).target_name_ == "bought"
    assert not hasattr(EnsembleClassifier([members["sequential"]]), "target_name_")


# --- evaluation and plots -------------------------------------------------------------------------


def test_an_evaluation_has_the_metrics_of_the_mean_and_asks_each_member_once(of_classes, monkeypatch):
    members = list(of_classes["three classes"].values())
    model = EnsembleClassifier(members, [1, 2, 3, 4, 5, 6])
    found = dasknn.evaluate(model, in_parts(X), in_parts(THREE)).iloc[0]
    assert found["accuracy"] == pytest.approx(accuracy_score(THREE, model.predict(X)))
    assert found["log_loss"] == pytest.approx(log_loss(THREE, model.predict_proba(X)), rel=1e-6)
    asked = []
    forward = dasknn.training.prediction.Predictor.outputs
    monkeypatch.setattr(
        dasknn.training.prediction.Predictor,
        "outputs",
        lambda self, rows: asked.append(len(rows)) or forward(self, rows),
    )
    dasknn.evaluate(model, X, THREE)
    assert sum(asked) == N * len(members)


@pytest.mark.parametrize("y", NUMBERS)
def test_an_evaluation_of_numbers_has_the_metrics_of_the_mean(of_numbers, y):
    model = EnsembleRegressor(list(of_numbers[y].values()), [1, 2, 3, 4, 5, 6])
    found = dasknn.evaluate(model, X, NUMBERS[y], "r2").iloc[0]
    assert found["r2"] == pytest.approx(r2_score(NUMBERS[y], model.predict(X)), rel=1e-6)


def test_it_is_compared_with_a_member_by_slices(of_classes):
    members = of_classes["two classes"]
    model = EnsembleClassifier([members["mlp"], members["tabular"]])
    slices = pd.DataFrame({"region": np.where(X["c"] > 0, "north", "south")}, index=X.index)
    found = dasknn.compare(
        model,
        members["mlp"],
        in_parts(X),
        in_parts(TWO),
        "accuracy",
        "region",
        slice_data=in_parts(slices),
        min_rows=1,
    )
    assert list(found["slice"]) == ["all", "region=north", "region=south"]
    expected = accuracy_score(TWO, model.predict(X)) - accuracy_score(TWO, members["mlp"].predict(X))
    assert found["accuracy_difference"].iloc[0] == pytest.approx(expected)
    plots.SlicesDisplay.from_evaluation(found)
    plt.close("all")


def test_columns_that_matter_are_found_and_drawn(of_classes, of_numbers):
    model = EnsembleClassifier(list(of_classes["two classes"].values()))
    found = dasknn.permutation_importance(model, in_parts(X), in_parts(TWO), random_state=0)
    assert len(found.importances_mean) == 3
    plots.ImportanceDisplay.from_estimator(model, X, TWO)
    plots.PartialDependenceDisplay.from_estimator(model, X, ["a"])
    plt.close("all")
    numbers = EnsembleRegressor(list(of_numbers["a number"].values()))
    averages = dasknn.partial_dependence(numbers, X, ["a"])
    value = averages.values["a"][0]
    assert_allclose(averages.average["a"][0, 0], numbers.predict(X.assign(a=value)).mean(), rtol=1e-6)


def test_a_confusion_matrix_is_that_of_the_mean(of_classes):
    model = EnsembleClassifier(list(of_classes["three classes"].values()))
    shown = plots.ConfusionMatrixDisplay.from_estimator(model, in_parts(X), in_parts(THREE))
    assert_array_equal(shown.confusion_matrix, confusion_matrix(THREE, model.predict(X)))
    plt.close("all")


@pytest.mark.parametrize("name", ["RocCurveDisplay", "PrecisionRecallDisplay", "CalibrationDisplay"])
@pytest.mark.parametrize("y", ["two classes", "three classes"])
def test_curves_are_drawn(of_classes, name, y):
    model = EnsembleClassifier(list(of_classes[y].values()))
    getattr(plots, name).from_estimator(model, in_parts(X), in_parts(CLASSES[y]))
    plt.close("all")


@pytest.mark.parametrize("name", ["LearningCurveDisplay", "EpochTimesDisplay"])
def test_it_has_no_history_to_draw(of_classes, name):
    model = EnsembleClassifier([of_classes["two classes"]["mlp"]])
    with pytest.raises(TypeError, match="EnsembleClassifier, which has no history_"):
        getattr(plots, name).from_estimator(model)


def test_an_evaluation_refuses_columns_of_other_names_as_each_member_does(of_classes):
    members = of_classes["two classes"]
    for kinds in (["mlp", "tabular"], ["tabular", "sequential"]):
        model = EnsembleClassifier([members[kind] for kind in kinds])
        turned = pd.DataFrame(X[["c", "b", "a"]])
        with pytest.raises(ValueError, match=r"feature names should match|same order"):
            dasknn.evaluate(model, turned, TWO)


def test_sequentials_take_rows_of_several_dimensions_and_targets_that_are_one_hot():
    dasknn.set_random_seed(0)
    rows, targets = X.to_numpy().reshape(N, 3, 1), np.eye(3)[THREE]
    member = Sequential([Input((3, 1)), Flatten(), Dense(3, activation="softmax")])
    member.compile("adam", "categorical_crossentropy")
    member.fit(rows, targets, epochs=1, verbose=0)
    model = EnsembleClassifier([member, member])
    assert model.n_features_in_ == 3
    expected = accuracy_score(THREE, model.predict(rows))
    lazy = da.from_array(rows, chunks=(100, 3, 1))
    assert_array_equal(model.predict(lazy).compute(), model.predict(rows))
    assert dasknn.evaluate(model, lazy, targets)["accuracy"][0] == pytest.approx(expected)


ran_on = set()


def note(rows):
    """Note which worker makes rows; workers that are threads share this module."""
    ran_on.add(get_worker().address)
    return rows


def test_an_ensemble_is_scored_on_the_workers_that_are_named(new_cluster, of_classes):
    client = new_cluster(3, processes=False)
    model = EnsembleClassifier([of_classes["two classes"]["sequential"]])
    wanted = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]
    model.client, model.workers = client, [wanted]
    rows = da.from_array(X.to_numpy(), chunks=(20, -1)).map_blocks(note, meta=np.empty((0, 0)))
    y = da.from_array(TWO.to_numpy(), chunks=20)
    expected = accuracy_score(TWO, model.predict(X))
    ran_on.clear()
    assert model.score(rows, y) == pytest.approx(expected)
    assert ran_on == {wanted}
    assert dasknn.evaluate(model, rows, y)["accuracy"][0] == pytest.approx(expected)
    assert ran_on == {wanted}
    assert (clone(model).client, clone(model).workers) == (client, [wanted])
