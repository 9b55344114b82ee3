"""Penalties on weights or on outputs of layers, with their derivatives.

`BatchL2` is scikit-learn's; the others have Keras's names, arguments and defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Real

import numpy as np

from dasknn.saving.serialization import Configurable, Kinds


@dataclass(frozen=True)
class BatchL2:
    """Add `strength / 2 * sum(W**2)` over all kernels to the summed loss of a mini-batch.

    Both are then divided by the weight of the mini-batch, so the penalty weighs more in smaller batches:
    scikit-learn's convention.

    Parameters
    ----------
    strength : float, default=0.0
        Factor.
    """

    strength: float = 0.0

    def penalty(self, *weights: np.ndarray) -> float:
        """Return strength / 2 * sum(W**2) over all weights, each a flat array."""
        return 0.5 * self.strength * float(sum(np.dot(W, W) for W in weights)) if self.strength else 0.0

    def add_gradient(self, W: np.ndarray, dW: np.ndarray, scratch: np.ndarray) -> None:
        """Add strength * W to dW in place; scratch has the shape of W."""
        if self.strength:
            np.multiply(W, self.strength, out=scratch)
            dW += scratch


@dataclass(frozen=True)
class Regularizer(Configurable, ABC):
    """Base class of penalties on the mean loss: they weigh the same in mini-batches of any size."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                value = field.default
            if not isinstance(value, Real) or not 0 <= float(value) < float("inf"):
                raise ValueError(
                    f"{type(self).__name__} expects {field.name} to be a number of at least 0, "
                    f"received {value!r}."
                )
            object.__setattr__(self, field.name, float(value))

    @abstractmethod
    def penalty(self, W: np.ndarray) -> float:
        """Return the penalty on W."""

    @abstractmethod
    def add_gradient(self, W: np.ndarray, dW: np.ndarray, scale: float) -> None:
        """Add scale times the derivative of the penalty on W to dW in place."""

    def __call__(self, W) -> float:
        """Return the penalty on W."""
        return self.penalty(np.asarray(W))


def _absolute(W: np.ndarray) -> float:
    return float(np.sum(np.abs(W)))


def _squares(W: np.ndarray) -> float:
    return float(np.vdot(W, W))


@dataclass(frozen=True)
class L1(Regularizer):
    """`l1 * sum(|W|)`, with the derivative 0 at 0.

    Parameters
    ----------
    l1 : float, default=0.01
        Factor.
    """

    l1: float = 0.01

    def penalty(self, W):
        return self.l1 * _absolute(W)

    def add_gradient(self, W, dW, scale):
        dW += np.sign(W) * W.dtype.type(scale * self.l1)


@dataclass(frozen=True)
class L2(Regularizer):
    """`l2 * sum(W**2)`, without scikit-learn's factor 1/2.

    Parameters
    ----------
    l2 : float, default=0.01
        Factor.
    """

    l2: float = 0.01

    def penalty(self, W):
        return self.l2 * _squares(W)

    def add_gradient(self, W, dW, scale):
        dW += W * W.dtype.type(scale * 2 * self.l2)


@dataclass(frozen=True)
class L1L2(Regularizer):
    """`l1 * sum(|W|) + l2 * sum(W**2)`.

    Parameters
    ----------
    l1, l2 : float, default=0.0
        Factors. As in Keras, both are 0 if the penalty is given by its name, "l1l2".
    """

    l1: float = 0.0
    l2: float = 0.0

    def penalty(self, W):
        return self.l1 * _absolute(W) + self.l2 * _squares(W)

    def add_gradient(self, W, dW, scale):
        dW += np.sign(W) * W.dtype.type(scale * self.l1)
        dW += W * W.dtype.type(scale * 2 * self.l2)


_KINDS = Kinds("a regularizer", "keras.regularizers", Regularizer, (L1, L2, L1L2))
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize

# Keras's aliases.
l1, l2, l1_l2 = L1, L2, L1L2
