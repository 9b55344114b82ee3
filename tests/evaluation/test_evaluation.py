"""Slices have scikit-learn's metrics, intervals hold what they promise, and the data is read once."""

import pickle
import warnings
from functools import reduce
from operator import add

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy.special import expit
from scipy.stats import binomtest, norm
from sklearn import metrics as skm
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import dasknn
from dasknn import Buckets, Input, MLPClassifier, MLPRegressor, RowMetric, Sequential, TablePreprocessor
from dasknn.evaluation.bootstrap import Draws, Ranking, draws, sum_slices
from dasknn.evaluation.score_sketch import (
    Tally,
    average_precision,
    keys_of_numbers,
    keys_of_probabilities,
    roc_auc,
)
from dasknn.exceptions import PartitionError
from dasknn.layers import Dense

N = 1200


class Given(ClassifierMixin, BaseEstimator):
    """Probabilities that are in the columns of X already."""

    def __init__(self, first=0, k=2, labels=None):
        self.first, self.k, self.labels = first, k, labels

    def fit(self, X=None, y=None):
        self.classes_ = np.arange(self.k) if self.labels is None else np.array(self.labels)
        return self

    def predict_proba(self, X):
        return np.asarray(X, dtype=np.float64)[:, self.first : self.first + self.k]

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class GivenNumbers(RegressorMixin, BaseEstimator):
    """Predictions that are in the columns of X already."""

    def __init__(self, q=1):
        self.q = q

    def fit(self, X=None, y=None):
        self.is_fitted_ = True
        return self

    def predict(self, X):
        X = np.asarray(X)[:, : self.q]
        return X[:, 0] if self.q == 1 else X


def probabilities(k, n=N, seed=0):
    """Return P (n, k), y (n,) that go together somewhat, weight (n,) with zeros."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * (y[:, np.newaxis] == np.arange(k))
    # Few digits, so that there are ties.
    P = np.exp(logits).round(1) + 0.1
    weight = rng.uniform(0, 2, n) * (rng.random(n) > 0.1)
    return P / P.sum(axis=1, keepdims=True), y, weight


def columns_to_slice_by(n=N, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "region": rng.choice(["EU", "US", "Asia", None], n, p=[0.5, 0.3, 0.1, 0.1]),
            "member": rng.random(n) < 0.3,
            "level": rng.choice([1.0, 2.5, np.nan], n),
            "size": pd.Categorical(rng.choice(["small", "large"], n), ["small", "large"], ordered=True),
            "age": rng.integers(17, 91, n),
        }
    )


SLICES = ["region", "member", "level", "size", ("region", "member"), Buckets("age", [18, 40, 65])]


def masks(frame):
    """Return which rows belong to each slice of SLICES, by pandas alone."""
    found = {"all": np.ones(len(frame), dtype=bool)}
    for region in ("Asia", "EU", "US"):
        found[f"region={region}"] = (frame.region == region).to_numpy()
    found["region=missing"] = frame.region.isna().to_numpy()
    for member in (False, True):
        found[f"member={member}"] = (frame.member == member).to_numpy()
    found |= {
        "level=1": frame.level == 1,
        "level=2.5": frame.level == 2.5,
        "level=missing": frame.level.isna(),
    }
    found |= {f"size={size}": frame["size"] == size for size in ("small", "large")}
    for region in ("Asia", "EU", "US", "missing"):
        for member in (False, True):
            found[f"region={region}, member={member}"] = found[f"region={region}"] & found[f"member={member}"]
    found["age<18"] = frame.age < 18
    found["age=[18, 40)"] = frame.age.between(18, 39)
    found["age=[40, 65)"] = frame.age.between(40, 64)
    found["age>=65"] = frame.age >= 65
    return {name: np.asarray(mask) for name, mask in found.items()}


# --- the metrics are scikit-learn's -----------------------------------------------------------------


def expected_of_classes(name, y, P, labels, weight, k):
    """Return scikit-learn's metric of these rows."""
    if name == "positive_rate":
        return np.average(labels == 1, weights=weight)
    if name == "calibration_error":
        chance, happened = (P[:, 1], y == 1) if k == 2 else (P.max(axis=1), y == labels)
        bins = np.minimum((chance * 10).astype(int), 9)
        weight = np.ones(len(y)) if weight is None else weight
        gaps = [abs(weight[bins == b] @ (happened - chance)[bins == b]) for b in range(10)]
        return sum(gaps) / weight.sum()
    if name in ("accuracy", "balanced_accuracy"):
        return getattr(skm, f"{name}_score")(y, labels, sample_weight=weight)
    if name in ("roc_auc", "average_precision"):
        return getattr(skm, f"{name}_score")(y, P[:, 1], sample_weight=weight)
    if name in ("log_loss", "brier_score_loss"):
        scores = P[:, 1] if k == 2 and name == "brier_score_loss" else P
        labels = {} if scores.ndim == 1 else {"labels": np.arange(k)}
        return getattr(skm, name)(y, scores, sample_weight=weight, **labels)
    if name == "roc_auc_ovr":
        of_classes = [skm.roc_auc_score(y == j, P[:, j], sample_weight=weight) for j in range(k)]
        return np.mean(of_classes) if k > 2 else of_classes[1]
    name, _, average = name.partition("_")
    score = getattr(skm, f"{name}_score")
    return score(y, labels, average=average or "binary", sample_weight=weight, zero_division=0)


OF_LABELS = ["accuracy", "balanced_accuracy"] + [
    f"{score}_{average}"
    for score in ("precision", "recall", "f1")
    for average in ("macro", "micro", "weighted")
]
OF_CLASSES = [*OF_LABELS, "roc_auc_ovr", "log_loss", "brier_score_loss", "calibration_error"]
BINARY = [*OF_CLASSES, "precision", "recall", "f1", "roc_auc", "average_precision", "positive_rate"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_metrics_of_every_slice_are_scikit_learns(k, weighted):
    P, y, weight = probabilities(k)
    weight = weight if weighted else None
    frame, names = columns_to_slice_by(), BINARY if k == 2 else OF_CLASSES
    chunks = ((500, 1, 0, 699), -1)
    found = dasknn.evaluate(
        Given(k=k).fit(),
        da.from_array(P, chunks=chunks),
        da.from_array(y, chunks=500),
        names,
        SLICES,
        sample_weight=weight,
        slice_data=frame,
        min_rows=0,
        n_bootstrap=0,
    )
    rows = masks(frame)
    assert found["slice"].tolist() == list(rows)
    labels = P.argmax(axis=1) if k > 2 else (P[:, 1] > P[:, 0]).astype(int)
    for row in found.to_dict("records"):
        own = rows[row["slice"]]
        assert row["rows"] == own.sum() > 0
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UndefinedMetricWarning)
                expected = expected_of_classes(
                    name, y[own], P[own], labels[own], None if weight is None else weight[own], k
                )
            assert row[name] == pytest.approx(expected, rel=1e-9, nan_ok=True), (row["slice"], name)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("q", [1, 3])
