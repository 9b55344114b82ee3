"""Gradients are averaged in every step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn.engine import engines
from dasknn.engine.engines import FastRounds
from dasknn.engine.schedule import Piece, Rounds, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, in_proportion
from dasknn.engine.workspace import GradientSum
from dasknn.strategies import compression
from dasknn.strategies.compression import Compression
from dasknn.strategies.learner import Exchange, Learner
from dasknn.strategies.strategy import Strategy
from dasknn.strategies.touched_rows import TouchedRows


class GradientLearner(Learner):
    """Takes steps of the optimizer on gradients that were summed over all replicas.

    compression: how to send fewer bytes; None sends all of them.
    """

    def __init__(self, job: TrainingJob, state: TrainState, compression: Compression | None = None):
        super().__init__(job, state)
        self._compressor = None if compression is None else compression.begin(job, state.epoch)
        self._touched = TouchedRows(job.network)
        self._engine = engines.get(job.engine)
        self._updater = self._engine.updater(job, self._params, self._slots)
        self._sums: dict[int, GradientSum] = {}
        self._fast: FastRounds | None = None

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        # Layers that need sums over the mini-batches of all replicas exchange those, too.
        if not self.job.network.is_synchronized:
            super().round(pieces, shards, exchange)
            return
        running = {replica: self._in_step(replica, pieces[replica], shards) for replica in pieces}
        found: dict[int, Contribution] = {}
        numbers = np.zeros(self.job.n_numbers)
        totals: np.ndarray | None = None
        # All replicas proceed from one exchange to the next together; a worker without rows in this round
        # takes part, too.
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
        """Yield sums over the replica's rows, receive those over all rows; return its Contribution."""
        found = self._sum_of(replica)
        shard = Shard.joined(
            [shards[piece.shard].rows(self._rows(piece, shards[piece.shard])) for piece in pieces]
        )
        first = pieces[0]
        noise = self.job.noise(self._totals.step, first.shard, first.begin)
        yield from found.in_step(shard.X, shard.y, shard.weight, noise)
        divisor = float(self.job.network.loss.divisor(len(shard), shard.weight))
        return Contribution.of(
            found.vector, found.loss_sum, divisor, len(shard), metric_sums=found.metric_sums
        )

    def _sum_of(self, replica: int) -> GradientSum:
        if replica not in self._sums:
            self._sums[replica] = self._engine.gradient_sum(self.job, self._params)
        return self._sums[replica]

    def run(self, rounds: Rounds, shards: Mapping[int, Shard], exchange: Exchange) -> None:
        if self._compressor is None:
            self._fast = self._engine.rounds(self.job, self._params, exchange.n_threads)
        if self._fast is None:
            super().run(rounds, shards, exchange)
            return

        def order(replica: int, shard: int) -> Any:
            return self._order(Piece(shard, replica, 0, 0), shards[shard])

        for k, found in enumerate(self._fast.contributions(rounds, shards, order)):
            exchange.present = rounds.present(k)
            if found is None:
                self.round(rounds.pieces(k), shards, exchange)
            else:
                self.apply(exchange.total(found, self._params))

    def close(self) -> None:
        if self._fast is not None:
            self._fast.close()

    def contribute(self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]) -> Contribution:
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
        """Add the gradient of a piece to `total`; return the divisor of its loss."""
        rows = self._rows(piece, shard)
        noise = self.job.noise(self._totals.step, piece.shard, piece.begin)
        return total.add(shard.X, shard.y, shard.weight, rows, noise)

    def total(self, found: dict[int, Contribution], exchange: Exchange) -> Contribution:
        if self._compressor is not None:
            return self._compressor.total(found, self._totals.step, exchange.total)
        if exchange.n_workers > 1 and self._touched.is_useful:
            return self._touched.total(found, self._totals.step, exchange.total)
        return exchange.total(found, self._params)

    def apply(self, total: Contribution) -> None:
        totals, weight_sum = self._totals, total.weight_sum
        totals.n_samples += total.n_samples
        totals.metric_sums = totals.metric_sums + total.metric_sums
        if not weight_sum:
            # Rows of weight 0 do not change the network.
            return
        totals.step += 1
        rate = self.job.rate(self._start.learning_rate, totals.step)
        penalty = self._updater.apply(total.vector, weight_sum, totals.step, rate)
        totals.loss_total += (total.loss_sum + penalty) / weight_sum * total.n_samples
        totals.weight_sum += weight_sum


@dataclass(frozen=True)
class GradientAveraging(Strategy):
    """Every step takes the mean gradient over the mini-batches of all replicas.

    This is synchronous data parallelism by all-reduce, as in TensorFlow's `MirroredStrategy` and PyTorch's
    `DistributedDataParallel`: the result is that of one machine with the global batch.

    Parameters
    ----------
    compression : {"float16"}, Compression or None, default=None
        How to send fewer bytes, for workers with a slow network between them, such as `PowerSGD(rank=4)`.
    replicas : int or None, default=None
        How many replicas train side by side; None for one per thread of the cluster, while each has enough
        rows.
    """

    compression: Compression | str | None = None
    name: ClassVar[str] = "gradients"
    task_name: ClassVar[str] = "dasknn-gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "compression", compression.get(self.compression))

    @property
    def remembers(self) -> bool:
        return self.compression is not None

    def contribution_length(self, job: TrainingJob) -> int:
        return job.network.n_params

    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        rows = job.rows_of_epoch(rows)
        n_samples = sum(rows)
        batch_size = n_samples if job.batch_size is None else min(job.batch_size, n_samples)

        def goals(k: int) -> list[int]:
            # All replicas have gone through the same share of their rows, so uneven shards end together. A
            # batch has the requested number of rows, even where that leaves some replicas without any.
            return in_proportion(rows, min((k + 1) * batch_size, n_samples))

        return Schedule(-(-n_samples // batch_size), goals)

    def visit(
        self,
        job: TrainingJob,
        state: TrainState,
        carry: Contribution | None,
        shard: Shard,
        piece: Piece,
    ) -> Contribution:
        n_rows = piece.end - piece.begin
        order = job.row_order(state.epoch, piece.shard, len(shard), again=n_rows < len(shard))
        begin_to_end = slice(piece.begin, piece.end)
        rows = begin_to_end if isinstance(order, slice) else order[begin_to_end]
        # The sum continues from the previous piece, row by row, as a learner's does: both give the same bits.
        before = () if carry is None else (carry.vector.copy(), carry.loss_sum, carry.metric_sums)
        total = engines.get(job.engine).gradient_sum(job, state.params, *before)
        noise = job.noise(state.step, piece.shard, piece.begin)
        weight_sum = total.add(shard.X, shard.y, shard.weight, rows, noise)
        if carry is not None:
            weight_sum, n_rows = carry.weight_sum + weight_sum, carry.n_samples + n_rows
        return Contribution.of(
            total.vector, total.loss_sum, weight_sum, n_rows, metric_sums=total.metric_sums
        )

    def finish(self, job: TrainingJob, state: TrainState, carry: Contribution) -> Contribution:
        return carry

    def apply(self, job: TrainingJob, state: TrainState, total: Contribution) -> TrainState:
        learner = GradientLearner(job, state)
        learner.apply(total)
        return learner.state()

    def learner(self, job: TrainingJob, state: TrainState) -> Learner:
        return GradientLearner(job, state, compression.get(self.compression))
