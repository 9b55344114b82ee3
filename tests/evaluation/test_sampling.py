"""A sample holds whole rows, each as likely as the others, and is the same wherever it is drawn."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.evaluation.problem import REGRESSION, Problem
from dasknn.evaluation.sampling import Sampling, chosen_columns, with_rows_of
from dasknn.exceptions import PartitionError

NUMBERS = Problem(REGRESSION)


def sampled(X, y=None, weight=None, max_samples=None, random_state=0):
    """The rows of a sample."""
    sampling = Sampling(X, y, weight, None if y is None else NUMBERS, max_samples, random_state)
    graph = Graph()
    with LocalExecutor() as tasks:
        rows = sampling.add_to(tasks, graph)
        if not sampling.is_distributed:
            return rows
        return tasks.run(graph, [rows])[0]


def numbered(n=1000, chunks=130):
    """X (n, 2), y (n,) and weight (n,) in which each row holds its number."""
    rows = np.arange(n, dtype=float)
    X = np.column_stack([rows, -rows])
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(rows, chunks=chunks), rows + 1


def test_a_sample_holds_whole_rows_in_their_order():
    found = sampled(*numbered(), max_samples=300)
    rows = found.X[:, 0]
    assert len(rows) == 300
    assert_array_equal(rows, np.unique(rows))
    assert_array_equal(found.X[:, 1], -rows)
    assert_array_equal(found.y[:, 0], rows)
    assert_array_equal(found.weight, rows + 1)


def test_each_row_is_as_likely_as_the_others_whatever_its_partition():
    X = da.from_array(np.arange(60.0).reshape(-1, 1), chunks=((40, 3, 0, 17), (1,)))
    counts = np.zeros(60)
    for seed in range(600):
        counts[sampled(X, max_samples=20, random_state=seed).X[:, 0].astype(int)] += 1
    # 200 of 600 on average, with a standard deviation of 11.5.
    assert counts.sum() == 600 * 20
    assert abs(counts - 200).max() < 46
    for begin, end in ((0, 40), (40, 43), (43, 60)):
        assert abs(counts[begin:end].mean() - 200) < 30 / np.sqrt(end - begin)


@pytest.mark.parametrize("n_parts", [1, 3, 7, 20])
def test_a_sample_of_all_rows_does_not_depend_on_partitions(n_parts):
    frame = pd.DataFrame({"a": np.arange(100.0), "b": list("abcde" * 20)})
    for max_samples in (None, 100, 1000):
        X = dd.from_pandas(frame, npartitions=n_parts)
        found = sampled(X, X["a"], max_samples=max_samples)
        # Dask makes text of objects.
        pd.testing.assert_frame_equal(found.X, frame, check_dtype=False)
        assert_array_equal(found.y[:, 0], frame["a"])


def test_plain_data_gives_the_sample_of_one_partition():
    X, y, _ = numbered(chunks=1000)
    here, there = sampled(X.compute(), y.compute(), max_samples=50), sampled(X, y, max_samples=50)
    assert_array_equal(here.X, there.X)
    assert not np.array_equal(here.X, sampled(X, y, max_samples=50, random_state=1).X)


def test_data_is_read_once():
    read = []

    def part(i):
        read.append(i)
        return pd.DataFrame({"a": [float(i)] * 10, "y": [float(i)] * 10})

    source = dd.from_map(part, range(20), meta=pd.DataFrame({"a": [0.0], "y": [0.0]}))
    with dask.config.set(scheduler="synchronous"):
        assert len(sampled(source[["a"]], source["y"], max_samples=30).keys) == 30
    assert sorted(read) == list(range(20))


def test_categories_of_all_partitions_stay_categories():
    parts = [pd.DataFrame({"a": pd.Categorical(values)}) for values in (["x", "y"], ["z", "x"])]
    X = dd.from_map(lambda i: parts[i], range(2), meta=parts[0].iloc[:0], enforce_metadata=False)
    column = sampled(X).X["a"]
    assert column.tolist() == ["x", "y", "z", "x"]
    assert column.dtype == pd.CategoricalDtype(["x", "y", "z"])


def test_partitions_without_rows_do_no_harm():
    frame = pd.DataFrame({"a": np.arange(30.0), "b": ["x", "y", None] * 10})
    X = dd.from_pandas(frame, npartitions=3)
    X = X[X["a"] >= 10]
    assert sampled(X, X["a"]).X["a"].tolist() == list(range(10, 30))
    with pytest.raises(ValueError, match="at least one row, found 0 samples"):
        sampled(X[X["a"] > 99])


def test_bad_data_is_named_by_partition():
    X, y, weight = numbered()
    bad = y.compute()
    bad[140] = np.nan
    with pytest.raises(PartitionError, match=r"Partition 1: y holds nan in row 10"):
        sampled(X, bad)
    weight[150] = -1
    with pytest.raises(PartitionError, match=r"Partition 1: sample_weight holds -1.0 in row 20"):
        sampled(X, weight=weight)
    with pytest.raises(ValueError, match="X has 1000 rows, y has 999"):
        sampled(X, bad[:999])
    with pytest.raises(ValueError, match="at least one non-zero"):
        sampled(X, weight=np.zeros(1000))
    for max_samples in (0, 0.5, True):
        with pytest.raises(ValueError, match="max_samples to be an integer"):
            sampled(X, max_samples=max_samples)


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frame", "array", "sparse"])
@pytest.mark.parametrize("positions", [(1,), (3, 0)])
def test_columns_take_the_values_of_other_rows(kind, positions):
    array = np.arange(40.0).reshape(10, 4) * (np.arange(10) % 3 > 0)[:, np.newaxis]
    rows = np.random.default_rng(0).permutation(10)
    X = {"frame": pd.DataFrame, "array": np.array, "sparse": sparse.csr_matrix}[kind](array)
    found = with_rows_of(X, positions, rows)
    expected = array.copy()
    expected[:, positions] = array[rows][:, positions]
    assert type(found) is type(X)
    for table, numbers in ((found, expected), (X, array)):
        assert_array_equal(table.toarray() if kind == "sparse" else np.asarray(table), numbers)


def test_columns_keep_their_dtypes():
    frame = pd.DataFrame(
        {
            "text": ["a", None, "b"],
            "kind": pd.Categorical(["x", "y", None]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "day": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        }
    )
    before = frame.copy(deep=True)
    found = with_rows_of(frame, range(4), np.array([2, 2, 1]))
    pd.testing.assert_frame_equal(found, frame.iloc[[2, 2, 1]].reset_index(drop=True))
    pd.testing.assert_frame_equal(frame, before)


def test_columns_are_found_by_name_and_those_of_arrays_also_by_position():
    frame, array = pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", 7]), np.zeros((2, 3))
    assert [one.positions for one in chosen_columns(None, frame)] == [(0,), (1,), (2,)]
    assert [one.positions for one in chosen_columns([7, "a"], frame)] == [(2,), (0,)]
    assert [one.name for one in chosen_columns([-1, "x0"], array)] == ["x2", "x0"]
    [both] = chosen_columns([("a", 7)], frame, may_be_several=True)
    assert (both.name, both.positions) == (("a", 7), (0, 2))
    [one] = chosen_columns("b", frame)
    assert one.name == "b"


@pytest.mark.parametrize("columns", [["hour"], ["hours", "hour"], [("hours", "hour")], "hour"])
def test_a_column_that_does_not_exist_is_named(columns):
    frame = dd.from_pandas(pd.DataFrame({"hours": [1.0], "age": [2.0]}), npartitions=1)
    with pytest.raises(ValueError, match=r"received 'hour'. Did you mean 'hours'\? There are 'hours', 'age'"):
        chosen_columns(columns, frame, may_be_several=True)


def test_columns_that_are_not_clear_are_refused():
    with pytest.raises(ValueError, match="positions from 0 to 1, or names of columns of X, received 2"):
        chosen_columns([2], np.zeros((3, 2)))
    with pytest.raises(ValueError, match="one column of the name 'a', received 2"):
        chosen_columns(["a"], pd.DataFrame(np.zeros((1, 2)), columns=["a", "a"]))
    for columns in ([], ["x0", 0], [()], [("x0", 0)]):
        with pytest.raises(ValueError, match="one or more different columns"):
            chosen_columns(columns, np.zeros((3, 2)), may_be_several=True)
