"""Events of a search on a cluster, logged on the scheduler; the dashboard shows them.

They share the topic of trainings (`dasknn.callbacks.announcements`), which keeps the newest thousand events.
So each event describes its search, and some have a summary of all trials:

    search, about  an id; name, kind, model, score, n_trials, max_iter, n_epochs and brackets
    what           "begin", "news", "end"
    time, seconds  since 1970, and since the search began, by the clock of this process
    n_epochs       that all networks have trained
    trials         of those with news: trial, bracket, rung, status, epochs, score, rungs (the score at each
                   rung that was reached); and settings as text, once
    scores         [trial, epoch, score] of epochs that no earlier event had, the mean over splits
    best           number of the best trial, or None
    state, error   at the end: "completed", "timed out", "interrupted" or "failed", and the exception
"""

from __future__ import annotations

import logging
import math
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from dasknn.callbacks.announcements import COMPLETED, FAILED, INTERRUPTED
from dasknn.cluster.executor import Executor
from dasknn.search.course import Course
from dasknn.search.rungs import Bracket
from dasknn.search.trials import SCORE, Trial
from dasknn.search.wording import model_name, settings_text

logger = logging.getLogger("dasknn")

BEGIN, NEWS, END = "begin", "news", "end"
#: State of a search whose budget of time was used up.
TIMED_OUT = "timed out"

# Least seconds between events, and so many times the time that one takes: there may be thousands of trials.
_SECONDS = 0.5
_PAUSES = 20
# One of so many events has a summary, so that the topic always keeps several.
_SUMMARY_EVERY = 200
# Limits of one event.
_MOST_TRIALS = 200
_MOST_SCORES = 500
_MOST_IN_SUMMARY = 10
_MOST_AT_END = 20
_MOST_BRACKETS = 16
_MOST_LETTERS = 200
# Seconds to wait at the end of a search until the scheduler has the last event.
_LAST_WORD_SECONDS = 1.0


