"""Keras's preprocessing layers of numbers and codes.

Outside of a model they are called on data, `layer(X)`, and lists, frames and Dask collections are data, too.
Inside of a model, rows are flat and codes are numbers of its dtype.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dasknn.initializers import Ones, Zeros
from dasknn.layers.adapting import Adaptable, applied, numbers_in, summaries
from dasknn.layers.embedding import checked_codes
from dasknn.layers.layer import Bound, Layer, Weight, flat
from dasknn.layers.piecewise import checked_columns

# Standard deviations below this count as this, as in Keras.
_LEAST_DEVIATION = 1e-7


class Preprocessing(Layer):
    """A layer that can be called on data outside of a model."""

    def __call__(self, data) -> Any:
        """Apply the layer to data outside of a model.

        Parameters
        ----------
        data : Dask array, dataframe or series, array, dataframe, series or list

        Returns
        -------
        array, dataframe or series
            Of the kind of the data; lists become arrays. Dask collections are not computed.
        """
        return applied(self, data)

    @abstractmethod
    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return the outputs for an array of any shape (n, ...)."""


# --- normalization -----------------------------------------------------------------------------------


class _Moments(NamedTuple):
    """Number of rows, their mean, and the sum of squared deviations from it."""

    n: int
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> _Moments:
        """Return the moments of columns (n, p)."""
        mean = columns.mean(axis=0)
        return cls(len(columns), mean, np.square(columns - mean).sum(axis=0))

    def __add__(self, other: Any) -> _Moments:
        # Chan, Golub and LeVeque (1979).
        n = self.n + other.n
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.n / n)
        return _Moments(n, mean, self.m2 + other.m2 + np.square(apart) * (self.n * other.n / n))


