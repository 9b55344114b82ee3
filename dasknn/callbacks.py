"""What happens around training, on the driver: Keras's callbacks, for both faces, and whatever users add.

A callback has Keras's methods; those it does not define do nothing. `training` is the running
`training.Training`, `model` the estimator or `Sequential` being fitted, which has the weights of the last
whole epoch.
"""

from __future__ import annotations

import csv
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import inf, isnan
from types import MappingProxyType
from typing import Any

import numpy as np

from dasknn.saving import snapshots, storage


class Callback:
    """Base class of callbacks; `self.model` is what is being fitted, `self.training` the running training.

    Both are None again when training has ended.

    Set `self.model.stop_training = True`, or `self.training.stop_training`, to end training after the running
    epoch; `self.training.learning_rate` is that of the next epoch. logs holds "loss", metrics and, at the
    end of
    an epoch, validation; what a callback adds to it goes into the history.
    """

    model: Any = None
    training: Any = None
    #: What `fit` was asked for: "epochs", and in a `Sequential` "steps" and "verbose".
    params: Mapping[str, Any] = MappingProxyType({})

    def on_train_begin(self, logs=None) -> None:
        """Before the first epoch."""

    def on_train_ready(self, logs=None) -> None:
        """After on_train_begin of all callbacks."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Before an epoch; epoch counts from 0."""

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Whenever the driver hears of progress within an epoch: after many mini-batches, not each one.

        batch counts the optimizer's steps; logs has "loss" and metrics of the epoch so far.
        """

    def on_epoch_end(self, epoch, logs=None) -> None:
        """After an epoch."""

    def on_epoch_done(self, epoch, logs=None) -> None:
        """After on_epoch_end of all callbacks."""

    def on_train_end(self, logs=None) -> None:
        """After the last epoch, an error or an interruption."""

    def on_test_begin(self, logs=None) -> None:
        """Before `evaluate`, and before validation."""

    def on_test_end(self, logs=None) -> None:
        """After `evaluate`, and after validation."""

    def on_predict_begin(self, logs=None) -> None:
        """Before `predict`."""

    def on_predict_end(self, logs=None) -> None:
        """After `predict`."""

    def __getstate__(self):
        # The training holds the data and a client, which stay in their process.
        return {name: value for name, value in vars(self).items() if name not in ("model", "training")}

    #: Whether training goes on when its loss is no longer finite; None leaves it to others. False outweighs
    #: True, and where nobody says True it ends.
    outlives_nonfinite_loss: bool | None = None

    def on_nonfinite_loss(self, error: Exception) -> bool:
        """Return True if training shall end with the last good weights, and not with that error."""
        return False

    def state(self) -> dict[str, Any] | None:
        """Return what checkpoints shall keep of it: numbers, strings, arrays, lists and dicts of them.

        By default all attributes of these kinds, but `verbose`. None: it remembers nothing and decides
        nothing, so a training may go on with it or without.
        """
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("params", "verbose") and _is_plain(value)
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned in a training that was interrupted."""
        vars(self).update(state)

    def settings(self) -> dict[str, Any]:
        """Return what must be the same for a training to go on, besides the class; by default nothing."""
        return {}


def _is_plain(value) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, np.ndarray) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _is_plain(list(value.values()))
    if isinstance(value, np.ndarray | np.generic):
        # Files hold numbers of at most 8 bytes.
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    return value is None or isinstance(value, bool | int | float | str)


def check_weights(kept, training) -> None:
    """Compare weights that a callback kept with those of a training. ValueError: they do not fit."""
    params = training.state.params
    if kept is not None and (np.shape(kept) != params.shape or np.asarray(kept).dtype != params.dtype):
        raise ValueError(f"Expected weights of shape {params.shape}, received {np.shape(kept)}.")


class CallbackList(Callback):
    """Tells several callbacks of what happens outside of a training."""

    def __init__(self, callbacks, model):
        self.callbacks = as_list(callbacks)
        self.model = model

    def tell(self, event: str, logs: dict[str, Any]) -> None:
        """Call that method of all of them."""
        for callback in self.callbacks:
            callback.model = self.model
            getattr(callback, event)(logs)
            callback.model = None


def as_list(callbacks) -> list[Callback]:
    """Return one callback, several, or None as a list. ValueError: something that is not a callback."""
    if callbacks is None:
        return []
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise ValueError(
                f"Expected callbacks to be objects of subclasses of dasknn.callbacks.Callback, received "
                f"{callback!r}."
            )
    return found


