"""Dense layers, and layers that describe the shapes of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dasknn import activations, constraints, initializers, regularizers
from dasknn.activations import Activation as Function
from dasknn.layers.layer import Bound, Layer, Weight, flat, shape_of_rows

# --- Dense -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected layer: `activation(X @ W + b)` with kernel W (n_inputs, units) and bias b (units,).

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, dasknn.activations.Activation or None, default=None
        Activation function; None: the outputs are the logits.
    use_bias : bool, default=True
        Whether there is a bias.
    kernel_initializer, bias_initializer : str or Initializer, default="glorot_uniform", "zeros"
        Initial values.
    kernel_regularizer, bias_regularizer : str, Regularizer or None, default=None
        Penalties on the weights.
    activity_regularizer : str, Regularizer or None, default=None
        Penalty on the outputs.
    kernel_constraint, bias_constraint : str, Constraint or None, default=None
        Constraints that hold after each update.
    """

    takes_sparse = True

    units: int
    activation: Any = None
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    _parts: ClassVar[dict[str, Any]] = {
        "activation": activations,
        "kernel_initializer": initializers,
        "bias_initializer": initializers,
        "kernel_regularizer": regularizers,
        "bias_regularizer": regularizers,
        "activity_regularizer": regularizers,
        "kernel_constraint": constraints,
        "bias_constraint": constraints,
    }

    def __post_init__(self):
        super().__post_init__()
        if self.units < 1:
            raise ValueError(f"Expected units to be an integer of at least 1, received {self.units!r}.")
        object.__setattr__(self, "units", int(self.units))

    @property
    def activation_name(self):
        return self.activation.name

    def weights(self, n_inputs):
        kernel = Weight(
            "kernel",
            (n_inputs, self.units),
            self.kernel_initializer,
            True,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        bias = Weight(
            "bias",
            (self.units,),
            _OfKernel(self.bias_initializer, n_inputs, self.units),
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )
        return (kernel, bias) if self.use_bias else (kernel,)

    def n_outputs(self, n_inputs):
        return self.units

    def output_shape(self, shape):
        flat(self, shape)
        return (self.units,)

    def outputs(self, X, *weights):
        A = np.asarray(X @ weights[0])
        if self.use_bias:
            A += weights[1]
        self.activation.forward(A, None)
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundDense(self, n_rows, dtype)


class _OfKernel(NamedTuple):
    """Draw a bias with the fans of its kernel, as scikit-learn does."""

    initializer: Any
    fan_in: int
    fan_out: int

    def draw(self, rng, fan_in, fan_out, shape):
        return self.initializer.draw(rng, self.fan_in, self.fan_out, shape)


class _BoundDense(Bound):
    """Dense with its buffers; the backward pass reuses A."""

    def __init__(self, layer: Dense, n_rows: int, dtype):
        super().__init__(n_rows, layer.units, dtype)
        self.activation: Function = layer.activation
        self.use_bias = layer.use_bias
        self.activity_regularizer = layer.activity_regularizer
        self.scratch = self.activation.scratch(n_rows, layer.units, np.dtype(dtype))

    def forward(self, X, weights, rng):
        np.dot(X, weights[0], out=self.A)
        if self.use_bias:
            np.add(self.A, weights[1], out=self.A)
        self.activation.forward(self.A, self.scratch)
        return self.A

    def differentiate_activation(self):
        self.activation.backward(self.A, self.dA, self.scratch)

    def backward(self, X, weights, grads, dX):
        np.dot(X.T, self.dA, out=grads[0])
        if self.use_bias:
            np.add.reduce(self.dA, axis=0, out=grads[1])
        if dX is not None:
            np.dot(self.dA, weights[0].T, out=dX)


# --- shapes ------------------------------------------------------------------------------------------


class _Shape(Layer):
    """A layer that describes shapes only."""

    changes_numbers = False

    def outputs(self, X, *weights):
        return X

    def bind(self, n_rows, n_inputs, dtype):
        raise TypeError(f"{type(self).__name__} changes shapes only, and rows inside a network are flat.")


@dataclass(frozen=True)
class Flatten(_Shape):
    """Reshape rows of any shape to one dimension.

    Parameters
    ----------
    data_format : str or None, default=None
        For compatibility with Keras; ignored.
    """

    data_format: str | None = None

    def output_shape(self, shape):
        return (prod(shape),)


@dataclass(frozen=True)
class Input(_Shape):
    """The shape of a row, as the first layer of a model.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of a row, such as `(10,)`.
    batch_size : int or None, default=None
        For compatibility with Keras; ignored.
    batch_shape : tuple or None, default=None
        `(batch_size, *shape)`, in place of both.
    dtype : None, "float32", "int32" or "int64", default=None
        For compatibility with Keras: codes, too, are in the dtype of the model.
    """

    shape: Any = None
    batch_size: int | None = None
    batch_shape: Any = field(default=None, kw_only=True)

    def __post_init__(self):
        given = (self.shape, self.input_shape, self.input_dim)
        shape = next((way for way in given if way is not None), None)
        if self.batch_shape is not None:
            for name, value in (("shape", shape), ("batch_size", self.batch_size)):
                if value is not None:
                    raise ValueError(
                        f"Input expects {name} or batch_shape, received {name}={value} and "
                        f"batch_shape={self.batch_shape}. Omit one of them."
                    )
            batch_size, *shape = self.batch_shape
            object.__setattr__(self, "batch_size", batch_size)
            object.__setattr__(self, "batch_shape", None)
        if shape is None:
            raise ValueError("Input expects the shape of a row, such as Input(shape=(10,)); received none.")
        shape = shape_of_rows(shape)
        if self.input_shape is not None and shape_of_rows(self.input_shape) != shape:
            raise ValueError(
                f"Input expects one shape of a row, received {shape} and input_shape={self.input_shape}. "
                "Omit input_shape."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "input_shape", shape)
        if self.dtype in ("int32", "int64"):
            object.__setattr__(self, "dtype", None)
        super().__post_init__()

    def get_config(self):
        return {
            "batch_shape": [self.batch_size, *self.shape],
            "dtype": "float32",
            "sparse": False,
            "ragged": False,
            "name": self.name,
        }


InputLayer = Input
