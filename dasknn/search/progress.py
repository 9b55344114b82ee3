"""Progress of a search in the terminal: trials, the best score, the time that is left."""

from __future__ import annotations

import time
from math import isinf

from dasknn.callbacks import progress
from dasknn.search.course import Course

_SECONDS = 0.5


class SearchBar:
    """A bar of epochs, which shows how many trials run and the best score so far.

    Parameters
    ----------
    course : Course
    total : float
        Epochs that will be trained, about; infinite: nobody knows.
    shown : bool
    """

    def __init__(self, course: Course, total: float, shown: bool):
        self._course, self._next = course, 0.0
        settings = {"unit": "epoch", "mininterval": _SECONDS, "desc": "search"}
        self._bar = progress.bar(total=None if isinf(total) else round(total), **settings) if shown else None

    def update(self) -> None:
        """Draw what has changed, not too often."""
        if self._bar is None or (now := time.monotonic()) < self._next:
            return
        self._next = now + _SECONDS
        self._draw()

    def _draw(self) -> None:
        course, bar = self._course, self._bar
        assert bar is not None, "only a bar that is shown is drawn"
        statuses = [course.status(trial) for trial in course.trials]
        best = course.best()
        text = f"{statuses.count('running')} of {len(statuses)} trials running"
        if failed := statuses.count("failed"):
            text += f", {failed} failed"
        if best is not None:
            text += f", best {best.score_at(best.n_epochs):.4f} (trial {best.number})"
        bar.set_postfix_str(text, refresh=False)
        done = sum(len(run.entries) for trial in course.trials for run in trial.runs)
        if bar.total is not None and done > bar.total:
            bar.total = done
        bar.update(done - bar.n)

    def close(self) -> None:
        """Draw the last state, and leave it there."""
        if self._bar is not None:
            self._draw()
            self._bar.close()
