"""Pictures of a search show all of its trials, and which was best."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.ma import MaskedArray
from numpy.testing import assert_allclose
from pictures import figures_are_closed  # noqa: F401
from sklearn.exceptions import NotFittedError

from dasknn import HyperbandSearch, MLPClassifier
from dasknn.plots import SearchDisplay


def entries(trial, scores, split=0):
    return [
        {"trial": trial, "split": split, "epoch": k + 1, "score": score, "time": 10.0 * trial + k}
        for k, score in enumerate(scores)
    ]


def results_of(scores, bracket=None, status=None, n_epochs=None, **settings):
    n = len(scores)
    found = {f"param_{name}": values for name, values in settings.items()}
    found = {
        name: values if isinstance(values, MaskedArray) else MaskedArray(values)
        for name, values in found.items()
    }
    return found | {
        "mean_test_score": np.array(scores, float),
        "bracket": np.array(bracket or [0] * n),
        "status": np.array(status or ["finished"] * n, object),
        "n_epochs": np.array(n_epochs or [3] * n),
    }


@pytest.fixture
def three():
    """Two brackets, and a trial that has failed after an epoch."""
    history = entries(0, [0.5, 0.6]) + entries(1, [0.4, 0.9, 0.8]) + entries(2, [0.3])
    status = ["paused", "finished", "failed"]
    return history, results_of([0.6, 0.9, np.nan], [0, 1, 1], status, [2, 3, 1], a=[1, 2, 3])


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_trial_has_a_line_and_the_best_is_on_top(three):
    display = SearchDisplay(*three, score="accuracy").plot()
    assert sorted(display.lines_) == [0, 1, 2]
    assert_allclose(display.lines_[1].get_xydata(), [[1, 0.4], [2, 0.9], [3, 0.8]])
    assert display.best == 1
    zorders = {trial: line.get_zorder() for trial, line in display.lines_.items()}
    assert zorders[1] > max(zorders[0], zorders[2])
    assert display.lines_[1].get_linewidth() > display.lines_[0].get_linewidth()
    assert labels_of(display.ax_)[0] == "best: trial 1, 0.9"
    assert display.ax_.get_ylabel() == "accuracy"


def test_brackets_have_colors_and_failed_trials_a_mark(three):
    history, results = three
    display = SearchDisplay(history, results).plot()
    assert labels_of(display.ax_)[1:] == ["bracket 0 (1 trial)", "bracket 1 (2 trials)", "failed (1 trial)"]
    assert to_hex(display.lines_[0].get_color()) != to_hex(display.lines_[2].get_color())
    assert display.failed == [2]
    (mark,) = (line for line in display.ax_.get_lines() if line.get_label().startswith("failed"))
    assert mark.get_xdata() == [1]
    results["bracket"][:] = 0
    assert labels_of(SearchDisplay(history, results).plot().ax_) == ["best: trial 1, 0.9", "failed (1 trial)"]


def test_a_line_of_folds_is_their_mean_over_epochs_that_all_have():
    history = entries(0, [0.2, 0.4, 0.9], split=0) + entries(0, [0.4, 0.6], split=1)
    display = SearchDisplay(history, results_of([0.5])).plot()
    assert_allclose(display.lines_[0].get_xydata(), [[1, 0.3], [2, 0.5]])


def test_lines_by_time_show_when_trials_were_trained(three):
    display = SearchDisplay(*three, x="time").plot()
    assert_allclose(display.lines_[1].get_xdata(), [10, 11, 12])
    assert "seconds" in display.ax_.get_xlabel()


def test_one_very_bad_score_does_not_flatten_the_others():
    history = [entry for k in range(8) for entry in entries(k, [0.5 + k / 20, 0.6 + k / 20])]
    scores = [0.6 + k / 20 for k in range(8)]
    usual = SearchDisplay(history, results_of(scores)).plot().ax_.get_ylim()
    bad = SearchDisplay(history + entries(8, [-1e6, 0.1]), results_of([*scores, 0.1])).plot()
    low, high = bad.ax_.get_ylim()
    assert high - low < 5 * (usual[1] - usual[0])
    assert high > 0.95
    assert any("left out" in text.get_text() for text in bad.ax_.texts)


def test_a_panel_of_each_setting_suits_its_values():
    n = 6
    units = np.empty(n, object)
    units[:] = [(8,), (64, 64), (8,), (16,), None, (16,)]
    results = results_of(
        np.linspace(0.5, 0.9, n),
        rate=[1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        alpha=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        units=units,
        nesterov=[True, False] * 3,
    )
    display = SearchDisplay([], results, settings="all").plot()
    assert list(display.points_) == ["rate", "alpha", "units", "nesterov"]
    panels = dict(zip(display.settings, display.axes_, strict=True))
    assert [panels[name].get_xscale() for name in ("rate", "alpha")] == ["log", "linear"]
    ticks = [label.get_text() for label in panels["units"].get_xticklabels()]
    assert ticks == ["(8,)", "(16,)", "(64, 64)", "None"]
    places = np.asarray(display.points_["units"].get_offsets())
    assert places[:, 0].round().tolist() == [0, 2, 0, 1, 3, 1]
    assert_allclose(places[:, 1], results["mean_test_score"])
    assert [label.get_text() for label in panels["nesterov"].get_xticklabels()] == ["False", "True"]
    assert display.ax_ is display.axes_[0]


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([(64, 64), (64,), (8,)], ["(8,)", "(64,)", "(64, 64)"]),
        ([(64,), None, (8,)], ["(8,)", "(64,)", "None"]),
        (["b", "a", "a"], ["a", "b"]),
    ],
    ids=str,
)
def test_strips_of_categories_are_in_order(values, order):
    column = np.empty(3, object)
    column[:] = values
    panel = SearchDisplay([], results_of([0.5, 0.6, 0.7], a=column), settings="a").plot().ax_
    assert [label.get_text() for label in panel.get_xticklabels()] == order


def test_points_are_colored_by_epochs_and_the_best_is_named():
    results = results_of([0.5, 0.9, 0.7], n_epochs=[1, 9, 27], a=[1, 2, 3])
    display = SearchDisplay([], results, settings="a").plot()
    points = display.points_["a"]
    colors = dict(zip(np.asarray(points.get_offsets())[:, 0], points.get_array(), strict=True))
    assert colors == {1: 1, 2: 9, 3: 27}
    assert labels_of(display.ax_) == ["best: trial 1, 0.9"]


def test_trials_without_a_setting_are_not_in_its_panel():
    momentum = MaskedArray([0.1, 0.0, 0.9], mask=[False, True, False])
    results = results_of([0.5, 0.6, 0.7], momentum=momentum)
    display = SearchDisplay([], results, settings=["momentum"]).plot()
    places = np.asarray(display.points_["momentum"].get_offsets(), float)
    assert np.isnan(places[1, 0])
    assert_allclose(places[[0, 2], 0], [0.1, 0.9])
    assert display.ax_.get_xscale() == "linear"


def test_a_hundred_trials_that_all_failed_are_drawn():
    n = 100
    results = results_of([np.nan] * n, status=["failed"] * n, n_epochs=[0] * n, a=list(range(n)))
    for settings in (None, "all"):
        display = SearchDisplay([], results, settings=settings).plot()
        assert display.best is None
        assert labels_of(display.ax_) == ["failed (100 trials)"]


def test_panels_take_the_place_of_given_axes(three):
    history, results = three
    _, (left, right) = plt.subplots(1, 2)
    both = results | {"param_b": MaskedArray([0.1, 0.2, 0.3])}
    display = SearchDisplay(history, both, settings="all").plot(left)
    assert display.axes_[0] is left
    assert len(display.axes_) == 2
    assert SearchDisplay(history, results).plot(right).axes_ == [right]
    fixed = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))
    with pytest.raises(ValueError, match="ax=None"):
        SearchDisplay(history, both, settings="all").plot(fixed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"settings": "aa"}, r"Expected settings among \['a'\], received 'aa'"),
        ({"settings": []}, "at least one setting"),
        ({"x": "seconds"}, "'epoch' or 'time'"),
    ],
    ids=str,
)
def test_what_a_search_does_not_have_is_said(three, settings, message):
    with pytest.raises(ValueError, match=message):
        SearchDisplay(*three, **settings)


def test_what_is_no_search_is_said(three):
    with pytest.raises(TypeError, match="fitted search of dasknn"):
        SearchDisplay.from_estimator(MLPClassifier())
    with pytest.raises(NotFittedError):
        SearchDisplay.from_estimator(HyperbandSearch(MLPClassifier(), {"alpha": [1]}))
    with pytest.raises(ValueError, match="cv_results_ of a search"):
        SearchDisplay([], {"mean_fit_time": [1]})
    with pytest.raises(ValueError, match="entries of history_"):
        SearchDisplay([{"epoch": 1, "loss": 0.1}], three[1])


def test_a_search_is_drawn_as_it_was(digits):
    X, y = digits
    search = HyperbandSearch(
        MLPClassifier((8,)),
        {"learning_rate_init": [1e-5, 1e-3, 1e-2, -1.0]},
        max_iter=3,
        random_state=0,
        max_ensemble=0,
        verbose=False,
    ).fit(X, y)
    display = SearchDisplay.from_estimator(search)
    assert display.best == search.best_index_
    assert display.ax_.get_ylabel() == "accuracy"
    scores = display.lines_[search.best_index_].get_ydata()
    assert max(scores) == pytest.approx(search.best_score_)
    assert len(scores) == search.cv_results_["n_epochs"][search.best_index_]
    assert display.failed == [int(k) for k in np.flatnonzero(search.cv_results_["status"] == "failed")] != []
    points = SearchDisplay.from_estimator(search, settings="learning_rate_init").points_
    assert len(points["learning_rate_init"].get_offsets()) == 4 - len(display.failed)


def test_what_a_notebook_sets_at_its_first_figure_stays(three, monkeypatch):
    make = plt.subplots

    def first(*args, **settings):
        plt.ion()
        return make(*args, **settings)

    monkeypatch.setattr(plt, "subplots", first)
    try:
        SearchDisplay(*three).plot()
        assert plt.isinteractive()
    finally:
        plt.ioff()
