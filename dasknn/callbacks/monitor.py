"""Callbacks that monitor one number of the logs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from math import inf, isnan
from typing import Any

import numpy as np

from dasknn.callbacks.callback import Callback, check_weights, named
from dasknn.exceptions import caller_stacklevel
from dasknn.saving import storage

# --- monitoring one number ----------------------------------------------------------------------

_FALLING = (
    "loss", "error", "crossentropy", "divergence", "hinge", "poisson", "cosh", "huber", "mse", "mae", "mape",
    "msle", "false_",
)  # fmt: skip
_RISING = (
    "acc", "auc", "precision", "recall", "score", "iou", "true_", "sensitivity", "specificity",
    "cosine_similarity",
)  # fmt: skip


class Monitor(Callback):
    """Base class of callbacks that monitor one number of the logs.

    Parameters
    ----------
    monitor : str
        Name in the logs.
    mode : {"auto", "min", "max"}, default="auto"
        Whether smaller or larger is better; "auto": decided by the name.
    min_delta : float
        Smallest change that counts as an improvement.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"Expected mode to be 'auto', 'min' or 'max', received {mode!r}.")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self._was_there = False

    def on_train_begin(self, logs=None):
        self._was_there = False

    def settings(self):
        return {"monitor": self.monitor, "mode": self.mode, "min_delta": self.min_delta}

    def _sign(self) -> int:
        """Return 1 if larger is better, -1 if smaller is better."""
        if self.mode != "auto":
            return 1 if self.mode == "max" else -1
        if any(part in self.monitor for part in _RISING) and "error" not in self.monitor:
            return 1
        if any(part in self.monitor for part in _FALLING):
            return -1
        raise ValueError(
            f"{type(self).__name__} cannot tell whether larger or smaller values of {self.monitor!r} are "
            "better. Pass mode='max' or mode='min'."
        )

    def _is_better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        if than is None:
            return not isnan(value)
        sign = self._sign()
        return sign * value - by > sign * than

    def _comes_later(self) -> bool:
        """Return whether a later epoch with validation will log the number."""
        training = self.training
        return self.monitor in training.hooks.validated and training.n_epochs < training.max_epochs

    def _value(self, logs) -> float | None:
        """Return the number that is monitored, or None; ValueError if there are several numbers.

        Warn if the number is missing and no later epoch will log it.
        """
        if self.monitor not in (logs or {}):
            if not (self._was_there or self._comes_later()):
                warnings.warn(
                    f"{type(self).__name__} monitors {self.monitor!r}, which is not available. Available "
                    f"are: {', '.join(sorted(logs or {}))}.",
                    stacklevel=caller_stacklevel(),
                )
            return None
        value = np.asarray(logs[self.monitor], np.float64)
        if value.size != 1:
            raise ValueError(
                f"{type(self).__name__} expects {self.monitor!r} to be one number, received {value.size}: "
                f"{logs[self.monitor]}. Monitor a metric that is one number, such as a mean "
                "(average='macro')."
            )
        self._was_there = True
        return value.item()


class EarlyStopping(Monitor):
    """Stop training when a number has not improved for several epochs.

    Parameters
    ----------
    monitor : str, default="val_loss"
        Name in the logs.
    min_delta : float, default=0
        Smallest change that counts as an improvement.
    patience : int, default=0
        Number of epochs without improvement after which training stops.
    verbose : int, default=0
        Whether to print a line when training stops.
    mode : {"auto", "min", "max"}, default="auto"
        Whether smaller or larger is better; "auto": decided by the name.
    baseline : float or None, default=None
        Patience is renewed only by epochs that are also better than this value.
    restore_best_weights : bool, default=False
        Whether the model ends with the weights of the best epoch.
    start_from_epoch : int, default=0
        Epochs before it are ignored.
    """

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0,
        patience=0,
        verbose=0,
        mode="auto",
        baseline=None,
        restore_best_weights=False,
        start_from_epoch=0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._begin()

    def _begin(self):
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best: float | None = None
        self.best_weights: Any = None

    def settings(self):
        return {
            **super().settings(),
            "patience": self.patience,
            "baseline": self.baseline,
            "restore_best_weights": self.restore_best_weights,
            "start_from_epoch": self.start_from_epoch,
        }

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._begin()

    def on_epoch_end(self, epoch, logs=None):
        value = self._value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._remember(epoch)
        self.wait += 1
        if self._is_better(value, self.best, self.min_delta):
            self.best = value
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._remember(epoch)
            if self.baseline is None or self._is_better(value, self.baseline, self.min_delta):
                self.wait = 0
                return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.training.stop_training = True

    def _remember(self, epoch: int) -> None:
        self.best_weights, self.best_epoch = self.training.state.params.copy(), epoch

    def restore(self, state):
        check_weights(state.get("best_weights"), self.training)
        super().restore(state)

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.training.state = replace(self.training.state, params=self.best_weights)
        # Do not keep the weights of a model that may no longer exist.
        self.best_weights = None


