"""What happens around training, on the driver: progress, stopping rules, and whatever users add.

A callback has Keras's methods; those it does not define do nothing. `training` is the running
`training.Training`, `model` the estimator being fitted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any


class Callback:
    """Base class of callbacks; `self.model` is the estimator, `self.training` the running training.

    Both are None again when training has ended.

    Set `self.training.stop_training = True` to end training after the running epoch.
    logs holds "loss" and, at the end of an epoch, all that its entry in `history_` holds.
    """

    model: Any = None
    training: Any = None

    def on_train_begin(self, logs=None) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Before an epoch; epoch counts from 0."""

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Whenever the driver hears of progress within an epoch: after many mini-batches, not each one.

        batch counts the optimizer's steps; logs has "loss" and "n_samples" of the epoch so far.
        """

    def on_epoch_end(self, epoch, logs=None) -> None:
        """After an epoch."""

    def on_train_end(self, logs=None) -> None:
        """After the last epoch, an error or an interruption."""


class ProgressBar(Callback):
    """A tqdm bar, for terminals and notebooks: epoch, loss, validation score, rows per second."""

    _bar: Any = None

    def on_train_begin(self, logs=None):
        self._bar = _tqdm()(
            total=self.training.max_epochs * self.training.n_samples,
            unit="rows",
            unit_scale=True,
            mininterval=0.5,
            dynamic_ncols=True,
        )
        self._score = None

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.set_description(f"epoch {self.training.n_epochs + 1}/{self.training.max_epochs}")
        self._epoch_start = self.training.n_epochs * self.training.n_samples

    def on_train_batch_end(self, batch, logs=None):
        self._show(logs, logs["n_samples"])

    def on_epoch_end(self, epoch, logs=None):
        self._score = logs.get("validation_score")
        self._show(logs, self.training.n_samples)

    def _show(self, logs, n_samples):
        postfix = f"loss={logs['loss']:.4f}"
        if self._score is not None:
            postfix += f", validation={self._score:.4f}"
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.update(self._epoch_start + n_samples - self._bar.n)

    def on_train_end(self, logs=None):
        if self._bar is not None:
            self._bar.close()


@contextmanager
def loading_bar(n_partitions: int, shown: bool) -> Iterator[Callable[[], Any]]:
    """Yield a function to call after each partition that has been loaded; it moves a bar if `shown`."""
    with _tqdm()(total=n_partitions, desc="loading", unit="partitions", disable=not shown) as bar:
        yield bar.update


def _tqdm():
    with warnings.catch_warnings():
        # Without ipywidgets a notebook gets the bar of a terminal; nobody needs a warning for that.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


class EpochLines(Callback):
    """One line an epoch, in scikit-learn's words."""

    def on_epoch_end(self, epoch, logs=None):
        print("Iteration %d, loss = %.8f" % (self.training.n_epochs + 1, logs["loss"]))
        if "validation_score" in logs:
            print("Validation score: %f" % logs["validation_score"])


class Patience(Callback):
    """scikit-learn's rule for stopping, and for its "adaptive" learning rate.

    A count goes up whenever the loss does not fall by more than tol below the best so far; when it
    exceeds n_iter_no_change, training stops, or the learning rate is divided by 5 until it is at most 1e-6.

    early_stopping: look at the validation score instead, which must rise; in the end the weights of the
    best epoch are restored.
    """

    def __init__(
        self, tol: float, n_iter_no_change: float, adaptive: bool, verbose: bool, early_stopping: bool = False
    ):
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.adaptive = adaptive
        self.verbose = verbose
        self.early_stopping = early_stopping
        self.count = 0
        self.best_loss = float("inf")
        self.best_score = float("-inf")
        self.best_params: Any = None

    def go_on_from(self, earlier: Patience) -> None:
        """Take over what an earlier training had counted."""
        self.count = earlier.count
        self.best_loss, self.best_score = earlier.best_loss, earlier.best_score
        self.best_params = earlier.best_params

    def on_train_begin(self, logs=None):
        if self.early_stopping and self.best_params is None:
            self.best_params = self.training.state.params

    def on_epoch_end(self, epoch, logs=None):
        if self.early_stopping:
            score = logs["validation_score"]
            worse = score < self.best_score + self.tol
            if score > self.best_score:
                self.best_score, self.best_params = score, self.training.state.params
        else:
            worse = logs["loss"] > self.best_loss - self.tol
            self.best_loss = min(self.best_loss, logs["loss"])
        self.count = self.count + 1 if worse else 0
        if self.count > self.n_iter_no_change:
            what = "Validation score" if self.early_stopping else "Training loss"
            self._lose_patience(
                f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
                "consecutive epochs."
            )

    def on_train_end(self, logs=None):
        if self.early_stopping:
            self.training.state = replace(self.training.state, params=self.best_params)

    def _lose_patience(self, message):
        rate = self.training.learning_rate
        if self.adaptive and rate > 1e-6:
            self.training.learning_rate = rate / 5
            self.count = 0
            message += f" Setting learning rate to {rate / 5:f}"
        else:
            self.training.stop_training = True
            message += " Learning rate too small. Stopping." if self.adaptive else " Stopping."
        if self.verbose:
            print(message)


class InverseScaling(Callback):
    """scikit-learn's "invscaling": learning_rate_init / (t + 1) ** power_t, t rows seen so far."""

    def __init__(self, learning_rate_init: float, power_t: float, rows_seen: int = 0):
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.rows_seen = rows_seen

    def on_epoch_end(self, epoch, logs=None):
        self.rows_seen += self.training.n_samples
        self.training.learning_rate = self.learning_rate_init / (self.rows_seen + 1) ** self.power_t


class Clock(Callback):
    """Puts seconds and rows per second of each epoch into logs, so into `history_`."""

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._begin
        logs["rows_per_second"] = logs["n_samples"] / max(logs["seconds"], 1e-9)
