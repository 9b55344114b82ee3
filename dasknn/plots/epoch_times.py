"""Where the time of a training's epochs goes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from dasknn.plots.history import checked_history, history_of
from dasknn.plots.style import ABOVE, BLUE, LIGHT_GRAY, ORANGE, Drawn, axes_for, whole_numbers

_PARTS = {"compute": BLUE, "communication": ORANGE, "waiting": LIGHT_GRAY}
_THIS_PROCESS = "this process"
# Labels of more bars would overlap.
_MOST_BAR_LABELS = 64
_MOST_BARS_WITH_EDGES = 40


class EpochTimesDisplay(Drawn):
    """Where the time of epochs goes: compute, communication, waiting.

    All of the time of a training in this process is compute.

    Parameters
    ----------
    entries : list of dict
        `history_` or `History.entries`.
    by : {"worker", "epoch"}, default="worker"
        "worker": a bar for each worker, the mean over the epochs in which it took part. "epoch": a bar for
        each epoch, the mean over its workers.

    Attributes
    ----------
    names : list
        Of the bars.
    times : dict of str to array (n,)
        Seconds of compute, communication and waiting, for each bar.
    bars_ : dict of str to a container of bars
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]], *, by: str = "worker"):
        if by not in ("worker", "epoch"):
            raise ValueError(f"Expected by to be 'worker' or 'epoch', received {by!r}.")
        entries = checked_history(entries)
        self.by, self.n_epochs = by, len(entries)
        if any("workers" not in entry for entry in entries):
            raise ValueError(
                "Expected entries with 'workers', the times of each worker, received entries without, of a "
                "training by an older version of dasknn. Train again."
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
    def from_estimator(cls, model: Any, *, by: str = "worker", ax: Any = None, **kwargs: Any) -> Self:
        """Draw the times of a fitted model's training.

        Parameters
        ----------
        model : MLPClassifier, MLPRegressor, Sequential, or a Pipeline of one
        by : {"worker", "epoch"}, default="worker"
            What a bar stands for.
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of the bars.

        Returns
        -------
        display

        Raises
        ------
        NotFittedError
            The model is not fitted.
        ValueError
            There is no history, or `by` is another value.
        """
        return cls(history_of(model), by=by).plot(ax, **kwargs)

    @classmethod
    def from_history(
        cls, entries: Iterable[Mapping[str, Any]], *, by: str = "worker", ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the times of a history.

        Parameters
        ----------
        entries : History, or list of dict
            `history_`, or a History or its `entries`.
        by, ax, kwargs
            See `from_estimator`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            There are no entries, or `by` is another value.
        """
        return cls(entries, by=by).plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of the bars.

        Returns
        -------
        display
        """
        n = len(self.names)
        size = (7.0, 1.2 + 0.3 * min(n, 12) + 0.16 * max(n - 12, 0)) if self.by == "worker" else (7.0, 3.6)
        self.ax_ = axes_for(ax, figsize=size)
        self.figure_ = self.ax_.figure
        draw = self._bars_of_workers if self.by == "worker" else self._bars_of_epochs
        self.bars_ = draw(kwargs)
        self.ax_.legend(handles=list(self.bars_.values()), ncols=3, **ABOVE)
        return self

    def _bars_of_workers(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
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

    def _bars_of_epochs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
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
    # Tasks on Dask's local scheduler have no address.
    return _THIS_PROCESS if address == "None" else address.split("://")[-1]


def _in_natural_order(name: Any) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(name))]
