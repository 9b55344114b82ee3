"""Constraints on weights, applied after each update.

Names, arguments and defaults are Keras's. Norms are computed along `axis`; axis 0 of a kernel (n_inputs,
units) gives the norm of the incoming weights of each unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.saving.serialization import Configurable, Kinds

# Keras's backend.epsilon(), against division by a norm of 0.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Constraint(Configurable, ABC):
    """Base class of constraints: projections of weights."""

    @abstractmethod
    def apply(self, W: np.ndarray) -> None:
        """Project W in place."""

    def __call__(self, W) -> np.ndarray:
        """Return the projection of W as a new array."""
        projected = np.array(W)
        self.apply(projected)
        return projected


@dataclass(frozen=True)
class NonNeg(Constraint):
    """Set negative weights to 0."""

    def apply(self, W):
        np.maximum(W, 0, out=W)


class _OfNorms(Constraint):
    """Base class of constraints on norms, which multiply weights by target(norms) / norms."""

    axis: Any

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.axis, list):
            object.__setattr__(self, "axis", tuple(self.axis))

    @abstractmethod
    def target(self, norms: np.ndarray) -> Any:
        """Return the norms to scale weights of these norms to."""

    def apply(self, W):
        norms = np.sqrt(np.sum(np.square(W), axis=self.axis, keepdims=True))
        np.multiply(W, self.target(norms) / (norms + W.dtype.type(_EPSILON)), out=W)


@dataclass(frozen=True)
class MaxNorm(_OfNorms):
    """Limit norms to max_value (Srivastava et al. 2014).

    Parameters
    ----------
    max_value : float, default=2
        Largest norm.
    axis : int or tuple of int, default=0
        Axes along which norms are computed.
    """

    max_value: float = 2
    axis: Any = 0

    def target(self, norms):
        return np.clip(norms, 0, self.max_value)


@dataclass(frozen=True)
class UnitNorm(_OfNorms):
    """Scale norms to 1.

    Parameters
    ----------
    axis : int or tuple of int, default=0
        Axes along which norms are computed.
    """

    axis: Any = 0

    def target(self, norms):
        return 1


@dataclass(frozen=True)
class MinMaxNorm(_OfNorms):
    """Move norms towards [min_value, max_value].

    Parameters
    ----------
    min_value, max_value : float, default=0.0, 1.0
        Range of norms.
    rate : float, default=1.0
        Share of the way to the range; 1: norms are in the range after each update.
    axis : int or tuple of int, default=0
        Axes along which norms are computed.
    """

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Any = 0

    def target(self, norms):
        return self.rate * np.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms


_KINDS = Kinds("a constraint", "keras.constraints", Constraint, (MaxNorm, NonNeg, UnitNorm, MinMaxNorm))
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize

# Keras's aliases.
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
