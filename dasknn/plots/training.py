"""How a training went: losses by epoch, and where its time went."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from dasknn.cluster import faults
from dasknn.models.sequential import Sequential
from dasknn.plots.style import (
    ABOVE,
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    LIGHT_GRAY,
    ORANGE,
    PINK,
    RED,
    SKY,
    Drawn,
    axes_for,
    pyplot,
    whole_numbers,
)
from dasknn.saving.serialization import did_you_mean

# What a history says of an epoch besides losses and metrics.
_NO_METRICS = {
    *("epoch", "n_samples", "learning_rate", "bytes_sent", "seconds", "rows_per_second", "faults", "workers"),
}
# marker, color of what happens to a cluster.
_EVENTS = {
    faults.LOST: ("X", BLACK),
    faults.SILENT: ("s", PINK),
    faults.FAILED: ("D", ORANGE),
    faults.RETIRED: ("v", SKY),
    faults.JOINED: ("^", GREEN),
}


def _history_of(model) -> list[dict]:
    """Return what a training has left. NotFittedError; ValueError, TypeError: there is none."""
    last = model[-1] if hasattr(model, "steps") else model
    if isinstance(last, Sequential):
        if last.history is None:
            raise NotFittedError(
                "This Sequential has no history. Call 'fit' first; a model that was loaded has none."
            )
        return _checked_history(last.history)
    if isinstance(last, type) or not hasattr(last, "fit"):
        raise TypeError(
            f"Expected a trained MLPClassifier, MLPRegressor or Sequential, received {model!r:.80}."
        )
    check_is_fitted(last)
    if not hasattr(last, "history_"):
        raise TypeError(f"Expected a model of dasknn, received {type(last).__name__}, which has no history_.")
    return _checked_history(last.history_)


def _checked_history(history) -> list[dict]:
    entries = list(getattr(history, "entries", history))
    if not entries:
        raise ValueError(
            "Expected a history with an epoch or more, received none. A model that was not trained here "
            "(loaded, made from scikit-learn's or Keras's, a member of an ensemble) may have no history."
        )
    for entry in entries:
        if not isinstance(entry, Mapping) or "epoch" not in entry:
            raise ValueError(f"Expected the entries of history_ or History.entries, received {entry!r:.80}.")
    return entries


class LearningCurveDisplay(Drawn):
    """Loss and metrics of a training, epoch by epoch, with what happened to the cluster.

    entries: of `history_` or `History.entries`. metrics: names of those to show, all by default. Attributes:
    epochs (n,); curves, values (n,) by name, NaN where an epoch has none; learning_rates (n,); events, a dict
    for each. `axes_`: the axes from top to bottom: loss, each metric, and the learning rate if it varies.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, metrics: Iterable[str] | None = None):
        entries = _checked_history(entries)
        self.epochs = np.array([entry["epoch"] for entry in entries])
        names = dict.fromkeys(name for entry in entries for name in entry if name not in _NO_METRICS)
        found = {name: np.array([_number(entry.get(name)) for entry in entries]) for name in names}
        self.curves = {name: values for name, values in found.items() if not np.isnan(values).all()}
        self.learning_rates = np.array([_number(entry.get("learning_rate")) for entry in entries])
        self.events = [
            {**event, "epoch": entry["epoch"]} for entry in entries for event in entry.get("faults", ())
        ]
        self.metrics = self._panels(metrics)

    def _panels(self, metrics: Iterable[str] | None) -> list[str]:
        """Return the names of what has a panel each; the values of validation go with those of training."""
        known = list(dict.fromkeys(name.removeprefix("val_") for name in self.curves))
        if metrics is None:
            # The loss first.
            return sorted(known, key=lambda name: name != "loss")
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in metrics:
            if name not in known:
                raise ValueError(
                    f"Expected metrics among {known}, received {name!r}.{did_you_mean(name, known)}"
                )
        return metrics

    @classmethod
    def from_estimator(cls, model, *, metrics=None, ax=None, **kwargs):
        """Draw the training of a fitted MLPClassifier, MLPRegressor or Sequential, or of a Pipeline of one.

        kwargs: properties of the lines. NotFittedError; ValueError: no history, no such metric.
        """
        return cls(_history_of(model), metrics=metrics).plot(ax, **kwargs)

    @classmethod
    def from_history(cls, entries, *, metrics=None, ax=None, **kwargs):
        """Draw the entries of `history_` or `History.entries`. ValueError: no history, no such metric."""
        return cls(entries, metrics=metrics).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw it in place of ax, which becomes the uppermost axes, or on a new figure. Returns self.

        kwargs: properties of the lines. ValueError: ax is not of a grid, and several axes are needed.
        """
        rates = self.learning_rates[~np.isnan(self.learning_rates)]
        varies = len(set(rates.tolist())) > 1
        heights = [2.0] * len(self.metrics) + [0.8] * varies
        heights[0] = 3.0
        self.axes_ = _stacked(ax, heights)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        for panel, name in zip(self.axes_, self.metrics, strict=False):
            self._draw_metric(panel, name, kwargs)
        if varies:
            self.axes_[-1].plot(self.epochs, self.learning_rates, color=GRAY, drawstyle="steps-mid")
            self.axes_[-1].set(ylabel="learning\nrate", yscale="log", ymargin=0.2)
            # Those of a logarithmic axis crowd where rates change by less than a decade.
            ends = [rates.min(), rates.max()]
            self.axes_[-1].set_yticks([], minor=True)
            self.axes_[-1].set_yticks(ends, [f"{rate:.2g}" for rate in ends])
        handles = self._draw_events()
        lines = {line.get_label(): line for panel in self.axes_ for line in panel.get_lines()}
        shown = [lines[label] for label in ("training", "validation") if label in lines]
        if len(shown) + len(handles) > 1 or "validation" in lines:
            self.ax_.legend(handles=shown + handles, ncols=3, **ABOVE)
        whole_numbers(self.axes_[-1].xaxis)
        self.axes_[-1].set(xlabel="epoch", xlim=(self.epochs.min() - 0.5, self.epochs.max() + 0.5))
        return self

    def _draw_metric(self, panel, name: str, kwargs) -> None:
        mark = "o" if len(self.epochs) <= 30 else None
        is_validation_only = name.startswith("validation")
        for key, of_validation in ((name, is_validation_only), (f"val_{name}", True)):
            if key in self.curves:
                style = {
                    "color": RED if of_validation else BLUE,
                    "linestyle": "--" if of_validation else "-",
                    "label": "validation" if of_validation else "training",
                    "marker": mark,
                    "markersize": 3,
                }
                panel.plot(self.epochs, self.curves[key], **{**style, **kwargs})
        panel.set_ylabel(name.replace("_", " "))
        panel.grid(axis="y", alpha=0.3)

    def _draw_events(self) -> list:
        """Mark what happened in an epoch by a line through all axes; return what the legend shows."""
        from matplotlib.lines import Line2D

        counts: dict[str, int] = {}
        height_of: dict[int, int] = {}
        styles: dict[str, dict[str, Any]] = {}
        drawn = set()
        for event in self.events:
            what, epoch = event["what"], event["epoch"]
            counts[what] = counts.get(what, 0) + 1
            if (what, epoch) in drawn:
                continue
            drawn.add((what, epoch))
            marker, color = _EVENTS.get(what, ("o", BLACK))
            for panel in self.axes_:
                panel.axvline(epoch, color=color, linewidth=0.8, alpha=0.6, zorder=0.5)
            # Several in one epoch: below one another.
            below = height_of[epoch] = height_of.get(epoch, -1) + 1
            styles[what] = {"linestyle": "", "marker": marker, "color": color, "markersize": 6}
            where = self.ax_.get_xaxis_transform()
            self.ax_.plot([epoch], [0.95 - 0.08 * below], label=f"_{what}", transform=where, **styles[what])
        return [
            Line2D([], [], label=what if n == 1 else f"{what} ({n}×)", **styles[what])
            for what, n in counts.items()
        ]


def _number(value) -> float:
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _stacked(ax, heights: list[float]) -> list:
    """Return axes below one another, in a new figure or in place of ax, which is the first of them."""
    plt = pyplot()
    if ax is None:
        size = (7.0, 0.6 + 0.95 * sum(heights))
        figure = plt.figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        return list(grid[:, 0])
    if len(heights) == 1:
        return [ax]
    whole = ax.get_subplotspec()
    if whole is None:
        raise ValueError(
            f"Expected axes of plt.subplots, in whose place {len(heights)} axes can be put, received axes at "
            "a fixed position. Draw on a new figure, with ax=None."
        )
    grid = whole.subgridspec(len(heights), 1, height_ratios=heights)
    ax.set_subplotspec(grid[0])
    below = [ax.figure.add_subplot(grid[i], sharex=ax) for i in range(1, len(heights))]
    for panel in [ax, *below[:-1]]:
        panel.tick_params(labelbottom=False)
    return [ax, *below]


_PARTS = {"compute": BLUE, "communication": ORANGE, "waiting": LIGHT_GRAY}
_THIS_PROCESS = "this process"
# Labels of more bars than this would run into one another.
_MOST_BAR_LABELS = 64
_MOST_BARS_WITH_EDGES = 40


class EpochTimesDisplay(Drawn):
    """Where the time of epochs goes: computing, communicating, waiting for others.

    entries: of `history_` or `History.entries`. by: "worker", a bar for each, the mean over the epochs in
    which it took part; "epoch", a bar for each, the mean over its workers. Attributes: names, of the bars;
    times, a dict of compute, communication and waiting to seconds (n,) in their order. What trained in this
    process waited for nobody: all of it is compute.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, by: str = "worker"):
        if by not in ("worker", "epoch"):
            raise ValueError(f"Expected by to be 'worker' or 'epoch', received {by!r}.")
        entries = _checked_history(entries)
        self.by, self.n_epochs = by, len(entries)
        if any("workers" not in entry for entry in entries):
            raise ValueError(
                "Expected entries with 'workers', the times of each worker, received entries without: they "
                "are of a training by an older version of dasknn."
            )
        bars: dict[Any, list[Mapping[str, float]]] = {}
        for entry in entries:
            workers = entry["workers"] or {_THIS_PROCESS: {"compute": entry.get("seconds", 0.0)}}
            for address, times in workers.items():
                bars.setdefault(_shown(address) if by == "worker" else entry["epoch"], []).append(times)
        self.names = sorted(bars, key=_in_natural_order)
        self._n_times = [len(bars[name]) for name in self.names]
        self.times = {
            part: np.array([np.mean([times.get(part, 0.0) for times in bars[name]]) for name in self.names])
            for part in _PARTS
        }

    @classmethod
    def from_estimator(cls, model, *, by="worker", ax=None, **kwargs):
        """Draw the training of a fitted MLPClassifier, MLPRegressor or Sequential, or of a Pipeline of one.

        kwargs: properties of the bars. NotFittedError; ValueError: no history.
        """
        return cls(_history_of(model), by=by).plot(ax, **kwargs)

    @classmethod
    def from_history(cls, entries, *, by="worker", ax=None, **kwargs):
        """Draw the entries of `history_` or `History.entries`. ValueError: no history."""
        return cls(entries, by=by).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw it on ax, or on a new figure; kwargs: properties of the bars. Returns self.

        `bars_`: a container of bars for each of compute, communication and waiting.
        """
        n = len(self.names)
        size = (7.0, 1.2 + 0.3 * min(n, 12) + 0.16 * max(n - 12, 0)) if self.by == "worker" else (7.0, 3.6)
        self.ax_ = axes_for(ax, figsize=size)
        self.figure_ = self.ax_.figure
        draw = self._bars_of_workers if self.by == "worker" else self._bars_of_epochs
        self.bars_ = draw(kwargs)
        self.ax_.legend(handles=list(self.bars_.values()), ncols=3, **ABOVE)
        return self

    def _bars_of_workers(self, kwargs) -> dict[str, Any]:
        places = np.arange(len(self.names))
        ends = np.zeros(len(places))
        bars = {}
        for part, color in _PARTS.items():
            style = {"color": color, "label": part, "height": 0.8, **kwargs}
            bars[part] = self.ax_.barh(places, self.times[part], left=ends, **style)
            ends = ends + self.times[part]
        labels = [
            name if n == self.n_epochs else f"{name}  ({n} of {self.n_epochs} epochs)"
            for name, n in zip(self.names, self._n_times, strict=True)
        ]
        step = -(-len(places) // _MOST_BAR_LABELS)
        size = "medium" if len(places) <= 12 else "small" if len(places) <= 30 else "x-small"
        self.ax_.set_yticks(places[::step], labels[::step], fontsize=size)
        self.ax_.set_ylim(len(places) - 0.4, -0.6)
        epochs = "epoch" if self.n_epochs == 1 else f"mean of {self.n_epochs} epochs"
        self.ax_.set_xlabel(f"seconds an epoch ({epochs})" if self.n_epochs > 1 else "seconds of the epoch")
        return bars

    def _bars_of_epochs(self, kwargs) -> dict[str, Any]:
        ends = np.zeros(len(self.names))
        bars = {}
        for part, color in _PARTS.items():
            width = 0.8 if len(self.names) <= _MOST_BARS_WITH_EDGES else 1.0
            style = {"color": color, "label": part, "width": width, **kwargs}
            bars[part] = self.ax_.bar(self.names, self.times[part], bottom=ends, **style)
            ends = ends + self.times[part]
        ends_at = (min(self.names) - 0.6, max(self.names) + 0.6)
        self.ax_.set(xlabel="epoch", ylabel="seconds (mean over workers)", xlim=ends_at)
        whole_numbers(self.ax_.xaxis)
        return bars


def _shown(address: str) -> str:
    """Return an address without its protocol."""
    address = str(address)
    # Of tasks that Dask's local scheduler runs.
    return _THIS_PROCESS if address == "None" else address.split("://")[-1]


def _in_natural_order(name) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(name))]
