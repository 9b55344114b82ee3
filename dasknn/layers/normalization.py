"""Layers that normalize to mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn import constraints, initializers, regularizers
from dasknn.layers.layer import Bound, Layer, Weight, flat


@dataclass(frozen=True)
class _Normalization(Layer):
    axis: int | list[int] = -1

    def __post_init__(self):
        super().__post_init__()
        axis = self.axis[0] if isinstance(self.axis, list | tuple) and len(self.axis) == 1 else self.axis
        if axis not in (-1, 1):
            raise ValueError(
                f"{type(self).__name__} expects axis=-1, as rows are flat; received {self.axis!r}. Omit it."
            )
        object.__setattr__(self, "axis", axis)

    def output_shape(self, shape):
        flat(self, shape)
        return shape

    def _scale_and_shift(self, n_inputs: int) -> list[Weight]:
        found = []
        for wanted, name in ((self.scale, "gamma"), (self.center, "beta")):  # type: ignore[attr-defined]
            if wanted:
                regularizer, constraint = (
                    getattr(self, f"{name}_{p}") for p in ("regularizer", "constraint")
                )
                initializer = getattr(self, f"{name}_initializer")
                found.append(
                    Weight(name, (n_inputs,), initializer, regularizer=regularizer, constraint=constraint)
                )
        return found


_NORMALIZATION_PARTS: dict[str, Any] = {
    "beta_initializer": initializers,
    "gamma_initializer": initializers,
    "beta_regularizer": regularizers,
    "gamma_regularizer": regularizers,
    "beta_constraint": constraints,
    "gamma_constraint": constraints,
}


@dataclass(frozen=True)
class BatchNormalization(_Normalization):
    """`gamma * (X - mean) / sqrt(variance + epsilon) + beta`, with statistics of the mini-batch.

    Parameters
    ----------
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    momentum : float, default=0.99
        Share of the past in moving averages: `moving = momentum * moving + (1 - momentum) * batch`.
    epsilon : float, default=0.001
        Added to the variance.
    center, scale : bool, default=True
        Whether there is a beta, and a gamma.
    beta_initializer, gamma_initializer : str or Initializer, default="zeros", "ones"
        Initial values.
    moving_mean_initializer, moving_variance_initializer : str or Initializer, default="zeros", "ones"
        Initial values of the moving averages.
    beta_regularizer, gamma_regularizer : str, Regularizer or None, default=None
        Penalties.
    beta_constraint, gamma_constraint : str, Constraint or None, default=None
        Constraints that hold after each update.
    synchronized : bool, default=False
        Whether statistics are computed over the rows of all replicas. Requires averaged gradients and the
        transport "peer".

    Notes
    -----
    `evaluate` and `predict` use the moving averages of mean and variance. So does training if
    `trainable=False`; the moving averages then do not change.

    Each replica computes the statistics of its own rows of a step (up to 8,192 rows of a shard at a time),
    unless `synchronized`. The moving averages of all replicas are averaged.

    References
    ----------
    Ioffe and Szegedy (2015), "Batch normalization".
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    moving_mean_initializer: Any = "zeros"
    moving_variance_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    synchronized: bool = False  # type: ignore[assignment]
    _parts: ClassVar[dict[str, Any]] = {
        **_NORMALIZATION_PARTS,
        "moving_mean_initializer": initializers,
        "moving_variance_initializer": initializers,
    }

    def weights(self, n_inputs):
        moving = [
            Weight("moving_mean", (n_inputs,), self.moving_mean_initializer, is_learned=False),
            Weight("moving_variance", (n_inputs,), self.moving_variance_initializer, is_learned=False),
        ]
        return (*self._scale_and_shift(n_inputs), *moving)

    def outputs(self, X, *weights):
        *_, mean, variance = weights
        A = (X - mean) / np.sqrt(variance + mean.dtype.type(self.epsilon))
        if self.scale:
            A *= weights[0]
        if self.center:
            A += weights[int(self.scale)]
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return BoundBatchNormalization(self, n_rows, n_inputs, dtype)


