"""Which replica trains on which rows in which round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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


class Route:
    """The shards of a replica, in the order in which it visits them in an epoch.

    Attributes
    ----------
    replica : int
    shards : list of int
        Their numbers.
    ends : int64 (n_shards,)
        Rows that the replica has done at the end of each.
    """

    def __init__(self, job: TrainingJob, replica: int, rows: dict[int, int], epoch: int):
        self.replica = replica
        self.shards = job.shard_order(epoch, replica, list(rows))
        self.ends = np.cumsum([rows[shard] for shard in self.shards], dtype=np.int64)

    def pieces(self, begin: int, end: int) -> list[Piece]:
        """Return the pieces between two numbers of rows that are done."""
        pieces = []
        at = int(np.searchsorted(self.ends, begin, "right"))
        while begin < end:
            first = int(self.ends[at - 1]) if at else 0
            stop = min(end, int(self.ends[at]))
            if begin < stop:
                pieces.append(Piece(self.shards[at], self.replica, begin - first, stop - first))
            begin, at = stop, at + 1
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


class Rounds:
    """Some rounds of an epoch: which pieces replicas go through in each, for those that have a route.

    Parameters
    ----------
    schedule : Schedule
    routes : dict
        The Route of each replica that is asked for.
    begin, end : int
        Number of the first round, and of the last one + 1.

    Attributes
    ----------
    routes : dict
    goals : int64 (end - begin + 1, n_replicas)
        Rows that each replica has done before the first round, and after each.
    """

    def __init__(self, schedule: Schedule, routes: dict[int, Route], begin: int, end: int):
        self.routes = routes
        goals = [schedule.goals(k) for k in range(max(begin - 1, 0), end)]
        self.goals = np.array(goals if begin else [[0] * len(goals[0]), *goals], np.int64)
        self._takes_part = self.goals[1:] > self.goals[:-1]
        self._all = list(range(self.goals.shape[1])) if self._takes_part.all() else None

    def __len__(self) -> int:
        return len(self.goals) - 1

    def present(self, k: int) -> list[int]:
        """Return the replicas that take part in round k, counted from the first of these."""
        return np.flatnonzero(self._takes_part[k]).tolist() if self._all is None else self._all

    def pieces(self, k: int) -> dict[int, list[Piece]]:
        """Return the pieces of each replica that has a route and takes part in round k."""
        return {
            replica: route.pieces(*self.goals[k : k + 2, replica].tolist())
            for replica, route in self.routes.items()
            if self._takes_part[k, replica]
        }
