"""A stack of layers over one flat vector of parameters.

    params = [ W of layer 0 | W of layer 1 | ... | b of layer 0 | b of layer 1 | ... ]

Weights come first, so that what is regularized is one slice. `Network` is settings only: it can be
pickled, shared and hashed by what it says. A `Workspace` holds the buffers of one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dasknn.layers import Dense
from dasknn.losses import Loss

# Rows that go through the network at a time: bounds the memory of hidden layers.
_ROWS_AT_ONCE = 8_192
# Mini-batches come in few sizes; an odd one at the end of each shard adds some more.
_MOST_WORKSPACES = 8
# Of CSR rows, which become dense for that, fewer where they are wide.
_SPARSE_ELEMENTS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Network:
    """Layers from n_inputs to the outputs, the loss they are trained on, and the dtype of it all."""

    n_inputs: int
    layers: tuple[Dense, ...]
    loss: Loss
    dtype: str = "float64"

    @cached_property
    def shapes(self) -> list[tuple[tuple[int, int], tuple[int]]]:
        """Shapes of (W, b), layer by layer."""
        widths = [self.n_inputs, *(layer.units for layer in self.layers)]
        return [layer.shapes(width) for layer, width in zip(self.layers, widths[:-1], strict=True)]

    @cached_property
    def n_weights(self) -> int:
        """Number of parameters that are weights: they come first and are regularized."""
        return sum(rows * columns for (rows, columns), _ in self.shapes)

    @cached_property
    def n_params(self) -> int:
        """Length of the parameter vector."""
        return self.n_weights + sum(units for _, (units,) in self.shapes)

    @property
    def n_outputs(self) -> int:
        """Width of the last layer."""
        return self.layers[-1].units

    def views(self, vector: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return views (W, b) into a vector (n_params,), layer by layer."""
        weight_at, bias_at = 0, self.n_weights
        views = []
        for (rows, columns), (units,) in self.shapes:
            W = vector[weight_at : weight_at + rows * columns].reshape(rows, columns)
            views.append((W, vector[bias_at : bias_at + units]))
            weight_at += rows * columns
            bias_at += units
        return views

    def initial_params(self, rng) -> np.ndarray:
        """Draw the parameters, W before b and layer by layer, in float64; cast to the dtype."""
        params = np.empty(self.n_params, self.dtype)
        for layer, (W, b) in zip(self.layers, self.views(params), strict=True):
            W[...], b[...] = layer.draw(rng, W.shape[0])
        return params

    def loss_and_grad(self, params, X, y, weight=None) -> tuple[float, np.ndarray]:
        """Return (loss_sum, gradient (n_params,)), both summed over the rows, without penalties.

        X (n, n_inputs) dense or CSR; y as the loss expects it; weight (n,) or None.
        ValueError: targets that the loss cannot take.
        """
        self.loss.check_targets(y, self.n_outputs)
        total = GradientSum(self)
        total.add(self.views(params), X, y, weight, slice(0, X.shape[0]))
        return total.loss_sum, total.vector

    def predict(self, params, X) -> np.ndarray:
        """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR."""
        views = self.views(params)
        outputs = np.empty((X.shape[0], self.n_outputs), self.dtype)
        for begin in range(0, X.shape[0], _ROWS_AT_ONCE):
            A = X[begin : begin + _ROWS_AT_ONCE]
            for layer, (W, b) in zip(self.layers, views, strict=True):
                A = layer.outputs(A, W, b)
            outputs[begin : begin + _ROWS_AT_ONCE] = A
        return outputs


