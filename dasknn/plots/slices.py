"""A metric by slice, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from dasknn.plots.style import ABOVE, BLACK, BLUE, GRAY, RED, Drawn, axes_for
from dasknn.saving.serialization import did_you_mean


class SlicesDisplay(Drawn):
    """A metric by slice, with confidence intervals, from the table of `dasknn.evaluate` or `compare`.

    Parameters
    ----------
    names : sequence of str (n,)
        Of the slices.
    rows, values, low, high : array (n,)
        The number of rows of each slice, the metric, and the ends of its interval.
    metric : str
        The name of the metric.
    overall : tuple (value, low, high, rows), default=None
        The same for all rows.
    is_difference : bool, default=False
        Whether values are differences of two models, around 0.
    confidence : float, default=None
        Of the intervals, in (0, 1).

    Attributes
    ----------
    names, rows, values, low, high, metric, overall, is_difference, confidence
        As given.
    errorbar_ : matplotlib container of dots and intervals
    line_ : matplotlib line of all rows, or None
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(
        self,
        names: Iterable[str],
        rows: Any,
        values: Any,
        low: Any,
        high: Any,
        *,
        metric: str,
        overall: tuple | None = None,
        is_difference: bool = False,
        confidence: float | None = None,
    ):
        self.names, self.rows = list(names), np.asarray(rows)
        self.values, self.low, self.high = (np.asarray(column, float) for column in (values, low, high))
        self.metric, self.overall, self.is_difference = metric, overall, is_difference
        self.confidence = confidence

    @classmethod
    def from_evaluation(
        cls, frame: Any, metric: str | None = None, *, sort: bool = True, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw a metric of an evaluation.

        Parameters
        ----------
        frame : pandas.DataFrame
            The result of `dasknn.evaluate` or `dasknn.compare`.
        metric : str, default=None
            Its name; None: the first of the frame.
        sort : bool, default=True
            Whether the best slice comes first; otherwise slices are in the order of the frame.
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of dots and intervals.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Another dataframe, an unknown metric, or no slices.
        """
        columns = [str(column) for column in getattr(frame, "columns", ())]
        found = {
            name.removesuffix("_difference"): name
            for name in columns
            if f"{name}_low" in columns and f"{name}_high" in columns
        }
        if not {"slice", "rows"} <= set(columns) or not found:
            raise ValueError(
                "Expected the frame that dasknn.evaluate or dasknn.compare returns, with the columns "
                "'slice', 'rows', 'accuracy', 'accuracy_low' and 'accuracy_high', received "
                f"{columns or type(frame)}."
            )
        metric = next(iter(found)) if metric is None else metric.removesuffix("_difference")
        if metric not in found:
            raise ValueError(
                f"Expected a metric of {list(found)}, received {metric!r}.{did_you_mean(metric, found)}"
            )
        column = found[metric]
        names = ["slice", "rows", column, f"{column}_low", f"{column}_high"]
        table = list(zip(*(frame[name].tolist() for name in names), strict=True))
        overall = None
        if table and table[0][0] == "all":
            overall = (*table[0][2:], table[0][1])
            table = table[1:]
        if not table:
            raise ValueError(
                "Expected a frame with a slice or more, received all rows alone. Use "
                "dasknn.evaluate(..., slices=['column'])."
            )
        is_difference = column != metric
        known = getattr(frame, "attrs", {})
        if sort:
            sign = 1 if known.get("greater_is_better", {}).get(metric, True) or is_difference else -1
            # Slices without a value come last.
            table.sort(key=lambda row: (np.isnan(row[2]), -sign * row[2]))
        display = cls(
            *zip(*table, strict=True),
            metric=metric,
            overall=overall,
            is_difference=is_difference,
            confidence=known.get("confidence"),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the slices.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of dots and intervals.

        Returns
        -------
        display
        """
        n = len(self.names)
        self.ax_ = axes_for(ax, figsize=(7.0, 1.4 + 0.28 * n))
        self.figure_ = self.ax_.figure
        places = np.arange(n)
        known = ~np.isnan(self.values)
        # A slice with few rows may have no interval.
        reach = np.nan_to_num(np.abs(np.stack([self.low, self.high]) - self.values))
        style = {"fmt": "o", "color": BLUE, "markersize": 5, "capsize": 2.5, "elinewidth": 1.4}
        self.errorbar_ = self.ax_.errorbar(
            self.values[known], places[known], xerr=reach[:, known], **{**style, **kwargs}
        )
        if self.is_difference:
            # Hollow: the interval holds 0, so the models may be equally good.
            same = known & (self.low <= 0) & (self.high >= 0)
            self.ax_.plot(self.values[same], places[same], "o", color="white", markersize=3, zorder=5)
        self._draw_reference()
        for place in places[~known]:
            where = {"transform": self.ax_.get_yaxis_transform(), "va": "center", "fontsize": "small"}
            where["backgroundcolor"] = "white"
            self.ax_.text(0.02, place, "too few rows", color=GRAY, style="italic", **where)
        labels = [f"{name}  ({rows:,})" for name, rows in zip(self.names, self.rows.tolist(), strict=True)]
        size = "medium" if n <= 30 else "small" if n <= 60 else "x-small"
        self.ax_.set_yticks(places, labels, fontsize=size)
        self.ax_.set_ylim(n - 0.4, -0.6)
        self.ax_.set_ylabel("slice (rows)")
        self.ax_.grid(axis="x", alpha=0.3)
        what = self.metric.replace("_", " ")
        if self.is_difference:
            what = f"difference of {what}, a − b"
        if self.confidence is not None:
            what += f"  ({100 * self.confidence:g}% intervals)"
        self.ax_.set_xlabel(what)
        if self.ax_.get_legend_handles_labels()[1]:
            self.ax_.legend(ncols=2, **ABOVE)
        return self

    def _draw_reference(self) -> None:
        """Draw the line of all rows, and of differences the line at 0."""
        self.line_ = None
        if self.is_difference:
            self.ax_.axvline(0, color=BLACK, linewidth=0.9)
        if self.overall is not None and not np.isnan(self.overall[0]):
            value, low, high, rows = self.overall
            label = f"all rows: {value:{'+' if self.is_difference else ''}.3f}  ({rows:,})"
            self.line_ = self.ax_.axvline(value, color=RED, linestyle="--", linewidth=1.2, label=label)
            if not np.isnan([low, high]).any():
                self.ax_.axvspan(low, high, color=RED, alpha=0.12, linewidth=0)
