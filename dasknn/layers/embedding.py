"""Layers that turn codes of categories, and numbers in bins, into vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from dasknn import constraints, initializers, regularizers
from dasknn.initializers import RandomUniform, Zeros
from dasknn.layers.layer import Bound, Layer, Weight, flat

# --- sums over rows of tables ------------------------------------------------------------------------


def add_by_code(codes: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Set out (m, d) to the sums of the rows (n, d) that have each code (n,) in [0, m).

    Rows of a code are added in their order, so the bits depend on nothing else.
    """
    out[...] = 0
    if not len(codes):
        return
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    begins = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
    out[in_order[begins]] = np.add.reduceat(rows[order], begins, axis=0)


def checked_codes(layer: Layer, X: np.ndarray, sizes: Any) -> np.ndarray:
    """Return codes X (n, p) as integers. ValueError: some are not in [0, sizes)."""
    with np.errstate(invalid="ignore"):
        # NaN and numbers that are too great become integers that they do not equal.
        codes = X.astype(np.intp)
    wrong = (codes < 0) | (codes >= sizes) | (codes != X)
    if wrong.any():
        row, column = (int(found[0]) for found in np.nonzero(wrong))
        most = int(np.broadcast_to(sizes, X.shape[1])[column]) - 1
        raise ValueError(
            f"{type(layer).__name__} expects codes that are integers from 0 to {most} in column {column}, "
            f"received {X[row, column]}."
        )
    return codes


# --- categories --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Embedding(Layer):
    """Turn codes of categories into vectors: rows of a table that is learned.

    Rows of m codes become m * output_dim numbers. As in Keras, put `Flatten()` between this layer and a dense
    one.

    Parameters
    ----------
    input_dim : int
        Number of codes: they are integers from 0 to input_dim - 1.
    output_dim : int
        Length of the vectors.
    embeddings_initializer : str or Initializer, default="uniform"
        Initial values of the table.
    embeddings_regularizer, embeddings_constraint : default=None
        Penalty on the table, and a constraint that holds after each update.
    mask_zero : bool, default=False
        For compatibility with Keras: nothing is masked.

    References
    ----------
    Guo and Berkhahn (2016), "Entity embeddings of categorical variables".
    """

    # Without `field`, the default would be that of the setting of other layers which has this name.
    input_dim: int = field()
    output_dim: int = field()
    embeddings_initializer: Any = "uniform"
    embeddings_regularizer: Any = None
    embeddings_constraint: Any = None
    mask_zero: bool = False
    shape_settings: ClassVar[tuple[str, ...]] = ("input_shape",)
    _parts: ClassVar[dict[str, Any]] = {
        "embeddings_initializer": initializers,
        "embeddings_regularizer": regularizers,
        "embeddings_constraint": constraints,
    }

    def __post_init__(self):
        super().__post_init__()
        for name in ("input_dim", "output_dim"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"Embedding expects {name} to be at least 1, received {value}.")
            object.__setattr__(self, name, int(value))
        if self.mask_zero:
            raise ValueError("Embedding expects mask_zero=False, since rows are never masked. Leave it out.")

    def weights(self, n_inputs):
        return (
            Weight(
                "embeddings",
                (self.input_dim, self.output_dim),
                self.embeddings_initializer,
                regularizer=self.embeddings_regularizer,
                constraint=self.embeddings_constraint,
                is_table=True,
            ),
        )

    def n_outputs(self, n_inputs):
        return n_inputs * self.output_dim

    def output_shape(self, shape):
        return (*shape, self.output_dim)

    def outputs(self, X, *weights):
        return weights[0][checked_codes(self, X, self.input_dim)].reshape(len(X), -1)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundEmbedding(self, n_rows, n_inputs, dtype)


class _BoundEmbedding(Bound):
    def __init__(self, layer: Embedding, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs * layer.output_dim, dtype)
        self.layer = layer
        self.codes: Any = None

    def forward(self, X, weights, rng):
        self.codes = checked_codes(self.layer, X, self.layer.input_dim).reshape(-1)
        np.take(weights[0], self.codes, axis=0, out=self.A.reshape(-1, self.layer.output_dim), mode="clip")
        return self.A

    def backward(self, X, weights, grads, dX):
        add_by_code(self.codes, self.dA.reshape(-1, self.layer.output_dim), grads[0])
        if dX is not None:
            # Codes have no derivative.
            dX[...] = 0


