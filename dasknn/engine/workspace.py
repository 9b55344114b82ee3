"""The buffers in which mini-batches go forward and backward through a network."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine.network import ROWS_AT_ONCE, Network, Views
from dasknn.layers import Bound

# Mini-batches have few sizes; a shorter one at the end of each shard adds some more.
_MOST_WORKSPACES = 8
# CSR rows become dense, so fewer go through at a time if they are wide.
_SPARSE_ELEMENTS_AT_ONCE = 2**23


class Watch(NamedTuple):
    """Called when the gradients of a layer, and of all after it, are there."""

    layer: int
    reached: Callable[[], None]


class Workspace:
    """Buffers for mini-batches of exactly n_rows; a step in it allocates few arrays, or none.

    `take` gathers a mini-batch, `loss_and_grad` runs it forward and backward. One thread may use it.

    Parameters
    ----------
    network : Network
    n_rows : int
    metrics : MetricSet or None
        `metric_sums` are its sums over the mini-batch.
    """

    def __init__(self, network: Network, n_rows: int, metrics: Any = None):
        self.network = network
        self.n_rows = n_rows
        self.metric_sums: Any = 0.0
        self._metrics = metrics
        widths = network.widths[:-1]
        self._layers: list[Any] = [
            layer.bind(n_rows, width, network.dtype)
            for layer, width in zip(network.layers, widths, strict=True)
        ]
        last = network.layers[-1]
        name = last.activation_name if self._layers[-1].activity_regularizer is None else ""
        self._loss = network.loss.bind(n_rows, network.n_outputs, network.dtype, name)
        self._frozen = network.frozen
        self._buffers: dict[str, np.ndarray] = {}
        self.X = self.y = self.weight = None

    def take(self, X: Any, y: np.ndarray, weight: np.ndarray | None, rows: np.ndarray | slice) -> None:
        """Make the rows (n_rows,) of X, y and weight the current mini-batch; a slice is not copied."""
        self.X = self._gather("X", X, rows)
        self.y = self._gather("y", y, rows)
        self.weight = None if weight is None else self._gather("weight", weight, rows)

    def _gather(self, name: str, source: Any, rows: Any) -> Any:
        if isinstance(source, np.ndarray) and isinstance(rows, slice):
            return source[rows]
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = np.empty((self.n_rows, *source.shape[1:]), source.dtype)
            self._buffers[name] = buffer
        if isinstance(source, np.ndarray):
            # mode="clip" writes directly into `out`; the default makes a copy first.
            return np.take(source, rows, axis=0, out=buffer, mode="clip")
        # CSR rows: only the mini-batch becomes dense.
        return source[rows].toarray(out=buffer)

    def loss_and_grad(
        self,
        params: Views,
        grad: Views,
        rng: np.random.Generator | None = None,
        watch: Watch | None = None,
    ) -> float:
        """Return the loss summed over the mini-batch; write its gradient into grad.

        params and grad are `Network.views` of flat vectors. rng draws noise.
        """
        self._forward(params, rng)
        return self._backward(params, grad, watch)

    def mean_loss_and_grad(self, params: Views, grad: Views) -> float:
        """Do as loss_and_grad, but return the mean loss, with scikit-learn's order of operations.

        Over hundreds of iterations, L-BFGS magnifies a difference in the last bit.
        """
        self._forward(params, None)
        mean = self._loss.mean(self._layers[-1].A, self.y, self.weight)
        self._backward(params, grad)
        return mean

    def in_step(
        self, params: Views, grad: Views, rng: np.random.Generator | None = None
    ) -> Generator[np.ndarray, np.ndarray, float]:
        """Do as loss_and_grad, together with the workspaces of other replicas.

        This generator yields sums over its rows, flat float64, and receives the sums over the rows of all
        replicas; it returns the summed loss.
        """
        inputs = self.X
        for layer, weights in zip(self._layers, params, strict=True):
            if getattr(layer, "synchronized", False):
                totals = yield layer.sums(inputs)
                inputs = layer.forward_by(totals, inputs, weights)
            else:
                inputs = layer.forward(inputs, weights, rng)
        self._note_metrics()
        loss_sum = self._loss(inputs, self.y, self.weight, out=self._layers[-1].dA)
        for i in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[i]
            loss_sum += self._differentiate(layer)
            inputs, d_inputs = (self._layers[i - 1].A, self._layers[i - 1].dA) if i else (self.X, None)
            if getattr(layer, "synchronized", False):
                totals = yield layer.backward_sums(params[i], grad[i])
                if d_inputs is not None:
                    layer.backward_by(totals, d_inputs)
            else:
                layer.backward(inputs, params[i], grad[i], d_inputs)
        self._drift(params, grad)
        return loss_sum

    def _forward(self, params: Views, rng: np.random.Generator | None) -> None:
        inputs = self.X
        for layer, weights in zip(self._layers, params, strict=True):
            inputs = layer.forward(inputs, weights, rng)
        self._note_metrics()

    def _note_metrics(self) -> None:
        if self._metrics is not None:
            self.metric_sums = self._metrics.sums(self.y, self._layers[-1].A, self.weight)

    def _backward(self, params: Views, grad: Views, watch: Watch | None = None) -> float:
        layers = self._layers
        loss_sum = self._loss(layers[-1].A, self.y, self.weight, out=layers[-1].dA)
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            loss_sum += self._differentiate(layer)
            inputs, d_inputs = (layers[i - 1].A, layers[i - 1].dA) if i else (self.X, None)
            layer.backward(inputs, params[i], grad[i], d_inputs)
            if watch is not None and watch.layer == i:
                watch.reached()
        if self._frozen:
            self._drift(params, grad)
        return loss_sum

    def _differentiate(self, layer: Bound) -> float:
        """Turn a layer's dA into the derivative by its logits; return the penalty on its outputs."""
        penalty = 0.0
        if layer.activity_regularizer is not None:
            # A mean over rows, as in Keras, whatever the divisor of the loss.
            share = self.network.loss.divisor(self.n_rows, self.weight) / self.n_rows
            penalty = share * layer.activity_regularizer.penalty(layer.A)
            layer.activity_regularizer.add_gradient(layer.A, layer.dA, share)
        if layer is not self._layers[-1] or not self._loss.to_logits:
            layer.differentiate_activation()
        return penalty

    def _drift(self, params: Views, grad: Views) -> None:
        """Write into grad by how much parameters that are not learned decrease: often 0."""
        for layer_number, weight_number in self._frozen:
            grad[layer_number][weight_number][...] = 0
        divisor = self.network.loss.divisor(self.n_rows, self.weight)
        for layer, weights, of_weights in zip(self._layers, params, grad, strict=True):
            layer.drift(weights, of_weights, divisor)


