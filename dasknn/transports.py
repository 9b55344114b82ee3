"""Where the rounds of an epoch run: in this process, or by tasks on a cluster.

Transports decide nothing that could change a bit; strategies do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from scipy import sparse
from sklearn.utils import shuffle

from dasknn.network import Workspace
from dasknn.strategies import (
    Contribution,
    GradientAveraging,
    LocalTrainer,
    Shard,
    Strategy,
    TrainingJob,
    TrainState,
)

OnWave = Callable[[TrainState], None]
# (mean loss without penalties, gradient summed over the rows, weight of the rows)
LossAndGrad = tuple[float, np.ndarray, float]


class Transport(Protocol):
    """Runs the rounds of an epoch somewhere."""

    job: TrainingJob
    n_samples: int

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; on_wave hears of the state now and then."""
        ...  # pragma: no cover

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        """Return mean loss, summed gradient and weight over all rows, for the parameters of the state."""
        ...  # pragma: no cover


class InProcess:
    """Trains one replica in this process, with scikit-learn's own order of random draws.

    The running order of rows is shuffled again in each epoch by random_state, as scikit-learn does, so
    that the same seed gives scikit-learn's own numbers.
    """

    _BATCHES_IN_WAVE = 64

    def __init__(self, job: TrainingJob, shard: Shard, random_state: np.random.RandomState):
        self.job = job
        self.n_samples = len(shard)
        self._shard = shard
        self._random_state = random_state
        self._order = np.arange(len(shard))
        self._all_rows: Workspace | None = None

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        if self.job.shuffle:
            self._order = shuffle(self._order, random_state=self._random_state)
        batch_size = self.job.batch_size or self.n_samples
        trainer = LocalTrainer(self.job, state)
        wave = self._BATCHES_IN_WAVE * batch_size
        for begin in range(0, self.n_samples, wave):
            trainer.train(self._shard, self._order[begin : begin + wave], batch_size)
            on_wave(trainer.state())
        return trainer.state()

    def loss_and_grad(self, state):
        """See Transport.loss_and_grad."""
        shard, network = self._shard, self.job.network
        weight_sum = len(shard) if shard.weight is None else float(shard.weight.sum())
        if sparse.issparse(shard.X):
            # Some rows at a time: all of them would be dense at once.
            loss_sum, grad = network.loss_and_grad(state.params, shard.X, shard.y, shard.weight)
            return loss_sum / weight_sum, grad, weight_sum
        if self._all_rows is None:
            self._all_rows = Workspace(network, len(shard))
            self._all_rows.take(shard.X, shard.y, shard.weight, slice(0, len(shard)))
        grad = np.empty(network.n_params, network.dtype)
        loss = self._all_rows.mean_loss_and_grad(network.views(state.params), network.views(grad))
        return loss, grad, weight_sum


class OnTasks:
    """Trains by rounds of tasks; see `cluster.tasks`."""

    def __init__(self, job: TrainingJob, strategy: Strategy, tasks, shards):
        self.job = job
        self.n_samples = sum(sum(rows.values()) for rows in shards.rows_of_replicas())
        self._strategy = strategy
        self._tasks = tasks
        self._shards = shards

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        return self._tasks.run_epoch(self._strategy, self.job, state, self._shards, on_wave)

    def loss_and_grad(self, state):
        """See Transport.loss_and_grad."""
        # One round of all rows, as they lie.
        job = replace(self.job, batch_size=None, shuffle=False)
        total: Contribution = self._tasks.total(GradientAveraging(), job, state, self._shards)
        return total.loss_sum / total.weight_sum, total.vector, total.weight_sum
