"""The page as one viewer sees it."""

from __future__ import annotations

import html
import time
from datetime import timedelta
from typing import Any

from dasknn.callbacks.announcements import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
)
from dasknn.dashboard.board import LOST, Board, Run
from dasknn.dashboard.figures import FAULT_COLOR, STYLE, Faults, Lines, Workers, assign
from dasknn.dashboard.search_figures import Curves, Rungs
from dasknn.dashboard.searches import SearchRun
from dasknn.search.announcements import TIMED_OUT
from dasknn.search.trials import FAILED as TRIAL_FAILED
from dasknn.search.trials import RUNNING as TRIAL_RUNNING

#: Time between updates of a page.
EVERY_MILLISECONDS = 500
# Most scores in the figure, and most numbers in the header.
_MOST_LINES = 6

_COLORS = {
    RUNNING: "#2a7f62",
    COMPLETED: "#4c6faf",
    STOPPED: "#4c6faf",
    TIMED_OUT: "#4c6faf",
    INTERRUPTED: "#b36a00",
    FAILED: "#b3261e",
    LOST: "#b3261e",
}
# Numbers in entries of the history that are neither losses nor scores.
_DETAILS = {
    "epoch",
    "n_samples",
    "learning_rate",
    "bytes_sent",
    "seconds",
    "rows_per_second",
    "seconds_to_start",
}


class Page:
    """The bokeh models of one viewer's document, and their updates."""

    def __init__(self, board: Board):
        from bokeh.layouts import column, row
        from bokeh.models.widgets import Div, Select

        self._board = board
        self._shown: tuple[Any, ...] = ()
        self._header = Div(sizing_mode="stretch_width", min_height=76, name="header")
        self._select = Select(title="Training or search", value="", width=420, name="select")
        self._select.on_change("value", lambda attr, old, new: self.update())
        self._losses = Lines("Loss", "loss", 3)
        self._scores = Lines("Scores", "scores", _MOST_LINES)
        self._rates = Lines("Rows per second", "rates", 1)
        self._workers = Workers()
        self._faults = Faults()
        self._curves, self._rungs = Curves(), Rungs()
        self._search_drawings = column(
            self._curves.figure,
            self._rungs.root,
            sizing_mode="stretch_width",
            visible=False,
            name="search",
        )
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
            self._search_drawings,
            sizing_mode="stretch_width",
            name="dasknn",
        )

    def update(self) -> None:
        """Show the current state of the selected training or search."""
        board = self._board
        board.refresh()
        assign(self._select, options=[("", "newest"), *_options(board)])
        runs = board.all
        name = self._select.value if self._select.value in runs else board.newest
        run = None if name is None else runs[name]
        assign(self._drawings, visible=isinstance(run, Run))
        assign(self._search_drawings, visible=isinstance(run, SearchRun))
        if name is None or run is None:
            assign(self._header, text=_EMPTY)
            return
        state, now = board.state_of(name), time.time()
        told = _search_header(run, state, now) if isinstance(run, SearchRun) else _header(run, state, now)
        assign(self._header, text=told)
        if self._shown == (name, board.version, state):
            return
        self._shown = (name, board.version, state)
        if isinstance(run, SearchRun):
            self._curves.draw(run)
            self._rungs.draw(run)
        else:
            self._draw(run)

    def _draw(self, run: Run) -> None:
        history = run.history
        names = list(dict.fromkeys(name for entry in history for name in entry if name not in _DETAILS))
        losses = [name for name in names if name.endswith("loss")] or ["loss"]
        scores = [name for name in names if name not in losses]
        marks = _marks(run)
        self._losses.draw(history, losses, marks, [(done, loss) for done, loss, _ in run.waves])
        self._scores.draw(history, scores, marks)
        # Whether there are scores is not known before the first epoch has ended.
        assign(self._scores.figure, visible=bool(scores) or not history)
        self._rates.draw(history, ["rows_per_second"], marks, [(done, rate) for done, _, rate in run.waves])
        self._workers.draw(*run.workers)
        self._faults.draw(run.faults)


