"""Trials: networks that are trained side by side, each in a thread that mostly waits.

    thread of a Run     Training.run ── epoch ── Gate: reports, waits until it may go on ── epoch ── ...
    thread of `fit`     the hopper moves networks; `Course` judges scores, and lets runs go on or end

A trial has a run for each split of the rows. A run that waits keeps its state, so it goes on where it was.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

import numpy as np

from dasknn.callbacks import Callback, check_weights
from dasknn.engine.state import TrainState
from dasknn.exceptions import TrainingStopped
from dasknn.search.ground import RowsToScore
from dasknn.search.scoring import Scorer

#: Under this name, history and checkpoints have what a search has scored.
SCORE = "search_score"


@dataclass(frozen=True)
class Patience:
    """A trial ends by itself after more than `epochs` epochs in which its score did not rise by `tol`."""

    epochs: float = math.inf
    tol: float = 0.0


class Gate(Callback):
    """Scores each epoch, keeps the weights of the best one, and lets training wait for permission.

    Parameters
    ----------
    run : Run
    scorer : Scorer
    rows : RowsToScore or None
        None: nothing is scored, and the last weights are kept.
    patience : Patience
    """

    def __init__(self, run: Run, scorer: Scorer, rows: RowsToScore | None, patience: Patience):
        self._run, self._scorer, self._rows, self._patience = run, scorer, rows, patience
        #: What of a state predicts.
        self.weights_of: Callable[[TrainState], np.ndarray] = lambda state: state.params
        self.best_score = nan
        self.best_epoch = 0
        self.best_params: Any = None
        self.n_worse = 0

    def restore(self, state: dict[str, Any]) -> None:
        check_weights(state.get("best_params"), self.training)
        super().restore(state)

    def on_train_ready(self, logs=None):
        for entry in self.training.history:
            self._run.note(entry)
        self._wait()

    def on_epoch_end(self, epoch, logs=None):
        if self._rows is None:
            return
        score = logs[SCORE] = self._scorer.score(self.model, self._rows, logs)
        is_first = self.best_params is None
        self.n_worse += 1
        if score > self.best_score + self._patience.tol or isnan(self.best_score):
            self.n_worse = 0
        if is_first or score > self.best_score or (isnan(self.best_score) and not isnan(score)):
            self.best_score, self.best_epoch = score, epoch + 1
            self.best_params = self.weights_of(self.training.state)
        if self.n_worse > self._patience.epochs:
            self.training.stop_training = True

    def on_epoch_done(self, epoch, logs=None):
        self._run.note(self.training.history[-1])
        self._wait()

    def _wait(self) -> None:
        """Wait until the next epoch is wanted, or none is."""
        training = self.training
        if training.n_epochs >= training.max_epochs or training.should_stop:
            return
        if not self._run.may_train(training.n_epochs + 1):
            if not training.n_epochs:
                raise TrainingStopped
            training.stop_training = True

    def on_train_end(self, logs=None):
        if self.best_params is not None:
            self.training.state = replace(self.training.state, params=self.best_params)


class Run:
    """The training of one network of a trial.

    Attributes
    ----------
    trial, split : int
    entries : list of dict
        Of the history, one for each epoch.
    has_ended, has_ended_itself : bool
        Whether it trains no more, and whether that was its own decision.
    error : BaseException or None
        What has ended it.
    """

    def __init__(self, trial: int, split: int, tell: Callable[[], None]):
        self.trial, self.split = trial, split
        self.entries: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self.has_ended = self.has_ended_itself = False
        self.model: Any = None
        self.gate: Gate | None = None
        self._tell = tell
        self._change = threading.Condition()
        self._goal = 0
        self._is_over = False

    @property
    def pace(self) -> tuple:
        """The pace of journeys on which it is trained."""
        return (self.trial, self.split)

    @property
    def pace_of_scores(self) -> tuple:
        """The pace of journeys on which it is only scored."""
        return (self.trial, self.split, "score")

    # --- for its own thread ------------------------------------------------------------------------

    def note(self, entry: Mapping[str, Any]) -> None:
        """Note the entry of an epoch."""
        self.entries.append({**entry, "ended": time.time()})
        self._tell()

    def may_train(self, epoch: int) -> bool:
        """Return whether this epoch is to be trained, as soon as that is known."""
        with self._change:
            self._change.wait_for(lambda: self._is_over or epoch <= self._goal)
            return not self._is_over

    def n_allowed(self) -> int:
        """Return how many epochs it may train now."""
        return self._goal - len(self.entries)

    def begin(self, train: Callable[[], None]) -> None:
        """Train in a thread."""

        def work() -> None:
            try:
                train()
            except TrainingStopped:
                pass
            except BaseException as error:
                self.error = error
            finally:
                self.has_ended_itself = not self._is_over
                self.has_ended = True
                self._tell()

        name = f"dasknn-trial-{self.trial}-{self.split}"
        threading.Thread(target=work, name=name, daemon=True).start()

    # --- for the thread of the search --------------------------------------------------------------

    def allow(self, goal: int) -> None:
        """Let it train up to an epoch."""
        with self._change:
            self._goal = max(self._goal, goal)
            self._change.notify_all()

    def end(self) -> None:
        """Let it train no more epochs."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def has_reached(self, goal: int) -> bool:
        """Return whether it is at an epoch, or will never be."""
        return len(self.entries) >= goal or self.has_ended

    def best_until(self, goal: int) -> float:
        """Return its best score of the epochs up to a goal; NaN: there is none."""
        scores = [entry[SCORE] for entry in self.entries[:goal] if SCORE in entry]
        known = [score for score in scores if not isnan(score)]
        return max(known, default=nan)


