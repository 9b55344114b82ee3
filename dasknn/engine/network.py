"""A stack of layers over one flat vector of parameters.

    params = [ W of layer 0 | W of layer 1 | ... | b of layer 0 | b of layer 1 | ... | what is not learned ]

Kernels come first, so that the parameters which the estimators regularize are one slice; moving averages and
frozen weights come last. Their "gradient" is the amount by which they decrease in a step, so that one vector
holds everything. A `Network` is only settings: it can be pickled, shared and hashed by its content. A
`Workspace` holds the buffers of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from dasknn.engine.updater import Variable
from dasknn.layers import Layer, MemberHeads, Weight

#: Rows that go through the network at a time, which bounds the memory of hidden layers.
ROWS_AT_ONCE = 8_192
#: The weights of each layer as views of one vector, see `Network.views`.
Views = Sequence[tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Network:
    """Layers from n_inputs to the outputs, the loss that they are trained on, and the dtype of everything.

    Parameters
    ----------
    n_inputs : int
    layers : tuple of Layer
    loss : Loss or None
        None for a network that only predicts.
    dtype : str, default="float64"
    """

    n_inputs: int
    layers: tuple[Layer, ...]
    loss: Any
    dtype: str = "float64"

    @cached_property
    def widths(self) -> list[int]:
        """Width of the inputs, then of the outputs of each layer."""
        widths = [self.n_inputs]
        for layer in self.layers:
            widths.append(layer.n_outputs(widths[-1]))
        return widths

    @cached_property
    def weights(self) -> list[tuple[Weight, ...]]:
        """The weights of each layer, in its own order."""
        return [layer.weights(width) for layer, width in zip(self.layers, self.widths[:-1], strict=True)]

    @property
    def shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        """Shapes of the weights, by layer."""
        return [tuple(weight.shape for weight in weights) for weights in self.weights]

    @cached_property
    def variables(self) -> list[Variable]:
        """All weights in the order of the parameter vector."""
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
                        weight.rate_factor,
                        weight.decay_factor,
                        weight.is_table,
                    )
                )
        begin, placed = 0, []
        for variable in (variable for group in found for variable in group):
            placed.append(replace(variable, begin=begin))
            begin = placed[-1].span.stop
        return placed

    @cached_property
    def n_weights(self) -> int:
        """Number of parameters in kernels, which come first and which the estimators' penalty applies to."""
        return sum(prod(v.shape) for v in self.variables if v.is_learned and v.name == "kernel")

    @cached_property
    def n_multiplications(self) -> int:
        """How often a row is multiplied by an entry of a kernel on its way forward: the work of a step."""
        kernels = (v for v in self.variables if v.is_learned and v.name == "kernel")
        return sum(self.layers[v.layer].uses_of_kernel * prod(v.shape) for v in kernels)

    @cached_property
    def n_params(self) -> int:
        """Length of the parameter vector."""
        return max((variable.span.stop for variable in self.variables), default=0)

    @cached_property
    def n_learned(self) -> int:
        """Number of parameters that are learned; those that are not follow them."""
        return max((variable.span.stop for variable in self.variables if variable.is_learned), default=0)

    @cached_property
    def lengths_of_sums(self) -> list[int]:
        """Lengths of the vectors that `Workspace.in_step` yields, in order: forward, then backward."""
        layers = zip(self.layers, self.widths[:-1], strict=True)
        forward = [1 + 2 * width for layer, width in layers if layer.synchronized and layer.trainable]
        return forward + forward[::-1]

    def penalty(self, params: np.ndarray) -> float:
        """Return the penalty of the layers' regularizers, which is added to the mean loss."""
        penalized = [v for v in self.variables if v.is_learned and v.regularizer is not None]
        return sum(v.regularizer.penalty(v.view(params)) for v in penalized)

    @property
    def n_outputs(self) -> int:
        """Width of the last layer."""
        return self.widths[-1]

    @cached_property
    def is_noisy(self) -> bool:
        """Whether layers draw random numbers in training."""
        return any(layer.is_noisy for layer in self.layers)

    @cached_property
    def is_synchronized(self) -> bool:
        """Whether a layer needs sums over the mini-batches of all replicas."""
        return any(layer.synchronized and layer.trainable for layer in self.layers)

    @cached_property
    def _places(self) -> list[list[Variable]]:
        """Variables by layer, in the order of each layer's weights."""
        by_name = {(variable.layer, variable.name): variable for variable in self.variables}
        return [
            [by_name[number, weight.name] for weight in weights]
            for number, weights in enumerate(self.weights)
        ]

    @cached_property
    def frozen(self) -> list[tuple[int, int]]:
        """Weights that are not learned: (number of the layer, number among its weights)."""
        return [
            (number, i)
            for number, places in enumerate(self._places)
            for i, variable in enumerate(places)
            if not variable.is_learned
        ]

    def views(self, vector: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Return the weights of each layer as views of a vector (n_params,)."""
        return [tuple(variable.view(vector) for variable in places) for places in self._places]

    def initial_params(self, rng: Any) -> np.ndarray:
        """Draw the parameters (n_params,) layer by layer, kernels before biases, in float64; then cast them.

        rng: a numpy Generator or RandomState.
        """
        params = np.empty(self.n_params, self.dtype)
        for weights, views in zip(self.weights, self.views(params), strict=True):
            for weight, view in zip(weights, views, strict=True):
                view[...] = weight.draw(rng)
        return params

    @cached_property
    def _penalizes_outputs(self) -> bool:
        return any(getattr(layer, "activity_regularizer", None) is not None for layer in self.layers)

    def activity_penalty(self, params: np.ndarray, X: Any) -> float:
        """Return the penalties on the outputs of layers for X (n, n_inputs), summed over rows."""
        found = 0.0
        if self._penalizes_outputs:
            A = self._inputs(X)
            for layer, weights in zip(self.layers, self.views(params), strict=True):
                A = layer.outputs(A, *weights)
                if (regularizer := getattr(layer, "activity_regularizer", None)) is not None:
                    found += regularizer.penalty(A)
        return found

    def _inputs(self, X: Any) -> Any:
        """Return rows X, dense or CSR, in the form that the first layer takes."""
        return X if isinstance(X, np.ndarray) or self.layers[0].takes_sparse else X.toarray()

    @cached_property
    def n_members(self) -> int:
        """Number of members that share this network; 1 for most."""
        last = self.layers[-1]
        return last.members if isinstance(last, MemberHeads) else 1

    def with_members(self, params: np.ndarray, chosen: Sequence[int]) -> tuple[Network, np.ndarray]:
        """Return the network of some of the members that share this one, and its parameters.

        chosen: their numbers, from 0.
        """
        numbers = np.asarray(chosen, np.intp)
        layers = tuple(
            replace(layer, members=len(numbers)) if hasattr(layer, "members") else layer  # type: ignore[call-arg]
            for layer in self.layers
        )
        loss = replace(self.loss, members=len(numbers)) if hasattr(self.loss, "members") else self.loss
        network = replace(self, layers=layers, loss=loss)
        found = np.empty(network.n_params, params.dtype)
        for weights, of_all, own in zip(self.weights, self.views(params), network.views(found), strict=True):
            for weight, source, view in zip(weights, of_all, own, strict=True):
                view[...] = source[numbers] if weight.by_member else source
        return network, found

    def predict(self, params: np.ndarray, X: Any) -> np.ndarray:
        """Return the outputs (n, n_outputs) for X (n, n_inputs), dense or CSR: the mean over members."""
        outputs = np.empty((X.shape[0], self.n_outputs), self.dtype)
        for rows, A, weights in self._hidden(params, X):
            outputs[rows] = self.layers[-1].outputs(A, *weights)
        return outputs

    def member_outputs(self, params: np.ndarray, X: Any) -> np.ndarray:
        """Return the outputs of each member (n, n_members, n_outputs) for X (n, n_inputs)."""
        last = self.layers[-1]
        if not isinstance(last, MemberHeads):
            return self.predict(params, X)[:, np.newaxis]
        outputs = np.empty((X.shape[0], self.n_members, self.n_outputs), self.dtype)
        for rows, A, weights in self._hidden(params, X):
            outputs[rows] = last.member_outputs(A, *weights)
        return outputs

    def _hidden(
        self, params: np.ndarray, X: Any
    ) -> Iterator[tuple[slice, np.ndarray, tuple[np.ndarray, ...]]]:
        """Yield some rows after others, with the inputs of the last layer for them, and its weights."""
        views = self.views(params)
        at_once = max(1, ROWS_AT_ONCE // self.n_members)
        for begin in range(0, X.shape[0], at_once):
            rows = slice(begin, begin + at_once)
            A = self._inputs(X[rows])
            for layer, weights in zip(self.layers[:-1], views[:-1], strict=True):
                A = layer.outputs(A, *weights)
            yield rows, A, views[-1]