def test_metrics_of_a_regression_are_scikit_learns(q, weighted):
    rng = np.random.default_rng(0)
    # A large mean that differs between partitions costs digits, unless squares have centers.
    y = 1e6 + np.repeat([0, 5, -5], N // 3)[:, np.newaxis] + rng.normal(size=(N, q))
    predicted = y + 0.1 + rng.normal(size=(N, q))
    weight = rng.uniform(0, 2, N) if weighted else None
    frame = columns_to_slice_by()
    names = ["r2", "mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "mean_error"]
    found = dasknn.evaluate(
        GivenNumbers(q).fit(),
        da.from_array(predicted, chunks=(N // 3, -1)),
        da.from_array(y[:, 0] if q == 1 else y, chunks=(N // 3, *([-1] if q > 1 else []))),
        names,
        SLICES,
        sample_weight=weight,
        slice_data=frame,
        min_rows=0,
        n_bootstrap=0,
    )
    rows = masks(frame)
    for row in found.to_dict("records"):
        own = rows[row["slice"]]
        w = None if weight is None else weight[own]
        assert row["mean_error"] == pytest.approx(
            np.average((predicted - y)[own].mean(axis=1), weights=w), rel=1e-9
        )
        for name in names[:-1]:
            score = getattr(skm, "r2_score" if name == "r2" else name)
            assert row[name] == pytest.approx(score(y[own], predicted[own], sample_weight=w), rel=1e-9), name


def test_what_evaluate_returns_is_printed_with_all_columns():
    P, y, _ = probabilities(2, n=60)
    found = dasknn.evaluate(MLPClassifier((2,), max_iter=1).fit(P, y), P, y)
    for frame in (found, found.sort_values("rows"), pickle.loads(pickle.dumps(found))):
        with pd.option_context("display.max_columns", 4, "display.width", 60):
            shown = str(frame)
            assert "..." not in shown
            assert all(name in shown for name in found.columns)
        assert isinstance(frame, pd.DataFrame)
        assert frame.attrs["confidence"] == 0.95


def test_a_slice_without_one_of_the_classes_has_scikit_learns_values_or_none():
    P, y, _ = probabilities(2, 300)
    found = dasknn.evaluate(
        Given().fit(),
        P,
        y,
        ["roc_auc", "average_precision", "precision", "balanced_accuracy"],
        ["class"],
        slice_data=pd.DataFrame({"class": y}),
    )
    negatives = found[found["slice"] == "class=0"].iloc[0]
    assert np.isnan(negatives["roc_auc"])
    assert np.isnan(negatives["roc_auc_low"])
    assert negatives["average_precision"] == 0
    assert negatives["precision"] == 0
    assert negatives["balanced_accuracy"] == pytest.approx((P[y == 0, 1] <= 0.5).mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_means_over_classes_are_over_those_that_a_slice_speaks_of(weighted):
    P, y, weight = probabilities(4)
    labels = P.argmax(axis=1)
    own = (y < 3) & (labels < 3)
    # A class whose rows weigh nothing counts as one in scikit-learn, too.
    weight = np.where((y == 2) | (labels == 2), 0, weight) if weighted else None
    names = [name for name in OF_LABELS if name.endswith("macro")]
    found = dasknn.evaluate(
        Given(k=4).fit(), P, y, names, "v", sample_weight=weight, slice_data=pd.DataFrame({"v": own})
    ).set_index("slice")
    w = weight[own] if weighted else None
    for name in names:
        expected = expected_of_classes(name, y[own], P[own], labels[own], w, 4)
        assert found.loc["v=True", name] == pytest.approx(expected)


def test_roc_auc_ovr_of_a_slice_is_over_the_classes_that_it_has():
    P, y, _ = probabilities(4, 400)
    columns = pd.DataFrame({"v": np.where(y < 2, "two", "others")})
    model = Given(k=4).fit()
    found = dasknn.evaluate(model, P, y, ["roc_auc_ovr"], "v", slice_data=columns).set_index("slice")
    own = y < 2
    expected = np.mean([skm.roc_auc_score(y[own] == j, P[own, j]) for j in (0, 1)])
    assert found.loc["v=two", "roc_auc_ovr"] == pytest.approx(expected)
    assert found.loc["v=two", "roc_auc_ovr_low"] < expected < found.loc["v=two", "roc_auc_ovr_high"]


def test_many_distinct_scores_share_cells_with_hardly_any_error():
    rng = np.random.default_rng(0)
    y = rng.random(300_000) < 0.05
    for scores in (expit(rng.normal(size=len(y)) * 3 + 2 * y), 1e-4 * expit(rng.normal(size=len(y)) + y)):
        weights = np.stack([~y, y], axis=1).astype(float)
        parts = [Tally.of(keys_of_probabilities(scores[i::3]), weights[i::3]) for i in range(3)]
        tally = reduce(add, parts)
        assert len(tally.keys) <= 100_000
        assert roc_auc(tally.weights) == pytest.approx(skm.roc_auc_score(y, scores), abs=1e-6)
        assert average_precision(tally.weights) == pytest.approx(
            skm.average_precision_score(y, scores), abs=2e-4
        )


# --- intervals --------------------------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truths = {
        "accuracy": norm.cdf(0.5),
        "roc_auc": norm.cdf(1 / np.sqrt(2)),
        "accuracy_difference": norm.cdf(0.5) - norm.cdf(0.3),
        "roc_auc_difference": norm.cdf(1 / np.sqrt(2)) - norm.cdf(0.6 / np.sqrt(2)),
    }
    n_held, n_sets = dict.fromkeys(truths, 0), 200
    model_a, model_b = Given(0).fit(), Given(2).fit()
    for i in range(n_sets):
        y = rng.random(500) < 0.5
        noise = rng.normal(size=500)
        a = noise + y
        b = 0.8 * noise + 0.6 * rng.normal(size=500) + 0.6 * y
        p_a, p_b = expit(a - 0.5), expit(b - 0.3)
        X = np.stack([1 - p_a, p_a, 1 - p_b, p_b], axis=1)
        names = ["accuracy", "roc_auc"]
        with dask.config.set(scheduler="synchronous"):
            one = dasknn.evaluate(model_a, X, y.astype(int), names, random_state=i).iloc[0]
            two = dasknn.compare(model_a, model_b, X, y.astype(int), names, random_state=i).iloc[0]
        found = pd.concat([one, two])
        for name, truth in truths.items():
            n_held[name] += found[f"{name}_low"] <= truth <= found[f"{name}_high"]
    for name, n in n_held.items():
        assert binomtest(n, n_sets, 0.95).pvalue > 0.001, f"{name}: {n} of {n_sets}"


def test_replicates_are_as_wide_as_those_of_resampled_rows():
    P, y, weight = probabilities(2)
    names = ["roc_auc", "average_precision", "log_loss", "f1"]
    found = dasknn.evaluate(Given().fit(), P, y, names, sample_weight=weight, n_bootstrap=1000).iloc[0]
    rng = np.random.default_rng(0)
    labels = (P[:, 1] > P[:, 0]).astype(int)
    resampled = []
    for _ in range(150):
        rows = rng.integers(0, N, N)
        resampled.append(
            [expected_of_classes(name, y[rows], P[rows], labels[rows], weight[rows], 2) for name in names]
        )
    for name, values in zip(names, np.transpose(resampled), strict=True):
        width = found[f"{name}_high"] - found[f"{name}_low"]
        assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.25), name
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_intervals_lie_around_the_exact_value_where_cells_are_coarse():
    rng = np.random.default_rng(0)
    # Tiny scores of all sizes take the cells from the many that lie together.
    scores = np.concatenate([2.0 ** -np.arange(3, 903), rng.uniform(0.25, 0.26, 2000)])
    y = np.concatenate([rng.random(900) < 0.3, scores[900:] + rng.normal(size=2000) * 0.003 > 0.255])
    P = np.stack([1 - scores, scores], axis=1)
    found = dasknn.evaluate(Given().fit(), P, y.astype(int), ["roc_auc", "average_precision"]).iloc[0]
    for name in ("roc_auc", "average_precision"):
        assert found[name] == pytest.approx(expected_of_classes(name, y, P, None, None, 2))
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_a_share_of_all_or_none_is_not_taken_for_certain():
    P = np.tile([0.1, 0.9], (100, 1))
    y = np.ones(100, dtype=int)
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy", "precision", "positive_rate"]).iloc[0]
    # Clopper and Pearson: 0.025 ** (1 / 100).
    assert found["accuracy_low"] == found["precision_low"] == pytest.approx(0.9638, abs=1e-4)
    assert found["accuracy_high"] == found["accuracy"] == 1
    none = dasknn.evaluate(Given().fit(), P, 1 - y, ["accuracy", "recall"]).iloc[0]
    assert none["accuracy_high"] == pytest.approx(1 - 0.9638, abs=1e-4)
    # No row is of the class that is looked for: its share of recalled ones may be any.
    assert (none["recall_low"], none["recall_high"]) == (0, 1)


def test_draws_are_poisson_with_mean_1_and_belong_to_their_row():
    counts = draws(0, 3, 0, 4096, 200)
    assert counts.mean() == pytest.approx(1, abs=0.005)
    assert counts.var() == pytest.approx(1, abs=0.01)
    for n, probability in enumerate(np.exp(-1) / np.array([1, 1, 2, 6, 24])):
        assert (counts == n).mean() == pytest.approx(probability, rel=0.02)
    assert_array_equal(draws(0, 3, 0, 100, 200), counts[:100])
    for other in (draws(1, 3, 0, 4096, 200), draws(0, 4, 0, 4096, 200), draws(0, 3, 1, 4096, 200)):
        assert abs(np.corrcoef(counts.ravel(), other.ravel())[0, 1]) < 0.01


def test_fewer_replicates_than_a_confidence_needs_are_refused():
    P, y, _ = probabilities(2, 200)
    with pytest.raises(ValueError, match="n_bootstrap of 199 or more"):
        dasknn.evaluate(Given().fit(), P, y, confidence=0.99, n_bootstrap=198)
    dasknn.evaluate(Given().fit(), P, y, confidence=0.99, n_bootstrap=199)


# --- the same everywhere, read once, nothing left ---------------------------------------------------


def frames(n_partitions=4):
    """Return X, y and slice_data, columns of one Dask dataframe."""
    P, y, weight = probabilities(2)
    frame = columns_to_slice_by().assign(p0=P[:, 0], p1=P[:, 1], y=y, w=weight)
    frame = dd.from_pandas(frame, npartitions=n_partitions, sort=False)
    return frame[["p0", "p1"]], frame["y"], frame["w"], frame[["region", "age"]]


def evaluated(collections):
    X, y, weight, columns = collections
    slices = ["region", Buckets("age", 3), ("region", Buckets("age", 3))]
    model = Given().fit()
    return dasknn.evaluate(model, X, y, BINARY, slices, sample_weight=weight, slice_data=columns)


def test_a_cluster_gives_the_bits_of_the_local_scheduler(cluster, monkeypatch):
    here = evaluated(frames())
    with Client(cluster) as client:
        on_cluster = evaluated(frames())
        # Wherever partitions are.
        elsewhere = evaluated(client.persist(frames(), workers=list(client.scheduler_info()["workers"])[:1]))
        monkeypatch.setattr("dasknn.evaluation.plan._INLINE_BYTES", 0)
        with_a_large_model = evaluated(frames())
        assert_nothing_left(client)
    assert_frame_equal(with_a_large_model, here, check_exact=True)
    assert_frame_equal(on_cluster, here, check_exact=True)
    assert_frame_equal(elsewhere, here, check_exact=True)


def test_data_is_read_once_and_predicted_once():
    P, y, _ = probabilities(2)
    frame = columns_to_slice_by().assign(p0=P[:, 0], p1=P[:, 1], y=y)
    read, predicted = [], []

    def part(i):
        read.append(i)
        return frame.iloc[300 * i : 300 * (i + 1)]

    class Counting(Given):
        def predict_proba(self, X):
            predicted.append(len(X))
            return super().predict_proba(X)

        def predict(self, X):
            raise AssertionError("probabilities were asked for alone")

    source = dd.from_map(part, range(4), meta=frame.iloc[:0])
    X, columns = source[["p0", "p1"]], source[["region", "age"]]
    slices = ["region", Buckets("age", 3), ("region", Buckets("age", 3))]
    names = ["roc_auc", "log_loss"]
    with dask.config.set(scheduler="synchronous"):
        dasknn.evaluate(Counting().fit(), X, source["y"], names, slices, slice_data=columns)
    assert sorted(read) == [0, 1, 2, 3]
    assert predicted == [300] * 4


def test_a_network_is_asked_once_for_labels_and_probabilities(monkeypatch):
    X, y, _ = probabilities(2, 400)
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, y)
    asked = []
    predict = type(model._network_).predict
    monkeypatch.setattr(
        type(model._network_), "predict", lambda *args: asked.append(len(args[2])) or predict(*args)
    )
    dasknn.evaluate(model, X, y)
    dasknn.evaluate(make_pipeline(StandardScaler().fit(X), model), X, y)
    assert asked == [400, 400]


def part_sums(number, n=700):
    """Return the sums of a part with everything in it: blocks, rankings, two ways of slicing."""
    rng = np.random.default_rng(number)
    codes = rng.integers(0, 3, n)
    # Whole numbers add up to the same bits in any order.
    block = rng.integers(0, 5, (n, 4)).astype(float)
    keys = keys_of_probabilities(rng.random(n))
    ranking = Ranking(keys, rng.random(n) < 0.3, rng.integers(0, 3, n).astype(float))
    values = [(f"{number % 2}{code}",) for code in range(3)]
    groups = [(np.zeros(n, dtype=int), [()]), (codes, values)]
    return sum_slices(lambda rows: [block[rows]], [ranking], groups, Draws(0, number, 10))


def test_merging_is_associative():
    a, b, c = map(part_sums, range(3))
    for left, right in zip(((a + b) + c).slices, (a + (b + c)).slices, strict=True):
        assert set(left) == set(right)
        for values, one in left.items():
            other = right[values]
            assert one.n_rows == other.n_rows
            assert_array_equal(one.sums[0], other.sums[0])
            for tallies in ("tallies", "resampled"):
                mine, theirs = getattr(one, tallies)[0], getattr(other, tallies)[0]
                assert mine.level == theirs.level
                assert_array_equal(mine.keys, theirs.keys)
                assert_array_equal(mine.weights, theirs.weights)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), max_size=40), min_size=3, max_size=3), st.integers(2, 20))
