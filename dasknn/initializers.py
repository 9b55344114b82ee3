"""Seeded draws of initial parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GlorotUniform:
    """Uniform on (-b, b) with b = sqrt(factor / (fan_in + fan_out)).

    `factor` is 6 in Glorot and Bengio (2010); scikit-learn takes 2 for logistic units, and draws
    biases from the same interval as weights.
    """

    factor: float = 6.0

    def draw(self, rng, fan_in: int, fan_out: int, shape) -> np.ndarray:
        """Return float64 of that shape; rng is a numpy RandomState or Generator."""
        bound = np.sqrt(self.factor / (fan_in + fan_out))
        return rng.uniform(-bound, bound, shape)


@dataclass(frozen=True)
class Zeros:
    """All zeros."""

    def draw(self, rng, fan_in: int, fan_out: int, shape) -> np.ndarray:
        return np.zeros(shape)
