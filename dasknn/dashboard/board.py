"""State of the trainings and searches that the page shows: events of the scheduler, read and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
from dasknn.dashboard import searches
from dasknn.dashboard.searches import SearchRun
from dasknn.saving import schema

logger = logging.getLogger("dasknn.dashboard")

# The scheduler keeps the newest trainings and searches, so many of each kind, and this many epochs, faults
# and waves of a training.
_MOST_RUNS = 20
_MOST_EPOCHS = 1_000
_MOST_FAULTS = 200
_MOST_WAVES = 200
# Longest list in an event.
_MOST_OF_EACH = 1_000
#: State of a training whose client has disconnected without announcing the end.
LOST = "lost"
# Facts about a training that the page needs.
_COUNT = schema.integer()
_ABOUT: dict[str, schema.Check] = {
    "name": schema.text,
    "model": schema.text,
    "layers": schema.text,
    "strategy": schema.text,
    "transport": schema.text,
    "engine": schema.text,
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
# An event of `announcements`.
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


@dataclass
class Run:
    """State of a training according to its events; of bounded size."""

    about: Mapping[str, Any]
    client: str
    began: float
    state: str = RUNNING
    error: str = ""
    seconds: float = 0.0
    announced: float = 0.0
    epoch: int = 0
    #: By number of the epoch.
    entries: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    #: Progress within the running epoch: (epochs, with a fraction; loss; rows per second).
    waves: list[tuple[float, float | None, float]] = field(default_factory=list)
    #: (epoch, seconds of each worker) of the newest epoch with such times.
    workers: tuple[int, Mapping[str, Mapping[str, float]]] = (0, {})
    faults: list[Mapping[str, Any]] = field(default_factory=list)

    def apply(self, stamp: float, event: Mapping[str, Any]) -> None:
        """Apply an event. stamp: when the scheduler received it, in seconds since 1970."""
        self.announced, self.seconds = stamp, event["seconds"]
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
            # Thin out the older half.
            for old in sorted(self.entries)[1 : _MOST_EPOCHS // 2 : 2]:
                del self.entries[old]

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """Entries in order of the epochs."""
        return [self.entries[number] for number in sorted(self.entries)]


class Board:
    """The newest trainings and searches of a scheduler, collected from its events."""

    def __init__(self, scheduler: Any):
        self._scheduler = scheduler
        self.runs: dict[str, Run] = {}
        self.searches: dict[str, SearchRun] = {}
        #: Number of events so far.
        self.version = 0
        self._last: Any = None
        self._is_warned = False

    def refresh(self) -> None:
        """Apply the events since the last call."""
        events = self._scheduler.get_events(TOPIC)
        new: list[Any] = []
        for item in reversed(events):
            if item is self._last:
                break
            new.append(item)
        for item in reversed(new):
            self._apply(*item)
        self._last = events[-1] if events else None

    def _apply(self, stamp: float, event: Any) -> None:
        self.version += 1
        is_search = isinstance(event, Mapping) and "search" in event
        try:
            (searches.EVENT if is_search else _EVENT)(event, "")
        except schema.Mismatch as problem:
            # Anybody may log events under this topic, including another version of dasknn.
            if not self._is_warned:
                self._is_warned = True
                logger.warning(
                    "The dashboard leaves out events of the topic %r that this version of dasknn does not "
                    "know, such as one with this problem: %s.",
                    TOPIC,
                    problem,
                )
            return
        if is_search:
            self._apply_search(stamp, event)
        else:
            self._apply_run(stamp, event)

    def _apply_run(self, stamp: float, event: Mapping[str, Any]) -> None:
        name = event["run"]
        if name not in self.runs:
            about = {key: event["about"][key] for key in _ABOUT}
            self.runs[name] = Run(about, event["client"], stamp - event["seconds"])
        self.runs[name].apply(stamp, event)
        self._forget(self.runs, name)

    def _apply_search(self, stamp: float, event: Mapping[str, Any]) -> None:
        name = event["search"]
        if name not in self.searches:
            about = {key: event["about"][key] for key in searches.ABOUT}
            self.searches[name] = SearchRun(about, event["client"], stamp - event["seconds"])
        self.searches[name].apply(stamp, event)
        self._forget(self.searches, name)

    def _forget(self, known: dict[str, Any], name: str) -> None:
        """Keep the newest; those that have ended go first."""
        if len(known) > _MOST_RUNS:
            ended = [key for key in known if key != name and self.state_of(key) != RUNNING]
            del known[(ended or list(known))[0]]

    @property
    def all(self) -> dict[str, Run | SearchRun]:
        """Trainings and searches, by name."""
        return {**self.runs, **self.searches}

    def state_of(self, name: str) -> str:
        """Return the state of a training or a search."""
        run = self.searches[name] if name in self.searches else self.runs[name]
        if run.state == RUNNING and run.client not in self._scheduler.clients:
            return LOST
        return run.state

    @property
    def newest(self) -> str | None:
        """Name of what began last of all that runs, or of any training or search if none is running."""
        found = self.all
        running = [name for name in found if self.state_of(name) == RUNNING]
        return max(running or found, key=lambda name: found[name].began, default=None)
