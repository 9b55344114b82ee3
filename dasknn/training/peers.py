"""Training between workers: one task on each worker, and the tasks exchange vectors among themselves."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np

from dasknn.cluster import costs
from dasknn.cluster.collective import Group, Part
from dasknn.cluster.executor import Executor
from dasknn.cluster.placement import Home
from dasknn.cluster.process_group import ProcessGroup
from dasknn.data.shards import Shards
from dasknn.engine.schedule import Rounds, Route
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.exceptions import ClusterTimeoutError, SchedulerLostError
from dasknn.strategies import Strategy, auto
from dasknn.strategies.learner import Exchange, LinkSpeed
from dasknn.strategies.strategy import BY_SPEED
from dasknn.training.balance import Balance
from dasknn.training.tasks import OnTasks
from dasknn.training.transport import LossAndGrad, OnWave, Transport, layout_of

# Operations per second of a very slow worker.
_SLOWEST = 1e8
# States of at most so many bytes, for all workers together, are sent with the tasks that begin from them.
_GIVEN_BYTES = 5_000_000


class OnPeers(Transport):
    """Trains by one task on each worker, which runs many rounds; see `cluster.process_group`.

    Each worker applies the averages itself, and one of them returns the state. If a wave of rounds fails on
    one worker, it is stopped on all, and run again from the same state.
    """

    name = auto.PEER
    # About how long a wave lasts: the driver reports progress after each.
    _WAVE_SECONDS = 2.0
    _FIRST_WAVE = 512
    _balance: Balance | None = None
    # How many shards of each replica are in memory at a time if data is streamed.
    _SHARDS_AT_ONCE = 2

    def __init__(self, job: TrainingJob, strategy: Strategy, executor: Executor, shards: Shards):
        self.job = job
        self._strategy = strategy
        self._executor = executor
        self._shards = shards
        if strategy.balance == BY_SPEED:
            self._balance = Balance(shards)
        self._look_at_rows()
        self.n_samples = sum(sum(rows.values()) for rows in self._rows)
        if strategy.remembers and shards.streamed:
            raise ValueError(
                f"{strategy} needs data that fits in half of the workers' memory, since replicas keep "
                "gradients from step to step of an epoch. Add workers, or leave compression or delay out."
            )
        self._wave_size = self._schedule.n_rounds if strategy.remembers else self._FIRST_WAVE
        self._group: ProcessGroup | None = None
        self._attempts = 0
        self._spent: dict[str, tuple[float, float]] = {}

    def _look_at_rows(self) -> None:
        self._rows = self._shards.rows_of_replicas()
        self._schedule = self._strategy.schedule(self.job, [sum(own.values()) for own in self._rows])

    @classmethod
    def n_waves(cls, n_rounds: int, seconds: float) -> int:
        """Return how many waves an epoch is cut into whose rounds take so many seconds in all."""
        return min(n_rounds, max(1, round(seconds / cls._WAVE_SECONDS)))

    def connect(self) -> None:
        """Connect the workers. LinkError: they cannot connect to one another."""
        self._group_at(self._executor.homes(self.job.replicas))

    def _group_at(self, homes: Sequence[Home]) -> ProcessGroup:
        """Return a connected process group at these homes: that of the last wave if they are the same."""
        if self._group is None or self._group.homes != homes:
            self._close_group()
            self._attempts += 1
            group = ProcessGroup(self._executor, homes, self._attempts)
            group.connect()
            try:
                group.settings = costs.settings_of(group)
            except BaseException:
                group.close()
                raise
            self._group = group
        return self._group

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        if self._balance is not None and self._balance.deal_again(self._executor.homes(self.job.replicas)):
            self._look_at_rows()
        self._executor.rebalance(self.job.replicas)
        for begin, end, shards in self._waves(state.epoch):
            began = time.perf_counter()
            state = self._run_wave(state, begin, end, shards)
            seconds = max(time.perf_counter() - began, 1e-3)
            # The size of waves may depend on the clock, since it does not change the weights.
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
        def attempt(homes: list[Home], ready: Callable[[], None]) -> TrainState:
            try:
                return self._attempt(homes, ready, state, begin, end, shards)
            except self._executor.faults:
                self._close_group()
                raise

        return self._executor.retry(self.job.replicas, state.epoch, attempt)

    def _attempt(
        self,
        homes: list[Home],
        ready: Callable[[], None],
        state: TrainState,
        begin: int,
        end: int,
        shards: set[int],
    ) -> TrainState:
        try:
            self._shards.repair()
            if not self._shards.streamed:
                self._shards.hold(shards, homes)
            group = self._group_at(homes)
        except self._executor.faults as error:
            fault: Any = error
            fault.while_restoring = True
            raise
        ready()
        held = self._shards.hold(shards, homes)
        threads = Counter(self._executor.slots())
        states, scattered = give(self._executor, state, len(group.addresses))
        args = []
        for rank, address in enumerate(group.addresses):
            own = [
                shard
                for replica, owner in enumerate(group.owners)
                if owner == rank
                for shard in self._rows[replica]
                if shard in shards
            ]
            wave = Wave(self._strategy, self.job, self._rows, begin, end, own, max(1, threads[address]))
            args.append((wave, states[rank], *(held[shard] for shard in own)))
        try:
            reports = group.run(train_wave, args, self._patience())
        finally:
            self._executor.drop(scattered)
        self._count(reports, group.addresses)
        return _common_state(reports, group.addresses)

    def _count(self, reports: Sequence[Report], addresses: Sequence[Home]) -> None:
        # A round ends for all workers at once; the last to arrive does not wait, it only exchanges.
        communication = float(np.min([report.exchanges for report in reports], axis=0).sum())
        for report, address in zip(reports, addresses, strict=True):
            before = self._spent.get(str(address), (0.0, 0.0))
            self._spent[str(address)] = before[0] + report.computing, before[1] + communication

    def spent(self) -> dict[str, tuple[float, float]]:
        spent, self._spent = self._spent, {}
        if self._balance is not None:
            self._balance.note(spent)
        return spent

    def _patience(self) -> float:
        """Return how long a peer may be silent: some seconds, or many times what a round should take."""
        n_rows = sum(self._schedule.goals(self._schedule.n_rounds - 1))
        operations = 6.0 * self.job.network.n_multiplications * n_rows / self._schedule.n_rounds
        return max(self._executor.silence, operations / _SLOWEST)

    def _close_group(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None

    def layout(self) -> dict[str, Any]:
        return layout_of(self._strategy, self._shards)

    def events(self) -> list[dict[str, Any]]:
        return self._executor.log.take()

    def close(self) -> None:
        # A fault of the cluster at the end does not change the result.
        with suppress(SchedulerLostError, ClusterTimeoutError, *self._executor.faults):
            self._close_group()

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        return OnTasks(self.job, self._strategy, self._executor, self._shards).loss_and_grad(state)


def give(executor: Executor, state: TrainState, n: int) -> tuple[list[Any], list[Any]]:
    """Return a state as an argument for each of n tasks, and held results to drop afterwards."""
    if n * (state.params.nbytes + state.slots.nbytes) <= _GIVEN_BYTES:
        return [state] * n, []
    held = executor.put([state], [None])
    return held * n, held


class Wave(NamedTuple):
    """Description of a wave of rounds for one worker, besides the state and its shards.

    Attributes
    ----------
    strategy : Strategy
    job : TrainingJob
    rows_of_replicas : list of dicts
        For each replica, the number of rows of each of its shards.
    begin, end : int
        Number of the first round, and of the last one + 1.
    shards : list of int
        Numbers of the worker's shards.
    n_threads : int
        Threads that the worker's replicas may use.
    """

    strategy: Strategy
    job: TrainingJob
    rows_of_replicas: list[dict[int, int]]
    begin: int
    end: int
    shards: list[int]
    n_threads: int


class Report(NamedTuple):
    """Report of one worker after a wave.

    Attributes
    ----------
    state : TrainState or None
        The state after the wave, from the first worker only.
    digest : int
        A checksum of the state, which must be the same on all workers.
    bytes_sent : int
    computing : float
        Seconds.
    exchanges : array (n,)
        Seconds of each exchange, from when this worker was ready until it had the sum.
    """

    state: TrainState | None
    digest: int
    bytes_sent: int
    computing: float
    exchanges: np.ndarray


def train_wave(group: Group, wave: Wave, state: TrainState, *shards: Shard) -> Report:
    """Run the rounds of a wave, together with the other workers of the group."""
    began = time.perf_counter()
    own = [replica for replica, owner in enumerate(group.owners) if owner == group.rank]
    schedule = wave.strategy.schedule(wave.job, [sum(rows.values()) for rows in wave.rows_of_replicas])
    routes = {
        replica: Route(wave.job, replica, wave.rows_of_replicas[replica], state.epoch) for replica in own
    }
    # Dask may have moved a shard since it was made, and a moved array may not be aligned.
    by_number = {number: shard.aligned() for number, shard in zip(wave.shards, shards, strict=True)}
    learner = wave.strategy.learner(wave.job, state)
    exchange = _Exchange(group, max(1, min(wave.n_threads, len(own))), wave.job.n_numbers)
    with closing(learner), exchange:
        learner.run(Rounds(schedule, routes, wave.begin, wave.end), by_number, exchange)
    found = learner.state()
    digest = zlib.crc32(found.slots.tobytes(), zlib.crc32(found.params.tobytes()))
    exchanges = np.array(exchange.seconds)
    compute = time.perf_counter() - began - float(exchanges.sum())
    return Report(found if group.rank == 0 else None, digest, group.bytes_sent, compute, exchanges)


class _Exchange(Exchange):
    """The exchange with the other workers of the group."""

    def __init__(self, group: Group, n_threads: int, n_numbers: int):
        self._group = group
        self.n_threads, self.n_workers = n_threads, len(set(group.owners))
        self._pool = ThreadPoolExecutor(n_threads, "dasknn-replica") if n_threads > 1 else None
        self._background: ThreadPoolExecutor | None = None
        self._started: Future[Contribution] | None = None
        self.speed = LinkSpeed(group.settings.costs.latency, group.settings.costs.per_byte)
        self._numbers = np.empty(n_numbers)
        # Of each exchange so far.
        self.seconds: list[float] = []

    def each(self, function: Callable, items: Iterable) -> list:
        if self._pool is None:
            return [function(item) for item in items]

        def quietly(item: Any) -> Any:
            # Threads of the pool do not inherit numpy's settings from the task's thread.
            with np.errstate(over="ignore", invalid="ignore"):
                return function(item)

        return list(self._pool.map(quietly, items))

    def total(self, contributions: dict[int, Contribution], like: np.ndarray) -> Contribution:
        began = time.perf_counter()
        total = self._sum(contributions, like, self.present)
        self.seconds.append(time.perf_counter() - began)
        return total

    def _sum(
        self, contributions: dict[int, Contribution], like: np.ndarray, present: Sequence[int]
    ) -> Contribution:
        parts = {replica: Part(*found) for replica, found in contributions.items()}
        return Contribution(*self._group.all_reduce(parts, Part(like, self._numbers), present, merge_numbers))

    def start(self, contributions: dict[int, Contribution], like: np.ndarray) -> None:
        assert self._started is None, "one sum at a time"
        if self.n_workers == 1:
            self._started = Future()
            self._started.set_result(self._sum(contributions, like, self.present))
            return
        if self._background is None:
            self._background = ThreadPoolExecutor(1, "dasknn-exchange")

        def quietly() -> Contribution:
            with np.errstate(over="ignore", invalid="ignore"):
                return self._sum(contributions, like, present)

        present = self.present
        self._started = self._background.submit(quietly)

    def finish(self) -> Contribution:
        assert self._started is not None
        began = time.perf_counter()
        started, self._started = self._started, None
        total = started.result()
        self.seconds.append(time.perf_counter() - began)
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        if self._background is not None:
            # After an error, it may wait for a peer until the group is aborted.
            self._background.shutdown(wait=False)


def _common_state(reports: Sequence[Report], addresses: Sequence[Home]) -> TrainState:
    """Return the state after a wave. RuntimeError: workers have different states."""
    first = reports[0]
    assert first.state is not None
    for report, address in zip(reports, addresses, strict=True):
        if report.digest != first.digest:
            raise RuntimeError(
                f"Worker {address} has other weights than {addresses[0]} after the same rounds. Use the same "
                "versions of dasknn and numpy on all workers, on processors of one family."
            )
    sent = sum(report.bytes_sent for report in reports)
    return replace(first.state, bytes_sent=first.state.bytes_sent + sent)