class History(Callback):
    """What a training came to. history: lists, one item an epoch, by name; epoch: numbers of the epochs.

    entries: a dict an epoch with details besides, such as seconds, learning_rate, bytes_sent.
    """

    def __init__(self):
        self.epoch: list[int] = []
        self.history: dict[str, list] = {}
        self.entries: list[dict[str, Any]] = []

    def on_train_begin(self, logs=None):
        self.epoch, self.history, self.entries = [], {}, []

    def note(self, epoch: int, logs: dict[str, Any]) -> None:
        """Take down an epoch."""
        self.epoch.append(epoch)
        for name, value in sorted(logs.items()):
            self.history.setdefault(name, []).append(value)

    def on_epoch_end(self, epoch, logs=None):
        self.note(epoch, logs or {})

    def on_train_end(self, logs=None):
        n_epochs = len(self.epoch)
        self.entries = self.training.history[-n_epochs:] if n_epochs else []

    def __repr__(self):
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"


# --- what looks at one number ----------------------------------------------------------------------

_FALLING = (
    "loss", "error", "crossentropy", "divergence", "hinge", "poisson", "cosh", "huber", "mse", "mae", "mape",
    "msle", "false_",
)  # fmt: skip
_RISING = (
    "acc", "auc", "precision", "recall", "score", "iou", "true_", "sensitivity", "specificity",
    "cosine_similarity",
)  # fmt: skip


class Monitor(Callback):
    """Follows one of the logs; mode: "min", "max" or "auto", by the name."""

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
        """Return 1 if what is followed shall rise, -1 if it shall fall."""
        if self.mode != "auto":
            return 1 if self.mode == "max" else -1
        if any(part in self.monitor for part in _RISING) and "error" not in self.monitor:
            return 1
        if any(part in self.monitor for part in _FALLING):
            return -1
        raise ValueError(
            f"Cannot tell whether {self.monitor!r} shall rise or fall. Pass mode='max' or mode='min' to "
            f"{type(self).__name__}."
        )

    def _is_better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        if than is None:
            return not isnan(value)
        sign = self._sign()
        return sign * value - by > sign * than

    def _comes_later(self) -> bool:
        """Return whether what is followed is to come with the validation of another epoch."""
        training = self.training
        return self.monitor in training.face.validated and training.n_epochs < training.max_epochs

    def _value(self, logs) -> float | None:
        """Return what is followed, if it is there: a number, or a list of one. ValueError: several numbers.

        Warn if it is not there, and will not be.
        """
        if self.monitor not in (logs or {}):
            if not (self._was_there or self._comes_later()):
                warnings.warn(
                    f"{type(self).__name__} looks for {self.monitor!r}, which is not available. Available "
                    f"are: {', '.join(sorted(logs or {}))}.",
                    stacklevel=4,
                )
            return None
        value = np.asarray(logs[self.monitor], np.float64)
        if value.size != 1:
            raise ValueError(
                f"{type(self).__name__} follows one number, and {self.monitor!r} is {value.size}: "
                f"{logs[self.monitor]}. Choose a metric that is one, such as the mean (average='macro')."
            )
        self._was_there = True
        return value.item()


