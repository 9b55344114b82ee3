"""What a network is made of.

A layer is frozen settings. `weights` says what it keeps in the parameter vector, `outputs` applies it to new
data, and `bind` gives it the buffers for mini-batches of one size, in which it goes forward and back:

    A = bound.forward(X, weights, rng)      A (n, units); rng draws masks and noise, None if there are none
    bound.differentiate_activation()        bound.dA becomes the derivative by the logits; A is spent
    bound.backward(X, weights, grads, dX)   from bound.dA to the gradients of the weights and, unless None, dX

Names, arguments, their order and defaults are Keras's. Rows are flat: `Flatten` and `Input` say what shape
they have outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dasknn import activations, constraints, initializers, regularizers
from dasknn.activations import Activation as Function
from dasknn.saving.serialization import check_kinds, check_own_kinds


class Weight(NamedTuple):
    """An array that a layer keeps in the parameter vector.

    is_kernel: the estimators' penalty takes it. is_learned: whether steps of the optimizer change it, where
    the layer is trainable; if not, the layer itself says how it drifts.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Any
    is_kernel: bool = False
    is_learned: bool = True
    regularizer: Any = None
    constraint: Any = None

    def draw(self, rng) -> np.ndarray:
        """Return initial values, float64."""
        fan_in, fan_out = self.shape if len(self.shape) == 2 else (self.shape[0], self.shape[0])
        return self.initializer.draw(rng, fan_in, fan_out, self.shape)


