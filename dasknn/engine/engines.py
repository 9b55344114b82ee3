"""Engines: what computes the steps of a training, chosen once and for all of it.

`numpy` is the reference and runs everything. `numba` runs many steps in one call that holds no lock, for the
networks that it has the functions for (`engine/compiled`). Each gives the same bits anywhere; the two differ
by rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine.network import Network
from dasknn.engine.schedule import Rounds
from dasknn.engine.state import Contribution, Shard, Totals, TrainingJob
from dasknn.engine.steps import Steps
from dasknn.engine.updater import Update, Updater
from dasknn.engine.versions import numba_version
from dasknn.engine.workspace import GradientSum
from dasknn.optimizers import Optimizer

__all__ = [
    "AUTO",
    "NAMES",
    "NUMBA",
    "NUMPY",
    "Engine",
    "Preparation",
    "get",
    "numba_version",
    "predict",
    "reason_against",
]

AUTO, NUMPY, NUMBA = "auto", "numpy", "numba"
NAMES = (AUTO, NUMPY, NUMBA)


def reason_against(network: Network, optimizer: Optimizer) -> str:
    """Return what of a training has no compiled steps, such as "BatchNormalization"; "" if all has."""
    from dasknn.engine.compiled.program import reason_against as reason

    return reason(network, optimizer)


@dataclass(frozen=True)
class Preparation:
    """Compiles the steps for a dtype in this process, or reads them from the cache of this machine.

    It returns what went wrong, or "".
    """

    dtype: str

    def __call__(self) -> str:
        try:
            from dasknn.engine.compiled.steps import prepare

            prepare(self.dtype)
        # numba raises errors of many kinds; whatever it is, numpy can do the work.
        except Exception as error:
            return f"numba failed here: {type(error).__name__}: {error}"
        return ""


class StepsToTake(NamedTuple):
    """Steps of one replica: the arguments of `Steps.take`."""

    steps: Steps
    shard: Shard
    order: np.ndarray | slice
    bounds: Iterable[int]
    number: int
    learning_rate: float
    totals: Totals


class SideBySide(ABC):
    """Takes steps of several replicas at the same time."""

    @abstractmethod
    def take(self, work: Sequence[StepsToTake]) -> None:
        """Take all of these steps."""

    @abstractmethod
    def close(self) -> None:
        """End the threads."""


class FastRounds(ABC):
    """Contributions to rounds of averaged gradients, in threads that wait for each other outside Python."""

    @abstractmethod
    def contributions(
        self,
        rounds: Rounds,
        shards: Mapping[int, Shard],
        order: Callable[[int, int], np.ndarray | slice],
    ) -> Iterator[dict[int, Contribution] | None]:
        """Yield the contributions to each round, by replica; None for one that has to be made in another way.

        Those of a round are overwritten in the next. order(replica, shard) is the order of a shard's rows.
        """

    @abstractmethod
    def close(self) -> None:
        """End the threads."""


class Engine(ABC):
    """Makes the objects that compute, each for one thread."""

    @abstractmethod
    def steps(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Steps:
        """Return what takes steps in these arrays, which are params (n,) and slots (n_slots, n)."""

    @abstractmethod
    def gradient_sum(self, job: TrainingJob, params: np.ndarray, *before: Any) -> GradientSum:
        """Return what sums gradients at params (n,).

        before: nothing, or vector, loss_sum and metric_sums to continue from; see `GradientSum`.
        """

    def rounds(self, job: TrainingJob, params: np.ndarray, n_threads: int) -> FastRounds | None:
        """Return what makes contributions at params (n,), which change between rounds; None: nothing does."""
        return None

    def side_by_side(self, job: TrainingJob, n_threads: int) -> SideBySide | None:
        """Return what takes steps of several replicas in threads of its own; None: any threads will do."""
        return None

    @abstractmethod
    def updater(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Update:
        """Return what turns summed gradients into steps, in these arrays."""

    @abstractmethod
    def predict(self, network: Network, params: np.ndarray, X: Any) -> np.ndarray:
        """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR."""


class _Numpy(Engine):
    def steps(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Steps:
        return Steps(job, params, slots)

    def gradient_sum(self, job: TrainingJob, params: np.ndarray, *before: Any) -> GradientSum:
        return GradientSum(job.network, params, job.metrics, *before)

    def updater(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Update:
        network = job.network
        return Updater(
            job.optimizer,
            job.regularizer,
            network.n_weights,
            params,
            slots,
            np.empty_like(params),
            network.variables,
        )

    def predict(self, network: Network, params: np.ndarray, X: Any) -> np.ndarray:
        return network.predict(params, X)


_NUMPY = _Numpy()


def get(name: str) -> Engine:
    """Return the engine of a name. ImportError: numba is missing."""
    if name == NUMPY:
        return _NUMPY
    from dasknn.engine.compiled.engine import ENGINE

    return ENGINE


# Fewer rows gain nothing, and a process that only serves them need not import numba.
_LEAST_ROWS = 512


def predict(name: str, network: Network, params: np.ndarray, X: Any) -> np.ndarray:
    """Return the outputs (n, n_outputs) for X (n, n_inputs), by an engine if it is here, else by numpy."""
    is_here = name == NUMPY or numba_version() is not None
    return get(name if is_here and X.shape[0] >= _LEAST_ROWS else NUMPY).predict(network, params, X)