def test_tallies_add_up_in_any_order_to_that_of_all_rows(parts, limit):
    a, b, c = (Tally.of(keys_of_probabilities(np.array(p)), np.ones(len(p)), limit) for p in parts)
    whole = Tally.of(
        keys_of_probabilities(np.concatenate([np.array(p) for p in parts])),
        np.ones(sum(map(len, parts))),
        limit,
    )
    for tally in ((a + b) + c, a + (b + c), (c + a) + b):
        assert_array_equal(tally.keys, whole.keys)
        assert_array_equal(tally.weights, whole.weights)
        assert len(tally.keys) <= limit


# --- slices -----------------------------------------------------------------------------------------

ODD = st.one_of(
    st.text(max_size=3),
    st.none(),
    st.just(float("nan")),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.25, float("inf")]),
    st.just(pd.Timestamp("2026-01-31")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ODD, st.booleans()), min_size=1, max_size=30), st.integers(1, 3))
def test_odd_values_are_slices_as_python_tells_them_apart(rows, n_parts):
    values = [value for value, _ in rows]
    right = np.array([is_right for _, is_right in rows])
    P = np.stack([1.0 - right, right], axis=1)
    frame = pd.DataFrame({"p0": P[:, 0], "p1": P[:, 1], "v": pd.Series(values, dtype=object)})
    with dask.config.set({"dataframe.convert-string": False, "scheduler": "synchronous"}):
        frame = dd.from_pandas(frame.assign(y=1), npartitions=min(n_parts, len(rows)), sort=False)
        found = dasknn.evaluate(
            Given().fit(),
            frame[["p0", "p1"]],
            frame["y"],
            ["accuracy"],
            ["v"],
            slice_data=frame[["v"]],
            min_rows=0,
            n_bootstrap=0,
        )
    expected = {}
    for value, is_right in zip(values, right, strict=True):
        expected.setdefault(None if value is None or value != value else value, []).append(is_right)
    found = found.iloc[1:]
    assert found["slice"].is_unique
    numbers = sorted((len(own), np.mean(own)) for own in expected.values())
    assert_allclose(sorted(zip(found["rows"], found["accuracy"], strict=True)), numbers)


