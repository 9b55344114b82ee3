"""Columns are read as what they hold, whatever library holds them."""

import datetime as dt
import decimal
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from dasknn.data.tables.reading import read, read_again
from dasknn.exceptions import PartitionError

D = decimal.Decimal
ROME = dt.timezone(dt.timedelta(hours=1))


def arrow(values, kind):
    return pd.Series(values, dtype=pd.ArrowDtype(kind))


NUMBERS = [
    pd.Series([1, 0, None, 1], dtype="Int64"),
    pd.Series([1, 0, None, 1], dtype="Float32"),
    pd.Series([1, 0, np.nan, 1]),
    pd.Series([1, 0, None, 1], dtype=object),
    pd.Series([D(1), D("0.0"), None, D("1.00")]),
    pd.Series([1.0, 0, D("NaN"), 1], dtype=object),
    pd.Series(pd.arrays.SparseArray([1, 0, np.nan, 1])),
    arrow([1, 0, None, 1], pa.int8()),
    arrow([1, 0, None, 1], pa.float64()),
    arrow([D(1), D(0), None, D(1)], pa.decimal128(8, 2)),
    np.array([1, 0, None, np.float32(1)], dtype=object),
    np.array([1, 0, pd.NA, 1], dtype=object),
    np.array([1, 0, np.nan, 1], dtype=np.float16),
]


@pytest.mark.parametrize("column", NUMBERS, ids=lambda column: f"{type(column).__name__}-{column.dtype}")
def test_numbers_of_every_dtype_are_floats_with_nan(column):
    found = read("x", column)
    assert found.kind == "number"
    assert_array_equal(found.values, [1, 0, np.nan, 1])
    # As categories they are whole numbers.
    codes = read("x", column, as_category=True)
    assert codes.kind == "category"
    assert [codes.labels[code] if code >= 0 else None for code in codes.values] == [1, 0, None, 1]
    assert {type(label) for label in codes.labels} == {int}


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, False, None], dtype="boolean"),
        pd.Series([True, False, None], dtype=object),
        arrow([True, False, None], pa.bool_()),
        np.array([np.True_, False, np.nan], dtype=object),
    ],
    ids=str,
)
def test_booleans_are_1_and_0(column):
    found = read("x", column)
    assert found.kind == "boolean"
    assert_array_equal(found.values, [1, 0, np.nan])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", "b", None, "a"]),
        pd.Series(["a", "b", np.nan, "a"], dtype=object),
        pd.Series(["a", "b", pd.NA, "a"], dtype="string"),
        pd.Series(["a", "b", None, "a"], dtype="category"),
        pd.Series([b"a", b"b", None, b"a"]),
        arrow(["a", "b", None, "a"], pa.string()),
        arrow(["a", "b", None, "a"], pa.large_string()),
        arrow(["a", "b", None, "a"], pa.dictionary(pa.int32(), pa.string())),
        np.array(["a", "b", None, "a"], dtype=object),
        np.array([np.str_("a"), "b", pd.NaT, "a"], dtype=object),
    ],
    ids=lambda column: f"{type(column).__name__}-{column.dtype}",
)
def test_text_of_every_dtype_is_a_category(column):
    found = read("x", column)
    assert found.kind == "category"
    assert [found.labels[code] if code >= 0 else None for code in found.values] == ["a", "b", None, "a"]
    assert {type(label) for label in found.labels} == {str}


def test_categories_of_pandas_stay_categories_whatever_they_hold():
    assert read("x", pd.Series(pd.Categorical([3, 1, None]))).labels in ((3, 1), (1, 3))
    intervals = read("x", pd.Series(pd.cut([1.0, 2.0, 30.0], [0, 5, 50])))
    assert set(intervals.labels) == {"(0, 5]", "(5, 50]"}
    one = uuid.UUID(int=7)
    assert read("x", pd.Series([one, None])).labels == (str(one),)


