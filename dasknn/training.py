"""The one training loop.

An epoch is run by a transport, `epoch(state, on_wave) -> state`. The driver holds the state as a value
between epochs; callbacks see it, and may stop training or set the learning rate of the next epoch. An
iteration of L-BFGS counts as an epoch: its loop is SciPy's, and what happens around it is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from dasknn.callbacks import Callback
from dasknn.exceptions import NonFiniteLossError
from dasknn.optimizers import LBFGS
from dasknn.rounds import TrainState
from dasknn.transports import Transport


class Training:
    """A running training: what callbacks see of it, and the loop.

    history: entries of an earlier training that this one goes on from. Epochs count on from there.
    """

    def __init__(
        self,
        model: Any,
        transport: Transport,
        state: TrainState,
        max_epochs: int,
        callbacks: Sequence[Callback] = (),
        validate: Callable[[TrainState], float] | None = None,
        history: Sequence[dict[str, Any]] = (),
    ):
        self.transport = transport
        self.state = state
        self.first_epoch = len(history)
        self.max_epochs = max_epochs
        self.history = list(history)
        self.stop_training = False
        self.interrupted = False
        self._validate = validate
        self._callbacks = list(callbacks)
        for callback in self._callbacks:
            callback.model, callback.training = model, self

    @property
    def n_samples(self) -> int:
        """Rows in an epoch."""
        return self.transport.n_samples

    @property
    def n_epochs(self) -> int:
        """Epochs that this training has ended."""
        return len(self.history) - self.first_epoch

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch, while no epoch runs; callbacks may set it."""
        return self.state.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.state = replace(self.state, learning_rate=rate)

    def run(self) -> TrainState:
        """Train until max_epochs, a callback's stop or Ctrl-C; return the state after the last epoch.

        Raises NonFiniteLossError as soon as a loss is; self.state is then the last good one.
        """
        with self._announced():
            while self.n_epochs < self.max_epochs and not self.stop_training:
                self._begin_epoch()
                epoch = len(self.history)
                self._end_epoch(self.transport.epoch(self.state.begin_epoch(epoch), self._on_wave))
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
            state = state_of(found.x.copy()).begin_epoch(len(self.history))
            self._end_epoch(replace(state, loss_total=found.fun * n_samples, n_samples=n_samples))
            if self.stop_training:
                raise StopIteration
            self._begin_epoch()

        result = None
        with self._announced():
            self._begin_epoch()
            result = optimizer.minimize(loss_and_grad, self.state.params, self.max_epochs, on_iteration)
            # The loss of the last point is that of its iteration, unless the line search gave up.
            self.state = replace(
                state_of(result.x), loss_total=result.fun * self.n_samples, n_samples=self.n_samples
            )
            self._check_finite(self.state)
        return result

    @contextmanager
    def _announced(self) -> Iterator[None]:
        try:
            self._tell("on_train_begin", logs={})
            yield
        except KeyboardInterrupt:
            self.interrupted = True
            warnings.warn("Training interrupted by user.", stacklevel=5)
        finally:
            self.transport.close()
            self._tell("on_train_end", logs={})
            for callback in self._callbacks:
                # Through the training, a callback that is kept would keep data and client alive.
                callback.model = callback.training = None

    def _begin_epoch(self) -> None:
        self._tell("on_epoch_begin", len(self.history), logs={})

    def _end_epoch(self, state: TrainState) -> None:
        self._check_finite(state)
        self.state = state
        logs = {
            "epoch": state.epoch + 1,
            "loss": state.loss,
            "n_samples": state.n_samples,
            "learning_rate": state.learning_rate,
            "bytes_sent": state.bytes_sent,
        }
        if self._validate is not None:
            logs["validation_score"] = self._validate(state)
        self._tell("on_epoch_end", state.epoch, logs=logs)
        self.history.append(logs)

    def _on_wave(self, state: TrainState) -> None:
        if not np.isfinite(state.loss):
            raise self._diverged(state)
        logs = {"loss": state.loss, "n_samples": state.n_samples}
        self._tell("on_train_batch_end", state.step, logs=logs)

    def _check_finite(self, state: TrainState) -> None:
        if not (np.isfinite(state.loss) and np.isfinite(state.params).all()):
            raise self._diverged(state)

    def _diverged(self, state: TrainState) -> NonFiniteLossError:
        return NonFiniteLossError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need "
            f"to be preprocessed. This was in epoch {state.epoch + 1}; the model has the weights of the last "
            "good epoch."
        )

    def _tell(self, event: str, *args, logs: dict[str, Any]) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*args, logs=logs)
