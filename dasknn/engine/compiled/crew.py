"""Threads that answer requests in compiled code: see `kernels.serve`.

A request is a row of numbers: what to do, and where the arrays for it are. Writing it takes a few
microseconds, and the threads of a crew take theirs without Python and its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine.compiled import cache
from dasknn.engine.compiled.program import N_COLUMNS, N_TAKEN, WHAT, optimization_of, program_of
from dasknn.engine.network import Network
from dasknn.engine.state import Shard, TrainingJob

# Shards and orders that are remembered as flat arrays: a round may go from one to the next.
_MOST_KNOWN = 8
_NO_ORDER = np.empty(0, np.int64)


def flat(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the numbers of an array in one dimension, in row-major order; copied only where they must be."""
    array = np.ascontiguousarray(array, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(-1)


def address_of(array: np.ndarray) -> int:
    """Return where an array begins, which compiled code will change in place."""
    assert array.flags.c_contiguous, "a copy would change in its place"
    assert array.flags.writeable, "others rely on it"
    return array.ctypes.data


class _Columns:
    """The columns of a shard as flat arrays."""

    def __init__(self, X: np.ndarray, y: np.ndarray | None, weight: np.ndarray | None, network: Network):
        # Kept alive: they are recognized by their identity.
        self._source = X, y, weight
        dtype = np.dtype(network.dtype)
        labels, targets = _NO_ORDER, np.empty(0, dtype)
        if y is not None and y.ndim == 1:
            labels = flat(y, np.int64)
        elif y is not None:
            targets = flat(y, dtype)
        weights = targets[:0] if weight is None else flat(weight, dtype)
        self._arrays = flat(X, dtype), labels, targets, weights
        # Addresses and sizes, as a request begins.
        self.places = np.array([[array.ctypes.data, array.size] for array in self._arrays], np.int64).ravel()

    def are(self, *columns: np.ndarray | None) -> bool:
        """Return whether these are the columns of the same arrays."""
        return all(ours is theirs for ours, theirs in zip(self._source, columns, strict=True))


class Request(NamedTuple):
    """What a thread is asked for.

    Attributes
    ----------
    what : {SUM, STEPS, PREDICTIONS}
    X, y, weight : ndarray
        All rows of a shard; y and weight may be None.
    order : ndarray or None
        The order of rows; None: as they are.
    bounds : int64 (b + 1,)
        Where batches begin and end in that order.
    params_at, slots_at, total_at : int
        Addresses of parameters, of slots (for steps), and of the vector of a sum.
    rates : ndarray (b, 3) or None
        See `program.rates_of`; for steps.
    noise : uint64 (m, 5) or None
        States of random draws: one for each step, or one for all batches of a sum, which changes.
    is_first : bool
        Whether the vector of a sum is set, not added to.
    seen : ndarray or None
        Receives the outputs of all batches.
    is_kept : bool
        Whether the shard may come again: its flat arrays are remembered.
    """

    what: int
    X: np.ndarray
    y: np.ndarray | None
    weight: np.ndarray | None
    order: np.ndarray | None
    bounds: np.ndarray
    params_at: int
    slots_at: int = 0
    total_at: int = 0
    rates: np.ndarray | None = None
    noise: np.ndarray | None = None
    is_first: bool = False
    seen: np.ndarray | None = None
    is_kept: bool = True


class Answer(NamedTuple):
    """How many batches were taken; loss, rows, weight and steps as `kernels.serve` sums them."""

    n_taken: int
    loss: float
    n_rows: int
    weight: float
    n_steps: int


class Crew:
    """Threads for the requests of one job, of which the calling thread is one.

    Parameters
    ----------
    job : TrainingJob
    n_threads : int
    """

    def __init__(self, job: TrainingJob, n_threads: int = 1):
        network = job.network
        self._network = network
        program = program_of(network)
        optimization = optimization_of(network, job.optimizer, job.regularizer.strength)
        self._signals = np.zeros(8 * (1 + n_threads), np.int64)
        self._requests = np.zeros((n_threads, N_COLUMNS), np.int64)
        self._sums = np.zeros((n_threads, 4))
        self._shared = self._signals, self._requests, self._sums
        self._settings = program.network, program.loss_of, optimization
        self._lanes: list[tuple[Any, ...]] = []
        self._capacity = 0
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._columns: dict[int, _Columns] = {}
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers to some requests, which do not depend on one another."""
        n_lanes, answers = len(self._requests), []
        for first in range(0, len(requests), n_lanes):
            answers += self._run_at_once(requests[first : first + n_lanes])
        return answers

    def _run_at_once(self, requests: Sequence[Request]) -> list[Answer]:
        self.reserve(max(int(np.diff(request.bounds).max()) for request in requests))
        # Arrays that were made for these requests must outlive the call.
        used = [self._write(self._requests[lane], request) for lane, request in enumerate(requests)]
        self._requests[len(requests) :, WHAT] = 0
        self._call()
        del used
        taken, sums = self._requests[:, N_TAKEN].tolist(), self._sums.tolist()
        return [
            Answer(taken[lane], loss, int(rows), weight, int(steps))
            for lane, (loss, weight, rows, steps) in enumerate(sums[: len(requests)])
        ]

    def run_written(self, requests: np.ndarray) -> np.ndarray:
        """Answer requests (n_threads, N_COLUMNS) that are written; return their sums (n_threads, 4)."""
        self._requests[:] = requests
        self._call()
        return self._sums.copy()

    def arrays_of(self, shard: Shard, order: np.ndarray | slice) -> tuple[_Columns, np.ndarray]:
        """Return columns and order of a shard as requests take them; they have to be kept alive."""
        columns = self._columns_of(shard.X, shard.y, shard.weight)
        return columns, _NO_ORDER if isinstance(order, slice) else self._order(order)

    def _write(self, row: np.ndarray, request: Request) -> tuple[Any, ...]:
        """Write a request into its row; return what its addresses point to."""
        of_shard = request.X, request.y, request.weight
        columns = self._columns_of(*of_shard) if request.is_kept else _Columns(*of_shard, self._network)
        order = _NO_ORDER if request.order is None else self._order(request.order)
        rates, noise, seen = request.rates, request.noise, request.seen
        row[:WHAT] = columns.places
        row[WHAT:N_TAKEN] = (
            request.what,
            order.ctypes.data,
            order.size,
            request.bounds.ctypes.data,
            request.bounds.size - 1,
            request.params_at,
            request.slots_at,
            0 if rates is None else rates.ctypes.data,
            0 if noise is None else noise.ctypes.data,
            0 if noise is None else len(noise),
            request.total_at,
            request.is_first,
            0 if seen is None else seen.ctypes.data,
        )
        return columns, order

    def _columns_of(self, X: np.ndarray, y: np.ndarray | None, weight: np.ndarray | None) -> _Columns:
        found = self._columns.get(id(X))
        if found is None or not found.are(X, y, weight):
            if len(self._columns) == _MOST_KNOWN:
                self._columns.clear()
            found = self._columns[id(X)] = _Columns(X, y, weight, self._network)
        return found

    def _order(self, order: np.ndarray) -> np.ndarray:
        known = self._orders.get(id(order))
        if known is None or known[0] is not order:
            if len(self._orders) == _MOST_KNOWN:
                self._orders.clear()
            known = self._orders[id(order)] = order, flat(order, np.int64)
        return known[1]

    def reserve(self, n_rows: int) -> None:
        """Make working space for batches of so many rows, and start the threads."""
        if n_rows <= self._capacity and self._lanes:
            return
        self.close()
        lanes = [self._working_space(n_rows) for _ in self._requests]
        self._signals[:] = 0
        try:
            for lane in range(1, len(lanes)):
                args = lane, *lanes[lane]
                thread = threading.Thread(target=self._serve, args=args, name="dasknn-replica", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise
        self._lanes, self._capacity = lanes, n_rows

    def _serve(self, lane: int, *working_space: Any) -> None:
        try:
            cache.serve(lane, *self._shared, *self._settings, *working_space)
        except BaseException as error:
            # The first thread must not wait for this one.
            self._error = error
            self._signals[8 + 8 * lane] = -1

    def _call(self) -> None:
        """Let all threads answer the requests that are written. RuntimeError: one of them has failed."""
        try:
            are_here = cache.serve(0, *self._shared, *self._settings, *self._lanes[0])
        except BaseException:
            self.close()
            raise
        if not are_here:
            self.close()
            raise RuntimeError("A thread with compiled steps has failed.") from self._error

    def _working_space(self, n_rows: int) -> tuple[Any, ...]:
        widths, dtype = self._network.widths, np.dtype(self._network.dtype)
        sizes = [sum(widths[1:]), sum(widths[1:]), 2 * max(widths), widths[0]]
        buffers = (
            *(np.zeros(n_rows * size, dtype) for size in sizes),
            np.zeros(n_rows, np.int64),
            np.zeros(n_rows * widths[-1], dtype),
            np.zeros(n_rows, dtype),
            n_rows,
        )
        return np.zeros(self._network.n_params, dtype), buffers

    def close(self) -> None:
        """End the threads, if there are others than the caller's."""
        self._signals[0] = -1
        for thread in self._threads:
            thread.join()
        self._threads, self._lanes, self._capacity = [], [], 0
