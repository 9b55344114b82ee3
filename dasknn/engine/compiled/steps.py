"""Steps, sums of gradients, updates and predictions by compiled functions: see `kernels`.

These classes have the interfaces of those in numpy, and turn what comes into flat arrays. One thread may use
an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dasknn.engine.compiled import cache
from dasknn.engine.compiled.program import optimization_of, program_of, rates_of
from dasknn.engine.network import Network
from dasknn.engine.state import Shard, Totals, TrainingJob
from dasknn.engine.steps import Steps
from dasknn.engine.updater import Updater
from dasknn.engine.workspace import GradientSum, rows_at_once
from dasknn.layers import Dense
from dasknn.losses import MeanSquaredError
from dasknn.optimizers import SGD
from dasknn.regularizers import BatchL2

# Outputs of so many numbers are kept for metrics at a time.
_NUMBERS_FOR_METRICS = 1_000_000
# Rows that go through the network at a time in predictions: their hidden layers stay in cache.
_ROWS_OF_PREDICTION = 512
# Shards whose arrays are remembered: a round may go from one to the next.
_MOST_SHARDS = 8
_LOW = (1 << 64) - 1


# --- arrays ------------------------------------------------------------------------------------------


class _Alias:
    """An array that can be written to, over memory of one that says it cannot: compiled code only reads it.

    Arrays that may be written to and others would be two signatures, and be compiled twice.
    """

    def __init__(self, array: np.ndarray):
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def flat(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the numbers of an array in one dimension, in row-major order; copied only where they must be."""
    array = np.ascontiguousarray(array, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(-1) if array.flags.writeable else np.asarray(_Alias(array)).reshape(-1)


def _flat_view(array: np.ndarray) -> np.ndarray:
    """Return an array in one dimension, for compiled code that changes it in place."""
    found = array.reshape(-1)
    assert np.shares_memory(found, array) or not array.size, "a copy would change in its place"
    return found


class _Columns:
    """The columns of a shard as flat arrays."""

    def __init__(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None, network: Network):
        # Kept alive: they are recognized by their identity.
        self._source = X, y, weight
        dtype = np.dtype(network.dtype)
        labels, targets = np.empty(0, np.int64), np.empty(0, dtype)
        if y.ndim == 1:
            labels = flat(y, np.int64)
        else:
            targets = flat(y, dtype)
        self.arrays = flat(X, dtype), labels, targets, targets[:0] if weight is None else flat(weight, dtype)

    def are(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> bool:
        """Return whether these are the columns of the same arrays."""
        return all(ours is theirs for ours, theirs in zip(self._source, (X, y, weight), strict=True))


def _state_of(rng: np.random.Generator) -> list[int]:
    """Return the state of a new generator as `arithmetic.next_uint64` takes it."""
    state = rng.bit_generator.state["state"]
    return [state["state"] >> 64, state["state"] & _LOW, state["inc"] >> 64, state["inc"] & _LOW, 0]


def _rows_in(order: np.ndarray | slice) -> tuple[int, np.ndarray | None]:
    """Return where rows begin, and their order if it is not that of the shard."""
    if isinstance(order, slice):
        return order.start, None
    return 0, np.ascontiguousarray(order, np.int64)


# --- mini-batches ------------------------------------------------------------------------------------


class _Runner:
    """Runs mini-batches of one network forward and backward, in buffers of its own.

    params, slots : ndarray (n,), (n_slots * n,)
    """

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        network = job.network
        self._network, self._metrics = network, job.metrics
        self._dtype = np.dtype(network.dtype)
        program = program_of(network)
        optimization = optimization_of(network, job.optimizer, job.regularizer.strength)
        self._settings = program.network, program.loss_of, optimization, params, slots
        self._grad = np.zeros(network.n_params, self._dtype)
        self._buffers: tuple = ()
        self._capacity = 0
        self._shards: dict[int, _Columns] = {}
        self._no_numbers = np.empty(0, self._dtype)
        self._no_order = np.empty(0, np.int64)
        self._no_noise = np.empty((0, 5), np.uint64)

    def _columns(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> _Columns:
        found = self._shards.get(id(X))
        if found is None or not found.are(X, y, weight):
            if len(self._shards) == _MOST_SHARDS:
                self._shards.clear()
            found = self._shards[id(X)] = _Columns(X, y, weight, self._network)
        return found

    def _reserve(self, n_rows: int) -> None:
        if n_rows <= self._capacity:
            return
        widths, dtype = self._network.widths, self._dtype
        sizes = [sum(widths[1:]), sum(widths[1:]), 2 * max(widths), widths[0]]
        of_labels = np.zeros(n_rows, np.int64)
        of_targets, of_weight = np.zeros(n_rows * widths[-1], dtype), np.zeros(n_rows, dtype)
        self._buffers = (
            *(np.zeros(n_rows * size, dtype) for size in sizes),
            of_labels,
            of_targets,
            of_weight,
            n_rows,
        )
        self._capacity = n_rows

    def run(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        order: np.ndarray | None,
        bounds: np.ndarray,
        rates: np.ndarray,
        noise: np.ndarray | None,
        sums: np.ndarray,
        total: np.ndarray | None = None,
    ) -> tuple[int, Any]:
        """Return how many batches were taken, and the sums of metrics over their rows.

        The other arguments are those of `kernels.train_steps`.
        """
        columns = self._columns(X, y, weight)
        self._reserve(int(np.diff(bounds).max()))
        n_rows, k = int(bounds[-1] - bounds[0]), self._network.n_outputs
        has_metrics = self._metrics is not None
        seen = np.empty(n_rows * k, self._dtype) if has_metrics else self._no_numbers
        n_taken = cache.train_steps(
            *self._settings,
            self._grad,
            self._no_numbers if total is None else total,
            columns.arrays,
            self._no_order if order is None else order,
            bounds,
            rates,
            self._no_noise if noise is None else noise,
            self._buffers,
            seen,
            sums,
        )
        if not has_metrics:
            return n_taken, 0.0
        taken = slice(int(bounds[0]), int(bounds[n_taken]))
        rows = taken if order is None else order[taken]
        outputs = seen.reshape(n_rows, k)[: taken.stop - taken.start]
        return n_taken, self._metrics.sums(y[rows], outputs, None if weight is None else weight[rows])


class CompiledSteps(Steps):
    """Takes many steps in one call."""

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        self._job = job
        self._runner = _Runner(job, _flat_view(params), _flat_view(slots))

    def take(
        self,
        shard: Shard,
        order: np.ndarray | slice,
        bounds: Iterable[int],
        number: int,
        learning_rate: float,
        totals: Totals,
    ) -> None:
        edges = np.fromiter(bounds, np.int64)
        begun = 0
        while begun < len(edges) - 1:
            end = self._end_of_call(edges, begun, isinstance(shard.X, np.ndarray))
            begun += self._call(shard, order, edges[begun : end + 1], number, learning_rate, totals)

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
    ) -> int:
        """Take steps between some edges, in one call; return how many batches were taken."""
        job, step = self._job, totals.step
        if not isinstance(shard.X, np.ndarray):
            # CSR rows: only the mini-batch becomes dense.
            first, last = edges[[0, -1]]
            order = (
                slice(order.start + first, order.start + last)
                if isinstance(order, slice)
                else order[first:last]
            )
            dense = shard.X[order].toarray()
            shard = Shard(dense, shard.y[order], None if shard.weight is None else shard.weight[order])
            order = slice(-first, 0)
        shift, rows = _rows_in(order)
        n_batches = len(edges) - 1
        rates = np.array([job.rate(learning_rate, step + 1 + i) for i in range(n_batches)])
        noise = None
        if job.network.is_noisy:
            draws = (job.noise(step + i, number, int(edges[i])) for i in range(n_batches))
            noise = np.array([_state_of(rng) for rng in draws if rng is not None], np.uint64)
        sums = np.zeros(4)
        n_taken, of_metrics = self._runner.run(
            shard.X,
            shard.y,
            shard.weight,
            rows,
            edges + shift,
            rates_of(job.optimizer, rates, step + 1, job.network.dtype),
            noise,
            sums,
        )
        loss_total, n_samples, weight_sum, n_steps = sums.tolist()
        totals.loss_total += loss_total
        totals.n_samples += int(n_samples)
        totals.weight_sum += weight_sum
        totals.step += int(n_steps)
        totals.metric_sums = totals.metric_sums + of_metrics
        return n_taken


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
        self.vector = np.zeros(network.n_params, network.dtype) if vector is None else vector
        self.loss_sum, self.metric_sums = loss_sum, metric_sums
        self._runner = _Runner(job, flat(params, network.dtype), np.empty(0, network.dtype))
        self._rates = np.empty((0, 3), network.dtype)

    def begin(self) -> None:
        self.loss_sum, self.metric_sums = 0.0, 0.0
        self.vector.fill(0)

    def add(
        self,
        X: Any,
        y: np.ndarray,
        weight: np.ndarray | None,
        rows: np.ndarray | slice,
        rng: np.random.Generator | None = None,
    ) -> float:
        at_once = rows_at_once(self.network, X)
        noise = None if rng is None else np.array([_state_of(rng)], np.uint64)
        if isinstance(X, np.ndarray):
            return self._add(X, y, weight, rows, at_once, noise)
        divisor = 0.0
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        for begin in range(0, len(rows), at_once):
            part = rows[begin : begin + at_once]
            columns = X[part].toarray(), y[part], None if weight is None else weight[part]
            divisor += self._add(*columns, slice(0, len(part)), at_once, noise)
        return divisor

    def _add(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        rows: np.ndarray | slice,
        at_once: int,
        noise: np.ndarray | None,
    ) -> float:
        n_rows = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        first, order = _rows_in(rows)
        bounds = np.array([*range(0, n_rows, at_once), n_rows], np.int64) + first
        sums = np.zeros(4)
        _, of_metrics = self._runner.run(X, y, weight, order, bounds, self._rates, noise, sums, self.vector)
        self.loss_sum += float(sums[0])
        self.metric_sums = self.metric_sums + of_metrics
        return float(sums[2])


class CompiledUpdater(Updater):
    """Takes a step in one call."""

    def __init__(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray):
        self.optimizer = job.optimizer
        self._optimization = optimization_of(job.network, job.optimizer, job.regularizer.strength)
        self._arrays = _flat_view(params), _flat_view(slots)

    def apply(self, total: np.ndarray, divisor: float, step: int, learning_rate: float) -> float:
        rates = rates_of(self.optimizer, np.array([learning_rate]), step, total.dtype.char)[0]
        return float(cache.apply_gradient(self._optimization, *self._arrays, total, float(divisor), rates))


def predict(network: Network, params: np.ndarray, X: Any) -> np.ndarray:
    """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR."""
    dtype, widths = np.dtype(network.dtype), network.widths
    n_rows, capacity = X.shape[0], min(_ROWS_OF_PREDICTION, max(X.shape[0], 1))
    out = np.empty((n_rows, network.n_outputs), dtype)
    hidden = [np.empty(capacity * sum(widths[1:]), dtype) for _ in range(2)]
    buffers = *hidden, capacity
    settings = program_of(network).network, flat(params, dtype)
    at_once = n_rows if isinstance(X, np.ndarray) else rows_at_once(network, X)
    for begin in range(0, n_rows, max(at_once, 1)):
        part = X[begin : begin + at_once]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        of_part = out[begin : begin + at_once].reshape(-1)
        cache.predict_rows(*settings, flat(dense, dtype), buffers, np.empty(0, np.uint64), of_part)
    return out


def prepare(dtype: str) -> None:
    """Compile all functions for a dtype, or read them from the cache."""
    network = Network(1, (Dense(1),), MeanSquaredError(), dtype)
    job = TrainingJob(network, SGD(), BatchL2(), 1, 0)
    params, X, y = np.zeros(2, dtype), np.zeros((1, 1), dtype), np.zeros((1, 1), dtype)
    slots = np.zeros((0, 2), dtype)
    CompiledSteps(job, params, slots).take(Shard(X, y), slice(0, 1), [0, 1], 0, 0.0, Totals(0, 0, 0, 0, 0))
    CompiledUpdater(job, params, slots).apply(np.zeros(2, dtype), 1.0, 1, 0.0)
    predict(network, params, X)
