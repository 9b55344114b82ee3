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
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dasknn import activations
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
            object.__setattr__(self, "input_shape", shape_of_rows(self.input_shape))
        if self.input_dim is not None:
            shape = shape_of_rows(self.input_dim)
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


def shape_of_rows(shape) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if not shape or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
        raise ValueError(
            f"Expected the shape of a row, such as (10,) for rows of 10 numbers, received {shape}. The "
            "number of rows does not belong to it."
        )
    return tuple(int(n) for n in shape)


def flat(layer: Layer, shape: tuple[int, ...]) -> int:
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


def expect_at_least_0(layer: Layer, *names: str) -> None:
    for name in names:
        value = getattr(layer, name)
        if value is not None and not value >= 0:
            raise ValueError(f"{type(layer).__name__} expects {name} to be at least 0, received {value!r}.")
