"""Data is read once, results are the same everywhere, and bad data is named."""

import inspect
import pickle

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from distributed import Client
from given_models import BINARY, SLICES, Given, columns_to_slice_by, mlp_and_frame, probabilities, y_of
from pandas.testing import assert_frame_equal
from sklearn.linear_model import LinearRegression

import dasknn
from dasknn import Buckets, MLPClassifier
from dasknn.exceptions import PartitionError

# --- the same everywhere, read once, nothing left -------------------------------------------------


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


# --- two models -----------------------------------------------------------------------------------


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


def test_a_comparison_takes_the_arguments_of_an_evaluation():
    of_one, of_two = (
        list(inspect.signature(f).parameters.values()) for f in (dasknn.evaluate, dasknn.compare)
    )
    assert [one.name for one in (*of_one[:1], *of_two[:2])] == ["model", "model_a", "model_b"]
    assert of_one[1:] == of_two[2:]


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


# --- bad data -------------------------------------------------------------------------------------


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


def test_partitions_without_rows_do_no_harm_to_metrics_of_numbers():
    frame = pd.DataFrame({"a": np.arange(90.0), "y": np.arange(90.0)})
    d = dd.from_pandas(frame, npartitions=3)
    d = d[d["a"] >= 30]
    model = LinearRegression().fit(frame[["a"]], frame["y"])
    found = dasknn.evaluate(model, d[["a"]], d["y"], min_rows=1)
    assert found["rows"].tolist() == [60]
    assert found["r2"].tolist() == [1.0]
