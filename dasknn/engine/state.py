"""What rounds work on: the job, the state, rows, and a replica's contribution.

All of them are values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine import updater
from dasknn.engine.network import Network
from dasknn.engine.versions import numba_version
from dasknn.layers.regularization import NoiseGenerator
from dasknn.optimizers import Optimizer
from dasknn.regularizers import BatchL2
from dasknn.schedules import LearningRateSchedule
from dasknn.seeds import Stream, generator


@dataclass(frozen=True)
class WarmUp:
    """Rates rise evenly from learning_rate / factor to learning_rate in `steps` steps (Goyal et al. 2017)."""

    factor: float
    steps: int

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the rate of a step, counted from 1."""
        if step >= self.steps:
            return learning_rate
        return learning_rate * (1 + (self.factor - 1) * step / self.steps) / self.factor


@dataclass(frozen=True)
class TrainingJob:
    """The settings of a training, which stay the same throughout and are sent to all workers.

    Attributes
    ----------
    network : Network
    optimizer : Optimizer
    regularizer : BatchL2
    batch_size : int or None
        Rows of one step over all replicas; None for all rows.
    seed : int
    replicas : int
    shuffle : bool
    warmup : WarmUp or None
        How the learning rate rises in the first steps.
    metrics : MetricSet or None
        Metrics to compute on the training rows.
    steps_per_epoch : int or None
        Epochs end after this many steps, if they have more.
    engine : str
        Name of the engine that computes: see `engine.engines`.
    noise_schedule : LearningRateSchedule or None
        Strength of dropout in each step: the share of its rate that is used. None: all of it.
    """

    network: Network
    optimizer: Optimizer
    regularizer: BatchL2
    batch_size: int | None
    seed: int
    replicas: int = 1
    shuffle: bool = True
    warmup: WarmUp | None = None
    metrics: Any = None
    steps_per_epoch: int | None = None
    engine: str = "numpy"
    noise_schedule: LearningRateSchedule | None = None

    def rows_of_epoch(self, rows: list[int]) -> list[int]:
        """Return how many of its rows each replica goes through in an epoch."""
        if self.steps_per_epoch is None or self.batch_size is None:
            return rows
        return in_proportion(rows, min(self.steps_per_epoch * self.batch_size, sum(rows)))

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the learning rate of a step, counted from 1. learning_rate: that of the state."""
        if self.warmup is not None:
            return self.warmup.rate(learning_rate, step)
        return self.optimizer.rate(learning_rate, step)

    @property
    def engine_described(self) -> str:
        """The engine, with the version on which its bits depend."""
        return f"{self.engine} {numba_version()}" if self.engine == "numba" else self.engine

    @property
    def n_slots(self) -> int:
        """Number of state vectors that the optimizer keeps."""
        return updater.n_slots(self.optimizer)

    def initial_slots(self, params: np.ndarray) -> np.ndarray:
        """Return the optimizer's state (n_slots, n) before the first step."""
        return updater.initial_slots(self.optimizer, params)

    @property
    def n_numbers(self) -> int:
        """How many numbers a contribution has in addition to its vector."""
        return _N_NUMBERS + (0 if self.metrics is None else self.metrics.size)

    def noise(self, step: int, shard: int, begin: int) -> np.random.Generator | None:
        """Return the generator for the noise of a step on rows of a shard; None if layers need none."""
        if not self.network.is_noisy:
            return None
        drawn = generator(self.seed, Stream.NOISE, step, shard, begin)
        if self.noise_schedule is None:
            return drawn
        return NoiseGenerator.of(drawn, self.noise_schedule(step))

    def init_params(self, member: int) -> np.ndarray:
        """Draw the initial parameters of one member of an ensemble."""
        return self.network.initial_params(generator(self.seed, Stream.PARAMS, member))

    def row_order(self, epoch: int, shard: int, n_rows: int, again: bool = False) -> np.ndarray | slice:
        """Return the order in which the rows of a shard are visited in an epoch.

        again: the same order is needed again soon, so it is cached.
        """
        if not self.shuffle:
            return slice(0, n_rows)
        permutation = _remembered_permutation if again else _permutation
        return permutation(self.seed, epoch, shard, n_rows)

    def shard_order(self, epoch: int, replica: int, shards: list[int]) -> list[int]:
        """Return the order in which a replica visits its shards in an epoch."""
        if not self.shuffle:
            return shards
        rng = generator(self.seed, Stream.SHARD_ORDER, epoch, replica)
        return [shards[i] for i in rng.permutation(len(shards))]


def _permutation(seed: int, epoch: int, shard: int, n_rows: int) -> np.ndarray:
    order = generator(seed, Stream.ROW_ORDER, epoch, shard).permutation(n_rows)
    order = order.astype(np.int32) if n_rows < 2**31 else order
    # Threads share the cached ones.
    order.setflags(write=False)
    return order


# Rounds of averaged gradients need the order of the shard that a thread is in again and again.
_remembered_permutation = lru_cache(maxsize=8)(_permutation)


