"""What a replica does in a round, how the results of replicas merge, and how they are applied.

A strategy is frozen settings with four functions, all pure: they change nothing that they were given.

    visit(job, state, carry, shard, piece) -> carry        one replica goes through rows of one shard
    finish(job, state, carry) -> Contribution               after the last shard of its round
    merge(left, right) -> Contribution                      in replica order, as a binary tree
    apply(job, state, contribution) -> TrainState           once a round

`schedule` says how far every replica goes in each round of an epoch. Whoever carries these calls out decides
nothing that could change a bit: tasks on a cluster do so one by one; a worker that stays with a training
for many rounds asks for a `learner`, which does the same in place.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from dasknn import compression
from dasknn.compression import Compression
from dasknn.engine.schedule import Piece, Round, Schedule, Walk
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, in_proportion, merge_numbers
from dasknn.engine.workspace import GradientSum
from dasknn.learners import GradientLearner, Learner, LocalTrainer, WeightLearner, batch_bounds


class _Scopes(threading.local):
    """The strategies whose scopes this thread is in, the innermost last."""

    def __init__(self):
        self.entered: list[Strategy] = []


_scopes = _Scopes()


def in_scope() -> Strategy | None:
    """Return the strategy whose scope this thread is in, or None."""
    return _scopes.entered[-1] if _scopes.entered else None


@dataclass(frozen=True)
class Strategy(ABC):
    """What the three averages have in common.

    replicas: how many train side by side; None leaves it to the face, which counts the cluster's threads.
    """

    replicas: int | None = field(default=None, kw_only=True)
    name: ClassVar[str]
    task_name: ClassVar[str]
    #: Whether replicas take steps of their own, each on rows of its own, between two averages.
    steps_apart: ClassVar[bool] = False

    def __post_init__(self):
        if self.replicas is not None and not (isinstance(self.replicas, Integral) and self.replicas >= 1):
            raise ValueError(f"Expected replicas to be None or at least 1, received {self.replicas!r}.")

    @contextmanager
    def scope(self) -> Iterator[Strategy]:
        """Make the models that are created within use this strategy, as TensorFlow's `scope` does.

        A scope may be entered again within itself. RuntimeError: within the scope of another strategy.
        """
        current = in_scope()
        if current is not None and current != self:
            raise RuntimeError(
                f"Expected one strategy at a time, received {self} within the scope of {current}. Leave that "
                "scope first."
            )
        _scopes.entered.append(self)
        try:
            yield self
        finally:
            _scopes.entered.pop()

    @property
    def num_replicas_in_sync(self) -> int:
        """How many replicas share a step: `replicas`, else the threads of the current cluster, 1 without
        one.
        """
        # Of all that strategies do, only this looks at a cluster.
        from dasknn.cluster.tasks import connect

        if self.replicas is not None:
            return self.replicas_in_step(self.replicas)
        with connect(None, distributed=False) as tasks:
            return self.replicas_in_step(len(tasks.slots()))

    @abstractmethod
    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        """Return how far replicas go in each round of an epoch. rows: how many each has."""

    def rounds(self, job: TrainingJob, shards: list[dict[int, int]], epoch: int) -> Iterator[Round]:
        """Yield the rounds of an epoch. shards[replica] maps shard number to its number of rows."""
        schedule = self.schedule(job, [sum(replica.values()) for replica in shards])
        walks = [Walk(job, replica, own, epoch) for replica, own in enumerate(shards)]
        for k in range(schedule.n_rounds):
            pieces = [walk.advance_to(goal) for walk, goal in zip(walks, schedule.goals(k), strict=True)]
            assert any(pieces), f"{self} gives no rows to round {k}."
            yield pieces

    @abstractmethod
    def visit(self, job, state: TrainState, carry, shard: Shard, piece: Piece) -> Any:
        """Go through the rows of a piece; carry is what came of the replica's piece before, or None."""

    @abstractmethod
    def finish(self, job, state: TrainState, carry) -> Contribution:
        """Turn what the last visit of a round brought into a contribution."""

    @abstractmethod
    def apply(self, job, state: TrainState, total: Contribution) -> TrainState:
        """Return the state after the round."""

    def merge(self, left: Contribution, right: Contribution) -> Contribution:
        """Return the sum of two contributions."""
        return Contribution(left.vector + right.vector, merge_numbers(left.numbers, right.numbers))

    def learner(self, job: TrainingJob, state: TrainState) -> Learner:
        """Return what carries rounds out in place. TypeError: replicas exchange nothing between rounds."""
        raise TypeError(f"Replicas exchange nothing with strategy {self.name!r}.")

    def contribution_length(self, job: TrainingJob) -> int:
        """Return how many numbers one replica brings to a round."""
        return job.network.n_params * (1 + job.n_slots)

    @property
    def remembers(self) -> bool:
        """Whether replicas keep something from round to round of an epoch, besides the state.

        Then an epoch is carried out by learners as a whole.
        """
        return False

    def replicas_in_step(self, replicas: int) -> int:
        """Return how many replicas share the rows of one step."""
        return replicas

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        """Return the state before the first step, with those parameters (n,)."""
        return TrainState(params, job.initial_slots(params), job.optimizer.initial_rate)

    def share(self, state: TrainState, replica: int) -> TrainState:
        """Return the part of the state that a replica needs for its round."""
        return state


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


