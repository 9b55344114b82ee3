"""Rows are split by time: the latest ones are set aside, in Dask and in this process alike."""

import datetime

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dasknn import TabularClassifier, TabularRegressor
from dasknn.callbacks import CSVLogger, EarlyStopping
from dasknn.cluster.local import LocalExecutor
from dasknn.data import times
from dasknn.exceptions import PartitionError

LOCAL = LocalExecutor()
SMALL = {"members": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
START = pd.Timestamp("2024-03-01")


def table(n=600):
    """Rows in no order of time, ten of each day."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.standard_normal(n), "day": rng.permutation(n) // 10})
    return frame.assign(y=frame.x, date=START + pd.to_timedelta(frame.day, unit="D"))


FRAME = table()


@pytest.fixture(params=[False, True], ids=["pandas", "dask"])
def where(request):
    """Moves a dataframe to where its rows are split."""
    return (lambda frame: dd.from_pandas(frame, npartitions=4)) if request.param else lambda frame: frame


def held_out(columns, time, fraction=0.15):
    kept, held = times.split(columns, time, fraction, LOCAL)
    kept, held = (
        side["X"].compute() if hasattr(side["X"], "compute") else side["X"] for side in (kept, held)
    )
    assert len(kept) + len(held) == len(columns["X"])
    assert len(kept) > 0 < len(held)
    return held


FORMS = {
    "days": lambda frame: frame.day,
    "decreasing": lambda frame: -frame.day,
    "dates": lambda frame: frame.date,
    "with a zone": lambda frame: frame.date.dt.tz_localize("Europe/Rome"),
    "in seconds": lambda frame: frame.date.astype("M8[s]"),
    "durations": lambda frame: frame.date - START,
    "Int64": lambda frame: frame.day.astype("Int64"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_latest_rows_are_set_aside_and_no_time_is_on_both_sides(where, form):
    data = where(FRAME.assign(time=FORMS[form](FRAME)))
    held = held_out({"X": data[["x", "day"]], "y": data.y, "sample_weight": None}, data.time)
    latest = set(range(9)) if form == "decreasing" else set(range(51, 60))
    assert set(held.day) == latest
    assert len(held) == 90


@pytest.mark.parametrize("time", [
    FRAME.day.to_numpy(), FRAME.day.tolist(), FRAME.date.to_numpy(), FRAME.date.tolist(),
    [moment.date() for moment in FRAME.date],
], ids=["array", "list", "array of dates", "list of dates", "list of days"])  # fmt: skip
def test_arrays_and_lists_are_times(time):
    assert set(held_out({"X": FRAME}, time).day) == set(range(51, 60))


def test_all_columns_of_a_row_are_on_one_side(where):
    data = where(FRAME.assign(weight=FRAME.day + 1.0))
    columns = {"X": data[["x", "day"]], "y": data.y, "weight": data.weight}
    for side in times.split(columns, data.date, 0.3, LOCAL):
        X, y, weight = (part.compute() if hasattr(part, "compute") else part for part in side.values())
        np.testing.assert_array_equal(X.x, y)
        np.testing.assert_array_equal(X.day + 1, weight)


def test_of_the_hour_that_clocks_show_twice_the_second_is_later(where):
    # Half past two in summer, then half past two in winter.
    moments = pd.to_datetime(["2024-10-27 00:30", "2024-10-27 01:30"] * 4, utc=True)
    data = where(pd.DataFrame({"time": moments.tz_convert("Europe/Rome"), "is_later": [False, True] * 4}))
    assert held_out({"X": data}, data.time, 0.5).is_later.tolist() == [True] * 4


@pytest.mark.parametrize(("counts", "fraction", "n_held"), [
    # The share that is nearest to 15 of 100 rows, which may be less or more.
    ([50, 40, 10], 0.15, 10),
    ([50, 30, 20], 0.15, 20),
    ([50, 45, 5], 0.4, 50),
    ([10, 90], 0.15, 90),
    ([99, 1], 0.9, 1),
    ([50, 50], 0.0, 50),
])  # fmt: skip
def test_of_few_times_whole_ones_are_set_aside(where, counts, fraction, n_held):
    time = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    data = where(pd.DataFrame({"time": time}))
    assert len(held_out({"X": data}, data.time, fraction)) == n_held


def test_very_many_times_are_split_where_they_should_be():
    time = np.random.default_rng(0).permutation(60_000)
    data = dd.from_pandas(pd.DataFrame({"time": time}), npartitions=3)
    held = held_out({"X": data}, data.time)
    assert len(held) == pytest.approx(9_000, abs=100)
    assert held.time.min() == 60_000 - len(held)


def test_partitions_without_rows_have_no_times():
    data = dd.from_pandas(FRAME.sort_values("day").reset_index(drop=True), npartitions=4)
    data = data[data.day > 20]
    held = held_out({"X": data}, data.day)
    assert held.day.min() == 54


@pytest.mark.parametrize("change", [
    lambda frame: frame.assign(time=frame.date.where(frame.index > 2)),
    lambda frame: frame.assign(time=frame.day.where(frame.index > 2)),
    lambda frame: frame.assign(time=frame.date.astype(object).where(frame.index > 2)),
], ids=["dates", "numbers", "objects"])  # fmt: skip
def test_missing_times_are_refused(where, change):
    with dask.config.set({"dataframe.convert-string": False}):
        data = where(change(FRAME))
    with pytest.raises(ValueError, match="Expected a time for each row, received 3 rows without one"):
        held_out({"X": data}, data.time)


def test_one_time_alone_is_refused(where):
    data = where(FRAME.assign(time=2024))
    with pytest.raises(ValueError, match=r"Expected time of at least two different values.*received one"):
        held_out({"X": data}, data.time)


@pytest.mark.parametrize(("change", "message"), [
    (lambda frame: frame.date.astype(str), r"Expected time to be dates or numbers, received text"),
    (lambda frame: frame.day > 3, r"Expected time to be dates or numbers, received booleans"),
    (lambda frame: frame.day * np.inf, r"holds infinity"),
    (lambda frame: frame.date.dt.to_period("M"), r"received periods. Convert them: time\.dt\.to_timestamp"),
], ids=["text", "booleans", "infinity", "periods"])  # fmt: skip
def test_what_is_no_time_is_refused(where, change, message):
    data = where(FRAME.assign(time=change(FRAME.assign(day=FRAME.day + 1))))
    with pytest.raises(ValueError, match=message) as caught:
        held_out({"X": data}, data.time)
    if hasattr(data, "compute"):
        assert isinstance(caught.value, PartitionError)
        assert str(caught.value).startswith("Partition ")


def test_times_of_two_kinds_are_refused():
    moments = [datetime.datetime(2024, 1, 1 + day % 20) for day in range(600)]
    objects = pd.Series(moments, dtype=object).where(FRAME.index < 300, FRAME.day)
    with dask.config.set({"dataframe.convert-string": False}):
        data = dd.from_pandas(FRAME.assign(time=objects), npartitions=2)
    with pytest.raises(ValueError, match="Expected time of one kind, received dates and numbers"):
        held_out({"X": data}, data.time)


def test_times_that_do_not_belong_to_the_rows_are_refused():
    lazy = dd.from_pandas(FRAME, npartitions=4)
    with pytest.raises(ValueError, match="X has 600 rows, time has 5"):
        held_out({"X": FRAME}, FRAME.day[:5])
    with pytest.raises(ValueError, match="Expected the rows of X and time in one order"):
        held_out({"X": FRAME}, FRAME.day.sort_values())
    with pytest.raises(ValueError, match=r"Expected time of shape \(n,\), received 2 dimensions"):
        held_out({"X": FRAME}, FRAME[["day"]])
    with pytest.raises(ValueError, match="Expected X, y and time to be of one kind"):
        held_out({"X": lazy}, FRAME.day)
    array = da.ones((600, 2), chunks=(100, 2))
    with pytest.raises(ValueError, match="For arrays, pass rows to validate with: X_val and y_val"):
        held_out({"X": array}, lazy.day)


# --- fits --------------------------------------------------------------------------------------------


def test_a_fit_is_judged_by_the_latest_rows(where):
    # From the 51st day on there is another level, which no other row shows.
    data = where(FRAME.assign(y=FRAME.x + 10.0 * (FRAME.day > 50)))
    X, settings = data[["x"]], {**SMALL, "replicas": 1}
    assert TabularRegressor(**settings).fit(X, data.y, time=data.date).best_validation_score_ < -1
    assert TabularRegressor(**settings).fit(X, data.y).best_validation_score_ > -1
    model = TabularRegressor(refit="all", **settings).fit(X, data.y, time=data.date)
    assert model.history_[0]["n_samples"] == 510
    assert model.history_[-1]["n_samples"] == 600


def test_a_fit_with_rows_to_validate_with_or_without_early_stopping_needs_no_time():
    X, y = FRAME[["x"]], FRAME.y
    model = TabularRegressor(**SMALL).fit(X, y, time=FRAME.day, X_val=X[:50], y_val=y[:50])
    assert model.history_[0]["n_samples"] == 600
    model = TabularRegressor(early_stopping=False, **SMALL).fit(X, y, time=FRAME.day)
    assert model.history_[0]["n_samples"] == 600


@pytest.mark.parametrize("refit", [None, "all"])
def test_a_class_that_came_late_is_known_and_no_obstacle(where, refit):
    labels = np.where(FRAME.day > 50, "new", np.where(FRAME.x > 0, "high", "low"))
    data = where(FRAME.assign(label=labels, weight=FRAME.day + 1.0))
    model = TabularClassifier(class_weight="balanced", refit=refit, **SMALL)
    model.fit(data[["x"]], data.label, data.weight, time=data.date)
    assert model.history_[0]["n_samples"] == 510
    # As if hold_out="last" holds out the same rows.
    assert list(model.classes_) == ["high", "low", "new"]
    assert model.predict_proba(FRAME[["x"]]).shape == (600, 3)


def test_a_small_table_holds_no_rows_out(where):
    data = where(FRAME[:90])
    for by in ({"time": data.date}, {"groups": data.day}):
        model = TabularRegressor(refit="all", **SMALL).fit(data[["x"]], data.y, **by)
        assert [entry["n_samples"] for entry in model.history_] == [90] * 3
        assert model.validation_scores_ is None
        model = TabularRegressor(early_stopping=True, **SMALL).fit(data[["x"]], data.y, **by)
        assert model.history_[0]["n_samples"] < 90
        assert len(model.validation_scores_) == 3


def test_callbacks_follow_both_trainings_of_a_refit_but_monitor_the_first(tmp_path):
    # Warnings are errors: nothing says that there is no val_loss in the second.
    log, stopping = CSVLogger(tmp_path / "log.csv"), EarlyStopping("val_loss", patience=9)
    model = TabularRegressor(refit="all", callbacks=[log, stopping], **SMALL)
    model.fit(FRAME[["x"]], FRAME.y, time=FRAME.day)
    found = pd.read_csv(tmp_path / "log.csv")
    assert found.epoch.tolist() == list(range(len(model.history_)))
    assert found.val_loss.isna().tolist() == [False] * 3 + [True] * model.best_epoch_


def test_few_rows_of_a_group_that_are_set_aside_judge(where):
    data = where(FRAME.assign(group=np.arange(600) < 4))
    held = {model.history_[0]["n_samples"]: model for model in (
        TabularRegressor(**{**SMALL, "random_state": seed}).fit(data[["x"]], data.y, groups=data.group)
        for seed in range(6)
    )}  # fmt: skip
    assert held[596].best_epoch_ is not None


@pytest.mark.parametrize(("is_weighted", "what"), [
    (FRAME.day < 40, "held out"), (FRAME.day > 55, "trained on"),
])  # fmt: skip
def test_rows_without_a_weight_are_not_trained_on_or_scored_alone(where, is_weighted, what):
    data = where(FRAME.assign(weight=is_weighted * 1.0))
    with pytest.raises(
        ValueError, match=f"at least one of the rows that are {what} to have a weight above 0"
    ):
        TabularRegressor(**SMALL).fit(data[["x"]], data.y, data.weight, time=data.day)


@pytest.mark.parametrize("by", ["time", "groups"])
def test_a_name_is_no_column(where, by):
    data = where(FRAME)
    with pytest.raises(ValueError, match=rf"Expected {by} to be a value.* such as X\['date'\]"):
        TabularRegressor(**SMALL).fit(data[["x"]], data.y, **{by: "date"})


def in_parts(frame, n_parts):
    """A Dask collection whose divisions are unknown, each partition of which has an index from 0."""
    size = len(frame) // n_parts
    return dd.from_map(
        lambda number: frame[number * size : (number + 1) * size].reset_index(drop=True), range(n_parts)
    )


@pytest.mark.parametrize("by", ["time", "groups"])
@pytest.mark.parametrize(("other", "message"), [
    (lambda days: in_parts(days, 3), "the same partitions, received 4 and 3"),
    (lambda days: in_parts(days[:400], 4), "the same rows in each partition, received 150 rows beside 100"),
    (lambda days: in_parts(days[::-1].reset_index(drop=True), 4).map_partitions(lambda part: part[::-1]),
     "the same rows in each partition"),
])  # fmt: skip
def test_dask_columns_of_other_rows_are_refused(by, other, message):
    X, y = in_parts(FRAME[["x"]], 4), in_parts(FRAME.y, 4)
    with pytest.raises(ValueError, match=message):
        TabularRegressor(**SMALL).fit(X, y, **{by: other(FRAME.day)})


@pytest.mark.parametrize(("hold_out", "given", "named"), [
    ("random", ("groups", "time"), "groups and time"),
    ("last", ("time",), "time and hold_out='last'"),
    ("last", ("groups",), "groups and hold_out='last'"),
])  # fmt: skip
def test_two_ways_to_hold_rows_out_are_refused(hold_out, given, named):
    columns = {"groups": FRAME.day, "time": FRAME.date}
    with pytest.raises(ValueError, match=f"which rows are held out, received {named}"):
        TabularRegressor(hold_out=hold_out, **SMALL).fit(
            FRAME[["x"]], FRAME.y, **{name: columns[name] for name in given}
        )
