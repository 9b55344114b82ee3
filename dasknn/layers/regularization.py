"""Layers that add noise during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.layers.layer import Bound, Layer, expect_at_least_0


class NoiseGenerator(np.random.Generator):
    """A generator for the noise of one step, with the strength that a schedule gives it.

    Attributes
    ----------
    strength : float
        Share of a layer's rate of dropout that is used.
    """

    strength: float = 1.0

    @classmethod
    def of(cls, generator: np.random.Generator, strength: float) -> NoiseGenerator:
        """Return a generator that continues another one."""
        found = cls(generator.bit_generator)
        found.strength = strength
        return found


def strength_of(rng: Any) -> float:
    """Return the strength of the noise of a generator: 1 for one of NumPy."""
    return rng.strength if isinstance(rng, NoiseGenerator) else 1.0


class Noise(Layer):
    """A layer that is active during training only."""

    is_noisy = True

    def outputs(self, X, *weights):
        return np.array(X)


@dataclass(frozen=True)
class Dropout(Noise):
    """Set a random share of the inputs to 0 and divide the others by `1 - rate`, during training only.

    Parameters
    ----------
    rate : float
        Share of the inputs to set to 0, in [0, 1].
    noise_shape : None, default=None
        For compatibility with Keras.
    seed : default=None
        For compatibility with Keras; ignored. Masks follow from the seed of the training, the step and the
        rows, so that a step that is repeated after a fault draws the same masks.

    References
    ----------
    Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting".
    """

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Dropout expects rate to be in [0, 1], received {self.rate}.")
        if self.noise_shape is not None:
            raise ValueError(
                f"Dropout expects noise_shape=None, received {self.noise_shape!r}. Omit it: each number of a "
                "row is dropped independently."
            )

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundDropout(self.rate, n_rows, n_inputs, dtype)


class BoundFactor(Bound):
    """A layer that multiplies by random factors, with its buffers."""

    def __init__(self, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.factor = np.empty_like(self.A)

    def draw(self, rng) -> None:
        """Draw the factors into self.factor."""
        raise NotImplementedError

    def forward(self, X, weights, rng):
        self.draw(rng)
        return np.multiply(X, self.factor, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.multiply(self.dA, self.factor, out=dX)


class _BoundDropout(BoundFactor):
    def __init__(self, rate: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.rate = rate

    def draw(self, rng):
        rate = self.rate * strength_of(rng)
        rng.random(out=self.factor, dtype=self.factor.dtype)
        np.greater_equal(self.factor, rate, out=self.factor)
        if rate < 1:
            np.divide(self.factor, 1 - rate, out=self.factor)


@dataclass(frozen=True)
class GaussianDropout(Noise):
    """Multiply by normal random numbers of mean 1 and variance `rate / (1 - rate)`, during training only.

    Parameters
    ----------
    rate : float
        The rate of the Dropout layer with the same variance, in [0, 1).
    seed : default=None
        For compatibility with Keras; ignored, as in `Dropout`.

    References
    ----------
    Srivastava et al. (2014), section 10.
    """

    rate: float
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"GaussianDropout expects rate to be in [0, 1), received {self.rate}.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundGaussianDropout((self.rate / (1 - self.rate)) ** 0.5, n_rows, n_inputs, dtype)


class _BoundGaussianDropout(BoundFactor):
    def __init__(self, stddev: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.stddev = stddev

    def draw(self, rng):
        rng.standard_normal(out=self.factor, dtype=self.factor.dtype)
        np.multiply(self.factor, self.stddev, out=self.factor)
        np.add(self.factor, 1, out=self.factor)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """Add normal random numbers of mean 0, during training only.

    Parameters
    ----------
    stddev : float
        Their standard deviation.
    seed : default=None
        For compatibility with Keras; ignored, as in `Dropout`.
    """

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
