"""Where the rounds of an epoch run: in this process, by tasks on a cluster, or between its workers.

Transports decide nothing that could change a bit; strategies do.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse
from sklearn.utils import shuffle

from dasknn.cluster.collective import Group, Part
from dasknn.cluster.process_group import ProcessGroup
from dasknn.engine.schedule import ShardCursor
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.exceptions import ClusterTimeoutError, SchedulerLostError
from dasknn.saving import snapshots
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.strategies.local_trainer import LocalTrainer, batch_bounds

OnWave = Callable[[TrainState], None]
# Operations a second of a very slow worker.
_SLOWEST = 1e8
# (mean loss without penalties, gradient summed over the rows, weight of the rows)
LossAndGrad = tuple[float, np.ndarray, float]


class Transport(Protocol):
    """Runs the rounds of an epoch somewhere."""

    #: PROCESS, TASKS or PEER of `choice`.
    name: str
    job: TrainingJob
    n_samples: int

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; on_wave hears of the state now and then."""
        ...  # pragma: no cover

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        """Return mean loss, summed gradient and weight over all rows, for the parameters of the state."""
        ...  # pragma: no cover

    def layout(self) -> dict[str, Any]:
        """Return how the data lies and who learns from which of it, as far as bits depend on it; in JSON's
        types.
        """
        ...  # pragma: no cover

    def memory(self) -> dict[str, np.ndarray]:
        """Return what it remembers from epoch to epoch, besides the state."""
        return {}

    def events(self) -> list[dict]:
        """Return what has happened to the cluster since the last call; see `cluster.faults.Event`."""
        return []

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return what workers have spent on the epoch, by address: seconds of computing, of communication.

        The rest of the time they waited.
        """
        return {}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Take over what the same transport of an interrupted training remembered."""
        return

    def close(self) -> None:
        """End what it keeps between epochs."""
        return


class InProcess(Transport):
    """Trains one replica in this process, with scikit-learn's own order of random draws.

    The running order of rows is shuffled again in each epoch by random_state, as scikit-learn does, so
    that the same seed gives scikit-learn's own numbers.
    """

    name = auto.PROCESS
    _BATCHES_IN_WAVE = 64

    def __init__(
        self, job: TrainingJob, shard: Shard, random_state: np.random.RandomState, held_out: int = 0
    ):
        """held_out: a checksum of the rows that were set aside, 0 if there are none."""
        self.job = job
        self.n_samples = len(shard)
        self._held_out = held_out
        self._shard = shard
        self._random_state = random_state
        self._order = np.arange(len(shard))
        self._all_rows: Workspace | None = None

    def layout(self):
        """See Transport.layout."""
        return {
            "trains": "in this process",
            "rows": self.n_samples,
            "choice of rows held out": self._held_out,
        }

    def memory(self):
        """See Transport.memory: the running order of rows, and where random draws stand."""
        return {"order": self._order, **random_memory(self._random_state)}

    def recall(self, memory):
        """See Transport.recall."""
        order = np.asarray(memory["order"])
        if order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(self.n_samples)):
            raise ValueError(f"Expected an order of {self.n_samples} rows, received another.")
        self._order = order
        recall_random(self._random_state, memory)

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        if self.job.shuffle:
            self._order = shuffle(self._order, random_state=self._random_state)
        batch_size = self.job.batch_size or self.n_samples
        trainer = LocalTrainer(self.job, state)
        wave = self._BATCHES_IN_WAVE * batch_size
        for begin in range(0, self.n_samples, wave):
            order = self._order[begin : begin + wave]
            trainer.train(self._shard, order, batch_bounds(len(order), batch_size))
            on_wave(trainer.state())
        return trainer.state()

    def loss_and_grad(self, state):
        """See Transport.loss_and_grad."""
        shard, network = self._shard, self.job.network
        weight_sum = len(shard) if shard.weight is None else float(shard.weight.sum())
        if sparse.issparse(shard.X):
            # Some rows at a time: all of them would be dense at once.
            loss_sum, grad = loss_and_grad(network, state.params, shard.X, shard.y, shard.weight)
            return loss_sum / weight_sum, grad, weight_sum
        if self._all_rows is None:
            self._all_rows = Workspace(network, len(shard))
            self._all_rows.take(shard.X, shard.y, shard.weight, slice(0, len(shard)))
        grad = np.empty(network.n_params, network.dtype)
        loss = self._all_rows.mean_loss_and_grad(network.views(state.params), network.views(grad))
        return loss, grad, weight_sum


def random_memory(rng: np.random.RandomState) -> dict[str, np.ndarray]:
    """Return where random draws stand. ValueError: draws of another kind than NumPy's own."""
    state = rng.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise ValueError(
            f"A training can be kept whose random_state is a RandomState of MT19937, received one of "
            f"{state['bit_generator']}. Pass a number."
        )
    drawn = np.array([state["has_gauss"], state["gauss"]], np.float64)
    return {"keys": state["state"]["key"], "position": np.array([state["state"]["pos"]]), "drawn": drawn}