_EMPTY = (
    f'<div style="{STYLE} padding: 1em 0; font-size: 14px"><b>No training yet.</b> This page shows '
    "trainings on this cluster as soon as they begin: <code>dasknn.MLPClassifier().fit(X, y)</code> with "
    "Dask arrays or dataframes, or with an explicit <code>strategy</code>. Trainings within one process are "
    "not shown.</div>"
)


def _header(run: Run, state: str, now: float) -> str:
    about = run.about
    shown = {name: html.escape(str(value)) for name, value in about.items()}
    # The time since the last event counts, too.
    seconds = run.seconds + (max(0.0, now - run.announced) if state == RUNNING else 0.0)
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
        facts.append(f'<span style="color: {FAULT_COLOR}">{n} cluster event{"s" * (n != 1)}</span>')
    settings = (
        f"strategy {shown['strategy']} · transport {shown['transport']} · engine {shown['engine']} · "
        f"replicas {shown['replicas']} · {about['n_samples']:,} rows per epoch"
    )
    return _headline(f"{shown['model']} {shown['layers']}", state, run.error, settings, facts)


def _headline(title: str, state: str, error: str, settings: str, facts: list[str]) -> str:
    """Return the header. title, settings, facts: in HTML."""
    told = f": {html.escape(error)}" if error else ": client disconnected" if state == LOST else ""
    return (
        f'<div style="{STYLE}"><span style="font-size: 18px; font-weight: bold">{title}</span> '
        f'<span style="font-size: 14px; color: {_COLORS[state]}"><b>{state}</b>{told}</span>'
        f'<div style="font-size: 13px; color: #666; margin-top: 3px">{settings}</div>'
        f'<div style="font-size: 14px; margin-top: 5px">{" &nbsp;·&nbsp; ".join(facts)}</div></div>'
    )


def _search_header(run: SearchRun, state: str, now: float) -> str:
    about = run.about
    seconds = run.seconds + (max(0.0, now - run.announced) if state == RUNNING else 0.0)
    facts = [f"<b>{len(run.trials)}</b> of {max(run.n_trials, len(run.trials))} trials begun"]
    if state == RUNNING:
        facts.append(f"{run.count(TRIAL_RUNNING)} running")
    if failed := run.count(TRIAL_FAILED):
        facts.append(f'<span style="color: {FAULT_COLOR}">{failed} failed</span>')
    total, done = about["n_epochs"], run.n_epochs
    facts.append(f"<b>{done:,}</b> epochs" + (f" of about {total:,}" if total and state == RUNNING else ""))
    facts.append(_duration(seconds))
    if state == RUNNING and total and done and run.seconds:
        facts.append(f"about {_duration(max(0, total - done) / done * run.seconds)} left")
    best = run.best_score
    if best is not None:
        facts.append(f"best {html.escape(about['score'])} <b>{best:.4f}</b>, trial {run.best}")
    # What the best trial is comes where a training has its settings.
    settings = "" if best is None else html.escape(run.settings.get(run.best or 0, ""))
    title = f"{html.escape(about['kind'])} of {html.escape(about['model'])}"
    return _headline(title, state, run.error, settings or "no scores yet", facts)


def _seconds_left(run: Run) -> float | None:
    recent = [entry["seconds"] for entry in run.history[-5:] if entry.get("seconds") is not None]
    if not recent:
        return None
    n_left = run.about["last_epoch"] - max([*run.entries, *(done for done, _, _ in run.waves)])
    return n_left * sum(recent) / len(recent)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(min(seconds, 1e12))))


def _options(board: Board) -> list[tuple[str, str]]:
    newest_first = sorted(board.all.items(), key=lambda item: -item[1].began)
    return [
        (name, f"{_clock(run.began)} {board.state_of(name)}: {run.about['name']}")
        for name, run in newest_first
    ]


def _clock(stamp: float) -> str:
    # In UTC, like the times of faults.
    return time.strftime("%H:%M:%S", time.gmtime(stamp))


def _marks(run: Run) -> list[tuple[int, str]]:
    """Return the epochs with faults, and a text on the faults of each."""
    told: dict[int, list[str]] = {}
    for fault in run.faults:
        told.setdefault(fault["epoch"], []).append(f"{fault['what']} {fault['worker']}")
    return [(epoch, "; ".join(what)) for epoch, what in sorted(told.items())]
