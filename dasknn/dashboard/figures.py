"""Figures of the page, drawn by bokeh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

from dasknn.training.spent import straggler

_LINE_COLORS = ("#4c6faf", "#eaaa6d", "#2a7f62", "#b3261e", "#7b5ea7", "#7f7f7f")
_WORKER_COLORS = {"compute": "#81aae4", "communication": "#eaaa6d", "waiting": "#dddddd"}
_AHEAD_COLOR = "#999999"
FAULT_COLOR = "#b3261e"
# Lines that need no legend, since the title of their figure says it.
_TITLES = {"loss", "rows_per_second"}


STYLE = "font-family: Helvetica, Arial, sans-serif; color: #333;"


def assign(model: Any, **values: Any) -> None:
    """Set properties of a model that differ, since bokeh sends each property that is set to the browser."""
    for name, value in values.items():
        if getattr(model, name) != value:
            setattr(model, name, value)


class Lines:
    """A figure of at most n_lines lines over epochs, with marks for events of the cluster.

    It has few models, since each takes the scheduler milliseconds to make.
    """

    def __init__(self, title: str, name: str, n_lines: int):
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            DataRange1d,
            HoverTool,
            NumeralTickFormatter,
        )
        from bokeh.models.annotations import Legend, LegendItem
        from bokeh.models.glyphs import Scatter
        from bokeh.plotting import figure

        self.figure = figure(
            title=title,
            name=name,
            height=260,
            sizing_mode="stretch_width",
            tools="xpan,xwheel_zoom,reset,save",
            toolbar_location="above",
            x_range=DataRange1d(start=0),
            y_range=DataRange1d(start=0) if name == "rates" else DataRange1d(),
        )
        self.figure.xaxis.axis_label = "epoch"
        self.figure.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
        if name == "rates":
            self.figure.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
        self._sources: list[Any] = []
        self._items: list[Any] = []
        for color in _LINE_COLORS[:n_lines]:
            source = ColumnDataSource({"epoch": [], "value": []})
            line: Any = self.figure.line("epoch", "value", source=source, color=color, line_width=2)
            self._sources.append(source)
            self._items.append(LegendItem(label=" ", renderers=[line], visible=False))
        self._running = ColumnDataSource({"epoch": [], "value": []})
        self.figure.line(
            "epoch", "value", source=self._running, color=_AHEAD_COLOR, line_dash="dotted", line_width=2
        )
        self._dots = ColumnDataSource({"epoch": [], "value": [], "name": [], "color": []})
        glyph = Scatter(x="epoch", y="value", line_color="color", fill_color="color", size=4)
        dots = self.figure.add_glyph(self._dots, glyph)
        self._marks = ColumnDataSource({"epoch": [], "value": [], "what": []})
        glyph = Scatter(x="epoch", y="value", marker="inverted_triangle", size=11)
        glyph.update(line_color=FAULT_COLOR, fill_color=FAULT_COLOR)
        marks = self.figure.add_glyph(self._marks, glyph)
        # In the corner that lines seldom reach: losses fall, scores rise.
        where: Any = "bottom_right" if name == "scores" else "top_right"
        legend = Legend(items=self._items, location=where, background_fill_alpha=0.6, border_line_alpha=0)
        self.figure.add_layout(legend)
        values = HoverTool(
            renderers=[dots], tooltips=[("@name", "@value{0.[00000]a}"), ("epoch", "@epoch{0.[0]}")]
        )
        self.figure.add_tools(
            values, HoverTool(renderers=[marks], tooltips=[("epoch", "@epoch"), ("event", "@what")])
        )

    def draw(
        self,
        history: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        marks: Iterable[tuple[int, str]],
        running: Sequence[tuple[float, float | None]] = (),
    ) -> None:
        """Show entries of the history, and the running epoch so far as pairs (epochs, value)."""
        dots: list[tuple] = []
        for k, (source, item) in enumerate(zip(self._sources, self._items, strict=True)):
            name = names[k] if k < len(names) else ""
            points = [(entry["epoch"], entry.get(name)) for entry in history] if name else []
            points = [(epoch, value) for epoch, value in points if value is not None]
            dots += [(*point, name, _LINE_COLORS[k]) for point in points]
            fill(source, points, "epoch", "value")
            assign(item, visible=bool(name) and (len(names) > 1 or name not in _TITLES))
            if name and item.label != {"value": name}:
                item.label = {"value": name}
        first = self._sources[0].data
        ahead = [(done, value) for done, value in running if value is not None]
        dots += [(*point, names[0], _AHEAD_COLOR) for point in ahead]
        last = list(zip(first["epoch"][-1:], first["value"][-1:], strict=True)) if ahead else []
        fill(self._running, [*last, *ahead], "epoch", "value")
        fill(self._dots, dots, "epoch", "value", "name", "color")
        heights = dict(zip(first["epoch"], first["value"], strict=True))
        there = [(epoch, heights[epoch], what) for epoch, what in marks if epoch in heights]
        fill(self._marks, there, "epoch", "value", "what")


def fill(source: Any, rows: Sequence[Sequence], *names: str) -> None:
    """Set the rows of a source with these columns, if they differ."""
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    if source.data != columns:
        source.data = columns


_NO_EPOCH = "Time of workers: shown after an epoch"


class Workers:
    """A figure of bars: how each worker spent the time of an epoch."""

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, DataRange1d, FactorRange, HoverTool
        from bokeh.plotting import figure

        kinds = list(_WORKER_COLORS)
        self._source = ColumnDataSource(
            {"worker": [], **{kind: [] for kind in (*kinds, *map(_share, kinds))}}
        )
        self.figure = figure(
            title=_NO_EPOCH,
            name="workers",
            height=260,
            sizing_mode="stretch_width",
            tools="save",
            toolbar_location="above",
            x_range=DataRange1d(start=0),
            # With an empty range, bokeh draws no axes.
            y_range=FactorRange(factors=[" "]),
        )
        self.figure.xaxis.axis_label = "seconds"
        self.figure.ygrid.visible = False
        bars: list[Any] = self.figure.hbar_stack(
            kinds,
            y="worker",
            height=0.8,
            source=self._source,
            color=list(_WORKER_COLORS.values()),
            line_color="white",
            legend_label=kinds,
        )
        self._legend: Any = self.figure.legend[0]
        self._legend.update(border_line_alpha=0, background_fill_alpha=0)
        self.figure.add_layout(self._legend, "right")
        shares = [(kind, f"@{kind}{{0.000}} s, @{_share(kind)}{{0.0%}}") for kind in kinds]
        self.figure.add_tools(HoverTool(renderers=bars, tooltips=[("worker", "@worker"), *shares]))

    def draw(self, epoch: int, workers: Mapping[str, Mapping[str, float]]) -> None:
        """Show the seconds of each worker."""
        kinds = list(_WORKER_COLORS)
        rows, sums = [], dict.fromkeys(kinds, 0.0)
        # bokeh draws the first bar at the bottom.
        for address, spent in sorted(workers.items(), reverse=True):
            seconds = {kind: spent[kind] or 0.0 for kind in kinds}
            whole = sum(seconds.values()) or inf
            rows.append((address.partition("://")[2] or address, *seconds.values()))
            rows[-1] += tuple(each / whole for each in seconds.values())
            sums = {kind: sums[kind] + seconds[kind] for kind in kinds}
        assign(self.figure.y_range, factors=[row[0] for row in rows] or [" "])
        fill(self._source, rows, "worker", *kinds, *map(_share, kinds))
        # The names of more workers would overlap.
        assign(self.figure.yaxis[0], major_label_text_font_size="11px" if len(rows) <= 16 else "0px")
        whole = sum(sums.values())
        for item, kind in zip(self._legend.items, kinds, strict=True):
            assign(item, label={"value": f"{kind} {sums[kind] / whole:.0%}" if whole else kind})
        title = f"Time of workers in epoch {epoch}" if rows else _NO_EPOCH
        if (slowest := straggler(workers)) is not None:
            name = slowest.address.partition("://")[2] or slowest.address
            title += f": {name} computes {slowest.factor:.1f} times as long as the others"
        assign(self.figure.title, text=title)


def _share(kind: str) -> str:
    return f"{kind}_share"


class Faults:
    """A table of events of the cluster, newest first."""

    _COLUMNS = (
        ("time", "time (UTC)", 90),
        ("epoch", "epoch", 50),
        ("what", "event", 110),
        ("worker", "worker", 180),
        ("replicas", "replicas", 100),
        ("seconds", "cost (s)", 60),
        ("error", "noticed by", 500),
    )

    def __init__(self) -> None:
        from bokeh.layouts import column
        from bokeh.models import ColumnDataSource
        from bokeh.models.widgets import DataTable, Div, TableColumn

        self._source = ColumnDataSource({field: [] for field, _, _ in self._COLUMNS})
        self._title = Div(text="")
        self._table = DataTable(
            source=self._source,
            columns=[
                TableColumn(field=field, title=title, width=width) for field, title, width in self._COLUMNS
            ],
            height=150,
            sizing_mode="stretch_width",
            index_position=None,
            sortable=False,
            reorderable=False,
            name="faults",
        )
        self.root = column(self._title, self._table, sizing_mode="stretch_width")

    def draw(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Show events of `cluster.faults` in the form of announcements."""
        columns = [field for field, _, _ in self._COLUMNS]
        rows = []
        for fault in reversed(faults):
            shown = {
                "time": fault["time"].partition("T")[2].partition("+")[0],
                "replicas": _listed(fault["replicas"], fault["n_replicas"]),
            }
            rows.append([shown.get(column, fault[column]) for column in columns])
        fill(self._source, rows, *columns)
        assign(self._table, visible=bool(rows))
        text = "Events of the cluster" if rows else "Events of the cluster: none so far"
        assign(self._title, text=f'<b style="{STYLE} font-size: 13px">{text}</b>')


def _listed(replicas: Sequence[int], n: int) -> str:
    shown = ", ".join(map(str, replicas[:8]))
    return shown if n <= 8 else f"{shown}, … ({n})"
