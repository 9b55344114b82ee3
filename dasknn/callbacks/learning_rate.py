"""Callbacks that change the learning rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dasknn.callbacks.callback import Callback, takes
from dasknn.callbacks.monitor import Monitor


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by a factor when a number has not improved for several epochs.

    Parameters
    ----------
    monitor : str, default="val_loss"
        Name in the logs.
    factor : float, default=0.1
        The factor, below 1.
    patience : int, default=10
        Number of epochs without improvement after which the rate is reduced.
    verbose : int, default=0
        Whether to print a line when the rate is reduced.
    mode : {"auto", "min", "max"}, default="auto"
        Whether smaller or larger is better; "auto": decided by the name.
    min_delta : float, default=1e-4
        Smallest change that counts as an improvement.
    cooldown : int, default=0
        Number of epochs after a reduction that do not count.
    min_lr : float, default=0.0
        Least learning rate.
    """

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0.0,
    ):
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau expects factor to be below 1, received {factor}.")
        super().__init__(monitor, mode, min_delta)
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._begin()

    def _begin(self):
        self.wait = self.cooldown_counter = 0
        self.best: float | None = None

    def settings(self):
        return {
            **super().settings(),
            "factor": self.factor,
            "patience": self.patience,
            "cooldown": self.cooldown,
            "min_lr": self.min_lr,
        }

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._begin()

    def on_epoch_end(self, epoch, logs=None):
        value = self._value(logs)
        logs["learning_rate"] = self.training.learning_rate
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_better(value, self.best, self.min_delta):
            self.best, self.wait = value, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and (rate := self.training.learning_rate) > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.training.learning_rate = rate
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")
                self.cooldown_counter = self.cooldown
                self.wait = 0


class LearningRateScheduler(Callback):
    """Set the learning rate of each epoch to the value of a function.

    Parameters
    ----------
    schedule : callable
        Returns the rate, a float, from the number of the epoch, from 0, and (if it has a second argument) the
        current rate.
    verbose : int, default=0
        Whether to print a line for each epoch.
    """

    def __init__(self, schedule: Callable[..., float], verbose=0):
        self.schedule = schedule
        self.verbose = verbose

    def settings(self):
        return {"schedule": self.schedule}

    def on_epoch_begin(self, epoch, logs=None):
        # Do not try both ways: a TypeError inside the schedule must reach the user.
        given = [epoch, self.training.learning_rate] if takes(self.schedule, 2) else [epoch]
        rate = self.schedule(*given)
        if not isinstance(rate, float | np.floating):
            raise ValueError(f"LearningRateScheduler expects schedule to return a float, received {rate!r}.")
        self.training.learning_rate = float(rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self.training.learning_rate
