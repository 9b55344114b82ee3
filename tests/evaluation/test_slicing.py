"""Slices hold the rows that their names say."""

from functools import reduce
from operator import add

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from given_models import Given, N, mlp_and_frame, probabilities, y_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

import dasknn
from dasknn import Buckets
from dasknn.exceptions import PartitionError

# --- values ---------------------------------------------------------------------------------------


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


def test_text_that_reads_like_a_number_is_told_apart():
    P, y, _ = probabilities(2, 4)
    columns = pd.DataFrame({"v": pd.Series(["1", 1, "missing", None], dtype=object)})
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy"], ["v"], slice_data=columns, min_rows=0)
    assert set(found["slice"]) == {"all", "v=1", "v='1'", "v=missing", "v='missing'"}


def test_small_slices_are_listed_without_metrics():
    P, y, _ = probabilities(2)
    columns = pd.DataFrame({"v": np.repeat(["many", "few"], [N - 99, 99])})
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy"], ["v"], slice_data=columns)
    few = found[found["slice"] == "v=few"].iloc[0]
    assert few["rows"] == 99
    assert few[["accuracy", "accuracy_low", "accuracy_high"]].isna().all()
    assert found["accuracy"].notna().sum() == 2


def test_slices_by_columns_that_the_model_sees_need_no_further_data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=400), "flag": rng.integers(0, 2, 400)})
    y = (X.a > 0).astype(int)
    model = LogisticRegression().fit(X, y)
    found = dasknn.evaluate(model, dd.from_pandas(X, npartitions=3), y_of(y, 3), ["accuracy"], "flag")
    assert found["slice"].tolist() == ["all", "flag=0", "flag=1"]


@pytest.mark.parametrize("slices", [["region", "rank"], "rank"])
def test_too_many_values_are_refused_with_a_remedy(slices):
    P, y, _ = probabilities(2)
    columns = pd.DataFrame({"region": "EU", "rank": np.arange(N)})
    X = da.from_array(P, chunks=(400, -1))
    with pytest.raises(ValueError, match=r"at most 1,000 values for slices by 'rank'.*Buckets"):
        dasknn.evaluate(Given().fit(), X, y, ["accuracy"], slices, slice_data=columns)


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


# --- buckets --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("edges", [1, True, [], [3, 1], [1, 1], "age"])
def test_buckets_that_make_no_sense_are_refused(edges):
    with pytest.raises(ValueError, match="Expected"):
        Buckets("age", edges)
