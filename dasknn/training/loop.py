"""The one training loop.

A transport runs an epoch, `epoch(state, on_wave) -> state`. Between epochs the driver holds the state as a
value; callbacks see it, and may stop training or set the learning rate of the next epoch. With L-BFGS, SciPy
runs the loop; each of its iterations counts as an epoch, with the same callbacks around it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from dasknn.callbacks import Callback
from dasknn.engine.state import TrainState
from dasknn.exceptions import NonFiniteLossError, TrainingStopped, caller_stacklevel
from dasknn.optimizers import LBFGS
from dasknn.saving import schema
from dasknn.training.transport import Transport


def loss_of(state: TrainState) -> dict[str, float]:
    """Return the logs of a state if there are no metrics: its loss."""
    return {"loss": state.loss}


def _split(seconds: float, spent: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the seconds of computing, communication and waiting of each worker in an epoch, by address."""
    found = {}
    for address, (compute, communication) in spent.items():
        waiting = max(0.0, seconds - compute - communication)
        found[address] = {"compute": compute, "communication": communication, "waiting": waiting}
    return found


@dataclass(frozen=True)
class Hooks:
    """What an API adds to a training.

    Attributes
    ----------
    report : callable(state) -> dict
        Logs during an epoch and at its end.
    validate : callable(state) -> dict, or None
        More logs at the end of an epoch.
    validated : tuple of str
        Names of the logs of `validate`, in epochs that have any.
    publish : callable(state)
        Gives the model the result of an epoch, before callbacks see it.
    params : mapping or None
        Settings that callbacks see; None: the number of epochs.
    settings : mapping
        Settings that must be equal for another training to resume this one.
    kept : dict
        Values that the API stores in a checkpoint; in a resumed training, those of the first one.
    check_kept : callable(value, where)
        Checks `kept` as it was read from a file.
    follows : bool
        Whether another training of the same call of `fit` came before, which callbacks saw, too.
    called : float or None
        When `fit` was called, by `time.perf_counter`.
    """

    report: Callable[[TrainState], dict[str, float]] = loss_of
    validate: Callable[[TrainState], dict[str, float]] | None = None
    validated: tuple[str, ...] = ()
    publish: Callable[[TrainState], None] = lambda state: None
    params: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    check_kept: schema.Check = schema.anything
    follows: bool = False
    called: float | None = None


