"""Gradients are averaged in every step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn.engine.schedule import Piece, Schedule
from dasknn.engine.state import Contribution, Shard, in_proportion
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import GradientSum
from dasknn.strategies import compression
from dasknn.strategies.compression import Compression
from dasknn.strategies.learner import Learner
from dasknn.strategies.strategy import Strategy


class GradientLearner(Learner):
    """Steps of the optimizer on gradients that were summed over all replicas.

    compression: what sends fewer bytes; None sends all of them.
    """

    def __init__(self, job, state, compression: Compression | None = None):
        super().__init__(job, state)
        self._compressor = None if compression is None else compression.begin(job, state.epoch)
        network = job.network
        self._param_views = network.views(self._params)
        self._grad = np.empty_like(self._params)
        self._updater = Updater(
            job.optimizer,
            job.regularizer,
            network.n_weights,
            self._params,
            self._slots,
            self._grad,
            network.variables,
        )
        self._sums: dict[int, GradientSum] = {}

    def round(self, pieces, shards, exchange):
        """See Learner.round; layers that need sums over all replicas' mini-batches exchange those, too."""
        if not self.job.network.is_synchronized:
            super().round(pieces, shards, exchange)
            return
        running = {replica: self._in_step(replica, pieces[replica], shards) for replica in pieces}
        found: dict[int, Contribution] = {}
        numbers = np.zeros(self.job.n_numbers)
        totals: np.ndarray | None = None
        # Every replica goes from one exchange to the next; a worker without rows in this round takes part,
        # too.
        for length in [*self.job.network.lengths_of_sums, 0]:
            sums: dict[int, Contribution] = {}
            for replica, steps in running.items():
                try:
                    sums[replica] = Contribution(steps.send(totals), numbers.copy())
                except StopIteration as end:
                    found[replica] = end.value
            if length:
                totals = exchange.total(sums, np.empty(length)).vector.copy()
        self.apply(self.total(found, exchange))

    def _in_step(
        self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]
    ) -> Generator[Any, Any, Contribution]:
        """Yield sums over the replica's rows and take those of all; the value is its Contribution."""
        found = self._sum_of(replica)
        shard = Shard.joined(
            [shards[piece.shard].rows(self._rows(piece, shards[piece.shard])) for piece in pieces]
        )
        first = pieces[0]
        noise = self.job.noise(self._step, first.shard, first.begin)
        yield from found.in_step(self._param_views, shard.X, shard.y, shard.weight, noise)
        divisor = float(self.job.network.loss.divisor(len(shard), shard.weight))
        return Contribution.of(
            found.vector, found.loss_sum, divisor, len(shard), metric_sums=found.metric_sums
        )

    def _sum_of(self, replica: int) -> GradientSum:
        if replica not in self._sums:
            self._sums[replica] = GradientSum(self.job.network, metrics=self.job.metrics)
        return self._sums[replica]

    def contribute(self, replica, pieces, shards):
        """See Learner.contribute."""
        found = self._sum_of(replica)
        found.begin()
        weight_sum, n_samples = 0.0, 0
        for piece in pieces:
            weight_sum += self.add(found, piece, shards[piece.shard])
            n_samples += piece.end - piece.begin
        return Contribution.of(
            found.vector, found.loss_sum, weight_sum, n_samples, metric_sums=found.metric_sums
        )

    def add(self, total: GradientSum, piece: Piece, shard: Shard) -> float:
        """Add the gradient of a piece; return what its loss is to be divided by."""
        rows = self._rows(piece, shard)
        noise = self.job.noise(self._step, piece.shard, piece.begin)
        total.add(self._param_views, shard.X, shard.y, shard.weight, rows, noise)
        weight = None if shard.weight is None else shard.weight[rows]
        return float(self.job.network.loss.divisor(piece.end - piece.begin, weight))

    def total(self, found, exchange):
        """See Learner.total."""
        if self._compressor is None:
            return exchange.total(found, self._grad)
        return self._compressor.total(found, self._step, exchange.total)

    def apply(self, total):
        """See Learner.apply."""
        self._n_samples += total.n_samples
        self._metric_sums = self._metric_sums + total.metric_sums
        weight_sum = total.weight_sum
        if not weight_sum:
            # Rows that do not count leave the network as it is.
            return
        penalty = self._updater.penalty(weight_sum)
        self._step += 1
        np.copyto(self._grad, total.vector)
        rate = self.job.rate(self._start.learning_rate, self._step)
        self._updater.step(weight_sum, self._step, rate)
        self._loss_total += (total.loss_sum + penalty) / weight_sum * total.n_samples
        self._weight_sum += weight_sum


@dataclass(frozen=True)
class GradientAveraging(Strategy):
    """Every step takes the mean gradient over the mini-batches of all replicas.

    Synchronous data parallelism: the result is that of one machine with the global batch. What the
    field calls all-reduce, TensorFlow `MirroredStrategy`, PyTorch `DistributedDataParallel`. compression:
    None, "float16" or `PowerSGD(rank=4)`, for workers with a slow network between them; see `compression`.
    """

    compression: Compression | str | None = None
    name: ClassVar[str] = "gradients"
    task_name: ClassVar[str] = "dasknn-gradient"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "compression", compression.get(self.compression))

    @property
    def remembers(self):
        return self.compression is not None

    def contribution_length(self, job):
        return job.network.n_params

    def schedule(self, job, rows):
        rows = job.rows_of_epoch(rows)
        n_samples = sum(rows)
        batch_size = n_samples if job.batch_size is None else min(job.batch_size, n_samples)

        def goals(k: int) -> list[int]:
            # Every replica has gone through the same share of its rows, so uneven shards end together. A
            # batch has as many rows as was asked for, also where that leaves some replicas without any.
            return in_proportion(rows, min((k + 1) * batch_size, n_samples))

        return Schedule(-(-n_samples // batch_size), goals)

    def visit(self, job, state, carry, shard, piece):
        n_rows = piece.end - piece.begin
        order = job.row_order(state.epoch, piece.shard, len(shard), again=n_rows < len(shard))
        rows = slice(piece.begin, piece.end)
        if not isinstance(order, slice):
            rows = order[rows]
        # A sum goes on where it stood, row by row, as that of a learner does: so both come to the same bits.
        before = () if carry is None else (carry.vector.copy(), carry.loss_sum, carry.metric_sums)
        total = GradientSum(job.network, job.metrics, *before)
        noise = job.noise(state.step, piece.shard, piece.begin)
        total.add(job.network.views(state.params), shard.X, shard.y, shard.weight, rows, noise)
        divisor = job.network.loss.divisor(n_rows, None if shard.weight is None else shard.weight[rows])
        weight_sum = float(divisor)
        if carry is not None:
            weight_sum, n_rows = carry.weight_sum + weight_sum, carry.n_samples + n_rows
        return Contribution.of(
            total.vector, total.loss_sum, weight_sum, n_rows, metric_sums=total.metric_sums
        )

    def finish(self, job, state, carry):
        return carry

    def apply(self, job, state, total):
        learner = GradientLearner(job, state)
        learner.apply(total)
        return learner.state()

    def learner(self, job, state):
        return GradientLearner(job, state, compression.get(self.compression))
