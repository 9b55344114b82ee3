"""Base classes of callbacks, which the process that calls `fit` runs around a training.

A callback has Keras's methods; those that it does not override do nothing. `training` is the running
`loop.Training`; `model` is the estimator or `Sequential` being fitted, with the weights of the last complete
epoch.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np


class Callback:
    """Base class of callbacks.

    Attributes
    ----------
    model : MLPClassifier, MLPRegressor, Sequential or None
        The model being fitted; None when no training is running.
    training : object or None
        The running training.
    params : mapping
        Arguments of `fit`: "epochs", and for a `Sequential` "steps" and "verbose".

    Notes
    -----
    Set `self.model.stop_training = True` to end training after the running epoch. Set
    `self.training.learning_rate` to change the learning rate from the next epoch on.

    `logs` holds "loss", metrics and, at the end of an epoch, validation results. Values that a callback adds
    in `on_epoch_end` are recorded in the history.
    """

    model: Any = None
    training: Any = None
    params: Mapping[str, Any] = MappingProxyType({})

    def on_train_begin(self, logs=None) -> None:
        """Run before the first epoch."""

    def on_train_ready(self, logs=None) -> None:
        """Run after `on_train_begin` of all callbacks."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Run before an epoch; epochs are counted from 0."""

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Run when progress within an epoch is reported: after many mini-batches, not after each.

        Parameters
        ----------
        batch : int
            Steps of the optimizer so far.
        logs : dict
            "loss" and metrics of the epoch so far.
        """

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Run after an epoch."""

    def on_epoch_done(self, epoch, logs=None) -> None:
        """Run after `on_epoch_end` of all callbacks."""

    def on_train_end(self, logs=None) -> None:
        """Run after the last epoch, an error or an interruption."""

    def on_test_begin(self, logs=None) -> None:
        """Run before `evaluate` and before validation."""

    def on_test_end(self, logs=None) -> None:
        """Run after `evaluate` and after validation."""

    def on_predict_begin(self, logs=None) -> None:
        """Run before `predict`."""

    def on_predict_end(self, logs=None) -> None:
        """Run after `predict`."""

    def __getstate__(self):
        # The training holds data and a client, which cannot be sent to another process.
        return {name: value for name, value in vars(self).items() if name not in ("model", "training")}

    #: Whether training continues when its loss is no longer finite; None: other callbacks decide. It ends if
    #: any callback has False, or none has True.
    outlives_nonfinite_loss: bool | None = None

    def on_nonfinite_loss(self, error: Exception) -> bool:
        """Return True to end training with the last finite weights, False to raise the error."""
        return False

    def state(self) -> dict[str, Any] | None:
        """Return the state of the callback for checkpoints.

        Returns
        -------
        dict or None
            Numbers, strings, arrays, and lists and dicts of them; by default all attributes of these types
            except `verbose`. None: the callback has no state and does not affect the training, so it may be
            added or removed when the training is resumed.
        """
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("params", "verbose") and _is_plain(value)
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned before the training was interrupted."""
        vars(self).update(state)

    def settings(self) -> dict[str, Any]:
        """Return the settings that must be the same when a training is resumed; by default none."""
        return {}


def _is_plain(value) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, np.ndarray) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _is_plain(list(value.values()))
    if isinstance(value, np.ndarray | np.generic):
        # Files cannot hold larger numbers.
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    return value is None or isinstance(value, bool | int | float | str)


def check_weights(kept, training) -> None:
    """Raise ValueError if weights that a callback kept do not fit the training."""
    params = training.state.params
    if kept is not None and (np.shape(kept) != params.shape or np.asarray(kept).dtype != params.dtype):
        raise ValueError(
            f"Expected weights of shape {params.shape} and dtype {params.dtype}, received "
            f"{np.shape(kept)} and {np.asarray(kept).dtype}."
        )


class CallbackList(Callback):
    """Calls several callbacks outside of a training."""

    def __init__(self, callbacks, model):
        self.callbacks = as_list(callbacks)
        self.model = model

    def tell(self, event: str, logs: dict[str, Any]) -> None:
        """Call the method of this name of every callback."""
        for callback in self.callbacks:
            callback.model = self.model
            getattr(callback, event)(logs)
            callback.model = None


def as_list(callbacks) -> list[Callback]:
    """Return one callback, several, or None as a list; ValueError for objects that are not callbacks."""
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
    """Return whether a function accepts n positional arguments; True if it has no signature."""
    try:
        inspect.signature(function).bind(*[None] * n_arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def named(argument: str, path) -> str:
    """Return a path as text; ValueError if it is empty, which would mean the working directory."""
    path = os.fspath(path)
    if not path:
        raise ValueError(f"Expected {argument} to be the path of a file or folder, received {path!r}.")
    return path


# --- others ------------------------------------------------------------------------------------------


class LambdaCallback(Callback):
    """Call functions, as in `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_end : callable or None
        Functions with the arguments of these methods of `Callback`.
    **kwargs : callable
        Functions for other methods, by name.
    """

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
                "LambdaCallback expects on_train_batch_begin=None, received a function. It would never be "
                "called, because mini-batches begin on workers. Use on_epoch_begin or on_train_batch_end."
            )
        for name, function in functions.items():
            if not hasattr(Callback, name):
                raise ValueError(f"Expected the name of a method of Callback, received {name!r}.")
            if function is not None:
                setattr(self, name, function)

    def state(self):
        return None
