"""Where the rounds of an epoch run: in this process, by tasks on a cluster, or between its workers.

A transport makes no decision that could change the weights; strategies do.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from dasknn.data.loading import Loaded
from dasknn.data.shards import Shards
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.saving import snapshots
from dasknn.strategies import Strategy
from dasknn.strategies.strategy import BY_ROWS, BY_SPEED

OnWave = Callable[[TrainState], None]
# (mean loss without penalties, gradient summed over the rows, weight of the rows)
LossAndGrad = tuple[float, np.ndarray, float]


class Transport(ABC):
    """Runs the rounds of an epoch somewhere.

    Attributes
    ----------
    name : {'process', 'tasks', 'peer'}
    job : TrainingJob
    n_samples : int
        Rows of an epoch.
    """

    name: str
    job: TrainingJob
    n_samples: int

    @abstractmethod
    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; call on_wave with the state after some of its rounds."""

    @abstractmethod
    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        """Return mean loss, summed gradient and summed weight of all rows, for the state's parameters."""

    @abstractmethod
    def layout(self) -> dict[str, Any]:
        """Return how rows are dealt out to replicas, as far as the weights depend on it, in JSON's types."""

    def memory(self) -> dict[str, np.ndarray]:
        """Return the arrays that it keeps from epoch to epoch, besides the state."""
        return {}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Restore the memory of such a transport in an interrupted training."""
        return

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the cluster since the last call; see `cluster.faults.Event`."""
        return []

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return (seconds of computing, of communication) since the last call, by worker."""
        return {}

    def close(self) -> None:
        """Release connections that are kept between epochs."""
        return


# Settings that change nothing.
_NOTHING_NEW = (("delay", 0), ("balance", BY_ROWS))


def layout_of(strategy: Strategy, shards: Shards) -> dict[str, Any]:
    """Return the layout of data that is dealt out to replicas."""
    settings = snapshots.described(strategy)
    # The job has the number of replicas, which the strategy may leave open.
    settings = {name: value for name, value in settings.items() if name not in ("replicas", "members")}
    # Checkpoints of versions without these say nothing of them.
    settings = {name: value for name, value in settings.items() if (name, value) not in _NOTHING_NEW}
    rows = [list(own.values()) for own in shards.rows_of_replicas()]
    if strategy.balance == BY_SPEED:
        # How rows were dealt out in the meantime is not repeated.
        rows = [[sum(map(sum, rows))]]
    own = {"trains": "by replicas", "strategy": settings, "rows": sum(map(sum, rows))}
    return own | layout_of_loaded(shards.loaded, rows)


def layout_of_loaded(loaded: Loaded, rows: list) -> dict[str, Any]:
    """Return what every layout says of data on workers; rows: how many each shard has, in any nesting."""
    split = loaded.split
    return {
        "partition": [{"rows": info.n_rows} for info in loaded.infos],
        "choice of rows held out": 0 if split is None or split.seed is None else split.seed,
        "shards": zlib.crc32(str(rows).encode()),
    }
