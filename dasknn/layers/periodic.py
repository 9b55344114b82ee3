"""Embeddings of numbers by waves whose frequencies are learned.

Column i becomes a vector of its own: waves of it, then a dense layer of its own.

    x (n, p) ── angles (p, n, m) ── cos, sin (p, n, features) ── @ kernel (p, features, d) ──► (n, p * d)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from dasknn import activations
from dasknn.initializers import RandomUniform
from dasknn.layers.layer import Bound, Layer, Weight, flat

# Frequencies are drawn within so many standard deviations.
_MOST_DEVIATIONS = 3.0
# Waves that are computed at a time for new data, which bounds their memory.
_WAVES_AT_ONCE = 2**20


class _Periodic(Layer):
    """What both embeddings share.

    A subclass says whether its waves begin at learned phases, whether there is a sine beside each cosine, and
    whether the number itself stands in front of its vector.
    """

    has_phases: ClassVar[bool]
    has_sines: ClassVar[bool]
    keeps_numbers: ClassVar[bool]
    # Settings of the subclasses.
    n_frequencies: int
    embedding_dim: int
    frequency_scale: float
    activation: Any
    rate_factor: float
    _parts: ClassVar[dict[str, Any]] = {"activation": activations}

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("n_frequencies", 1), ("embedding_dim", 1 + self.keeps_numbers)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(
                    f"{type(self).__name__} expects {name} to be at least {least}, received {value!r}."
                )
            object.__setattr__(self, name, int(value))
        if not self.frequency_scale > 0:
            raise ValueError(
                f"{type(self).__name__} expects frequency_scale to be above 0, received "
                f"{self.frequency_scale!r}."
            )

    @property
    def is_shared(self) -> bool:
        """Whether all columns share one dense layer."""
        return False

    @property
    def n_features(self) -> int:
        """Waves of each column."""
        return self.n_frequencies * (1 + self.has_sines)

    @property
    def n_products(self) -> int:
        """Outputs of the dense layer of each column."""
        return self.embedding_dim - self.keeps_numbers

    def weights(self, n_inputs):
        m, d, rate = self.n_frequencies, self.n_products, self.rate_factor
        bound = self.n_features**-0.5
        uniform = RandomUniform(-bound, bound)
        own = () if self.is_shared else (n_inputs,)
        frequencies = _TruncatedNormal(self.frequency_scale)
        # Decay would pull frequencies to 0, where all waves are the same.
        found = [Weight("frequencies", (n_inputs, m), frequencies, rate_factor=rate, decay_factor=0.0)]
        if self.has_phases:
            phases = RandomUniform(-pi, pi)
            found.append(Weight("phases", (n_inputs, m), phases, rate_factor=rate, decay_factor=0.0))
        found.append(Weight("kernel", (*own, self.n_features, d), uniform, True, rate_factor=rate))
        found.append(Weight("bias", (*own, d), uniform, rate_factor=rate, decay_factor=0.0))
        return tuple(found)

    def n_outputs(self, n_inputs):
        return n_inputs * self.embedding_dim

    def output_shape(self, shape):
        return (self.n_outputs(flat(self, shape)),)

    def outputs(self, X, *weights):
        A = np.empty((len(X), self.n_outputs(X.shape[1])), X.dtype)
        at_once = max(1, _WAVES_AT_ONCE // (X.shape[1] * self.n_features))
        for begin in range(0, len(X), at_once):
            rows = X[begin : begin + at_once]
            A[begin : begin + at_once] = self.bind(len(rows), X.shape[1], X.dtype).forward(
                rows, weights, None
            )
        return A

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundPeriodic(self, n_rows, n_inputs, dtype)


class _TruncatedNormal(NamedTuple):
    """Draws normal numbers of this standard deviation, none of them beyond three of it."""

    stddev: float

    def draw(self, rng, fan_in, fan_out, shape):
        low, high = ndtr([-_MOST_DEVIATIONS, _MOST_DEVIATIONS])
        return self.stddev * ndtri(rng.uniform(low, high, shape))


@dataclass(frozen=True)
class PeriodicEmbedding(_Periodic):
    """Embed each number by cosines and sines of learned frequencies, then a dense layer of its column.

    Number x of column i becomes `activation([cos(2 pi c_i x), sin(2 pi c_i x)] @ W_i + b_i)`. Numbers should
    be scaled, for instance by `Normalization`. Rows of p numbers become p * embedding_dim.

    Parameters
    ----------
    n_frequencies : int, default=48
        Frequencies c of each column.
    embedding_dim : int, default=24
        Length of the vectors.
    frequency_scale : float, default=0.01
        Standard deviation of the initial frequencies, which matters most: too great a scale overfits. Values
        between 0.01 and 1 are usual.
    activation : str, dasknn.activations.Activation or None, default="relu"
        Activation function; None: the vectors are linear in the waves.
    lite : bool, default=False
        Whether all columns share one dense layer.
    rate_factor : float, default=1.0
        Factor of the learning rate of all weights.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning".
    """

    n_frequencies: int = 48
    embedding_dim: int = 24
    frequency_scale: float = 0.01
    activation: Any = "relu"
    lite: bool = False
    rate_factor: float = 1.0
    has_phases: ClassVar[bool] = False
    has_sines: ClassVar[bool] = True
    keeps_numbers: ClassVar[bool] = False

    @property
    def is_shared(self):
        return self.lite


@dataclass(frozen=True)
class PBLDEmbedding(_Periodic):
    """Embed each number by itself and by cosines of learned frequencies and phases: periodic, bias, linear.

    Number x of column i becomes the vector `[x, activation(cos(2 pi w_i x + b_i) @ W_i + c_i)]`. Numbers
    should be scaled, for instance by `Normalization`. Rows of p numbers become p * embedding_dim.

    Parameters
    ----------
    n_frequencies : int, default=16
        Frequencies w of each column.
    embedding_dim : int, default=4
        Length of the vectors, with the number itself.
    frequency_scale : float, default=0.1
        Standard deviation of the initial frequencies.
    activation : str, dasknn.activations.Activation or None, default=None
        Activation function of all but the number itself.
    rate_factor : float, default=0.1
        Factor of the learning rate of all weights.

    References
    ----------
    Holzmueller, Grinsztajn and Steinwart (2024), "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data".
    """

    n_frequencies: int = 16
    embedding_dim: int = 4
    frequency_scale: float = 0.1
    activation: Any = None
    rate_factor: float = 0.1
    has_phases: ClassVar[bool] = True
    has_sines: ClassVar[bool] = False
    keeps_numbers: ClassVar[bool] = True


class _BoundPeriodic(Bound):
    """A periodic embedding with its buffers: angles and waves (p, n, ...), products (n, p, ...)."""

    def __init__(self, layer: _Periodic, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, layer.n_outputs(n_inputs), dtype)
        n, p, m, d = n_rows, n_inputs, layer.n_frequencies, layer.n_products
        self.layer = layer
        self.A_by_column, self.dA_by_column = (
            a.reshape(n, p, layer.embedding_dim) for a in (self.A, self.dA)
        )
        self.angles = np.empty((p, n, m), dtype)
        self.waves = np.empty((p, n, layer.n_features), dtype)
        self.by_column = np.empty((p, n, d), dtype)
        self.products = np.empty((n * p, d), dtype)
        self.activation = layer.activation
        self.scratch = self.activation.scratch(n * p, d, np.dtype(dtype))

    def forward(self, X, weights, rng):
        layer, m = self.layer, self.layer.n_frequencies
        frequencies, *phases, kernel, bias = weights
        np.multiply(X.T[..., np.newaxis], (2 * pi * frequencies)[:, np.newaxis], out=self.angles)
        if layer.has_phases:
            self.angles += phases[0][:, np.newaxis]
        np.cos(self.angles, out=self.waves[..., :m])
        if layer.has_sines:
            np.sin(self.angles, out=self.waves[..., m:])
        np.matmul(self.waves, kernel, out=self.by_column)
        n_products = self.by_column.shape[2]
        products = self.products.reshape(*self.A_by_column.shape[:2], n_products)
        np.add(self.by_column.transpose(1, 0, 2), bias, out=products)
        self.activation.forward(self.products, self.scratch)
        self.A_by_column[..., -n_products:] = products
        if layer.keeps_numbers:
            self.A_by_column[..., 0] = X
        return self.A

    def backward(self, X, weights, grads, dX):
        layer, m = self.layer, self.layer.n_frequencies
        frequencies, *_, kernel, _ = weights
        d_frequencies, *d_phases, d_kernel, d_bias = grads
        n, p, _ = self.A_by_column.shape
        d_products = self.dA_by_column[..., -self.by_column.shape[2] :].reshape(n * p, -1)
        self.activation.backward(self.products, d_products, self.scratch)
        # The products are not needed any more: their place takes the derivative by them.
        np.copyto(self.by_column, d_products.reshape(n, p, -1).transpose(1, 0, 2))
        if layer.is_shared:
            rows = self.by_column.reshape(n * p, -1)
            np.add.reduce(rows, axis=0, out=d_bias)
            np.dot(self.waves.reshape(n * p, -1).T, rows, out=d_kernel)
        else:
            np.add.reduce(self.by_column, axis=1, out=d_bias)
            np.matmul(self.waves.transpose(0, 2, 1), self.by_column, out=d_kernel)
        d_waves = np.matmul(self.by_column, np.swapaxes(kernel, -1, -2))
        if layer.has_sines:
            cosines, sines = self.waves[..., :m], self.waves[..., m:]
            d_angles = cosines * d_waves[..., m:] - sines * d_waves[..., :m]
        else:
            d_angles = -np.sin(self.angles) * d_waves
        if layer.has_phases:
            np.add.reduce(d_angles, axis=1, out=d_phases[0])
        # Angles are 2 pi times the frequencies times x.
        d_angles *= 2 * pi
        np.einsum("pnm,np->pm", d_angles, X, out=d_frequencies)
        if dX is not None:
            np.einsum("pnm,pm->np", d_angles, frequencies, out=dX)
            if layer.keeps_numbers:
                dX += self.dA_by_column[..., 0]
