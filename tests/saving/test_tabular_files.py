"""Files of the estimators for tables: the same bits of predictions, and nothing of what does not fit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

import dasknn
from dasknn import TabularClassifier, TabularRegressor
from dasknn.exceptions import ModelFileError
from dasknn.saving import safetensors_file
from tests.data.tables.raw_tables import mixed

GOLDEN = Path(__file__).parents[1] / "golden"
FRAME = mixed(120)
NUMBERS = FRAME["age"].to_numpy(np.float64)
LABELS = np.where(NUMBERS > 50, "old", "young")
SMALL = {"members": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "batch_size": 32, "random_state": 0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("settings", [
    {}, {"strategy": "predictions", "replicas": 2}, {"embedding": None}, {"embedding": "encoding"},
    {"hidden_layer_sizes": (8, 8), "adapters": "all"}, {"members": 1, "dtype": "float64"},
], ids=str)  # fmt: skip
def test_a_loaded_model_predicts_the_same_bits_and_has_the_same_attributes(path, settings):
    model = TabularClassifier(**{**SMALL, **settings}, class_weight={"old": 2.0}).fit(FRAME, LABELS)
    model.save(path)
    loaded = dasknn.load(path)
    assert type(loaded) is TabularClassifier
    assert_array_equal(loaded.predict_proba(FRAME), model.predict_proba(FRAME))
    assert_array_equal(loaded.predict(FRAME), model.predict(FRAME))
    assert loaded.get_params() == model.get_params()
    public = {name for name in vars(model) if name.endswith("_")}
    assert public == {name for name in vars(loaded) if name.endswith("_")}
    assert loaded._table == model._table
    assert loaded.temperature_ == model.temperature_
    assert len(loaded.members_) == len(model.members_)


@pytest.mark.parametrize("settings", [{}, {"quantiles": [0.1, 0.5, 0.9]}], ids=str)
def test_a_loaded_regressor_has_the_same_quantiles_intervals_and_deviations(path, settings):
    model = TabularRegressor(**SMALL, **settings).fit(FRAME, NUMBERS)
    model.save(path)
    loaded = dasknn.load(path)
    assert_array_equal(loaded.predict(FRAME, return_std=True), model.predict(FRAME, return_std=True))
    assert_array_equal(loaded.predict_interval(FRAME, 0.8), model.predict_interval(FRAME, 0.8))
    if settings:
        assert_array_equal(loaded.predict_quantiles(FRAME), model.predict_quantiles(FRAME))


def test_a_file_of_a_loaded_model_is_the_same(path, tmp_path):
    TabularClassifier(**SMALL).fit(FRAME, LABELS).save(path)
    again = tmp_path / "again.safetensors"
    dasknn.load(path).save(again)
    (first, arrays), (second, same) = (safetensors_file.read(one) for one in (path, again))
    assert first == second
    assert arrays.keys() == same.keys()
    assert_array_equal(arrays["members"], same["members"])


def test_a_file_holds_the_recipe_and_what_was_learned_of_each_column(path):
    model = TabularClassifier(**SMALL).fit(FRAME, LABELS)
    model.save(path)
    loaded = dasknn.load(path)
    assert loaded.recipe_ == model.recipe_
    assert loaded.columns_ == model.columns_
    assert loaded.best_epoch_ == model.best_epoch_ is not None
    assert loaded.members_[1].columns_ == model.columns_


def test_older_files_do_not_say_which_categories_were_missing():
    columns = {column.name: column for column in dasknn.load(GOLDEN / "tabular.safetensors").columns_}
    assert (columns["job"].n_categories, columns["job"].has_missing) == (3, None)
    assert columns["age"].has_missing is True


@pytest.mark.parametrize("name", ["tabular", "tabular_quantiles"])
def test_the_best_epoch_of_older_files_is_found_in_their_history(name):
    model = dasknn.load(GOLDEN / f"{name}.safetensors")
    sign, watched = (1, "validation_score") if name == "tabular" else (-1, "val_loss")
    scores = [sign * entry[watched] for entry in model.history_]
    assert scores[model.best_epoch_ - 1] == max(scores)


def test_what_was_not_fitted_is_not_saved(path):
    with pytest.raises(NotFittedError):
        TabularClassifier().save(path)
    assert not path.exists()


def test_arrays_are_predicted_where_there_is_no_pandas(path, tmp_path):
    X = np.random.default_rng(0).standard_normal((60, 3))
    model = TabularClassifier(**SMALL).fit(X, X[:, 0] > 0)
    model.save(path)
    np.savez(tmp_path / "expected.npz", X=X, P=model.predict_proba(X))
    program = f"""
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("pandas", "pyarrow"): raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import dask.array as da
import numpy as np
import dasknn
model = dasknn.load({str(path)!r})
expected = np.load({str(tmp_path / "expected.npz")!r})
X, P = expected["X"], expected["P"]
assert np.array_equal(model.predict_proba(X), P)
assert [column.becomes for column in model.columns_] == ["a vector of 16"] * 3
assert np.allclose(model.predict_proba(da.from_array(X, chunks=(25, -1))).compute(), P, atol=1e-6)
settings = dict(members=2, hidden_layer_sizes=(4,), max_iter=1)
assert dasknn.TabularClassifier(**settings).fit(X, X[:, 0] > 0).predict(X).shape == (60,)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# --- files of this version, for later ones -----------------------------------------------------------


