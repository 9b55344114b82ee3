"""The hot loops: what goes on learning round after round in arrays of its own.

A `Learner` is a replica's or a worker's memory of a training, which changes in place. Strategies' pure
functions make one, use it once and return what it has come to; a worker that trains for many rounds keeps
it. So there is one order of operations, and all roads give the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from dasknn.engine.schedule import Piece
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState


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