def test_buckets_by_number_have_as_many_rows_each():
    P, y, _ = probabilities(2)
    age = np.random.default_rng(0).normal(40, 15, N)
    age[:30] = np.nan
    X = da.from_array(P, chunks=(350, -1))
    found = dasknn.evaluate(
        Given().fit(), X, y, ["accuracy"], Buckets("age", 5), slice_data=pd.Series(age, name="age")
    )
    edges = found.attrs["buckets"]["age"]
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (np.nanmin(age), np.nanmax(age))
    assert found["rows"].tolist() == [N, 234, 234, 234, 234, 234, 30]
    assert found["slice"].iloc[-1] == "age=missing"
    cuts = pd.cut(age, edges, right=False)
    right = (P[:, 1] > P[:, 0]) == y
    for i in range(4):
        own = np.asarray(cuts.codes == i)
        assert found["accuracy"].iloc[i + 1] == pytest.approx(right[own].mean())


def test_a_value_with_more_than_its_share_makes_fewer_buckets():
    values = np.repeat([0, 5, 7], [800, 200, 200])
    P, y, _ = probabilities(2)
    found = dasknn.evaluate(
        Given().fit(), P, y, ["accuracy"], Buckets("v", 4), slice_data=pd.DataFrame({"v": values})
    )
    assert dict(zip(found["slice"], found["rows"], strict=True)) == {
        "all": 1200,
        "v=[0, 5)": 800,
        "v=[5, 7]": 400,
    }


def test_edges_of_many_numbers_are_close_to_their_quantiles():
    numbers = np.random.default_rng(0).lognormal(size=250_000)
    parts = [Buckets("v", 4).tally(part) for part in np.split(numbers, 5)]
    edges = Buckets("v", 4).edges(reduce(add, parts))
    assert_allclose(edges[1:-1], np.quantile(numbers, [0.25, 0.5, 0.75]), rtol=1e-4)


def test_numbers_keep_their_order_as_keys():
    numbers = np.array([-np.inf, -1e300, -2.5, -1e-320, -0.0, 0.0, 1e-320, 1.0, np.inf])
    keys = keys_of_numbers(numbers)
    assert_array_equal(np.diff(keys) > 0, np.diff(numbers) > 0)