class _BoundNormalization(Bound):
    """A normalization with its buffers: normalized inputs and 1 / sqrt(variance + epsilon)."""

    def __init__(self, layer, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.scale, self.center = layer.scale, layer.center
        self.epsilon = np.dtype(dtype).type(layer.epsilon)
        self.normal = np.empty_like(self.A)
        self.inverse: Any = None

    def _scale_and_shift(self, weights) -> np.ndarray:
        np.multiply(self.normal, weights[0], out=self.A) if self.scale else np.copyto(self.A, self.normal)
        if self.center:
            np.add(self.A, weights[int(self.scale)], out=self.A)
        return self.A

    def _learn(self, weights, grads) -> None:
        """Write the gradients of gamma and beta; dA becomes the derivative by the normalized inputs."""
        if self.scale:
            np.einsum("ij,ij->j", self.dA, self.normal, out=grads[0])
        if self.center:
            np.add.reduce(self.dA, axis=0, out=grads[int(self.scale)])
        if self.scale:
            np.multiply(self.dA, weights[0], out=self.dA)


class BoundBatchNormalization(_BoundNormalization):
    """BatchNormalization with its buffers.

    If `synchronized`, the network adds up the `sums` of all replicas before `forward_by`, and their
    `backward_sums` before `backward_by`.
    """

    def __init__(self, layer: BatchNormalization, n_rows: int, n_inputs: int, dtype):
        super().__init__(layer, n_rows, n_inputs, dtype)
        self.synchronized = layer.synchronized and layer.trainable
        self.frozen = not layer.trainable
        self.momentum = layer.momentum
        self.mean = self.variance = np.empty(0)

    def forward(self, X, weights, rng):
        if self.frozen:
            return self._normalize(X, weights, *weights[-2:])
        mean = X.mean(axis=0)
        return self._normalize(X, weights, mean, np.square(X - mean).mean(axis=0))

    def _normalize(self, X, weights, mean, variance) -> np.ndarray:
        self.mean, self.variance = mean, variance
        self.inverse = 1 / np.sqrt(variance + self.epsilon)
        np.subtract(X, mean, out=self.normal)
        np.multiply(self.normal, self.inverse, out=self.normal)
        return self._scale_and_shift(weights)

    def sums(self, X) -> np.ndarray:
        """Return the number of rows, sum of X and sum of X**2, as one float64 vector (1 + 2 * n_inputs,)."""
        wide = X.astype(np.float64)
        return np.concatenate([[len(X)], wide.sum(axis=0), np.square(wide).sum(axis=0)])

    def forward_by(self, totals: np.ndarray, X, weights) -> np.ndarray:
        """Return A, normalized by the mean and variance that follow from these sums."""
        mean, square = totals[1:].reshape(2, -1) / totals[0]
        variance = np.maximum(square - mean**2, 0)
        return self._normalize(X, weights, mean.astype(X.dtype), variance.astype(X.dtype))

    def backward(self, X, weights, grads, dX):
        totals = self.backward_sums(weights, grads)
        if dX is not None:
            self.backward_by(totals, dX)

    def backward_sums(self, weights, grads) -> np.ndarray:
        """Write the gradients of gamma and beta; return the sums for `backward_by`, a float64 vector."""
        self._learn(weights, grads)
        total = self.dA.sum(axis=0, dtype=np.float64)
        along = np.einsum("ij,ij->j", self.dA, self.normal, dtype=np.float64)
        return np.concatenate([[len(self.dA)], total, along])

    def backward_by(self, totals: np.ndarray, dX) -> None:
        """Write dX, given the sums over all rows that the statistics were computed from."""
        if not self.frozen:
            mean, along = (totals[1:].reshape(2, -1) / totals[0]).astype(self.dA.dtype)
            np.subtract(self.dA, mean, out=self.dA)
            np.multiply(self.normal, along, out=self.normal)
            np.subtract(self.dA, self.normal, out=self.dA)
        np.multiply(self.dA, self.inverse, out=dX)

    def drift(self, weights, grads, divisor):
        share = 0.0 if self.frozen else divisor * (1 - self.momentum)
        for moving, found, fall in zip(weights[-2:], (self.mean, self.variance), grads[-2:], strict=True):
            np.subtract(moving, found, out=fall)
            np.multiply(fall, share, out=fall)


@dataclass(frozen=True)
class LayerNormalization(_Normalization):
    """`gamma * (X - mean) / sqrt(variance + epsilon) + beta`, with statistics of each row.

    Parameters
    ----------
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    epsilon : float, default=0.001
        Added to the variance.
    center, scale : bool, default=True
        Whether there is a beta, and a gamma.
    beta_initializer, gamma_initializer : str or Initializer, default="zeros", "ones"
        Initial values.
    beta_regularizer, gamma_regularizer : str, Regularizer or None, default=None
        Penalties.
    beta_constraint, gamma_constraint : str, Constraint or None, default=None
        Constraints that hold after each update.

    References
    ----------
    Ba et al. (2016), "Layer normalization".
    """

    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    _parts: ClassVar[dict[str, Any]] = _NORMALIZATION_PARTS

    def weights(self, n_inputs):
        return tuple(self._scale_and_shift(n_inputs))

    def outputs(self, X, *weights):
        centered = X - X.mean(axis=1, keepdims=True)
        A = centered / np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + X.dtype.type(self.epsilon))
        if self.scale:
            A *= weights[0]
        if self.center:
            A += weights[int(self.scale)]
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundLayerNormalization(self, n_rows, n_inputs, dtype)


class _BoundLayerNormalization(_BoundNormalization):
    def forward(self, X, weights, rng):
        np.subtract(X, X.mean(axis=1, keepdims=True), out=self.normal)
        variance = np.einsum("ij,ij->i", self.normal, self.normal) / self.normal.shape[1]
        self.inverse = (1 / np.sqrt(variance + self.epsilon))[:, np.newaxis]
        np.multiply(self.normal, self.inverse, out=self.normal)
        return self._scale_and_shift(weights)

    def backward(self, X, weights, grads, dX):
        self._learn(weights, grads)
        if dX is None:
            return
        along = np.einsum("ij,ij->i", self.dA, self.normal)[:, np.newaxis] / self.dA.shape[1]
        np.subtract(self.dA, self.dA.mean(axis=1, keepdims=True), out=self.dA)
        np.multiply(self.normal, along, out=self.normal)
        np.subtract(self.dA, self.normal, out=self.dA)
        np.multiply(self.dA, self.inverse, out=dX)