def recall_random(rng: np.random.RandomState, memory: Mapping[str, np.ndarray]) -> None:
    """Make random draws go on where they stood. ValueError: that is nowhere."""
    has_gauss, gauss = memory["drawn"]
    n_keys = len(random_memory(rng)["keys"])
    if np.shape(memory["keys"]) != (n_keys,) or not 0 <= memory["position"][0] <= n_keys:
        # NumPy would read what lies behind its keys.
        raise ValueError("Expected random draws that stand somewhere, received others.")
    rng.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": memory["keys"], "pos": int(memory["position"][0])},
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        }
    )


def _layout_of(strategy: Strategy, shards) -> dict[str, Any]:
    """Return the layout of data that is dealt out to replicas."""
    settings = snapshots.described(strategy)
    # However many replicas the strategy asks for, the job has their number.
    settings = {name: value for name, value in settings.items() if name not in ("replicas", "members")}
    split, rows = shards.loaded.split, [list(own.values()) for own in shards.rows_of_replicas()]
    return {
        "trains": "by replicas",
        "strategy": settings,
        "rows": sum(map(sum, rows)),
        "partition": [{"rows": info.n_rows} for info in shards.loaded.infos],
        "choice of rows held out": 0 if split is None or split.seed is None else split.seed,
        "shards": zlib.crc32(str(rows).encode()),
    }


class OnTasks(Transport):
    """Trains by rounds of tasks; see `cluster.tasks`."""

    name = auto.TASKS

    def __init__(self, job: TrainingJob, strategy: Strategy, tasks, shards):
        self.job = job
        self.n_samples = sum(sum(rows.values()) for rows in shards.rows_of_replicas())
        self._strategy = strategy
        self._tasks = tasks
        self._shards = shards
        tasks.start_clock()

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
        sent = self._bytes_between_workers(state)
        state = self._tasks.run_epoch(self._strategy, self.job, state, self._shards, on_wave)
        return replace(state, bytes_sent=sent)

    def layout(self):
        """See Transport.layout."""
        return _layout_of(self._strategy, self._shards)

    def events(self):
        """See Transport.events."""
        return self._tasks.log.take()

    def spent(self):
        """See Transport.spent."""
        return self._tasks.spent()

    def _bytes_between_workers(self, state: TrainState) -> int:
        """Return the bytes that tasks hand to tasks on other workers in an epoch, each at its home."""
        homes = self._tasks.homes(self.job.replicas)
        away = [replica for replica, home in enumerate(homes) if home != homes[0]]
        rows = [sum(own.values()) for own in self._shards.rows_of_replicas()]
        n_rounds = self._strategy.schedule(self.job, rows).n_rounds
        # Where a batch has fewer rows than there are replicas, some bring nothing to a round.
        n_sent = sum(min(n_rounds, rows[replica]) for replica in away)
        up = n_sent * self._strategy.contribution_length(self.job) * state.params.itemsize
        down = {homes[replica]: self._strategy.share(state, replica) for replica in away}
        return up + n_rounds * sum(share.params.nbytes + share.slots.nbytes for share in down.values())

    def loss_and_grad(self, state):
        """See Transport.loss_and_grad."""
        # One round of all rows, as they lie.
        job = replace(self.job, batch_size=None, shuffle=False)
        total: Contribution = self._tasks.total(GradientAveraging(), job, state, self._shards)
        return total.loss_sum / total.weight_sum, total.vector, total.weight_sum


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

    def epoch(self, state, on_wave):
        """See Transport.epoch."""
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
        states, scattered = self._tasks.give(state, len(members.addresses))
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

    def _count(self, reports: list[Report], addresses: Sequence[str | None]) -> None:
        # A round ends for all at once: who came last had to wait for nobody, and only exchanged.
        communication = float(np.min([report.exchanges for report in reports], axis=0).sum())
        for report, address in zip(reports, addresses, strict=True):
            before = self._spent.get(str(address), (0.0, 0.0))
            self._spent[str(address)] = before[0] + report.computing, before[1] + communication

    def spent(self):
        """See Transport.spent."""
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

    def layout(self):
        """See Transport.layout."""
        return _layout_of(self._strategy, self._shards)

    def events(self):
        """See Transport.events."""
        return self._tasks.log.take()

    def close(self) -> None:
        """See Transport.close."""
        # What has become of the cluster by now changes nothing of what was learned.
        with suppress(SchedulerLostError, ClusterTimeoutError, *self._tasks.faults):
            self._let_go()

    def loss_and_grad(self, state):
        """See Transport.loss_and_grad."""
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


class _Exchange:
    """What a learner sees of the group: see `learner.Exchange`."""

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
