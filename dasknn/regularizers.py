"""Penalties on weights, with their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BatchL2:
    """Adds strength / 2 * ||W||^2 to the summed loss; biases are left alone.

    The sum over rows and this penalty are divided by the weight of the mini-batch together, so that
    its share grows as batches shrink: scikit-learn's convention.
    """

    strength: float = 0.0

    def penalty(self, *weights: np.ndarray) -> float:
        """Return strength / 2 * sum(W**2) over all weights, which are flat."""
        return 0.5 * self.strength * float(sum(np.dot(W, W) for W in weights)) if self.strength else 0.0

    def add_gradient(self, W: np.ndarray, dW: np.ndarray, scratch: np.ndarray) -> None:
        """Add strength * W to dW in place; scratch has W's shape."""
        if self.strength:
            np.multiply(W, self.strength, out=scratch)
            dW += scratch
