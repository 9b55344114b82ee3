"""What weights are held to after each step: projections, in place.

Names, arguments and defaults are Keras's. Norms are those of the numbers along `axis`; axis 0 of a kernel
(n_inputs, units) gives the norm of what each unit takes in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.saving.serialization import Configurable, Kinds

# Keras's backend.epsilon(): it keeps from dividing by a norm of 0.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Constraint(Configurable, ABC):
    """A projection of weights."""

    @abstractmethod
    def apply(self, W: np.ndarray) -> None:
        """Project W in place."""

    def __call__(self, W) -> np.ndarray:
        """Return the projection of W, a new array."""
        projected = np.array(W)
        self.apply(projected)
        return projected


@dataclass(frozen=True)
class NonNeg(Constraint):
    """Negative weights become 0."""

    def apply(self, W):
        np.maximum(W, 0, out=W)


class _OfNorms(Constraint):
    """Multiplies weights by wanted(norms) / norms."""

    axis: Any

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.axis, list):
            object.__setattr__(self, "axis", tuple(self.axis))

    @abstractmethod
    def wanted(self, norms: np.ndarray) -> Any:
        """Return the norms that weights of these norms shall have."""

    def apply(self, W):
        norms = np.sqrt(np.sum(np.square(W), axis=self.axis, keepdims=True))
        np.multiply(W, self.wanted(norms) / (norms + W.dtype.type(_EPSILON)), out=W)


@dataclass(frozen=True)
class MaxNorm(_OfNorms):
    """Norms are at most max_value (Srivastava et al. 2014)."""

    max_value: float = 2
    axis: Any = 0

    def wanted(self, norms):
        return np.clip(norms, 0, self.max_value)


@dataclass(frozen=True)
class UnitNorm(_OfNorms):
    """Norms are 1."""

    axis: Any = 0

    def wanted(self, norms):
        return 1


@dataclass(frozen=True)
class MinMaxNorm(_OfNorms):
    """Norms move by `rate` of the way to [min_value, max_value]; by 1, they get there."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Any = 0

    def wanted(self, norms):
        return self.rate * np.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms


_KINDS = Kinds("a constraint", "keras.constraints", Constraint, (MaxNorm, NonNeg, UnitNorm, MinMaxNorm))
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize

# Keras's other names for them.
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
