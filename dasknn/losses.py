"""Losses: the summed loss of a mini-batch, and its derivative.

A loss may have a *canonical* activation, for which the derivative with respect to the logits is simply
output - target. `Loss.bind` makes a `BoundLoss` for mini-batches of one size:

    loss_sum = bound(P, y, weight, out=dP)

P (n, k) are the network's outputs; dP becomes the derivative with respect to the logits when
`to_logits`, else with respect to P. Everything is a *sum* over rows, times weight (n,) or (None) 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import numpy as np


class BoundLoss(Protocol):
    """One loss with what it needs for n rows and k outputs; called once per step."""

    #: Whether the derivative is that with respect to the logits.
    to_logits: bool

    def __call__(self, P: np.ndarray, y: np.ndarray, weight: np.ndarray | None, out: np.ndarray) -> float:
        """Return the weighted sum of the losses of the rows; write its derivative (n, k) into out."""
        ...  # pragma: no cover


class Loss(ABC):
    """Settings of a loss; `bind` makes it callable for mini-batches of one size."""

    name: ClassVar[str]

    @abstractmethod
    def bind(self, n_rows: int, n_outputs: int, dtype, output_activation: str) -> BoundLoss:
        """Return the loss for outputs (n_rows, n_outputs) of a network that ends in that activation."""

    @abstractmethod
    def check_targets(self, y: np.ndarray, n_outputs: int) -> None:
        """ValueError: targets that this loss cannot take."""

    def divisor(self, n_rows: int, weight: np.ndarray | None) -> float:
        """Return what a sum of losses over rows is divided by: here, the sum of their weights."""
        return n_rows if weight is None else float(weight.sum())
