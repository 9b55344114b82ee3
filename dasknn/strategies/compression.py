"""Fewer bytes for averaged gradients, at the price of rounding.

Each replica keeps what is lost in one step and adds it to its next gradient (error feedback, Seide et al.
2014), so that it arrives later instead of never. This memory starts empty in each epoch: an epoch that is
repeated, on other workers, gives the same bits.

A `Compression` is frozen settings; its `Compressor` is what one worker keeps during an epoch. Compression
pays off only where the network between workers is slow: in 6 of more than 200 set-ups that Agarwal et al.
(2022) tried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dasknn.engine.state import Contribution, TrainingJob
from dasknn.seeds import Stream, generator

# total(contributions of this worker's replicas, a vector of their length and dtype) -> sum over all replicas
Total = Callable[[dict[int, Contribution], np.ndarray], Contribution]


class Compressor(ABC):
    """What a worker keeps during an epoch for its replicas."""

    @abstractmethod
    def total(self, found: dict[int, Contribution], step: int, total: Total) -> Contribution:
        """Return the approximate sum of all replicas' contributions.

        Parameters
        ----------
        found : dict
            The contributions of this worker's replicas; their vectors are overwritten.
        step : int
            How many steps the training has taken before this one.
        total : callable
            Sums vectors of any length over all replicas: see `Total`.
        """


class Compression(ABC):
    """Base class of the ways to send fewer bytes."""

    @abstractmethod
    def begin(self, job: TrainingJob, epoch: int) -> Compressor:
        """Return what a worker keeps during that epoch."""


@dataclass(frozen=True)
class Float16(Compression):
    """Send gradients as numbers of 2 bytes: half of float32's.

    Gradients are first scaled by a power of two, to the middle of float16's range. Sums are rounded in the
    order of the tree over replicas, so results stay reproducible.
    """

    def begin(self, job: TrainingJob, epoch: int) -> Compressor:
        return _Float16Compressor(job)


class _Float16Compressor(Compressor):
    # Mean gradients up to 2**8 stay in range; numbers down to 2**-32 of that are not lost.
    _LARGEST_EXPONENT = 8

    def __init__(self, job: TrainingJob):
        # Sums over the rows of a step become about as large as mean gradients.
        rows = job.batch_size or 1
        self._scale = 2.0 ** (int(rows).bit_length() + self._LARGEST_EXPONENT - 16)
        # A sum over all replicas must not overflow.
        self._most = float(np.finfo(np.float16).max) / (2 * job.replicas)
        self._memory: dict[int, np.ndarray] = {}
        self._like = np.empty(job.network.n_params, np.float16)
        self._dtype = job.network.dtype

    def total(self, found: dict[int, Contribution], step: int, total: Total) -> Contribution:
        halved = {}
        for replica, (vector, numbers) in found.items():
            if replica in self._memory:
                np.add(vector, self._memory[replica], out=vector)
            half = np.clip(vector / vector.dtype.type(self._scale), -self._most, self._most)
            half = half.astype(np.float16)
            self._memory[replica] = vector - self._widened(half)
            halved[replica] = Contribution(half, numbers)
        found_total = total(halved, self._like)
        return Contribution(self._widened(found_total.vector), found_total.numbers)

    def _widened(self, half: np.ndarray) -> np.ndarray:
        wide = half.astype(self._dtype)
        return np.multiply(wide, wide.dtype.type(self._scale), out=wide)


@dataclass(frozen=True)
class PowerSGD(Compression):
    """Send the gradient of each weight matrix as a product of two thin matrices.

    A matrix (m, n) takes `rank * (m + n)` numbers instead of `m * n`. Matrices that would not become smaller
    and biases are sent as they are.

    Parameters
    ----------
    rank : int, default=4
        Number of columns of the thin matrices.
    start_after : int, default=0
        Steps of the training before compression starts.

    Raises
    ------
    ValueError
        `rank` is less than 1, or `start_after` less than 0.

    References
    ----------
    Vogels et al., "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
    NeurIPS 2019.
    """

    rank: int = 4
    start_after: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.start_after < 0:
            raise ValueError(
                f"PowerSGD expects rank >= 1 and start_after >= 0, received {self.rank}, {self.start_after}."
            )

    def begin(self, job: TrainingJob, epoch: int) -> Compressor:
        return _PowerSGDCompressor(self, job, epoch)


class _PowerSGDCompressor(Compressor):
    """P = M Q, summed; orthonormal P; Q = Mᵀ P, summed; M ≈ P Qᵀ. The next step starts with this Q."""

    def __init__(self, settings: PowerSGD, job: TrainingJob, epoch: int):
        self._rank, self._start_after = settings.rank, settings.start_after
        network = job.network
        rng = generator(job.seed, Stream.PROJECTIONS, epoch)
        self._matrices: list[tuple[slice, tuple[int, int]]] = []
        self._rest: list[slice] = []
        for variable in network.variables:
            shape = variable.shape
            if variable.is_learned and len(shape) == 2 and self._rank * sum(shape) < shape[0] * shape[1]:
                self._matrices.append((variable.span, (shape[0], shape[1])))
            else:
                self._rest.append(variable.span)
        self._projections = [
            rng.standard_normal((columns, self._rank)).astype(network.dtype)
            for _, (_, columns) in self._matrices
        ]
        self._memory: dict[int, np.ndarray] = {}
        self._n_params, self._dtype = network.n_params, network.dtype

    def total(self, found: dict[int, Contribution], step: int, total: Total) -> Contribution:
        if step < self._start_after or not self._matrices:
            return total(found, np.empty(self._n_params, self._dtype))
        for replica, (vector, _) in found.items():
            if replica in self._memory:
                np.add(vector, self._memory[replica], out=vector)
        first = total(
            {
                replica: Contribution(self._first(vector), numbers)
                for replica, (vector, numbers) in found.items()
            },
            np.empty(self._first_length, self._dtype),
        )
        bases = [
            np.linalg.qr(P)[0] for P in self._split(first.vector, [rows for _, (rows, _) in self._matrices])
        ]
        rest = first.vector[-self._rest_length :].copy()
        seconds = {}
        for replica, (vector, numbers) in found.items():
            thin = [M.T @ basis for M, basis in zip(self._views(vector), bases, strict=True)]
            seconds[replica] = Contribution(np.concatenate([Q.ravel() for Q in thin]), numbers)
            # Only P Qᵀ of this replica's gradient arrives; the rest is sent with the next one.
            self._subtract(vector, bases, thin)
            self._memory[replica] = vector.copy()
        second = total(seconds, np.empty(self._second_length, self._dtype))
        widths = [columns for _, (_, columns) in self._matrices]
        self._projections = [Q.copy() for Q in self._split(second.vector, widths)]
        vector = np.empty(self._n_params, self._dtype)
        for M, basis, Q in zip(self._views(vector), bases, self._projections, strict=True):
            np.dot(basis, Q.T, out=M)
        at = 0
        for span in self._rest:
            vector[span] = rest[at : at + span.stop - span.start]
            at += span.stop - span.start
        return Contribution(vector, first.numbers)

    @property
    def _rest_length(self) -> int:
        return sum(span.stop - span.start for span in self._rest)

    @property
    def _first_length(self) -> int:
        return self._rank * sum(rows for _, (rows, _) in self._matrices) + self._rest_length

    @property
    def _second_length(self) -> int:
        return self._rank * sum(columns for _, (_, columns) in self._matrices)

    def _views(self, vector: np.ndarray) -> list[np.ndarray]:
        return [vector[span].reshape(shape) for span, shape in self._matrices]

    def _first(self, vector: np.ndarray) -> np.ndarray:
        thin = [M @ Q for M, Q in zip(self._views(vector), self._projections, strict=True)]
        return np.concatenate([*(P.ravel() for P in thin), *(vector[span] for span in self._rest)])

    def _split(self, vector: np.ndarray, heights: list[int]) -> list[np.ndarray]:
        edges = np.cumsum([0, *heights]) * self._rank
        return [vector[begin:end].reshape(-1, self._rank) for begin, end in pairwise(edges)]

    def _subtract(self, vector: np.ndarray, bases: list[np.ndarray], thin: list[np.ndarray]) -> None:
        """Subtract from a gradient what arrives of it."""
        for M, basis, Q in zip(self._views(vector), bases, thin, strict=True):
            np.subtract(M, basis @ Q.T, out=M)
        for span in self._rest:
            vector[span] = 0


def get(compression: str | Compression | None) -> Compression | None:
    """Return the compression of that name; None and a Compression are returned as they are.

    Raises
    ------
    ValueError
        It is neither None, "float16" nor a Compression.
    """
    if compression is None or isinstance(compression, Compression):
        return compression
    if compression == "float16":
        return Float16()
    raise ValueError(
        f"Expected compression to be None, 'float16' or PowerSGD(rank=4), received {compression!r}."
    )
