"""Columns matter as much as scikit-learn says, wherever the rows are."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import metrics as skm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

import dasknn
from dasknn import Input, MLPClassifier, Sequential, TablePreprocessor, TabularClassifier
from dasknn.exceptions import PartitionError
from dasknn.layers import Dense
from dasknn.seeds import Stream, generator

N = 900
NAMES = ["strong", "none", "weak"]


@pytest.fixture(scope="module")
def numbers():
    """X (n, 3), of which y (n,) depends on the first column, a little on the third; labels, weight (n,)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = 2 * X[:, 0] + 0.5 * X[:, 2] + 0.3 * rng.normal(size=N)
    return X, y, np.where(y > 0.2, "yes", "no"), rng.uniform(0, 2, N)


@pytest.fixture(scope="module")
def people():
    """A table with text, missing values and numbers, of which the label depends on region and hours."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "region": rng.choice(["north", "south", None], N, p=[0.5, 0.4, 0.1]),
            "hours": rng.normal(40, 8, N),
            "color": rng.choice(["red", "green", "blue"], N),
        }
    )
    chance = 1 / (1 + np.exp(-(frame["hours"] - 40) / 3 - 3 * (frame["region"] == "north") + 1.5))
    return frame, pd.Series(np.where(rng.random(N) < chance, "buys", "leaves"), name="label")


def of_kind(kind, X, y, n_parts=4):
    """X and y as a kind of data."""
    chunks = -(-len(X) // n_parts)
    if kind == "Dask array":
        return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=chunks)
    if kind == "sparse":
        return sparse.csr_matrix(X), y
    if kind == "numpy":
        return X, y
    frame = pd.DataFrame(X, columns=NAMES).assign(y=y)
    frame = dd.from_pandas(frame, npartitions=n_parts) if kind == "Dask dataframe" else frame
    return frame[NAMES], frame["y"]


KINDS = ["numpy", "sparse", "pandas", "Dask array", "Dask dataframe"]


# --- what matters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_classifier", [True, False])
def test_what_the_target_depends_on_is_first_and_what_it_does_not_is_about_0(numbers, kind, is_classifier):
    X, y, labels, _ = numbers
    X, y = of_kind(kind, X, labels if is_classifier else y)
    model = MLPClassifier((8,), max_iter=60, random_state=0) if is_classifier else LinearRegression()
    if kind.startswith("Dask") and not is_classifier:
        model.fit(X.compute(), y.compute())
    else:
        model.fit(X, y)
    found = dasknn.permutation_importance(model, X, y, random_state=0)
    strong, none, weak = found.importances_mean
    assert strong > 4 * weak > 0
    assert abs(none) < 0.02
    assert found.order.tolist() == [0, 2, 1]
    assert found.interval_low[0] > found.interval_high[2] > found.interval_low[2] > found.interval_high[1]
    assert found.interval_low[1] < 0.001
    assert found.importances.shape == (3, 5)
    assert found.scoring == ("accuracy" if is_classifier else "r2")
    assert found.feature_names == (
        tuple(NAMES) if "frame" in kind or kind == "pandas" else ("x0", "x1", "x2")
    )
    assert found.n_samples == N


SCORES = {
    "accuracy": lambda y, P, w: skm.accuracy_score(
        y, np.array(["no", "yes"])[P.argmax(axis=1)], sample_weight=w
    ),
    "roc_auc": lambda y, P, w: skm.roc_auc_score(y, P[:, 1], sample_weight=w),
    "neg_log_loss": lambda y, P, w: -skm.log_loss(y, P, sample_weight=w),
    "log_loss": lambda y, P, w: skm.log_loss(y, P, sample_weight=w),
    "neg_brier_score": lambda y, P, w: -skm.brier_score_loss(y == "yes", P[:, 1], sample_weight=w),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scoring", SCORES)
def test_importances_are_those_of_scikit_learns_metric_for_the_same_permutations(numbers, scoring, weighted):
    X, _, labels, weight = numbers
    weight = weight if weighted else None
    model = LogisticRegression().fit(X, labels)
    found = dasknn.permutation_importance(
        model, X, labels, sample_weight=weight, scoring=scoring, n_repeats=3, random_state=7
    )
    score = SCORES[scoring]
    baseline = score(labels, model.predict_proba(X), weight)
    assert_allclose(found.baseline, baseline, rtol=1e-12)
    seed = int(check_random_state(7).randint(2**31 - 1))
    for column in range(3):
        for repeat in range(3):
            order = generator(seed, Stream.PERMUTED_ROWS, repeat, column).permutation(N)
            permuted = X.copy()
            permuted[:, column] = X[order, column]
            worse = baseline - score(labels, model.predict_proba(permuted), weight)
            worse = -worse if scoring == "log_loss" else worse
            assert_allclose(found.importances[column, repeat], worse, rtol=1e-9, atol=1e-12)
    assert_allclose(found.importances_mean, found.importances.mean(axis=1))
    assert_allclose(found.importances_std, found.importances.std(axis=1))


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error", "neg_mean_absolute_error"])
def test_importances_agree_with_those_of_scikit_learn(numbers, scoring):
    X, y, _, _ = numbers
    model = LinearRegression().fit(X, y)
    found = dasknn.permutation_importance(model, X, y, scoring=scoring, n_repeats=30, random_state=0)
    theirs = permutation_importance(model, X, y, scoring=scoring, n_repeats=30, random_state=0)
    error = np.hypot(found.importances_std, theirs.importances_std) / np.sqrt(30)
    assert (abs(found.importances_mean - theirs.importances_mean) <= 4 * error + 1e-9).all()
    assert_allclose(found.importances_std[[0, 2]], theirs.importances_std[[0, 2]], rtol=0.5)
    assert found["importances_mean"] is found.importances_mean
    assert {"importances", "importances_mean", "importances_std"} == set(theirs)


def test_a_large_table_is_sampled(numbers):
    X, y, _, _ = numbers
    model = LinearRegression().fit(*of_kind("pandas", X, y))
    data = of_kind("Dask dataframe", X, y)
    all_rows = dasknn.permutation_importance(model, *data, random_state=0)
    found = dasknn.permutation_importance(model, *data, max_samples=300, random_state=0)
    assert found.n_samples == 300
    assert 0 < abs(found.importances_mean[0] - all_rows.importances_mean[0]) < 0.3
    # Fewer rows are less sure.
    width = (one.interval_high[0] - one.interval_low[0] for one in (found, all_rows))
    assert next(width) > 1.3 * next(width)


def test_intervals_hold_what_very_many_rows_say():
    rng = np.random.default_rng(0)

    def table(n):
        X = rng.normal(size=(n, 2))
        return X, X @ [1.0, 0.4] + rng.normal(size=n)

    model = LinearRegression().fit(*table(2000))
    truth = dasknn.permutation_importance(
        model, *table(100_000), max_samples=None, n_repeats=3, n_bootstrap=0, random_state=0
    )
    assert np.isnan([truth.interval_low, truth.interval_high]).all()
    held = np.zeros(2)
    for seed in range(60):
        found = dasknn.permutation_importance(model, *table(300), random_state=seed)
        held += found.interval_low <= truth.importances_mean
        held -= found.interval_high < truth.importances_mean
    # 57 of 60 on average; they are no wider than they need to be by much.
    assert (held >= 51).all()
    narrow = dasknn.permutation_importance(model, *table(300), confidence=0.5, random_state=0)
    assert narrow.interval_high[0] - narrow.interval_low[0] < 0.6 * (
        found.interval_high[0] - found.interval_low[0]
    )


def test_a_column_that_the_model_does_not_use_has_exactly_0(numbers):
    class OnlyFirst(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            self.is_fitted_ = True
            return self

        def predict(self, X):
            return np.asarray(X)[:, 0] * 2

    X, y, _, _ = numbers
    found = dasknn.permutation_importance(OnlyFirst().fit(X, y), X, y, random_state=0)
    assert_array_equal(found.importances[1:], 0)
    assert_array_equal([found.interval_low[1:], found.interval_high[1:]], 0)


def test_columns_that_say_the_same_matter_together(numbers):
    X, y, _, _ = numbers
    model = LinearRegression().fit(X[:, [0, 0, 1]], y)
    found = dasknn.permutation_importance(
        model, X[:, [0, 0, 1]], y, columns=["x0", "x1", ("x0", "x1"), 2], random_state=0
    )
    assert found.feature_names == ("x0", "x1", ("x0", "x1"), "x2")
    one, other, both, none = found.importances_mean
    assert both > 3 * max(one, other) > 10 * abs(none)
    # Both take the values of one row, so it is as if there were one column.
    alone = LinearRegression().fit(X[:, :2], y)
    alone = dasknn.permutation_importance(alone, X[:, :2], y, random_state=0)
    assert both == pytest.approx(alone.importances_mean[0], rel=0.05)
    assert found.labels[2] == "x0 + x1"


# --- tables and models ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_parts", [0, 3])
def test_columns_of_the_raw_table_are_permuted_before_a_pipeline(people, n_parts):
    X, y = people
    if n_parts:
        both = dd.from_pandas(X.assign(label=y), npartitions=n_parts)
        X, y = both[list(X.columns)], both["label"]
    model = make_pipeline(TablePreprocessor(), MLPClassifier((8,), max_iter=40, random_state=0)).fit(X, y)
    before = X.copy(deep=True) if not n_parts else X.compute()
    found = dasknn.permutation_importance(model, X, y, scoring="roc_auc", random_state=0)
    assert found.feature_names == ("region", "hours", "color")
    region, hours, color = found.importances_mean
    assert min(region, hours) > 0.05
    assert abs(color) < 0.02
    pd.testing.assert_frame_equal(before, X.compute() if n_parts else X)


def test_estimators_of_raw_tables(people):
    X, y = people
    both = dd.from_pandas(X.assign(label=y), npartitions=3)
    data = both[list(X.columns)], both["label"]
    model = TabularClassifier(max_iter=5, random_state=0).fit(*data)
    found = dasknn.permutation_importance(model, *data, max_samples=400, n_repeats=2, random_state=0)
    assert found.feature_names == ("region", "hours", "color")
    assert found.importances_mean[:2].min() > 0.03
    assert abs(found.importances_mean[2]) < 0.03
    averages = dasknn.partial_dependence(model, data[0], "region", max_samples=400, random_state=0)
    assert sorted(averages.labels("region")) == ["missing", "north", "south"]


def test_a_sequential_and_several_numbers(numbers):
    X, y, labels, _ = numbers
    dasknn.set_random_seed(0)
    model = Sequential([Input((3,)), Dense(8, activation="relu"), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    model.fit(X, (labels == "yes").astype(int), epochs=20, verbose=0)
    found = dasknn.permutation_importance(model, X, (labels == "yes").astype(int), random_state=0)
    assert found.order[0] == 0
    targets = np.column_stack([y, -X[:, 1]])
    model = LinearRegression().fit(X, targets)
    found = dasknn.permutation_importance(model, X, targets, random_state=0)
    assert (found.importances_mean > 0.02).all()


def test_a_metric_of_ones_own_says_what_is_better(numbers):
    X, _, labels, _ = numbers
    model = LogisticRegression().fit(X, labels)

    def missed(y_true, y_pred):
        return (y_true == "yes") & (y_pred == "no")

    for better, sign in ((False, 1), (True, -1)):
        metric = dasknn.RowMetric("missed", missed, greater_is_better=better)
        found = dasknn.permutation_importance(model, X, labels, scoring=metric, random_state=0)
        assert found.scoring == "missed"
        assert sign * found.importances_mean[0] > 0.1
    with pytest.raises(
        ValueError, match=r"neither more nor less is better. Use dasknn.RowMetric\(..., greater"
    ):
        dasknn.permutation_importance(model, X, labels, scoring=dasknn.RowMetric("missed", missed))
    precision = dasknn.permutation_importance(
        model, X, labels, scoring="precision", pos_label="no", random_state=0
    )
    expected = skm.precision_score(labels, model.predict(X), pos_label="no")
    assert precision.baseline == pytest.approx(expected)


def test_explainers_of_shap_call_predict_proba(people):
    # As docs/how-to/columns-that-matter.md does.
    shap = pytest.importorskip("shap")
    frame, y = people
    model = make_pipeline(TablePreprocessor(), MLPClassifier((4,), max_iter=20, random_state=0)).fit(frame, y)
    text = {name: pd.Categorical(frame[name]).dtype for name in ("region", "color")}
    coded = frame.assign(**{name: frame[name].astype(kind).cat.codes for name, kind in text.items()})

    def predict(numbers):
        table = pd.DataFrame(numbers, columns=list(frame.columns))
        for name, kind in text.items():
            table[name] = pd.Categorical.from_codes(table[name].astype(int), dtype=kind)
        return model.predict_proba(table)

    explained = shap.Explainer(predict, coded[:50], seed=0)(coded[50:60])
    assert explained.values.shape == (10, 3, 2)
    sums = explained.base_values + explained.values.sum(axis=1)
    assert_allclose(sums, model.predict_proba(frame[50:60]), atol=1e-5)


# --- the same everywhere --------------------------------------------------------------------------


def same(one, other):
    for name in ("importances", "interval_low", "interval_high", "baseline"):
        assert_array_equal(one[name], other[name])
    assert one.feature_names == other.feature_names


def test_if_all_rows_are_sampled_partitions_do_not_matter(numbers):
    X, _, labels, _ = numbers
    model = MLPClassifier((8,), max_iter=5, random_state=0).fit(pd.DataFrame(X, columns=NAMES), labels)
    first, *others = (
        dasknn.permutation_importance(model, *of_kind(kind, X, labels, n), scoring="roc_auc", random_state=3)
        for kind, n in (("pandas", 1), ("Dask dataframe", 1), ("Dask dataframe", 3), ("Dask dataframe", 11))
    )
    for other in others:
        same(first, other)


def test_a_column_has_the_same_numbers_whichever_others_are_asked_for(numbers):
    X, y, _, _ = numbers
    model = LinearRegression().fit(X, y)
    whole = dasknn.permutation_importance(model, X, y, random_state=0)
    part = dasknn.permutation_importance(model, X, y, columns=[2, 0], random_state=0)
    assert_array_equal(part.importances, whole.importances[[2, 0]])
    other = dasknn.permutation_importance(model, X, y, random_state=1)
    assert not np.array_equal(other.importances, whole.importances)


def test_a_cluster_gives_the_bits_of_the_local_scheduler_and_keeps_nothing(people, cluster, monkeypatch):
    frame, label = people
    both = dd.from_pandas(frame.assign(label=label), npartitions=5)
    X, y = both[list(frame.columns)], both["label"]
    model = make_pipeline(TablePreprocessor(), MLPClassifier((8,), max_iter=5, random_state=0)).fit(X, y)

    def importance(**settings):
        return dasknn.permutation_importance(model, X, y, max_samples=400, random_state=0, **settings)

    here = importance()
    plain = dasknn.permutation_importance(model, frame, label, max_samples=400, random_state=0)
    with Client(cluster) as client:
        same(importance(), here)
        same(importance(client=client), here)
        monkeypatch.setattr("dasknn.evaluation.plan._INLINE_BYTES", 0)
        same(importance(), here)
        # Plain data goes to a cluster only if it is told to.
        same(dasknn.permutation_importance(model, frame, label, max_samples=400, random_state=0), plain)
        sent = dasknn.permutation_importance(
            model, frame, label, max_samples=400, random_state=0, client=client
        )
        same(sent, plain)
        assert_nothing_left(client)


# --- what is returned -----------------------------------------------------------------------------


def test_what_is_printed_is_a_table_with_the_most_important_first(numbers):
    X, y, _, _ = numbers
    model = LinearRegression().fit(*of_kind("pandas", X, y))
    found = dasknn.permutation_importance(model, *of_kind("pandas", X, y), random_state=0)
    first, *lines = repr(found).splitlines()
    assert first.startswith("drop in r2 (of 0.9")
    assert first.endswith("if a column is permuted: 900 rows, 5 repeats, 95% intervals")
    assert [line.split()[0] for line in lines] == ["strong", "weak", "none"]
    assert all("[" in line for line in lines)
    frame = found.to_frame()
    assert frame["column"].tolist() == ["strong", "weak", "none"]
    assert_array_equal(frame["importance"], found.importances_mean[[0, 2, 1]])
    assert_array_equal(frame["importance_high"], found.interval_high[[0, 2, 1]])
    assert frame.attrs["scoring"] == "r2"
    errors = dasknn.permutation_importance(
        model, *of_kind("pandas", X, y), scoring="mean_absolute_error", n_bootstrap=0, n_repeats=1
    )
    assert repr(errors).startswith("rise in mean_absolute_error")
    assert "[" not in repr(errors)
    with pytest.raises(KeyError):
        found["order"]
    with pytest.raises(AttributeError):
        found.baseline = 1.0


# --- what is refused ------------------------------------------------------------------------------


def test_arguments_that_make_no_sense_are_refused(numbers):
    X, _, labels, _ = numbers
    model = LogisticRegression().fit(X, labels)

    def refused(match, model=model, X=X, y=labels, **settings):
        with pytest.raises(ValueError, match=match):
            dasknn.permutation_importance(model, X, y, **settings)

    refused("received 'age'", columns=["age"])
    refused("Did you mean 'accuracy'", scoring="acuracy")
    refused("is one of regression, and this is binary", scoring="r2")
    refused("neither more nor less is better", scoring="positive_rate")
    refused("one metric by name or a dasknn.RowMetric", scoring=["accuracy"])
    refused("one metric by name or a dasknn.RowMetric", scoring=skm.accuracy_score)
    refused("Expected metrics by name", scoring="neg_accuracy")
    refused("n_repeats to be an integer >= 1", n_repeats=0)
    refused("max_samples", max_samples=0.5)
    refused("confidence in", confidence=95)
    refused("Expected y, an array", y=None)
    refused("shape \\(n, p\\)", X=X[:, 0])
    refused("is NaN there", y=np.full(N, "yes"), scoring="roc_auc")
    with pytest.raises(NotFittedError):
        dasknn.permutation_importance(LogisticRegression(), X, labels)


def test_bad_rows_of_the_sample_are_named(numbers):
    X, _, labels, _ = numbers
    model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=2, random_state=0)).fit(X, labels)
    bad = X.copy()
    bad[500, 1] = np.nan
    data = of_kind("Dask array", bad, labels)
    with pytest.raises(PartitionError, match="X holds nan in row 500, column 1") as raised:
        dasknn.permutation_importance(model, *data, random_state=0)
    assert "within the sample of 900 rows" in raised.value.__notes__[0]
    with pytest.raises(PartitionError, match="Partition 1: Expected labels among"):
        dasknn.permutation_importance(
            model, data[0], np.where(np.arange(N) == 300, "perhaps", labels.astype(object)), random_state=0
        )
