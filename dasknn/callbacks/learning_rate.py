"""Callbacks that set the learning rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dasknn.callbacks.callback import Callback, takes
from dasknn.callbacks.monitor import Monitor


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when what it follows has not become better for `patience`
    epochs.

    Arguments and rules are Keras's.
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
            raise ValueError(f"ReduceLROnPlateau expects factor < 1, received {factor}.")
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
    """Sets the learning rate of each epoch to schedule(epoch, rate), or schedule(epoch)."""

    def __init__(self, schedule: Callable[..., float], verbose=0):
        self.schedule = schedule
        self.verbose = verbose

    def settings(self):
        return {"schedule": self.schedule}

    def on_epoch_begin(self, epoch, logs=None):
        # Not by trying: a TypeError of the schedule's own is the user's to see.
        given = [epoch, self.training.learning_rate] if takes(self.schedule, 2) else [epoch]
        rate = self.schedule(*given)
        if not isinstance(rate, float | np.floating):
            raise ValueError(f"Expected the schedule to return a float, received {rate!r}.")
        self.training.learning_rate = float(rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self.training.learning_rate
