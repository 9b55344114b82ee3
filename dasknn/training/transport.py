"""Where the rounds of an epoch run: in this process, by tasks on a cluster, or between its workers.

Transports decide nothing that could change a bit; strategies do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from dasknn.engine.state import TrainingJob, TrainState
from dasknn.saving import snapshots
from dasknn.strategies import Strategy

OnWave = Callable[[TrainState], None]
# (mean loss without penalties, gradient summed over the rows, weight of the rows)
LossAndGrad = tuple[float, np.ndarray, float]


class Transport(Protocol):
    """Runs the rounds of an epoch somewhere."""

    #: PROCESS, TASKS or PEER of `choice`.
    name: str
    job: TrainingJob
    n_samples: int

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        """Return the state after one epoch; on_wave hears of the state now and then."""
        ...  # pragma: no cover

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        """Return mean loss, summed gradient and weight over all rows, for the parameters of the state."""
        ...  # pragma: no cover

    def layout(self) -> dict[str, Any]:
        """Return how the data lies and who learns from which of it, as far as bits depend on it; in JSON's
        types.
        """
        ...  # pragma: no cover

    def memory(self) -> dict[str, np.ndarray]:
        """Return what it remembers from epoch to epoch, besides the state."""
        return {}

    def events(self) -> list[dict]:
        """Return what has happened to the cluster since the last call; see `cluster.faults.Event`."""
        return []

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return what workers have spent on the epoch, by address: seconds of computing, of communication.

        The rest of the time they waited.
        """
        return {}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Take over what the same transport of an interrupted training remembered."""
        return

    def close(self) -> None:
        """End what it keeps between epochs."""
        return


def layout_of(strategy: Strategy, shards) -> dict[str, Any]:
    """Return the layout of data that is dealt out to replicas."""
    settings = snapshots.described(strategy)
    # However many replicas the strategy asks for, the job has their number.
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
