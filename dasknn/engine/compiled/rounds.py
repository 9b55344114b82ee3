"""Rounds of averaged gradients, planned before the first of them begins.

What a thread is asked for changes little from round to round: the rows go on. So the requests of all rounds
are written at once, and a round costs one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dasknn.engine.compiled.crew import Crew, address_of
from dasknn.engine.compiled.program import BOUNDS_AT, N_COLUMNS, N_TAKEN, SUM, WHAT
from dasknn.engine.engines import FastRounds
from dasknn.engine.network import ROWS_AT_ONCE
from dasknn.engine.schedule import Rounds
from dasknn.engine.state import Contribution, Shard, TrainingJob


class CompiledRounds(FastRounds):
    """Makes contributions in threads that stay in compiled code from one round to the next.

    Noise and metrics need Python in each round, CSR rows become dense in Python, and a round may go from one
    shard to the next: those are left to others.

    Parameters
    ----------
    job : TrainingJob
    params : ndarray (n_params,)
    n_threads : int
    """

    def __init__(self, job: TrainingJob, params: np.ndarray, n_threads: int):
        self._job, self._params = job, params
        self._n_threads = n_threads
        self._crew = Crew(job, n_threads)
        self._used: list[Any] = []

    def contributions(
        self,
        rounds: Rounds,
        shards: Mapping[int, Shard],
        order: Callable[[int, int], np.ndarray | slice],
    ) -> Iterator[dict[int, Contribution] | None]:
        replicas, network = list(rounds.routes), self._job.network
        if network.is_noisy or self._job.metrics is not None:
            yield from [None] * len(rounds)
            return
        vectors = [np.zeros(network.n_params, network.dtype) for _ in replicas]
        # Where there are more replicas than threads, they take turns.
        n_turns = -(-len(replicas) // self._n_threads)
        requests = np.zeros((len(rounds), n_turns * self._n_threads, N_COLUMNS), np.int64)
        is_other = np.zeros(len(rounds), bool)
        for lane, replica in enumerate(replicas):
            self._plan(rounds, replica, shards, order, vectors[lane], requests[:, lane], is_other)
        takes_part = requests[:, : len(replicas), WHAT] > 0
        longest = max((int(np.diff(rounds.goals[:, replica]).max()) for replica in replicas), default=0)
        self._crew.reserve(min(max(longest, 1), ROWS_AT_ONCE))
        for k in range(len(rounds)):
            if is_other[k]:
                yield None
                continue
            turns = requests[k].reshape(n_turns, self._n_threads, N_COLUMNS)
            numbers = [of_replica for turn in turns for of_replica in self._crew.run_written(turn)]
            yield {
                replica: Contribution(vectors[lane], numbers[lane])
                for lane, replica in enumerate(replicas)
                if takes_part[k, lane]
            }

    def _plan(
        self,
        rounds: Rounds,
        replica: int,
        shards: Mapping[int, Shard],
        order: Callable[[int, int], np.ndarray | slice],
        vector: np.ndarray,
        requests: np.ndarray,
        is_other: np.ndarray,
    ) -> None:
        """Write the requests (n_rounds, N_COLUMNS) for a replica; note rounds that are left to others."""
        route, goals = rounds.routes[replica], np.ascontiguousarray(rounds.goals[:, replica])
        first = np.searchsorted(route.ends, goals[:-1], "right")
        last = np.searchsorted(route.ends, goals[1:], "left")
        sizes = np.diff(goals)
        fits = (sizes > 0) & (sizes <= ROWS_AT_ONCE) & (first == last)
        is_other |= (sizes > 0) & ~fits
        for at in np.unique(first[fits]).tolist():
            shard = shards[route.shards[at]]
            of_shard = np.flatnonzero(fits & (first == at))
            if not isinstance(shard.X, np.ndarray):
                is_other[of_shard] = True
                continue
            bounds = goals - (route.ends[at - 1] if at else 0)
            columns, rows = self._crew.arrays_of(shard, order(replica, route.shards[at]))
            places = [rows.ctypes.data, rows.size, 0, 1, self._params.ctypes.data]
            requests[of_shard, :WHAT] = columns.places
            requests[of_shard, WHAT:N_TAKEN] = [SUM, *places, 0, 0, 0, 0, address_of(vector), True, 0]
            requests[of_shard, BOUNDS_AT] = bounds.ctypes.data + bounds.itemsize * of_shard
            # Addresses do not keep alive what is there.
            self._used += [bounds, columns, rows, vector]

    def close(self) -> None:
        self._crew.close()
