"""Activation functions with their derivatives, in place.

An activation is a pair of functions over the buffers of one layer and one mini-batch:

    forward(Z, scratch)       Z (n, units) becomes A = f(Z)
    backward(A, dA, scratch)  dA (n, units) becomes dZ = dA * f'(Z), written in terms of A; A is spent

`scratch` comes from `Activation.scratch(n, units, dtype)`, belongs to the layer, and carries what
backward needs from forward. Without it (None), forward allocates what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit


def _no_scratch(n_rows, units, dtype):
    return None


@dataclass(frozen=True)
class Activation:
    """A named function with its derivative, and the scratch space that both share."""

    name: str
    forward: Callable[[np.ndarray, Any], None]
    backward: Callable[[np.ndarray, np.ndarray, Any], None]
    scratch: Callable[[int, int, np.dtype], Any] = _no_scratch


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
        # Faster than np.maximum, and backward finds its factor in scratch. A product with the bool mask
        # itself would go through a buffer that numpy allocates.
        mask, factor = scratch
        np.greater(Z, 0, out=mask)
        np.copyto(factor, mask)
        np.multiply(Z, factor, out=Z)


def _relu_backward(A, dA, scratch):
    np.multiply(dA, scratch[1], out=dA)


def _tanh_forward(Z, scratch=None):
    np.tanh(Z, out=Z)


def _tanh_backward(A, dA, scratch=None):
    # A is not needed again, so it becomes 1 - A**2.
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
    # Z transposed, and a last row for one number a row of Z.
    return np.empty((units + 1, n_rows), dtype)


def _softmax_forward(Z, scratch=None):
    if scratch is None:
        scratch = _softmax_scratch(Z.shape[0], Z.shape[1], Z.dtype)
    transposed, row = scratch[:-1], scratch[-1]
    # The row maximum is subtracted first (Goodfellow et al. 2016, sec. 4.1). numpy finds maxima along
    # short rows slowly; by columns of the transposed copy it takes a fifth of the time.
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


_ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("identity", _identity_forward, _identity_backward),
        Activation("relu", _relu_forward, _relu_backward, _relu_scratch),
        Activation("tanh", _tanh_forward, _tanh_backward),
        Activation("logistic", _logistic_forward, _logistic_backward),
        Activation("exp", _exp_forward, _exp_backward),
        Activation("softmax", _softmax_forward, _softmax_backward, _softmax_scratch),
    )
}


def get(name: str) -> Activation:
    """Return the activation of that name. ValueError: no such activation."""
    try:
        return _ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"Expected an activation among {sorted(_ACTIVATIONS)}, received {name!r}.") from None
