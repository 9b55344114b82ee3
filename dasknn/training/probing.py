"""What workers take to compute and to average: they run a few real rounds of a training, on rows like its."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dasknn.cluster import costs
from dasknn.cluster.collective import Group, Part, Settings
from dasknn.cluster.costs import ClusterCosts, median_seconds
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home
from dasknn.cluster.process_group import ProcessGroup
from dasknn.data import targets
from dasknn.data.targets import TargetEncoder
from dasknn.engine.network import Network
from dasknn.engine.state import Shard, TrainingJob, TrainState
from dasknn.layers import BinEmbedding, BinEncoding, ColumnGroups, Embedding, OneHot
from dasknn.seeds import same_each_time
from dasknn.strategies import GradientAveraging, OuterNesterov, Strategy, WeightAveraging
from dasknn.training.peers import Wave, give, train_wave
from dasknn.training.tasks import add_rounds

#: What a cluster can do instead of averaging gradients in every step.
OFTEN_STEPS = 16
OFTEN = WeightAveraging(OFTEN_STEPS, OuterNesterov())

# About how long each kind of round is measured, and the fewest and most rounds.
_SECONDS = 0.2
_FEWEST, _MOST = 2, 64
# Rows of a replica take at most so many bytes; a step of more rows is said to take longer in proportion.
_MOST_BYTES = 32_000_000
_N_TASK_ROUNDS = 6
_PATIENCE = 120.0


class RoundTimes(NamedTuple):
    """Mean seconds of a round between workers.

    Attributes
    ----------
    whole : float
    computing : float
        Of the mean worker.
    exchange : float
        Of the last worker to arrive, which waits for no other.
    """

    whole: float
    computing: float
    exchange: float

    @property
    def waiting(self) -> float:
        """Seconds until the slowest worker is ready."""
        return max(0.0, self.whole - self.computing - self.exchange)


@dataclass(frozen=True)
class Measured:
    """Measurements of a training on a cluster.

    Attributes
    ----------
    cluster : ClusterCosts
        What does not depend on the training.
    gradients : RoundTimes
        Of a step of averaged gradients.
    fewer_rows : RoundTimes
        Of a step with a quarter of the rows.
    weights : RoundTimes
        Of 16 steps of each replica, and an average of their weights.
    wave : float
        Seconds of a wave of no rounds, whose state goes to all workers and comes back.
    task_round : float
        Seconds of a step of averaged gradients through the scheduler.
    question : float
        Seconds until the scheduler answers a question.
    homes : tuple of addresses
        Where each replica works.
    hosts : tuple of int
        The host of each worker.
    settings : collective.Settings
        How workers sum.
    """

    cluster: ClusterCosts
    gradients: RoundTimes
    fewer_rows: RoundTimes
    weights: RoundTimes
    wave: float
    task_round: float
    question: float
    homes: tuple[Home, ...]
    hosts: tuple[int, ...]
    settings: Settings

    @property
    def step(self) -> float:
        """Seconds that a worker computes in a step of averaged gradients."""
        return self.gradients.computing

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second out of a worker."""
        return 1 / self.cluster.links.per_byte


class Probe(NamedTuple):
    """What is measured: a training, and one whose replicas take steps of their own.

    Attributes
    ----------
    job, apart : TrainingJob
    rows, rows_apart : int
        Rows of each replica in a step.
    encoder : TargetEncoder
    """

    job: TrainingJob
    rows: int
    apart: TrainingJob
    rows_apart: int
    encoder: TargetEncoder