class EarlyStopping(Monitor):
    """Stops training when what it follows has not become better by min_delta for `patience` epochs.

    Arguments and rules are Keras's. restore_best_weights: go back to the weights of the best epoch.
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
        # Kept, they would be weights of a model that may be gone.
        self.best_weights = None


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
        given = [epoch, self.training.learning_rate] if _takes(self.schedule, 2) else [epoch]
        rate = self.schedule(*given)
        if not isinstance(rate, float | np.floating):
            raise ValueError(f"Expected the schedule to return a float, received {rate!r}.")
        self.training.learning_rate = float(rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self.training.learning_rate


def _takes(function: Callable, n_arguments: int) -> bool:
    """Return whether a function can be called with so many arguments; those that do not say, can."""
    try:
        inspect.signature(function).bind(*[None] * n_arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


# --- what writes files -----------------------------------------------------------------------------


class ModelCheckpoint(Monitor):
    """Saves the model, or its weights, after epochs; arguments are Keras's.

    filepath may name logs, as in "model-{epoch:02d}-{val_loss:.2f}.keras". save_freq: "epoch", or a number of
    mini-batches, after which it saves as soon as the driver hears of them; then filepath may name "batch",
    the number of the mini-batch within the epoch, from 1. save_best_only: where what it looks for is never
    there, it warns and saves, as Keras does; epochs without validation are passed over.
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
        self.filepath = _named("filepath", filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self._last_saved = 0
        self._epoch = self._first_step = 0

    def state(self):
        # Where, when and how it saves is for each fit to say.
        own = {"filepath", "save_freq", "save_best_only", "save_weights_only", *super().settings()}
        return {name: value for name, value in (super().state() or {}).items() if name not in own}

    def settings(self):
        return {}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first_step = epoch, self.training.state.step

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch" and batch - self._last_saved >= self.save_freq:
            self._last_saved = batch
            self.training.face.publish(self.training.running)
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
                    f"\nEpoch {epoch + 1}: {self.monitor} improved from {before:.5f} to {value:.5f}, saving "
                    f"model "
                    f"to {path}"
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
            warnings.warn(f"{error} Until then, it saves each time.", stacklevel=4)
            return None

    def _path(self, known: dict[str, Any]) -> str:
        try:
            return self.filepath.format(**known)
        except KeyError as error:
            raise KeyError(
                f"filepath {self.filepath!r} names {error}, which is not among the logs: {', '.join(known)}."
            ) from None


def _named(argument: str, path) -> str:
    """Return a path as text. ValueError: an empty one, which would be the working directory."""
    path = os.fspath(path)
    if not path:
        raise ValueError(f"Expected {argument} to name a place, received {path!r}.")
    return path


class BackupAndRestore(Callback):
    """Keeps a copy of the whole training in a folder; a fit that was interrupted goes on from it.

    Weights, the optimizer's state, the epoch, histories, the seed of all random draws and the state of all
    callbacks: the resumed run gives the bits of one that was not interrupted. (Keras restores weights and
    epoch.)
    The copy is written to a new name and renamed. delete_checkpoint: remove it once training has ended.
    `fit(checkpoint=..., resume=True)` keeps two copies, and survives a damaged one and a full disk.
    """

    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        if save_freq != "epoch":
            raise ValueError(f"BackupAndRestore expects save_freq='epoch', received {save_freq!r}.")
        self.backup_dir = _named("backup_dir", backup_dir)
        self.delete_checkpoint = delete_checkpoint

    @property
    def path(self) -> str:
        """The file of the copy."""
        return storage.join(self.backup_dir, "training.safetensors")

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        if storage.exists(self.path):
            remedy = "Use the settings and data of before, or another backup_dir."
            snapshots.restore(self.training, snapshots.read(self.path), self.path, remedy)

    def on_epoch_done(self, epoch, logs=None):
        storage.make_folder(self.backup_dir)
        snapshots.write(self.path, snapshots.snapshot(self.training))

    def on_train_end(self, logs=None):
        if self.delete_checkpoint and self.training.is_complete:
            storage.remove(self.path)


class CSVLogger(Callback):
    """Writes a line an epoch to a file: epoch, from 0, and logs; NA for what an epoch does not have.

    The columns are those of the first epoch, and of validation whenever it comes. append: go on with an
    existing file, and its columns.
    """

    def __init__(self, filename, separator=",", append=False):
        self.filename = _named("filename", filename)
        self.separator = separator
        self.append = append
        self.keys: list[str] | None = None
        self._left_out: list[str] = []
        #: Bytes of the file that are to be kept; behind them the next line goes.
        self.size = 0

    def state(self):
        return {"keys": self.keys, "size": self.size}

    def on_train_begin(self, logs=None):
        self.keys, self.size, self._left_out = None, 0, []
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="") as file:
                header = next(csv.reader(file, delimiter=self.separator), None)
            self.keys = header[1:] if header else None
            self.size = os.path.getsize(self.filename)

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        with open(self.filename, "a", newline="") as file:
            if file.tell() < self.size:
                self.keys, self.size = None, 0
            # What an interrupted training wrote after its last copy comes again.
            file.truncate(self.size)
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self.keys is None:
                self.keys = sorted({*logs, *self.training.face.validated})
                writer.writerow(["epoch", *self.keys])
            writer.writerow([epoch, *(logs.get(key, "NA") for key in self.keys)])
        if strange := sorted(set(logs) - {*self.keys, *self._left_out}):
            self._left_out += strange
            warnings.warn(
                f"{self.filename} has no column for {', '.join(strange)}, which are left out.", stacklevel=3
            )
        self.size = os.path.getsize(self.filename)