@dataclass(frozen=True)
class OneHot(Layer):
    """Turn codes of several columns into 0 and 1: a column for each code from 1 on; code 0 becomes zeros.

    Parameters
    ----------
    sizes : sequence of int
        Number of codes of each column: they are integers from 0 to size - 1.
    """

    sizes: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        if not self.sizes or min(self.sizes) < 2:
            raise ValueError(f"OneHot expects sizes of at least 2, received {self.sizes}.")

    def n_outputs(self, n_inputs):
        return sum(self.sizes) - len(self.sizes)

    def output_shape(self, shape):
        return (self.n_outputs(flat(self, shape)),)

    def _write(self, X, out) -> None:
        out[...] = 0
        codes = checked_codes(self, X, np.array(self.sizes))
        firsts = [0, *accumulate(size - 1 for size in self.sizes[:-1])]
        rows, columns = np.nonzero(codes)
        out[rows, np.array(firsts)[columns] + codes[rows, columns] - 1] = 1

    def outputs(self, X, *weights):
        out = np.empty((len(X), self.n_outputs(X.shape[1])), X.dtype)
        self._write(X, out)
        return out

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundOneHot(self, n_rows, n_inputs, dtype)


class _BoundOneHot(Bound):
    def __init__(self, layer: OneHot, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, layer.n_outputs(n_inputs), dtype)
        self.layer = layer

    def forward(self, X, weights, rng):
        self.layer._write(X, self.A)
        return self.A

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            dX[...] = 0


# --- numbers in bins ---------------------------------------------------------------------------------


