"""Training in this process, with scikit-learn's order of random draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import shuffle

from dasknn.engine.state import Shard, TrainingJob, TrainState
from dasknn.engine.workspace import Workspace, loss_and_grad
from dasknn.strategies import auto
from dasknn.strategies.local_trainer import LocalTrainer, batch_bounds
from dasknn.training.transport import LossAndGrad, OnWave, Transport


class InProcess(Transport):
    """Trains one replica in this process.

    random_state shuffles the current order of rows again in each epoch, as in scikit-learn, so that the same
    seed gives scikit-learn's numbers.

    Parameters
    ----------
    job : TrainingJob
    shard : Shard
        All rows.
    random_state : numpy.random.RandomState
    held_out : int, default=0
        A checksum of the numbers of the held-out rows; 0 if there are none.
    """

    name = auto.PROCESS
    _BATCHES_IN_WAVE = 64

    def __init__(
        self, job: TrainingJob, shard: Shard, random_state: np.random.RandomState, held_out: int = 0
    ):
        self.job = job
        self.n_samples = len(shard)
        self._held_out = held_out
        self._shard = shard
        self._random_state = random_state
        self._order = np.arange(len(shard))
        self._all_rows: Workspace | None = None

    def layout(self) -> dict[str, Any]:
        return {
            "trains": "in this process",
            "rows": self.n_samples,
            "choice of rows held out": self._held_out,
        }

    def memory(self) -> dict[str, np.ndarray]:
        """Return the current order of rows, and the state of the random draws."""
        return {"order": self._order, **random_memory(self._random_state)}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        order = np.asarray(memory["order"])
        if order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(self.n_samples)):
            raise ValueError(f"Expected an order of {self.n_samples} rows, received another.")
        self._order = order
        recall_random(self._random_state, memory)

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        if self.job.shuffle:
            self._order = shuffle(self._order, random_state=self._random_state)
        batch_size = self.job.batch_size or self.n_samples
        trainer = LocalTrainer(self.job, state)
        wave = self._BATCHES_IN_WAVE * batch_size
        for begin in range(0, self.n_samples, wave):
            order = self._order[begin : begin + wave]
            trainer.train(self._shard, order, batch_bounds(len(order), batch_size))
            on_wave(trainer.state())
        return trainer.state()

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        shard, network = self._shard, self.job.network
        weight_sum = len(shard) if shard.weight is None else float(shard.weight.sum())
        if sparse.issparse(shard.X):
            # Some rows at a time, since rows become dense.
            loss_sum, grad = loss_and_grad(network, state.params, shard.X, shard.y, shard.weight)
            return loss_sum / weight_sum, grad, weight_sum
        if self._all_rows is None:
            self._all_rows = Workspace(network, len(shard))
            self._all_rows.take(shard.X, shard.y, shard.weight, slice(0, len(shard)))
        grad = np.empty(network.n_params, network.dtype)
        loss = self._all_rows.mean_loss_and_grad(network.views(state.params), network.views(grad))
        return loss, grad, weight_sum


def random_memory(rng: np.random.RandomState) -> dict[str, np.ndarray]:
    """Return the state of random draws. ValueError: another generator than NumPy's MT19937."""
    state = rng.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise ValueError(
            f"Checkpoints need a random_state that is a RandomState of MT19937, received one of "
            f"{state['bit_generator']}. Pass a number."
        )
    drawn = np.array([state["has_gauss"], state["gauss"]], np.float64)
    return {"keys": state["state"]["key"], "position": np.array([state["state"]["pos"]]), "drawn": drawn}


def recall_random(rng: np.random.RandomState, memory: Mapping[str, np.ndarray]) -> None:
    """Resume random draws from a state that `random_memory` returned. ValueError: not such a state."""
    has_gauss, gauss = memory["drawn"]
    n_keys = len(random_memory(rng)["keys"])
    if np.shape(memory["keys"]) != (n_keys,) or not 0 <= memory["position"][0] <= n_keys:
        # NumPy would read memory behind its keys.
        raise ValueError(
            f"Expected the state of random draws, {n_keys} keys and a position among them, received another."
        )
    rng.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": memory["keys"], "pos": int(memory["position"][0])},
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        }
    )
