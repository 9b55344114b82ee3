"""A page of Dask's dashboard that shows trainings while they run.

    driver                       scheduler                                        browsers
    announcements ── events ──→  topic "dasknn" ──→ Board: a Run each ──→ Page ──→ one each
                                 (the newest 1,000)  (one, for all viewers)

`install` puts the page there; events come with it or without it. Everything but `install` runs in the
scheduler's process, on its event loop, and so is kept short. Bokeh is there if Dask's dashboard is: it is
imported within functions.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dasknn.callbacks.announcements import (
    BEGIN,
    COMPLETED,
    END,
    EPOCH,
    FAILED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    WAVE,
)
from dasknn.cluster.executor import TOPIC
from dasknn.saving import schema

logger = logging.getLogger(__name__)

PATH = "/dasknn"

# What the scheduler keeps of trainings: the newest ones, and of each as many epochs and faults.
_MOST_RUNS = 20
_MOST_EPOCHS = 1_000
_MOST_FAULTS = 200
_MOST_WAVES = 200
# What one event may list of anything.
_MOST_OF_EACH = 1_000
# How often a page looks for news.
_EVERY_MILLISECONDS = 500
# How many scores are drawn, and how many numbers the header has.
_MOST_LINES = 6
#: State of a training whose client has gone without a word.
LOST = "lost"

_COLORS = {
    RUNNING: "#2a7f62",
    COMPLETED: "#4c6faf",
    STOPPED: "#4c6faf",
    INTERRUPTED: "#b36a00",
    FAILED: "#b3261e",
    LOST: "#b3261e",
}
_LINE_COLORS = ("#4c6faf", "#eaaa6d", "#2a7f62", "#b3261e", "#7b5ea7", "#7f7f7f")
_WORKER_COLORS = {"compute": "#81aae4", "communication": "#eaaa6d", "waiting": "#dddddd"}
_AHEAD_COLOR = "#999999"
_FAULT_COLOR = "#b3261e"
# What a page needs to know of a training.
_COUNT = schema.integer()
_ABOUT: dict[str, schema.Check] = {
    "name": schema.text,
    "model": schema.text,
    "layers": schema.text,
    "strategy": schema.text,
    "transport": schema.text,
    "replicas": _COUNT,
    "first_epoch": _COUNT,
    "last_epoch": _COUNT,
    "n_samples": _COUNT,
}
_NUMBER = schema.optional(schema.number(finite=True))
# Up to thirty years.
_SECONDS = schema.number(finite=True, least=0, most=1e9)
_FAULT = schema.record(
    {
        **dict.fromkeys(("what", "worker", "time", "error"), schema.text),
        "replicas": schema.each(_COUNT, most=_MOST_OF_EACH),
        "n_replicas": _COUNT,
        "epoch": _COUNT,
        "seconds": _NUMBER,
    }
)
_SPENT = schema.record(dict.fromkeys(("compute", "communication", "waiting"), _NUMBER))
_ENTRY = schema.record(
    {"epoch": schema.integer(1)},
    {
        "seconds": schema.optional(_SECONDS),
        "workers": schema.table(_SPENT, most=_MOST_OF_EACH),
        "faults": schema.each(_FAULT, most=_MOST_OF_EACH),
    },
    _NUMBER,
)
_RUNNING = schema.record(
    {
        "epoch": schema.integer(1),
        "n_samples": _COUNT,
        "loss": _NUMBER,
        "rows_per_second": schema.number(finite=True),
    }
)
# What `announcements` says.
_EVENT = schema.record(
    {
        "run": schema.text,
        "client": schema.text,
        "about": schema.record(_ABOUT, others=schema.anything),
        "what": schema.one_of(BEGIN, WAVE, EPOCH, END),
        "seconds": _SECONDS,
        "epoch": _COUNT,
        "entries": schema.each(_ENTRY, most=_MOST_OF_EACH),
    },
    {
        "state": schema.one_of(COMPLETED, STOPPED, INTERRUPTED, FAILED),
        "error": schema.text,
        "running": _RUNNING,
    },
    schema.anything,
)
# Keys of entries that need no legend: the title says it.
_TITLES = {"loss", "rows_per_second"}
# Keys of entries that are numbers, and neither losses nor scores.
_DETAILS = {"epoch", "n_samples", "learning_rate", "bytes_sent", "seconds", "rows_per_second"}


def install(client=None) -> str:
    """Add the page /dasknn to the dashboard of a client's scheduler; return the page's URL.

    client: a synchronous distributed Client, the current one by default. Once is enough for all trainings on
    that scheduler, also those that run or have ended; another time changes nothing. Dask's navigation bar
    then has a link to it.

    RuntimeError: a scheduler without a dashboard. ImportError: one that cannot import bokeh or dasknn.
    TypeError: an asynchronous client. ValueError: no client.
    """
    if client is None:
        from distributed import get_client

        client = get_client()
    if getattr(client, "asynchronous", False):
        raise TypeError(
            "Expected a synchronous client, received one with asynchronous=True. In its event loop, use "
            "await asyncio.to_thread(dasknn.dashboard.install, Client(address))."
        )
    try:
        prefix = client.run_on_scheduler(_add_page)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "dasknn":
            raise
        raise ImportError(
            f"The scheduler {client.scheduler.address} cannot import dasknn ({error}), which draws the page "
            "there. Install dasknn in the scheduler's environment, in the version of this one, and start it "
            "again."
        ) from error
    return _address(client.dashboard_link, prefix)


def _address(link: str, prefix: str) -> str:
    """Return the page's URL. link: that of Dask's own, behind proxies if dask.config says so."""
    parts = urlsplit(link)
    folder = parts.path.removesuffix("status").rstrip("/")
    if not folder.endswith(prefix):
        # Dask's links know nothing of --dashboard-prefix.
        folder += prefix
    return urlunsplit(parts._replace(path=folder + PATH))


# --- on the scheduler --------------------------------------------------------------------------------


def _add_page(dask_scheduler) -> str:
    """Add the page to the scheduler's web server, unless it is there; return the prefix of its paths."""
    try:
        from bokeh.server.tornado import BokehTornado
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop
    except ImportError as error:
        raise ImportError(
            f"The scheduler {dask_scheduler.address} has no dashboard: it cannot import bokeh: {error}."
            " Install it there, pip install 'dasknn[dashboard]', and start the scheduler again."
        ) from None
    applications = getattr(getattr(dask_scheduler, "http_application", None), "applications", [])
    of_bokeh = [application for application in applications if isinstance(application, BokehTornado)]
    if not of_bokeh:
        raise RuntimeError(
            f"The scheduler {dask_scheduler.address} was started without a dashboard. Start it with one: "
            "LocalCluster(dashboard_address=':8787'), dask scheduler --dashboard."
        )
    first = of_bokeh[0]
    if not any(PATH in application.app_paths for application in of_bokeh):
        variables = template_variables(dask_scheduler)
        board = Board(dask_scheduler)
        page = BokehApplication({PATH: _document(board)}, dask_scheduler, first.prefix, variables)
        # Dask's own comes first, which others look for, and behind ours what takes all paths, as Jupyter.
        applications.insert(applications.index(first) + 1, page)
        page.initialize(IOLoop.current())
        page.start()
        # All of Dask's pages share this list.
        variables["pages"].append(PATH.strip("/"))
    return first.prefix


