"""The one training loop.

An epoch is run by a transport, `epoch(state, on_wave) -> state`: in this process, or by tasks on a
cluster. The driver holds the state as a value between epochs; callbacks see it, and may stop training or
set the learning rate of the next epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from sklearn.utils import shuffle

from dasknn.callbacks import Callback
from dasknn.exceptions import NonFiniteLossError
from dasknn.strategies import LocalTrainer, Shard, Strategy, TrainingJob, TrainState

OnWave = Callable[[TrainState], None]


class Transport(Protocol):
    """Runs the rounds of an epoch somewhere."""

    n_samples: int

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; on_wave hears of the state now and then."""
        ...  # pragma: no cover


class InProcess:
    """Trains one replica in this process, with scikit-learn's own order of random draws.

    The running order of rows is shuffled again in each epoch by random_state, as scikit-learn does, so
    that the same seed gives scikit-learn's own numbers.
    """

    _BATCHES_IN_WAVE = 64

    def __init__(self, job: TrainingJob, shard: Shard, random_state: np.random.RandomState):
        self.n_samples = len(shard)
        self._job = job
        self._shard = shard
        self._random_state = random_state
        self._order = np.arange(len(shard))

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        if self._job.shuffle:
            self._order = shuffle(self._order, random_state=self._random_state)
        batch_size = self._job.batch_size or self.n_samples
        trainer = LocalTrainer(self._job, state)
        wave = self._BATCHES_IN_WAVE * batch_size
        for begin in range(0, self.n_samples, wave):
            trainer.train(self._shard, self._order[begin : begin + wave], batch_size)
            on_wave(trainer.state())
        return trainer.state()


class OnTasks:
    """Trains by rounds of tasks; see `cluster.tasks`."""

    def __init__(self, job: TrainingJob, strategy: Strategy, tasks, shards):
        self.n_samples = sum(sum(rows.values()) for rows in shards.rows_of_replicas())
        self._job = job
        self._strategy = strategy
        self._tasks = tasks
        self._shards = shards

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        return self._tasks.run_epoch(self._strategy, self._job, state, self._shards, on_wave)


class Training:
    """A running training: what callbacks see of it, and the loop."""

    def __init__(
        self,
        model: Any,
        transport: Transport,
        state: TrainState,
        max_epochs: int,
        callbacks: Sequence[Callback] = (),
        validate: Callable[[TrainState], float] | None = None,
    ):
        self.transport = transport
        self.state = state
        self.max_epochs = max_epochs
        self.history: list[dict[str, Any]] = []
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
        try:
            self._tell("on_train_begin", logs={})
            for epoch in range(self.max_epochs):
                self._run_epoch(epoch)
                if self.stop_training:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
            warnings.warn("Training interrupted by user.", stacklevel=3)
        finally:
            self._tell("on_train_end", logs={})
            for callback in self._callbacks:
                # Through the training, a callback that is kept would keep data and client alive.
                callback.model = callback.training = None
        return self.state

    def _run_epoch(self, epoch: int) -> None:
        self._tell("on_epoch_begin", epoch, logs={})
        state = self.transport.epoch(self.state.begin_epoch(epoch), self._on_wave)
        if not (np.isfinite(state.loss) and np.isfinite(state.params).all()):
            raise self._diverged(state)
        self.state = state
        logs = {
            "epoch": epoch + 1,
            "loss": state.loss,
            "n_samples": state.n_samples,
            "learning_rate": state.learning_rate,
        }
        if self._validate is not None:
            logs["validation_score"] = self._validate(state)
        self._tell("on_epoch_end", epoch, logs=logs)
        self.history.append(logs)

    def _on_wave(self, state: TrainState) -> None:
        if not np.isfinite(state.loss):
            raise self._diverged(state)
        logs = {"loss": state.loss, "n_samples": state.n_samples}
        self._tell("on_train_batch_end", state.step, logs=logs)

    def _diverged(self, state: TrainState) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"Solver produced non-finite parameter weights in epoch {state.epoch + 1}. The input data may "
            "contain large values and need to be preprocessed."
        )

    def _tell(self, event: str, *args, logs: dict[str, Any]) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*args, logs=logs)
