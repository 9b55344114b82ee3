"""Tables are encoded alike wherever their rows are, and always as finite numbers."""

import datetime as dt
import json
import pickle
import subprocess
import sys

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from raw_tables import mixed
from scipy import sparse
from sklearn.preprocessing import RobustScaler

from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.kinds import Binary, Binned, CategoryColumn
from dasknn.data.tables.learning import learn_table
from dasknn.exceptions import ModelFileError, PartitionError

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


def of(values, **settings):
    """An encoder of one column, and what it makes of the column."""
    frame = pd.DataFrame({"x": values})
    encoder = learn_table(frame, dtype="float64", **settings)
    return encoder, encoder.encode(frame)


def later(encoder, values, **settings):
    return encoder.encode(pd.DataFrame({"x": pd.Series(values, **settings)}))


# --- what comes out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_come_out_as_finite_numbers_in_four_groups(dtype):
    frame = mixed()
    encoder = learn_table(frame, dtype=dtype)
    out = encoder.encode(frame)
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    assert np.isfinite(out).all()
    p = encoder.n_numbers
    assert out.shape == (300, 2 * p + encoder.n_plain + len(encoder.n_codes)) == (300, encoder.width)
    z, u, plain, codes = np.split(out, np.cumsum([p, p, encoder.n_plain]), axis=1)
    assert np.abs(z).max() <= 3
    assert np.all(u >= 0)
    assert np.all(u <= encoder.n_bins)
    assert set(np.unique(plain)) == {-1, 0, 1}
    assert_array_equal(codes.max(axis=0), np.array(encoder.n_codes) - 1)
    assert_array_equal(codes, np.round(codes))


def test_names_and_groups_say_where_each_column_comes_from():
    encoder = learn_table(mixed())
    assert encoder.feature_names_in == tuple(mixed().columns)
    assert encoder.n_features_in == 11
    assert len(encoder.names) == len(set(encoder.names)) == len(encoder.groups) == encoder.width
    for name, place in zip(encoder.names, encoder.groups, strict=True):
        assert encoder.feature_names_in[place] in name
    p = encoder.n_numbers
    assert encoder.names[:3] == ["age", "income", "gain"]
    assert encoder.names[p : p + 2] == ["age_bin", "income_bin"]
    assert encoder.names[-2:] == ["job", "region"]
    indicators = {name for name in encoder.names if name.startswith("missingindicator_")}
    assert indicators == {f"missingindicator_{name}" for name in ("income", "owner", "seen", "stay")}
    # One indicator for a date, whose parts are missing together.
    assert sum(place == 7 for place in encoder.groups) > 8


def test_names_that_would_be_the_same_are_told_apart():
    frame = pd.DataFrame({"a": [1, 2, 3], "a_bin": [1, 2, 4]})
    assert learn_table(frame).names == ["a", "a_bin", "a_bin_2", "a_bin_bin"]


# --- numbers -----------------------------------------------------------------------------------------


def test_numbers_are_scaled_robustly_and_clipped_smoothly():
    values = np.random.default_rng(0).lognormal(size=501)
    _, out = of(values)
    z = RobustScaler().fit_transform(values[:, np.newaxis])[:, 0]
    assert_allclose(out[:, 0], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-12)


def test_coordinates_give_the_piecewise_linear_encoding():
    values = np.random.default_rng(0).lognormal(size=501)
    encoder, _ = of(values)
    x = np.linspace(-1, values.max() + 5, 1000)
    edges = np.array(encoder.edges[0])
    # Both are scaled first.
    z, edges = (later(encoder, numbers)[:, 0] for numbers in (x, edges))
    expected = (z[:, np.newaxis] - edges[:-1]) / np.diff(edges)
    low, high = np.zeros(len(edges) - 1), np.ones(len(edges) - 1)
    low[0], high[-1] = -np.inf, np.inf
    # Outliers stay within four bins.
    expected = np.clip(np.clip(expected, low, high), -4, 5)
    u = later(encoder, x)[:, 1:2] - np.arange(len(edges) - 1)
    assert_allclose(np.clip(u, low, high), expected, atol=1e-12)


def test_coordinates_are_integers_at_the_edges():
    encoder, _ = of(np.random.default_rng(0).lognormal(size=501))
    edges = np.array(encoder.edges[0])
    assert_array_equal(later(encoder, edges)[:, 1], np.arange(len(edges)))