@dataclass(frozen=True, kw_only=True)
class Layer(ABC):
    """What all layers have in common.

    input_shape, input_dim: shape of a row, on the first layer of a model. trainable: whether training changes
    its weights. name: given by the model if None.
    """

    input_shape: tuple[int, ...] | None = None
    input_dim: int | None = None
    name: str | None = None
    trainable: bool = True
    dtype: Any = None

    #: Settings that `get_config` writes with the `serialize` of these modules.
    _parts: ClassVar[dict[str, Any]] = {}
    #: Whether `outputs` takes sparse rows.
    takes_sparse: ClassVar[bool] = False
    #: Whether training draws random numbers.
    is_noisy: ClassVar[bool] = False
    #: False: it says what shape rows have, and a network of flat rows does without it.
    changes_numbers: ClassVar[bool] = True

    def __post_init__(self):
        check_own_kinds(self)
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", _shape(self.input_shape))
        if self.input_dim is not None:
            shape = _shape(self.input_dim)
            if self.input_shape not in (None, shape):
                raise ValueError(
                    f"{type(self).__name__} expects input_shape or input_dim, received {self.input_shape} "
                    f"and {self.input_dim}. Leave one of them out."
                )
            object.__setattr__(self, "input_shape", shape)
        if self.dtype not in (None, "float32"):
            raise ValueError(
                f"Expected dtype None or 'float32', received {self.dtype!r}: layers have no own."
            )
        object.__setattr__(self, "dtype", None)
        for name, module in self._parts.items():
            object.__setattr__(self, name, module.get(getattr(self, name)))

    @property
    def synchronized(self) -> bool:
        """Whether it needs sums over the mini-batches of all replicas."""
        return False

    def weights(self, n_inputs: int) -> tuple[Weight, ...]:
        """Return what it keeps in the parameter vector, for rows of n_inputs."""
        return ()

    def n_outputs(self, n_inputs: int) -> int:
        """Return the width of its outputs."""
        return n_inputs

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a row of outputs, for rows of that shape. ValueError: rows it cannot take."""
        return shape

    @property
    def activation_name(self) -> str:
        """Name of the function that its outputs went through last."""
        return "identity"

    @abstractmethod
    def outputs(self, X, *weights) -> np.ndarray:
        """Return the outputs for new data X (n, n_inputs), in a new array."""

    @abstractmethod
    def bind(self, n_rows: int, n_inputs: int, dtype) -> Bound:
        """Return the layer with the buffers for mini-batches of n_rows."""

    def get_config(self) -> dict[str, Any]:
        """Return the settings, as Keras writes them."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": "float32"}
        for setting in fields(self):
            if setting.name in ("input_shape", "input_dim", "name", "trainable", "dtype"):
                continue
            value = getattr(self, setting.name)
            module = self._parts.get(setting.name)
            if module is activations:
                value = activations.serialize(value)
            elif module is not None:
                value = None if value is None else module.serialize(value)
            config[setting.name] = value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Return the layer that `get_config` described. ValueError: settings that it does not know."""
        config = dict(config)
        if (shape := config.pop("batch_input_shape", None)) is not None:
            config["input_shape"] = tuple(shape[1:])
        kind = config.pop("dtype", None)
        if isinstance(kind, dict):
            kind = kind.get("config", {}).get("name")
        known = {setting.name for setting in fields(cls)}
        for name, default in _ONLY_KERAS.items():
            if name not in known and name in config and config.pop(name) not in default:
                raise ValueError(f"{cls.__name__} of dasknn knows no {name}. Leave it out.")
        if strange := sorted(set(config) - known):
            raise ValueError(
                f"{cls.__name__} expects settings among {sorted(known)}, received {', '.join(strange)}."
            )
        check_kinds(cls, config)
        return cls(dtype=kind, **config)


# Settings that Keras writes and that mean nothing here, with the values for which that is true.
_ONLY_KERAS: dict[str, tuple] = {
    "quantization_config": (None,),
    "lora_rank": (None,),
    "lora_alpha": (None,),
    "noise_shape": (None,),
    "renorm": (False,),
    "renorm_clipping": (None,),
    "renorm_momentum": (0.99,),
    "rms_scaling": (False,),
    "data_format": ("channels_last", None),
    "sparse": (False, None),
    "ragged": (False, None),
    "optional": (False, None),
    "gpus": (None,),
}


def _shape(shape) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if not shape or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
        raise ValueError(
            f"Expected the shape of a row, such as (10,) for rows of 10 numbers, received {shape}. The "
            "number of rows does not belong to it."
        )
    return tuple(int(n) for n in shape)


def _flat(layer: Layer, shape: tuple[int, ...]) -> int:
    if len(shape) != 1:
        raise ValueError(
            f"{type(layer).__name__} expects rows of one dimension, received rows of shape {shape}. "
            "Put Flatten() before it."
        )
    return shape[0]


class Bound:
    """A layer and its buffers for n rows: A and dA (n, units)."""

    activity_regularizer: Any = None

    def __init__(self, n_rows: int, n_outputs: int, dtype):
        self.A = np.empty((n_rows, n_outputs), dtype)
        self.dA = np.empty((n_rows, n_outputs), dtype)

    def forward(self, X, weights, rng) -> np.ndarray:
        """Return A."""
        raise NotImplementedError

    def differentiate_activation(self) -> None:
        """Turn dA, the derivative with respect to A, into that with respect to the logits; A is spent."""

    def backward(self, X, weights, grads, dX) -> None:
        """From dA write the gradients of the weights, summed over rows, and, unless it is None, dX."""
        raise NotImplementedError

    def drift(self, weights, grads, divisor: float) -> None:
        """Write into grads by how much, times divisor, what is not learned falls in this step."""


# --- Dense -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense(Layer):
    """activation(X @ W + b), with W (n_inputs, units) and b (units,)."""

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
        _flat(self, shape)
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
    """Draws a bias with the fans of its kernel, as scikit-learn does."""

    initializer: Any
    fan_in: int
    fan_out: int

    def draw(self, rng, fan_in, fan_out, shape):
        return self.initializer.draw(rng, self.fan_in, self.fan_out, shape)


class _BoundDense(Bound):
    """`forward` keeps A for the way back."""

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


# --- functions of each number, or of each row ----------------------------------------------------------


class _Elementwise(Layer):
    """A layer without weights that applies a function."""

    @property
    def function(self) -> Function:
        """What it applies."""
        raise NotImplementedError

    @property
    def activation_name(self):
        return self.function.name

    def output_shape(self, shape):
        if "softmax" in self.function.name:
            _flat(self, shape)
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


def _expect_at_least_0(layer: Layer, *names: str) -> None:
    for name in names:
        value = getattr(layer, name)
        if value is not None and not value >= 0:
            raise ValueError(f"{type(layer).__name__} expects {name} to be at least 0, received {value!r}.")


@dataclass(frozen=True)
class Activation(_Elementwise):
    """activation(X)."""

    activation: Any
    _parts: ClassVar[dict[str, Any]] = {"activation": activations}

    @property
    def function(self):
        return self.activation


@dataclass(frozen=True)
class ReLU(_Elementwise):
    """max(0, X), with a slope below the threshold and a greatest value, if they are given."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        _expect_at_least_0(self, "max_value", "negative_slope", "threshold")

    @property
    def function(self):
        return activations.relu(self.max_value, self.negative_slope, self.threshold)


