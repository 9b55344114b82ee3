"""The hot loops: what goes on learning round after round in arrays of its own.

A `Learner` is a replica's or a worker's memory of a training, which changes in place. Strategies' pure
functions make one, use it once and return what it has come to; a worker that trains for many rounds keeps
it. So there is one order of operations, and all roads give the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from dasknn.compression import Compression
from dasknn.engine.schedule import Piece
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import GradientSum, Workspace, Workspaces


class Exchange(Protocol):
    """What a learner asks of whoever carries its contributions to the others."""

    def each(self, function: Callable, items: Iterable) -> list:
        """Return [function(item), ...], maybe in several threads."""
        ...  # pragma: no cover

    def total(self, contributions: dict[int, Contribution], like: np.ndarray) -> Contribution:
        """Return the sum over all replicas of the round, given those of this worker, which are spent.

        like: a vector of the length and dtype of all of them.
        """
        ...  # pragma: no cover


class Learner(ABC):
    """What a worker keeps between rounds: the state, and buffers for each of its replicas."""

    def __init__(self, job: TrainingJob, state: TrainState):
        self.job = job
        self._start = state
        self._params, self._slots = state.params.copy(), state.slots.copy()
        self._step, self._loss_total = state.step, state.loss_total
        self._n_samples, self._weight_sum = state.n_samples, state.weight_sum
        self._metric_sums = state.metric_sums
        self._orders: dict[int, tuple[int, Any]] = {}

    @abstractmethod
    def contribute(self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]) -> Contribution:
        """Return what a replica brings to a round, in buffers that the next round uses again."""

    @abstractmethod
    def apply(self, total: Contribution) -> None:
        """Learn from a round's merged contributions."""

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        """Carry out one round; pieces holds those of this worker's replicas that take part."""
        found = exchange.each(lambda replica: self.contribute(replica, pieces[replica], shards), pieces)
        self.apply(self.total(dict(zip(pieces, found, strict=True)), exchange))

    @abstractmethod
    def total(self, found: dict[int, Contribution], exchange: Exchange) -> Contribution:
        """Return the sum over all replicas, given what those of this worker bring."""

    def state(self) -> TrainState:
        """Return what has been learned; its arrays go on changing if training does."""
        return replace(
            self._start,
            params=self._params,
            slots=self._slots,
            step=self._step,
            loss_total=self._loss_total,
            n_samples=self._n_samples,
            weight_sum=self._weight_sum,
            metric_sums=self._metric_sums,
        )

    def _rows(self, piece: Piece, shard: Shard) -> np.ndarray | slice:
        """Return the rows of a piece; the order of the shard that a replica is in is remembered."""
        if not self.job.shuffle:
            return slice(piece.begin, piece.end)
        number, order = self._orders.get(piece.replica, (None, None))
        if number != piece.shard:
            order = self.job.row_order(self._start.epoch, piece.shard, len(shard))
            self._orders[piece.replica] = piece.shard, order
        return order[piece.begin : piece.end]  # type: ignore[index]


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


def batch_bounds(n_rows: int, batch_size: int) -> list[int]:
    """Return where batches of batch_size rows begin, and where the last, which may be shorter, ends."""
    return [*range(0, n_rows, batch_size), n_rows]


class LocalTrainer:
    """Takes optimizer steps of one network in one process.

    Begins from a TrainState with one network's params (n,), which it copies.
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
        """Begin anew, from a state."""
        self._state = state
        np.copyto(self._params, state.params)
        np.copyto(self._slots, state.slots)
        self._step, self._loss_total = state.step, state.loss_total
        self._n_samples, self._weight_sum = state.n_samples, state.weight_sum
        self._metric_sums = state.metric_sums

    def train(self, shard: Shard, order: np.ndarray | slice, bounds: Iterable[int], number: int = 0) -> None:
        """Take a step on each batch of `order`, rows of the shard: from one of the bounds to the next.

        number: that of the shard, on which noise depends.
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
        """Return what has been learned; its arrays go on changing if training does."""
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
            # Rows that do not count leave the network as it is.
            return
        self._step += 1
        rate = self._job.rate(self._state.learning_rate, self._step)
        self._updater.step(weight_sum, self._step, rate)
        self._weight_sum += weight_sum
        self._loss_total += loss_sum / weight_sum * n_rows


