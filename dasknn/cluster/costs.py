"""What messages, waves of rounds and tasks cost on a cluster: measured once for its client and workers.

A message between two workers is described as in the LogP model (Culler et al. 1993): latency, overhead of
each further message, and seconds a byte. Measuring takes well under a second; the result is kept as long as
the client is.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import dask
import numpy as np

from dasknn.cluster.collective import Group, Part, Settings
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.process_group import ProcessGroup
from dasknn.cluster.reduction import ALGORITHMS, ASSUMED, LinkCosts

#: The setting of dask.config that chooses how workers sum, and its values besides names of algorithms.
COLLECTIVE = "dasknn.collective"
BY_RULE, MEASURED = "rule", "measured"

# How long each of the measurements may take, about.
_SECONDS = 0.05
_FEWEST, _MOST = 3, 40
_SHORT_BYTES = 64
_FEWEST_BYTES, _MOST_BYTES = 65_536, 4_194_304
# Other members wait while two of them measure.
_PATIENCE = 60.0


@dataclass(frozen=True)
class ClusterCosts:
    """What a cluster takes its time for.

    Attributes
    ----------
    links : LinkCosts
        Of messages between workers; of different hosts where there are several.
    wave, wave_of_one : float
        Seconds to start a task on each worker of the group, or on one worker, and to get their results.
    task_round : float
        Seconds of a round of tasks that do nothing: one for each worker, and one for all.
    connecting : float
        Seconds until the workers are connected.
    n_workers, n_hosts : int
        Of the group that was measured.
    n_processors : float
        Mean number of processors of a host.
    """

    links: LinkCosts
    wave: float
    wave_of_one: float
    task_round: float
    connecting: float
    n_workers: int
    n_hosts: int
    n_processors: float

    def wave_of(self, n_workers: int) -> float:
        """Return the seconds of a wave without rounds on so many workers."""
        each = max(0.0, self.wave - self.wave_of_one) / max(1, self.n_workers - 1)
        return self.wave_of_one + (n_workers - 1) * each

    def task_round_of(self, n_workers: int) -> float:
        """Return the seconds of a round of tasks on so many workers."""
        # About half of it is the way through client and scheduler, and the rest is for each task.
        return self.task_round * (1 + n_workers) / (1 + self.n_workers) / 2 + self.task_round / 2


# By client, what was measured, by scheduler and workers.
_known: weakref.WeakKeyDictionary[Any, dict[tuple, ClusterCosts]] = weakref.WeakKeyDictionary()


def costs_of(group: ProcessGroup) -> ClusterCosts:
    """Return what the cluster of a connected group costs; measured the first time.

    Raises
    ------
    LinkError
        A member fell silent. Others of `Executor.faults` are raised, too.
    """
    executor = group.executor
    if not isinstance(executor, ClusterExecutor):
        return _measure(group)
    known = _known.setdefault(executor.client, {})
    key = executor.scheduler.address, tuple(group.addresses), group.kind
    if key not in known:
        known[key] = _measure(group)
    return known[key]


def settings_of(group: ProcessGroup) -> Settings:
    """Return how a connected group sums, by the setting 'dasknn.collective' of dask.config.

    Raises
    ------
    ValueError
        The setting has another value.
    """
    wanted = dask.config.get(COLLECTIVE, BY_RULE)
    if wanted == BY_RULE:
        return Settings()
    if wanted == MEASURED:
        return Settings(costs=costs_of(group).links)
    if wanted in ALGORITHMS:
        return Settings(wanted)
    raise ValueError(
        f"Expected one of {[BY_RULE, MEASURED, *ALGORITHMS]} for dask.config {COLLECTIVE!r}, received "
        f"{wanted!r}."
    )


def _measure(group: ProcessGroup) -> ClusterCosts:
    n_workers, n_hosts = len(group.addresses), len(set(group.hosts))
    nothing: list[tuple] = [()] * n_workers
    # The first one may import modules on workers.
    processors = group.run(_count_processors, nothing, _PATIENCE)
    wave = median_seconds(lambda: group.run(_nothing, nothing, _PATIENCE))
    one_task = _time_tasks(group.executor, group.homes[:1], 1)
    links = ASSUMED
    if n_workers > 1:
        pair = _far_pair(group.hosts)
        links = LinkCosts(*group.run(_time_links, [(pair,)] * n_workers, _PATIENCE)[pair[0]])
    of_hosts = dict(zip(group.hosts, processors, strict=True))
    return ClusterCosts(
        links,
        wave,
        min(wave, one_task),
        _time_task_round(group.executor, group.addresses),
        group.connecting,
        n_workers,
        n_hosts,
        sum(of_hosts.values()) / n_hosts,
    )


def _far_pair(hosts: tuple[int, ...]) -> tuple[int, int]:
    """Return two members, on different hosts if there are any."""
    return 0, next((rank for rank, host in enumerate(hosts) if host != hosts[0]), len(hosts) - 1)


def median_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return median(times)


def _time_tasks(executor: Executor, homes: Any, n_rounds: int) -> float:
    """Return the seconds of a graph of rounds of tasks that do nothing."""

    def run() -> None:
        graph = Graph()
        last = graph.add("dasknn-probe", _do_nothing)
        for _ in range(n_rounds):
            parts = [graph.add("dasknn-probe", _do_nothing, last, home=home) for home in homes]
            last = graph.add("dasknn-probe", _do_nothing, *parts, home=homes[0])
        executor.run(graph, [last])

    return median_seconds(run)


def _time_task_round(executor: Executor, homes: Any) -> float:
    return max(1e-6, (_time_tasks(executor, homes, 6) - _time_tasks(executor, homes, 1)) / 5)


# --- on workers --------------------------------------------------------------------------------------


def _do_nothing(*args: Any) -> None:
    return None


def _nothing(group: Group) -> None:
    return None


def _count_processors(group: Group) -> int:
    counted = getattr(os, "sched_getaffinity", None)
    return len(counted(0)) if counted is not None else os.cpu_count() or 1


def _time_links(group: Group, pair: tuple[int, int]) -> tuple[float, float, float]:
    """Return the fields of LinkCosts, as two members measure them while the others wait."""
    if group.rank not in pair:
        return ASSUMED
    two = group.pair(pair[1] if group.rank == pair[0] else pair[0])

    def seconds(n_bytes: int, repeats: int) -> float:
        """Return the seconds of an exchange, the same on both."""
        like = Part(np.empty(n_bytes // 4, np.float32), np.zeros(1))
        vector = np.zeros(n_bytes // 4, np.float32)
        began = time.perf_counter()
        for _ in range(repeats):
            two.all_reduce({two.rank: Part(vector, np.zeros(1))}, like)
        measured = np.array([(time.perf_counter() - began) / repeats])
        # Both have to repeat as often, so they agree on what it took.
        agreed = two.all_reduce({two.rank: Part(vector[:1], measured)}, Part(like.vector[:1], like.numbers))
        return float(agreed.numbers[0]) / 2

    latency = seconds(_SHORT_BYTES, _FEWEST)
    latency = seconds(_SHORT_BYTES, _repeats(latency))
    n_bytes, long = 0, 0.0
    # As many bytes as a moment allows: a long pipe has to be filled before its width is seen.
    while long < _SECONDS and n_bytes < _MOST_BYTES:
        n_bytes = 4 * n_bytes or _FEWEST_BYTES
        long = seconds(n_bytes, 2)
    return latency, min(latency, ASSUMED.overhead), max(1e-12, (long - latency) / n_bytes)


def _repeats(seconds: float) -> int:
    return int(min(_MOST, max(_FEWEST, _SECONDS / max(seconds, 1e-9))))