@settings(deadline=None, max_examples=100)
@given(
    seen=st.lists(FINITE, min_size=1, max_size=30),
    new=st.lists(FINITE | st.just(float("nan")), min_size=1, max_size=10),
    bins=st.sampled_from(["greedy", "quantile"]),
)
def test_any_finite_numbers_become_finite_numbers_in_their_order(seen, new, bins):
    encoder, out = of(np.array(seen), bins=bins, n_bins=8)
    found = later(encoder, np.sort(new))
    assert np.isfinite(out).all()
    assert np.isfinite(found).all()
    known = found[: np.isfinite(new).sum()]
    for part in known.T:
        assert np.all(np.diff(part) >= 0)
    assert_array_equal(found[len(known) :], 0)


def test_numbers_further_apart_than_the_greatest_one_are_told_apart():
    encoder, out = of([-1.7e308, 1.5e308, 1.7e308])
    assert_allclose(out[:, 1], [0, 1, 2])
    assert 0 < later(encoder, [-0.1e308])[0, 1] < 1
    assert np.all(np.diff(out[:, 0]) > 0)


def test_edges_that_scaling_would_put_together_are_one():
    encoder, out = of([-1e12, 0.0, 1e-9, 2e-9, 1e12, 2e12])
    assert encoder.edges[0] == (-1e12, 0.0, 1e12, 2e12)
    assert_allclose(out[:, 1], [0, 1, 1, 1, 2, 3])


def test_outliers_stay_within_bounds():
    encoder, _ = of(np.arange(100.0))
    found = later(encoder, [-1e308, 1e308, -1e5])
    assert_allclose(found, [[-3, -4], [3, 52], [-3, -4]], atol=1e-3)


def test_missing_numbers_are_zeros_with_an_indicator_if_fit_had_some():
    encoder, out = of([1.0, None, 2.0, 5.0])
    assert out.shape == (4, 3)
    assert_array_equal(out[1], [0, 0, 1])
    assert_array_equal(out[:, 2], [0, 1, 0, 0])
    encoder, out = of([1.0, 2.0, 5.0])
    assert out.shape == (3, 2)
    assert_array_equal(later(encoder, [None, 2.0], dtype="float64")[0], [0, 0])


def test_two_numbers_and_booleans_become_signs():
    encoder, out = of([7.0, 7.0, 7.0, 9.0, None])
    assert_array_equal(out, [[-1, 0], [-1, 0], [-1, 0], [1, 0], [0, 1]])
    assert_array_equal(later(encoder, [8.0, -100.0, 100.0])[:, 0], [0, -3, 3])
    encoder, out = of([True, False, True])
    assert_array_equal(out, [[1], [-1], [1]])
    for column in (pd.Series([True, None], dtype="boolean"), pd.Series([1, None]), pd.Series([True, None])):
        assert_array_equal(later(encoder, column), [[1], [0]])


def test_numbers_are_encoded_in_double_precision_before_they_are_cast():
    frame = pd.DataFrame({"x": 1.7e9 + np.arange(5000) / 8})
    single, double = (learn_table(frame, dtype=dtype).encode(frame) for dtype in ("float32", "float64"))
    assert_allclose(single, double, rtol=1e-6, atol=1e-6)


# --- dates and durations -----------------------------------------------------------------------------


def test_dates_become_what_pandas_says_of_them():
    when = pd.Series(pd.date_range("1969-12-28 23:59:58", periods=4000, freq="31h7min3s"))
    encoder, out = of(when)
    column = encoder.columns[0]
    numbers, _ = column.read(when)
    for part in ("year", "month", "day", "hour", "minute", "second"):
        assert_array_equal(numbers[part], getattr(when.dt, part))
    assert_array_equal(numbers["weekday"], [moment.weekday() for moment in when])
    assert_allclose(numbers["days"], (when - when[0]) / pd.Timedelta(days=1), atol=1e-9)
    assert encoder.n_numbers == 8
    assert np.isfinite(out).all()


def test_only_what_varies_in_dates_is_kept():
    encoder, out = of(pd.to_datetime(["2024-01-01", "2024-03-01", None, "2024-04-01"]))
    names = ["x_month", "x_days", "x_month_bin", "x_days_bin", "x_weekday", "missingindicator_x"]
    assert encoder.names == names
    assert_array_equal(out[2], [*np.zeros(out.shape[1] - 1), 1])


