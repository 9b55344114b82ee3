"""Steps of an optimizer on a flat vector, with what surrounds them: penalties, clipping, averages."""

from __future__ import annotations

import numpy as np

from dasknn.regularizers import BatchL2

# Elements that are updated together: small enough that all passes over a block stay in cache.
_BLOCK = 32_768


class Updater:
    """Turns summed gradients into steps of the optimizer, block by block.

    params (n,), slots (n_slots, n) and grad (n,) are views that the caller owns and that change in
    place; the first n_weights of them are regularized. Views of all blocks are made once.
    """

    def __init__(self, optimizer, regularizer: BatchL2, n_weights: int, params, slots, grad):
        self.optimizer = optimizer
        self.regularizer = regularizer
        scratch = np.empty(min(_BLOCK, max(len(params), 1)), params.dtype)
        self._weights = []
        self._blocks = []
        for begin in range(0, len(params), _BLOCK):
            block = slice(begin, min(begin + _BLOCK, len(params)))
            buffer = scratch[: block.stop - begin]
            weights = slice(begin, max(begin, min(block.stop, n_weights)))
            self._weights.append((params[weights], grad[weights], buffer[: weights.stop - begin]))
            self._blocks.append((params[block], grad[block], slots[:, block], buffer))

    def step(self, weight_sum: float, step: int, learning_rate: float) -> None:
        """Take step number `step` (from 1) with the mean gradient grad / weight_sum; grad is spent."""
        for weights, (params, grad, slots, scratch) in zip(self._weights, self._blocks, strict=True):
            self.regularizer.add_gradient(*weights)
            np.divide(grad, weight_sum, out=grad)
            self.optimizer.update(params, grad, slots, scratch, step, learning_rate)
