"""Which strategy, and how many workers? Measures a cluster, and predicts how long epochs take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from dasknn._compat.dask import TaskRef
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import partitions, shards
from dasknn.data.targets import TargetEncoder
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.strategies import (
    GradientAveraging,
    PredictionAveraging,
    Strategy,
    WeightAveraging,
    auto,
)
from dasknn.training import cost_model, engine_choice, probing
from dasknn.training.cost_model import CostModel, Layout
from dasknn.training.pace import MUCH_LONGER
from dasknn.training.probing import OFTEN, Measured, Probe


@dataclass(frozen=True)
class Row:
    """One strategy on one transport: predictions for an epoch, and measurements if the model ran any.

    Attributes
    ----------
    strategy : Strategy
    transport : {'peer', 'tasks', 'hop'}
    seconds, measured_seconds : float, float or None
        Seconds of an epoch.
    bytes_sent, measured_bytes : float, float or None
        Bytes that all workers send in an epoch.
    is_default : bool
        Whether `strategy="auto"` chooses this.
    """

    strategy: Strategy
    transport: str
    seconds: float
    bytes_sent: float
    measured_seconds: float | None = None
    measured_bytes: float | None = None
    is_default: bool = False


@dataclass(frozen=True)
class ClusterSize:
    """A prediction for a number of workers.

    Attributes
    ----------
    n_workers, n_hosts, replicas : int
    strategy : Strategy
    seconds : float
        Of an epoch.
    computing : float
        Share of them in which workers compute.
    worker_seconds : float
        What an epoch costs: seconds times workers.
    """

    n_workers: int
    n_hosts: int
    replicas: int
    strategy: Strategy
    seconds: float
    computing: float

    @property
    def worker_seconds(self) -> float:
        return self.n_workers * self.seconds


@dataclass(frozen=True)
class Recommendation:
    """Result of `recommend`; `str()` of it is the printed table.

    Attributes
    ----------
    rows : list of Row
        One for each strategy and transport, the fastest first.
    strategy : Strategy
        The strategy that `strategy="auto"` chooses.
    reason : str
        Why, in words.
    measured : Measured
        Measurements on the cluster.
    table : str
        The printed table.
    engine : {'numpy', 'numba'}
        The engine that a fit would choose, and that computed the measured steps.
    engine_reason : str
        Why, in words.
    advice : str
        What to write instead of the default, where another strategy takes less than half as long here; "" if
        none does.
    scaling : list of ClusterSize
        For each number of workers that was asked for; `plots.ScalingDisplay` draws it.
    """

    rows: list[Row]
    strategy: Strategy
    reason: str
    measured: Measured
    table: str
    engine: str
    engine_reason: str
    advice: str = ""
    scaling: list[ClusterSize] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Recommendation(strategy={self.strategy!r})"

    def __str__(self) -> str:
        return self.table


class Measurable(NamedTuple):
    """What a fit of a model to a table would train.

    Attributes
    ----------
    model : estimator
        With the settings that rules choose for the table.
    network : Network
    encoder : TargetEncoder
    n_rows : int
        Rows of an epoch, without those that are held out.
    described : str
        The table, in words.
    assumed : str
        Which targets are assumed, in words; "" if they are known.
    """

    model: Any
    network: Network
    encoder: TargetEncoder
    n_rows: int
    described: str
    assumed: str


def recommend(
    client: Any,
    model: Any,
    X: Any,
    *,
    workers: Sequence[int] | None = None,
    workers_per_host: int | None = None,
) -> Recommendation:
    """Measure a cluster, and print how long an epoch of a model would take with each strategy.

    Workers run some rounds on random rows, for about a second. What does not depend on the model is measured
    once for a client and its workers. The table is sorted by time per epoch, which is not time to an
    accuracy: averaged weights learn less in an epoch.

    Parameters
    ----------
    client : distributed.Client or None
        None for the current client.
    model : TabularClassifier, TabularRegressor, MLPClassifier or MLPRegressor
        If it is fitted, and was trained on as many rows, its measurements stand beside the predictions.
    X : Dask array or dataframe, or array, (n, p)
        For an MLP nothing of it is computed but lengths that are not known. Estimators for tables that are
        not fitted learn its columns, in one pass over the rows, since their network depends on them.
    workers : sequence of int or None, default=None
        How many workers a cluster might have, such as `[1, 2, 4, 8, 16, 64]`: a second table says how long an
        epoch would take on each. They need not be there.
    workers_per_host : int or None, default=None
        How many of those workers share a machine; None for as many as share one now.

    Returns
    -------
    Recommendation
        `str()` of it is the printed table.

    Raises
    ------
    ValueError
        A parameter of the model is invalid, or a number of workers is.
    EngineError
        The model asks for numba, which is missing or of different versions.
    TypeError
        The client is asynchronous, or the model is none of these.
    LinkError
        Workers cannot connect to one another.
    """
    _check(model, workers, workers_per_host)
    model._validate_params()
    with connect(client, distributed=True, workers=model.workers, data=(X,)) as executor:
        slots = executor.slots()
        parts = _count_rows(executor, X, len(slots))
        found: Measurable = model._measurable(X, sum(parts), executor)
        replicas = found.model.replicas or found.model._default_replicas(None, len(slots), found.n_rows)
        # in_step: with averaged gradients; apart: with replicas that take steps of their own
        job = _Division(found, replicas, None).job
        engine = engine_choice.choose(found.model.engine, job, executor, None)
        in_step, apart = (_Division(found, replicas, strategy, engine.name) for strategy in (None, OFTEN))
        probe = Probe(in_step.job, in_step.rows_of_step, apart.job, apart.rows_of_step, found.encoder)
        measured = probing.measure(executor, probe)
    n_workers, n_hosts = len(measured.hosts), len(set(measured.hosts))
    threads = len(slots) / len(Counter(slots))
    here = Layout(n_workers, n_hosts, threads, replicas, in_step.rows_of_step)
    model = CostModel(measured, here, replace(here, rows_of_step=apart.rows_of_step))
    strategy, reason = found.model._choose_by_rules(in_step.sizes)
    rows = sorted(_rows(model, in_step, parts, strategy), key=lambda row: row.seconds)
    scaling = [
        _of_size(model, found, n, workers_per_host, strategy)
        for strategy in dict.fromkeys((strategy, OFTEN))
        for n in workers or ()
    ]
    advice = _advice(rows)
    assumed = f" ({found.assumed})" if found.assumed else ""
    lines = [
        f"{found.described}, {found.network.n_params:,} parameters{assumed}, "
        f"{replicas} replica{'s' * (replicas > 1)}, {in_step.rows_of_step} rows of each in a step, "
        f"{in_step.sizes.n_steps:,} steps an epoch",
        *_measurements(measured),
        f"steps are computed by {engine.reason}",
        "",
        *_table(rows),
        "",
        f"* the default, strategy='auto': {reason}",
        *([advice] if advice else []),
        *(["", *_table_of_sizes(scaling)] if scaling else []),
    ]
    table = "\n".join(lines)
    print(table)
    return Recommendation(rows, strategy, reason, measured, table, *engine, advice, scaling)


def _check(model: Any, workers: Sequence[int] | None, workers_per_host: int | None) -> None:
    if not hasattr(model, "_measurable"):
        raise TypeError(
            "Expected recommend(client, model, X) with a TabularClassifier, TabularRegressor, MLPClassifier "
            f"or MLPRegressor as the second argument, received {type(model).__name__}."
        )
    numbers = [
        *([] if workers is None else workers),
        *([] if workers_per_host is None else [workers_per_host]),
    ]
    if not all(isinstance(n, Integral) and n >= 1 for n in numbers):
        raise ValueError(
            f"Expected numbers of workers from 1, received workers={workers!r} and "
            f"workers_per_host={workers_per_host!r}."
        )


def _count_rows(executor: Executor, X: Any, n_parts: int) -> list[int]:
    """Return the number of rows of each partition; plain data has one."""
    if isinstance(X.shape[0], int | np.integer):
        return list(X.chunks[0]) if hasattr(X, "chunks") else [int(X.shape[0])]
    parts = partitions.parts(X, n_parts=n_parts)

    def add_counts(graph: Graph) -> list[TaskRef]:
        return [graph.add("dasknn-count", _n_samples, *part.add_to(graph)) for part in parts]

    return executor.values_of(add_counts)


def _n_samples(values: Any) -> int:
    return partitions.n_samples(values[0] if isinstance(values, tuple) else values)


# --- predictions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Division:
    """How a fit would divide a table among replicas. strategy: None for averaged gradients."""

    found: Measurable
    replicas: int
    strategy: Strategy | None
    engine: str = engines.NUMPY

    @cached_property
    def sizes(self) -> auto.Sizes:
        found = self.found
        return found.model._sizes(found.network, found.n_rows, self.replicas, self.strategy)

    @cached_property
    def job(self) -> TrainingJob:
        return replace(self.found.model._job(self.sizes, 0), engine=self.engine)

    @property
    def rows_of_step(self) -> int:
        """Rows of each replica."""
        return max(1, round(self.sizes.rows_of_step))

    def transport(self, strategy: Strategy) -> str:
        return self.found.model._transport(strategy, self.sizes)


def _rows(model: CostModel, in_step: _Division, parts: Sequence[int], default: Strategy) -> list[Row]:
    found, replicas = in_step.found, in_step.replicas
    candidates: list[tuple[Strategy, str]] = [
        (GradientAveraging(), auto.PEER),
        (GradientAveraging(), auto.TASKS),
        *((apart, in_step.transport(apart)) for apart in (OFTEN, WeightAveraging())),
        (PredictionAveraging(hop=False), auto.TASKS),
        (PredictionAveraging(), auto.HOP),
    ]
    trained = found.model
    ran = (getattr(trained, "strategy_", None), getattr(trained, "transport_", None))
    epochs = [entry for entry in getattr(trained, "history_", []) if entry.get("n_samples") == found.n_rows]
    rows_of_replicas = _rows_of_replicas(parts, found.n_rows, replicas)
    measured, rows = model.measured, []
    for strategy, transport in candidates:
        job = replace(in_step, strategy=strategy).job
        epoch = model.epoch(strategy, transport, job, found.n_rows)
        n_bytes = cost_model.bytes_sent(
            strategy, transport, job, rows_of_replicas, measured.homes, measured.hosts, measured.settings
        )
        own_epochs = epochs if (strategy, transport) == ran else []
        rows.append(
            Row(
                strategy,
                transport,
                epoch.seconds,
                n_bytes,
                _of_history(own_epochs, "seconds"),
                _of_history(own_epochs, "bytes_sent"),
                is_default=(strategy, transport) == (default, in_step.transport(default)),
            )
        )
    return rows


def _rows_of_replicas(parts: Sequence[int], n_rows: int, replicas: int) -> list[int]:
    """Return how many rows each replica gets. parts: rows of each partition, of which some are held out."""
    if len(parts) == 1 or sum(parts) != n_rows:
        # Plain data is cut into a partition for each replica.
        return [n_rows * (r + 1) // replicas - n_rows * r // replicas for r in range(replicas)]
    return [sum(own.end - own.begin for own in dealt) for dealt in shards.deal(parts, replicas)]


def _of_size(
    model: CostModel, found: Measurable, n_workers: int, per_host: int | None, strategy: Strategy
) -> ClusterSize:
    """Return the prediction for a number of workers."""
    here = model.here
    density = per_host or here.n_workers / here.n_hosts
    n_hosts = max(1, -(-n_workers // max(1, round(density))))
    n_slots = round(n_workers * here.threads)
    replicas = found.model.replicas or found.model._default_replicas(strategy, n_slots, found.n_rows)
    n_used = min(n_workers, replicas)
    division = _Division(found, replicas, strategy)
    there = Layout(n_used, min(n_hosts, n_used), here.threads, replicas, division.rows_of_step)
    epoch = model.epoch(strategy, division.transport(strategy), division.job, found.n_rows, there)
    share = epoch.computing / epoch.seconds
    return ClusterSize(n_workers, n_hosts, replicas, strategy, epoch.seconds, min(1.0, share))


def _advice(rows: Sequence[Row]) -> str:
    """Return what to write instead of the default, "" if it is not much slower than others."""
    (default,) = [row for row in rows if row.is_default] or [rows[0]]
    # Replicas that average only after an epoch, or never, and see a share of the rows, waste epochs.
    best = next(row for row in rows if row.strategy in (GradientAveraging(), OFTEN, PredictionAveraging()))
    if default.seconds < MUCH_LONGER * best.seconds:
        return ""
    return (
        f"! Here, an epoch of the default takes {_time(default.seconds)}, and with strategy={best.strategy} "
        f"{_time(best.seconds)}. They learn other networks: compare scores after as many seconds."
    )


# --- the printed table ---------------------------------------------------------------------------------


def _measurements(measured: Measured) -> list[str]:
    links, gradients = measured.cluster.links, measured.gradients
    return [
        f"measured: a step computes in {_time(gradients.computing)}; averaging its gradient takes "
        f"{_time(gradients.exchange)} between workers, and {_time(gradients.waiting)} pass until the last of "
        f"them is ready; through the scheduler a step takes {_time(measured.task_round)}",
        f"a message between workers takes {_time(links.latency)}, and {1e-9 / links.per_byte:.2g} GB/s leave "
        f"a worker; an epoch takes {_time(measured.wave)} more than its rounds",
    ]


def _of_history(history: list[dict], name: str) -> float | None:
    return median(entry[name] for entry in history) if history else None


def _table(rows: list[Row]) -> list[str]:
    lines = [
        f"{'':2}{'strategy':30} {'transport':10} {'epoch':>10} {'sent':>10}   {'measured':>10} {'sent':>10}"
    ]
    for row in rows:
        measured = "-" if row.measured_seconds is None else _time(row.measured_seconds)
        sent = "-" if row.measured_bytes is None else _size(row.measured_bytes)
        lines.append(
            f"{'* ' if row.is_default else '  '}{name_of(row.strategy):30} {row.transport:10} "
            f"{_time(row.seconds):>10} {_size(row.bytes_sent):>10}   {measured:>10} {sent:>10}"
        )
    return lines


def _table_of_sizes(sizes: Sequence[ClusterSize]) -> list[str]:
    lines = [
        f"{'':2}{'strategy':30} {'workers':>8} {'hosts':>6} {'epoch':>10} {'computing':>10} {'cost':>12}"
    ]
    for size in sizes:
        lines.append(
            f"  {name_of(size.strategy):30} {size.n_workers:>8} {size.n_hosts:>6} {_time(size.seconds):>10} "
            f"{size.computing:>10.0%} {size.worker_seconds:>10.3g} s"
        )
    return [*lines, "cost: seconds of all workers together, an epoch"]


def name_of(strategy: Strategy) -> str:
    """Return what tables call a strategy."""
    if strategy.sees_all_rows:
        return f"{strategy.name}, members hop"
    if not isinstance(strategy, WeightAveraging):
        return strategy.name
    every = "epoch" if strategy.every == "epoch" else f"{strategy.every} steps"
    return f"weights every {every}" + (", outer" if strategy.outer else "")


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.3g} MB"
