"""What a replica does in a round, how the results of replicas merge, and how they are applied.

A strategy is frozen settings with four functions, all pure: they change nothing that they were given.

    visit(job, state, carry, shard, piece) -> carry        one replica goes through rows of one shard
    finish(job, state, carry) -> Contribution               after the last shard of its round
    merge(left, right) -> Contribution                      in replica order, as a binary tree
    apply(job, state, contribution) -> TrainState           once a round

`schedule` says how far every replica goes in each round of an epoch. Whoever carries these calls out decides
nothing that could change a bit: tasks on a cluster do so one by one; a worker that stays with a training
for many rounds asks for a `learner`, which does the same in place.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from dasknn import _capacity
from dasknn.engine.schedule import Piece, Round, Schedule, ShardCursor
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.strategies.learner import Learner


class _Scopes(threading.local):
    """The strategies whose scopes this thread is in, the innermost last."""

    def __init__(self):
        self.entered: list[Strategy] = []


_scopes = _Scopes()


def in_scope() -> Strategy | None:
    """Return the strategy whose scope this thread is in, or None."""
    return _scopes.entered[-1] if _scopes.entered else None


@dataclass(frozen=True)
class Strategy(ABC):
    """What the three averages have in common.

    replicas: how many train side by side; None leaves it to the face, which counts the cluster's threads.
    """

    replicas: int | None = field(default=None, kw_only=True)
    name: ClassVar[str]
    task_name: ClassVar[str]
    #: Whether replicas take steps of their own, each on rows of its own, between two averages.
    steps_apart: ClassVar[bool] = False

    def __post_init__(self):
        if self.replicas is not None and not (isinstance(self.replicas, Integral) and self.replicas >= 1):
            raise ValueError(f"Expected replicas to be None or at least 1, received {self.replicas!r}.")

    @contextmanager
    def scope(self) -> Iterator[Strategy]:
        """Make the models that are created within use this strategy, as TensorFlow's `scope` does.

        A scope may be entered again within itself. RuntimeError: within the scope of another strategy.
        """
        current = in_scope()
        if current is not None and current != self:
            raise RuntimeError(
                f"Expected one strategy at a time, received {self} within the scope of {current}. Leave that "
                "scope first."
            )
        _scopes.entered.append(self)
        try:
            yield self
        finally:
            _scopes.entered.pop()

    @property
    def num_replicas_in_sync(self) -> int:
        """How many replicas share a step.

        They are `replicas`, or else one for each thread of the current cluster, or for each processor of this
        process without a cluster.
        """
        replicas = _capacity.count() if self.replicas is None else self.replicas
        return self.replicas_in_step(replicas)

    @abstractmethod
    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        """Return how far replicas go in each round of an epoch. rows: how many each has."""

    def rounds(self, job: TrainingJob, shards: list[dict[int, int]], epoch: int) -> Iterator[Round]:
        """Yield the rounds of an epoch. shards[replica] maps shard number to its number of rows."""
        schedule = self.schedule(job, [sum(replica.values()) for replica in shards])
        cursors = [ShardCursor(job, replica, own, epoch) for replica, own in enumerate(shards)]
        for k in range(schedule.n_rounds):
            pieces = [
                cursor.advance_to(goal) for cursor, goal in zip(cursors, schedule.goals(k), strict=True)
            ]
            assert any(pieces), f"{self} gives no rows to round {k}."
            yield pieces

    @abstractmethod
    def visit(self, job, state: TrainState, carry, shard: Shard, piece: Piece) -> Any:
        """Go through the rows of a piece; carry is what came of the replica's piece before, or None."""

    @abstractmethod
    def finish(self, job, state: TrainState, carry) -> Contribution:
        """Turn what the last visit of a round brought into a contribution."""

    @abstractmethod
    def apply(self, job, state: TrainState, total: Contribution) -> TrainState:
        """Return the state after the round."""

    def merge(self, left: Contribution, right: Contribution) -> Contribution:
        """Return the sum of two contributions."""
        return Contribution(left.vector + right.vector, merge_numbers(left.numbers, right.numbers))

    def learner(self, job: TrainingJob, state: TrainState) -> Learner:
        """Return what carries rounds out in place. TypeError: replicas exchange nothing between rounds."""
        raise TypeError(f"Replicas exchange nothing with strategy {self.name!r}.")

    def contribution_length(self, job: TrainingJob) -> int:
        """Return how many numbers one replica brings to a round."""
        return job.network.n_params * (1 + job.n_slots)

    @property
    def remembers(self) -> bool:
        """Whether replicas keep something from round to round of an epoch, besides the state.

        Then an epoch is carried out by learners as a whole.
        """
        return False

    def replicas_in_step(self, replicas: int) -> int:
        """Return how many replicas share the rows of one step."""
        return replicas

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        """Return the state before the first step, with those parameters (n,)."""
        return TrainState(params, job.initial_slots(params), job.optimizer.initial_rate)

    def share(self, state: TrainState, replica: int) -> TrainState:
        """Return the part of the state that a replica needs for its round."""
        return state
