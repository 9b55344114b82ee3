"""The trials of a search: their scores by epoch, or against their settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dasknn.plots.style import (
    ABOVE,
    BLACK,
    GRAY,
    RED,
    Drawn,
    axes_for,
    columns_of,
    line_style,
    panels,
    whole_numbers,
)
from dasknn.saving.serialization import did_you_mean
from dasknn.search.base import BaseSearch
from dasknn.search.results import lowest_to_show
from dasknn.search.wording import score_name, value_text
from dasknn.seeds import same_each_time

# Values that are spread over more than two decades are drawn on a logarithmic axis.
_DECADES = 100.0
_MOST_LETTERS = 24
_ALL = "all"


class SearchDisplay(Drawn):
    """The trials of a search: a line of scores for each, or a dot for each against its settings.

    Parameters
    ----------
    history : list of dict
        `history_` of a search.
    results : dict of arrays (n_trials,)
        `cv_results_` of the search.
    settings : str or list of str, default=None
        None: scores by epoch. Otherwise scores against these settings, "all" of them or those named, a panel
        for each.
    x : {"epoch", "time"}, default="epoch"
        Against what scores are drawn: epochs of the trial, or seconds since the search began.
    score : str, default="score"
        What was scored, for the axis.

    Attributes
    ----------
    results, settings, x, score
        As given; `settings` is a list of names, or None.
    curves : dict of int to (array (n,), array (n,), array (n,))
        Epochs, seconds and scores of each trial that has any, the mean over splits.
    best : int or None
        Number of the trial with the best score, the first of equals; None: no trial has a score.
    failed : list of int
        Numbers of the trials that have failed.
    lines_ : dict of int to matplotlib line
        Of each trial, if scores were drawn by epoch.
    points_ : dict of str to matplotlib collection
        Of each setting, if scores were drawn against settings.
    axes_ : list of matplotlib axes
        One, or that of each setting.
    ax_, figure_
        The first axes and the figure of the last drawing.
    """

    def __init__(
        self,
        history: Iterable[Mapping[str, Any]],
        results: Mapping[str, Any],
        *,
        settings: str | Iterable[str] | None = None,
        x: str = "epoch",
        score: str = "score",
    ):
        if x not in ("epoch", "time"):
            raise ValueError(f"Expected x to be 'epoch' or 'time', received {x!r}.")
        if not isinstance(results, Mapping) or "mean_test_score" not in results or "status" not in results:
            raise ValueError(
                f"Expected cv_results_ of a search of dasknn, received {results!r:.80}. Pass search.history_ "
                "and search.cv_results_."
            )
        self.results, self.x, self.score = results, x, score
        self.settings = self._named(settings)
        self.curves = _curves(history)
        scores = self._scores
        self.best = None if np.isnan(scores).all() else int(np.nanargmax(scores))
        self.failed = [int(trial) for trial in np.flatnonzero(np.asarray(results["status"]) == "failed")]
        self.lines_: dict[int, Any] = {}
        self.points_: dict[str, Any] = {}

    @property
    def _scores(self) -> np.ndarray:
        return np.asarray(self.results["mean_test_score"], dtype=np.float64)

    def _named(self, settings: str | Iterable[str] | None) -> list[str] | None:
        if settings is None:
            return None
        known = [name.removeprefix("param_") for name in self.results if name.startswith("param_")]
        names = [settings] if isinstance(settings, str) else list(settings)
        names = known if names == [_ALL] and _ALL not in known else names
        for name in names:
            if name not in known:
                raise ValueError(
                    f"Expected settings among {known}, received {name!r}.{did_you_mean(name, known)}"
                )
        if not names:
            raise ValueError("Expected at least one setting, received none.")
        return names

    @classmethod
    def from_estimator(
        cls,
        search: BaseSearch,
        *,
        settings: str | Iterable[str] | None = None,
        x: str = "epoch",
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the trials of a fitted search.

        Parameters
        ----------
        search : HyperbandSearch, SuccessiveHalvingSearch, RandomSearch or GridSearch
        settings : str or list of str, default=None
            None: scores by epoch. Otherwise scores against these settings, "all" of them or those named, a
            panel for each.
        x : {"epoch", "time"}, default="epoch"
            Against what scores are drawn: epochs of the trial, or seconds since the search began.
        ax : matplotlib axes, default=None
            See `plot`.
        kwargs
            Properties of the lines or dots.

        Returns
        -------
        display

        Raises
        ------
        NotFittedError
            The search is not fitted.
        TypeError
            It is another object.
        ValueError
            There is no such setting.
        """
        if not isinstance(search, BaseSearch):
            raise TypeError(f"Expected a fitted search of dasknn, received {search!r:.80}.")
        check_is_fitted(search)
        score = score_name(search.estimator, search.scoring)
        display = cls(search.history_, search.cv_results_, settings=settings, x=x, score=score)
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the lines or the dots.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            The panels are drawn in its place, and it becomes the first of them. None: on a new figure.
        kwargs
            Properties of the lines or dots.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Several panels are needed, and `ax` is not of a grid.
        """
        self.lines_, self.points_ = {}, {}
        if self.settings is None:
            self.axes_ = [axes_for(ax, figsize=(7.0, 4.4))]
            self._draw_curves(self.axes_[0], kwargs)
        else:
            self.axes_ = panels(ax, len(self.settings))
            self._draw_settings(kwargs)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        return self

    # --- scores by epoch ---------------------------------------------------------------------------

    def _draw_curves(self, ax: Any, kwargs: Mapping[str, Any]) -> None:
        brackets = np.asarray(self.results["bracket"])
        known = np.unique(brackets).tolist()
        # Many lines may lie above one another.
        alpha = 0.7 if len(self.curves) <= 30 else 0.4
        labelled = set()
        for trial, (epochs, seconds, scores) in self.curves.items():
            if trial == self.best:
                continue
            bracket = int(brackets[trial])
            style = {**_color(bracket), "linestyle": "-", "linewidth": 0.8, "alpha": alpha}
            # A trial of one epoch has no line.
            style |= {"marker": "o", "markersize": 2.5, "markevery": [len(epochs) - 1], "zorder": 2}
            if len(known) > 1 and bracket not in labelled:
                labelled.add(bracket)
                style["label"] = f"bracket {bracket} ({_counted(int((brackets == bracket).sum()), 'trial')})"
            along = epochs if self.x == "epoch" else seconds
            (self.lines_[trial],) = ax.plot(along, scores, **{**style, **kwargs})
        if self.best in self.curves:
            self._draw_best(ax, kwargs)
        self._mark_failed(ax)
        self._leave_out_outliers(
            np.concatenate([self._scores, *(curve[2] for curve in self.curves.values())])
        )
        if self.x == "epoch":
            whole_numbers(ax.xaxis)
        ax.set(xlabel="epoch" if self.x == "epoch" else "seconds since the search began", ylabel=self.score)
        ax.grid(axis="y", alpha=0.3)
        handles, labels = ax.get_legend_handles_labels()
        if handles:
            order = sorted(range(len(handles)), key=lambda k: (not labels[k].startswith("best"), labels[k]))
            chosen = [handles[k] for k in order], [labels[k] for k in order]
            ax.legend(*chosen, ncols=3, **ABOVE)

    def _draw_best(self, ax: Any, kwargs: Mapping[str, Any]) -> None:
        assert self.best is not None, "there is a best trial"
        epochs, seconds, scores = self.curves[self.best]
        along = epochs if self.x == "epoch" else seconds
        style = {"color": BLACK, "linewidth": 2.0, "zorder": 4, "linestyle": "-"}
        label = f"best: trial {self.best}, {self._scores[self.best]:.4g}"
        (self.lines_[self.best],) = ax.plot(along, scores, label=label, **{**style, **kwargs})
        top = int(np.nanargmax(scores)) if not np.isnan(scores).all() else len(scores) - 1
        ax.plot(along[top], scores[top], "*", color=BLACK, markersize=11, zorder=5)

    def _mark_failed(self, ax: Any) -> None:
        """Mark where trials have failed, at the bottom: some have no score."""
        if not self.failed:
            return
        along = []
        for trial in self.failed:
            epochs, seconds, _ = self.curves.get(trial, ([0], [0.0], []))
            along.append(epochs[-1] if self.x == "epoch" else seconds[-1])
        where = {"transform": ax.get_xaxis_transform(), "clip_on": False, "zorder": 5}
        label = f"failed ({_counted(len(self.failed), 'trial')})"
        ax.plot(along, [0.02] * len(along), "x", color=RED, markersize=6, label=label, **where)

    def _leave_out_outliers(self, found: np.ndarray) -> None:
        """Let a few very bad scores not flatten all others."""
        lowest = lowest_to_show(found)
        if lowest is None:
            return
        best = found[np.isfinite(found)].max()
        margin = 0.05 * (best - lowest)
        self.axes_[0].set_ylim(lowest - margin, best + margin)
        last = self.axes_[-1]
        place = {"transform": last.transAxes, "ha": "right", "va": "bottom"}
        last.text(1, 1.01, "lower scores left out", color=GRAY, fontsize="small", **place)

    # --- scores against settings -------------------------------------------------------------------

    def _draw_settings(self, kwargs: Mapping[str, Any]) -> None:
        from matplotlib.colors import LogNorm

        assert self.settings is not None, "there are settings to draw"
        epochs = np.asarray(self.results["n_epochs"])
        self._leave_out_outliers(self._scores)
        # A dot of many epochs is seldom hidden by dots of few.
        order = np.argsort(epochs, kind="stable")
        order = order[np.isfinite(self._scores[order])]
        norm = LogNorm(max(1, epochs.min(initial=1)), max(2, epochs.max(initial=2)))
        style = {"c": np.maximum(epochs[order], 1), "norm": norm, "cmap": "viridis_r", "s": 26}
        style |= {"edgecolors": "white", "linewidths": 0.4, "zorder": 3}
        for number, (panel, name) in enumerate(zip(self.axes_, self.settings, strict=True)):
            along = self._along(panel, name)
            self.points_[name] = panel.scatter(along[order], self._scores[order], **{**style, **kwargs})
            if self.best is not None:
                at = along[self.best], self._scores[self.best]
                label = f"best: trial {self.best}, {self._scores[self.best]:.4g}"
                panel.plot(*at, "o", ms=11, mfc="none", mec=BLACK, mew=1.5, zorder=4, label=label)
            if self.failed:
                where = {"transform": panel.get_xaxis_transform(), "clip_on": False, "zorder": 4}
                label = f"failed ({_counted(len(self.failed), 'trial')})"
                panel.plot(
                    along[self.failed], [0.02] * len(self.failed), "x", color=RED, label=label, **where
                )
            panel.set_xlabel(name)
            panel.grid(axis="y", alpha=0.3)
            if number % columns_of(len(self.settings)) == 0:
                panel.set_ylabel(self.score)
        if self.axes_[0].get_legend_handles_labels()[0]:
            self.axes_[0].legend(ncols=2, **ABOVE)
        bar = self.axes_[0].figure.colorbar(self.points_[self.settings[-1]], ax=self.axes_, label="epochs")
        ticks = _apart(np.unique(epochs[order]).tolist())
        bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
        bar.minorticks_off()

    def _along(self, panel: Any, name: str) -> np.ndarray:
        """Return where the trials are in the panel of a setting; NaN: a trial does not have it."""
        column = np.ma.asarray(self.results[f"param_{name}"])
        missing = np.ma.getmaskarray(column)
        values = [value for value, gone in zip(column.data.tolist(), missing, strict=True) if not gone]
        if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
            return _strips(panel, column.data.tolist(), missing)
        numbers = np.full(len(column), np.nan)
        numbers[~missing] = np.array(values, dtype=np.float64)
        least, most = np.nanmin(numbers), np.nanmax(numbers)
        if least > 0 and most / least > _DECADES:
            panel.set_xscale("log")
        elif all(isinstance(value, int) for value in values):
            whole_numbers(panel.xaxis, most=6)
        return numbers


def _curves(history: Iterable[Mapping[str, Any]]) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return (epochs, seconds, scores) of each trial: means over its splits, of epochs that all have."""
    runs: dict[int, dict[int, list[tuple[int, float, float]]]] = {}
    for entry in history:
        if not isinstance(entry, Mapping) or not {"trial", "split", "epoch", "score", "time"} <= entry.keys():
            raise ValueError(f"Expected the entries of history_ of a search, received {entry!r:.80}.")
        of_trial = runs.setdefault(int(entry["trial"]), {})
        row = (int(entry["epoch"]), float(entry["time"]), float(entry["score"]))
        of_trial.setdefault(int(entry["split"]), []).append(row)
    found = {}
    for trial, splits in sorted(runs.items()):
        n = min(map(len, splits.values()))
        table = np.array([sorted(rows)[:n] for rows in splits.values()])
        # A network of folds is scored when the last of them is.
        found[trial] = (table[0, :, 0].astype(int), table[:, :, 1].max(axis=0), table[:, :, 2].mean(axis=0))
    return found


