"""Gradients are averaged in every step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from dasknn.engine import engines
from dasknn.engine.engines import FastRounds
from dasknn.engine.schedule import Piece, Rounds, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, in_proportion
from dasknn.engine.workspace import GradientSum, Watch
from dasknn.strategies import compression
from dasknn.strategies.compression import Compression
from dasknn.strategies.learner import Exchange, Learner
from dasknn.strategies.overlap import EarlySum, rows_of_step
from dasknn.strategies.strategy import Strategy
from dasknn.strategies.touched_rows import TouchedRows


class _Tail:
    """The last layers of a replica's gradient in a round, which an early sum waits for."""

    def __init__(self, early: EarlySum | None, replica: int, vector: np.ndarray):
        self._early, self._replica, self._vector = early, replica, vector

    def watch(self, pieces: list[Piece]) -> Watch | None:
        """Return how to notice that they are there before the first layers are."""
        # The gradients of several pieces are added up first.
        if self._early is None or self._early.first_layer is None or len(pieces) > 1:
            return None
        return Watch(self._early.first_layer, self.is_done)

    def is_done(self) -> None:
        """Tell the early sum, if it was not told."""
        if self._early is not None:
            self._early.is_done(self._replica, self._vector)
            self._early = None


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
        self._early: EarlySum | None = None
        self._sums_early = compression is None and not self._touched.is_useful

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        # Layers that need sums over the mini-batches of all replicas exchange those, too.
        if not self.job.network.is_synchronized:
            if self._early is not None:
                self._early.begin(pieces, exchange, self.job.n_numbers)
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
        self.take(found, exchange)

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
            if self._sums_early and exchange.n_workers > 1:
                rows = rows_of_step(self.job, int((rounds.goals[1] - rounds.goals[0]).sum()))
                early = EarlySum(self.job.network, rows, exchange.speed)
                self._early = None if early.first_layer is None else early
            super().run(rounds, shards, exchange)
            return

        def order(replica: int, shard: int) -> Any:
            return self._order(Piece(shard, replica, 0, 0), shards[shard])

        for k, found in enumerate(self._fast.contributions(rounds, shards, order)):
            exchange.present = rounds.present(k)
            if found is None:
                self.round(rounds.pieces(k), shards, exchange)
            else:
                self.take(found, exchange)

    def close(self) -> None:
        if self._fast is not None:
            self._fast.close()

    def contribute(self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]) -> Contribution:
        found = self._sum_of(replica)
        found.begin()
        weight_sum, n_samples = 0.0, 0
        tail = _Tail(self._early, replica, found.vector)
        for piece in pieces:
            weight_sum += self.add(found, piece, shards[piece.shard], tail.watch(pieces))
            n_samples += piece.end - piece.begin
        tail.is_done()
        return Contribution.of(
            found.vector, found.loss_sum, weight_sum, n_samples, metric_sums=found.metric_sums
        )

    def add(self, total: GradientSum, piece: Piece, shard: Shard, watch: Watch | None = None) -> float:
        """Add the gradient of a piece to `total`; return the divisor of its loss."""
        rows = self._rows(piece, shard)
        noise = self.job.noise(self._totals.step, piece.shard, piece.begin)
        return total.add(shard.X, shard.y, shard.weight, rows, noise, watch)

    def total(self, found: dict[int, Contribution], exchange: Exchange) -> Contribution:
        if self._early is not None:
            return self._early.total(found)
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


class DelayedGradientLearner(GradientLearner):
    """Applies the sum of the step before, while that of this step is exchanged."""

    def __init__(self, job: TrainingJob, state: TrainState):
        super().__init__(job, state)
        self._sums_early = False
        # Copies, since the next step overwrites the vectors of contributions.
        self._sent: dict[int, np.ndarray] = {}
        self._arrived = np.empty_like(self._params)
        self._before: Contribution | None = None
        self._is_started = False

    def run(self, rounds: Rounds, shards: Mapping[int, Shard], exchange: Exchange) -> None:
        super().run(rounds, shards, exchange)
        self._wait(exchange)
        self._apply_before()

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        if self.job.network.is_synchronized:
            # Its layers exchange sums of their own in a round.
            self._wait(exchange)
        super().round(pieces, shards, exchange)

    def take(self, found: dict[int, Contribution], exchange: Exchange) -> None:
        self._wait(exchange)
        sent = {}
        for replica, (vector, numbers) in found.items():
            copy = self._sent.setdefault(replica, np.empty_like(vector))
            np.copyto(copy, vector)
            sent[replica] = Contribution(copy, numbers)
        exchange.start(sent, self._params)
        self._is_started = True
        self._apply_before()

    def _wait(self, exchange: Exchange) -> None:
        """Wait until the sum of the step before has arrived."""
        if self._is_started:
            total = exchange.finish()
            np.copyto(self._arrived, total.vector)
            self._before, self._is_started = total._replace(vector=self._arrived), False

    def _apply_before(self) -> None:
        if self._before is not None:
            before, self._before = self._before, None
            self.apply(before)


@dataclass(frozen=True, repr=False)
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
    balance : {"rows", "speed"}, default="rows"
        "rows": each replica has equally many rows, and the weights do not depend on the cluster. "speed":
        rows are dealt out again between epochs by the speed of the workers, so that none waits for a slow
        one; then the weights depend on it. A keyword argument.
    delay : {0, 1}, default=0
        1: each step applies the gradient of the step before, whose sum workers exchange while they compute
        the next one; the last step of an epoch is followed by what is left. This is another algorithm, which
        may learn worse with a high learning rate (Li et al. 2018). It pays where an exchange takes about as
        long as a step computes. A keyword argument.

    References
    ----------
    Li et al., "Pipe-SGD: A Decentralized Pipelined SGD Framework for Distributed Deep Net Training", NeurIPS
    2018.
    """

    compression: Compression | str | None = None
    delay: int = field(default=0, kw_only=True)
    name: ClassVar[str] = "gradients"
    task_name: ClassVar[str] = "dasknn-gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "compression", compression.get(self.compression))
        if isinstance(self.delay, bool) or self.delay not in (0, 1):
            raise ValueError(f"Expected delay to be 0 or 1, received {self.delay!r}.")
        if self.delay and self.compression is not None:
            raise ValueError(
                "Compressed gradients are not delayed, received delay=1. Leave delay or compression out."
            )

    @property
    def remembers(self) -> bool:
        return self.compression is not None or self.delay > 0

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
        if self.delay:
            return DelayedGradientLearner(job, state)
        return GradientLearner(job, state, compression.get(self.compression))
