"""What comes in at the door: kinds that are worked with, frames of others, rows in one order."""

import decimal
import re

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from test_bad_users import FACES, FRAME, N, X, Y, fit, new_model, on_dask

import dasknn
from dasknn import MLPClassifier, MLPRegressor, TablePreprocessor
from dasknn.data import inputs


class DataArray:
    """What xarray's looks like from outside, when it is on Dask."""

    __module__ = "xarray.core.dataarray"

    def __init__(self, data):
        self.data, self.ndim, self.shape, self.dtype = data, data.ndim, data.shape, data.dtype

    def __dask_graph__(self):
        return self.data.__dask_graph__()


def sparse_blocks():
    sparse = pytest.importorskip("sparse")
    return on_dask(X)[0].map_blocks(sparse.COO.from_numpy)


def unknown_width():
    return da.from_delayed(dask.delayed(X), (np.nan, np.nan), float)


STRANGE = {
    "Delayed": (lambda: dask.delayed(X), "a Delayed", "dask.array.from_delayed(X, shape, dtype)"),
    "list of Delayed": (
        lambda: [dask.delayed(X[:30]), dask.delayed(X[30:])],
        "a list of Delayeds",
        "dask.dataframe.from_delayed(X)",
    ),
    "list of Dask arrays": (
        lambda: [on_dask(X)[0]] * 2,
        "a list of Dask Arrays",
        "dask.array.concatenate(X)",
    ),
    "bag": (lambda: db.from_sequence(X.tolist(), npartitions=3), "a Bag", "X.to_dataframe("),
    "xarray": (lambda: DataArray(on_dask(X)[0]), "an xarray.DataArray on Dask", "X.data"),
    "unknown width": (unknown_width, "shape (nan, nan)", "X.compute_chunk_sizes()"),
    "pydata/sparse blocks": (
        sparse_blocks,
        "sparse.COO blocks",
        "X.map_blocks(lambda block: block.tocsr(), dtype=X.dtype)",
    ),
    "pydata/sparse": (lambda: pytest.importorskip("sparse").COO(X), "a sparse.COO", "X.tocsr()"),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", list(STRANGE))
def test_a_kind_that_is_not_worked_with_is_named_with_what_to_call(kind, face):
    make, called, remedy = STRANGE[kind]
    model = fit(new_model(face, "process"), (X, Y), 1)
    data = make()
    words = "(?i)" + re.escape(called) + ".*Use.*" + re.escape(remedy)
    if kind == "unknown width":
        words = "(?i)" + re.escape(called) + ".*" + re.escape(remedy)
    for what in (
        lambda: fit(new_model(face), (data, on_dask(Y)[0]), 1),
        lambda: model.predict(data),
        lambda: (model.score if face == "scikit-learn" else model.evaluate)(data, on_dask(Y)[0]),
    ):
        with pytest.raises(ValueError, match=words):
            what()


@pytest.mark.parametrize("face", FACES)
def test_targets_of_a_kind_that_is_not_worked_with_are_named_too(face):
    with pytest.raises(ValueError, match=r"Expected y to be.*received a Delayed"):
        fit(new_model(face), (on_dask(X)[0], dask.delayed(Y)), 1)
    with pytest.raises(ValueError, match=r"Expected y to be.*received a list of Delayeds"):
        fit(new_model(face, "process"), (X, [dask.delayed(Y)]), 1)


def test_futures_are_named(client):
    future = client.submit(len, X)
    with pytest.raises(ValueError, match=r"received a Future.*or X\.result\(\)"):
        inputs.refuse("X", future)
    with pytest.raises(ValueError, match="received a list of Futures"):
        inputs.refuse("X", [future])


def test_what_an_error_says_to_call_works():
    y = on_dask(Y)[0]
    for X_ in (
        unknown_width().compute_chunk_sizes().rechunk((20, 3)),
        da.concatenate([da.from_delayed(dask.delayed(x), (20, 3), float) for x in np.split(X, 3)]),
        sparse_blocks().map_blocks(lambda block: block.tocsr(), dtype=sparse_blocks().dtype),
    ):
        fit(new_model("scikit-learn"), (X_, y), 1)
    ddf = dd.from_delayed([dask.delayed(part) for part in (FRAME[:20], FRAME[20:40], FRAME[40:])])
    fit(new_model("keras"), (ddf, y), 1)


# --- frames of other libraries -------------------------------------------------------------------------


class InArrow:
    """A frame that gives itself away as a stream of Arrow's alone."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class Interchanged:
    """A frame that knows the dataframe interchange protocol alone."""

    def __init__(self, table):
        self._table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self._table.__dataframe__(nan_as_null=nan_as_null, allow_copy=allow_copy)


def in_polars(table):
    return pytest.importorskip("polars").from_arrow(table)


FOREIGN = {"pyarrow": pa.table, "Arrow": InArrow, "interchange": Interchanged, "polars": in_polars}


def foreign(library, frame):
    return FOREIGN[library](pa.Table.from_pandas(frame, preserve_index=False))


@pytest.mark.parametrize("library", list(FOREIGN))
@pytest.mark.parametrize("place", ["process", "tasks"])
@pytest.mark.parametrize("face", FACES)
def test_frames_of_other_libraries_are_taken_by_their_names(library, place, face):
    given, turned = foreign(library, FRAME), foreign(library, FRAME[["b", "a", "c"]])
    y = pa.chunked_array([Y])
    model = fit(new_model(face, place), (given, y), 1)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert_array_equal(model.predict(given), model.predict(FRAME))
    for what in (
        lambda: model.predict(turned),
        lambda: (model.score if face == "scikit-learn" else model.evaluate)(turned, y),
    ):
        with pytest.raises(ValueError, match=r"(?s)The feature names should match.*same order"):
            what()


def test_a_table_of_another_library_is_encoded_as_pandas_is():
    frame = FRAME.assign(kind=["x", "y", None] * (N // 3), price=[decimal.Decimal("1.5"), None] * (N // 2))
    expected = TablePreprocessor().fit(frame)
    table = TablePreprocessor().fit(pa.Table.from_pandas(frame))
    assert table.columns_ == expected.columns_
    pd.testing.assert_frame_equal(table.transform(pa.Table.from_pandas(frame)), expected.transform(frame))


def test_a_plan_without_rows_is_told_to_collect_them():
    polars = pytest.importorskip("polars")
    with pytest.raises(ValueError, match=r"received a polars\.LazyFrame\. Use X\.collect\(\)"):
        MLPClassifier().fit(polars.from_pandas(FRAME).lazy(), Y)


def test_metrics_of_frames_of_other_libraries_are_those_of_pandas():
    model = fit(new_model("scikit-learn", "process"), (FRAME, Y), 1)
    given = dasknn.evaluate(model, pa.Table.from_pandas(FRAME), pa.chunked_array([Y]), ["accuracy"])
    expected = dasknn.evaluate(model, FRAME, Y, ["accuracy"])
    pd.testing.assert_frame_equal(given, expected)


# --- rows that go together -----------------------------------------------------------------------------

MIXED = FRAME.sample(frac=1, random_state=0)
TARGETS = pd.Series(Y, FRAME.index)


def numbers(frame, form):
    return dd.from_pandas(frame, npartitions=3, sort=False) if form == "Dask" else frame


@pytest.mark.parametrize("form", ["pandas", "parts", "Dask"])
@pytest.mark.parametrize("face", FACES)
def test_rows_whose_index_says_that_they_were_mixed_are_refused(face, form):
    mixed, y = numbers(FRAME, form), numbers(TARGETS, form)
    mixed = mixed.map_partitions(lambda part: part[::-1]) if form == "Dask" else MIXED
    place = {"pandas": "process", "parts": "tasks", "Dask": "threads"}[form]
    words = "same index in two.*Take both from one dataframe"
    if form == "Dask":
        words = "Partition 0.*" + words
    with pytest.raises(ValueError, match=words):
        fit(new_model(face, place), (mixed, y), 1)
    model = fit(new_model(face, place), (numbers(FRAME, form), y), 1)
    with pytest.raises(ValueError, match="same index in two"):
        (model.score if face == "scikit-learn" else model.evaluate)(mixed, y)
    with pytest.raises(ValueError, match="same index in two"):
        dasknn.evaluate(model, mixed, y)


def test_weights_are_in_the_order_of_rows_too():
    weights = pd.Series(np.ones(N), FRAME.index)
    with pytest.raises(ValueError, match="rows of X and sample_weight in one order"):
        MLPRegressor("squared_error", (3,), max_iter=1).fit(MIXED, TARGETS[MIXED.index], weights)


INDEXES = {
    "integers": (pd.Index([3, 1, 2]), pd.Index([1, 2, 3])),
    "text": (pd.Index(["a", None, "b"]), pd.Index(["b", "a", None])),
    "several": (
        pd.MultiIndex.from_arrays([[1, 2], ["a", "b"]]),
        pd.MultiIndex.from_arrays([[2, 1], ["b", "a"]]),
    ),
    "twice the same": (pd.Index([0, 0, 1]), pd.Index([0, 1, 0])),
    "several kinds": (pd.Index(["a", 1], dtype=object), pd.Index([1, "a"], dtype=object)),
}


@pytest.mark.parametrize("kind", list(INDEXES))
def test_indexes_of_any_kind_are_compared(kind):
    one, other = (pd.Series(0.0, index) for index in INDEXES[kind])
    inputs.check_order({"X": one, "y": one.copy()})
    with pytest.raises(ValueError, match=r"of X is .*, of y "):
        inputs.check_order({"X": one, "y": other})


@pytest.mark.parametrize(
    "index",
    [range(3), [7, 8, 9], [0, 1, 1], pd.Index([[1], 0, 1], dtype=object), pd.date_range("2020", periods=3)],
    ids=["its own", "others", "some", "lists", "dates"],
)
def test_rows_with_indexes_of_other_values_go_together_by_position(index):
    inputs.check_order({"X": pd.Series(0.0, range(3)), "y": pd.Series(0.0, index), "sample_weight": X})
