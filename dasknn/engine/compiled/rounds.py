"""Rounds of averaged gradients, planned before the first of them begins.

What a thread is asked for changes little from round to round: the rows go on. So the requests of all rounds
are written at once, and a round costs one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine.compiled.crew import Crew, address_of
from dasknn.engine.compiled.program import BOUNDS_AT, N_COLUMNS, SEEN_AT, SUM, WHAT
from dasknn.engine.engines import FastRounds
from dasknn.engine.network import ROWS_AT_ONCE
from dasknn.engine.schedule import Rounds
from dasknn.engine.state import Contribution, Shard, TrainingJob


class _Plan(NamedTuple):
    """What a replica does in some rounds.

    Attributes
    ----------
    requests : int64 (n_rounds, N_COLUMNS)
        Written where the round is planned; a view of those of all replicas.
    vector : ndarray (n_params,)
        Receives the gradient.
    seen : ndarray (most rows of a round, n_outputs), or empty
        Receives the outputs that metrics need.
    rows : list
        For each round (shard, order, begin, end), or None.
    """

    requests: np.ndarray
    vector: np.ndarray
    seen: np.ndarray
    rows: list[tuple[Shard, np.ndarray | slice, int, int] | None]


class CompiledRounds(FastRounds):
    """Makes contributions in threads that stay in compiled code from one round to the next.

    Noise needs Python in each round, CSR rows become dense in Python, and a round may go from one shard to
    the next: those are left to others.

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
        if self._job.network.is_noisy:
            yield from [None] * len(rounds)
            return
        replicas = list(rounds.routes)
        # Where there are more replicas than threads, they take turns.
        n_turns = -(-len(replicas) // self._n_threads)
        requests = np.zeros((len(rounds), n_turns * self._n_threads, N_COLUMNS), np.int64)
        is_other = np.zeros(len(rounds), bool)
        longest = int(np.diff(rounds.goals[:, replicas], axis=0).max(initial=1))
        self._crew.reserve(min(longest, ROWS_AT_ONCE))
        plans = {}
        for lane, replica in enumerate(replicas):
            plans[replica] = plan = self._empty_plan(requests[:, lane], min(longest, ROWS_AT_ONCE))
            self._write(plan, rounds, replica, shards, order, is_other)
        for k in range(len(rounds)):
            if is_other[k]:
                yield None
                continue
            turns = requests[k].reshape(n_turns, self._n_threads, N_COLUMNS)
            numbers = [of_replica for turn in turns for of_replica in self._crew.run_written(turn)]
            yield {
                replica: Contribution(plan.vector, self._with_metrics(plan, k, numbers[lane]))
                for lane, (replica, plan) in enumerate(plans.items())
                if plan.rows[k] is not None
            }

    def _empty_plan(self, requests: np.ndarray, most_rows: int) -> _Plan:
        network = self._job.network
        seen = np.empty((0 if self._job.metrics is None else most_rows, network.n_outputs), network.dtype)
        return _Plan(requests, np.zeros(network.n_params, network.dtype), seen, [None] * len(requests))

    def _write(
        self,
        plan: _Plan,
        rounds: Rounds,
        replica: int,
        shards: Mapping[int, Shard],
        order: Callable[[int, int], np.ndarray | slice],
        is_other: np.ndarray,
    ) -> None:
        """Write the requests of a replica; note rounds that are left to others."""
        route, goals = rounds.routes[replica], np.ascontiguousarray(rounds.goals[:, replica])
        first = np.searchsorted(route.ends, goals[:-1], "right")
        last = np.searchsorted(route.ends, goals[1:], "left")
        sizes = np.diff(goals)
        fits = (sizes > 0) & (sizes <= ROWS_AT_ONCE) & (first == last)
        is_other |= (sizes > 0) & ~fits
        for at in np.unique(first[fits]).tolist():
            shard, of_shard = shards[route.shards[at]], np.flatnonzero(fits & (first == at))
            if not isinstance(shard.X, np.ndarray):
                is_other[of_shard] = True
                continue
            bounds = goals - (route.ends[at - 1] if at else 0)
            of_rows = order(replica, route.shards[at])
            columns, rows = self._crew.arrays_of(shard, of_rows)
            plan.requests[of_shard, :WHAT] = columns.places
            plan.requests[of_shard, WHAT:SEEN_AT] = [
                *(SUM, rows.ctypes.data, rows.size, 0, 1, self._params.ctypes.data),
                *(0, 0, 0, 0, address_of(plan.vector), True),
            ]
            plan.requests[of_shard, BOUNDS_AT] = bounds.ctypes.data + bounds.itemsize * of_shard
            plan.requests[of_shard, SEEN_AT] = plan.seen.ctypes.data if plan.seen.size else 0
            for k in of_shard.tolist():
                plan.rows[k] = shard, of_rows, int(bounds[k]), int(bounds[k + 1])
            # Addresses do not keep alive what is there.
            self._used += [bounds, columns, rows, plan]

    def _with_metrics(self, plan: _Plan, k: int, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers of a contribution, with the sums of metrics behind them if there are any."""
        of_round = plan.rows[k]
        if self._job.metrics is None or of_round is None:
            return numbers
        shard, order, begin, end = of_round
        of_rows = shard.rows(slice(begin, end) if isinstance(order, slice) else order[begin:end])
        found = self._job.metrics.sums(of_rows.y, plan.seen[: end - begin], of_rows.weight)
        return np.concatenate([numbers, found])

    def close(self) -> None:
        self._crew.close()
