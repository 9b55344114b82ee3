"""What a replica does in a round, how the results of replicas merge, and how they are applied.

A strategy is frozen settings with four functions, all pure: they change nothing that they were given.

    visit(job, state, carry, shard, piece) -> carry        one replica goes through rows of one shard
    finish(job, state, carry) -> Contribution               after the last shard of its round
    merge(left, right) -> Contribution                      in replica order, as a binary tree
    apply(job, state, contribution) -> TrainState           once a round

`rounds` says which rows every replica goes through in each round of an epoch. Whoever carries these
calls out (the process itself, or tasks on a cluster) decides nothing that could change a bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from dasknn.network import Network, Workspace
from dasknn.optimizers import Optimizer, Updater
from dasknn.regularizers import L2

# First numbers of the seed sequences, so that streams for different purposes never meet.
_PARAMS_STREAM, _SHARD_ORDER_STREAM, _ROW_ORDER_STREAM = 1, 2, 3


@dataclass(frozen=True)
class TrainingJob:
    """What stays the same through a training: sent to whoever works on it.

    batch_size counts the rows of one step over all replicas; None stands for all rows.
    """

    network: Network
    optimizer: Optimizer
    regularizer: L2
    batch_size: int | None
    seed: int
    replicas: int = 1
    shuffle: bool = True

    def init_params(self, member: int) -> np.ndarray:
        """Draw the initial parameters of one member of an ensemble."""
        return self.network.initial_params(np.random.default_rng([self.seed, _PARAMS_STREAM, member]))

    def row_order(self, epoch: int, shard: int, n_rows: int, again: bool = False) -> np.ndarray | slice:
        """Return the order in which the rows of a shard are visited in an epoch.

        again: the caller will ask for the same order soon, so it is remembered.
        """
        if not self.shuffle:
            return slice(0, n_rows)
        permutation = _remembered_permutation if again else _permutation
        return permutation(self.seed, epoch, shard, n_rows)

    def shard_order(self, epoch: int, replica: int, shards: list[int]) -> list[int]:
        """Return the order in which a replica visits its shards in an epoch."""
        if not self.shuffle:
            return shards
        rng = np.random.default_rng([self.seed, _SHARD_ORDER_STREAM, epoch, replica])
        return [shards[i] for i in rng.permutation(len(shards))]


def _permutation(seed: int, epoch: int, shard: int, n_rows: int) -> np.ndarray:
    order = np.random.default_rng([seed, _ROW_ORDER_STREAM, epoch, shard]).permutation(n_rows)
    order.setflags(write=False)
    return order.astype(np.int32) if n_rows < 2**31 else order


# Rounds of gradients ask for the order of the shard that a thread is in again and again.
_remembered_permutation = lru_cache(maxsize=8)(_permutation)


@dataclass(frozen=True)
class TrainState:
    """Everything that training has learned so far: a value, held by the driver.

    params (n,) or, for an ensemble, (members, n); slots (n_slots, n) or (members, n_slots, n): the
    optimizer's state. Sums over the steps of the running epoch: n_samples, weight_sum, and loss_total,
    the mean loss of a step times its n_samples.
    """

    params: np.ndarray
    slots: np.ndarray
    learning_rate: float
    step: int = 0
    epoch: int = 0
    loss_total: float = 0.0
    n_samples: int = 0
    weight_sum: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss per row in the running epoch."""
        return self.loss_total / self.n_samples if self.n_samples else float("nan")

    def begin_epoch(self, epoch: int) -> TrainState:
        """Return the state with the sums of the epoch at zero."""
        return replace(self, epoch=epoch, loss_total=0.0, n_samples=0, weight_sum=0.0)


@dataclass(frozen=True)
class Shard:
    """Rows that one replica learns from: X (n, p), y as the loss takes it, weight (n,) or None."""

    X: Any
    y: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.X.shape[0]


@dataclass(frozen=True)
class Piece:
    """Rows begin to end, in the order of the epoch, of the shard with that number."""

    shard: int
    replica: int
    begin: int
    end: int


@dataclass(frozen=True)
class Contribution:
    """What one replica, or several together, bring to a round: sums, never means."""

    vector: np.ndarray
    loss_sum: float
    weight_sum: float
    n_samples: int
    n_steps: int = 1