class Workspace:
    """Buffers for mini-batches of exactly n_rows; a step in it allocates no array.

    `take` gathers a mini-batch, `loss_and_grad` runs it forward and backward. Not for two threads.
    """

    def __init__(self, network: Network, n_rows: int):
        self.network = network
        self.n_rows = n_rows
        self._layers = [layer.bind(n_rows, network.dtype) for layer in network.layers]
        self._loss = network.loss.bind(
            n_rows, network.n_outputs, network.dtype, network.layers[-1].activation
        )
        self._buffers: dict[str, np.ndarray] = {}
        self.X = self.y = self.weight = None

    def take(self, X, y, weight, rows: np.ndarray | slice) -> None:
        """Make the rows (n_rows,) of X, y and weight the current mini-batch; a slice is not copied."""
        self.X = self._gather("X", X, rows)
        self.y = self._gather("y", y, rows)
        self.weight = None if weight is None else self._gather("weight", weight, rows)

    def _gather(self, name: str, source, rows):
        if isinstance(source, np.ndarray) and isinstance(rows, slice):
            return source[rows]
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = np.empty((self.n_rows, *source.shape[1:]), source.dtype)
            self._buffers[name] = buffer
        if isinstance(source, np.ndarray):
            # mode="clip" writes straight into `out`; the default goes through a copy.
            return np.take(source, rows, axis=0, out=buffer, mode="clip")
        # CSR: only the mini-batch becomes dense.
        return source[rows].toarray(out=buffer)

    def loss_and_grad(self, params, grad) -> float:
        """Return the loss summed over the mini-batch; write its gradient into grad.

        params and grad are `Network.views` of flat vectors; grad is overwritten.
        """
        self._forward(params)
        return self._backward(params, grad)

    def mean_loss_and_grad(self, params, grad) -> float:
        """As loss_and_grad, but return the mean loss, in scikit-learn's own order of operations.

        L-BFGS magnifies a difference in the last bit over hundreds of iterations.
        """
        self._forward(params)
        mean = self._loss.mean(self._layers[-1].A, self.y, self.weight)
        self._backward(params, grad)
        return mean

    def _forward(self, params) -> None:
        inputs = self.X
        for layer, (W, b) in zip(self._layers, params, strict=True):
            inputs = layer.forward(inputs, W, b)

    def _backward(self, params, grad) -> float:
        layers = self._layers
        last = layers[-1]
        loss_sum = self._loss(last.A, self.y, self.weight, out=last.dA)
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            if layer is not last or not self._loss.to_logits:
                layer.differentiate_activation()
            inputs, d_inputs = (layers[i - 1].A, layers[i - 1].dA) if i else (self.X, None)
            dW, db = grad[i]
            layer.backward(inputs, params[i][0], dW, db, d_inputs)
        return loss_sum


class Workspaces:
    """Workspaces of one thread, by number of rows."""

    def __init__(self, network: Network):
        self.network = network
        self._made: dict[int, Workspace] = {}

    def of(self, n_rows: int) -> Workspace:
        """Return the workspace for mini-batches of n_rows."""
        workspace = self._made.get(n_rows)
        if workspace is None:
            if len(self._made) == _MOST_WORKSPACES:
                self._made.clear()
            workspace = self._made[n_rows] = Workspace(self.network, n_rows)
        return workspace


class GradientSum:
    """Adds up loss and gradient over rows, some thousand at a time, in arrays of its own.

    vector (n_params,): the sum since `begin`, or a vector to go on from. Not for two threads.
    """

    def __init__(self, network: Network, vector: np.ndarray | None = None):
        self.network = network
        self.vector = np.zeros(network.n_params, network.dtype) if vector is None else vector
        self._views = network.views(self.vector)
        self._part: np.ndarray | None = None
        self._part_views: list = []
        self._workspaces = Workspaces(network)
        self.loss_sum = 0.0
        self._is_empty = vector is None

    def begin(self) -> None:
        """Begin a new sum."""
        self.loss_sum = 0.0
        self._is_empty = True

    def add(self, params, X, y, weight, rows: np.ndarray | slice) -> None:
        """Add the rows of X, y and weight (or None); params are `Network.views` of the parameters."""
        first, last = (rows.start, rows.stop) if isinstance(rows, slice) else (0, len(rows))
        at_once = _ROWS_AT_ONCE
        if not isinstance(X, np.ndarray):
            at_once = max(1, min(at_once, _SPARSE_ELEMENTS_AT_ONCE // self.network.n_inputs))
        for begin in range(first, last, at_once):
            end = min(begin + at_once, last)
            workspace = self._workspaces.of(end - begin)
            workspace.take(X, y, weight, slice(begin, end) if isinstance(rows, slice) else rows[begin:end])
            if self._is_empty:
                self.loss_sum += workspace.loss_and_grad(params, self._views)
                self._is_empty = False
                continue
            if self._part is None:
                self._part = np.empty_like(self.vector)
                self._part_views = self.network.views(self._part)
            self.loss_sum += workspace.loss_and_grad(params, self._part_views)
            np.add(self.vector, self._part, out=self.vector)
