"""Weights are averaged every so many steps, or once an epoch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from dasknn.engine.schedule import Piece, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState
from dasknn.strategies.learner import Learner
from dasknn.strategies.local_trainer import LocalTrainer
from dasknn.strategies.strategy import Strategy


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


@dataclass(frozen=True)
class LocalTraining(Strategy):
    """Replicas take steps of their own through their shards."""

    steps_apart: ClassVar[bool] = True

    @abstractmethod
    def local_batch_size(self, job: TrainingJob) -> int | None:
        """Return the rows of one step of one replica; None stands for a whole shard."""

    def schedule(self, job, rows):
        rows = job.rows_of_epoch(rows)
        return Schedule(1, lambda k: rows)


@dataclass(frozen=True)
class OuterNesterov:
    """An outer optimizer, which takes what a round has changed for a gradient (DiLoCo, Douillard 2023).

    d = before - mean;  v = momentum * v + d;  before -= learning_rate * (d + momentum * v). With rate 1
    and momentum 0 it is the plain mean. SlowMo (Wang 2020) and DiLoCo keep each replica's own optimizer
    state; here those are averaged, so that the state of a training is one value.
    """

    learning_rate: float = 0.7
    momentum: float = 0.9

    def __post_init__(self):
        if not (self.learning_rate > 0 and 0 <= self.momentum < 1):
            raise ValueError(
                "OuterNesterov expects learning_rate > 0 and momentum in [0, 1), received "
                f"{self.learning_rate} and {self.momentum}."
            )

    def update(self, params: np.ndarray, mean: np.ndarray, velocity: np.ndarray) -> None:
        """Change params and velocity in place; mean is spent."""
        change = np.subtract(params, mean, out=mean)
        np.multiply(velocity, self.momentum, out=velocity)
        np.add(velocity, change, out=velocity)
        np.multiply(change, self.learning_rate, out=change)
        np.subtract(params, change, out=params)
        np.multiply(velocity, self.learning_rate * self.momentum, out=change)
        np.subtract(params, change, out=params)


@dataclass(frozen=True)
class WeightAveraging(LocalTraining):
    """Replicas train apart for a while; then their weights, and their optimizers' states, are averaged.

    Local SGD, federated averaging (McMahan et al. 2017): replicas count by the weight of their rows.
    Fewer exchanges, at the price of slower learning than averaged gradients. every: steps between
    averages, or "epoch". outer: None for the plain mean, or an `OuterNesterov`.
    """

    every: int | str = "epoch"
    outer: OuterNesterov | None = None
    name: ClassVar[str] = "weights"
    task_name: ClassVar[str] = "dasknn-train-replica"

    def __post_init__(self):
        super().__post_init__()
        if self.every != "epoch" and not (isinstance(self.every, Integral) and self.every >= 1):
            raise ValueError(
                f"WeightAveraging expects every='epoch' or a number of steps, received {self.every!r}."
            )

    def schedule(self, job, rows):
        local = self.local_batch_size(job)
        if self.every == "epoch" or local is None:
            return super().schedule(job, rows)
        rows = job.rows_of_epoch(rows)
        steps = [-(-n // local) for n in rows]
        n_rounds = -(-max(steps) // self.every)

        def goals(k: int) -> list[int]:
            # Whole steps, so that the batches of a round are of one size.
            return [
                min(n, local * (of_replica * (k + 1) // n_rounds))
                for n, of_replica in zip(rows, steps, strict=True)
            ]

        return Schedule(n_rounds, goals)

    def local_batch_size(self, job):
        return None if job.batch_size is None else max(1, job.batch_size // job.replicas)

    def init_state(self, job, params, replicas):
        state = super().init_state(job, params, replicas)
        if self.outer is None:
            return state
        return replace(state, slots=np.concatenate([state.slots, np.zeros_like(params)[np.newaxis]]))

    def learner(self, job, state):
        return WeightLearner(job, state, self.local_batch_size(job), self.outer)

    def visit(self, job, state, carry, shard, piece):
        return self.learner(job, state).go_on(carry, piece, shard)

    def finish(self, job, state, carry):
        return WeightLearner.contribution(carry, state.step)

    def apply(self, job, state, total):
        learner = self.learner(job, state)
        learner.apply(Contribution(total.vector.copy(), total.numbers))
        return learner.state()
