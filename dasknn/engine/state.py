"""What rounds hand over: the job, the state, rows, and what a replica brings.

All of them are values. `ShardCursor` says which rows a replica goes through between two rounds of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine import updater
from dasknn.engine.network import Network
from dasknn.optimizers import Optimizer
from dasknn.regularizers import BatchL2
from dasknn.seeds import Stream, generator


@dataclass(frozen=True)
class WarmUp:
    """Rates rise evenly from learning_rate / factor to learning_rate over `steps` steps (Goyal 2017)."""

    factor: float
    steps: int

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the rate of a step, counted from 1."""
        if step >= self.steps:
            return learning_rate
        return learning_rate * (1 + (self.factor - 1) * step / self.steps) / self.factor


@dataclass(frozen=True)
class TrainingJob:
    """What stays the same through a training: sent to whoever works on it.

    batch_size counts the rows of one step over all replicas; None stands for all rows. warmup: the rates of
    the first so many steps rise to that of the state from so small a part of it. metrics: a
    `metrics.MetricSet`
    to report of the training itself, or None. steps_per_epoch: end epochs after so many steps, if they have
    more.
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

    def rows_of_epoch(self, rows: list[int]) -> list[int]:
        """Return how many rows each replica goes through in an epoch, of those that it has."""
        if self.steps_per_epoch is None or self.batch_size is None:
            return rows
        return in_proportion(rows, min(self.steps_per_epoch * self.batch_size, sum(rows)))

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the learning rate of a step, counted from 1, where the state has that rate."""
        if self.warmup is not None:
            return self.warmup.rate(learning_rate, step)
        return self.optimizer.rate(learning_rate, step)

    @property
    def n_slots(self) -> int:
        """Vectors of state that the optimizer keeps."""
        return updater.n_slots(self.optimizer)

    def initial_slots(self, params: np.ndarray) -> np.ndarray:
        """Return the optimizer's state (n_slots, n) before the first step."""
        return updater.initial_slots(self.optimizer, params)

    @property
    def n_numbers(self) -> int:
        """Numbers of a contribution, besides its vector."""
        return _N_NUMBERS + (0 if self.metrics is None else self.metrics.size)

    def noise(self, step: int, shard: int, begin: int) -> np.random.Generator | None:
        """Return what draws the noise of a step for rows of a shard; None where layers have none."""
        if not self.network.is_noisy:
            return None
        return generator(self.seed, Stream.NOISE, step, shard, begin)

    def init_params(self, member: int) -> np.ndarray:
        """Draw the initial parameters of one member of an ensemble."""
        return self.network.initial_params(generator(self.seed, Stream.PARAMS, member))

    def row_order(self, epoch: int, shard: int, n_rows: int, again: bool = False) -> np.ndarray | slice:
        """Return the order in which the rows of a shard are visited in an epoch.

        again: the caller will ask for the same order soon, so it is remembered.
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
    # Threads share those that are remembered.
    order.setflags(write=False)
    return order


# Rounds of gradients ask for the order of the shard that a thread is in again and again.
_remembered_permutation = lru_cache(maxsize=8)(_permutation)


@dataclass(frozen=True)
class TrainState:
    """Everything that training has learned so far: a value, held by the driver.

    params (n,) or, for an ensemble, (members, n); slots (n_slots, n) or (members, n_slots, n): the
    optimizer's state. Sums over the steps of the running epoch: n_samples, weight_sum, and loss_total,
    the mean loss of a step times its n_samples, metric_sums, and bytes_sent between workers.
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

    def begin_epoch(self, epoch: int) -> TrainState:
        """Return the state with the sums of the epoch at zero."""
        return replace(
            self,
            epoch=epoch,
            loss_total=0.0,
            n_samples=0,
            weight_sum=0.0,
            bytes_sent=0,
            metric_sums=0.0,
        )


@dataclass(frozen=True)
class Shard:
    """Rows that one replica learns from: X (n, p), y as the loss takes it, weight (n,) or None."""

    X: Any
    y: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.X.shape[0]

    def rows(self, rows: np.ndarray | slice) -> Shard:
        """Return a shard of some of its rows."""
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
        """Return it with arrays that begin at a multiple of their items' size; copied where they do not.

        An array that came in a message may begin anywhere. numpy.take copies such a one as a whole first,
        for each mini-batch.
        """
        parts = (self.X, self.y, self.weight)
        if all(part.flags.aligned for part in parts if isinstance(part, np.ndarray)):
            return self
        X, y, weight = (part.copy() if isinstance(part, np.ndarray) else part for part in parts)
        return Shard(X, y, weight)  # type: ignore[arg-type]


# Of a contribution, without sums of metrics.
_N_NUMBERS = 4


class Contribution(NamedTuple):
    """What one replica, or several together, bring to a round: sums, never means.

    vector; numbers (4 + m,) float64: loss_sum, weight_sum (what losses are divided by), n_samples, n_steps
    (of
    which the most counts), and the m sums of metrics.
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
        """Return a contribution with these numbers; metric_sums (m,), or 0.0 where there are no metrics."""
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
        """Weight of the rows."""
        return float(self.numbers[1])

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.numbers[2])

    @property
    def n_steps(self) -> int:
        """Steps that a replica has taken in the round."""
        return int(self.numbers[3])

    @property
    def metric_sums(self) -> np.ndarray | float:
        """Sums of metrics over the rows (m,), or 0.0."""
        return self.numbers[_N_NUMBERS:] if len(self.numbers) > _N_NUMBERS else 0.0


def merge_numbers(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the numbers of two contributions together."""
    merged = left + right
    merged[3] = max(left[3], right[3])
    return merged


def in_proportion(rows: Sequence[int], n: int) -> list[int]:
    """Return n <= sum(rows) as a sum of parts in the proportion of rows.

    No part falls when n grows, so rows that are dealt out by it one after the other are each dealt once.
    """
    parts = []
    left = sum(rows)
    for own in rows:
        # What rounding gives or takes, those that follow share.
        part = (2 * own * n + left) // (2 * left) if own else 0
        parts.append(part)
        n, left = n - part, left - own
    return parts
