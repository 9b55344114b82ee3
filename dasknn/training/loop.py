"""The one training loop.

An epoch is run by a transport, `epoch(state, on_wave) -> state`. The driver holds the state as a value
between epochs; callbacks see it, and may stop training or set the learning rate of the next epoch. An
iteration of L-BFGS counts as an epoch: its loop is SciPy's, and what happens around it is the same.
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
from dasknn.exceptions import NonFiniteLossError, caller_stacklevel
from dasknn.optimizers import LBFGS
from dasknn.saving import schema
from dasknn.training.transport import Transport


def loss_of(state: TrainState) -> dict[str, float]:
    """Return what callbacks hear of a state, where there is nothing but its loss."""
    return {"loss": state.loss}


def _split(seconds: float, spent: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return what each worker did in an epoch of so many seconds, by address."""
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
    report : callable(state) -> logs, during an epoch and at its end
    validate : callable(state) -> more logs at the end of an epoch, or None
    validated : names of those logs, for epochs that have any
    publish : callable(state) that gives the model what was learned, before callbacks look at it
    params : settings that callbacks see, or None for the number of epochs
    settings : what must be equal for another training to resume this one
    kept : what the API stores in a checkpoint; a resumed training finds there what the first one stored
    check_kept : checks `kept` as it was read from a file
    """

    report: Callable[[TrainState], dict[str, float]] = loss_of
    validate: Callable[[TrainState], dict[str, float]] | None = None
    validated: tuple[str, ...] = ()
    publish: Callable[[TrainState], None] = lambda state: None
    params: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    check_kept: schema.Check = schema.anything


class Training:
    """A running training: what callbacks see of it, and the loop.

    history: entries of an earlier training that this one goes on from; first_epoch: the number of the first
    epoch, from 0, if it is not that of such entries.
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
        #: Number of the first epoch, and of the one that runs or comes next; they count from 0.
        self.first_epoch = self.epoch = len(history) if first_epoch is None else first_epoch
        self.max_epochs = max_epochs
        self.history = list(history)
        self.n_before = len(self.history)
        self.stop_training = False
        self.interrupted = False
        #: Samples and steps of the running epoch, as far as the driver has heard.
        self.running = state
        self._model, self.hooks = model, hooks or Hooks()
        #: Whether all epochs have been run, or a callback has stopped them.
        self.is_complete = False
        #: Whether there is nothing left to learn, however many epochs are: SciPy says so.
        self.has_ended = False
        self._began = 0.0
        # What callbacks heard, and said, of the last epoch.
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
        """Epochs that have ended since the first."""
        return self.epoch - self.first_epoch

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch, while no epoch runs; callbacks may set it."""
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
        """Whether a callback has said so, by `self.training.stop_training` or `self.model.stop_training`."""
        return self.stop_training or getattr(self._model, "stop_training", False)

    def run(self) -> TrainState:
        """Train until max_epochs, a callback's stop or Ctrl-C; return the state after the last epoch.

        Raises NonFiniteLossError as soon as a loss is; self.state is then the last good one.
        """
        with self._announced():
            while self.n_epochs < self.max_epochs and not self.should_stop:
                self._begin_epoch()
                self._end_epoch(self.transport.epoch(self.state.begin_epoch(self.epoch), self._on_wave))
        if not np.isfinite(self.state.params).all():
            # Callbacks that went on have not brought back good ones.
            raise self._diverged(self.state)
        return self.state

    def minimize(self, optimizer: LBFGS) -> OptimizeResult | None:
        """Train by iterations on all rows; return what SciPy says, or None after an interruption."""
        job = self.transport.job

        def state_of(params) -> TrainState:
            return replace(self.state, params=params.astype(self.state.params.dtype, copy=False))

        def loss_and_grad(params):
            state = state_of(params)
            loss, grad, weight_sum = self.transport.loss_and_grad(state)
            weights = slice(0, job.network.n_weights)
            job.regularizer.add_gradient(state.params[weights], grad[weights], np.empty_like(grad[weights]))
            penalty = job.regularizer.penalty(*(W.ravel() for W, _ in job.network.views(state.params)))
            return loss + penalty / weight_sum, grad / weight_sum

        def on_iteration(found) -> None:
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
                # Of a training that goes on, all iterations may have been made.
                result = OptimizeResult(nit=n_done, status=1, message="All iterations were made before.")
            elif not self.should_stop:
                self._begin_epoch()
                result = optimizer.minimize(loss_and_grad, self.state.params, n_left, on_iteration)
                # The loss of the last point is that of its iteration, unless the line search gave up.
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
            # All of these are done, the last one first, whatever has ended the training or fails among them.
            at_last.callback(self._let_callbacks_go)
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
            # All of them hear of the end, in their order, whichever raises an error.
            for callback in reversed(self.callbacks):
                at_last.callback(callback.on_train_end, logs=logs)

    def _publish_restored(self) -> None:
        """Give the model what callbacks have made of the state in the end, such as the best weights."""
        if self.n_epochs:
            self.hooks.publish(self.state)

    def _let_callbacks_go(self) -> None:
        self._forget_old_stop()
        for callback in self.callbacks:
            # Through the training, a callback that is kept would keep data and client alive.
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
            "learning_rate": state.learning_rate,
            "bytes_sent": state.bytes_sent,
            "seconds": seconds,
            "rows_per_second": state.n_samples / max(seconds, 1e-9),
            "workers": _split(seconds, self.transport.spent()),
            "faults": self.transport.events(),
        }
        self.history.append(entry | logs)
        self.epoch += 1
        self.tell("on_epoch_end", state.epoch, logs=logs)
        # Callbacks may have added to what they heard.
        self.history[-1] |= logs
        self._last_logs = logs
        self.tell("on_epoch_done", state.epoch, logs=logs)

    def _on_wave(self, state: TrainState) -> None:
        if not np.isfinite(state.loss):
            self._meet_nonfinite(state)
        self.running = state
        self.tell("on_train_batch_end", state.step, logs=self.hooks.report(state))

    def _check_finite(self, state: TrainState) -> None:
        if not (np.isfinite(state.loss) and np.isfinite(state.params).all()):
            self._meet_nonfinite(state)

    def _meet_nonfinite(self, state: TrainState) -> None:
        opinions = {callback.outlives_nonfinite_loss for callback in self.callbacks}
        if True not in opinions or False in opinions:
            raise self._diverged(state)

    def _diverged(self, state: TrainState) -> NonFiniteLossError:
        return NonFiniteLossError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need "
            f"to be preprocessed. This was in epoch {state.epoch + 1}; the model has the weights of the last "
            "good epoch."
        )

    def tell(self, event: str, *args, logs: dict[str, Any]) -> None:
        """Call that method of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, event)(*args, logs=logs)
