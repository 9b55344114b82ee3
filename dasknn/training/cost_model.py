"""How long an epoch takes, and how many bytes it sends: predictions from measurements on a cluster.

An epoch is a fixed part (waves, questions to the scheduler) and its rounds; a round is computing, an
exchange, and waiting for the slowest worker. For clusters of another size than the one that was measured,
each of these parts is scaled by what it depends on:

    computing    rows of a step on each worker, and workers that share a processor
    exchange     messages and bytes of the best algorithm (`reduction.seconds`) for so many hosts
    waiting      how much later the last of n workers is than the mean one
    fixed part   tasks of a wave, one for each worker
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from dasknn.cluster import reduction
from dasknn.cluster.collective import HEADER_BYTES, Settings
from dasknn.cluster.placement import Home
from dasknn.engine import engines
from dasknn.engine.schedule import Rounds
from dasknn.engine.state import TrainingJob
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.strategies.learner import LinkSpeed
from dasknn.strategies.overlap import EarlySum, rows_of_step
from dasknn.training import tasks
from dasknn.training.peers import OnPeers
from dasknn.training.probing import OFTEN_STEPS, Measured, RoundTimes

# What a leg of a network that travels takes, at most.
_LEG_SECONDS = 1.0
# Questions to the scheduler in a wave between workers, and in an epoch by tasks.
_N_QUESTIONS, _N_QUESTIONS_OF_TASKS = 2, 5
# How the workers of a host send vectors to one another, where nothing else is known.
_WITHIN_HOST = reduction.LinkCosts(latency=50e-6, overhead=33e-6, per_byte=0.5e-9)
# Without a measurement of several workers: how much the seconds of a round differ, as a share.
_SPREAD = 0.1


@dataclass(frozen=True)
class Layout:
    """A cluster, and how a training is divided on it.

    Attributes
    ----------
    n_workers, n_hosts : int
    threads : float
        Of each worker.
    replicas : int
    rows_of_step : float
        Of each replica.
    """

    n_workers: int
    n_hosts: int
    threads: float
    replicas: int
    rows_of_step: float

    @property
    def turns(self) -> int:
        """How many replicas a thread has to compute one after the other."""
        return -(-self.replicas // max(1, round(self.n_workers * self.threads)))


@dataclass(frozen=True)
class Epoch:
    """A prediction.

    Attributes
    ----------
    seconds, computing : float
        Of an epoch, and of those the seconds that the mean worker computes.
    """

    seconds: float
    computing: float


class CostModel:
    """Predicts epochs.

    Parameters
    ----------
    measured : Measured
    here : Layout
        Where that was measured, with the rows of a step of averaged gradients.
    apart : Layout
        The same with the rows of strategies whose replicas take steps of their own.

    Attributes
    ----------
    of_step, of_row : float
        Seconds of a step that do not depend on its rows, and seconds of each row.
    """

    def __init__(self, measured: Measured, here: Layout, apart: Layout):
        self.measured, self.here, self.apart = measured, here, apart
        few, many = measured.fewer_rows.computing, measured.gradients.computing
        n_few = max(1, round(here.rows_of_step) // 4)
        slope = max(0.0, many - few) / max(here.rows_of_step - n_few, 1.0)
        self.of_step, self.of_row = max(0.0, many - slope * here.rows_of_step), slope

    def epoch(
        self, strategy: Strategy, transport: str, job: TrainingJob, n_rows: int, there: Layout | None = None
    ) -> Epoch:
        """Return the prediction of an epoch; there: another cluster than that which was measured."""
        in_step = isinstance(strategy, GradientAveraging)
        there = there or (self.here if in_step else self.apart)
        n_rounds = strategy.schedule(job, [max(1, n_rows // there.replicas)] * there.replicas).n_rounds
        batch = min(job.batch_size or n_rows, n_rows)
        n_steps = -(-n_rows // batch)
        if strategy.sees_all_rows:
            return self._epoch_of_travellers(n_steps, batch, there)
        # rounds: of one step, or of 16
        rounds, n_measured = (self.measured.gradients, 1) if in_step else (self.measured.weights, OFTEN_STEPS)
        n_alike = n_steps / n_measured
        computing = n_alike * self._computing(rounds.computing, there, self.here if in_step else self.apart)
        if transport == auto.TASKS:
            n_states = there.replicas if isinstance(strategy, PredictionAveraging) else 1
            returning = self._state_seconds(job, n_states)
            found = self._epoch_of_tasks(strategy, n_rounds, computing, there)
            return replace(found, seconds=found.seconds + returning)
        n_bytes = strategy.contribution_length(job) * np.dtype(job.network.dtype).itemsize
        exchanges = n_rounds * self._exchange(rounds.exchange, n_bytes, there)
        seconds = computing + exchanges + n_alike * self._waiting(rounds, there)
        return Epoch(seconds + OnPeers.n_waves(n_rounds, seconds) * self._wave(there), computing)

    def _computing(self, measured: float, there: Layout, here: Layout) -> float:
        """Return the seconds that a worker computes, given those that were measured here."""
        here_model = here.turns * (self.of_step + self.of_row * here.rows_of_step)
        there_model = there.turns * (self.of_step + self.of_row * there.rows_of_step)
        ratio = there_model / here_model if here_model else 1.0
        return measured * ratio * self._crowding(there) / self._crowding(here)

    def _crowding(self, layout: Layout) -> float:
        """Return by how much computing takes longer since workers share processors."""
        threads = layout.threads * layout.n_workers / layout.n_hosts
        return max(1.0, threads / max(1.0, self.measured.cluster.n_processors))

    def _exchange(self, measured: float, n_bytes: int, there: Layout) -> float:
        if there.n_workers == 1:
            return 0.0
        model = self._exchange_model(n_bytes, there)
        if self.here.n_workers == 1:
            return model
        return measured * model / self._exchange_model(n_bytes, self.here)

    def _exchange_model(self, n_bytes: int, layout: Layout) -> float:
        links, n_leaders = self.measured.cluster.links, layout.n_hosts
        within = 0.0
        if layout.n_hosts == 1:
            n_leaders = layout.n_workers
        elif layout.n_workers > layout.n_hosts:
            followers = -(-layout.n_workers // layout.n_hosts) - 1
            within = 2 * (_WITHIN_HOST.latency + followers * n_bytes * _WITHIN_HOST.per_byte)
        algorithm = self.measured.settings.choose(n_bytes, n_leaders)
        between = reduction.seconds(algorithm, n_bytes, n_leaders, links)
        return (within + between) * self._crowding(layout)

    def _waiting(self, measured: RoundTimes, there: Layout) -> float:
        here = self.here
        if here.n_workers == 1:
            return _SPREAD * measured.computing * last_of(there.n_workers)
        crowding = self._crowding(there) / self._crowding(here)
        return measured.waiting * crowding * last_of(there.n_workers) / last_of(here.n_workers)

    def _state_seconds(self, job: TrainingJob, n_states: int) -> float:
        """Return the seconds in which states come back, over a link like those of workers."""
        n_numbers = n_states * job.network.n_params * (1 + job.n_slots)
        return n_numbers * np.dtype(job.network.dtype).itemsize * self.measured.cluster.links.per_byte

    def _wave(self, there: Layout) -> float:
        cluster = self.measured.cluster
        more = cluster.wave_of(there.n_workers) - cluster.wave_of(self.here.n_workers)
        return max(cluster.wave_of_one, self.measured.wave + more) + _N_QUESTIONS * self.measured.question

    def _epoch_of_tasks(self, strategy: Strategy, n_rounds: int, computing: float, there: Layout) -> Epoch:
        cluster = self.measured.cluster
        fixed = cluster.wave_of_one + _N_QUESTIONS_OF_TASKS * self.measured.question
        if isinstance(strategy, GradientAveraging):
            # It was measured as a whole; what it computes is part of it.
            of_tasks = max(0.0, self.measured.task_round - self.measured.gradients.computing)
        else:
            of_tasks = cluster.task_round
        of_tasks *= cluster.task_round_of(there.n_workers) / cluster.task_round
        return Epoch(computing + n_rounds * of_tasks + fixed, computing)

    def _epoch_of_travellers(self, n_steps: int, rows_of_step: int, there: Layout) -> Epoch:
        """Return the prediction for networks that visit all rows in steps of their own."""
        step = (self.of_step + self.of_row * rows_of_step) / self.here.turns
        computing = n_steps * there.turns * step * self._crowding(there) / self._crowding(self.here)
        legs = max(1.0, computing / _LEG_SECONDS)
        ways = (1 + legs) * self.measured.cluster.wave_of_one + _N_QUESTIONS_OF_TASKS * self.measured.question
        return Epoch(computing + ways, computing)


def last_of(n: int) -> float:
    """Return by how many standard deviations the largest of n normal numbers is above 0 (Blom 1958)."""
    return 0.0 if n == 1 else float(ndtri((n - 0.375) / (n + 0.25)))


# --- bytes -------------------------------------------------------------------------------------------


def bytes_sent(
    strategy: Strategy,
    transport: str,
    job: TrainingJob,
    rows: Sequence[int],
    homes: Sequence[Home],
    hosts: Sequence[int],
    settings: Settings,
) -> int:
    """Return the bytes that all workers send in an epoch.

    They are exact but for compressed gradients, tables of which only some rows travel (at most these), and
    networks that visit all rows (at least these).

    Parameters
    ----------
    strategy : Strategy
    transport : {'peer', 'tasks', 'hop'}
    job : TrainingJob
    rows : sequence of int
        Rows of each replica.
    homes : sequence of addresses
        Where each replica works.
    hosts : sequence of int
        The host of each worker, in the order of sorted addresses.
    settings : Settings
        How workers sum.
    """
    if strategy.sees_all_rows:
        # Each network goes to a worker and comes back.
        itemsize = np.dtype(job.network.dtype).itemsize
        return 2 * len(rows) * job.network.n_params * (1 + job.n_slots) * itemsize
    if transport == auto.TASKS:
        state = strategy.init_state(job, job.init_params(0), len(rows))
        return tasks.bytes_between_workers(strategy, job, state, rows, homes)
    addresses = sorted(set(homes), key=str)
    owners = [addresses.index(home) for home in homes]
    # (length of a vector, bytes of each of its numbers) that replicas exchange in a round
    lengths = [strategy.contribution_length(job)]
    if _sums_early(strategy, job):
        speed = LinkSpeed(settings.costs.latency, settings.costs.per_byte)
        early = EarlySum(job.network, rows_of_step(job, sum(rows)), speed)
        lengths = lengths if early.first_layer is None else early.lengths
    vectors = [(length, np.dtype(job.network.dtype).itemsize) for length in lengths]
    if isinstance(strategy, GradientAveraging) and job.network.is_synchronized:
        vectors += [(length, 8) for length in job.network.lengths_of_sums if length]
    schedule = strategy.schedule(job, list(rows))
    goals = Rounds(schedule, {}, 0, schedule.n_rounds).goals
    patterns, counts = np.unique(goals[1:] > goals[:-1], axis=0, return_counts=True)
    total = 0
    for present, n_rounds in zip(patterns, counts.tolist(), strict=True):
        plan = reduction.plan(tuple(np.asarray(owners)[present].tolist()), tuple(hosts))
        for length, itemsize in vectors:
            algorithm = settings.choose(length * itemsize, len(plan.leaders))
            once = reduction.bytes_sent(plan, algorithm, length, itemsize, 8 * job.n_numbers, HEADER_BYTES)
            total += n_rounds * once
    return total


def _sums_early(strategy: Strategy, job: TrainingJob) -> bool:
    """Return whether workers may sum the last layers of a gradient before the first."""
    is_plain = isinstance(strategy, GradientAveraging) and not strategy.remembers
    return is_plain and job.engine == engines.NUMPY
