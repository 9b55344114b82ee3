"""Where the rounds of an epoch run: in this process, by tasks on a cluster, or between its workers.

A transport decides nothing that could change the weights: strategies do.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from dasknn.data.shards import Shards
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.saving import snapshots
from dasknn.strategies import Strategy

OnWave = Callable[[TrainState], None]
# (mean loss without penalties, gradient summed over the rows, weight of the rows)
LossAndGrad = tuple[float, np.ndarray, float]


class Transport(ABC):
    """Runs the rounds of an epoch somewhere.

    Attributes
    ----------
    name : `auto.PROCESS`, `auto.TASKS` or `auto.PEER`
    job : TrainingJob
    n_samples : int, rows of an epoch
    """

    name: str
    job: TrainingJob
    n_samples: int

    @abstractmethod
    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; on_wave is called with the state now and then."""

    @abstractmethod
    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        """Return mean loss, summed gradient and weight over all rows, for the parameters of the state."""

    @abstractmethod
    def layout(self) -> dict[str, Any]:
        """Return where the rows are and which replica learns from which, as far as bits depend on it.

        All values have types of JSON.
        """

    def memory(self) -> dict[str, np.ndarray]:
        """Return what it remembers from epoch to epoch, besides the state."""
        return {}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Restore the memory of the same transport of an interrupted training."""
        return

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the cluster since the last call; see `cluster.faults.Event`."""
        return []

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return the seconds of computing and of communication of each worker since the last call.

        The rest of the time workers waited.
        """
        return {}

    def close(self) -> None:
        """Release what is kept between epochs."""
        return


def layout_of(strategy: Strategy, shards: Shards) -> dict[str, Any]:
    """Return the layout of data that is dealt out to replicas."""
    settings = snapshots.described(strategy)
    # The job has the number of replicas, whatever the strategy asks for.
    settings = {name: value for name, value in settings.items() if name not in ("replicas", "members")}
    split, rows = shards.loaded.split, [list(own.values()) for own in shards.rows_of_replicas()]
    return {
        "trains": "by replicas",
        "strategy": settings,
        "rows": sum(map(sum, rows)),
        "partition": [{"rows": info.n_rows} for info in shards.loaded.infos],
        "choice of rows held out": 0 if split is None or split.seed is None else split.seed,
        "shards": zlib.crc32(str(rows).encode()),
    }