def test_small_slices_are_listed_without_metrics():
    P, y, _ = probabilities(2)
    columns = pd.DataFrame({"v": np.repeat(["many", "few"], [N - 99, 99])})
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy"], ["v"], slice_data=columns)
    few = found[found["slice"] == "v=few"].iloc[0]
    assert few["rows"] == 99
    assert few[["accuracy", "accuracy_low", "accuracy_high"]].isna().all()
    assert found["accuracy"].notna().sum() == 2


def test_text_that_reads_like_a_number_is_told_apart():
    P, y, _ = probabilities(2, 4)
    columns = pd.DataFrame({"v": pd.Series(["1", 1, "missing", None], dtype=object)})
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy"], ["v"], slice_data=columns, min_rows=0)
    assert set(found["slice"]) == {"all", "v=1", "v='1'", "v=missing", "v='missing'"}


def test_slices_by_columns_that_the_model_sees_need_no_further_data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=400), "flag": rng.integers(0, 2, 400)})
    y = (X.a > 0).astype(int)
    model = LogisticRegression().fit(X, y)
    found = dasknn.evaluate(model, dd.from_pandas(X, npartitions=3), y_of(y, 3), ["accuracy"], "flag")
    assert found["slice"].tolist() == ["all", "flag=0", "flag=1"]


def y_of(y, n):
    return dd.from_pandas(pd.Series(y), npartitions=n)


@pytest.mark.parametrize("slices", [["region", "rank"], "rank"])
def test_too_many_values_are_refused_with_a_remedy(slices):
    P, y, _ = probabilities(2)
    columns = pd.DataFrame({"region": "EU", "rank": np.arange(N)})
    X = da.from_array(P, chunks=(400, -1))
    with pytest.raises(ValueError, match=r"at most 1,000 values for slices by 'rank'.*Buckets"):
        dasknn.evaluate(Given().fit(), X, y, ["accuracy"], slices, slice_data=columns)


# --- models -----------------------------------------------------------------------------------------


