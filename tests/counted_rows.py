"""Fits whose loss says how often each row was trained on, whatever carried them out.

Rates are so small that no weight moves, inputs are zeros, and each row has a target of its own, beside which
what a network predicts is nothing. So the loss of an epoch is a sum of known numbers, one for each visit to a
row: it is what it should be only if each row came once. It travels with the gradients, through every strategy
and transport, so it counts rows that were learned from, not rows that a schedule or a task speaks of.
"""

from dataclasses import dataclass, field, replace

import dask.array as da
import numpy as np
import pytest

import dasknn
from dasknn import MLPRegressor, Sequential
from dasknn.data import loading, shards
from dasknn.layers import Dense, Input
from dasknn.optimizers import SGD
from dasknn.strategies import GradientAveraging, Strategy

_N_EPOCHS = 2


@dataclass(frozen=True)
class Fit:
    """A fit in one of the ways that there are. chunks: rows of each partition; cut: every one is a shard."""

    api: str = "estimator"
    strategy: Strategy = field(default_factory=GradientAveraging)
    transport: str = "peer"
    streamed: bool = False
    batch_size: int = 7
    replicas: int = 4
    chunks: tuple[int, ...] = (5, 1, 6, 4, 8)
    cut: bool = True
    shuffle: bool = True

    def __str__(self):
        strategy = "-".join(
            str(part) for part in (self.strategy.name, getattr(self.strategy, "every", "")) if part
        )
        data = f"{'streamed' if self.streamed else 'held'}-{len(self.chunks)}"
        return f"{self.api}-{strategy}-{self.transport}-{data}-batch{self.batch_size}-replicas{self.replicas}"

    @property
    def n_rows(self):
        return sum(self.chunks)

    def targets(self):
        """Return y (n,), of which no two rows, nor pairs of rows, can be taken for one another."""
        return 1e9 * np.random.default_rng(0).uniform(1, 2, self.n_rows)

    def data(self):
        """Return X and y as Dask arrays."""
        y = self.targets()
        if self.api == "sequential":
            y = y.astype(np.float32)
        return da.zeros((self.n_rows, 3), chunks=(self.chunks, 3)), da.from_array(y, chunks=(self.chunks,))

    def run(self, *callbacks, n_epochs=_N_EPOCHS):
        """Fit on the cluster of the current client; return the entries of its history, and the model."""
        strategy = replace(self.strategy, replicas=self.replicas)
        X, y = self.data()
        with pytest.MonkeyPatch.context() as patch:
            if self.streamed:
                patch.setattr(loading, "_MEMORY_SHARE", 1e-12)
            if self.cut:
                patch.setattr(shards, "_SHARD_BYTES", 1)
            if self.api == "estimator":
                model = MLPRegressor(
                    hidden_layer_sizes=(2,),
                    solver="sgd",
                    learning_rate_init=1e-300,
                    alpha=0,
                    momentum=0,
                    max_iter=n_epochs,
                    shuffle=self.shuffle,
                    random_state=0,
                    strategy=strategy,
                    batch_size=self.batch_size,
                    transport=self.transport,
                    callbacks=list(callbacks),
                ).fit(X, y)
                assert model.t_ == n_epochs * self.n_rows
                return model.history_, model
            dasknn.set_random_seed(0)
            with strategy.scope():
                model = Sequential([Input((3,)), Dense(2, "tanh"), Dense(1)])
                model.compile(SGD(1e-30), "mse", transport=self.transport)
                history = model.fit(
                    X, y, self.batch_size, n_epochs, 0, callbacks=list(callbacks), shuffle=self.shuffle
                )
        return history.entries, model

    def check(self, *callbacks, n_epochs=_N_EPOCHS):
        """Fit; fail unless each row was trained on once in each epoch. Return the model."""
        history, model = self.run(*callbacks, n_epochs=n_epochs)
        assert [entry["n_samples"] for entry in history] == [self.n_rows] * n_epochs
        factor, rtol = (0.5, 1e-8) if self.api == "estimator" else (1.0, 1e-6)
        expected = factor * np.mean(self.targets() ** 2)
        np.testing.assert_allclose([entry["loss"] for entry in history], expected, rtol=rtol)
        return model
