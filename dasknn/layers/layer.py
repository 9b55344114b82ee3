"""Base classes of layers.

A layer is a frozen dataclass of settings. `weights` lists its arrays in the parameter vector, `outputs`
applies it to new data, and `bind` adds the buffers for mini-batches of one size:

    A = bound.forward(X, weights, rng)      A (n, units); rng draws masks and noise, None if there are none
    bound.differentiate_activation()        bound.dA becomes the derivative by the logits; overwrites A
    bound.backward(X, weights, grads, dX)   bound.dA -> gradients of the weights and, unless it is None, dX

Names, arguments, their order and defaults are Keras's. Rows are flat inside a network; `Input` and `Flatten`
describe the shape that they have outside.
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

    Parameters
    ----------
    name : str
        Name within the layer, such as "kernel".
    shape : tuple of int
        Its shape.
    initializer : Initializer
        Draws the initial values.
    is_kernel : bool, default=False
        Whether the L2 penalty of the estimators includes it.
    is_learned : bool, default=True
        Whether the optimizer updates it, if the layer is trainable. If not, `Bound.drift` does.
    regularizer : Regularizer or None, default=None
        Penalty on it.
    constraint : Constraint or None, default=None
        Applied after each update.
    rate_factor : float, default=1.0
        Factor of the learning rate.
    decay_factor : float, default=1.0
        Factor of decoupled weight decay, which does not depend on `rate_factor`.
    by_member : bool, default=False
        Whether its first axis has one entry for each of the members that share a network.
    is_table : bool, default=False
        Whether it has a row for each of many categories, few of which occur in a mini-batch.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Any
    is_kernel: bool = False
    is_learned: bool = True
    regularizer: Any = None
    constraint: Any = None
    rate_factor: float = 1.0
    decay_factor: float = 1.0
    by_member: bool = False
    is_table: bool = False

    def draw(self, rng) -> np.ndarray:
        """Return initial values, float64, of this shape."""
        first, *others = self.shape or (1,)
        fan_in, fan_out = self.shape if len(others) == 1 else (first, first)
        return self.initializer.draw(rng, fan_in, fan_out, self.shape)


@dataclass(frozen=True, kw_only=True)
class Layer(ABC):
    """Base class of layers.

    Parameters
    ----------
    input_shape : tuple of int or None, default=None
        Shape of a row, for the first layer of a model.
    input_dim : int or None, default=None
        The same, for rows of one dimension.
    name : str or None, default=None
        None: the model chooses one.
    trainable : bool, default=True
        Whether training changes the weights of the layer.
    dtype : None or "float32", default=None
        For compatibility with Keras; layers compute in the dtype of their model.
    """

    input_shape: tuple[int, ...] | None = None
    input_dim: int | None = None
    name: str | None = None
    trainable: bool = True
    dtype: Any = None

    #: Settings that only say the shape of a row.
    shape_settings: ClassVar[tuple[str, ...]] = ("input_shape", "input_dim")
    #: Settings that are objects, with the module whose `get` and `serialize` read and write them.
    _parts: ClassVar[dict[str, Any]] = {}
    #: Whether `outputs` accepts sparse rows.
    takes_sparse: ClassVar[bool] = False
    #: Whether training draws random numbers.
    is_noisy: ClassVar[bool] = False
    #: False: the layer describes shapes only, and a network, whose rows are flat, omits it.
    changes_numbers: ClassVar[bool] = True

    def __post_init__(self):
        check_own_kinds(self)
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", shape_of_rows(self.input_shape))
        if self.input_dim is not None and "input_dim" in self.shape_settings:
            shape = shape_of_rows(self.input_dim)
            if self.input_shape not in (None, shape):
                raise ValueError(
                    f"{type(self).__name__} expects input_shape or input_dim, received "
                    f"input_shape={self.input_shape} and input_dim={self.input_dim}. Omit one of them."
                )
            object.__setattr__(self, "input_shape", shape)
        if self.dtype not in (None, "float32"):
            raise ValueError(
                f"{type(self).__name__} expects dtype None or 'float32', received {self.dtype!r}. Omit it: "
                "layers compute in the dtype of their model."
            )
        object.__setattr__(self, "dtype", None)
        for name, module in self._parts.items():
            object.__setattr__(self, name, module.get(getattr(self, name)))

    @property
    def uses_of_kernel(self) -> int:
        """How often a row is multiplied by the kernel: by members that share it, once for each."""
        return 1

    @property
    def synchronized(self) -> bool:
        """Whether the layer needs sums over the mini-batches of all replicas."""
        return False

    def weights(self, n_inputs: int) -> tuple[Weight, ...]:
        """Return the arrays that the layer keeps in the parameter vector, for rows of n_inputs numbers."""
        return ()

    def n_outputs(self, n_inputs: int) -> int:
        """Return the number of outputs for rows of n_inputs numbers."""
        return n_inputs

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a row of outputs for rows of the given shape.

        Raises
        ------
        ValueError
            The layer does not accept rows of this shape.
        """
        return shape

    @property
    def activation_name(self) -> str:
        """Name of the activation that produces the outputs."""
        return "identity"

    @abstractmethod
    def outputs(self, X, *weights) -> np.ndarray:
        """Return the outputs (n, n_outputs) for new data X (n, n_inputs), as a new array."""

    @abstractmethod
    def bind(self, n_rows: int, n_inputs: int, dtype) -> Bound:
        """Return the layer with buffers for mini-batches of n_rows."""

    def get_config(self) -> dict[str, Any]:
        """Return the settings as Keras writes them."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": "float32"}
        for setting in fields(self):
            if setting.name in (*self.shape_settings, "name", "trainable", "dtype"):
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
        """Return the layer that a configuration describes, as `get_config` returns it.

        Raises
        ------
        ValueError
            An unknown setting, or one of Keras's that dasknn does not implement.
        """
        config = dict(config)
        if (shape := config.pop("batch_input_shape", None)) is not None:
            config["input_shape"] = tuple(shape[1:])
        kind = config.pop("dtype", None)
        if isinstance(kind, dict):
            kind = kind.get("config", {}).get("name")
        known = {setting.name for setting in fields(cls)}
        for name, default in _ONLY_KERAS.items():
            if name not in known and name in config and config.pop(name) not in default:
                raise ValueError(f"dasknn's {cls.__name__} does not implement {name}. Omit it.")
        if strange := sorted(set(config) - known):
            raise ValueError(
                f"{cls.__name__} expects settings among {sorted(known)}, received {', '.join(strange)}."
            )
        check_kinds(cls, config)
        return cls(dtype=kind, **config)


# Settings that Keras writes and dasknn lacks, with the values for which they can be ignored.
_ONLY_KERAS: dict[str, tuple] = {
    "quantization_config": (None,),
    "lora_rank": (None,),
    "lora_alpha": (None,),
    "activity_regularizer": (None,),
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
            f"Expected the shape of one row, such as (10,) for rows of 10 numbers, received {shape}. "
            "Do not include the number of rows."
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
    """A layer with buffers for mini-batches of n rows.

    Attributes
    ----------
    A : array (n, units)
        Outputs of the forward pass.
    dA : array (n, units)
        Derivative of the loss with respect to the outputs.
    """

    activity_regularizer: Any = None

    def __init__(self, n_rows: int, n_outputs: int, dtype):
        self.A = np.empty((n_rows, n_outputs), dtype)
        self.dA = np.empty((n_rows, n_outputs), dtype)

    def forward(self, X, weights, rng) -> np.ndarray:
        """Compute and return A from X (n, n_inputs)."""
        raise NotImplementedError

    def differentiate_activation(self) -> None:
        """Turn dA from the derivative with respect to A into that with respect to the logits.

        May overwrite A.
        """

    def backward(self, X, weights, grads, dX) -> None:
        """Write the gradients of the weights, summed over rows, into grads; and dX, unless it is None."""
        raise NotImplementedError

    def drift(self, weights, grads, divisor: float) -> None:
        """Write the decrease of weights that are not learned in this step, times divisor, into grads."""


def expect_at_least_0(layer: Layer, *names: str) -> None:
    for name in names:
        value = getattr(layer, name)
        if value is not None and not value >= 0:
            raise ValueError(f"{type(layer).__name__} expects {name} to be at least 0, received {value!r}.")
