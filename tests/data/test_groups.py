"""Rows are split by groups: all rows of a group are on one side, in Dask and in this process alike."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dasknn import TabularRegressor
from dasknn.cluster.local import LocalExecutor
from dasknn.data import groups

LOCAL = LocalExecutor()


def table(n=600):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": rng.integers(0, 80, n), "x": rng.standard_normal(n)})
    return frame.assign(y=frame.x, name=[f"customer {g}" for g in frame.g])


@pytest.mark.parametrize("column", ["g", "name"])
def test_a_group_is_on_one_side(column):
    frame = table()
    columns = {"X": frame, "y": frame.y.to_numpy(), "weight": None}
    kept, held = groups.split(columns, frame[column], 0.3, 1, LOCAL)
    assert not set(kept["X"][column]) & set(held["X"][column])
    assert len(kept["X"]) + len(held["X"]) == len(frame)
    assert len(held["y"]) == len(held["X"])
    assert held["weight"] is None
    assert 0.1 < len(held["X"]) / len(frame) < 0.5


def test_other_seeds_choose_other_groups():
    frame = table()
    chosen = {tuple(groups.split({"X": frame}, frame.g, 0.3, seed, LOCAL)[1]["X"].index) for seed in range(5)}
    assert len(chosen) == 5


def test_the_share_of_groups_is_the_one_asked_for():
    many = np.arange(20_000)
    for fraction in (0.0, 0.1, 0.5):
        _, held = groups.split({"X": many}, many, fraction, 0, LOCAL)
        assert len(held["X"]) / len(many) == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_of_few_groups_at_least_one_is_on_each_side(fraction, lazily):
    frame = table(60).assign(g=np.arange(60) % 2)
    data = dd.from_pandas(frame, npartitions=3) if lazily else frame
    for seed in range(4):
        kept, held = groups.split({"X": data}, data.g, fraction, seed, LOCAL)
        assert sorted([set(kept["X"].g), set(held["X"].g)], key=min) == [{0}, {1}]


@pytest.mark.parametrize("lazily", [False, True])
def test_one_group_alone_raises(lazily):
    frame = table(60).assign(g="all")
    data = dd.from_pandas(frame, npartitions=3) if lazily else frame
    with pytest.raises(ValueError, match=r"Expected groups of at least two different values.*received one"):
        groups.split({"X": data}, data.g, 0.3, 1, LOCAL)


def test_dask_sets_the_same_rows_aside():
    frame = table()
    lazy = dd.from_pandas(frame, npartitions=4)
    _, held = groups.split({"X": frame[["x"]], "y": frame.y}, frame.g, 0.3, 1, LOCAL)
    _, lazily = groups.split({"X": lazy[["x"]], "y": lazy.y}, lazy.g, 0.3, 1, LOCAL)
    pd.testing.assert_frame_equal(lazily["X"].compute(), held["X"])
    pd.testing.assert_series_equal(lazily["y"].compute(), held["y"])


def test_groups_that_do_not_belong_to_the_rows_raise():
    frame = table()
    lazy = dd.from_pandas(frame, npartitions=4)
    with pytest.raises(ValueError, match="X has 600 rows, groups has 5"):
        groups.split({"X": frame}, frame.g[:5], 0.3, 1, LOCAL)
    with pytest.raises(ValueError, match="Expected X, y and groups to be of one kind"):
        groups.split({"X": lazy}, frame.g, 0.3, 1, LOCAL)
    array = da.ones((600, 2), chunks=(100, 2))
    with pytest.raises(ValueError, match="For arrays, pass rows to validate with: X_val and y_val"):
        groups.split({"X": array}, lazy.g, 0.3, 1, LOCAL)


@pytest.mark.parametrize("lazily", [False, True])
def test_a_group_that_is_learned_by_heart_does_not_help_with_rows_held_out(lazily):
    rng = np.random.default_rng(0)
    frame = table(2000)
    frame["y"] = rng.standard_normal(80)[frame.g]
    data = dd.from_pandas(frame, npartitions=3) if lazily else frame
    model = TabularRegressor(
        members=2, hidden_layer_sizes=(16,), max_iter=6, random_state=0, categorical_features=["g"]
    )
    X, y = data[["g", "x"]], data["y"]
    assert model.fit(X, y).best_validation_score_ > 0.9
    assert model.fit(X, y, groups=data["g"]).best_validation_score_ < 0.3


def test_the_last_rows_can_be_held_out():
    frame = table(1000)
    frame["y"] = (np.arange(1000) >= 850) * 10.0 + frame.x
    settings = {"members": 2, "hidden_layer_sizes": (16,), "max_iter": 6, "random_state": 0}
    scores = [
        TabularRegressor(hold_out=rows, **settings).fit(frame[["x"]], frame.y).best_validation_score_
        for rows in ("random", "last")
    ]
    # The last rows have another level, which no other row shows.
    assert scores[1] < -1 < scores[0]