class Training:
    """A running training: the loop, and what callbacks see of it.

    Parameters
    ----------
    model : estimator or Sequential
    transport : Transport
    state : TrainState
        The state to begin with.
    max_epochs : int
    callbacks : sequence of Callback
    hooks : Hooks or None
    history : sequence of dicts
        Entries of an earlier training that this one continues.
    first_epoch : int or None
        Number of the first epoch, from 0; None: the next one after the history.

    Attributes
    ----------
    state : TrainState
        The state after the last epoch.
    running : TrainState
        The state within the running epoch, as far as the driver knows it.
    epoch, first_epoch : int
        Number of the running or next epoch, and of the first one, from 0.
    history : list of dicts
        One for each epoch.
    n_before : int
        Length of the earlier history.
    stop_training : bool
        Callbacks set it to end training after the running epoch.
    interrupted : bool
        Whether Ctrl-C ended training.
    is_complete : bool
        Whether all epochs have been run, or a callback has stopped them.
    has_ended : bool
        Whether more epochs would change nothing, since SciPy's optimizer has converged.
    """

    def __init__(
        self,
        model: Any,
        transport: Transport,
        state: TrainState,
        max_epochs: int,
        callbacks: Sequence[Callback] = (),
        hooks: Hooks | None = None,
        history: Sequence[dict[str, Any]] = (),
        first_epoch: int | None = None,
    ):
        self.transport = transport
        self.state = state
        self.first_epoch = self.epoch = len(history) if first_epoch is None else first_epoch
        self.max_epochs = max_epochs
        self.history = list(history)
        self.n_before = len(self.history)
        self.stop_training = False
        self.interrupted = False
        self.running = state
        self._model, self.hooks = model, hooks or Hooks()
        self.is_complete = False
        self.has_ended = False
        self._began = 0.0
        # Until the first epoch has told how long it took to start.
        self._called = None if self.hooks.follows else self.hooks.called
        # Logs of the last epoch, with what callbacks added.
        self._last_logs: dict[str, Any] = {}
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            callback.model, callback.training = model, self
            callback.params = {"epochs": max_epochs} if self.hooks.params is None else self.hooks.params

    @property
    def n_samples(self) -> int:
        """Rows in an epoch."""
        return self.transport.n_samples

    @property
    def n_epochs(self) -> int:
        """Number of epochs that have ended, since the first."""
        return self.epoch - self.first_epoch

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch; callbacks may set it between epochs."""
        return self.state.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not isinstance(self.transport.job.optimizer.learning_rate, Real):
            raise TypeError(
                "The learning rate of this optimizer is a schedule, which a callback cannot change. Create "
                "the optimizer with a number, or leave the callback out."
            )
        self.state = replace(self.state, learning_rate=rate)

    @property
    def should_stop(self) -> bool:
        """Whether a callback has set `self.training.stop_training` or `self.model.stop_training`."""
        return self.stop_training or getattr(self._model, "stop_training", False)

    def run(self) -> TrainState:
        """Train until max_epochs, a callback's stop or Ctrl-C; return the state after the last epoch.

        Raises
        ------
        NonFiniteLossError
            A loss or a weight is not finite; `state` is then that of the last good epoch.
        """
        with self._announced():
            while self.n_epochs < self.max_epochs and not self.should_stop:
                self._begin_epoch()
                self._end_epoch(self.transport.epoch(self.state.begin_epoch(self.epoch), self._on_wave))
        if not np.isfinite(self.state.params).all():
            # A callback let training continue, and none has restored good weights.
            raise self._diverged(self.state)
        return self.state

    def minimize(self, optimizer: LBFGS) -> OptimizeResult | None:
        """Train by iterations on all rows; return SciPy's result, or None after an interruption."""
        job = self.transport.job

        def state_of(params: np.ndarray) -> TrainState:
            return replace(self.state, params=params.astype(self.state.params.dtype, copy=False))

        def loss_and_grad(params: np.ndarray) -> tuple[float, np.ndarray]:
            state = state_of(params)
            loss, grad, weight_sum = self.transport.loss_and_grad(state)
            weights = slice(0, job.network.n_weights)
            job.regularizer.add_gradient(state.params[weights], grad[weights], np.empty_like(grad[weights]))
            penalty = job.regularizer.penalty(*(W.ravel() for W, _ in job.network.views(state.params)))
            return loss + penalty / weight_sum, grad / weight_sum

        def on_iteration(found: OptimizeResult) -> None:
            n_samples = self.n_samples
            state = state_of(found.x.copy()).begin_epoch(self.epoch)
            self._end_epoch(replace(state, loss_total=found.fun * n_samples, n_samples=n_samples))
            if self.should_stop:
                raise StopIteration
            self._begin_epoch()

        result = None
        with self._announced():
            n_left, n_done = self.max_epochs - self.n_epochs, self.n_epochs
            if n_left <= 0:
                # A resumed training may have made all of its iterations before.
                result = OptimizeResult(nit=n_done, status=1, message="All iterations were made before.")
            elif not self.should_stop:
                self._begin_epoch()
                result = optimizer.minimize(loss_and_grad, self.state.params, n_left, on_iteration)
                # The last point is that of the last iteration, unless the line search gave up.
                self.state = replace(
                    state_of(result.x), loss_total=result.fun * self.n_samples, n_samples=self.n_samples
                )
                self._check_finite(self.state)
                result.nit += n_done
                self.has_ended = result.success or self.n_epochs < self.max_epochs
        return result

    @contextmanager
    def _announced(self) -> Iterator[None]:
        self._forget_old_stop()
        with ExitStack() as at_last:
            # All of these run, the last one first, even if the training or one of them raises.
            at_last.callback(self._detach_callbacks)
            at_last.callback(self.transport.close)
            at_last.callback(self._end)
            try:
                self.tell("on_train_begin", logs={})
                self.tell("on_train_ready", logs={})
                yield
                self.is_complete = True
            except KeyboardInterrupt:
                self.interrupted = True
                warnings.warn("Training interrupted by user.", stacklevel=caller_stacklevel())
            except TrainingStopped:
                if not self.n_epochs:
                    # Nothing was learned that could be scored, calibrated or kept.
                    raise
                self.stop_training = True
            except NonFiniteLossError as error:
                self.stop_training = True
                answers = [callback.on_nonfinite_loss(error) for callback in self.callbacks]
                if not any(answers):
                    raise

    def _end(self) -> None:
        self.stop_training = self.should_stop
        with ExitStack() as at_last:
            at_last.callback(self._publish_restored)
            logs = dict(self._last_logs)
            # All callbacks are called, in their order, even if one of them raises.
            for callback in reversed(self.callbacks):
                at_last.callback(callback.on_train_end, logs=logs)

    def _publish_restored(self) -> None:
        """Give the model the final state, in which callbacks may have restored the best weights."""
        if self.n_epochs:
            self.hooks.publish(self.state)

    def _detach_callbacks(self) -> None:
        self._forget_old_stop()
        for callback in self.callbacks:
            # A callback that outlives the training must not keep data and client alive.
            callback.model = callback.training = None

    def _forget_old_stop(self) -> None:
        vars(self._model).pop("stop_training", None)

    def _begin_epoch(self) -> None:
        self.running = self.state.begin_epoch(self.epoch)
        self.tell("on_epoch_begin", self.epoch, logs={})
        self._began = time.perf_counter()

    def _end_epoch(self, state: TrainState) -> None:
        self._check_finite(state)
        self.state = self.running = state
        self.hooks.publish(state)
        logs = self.hooks.report(state)
        if self.hooks.validate is not None:
            logs |= self.hooks.validate(state)
        seconds = time.perf_counter() - self._began
        entry = {
            "epoch": state.epoch + 1,
            "loss": state.loss,
            "n_samples": state.n_samples,
            "learning_rate": self._last_rate(state),
            "engine": self.transport.job.engine,
            "bytes_sent": state.bytes_sent,
            "seconds": seconds,
            "rows_per_second": state.n_samples / max(seconds, 1e-9),
            "workers": _split(seconds, self.transport.spent()),
            "faults": self.transport.events(),
            **self._start(),
        }
        self.history.append(entry | logs)
        self.epoch += 1
        self.tell("on_epoch_end", state.epoch, logs=logs)
        # Callbacks may have added to the logs.
        self.history[-1] |= logs
        self._last_logs = logs
        self.tell("on_epoch_done", state.epoch, logs=logs)

    def _start(self) -> dict[str, float]:
        """Return how long it took from the call of `fit` to its first epoch, for the entry of that epoch."""
        called, self._called = self._called, None
        return {} if called is None else {"seconds_to_start": self._began - called}

    def _last_rate(self, state: TrainState) -> float:
        """Return the learning rate of the last step, which a schedule may have chosen."""
        return self.transport.job.optimizer.rate(state.learning_rate, max(state.step, 1))

    def _on_wave(self, state: TrainState) -> None:
        if not np.isfinite(state.loss):
            self._meet_nonfinite(state)
        self.running = state
        self.tell("on_train_batch_end", state.step, logs=self.hooks.report(state))

    def _check_finite(self, state: TrainState) -> None:
        if not (np.isfinite(state.loss) and np.isfinite(state.params).all()):
            self._meet_nonfinite(state)

    def _meet_nonfinite(self, state: TrainState) -> None:
        votes = {callback.outlives_nonfinite_loss for callback in self.callbacks}
        if True not in votes or False in votes:
            raise self._diverged(state)

    def _diverged(self, state: TrainState) -> NonFiniteLossError:
        return NonFiniteLossError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need "
            f"to be preprocessed. This was in epoch {state.epoch + 1}; the model has the weights of the last "
            "good epoch."
        )

    def tell(self, event: str, *args: Any, logs: dict[str, Any]) -> None:
        """Call the method of this name of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, event)(*args, logs=logs)