def blobs():
    """Return X (600, 4) float32, y (600,) of 3 classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    return (rng.normal(size=(600, 4)) + y[:, np.newaxis]).astype("float32"), y


@pytest.mark.parametrize("strategy", ["auto", "predictions"])
def test_an_mlp_has_the_metrics_of_its_predictions(strategy):
    X, y = blobs()
    labels = np.array(["a", "b", "c"])[y]
    model = MLPClassifier((8,), max_iter=5, random_state=0, strategy=strategy, replicas=2).fit(X, labels)
    found = dasknn.evaluate(model, da.from_array(X, chunks=(250, -1)), labels).iloc[0]
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(labels, model.predict(X)))
    assert found["log_loss"] == pytest.approx(skm.log_loss(labels, model.predict_proba(X)), rel=1e-5)
    assert list(found.index[2::3]) == ["accuracy", "balanced_accuracy", "f1_macro", "log_loss"]


def test_an_mlp_of_numbers_has_the_metrics_of_its_predictions():
    X, y = blobs()
    model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0).fit(X, y.astype(float))
    found = dasknn.evaluate(model, X, y).iloc[0]
    assert found["r2"] == pytest.approx(skm.r2_score(y, model.predict(X)), rel=1e-5)


def sequential(units, activation, loss):
    dasknn.set_random_seed(0)
    model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(units, activation=activation)])
    model.compile(optimizer="adam", loss=loss)
    return model


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (1, "sigmoid", "binary_crossentropy"),
        (1, None, dasknn.losses.BinaryCrossentropy(from_logits=True)),
        (3, "softmax", "sparse_categorical_crossentropy"),
        (3, None, dasknn.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (3, "softmax", "categorical_crossentropy"),
    ],
)
def test_a_sequential_has_the_metrics_of_its_outputs(units, activation, loss):
    X, y = blobs()
    y = (y == 2).astype(int) if units == 1 else y
    targets = np.eye(3)[y] if loss == "categorical_crossentropy" else y
    model = sequential(units, activation, loss)
    model.fit(X, targets, epochs=2, verbose=0)
    outputs = model.predict(X, verbose=0)
    if activation is None:
        outputs = expit(outputs) if units == 1 else np.exp(outputs) / np.exp(outputs).sum(axis=1)[:, None]
    labels = (outputs[:, 0] > 0.5).astype(int) if units == 1 else outputs.argmax(axis=1)
    P = np.hstack([1 - outputs, outputs]) if units == 1 else outputs
    X = da.from_array(X, chunks=(250, -1))
    found = dasknn.evaluate(model, X, targets, ["accuracy", "log_loss"]).iloc[0]
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(y, labels))
    assert found["log_loss"] == pytest.approx(skm.log_loss(y, P), rel=1e-4)


@pytest.mark.parametrize(("units", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_the_last_layer_tells_what_an_uncompiled_sequential_predicts(units, activation):
    X, y = blobs()
    model = Sequential([Input((4,)), Dense(units, activation=activation)])
    model.build()
    found = dasknn.evaluate(model, X, y % 2 if units == 1 else y)
    assert "log_loss" in found


@pytest.mark.parametrize(("units", "loss"), [(3, "categorical_hinge"), (1, "hinge"), (1, "squared_hinge")])
def test_a_sequential_of_margins_has_metrics_of_labels_alone(units, loss):
    X, y = blobs()
    y = y if units == 3 else (y == 2).astype(int)
    # As losses of one margin take them, too.
    targets = np.eye(3)[y] if units == 3 else 2 * y - 1
    model = sequential(units, None, loss)
    model.fit(X, targets, epochs=2, verbose=0)
    margins = model.predict(X, verbose=0)
    labels = margins.argmax(axis=1) if units == 3 else (margins[:, 0] > 0).astype(int)
    found = dasknn.evaluate(model, X, targets)
    assert not {"log_loss", "roc_auc"} & set(found)
    assert found["accuracy"].iloc[0] == pytest.approx(skm.accuracy_score(y, labels))
    with pytest.raises(ValueError, match="predict_proba for metric 'log_loss'"):
        dasknn.evaluate(model, X, targets, "log_loss")


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_outputs_that_say_classes_do_so_with_a_loss_of_numbers(units, activation):
    X, y = blobs()
    y = y if units == 3 else (y == 2).astype(int)
    model = sequential(units, activation, "mse")
    model.fit(X, np.eye(3)[y] if units == 3 else y, epochs=2, verbose=0)
    outputs = model.predict(X, verbose=0)
    found = dasknn.evaluate(model, X, y, ["accuracy", "log_loss"]).iloc[0]
    labels = outputs.argmax(axis=1) if units == 3 else outputs[:, 0] > 0.5
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(y, labels))
    assert found["log_loss"] == pytest.approx(skm.log_loss(y, outputs), rel=1e-4)


def test_a_sequential_of_numbers_is_a_regression():
    X, y = blobs()
    model = sequential(1, None, "mse")
    model.fit(X, y, epochs=1, verbose=0)
    found = dasknn.evaluate(model, X, y, ["mean_squared_error"]).iloc[0]
    predicted = model.predict(X, verbose=0)[:, 0]
    assert found["mean_squared_error"] == pytest.approx(skm.mean_squared_error(y, predicted), rel=1e-4)


def test_a_pipeline_takes_tables_with_columns_of_text():
    frame = columns_to_slice_by()[["region", "age"]].assign(region=lambda f: f.region.fillna("?"))
    y = (frame.region == "EU").astype(int) ^ (frame.age > 80)
    model = make_pipeline(dasknn.TablePreprocessor(), MLPClassifier((8,), max_iter=3, random_state=0))
    model.fit(frame, y)
    found = dasknn.evaluate(model, dd.from_pandas(frame, npartitions=3), y_of(y, 3), slices=["region"])
    assert found["accuracy"].iloc[0] == pytest.approx(skm.accuracy_score(y, model.predict(frame)))
    assert found["slice"].tolist() == ["all", "region=?", "region=Asia", "region=EU", "region=US"]


def test_a_model_without_probabilities_has_metrics_of_labels():
    X, y = blobs()
    model = LinearSVC().fit(X, y == 2)
    found = dasknn.evaluate(model, X, y == 2)
    assert list(found.columns[2::3]) == ["accuracy", "precision", "recall"]
    with pytest.raises(ValueError, match="predict_proba for metric 'roc_auc'"):
        dasknn.evaluate(model, X, y == 2, "roc_auc")


def test_pos_label_says_which_class_is_looked_for():
    P, y, _ = probabilities(2)
    labels = np.array(["bad", "good"])[y]
    model = Given(labels=["bad", "good"]).fit()
    names = ["recall", "roc_auc", "average_precision", "brier_score_loss"]
    found = dasknn.evaluate(model, P, labels, names, pos_label="bad").iloc[0]
    assert found["recall"] == pytest.approx(skm.recall_score(labels, model.predict(P), pos_label="bad"))
    assert found["roc_auc"] == pytest.approx(skm.roc_auc_score(y == 0, P[:, 0]))
    assert found["average_precision"] == pytest.approx(skm.average_precision_score(y == 0, P[:, 0]))


# --- metrics of one's own ---------------------------------------------------------------------------


def cost(y_true, y_pred):
    """5 for a positive row that is missed, 1 for a false alarm."""
    return np.where(y_true > y_pred, 5.0, 1.0) * (y_true != y_pred)


def sums_for_f1(y_true, y_pred):
    return np.stack([y_true * y_pred, y_true + y_pred], axis=1)


def f1_of_sums(sums, weight):
    return 2 * sums[..., 0] / sums[..., 1]


def chance_of_the_truth(y_true, proba):
    return proba[np.arange(len(y_true)), y_true]


def test_own_metrics_are_sums_over_rows():
    P, y, weight = probabilities(2)
    labels = (P[:, 1] > P[:, 0]).astype(int)
    own = [
        cost,
        RowMetric("my_f1", sums_for_f1, f1_of_sums, width=2),
        RowMetric("chance", chance_of_the_truth, method="predict_proba"),
        "f1",
    ]
    found = dasknn.evaluate(Given().fit(), P, y, own, sample_weight=weight).iloc[0]
    assert found["cost"] == pytest.approx(np.average(cost(y, labels), weights=weight))
    assert found["chance"] == pytest.approx(np.average(chance_of_the_truth(y, P), weights=weight))
    for end in ("", "_low", "_high"):
        assert found[f"my_f1{end}"] == pytest.approx(found[f"f1{end}"])


def test_own_metrics_that_cannot_be_used_say_why():
    P, y, _ = probabilities(2, 300)

    def mean(y_true, y_pred):
        return np.mean(y_true == y_pred)

    with pytest.raises(PartitionError, match=r"Partition 0: Expected metric 'mean' .*leave the mean"):
        dasknn.evaluate(Given().fit(), P, y, mean)
    with pytest.raises(ValueError, match="a function without"):
        dasknn.evaluate(Given().fit(), P, y, lambda y_true, y_pred: y_true == y_pred)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("acuracy", "accuracy"),
        ("auc", "roc_auc"),
        ("neg_log_loss", "log_loss"),
        ("ece", "calibration_error"),
    ],
)
def test_unknown_metrics_name_what_may_have_been_meant(name, hint):
    P, y, _ = probabilities(2, 200)
    with pytest.raises(ValueError, match=f"Did you mean '{hint}'"):
        dasknn.evaluate(Given().fit(), P, y, [name])


def test_metrics_of_another_kind_of_problem_name_those_of_this_one():
    P, y, _ = probabilities(4, 200)
    with pytest.raises(ValueError, match="Did you mean 'f1_macro'"):
        dasknn.evaluate(Given(k=4).fit(), P, y, ["f1"])
    with pytest.raises(ValueError, match="Did you mean 'roc_auc_ovr'"):
        dasknn.evaluate(Given(k=4).fit(), P, y, ["roc_auc"])
    with pytest.raises(ValueError, match="this is regression"):
        dasknn.evaluate(LinearRegression().fit(P, y), P, y, ["accuracy"])


# --- two models -------------------------------------------------------------------------------------


def test_a_model_does_not_differ_from_itself():
    P, y, _ = probabilities(2)
    found = dasknn.compare(
        Given().fit(), Given().fit(), P, y, BINARY, SLICES, slice_data=columns_to_slice_by()
    )
    for name in BINARY:
        judged = found[found[f"{name}_a"].notna()]
        assert len(judged) > 10
        ends = judged[[f"{name}_difference{end}" for end in ("", "_low", "_high")]]
        assert (ends == 0).all(axis=None), name
        assert not judged[f"{name}_differs"].any()


def test_a_comparison_draws_the_same_rows_for_both():
    P, y, weight = probabilities(2)
    worse = 0.5 * P + 0.25
    names = ["log_loss", "accuracy"]
    both = np.hstack([P, worse])
    one, two = Given(0).fit(), Given(2).fit()
    found = dasknn.compare(one, two, both, y, names, sample_weight=weight).iloc[0]
    a, b = (dasknn.evaluate(m, both, y, names, sample_weight=weight).iloc[0] for m in (one, two))
    assert found["log_loss_a"] == a["log_loss"]
    assert found["log_loss_b"] == b["log_loss"]
    assert found["log_loss_difference"] == a["log_loss"] - b["log_loss"]
    # Drawn apart, their difference would be less sure than each of them.
    width = found["log_loss_difference_high"] - found["log_loss_difference_low"]
    assert width < 0.8 * (a["log_loss_high"] - a["log_loss_low"])
    assert found["log_loss_differs"]
    assert not found["accuracy_differs"]


def test_models_that_predict_different_things_are_not_compared():
    P, y, _ = probabilities(2)
    with pytest.raises(ValueError, match="predict the same"):
        dasknn.compare(Given().fit(), Given(labels=["x", "y"]).fit(), P, y)
    with pytest.raises(ValueError, match="predict the same"):
        dasknn.compare(Given().fit(), LinearRegression().fit(P, y), P, y)


# --- thresholds -------------------------------------------------------------------------------------


def evaluation():
    frame = pd.DataFrame(
        {
            "slice": ["all", "v=a", "v=b", "v=c"],
            "rows": [1000, 600, 395, 5],
            "accuracy": [0.84, 0.9, 0.76, np.nan],
            "accuracy_low": [0.81, 0.88, 0.7, np.nan],
            "accuracy_high": [0.87, 0.92, 0.82, np.nan],
            "log_loss": [0.4, 0.3, 0.55, np.nan],
            "log_loss_low": [0.38, 0.28, 0.49, np.nan],
            "log_loss_high": [0.42, 0.32, 0.6, np.nan],
        }
    )
    return frame


def test_every_slice_that_fails_is_named_with_its_numbers():
    with pytest.raises(dasknn.ThresholdError) as caught:
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.85, "log_loss": ("<=", 0.5)})
    message = str(caught.value)
    assert "2 of 4 slices do not pass" in message
    assert "all (1,000 rows): accuracy = 0.84 [0.81, 0.87], expected >= 0.85" in message
    assert "v=b (395 rows): accuracy = 0.76 [0.7, 0.82], expected >= 0.85" in message
    assert "v=b (395 rows): log_loss = 0.55 [0.49, 0.6], expected <= 0.5" in message
    assert "v=a" not in message
    assert "Not judged" in message
    assert "v=c (5 rows)" in message
    assert caught.value.failures["slice"].tolist() == ["all", "v=b", "v=b"]
    assert isinstance(caught.value, AssertionError)


def test_no_threshold_at_all_is_refused():
    with pytest.raises(ValueError, match="Expected at least one threshold"):
        dasknn.assert_thresholds(evaluation(), {})


@pytest.mark.parametrize(
    ("thresholds", "bound", "failing"),
    [
        ({"accuracy": 0.75}, "value", set()),
        ({"accuracy": 0.75}, "worst", {"v=b"}),
        ({"accuracy": 0.81}, "worst", {"v=b"}),
        ({"accuracy": 0.82}, "best", set()),
        ({"accuracy": 0.83}, "best", {"v=b"}),
        ({"accuracy": (">", 0.9)}, "value", {"all", "v=a", "v=b"}),
        ({"log_loss": 0.55}, "value", set()),
        ({"log_loss": 0.55}, "worst", {"v=b"}),
        ({"log_loss": 0.5}, "best", set()),
        ({"log_loss": [(">", 0.3), ("<", 0.5)]}, "value", {"v=a", "v=b"}),
    ],
)
def test_bounds_say_which_end_of_the_interval_is_judged(thresholds, bound, failing):
    frame = evaluation().iloc[:3]
    if not failing:
        assert dasknn.assert_thresholds(frame, thresholds, bound=bound) is frame
        return
    with pytest.raises(dasknn.ThresholdError) as caught:
        dasknn.assert_thresholds(frame, thresholds, bound=bound)
    assert set(caught.value.failures["slice"]) == failing


def test_slices_with_too_few_rows_are_said_and_not_judged():
    with pytest.warns(UserWarning, match=r"Not judged.*v=c \(5 rows\)"):
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.7})
    with pytest.raises(dasknn.ThresholdError, match="nothing to judge"):
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.7}, slices=["v=c"])


def test_a_comparison_can_be_asked_for_no_slice_that_is_worse():
    P, y, _ = probabilities(2)
    both = np.hstack([P, 0.5 * P + 0.25])
    found = dasknn.compare(Given(0).fit(), Given(2).fit(), both, y, ["accuracy", "log_loss"])
    assert dasknn.assert_thresholds(found, {"accuracy_difference": -0.01}, bound="worst") is found
    dasknn.assert_thresholds(found, {"log_loss_difference": 0})
    with pytest.raises(dasknn.ThresholdError):
        dasknn.assert_thresholds(found, {"log_loss_difference": (">=", 0)}, bound="best")


def test_thresholds_that_make_no_sense_are_refused():
    frame = evaluation()
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        dasknn.assert_thresholds(frame, {"acuracy": 0.7})
    with pytest.raises(ValueError, match=r"like 0.8 or \('>=', 0.8\)"):
        dasknn.assert_thresholds(frame, {"accuracy": "0.7"})
    with pytest.raises(ValueError, match="Did you mean 'v=a'"):
        dasknn.assert_thresholds(frame, {"accuracy": 0.7}, slices="v=aa")
    frame["bias"] = 0.0
    with pytest.raises(ValueError, match="with a comparison"):
        dasknn.assert_thresholds(frame, {"bias": 0.7})
    with pytest.raises(ValueError, match="Expected an interval of 'bias'"):
        dasknn.assert_thresholds(frame, {"bias": ("<=", 0.7)}, bound="worst")


# --- bad data ---------------------------------------------------------------------------------------


def mlp_and_frame():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd"))
    return MLPClassifier((4,), max_iter=2, random_state=0).fit(frame, y), frame, y


def test_nan_is_named_with_partition_row_and_column(client):
    model, frame, y = mlp_and_frame()
    frame.loc[350, "c"] = np.nan
    X = dd.from_pandas(frame, npartitions=2)
    with pytest.raises(PartitionError, match=r"Partition 1: X holds nan in row 50, column 'c'"):
        dasknn.evaluate(model, X, y_of(y, 2))


def test_bad_targets_and_weights_are_named():
    model, frame, y = mlp_and_frame()
    X = da.from_array(frame.to_numpy(), chunks=(300, -1))
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(frame.to_numpy(), y)
    bad = y.astype(float)
    bad[400] = np.nan
    with pytest.raises(PartitionError, match=r"Partition 1: y holds nan in row 100"):
        dasknn.evaluate(model, X, bad)
    with pytest.raises(PartitionError, match=r"Partition 1: Expected labels among \[0 1 2\], received 7"):
        dasknn.evaluate(model, X, np.where(np.arange(600) == 400, 7, y))
    weight = np.ones(600)
    weight[310] = -1
    with pytest.raises(PartitionError, match=r"Partition 1: sample_weight holds -1.0 in row 10"):
        dasknn.evaluate(model, X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="at least one non-zero"):
        dasknn.evaluate(model, X, y, sample_weight=np.zeros(600))


def test_lengths_that_differ_are_named():
    model, frame, y = mlp_and_frame()
    with pytest.raises(ValueError, match="X has 600 rows, y has 599"):
        dasknn.evaluate(model, frame, y[:599])
    with pytest.raises(ValueError, match="X has 600 rows, slice_data has 500"):
        dasknn.evaluate(model, frame, y, slices=["v"], slice_data=pd.DataFrame({"v": range(500)}))
    X = dd.from_pandas(frame, npartitions=2)
    short = dd.from_pandas(frame[["a"]].iloc[:598].rename(columns={"a": "v"}), npartitions=2)
    with pytest.raises(PartitionError, match=r"Partition [01]: X has 300 rows, slice_data has 299"):
        dasknn.evaluate(model, X, y_of(y, 2), slices=[Buckets("v", 2)], slice_data=short)
    other = dd.from_pandas(frame[["a"]], npartitions=3)
    with pytest.raises(ValueError, match="same partitions, received 2 and 3"):
        dasknn.evaluate(model, X, y_of(y, 2), slices=["a"], slice_data=other)


def test_columns_that_are_not_there_are_named():
    model, frame, y = mlp_and_frame()
    with pytest.raises(ValueError, match=r"received 'region'. There are: 'a', 'b', 'c', 'd'"):
        dasknn.evaluate(model, frame, y, slices=["region"])
    P, labels, _ = probabilities(2)
    with pytest.raises(ValueError, match="none with a name"):
        dasknn.evaluate(Given().fit(), P, labels, slices=["a"])
    with pytest.raises(ValueError, match="series with a name"):
        dasknn.evaluate(model, frame, y, slices=["v"], slice_data=np.zeros(600))
    text = pd.DataFrame({"v": ["x"] * 600})
    with pytest.raises(PartitionError, match=r"Expected numbers in column 'v' for Buckets"):
        dasknn.evaluate(model, frame, y, slices=[Buckets("v", 2)], slice_data=text)


def test_models_that_cannot_be_evaluated_say_why():
    X, y = blobs()
    with pytest.raises(NotFittedError):
        dasknn.evaluate(MLPClassifier(), X, y)
    with pytest.raises(NotFittedError):
        dasknn.evaluate(LogisticRegression(), X, y)
    with pytest.raises(TypeError, match="model with predict"):
        dasknn.evaluate("model.safetensors", X, y)
    several = np.stack([y > 0, y > 1], axis=1).astype(int)
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, several)
    with pytest.raises(ValueError, match="one label a row"):
        dasknn.evaluate(model, X, several)


@pytest.mark.parametrize("edges", [1, True, [], [3, 1], [1, 1], "age"])
def test_buckets_that_make_no_sense_are_refused(edges):
    with pytest.raises(ValueError, match="Expected"):
        Buckets("age", edges)


def test_no_rows_at_all_are_refused():
    model, frame, y = mlp_and_frame()
    X = dd.from_pandas(frame, npartitions=2)
    nobody = X["a"] > 1e9
    with pytest.raises(ValueError, match="at least one row"):
        dasknn.evaluate(model, X[nobody], y_of(y, 2)[nobody])


def test_partitions_without_rows_do_no_harm():
    model, frame, y = mlp_and_frame()
    frame = frame.assign(y=y, part=np.repeat([0, 1, 2], 200))
    d = dd.from_pandas(frame, npartitions=3)
    d = d[d["part"] != 0]
    X = d[["a", "b", "c", "d"]]
    found = dasknn.evaluate(model, X, d["y"], slices=[Buckets("part", 2)], slice_data=d[["part"]])
    assert found["rows"].tolist() == [400, 400]


@pytest.mark.parametrize("n_partitions", [1, 5])
def test_r2_of_slices_that_are_far_apart_keeps_its_digits(n_partitions):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.standard_normal(600), "far": np.repeat([0.0, 1e8], 300)})
    y = frame["far"] + frame["a"] + 0.3 * rng.standard_normal(600)
    model = LinearRegression().fit(frame, y)
    # Least squares itself loses the small column beside the large one.
    model.coef_, model.intercept_ = np.array([1.0, 1.0]), 0.0
    frame["y"] = y
    mixed = frame.sample(frac=1, random_state=0)
    data = mixed if n_partitions == 1 else dd.from_pandas(mixed, npartitions=n_partitions, sort=False)
    found = dasknn.evaluate(model, data[["a", "far"]], data["y"], slices=["far"], metrics=["r2"])
    for far, (value, low, high) in zip(
        (0.0, 1e8), found[["r2", "r2_low", "r2_high"]].to_numpy()[1:], strict=True
    ):
        own = frame[frame["far"] == far]
        assert value == pytest.approx(skm.r2_score(own["y"], model.predict(own[["a", "far"]])), rel=1e-6)
        assert 0.85 < low < value < high < 0.95


def test_of_a_pipeline_that_ends_in_a_sequential_the_last_step_is_evaluated():
    X = pd.DataFrame({"x": [0.0, 1.0] * 20, "sex": list("mmff") * 10})
    y = (X["x"] > 0).astype(int)
    network = Sequential([Dense(1, activation="sigmoid")])
    network.compile(loss="binary_crossentropy")
    pipeline = make_pipeline(TablePreprocessor(), network).fit(X, y, sequential__verbose=0)
    with pytest.raises(ValueError, match=r"pipeline\[-1\], pipeline\[:-1\]\.transform\(X\), y, slice_data=X"):
        dasknn.evaluate(pipeline, X, y)
    found = dasknn.evaluate(pipeline[-1], pipeline[:-1].transform(X), y, slices=["sex"], slice_data=X)
    assert found["rows"].tolist() == [40, 20, 20]
