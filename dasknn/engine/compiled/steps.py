"""Steps, sums of gradients, updates and predictions by compiled functions: see `crew` and `kernels`.

These classes have the interfaces of those in numpy. One thread may use an object.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import numpy as np

from dasknn.engine.compiled import cache
from dasknn.engine.compiled.crew import Answer, Crew, Request, address_of, flat
from dasknn.engine.compiled.program import PREDICTIONS, STEPS, SUM, optimization_of, rates_of, rates_of_step
from dasknn.engine.engines import SideBySide, StepsToTake
from dasknn.engine.network import ROWS_AT_ONCE, Network
from dasknn.engine.state import Shard, Totals, TrainingJob
from dasknn.engine.steps import Steps
from dasknn.engine.updater import Update
from dasknn.engine.workspace import GradientSum, Watch, rows_at_once
from dasknn.layers import Dense
from dasknn.losses import MeanSquaredError
from dasknn.optimizers import SGD
from dasknn.regularizers import BatchL2

# Outputs of so many numbers are kept for metrics at a time.
_NUMBERS_FOR_METRICS = 1_000_000
# Rows that go through the network at a time in predictions: their hidden layers stay in cache.
_ROWS_OF_PREDICTION = 512
_LOW = (1 << 64) - 1


def _state_of(rng: np.random.Generator) -> list[int]:
    """Return the state of a new generator as `arithmetic.next_uint64` takes it."""
    state = rng.bit_generator.state["state"]
    return [state["state"] >> 64, state["state"] & _LOW, state["inc"] >> 64, state["inc"] & _LOW, 0]


def _sums_of_metrics(job: TrainingJob, shard: Shard, rows: Any, seen: np.ndarray) -> Any:
    """Return the sums of metrics over these rows of a shard, given the outputs for them, flat."""
    of_rows = shard.rows(rows)
    return job.metrics.sums(of_rows.y, seen.reshape(len(of_rows), job.network.n_outputs), of_rows.weight)


#: Yields requests, and receives the answer to each.
Calls = Generator[Request, Answer, None]

# --- steps -------------------------------------------------------------------------------------------


class CompiledSteps(Steps):
    """Takes many steps in one call."""

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        self._job = job
        # Kept alive, since requests have their addresses.
        self._arrays = params, slots
        self._places = address_of(params), address_of(slots)
        self._crew = Crew(job)

    def take(
        self,
        shard: Shard,
        order: np.ndarray | slice,
        bounds: Iterable[int],
        number: int,
        learning_rate: float,
        totals: Totals,
    ) -> None:
        calls = self.calls(shard, order, bounds, number, learning_rate, totals)
        run_together([calls], self._crew)

    def calls(
        self,
        shard: Shard,
        order: np.ndarray | slice,
        bounds: Iterable[int],
        number: int,
        learning_rate: float,
        totals: Totals,
    ) -> Calls:
        """Do as `take`, by requests that somebody else runs: yield each, and receive the answer to it."""
        edges = np.fromiter(bounds, np.int64)
        begun = 0
        while begun < len(edges) - 1:
            end = self._end_of_call(edges, begun, isinstance(shard.X, np.ndarray))
            begun += yield from self._call(
                shard, order, edges[begun : end + 1], number, learning_rate, totals
            )

    def _end_of_call(self, edges: np.ndarray, begun: int, is_dense: bool) -> int:
        """Return the edge at which a call that begins at an edge ends."""
        if not is_dense:
            return begun + 1
        if self._job.metrics is None:
            return len(edges) - 1
        most = edges[begun] + _NUMBERS_FOR_METRICS // self._job.network.n_outputs
        return max(begun + 1, int(np.searchsorted(edges, most, "right")) - 1)

    def _call(
        self,
        shard: Shard,
        order: np.ndarray | slice,
        edges: np.ndarray,
        number: int,
        learning_rate: float,
        totals: Totals,
    ) -> Generator[Request, Answer, int]:
        """Yield the request for steps between some edges; return how many batches were taken."""
        job, step, n_batches = self._job, totals.step, len(edges) - 1
        noise = None
        if job.network.is_noisy:
            draws = (job.noise(step + i, number, int(edges[i])) for i in range(n_batches))
            noise = np.array([_state_of(rng) for rng in draws if rng is not None], np.uint64)
        rows = None if isinstance(order, slice) else order
        if isinstance(order, slice):
            edges = edges + order.start
        is_kept = isinstance(shard.X, np.ndarray)
        if not is_kept:
            # CSR rows: only the mini-batch becomes dense.
            shard = _dense(shard, slice(*edges) if rows is None else rows[slice(*edges)])
            edges, rows = edges - edges[0], None
        rates = [job.rate(learning_rate, step + 1 + i) for i in range(n_batches)]
        n_seen = 0 if job.metrics is None else int(edges[-1] - edges[0]) * job.network.n_outputs
        seen = np.empty(n_seen, job.network.dtype) if n_seen else None
        request = Request(
            STEPS,
            shard.X,
            shard.y,
            shard.weight,
            rows,
            edges,
            *self._places,
            rates=rates_of(job.optimizer, rates, step + 1, job.network.dtype),
            noise=noise,
            is_kept=is_kept,
            seen=seen,
        )
        found = yield request
        totals.step += found.n_steps
        totals.loss_total += found.loss
        totals.n_samples += found.n_rows
        totals.weight_sum += found.weight
        if seen is not None:
            taken = slice(int(edges[0]), int(edges[found.n_taken]))
            of_taken = seen[: (taken.stop - taken.start) * job.network.n_outputs]
            of_metrics = _sums_of_metrics(job, shard, taken if rows is None else rows[taken], of_taken)
            totals.metric_sums = totals.metric_sums + of_metrics
        return found.n_taken


def run_together(running: Iterable[Calls], crew: Crew) -> None:
    """Run the requests of several at the same time, call by call."""
    wanted = []
    for calls in running:
        with suppress(StopIteration):
            wanted.append((calls, next(calls)))
    while wanted:
        answers = crew.run([request for _, request in wanted])
        answered, wanted = zip(wanted, answers, strict=True), []
        for (calls, _), answer in answered:
            with suppress(StopIteration):
                wanted.append((calls, calls.send(answer)))


class CompiledSideBySide(SideBySide):
    """Takes steps of several replicas at the same time, in threads that stay in compiled code."""

    def __init__(self, job: TrainingJob, n_threads: int):
        self._crew = Crew(job, n_threads)

    def take(self, work: Sequence[StepsToTake]) -> None:
        run_together([cast(CompiledSteps, one.steps).calls(*one[1:]) for one in work], self._crew)

    def close(self) -> None:
        self._crew.close()


def _dense(shard: Shard, rows: Any) -> Shard:
    """Return these rows of a shard of CSR rows as a dense one."""
    part = shard.rows(rows)
    return replace(part, X=part.X.toarray())


# --- gradients ---------------------------------------------------------------------------------------


class CompiledGradientSum(GradientSum):
    """Sums gradients, one call for all rows of a piece."""

    def __init__(
        self,
        job: TrainingJob,
        params: np.ndarray,
        vector: np.ndarray | None = None,
        loss_sum: float = 0.0,
        metric_sums: Any = 0.0,
    ):
        network = job.network
        self.network = network
        # The same array, which may change; unless its numbers are not as compiled code reads them.
        self._job, self._of = job, flat(params, network.dtype)
        self._is_empty = vector is None
        self.vector = np.zeros(network.n_params, network.dtype) if vector is None else vector
        self._params_at, self._total_at = self._of.ctypes.data, address_of(self.vector)
        self.loss_sum, self.metric_sums = loss_sum, metric_sums
        self._crew = Crew(job)

    def begin(self) -> None:
        self.loss_sum, self.metric_sums, self._is_empty = 0.0, 0.0, True

    def add(
        self,
        X: Any,
        y: np.ndarray,
        weight: np.ndarray | None,
        rows: np.ndarray | slice,
        rng: np.random.Generator | None = None,
        watch: Watch | None = None,
    ) -> float:
        # All layers are done at once, so there is nothing to watch.
        noise = None if rng is None else np.array([_state_of(rng)], np.uint64)
        if isinstance(X, np.ndarray):
            return self._add(Shard(X, y, weight), rows, noise, True)
        divisor, at_once = 0.0, rows_at_once(self.network, X)
        first, end = (rows.start, rows.stop) if isinstance(rows, slice) else (0, len(rows))
        for begin in range(first, end, at_once):
            # CSR rows: only some at a time become dense.
            part = slice(begin, min(begin + at_once, end))
            dense = _dense(Shard(X, y, weight), part if isinstance(rows, slice) else rows[part])
            divisor += self._add(dense, slice(0, len(dense)), noise, False)
        return divisor

    def _add(self, shard: Shard, rows: np.ndarray | slice, noise: np.ndarray | None, is_kept: bool) -> float:
        begin, end = (rows.start, rows.stop) if isinstance(rows, slice) else (0, len(rows))
        if begin == end:
            return 0.0
        metrics, network = self._job.metrics, self.network
        seen = None if metrics is None else np.empty((end - begin) * network.n_outputs, network.dtype)
        request = Request(
            SUM,
            shard.X,
            shard.y,
            shard.weight,
            None if isinstance(rows, slice) else rows,
            np.array([*range(begin, end, ROWS_AT_ONCE), end], np.int64),
            params_at=self._of.ctypes.data,
            total_at=self._total_at,
            noise=noise,
            is_kept=is_kept,
            is_first=self._is_empty,
            seen=seen,
        )
        answer = self._crew.run([request])[0]
        self._is_empty = False
        self.loss_sum += answer.loss
        if seen is not None:
            self.metric_sums = self.metric_sums + _sums_of_metrics(self._job, shard, rows, seen)
        return answer.weight


class CompiledUpdate(Update):
    """Takes a step in one call."""

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        self._optimizer = job.optimizer
        self._optimization = optimization_of(job.network, job.optimizer, job.regularizer.strength)
        address_of(params), address_of(slots)
        self._flat = params, slots.reshape(-1)
        self._rates = np.empty(3, params.dtype)
        self._changes_gradients = any(v.regularizer is not None for v in job.network.variables)

    def apply(self, total: np.ndarray, divisor: float, step: int, learning_rate: float) -> float:
        self._rates[:] = rates_of_step(self._optimizer, learning_rate, step)
        if self._changes_gradients or not total.flags.writeable:
            # It is the caller's.
            total = total.copy()
        return float(
            cache.apply_gradient(self._optimization, *self._flat, total, float(divisor), self._rates)
        )


# --- predictions -------------------------------------------------------------------------------------


def predict(network: Network, params: np.ndarray, X: Any) -> np.ndarray:
    """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR."""
    n_rows = X.shape[0]
    out = np.empty((n_rows, network.n_outputs), network.dtype)
    crew, params = Crew(_job_of(network)), flat(params, network.dtype)
    at_once = n_rows if isinstance(X, np.ndarray) else rows_at_once(network, X)
    for begin in range(0, n_rows, max(at_once, 1)):
        part = X[begin : begin + at_once]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        edges = np.array([*range(0, len(dense), _ROWS_OF_PREDICTION), len(dense)], np.int64)
        of_part = out[begin : begin + at_once]
        crew.run([Request(PREDICTIONS, dense, None, None, None, edges, params.ctypes.data, seen=of_part)])
    return out


def _job_of(network: Network) -> TrainingJob:
    """Return a job of a network that is not trained."""
    return TrainingJob(network, SGD(), BatchL2(), 1, 0)


def prepare(dtype: str) -> None:
    """Compile all functions for a dtype, or read them from the cache."""
    network = Network(1, (Dense(1),), MeanSquaredError(), dtype)
    params = np.zeros(2, dtype)
    predict(network, params, np.zeros((1, 1), dtype))
    updater = CompiledUpdate(_job_of(network), params, np.zeros((0, 2), dtype))
    updater.apply(np.zeros(2, dtype), 1.0, 1, 0.0)