@dataclass(frozen=True)
class LeakyReLU(_Elementwise):
    """X where it is positive, negative_slope * X elsewhere (Maas et al. 2013)."""

    negative_slope: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        _expect_at_least_0(self, "negative_slope")

    @property
    def function(self):
        return activations.leaky_relu(self.negative_slope)


@dataclass(frozen=True)
class ELU(_Elementwise):
    """X where it is positive, alpha * (exp(X) - 1) elsewhere (Clevert et al. 2016)."""

    alpha: float = 1.0

    @property
    def function(self):
        return activations.elu(self.alpha)


@dataclass(frozen=True)
class Softmax(_Elementwise):
    """exp(X) over its sum, in each row."""

    axis: int | list[int] = -1

    @property
    def function(self):
        return activations.get("softmax")


# --- noise -------------------------------------------------------------------------------------------


class _Noise(Layer):
    """A layer that changes nothing once training is over."""

    is_noisy = True

    def outputs(self, X, *weights):
        return np.array(X)


@dataclass(frozen=True)
class Dropout(_Noise):
    """Sets a share of all numbers to 0 and divides the others by 1 - rate (Srivastava et al. 2014).

    seed: taken for the sake of Keras's signature; masks follow from the seed of the training, the step and
    the rows, so that a step that is repeated draws them again.
    """

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Expected rate to be in [0, 1], received {self.rate}.")
        if self.noise_shape is not None:
            raise ValueError("Expected noise_shape=None, as rows are flat: each number has its own mask.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundDropout(self.rate, n_rows, n_inputs, dtype)


class _BoundFactor(Bound):
    """Multiplies by random factors."""

    def __init__(self, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.factor = np.empty_like(self.A)

    def draw(self, rng) -> None:
        """Draw self.factor."""
        raise NotImplementedError

    def forward(self, X, weights, rng):
        self.draw(rng)
        return np.multiply(X, self.factor, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.multiply(self.dA, self.factor, out=dX)


class _BoundDropout(_BoundFactor):
    def __init__(self, rate: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.rate = rate

    def draw(self, rng):
        rng.random(out=self.factor, dtype=self.factor.dtype)
        np.greater_equal(self.factor, self.rate, out=self.factor)
        if self.rate < 1:
            np.divide(self.factor, 1 - self.rate, out=self.factor)


@dataclass(frozen=True)
class GaussianDropout(_Noise):
    """Multiplies by normal numbers of mean 1 and variance rate / (1 - rate) (Srivastava et al. 2014)."""

    rate: float
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"Expected rate to be in [0, 1), received {self.rate}.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundGaussianDropout((self.rate / (1 - self.rate)) ** 0.5, n_rows, n_inputs, dtype)


class _BoundGaussianDropout(_BoundFactor):
    def __init__(self, stddev: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.stddev = stddev

    def draw(self, rng):
        rng.standard_normal(out=self.factor, dtype=self.factor.dtype)
        np.multiply(self.factor, self.stddev, out=self.factor)
        np.add(self.factor, 1, out=self.factor)


@dataclass(frozen=True)
class GaussianNoise(_Noise):
    """Adds normal numbers of mean 0 and that standard deviation. seed: see Dropout."""

    stddev: float
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        _expect_at_least_0(self, "stddev")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundNoise(self.stddev, n_rows, n_inputs, dtype)


class _BoundNoise(Bound):
    def __init__(self, stddev: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.stddev = stddev

    def forward(self, X, weights, rng):
        rng.standard_normal(out=self.A, dtype=self.A.dtype)
        np.multiply(self.A, self.stddev, out=self.A)
        return np.add(self.A, X, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            np.copyto(dX, self.dA)


# --- normalization -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Normalization(Layer):
    axis: int | list[int] = -1

    def __post_init__(self):
        super().__post_init__()
        axis = self.axis[0] if isinstance(self.axis, list | tuple) and len(self.axis) == 1 else self.axis
        if axis not in (-1, 1):
            raise ValueError(f"Expected axis -1, the numbers of a row, received {self.axis}.")
        object.__setattr__(self, "axis", axis)

    def output_shape(self, shape):
        _flat(self, shape)
        return shape

    def _scale_and_shift(self, n_inputs: int) -> list[Weight]:
        found = []
        for wanted, name in ((self.scale, "gamma"), (self.center, "beta")):  # type: ignore[attr-defined]
            if wanted:
                regularizer, constraint = (
                    getattr(self, f"{name}_{p}") for p in ("regularizer", "constraint")
                )
                initializer = getattr(self, f"{name}_initializer")
                found.append(
                    Weight(name, (n_inputs,), initializer, regularizer=regularizer, constraint=constraint)
                )
        return found


_NORMALIZATION_PARTS: dict[str, Any] = {
    "beta_initializer": initializers,
    "gamma_initializer": initializers,
    "beta_regularizer": regularizers,
    "gamma_regularizer": regularizers,
    "beta_constraint": constraints,
    "gamma_constraint": constraints,
}


@dataclass(frozen=True)
class BatchNormalization(_Normalization):
    """gamma * (X - mean) / sqrt(variance + epsilon) + beta, of the mini-batch (Ioffe and Szegedy 2015).

    Once training is over, moving averages of means and variances take their place:
    moving = momentum * moving + (1 - momentum) * that of the batch. Each replica takes the statistics of its
    own rows of a step (up to 8,192 of a shard at a time); the moving averages of all replicas are averaged.
    synchronized: take them over the rows of all replicas, where gradients travel between workers
    (transport "peer"). With trainable=False the moving averages are used, and stay as they are.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    moving_mean_initializer: Any = "zeros"
    moving_variance_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    synchronized: bool = False  # type: ignore[assignment]
    _parts: ClassVar[dict[str, Any]] = {
        **_NORMALIZATION_PARTS,
        "moving_mean_initializer": initializers,
        "moving_variance_initializer": initializers,
    }

    def weights(self, n_inputs):
        moving = [
            Weight("moving_mean", (n_inputs,), self.moving_mean_initializer, is_learned=False),
            Weight("moving_variance", (n_inputs,), self.moving_variance_initializer, is_learned=False),
        ]
        return (*self._scale_and_shift(n_inputs), *moving)

    def outputs(self, X, *weights):
        *_, mean, variance = weights
        A = (X - mean) / np.sqrt(variance + mean.dtype.type(self.epsilon))
        if self.scale:
            A *= weights[0]
        if self.center:
            A += weights[int(self.scale)]
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return BoundBatchNormalization(self, n_rows, n_inputs, dtype)


class _BoundNormalization(Bound):
    """Keeps the normalized numbers and 1 / sqrt(variance + epsilon) for the way back."""

    def __init__(self, layer, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.scale, self.center = layer.scale, layer.center
        self.epsilon = np.dtype(dtype).type(layer.epsilon)
        self.normal = np.empty_like(self.A)
        self.inverse: Any = None

    def _scale_and_shift(self, weights) -> np.ndarray:
        np.multiply(self.normal, weights[0], out=self.A) if self.scale else np.copyto(self.A, self.normal)
        if self.center:
            np.add(self.A, weights[int(self.scale)], out=self.A)
        return self.A

    def _learn(self, weights, grads) -> None:
        """Write the gradients of gamma and beta; dA becomes the derivative by the normalized numbers."""
        if self.scale:
            np.einsum("ij,ij->j", self.dA, self.normal, out=grads[0])
        if self.center:
            np.add.reduce(self.dA, axis=0, out=grads[int(self.scale)])
        if self.scale:
            np.multiply(self.dA, weights[0], out=self.dA)


class BoundBatchNormalization(_BoundNormalization):
    """Statistics may come from outside: `sums` of this mini-batch, `normalize` by those of all."""

    def __init__(self, layer: BatchNormalization, n_rows: int, n_inputs: int, dtype):
        super().__init__(layer, n_rows, n_inputs, dtype)
        self.synchronized = layer.synchronized and layer.trainable
        self.frozen = not layer.trainable
        self.momentum = layer.momentum
        self.mean = self.variance = np.empty(0)

    def forward(self, X, weights, rng):
        if self.frozen:
            return self._normalize(X, weights, *weights[-2:])
        mean = X.mean(axis=0)
        return self._normalize(X, weights, mean, np.square(X - mean).mean(axis=0))

    def _normalize(self, X, weights, mean, variance) -> np.ndarray:
        self.mean, self.variance = mean, variance
        self.inverse = 1 / np.sqrt(variance + self.epsilon)
        np.subtract(X, mean, out=self.normal)
        np.multiply(self.normal, self.inverse, out=self.normal)
        return self._scale_and_shift(weights)

    def sums(self, X) -> np.ndarray:
        """Return (rows, sum of X, sum of X**2), flat float64: they add up over replicas."""
        wide = X.astype(np.float64)
        return np.concatenate([[len(X)], wide.sum(axis=0), np.square(wide).sum(axis=0)])

    def forward_by(self, totals: np.ndarray, X, weights) -> np.ndarray:
        """Return A, with the mean and variance that these sums say."""
        mean, square = totals[1:].reshape(2, -1) / totals[0]
        variance = np.maximum(square - mean**2, 0)
        return self._normalize(X, weights, mean.astype(X.dtype), variance.astype(X.dtype))

    def backward(self, X, weights, grads, dX):
        totals = self.backward_sums(weights, grads)
        if dX is not None:
            self.backward_by(totals, dX)

    def backward_sums(self, weights, grads) -> np.ndarray:
        """Write the gradients of gamma and beta; return sums that `backward_by` needs, flat float64."""
        self._learn(weights, grads)
        total = self.dA.sum(axis=0, dtype=np.float64)
        along = np.einsum("ij,ij->j", self.dA, self.normal, dtype=np.float64)
        return np.concatenate([[len(self.dA)], total, along])

    def backward_by(self, totals: np.ndarray, dX) -> None:
        """Write dX, given the sums over all rows that the statistics were taken of."""
        if not self.frozen:
            mean, along = (totals[1:].reshape(2, -1) / totals[0]).astype(self.dA.dtype)
            np.subtract(self.dA, mean, out=self.dA)
            np.multiply(self.normal, along, out=self.normal)
            np.subtract(self.dA, self.normal, out=self.dA)
        np.multiply(self.dA, self.inverse, out=dX)

    def drift(self, weights, grads, divisor):
        share = 0.0 if self.frozen else divisor * (1 - self.momentum)
        for moving, found, fall in zip(weights[-2:], (self.mean, self.variance), grads[-2:], strict=True):
            np.subtract(moving, found, out=fall)
            np.multiply(fall, share, out=fall)


@dataclass(frozen=True)
class LayerNormalization(_Normalization):
    """gamma * (X - mean) / sqrt(variance + epsilon) + beta, of each row (Ba et al. 2016)."""

    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    _parts: ClassVar[dict[str, Any]] = _NORMALIZATION_PARTS

    def weights(self, n_inputs):
        return tuple(self._scale_and_shift(n_inputs))

    def outputs(self, X, *weights):
        centered = X - X.mean(axis=1, keepdims=True)
        A = centered / np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + X.dtype.type(self.epsilon))
        if self.scale:
            A *= weights[0]
        if self.center:
            A += weights[int(self.scale)]
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundLayerNormalization(self, n_rows, n_inputs, dtype)


class _BoundLayerNormalization(_BoundNormalization):
    def forward(self, X, weights, rng):
        np.subtract(X, X.mean(axis=1, keepdims=True), out=self.normal)
        variance = np.einsum("ij,ij->i", self.normal, self.normal) / self.normal.shape[1]
        self.inverse = (1 / np.sqrt(variance + self.epsilon))[:, np.newaxis]
        np.multiply(self.normal, self.inverse, out=self.normal)
        return self._scale_and_shift(weights)

    def backward(self, X, weights, grads, dX):
        self._learn(weights, grads)
        if dX is None:
            return
        along = np.einsum("ij,ij->i", self.dA, self.normal)[:, np.newaxis] / self.dA.shape[1]
        np.subtract(self.dA, self.dA.mean(axis=1, keepdims=True), out=self.dA)
        np.multiply(self.normal, along, out=self.normal)
        np.subtract(self.dA, self.normal, out=self.dA)
        np.multiply(self.dA, self.inverse, out=dX)


# --- shapes ------------------------------------------------------------------------------------------


class _Shape(Layer):
    """A layer that a network of flat rows does without."""

    changes_numbers = False

    def outputs(self, X, *weights):
        return X

    def bind(self, n_rows, n_inputs, dtype):
        raise TypeError(f"{type(self).__name__} changes shapes alone, and rows of a network are flat.")


@dataclass(frozen=True)
class Flatten(_Shape):
    """Rows of any shape become rows of one dimension."""

    data_format: str | None = None

    def output_shape(self, shape):
        return (prod(shape),)


@dataclass(frozen=True)
class Input(_Shape):
    """The shape of a row; the first of a model's layers."""

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
                        f"batch_shape={self.batch_shape}. Leave one of them out."
                    )
            batch_size, *shape = self.batch_shape
            object.__setattr__(self, "batch_size", batch_size)
            object.__setattr__(self, "batch_shape", None)
        if shape is None:
            raise ValueError("Input expects the shape of a row: Input(shape=(10,)).")
        shape = _shape(shape)
        if self.input_shape is not None and _shape(self.input_shape) != shape:
            raise ValueError(
                f"Input expects one shape of a row, received {shape} and input_shape={self.input_shape}. "
                "Leave input_shape out."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "input_shape", shape)
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

_CLASSES: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        Dense, Activation, ReLU, LeakyReLU, ELU, Softmax, Dropout, GaussianDropout, GaussianNoise,
        BatchNormalization, LayerNormalization, Flatten,
    )
}  # fmt: skip
_CLASSES["InputLayer"] = Input


def serialize(layer: Layer) -> dict[str, Any]:
    """Return the layer in Keras's form for configurations."""
    name = "InputLayer" if isinstance(layer, Input) else type(layer).__name__
    return {
        "module": "keras.layers",
        "class_name": name,
        "config": layer.get_config(),
        "registered_name": None,
    }


def deserialize(config: dict[str, Any]) -> Layer:
    """Return the layer of that configuration. ValueError: an unknown kind, or settings it does not know."""
    name = config.get("class_name")
    if name not in _CLASSES:
        raise ValueError(f"Expected a layer among {', '.join(sorted(_CLASSES))}, received {name!r}.")
    return _CLASSES[name].from_config(config["config"])