class WeightLearner(Learner):
    """Replicas that take steps of their own, and begin each round from their mean.

    local_batch_size: rows of a step of one replica; None: all that a round gives it of a shard. outer: what
    makes the next parameters of the old ones and the mean, with a slot of its own; None: the mean.
    """

    def __init__(self, job, state, local_batch_size: int | None, outer: Any = None):
        super().__init__(job, state)
        self._local_batch_size = local_batch_size
        self._outer = outer
        self._trainers: dict[int, LocalTrainer] = {}
        self._vectors: dict[int, np.ndarray] = {}
        self._n_inner = job.n_slots
        self._like = np.empty((1 + self._n_inner) * len(self._params), self._params.dtype)

    def total(self, found, exchange):
        """See Learner.total."""
        return exchange.total(found, self._like)

    def contribute(self, replica, pieces, shards):
        """See Learner.contribute."""
        start = self._beginning()
        if replica not in self._trainers:
            self._trainers[replica] = LocalTrainer(self.job, start)
            self._vectors[replica] = np.empty_like(self._like)
        trainer, vector = self._trainers[replica], self._vectors[replica]
        trainer.begin(start)
        for piece in pieces:
            self._train(trainer, piece, shards[piece.shard])
        return self.contribution(trainer.state(), self._step, vector)

    def go_on(self, carry: TrainState | None, piece: Piece, shard: Shard) -> TrainState:
        """Return a replica's own state after a piece of its round; carry is that before it, or None."""
        trainer = LocalTrainer(self.job, self._beginning() if carry is None else carry)
        self._train(trainer, piece, shard)
        return trainer.state()

    def _beginning(self) -> TrainState:
        """Return what replicas begin a round with; the sums of rows and losses count from 0."""
        begun = self.state().begin_epoch(self._start.epoch)
        return replace(begun, slots=self._slots[: self._n_inner])

    def _train(self, trainer: LocalTrainer, piece: Piece, shard: Shard) -> None:
        # In batches of nearly one size: a step on a few rows that are left over would do harm.
        n_rows = piece.end - piece.begin
        n_steps = max(1, round(n_rows / (self._local_batch_size or n_rows)))
        bounds = (n_rows * step // n_steps for step in range(n_steps + 1))
        trainer.train(shard, self._rows(piece, shard), bounds, piece.shard)

    @staticmethod
    def contribution(found: TrainState, step: int, vector: np.ndarray | None = None) -> Contribution:
        """Return parameters and slots of a replica, times the weight of its rows, which began at `step`."""
        n_params = len(found.params)
        if vector is None:
            vector = np.empty((1 + len(found.slots)) * n_params, found.params.dtype)
        weight = vector.dtype.type(found.weight_sum)
        np.multiply(found.params, weight, out=vector[:n_params])
        np.multiply(found.slots, weight, out=vector[n_params:].reshape(found.slots.shape))
        return Contribution.of(
            vector,
            found.loss_total,
            found.weight_sum,
            found.n_samples,
            found.step - step,
            found.metric_sums,
        )

    def apply(self, total):
        """See Learner.apply."""
        self._n_samples += total.n_samples
        self._metric_sums = self._metric_sums + total.metric_sums
        if not total.weight_sum:
            return
        n_params = len(self._params)
        mean = total.vector
        np.divide(mean, mean.dtype.type(total.weight_sum), out=mean)
        if self._outer is None:
            np.copyto(self._params, mean[:n_params])
        else:
            # What is not learned, such as moving averages, has no direction to go on in.
            learned = slice(0, self.job.network.n_learned)
            np.copyto(self._params[learned.stop :], mean[learned.stop : n_params])
            self._outer.update(self._params[learned], mean[learned], self._slots[self._n_inner, learned])
        for variable in self.job.network.variables:
            # Weights that meet a constraint may have a mean that does not.
            if variable.is_learned and variable.constraint is not None:
                variable.constraint.apply(variable.view(self._params))
        inner = self._slots[: self._n_inner]
        np.copyto(inner, mean[n_params:].reshape(inner.shape))
        self._step += total.n_steps
        self._loss_total += total.loss_sum
        self._weight_sum += total.weight_sum
