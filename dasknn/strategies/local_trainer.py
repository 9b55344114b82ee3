"""Steps that a replica takes alone, in arrays of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from dasknn.engine import engines
from dasknn.engine.engines import StepsToTake
from dasknn.engine.state import Shard, Totals, TrainingJob, TrainState


def batch_bounds(n_rows: int, batch_size: int) -> list[int]:
    """Return where batches of batch_size rows begin, and where the last one, which may be shorter, ends."""
    return [*range(0, n_rows, batch_size), n_rows]


class LocalTrainer:
    """Takes optimizer steps of one network in one process.

    Parameters
    ----------
    job : TrainingJob
    state : TrainState
        Where training starts, with the params (n,) of one network; its arrays are copied.
    """

    def __init__(self, job: TrainingJob, state: TrainState):
        self._params, self._slots = np.empty_like(state.params), np.empty_like(state.slots)
        self._steps = engines.get(job.engine).steps(job, self._params, self._slots)
        self.begin(state)

    def begin(self, state: TrainState) -> None:
        """Start again, from this state."""
        self._state, self._totals = state, Totals.of(state)
        np.copyto(self._params, state.params)
        np.copyto(self._slots, state.slots)

    def train(self, shard: Shard, order: np.ndarray | slice, bounds: Iterable[int], number: int = 0) -> None:
        """Take a step on each batch of rows of a shard: see `engine.steps.Steps.take`."""
        self._steps.take(shard, order, bounds, number, self._state.learning_rate, self._totals)

    def to_take(
        self, shard: Shard, order: np.ndarray | slice, bounds: Iterable[int], number: int
    ) -> StepsToTake:
        """Return what `train` would do, for somebody else to do it."""
        rate = self._state.learning_rate
        return StepsToTake(self._steps, shard, order, bounds, number, rate, self._totals)

    def state(self) -> TrainState:
        """Return what has been learned; its arrays change when training continues."""
        return replace(self._state, params=self._params, slots=self._slots).with_totals(self._totals)