def _document(board: Board) -> Callable:
    """Return what fills a document for each browser, with the signature that Dask calls."""

    def fill(scheduler, extra, doc) -> None:
        from distributed.dashboard.components import add_periodic_callback
        from distributed.dashboard.components.scheduler import BOKEH_THEME, env

        page = Page(board)
        page.update()
        add_periodic_callback(doc, page, _EVERY_MILLISECONDS)
        doc.add_root(page.root)
        doc.title = "Dask: dasknn"
        doc.theme = BOKEH_THEME
        doc.template = env.get_template("simple.html")
        doc.template_variables.update(extra)

    return fill


@dataclass
class Run:
    """A training, as far as it has been heard of; of bounded size."""

    about: Mapping[str, Any]
    client: str
    began: float
    state: str = RUNNING
    error: str = ""
    seconds: float = 0.0
    heard: float = 0.0
    epoch: int = 0
    #: By number of the epoch.
    entries: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    #: Of the running epoch: (epochs, with a fraction; loss; rows per second).
    waves: list[tuple[float, float | None, float]] = field(default_factory=list)
    #: (epoch, seconds of each worker) of the newest epoch that has told.
    workers: tuple[int, Mapping[str, Mapping[str, float]]] = (0, {})
    faults: list[Mapping[str, Any]] = field(default_factory=list)

    def hear(self, stamp: float, event: Mapping[str, Any]) -> None:
        """Take over what an event says. stamp: when the scheduler heard it, in seconds since 1970."""
        self.heard, self.seconds = stamp, event["seconds"]
        self.epoch = max(self.epoch, event["epoch"])
        for entry in event["entries"]:
            if entry["epoch"] not in self.entries:
                self._add(entry)
        if running := event.get("running"):
            done = running["epoch"] - 1 + running["n_samples"] / max(self.about["n_samples"], 1)
            self.waves.append((done, running["loss"], running["rows_per_second"]))
        last = max(self.entries, default=0)
        self.waves = [wave for wave in self.waves if wave[0] > last][-_MOST_WAVES:]
        if event["what"] == END:
            self.state, self.error, self.waves = event.get("state", COMPLETED), event.get("error", ""), []

    def _add(self, entry: Mapping[str, Any]) -> None:
        number = entry["epoch"]
        self.entries[number] = {
            name: value for name, value in entry.items() if name not in ("workers", "faults")
        }
        if workers := entry.get("workers"):
            self.workers = max(self.workers, (number, workers), key=lambda found: found[0])
        self.faults = [*self.faults, *entry.get("faults", ())][-_MOST_FAULTS:]
        if len(self.entries) > _MOST_EPOCHS:
            # Every other one of the older half.
            for old in sorted(self.entries)[1 : _MOST_EPOCHS // 2 : 2]:
                del self.entries[old]

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """Entries in the order of epochs."""
        return [self.entries[number] for number in sorted(self.entries)]


class Board:
    """The newest trainings of a scheduler, put together from its events."""

    def __init__(self, scheduler):
        self._scheduler = scheduler
        self.runs: dict[str, Run] = {}
        #: Grows with each event.
        self.version = 0
        self._last: Any = None
        self._is_warned = False

    def refresh(self) -> None:
        """Hear what is new."""
        events = self._scheduler.get_events(TOPIC)
        new: list[Any] = []
        for item in reversed(events):
            if item is self._last:
                break
            new.append(item)
        for item in reversed(new):
            self._hear(*item)
        self._last = events[-1] if events else None

    def _hear(self, stamp: float, event: Any) -> None:
        self.version += 1
        try:
            _EVENT(event, "")
        except schema.Mismatch as problem:
            # Anybody may log events under this topic, another version of dasknn, too.
            if not self._is_warned:
                self._is_warned = True
                logger.warning(
                    "An event of the topic %r is none of this version of dasknn, and is not shown, nor are "
                    "others like it: %s.",
                    TOPIC,
                    problem,
                )
            return
        name = event["run"]
        if name not in self.runs:
            about = {key: event["about"][key] for key in _ABOUT}
            self.runs[name] = Run(about, event["client"], stamp - event["seconds"])
        self.runs[name].hear(stamp, event)
        if len(self.runs) > _MOST_RUNS:
            ended = [key for key in self.runs if key != name and self.state_of(key) != RUNNING]
            del self.runs[(ended or list(self.runs))[0]]

    def state_of(self, name: str) -> str:
        """Return how a training is doing."""
        run = self.runs[name]
        if run.state == RUNNING and run.client not in self._scheduler.clients:
            return LOST
        return run.state

    @property
    def newest(self) -> str | None:
        """The training that has begun last, of those that run, if there are any."""
        running = [name for name in self.runs if self.state_of(name) == RUNNING]
        return max(running or self.runs, key=lambda name: self.runs[name].began, default=None)


# --- in a browser ------------------------------------------------------------------------------------


class Page:
    """The models of one viewer's document, and what keeps them up to date."""

    def __init__(self, board: Board):
        from bokeh.layouts import column, row
        from bokeh.models.widgets import Div, Select

        self._board = board
        self._shown: tuple[Any, ...] = ()
        self._header = Div(sizing_mode="stretch_width", min_height=76, name="header")
        self._select = Select(title="Training", value="", width=420, name="select")
        self._select.on_change("value", lambda attr, old, new: self.update())
        self._losses = _Lines("Loss", "loss", 3)
        self._scores = _Lines("Scores", "scores", _MOST_LINES)
        self._rates = _Lines("Rows per second", "rates", 1)
        self._workers = _Workers()
        self._faults = _Faults()
        self._drawings = column(
            row(self._losses.figure, self._scores.figure, sizing_mode="stretch_width"),
            row(self._rates.figure, self._workers.figure, sizing_mode="stretch_width"),
            self._faults.root,
            sizing_mode="stretch_width",
            name="drawings",
        )
        self.root = column(
            row(self._header, self._select, sizing_mode="stretch_width"),
            self._drawings,
            sizing_mode="stretch_width",
            name="dasknn",
        )

    def update(self) -> None:
        """Show what has become of the training that is selected."""
        board = self._board
        board.refresh()
        _set(self._select, options=[("", "newest"), *_options(board)])
        name = self._select.value if self._select.value in board.runs else board.newest
        _set(self._drawings, visible=name is not None)
        if name is None:
            _set(self._header, text=_EMPTY)
            return
        run, state = board.runs[name], board.state_of(name)
        _set(self._header, text=_header(run, state, time.time()))
        if self._shown == (name, board.version, state):
            return
        self._shown = (name, board.version, state)
        self._draw(run)

    def _draw(self, run: Run) -> None:
        history = run.history
        names = list(dict.fromkeys(name for entry in history for name in entry if name not in _DETAILS))
        losses = [name for name in names if name.endswith("loss")] or ["loss"]
        scores = [name for name in names if name not in losses]
        marks = _marks(run)
        self._losses.draw(history, losses, marks, [(done, loss) for done, loss, _ in run.waves])
        self._scores.draw(history, scores, marks)
        # Before the first epoch has ended, nobody knows.
        _set(self._scores.figure, visible=bool(scores) or not history)
        self._rates.draw(history, ["rows_per_second"], marks, [(done, rate) for done, _, rate in run.waves])
        self._workers.draw(*run.workers)
        self._faults.draw(run.faults)


_STYLE = "font-family: Helvetica, Arial, sans-serif; color: #333;"
_EMPTY = (
    f'<div style="{_STYLE} padding: 1em 0; font-size: 14px"><b>No training yet.</b> This page shows '
    "trainings on this cluster as soon as they begin: <code>dasknn.MLPClassifier().fit(X, y)</code> with "
    "Dask arrays or dataframes, or with an explicit <code>strategy</code>. What trains within one process "
    "is not shown.</div>"
)


def _header(run: Run, state: str, now: float) -> str:
    about = run.about
    shown = {name: html.escape(str(value)) for name, value in about.items()}
    # Between events, the scheduler's clock goes on.
    seconds = run.seconds + (max(0.0, now - run.heard) if state == RUNNING else 0.0)
    n_done = max(run.entries, default=about["first_epoch"] - 1)
    epoch = min(n_done + 1, about["last_epoch"]) if state == RUNNING else n_done
    part = f" ({run.waves[-1][0] - n_done:.0%})" if run.waves and state == RUNNING else ""
    facts = [f"epoch <b>{epoch}</b>{part} of {about['last_epoch']}", _duration(seconds)]
    if state == RUNNING and (left := _seconds_left(run)) is not None:
        facts.append(f"about {_duration(left)} left")
    last = run.entries.get(n_done, {})
    facts += [
        f"{html.escape(name)} <b>{value:.4g}</b>"
        for name, value in last.items()
        if name not in _DETAILS and value is not None
    ][:_MOST_LINES]
    if run.faults:
        n = len(run.faults)
        facts.append(f'<span style="color: {_FAULT_COLOR}">{n} cluster event{"s" * (n != 1)}</span>')
    settings = (
        f"strategy {shown['strategy']} · transport {shown['transport']} · replicas {shown['replicas']} · "
        f"{about['n_samples']:,} rows an epoch"
    )
    told = f": {html.escape(run.error)}" if run.error else ": its client is gone" if state == LOST else ""
    title = f"{shown['model']} {shown['layers']}"
    return (
        f'<div style="{_STYLE}"><span style="font-size: 18px; font-weight: bold">{title}</span> '
        f'<span style="font-size: 14px; color: {_COLORS[state]}"><b>{state}</b>{told}</span>'
        f'<div style="font-size: 13px; color: #666; margin-top: 3px">{settings}</div>'
        f'<div style="font-size: 14px; margin-top: 5px">{" &nbsp;·&nbsp; ".join(facts)}</div></div>'
    )


def _seconds_left(run: Run) -> float | None:
    recent = [entry["seconds"] for entry in run.history[-5:] if entry.get("seconds") is not None]
    if not recent:
        return None
    n_left = run.about["last_epoch"] - max([*run.entries, *(done for done, _, _ in run.waves)])
    return n_left * sum(recent) / len(recent)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(min(seconds, 1e12))))


