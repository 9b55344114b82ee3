"""scikit-learn's rules for stopping and for learning rates, as callbacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dasknn.callbacks import Callback, check_weights


class Patience(Callback):
    """scikit-learn's rule for stopping, and for its "adaptive" learning rate.

    If the loss has not fallen by more than tol below the best one for more than n_iter_no_change epochs,
    training stops; an adaptive learning rate is divided by 5 instead, until it is at most 1e-6.

    Parameters
    ----------
    tol : float
    n_iter_no_change : int or inf
    adaptive : bool
    verbose : bool
        Whether to print scikit-learn's line when training stops.
    early_stopping : bool, default=False
        Watch the validation score, which must rise, instead of the loss, and restore the weights of the best
        epoch at the end. As in scikit-learn, a training that diverges then continues, with scores of NaN.
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

    @property
    def outlives_nonfinite_loss(self):  # type: ignore[override]
        """True with early stopping, which restores the weights of a good epoch; else None."""
        return True if self.early_stopping else None

    def resume_from(self, earlier: Patience) -> None:
        """Continue the count of an earlier training."""
        self.count = earlier.count
        self.best_loss, self.best_score = earlier.best_loss, earlier.best_score
        self.best_params = earlier.best_params

    def restore(self, state):
        check_weights(state.get("best_params"), self.training)
        super().restore(state)

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
            self._slow_down_or_stop(
                f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
                "consecutive epochs."
            )

    def on_train_end(self, logs=None):
        if self.early_stopping:
            self.training.state = replace(self.training.state, params=self.best_params)

    def _slow_down_or_stop(self, message: str) -> None:
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
    """scikit-learn's "invscaling": `learning_rate_init / (t + 1) ** power_t` after t rows."""

    def __init__(self, learning_rate_init: float, power_t: float, rows_seen: int = 0):
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.rows_seen = rows_seen

    def on_epoch_end(self, epoch, logs=None):
        self.rows_seen += self.training.n_samples
        self.training.learning_rate = self.learning_rate_init / (self.rows_seen + 1) ** self.power_t