def measure(executor: Executor, probe: Probe) -> Measured:
    """Measure a cluster, and rounds of a training on it.

    Raises
    ------
    LinkError
        Workers cannot connect to one another.
    """
    homes = executor.homes(probe.job.replicas)
    group = ProcessGroup(executor, homes, 0)
    try:
        group.connect()
        cluster = costs.costs_of(group)
        group.settings = costs.settings_of(group)
        threads = Counter(executor.slots())
        args = [(probe, max(1, threads[at])) for at in group.addresses]
        # of_workers[w]: RoundTimes of three kinds of rounds
        of_workers = group.run(_time_rounds, args, _PATIENCE)
        wave = _time_wave_of_states(executor, group, probe.job)
    finally:
        group.close()
    gradients, fewer, weights = (_of_all(found) for found in zip(*of_workers, strict=True))
    task_round = _time_task_round(executor, probe.job, probe.rows, probe.encoder, homes)
    question = median_seconds(executor.slots)
    return Measured(
        cluster,
        gradients,
        fewer,
        weights,
        wave,
        task_round,
        question,
        tuple(homes),
        group.hosts,
        group.settings,
    )


def _of_all(found: Sequence[RoundTimes]) -> RoundTimes:
    whole, computing, exchange = zip(*found, strict=True)
    return RoundTimes(max(whole), sum(computing) / len(computing), min(exchange))


def _time_wave_of_states(executor: Executor, group: ProcessGroup, job: TrainingJob) -> float:
    state = GradientAveraging().init_state(job, job.init_params(0), job.replicas)

    def run() -> None:
        states, held = give(executor, state, len(group.addresses))
        try:
            group.run(_return_state, [(own,) for own in states], _PATIENCE)
        finally:
            executor.drop(held)

    return median_seconds(run)


# --- on workers --------------------------------------------------------------------------------------