# One replica's rows, round by round: rounds[k][replica] is a list of pieces.
Round = list[list[Piece]]


@dataclass(frozen=True)
class Strategy(ABC):
    """What the three averages have in common."""

    name: ClassVar[str]
    task_name: ClassVar[str]

    @abstractmethod
    def rounds(self, job: TrainingJob, shards: list[dict[int, int]], epoch: int) -> Iterator[Round]:
        """Yield the rounds of an epoch. shards[replica] maps shard number to its number of rows."""

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
        return Contribution(
            left.vector + right.vector,
            left.loss_sum + right.loss_sum,
            left.weight_sum + right.weight_sum,
            left.n_samples + right.n_samples,
            max(left.n_steps, right.n_steps),
        )

    def replicas_in_step(self, replicas: int) -> int:
        """Return how many replicas share the rows of one step."""
        return replicas

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        """Return the state before the first step, with those parameters (n,)."""
        slots = np.zeros((job.optimizer.n_slots, len(params)), params.dtype)
        return TrainState(params, slots, job.optimizer.learning_rate)

    def share(self, state: TrainState, replica: int) -> TrainState:
        """Return the part of the state that a replica needs for its round."""
        return state


@dataclass(frozen=True)
class GradientAveraging(Strategy):
    """Every step takes the mean gradient over the mini-batches of all replicas.

    Synchronous data parallelism: the result is that of one machine with the global batch. What the
    field calls all-reduce, TensorFlow `MirroredStrategy`, PyTorch `DistributedDataParallel`.
    """

    name: ClassVar[str] = "gradients"
    task_name: ClassVar[str] = "dasknn-gradient"

    def rounds(self, job, shards, epoch):
        rows = [sum(replica.values()) for replica in shards]
        n_samples = sum(rows)
        batch_size = n_samples if job.batch_size is None else min(job.batch_size, n_samples)
        walks = [
            _Walk(
                [
                    (shard, replica, shards[replica][shard])
                    for shard in job.shard_order(epoch, replica, list(shards[replica]))
                ]
            )
            for replica in range(len(shards))
        ]
        for done in range(batch_size, n_samples + batch_size, batch_size):
            # Every replica has gone through the same share of its rows, so uneven shards end together.
            done = min(done, n_samples)
            yield [walk.advance_to(n * done // n_samples) for walk, n in zip(walks, rows, strict=True)]

    def visit(self, job, state, carry, shard, piece):
        n_rows = piece.end - piece.begin
        order = job.row_order(state.epoch, piece.shard, len(shard), again=n_rows < len(shard))
        rows = slice(piece.begin, piece.end)
        if not isinstance(order, slice):
            rows = order[rows]
        X, y = shard.X[rows], shard.y[rows]
        weight = None if shard.weight is None else shard.weight[rows]
        loss_sum, grad = job.network.loss_and_grad(state.params, X, y, weight)
        found = Contribution(grad, loss_sum, n_rows if weight is None else float(weight.sum()), n_rows)
        return found if carry is None else self.merge(carry, found)

    def finish(self, job, state, carry):
        return carry

    def apply(self, job, state, total):
        if not total.weight_sum:
            return replace(state, n_samples=state.n_samples + total.n_samples)
        n_weights = job.network.n_weights
        penalty = job.regularizer.penalty(state.params[:n_weights])
        params, slots, grad = state.params.copy(), state.slots.copy(), total.vector.copy()
        updater = Updater(job.optimizer, job.regularizer, n_weights, params, slots, grad)
        updater.step(total.weight_sum, state.step + 1, state.learning_rate)
        mean_loss = (total.loss_sum + penalty) / total.weight_sum
        return replace(
            state,
            params=params,
            slots=slots,
            step=state.step + 1,
            loss_total=state.loss_total + mean_loss * total.n_samples,
            n_samples=state.n_samples + total.n_samples,
            weight_sum=state.weight_sum + total.weight_sum,
        )


@dataclass(frozen=True)
class _LocalTraining(Strategy):
    """Replicas take steps of their own through all of their shards; one round an epoch."""

    @abstractmethod
    def local_batch_size(self, job: TrainingJob) -> int | None:
        """Return the rows of one step of one replica; None stands for a whole shard."""

    def rounds(self, job, shards, epoch):
        yield [
            [
                Piece(shard, replica, 0, shards[replica][shard])
                for shard in job.shard_order(epoch, replica, list(shards[replica]))
            ]
            for replica in range(len(shards))
        ]

    def visit(self, job, state, carry, shard, piece):
        # carry: the replica's own TrainState, whose loss_total and n_samples begin at 0.
        start = state.begin_epoch(state.epoch) if carry is None else carry
        trainer = LocalTrainer(job, start)
        order = job.row_order(state.epoch, piece.shard, len(shard))
        trainer.train(shard, order, self.local_batch_size(job) or len(shard))
        return trainer.state()


@dataclass(frozen=True)
class WeightAveraging(_LocalTraining):
    """Replicas train apart for an epoch; then their weights, and their optimizers' states, are averaged.

    Local SGD, federated averaging (McMahan et al. 2017): replicas count by the weight of their rows.
    One exchange an epoch, at the price of slower learning than averaged gradients.
    """

    every: str = "epoch"
    name: ClassVar[str] = "weights"
    task_name: ClassVar[str] = "dasknn-train-replica"

    def __post_init__(self):
        if self.every != "epoch":
            raise ValueError(f"WeightAveraging expects every='epoch', received {self.every!r}.")

    def local_batch_size(self, job):
        return None if job.batch_size is None else max(1, job.batch_size // job.replicas)

    def finish(self, job, state, carry):
        vector = np.concatenate([carry.params, carry.slots.reshape(-1)])
        return Contribution(
            vector * vector.dtype.type(carry.weight_sum),
            carry.loss_total,
            carry.weight_sum,
            carry.n_samples,
            carry.step - state.step,
        )

    def apply(self, job, state, total):
        if not total.weight_sum:
            return replace(state, n_samples=state.n_samples + total.n_samples)
        mean = total.vector / total.vector.dtype.type(total.weight_sum)
        return replace(
            state,
            params=mean[: len(state.params)],
            slots=mean[len(state.params) :].reshape(state.slots.shape),
            step=state.step + total.n_steps,
            loss_total=state.loss_total + total.loss_sum,
            n_samples=state.n_samples + total.n_samples,
        )


@dataclass(frozen=True)
class PredictionAveraging(_LocalTraining):
    """As many networks as replicas, each trained apart on its own rows; their predictions are averaged.

    Deep ensembles (Lakshminarayanan et al. 2017), soft voting. `members` sets the number of replicas;
    every member takes steps of the whole batch_size. Nothing is exchanged but finished members.
    """

    members: int | None = None
    name: ClassVar[str] = "predictions"
    task_name: ClassVar[str] = "dasknn-train-member"

    def __post_init__(self):
        if self.members is not None and self.members < 1:
            raise ValueError(f"Expected members to be at least 1, received {self.members}.")

    def local_batch_size(self, job):
        return job.batch_size

    def replicas_in_step(self, replicas):
        return 1

    def init_state(self, job, params, replicas):
        members = np.stack([params, *(job.init_params(member) for member in range(1, replicas))])
        slots = np.zeros((replicas, job.optimizer.n_slots, params.shape[0]), params.dtype)
        return TrainState(members, slots, job.optimizer.learning_rate)

    def share(self, state, replica):
        return replace(state, params=state.params[replica], slots=state.slots[replica])

    def finish(self, job, state, carry):
        vector = np.concatenate([carry.params, carry.slots.reshape(-1)])
        return Contribution(
            vector[np.newaxis],
            carry.loss_total,
            carry.weight_sum,
            carry.n_samples,
            carry.step - state.step,
        )

    def merge(self, left, right):
        # Members stand under one another, in the order of replicas.
        return Contribution(
            np.concatenate([left.vector, right.vector]),
            left.loss_sum + right.loss_sum,
            left.weight_sum + right.weight_sum,
            left.n_samples + right.n_samples,
            max(left.n_steps, right.n_steps),
        )

    def apply(self, job, state, total):
        n_params = state.params.shape[1]
        return replace(
            state,
            params=total.vector[:, :n_params],
            slots=total.vector[:, n_params:].reshape(state.slots.shape),
            step=state.step + total.n_steps,
            loss_total=state.loss_total + total.loss_sum,
            n_samples=state.n_samples + total.n_samples,
        )


class LocalTrainer:
    """Takes optimizer steps in one process, on arrays of its own; the hot loop of dasknn.

    Begins from a TrainState with one network's params (n,), which it copies.
    """

    def __init__(self, job: TrainingJob, state: TrainState):
        self._job = job
        self._state = state
        self._params, self._slots = state.params.copy(), state.slots.copy()
        self._param_views = job.network.views(self._params)
        grad = np.empty_like(self._params)
        self._grad_views = job.network.views(grad)
        n_weights = job.network.n_weights
        self._weights = self._params[:n_weights]
        self._updater = Updater(job.optimizer, job.regularizer, n_weights, self._params, self._slots, grad)
        self._workspaces: dict[int, Workspace] = {}
        self._step, self._loss_total = state.step, state.loss_total
        self._n_samples, self._weight_sum = state.n_samples, state.weight_sum

    def train(self, shard: Shard, order: np.ndarray | slice, batch_size: int) -> None:
        """Take a step for every batch_size rows of `order`, rows of the shard; the last may be shorter."""
        first, last = (order.start, order.stop) if isinstance(order, slice) else (0, len(order))
        for begin in range(first, last, batch_size):
            end = min(begin + batch_size, last)
            rows = slice(begin, end) if isinstance(order, slice) else order[begin:end]
            workspace = self._workspace(end - begin)
            workspace.take(shard.X, shard.y, shard.weight, rows)
            self._take_step(workspace)

    def state(self) -> TrainState:
        """Return what has been learned; its arrays go on changing if training does."""
        return replace(
            self._state,
            params=self._params,
            slots=self._slots,
            step=self._step,
            loss_total=self._loss_total,
            n_samples=self._n_samples,
            weight_sum=self._weight_sum,
        )

    def _workspace(self, n_rows: int) -> Workspace:
        if n_rows not in self._workspaces:
            self._workspaces[n_rows] = Workspace(self._job.network, n_rows)
        return self._workspaces[n_rows]

    def _take_step(self, workspace: Workspace) -> None:
        n_rows = workspace.n_rows
        weight_sum = n_rows if workspace.weight is None else float(np.sum(workspace.weight))
        loss_sum = workspace.loss_and_grad(self._param_views, self._grad_views)
        loss_sum += self._job.regularizer.penalty(self._weights)
        self._n_samples += n_rows
        if not weight_sum:
            # Rows that do not count leave the network as it is.
            return
        self._step += 1
        self._updater.step(weight_sum, self._step, self._state.learning_rate)
        self._weight_sum += weight_sum
        self._loss_total += loss_sum / weight_sum * n_rows


class _Walk:
    """A replica's way through its shards, cut into pieces."""

    def __init__(self, shards: list[tuple[int, int, int]]):
        # (number, replica, rows) in the order in which they are visited
        self._shards = iter(shards)
        self._current: tuple[int, int, int] = (-1, -1, 0)
        self._begin = self._done = 0

    def advance_to(self, goal: int) -> list[Piece]:
        """Return the pieces from where the walk stands to `goal` rows from its start."""
        pieces = []
        while self._done < goal:
            number, replica, n_rows = self._current
            if self._begin == n_rows:
                self._current, self._begin = next(self._shards), 0
                continue
            end = min(n_rows, self._begin + goal - self._done)
            pieces.append(Piece(number, replica, self._begin, end))
            self._done += end - self._begin
            self._begin = end
        return pieces


def get(strategy: str | Strategy) -> Strategy:
    """Return the strategy of that name. ValueError: neither a name nor a Strategy."""
    if isinstance(strategy, Strategy):
        return strategy
    by_name = {kind.name: kind for kind in (GradientAveraging, WeightAveraging, PredictionAveraging)}
    if isinstance(strategy, str) and strategy in by_name:
        return by_name[strategy]()
    raise ValueError(
        f"Expected strategy to be 'auto', one of {sorted(by_name)} or an object such as "
        f"GradientAveraging(), received {strategy!r}."
    )
