"""Which strategy should I choose? Measures a cluster, and predicts how long an epoch takes with each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from dasknn._compat.dask import TaskRef
from dasknn.cluster.collective import Group, Part
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home
from dasknn.cluster.process_group import ProcessGroup
from dasknn.data import partitions, targets
from dasknn.data.targets import TargetEncoder
from dasknn.engine.network import Network
from dasknn.engine.schedule import Piece
from dasknn.engine.state import Shard, TrainingJob
from dasknn.layers import BinEmbedding, BinEncoding, ColumnGroups, Embedding, OneHot
from dasknn.seeds import same_each_time
from dasknn.strategies import (
    GradientAveraging,
    OuterNesterov,
    PredictionAveraging,
    Strategy,
    WeightAveraging,
    auto,
)
from dasknn.strategies.gradients import GradientLearner
from dasknn.training import engine_choice

_PROBE_SECONDS = 0.2
_LONG_VECTOR = 1_000_000


@dataclass(frozen=True)
class Measured:
    """Measurements on a cluster.

    Attributes
    ----------
    step : float
        Seconds of one replica's gradient and update.
    short_round, gradient_round, long_round : float
        Seconds of an all-reduce of 100 numbers, of a gradient, and of 1,000,000 float32 numbers.
    task_round : float
        Seconds of a round of tasks.
    bytes_per_second : float
        Bytes per second out of one worker.
    """

    step: float
    short_round: float
    gradient_round: float
    long_round: float
    task_round: float
    bytes_per_second: float

    def peer_round(self, n_bytes: float) -> float:
        """Return seconds of an all-reduce of n_bytes, interpolated between a short and a long one."""
        slope = max(0.0, self.long_round - self.short_round) / (4 * _LONG_VECTOR)
        return self.short_round + slope * n_bytes


@dataclass(frozen=True)
class Row:
    """One strategy on one transport: predictions for an epoch, and measurements if the model ran any.

    Attributes
    ----------
    strategy : Strategy
    transport : {'peer', 'tasks'}
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
    """

    rows: list[Row]
    strategy: Strategy
    reason: str
    measured: Measured
    table: str
    engine: str
    engine_reason: str

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


def recommend(client: Any, model: Any, X: Any) -> Recommendation:
    """Measure a cluster, and print how long an epoch of a model would take with each strategy.

    The table is sorted by time per epoch, which is not time to an accuracy: averaged weights learn less in an
    epoch.

    Parameters
    ----------
    client : distributed.Client or None
        None for the current client.
    model : TabularClassifier, TabularRegressor, MLPClassifier or MLPRegressor
        If it is fitted, and was trained on as many rows, its measurements stand beside the predictions.
    X : Dask array or dataframe, or array, (n, p)
        For an MLP nothing of it is computed but lengths that are not known. Estimators for tables that are
        not fitted learn its columns, in one pass over the rows, since their network depends on them.

    Returns
    -------
    Recommendation
        `str()` of it is the printed table.

    Raises
    ------
    ValueError
        A parameter of the model is invalid.
    EngineError
        The model asks for numba, which is missing or of different versions.
    TypeError
        The client is asynchronous.
    LinkError
        Workers cannot connect to one another.
    """
    model._validate_params()
    with connect(client, distributed=True, workers=model.workers, data=(X,)) as executor:
        slots = executor.slots()
        n_slots = len(slots)
        found: Measurable = model._measurable(X, _count_rows(executor, X, n_slots), executor)
        model, network, n_rows = found.model, found.network, found.n_rows
        replicas = model.replicas or model._default_replicas(None, n_slots, n_rows)
        n_workers = min(replicas, len(set(slots)))
        sizes = model._sizes(network, n_rows, replicas, None)
        job = model._job(sizes, 0)
        engine = engine_choice.choose(model.engine, job, executor, None)
        measured = _measure(executor, replace(job, engine=engine.name), sizes, found.encoder)
    strategy, reason = model._choose_by_rules(sizes)
    rows = sorted(_rows(measured, sizes, n_workers, model, strategy), key=lambda row: row.seconds)
    assumed = f" ({found.assumed})" if found.assumed else ""
    lines = [
        f"{found.described}, {network.n_params:,} parameters{assumed}, "
        f"{replicas} replica{'s' * (replicas > 1)}, {sizes.rows_of_step:.0f} rows of each in a step, "
        f"{sizes.n_steps:,} steps an epoch",
        f"measured: a step computes in {_time(measured.step)}; averaging its gradient takes "
        f"{_time(measured.gradient_round)} between workers and {_time(measured.task_round)} through the "
        f"scheduler; {measured.bytes_per_second / 1e9:.2g} GB/s out of a worker",
        f"steps are computed by {engine.reason}",
        "",
        *_table(rows),
        "",
        f"* the default, strategy='auto': {reason}",
    ]
    table = "\n".join(lines)
    print(table)
    return Recommendation(rows, strategy, reason, measured, table, *engine)


def _count_rows(executor: Executor, X: Any, n_parts: int) -> int:
    rows = X.shape[0]
    if isinstance(rows, int | np.integer):
        return int(rows)
    parts = partitions.parts(X, n_parts=n_parts)

    def add_counts(graph: Graph) -> list[TaskRef]:
        return [graph.add("dasknn-count", _n_samples, *part.add_to(graph)) for part in parts]

    return sum(executor.values_of(add_counts))


def _n_samples(values: Any) -> int:
    return partitions.n_samples(values[0] if isinstance(values, tuple) else values)


# --- measuring ----------------------------------------------------------------------------------------


def _measure(executor: Executor, job: TrainingJob, sizes: auto.Sizes, encoder: TargetEncoder) -> Measured:
    homes = executor.homes(sizes.replicas)
    group = ProcessGroup(executor, homes, 0)
    try:
        group.connect()
        rows_of_step = max(1, round(sizes.rows_of_step))
        found = group.run(_probe, [(job, rows_of_step, encoder)] * len(group.addresses), seconds=60.0)
    finally:
        group.close()
    step, short, gradient, long, rate = (max(values) for values in zip(*found, strict=True))
    return Measured(step, short, gradient, long, _time_task_round(executor, homes), rate)


def _probe(group: Group, job: TrainingJob, rows_of_step: int, encoder: TargetEncoder) -> tuple[float, ...]:
    """Return seconds of a step and of three all-reduces, and bytes per second; workers run it together."""
    network, own = job.network, [r for r, owner in enumerate(group.owners) if owner == group.rank]
    shard = Shard(_some_rows(network, rows_of_step), _some_targets(encoder, rows_of_step))
    state = GradientAveraging().init_state(job, job.init_params(0), len(group.owners))
    learner = GradientLearner(replace(job, shuffle=False), state)
    piece = Piece(0, 0, 0, rows_of_step)
    step = _seconds(lambda: learner.apply(learner.contribute(0, [piece], {0: shard})), _PROBE_SECONDS)

    def all_reduce(length: int, dtype: str) -> float:
        vectors = {replica: np.zeros(length, dtype) for replica in own}
        like = Part(np.empty(length, dtype), np.zeros(4))
        # The number of repeats must be the same on all workers, so it does not depend on their clocks.
        repeats = max(3, min(50, 1_000_000 // length))
        return _seconds(
            lambda: group.all_reduce({r: Part(v, np.zeros(4)) for r, v in vectors.items()}, like),
            repeats=repeats,
        )

    short = all_reduce(100, "float32")
    gradient = all_reduce(network.n_params, network.dtype)
    before = group.bytes_sent
    long = all_reduce(_LONG_VECTOR, "float32")
    sent = (group.bytes_sent - before) / 4
    return step, short, gradient, long, sent / long


def _some_rows(network: Network, n_rows: int) -> np.ndarray:
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


def _some_targets(encoder: TargetEncoder, n_rows: int) -> np.ndarray:
    if isinstance(encoder, targets.ClassEncoder):
        return encoder.encode(encoder.classes[np.arange(n_rows) % len(encoder.classes)])
    assert isinstance(encoder, targets.NumberEncoder | targets.MultilabelEncoder)
    return encoder.encode(np.zeros((n_rows, encoder.n_outputs)))


def _seconds(function: Callable[[], Any], seconds: float = 0.0, repeats: int = 3) -> float:
    """Return the median seconds of a call, after one call that does not count."""
    function()
    times: list[float] = []
    while len(times) < repeats or sum(times) < seconds:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return median(times)


def _time_task_round(executor: Executor, homes: Sequence[Home]) -> float:
    """Return the seconds of a round of tasks that do nothing: one for each replica, and one for all."""

    def run(n_rounds: int) -> float:
        graph = Graph()
        last = graph.add("dasknn-probe", _nothing)
        for _ in range(n_rounds):
            parts = [graph.add("dasknn-probe", _nothing, last, home=home) for home in homes]
            last = graph.add("dasknn-probe", _nothing, *parts, home=homes[0])
        began = time.perf_counter()
        executor.run(graph, [last])
        return time.perf_counter() - began

    run(1)
    return max(1e-6, (run(11) - run(1)) / 10)


def _nothing(*args: Any) -> None:
    return None


# --- predicting ---------------------------------------------------------------------------------------


def _rows(measured: Measured, sizes: auto.Sizes, n_workers: int, model: Any, default: Strategy) -> list[Row]:
    often = WeightAveraging(16, OuterNesterov())
    candidates: list[tuple[Strategy, str]] = [
        (GradientAveraging(), auto.PEER),
        (GradientAveraging(), auto.TASKS),
        *((apart, model._transport(apart, sizes)) for apart in (often, WeightAveraging())),
        (PredictionAveraging(hop=False), auto.TASKS),
        (PredictionAveraging(), auto.HOP),
    ]
    ran = (getattr(model, "strategy_", None), getattr(model, "transport_", None))
    epochs = [entry for entry in getattr(model, "history_", []) if entry.get("n_samples") == sizes.n_rows]
    rows = []
    for strategy, transport in candidates:
        # The number of steps may differ; the time of computing an epoch hardly depends on it.
        job = model._job(model._sizes(sizes.network, sizes.n_rows, sizes.replicas, strategy), 0)
        seconds, n_bytes = _predict(measured, sizes, n_workers, job, strategy, transport)
        own_epochs = epochs if (strategy, transport) == ran else []
        rows.append(
            Row(
                strategy,
                transport,
                seconds,
                n_bytes,
                _of_history(own_epochs, "seconds"),
                _of_history(own_epochs, "bytes_sent"),
                is_default=(strategy, transport) == (default, model._transport(default, sizes)),
            )
        )
    return rows


def _predict(
    measured: Measured,
    sizes: auto.Sizes,
    n_workers: int,
    job: TrainingJob,
    strategy: Strategy,
    transport: str,
) -> tuple[float, float]:
    """Return the seconds of an epoch, and the bytes that all workers send in it."""
    ends = [sizes.n_rows * (replica + 1) // sizes.replicas for replica in range(sizes.replicas)]
    n_rounds = strategy.schedule(job, [end - begin for begin, end in pairwise([0, *ends])]).n_rounds
    vector_bytes = strategy.contribution_length(job) * np.dtype(job.network.dtype).itemsize
    # In an all-reduce each worker sends about two vectors, or one if there are two workers; more if the
    # replicas of a worker are not a whole branch of the tree.
    n_bytes = n_rounds * 2 * (n_workers - 1) * vector_bytes
    if isinstance(strategy, PredictionAveraging):
        n_bytes = 0
    if strategy.sees_all_rows:
        # Each network goes at least once to a worker and comes back, and computes as much as all replicas
        # that share the rows.
        of_network = sizes.n_steps * measured.step * sizes.replicas
        return of_network + measured.task_round, 2 * sizes.replicas * vector_bytes
    if transport == auto.TASKS:
        of_round = measured.task_round
    elif isinstance(strategy, GradientAveraging):
        of_round = measured.gradient_round
    else:
        of_round = measured.peer_round(vector_bytes)
    return sizes.n_steps * measured.step + n_rounds * of_round, n_bytes


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
            f"{'* ' if row.is_default else '  '}{_name(row.strategy):30} {row.transport:10} "
            f"{_time(row.seconds):>10} {_size(row.bytes_sent):>10}   {measured:>10} {sent:>10}"
        )
    return lines


def _name(strategy: Strategy) -> str:
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