class Announcements:
    """Logs events of a search through its executor; never fails, and waits for nothing but its last word.

    Parameters
    ----------
    course : Course
    executor : Executor
    about : dict
        See `described`.
    """

    def __init__(self, course: Course, executor: Executor, about: Mapping[str, Any]):
        self._course, self._executor, self._about = course, executor, about
        self._search = uuid.uuid4().hex[:12]
        self._began = time.monotonic()
        self._next = 0.0
        self._n_events = 0
        self._is_over = self._is_behind = False
        #: What was told of each trial: rung, status and epochs; and the epochs whose scores were told.
        self._told: dict[int, tuple[int, str, int]] = {}
        self._n_scores: dict[int, int] = {}
        self._announce(BEGIN)

    def update(self) -> None:
        """Announce what has changed, not too often."""
        if (began := time.monotonic()) < self._next:
            return
        self._announce(NEWS)
        now = time.monotonic()
        self._next = now + max(_SECONDS, _PAUSES * (now - began))

    def end(self, is_interrupted: bool) -> None:
        """Announce the end; call it where the error, if any, is propagating."""
        self._announce(NEWS)
        for _ in range(_MOST_AT_END):
            if self._is_behind:
                self._announce(NEWS)
        self._announce(END, is_interrupted)
        self._is_over = True

    def _ending(self, is_interrupted: bool) -> tuple[str, str]:
        error = sys.exception()
        if isinstance(error, Exception):
            return FAILED, _shortened(f"{type(error).__name__}: {error}")
        if is_interrupted or error is not None:
            return INTERRUPTED, ""
        if self._course.best() is None:
            return FAILED, "no trial has a score"
        return (TIMED_OUT if self._course.has_timed_out else COMPLETED), ""

    def _announce(self, what: str, is_interrupted: bool = False) -> None:
        if self._is_over:
            return
        try:
            self._tell(what, is_interrupted)
        except Exception:
            # A search is worth more than its picture.
            logger.debug("An event of a search could not be announced.", exc_info=True)
            self._is_over = True

    def _tell(self, what: str, is_interrupted: bool) -> None:
        is_summary = self._n_events % _SUMMARY_EVERY == _SUMMARY_EVERY - 1
        trials, scores = self._trials(is_summary), self._scores(is_summary)
        self._is_behind = len(trials) >= _MOST_TRIALS or len(scores) >= _MOST_SCORES
        if what == NEWS and not trials and not scores:
            return
        self._n_events += 1
        best = self._course.best()
        event = {
            "search": self._search,
            "about": dict(self._about),
            "what": what,
            "time": time.time(),
            "seconds": round(time.monotonic() - self._began, 3),
            "n_epochs": sum(len(run.entries) for trial in self._course.trials for run in trial.runs),
            "trials": trials,
            "scores": scores,
            "best": None if best is None else best.number,
        }
        if what == END:
            event["state"], event["error"] = self._ending(is_interrupted)
            # The last event is enough to know the result.
            if best is not None:
                event["best_score"] = _number(best.score)
                event["best_settings"] = settings_text(best.settings, _MOST_LETTERS)
        self._executor.announce(event, _LAST_WORD_SECONDS if what == END else 0.0)

    def _trials(self, is_summary: bool) -> list[dict[str, Any]]:
        """Return what is new of trials; in a summary, first the others, the best of them."""
        changed = (trial for trial in self._course.trials if self._told.get(trial.number) != self._now(trial))
        news = list(islice(changed, _MOST_TRIALS))
        others: list[Trial] = []
        if is_summary:
            is_new = {trial.number for trial in news}
            others = [trial for trial in self._course.trials if trial.number not in is_new]
            others = sorted(others, key=_from_the_best)[:_MOST_TRIALS]
        found = []
        for trial in (*others, *news):
            found.append(self._row(trial, with_settings=is_summary or trial.number not in self._told))
            self._told[trial.number] = self._now(trial)
        return found

    def _now(self, trial: Trial) -> tuple[int, str, int]:
        return trial.rung, self._course.status(trial), trial.n_epochs

    def _row(self, trial: Trial, with_settings: bool) -> dict[str, Any]:
        goals = self._course.plan.brackets[trial.bracket].goals
        goals = [] if trial.has_failed else goals[: trial.rung + 1]
        reached = [goal for goal in goals if trial.has_reached(goal)]
        row = {
            "trial": trial.number,
            "bracket": trial.bracket,
            "rung": trial.rung,
            "status": self._course.status(trial),
            "epochs": trial.n_epochs,
            "score": _number(trial.score),
            "rungs": [_number(trial.score_at(goal)) for goal in reached],
        }
        if with_settings:
            row["settings"] = settings_text(trial.settings, _MOST_LETTERS)
        return row

    def _scores(self, is_summary: bool) -> list[list]:
        """Return scores that were not told; in a summary, first some of those that were."""
        found: list[list] = []
        if is_summary:
            for trial in sorted(self._course.trials, key=_from_the_best)[: _MOST_SCORES // _MOST_IN_SUMMARY]:
                n = self._n_scores.get(trial.number, 0)
                epochs = np.unique(np.linspace(0, n - 1, min(n, _MOST_IN_SUMMARY)).round().astype(int))
                found += [[trial.number, int(epoch) + 1, _score(trial, epoch)] for epoch in epochs]
        most = len(found) + _MOST_SCORES
        for trial in self._course.trials:
            begin = self._n_scores.get(trial.number, 0)
            end = min(trial.n_epochs, begin + most - len(found))
            found += [[trial.number, epoch + 1, _score(trial, epoch)] for epoch in range(begin, end)]
            self._n_scores[trial.number] = max(begin, end)
        return found


def described(search: Any, score: str, brackets: Sequence[Bracket], n_epochs: float) -> dict[str, Any]:
    """Return what each event says of its search.

    search: the estimator that searches. score: what is scored, for people. n_epochs: that will be trained,
    about; infinite: nobody knows.
    """
    known = [bracket.n_trials for bracket in brackets if bracket.n_trials is not None]
    n_trials = sum(known) if len(known) == len(brackets) else None
    kind, model = type(search).__name__, model_name(search.estimator)
    trials = "trials" if n_trials is None else f"{n_trials} trials"
    return {
        "name": _shortened(f"{kind} of {model}, {trials}, up to {search._most_epochs} epochs"),
        "kind": kind,
        "model": _shortened(model),
        "score": _shortened(score),
        "n_trials": n_trials,
        "max_iter": search._most_epochs,
        "n_epochs": None if math.isinf(n_epochs) else round(n_epochs),
        "brackets": [
            {"goals": [int(goal) for goal in bracket.goals], "n_trials": bracket.n_trials}
            for bracket in brackets[:_MOST_BRACKETS]
        ],
    }


def _from_the_best(trial: Trial) -> tuple[float, int]:
    score = trial.score
    return (math.inf if math.isnan(score) else -score, trial.number)


def _score(trial: Trial, epoch: int) -> float | None:
    """Return the mean over splits of the score of an epoch, from 0."""
    return _number(float(np.mean([run.entries[epoch].get(SCORE, math.nan) for run in trial.runs])))


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
