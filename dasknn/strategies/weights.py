"""Weights are averaged after a number of steps, or once per epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

import numpy as np

from dasknn.engine import engines
from dasknn.engine.engines import SideBySide
from dasknn.engine.schedule import Piece, Rounds, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState
from dasknn.strategies.learner import Exchange, Learner
from dasknn.strategies.local_trainer import LocalTrainer
from dasknn.strategies.strategy import Strategy


class WeightLearner(Learner):
    """Replicas that take steps of their own, and start each round from their mean.

    Parameters
    ----------
    job : TrainingJob
    state : TrainState
    local_batch_size : int or None
        Rows of one step of one replica; None for all that a round gives it of a shard.
    outer : OuterNesterov or None
        Makes the next parameters from the old ones and the mean; it has the last slot. None takes the mean.
    """

    def __init__(
        self,
        job: TrainingJob,
        state: TrainState,
        local_batch_size: int | None,
        outer: OuterNesterov | None = None,
    ):
        super().__init__(job, state)
        self._local_batch_size = local_batch_size
        self._outer = outer
        self._trainers: dict[int, LocalTrainer] = {}
        self._side_by_side: SideBySide | None = None
        self._vectors: dict[int, np.ndarray] = {}
        self._n_inner = job.n_slots
        self._like = np.empty((1 + self._n_inner) * len(self._params), self._params.dtype)

    def total(self, found: dict[int, Contribution], exchange: Exchange) -> Contribution:
        return exchange.total(found, self._like)

    def run(self, rounds: Rounds, shards: Mapping[int, Shard], exchange: Exchange) -> None:
        self._side_by_side = engines.get(self.job.engine).side_by_side(self.job, exchange.n_threads)
        super().run(rounds, shards, exchange)

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        if self._side_by_side is None:
            super().round(pieces, shards, exchange)
            return
        trainers = {replica: self._trainer(replica) for replica in pieces}
        # The first pieces of all replicas, then the second ones, and so on.
        for number in range(max(map(len, pieces.values()), default=0)):
            of_number = [(replica, own[number]) for replica, own in pieces.items() if number < len(own)]
            self._side_by_side.take(
                [
                    trainers[replica].to_take(*self._steps(piece, shards[piece.shard]))
                    for replica, piece in of_number
                ]
            )
        found = {replica: self._contribution(replica) for replica in pieces}
        self.apply(self.total(found, exchange))

    def close(self) -> None:
        if self._side_by_side is not None:
            self._side_by_side.close()

    def contribute(self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]) -> Contribution:
        trainer = self._trainer(replica)
        for piece in pieces:
            trainer.train(*self._steps(piece, shards[piece.shard]))
        return self._contribution(replica)

    def _trainer(self, replica: int) -> LocalTrainer:
        """Return the trainer of a replica, at the beginning of a round."""
        start = self._beginning()
        if replica not in self._trainers:
            self._trainers[replica] = LocalTrainer(self.job, start)
            self._vectors[replica] = np.empty_like(self._like)
        else:
            self._trainers[replica].begin(start)
        return self._trainers[replica]

    def _contribution(self, replica: int) -> Contribution:
        found = self._trainers[replica].state()
        return self.contribution(found, self._totals.step, self._vectors[replica])

    def go_on(self, carry: TrainState | None, piece: Piece, shard: Shard) -> TrainState:
        """Return a replica's own state after a piece; carry is the one before it, None for the first."""
        trainer = LocalTrainer(self.job, self._beginning() if carry is None else carry)
        trainer.train(*self._steps(piece, shard))
        return trainer.state()

    def _beginning(self) -> TrainState:
        """Return the state with which replicas start a round; its sums of rows and losses are 0."""
        begun = self.state().begin_epoch(self._start.epoch)
        return replace(begun, slots=self._slots[: self._n_inner])

    def _steps(self, piece: Piece, shard: Shard) -> tuple[Shard, np.ndarray | slice, Iterator[int], int]:
        """Return the arguments of `LocalTrainer.train` for a piece."""
        # In batches of nearly the same size: a step on only a few remaining rows would do harm.
        n_rows = piece.end - piece.begin
        n_steps = max(1, round(n_rows / (self._local_batch_size or n_rows)))
        bounds = (n_rows * step // n_steps for step in range(n_steps + 1))
        return shard, self._rows(piece, shard), bounds, piece.shard

    @staticmethod
    def contribution(found: TrainState, step: int, vector: np.ndarray | None = None) -> Contribution:
        """Return a replica's parameters and slots, times the weight of its rows. It started at `step`."""
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

    def apply(self, total: Contribution) -> None:
        totals = self._totals
        totals.n_samples += total.n_samples
        totals.metric_sums = totals.metric_sums + total.metric_sums
        if not total.weight_sum:
            return
        n_params = len(self._params)
        mean = total.vector
        np.divide(mean, mean.dtype.type(total.weight_sum), out=mean)
        if self._outer is None:
            np.copyto(self._params, mean[:n_params])
        else:
            # Parameters that are not learned, such as moving averages, have no direction to continue in.
            learned = slice(0, self.job.network.n_learned)
            np.copyto(self._params[learned.stop :], mean[learned.stop : n_params])
            self._outer.update(self._params[learned], mean[learned], self._slots[self._n_inner, learned])
        for variable in self.job.network.variables:
            # Weights that meet a constraint may have a mean that does not.
            if variable.is_learned and variable.constraint is not None:
                variable.constraint.apply(variable.view(self._params))
        inner = self._slots[: self._n_inner]
        np.copyto(inner, mean[n_params:].reshape(inner.shape))
        totals.step += total.n_steps
        totals.loss_total += total.loss_sum
        totals.weight_sum += total.weight_sum


@dataclass(frozen=True, repr=False)
class LocalTraining(Strategy):
    """Base class of strategies whose replicas take steps of their own."""

    steps_apart: ClassVar[bool] = True

    @abstractmethod
    def local_batch_size(self, job: TrainingJob) -> int | None:
        """Return the rows of one step of one replica; None stands for a whole shard."""

    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        rows = job.rows_of_epoch(rows)
        return Schedule(1, lambda k: rows)


@dataclass(frozen=True)
class OuterNesterov:
    """An outer optimizer with Nesterov momentum, which uses the change of a round as a gradient.

    After each round, with `d = before - mean`: `v = momentum * v + d`, and
    `before -= learning_rate * (d + momentum * v)`. With learning_rate 1 and momentum 0 it takes the mean.

    Parameters
    ----------
    learning_rate : float, default=0.7
        Larger than 0.
    momentum : float, default=0.9
        In [0, 1).

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    SlowMo and DiLoCo keep each replica's own optimizer state. Here those are averaged, so that the state of a
    training is one value.

    References
    ----------
    Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023.
    Wang et al., "SlowMo: Improving Communication-Efficient Distributed SGD with Slow Momentum", ICLR 2020.
    """

    learning_rate: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and 0 <= self.momentum < 1):
            raise ValueError(
                "OuterNesterov expects learning_rate > 0 and momentum in [0, 1), received "
                f"{self.learning_rate} and {self.momentum}."
            )

    def update(self, params: np.ndarray, mean: np.ndarray, velocity: np.ndarray) -> None:
        """Change params (n,) and velocity (n,) in place; mean (n,) is overwritten."""
        change = np.subtract(params, mean, out=mean)
        np.multiply(velocity, self.momentum, out=velocity)
        np.add(velocity, change, out=velocity)
        np.multiply(change, self.learning_rate, out=change)
        np.subtract(params, change, out=params)
        np.multiply(velocity, self.learning_rate * self.momentum, out=change)
        np.subtract(params, change, out=params)


