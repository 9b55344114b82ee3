"""Layers that apply an activation function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn import activations
from dasknn.activations import Activation as Function
from dasknn.layers.layer import Bound, Layer, expect_at_least_0, flat


class _Elementwise(Layer):
    """Base class of layers without weights that apply an activation function."""

    @property
    def function(self) -> Function:
        """The activation function."""
        raise NotImplementedError

    @property
    def activation_name(self):
        return self.function.name

    def output_shape(self, shape):
        if "softmax" in self.function.name:
            flat(self, shape)
        return shape

    def outputs(self, X, *weights):
        A = np.array(X)
        self.function.forward(A, None)
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundFunction(self.function, n_rows, n_inputs, dtype)


class _BoundFunction(Bound):
    def __init__(self, function: Function, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.function = function
        self.scratch = function.scratch(n_rows, n_inputs, np.dtype(dtype))

    def forward(self, X, weights, rng):
        np.copyto(self.A, X)
        self.function.forward(self.A, self.scratch)
        return self.A

    def differentiate_activation(self):
        self.function.backward(self.A, self.dA, self.scratch)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.copyto(dX, self.dA)


@dataclass(frozen=True)
class Activation(_Elementwise):
    """Apply an activation function.

    Parameters
    ----------
    activation : str or dasknn.activations.Activation
        The function, or its name.
    """

    activation: Any
    _parts: ClassVar[dict[str, Any]] = {"activation": activations}

    @property
    def function(self):
        return self.activation


@dataclass(frozen=True)
class ReLU(_Elementwise):
    """`max(0, X)`, or `dasknn.activations.relu` with these settings.

    Parameters
    ----------
    max_value : float or None, default=None
        Largest output; None: no limit.
    negative_slope : float, default=0.0
        Slope below the threshold.
    threshold : float, default=0.0
        Inputs above it are passed on; others become `negative_slope * (X - threshold)`.
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        expect_at_least_0(self, "max_value", "negative_slope", "threshold")

    @property
    def function(self):
        return activations.relu(self.max_value, self.negative_slope, self.threshold)


@dataclass(frozen=True)
class LeakyReLU(_Elementwise):
    """`X` where X > 0, `negative_slope * X` elsewhere (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float, default=0.3
        Slope below 0. The function `dasknn.activations.leaky_relu` has another default, 0.2, as in Keras.
    """

    negative_slope: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        expect_at_least_0(self, "negative_slope")

    @property
    def function(self):
        return activations.leaky_relu(self.negative_slope)


@dataclass(frozen=True)
class ELU(_Elementwise):
    """`X` where X > 0, `alpha * (exp(X) - 1)` elsewhere (Clevert et al. 2016).

    Parameters
    ----------
    alpha : float, default=1.0
        Minus the limit for large negative inputs.
    """

    alpha: float = 1.0

    @property
    def function(self):
        return activations.elu(self.alpha)


@dataclass(frozen=True)
class Softmax(_Elementwise):
    """`exp(X) / sum(exp(X))` of each row.

    Parameters
    ----------
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    """

    axis: int | list[int] = -1

    @property
    def function(self):
        return activations.get("softmax")
