"""Exchanges while replicas compute: of the last layers' gradients, or of the gradients of the step before."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from math import prod

import numpy as np

from dasknn.engine.network import Network
from dasknn.engine.state import Contribution, TrainingJob
from dasknn.strategies.learner import OPERATIONS_PER_SECOND, Exchange, LinkSpeed

# What has to be gained for two exchanges to take the place of one.
_LEAST_SECONDS = 3e-4


class EarlySum:
    """Sums the kernels of the last layers while the gradients of the first ones are computed.

    Gradients are computed from the last layer to the first. The sum of each number is the same, so bits are.
    Whether it is worth it, and from which layer, follows from sizes and the speed of links, so that all
    workers do the same.

    Parameters
    ----------
    network : Network
    rows_of_step : float
        Of each replica.
    speed : LinkSpeed

    Attributes
    ----------
    first_layer : int or None
        Number of the first of the last layers; None if all wait for the first layer.
    span : slice
        Where the kernels of the last layers are in a gradient.
    """

    def __init__(self, network: Network, rows_of_step: float, speed: LinkSpeed):
        self.first_layer, self.span = _best_cut(network, rows_of_step, speed)
        self._n_params, self._dtype = network.n_params, network.dtype
        self._lock = threading.Lock()
        # Replicas of this worker whose last layers are not there yet, and those of the others.
        self._missing: set[int] = set()
        self._vectors: dict[int, np.ndarray] = {}

    @property
    def lengths(self) -> list[int]:
        """Lengths of the two vectors that are summed in place of one."""
        early = self.span.stop - self.span.start
        return [early, self._n_params - early]

    def begin(self, replicas: Iterable[int], exchange: Exchange, n_numbers: int) -> None:
        """Begin a round in which these replicas of this worker take part, perhaps none."""
        self._vectors = {}
        self._missing, self._exchange, self._n_numbers = set(replicas), exchange, n_numbers
        if not self._missing:
            self._start()

    def is_done(self, replica: int, vector: np.ndarray) -> None:
        """Note that the last layers of a replica's gradient are there; called once, from any thread."""
        with self._lock:
            self._vectors[replica] = vector[self.span]
            self._missing.discard(replica)
            if self._missing:
                return
        self._start()

    def _start(self) -> None:
        parts = {
            replica: Contribution(part, np.zeros(self._n_numbers)) for replica, part in self._vectors.items()
        }
        self._exchange.start(parts, np.empty(self.lengths[0], self._dtype))

    def total(self, found: dict[int, Contribution]) -> Contribution:
        """Return the sum over all replicas of the round, given this worker's contributions."""
        span = self.span
        late = {
            replica: Contribution(np.concatenate([vector[: span.start], vector[span.stop :]]), numbers)
            for replica, (vector, numbers) in found.items()
        }
        whole = np.empty(self._n_params, self._dtype)
        whole[span] = self._exchange.finish().vector
        rest, numbers = self._exchange.total(late, np.empty(self.lengths[1], self._dtype))
        whole[: span.start], whole[span.stop :] = rest[: span.start], rest[span.start :]
        return Contribution(whole, numbers)


def rows_of_step(job: TrainingJob, rows_of_round: int) -> float:
    """Return the rows of each replica in a step. rows_of_round: of all replicas, if a step takes all rows."""
    return (job.batch_size or rows_of_round) / job.replicas


def _best_cut(network: Network, rows_of_step: float, speed: LinkSpeed) -> tuple[int | None, slice]:
    """Return the first layer whose kernels are sent early, and their span in the vector."""
    kernels = [v for v in network.variables if v.is_learned and v.name == "kernel"]
    best, gain = None, _LEAST_SECONDS
    for i, first in enumerate(kernels[1:], start=1):
        # Products for the kernel, and for the inputs of all layers but the first.
        products = sum(
            (2 if k else 1) * network.layers[v.layer].uses_of_kernel * prod(v.shape)
            for k, v in enumerate(kernels[:i])
        )
        computing = 2 * products * rows_of_step / OPERATIONS_PER_SECOND
        n_bytes = (kernels[-1].span.stop - first.begin) * np.dtype(network.dtype).itemsize
        hidden = min(computing, speed.latency + n_bytes * speed.per_byte)
        # The second exchange begins when the first has ended.
        if hidden - speed.latency > gain:
            best, gain = first, hidden - speed.latency
    if best is None or network.frozen or network.is_synchronized:
        return None, slice(0, 0)
    return best.layer, slice(best.begin, kernels[-1].span.stop)
