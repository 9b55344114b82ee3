"""Which replica trains on which rows in which round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from dasknn.engine.state import TrainingJob


@dataclass(frozen=True)
class Piece:
    """Rows begin to end, in the order of the epoch, of the shard with that number."""

    shard: int
    replica: int
    begin: int
    end: int


#: The pieces of each replica in one round.
Round = list[list[Piece]]


class ShardCursor:
    """A replica's position in its shards during an epoch.

    shards maps the replica's shards to their numbers of rows.
    """

    def __init__(self, job: TrainingJob, replica: int, shards: dict[int, int], epoch: int):
        self._replica = replica
        self._shards = ((shard, shards[shard]) for shard in job.shard_order(epoch, replica, list(shards)))
        self._current = (-1, 0)
        self._begin = self._done = 0

    def advance_to(self, goal: int) -> list[Piece]:
        """Return the pieces from the current position to `goal` rows after the start of the epoch."""
        pieces = []
        while self._done < goal:
            shard, n_rows = self._current
            if self._begin == n_rows:
                self._current, self._begin = next(self._shards), 0
                continue
            end = min(n_rows, self._begin + goal - self._done)
            pieces.append(Piece(shard, self._replica, self._begin, end))
            self._done += end - self._begin
            self._begin = end
        return pieces


class Schedule(NamedTuple):
    """How far replicas are at the end of each round.

    Every round has rows of at least one replica, so the number of rounds is the number of steps.

    Attributes
    ----------
    n_rounds : int
    goals : callable
        After round k (from 0), replica r has done goals(k)[r] rows.
    """

    n_rounds: int
    goals: Callable[[int], list[int]]
