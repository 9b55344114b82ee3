"""Steps of the optimizer on one mini-batch after the other, in numpy."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from dasknn.engine.state import Shard, Totals, TrainingJob
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import Workspace, Workspaces


class Steps:
    """Takes steps of the optimizer of one network, in arrays of the caller.

    Parameters
    ----------
    job : TrainingJob
    params, slots : ndarray (n,), (n_slots, n)
        They change in place.
    """

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        self._job, network = job, job.network
        grad = np.empty_like(params)
        self._params, self._grad = network.views(params), network.views(grad)
        self._updater = Updater(
            job.optimizer, job.regularizer, network.n_weights, params, slots, grad, network.variables
        )
        self._workspaces = Workspaces(network, job.metrics)

    def take(
        self,
        shard: Shard,
        order: np.ndarray | slice,
        bounds: Iterable[int],
        number: int,
        learning_rate: float,
        totals: Totals,
    ) -> None:
        """Take a step on each batch of rows of a shard; add to the totals.

        Parameters
        ----------
        shard : Shard
        order : ndarray of int or slice
            Rows of the shard.
        bounds : iterable of int
            Where batches begin and end in `order`: each goes from one bound to the next.
        number : int
            The number of the shard, on which noise depends.
        learning_rate : float
            That of the state, on which schedules build.
        totals : Totals
        """
        for begin, end in pairwise(bounds):
            if isinstance(order, slice):
                rows: Any = slice(order.start + begin, order.start + end)
            else:
                rows = order[begin:end]
            workspace = self._workspaces.of(end - begin)
            workspace.take(shard.X, shard.y, shard.weight, rows)
            self._take_one(workspace, self._job.noise(totals.step, number, begin), learning_rate, totals)

    def _take_one(
        self,
        workspace: Workspace,
        noise: np.random.Generator | None,
        learning_rate: float,
        totals: Totals,
    ) -> None:
        n_rows = workspace.n_rows
        weight_sum = self._job.network.loss.divisor(n_rows, workspace.weight)
        loss_sum = workspace.loss_and_grad(self._params, self._grad, noise)
        loss_sum += self._updater.penalty(weight_sum)
        totals.n_samples += n_rows
        totals.metric_sums = totals.metric_sums + workspace.metric_sums
        if not weight_sum:
            # Rows of weight 0 do not change the network.
            return
        totals.step += 1
        self._updater.step(weight_sum, totals.step, self._job.rate(learning_rate, totals.step))
        totals.weight_sum += weight_sum
        totals.loss_total += loss_sum / weight_sum * n_rows