def test_dates_far_outside_of_fit_are_encoded():
    encoder, _ = of(pd.Series(pd.date_range("2024-01-01", periods=90)))
    found = later(encoder, [dt.date(1, 1, 1), dt.date(9999, 12, 31), None, dt.date(2024, 1, 1)], dtype=object)
    assert np.isfinite(found).all()
    assert_array_equal(found[2], 0)
    days = encoder.names.index("x_days_bin")
    assert found[:2, days].tolist() == [-4, encoder.n_bins[-1] + 4]
    assert found[3, days] == 0


def test_dates_of_another_time_zone_are_the_same_moments():
    here = pd.Series(pd.date_range("2024-03-30", periods=40, freq="7h", tz="Europe/Rome"))
    encoder, out = of(here)
    assert encoder.columns[0].zone == "Europe/Rome"
    for column in (here.dt.tz_convert("UTC"), here.dt.tz_convert("UTC").astype(object)):
        assert_array_equal(later(encoder, column), out)
    assert_array_equal(TableEncoder.from_description(encoder.describe()).encode(here.to_frame("x")), out)


def test_durations_are_seconds():
    encoder, out = of(pd.to_timedelta([1, 5, None, 3], unit="h"))
    assert encoder.edges == ((3600.0, 10800.0, 18000.0),)
    assert_array_equal(out[:, 1], [0, 2, 0, 1])


# --- categories --------------------------------------------------------------------------------------


def test_codes_are_those_of_the_sorted_values_and_zero_for_missing_and_unseen_ones():
    encoder, out = of(["b", "a", None, "c", "a"])
    assert_array_equal(out[:, 0], [2, 1, 0, 3, 1])
    assert encoder.n_codes == (4,)
    assert encoder.hashed == (False,)
    assert_array_equal(later(encoder, ["c", "new", None])[:, 0], [3, 0, 0])


def test_a_single_value_with_missing_ones_is_a_category():
    encoder, out = of(["a", None, "a"])
    assert encoder.n_codes == (2,)
    assert_array_equal(out[:, 0], [1, 0, 1])