class TensorBoard(Callback):
    """Writes event files that TensorBoard shows: loss, metrics and learning rate of each epoch.

    Needs the package tensorboard. histogram_freq: epochs between histograms of weights, 0 for none. Of
    Keras's
    other arguments those are taken that change nothing here; a graph, images and embeddings are not written.
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        write_images=False,
        write_steps_per_second=False,
        update_freq="epoch",
        profile_batch=0,
        embeddings_freq=0,
        embeddings_metadata=None,
    ):
        if update_freq not in ("epoch", "batch") and not isinstance(update_freq, int):
            raise ValueError(
                f"Expected update_freq to be 'epoch', 'batch' or a number, received {update_freq!r}."
            )
        self.log_dir = _named("log_dir", log_dir)
        self.histogram_freq = histogram_freq
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = update_freq
        self._writers: dict[str, Any] = {}

    def state(self):
        return None

    def on_train_begin(self, logs=None):
        _tensorboard()

    def on_epoch_begin(self, epoch, logs=None):
        self._step = self.training.state.step

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            self._write("train", batch, {f"batch_{name}": value for name, value in (logs or {}).items()})

    def on_epoch_end(self, epoch, logs=None):
        logs = dict(logs or {})
        own = {f"epoch_{name}": value for name, value in logs.items() if not name.startswith("val_")}
        own["epoch_learning_rate"] = self.training.learning_rate
        if self.write_steps_per_second:
            entry = self.training.history[-1]
            own["epoch_steps_per_second"] = (self.training.state.step - self._step) / entry["seconds"]
        self._write("train", epoch, own)
        validation = {
            f"epoch_{name.removeprefix('val_')}": value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        if validation:
            self._write("validation", epoch, validation)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            network = self.training.transport.job.network
            params = np.atleast_2d(self.training.state.params)[0]
            for variable in network.variables:
                layer = network.layers[variable.layer].name or f"layer_{variable.layer}"
                self._write_histogram(f"{layer}/{variable.name}", epoch, params[variable.span])

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, folder: str, step: int, values: dict[str, float]) -> None:
        _, summary, _ = _tensorboard()
        found = [summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._add(folder, step, summary(value=found))

    def _write_histogram(self, tag: str, step: int, values: np.ndarray) -> None:
        _, summary, histogram = _tensorboard()
        counts, edges = np.histogram(values, bins=30)
        proto = histogram(
            min=float(values.min()),
            max=float(values.max()),
            num=len(values),
            sum=float(values.sum()),
            sum_squares=float(np.square(values).sum()),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._add("train", step, summary(value=[summary.Value(tag=tag, histo=proto)]))

    def _add(self, folder: str, step: int, summary) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        if folder not in self._writers:
            writer, _, _ = _tensorboard()
            self._writers[folder] = writer(os.path.join(self.log_dir, folder))
        self._writers[folder].add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writers[folder].flush()


def _tensorboard():
    try:
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise ImportError(
            "callbacks.TensorBoard needs the package tensorboard: pip install 'dasknn[tensorboard]'."
        ) from None
    return EventFileWriter, Summary, HistogramProto


# --- others ------------------------------------------------------------------------------------------


class LambdaCallback(Callback):
    """Calls functions: LambdaCallback(on_epoch_end=lambda epoch, logs: ...)."""

    def __init__(
        self,
        on_epoch_begin=None,
        on_epoch_end=None,
        on_train_begin=None,
        on_train_end=None,
        on_train_batch_begin=None,
        on_train_batch_end=None,
        **kwargs,
    ):
        functions = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        if on_train_batch_begin is not None:
            raise ValueError(
                "on_train_batch_begin is never called: mini-batches begin on workers, of which the driver "
                "hears "
                "once in a while. Use on_epoch_begin or on_train_batch_end."
            )
        for name, function in functions.items():
            if not hasattr(Callback, name):
                raise ValueError(f"Expected names of Callback's methods, received {name!r}.")
            if function is not None:
                setattr(self, name, function)

    def state(self):
        return None


class TerminateOnNaN(Callback):
    """Ends training when the loss is no longer finite, with the last good weights, and without an error.

    raise_error: with the error, whatever other callbacks say; it is what training does without this one.
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
