"""What the page shows of a search: the curves of its trials, and a table of its rungs."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from dasknn.dashboard.figures import STYLE, assign, fill
from dasknn.dashboard.searches import ENDED, SearchRun
from dasknn.search.results import lowest_to_show
from dasknn.search.trials import FAILED, PAUSED, RUNNING, WAITING

BRACKET_COLORS = ("#4c6faf", "#eaaa6d", "#2a7f62", "#7b5ea7", "#81aae4", "#7f7f7f")
_COUNTS = ("reached", RUNNING, WAITING, PAUSED, ENDED, FAILED)
_HEADS = ("bracket", "epochs", "reached by", *_COUNTS[1:], "best score", "of trial", "settings")
_CELL = "text-align: left; padding: 3px 14px 3px 0; white-space: nowrap"
_BEST_COLOR = "#222222"


class Curves:
    """A figure of the scores of trials by epoch: a line for each, the best on top."""

    _COLUMNS = ("epochs", "scores", "color", "alpha", "trial", "status", "score", "settings")

    def __init__(self) -> None:
        from bokeh.models import BasicTicker, ColumnDataSource, DataRange1d, HoverTool, Range1d
        from bokeh.models.glyphs import MultiLine, Scatter
        from bokeh.plotting import figure

        self.figure = figure(
            title="Scores",
            name="trials",
            height=340,
            sizing_mode="stretch_width",
            tools="xpan,xwheel_zoom,reset,save",
            toolbar_location="above",
            x_range=DataRange1d(start=0),
            y_range=Range1d(start=0, end=1),
        )
        self.figure.xaxis.axis_label = "epoch"
        self.figure.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
        self._lines = ColumnDataSource({name: [] for name in self._COLUMNS})
        glyph = MultiLine(xs="epochs", ys="scores", line_color="color", line_alpha="alpha", line_width=1.3)
        lines = self.figure.add_glyph(self._lines, glyph)
        # A trial of one epoch has no line.
        self._ends = ColumnDataSource({name: [] for name in self._COLUMNS})
        ends = Scatter(x="epochs", y="scores", size=4, line_color="color", fill_color="color")
        ends.update(line_alpha="alpha", fill_alpha="alpha")
        dots = self.figure.add_glyph(self._ends, ends)
        self._best = ColumnDataSource({"epoch": [], "score": []})
        self.figure.line("epoch", "score", source=self._best, color=_BEST_COLOR, line_width=2.5)
        tooltips = [("trial", "@trial, @status"), ("score", "@score"), ("settings", "@settings")]
        self.figure.add_tools(HoverTool(renderers=[lines, dots], tooltips=tooltips))

    def draw(self, run: SearchRun) -> None:
        """Show the curves of a search."""
        lines, ends = [], []
        for number, curve in sorted(run.curves.items()):
            row = run.trials.get(number)
            if row is None:
                continue
            epochs = sorted(curve)
            scores = [curve[epoch] for epoch in epochs]
            color = BRACKET_COLORS[row["bracket"] % len(BRACKET_COLORS)]
            told = (number, row["status"], _number(row["score"]), run.settings.get(number, ""))
            alpha = 0.9 if row["status"] in (RUNNING, WAITING) else 0.45
            lines.append((epochs, scores, color, alpha, *told))
            ends.append((epochs[-1], scores[-1], color, alpha, *told))
        fill(self._lines, lines, *self._COLUMNS)
        fill(self._ends, ends, *self._COLUMNS)
        best = {} if run.best is None else run.curves.get(run.best, {})
        fill(self._best, sorted(best.items()), "epoch", "score")
        self._scale(np.array([score for _, scores, *_ in lines for score in scores], dtype=np.float64))
        title = f"{run.about['score']} of {len(lines)} trials"
        if run.best is not None:
            title += f"; black: the best, trial {run.best}"
        assign(self.figure.title, text=title)

    def _scale(self, scores: np.ndarray) -> None:
        """Let the axis show all scores but a few very bad ones."""
        if not len(scores):
            return
        lowest, best = lowest_to_show(scores), float(scores.max())
        lowest = float(scores.min()) if lowest is None else lowest
        margin = 0.05 * (best - lowest) or 0.5
        assign(self.figure.y_range, start=lowest - margin, end=best + margin)


class Rungs:
    """A table of rungs: how many trials are at each, and the best score there."""

    def __init__(self) -> None:
        from bokeh.models.widgets import Div

        # A DataTable that was made while nobody sees it is not drawn again.
        self.root = Div(text="", sizing_mode="stretch_width", name="rungs")

    def draw(self, run: SearchRun) -> None:
        """Show the rungs of a search."""
        rows = "".join(_table_row(run, rung) for rung in run.rungs)
        heads = "".join(f"<th style='{_CELL}'>{head}</th>" for head in _HEADS)
        table = f"<table style='border-collapse: collapse'><tr>{heads}</tr>{rows}</table>"
        assign(self.root, text=f'<div style="{STYLE} font-size: 13px"><b>Rungs</b>{table}</div>')


def _table_row(run: SearchRun, rung: Mapping[str, Any]) -> str:
    trial = rung["trial"]
    color = BRACKET_COLORS[rung["bracket"] % len(BRACKET_COLORS)]
    mark = f"<span style='color: {color}'>■</span> {rung['bracket']}"
    cells = [mark, f"{rung['epochs']:,}", *(str(rung[name] or "") for name in _COUNTS)]
    if trial is not None:
        settings = html.escape(run.settings.get(trial, ""))
        cells += [f"<b>{rung['score']:.4f}</b>", str(trial), settings]
    shown = "".join(f"<td style='{_CELL}'>{cell}</td>" for cell in cells)
    return f"<tr style='border-top: 1px solid #ddd'>{shown}</tr>"


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
