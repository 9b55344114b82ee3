"""Bars and lines show the importances and averages of columns."""

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pictures import figures_are_closed  # noqa: F401
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

import dasknn
from dasknn.plots import ImportanceDisplay, PartialDependenceDisplay


@pytest.fixture(scope="module")
def table():
    """A table of numbers and categories' codes, numbers to predict, and labels of three classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 5)), columns=["a", "b", "c", "d", "e"])
    y = frame["a"] + 3 * frame["c"] + 0.1 * rng.normal(size=300)
    return frame, y, np.array(["low", "middle", "tall"])[np.digitize(y, [-1, 1])]


def labels_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# --- importances ----------------------------------------------------------------------------------


def test_importances_are_bars_with_intervals_the_most_important_first(table):
    X, y, _ = table
    model = LinearRegression().fit(X, y)
    found = dasknn.permutation_importance(model, X, y, random_state=0)
    display = ImportanceDisplay.from_importance(found, max_columns=2)
    assert display.names == labels_of(display.ax_.yaxis) == ["c", "a"]
    assert_allclose([bar.get_width() for bar in display.bars_], found.importances_mean[[2, 0]])
    [intervals] = display.bars_.errorbar[2]
    ends = np.array([segment[:, 0] for segment in intervals.get_segments()])
    assert_allclose(ends, np.column_stack([found.interval_low, found.interval_high])[[2, 0]])
    assert display.ax_.get_ylim()[0] > display.ax_.get_ylim()[1]
    assert display.ax_.get_ylabel() == "2 of 5 columns"
    assert display.ax_.get_xlabel() == "drop in r2 if the column is permuted  (95% intervals)"


def test_importances_of_a_model_are_computed_and_drawn(table):
    X, y, _ = table
    model = LinearRegression().fit(X.to_numpy(), y)
    figure, ax = plt.subplots()
    display = ImportanceDisplay.from_estimator(
        model,
        da.from_array(X.to_numpy(), chunks=(100, -1)),
        y.to_numpy(),
        scoring="mean_squared_error",
        random_state=0,
        columns=[("x0", "x2"), "x1"],
        ax=ax,
        color="red",
    )
    assert display.figure_ is figure
    assert display.names == ["x0 + x2", "x1"]
    assert display.ax_.get_xlabel().startswith("rise in mean squared error")
    assert display.bars_[0].get_facecolor() == (1, 0, 0, 1)
    assert display.ax_.get_ylabel() == ""


def test_importances_without_intervals_are_bars_alone(table):
    X, y, _ = table
    found = dasknn.permutation_importance(LinearRegression().fit(X, y), X, y, n_bootstrap=0)
    display = ImportanceDisplay.from_importance(found)
    assert display.bars_.errorbar is None
    assert "intervals" not in display.ax_.get_xlabel()
    with pytest.raises(ValueError, match=r"the result of dasknn\.permutation_importance, received dict"):
        ImportanceDisplay.from_importance({"importances_mean": [1]})
    with pytest.raises(ValueError, match="max_columns of at least 1"):
        ImportanceDisplay.from_importance(found, max_columns=0)


# --- partial dependence ---------------------------------------------------------------------------


def test_averages_of_numbers_are_a_line_in_a_panel_for_each_column(table):
    X, y, _ = table
    found = dasknn.partial_dependence(LinearRegression().fit(X, y), X, ["a", "c"])
    display = PartialDependenceDisplay.from_dependence(found)
    assert [panel.get_xlabel() for panel in display.axes_] == ["a", "c"]
    for name in ("a", "c"):
        [line] = display.lines_[name]
        assert_allclose(line.get_xydata(), np.column_stack([found.values[name], found.average[name][0]]))
    assert display.axes_[0].get_ylim() == display.axes_[1].get_ylim()
    assert display.ax_.get_ylabel() == "mean prediction"
    assert display.ax_.get_legend() is None


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_panels_take_the_place_of_axes(table, n):
    X, y, _ = table
    model = LinearRegression().fit(X, y)
    figure, grid = plt.subplots(1, 2)
    display = PartialDependenceDisplay.from_estimator(model, X, list(X.columns[:n]), ax=grid[0], color="red")
    assert display.ax_ is grid[0]
    assert len(display.axes_) == n
    assert all(panel.figure is figure for panel in display.axes_)
    assert max(panel.get_position().x1 for panel in display.axes_) < grid[1].get_position().x0
    assert display.lines_["a"][0].get_color() == "red"
    fixed = plt.figure().add_axes((0, 0, 1, 1))
    if n > 1:
        with pytest.raises(ValueError, match="Draw on a new figure"):
            PartialDependenceDisplay.from_dependence(display.dependence, ax=fixed)


def test_each_class_has_a_line_and_of_two_the_second(table):
    X, _, labels = table
    model = LogisticRegression().fit(X, labels)
    display = PartialDependenceDisplay.from_estimator(model, X, "c")
    assert len(display.lines_["c"]) == 3
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["low", "middle", "tall"]
    assert display.ax_.get_ylabel() == "mean probability"
    display = PartialDependenceDisplay.from_dependence(display.dependence, pos_label="low")
    [line] = display.lines_["c"]
    assert_allclose(line.get_ydata(), display.dependence.average["c"][0])
    assert display.ax_.get_ylabel() == "mean probability of low"
    two = LogisticRegression().fit(X, labels == "tall")
    display = PartialDependenceDisplay.from_estimator(two, X, ["c"])
    assert display.ax_.get_ylabel() == "mean probability of True"
    assert_allclose(display.lines_["c"][0].get_ydata(), display.dependence.average["c"][1])


def test_categories_are_dots_with_names(table):
    X, y, _ = table
    X = X[["a"]].assign(kind=np.where(np.arange(300) % 3, "a kind with a very long name", "x"))
    model = make_pipeline(dasknn.TablePreprocessor(), LinearRegression()).fit(X, y)
    display = PartialDependenceDisplay.from_estimator(model, X, ["kind", "a"])
    [dots] = display.lines_["kind"]
    assert dots.get_linestyle() == "None"
    assert_allclose(dots.get_ydata(), display.dependence.average["kind"][0])
    assert labels_of(display.ax_.xaxis) == ["a kind with a very long…", "x"]


def test_what_cannot_be_drawn_is_refused(table):
    X, y, labels = table
    found = dasknn.partial_dependence(LinearRegression().fit(X, y), X, "a")
    with pytest.raises(ValueError, match="none, of a regression, received 'low'"):
        PartialDependenceDisplay.from_dependence(found, pos_label="low")
    with pytest.raises(ValueError, match=r"the result of dasknn\.partial_dependence, received dict"):
        PartialDependenceDisplay.from_dependence({})
    found = dasknn.partial_dependence(LogisticRegression().fit(X, labels), X, "a")
    with pytest.raises(ValueError, match=r"one of the classes, \['low', 'middle', 'tall'\], received 'high'"):
        PartialDependenceDisplay.from_dependence(found, pos_label="high")
    many = LogisticRegression(max_iter=20).fit(X, np.arange(300) % 30)
    with pytest.raises(ValueError, match="at most 28 classes"):
        PartialDependenceDisplay.from_estimator(many, X, "a")
