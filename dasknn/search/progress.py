"""Progress of a search in the terminal: trials, the best score, the time that is left."""

from __future__ import annotations

import time
from math import isinf

from dasknn.callbacks import progress
from dasknn.search.course import Course
from dasknn.search.trials import FAILED, RUNNING
from dasknn.search.wording import settings_text

_SECONDS = 0.5
# Between drawings, so many times as long passes as one takes: there may be thousands of trials.
_PAUSES = 20
_MOST_LETTERS = 100
# Epochs of different trials take different times: their number in a second would say little.
_WITH_TOTAL = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} epochs [{elapsed}<{remaining}{postfix}]"
_WITHOUT_TOTAL = "{desc}: {n_fmt} epochs [{elapsed}{postfix}]"


class SearchBar:
    """A bar of epochs, which shows how many trials run and the best score so far; in the end, the best trial.

    Parameters
    ----------
    course : Course
    total : float
        Epochs that will be trained, about; infinite: nobody knows.
    score : str
        What is scored, for people.
    shown : bool
    """

    def __init__(self, course: Course, total: float, score: str, shown: bool):
        self._course, self._score, self._next = course, score, 0.0
        known = None if isinf(total) else round(total)
        look = _WITHOUT_TOTAL if known is None else _WITH_TOTAL
        self._bar = progress.bar(total=known, bar_format=look, desc="search") if shown else None

    def update(self) -> None:
        """Draw what has changed, not too often."""
        if self._bar is None or (began := time.monotonic()) < self._next:
            return
        self._draw()
        now = time.monotonic()
        self._next = now + max(_SECONDS, _PAUSES * (now - began))

    def _draw(self, is_complete: bool = False) -> None:
        course, bar = self._course, self._bar
        assert bar is not None, "only a bar that is shown is drawn"
        statuses = [course.status(trial) for trial in course.trials]
        running, n_trials = statuses.count(RUNNING), course.n_trials or len(statuses)
        # In a narrow terminal, the end is cut.
        parts = [] if (best := course.best()) is None else [f"best {best.score:.4f}"]
        parts.append(f"{n_trials} trials" if is_complete else f"{running} of {n_trials} trials running")
        if failed := statuses.count(FAILED):
            parts.append(f"{failed} failed")
        text = ", ".join(parts)
        bar.set_postfix_str(text, refresh=False)
        done = sum(len(run.entries) for trial in course.trials for run in trial.runs)
        if bar.total is not None and (is_complete or done > bar.total):
            # The total was an estimate.
            bar.total = done
        bar.n = done
        bar.refresh()

    def close(self, is_complete: bool) -> None:
        """Draw the last state, leave it there, and write a line about the best trial.

        is_complete: whether all that was planned has been trained.
        """
        if self._bar is None:
            return
        self._draw(is_complete)
        self._bar.close()
        if (best := self._course.best()) is not None:
            score, settings = best.score, settings_text(best.settings, _MOST_LETTERS)
            progress.say(f"best {self._score} {score:.4f}: trial {best.number}, {settings}")
