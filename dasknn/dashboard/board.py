"""What the page knows of trainings: events, read and checked."""

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
from dasknn.saving import schema

logger = logging.getLogger("dasknn.dashboard")

# What the scheduler keeps of trainings: the newest ones, and of each as many epochs and faults.
_MOST_RUNS = 20
_MOST_EPOCHS = 1_000
_MOST_FAULTS = 200
_MOST_WAVES = 200
# What one event may list of anything.
_MOST_OF_EACH = 1_000
#: State of a training whose client has gone without a word.
LOST = "lost"
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