def test_hashes_are_the_same_in_every_process():
    column = CategoryColumn("x", "text", (), 4096)
    expected = [560, 1289, 3433]
    texts = ["a", "Zürich", "\ud800"]
    assert column.codes(pd.Series(texts, dtype=object)).tolist() == expected
    program = (
        "import numpy as np\n"
        "from dasknn.data.tables.kinds import CategoryColumn\n"
        f"column = np.array({texts!r}, dtype=object)\n"
        f"assert CategoryColumn('x', 'text', (), 4096).codes(column).tolist() == {expected}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_hashed_numbers_do_not_depend_on_missing_ones():
    column = CategoryColumn("x", "numbers", (), 64)
    whole, with_missing = column.codes(pd.Series([1, 5])), column.codes(pd.Series([1, 5, None]))
    assert with_missing.tolist() == [*whole, 0]


def test_later_categories_of_another_kind_are_refused():
    encoder, _ = of(["a", "b"])
    with pytest.raises(PartitionError, match=r"Expected text in column 'x', .* received numbers such as 1"):
        later(encoder, [1, 2])
    encoder, _ = of([3, 4, 5], categorical_features=["x"])
    with pytest.raises(PartitionError, match=r"Expected numbers in column 'x', .* received text such as '3'"):
        later(encoder, ["3"])
    assert_array_equal(later(encoder, [3.0, None, 5.0])[:, 0], [1, 0, 3])


# --- later data --------------------------------------------------------------------------------------


def test_ignored_columns_may_hold_anything_later():
    frame = mixed()
    encoder = learn_table(frame)
    changed = frame.assign(constant=[[1]] * len(frame), nothing="something")
    assert_array_equal(encoder.encode(changed), encoder.encode(frame))


def test_missing_values_of_every_column_are_encoded():
    encoder = learn_table(mixed())
    nothing = pd.DataFrame({name: [None] for name in encoder.feature_names_in}, dtype=object)
    out = encoder.encode(nothing)[0]
    indicators = [name.startswith("missingindicator_") for name in encoder.names]
    assert_array_equal(out, indicators)


def test_other_columns_and_another_order_make_no_difference():
    frame = mixed()
    encoder = learn_table(frame)
    assert_array_equal(encoder.encode(frame[frame.columns[::-1]].assign(more=1)), encoder.encode(frame))


def test_a_missing_column_is_named_with_what_may_have_been_meant():
    encoder = learn_table(mixed())
    renamed = mixed().rename(columns={"job": "jobs"})
    for X in (renamed, dd.from_pandas(renamed, npartitions=2)):
        with pytest.raises(ValueError, match=r"Expected column 'job' in X, as in fit. Did you mean 'jobs'\?"):
            encoder.transform(X)
    for X in (np.zeros((3, 2)), da.zeros((3, 2))):
        with pytest.raises(ValueError, match="Expected 11 columns in X, as in fit, received"):
            encoder.transform(X)


def test_infinity_is_refused_alike_in_this_process_and_lazily():
    frame = mixed()
    encoder = learn_table(frame)
    frame.loc[7, "income"] = np.inf
    with pytest.raises(PartitionError, match=r"^Column 'income' holds infinity in row 7"):
        encoder.encode(frame)
    halves = dd.concat([dd.from_pandas(mixed(), npartitions=1), dd.from_pandas(frame, npartitions=1)])
    with pytest.raises(PartitionError, match=r"^Partition 1: Column 'income' holds infinity in row 7"):
        dask.compute(encoder.transform(halves), scheduler="sync")


def test_infinity_in_a_block_is_refused_with_the_number_of_the_block():
    X = np.arange(40.0).reshape(20, 2)
    encoder = learn_table(X)
    X[13, 1] = np.inf
    with pytest.raises(PartitionError, match=r"^Partition 2: Column 'x1' holds infinity in row 3"):
        dask.compute(encoder.transform(da.from_array(X, chunks=(5, -1))), scheduler="sync")


def test_columns_are_found_by_position_where_one_side_has_no_names():
    X = np.random.default_rng(0).normal(size=(50, 3))
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    by_position, by_name = learn_table(X), learn_table(frame)
    assert by_position.feature_names_in == ("x0", "x1", "x2")
    expected = by_name.encode(frame)
    for encoder in (by_position, by_name):
        for data in (X, frame, sparse.csr_matrix(X), X.tolist()):
            assert_array_equal(encoder.encode(data), expected)


# --- Dask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_partitions", [1, 3, 7])
def test_dask_dataframes_become_what_the_whole_becomes(n_partitions):
    frame = mixed()
    frame.index = frame.index * 2 + 5
    encoder = learn_table(frame)
    expected = encoder.transform(frame)
    assert list(expected.columns) == encoder.names
    assert_array_equal(expected.index, frame.index)
    assert_array_equal(expected, encoder.encode(frame))
    found = encoder.transform(dd.from_pandas(frame, npartitions=n_partitions, sort=False))
    assert isinstance(found, dd.DataFrame)
    pd.testing.assert_frame_equal(found._meta, expected[:0])
    pd.testing.assert_frame_equal(found.compute(), expected)


def test_dask_arrays_become_what_the_whole_becomes():
    X = sparse.random(80, 3, 0.5, format="csr", random_state=0).toarray()
    encoder = learn_table(X)
    expected = encoder.encode(X)
    rows = da.from_array(X, chunks=(30, 3))
    for lazy in (rows, rows.map_blocks(sparse.csr_matrix), rows[rows[:, 0] >= 0]):
        found = encoder.transform(lazy)
        assert isinstance(found, da.Array)
        assert found.shape[1] == encoder.width
        assert_array_equal(found.compute(), expected)
    assert_array_equal(encoder.transform(X), expected)
    with pytest.raises(ValueError, match="chunked by rows only"):
        encoder.transform(da.from_array(X, chunks=(30, 1)))


def test_the_graph_holds_one_encoder():
    frame = mixed()
    encoder = learn_table(frame)
    rows = da.from_array(frame[["age", "gain"]].to_numpy(), chunks=(50, 2))
    lazy = [
        (encoder, dd.from_pandas(frame, npartitions=5)),
        (learn_table(rows), rows),
    ]
    for own, X in lazy:
        graph = dict(own.transform(X).__dask_graph__())
        names = [key if isinstance(key, str) else key[0] for key in graph]
        assert sum(name.startswith("dasknn-table") for name in names) == 1


def test_frames_of_other_libraries_are_encoded():
    frame = mixed()
    table = pa.Table.from_pandas(frame)
    encoder = learn_table(table)
    assert_array_equal(encoder.encode(table), learn_table(frame).encode(frame))


def test_columns_called_by_integers_are_called_so_as_text():
    frame = pd.DataFrame({0: [1.0, 2.0, 3.0], 1: ["x", "y", "x"]})
    for X in (frame, dd.from_pandas(frame, npartitions=2)):
        encoder = learn_table(X)
        assert encoder.names == ["0", "0_bin", "1"]
        turned = encoder.transform(X[[1, 0]])
        assert_array_equal(dask.compute(turned)[0], encoder.encode(frame))


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", ["greedy", "quantile", "tree"])
def test_a_description_in_json_gives_the_same_bits(bins):
    frame = mixed().assign(zoned=pd.date_range("2024", periods=300, freq="9h", tz="Asia/Tokyo"))
    encoder = learn_table(frame, frame["age"], bins=bins, max_categories=2, hash_bins=8)
    again = TableEncoder.from_description(json.loads(json.dumps(encoder.describe())))
    assert again == encoder
    assert again.encode(frame).tobytes() == encoder.encode(frame).tobytes()
    pickled = pickle.loads(pickle.dumps(encoder))
    assert pickled.encode(frame).tobytes() == encoder.encode(frame).tobytes()


def changed(change):
    description = learn_table(mixed()).describe()
    change(description)
    return description


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("columns"),
        lambda table: table.update(columns=[]),
        lambda table: table.update(dtype="float16"),
        lambda table: table.update(more=1),
        lambda table: table["columns"][0].update(kind="os.system"),
        lambda table: table["columns"][0].update(name=table["columns"][1]["name"]),
        lambda table: table["columns"][0].update(holds="text"),
        lambda table: table["columns"][0].update(origin=1.0),
        lambda table: table["columns"][0]["parts"][0].update(edges=[1.0, 1.0]),
        lambda table: table["columns"][0]["parts"][0].update(edges=[1.0]),
        lambda table: table["columns"][0]["parts"][0].update(center=float("nan")),
        lambda table: table["columns"][0]["parts"][0].update(scale=0.0),
        lambda table: table["columns"][0]["parts"][0].update(edges=[1e30, 2e30]),
        lambda table: table["columns"][0]["parts"][0].update(scale=-1.0),
        lambda table: table["columns"][0]["parts"][0].update(part="year"),
        lambda table: table["columns"][0]["parts"].append(table["columns"][0]["parts"][0]),
        lambda table: table["columns"][3]["parts"][0].update(low=1.0),
        lambda table: table["columns"][5].update(values=["a", "a"]),
        lambda table: table["columns"][5].update(values=[1, 2]),
        lambda table: table["columns"][5].update(n_shared=2**40),
        lambda table: table["columns"][7].update(origin=None),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change):
    with pytest.raises(ModelFileError):
        TableEncoder.from_description(changed(change))


def test_the_parts_of_numbers_are_values():
    encoder = learn_table(mixed())
    parts = [part for column in encoder.columns for part in getattr(column, "parts", ())]
    assert {type(part) for part in parts} == {Binned, Binary}
    assert encoder.edges == tuple(part.edges for part in parts if isinstance(part, Binned))
    assert encoder.n_bins == tuple(len(edges) - 1 for edges in encoder.edges)


@pytest.mark.parametrize("dtype", ["object", "str", "string", "string[pyarrow]", "category"])
def test_a_row_alone_has_the_codes_that_it_has_among_others(dtype):
    words = pd.Series(["b", None, "a", "b", "", "nan", "new"] * 5, dtype=dtype)
    X = pd.DataFrame({"word": words, "x": np.arange(35.0)})
    encoder = learn_table(X[X["word"] != "new"])
    together = encoder.encode(X)
    assert len(np.unique(together[:, -1])) == 5
    assert_array_equal(np.concatenate([encoder.encode(X[row : row + 1]) for row in range(35)]), together)
    assert_array_equal(np.concatenate([encoder.encode(X[:16]), encoder.encode(X[16:])]), together)
