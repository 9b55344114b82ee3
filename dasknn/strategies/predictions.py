"""Networks train separately; their predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dasknn.engine.schedule import Piece, Schedule
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState, merge_numbers
from dasknn.strategies.local_trainer import LocalTrainer, batch_bounds
from dasknn.strategies.strategy import BY_ROWS
from dasknn.strategies.weights import LocalTraining


@dataclass(frozen=True, repr=False)
class PredictionAveraging(LocalTraining):
    """Several networks, which train apart; their predictions are averaged.

    This is a deep ensemble with soft voting. Every member takes steps of the whole batch_size.

    Parameters
    ----------
    members : int or None, default=None
        How many networks; another name of `replicas`.
    hop : bool, default=True
        True: members see all rows. They travel, each visits one shard after the other in an order of its own,
        while the rows stay where they are. False: each member sees a share of the rows, in one place, which
        takes a fraction of the time, and scores less.
    replicas : int or None, default=None
        None for one per thread of the cluster, while each has enough rows.

    Raises
    ------
    ValueError
        `members` is not positive, or differs from `replicas`.

    References
    ----------
    Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
    NeurIPS 2017.

    Nakandala, Zhang and Kumar, "Cerebro: A Data System for Optimized Deep Learning Model Selection", PVLDB
    13(11), 2020: networks that hop.
    """

    members: int | None = None
    hop: bool = True
    name: ClassVar[str] = "predictions"
    task_name: ClassVar[str] = "dasknn-train-member"

    def __post_init__(self) -> None:
        if self.members is not None and self.members < 1:
            raise ValueError(f"Expected members to be at least 1, received {self.members}.")
        if self.members is not None and self.replicas not in (None, self.members):
            raise ValueError(
                f"Expected replicas to be {self.members}, the number of members, received {self.replicas}."
            )
        if self.balance != BY_ROWS:
            raise ValueError(
                f"Members of an ensemble do not wait for one another, received balance={self.balance!r}. "
                "Leave balance out."
            )
        object.__setattr__(self, "replicas", self.members or self.replicas)
        super().__post_init__()

    def schedule(self, job: TrainingJob, rows: list[int]) -> Schedule:
        # Each member takes as many steps as were requested.
        return Schedule(1, lambda k: [sum(job.rows_of_epoch([own])) for own in rows])

    def local_batch_size(self, job: TrainingJob) -> int | None:
        return job.batch_size

    @property
    def sees_all_rows(self) -> bool:
        return self.hop

    def replicas_in_step(self, replicas: int) -> int:
        return 1

    def init_state(self, job: TrainingJob, params: np.ndarray, replicas: int) -> TrainState:
        members = np.stack([params, *(job.init_params(member) for member in range(1, replicas))])
        slots = np.stack([job.initial_slots(member) for member in members])
        return TrainState(members, slots, job.optimizer.initial_rate)

    def share(self, state: TrainState, replica: int) -> TrainState:
        return replace(state, params=state.params[replica], slots=state.slots[replica])

    def visit(
        self, job: TrainingJob, state: TrainState, carry: TrainState | None, shard: Shard, piece: Piece
    ) -> TrainState:
        # carry: the member's own TrainState, whose loss_total and n_samples start at 0.
        trainer = LocalTrainer(job, state.begin_epoch(state.epoch) if carry is None else carry)
        order = job.row_order(state.epoch, piece.shard, len(shard))
        n_rows = piece.end - piece.begin
        bounds = batch_bounds(n_rows, self.local_batch_size(job) or n_rows)
        rows = slice(piece.begin, piece.end)
        trainer.train(shard, rows if isinstance(order, slice) else order[rows], bounds, piece.shard)
        return trainer.state()

    def finish(self, job: TrainingJob, state: TrainState, carry: TrainState) -> Contribution:
        vector = np.concatenate([carry.params, carry.slots.reshape(-1)])
        return Contribution.of(
            vector[np.newaxis],
            carry.loss_total,
            carry.weight_sum,
            carry.n_samples,
            carry.step - state.step,
            carry.metric_sums,
        )

    def merge(self, left: Contribution, right: Contribution) -> Contribution:
        # Members are stacked, in the order of replicas.
        return Contribution(
            np.concatenate([left.vector, right.vector]), merge_numbers(left.numbers, right.numbers)
        )

    def apply(self, job: TrainingJob, state: TrainState, total: Contribution) -> TrainState:
        n_params = state.params.shape[1]
        return replace(
            state,
            params=total.vector[:, :n_params],
            slots=total.vector[:, n_params:].reshape(state.slots.shape),
            step=state.step + total.n_steps,
            loss_total=state.loss_total + total.loss_sum,
            n_samples=state.n_samples + total.n_samples,
            metric_sums=state.metric_sums + total.metric_sums,
        )