@dataclass(frozen=True)
class TrainState:
    """Everything that training has learned so far: a value, held by the driver.

    Attributes
    ----------
    params : ndarray (n,), or (members, n) for an ensemble
    slots : ndarray (n_slots, n) or (members, n_slots, n)
        The optimizer's state.
    learning_rate : float
    step : int
        Steps taken so far.
    epoch : int
        Number of the running epoch, from 0.
    loss_total : float
        Sum over the steps of the epoch: mean loss of the step times its number of rows.
    n_samples : int
        Rows of the epoch so far.
    weight_sum : float
        What their losses are divided by, summed.
    bytes_sent : int
        Bytes sent between workers in the epoch.
    metric_sums : ndarray (m,) or 0.0
        Sums of metrics over the rows of the epoch.
    """

    params: np.ndarray
    slots: np.ndarray
    learning_rate: float
    step: int = 0
    epoch: int = 0
    loss_total: float = 0.0
    n_samples: int = 0
    weight_sum: float = 0.0
    bytes_sent: int = 0
    metric_sums: np.ndarray | float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss per row in the running epoch."""
        return self.loss_total / self.n_samples if self.n_samples else float("nan")

    def with_totals(self, totals: Totals) -> TrainState:
        """Return this state with these totals."""
        return replace(self, **vars(totals))

    def begin_epoch(self, epoch: int) -> TrainState:
        """Return the state at the start of an epoch, with its sums at zero."""
        return replace(
            self,
            epoch=epoch,
            loss_total=0.0,
            n_samples=0,
            weight_sum=0.0,
            bytes_sent=0,
            metric_sums=0.0,
        )


@dataclass
class Totals:
    """What a state counts and adds up beside its arrays; it changes as learning goes on.

    The attributes are those of `TrainState`.
    """

    step: int
    loss_total: float
    n_samples: int
    weight_sum: float
    metric_sums: Any

    @classmethod
    def of(cls, state: TrainState) -> Totals:
        """Return the totals of a state."""
        return cls(state.step, state.loss_total, state.n_samples, state.weight_sum, state.metric_sums)


@dataclass(frozen=True)
class Shard:
    """Rows that one replica learns from: X (n, p), y as the loss takes it, weight (n,) or None."""

    X: Any
    y: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.X.shape[0]

    def rows(self, rows: np.ndarray | slice) -> Shard:
        """Return a shard of these rows."""
        return Shard(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    @staticmethod
    def joined(shards: list[Shard]) -> Shard:
        """Return one shard with the rows of several, X dense."""
        if len(shards) == 1 and isinstance(shards[0].X, np.ndarray):
            return shards[0]
        X = [shard.X if isinstance(shard.X, np.ndarray) else shard.X.toarray() for shard in shards]
        weights = [shard.weight for shard in shards if shard.weight is not None]
        weight = np.concatenate(weights) if weights else None
        return Shard(np.concatenate(X), np.concatenate([shard.y for shard in shards]), weight)

    def aligned(self) -> Shard:
        """Return the shard with arrays that start at a multiple of their items' size, copied if needed.

        An array that arrived in a message may start anywhere, and numpy.take copies such an array as a whole,
        for each mini-batch.
        """
        parts = (self.X, self.y, self.weight)
        if all(part.flags.aligned for part in parts if isinstance(part, np.ndarray)):
            return self
        X, y, weight = (part.copy() if isinstance(part, np.ndarray) else part for part in parts)
        return Shard(X, y, weight)  # type: ignore[arg-type]


# How many numbers a contribution has without metrics.
_N_NUMBERS = 4


class Contribution(NamedTuple):
    """What one replica, or several together, contribute to a round: sums, never means.

    Attributes
    ----------
    vector : ndarray
    numbers : ndarray (4 + m,) float64
        loss_sum, weight_sum (the divisor of the loss), n_samples, n_steps (the most of several replicas), and
        m sums of metrics.
    """

    vector: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(
        cls,
        vector: np.ndarray,
        loss_sum: float,
        weight_sum: float,
        n_samples: int,
        n_steps: int = 1,
        metric_sums: Any = 0.0,
    ) -> Contribution:
        """Return a contribution with these numbers; metric_sums is (m,), or 0.0 without metrics."""
        numbers = np.array([loss_sum, weight_sum, n_samples, n_steps], np.float64)
        if isinstance(metric_sums, np.ndarray):
            numbers = np.concatenate([numbers, metric_sums])
        return cls(vector, numbers)

    @property
    def loss_sum(self) -> float:
        """Loss summed over the rows."""
        return float(self.numbers[0])

    @property
    def weight_sum(self) -> float:
        """The divisor of the loss: the weight of the rows."""
        return float(self.numbers[1])

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.numbers[2])

    @property
    def n_steps(self) -> int:
        """Steps that replicas have taken in the round."""
        return int(self.numbers[3])

    @property
    def metric_sums(self) -> np.ndarray | float:
        """Sums of metrics over the rows (m,), or 0.0."""
        return self.numbers[_N_NUMBERS:] if len(self.numbers) > _N_NUMBERS else 0.0


def merge_numbers(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the numbers of two contributions together: sums, and the larger number of steps."""
    merged = left + right
    merged[3] = max(left[3], right[3])
    return merged


def in_proportion(rows: Sequence[int], n: int) -> list[int]:
    """Return n <= sum(rows) as a sum of parts in the proportion of rows.

    No part becomes smaller when n grows, so rows that are dealt out in this way are each dealt once.
    """
    parts = []
    left = sum(rows)
    for own in rows:
        # The parts that follow share what rounding adds or takes away.
        part = (2 * own * n + left) // (2 * left) if own else 0
        parts.append(part)
        n, left = n - part, left - own
    return parts