def _strips(panel: Any, values: Sequence[Any], missing: np.ndarray) -> np.ndarray:
    """Return where trials with categories are, beside one another in strips, and label these."""
    texts = [value_text(value, _MOST_LETTERS) for value in values]
    known = {text: value for text, value, gone in zip(texts, values, missing, strict=True) if not gone}
    try:
        labels = sorted(known, key=lambda text: known[text])
    except TypeError:
        labels = sorted(known, key=_natural)
    places = np.array(
        [np.nan if gone else labels.index(text) for text, gone in zip(texts, missing, strict=True)]
    )
    # The same picture each time.
    jitter = same_each_time().uniform(-0.22, 0.22, len(places))
    is_long = sum(map(len, labels)) > 24
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
    panel.set_xticks(np.arange(len(labels)), labels, fontsize="small", **turned)
    panel.set_xlim(-0.5, len(labels) - 0.5)
    return places + jitter


def _apart(values: Sequence[int]) -> list[int]:
    """Return those of ascending numbers that lie far enough apart on a logarithmic axis, the last of all."""
    found: list[int] = []
    for value in reversed(values):
        if value > 0 and (not found or value * 1.25 < found[-1]):
            found.append(value)
    return found[::-1]


def _natural(label: str) -> list[Any]:
    """Return a key that sorts numbers in texts by their size."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", label)]


def _color(bracket: int) -> dict[str, str]:
    return {"color": line_style(bracket)["color"]}


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