def places_of(U: np.ndarray, n_bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each coordinate U (n, p), and where in the bin it is.

    A place is in [0, 1), but below 0 before the first bin of its column, and above 1 behind the last.
    """
    bins = np.floor(U)
    np.clip(bins, 0, n_bins - 1, out=bins)
    return bins.astype(np.intp), U - bins


@dataclass(frozen=True)
class BinEncoding(Layer):
    """Encode coordinates among bins piecewise linearly: bins below are 1, those above 0, its own between.

    The coordinate of a number x among the edges e of bins is t + (x - e[t]) / (e[t+1] - e[t]) in bin t. It
    continues linearly outside of the edges. Nothing is learned.

    Parameters
    ----------
    n_bins : sequence of int
        Number of bins of each column.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning".
    """

    n_bins: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "n_bins", _checked_bins(self, self.n_bins))

    def n_outputs(self, n_inputs):
        return sum(self.n_bins)

    def output_shape(self, shape):
        return (self.n_outputs(flat(self, shape)),)

    def _encode(self, U: np.ndarray) -> np.ndarray:
        n_bins = np.array(self.n_bins)
        bins, places = places_of(U, n_bins)
        number = np.arange(n_bins.max())
        # (n, p, T): below its own bin 1, above 0
        codes = (number < bins[..., np.newaxis]).astype(U.dtype)
        np.put_along_axis(codes, bins[..., np.newaxis], places[..., np.newaxis].astype(U.dtype), axis=2)
        return codes[:, number < n_bins[:, np.newaxis]]

    def outputs(self, X, *weights):
        return self._encode(X)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundBinEncoding(self, n_rows, n_inputs, dtype)


class _BoundBinEncoding(Bound):
    def __init__(self, layer: BinEncoding, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, layer.n_outputs(n_inputs), dtype)
        self.layer = layer

    def forward(self, X, weights, rng):
        self.A[...] = self.layer._encode(X)
        return self.A

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            # The derivative by a coordinate is that by the code of its bin.
            n_bins = np.array(self.layer.n_bins)
            firsts = np.cumsum(n_bins) - n_bins
            dX[...] = np.take_along_axis(self.dA, firsts + places_of(X, n_bins)[0], axis=1)


@dataclass(frozen=True)
class BinEmbedding(Layer):
    """Embed numbers by their coordinates among bins: piecewise linear functions, which are learned.

    Inputs (n, 2 p) are p scaled numbers z, then p coordinates u (see `BinEncoding`). Column i becomes the
    vector `z_i * w_i + b_i + encoding(u_i) @ V_i`. The last term is computed by interpolation between two
    rows of a table of sums, so its cost does not depend on the number of bins.

    Parameters
    ----------
    n_bins : sequence of int
        Number of bins of each column.
    embedding_dim : int, default=16
        Length of the vectors.
    rate_factor : float, default=1.0
        Factor of the learning rate and of the weight decay of V.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), as for `BinEncoding`; the form "B" of their package.
    """

    n_bins: tuple[int, ...] = ()
    embedding_dim: int = 16
    rate_factor: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "n_bins", _checked_bins(self, self.n_bins))
        if self.embedding_dim < 1:
            raise ValueError(
                f"BinEmbedding expects embedding_dim to be at least 1, received {self.embedding_dim!r}."
            )

    def weights(self, n_inputs):
        p, d = len(self.n_bins), self.embedding_dim
        if n_inputs != 2 * p:
            raise ValueError(
                f"BinEmbedding expects {p} numbers and their {p} coordinates, received {n_inputs} inputs."
            )
        bound = d**-0.5
        uniform = RandomUniform(-bound, bound)
        return (
            # As many rows for each column as the largest has; nothing changes the others.
            Weight(
                "bins",
                (p, max(self.n_bins), d),
                Zeros(),
                rate_factor=self.rate_factor,
                decay_factor=self.rate_factor,
            ),
            Weight("linear", (p, d), uniform, decay_factor=0.0),
            Weight("bias", (p, d), uniform, decay_factor=0.0),
        )

    def n_outputs(self, n_inputs):
        return len(self.n_bins) * self.embedding_dim

    def output_shape(self, shape):
        flat(self, shape)
        return (self.n_outputs(shape[0]),)

    def outputs(self, X, *weights):
        p = len(self.n_bins)
        out = np.empty((len(X), p, self.embedding_dim), X.dtype)
        _embed(X[:, :p], *places_of(X[:, p:], np.array(self.n_bins)), weights, out)
        return out.reshape(len(X), -1)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundBinEmbedding(self, n_rows, dtype)


def _embed(Z, bins, places, weights, out) -> None:
    """Write the vectors of numbers Z (n, p) in these bins, at these places in them, into out (n, p, d)."""
    V, linear, bias = weights
    p, n_bins, d = V.shape
    # sums[i, t]: what all bins below t add
    sums = np.zeros((p, n_bins + 1, d), V.dtype)
    np.cumsum(V, axis=1, out=sums[:, 1:])
    first = np.arange(p) * n_bins
    np.multiply(V.reshape(-1, d)[bins + first], places[..., np.newaxis], out=out)
    out += sums.reshape(-1, d)[bins + first + np.arange(p)]
    out += Z[..., np.newaxis] * linear
    out += bias


class _BoundBinEmbedding(Bound):
    def __init__(self, layer: BinEmbedding, n_rows: int, dtype):
        p = len(layer.n_bins)
        super().__init__(n_rows, p * layer.embedding_dim, dtype)
        self.n_bins = np.array(layer.n_bins)
        self.shape = (n_rows, p, layer.embedding_dim)
        self.bins: Any = None
        self.places: Any = None

    def forward(self, X, weights, rng):
        p = self.shape[1]
        self.bins, self.places = places_of(X[:, p:], self.n_bins)
        _embed(X[:, :p], self.bins, self.places, weights, self.A.reshape(self.shape))
        return self.A

    def backward(self, X, weights, grads, dX):
        n, p, d = self.shape
        dA = self.dA.reshape(self.shape)
        V, linear, _ = weights
        np.einsum("np,npd->pd", X[:, :p], dA, out=grads[1])
        np.add.reduce(dA, axis=0, out=grads[2])
        n_bins = V.shape[1]
        # Both sums by bin in one pass: of the derivative, and of the derivative times the place.
        both = np.concatenate([dA, dA * self.places[..., np.newaxis]], axis=2).reshape(n * p, 2 * d)
        by_bin = np.empty((p * n_bins, 2 * d), V.dtype)
        add_by_code((self.bins + np.arange(p) * n_bins).reshape(-1), both, by_bin)
        whole, own = by_bin.reshape(p, n_bins, 2 * d)[..., :d], by_bin.reshape(p, n_bins, 2 * d)[..., d:]
        # A bin is 1 for the rows of all bins above it.
        above = np.cumsum(whole[:, :0:-1], axis=1)[:, ::-1]
        grads[0][:, -1] = own[:, -1]
        np.add(own[:, :-1], above, out=grads[0][:, :-1])
        if dX is not None:
            np.einsum("npd,pd->np", dA, linear, out=dX[:, :p])
            of_bins = V.reshape(-1, d)[self.bins + np.arange(p) * n_bins]
            np.einsum("npd,npd->np", dA, of_bins, out=dX[:, p:])


def _checked_bins(layer: Layer, n_bins: Any) -> tuple[int, ...]:
    found = tuple(int(n) for n in n_bins)
    if not found or min(found) < 1:
        raise ValueError(
            f"{type(layer).__name__} expects the number of bins of each column, at least 1, received "
            f"{n_bins!r}."
        )
    return found
