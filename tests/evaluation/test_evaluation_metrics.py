"""Metrics of slices are scikit-learn's; own metrics are sums over rows."""

import warnings

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from given_models import (
    BINARY,
    OF_CLASSES,
    OF_LABELS,
    SLICES,
    Given,
    GivenNumbers,
    N,
    columns_to_slice_by,
    expected_of_classes,
    probabilities,
)
from sklearn import metrics as skm
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LinearRegression

import dasknn
from dasknn import RowMetric
from dasknn.exceptions import PartitionError

# --- they are scikit-learn's ----------------------------------------------------------------------


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


# --- slices without a class -----------------------------------------------------------------------


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


# --- metrics of one's own -------------------------------------------------------------------------


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


# --- unknown metrics ------------------------------------------------------------------------------


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
