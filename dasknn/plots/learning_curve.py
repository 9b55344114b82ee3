"""Loss and metrics of a training by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from dasknn.cluster import faults
from dasknn.plots.history import checked_history, history_of
from dasknn.plots.style import (
    ABOVE,
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    Drawn,
    pyplot,
    whole_numbers,
)
from dasknn.saving.serialization import did_you_mean

# Entries of an epoch that are neither losses nor metrics.
_NO_METRICS = {
    *("epoch", "n_samples", "learning_rate", "bytes_sent", "seconds", "rows_per_second", "faults", "workers"),
    "seconds_to_start",
}
# (marker, color) of events on the cluster.
_EVENTS = {
    faults.LOST: ("X", BLACK),
    faults.SILENT: ("s", PINK),
    faults.FAILED: ("D", ORANGE),
    faults.RETIRED: ("v", SKY),
    faults.JOINED: ("^", GREEN),
}


class LearningCurveDisplay(Drawn):
    """Loss and metrics of a training by epoch, with events on the cluster.

    Parameters
    ----------
    entries : list of dict
        `history_` or `History.entries`.
    metrics : str or list of str, default=None
        Names of those to show; None: all.

    Attributes
    ----------
    epochs : array (n,)
    curves : dict of str to array (n,)
        The values of losses and metrics; NaN if an epoch has none.
    learning_rates : array (n,)
    events : list of dict
        Workers that were lost, silent, failed or retired, and those that joined, each with its epoch.
    axes_ : list of matplotlib axes
        From top to bottom: loss, each metric, and the learning rate if it varies.
    ax_, figure_
        The uppermost axes and the figure of the last drawing.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]], *, metrics: str | Iterable[str] | None = None):
        entries = checked_history(entries)
        self.epochs = np.array([entry["epoch"] for entry in entries])
        names = dict.fromkeys(name for entry in entries for name in entry if name not in _NO_METRICS)
        found = {name: np.array([_number(entry.get(name)) for entry in entries]) for name in names}
        self.curves = {name: values for name, values in found.items() if not np.isnan(values).all()}
        self.learning_rates = np.array([_number(entry.get("learning_rate")) for entry in entries])
        self.events = [
            {**event, "epoch": entry["epoch"]} for entry in entries for event in entry.get("faults", ())
        ]
        self.metrics = self._panels(metrics)

    def _panels(self, metrics: str | Iterable[str] | None) -> list[str]:
        """Return the names of the panels; values of validation go with those of training."""
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
    def from_estimator(
        cls, model: Any, *, metrics: str | Iterable[str] | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the training of a fitted model.

        Parameters
        ----------
        model : MLPClassifier, MLPRegressor, Sequential, or a Pipeline of one
        metrics : str or list of str, default=None
            Names of those to show; None: all.
        ax : matplotlib axes, default=None
            See `plot`.
        kwargs
            Properties of the lines.

        Returns
        -------
        display

        Raises
        ------
        NotFittedError
            The model is not fitted.
        ValueError
            There is no history, or no such metric.
        """
        return cls(history_of(model), metrics=metrics).plot(ax, **kwargs)

    @classmethod
    def from_history(
        cls,
        entries: Iterable[Mapping[str, Any]],
        *,
        metrics: str | Iterable[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the training of a history.

        Parameters
        ----------
        entries : History, or list of dict
            `history_`, or a History or its `entries`.
        metrics, ax, kwargs
            See `from_estimator`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            There are no entries, or no such metric.
        """
        return cls(entries, metrics=metrics).plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            The curves are drawn in its place, and it becomes the uppermost axes. None: on a new figure.
        kwargs
            Properties of the lines.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Several axes are needed, and `ax` is not of a grid.
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
            # The ticks of a logarithmic axis overlap if rates change by less than a decade.
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

    def _draw_metric(self, panel: Any, name: str, kwargs: Mapping[str, Any]) -> None:
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
        """Mark the epochs of events by lines through all axes; return the handles of the legend."""
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
            # Marks of one epoch are drawn below one another.
            below = height_of[epoch] = height_of.get(epoch, -1) + 1
            styles[what] = {"linestyle": "", "marker": marker, "color": color, "markersize": 6}
            where = self.ax_.get_xaxis_transform()
            self.ax_.plot([epoch], [0.95 - 0.08 * below], label=f"_{what}", transform=where, **styles[what])
        return [
            Line2D([], [], label=what if n == 1 else f"{what} ({n}×)", **styles[what])
            for what, n in counts.items()
        ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _stacked(ax: Any, heights: list[float]) -> list:
    """Return axes below one another: in a new figure, or in place of ax, which is the first of them."""
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
            f"Expected axes of plt.subplots, which {len(heights)} axes can replace, received axes at a fixed "
            "position. Draw on a new figure, with ax=None."
        )
    grid = whole.subgridspec(len(heights), 1, height_ratios=heights)
    ax.set_subplotspec(grid[0])
    below = [ax.figure.add_subplot(grid[i], sharex=ax) for i in range(1, len(heights))]
    for panel in [ax, *below[:-1]]:
        panel.tick_params(labelbottom=False)
    return [ax, *below]
