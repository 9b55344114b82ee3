"""Mean predictions by value are those of scikit-learn, for columns of every kind."""

from decimal import Decimal

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import partial_dependence
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline

import dasknn
from dasknn import Input, MLPClassifier, Sequential, TablePreprocessor
from dasknn.layers import Dense

N = 600


@pytest.fixture(scope="module")
def table():
    """X (n, 3) of few and of many distinct numbers, y (n,), weight (n,)."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 12, N), rng.normal(size=N), rng.normal(size=N)])
    return X, X @ [0.5, 1.0, 0.0] + 0.3 * rng.normal(size=N), rng.uniform(0, 2, N)


class FromColumns(RegressorMixin, BaseEstimator):
    """Predicts a function of the table."""

    def __init__(self, function=None):
        self.function = function

    def fit(self, X=None, y=None):
        self.is_fitted_ = True
        return self

    def predict(self, X):
        return np.asarray(self.function(X), dtype=float)


# --- the same numbers as scikit-learn -------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "Dask array", "Dask dataframe"])
def test_averages_of_a_regression_are_those_of_scikit_learn(table, kind, weighted):
    X, y, weight = table
    names = ["x0", "x1", "x2"]
    plain = pd.DataFrame(X, columns=names) if kind == "Dask dataframe" else X
    data = {"numpy": X, "Dask array": da.from_array(X, chunks=(170, -1))}
    data["Dask dataframe"] = dd.from_pandas(pd.DataFrame(X, columns=names), npartitions=4)
    weight = weight if weighted else None
    of_rows = weight
    if weighted and kind == "Dask dataframe":
        of_rows = dd.from_pandas(pd.Series(weight), npartitions=4)
    model = LinearRegression().fit(plain, y)
    found = dasknn.partial_dependence(model, data[kind], names[:2], sample_weight=of_rows)
    for column, name in enumerate(names[:2]):
        theirs = partial_dependence(
            model,
            plain,
            [column],
            sample_weight=weight,
            method="brute",
            custom_values={column: found.values[name]},
        )
        assert_allclose(found.average[name], theirs["average"], rtol=1e-10)
    assert_array_equal(found.values["x0"], np.unique(X[:, 0]))
    # Quantiles, which are values of the data.
    assert len(found.values["x1"]) == 50
    assert (np.diff(found.values["x1"]) > 0).all()
    assert np.isin(found.values["x1"], X[:, 1]).all()
    assert_allclose(found.values["x1"][[0, -1]], np.quantile(X[:, 1], [0.05, 0.95]), atol=0.05)
    assert found.is_category == {"x0": False, "x1": False}
    assert found.classes is None
    assert found.n_samples == N


@pytest.mark.parametrize("units", [1, 2])
def test_averages_of_a_sequential_of_numbers_are_means_of_its_outputs(table, units):
    X, y, _ = table
    dasknn.set_random_seed(0)
    model = Sequential([Input((3,)), Dense(units)])
    model.compile("adam", "mse")
    model.fit(X, np.column_stack([y, y + 5])[:, :units], epochs=2, verbose=0)
    found = dasknn.partial_dependence(model, X, [0])
    for place, value in enumerate(found.values["x0"]):
        changed = X.copy()
        changed[:, 0] = value
        assert_allclose(
            found.average["x0"][:, place], model.predict(changed, verbose=0).mean(axis=0), rtol=1e-5
        )


@pytest.mark.parametrize("k", [2, 3])
def test_averages_of_a_classifier_are_probabilities_of_each_class(table, k):
    X, y, _ = table
    labels = np.array(["low", "middle", "tall"])[np.digitize(y, np.quantile(y, np.arange(1, k) / k))]
    model = LogisticRegression().fit(X, labels)
    found = dasknn.partial_dependence(model, X, "x0")
    theirs = partial_dependence(model, X, [0], method="brute")
    assert found.average["x0"].shape == (k, 12)
    assert_allclose(found.average["x0"][1 if k == 2 else slice(None)], np.squeeze(theirs["average"]))
    assert_allclose(found.average["x0"].sum(axis=0), 1)
    assert found.classes.tolist() == ["low", "middle", "tall"][:k]
    assert found.response == "predict_proba"


def test_models_without_probabilities_have_averages_of_scores(table):
    X, y, _ = table
    model = RidgeClassifier().fit(X, y > y.mean())
    found = dasknn.partial_dependence(model, X, 0)
    theirs = partial_dependence(model, X, [0], method="brute", response_method="decision_function")
    assert found.response == "decision_function"
    assert_allclose(found.average["x0"][1], theirs["average"][0])
    assert repr(found).startswith("partial dependence of decision_function, 600 rows\n  x0  12 values, ")


def test_networks_several_outputs_and_sparse_rows(table):
    X, y, _ = table
    model = MLPClassifier((4,), max_iter=3, random_state=0).fit(X, y > y.mean())
    found, of_sparse = (dasknn.partial_dependence(model, data, [2]) for data in (X, sparse.csr_matrix(X)))
    assert_array_equal(found.values["x2"], of_sparse.values["x2"])
    assert_allclose(found.average["x2"], of_sparse.average["x2"], rtol=1e-6)
    network = Sequential([Input((3,)), Dense(3, activation="softmax")])
    network.build()
    assert dasknn.partial_dependence(network, X, 0).average["x0"].shape == (3, 12)
    two = LinearRegression().fit(X, np.column_stack([y, -y]))
    average = dasknn.partial_dependence(two, X, 0).average["x0"]
    assert_allclose(average[0], -average[1], rtol=1e-9)


# --- kinds of columns -----------------------------------------------------------------------------


def columns_of_all_kinds():
    n = 120
    texts = ["b"] * 50 + ["a"] * 40 + [None] * 20 + ["c"] * 10
    sizes = pd.Categorical(["M"] * 60 + ["S"] * 40 + [None] * 5 + ["L"] * 15, ["S", "M", "L"], ordered=True)
    return pd.DataFrame(
        {
            "text": texts,
            "size": sizes,
            "member": np.arange(n) % 3 == 0,
            "perhaps": pd.array([True, None, False] * 40, dtype="boolean"),
            "whole": pd.array([1, 2, None, 4] * 30, dtype="Int64"),
            "day": pd.date_range("2024-01-01", periods=n, tz="UTC"),
            "price": [Decimal(i % 4) for i in range(n)],
            "empty": np.full(n, np.nan),
        }
    )


def averages(name, function, **settings):
    frame = columns_of_all_kinds()
    found = dasknn.partial_dependence(FromColumns(function).fit(), frame, name, **settings)
    return found, found.values[name], found.average[name][0]


def test_categories_are_the_most_frequent_values():
    found, values, average = averages("text", lambda X: X["text"].map({"a": 1, "b": 2, "c": 3}).fillna(9))
    assert values.tolist() == ["b", "a", None, "c"]
    assert average.tolist() == [2, 1, 9, 3]
    assert found.is_category == {"text": True}
    assert found.labels("text") == ["b", "a", "missing", "c"]
    _, values, _ = averages("text", lambda X: X["text"] == "a", max_categories=2)
    assert values.tolist() == ["b", "a"]


def test_ordered_categories_and_booleans_are_in_their_order():
    _, values, average = averages("size", lambda X: X["size"].cat.codes)
    assert values.tolist() == ["S", "M", "L", None]
    assert average.tolist() == [0, 1, 2, -1]
    _, values, average = averages("member", lambda X: X["member"].astype(int))
    assert values.tolist() == [False, True]
    assert average.tolist() == [0, 1]
    _, values, _ = averages("perhaps", lambda X: X["perhaps"].isna())
    assert values.tolist() == [False, True, None]


def test_numbers_and_dates_ascend_without_missing_ones():
    _, values, average = averages("whole", lambda X: X["whole"].astype(float))
    assert values.tolist() == average.tolist() == [1, 2, 4]
    _, values, average = averages("price", lambda X: X["price"].astype(float))
    assert values.tolist() == average.tolist() == [0, 1, 2, 3]
    _, values, average = averages("day", lambda X: X["day"].dt.day_of_year, grid_resolution=5)
    # The least values that 5%, 27.5%, ... of the 120 days do not exceed.
    assert average.tolist() == [6, 33, 60, 87, 114]
    assert values[0] == np.datetime64("2024-01-06")
    with pytest.raises(ValueError, match="Expected values in column 'empty', received none in the 120 rows"):
        averages("empty", lambda X: X["whole"].notna())


def test_arrays_of_objects_may_hold_numbers_beside_text():
    X = np.array([["a", 1, True], ["b", 2.5, False], [None, None, True], ["a", 1, True]], dtype=object)
    model = FromColumns(lambda X: [0 if row[1] is None else row[1] for row in X]).fit()
    found = dasknn.partial_dependence(model, X, [0, 1, 2])
    assert found.values["x0"].tolist() == ["a", "b", None]
    assert found.values["x1"].tolist() == found.average["x1"][0].tolist() == [1, 2.5]
    assert found.values["x2"].tolist() == [True, False]
    assert found.is_category == {"x0": True, "x1": False, "x2": True}


# --- the same everywhere --------------------------------------------------------------------------


def test_text_of_a_raw_table_goes_through_a_pipeline_on_any_cluster(cluster):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"region": rng.choice(["n", "s"], N), "hours": rng.normal(size=N)})
    frame["label"] = np.where(
        frame["hours"] + 2 * (frame["region"] == "n") + rng.normal(size=N) > 1, "y", "x"
    )
    names = ["region", "hours"]

    def dependence(n_parts, **settings):
        data = dd.from_pandas(frame, npartitions=n_parts)
        return dasknn.partial_dependence(model, data[names], names, random_state=0, **settings)

    model = make_pipeline(TablePreprocessor(), MLPClassifier((8,), max_iter=30, random_state=0))
    model.fit(frame[names], frame["label"])
    here = dependence(1)
    north = here.values["region"].tolist().index("n")
    assert here.average["region"][1][north] > here.average["region"][1][1 - north] + 0.1
    assert here.average["hours"][1][-1] > here.average["hours"][1][0] + 0.1
    others = [dependence(3), dependence(7), dasknn.partial_dependence(model, frame[names], names)]
    few = dependence(3, max_samples=200)
    assert few.n_samples == 200
    with Client(cluster) as client:
        others += [dependence(3), dasknn.partial_dependence(model, frame[names], names, client=client)]
        again = dependence(3, max_samples=200)
        assert_nothing_left(client)
    for name in names:
        assert_array_equal(few.average[name], again.average[name])
        assert not np.array_equal(few.average[name], here.average[name])
        for other in others:
            assert_array_equal(other.values[name], here.values[name])
            assert_array_equal(other.average[name], here.average[name])


# --- what is returned, and what is refused --------------------------------------------------------


def test_a_frame_has_a_row_for_each_value_and_class(table):
    X, y, _ = table
    frame = dasknn.partial_dependence(LogisticRegression().fit(X, y > 3), X, [0, 1]).to_frame()
    assert frame.columns.tolist() == ["column", "value", "class", "average"]
    assert len(frame) == 2 * (12 + 50)
    frame = dasknn.partial_dependence(LinearRegression().fit(X, y), X, [0]).to_frame()
    assert frame["output"].tolist() == [0] * 12


def test_arguments_that_make_no_sense_are_refused(table):
    X, y, _ = table
    model = LinearRegression().fit(X, y)
    for match, columns, settings in (
        ("received 'age'", "age", {}),
        ("one or more different columns", [], {}),
        ("names of columns of X, received", [("x0", "x1")], {}),
        ("percentiles as two shares", 0, {"percentiles": (5, 95)}),
        ("percentiles as two shares", 0, {"percentiles": 0.05}),
        ("grid_resolution to be an integer >= 2", 0, {"grid_resolution": 1}),
        ("max_categories to be an integer >= 1", 0, {"max_categories": 0}),
    ):
        with pytest.raises(ValueError, match=match):
            dasknn.partial_dependence(model, X, columns, **settings)