@dataclass(frozen=True, repr=False)
class WeightAveraging(LocalTraining):
    """Replicas train apart for some steps; then their weights and optimizer states are averaged.

    This is local SGD, or federated averaging: replicas count by the weight of their rows. There are fewer
    exchanges than with averaged gradients, but learning is slower.

    Parameters
    ----------
    every : int or "epoch", default="epoch"
        Steps between two averages.
    outer : OuterNesterov or None, default=None
        How the mean changes the weights; None takes the mean.
    replicas : int or None, default=None
        How many replicas train side by side; None for one per thread of the cluster, while each has enough
        rows.
    balance : {"rows", "speed"}, default="rows"
        "rows": each replica has equally many rows, and the weights do not depend on the cluster. "speed":
        rows are dealt out again between epochs by the speed of the workers, so that none waits for a slow
        one; then the weights depend on it. A keyword argument.

    Raises
    ------
    ValueError
        `every` is neither "epoch" nor a positive number.

    References
    ----------
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    every: int | str = "epoch"
    outer: OuterNesterov | None = None
    name: ClassVar[str] = "weights"
    task_name: ClassVar[str] = "dasknn-train-replica"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every != "epoch" and not (isinstance(self.every, Integral) and self.every >= 1):
            raise ValueError(
                f"WeightAveraging expects every='epoch' or a number of steps, received {self.every!r}."
            )

    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        local = self.local_batch_size(job)
        if isinstance(self.every, str) or local is None:
            return super().schedule(job, rows)
        rows = job.rows_of_epoch(rows)
        steps = [-(-n // local) for n in rows]
        n_rounds = -(-max(steps) // self.every)

        def goals(k: int) -> list[int]:
            # Whole steps, so that the batches of a round have the same size.
            return [
                min(n, local * (of_replica * (k + 1) // n_rounds))
                for n, of_replica in zip(rows, steps, strict=True)
            ]

        return Schedule(n_rounds, goals)

    def local_batch_size(self, job: TrainingJob) -> int | None:
        return None if job.batch_size is None else max(1, job.batch_size // job.replicas)

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        state = super().init_state(job, params, replicas)
        if self.outer is None:
            return state
        return replace(state, slots=np.concatenate([state.slots, np.zeros_like(params)[np.newaxis]]))

    def learner(self, job: TrainingJob, state: TrainState) -> WeightLearner:
        return WeightLearner(job, state, self.local_batch_size(job), self.outer)

    def visit(
        self, job: TrainingJob, state: TrainState, carry: TrainState | None, shard: Shard, piece: Piece
    ) -> TrainState:
        return self.learner(job, state).go_on(carry, piece, shard)

    def finish(self, job: TrainingJob, state: TrainState, carry: TrainState) -> Contribution:
        return WeightLearner.contribution(carry, state.step)

    def apply(self, job: TrainingJob, state: TrainState, total: Contribution) -> TrainState:
        learner = self.learner(job, state)
        learner.apply(Contribution(total.vector.copy(), total.numbers))
        return learner.state()
