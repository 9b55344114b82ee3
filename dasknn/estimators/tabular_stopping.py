"""When the estimators for tables stop, and which epoch's weights they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from dasknn.estimators.stopping import Patience


class BestEpoch(Patience):
    """Keep the weights of the best epoch, the last one of equals; stop when more epochs seem useless.

    Parameters
    ----------
    n_iter_no_change : int or inf
        Training stops when more than this many epochs in a row had no better score.
    ends_of_cycles : sequence of int
        Numbers of epochs, from 1, after which the learning rate has fallen to 0: training stops at such an
        end if no epoch since the end before has been the best.
    monitor : {"validation_score", "val_loss"}
        What is watched.
    """

    def __init__(self, n_iter_no_change: float, ends_of_cycles: Sequence[int], monitor: str, verbose: bool):
        super().__init__(0.0, n_iter_no_change, False, verbose, early_stopping=True)
        self.ends_of_cycles = list(ends_of_cycles)
        self.monitor = monitor
        self.best_epoch = 0

    def on_epoch_end(self, epoch, logs=None):
        score = _score_of(logs, self.monitor)
        number = epoch + 1
        self.count += 1
        if score > self.best_score:
            self.count = 0
        if score >= self.best_score:
            self.best_score, self.best_params = score, self.training.state.params
            self.best_epoch = number
        before = [end for end in self.ends_of_cycles if end < number]
        if number in self.ends_of_cycles and before and self.best_epoch <= before[-1]:
            self._stop(f"no epoch since epoch {before[-1]} was better")
        elif self.count > self.n_iter_no_change:
            self._stop(f"no epoch of the last {self.count} was better")

    def _stop(self, reason: str) -> None:
        self.training.stop_training = True
        if self.verbose:
            print(f"Stopping: {reason}; the weights are those of epoch {self.best_epoch}.")


def best_epoch_of(history: Sequence[Mapping[str, Any]], monitor: str) -> int | None:
    """Return the number of the epoch of a history, from 1, that `BestEpoch` keeps; None: none has a score."""
    scores = [_score_of(entry, monitor) for entry in history if monitor in entry]
    known = [score for score in scores if not isnan(score)]
    return len(scores) - scores[::-1].index(max(known)) if known else None


def _score_of(logs: Mapping[str, Any], monitor: str) -> float:
    """Return what is watched as a number that should rise."""
    return logs[monitor] if monitor == "validation_score" else -logs[monitor]