# --- saving models -----------------------------------------------------------------------------


class ModelCheckpoint(Monitor):
    """Save the model, or its weights, during training.

    Parameters
    ----------
    filepath : str or path
        File, or fsspec URL. May contain logs, as in `"model-{epoch:02d}-{val_loss:.2f}.keras"`; with a number
        as save_freq also `{batch}`, the number of the mini-batch in the epoch, from 1.
    monitor : str, default="val_loss"
        Name in the logs.
    verbose : int, default=0
        Whether to print a line when the model is saved.
    save_best_only : bool, default=False
        Whether to save only when the number has improved. Epochs without it are skipped; if no epoch has it,
        each epoch is saved with a warning, as in Keras.
    save_weights_only : bool, default=False
        Whether to save weights instead of the model.
    mode : {"auto", "min", "max"}, default="auto"
        Whether smaller or larger is better; "auto": decided by the name.
    save_freq : "epoch" or int, default="epoch"
        Save after each epoch, or after this number of mini-batches, as soon as their progress is reported.
    initial_value_threshold : float or None, default=None
        Value to improve on first.
    """

    def __init__(
        self,
        filepath,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        initial_value_threshold=None,
    ):
        super().__init__(monitor, mode, 0.0)
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(
                f"Expected save_freq to be 'epoch' or a number of mini-batches, received {save_freq!r}."
            )
        self.filepath = named("filepath", filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self._last_saved = 0
        self._epoch = self._first_step = 0

    def state(self):
        # Each fit chooses where, when and how to save.
        own = {"filepath", "save_freq", "save_best_only", "save_weights_only", *super().settings()}
        return {name: value for name, value in (super().state() or {}).items() if name not in own}

    def settings(self):
        return {}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first_step = epoch, self.training.state.step

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch" and batch - self._last_saved >= self.save_freq:
            self._last_saved = batch
            self.training.hooks.publish(self.training.running)
            self._save(self._epoch, logs, {"batch": batch - self._first_step})

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _comes_later(self):
        return self.save_freq == "epoch" and super()._comes_later()

    def _save(self, epoch: int, logs, place: dict[str, int] | None = None) -> None:
        path = self._path({"epoch": epoch + 1, **(place or {}), **dict(sorted((logs or {}).items()))})
        value = self._best_by(logs) if self.save_best_only else None
        if self.save_best_only and value is None and (self._was_there or self._comes_later()):
            # An epoch without validation.
            return
        if value is not None:
            if not self._is_better(value, self.best):
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}")
                return
            if self.verbose:
                before = inf if self.best is None else self.best
                print(
                    f"\nEpoch {epoch + 1}: {self.monitor} improved from {before:.5f} to {value:.5f}, "
                    f"saving model to {path}"
                )
            self.best = value
        elif self.verbose:
            print(f"\nEpoch {epoch + 1}: saving model to {path}")
        storage.make_folder(storage.folder_of(path))
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)

    def _best_by(self, logs) -> float | None:
        try:
            return self._value(logs)
        except ValueError as error:
            warnings.warn(f"{error} Until then, every epoch is saved.", stacklevel=caller_stacklevel())
            return None

    def _path(self, known: dict[str, Any]) -> str:
        try:
            return self.filepath.format(**known)
        except KeyError as error:
            raise KeyError(
                f"ModelCheckpoint expects filepath to contain names of logs ({', '.join(known)}), received "
                f"{error} in {self.filepath!r}."
            ) from None


class TerminateOnNaN(Callback):
    """End training with the last finite weights, instead of an error, when the loss is no longer finite.

    Parameters
    ----------
    raise_error : bool, default=False
        Whether to raise the error, as training does without this callback.
    """

    def __init__(self, raise_error=False):
        self.raise_error = raise_error

    def state(self):
        return {}

    outlives_nonfinite_loss = False

    def on_nonfinite_loss(self, error):
        if self.raise_error:
            raise error
        print(f"\n{error} Terminating training.")
        return True