@dataclass(frozen=True)
class Normalization(Preprocessing, Adaptable):
    """Shift and scale numbers to mean 0 and variance 1: `(X - mean) / sqrt(variance)`.

    Parameters
    ----------
    axis : int or None, default=-1
        -1: each column has a mean and a variance. None: all numbers share one.
    mean, variance : float, sequence of float or None, default=None
        Mean and variance, for each column or for all. None: `adapt` learns both.
    invert : bool, default=False
        Whether to turn normalized numbers back: `mean + X * sqrt(variance)`.

    Notes
    -----
    A layer in a file of Keras that was adapted has them as weights, which are not trained. One that knows
    neither raises where Keras's would leave numbers as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from dasknn.layers import Normalization
    >>> layer = Normalization()
    >>> _ = layer.adapt(np.array([[0.0, 7.0], [2.0, 9.0]]))
    >>> layer(np.array([[0.0, 9.0]]))
    array([[-1.,  1.]])
    """

    axis: Any = -1
    mean: Any = None
    variance: Any = None
    invert: bool = False

    def __post_init__(self):
        super().__post_init__()
        axis = tuple(self.axis) if isinstance(self.axis, list | tuple) else (self.axis,)
        if axis not in ((-1,), (1,), (None,), ()):
            raise ValueError(
                f"Normalization expects axis -1 or None, as rows are flat; received {self.axis!r}."
            )
        object.__setattr__(self, "axis", axis[0] if axis else None)
        if (self.mean is None) != (self.variance is None):
            raise ValueError(
                "Normalization expects both mean and variance, or neither; received "
                f"mean={self.mean} and variance={self.variance}."
            )
        if self.mean is None:
            return
        for name in ("mean", "variance"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim > 1 or (self.axis is None and value.size > 1):
                raise ValueError(
                    f"Normalization expects {name} to be a number, or one for each column if axis=-1; "
                    f"received shape {value.shape} for axis={self.axis}."
                )
            if self.axis is None:
                value = value.reshape(())
            object.__setattr__(self, name, tuple(value.tolist()) if value.ndim else float(value))
        if np.shape(self.mean) != np.shape(self.variance):
            raise ValueError(
                "Normalization expects as many means as variances, received shapes "
                f"{np.shape(self.mean)} and {np.shape(self.variance)}."
            )
        if not (np.asarray(self.variance) >= 0).all():
            raise ValueError(f"Normalization expects variances of at least 0, received {self.variance}.")

    def _learn(self, data):
        def summarize(block):
            shared = self.axis is None
            return _Moments.of(checked_columns(self, block.reshape(-1, 1) if shared else block))

        first, *others = summaries(data, summarize)
        found = sum(others, first)
        variance = found.m2 / found.n
        if self.axis is None:
            return {"mean": found.mean[0], "variance": variance[0]}
        return {"mean": found.mean, "variance": variance}

    # --- outside of a model ------------------------------------------------------------------------

    def apply(self, values):
        X = numbers_in(values, self)
        X = X if X.dtype.kind == "f" else X.astype(np.float32)
        if self.axis is not None and X.ndim < 2:
            raise ValueError(
                f"Normalization expects rows of numbers (n, p), received shape {X.shape}. Use axis=None, or "
                "X.reshape(-1, 1) for a single column."
            )
        return self._normalized(X, *self._mean_and_scale((), X.dtype, X.shape[-1]))

    # --- inside ------------------------------------------------------------------------------------

    def weights(self, n_inputs):
        if self.mean is not None:
            return ()
        shape = () if self.axis is None else (n_inputs,)
        return (
            Weight("mean", shape, Zeros(), is_learned=False),
            Weight("variance", shape, Ones(), is_learned=False),
            # Keras keeps it for files of older versions.
            Weight("count", (), Zeros(), is_learned=False),
        )

    def output_shape(self, shape):
        if self.axis is not None:
            n_inputs = flat(self, shape)
            if np.size(self.mean) not in (1, n_inputs):
                raise ValueError(
                    f"Normalization knows the mean of {np.size(self.mean)} columns, received {n_inputs}."
                )
        return shape

    def _mean_and_scale(self, weights: Any, dtype: Any, n_inputs: int) -> tuple[np.ndarray, np.ndarray]:
        if self.mean is not None:
            mean, variance = np.asarray(self.mean), np.asarray(self.variance)
            if mean.size not in (1, n_inputs):
                raise ValueError(f"Normalization knows the mean of {mean.size} columns, received {n_inputs}.")
        else:
            mean, variance = weights[:2] if weights else (np.zeros(1), np.ones(1))
            if not mean.any() and (variance == 1).all():
                raise ValueError(
                    "Normalization knows no mean and variance yet. Call adapt(X) with the data of fit before "
                    "it is added to a model, or model.layers[...].adapt(X)."
                )
        return mean.astype(dtype), np.maximum(np.sqrt(variance), _LEAST_DEVIATION).astype(dtype)

    def _normalized(self, X, mean, scale, out=None) -> np.ndarray:
        if self.invert:
            return np.add(np.multiply(X, scale, out=out), mean, out=out)
        return np.divide(np.subtract(X, mean, out=out), scale, out=out)

    def outputs(self, X, *weights):
        return self._normalized(X, *self._mean_and_scale(weights, X.dtype, X.shape[1]))

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundNormalization(self, n_rows, n_inputs, dtype)


class _BoundNormalization(Bound):
    def __init__(self, layer: Normalization, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.layer = layer

    def forward(self, X, weights, rng):
        found = self.layer._mean_and_scale(weights, self.A.dtype, X.shape[1])
        return self.layer._normalized(X, *found, out=self.A)

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            _, scale = self.layer._mean_and_scale(weights, self.A.dtype, X.shape[1])
            (np.multiply if self.layer.invert else np.divide)(self.dA, scale, out=dX)


# --- codes -------------------------------------------------------------------------------------------

ENCODINGS = ("one_hot", "multi_hot", "count")


class Categorical(Preprocessing):
    """A layer that makes codes of values, and encodes them if `output_mode` says so."""

    output_mode: str
    #: The values of output_mode that the layer has.
    output_modes: ClassVar[tuple[str, ...]] = ("int", *ENCODINGS)

    def __post_init__(self):
        super().__post_init__()
        if self.output_mode not in self.output_modes:
            raise ValueError(
                f"{type(self).__name__} expects output_mode to be one of {', '.join(self.output_modes)}, "
                f"received {self.output_mode!r}."
            )

    @property
    @abstractmethod
    def n_codes(self) -> int:
        """Number of codes, which are integers from 0 on."""

    @abstractmethod
    def codes_of(self, values: np.ndarray) -> np.ndarray:
        """Return the codes of values, in the same shape; -1: of a value that encodings leave out."""

    def apply(self, values):
        codes = self.codes_of(values)
        if self.output_mode == "int":
            return codes
        if self.output_mode != "one_hot" and codes.ndim < 2:
            raise ValueError(
                f"{type(self).__name__} with output_mode={self.output_mode!r} expects rows (n, m), received "
                f"shape {codes.shape}. Use X.reshape(-1, 1) for rows of one value."
            )
        shape = self._encoded_shape(codes.shape[1:] or (1,))
        return self._encoded(codes, np.float32).reshape(len(codes), *shape)

    def _encoded(self, codes: np.ndarray, dtype: Any) -> np.ndarray:
        """Return codes (n, ...), encoded, as flat rows."""
        n = len(codes)
        codes = codes.reshape(n, prod(codes.shape[1:]))
        rows, columns = np.nonzero(codes >= 0)
        kept = codes[rows, columns]
        if self.output_mode == "one_hot":
            out = np.zeros((n, codes.shape[1], self.n_codes), dtype)
            out[rows, columns, kept] = 1
            return out.reshape(n, codes.shape[1] * self.n_codes)
        out = np.zeros((n, self.n_codes), dtype)
        if self.output_mode == "count":
            np.add.at(out, (rows, kept), 1)
        else:
            out[rows, kept] = 1
        return out

    def n_outputs(self, n_inputs):
        if self.output_mode == "int":
            return n_inputs
        return self.n_codes * (n_inputs if self.output_mode == "one_hot" else 1)

    def output_shape(self, shape):
        if self.output_mode != "int":
            return self._encoded_shape(shape)
        return shape

    def _encoded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.output_mode == "one_hot":
            # As in Keras: an axis of one value becomes that of the encoding.
            return (*(shape[:-1] if shape[-1] == 1 else shape), self.n_codes)
        flat(self, shape)
        return (self.n_codes,)

    def outputs(self, X, *weights):
        codes = self.codes_of(X)
        return codes.astype(X.dtype) if self.output_mode == "int" else self._encoded(codes, X.dtype)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundCategorical(self, n_rows, n_inputs, dtype)


class _BoundCategorical(Bound):
    def __init__(self, layer: Categorical, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, layer.n_outputs(n_inputs), dtype)
        self.layer = layer

    def forward(self, X, weights, rng):
        self.A[...] = self.layer.outputs(X)
        return self.A

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            # Codes have no derivative.
            dX[...] = 0


@dataclass(frozen=True)
class CategoryEncoding(Categorical):
    """Turn codes of categories into 0 and 1, or numbers of times.

    Parameters
    ----------
    num_tokens : int
        Number of codes: they are integers from 0 to num_tokens - 1.
    output_mode : {'multi_hot', 'one_hot', 'count'}, default='multi_hot'
        'multi_hot': num_tokens outputs for a row, 1 for each code that the row has. 'count': how many times
        the row has it. 'one_hot': num_tokens outputs for each code of a row.

    Examples
    --------
    >>> from dasknn.layers import CategoryEncoding
    >>> CategoryEncoding(4, "count")([[0, 1], [0, 0], [3, 1]])
    array([[1., 1., 0., 0.],
           [2., 0., 0., 0.],
           [0., 1., 0., 1.]], dtype=float32)
    """

    num_tokens: int
    output_mode: str = "multi_hot"
    output_modes: ClassVar[tuple[str, ...]] = ENCODINGS

    def __post_init__(self):
        super().__post_init__()
        if self.num_tokens < 1:
            raise ValueError(
                f"CategoryEncoding expects num_tokens to be at least 1, received {self.num_tokens!r}."
            )
        object.__setattr__(self, "num_tokens", int(self.num_tokens))

    @property
    def n_codes(self):
        return self.num_tokens

    def codes_of(self, values):
        values = numbers_in(values, self)
        rows = values.reshape(len(values), prod(values.shape[1:]))
        return checked_codes(self, rows, self.num_tokens).reshape(values.shape)


# --- bins --------------------------------------------------------------------------------------------


class _Summary(NamedTuple):
    """Numbers in their order, each of which stands for so many others: of a share epsilon of the rows."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray, epsilon: float) -> _Summary:
        """Return the summary of numbers (n,)."""
        of_each = max(len(numbers) * epsilon, 1.0)
        values = np.sort(numbers)[int(of_each - 1) :: int(of_each)]
        return cls(values.astype(np.float64), np.full(len(values), of_each))

    @classmethod
    def sum(cls, parts: Sequence[_Summary]) -> _Summary:
        """Return the summary of the numbers of all parts."""
        values, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order])

    def compressed(self, epsilon: float) -> _Summary:
        """Return the summary of about 1 / epsilon numbers, by interpolation."""
        if len(self.values) * epsilon < 1:
            return self
        shares = epsilon + np.arange(0.0, 1.0, epsilon)
        passed = np.cumsum(self.weights)
        values = np.interp(shares, passed / passed[-1], self.values)
        return _Summary(values, np.diff(np.interp(shares, passed / passed[-1], passed), prepend=0.0))


@dataclass(frozen=True)
class Discretization(Categorical, Adaptable):
    """Turn numbers into the codes of their bins.

    Parameters
    ----------
    bin_boundaries : sequence of float or None, default=None
        Ascending boundaries between bins, for all columns: [0, 1] makes bins below 0, from 0 to below 1, and
        from 1 on. None: `adapt` learns them.
    num_bins : int or None, default=None
        Number of bins that `adapt` makes, of about equally many numbers.
    epsilon : float, default=0.01
        The share of the numbers by which a boundary may miss its quantile.
    output_mode : {'int', 'one_hot', 'multi_hot', 'count'}, default='int'
        'int': the codes. The others: as for `CategoryEncoding`.

    Examples
    --------
    >>> from dasknn.layers import Discretization
    >>> Discretization([0.0, 1.0, 2.0])([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]])
    array([[0, 2, 3, 1],
           [1, 3, 2, 1]])
    """

    bin_boundaries: Any = None
    num_bins: int | None = None
    epsilon: float = 0.01
    output_mode: str = "int"

    def __post_init__(self):
        super().__post_init__()
        if self.bin_boundaries is None and self.num_bins is None:
            raise ValueError("Discretization expects bin_boundaries or num_bins, received neither.")
        if self.num_bins is not None and self.num_bins < 1:
            raise ValueError(f"Discretization expects num_bins to be at least 1, received {self.num_bins!r}.")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"Discretization expects epsilon to be in (0, 1), received {self.epsilon!r}.")
        if self.bin_boundaries is not None:
            found = tuple(float(boundary) for boundary in self.bin_boundaries)
            if not (np.isfinite(found).all() and (np.diff(found) >= 0).all()):
                raise ValueError(
                    f"Discretization expects ascending bin_boundaries, received {self.bin_boundaries!r}."
                )
            object.__setattr__(self, "bin_boundaries", found)

    def _learn(self, data):
        if self.num_bins is None:
            raise ValueError(
                "Discretization expects num_bins to adapt to data, received bin_boundaries alone."
            )

        def summarize(block):
            return _Summary.of(checked_columns(self, block.reshape(-1, 1))[:, 0], self.epsilon)

        found = _Summary.sum(summaries(data, summarize)).compressed(self.epsilon)
        # Boundaries are compared with float32, as in Keras.
        boundaries = found.compressed(1 / self.num_bins).values[:-1]
        return {"bin_boundaries": boundaries.astype(np.float32)}

    def get_config(self):
        # Keras's layer does not have the setting.
        return {name: value for name, value in super().get_config().items() if name != "trainable"}

    @property
    def _boundaries(self) -> np.ndarray:
        if self.bin_boundaries is None:
            raise ValueError(
                "Discretization has no boundaries yet. Call adapt(X) with the data of fit before it is added "
                "to a model."
            )
        return np.array(self.bin_boundaries)

    @property
    def n_codes(self):
        return len(self._boundaries) + 1

    def codes_of(self, values):
        X = numbers_in(values, self)
        boundaries = self._boundaries
        if X.dtype.kind == "f":
            # 0.7 in float32 is less than 0.7 in float64, but is in the bin from 0.7 on.
            boundaries = boundaries.astype(X.dtype)
        return np.searchsorted(boundaries, X, side="right")
