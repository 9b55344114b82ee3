"""Rounds between workers: one task on each, which exchange vectors among themselves."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dasknn.cluster.collective import Group, Part
from dasknn.cluster.process_group import ProcessGroup
from dasknn.engine.schedule import ShardCursor
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.exceptions import ClusterTimeoutError, SchedulerLostError
from dasknn.strategies import Strategy, auto
from dasknn.strategies.learner import Exchange
from dasknn.training.tasks import OnTasks
from dasknn.training.transport import LossAndGrad, OnWave, Transport, layout_of

# Operations a second of a very slow worker.
_SLOWEST = 1e8


# States of so many bytes, for all workers together, travel with the tasks that begin from them.
_GIVEN_BYTES = 5_000_000


class OnPeers(Transport):
    """Trains by one task on each worker, which carries out many rounds; see `cluster.members`.

    Each worker applies what was averaged by itself, and one of them returns the state. A wave of rounds
    that fails on one worker is given up on all, and run again from the same state.
    """

    name = auto.PEER
    # A wave lasts about this long: so often the driver hears of progress.
    _WAVE_SECONDS = 2.0
    _FIRST_WAVE = 512
    # Of streamed data, so many shards of each replica are in memory at a time.
    _SHARDS_AT_ONCE = 2

    def __init__(self, job: TrainingJob, strategy: Strategy, tasks, shards):
        self.job = job
        self._strategy = strategy
        self._tasks = tasks
        self._shards = shards
        self._rows = shards.rows_of_replicas()
        self.n_samples = sum(sum(rows.values()) for rows in self._rows)
        self._schedule = strategy.schedule(job, [sum(own.values()) for own in self._rows])
        if strategy.remembers and shards.streamed:
            raise ValueError(
                f"{strategy} needs data that fits in half of the workers' memory, since replicas remember "
                "what they have not sent yet. Add workers, or leave compression out."
            )
        self._wave_size = self._schedule.n_rounds if strategy.remembers else self._FIRST_WAVE
        self._members: ProcessGroup | None = None
        self._attempts = 0
        self._spent: dict[str, tuple[float, float]] = {}

    def connect(self) -> None:
        """Connect the workers. LinkError: they cannot reach one another."""
        self._members_at(self._tasks.homes(self.job.replicas))

    def _members_at(self, homes: list[str | None]) -> ProcessGroup:
        """Return members that are connected, those of the last wave if they are the same."""
        if self._members is None or self._members.homes != homes:
            self._let_go()
            self._attempts += 1
            members = ProcessGroup(self._tasks, homes, self._attempts)
            members.connect()
            self._members = members
        return self._members

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        self._tasks.rebalance(self.job.replicas)
        for begin, end, shards in self._waves(state.epoch):
            began = time.perf_counter()
            state = self._run_wave(state, begin, end, shards)
            seconds = max(time.perf_counter() - began, 1e-3)
            # How rounds are cut into waves changes no bit, so it may follow the clock.
            if not self._strategy.remembers:
                self._wave_size = max(1, round((end - begin) * min(8.0, self._WAVE_SECONDS / seconds)))
            on_wave(state)
        return state

    def _waves(self, epoch: int) -> Iterator[tuple[int, int, set[int]]]:
        """Yield first round, last round + 1 and the shards of each wave."""
        if self._shards.streamed:
            yield from self._streamed_waves(epoch)
            return
        n_rounds = self._schedule.n_rounds
        everything = {shard for own in self._rows for shard in own}
        begin = 0
        while begin < n_rounds:
            end = min(n_rounds, begin + self._wave_size)
            yield begin, end, everything
            begin = end

    def _streamed_waves(self, epoch: int) -> Iterator[tuple[int, int, set[int]]]:
        begin, k = 0, 0
        used: set[tuple[int, int]] = set()
        for k, pieces_of_replicas in enumerate(self._strategy.rounds(self.job, self._rows, epoch)):
            new = {(piece.replica, piece.shard) for pieces in pieces_of_replicas for piece in pieces}
            most = max(Counter(replica for replica, _ in used | new).values())
            if used and most > self._SHARDS_AT_ONCE:
                yield begin, k, {shard for _, shard in used}
                begin, used = k, set()
            used |= new
        yield begin, k + 1, {shard for _, shard in used}

    def _run_wave(self, state: TrainState, begin: int, end: int, shards: set[int]) -> TrainState:
        def attempt(homes, ready):
            try:
                return self._attempt(homes, ready, state, begin, end, shards)
            except self._tasks.faults:
                self._let_go()
                raise

        return self._tasks.retry(self.job.replicas, state.epoch, attempt)

    def _attempt(self, homes, ready, state: TrainState, begin: int, end: int, shards: set[int]) -> TrainState:
        self._shards.repair()
        if not self._shards.streamed:
            self._shards.hold(shards, homes)
        members = self._members_at(homes)
        ready()
        held = self._shards.hold(shards, homes)
        threads = Counter(self._tasks.slots())
        states, scattered = self._give(state, len(members.addresses))
        args = []
        for rank, address in enumerate(members.addresses):
            own = [
                shard
                for replica, owner in enumerate(members.owners)
                if owner == rank
                for shard in self._rows[replica]
                if shard in shards
            ]
            wave = Wave(self._strategy, self.job, self._rows, begin, end, own, max(1, threads[address]))
            args.append((wave, states[rank], *(held[shard] for shard in own)))
        try:
            results = members.run(train_wave, args, self._patience())
        finally:
            self._tasks.drop(scattered)
        self._count(results, members.addresses)
        return _agreed(results, members.addresses)

    def _give(self, state: TrainState, n: int) -> tuple[list[Any], list[Any]]:
        """Return a state as an argument for each of n tasks, and what to drop afterwards."""
        if n * (state.params.nbytes + state.slots.nbytes) <= _GIVEN_BYTES:
            return [state] * n, []
        held = self._tasks.put([state], [None])
        return held * n, held

    def _count(self, reports: list[Report], addresses: Sequence[str | None]) -> None:
        # A round ends for all at once: who came last had to wait for nobody, and only exchanged.
        communication = float(np.min([report.exchanges for report in reports], axis=0).sum())
        for report, address in zip(reports, addresses, strict=True):
            before = self._spent.get(str(address), (0.0, 0.0))
            self._spent[str(address)] = before[0] + report.computing, before[1] + communication

    def spent(self) -> dict[str, tuple[float, float]]:
        spent, self._spent = self._spent, {}
        return spent

    def _patience(self) -> float:
        """Return how long a peer may be silent: some seconds, or many times what a round should take."""
        n_rows = sum(self._schedule.goals(self._schedule.n_rounds - 1))
        operations = 6.0 * self.job.network.n_weights * n_rows / self._schedule.n_rounds
        return max(self._tasks.silence, operations / _SLOWEST)

    def _let_go(self) -> None:
        if self._members is not None:
            self._members.close()
            self._members = None

    def layout(self) -> dict[str, Any]:
        return layout_of(self._strategy, self._shards)

    def events(self) -> list[dict[str, Any]]:
        return self._tasks.log.take()

    def close(self) -> None:
        # What has become of the cluster by now changes nothing of what was learned.
        with suppress(SchedulerLostError, ClusterTimeoutError, *self._tasks.faults):
            self._let_go()

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        return OnTasks(self.job, self._strategy, self._tasks, self._shards).loss_and_grad(state)


class Wave(NamedTuple):
    """What a member must know of a wave of rounds, besides the state and its shards."""

    strategy: Strategy
    job: TrainingJob
    rows_of_replicas: list[dict[int, int]]
    begin: int
    end: int
    shards: list[int]
    n_threads: int


class Report(NamedTuple):
    """What a member says after a wave: the state if it is the first member, and what all must agree on.

    computing: seconds. exchanges (n,): seconds of each, from when this member was ready until it had the sum.
    """

    state: TrainState | None
    digest: int
    bytes_sent: int
    computing: float
    exchanges: np.ndarray


def train_wave(group: Group, wave: Wave, state: TrainState, *shards: Shard) -> Report:
    """Carry out rounds begin to end of an epoch, together with the other members of the group."""
    began = time.perf_counter()
    own = [replica for replica, owner in enumerate(group.owners) if owner == group.rank]
    schedule = wave.strategy.schedule(wave.job, [sum(rows.values()) for rows in wave.rows_of_replicas])
    cursors = {
        replica: ShardCursor(wave.job, replica, wave.rows_of_replicas[replica], state.epoch)
        for replica in own
    }
    before = schedule.goals(wave.begin - 1) if wave.begin else [0] * len(group.owners)
    for replica, cursor in cursors.items():
        cursor.advance_to(before[replica])
    # Dask may have moved a shard since it was made.
    by_number = {number: shard.aligned() for number, shard in zip(wave.shards, shards, strict=True)}
    learner = wave.strategy.learner(wave.job, state)
    with _Exchange(group, min(wave.n_threads, len(own)), wave.job.n_numbers) as exchange:
        for k in range(wave.begin, wave.end):
            goals = schedule.goals(k)
            present = [replica for replica, goal in enumerate(goals) if goal > before[replica]]
            pieces = {r: cursor.advance_to(goals[r]) for r, cursor in cursors.items() if goals[r] > before[r]}
            exchange.present = present
            learner.round(pieces, by_number, exchange)
            before = goals
    found = learner.state()
    digest = zlib.crc32(found.slots.tobytes(), zlib.crc32(found.params.tobytes()))
    exchanges = np.array(exchange.seconds)
    compute = time.perf_counter() - began - float(exchanges.sum())
    return Report(found if group.rank == 0 else None, digest, group.bytes_sent, compute, exchanges)


class _Exchange(Exchange):
    """An exchange with the other members of the group."""

    def __init__(self, group: Group, n_threads: int, n_numbers: int):
        self._group = group
        self._pool = ThreadPoolExecutor(n_threads, "dasknn-replica") if n_threads > 1 else None
        self._numbers = np.empty(n_numbers)
        self.present: list[int] = []
        #: Of each exchange so far.
        self.seconds: list[float] = []

    def each(self, function, items):
        if self._pool is None:
            return [function(item) for item in items]

        def quietly(item):
            # Threads of the pool do not have numpy's settings of the task's thread.
            with np.errstate(over="ignore", invalid="ignore"):
                return function(item)

        return list(self._pool.map(quietly, items))

    def total(self, contributions, like):
        parts = {replica: Part(*found) for replica, found in contributions.items()}
        began = time.perf_counter()
        total = self._group.all_reduce(parts, Part(like, self._numbers), self.present, merge_numbers)
        self.seconds.append(time.perf_counter() - began)
        return Contribution(*total)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self._pool is not None:
            self._pool.shutdown()


def _agreed(reports: list[Report], addresses: Sequence[str | None]) -> TrainState:
    """Return the state that all members have come to."""
    first = reports[0]
    assert first.state is not None
    for report, address in zip(reports, addresses, strict=True):
        if report.digest != first.digest:
            raise RuntimeError(
                f"{address} has come to other weights than {addresses[0]}. Workers must run the same "
                "version of dasknn and numpy, on processors of one family."
            )
    sent = sum(report.bytes_sent for report in reports)
    return replace(first.state, bytes_sent=first.state.bytes_sent + sent)
