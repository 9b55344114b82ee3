"""What a network is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dasknn import activations
from dasknn.activations import Activation
from dasknn.initializers import GlorotUniform, Zeros


@dataclass(frozen=True)
class Dense:
    """activation(X @ W + b), with W (n_inputs, units) and b (units,)."""

    units: int
    activation: str = "identity"
    kernel_initializer: GlorotUniform | Zeros = field(default_factory=GlorotUniform)
    bias_initializer: GlorotUniform | Zeros = field(default_factory=Zeros)

    def __post_init__(self):
        if self.units < 1:
            raise ValueError(f"Expected units to be at least 1, received {self.units}.")
        activations.get(self.activation)

    def shapes(self, n_inputs: int) -> tuple[tuple[int, int], tuple[int]]:
        """Return the shapes of W and b."""
        return (n_inputs, self.units), (self.units,)

    def draw(self, rng, n_inputs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return initial W and b, float64, drawn in this order."""
        kernel_shape, bias_shape = self.shapes(n_inputs)
        kernel = self.kernel_initializer.draw(rng, n_inputs, self.units, kernel_shape)
        bias = self.bias_initializer.draw(rng, n_inputs, self.units, bias_shape)
        return kernel, bias

    def outputs(self, X, W, b) -> np.ndarray:
        """Return the layer's outputs (n, units) for X (n, n_inputs), dense or CSR, in a new array."""
        A = np.asarray(X @ W)
        A += b
        activations.get(self.activation).forward(A, None)
        return A

    def bind(self, n_rows: int, dtype) -> BoundDense:
        """Return the layer with the buffers for mini-batches of n_rows."""
        return BoundDense(self, n_rows, dtype)


class BoundDense:
    """A Dense layer and its buffers: A and dA (n, units), and the activation's scratch.

    `forward` keeps A for the way back. Whatever follows the layer writes into dA the derivative of the
    loss with respect to A; `differentiate_activation` makes it that with respect to the logits.
    """

    def __init__(self, layer: Dense, n_rows: int, dtype):
        self.activation: Activation = activations.get(layer.activation)
        self.A = np.empty((n_rows, layer.units), dtype)
        self.dA = np.empty((n_rows, layer.units), dtype)
        self.scratch = self.activation.scratch(n_rows, layer.units, dtype)

    def forward(self, X, W, b) -> np.ndarray:
        """Return A = activation(X @ W + b)."""
        np.dot(X, W, out=self.A)
        np.add(self.A, b, out=self.A)
        self.activation.forward(self.A, self.scratch)
        return self.A

    def differentiate_activation(self) -> None:
        """Turn dA, the derivative with respect to A, into that with respect to the logits; A is spent."""
        self.activation.backward(self.A, self.dA, self.scratch)

    def backward(self, X, W, dW, db, dX) -> None:
        """From dA write dW and db, summed over rows, and, unless dX is None, dX (n, n_inputs)."""
        np.dot(X.T, self.dA, out=dW)
        np.add.reduce(self.dA, axis=0, out=db)
        if dX is not None:
            np.dot(self.dA, W.T, out=dX)