class Workspaces:
    """The workspaces of one thread, by number of rows."""

    def __init__(self, network: Network, metrics: Any = None):
        self.network = network
        self._metrics = metrics
        self._made: dict[int, Workspace] = {}

    def of(self, n_rows: int) -> Workspace:
        """Return the workspace for mini-batches of n_rows."""
        workspace = self._made.get(n_rows)
        if workspace is None:
            if len(self._made) == _MOST_WORKSPACES:
                self._made.clear()
            workspace = self._made[n_rows] = Workspace(self.network, n_rows, self._metrics)
        return workspace


def rows_at_once(network: Network, X: Any) -> int:
    """Return how many rows of X, dense or CSR, go through a network at a time."""
    if isinstance(X, np.ndarray):
        return ROWS_AT_ONCE
    return max(1, min(ROWS_AT_ONCE, _SPARSE_ELEMENTS_AT_ONCE // network.n_inputs))


class GradientSum:
    """Adds up loss, gradient and sums of metrics over rows, some thousand at a time, in arrays of its own.

    One thread may use it.

    Parameters
    ----------
    network : Network
    params : ndarray (n_params,)
        The parameters, which may change between two sums.
    metrics : MetricSet or None
    vector, loss_sum, metric_sums
        Sums to continue from, with a gradient (n_params,) that is overwritten; None for a new sum. The
        attributes of these names are the sums since `begin`.
    """

    def __init__(
        self,
        network: Network,
        params: np.ndarray,
        metrics: Any = None,
        vector: np.ndarray | None = None,
        loss_sum: float = 0.0,
        metric_sums: Any = 0.0,
    ):
        self.network = network
        self._params = network.views(params)
        self.vector = np.zeros(network.n_params, network.dtype) if vector is None else vector
        self._views = network.views(self.vector)
        self._part: np.ndarray | None = None
        self._part_views: list = []
        self._workspaces = Workspaces(network, metrics)
        self.loss_sum = loss_sum
        self.metric_sums = metric_sums
        self._is_empty = vector is None

    def begin(self) -> None:
        """Begin a new sum."""
        self.loss_sum = 0.0
        self.metric_sums = 0.0
        self._is_empty = True

    def add(
        self,
        X: Any,
        y: np.ndarray,
        weight: np.ndarray | None,
        rows: np.ndarray | slice,
        rng: np.random.Generator | None = None,
        watch: Watch | None = None,
    ) -> float:
        """Add the rows of X (dense or CSR), y and weight; return the divisor of their loss.

        watch: only for the first rows of a sum. It may not be called if these are many.
        """
        first, last = (rows.start, rows.stop) if isinstance(rows, slice) else (0, len(rows))
        at_once = rows_at_once(self.network, X)
        for begin in range(first, last, at_once):
            end = min(begin + at_once, last)
            workspace = self._workspaces.of(end - begin)
            workspace.take(X, y, weight, slice(begin, end) if isinstance(rows, slice) else rows[begin:end])
            is_whole = end - begin == last - first
            views = self._next_views()
            self.loss_sum += float(
                workspace.loss_and_grad(self._params, views, rng, watch if is_whole else None)
            )
            self.metric_sums = self.metric_sums + workspace.metric_sums
            self._add_part()
        return float(self.network.loss.divisor(last - first, None if weight is None else weight[rows]))

    def in_step(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        rng: np.random.Generator | None = None,
    ) -> Generator[np.ndarray, np.ndarray, None]:
        """Replace the sum by that over all rows, in step with other replicas: see `Workspace.in_step`."""
        self.begin()
        workspace = self._workspaces.of(len(X))
        workspace.take(X, y, weight, slice(0, len(X)))
        self.loss_sum = yield from workspace.in_step(self._params, self._views, rng)
        self.metric_sums = workspace.metric_sums
        self._is_empty = False

    def _next_views(self) -> list:
        """Return where to write the next gradient: the first one is the sum itself."""
        if self._is_empty:
            return self._views
        if self._part is None:
            self._part = np.empty_like(self.vector)
            self._part_views = self.network.views(self._part)
        return self._part_views

    def _add_part(self) -> None:
        if self._is_empty:
            self._is_empty = False
        else:
            assert self._part is not None
            np.add(self.vector, self._part, out=self.vector)


def loss_and_grad(
    network: Network,
    params: np.ndarray,
    X: Any,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[float, np.ndarray]:
    """Return (loss_sum, gradient (n_params,)), both summed over the rows, without penalties.

    Parameters
    ----------
    network : Network
    params : ndarray (n_params,)
    X : ndarray or CSR (n, n_inputs)
    y : ndarray
        In the form that the loss takes.
    weight : ndarray (n,) or None
    rng : Generator or None
        Draws noise.

    Raises
    ------
    ValueError
        The loss cannot take these targets.
    """
    network.loss.check_targets(y, network.n_outputs)
    total = GradientSum(network, params)
    total.add(X, y, weight, slice(0, X.shape[0]), rng)
    return total.loss_sum, total.vector