#: Trained or scored on a worker at this moment; next in line for it; left behind so far; trained to the end;
#: ended by its own decision; ended by an error.
RUNNING, WAITING, PAUSED = "running", "waiting", "paused"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(eq=False)
class Trial:
    """A setting, and what became of it.

    Attributes
    ----------
    number : int
    settings : dict
    bracket : int
        Number of its bracket, from 0.
    runs : list of Run
        One for each split.
    rung : int
        The rung for which it trains, or that it has reached.
    has_begun : bool
        Whether its runs have been set up.
    error : BaseException or None
        Why it has failed.
    preparation : object
        What comes before its networks in the pipeline that users get: see `Kind.finished`.
    """

    number: int
    settings: dict[str, Any]
    bracket: int
    runs: list[Run] = field(default_factory=list)
    rung: int = 0
    has_begun: bool = False
    error: BaseException | None = None
    preparation: Any = None

    @property
    def n_epochs(self) -> int:
        """Epochs that all of its networks have trained."""
        return min((len(run.entries) for run in self.runs), default=0)

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended it."""
        return self.error is not None or any(run.error is not None for run in self.runs)

    @property
    def failure(self) -> BaseException | None:
        """The error that has ended it."""
        return next((run.error for run in self.runs if run.error is not None), self.error)

    def score_at(self, goal: int) -> float:
        """Return the mean over its splits of the best score up to an epoch; NaN: it has failed."""
        if self.has_failed or not self.runs:
            return nan
        return float(np.mean([run.best_until(goal) for run in self.runs]))

    @property
    def score(self) -> float:
        """Its score of all epochs: a network that has ended by itself may have fewer than the others."""
        return self.score_at(max((len(run.entries) for run in self.runs), default=0))

    def has_reached(self, goal: int) -> bool:
        """Return whether its score at an epoch is known, or will never be."""
        return self.has_failed or (self.has_begun and all(run.has_reached(goal) for run in self.runs))

    @property
    def best_epoch(self) -> int:
        """The epoch of its best score, the mean over splits; 0: there is none."""
        epochs = [0 if run.gate is None else run.gate.best_epoch for run in self.runs]
        return round(float(np.mean(epochs))) if epochs else 0