def _time_rounds(group: Group, probe: Probe, n_threads: int) -> tuple[RoundTimes, RoundTimes, RoundTimes]:
    """Return what rounds take of gradients, of gradients of fewer rows, and of weights."""
    time_wave = partial(_time_wave, group, probe.encoder, n_threads)
    return (
        time_wave(GradientAveraging(), probe.job, probe.rows, 1),
        time_wave(GradientAveraging(), probe.job, max(1, probe.rows // 4), 1),
        time_wave(OFTEN, probe.apart, probe.rows_apart, OFTEN_STEPS),
    )


def _return_state(group: Group, state: TrainState) -> TrainState | None:
    return state if group.rank == 0 else None


def _with_rows(job: TrainingJob, rows_of_step: int) -> TrainingJob:
    return replace(job, batch_size=rows_of_step * job.replicas)


def _time_wave(
    group: Group,
    encoder: TargetEncoder,
    n_threads: int,
    strategy: Strategy,
    job: TrainingJob,
    rows_of_step: int,
    n_steps: int,
) -> RoundTimes:
    """Return what this worker sees of rounds of n_steps steps."""
    own = [replica for replica, owner in enumerate(group.owners) if owner == group.rank]
    n_rows, rows_of_step, scale = _affordable(job.network, rows_of_step, n_steps)
    job = _with_rows(job, rows_of_step)
    shard = some_shard(job.network, encoder, n_rows)
    rows = [{replica: n_rows} for replica in range(len(group.owners))]
    n_rounds = n_rows // (rows_of_step * n_steps)
    state = strategy.init_state(job, job.init_params(0), len(group.owners))

    def run(n: int) -> tuple[float, float, np.ndarray]:
        wave = Wave(strategy, job, rows, 0, n, own, n_threads)
        began = time.perf_counter()
        report = train_wave(group, wave, state, *([shard] * len(own)))
        return time.perf_counter() - began, report.computing, report.exchanges

    # The first rounds make buffers, and perhaps compile.
    run(1)
    n_few = min(_FEWEST, n_rounds)
    agreed = _largest(group, run(n_few)[0] / n_few)
    n = int(min(n_rounds, max(_FEWEST, _SECONDS / agreed)))
    seconds, computing, exchanges = run(n)
    return RoundTimes(scale * seconds / n, scale * computing / n, float(np.sum(exchanges)) / n)


def _affordable(network: Network, rows_of_step: int, n_steps: int) -> tuple[int, int, float]:
    """Return rows of a shard, rows of a step, and by how much the step that is meant takes longer."""
    most = max(n_steps, _MOST_BYTES // (network.n_inputs * np.dtype(network.dtype).itemsize))
    rows = max(1, min(rows_of_step, most // n_steps))
    n_rounds = max(1, min(_MOST, most // (rows * n_steps)))
    return rows * n_steps * n_rounds, rows, rows_of_step / rows


def _largest(group: Group, number: float) -> float:
    """Return the largest of what all workers say; they have to agree on how much they measure."""
    parts = {
        replica: Part(np.zeros(1), np.array([number]))
        for replica, owner in enumerate(group.owners)
        if owner == group.rank
    }
    like = Part(np.empty(1), np.zeros(1))
    return float(group.all_reduce(parts, like, merge_numbers=np.maximum).numbers[0])


# --- through the scheduler ---------------------------------------------------------------------------


def _time_task_round(
    executor: Executor, job: TrainingJob, rows_of_step: int, encoder: TargetEncoder, homes: Sequence[Home]
) -> float:
    """Return the seconds of a step of averaged gradients by tasks."""
    n_rows, rows, scale = _affordable(job.network, rows_of_step, 1)
    n_rows = min(n_rows, rows * _N_TASK_ROUNDS)
    job = _with_rows(job, rows)
    strategy = GradientAveraging()
    make = partial(some_shard, job.network, encoder, n_rows)
    graph = Graph()
    shards = [graph.add("dasknn-probe", make, home=home) for home in homes]
    held = executor.start(graph, shards)
    try:
        executor.wait_for(held)
        rounds = list(strategy.rounds(job, [{replica: n_rows} for replica in range(len(homes))], 0))
        state = strategy.init_state(job, job.init_params(0), len(homes))

        def run(n: int) -> None:
            graph = Graph()
            states = [graph.add_value("dasknn-state", state)] * (len(homes) + 1)
            references = dict(enumerate(held))
            last = add_rounds(graph, strategy, job, states, rounds[:n], _no_other, references, homes)
            executor.run(graph, [last])

        n = len(rounds)
        first, all_of_them = (median_seconds(partial(run, k)) for k in (1, n))
        seconds = (all_of_them - first) / (n - 1) if n > 1 else first
        return max(1e-6, scale * seconds)
    finally:
        executor.drop(held)


def _no_other(graph: Graph, number: int, home: Home) -> Any:
    raise AssertionError("all shards are held")


# --- rows --------------------------------------------------------------------------------------------


def some_shard(network: Network, encoder: TargetEncoder, n_rows: int) -> Shard:
    """Return rows as a network might get them."""
    return Shard(some_rows(network, n_rows), some_targets(encoder, n_rows))


def some_rows(network: Network, n_rows: int) -> np.ndarray:
    """Return inputs as they might be: normal numbers; for columns of tables also coordinates and codes."""
    rng = same_each_time()
    X = rng.standard_normal((n_rows, network.n_inputs)).astype(network.dtype)
    first, begin = network.layers[0], 0
    for width, layer in first.groups if isinstance(first, ColumnGroups) else ():
        columns = X[:, begin : begin + width]
        if isinstance(layer, BinEmbedding | BinEncoding):
            n_bins = layer.n_bins
            columns[:, -len(n_bins) :] = rng.uniform(0, n_bins, (n_rows, len(n_bins)))
        elif isinstance(layer, Embedding | OneHot):
            sizes = layer.sizes if isinstance(layer, OneHot) else (layer.input_dim,) * width
            columns[:] = rng.integers(0, sizes, (n_rows, width))
        begin += width
    return X


def some_targets(encoder: TargetEncoder, n_rows: int) -> np.ndarray:
    """Return targets as they might be."""
    if isinstance(encoder, targets.ClassEncoder):
        return encoder.encode(encoder.classes[np.arange(n_rows) % len(encoder.classes)])
    assert isinstance(encoder, targets.NumberEncoder | targets.MultilabelEncoder)
    return encoder.encode(np.zeros((n_rows, encoder.n_outputs)))
