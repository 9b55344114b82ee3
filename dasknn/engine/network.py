"""A stack of layers over one flat vector of parameters.

    params = [ W of layer 0 | W of layer 1 | ... | b of layer 0 | b of layer 1 | ... | what is not learned ]

Kernels come first, so that what the estimators regularize is one slice; moving averages and frozen weights
come
last. Of these a "gradient" says by how much they fall in a step, so that one vector carries all. `Network`
is settings only: it can be
pickled, shared and hashed by what it says. A `Workspace` holds the buffers of one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from dasknn.engine.updater import Variable
from dasknn.layers import Layer, Weight

# Rows that go through the network at a time: bounds the memory of hidden layers.
ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class Network:
    """Layers from n_inputs to the outputs, the loss they are trained on, and the dtype of it all.

    loss: None for one that only predicts.
    """

    n_inputs: int
    layers: tuple[Layer, ...]
    loss: Any
    dtype: str = "float64"

    @cached_property
    def widths(self) -> list[int]:
        """Width of the inputs, and of the outputs of each layer."""
        widths = [self.n_inputs]
        for layer in self.layers:
            widths.append(layer.n_outputs(widths[-1]))
        return widths

    @cached_property
    def weights(self) -> list[tuple[Weight, ...]]:
        """What each layer keeps in the vector of parameters."""
        return [layer.weights(width) for layer, width in zip(self.layers, self.widths[:-1], strict=True)]

    @property
    def shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        """Shapes of the weights, layer by layer."""
        return [tuple(weight.shape for weight in weights) for weights in self.weights]

    @cached_property
    def variables(self) -> list[Variable]:
        """What the vector of parameters holds, in its order."""
        found: list[list[Variable]] = [[], [], []]
        for number, (layer, weights) in enumerate(zip(self.layers, self.weights, strict=True)):
            for weight in weights:
                is_learned = layer.trainable and weight.is_learned
                group = (0 if weight.is_kernel else 1) if is_learned else 2
                found[group].append(
                    Variable(
                        number,
                        weight.name,
                        0,
                        weight.shape,
                        is_learned,
                        weight.regularizer,
                        weight.constraint,
                    )
                )
        begin, placed = 0, []
        for variable in (variable for group in found for variable in group):
            placed.append(replace(variable, begin=begin))
            begin = placed[-1].span.stop
        return placed

    @cached_property
    def n_weights(self) -> int:
        """Number of parameters that are kernels: they come first, and the estimators' penalty takes them."""
        return sum(prod(v.shape) for v in self.variables if v.is_learned and v.name == "kernel")

    @cached_property
    def n_params(self) -> int:
        """Length of the parameter vector."""
        return max((variable.span.stop for variable in self.variables), default=0)

    @cached_property
    def n_learned(self) -> int:
        """Number of parameters that are learned: what is not comes behind them."""
        return max((variable.span.stop for variable in self.variables if variable.is_learned), default=0)

    @cached_property
    def lengths_of_sums(self) -> list[int]:
        """Lengths of what `Workspace.in_step` yields, one after the other: forward, and back."""
        layers = zip(self.layers, self.widths[:-1], strict=True)
        forward = [1 + 2 * width for layer, width in layers if layer.synchronized and layer.trainable]
        return forward + forward[::-1]

    def penalty(self, params: np.ndarray) -> float:
        """Return what the layers' regularizers add to the mean loss."""
        penalized = [v for v in self.variables if v.is_learned and v.regularizer is not None]
        return sum(v.regularizer.penalty(v.view(params)) for v in penalized)

    @property
    def n_outputs(self) -> int:
        """Width of the last layer."""
        return self.widths[-1]

    @cached_property
    def is_noisy(self) -> bool:
        """Whether training draws random numbers in its layers."""
        return any(layer.is_noisy for layer in self.layers)

    @cached_property
    def is_synchronized(self) -> bool:
        """Whether a layer needs sums over the mini-batches of all replicas."""
        return any(layer.synchronized and layer.trainable for layer in self.layers)

    @cached_property
    def _places(self) -> list[list[Variable]]:
        """Variables layer by layer, in the order of each layer's weights."""
        by_name = {(variable.layer, variable.name): variable for variable in self.variables}
        return [
            [by_name[number, weight.name] for weight in weights]
            for number, weights in enumerate(self.weights)
        ]

    @cached_property
    def frozen(self) -> list[tuple[int, int]]:
        """Which weights are not learned: number of the layer, number among its weights."""
        return [
            (number, i)
            for number, places in enumerate(self._places)
            for i, variable in enumerate(places)
            if not variable.is_learned
        ]

    def views(self, vector: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Return views of a layer's weights into a vector (n_params,), layer by layer."""
        return [tuple(variable.view(vector) for variable in places) for places in self._places]

    def initial_params(self, rng) -> np.ndarray:
        """Draw the parameters layer by layer, kernels before biases, in float64; cast to the dtype."""
        params = np.empty(self.n_params, self.dtype)
        for weights, views in zip(self.weights, self.views(params), strict=True):
            for weight, view in zip(weights, views, strict=True):
                view[...] = weight.draw(rng)
        return params

    @cached_property
    def _penalizes_outputs(self) -> bool:
        return any(getattr(layer, "activity_regularizer", None) is not None for layer in self.layers)

    def activity_penalty(self, params, X) -> float:
        """Return the penalties on what layers put out for X (n, n_inputs), summed over rows."""
        found = 0.0
        if self._penalizes_outputs:
            A = self._inputs(X)
            for layer, weights in zip(self.layers, self.views(params), strict=True):
                A = layer.outputs(A, *weights)
                if (regularizer := getattr(layer, "activity_regularizer", None)) is not None:
                    found += regularizer.penalty(A)
        return found

    def _inputs(self, X):
        """Return rows X, dense or CSR, as the first layer takes them."""
        return X if isinstance(X, np.ndarray) or self.layers[0].takes_sparse else X.toarray()

    def predict(self, params, X) -> np.ndarray:
        """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR."""
        views = self.views(params)
        outputs = np.empty((X.shape[0], self.n_outputs), self.dtype)
        for begin in range(0, X.shape[0], ROWS_AT_ONCE):
            A = self._inputs(X[begin : begin + ROWS_AT_ONCE])
            for layer, weights in zip(self.layers, views, strict=True):
                A = layer.outputs(A, *weights)
            outputs[begin : begin + ROWS_AT_ONCE] = A
        return outputs
