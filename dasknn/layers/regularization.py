"""Layers of noise, which work in training only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.layers.layer import Bound, Layer, expect_at_least_0


class _Noise(Layer):
    """A layer that changes nothing once training is over."""

    is_noisy = True

    def outputs(self, X, *weights):
        return np.array(X)


@dataclass(frozen=True)
class Dropout(_Noise):
    """Sets a share of all numbers to 0 and divides the others by 1 - rate (Srivastava et al. 2014).

    seed: taken for the sake of Keras's signature; masks follow from the seed of the training, the step and
    the rows, so that a step that is repeated draws them again.
    """

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Expected rate to be in [0, 1], received {self.rate}.")
        if self.noise_shape is not None:
            raise ValueError("Expected noise_shape=None, as rows are flat: each number has its own mask.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundDropout(self.rate, n_rows, n_inputs, dtype)


class _BoundFactor(Bound):
    """Multiplies by random factors."""

    def __init__(self, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.factor = np.empty_like(self.A)

    def draw(self, rng) -> None:
        """Draw self.factor."""
        raise NotImplementedError

    def forward(self, X, weights, rng):
        self.draw(rng)
        return np.multiply(X, self.factor, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.multiply(self.dA, self.factor, out=dX)


class _BoundDropout(_BoundFactor):
    def __init__(self, rate: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.rate = rate

    def draw(self, rng):
        rng.random(out=self.factor, dtype=self.factor.dtype)
        np.greater_equal(self.factor, self.rate, out=self.factor)
        if self.rate < 1:
            np.divide(self.factor, 1 - self.rate, out=self.factor)


@dataclass(frozen=True)
class GaussianDropout(_Noise):
    """Multiplies by normal numbers of mean 1 and variance rate / (1 - rate) (Srivastava et al. 2014)."""

    rate: float
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"Expected rate to be in [0, 1), received {self.rate}.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundGaussianDropout((self.rate / (1 - self.rate)) ** 0.5, n_rows, n_inputs, dtype)


class _BoundGaussianDropout(_BoundFactor):
    def __init__(self, stddev: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.stddev = stddev

    def draw(self, rng):
        rng.standard_normal(out=self.factor, dtype=self.factor.dtype)
        np.multiply(self.factor, self.stddev, out=self.factor)
        np.add(self.factor, 1, out=self.factor)


@dataclass(frozen=True)
class GaussianNoise(_Noise):
    """Adds normal numbers of mean 0 and that standard deviation. seed: see Dropout."""

    stddev: float
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        expect_at_least_0(self, "stddev")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundNoise(self.stddev, n_rows, n_inputs, dtype)


class _BoundNoise(Bound):
    def __init__(self, stddev: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.stddev = stddev

    def forward(self, X, weights, rng):
        rng.standard_normal(out=self.A, dtype=self.A.dtype)
        np.multiply(self.A, self.stddev, out=self.A)
        return np.add(self.A, X, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.copyto(dX, self.dA)