def _options(board: Board) -> list[tuple[str, str]]:
    newest_first = sorted(board.runs.items(), key=lambda item: -item[1].began)
    return [
        (name, f"{_clock(run.began)} {board.state_of(name)}: {run.about['name']}")
        for name, run in newest_first
    ]


def _clock(stamp: float) -> str:
    # UTC, as the times of faults.
    return time.strftime("%H:%M:%S", time.gmtime(stamp))


def _marks(run: Run) -> list[tuple[int, str]]:
    """Return the epochs of faults, and what happened in each."""
    told: dict[int, list[str]] = {}
    for fault in run.faults:
        told.setdefault(fault["epoch"], []).append(f"{fault['what']} {fault['worker']}")
    return [(epoch, "; ".join(what)) for epoch, what in sorted(told.items())]


def _set(model, **values) -> None:
    """Set properties that differ; others would be sent to the browser for nothing."""
    for name, value in values.items():
        if getattr(model, name) != value:
            setattr(model, name, value)


class _Lines:
    """A figure of at most so many lines over epochs, with marks where the cluster had events.

    Few models: making one takes the scheduler milliseconds.
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
        glyph.update(line_color=_FAULT_COLOR, fill_color=_FAULT_COLOR)
        marks = self.figure.add_glyph(self._marks, glyph)
        # Where lines seldom are: losses fall, scores rise.
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
        """Show entries of the history, and what the running epoch has come to: (epochs, value)."""
        dots: list[tuple] = []
        for k, (source, item) in enumerate(zip(self._sources, self._items, strict=True)):
            name = names[k] if k < len(names) else ""
            points = [(entry["epoch"], entry.get(name)) for entry in history] if name else []
            points = [(epoch, value) for epoch, value in points if value is not None]
            dots += [(*point, name, _LINE_COLORS[k]) for point in points]
            _fill(source, points, "epoch", "value")
            _set(item, visible=bool(name) and (len(names) > 1 or name not in _TITLES))
            if name and item.label != {"value": name}:
                item.label = {"value": name}
        first = self._sources[0].data
        ahead = [(done, value) for done, value in running if value is not None]
        dots += [(*point, names[0], _AHEAD_COLOR) for point in ahead]
        last = list(zip(first["epoch"][-1:], first["value"][-1:], strict=True)) if ahead else []
        _fill(self._running, [*last, *ahead], "epoch", "value")
        _fill(self._dots, dots, "epoch", "value", "name", "color")
        heights = dict(zip(first["epoch"], first["value"], strict=True))
        there = [(epoch, heights[epoch], what) for epoch, what in marks if epoch in heights]
        _fill(self._marks, there, "epoch", "value", "what")


def _fill(source, rows: Sequence[Sequence], *names: str) -> None:
    """Put rows into a source with these columns, if it has others."""
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    if source.data != columns:
        source.data = columns


_NO_EPOCH = "Time of workers: shown after an epoch"


class _Workers:
    """A figure of bars: what each worker spent the time of an epoch on."""

    def __init__(self):
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
            # A figure without any range draws no axes.
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
        """Show seconds by worker."""
        kinds = list(_WORKER_COLORS)
        rows, sums = [], dict.fromkeys(kinds, 0.0)
        # Bars begin at the bottom.
        for address, spent in sorted(workers.items(), reverse=True):
            seconds = {kind: spent[kind] or 0.0 for kind in kinds}
            whole = sum(seconds.values()) or inf
            rows.append((address.partition("://")[2] or address, *seconds.values()))
            rows[-1] += tuple(each / whole for each in seconds.values())
            sums = {kind: sums[kind] + seconds[kind] for kind in kinds}
        _set(self.figure.y_range, factors=[row[0] for row in rows] or [" "])
        _fill(self._source, rows, "worker", *kinds, *map(_share, kinds))
        # Names of more workers would lie on one another.
        _set(self.figure.yaxis[0], major_label_text_font_size="11px" if len(rows) <= 16 else "0px")
        whole = sum(sums.values())
        for item, kind in zip(self._legend.items, kinds, strict=True):
            _set(item, label={"value": f"{kind} {sums[kind] / whole:.0%}" if whole else kind})
        _set(self.figure.title, text=f"Time of workers in epoch {epoch}" if rows else _NO_EPOCH)


def _share(kind: str) -> str:
    return f"{kind}_share"


class _Faults:
    """A table of what happened to the cluster, the newest first."""

    _COLUMNS = (
        ("time", "time (UTC)", 90),
        ("epoch", "epoch", 50),
        ("what", "what", 110),
        ("worker", "worker", 180),
        ("replicas", "replicas", 100),
        ("seconds", "cost (s)", 60),
        ("error", "noticed by", 500),
    )

    def __init__(self):
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
        """Show events of `cluster.faults`, as announcements have them."""
        columns = [field for field, _, _ in self._COLUMNS]
        rows = []
        for fault in reversed(faults):
            shown = {
                "time": fault["time"].partition("T")[2].partition("+")[0],
                "replicas": _listed(fault["replicas"], fault["n_replicas"]),
            }
            rows.append([shown.get(column, fault[column]) for column in columns])
        _fill(self._source, rows, *columns)
        _set(self._table, visible=bool(rows))
        text = "Events of the cluster" if rows else "Events of the cluster: none so far"
        _set(self._title, text=f'<b style="{_STYLE} font-size: 13px">{text}</b>')


def _listed(replicas: Sequence[int], n: int) -> str:
    shown = ", ".join(map(str, replicas[:8]))
    return shown if n <= 8 else f"{shown}, … ({n})"
