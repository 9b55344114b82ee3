"""The hot loops: objects that keep learning, round after round, in arrays of their own.

A `Learner` holds what a worker knows of a training, and changes in place. The pure functions of strategies
create one, use it once and return its state; a worker that trains for many rounds keeps it. So there is one
order of operations, and all transports give the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dasknn.engine.schedule import Piece, Rounds
from dasknn.engine.state import Contribution, Shard, Totals, TrainingJob, TrainState

Item = TypeVar("Item")
Result = TypeVar("Result")


#: What is assumed of a worker, where sizes decide; deliberately modest.
OPERATIONS_PER_SECOND = 5e10


class LinkSpeed(NamedTuple):
    """How fast workers exchange: seconds of a short message, and of each byte of a long one."""

    latency: float
    per_byte: float


class Exchange(ABC):
    """How a learner exchanges contributions with other workers."""

    #: Threads that may work at the same time.
    n_threads: int = 1
    #: Workers that exchange contributions.
    n_workers: int = 1
    #: Replicas that take part in the round.
    present: Sequence[int] = ()
    #: What is known, or assumed, of the links between workers.
    speed = LinkSpeed(0.0, 0.0)

    @abstractmethod
    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return [function(item), ...], possibly computed in several threads."""

    @abstractmethod
    def total(self, contributions: dict[int, Contribution], like: np.ndarray) -> Contribution:
        """Return the sum over all replicas of the round.

        Parameters
        ----------
        contributions : dict
            Those of this worker, by replica; their vectors are overwritten.
        like : ndarray
            A vector of the length and dtype of all of them.
        """

    @abstractmethod
    def start(self, contributions: dict[int, Contribution], like: np.ndarray) -> None:
        """Begin what `total` does, in the background; nothing else is exchanged until `finish`."""

    @abstractmethod
    def finish(self) -> Contribution:
        """Return the sum that was started, when it is there."""


class Learner(ABC):
    """What a worker keeps between rounds: the state, and buffers for each of its replicas.

    Parameters
    ----------
    job : TrainingJob
    state : TrainState
        Where training starts; its arrays are copied.
    """

    def __init__(self, job: TrainingJob, state: TrainState):
        self.job = job
        self._start = state
        self._params, self._slots = state.params.copy(), state.slots.copy()
        self._totals = Totals.of(state)
        self._orders: dict[int, tuple[int, Any]] = {}

    @abstractmethod
    def contribute(self, replica: int, pieces: list[Piece], shards: Mapping[int, Shard]) -> Contribution:
        """Return a replica's contribution to a round, in buffers that the next round overwrites."""

    @abstractmethod
    def apply(self, total: Contribution) -> None:
        """Learn from the merged contributions of a round."""

    def run(self, rounds: Rounds, shards: Mapping[int, Shard], exchange: Exchange) -> None:
        """Carry out some rounds with the replicas of this worker, which have routes."""
        for k in range(len(rounds)):
            exchange.present = rounds.present(k)
            self.round(rounds.pieces(k), shards, exchange)

    def round(self, pieces: dict[int, list[Piece]], shards: Mapping[int, Shard], exchange: Exchange) -> None:
        """Carry out one round.

        Parameters
        ----------
        pieces : dict
            The pieces of this worker's replicas that take part, by replica.
        shards : mapping
            Shards by number.
        exchange : Exchange
        """
        found = exchange.each(lambda replica: self.contribute(replica, pieces[replica], shards), pieces)
        self.take(dict(zip(pieces, found, strict=True)), exchange)

    def take(self, found: dict[int, Contribution], exchange: Exchange) -> None:
        """Exchange the contributions of this worker's replicas to a round, and learn from the sum."""
        self.apply(self.total(found, exchange))

    def close(self) -> None:
        """End what the learner has started."""
        return

    @abstractmethod
    def total(self, found: dict[int, Contribution], exchange: Exchange) -> Contribution:
        """Return the sum over all replicas, given the contributions of this worker's."""

    def state(self) -> TrainState:
        """Return what has been learned; its arrays change when training continues."""
        return replace(self._start, params=self._params, slots=self._slots).with_totals(self._totals)

    def _rows(self, piece: Piece, shard: Shard) -> np.ndarray | slice:
        """Return the rows of a piece."""
        order = self._order(piece, shard)
        return slice(piece.begin, piece.end) if isinstance(order, slice) else order[piece.begin : piece.end]

    def _order(self, piece: Piece, shard: Shard) -> np.ndarray | slice:
        """Return the order of a shard's rows; that of the shard that a replica is in is remembered."""
        if not self.job.shuffle:
            return slice(0, len(shard))
        number, order = self._orders.get(piece.replica, (None, None))
        if number != piece.shard:
            order = self.job.row_order(self._start.epoch, piece.shard, len(shard))
            self._orders[piece.replica] = piece.shard, order
        return order  # type: ignore[return-value]
