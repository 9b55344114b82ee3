"""Rows come out once, each with what belongs to it, in an order that depends on the seed alone."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal, assert_series_equal
from scipy import sparse

import dasknn
from dasknn import MLPClassifier
from dasknn.exceptions import PartitionError

N = 400


def sorted_rows():
    """Return X (N, 3), y (N,) sorted; the first column of X tells the row."""
    X = np.random.default_rng(0).standard_normal((N, 3))
    X[:, 0] = np.arange(N)
    return X, np.repeat([0, 1], N // 2)


def in_chunks():
    X, y = sorted_rows()
    return da.from_array(X, chunks=((90, 110, 0, 150, 50), -1)), da.from_array(y, chunks=130)


def in_frames():
    X, y = sorted_rows()
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abc")).assign(label=y), npartitions=4, sort=False)
    return frame[["a", "b", "c"]], frame["label"]


def plain():
    return sorted_rows()


def as_arrays(*collections):
    return [np.asarray(values) for values in dask.compute(*collections)]


# --- any form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [in_chunks, in_frames, plain])
def test_each_row_comes_out_once_with_what_belongs_to_it(form):
    X, y = form()
    weight = y * 2 + 1
    found = dasknn.shuffle(X, y, weight, random_state=0)
    assert isinstance(found, tuple)
    assert [type(one) for one in found] == [type(X), type(y), type(weight)]
    X_found, y_found, weight_found = as_arrays(*found)
    rows = X_found[:, 0].astype(int)
    assert sorted(rows) == list(range(N))
    X, y = sorted_rows()
    assert_array_equal(X_found, X[rows])
    assert_array_equal(y_found, y[rows])
    assert_array_equal(weight_found, 2 * y[rows] + 1)


@pytest.mark.parametrize("form", [in_chunks, in_frames, plain])
def test_the_seed_decides_the_order(form):
    X, _ = form()
    (once,) = as_arrays(dasknn.shuffle(X, random_state=0))
    (again,) = as_arrays(dasknn.shuffle(X, random_state=np.random.RandomState(0)))
    (other,) = as_arrays(dasknn.shuffle(X, random_state=1))
    assert_array_equal(once, again)
    assert (once[:, 0] != other[:, 0]).mean() > 0.9
    assert (as_arrays(dasknn.shuffle(X))[0] != as_arrays(dasknn.shuffle(X))[0]).any()


@pytest.mark.parametrize("form", [in_chunks, in_frames])
def test_rows_of_every_partition_go_to_every_partition(form):
    X, _ = form()
    shuffled = dasknn.shuffle(X, random_state=0)
    parts = [np.asarray(part)[:, 0] for part in dask.compute(*partitions_of(shuffled))]
    # As many as held rows before, of about the same size.
    assert len(parts) == 4
    for part in parts:
        assert 65 < len(part) < 135
        of_quarters = np.bincount(part.astype(int) // 100, minlength=4)
        assert of_quarters.min() > 8
        # Within a partition, too, the order is random.
        assert abs(np.corrcoef(part, np.arange(len(part)))[0, 1]) < 0.35
        assert abs((np.diff(part) > 0).mean() - 0.5) < 0.2


def partitions_of(collection):
    return list(collection.partitions if isinstance(collection, dd.DataFrame) else collection.blocks)


@pytest.mark.parametrize("form", [in_chunks, in_frames])
def test_sorted_data_can_be_trained_on_afterwards(form):
    model = MLPClassifier((3,), max_iter=2, random_state=0, strategy="gradients", replicas=2)
    # Warnings are errors, that of sorted data included.
    model.fit(*dasknn.shuffle(*form(), random_state=0))


@pytest.mark.parametrize("form", [in_chunks, in_frames])
def test_a_cluster_gives_the_same_order_as_threads(client, form):
    X, y = dasknn.shuffle(*form(), random_state=0)
    apart = [*as_arrays(X), *as_arrays(y)]
    together = as_arrays(X, y)
    with dask.config.set({"dataframe.shuffle.method": "disk"}):
        here = dask.compute(*dasknn.shuffle(*form(), random_state=0), scheduler="threads")
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        by_tasks = dask.compute(*dasknn.shuffle(*form(), random_state=0), scheduler="sync")
    for found in (apart, together, by_tasks):
        for one, other in zip(found, here, strict=True):
            assert_array_equal(one, other)


@pytest.mark.parametrize("form", [in_chunks, in_frames])
def test_it_is_lazy(form):
    def fail(block):
        raise OSError("read too early")

    X, _ = form()
    X = X.map_blocks(fail, meta=X._meta) if form is in_chunks else X.map_partitions(fail, meta=X._meta)
    X = dasknn.shuffle(X)
    with pytest.raises(OSError, match="read too early"):
        X.compute(scheduler="sync")


def test_what_cannot_be_shuffled_together_is_refused_with_the_remedy():
    X, y = in_chunks()
    frame, label = in_frames()
    with pytest.raises(ValueError, match="one kind, received Array, Series"):
        dasknn.shuffle(X, label)
    with pytest.raises(ValueError, match="one kind, received DataFrame, ndarray"):
        dasknn.shuffle(frame, np.zeros(N))
    with pytest.raises(ValueError, match=r"received Bag\. Use its to_dataframe"):
        dasknn.shuffle(db.from_sequence([1, 2]))
    with pytest.raises(ValueError, match="at least one collection"):
        dasknn.shuffle()
    with pytest.raises(ValueError, match=r"known chunks.*Call compute_chunk_sizes\(\)"):
        dasknn.shuffle(frame.to_dask_array())
    with pytest.raises(ValueError, match="received 400 in the first and 399 in another"):
        dasknn.shuffle(X, y[1:])
    with pytest.raises(ValueError, match="same partitions, received 4, 2"):
        dasknn.shuffle(frame, label.repartition(npartitions=2))


# --- dataframes -------------------------------------------------------------------------------------


def rich_frame():
    return pd.DataFrame(
        {
            "number": np.arange(N, dtype="float32"),
            "nullable": pd.array([1, None, 3, 4] * (N // 4), dtype="Int64"),
            "text": ["u", "v", None, "w"] * (N // 4),
            "category": pd.Categorical(["x", "y", "z", "x"] * (N // 4), categories=["z", "y", "x", "never"]),
            "ordered": pd.Categorical([3, 1, 2, 1] * (N // 4), ordered=True),
            "time": pd.date_range("2020-01-01", periods=N, tz="Europe/Berlin"),
            "yes": [True, False] * (N // 2),
        },
        index=pd.Index(np.arange(N) * 3, name="key"),
    )


@pytest.mark.parametrize("where", ["threads", "client"])
def test_names_dtypes_and_index_are_kept(where, request):
    if where == "client":
        request.getfixturevalue("client")
    frame = dd.from_pandas(rich_frame(), npartitions=4)
    X, y = dasknn.shuffle(frame, frame["category"], random_state=0)
    assert_frame_equal(X._meta, frame._meta)
    assert_series_equal(y._meta, frame["category"]._meta)
    X, y, before = dask.compute(X, y, frame)
    assert not X.index.is_monotonic_increasing
    assert_frame_equal(X.sort_index(), before)
    assert_series_equal(y, X["category"])


def test_columns_of_the_same_name_stay_apart():
    whole = pd.DataFrame(np.arange(12.0).reshape(6, 2), columns=["a", "a"])
    numbers = dd.from_pandas(pd.Series(np.arange(6)), npartitions=2)
    frame = numbers.map_partitions(lambda part: whole.loc[part.index], meta=whole)
    found = dasknn.shuffle(frame, random_state=0).compute()
    assert list(found.columns) == ["a", "a"]
    assert_array_equal(found.sort_index().to_numpy(), np.arange(12.0).reshape(6, 2))


def test_columns_in_another_order_than_announced_keep_their_names():
    frame = pd.DataFrame({"a": np.arange(N), "b": -np.arange(N)})
    turned = dd.from_pandas(frame, npartitions=3).map_partitions(
        lambda part: part[["b", "a"]], meta=frame.iloc[:0], enforce_metadata=False
    )
    found = dasknn.shuffle(turned, random_state=0).compute()
    assert_frame_equal(found.sort_index(), frame)


def test_a_name_of_ours_is_a_name_like_any_other():
    frame = dd.from_pandas(pd.DataFrame({"key": np.arange(N), 0: np.arange(N)}), npartitions=3)
    found = dasknn.shuffle(frame, random_state=0).compute()
    assert list(found.columns) == ["key", 0]
    assert_array_equal(found["key"], found[0])
    assert sorted(found["key"]) == list(range(N))


def test_categories_that_are_not_known_yet_come_through():
    frame = dd.from_pandas(pd.DataFrame({"a": ["x", "y"] * 20}), npartitions=4).astype("category")
    assert not frame["a"].cat.known
    found = dasknn.shuffle(frame, random_state=0).compute()
    assert sorted(found["a"].astype(str)) == ["x"] * 20 + ["y"] * 20


def test_columns_read_from_fused_files_stay_aligned(tmp_path):
    # dask.dataframe fuses Parquet files when few of their columns are read.
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.standard_normal((60, 30)), columns=[f"x{i}" for i in range(30)])
    wide["label"] = (wide["x0"] > 0).astype(int)
    dd.from_pandas(wide, npartitions=10, sort=False).to_parquet(tmp_path)
    read = dd.read_parquet(tmp_path)
    X, y = dasknn.shuffle(read.drop(columns="label"), read["label"], random_state=0)
    X, y = dask.compute(X, y)
    assert_array_equal(y, X["x0"] > 0)
    assert sorted(X["x0"]) == sorted(wide["x0"])


def test_partitions_of_different_lengths_are_named():
    frame, label = in_frames()
    X, _ = dasknn.shuffle(frame, label.map_partitions(lambda part: part.iloc[1:], meta=label._meta))
    with pytest.raises(PartitionError, match=r"Partition \d: .* received 100 in the first and 99 in another"):
        X.compute(scheduler="sync")


def test_rows_travel_between_workers_by_p2p(client):
    X, _ = dasknn.shuffle(*in_frames(), random_state=0)
    names = {str(key[0] if isinstance(key, tuple) else key) for key in X.optimize().__dask_graph__()}
    assert any(name.startswith("shuffle-transfer") for name in names)
    assert any(name.startswith("shuffle-barrier") for name in names)


def test_streamed_training_reads_a_shuffled_dataframe_again(client, monkeypatch):
    from dasknn.data import loading

    fit = MLPClassifier((3,), max_iter=2, random_state=0, strategy="gradients", replicas=2).fit
    X, y = dasknn.shuffle(*in_frames(), random_state=0)
    held = fit(X, y).coefs_[0].copy()
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    assert_array_equal(fit(X, y).coefs_[0], held)


# --- arrays -----------------------------------------------------------------------------------------


def test_all_arrays_get_the_same_chunks_whatever_they_had():
    X, y = in_chunks()
    images = da.from_array(np.arange(N * 6).reshape(N, 2, 3), chunks=(37, 1, 2))
    X_found, y_found, images_found = dasknn.shuffle(X.rechunk({1: 2}), y, images, random_state=0)
    assert X_found.chunks[0] == y_found.chunks[0] == images_found.chunks[0]
    assert X_found.numblocks == (4, 1)
    assert images_found.numblocks == (4, 1, 1)
    assert sum(X_found.chunks[0]) == N
    assert X_found.shape == X.shape
    assert images_found.dtype == images.dtype
    assert [len(block) for block in dask.compute(*y_found.blocks)] == list(y_found.chunks[0])
    X_found, images_found = dask.compute(X_found, images_found)
    assert_array_equal(images_found, images.compute()[X_found[:, 0].astype(int)])


def test_chunks_of_sparse_matrices_are_shuffled():
    X, y = in_chunks()
    X_found, y_found = dasknn.shuffle(X.map_blocks(sparse.csr_matrix), y, random_state=0)
    blocks, labels = dask.compute(list(X_found.to_delayed().ravel()), y_found)
    rows = sparse.vstack(blocks).toarray()[:, 0].astype(int)
    assert sorted(rows) == list(range(N))
    assert_array_equal(labels, sorted_rows()[1][rows])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_fewer_rows_than_chunks(n):
    x = da.from_array(np.arange(n), chunks=1) if n else da.zeros(0, dtype=int)
    assert sorted(dasknn.shuffle(x, random_state=0).compute()) == list(range(n))


def test_every_order_of_rows_is_as_likely_as_any_other():
    x = da.from_array(np.arange(4), chunks=2)
    orders = [tuple(dasknn.shuffle(x, random_state=seed).compute(scheduler="sync")) for seed in range(480)]
    counts = np.unique([hash(order) for order in orders], return_counts=True)[1]
    # 24 orders, 20 times each: chi-square of 23 degrees of freedom, below 60 but once in 30,000.
    assert len(counts) == 24
    assert ((counts - 20) ** 2 / 20).sum() < 60