MOMENTS = [dt.datetime(2024, 2, 29, 13, 45, 59), None, dt.datetime(2021, 5, 1)]


@pytest.mark.parametrize(
    ("column", "zone"),
    [
        (pd.Series(pd.to_datetime(MOMENTS)), None),
        (pd.Series(MOMENTS, dtype=object), None),
        (arrow(MOMENTS, pa.timestamp("ns")), None),
        (np.array(MOMENTS, "M8[ms]"), None),
        (np.array(MOMENTS, dtype=object), None),
        (np.array([np.datetime64(MOMENTS[0], "ns"), np.datetime64("NaT"), MOMENTS[2]], dtype=object), None),
        (pd.Series(pd.to_datetime(MOMENTS)).dt.tz_localize("Europe/Rome"), "Europe/Rome"),
        (pd.Series(pd.to_datetime(MOMENTS)).dt.tz_localize("UTC").astype(object), "UTC"),
        (arrow(MOMENTS, pa.timestamp("us")).dt.tz_localize("Asia/Tokyo"), "Asia/Tokyo"),
    ],
)
def test_dates_of_every_dtype_are_read_as_the_clock_showed_them(column, zone):
    found = read("x", column)
    assert (found.kind, found.zone) == ("date", zone)
    assert_array_equal(found.values, np.array(MOMENTS, "M8[us]"))


@pytest.mark.parametrize("kind", ["objects", "arrow"])
def test_dates_from_the_first_year_to_the_last_are_dates(kind):
    days = [dt.date(1, 1, 1), dt.date(9999, 12, 31), None]
    column = pd.Series(days, dtype=object) if kind == "objects" else arrow(days, pa.date32())
    found = read("x", column)
    assert found.kind == "date"
    assert_array_equal(found.values, np.array(days, "M8[us]"))


def test_moments_of_several_offsets_become_those_of_utc():
    column = pd.Series([dt.datetime(2024, 1, 1, 0, tzinfo=ROME), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)])
    found = read("x", column.astype(object))
    assert found.zone == "UTC"
    assert_array_equal(found.values, np.array(["2023-12-31T23", "2024-01-01T00"], "M8[us]"))


HOURS = [dt.timedelta(hours=1), None, dt.timedelta(hours=30)]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_timedelta(HOURS)),
        pd.Series(HOURS, dtype=object),
        arrow(HOURS, pa.duration("ms")),
        np.array(HOURS, "m8[s]"),
        np.array(HOURS, dtype=object),
    ],
    ids=lambda column: f"{type(column).__name__}-{column.dtype}",
)
def test_durations_of_every_dtype_are_seconds(column):
    found = read("x", column)
    assert found.kind == "duration"
    assert_array_equal(found.values, [3600, np.nan, 108000])


