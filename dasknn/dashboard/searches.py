"""State of the searches that the page shows, according to their events; of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from dasknn.callbacks.announcements import COMPLETED, FAILED, INTERRUPTED, RUNNING
from dasknn.saving import schema
from dasknn.search.announcements import BEGIN, END, NEWS, TIMED_OUT
from dasknn.search.trials import FAILED as TRIAL_FAILED
from dasknn.search.trials import FINISHED, PAUSED, STOPPED, WAITING
from dasknn.search.trials import RUNNING as TRIAL_RUNNING

# The scheduler keeps so many trials of each search, the curves of the best of them, and points of each.
_MOST_TRIALS = 2_000
_MOST_CURVES = 200
_MOST_POINTS = 60
# Longest list in an event, and most rungs of a bracket.
_MOST_OF_EACH = 2_000
_MOST_BRACKETS = 32
_MOST_RUNGS = 64

#: What the table of rungs calls trials that train no more.
ENDED = "ended"
_ENDED = {FINISHED: ENDED, STOPPED: ENDED}

_COUNT = schema.integer()
_NUMBER = schema.optional(schema.number(finite=True))
_BRACKET = schema.record(
    {
        "goals": schema.each(schema.integer(1), least=1, most=_MOST_RUNGS),
        "n_trials": schema.optional(_COUNT),
    }
)
ABOUT: dict[str, schema.Check] = {
    "name": schema.text,
    "kind": schema.text,
    "model": schema.text,
    "score": schema.text,
    "n_trials": schema.optional(_COUNT),
    "max_iter": _COUNT,
    "n_epochs": schema.optional(_COUNT),
    "brackets": schema.each(_BRACKET, least=1, most=_MOST_BRACKETS),
}
_TRIAL = schema.record(
    {
        "trial": _COUNT,
        "bracket": _COUNT,
        "rung": _COUNT,
        "status": schema.one_of(TRIAL_RUNNING, WAITING, PAUSED, FINISHED, STOPPED, TRIAL_FAILED),
        "epochs": _COUNT,
        "score": _NUMBER,
        "rungs": schema.each(_NUMBER, most=_MOST_RUNGS),
    },
    {"settings": schema.text},
)


def _score(value: Any, where: str) -> None:
    """Expect [trial, epoch, score]."""
    schema.each(schema.anything, 3, 3)(value, where)
    for item, check in zip(value, (_COUNT, schema.integer(1), _NUMBER), strict=True):
        check(item, where)


# An event of `search.announcements`.
EVENT = schema.record(
    {
        "search": schema.text,
        "client": schema.text,
        "about": schema.record(ABOUT, others=schema.anything),
        "what": schema.one_of(BEGIN, NEWS, END),
        "seconds": schema.number(finite=True, least=0, most=1e9),
        "n_epochs": _COUNT,
        "trials": schema.each(_TRIAL, most=_MOST_OF_EACH),
        "scores": schema.each(_score, most=_MOST_OF_EACH),
        "best": schema.optional(_COUNT),
    },
    {
        "state": schema.one_of(COMPLETED, TIMED_OUT, INTERRUPTED, FAILED),
        "error": schema.text,
        "best_score": _NUMBER,
        "best_settings": schema.text,
    },
    schema.anything,
)


@dataclass
class SearchRun:
    """State of a search according to its events."""

    about: Mapping[str, Any]
    client: str
    began: float
    state: str = RUNNING
    error: str = ""
    seconds: float = 0.0
    announced: float = 0.0
    n_epochs: int = 0
    best: int | None = None
    #: By number: what was last said of each trial.
    trials: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    settings: dict[int, str] = field(default_factory=dict)
    #: Scores of each trial by epoch.
    curves: dict[int, dict[int, float]] = field(default_factory=dict)

    def apply(self, stamp: float, event: Mapping[str, Any]) -> None:
        """Apply an event. stamp: when the scheduler received it, in seconds since 1970."""
        self.announced, self.seconds = stamp, event["seconds"]
        self.n_epochs = max(self.n_epochs, event["n_epochs"])
        self.best = event["best"]
        for row in event["trials"]:
            number = row["trial"]
            self.trials[number] = row
            if "settings" in row:
                self.settings[number] = row["settings"]
        for number, epoch, score in event["scores"]:
            if score is not None:
                self.curves.setdefault(number, {})[epoch] = score
                self._thin(number)
        if event["what"] == END:
            self.state, self.error = event.get("state", COMPLETED), event.get("error", "")
            if self.best is not None and "best_settings" in event:
                self.settings[self.best] = event["best_settings"]
        self._forget()

    def _thin(self, number: int) -> None:
        curve = self.curves[number]
        if len(curve) > _MOST_POINTS:
            # Every other one of the older half.
            for old in sorted(curve)[1 : _MOST_POINTS // 2 : 2]:
                del curve[old]

    def _forget(self) -> None:
        """Keep the trials that matter: those that train, and the best of the others."""
        if len(self.trials) > _MOST_TRIALS:
            for number in sorted(self.trials, key=self._importance)[: len(self.trials) - _MOST_TRIALS]:
                del self.trials[number]
                self.settings.pop(number, None)
        if len(self.curves) > _MOST_CURVES:
            for number in sorted(self.curves, key=self._importance)[: len(self.curves) - _MOST_CURVES]:
                del self.curves[number]

    def _importance(self, number: int) -> tuple[bool, float, int]:
        row = self.trials.get(number)
        if row is None:
            return (False, -inf, -number)
        score = -inf if row["score"] is None else row["score"]
        return (number == self.best or row["status"] in (TRIAL_RUNNING, WAITING), score, -number)

    def count(self, status: str) -> int:
        """Return how many trials have a status."""
        return sum(row["status"] == status for row in self.trials.values())

    @property
    def n_trials(self) -> int:
        """How many trials there are or will be, as far as that is known."""
        return max(self.about["n_trials"] or 0, max(self.trials, default=-1) + 1)

    @property
    def best_score(self) -> float | None:
        """The score of the best trial; None: there is none."""
        row = None if self.best is None else self.trials.get(self.best)
        return None if row is None else row["score"]

    @property
    def rungs(self) -> list[dict[str, Any]]:
        """For each rung of each bracket, how many trials are there, and the best score at its goal."""
        statuses = (TRIAL_RUNNING, WAITING, PAUSED, ENDED, TRIAL_FAILED)
        found: dict[tuple[int, int], dict[str, Any]] = {
            (bracket, rung): {"bracket": bracket, "epochs": goal, "reached": 0, "score": None, "trial": None}
            | dict.fromkeys(statuses, 0)
            for bracket, about in enumerate(self.about["brackets"])
            for rung, goal in enumerate(about["goals"])
        }
        for number, trial in self.trials.items():
            for rung, score in enumerate(trial["rungs"]):
                if (row := found.get((trial["bracket"], rung))) is None:
                    continue
                row["reached"] += 1
                if score is not None and (row["score"] is None or score > row["score"]):
                    row["score"], row["trial"] = score, number
            if (row := found.get((trial["bracket"], trial["rung"]))) is not None:
                row[_ENDED.get(trial["status"], trial["status"])] += 1
        return list(found.values())