def test_files_of_earlier_versions_predict_what_they_did():
    expected = json.loads((GOLDEN / "tabular.json").read_text())
    rows = pd.DataFrame(expected["rows"])
    rows["seen"] = pd.to_datetime(rows["seen"].replace("NaT", None))
    classifier = dasknn.load(GOLDEN / "tabular.safetensors")
    regressor = dasknn.load(GOLDEN / "tabular_quantiles.safetensors")
    assert classifier.classes_.tolist() == ["old", "young"]
    assert_allclose(classifier.predict_proba(rows), expected["probabilities"], atol=1e-5)
    assert_allclose(regressor.predict_quantiles(rows), expected["quantiles"], atol=1e-5)
    assert_allclose(regressor.predict_interval(rows, 0.8), expected["intervals"], atol=1e-5)


# --- files that say something else -------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    settings = {**SMALL, "quantiles": [0.1, 0.9]}
    TabularRegressor(**settings).fit(FRAME, NUMBERS).save(path)
    return safetensors_file.read(path)


def changed(description, keys, value):
    """A description with another value at a path."""
    description = json.loads(json.dumps(description))
    owner = description
    for key in keys[:-1]:
        owner = owner[key]
    owner[keys[-1]] = value
    return description


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["kind"], "MLPRegressor", "model"),
        (["table", "columns"], [], "columns"),
        (["table", "columns", 0, "name"], "another", "names of features that are those of the table"),
        (["feature_names_in"], ["age"], "names of features that are those of the table"),
        (["layers"], [], "layers"),
        (["layers", -1, "class_name"], "Dense", "."),
        (["layers", -1, "config", "units"], 3, "."),
        (["layers", -1, "config", "members"], 3, "."),
        (["recipe", "members"], 0, "recipe.members"),
        (["temperature"], 0.0, "temperature"),
        (["targets", "scale"], [-1.0], "scales above 0"),
        (["targets", "mean"], [0.0, 0.0], "1 means"),
        (["targets", "levels"], [0.9, 0.1], "ascending levels"),
        (["targets", "levels"], [0.1], "expected 1 units in the last layer"),
        (["parameters", "members"], -3, "'members' parameter"),
        (["parameters", "evil"], 1, "evil"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused_and_says_where(path, parts, keys, value, message):
    description, arrays = parts
    safetensors_file.write(path, changed(description, keys, value), arrays)
    with pytest.raises(ModelFileError, match=message) as caught:
        dasknn.load(path)
    assert str(caught.value).count(str(path)) == 1


def test_codes_that_the_network_does_not_take_are_refused(path, parts):
    description, arrays = parts
    place = [column["name"] for column in description["table"]["columns"]].index("job")
    more = [*description["table"]["columns"][place]["values"], "sailor"]
    safetensors_file.write(path, changed(description, ["table", "columns", place, "values"], more), arrays)
    with pytest.raises(ModelFileError, match="integers from 0 to 3"):
        dasknn.load(path)


@pytest.mark.parametrize(
    "errors",
    [
        {"errors": np.zeros((2, 2))},
        {"errors": np.array([2.0, 1.0]), "errors_rows": np.array([1, 1])},
        {"errors": np.array([np.nan]), "errors_rows": np.array([1])},
        {"errors": np.array([1.0]), "errors_rows": np.array([-1])},
        {"errors": np.array([1.0]), "errors_rows": np.array([1.0])},
        {"errors": np.zeros(0), "errors_rows": np.zeros(0, np.int64)},
    ],
    ids=str,
)
def test_errors_that_are_none_are_refused(path, parts, errors):
    description, arrays = parts
    safetensors_file.write(path, description, {"members": arrays["members"], **errors})
    with pytest.raises(ModelFileError, match="ascending errors"):
        dasknn.load(path)