@pytest.mark.parametrize("kind", ["objects", "arrow"])
def test_times_of_day_are_durations_since_midnight(kind):
    times = [dt.time(1, 0, 5), None, dt.time(23)]
    column = pd.Series(times, dtype=object) if kind == "objects" else arrow(times, pa.time64("us"))
    assert_array_equal(read("x", column).values, [3605, np.nan, 82800])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([None, None]),
        pd.Series([np.nan, np.nan]),
        pd.Series([pd.NaT, pd.NaT]),
        pd.Series([pd.NA, None], dtype="string"),
        pd.Series(pd.Categorical([None, None], ["a"])),
        arrow([None, None], pa.null()),
        np.array([None, np.nan], dtype=object),
        pd.Series([], dtype="int64"),
    ],
    ids=lambda column: str(column.dtype),
)
@pytest.mark.parametrize("as_category", [False, True])
def test_columns_without_known_values_are_of_any_kind(column, as_category):
    found = read("x", column, as_category)
    assert found.kind == "missing"
    assert len(found.values) == len(column)
    for kind in ("number", "boolean", "date", "duration", "category"):
        assert read_again("x", column, kind).kind == "missing"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([1j, 2j]), "received complex128"),
        (pd.Series(pd.period_range("2020", periods=2, freq="Y")), "received period"),
        (pd.Series(pd.interval_range(0, 2)), "received interval"),
        (pd.Series([[1], [2]]), "Expected numbers, dates, text or booleans in column 'x', received"),
        (pd.Series([(1, 2), (3, 4)]), r"received tuple \(1, 2\)"),
        (arrow([[1], [2]], pa.list_(pa.int64())), "received list"),
        (np.array([{"a": 1}, {}], dtype=object), "unhashable type: 'dict'"),
        (pd.Series(["a", 1]), "one kind in column 'x', received numbers such as 1, text such as 'a'"),
        (pd.Series([True, 3], dtype=object), "received booleans such as True, numbers such as 3"),
        (pd.Series(["a", dt.date(2020, 1, 1)]), "received dates such as .*, text such as 'a'"),
        (
            pd.Series([dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object),
            "with a time zone or without one in column 'x', received both",
        ),
        (pd.Series([1.0, np.inf]), "Column 'x' holds infinity in row 1"),
        (pd.Series([1, 10**400], dtype=object), "received an integer that is too large"),
        (pd.Series([1.0, -np.inf], dtype=object), "Column 'x' holds infinity in row 1"),
        (pd.Series(pd.Categorical([1.0, np.inf])), "received float inf"),
    ],
    ids=str,
)
def test_values_that_no_kind_takes_are_refused(column, message):
    with pytest.raises(PartitionError, match=message):
        read("x", column)


# --- later data --------------------------------------------------------------------------------------


def test_later_numbers_may_come_as_other_numbers():
    for column in (pd.Series([2, 1]), pd.Series([2, 1], dtype=object), pd.Series(pd.Categorical([2, 1]))):
        assert_array_equal(read_again("x", column, "number").values, [2, 1])
    assert_array_equal(read_again("x", pd.Series([True, False]), "number").values, [1, 0])
    assert_array_equal(read_again("x", pd.Series([1, 0, 5]), "boolean").values, [1, 0, 5])


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (pd.Series(["1", "2"]), "number", "Expected numbers in .* received text such as '1'.*float64"),
        (pd.Series(pd.Categorical(["1"])), "number", "Expected numbers in column 'x', as in the data of fit"),
        (pd.Series(pd.to_datetime(["2020"])), "number", "Expected numbers in column 'x'.*received dates"),
        (pd.Series(["2020-01-01"]), "date", r"Expected dates .* pandas.to_datetime\(X\['x'\]\)"),
        (pd.Series([5]), "date", "Expected dates in column 'x', .* received numbers"),
        (pd.Series([5]), "duration", "Expected durations in column 'x', .* received numbers"),
        (pd.Series(pd.to_timedelta([1])), "number", "received durations"),
    ],
)
def test_later_values_of_another_kind_are_refused(column, kind, message):
    with pytest.raises(PartitionError, match=message):
        read_again("x", column, kind)


def test_later_dates_are_moved_to_the_time_zone_of_fit():
    here = pd.Series(pd.date_range("2024-03-30", periods=9, freq="7h", tz="Europe/Rome"))
    expected = read("x", here).values
    for column in (here.dt.tz_convert("UTC"), here.dt.tz_convert("Asia/Tokyo").astype(object), here):
        assert_array_equal(read_again("x", column, "date", "Europe/Rome").values, expected)
    with pytest.raises(PartitionError, match="Expected dates with a time zone in column 'x'"):
        read_again("x", here.dt.tz_localize(None), "date", "Europe/Rome")
    with pytest.raises(PartitionError, match="Expected dates without a time zone in column 'x'"):
        read_again("x", here, "date")
    for column in (here, here.astype(object)):
        with pytest.raises(PartitionError, match="Expected dates in the time zone Nowhere in column 'x'"):
            read_again("x", column, "date", "Nowhere")
