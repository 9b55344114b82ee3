"""Activation functions with their derivatives, in place.

An activation is a pair of functions over the buffers of one layer and one mini-batch:

    forward(Z, scratch)       Z (n, units) becomes A = f(Z)
    backward(A, dA, scratch)  dA (n, units) becomes dZ = dA * f'(Z), computed from A; may overwrite A

`scratch` comes from `Activation.scratch(n, units, dtype)`, belongs to the layer, and keeps the intermediate
results of forward for backward. If it is None, forward allocates.

Names are Keras's, except for identity, logistic and exp, which are scikit-learn's; Keras's linear, sigmoid
and exponential are aliases. `relu`, `leaky_relu` and `elu` return functions with given settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, ndtr

from dasknn.saving.serialization import described, did_you_mean


def _no_scratch(n_rows, units, dtype):
    return None


@dataclass(frozen=True)
class Activation:
    """An activation function with its derivative.

    Functions are equal if their names and settings are.

    Parameters
    ----------
    name : str
        Its name.
    forward : callable
        `forward(Z, scratch)` turns Z (n, units) into f(Z) in place.
    backward : callable
        `backward(A, dA, scratch)` multiplies dA (n, units) by the derivative in place, given A = f(Z).
    scratch : callable
        `scratch(n, units, dtype)` returns the working space of both.
    settings : tuple of (name, value), default=()
        Settings of a function that has some.
    """

    name: str
    forward: Callable[[np.ndarray, Any], None] = field(compare=False)
    backward: Callable[[np.ndarray, np.ndarray, Any], None] = field(compare=False)
    scratch: Callable[[int, int, np.dtype], Any] = field(default=_no_scratch, compare=False)
    settings: tuple[tuple[str, float | None], ...] = ()

    def __call__(self, Z) -> np.ndarray:
        """Return f(Z) for Z (n, units), as a new array."""
        A = np.array(Z, np.result_type(np.asarray(Z).dtype, np.float32))
        self.forward(A, None)
        return A

    def describe(self) -> str | dict[str, Any]:
        """Return the name; for a function with settings, a dict of "kind", the name, and the settings."""
        return {"kind": self.name, **dict(self.settings)} if self.settings else self.name


def _identity_forward(Z, scratch=None):
    pass


def _identity_backward(A, dA, scratch=None):
    pass


def _relu_scratch(n_rows, units, dtype):
    return np.empty((n_rows, units), bool), np.empty((n_rows, units), dtype)


def _relu_forward(Z, scratch=None):
    if scratch is None:
        np.maximum(Z, 0, out=Z)
    else:
        # Faster than np.maximum, and backward needs the factor. For a product with the bool mask itself,
        # numpy would allocate a buffer.
        mask, factor = scratch
        np.greater(Z, 0, out=mask)
        np.copyto(factor, mask)
        np.multiply(Z, factor, out=Z)


def _relu_backward(A, dA, scratch):
    np.multiply(dA, scratch[1], out=dA)


def _tanh_forward(Z, scratch=None):
    np.tanh(Z, out=Z)


def _tanh_backward(A, dA, scratch=None):
    # A is not needed again: overwrite it with 1 - A**2.
    np.multiply(A, A, out=A)
    np.subtract(1, A, out=A)
    np.multiply(dA, A, out=dA)


def _logistic_forward(Z, scratch=None):
    expit(Z, out=Z)


def _logistic_backward(A, dA, scratch=None):
    np.multiply(dA, A, out=dA)
    np.subtract(1, A, out=A)
    np.multiply(dA, A, out=dA)


def _exp_forward(Z, scratch=None):
    np.exp(Z, out=Z)


def _exp_backward(A, dA, scratch=None):
    np.multiply(dA, A, out=dA)


def _softmax_scratch(n_rows, units, dtype):
    # The transpose of Z, and a last row with one number for each row of Z.
    return np.empty((units + 1, n_rows), dtype)


def _softmax_forward(Z, scratch=None):
    if scratch is None:
        scratch = _softmax_scratch(Z.shape[0], Z.shape[1], Z.dtype)
    transposed, row = scratch[:-1], scratch[-1]
    # Subtract the maximum of each row first (Goodfellow et al. 2016, section 4.1). numpy is slow at maxima
    # along short rows; along columns of a transposed copy it takes a fifth of the time.
    np.copyto(transposed, Z.T)
    np.maximum.reduce(transposed, axis=0, out=row)
    np.subtract(Z, row[:, np.newaxis], out=Z)
    np.exp(Z, out=Z)
    np.add.reduce(Z, axis=1, out=row)
    np.divide(Z, row[:, np.newaxis], out=Z)


def _softmax_backward(A, dA, scratch):
    # dZ = A * (dA - <dA, A>), the product of dA and the Jacobian diag(A) - A A^T.
    row = np.einsum("ij,ij->i", dA, A, out=scratch[-1])
    np.subtract(dA, row[:, np.newaxis], out=dA)
    np.multiply(dA, A, out=dA)


def _log_softmax_forward(Z, scratch=None):
    np.subtract(Z, Z.max(axis=1, keepdims=True), out=Z)
    np.subtract(Z, np.log(np.exp(Z).sum(axis=1, keepdims=True)), out=Z)


def _log_softmax_backward(A, dA, scratch=None):
    # dZ = dA - softmax(Z) * sum(dA).
    np.exp(A, out=A)
    np.multiply(A, dA.sum(axis=1, keepdims=True), out=A)
    np.subtract(dA, A, out=dA)


# --- elementwise functions, by value and slope ----------------------------------------------


def _slope_scratch(n_rows, units, dtype):
    return np.empty((n_rows, units), dtype)


def _pointwise_forward(value, slope, Z, scratch=None):
    if scratch is not None:
        np.copyto(scratch, slope(Z))
    np.copyto(Z, value(Z))


def _pointwise_backward(A, dA, scratch):
    np.multiply(dA, scratch, out=dA)


def _pointwise(name: str, value, slope, **settings) -> Activation:
    forward = partial(_pointwise_forward, value, slope)
    return Activation(name, forward, _pointwise_backward, _slope_scratch, tuple(settings.items()))


def _between(Z, low, high):
    return (low < Z) & (high > Z)


def _clipped_relu(highest, negative_slope, threshold, Z):
    above = Z if highest is None else np.minimum(Z, highest)
    return np.where(threshold < Z, above, negative_slope * (Z - threshold))


def _clipped_relu_slope(highest, negative_slope, threshold, Z):
    rises = threshold < Z if highest is None else _between(Z, threshold, highest)
    return np.where(rises, 1, np.where(threshold < Z, 0, negative_slope))


def _relu6(Z):
    return np.clip(Z, 0, 6)


def _relu6_slope(Z):
    return _between(Z, 0, 6)


def _elu(scale, alpha, Z):
    # Large numbers would overflow in the branch that is not used.
    return scale * np.where(Z > 0, Z, alpha * np.expm1(np.minimum(Z, 0)))


def _elu_slope(scale, alpha, Z):
    return scale * np.where(Z > 0, 1, alpha * np.exp(np.minimum(Z, 0)))


# Klambauer et al. (2017).
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _softplus(Z):
    return np.logaddexp(Z, 0)


def _softsign(Z):
    return Z / (1 + np.abs(Z))


def _softsign_slope(Z):
    return 1 / np.square(1 + np.abs(Z))


def _gelu(Z):
    return Z * ndtr(Z)


def _gelu_slope(Z):
    return ndtr(Z) + Z * np.exp(-0.5 * np.square(Z)) * 0.3989422804014327


def _silu(Z):
    return Z * expit(Z)


def _silu_slope(Z):
    share = expit(Z)
    return share * (1 + Z * (1 - share))


def _hard_sigmoid(Z):
    return np.clip(Z / 6 + 0.5, 0, 1)


def _hard_sigmoid_slope(Z):
    return _between(Z, -3, 3) / 6


def _hard_silu(Z):
    return Z * _hard_sigmoid(Z)


def _hard_silu_slope(Z):
    return np.where(_between(Z, -3, 3), Z / 3 + 0.5, Z > 0)


def _mish(Z):
    return Z * np.tanh(_softplus(Z))


def _mish_slope(Z):
    share = np.tanh(_softplus(Z))
    return share + Z * (1 - np.square(share)) * expit(Z)


def _log_sigmoid_slope(Z):
    return expit(-Z)


def _tanh_shrink(Z):
    return Z - np.tanh(Z)


def _tanh_shrink_slope(Z):
    return np.square(np.tanh(Z))


def _hard_tanh(Z):
    return np.clip(Z, -1, 1)


def _hard_tanh_slope(Z):
    return _between(Z, -1, 1)


def _soft_shrink(Z):
    return Z - np.clip(Z, -0.5, 0.5)


def _hard_shrink(Z):
    return np.where(_shrink_slope(Z), Z, 0)


def _shrink_slope(Z):
    return np.abs(Z) > 0.5


def _squareplus(Z):
    return (Z + np.sqrt(np.square(Z) + 4)) / 2


def _squareplus_slope(Z):
    return (1 + Z / np.sqrt(np.square(Z) + 4)) / 2


def _sparse_plus(Z):
    return np.where(Z < 1, np.square(np.maximum(Z, -1) + 1) / 4, Z)


def _sparse_sigmoid(Z):
    return np.clip(Z / 2 + 0.5, 0, 1)


def _sparse_sigmoid_slope(Z):
    return _between(Z, -1, 1) / 2


# --- functions with settings -----------------------------------------------------------------------------


@lru_cache
def relu(max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0) -> Activation:
    """Return `f(z) = min(z, max_value)` where z > threshold, `negative_slope * (z - threshold)` elsewhere.

    Parameters
    ----------
    max_value : float or None, default=None
        Largest output; None: no limit.
    negative_slope : float, default=0.0
        Slope below the threshold.
    threshold : float, default=0.0
        Inputs above it are passed on.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        A negative setting.
    """
    for name, setting in (
        ("max_value", max_value),
        ("negative_slope", negative_slope),
        ("threshold", threshold),
    ):
        if not (setting is None and name == "max_value") and not (setting is not None and setting >= 0):
            raise ValueError(f"relu expects {name} to be at least 0, received {setting!r}.")
    if max_value is None and not negative_slope and not threshold:
        return _ACTIVATIONS["relu"]
    settings = (max_value, negative_slope, threshold)
    return _pointwise(
        "relu",
        partial(_clipped_relu, *settings),
        partial(_clipped_relu_slope, *settings),
        max_value=max_value,
        negative_slope=negative_slope,
        threshold=threshold,
    )


@lru_cache
def leaky_relu(negative_slope: float = 0.2) -> Activation:
    """Return `f(z) = z` where z > 0, `negative_slope * z` elsewhere (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float, default=0.2
        Slope below 0. The layer `LeakyReLU` has another default, 0.3, as in Keras.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        The slope is None.
    """
    if negative_slope is None:
        raise ValueError("leaky_relu expects negative_slope to be a number, received None.")
    value = partial(_clipped_relu, None, negative_slope, 0)
    slope = partial(_clipped_relu_slope, None, negative_slope, 0)
    return _pointwise("leaky_relu", value, slope, negative_slope=negative_slope)


@lru_cache
def elu(alpha: float = 1.0) -> Activation:
    """Return `f(z) = z` where z > 0, `alpha * (exp(z) - 1)` elsewhere (Clevert et al. 2016).

    Parameters
    ----------
    alpha : float, default=1.0
        Minus the limit for large negative inputs.

    Returns
    -------
    Activation
    """
    return _pointwise("elu", partial(_elu, 1, alpha), partial(_elu_slope, 1, alpha), alpha=alpha)


# --- names -----------------------------------------------------------------------------------------------

_ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("identity", _identity_forward, _identity_backward),
        Activation("relu", _relu_forward, _relu_backward, _relu_scratch),
        Activation("tanh", _tanh_forward, _tanh_backward),
        Activation("logistic", _logistic_forward, _logistic_backward),
        Activation("exp", _exp_forward, _exp_backward),
        Activation("softmax", _softmax_forward, _softmax_backward, _softmax_scratch),
        Activation("log_softmax", _log_softmax_forward, _log_softmax_backward),
        leaky_relu(),
        elu(),
        _pointwise("relu6", _relu6, _relu6_slope),
        _pointwise(
            "selu", partial(_elu, SELU_SCALE, SELU_ALPHA), partial(_elu_slope, SELU_SCALE, SELU_ALPHA)
        ),
        _pointwise("celu", partial(_elu, 1, 1), partial(_elu_slope, 1, 1)),
        _pointwise("softplus", _softplus, expit),
        _pointwise("softsign", _softsign, _softsign_slope),
        _pointwise("gelu", _gelu, _gelu_slope),
        _pointwise("silu", _silu, _silu_slope),
        _pointwise("hard_sigmoid", _hard_sigmoid, _hard_sigmoid_slope),
        _pointwise("hard_silu", _hard_silu, _hard_silu_slope),
        _pointwise("mish", _mish, _mish_slope),
        _pointwise("log_sigmoid", log_expit, _log_sigmoid_slope),
        _pointwise("tanh_shrink", _tanh_shrink, _tanh_shrink_slope),
        _pointwise("hard_tanh", _hard_tanh, _hard_tanh_slope),
        _pointwise("soft_shrink", _soft_shrink, _shrink_slope),
        _pointwise("hard_shrink", _hard_shrink, _shrink_slope),
        _pointwise("squareplus", _squareplus, _squareplus_slope),
        _pointwise("sparse_plus", _sparse_plus, _sparse_sigmoid),
        _pointwise("sparse_sigmoid", _sparse_sigmoid, _sparse_sigmoid_slope),
    )
}
_KERAS_NAMES = {"identity": "linear", "logistic": "sigmoid", "exp": "exponential"}
_ALIASES = {keras: own for own, keras in _KERAS_NAMES.items()} | {"swish": "silu", "hard_swish": "hard_silu"}
# Functions with settings, by the name of Keras's layer for them.
_WITH_SETTINGS = {"ReLU": relu, "LeakyReLU": leaky_relu, "ELU": elu}
_LAYER_SETTINGS = ("name", "trainable", "dtype")


def get(identifier) -> Activation:
    """Return the activation for a name, configuration of Keras's, object or layer; None is the identity.

    Raises
    ------
    ValueError
        No such activation; or a function, whose derivative is unknown.
    """
    if identifier is None:
        return _ACTIVATIONS["identity"]
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(identifier, str):
        return _named(identifier)
    if isinstance(identifier, Mapping):
        return _described(identifier)
    if identifier in _WITH_SETTINGS.values():
        return identifier()
    # As in Keras, a layer may stand for the function that it applies.
    if isinstance(function := getattr(identifier, "function", None), Activation):
        return function
    raise ValueError(
        f"Expected the name of an activation, received {identifier!r}, which dasknn cannot differentiate. "
        f"There are: {', '.join(_names())}."
    )


def serialize(activation: Activation) -> str | dict[str, Any]:
    """Return Keras's name of a function; for one with settings, the configuration of Keras's layer for it."""
    name = activation.name
    if activation == _ACTIVATIONS[name]:
        return _KERAS_NAMES.get(name, name)
    layer = next(layer for layer, make in _WITH_SETTINGS.items() if make.__name__ == name)
    return described("keras.layers", layer, dict(activation.settings))


def _names() -> list[str]:
    return sorted({*_ACTIVATIONS, *_ALIASES})


def _named(name: str) -> Activation:
    found = _ACTIVATIONS.get(_ALIASES.get(name, name))
    if found is not None:
        return found
    hint = did_you_mean(name, _names()) or f" There are: {', '.join(_names())}."
    raise ValueError(f"Expected an activation, received {name!r}.{hint}")


def _described(description: Mapping[str, Any]) -> Activation:
    name, config = description.get("class_name"), description.get("config")
    if isinstance(config, str):
        return _named(config)
    if isinstance(config, Mapping):
        settings = {key: value for key, value in config.items() if key not in _LAYER_SETTINGS}
        if name == "Activation":
            return get(settings.get("activation"))
        if name == "Softmax" and settings.get("axis", -1) == -1:
            return _ACTIVATIONS["softmax"]
        if name in _WITH_SETTINGS:
            try:
                return _WITH_SETTINGS[name](**settings)
            except TypeError:
                pass
    raise ValueError(f"Expected the configuration of an activation, received {dict(description)!r}.")
