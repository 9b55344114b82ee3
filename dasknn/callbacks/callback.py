"""What happens around training, on the driver: Keras's callbacks, for both faces, and whatever users add.

A callback has Keras's methods; those it does not define do nothing. `training` is the running
`loop.Training`, `model` the estimator or `Sequential` being fitted, which has the weights of the last
whole epoch.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np


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


def takes(function: Callable, n_arguments: int) -> bool:
    """Return whether a function can be called with so many arguments; those that do not say, can."""
    try:
        inspect.signature(function).bind(*[None] * n_arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def named(argument: str, path) -> str:
    """Return a path as text. ValueError: an empty one, which would be the working directory."""
    path = os.fspath(path)
    if not path:
        raise ValueError(f"Expected {argument} to name a place, received {path!r}.")
    return path


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
