"""Steps that a replica takes alone, in arrays of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from dasknn.engine.state import Shard, TrainingJob, TrainState
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import Workspace, Workspaces


def batch_bounds(n_rows: int, batch_size: int) -> list[int]:
    """Return where batches of batch_size rows begin, and where the last one, which may be shorter, ends."""
    return [*range(0, n_rows, batch_size), n_rows]


class LocalTrainer:
    """Takes optimizer steps of one network in one process.

    Parameters
    ----------
    job : TrainingJob
    state : TrainState
        Where training starts, with the params (n,) of one network; its arrays are copied.
    """

    def __init__(self, job: TrainingJob, state: TrainState):
        self._job = job
        self._params, self._slots = np.empty_like(state.params), np.empty_like(state.slots)
        self._param_views = job.network.views(self._params)
        grad = np.empty_like(self._params)
        self._grad_views = job.network.views(grad)
        self._updater = Updater(
            job.optimizer,
            job.regularizer,
            job.network.n_weights,
            self._params,
            self._slots,
            grad,
            job.network.variables,
        )
        self._workspaces = Workspaces(job.network, job.metrics)
        self.begin(state)

    def begin(self, state: TrainState) -> None:
        """Start again, from this state."""
        self._state = state
        np.copyto(self._params, state.params)
        np.copyto(self._slots, state.slots)
        self._step, self._loss_total = state.step, state.loss_total
        self._n_samples, self._weight_sum = state.n_samples, state.weight_sum
        self._metric_sums = state.metric_sums

    def train(self, shard: Shard, order: np.ndarray | slice, bounds: Iterable[int], number: int = 0) -> None:
        """Take a step on each batch of rows of a shard.

        Parameters
        ----------
        shard : Shard
        order : ndarray of int or slice
            Rows of the shard.
        bounds : iterable of int
            Where batches begin and end in `order`: each goes from one bound to the next.
        number : int
            The number of the shard, on which noise depends.
        """
        for begin, end in pairwise(bounds):
            if isinstance(order, slice):
                rows: Any = slice(order.start + begin, order.start + end)
            else:
                rows = order[begin:end]
            workspace = self._workspaces.of(end - begin)
            workspace.take(shard.X, shard.y, shard.weight, rows)
            self._take_step(workspace, self._job.noise(self._step, number, begin))

    def state(self) -> TrainState:
        """Return what has been learned; its arrays change when training continues."""
        return replace(
            self._state,
            params=self._params,
            slots=self._slots,
            step=self._step,
            loss_total=self._loss_total,
            n_samples=self._n_samples,
            weight_sum=self._weight_sum,
            metric_sums=self._metric_sums,
        )

    def _take_step(self, workspace: Workspace, noise: np.random.Generator | None) -> None:
        n_rows = workspace.n_rows
        weight_sum = self._job.network.loss.divisor(n_rows, workspace.weight)
        loss_sum = workspace.loss_and_grad(self._param_views, self._grad_views, noise)
        loss_sum += self._updater.penalty(weight_sum)
        self._n_samples += n_rows
        self._metric_sums = self._metric_sums + workspace.metric_sums
        if not weight_sum:
            # Rows of weight 0 do not change the network.
            return
        self._step += 1
        rate = self._job.rate(self._state.learning_rate, self._step)
        self._updater.step(weight_sum, self._step, rate)
        self._weight_sum += weight_sum
        self._loss_total += loss_sum / weight_sum * n_rows
