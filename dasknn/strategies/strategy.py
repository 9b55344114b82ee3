"""What a replica does in a round, how the results of replicas merge, and how they are applied.

A strategy is frozen settings with four functions, all pure: they do not change their arguments.

    visit(job, state, carry, shard, piece) -> carry        one replica goes through rows of one shard
    finish(job, state, carry) -> Contribution               after the last shard of its round
    merge(left, right) -> Contribution                      in replica order, as a binary tree
    apply(job, state, contribution) -> TrainState           once per round

`schedule` says how far every replica goes in each round of an epoch. The transport that makes these calls
decides nothing that could change a bit: tasks on a cluster make them one by one; a worker that stays with a
training for many rounds uses a `learner`, which does the same in place.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from dasknn import _capacity
from dasknn.engine.schedule import Piece, Round, Rounds, Route, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.strategies.learner import Learner

BY_ROWS, BY_SPEED = "rows", "speed"


class _Scopes(threading.local):
    """The strategies whose scopes this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.entered: list[Strategy] = []


_scopes = _Scopes()


def in_scope() -> Strategy | None:
    """Return the strategy whose scope this thread is in, or None."""
    return _scopes.entered[-1] if _scopes.entered else None


@dataclass(frozen=True, repr=False)
class Strategy(ABC):
    """Base class of the three averages.

    Parameters
    ----------
    replicas : int or None, default=None
        How many replicas train side by side; None for one per thread of the cluster, while each has enough
        rows. A keyword argument.
    balance : {"rows", "speed"}, default="rows"
        "rows": each replica has equally many rows, and the weights do not depend on the cluster. "speed":
        rows are dealt out again between epochs by the speed of the workers, so that none waits for a slow
        one; then the weights depend on it. A keyword argument.

    Attributes
    ----------
    name : str
        Its name for the argument `strategy`.
    task_name : str
        The name of its tasks on the dashboard.
    steps_apart : bool
        Whether replicas take steps of their own, on their own rows, between two averages.
    """

    replicas: int | None = field(default=None, kw_only=True)
    balance: str = field(default=BY_ROWS, kw_only=True)
    name: ClassVar[str]
    task_name: ClassVar[str]
    steps_apart: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.replicas is not None and not (isinstance(self.replicas, Integral) and self.replicas >= 1):
            raise ValueError(f"Expected replicas to be None or at least 1, received {self.replicas!r}.")
        if self.balance not in (BY_ROWS, BY_SPEED):
            raise ValueError(f"Expected balance to be 'rows' or 'speed', received {self.balance!r}.")

    def __repr__(self) -> str:
        """Return how to write it: the settings that are not defaults."""
        settings = ((own.name, own.default, getattr(self, own.name)) for own in fields(self))
        told = [f"{name}={value!r}" for name, default, value in settings if value != default]
        return f"{type(self).__name__}({', '.join(told)})"

    @contextmanager
    def scope(self) -> Iterator[Strategy]:
        """Make models that are created in this context use the strategy, as TensorFlow's `scope` does.

        A scope may be entered again within itself.

        Raises
        ------
        RuntimeError
            The scope of another strategy is active.
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
        """Return how far replicas go in each round of an epoch.

        rows: the number of rows of each replica.
        """

    def rounds(self, job: TrainingJob, shards: list[dict[int, int]], epoch: int) -> Iterator[Round]:
        """Yield the rounds of an epoch.

        shards[replica] maps the numbers of its shards to their numbers of rows.
        """
        schedule = self.schedule(job, [sum(replica.values()) for replica in shards])
        routes = {replica: Route(job, replica, own, epoch) for replica, own in enumerate(shards)}
        rounds = Rounds(schedule, routes, 0, schedule.n_rounds)
        for k in range(len(rounds)):
            pieces = rounds.pieces(k)
            assert pieces, f"{self} gives no rows to round {k}."
            yield [pieces.get(replica, []) for replica in routes]

    @abstractmethod
    def visit(self, job: TrainingJob, state: TrainState, carry: Any, shard: Shard, piece: Piece) -> Any:
        """Return what a replica has after the rows of a piece.

        Parameters
        ----------
        job : TrainingJob
        state : TrainState
            The state before the round.
        carry : object or None
            The result of the replica's previous piece in this round, or None.
        shard : Shard
            The shard of the piece.
        piece : Piece
        """

    @abstractmethod
    def finish(self, job: TrainingJob, state: TrainState, carry: Any) -> Contribution:
        """Turn the result of a replica's last visit in a round into its contribution."""

    @abstractmethod
    def apply(self, job: TrainingJob, state: TrainState, total: Contribution) -> TrainState:
        """Return the state after a round with these merged contributions."""

    def merge(self, left: Contribution, right: Contribution) -> Contribution:
        """Return the sum of two contributions."""
        return Contribution(left.vector + right.vector, merge_numbers(left.numbers, right.numbers))

    def learner(self, job: TrainingJob, state: TrainState) -> Learner:
        """Return an object that carries out rounds in place.

        Raises
        ------
        TypeError
            Replicas of this strategy exchange nothing between rounds.
        """
        raise TypeError(f"Expected a strategy whose replicas exchange data, received {self.name!r}.")

    def contribution_length(self, job: TrainingJob) -> int:
        """Return the length of the vector that one replica contributes to a round."""
        return job.network.n_params * (1 + job.n_slots)

    @property
    def remembers(self) -> bool:
        """Whether replicas keep something from round to round of an epoch, in addition to the state.

        Then learners have to carry out whole epochs.
        """
        return False

    @property
    def sees_all_rows(self) -> bool:
        """Whether each replica sees all rows in an epoch, and not a share of them."""
        return False

    def replicas_in_step(self, replicas: int) -> int:
        """Return how many replicas share the rows of one step."""
        return replicas

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        """Return the state before the first step, with these parameters (n,)."""
        return TrainState(params, job.initial_slots(params), job.optimizer.initial_rate)

    def share(self, state: TrainState, replica: int) -> TrainState:
        """Return the part of the state that a replica needs for its round."""
        return state