@dataclass(frozen=True)
class _LocalTraining(Strategy):
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
class WeightAveraging(_LocalTraining):
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


@dataclass(frozen=True)
class PredictionAveraging(_LocalTraining):
    """As many networks as replicas, each trained apart on its own rows; their predictions are averaged.

    Deep ensembles (Lakshminarayanan et al. 2017), soft voting. `members` is another name of `replicas`;
    every member takes steps of the whole batch_size. Nothing is exchanged but finished members.
    """

    members: int | None = None
    name: ClassVar[str] = "predictions"
    task_name: ClassVar[str] = "dasknn-train-member"

    def __post_init__(self):
        if self.members is not None and self.members < 1:
            raise ValueError(f"Expected members to be at least 1, received {self.members}.")
        if self.members is not None and self.replicas not in (None, self.members):
            raise ValueError(f"Expected replicas={self.members}, the members, received {self.replicas}.")
        object.__setattr__(self, "replicas", self.members or self.replicas)
        super().__post_init__()

    def schedule(self, job, rows):
        # Steps of members are their own: each takes as many as were asked for.
        return Schedule(1, lambda k: [sum(job.rows_of_epoch([own])) for own in rows])

    def local_batch_size(self, job):
        return job.batch_size

    def replicas_in_step(self, replicas):
        return 1

    def init_state(self, job, params, replicas):
        members = np.stack([params, *(job.init_params(member) for member in range(1, replicas))])
        slots = np.stack([job.initial_slots(member) for member in members])
        return TrainState(members, slots, job.optimizer.initial_rate)

    def share(self, state, replica):
        return replace(state, params=state.params[replica], slots=state.slots[replica])

    def visit(self, job, state, carry, shard, piece):
        # carry: the member's own TrainState, whose loss_total and n_samples begin at 0.
        trainer = LocalTrainer(job, state.begin_epoch(state.epoch) if carry is None else carry)
        order = job.row_order(state.epoch, piece.shard, len(shard))
        n_rows = piece.end - piece.begin
        bounds = batch_bounds(n_rows, self.local_batch_size(job) or n_rows)
        rows = slice(piece.begin, piece.end)
        trainer.train(shard, rows if isinstance(order, slice) else order[rows], bounds, piece.shard)
        return trainer.state()

    def finish(self, job, state, carry):
        vector = np.concatenate([carry.params, carry.slots.reshape(-1)])
        return Contribution.of(
            vector[np.newaxis],
            carry.loss_total,
            carry.weight_sum,
            carry.n_samples,
            carry.step - state.step,
            carry.metric_sums,
        )

    def merge(self, left, right):
        # Members stand under one another, in the order of replicas.
        return Contribution(
            np.concatenate([left.vector, right.vector]), merge_numbers(left.numbers, right.numbers)
        )

    def apply(self, job, state, total):
        n_params = state.params.shape[1]
        return replace(
            state,
            params=total.vector[:, :n_params],
            slots=total.vector[:, n_params:].reshape(state.slots.shape),
            step=state.step + total.n_steps,
            loss_total=state.loss_total + total.loss_sum,
            n_samples=state.n_samples + total.n_samples,
            metric_sums=state.metric_sums + total.metric_sums,
        )


def get(strategy: str | Strategy) -> Strategy:
    """Return the strategy of that name. ValueError: neither a name nor a Strategy."""
    if isinstance(strategy, Strategy):
        return strategy
    by_name = {kind.name: kind for kind in (GradientAveraging, WeightAveraging, PredictionAveraging)}
    if isinstance(strategy, str) and strategy in by_name:
        return by_name[strategy]()
    raise ValueError(
        f"Expected strategy to be 'auto', one of {sorted(by_name)} or an object such as "
        f"GradientAveraging(), received {strategy!r}."
    )


# What people who come from TensorFlow call it.
MirroredStrategy = MultiWorkerMirroredStrategy = GradientAveraging
