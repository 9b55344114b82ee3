"""Piecewise-linear embeddings of raw numbers: bins learned from data, coordinates among them, their layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dasknn.layers.adapting import Adaptable, numbers_in, summaries
from dasknn.layers.embedding import BinEmbedding, BinEncoding
from dasknn.layers.layer import Bound, Layer, flat

# Coordinates of outliers end so many bins below the first edge, and above the last.
_MOST_OUTSIDE = 4.0
# Values of a column in a summary of a block, if it has more distinct ones.
_MOST_VALUES = 1_024


# --- edges of bins -----------------------------------------------------------------------------------


def greedy_edges(values: np.ndarray, weights: np.ndarray, n_bins: int) -> np.ndarray:
    """Return at most n_bins + 1 edges, which are values of a column.

    values (k,): sorted and distinct; weights (k,) int: the number of rows of each, above 0.

    All values, if there are few. Otherwise, values of at least 1 / n_bins of the rows are edges together with
    their neighbors, so that they can have an output of their own; they get up to three quarters of the edges.
    The rest of the rows is cut into equal shares.
    """
    if len(values) <= n_bins + 1:
        return values
    is_edge = np.zeros(len(values), bool)
    is_edge[[0, -1]] = True
    light = weights.copy()
    heavy = np.flatnonzero(weights * n_bins >= weights.sum())
    # Of equally many rows, the smaller value first.
    for place in heavy[np.argsort(-weights[heavy], kind="stable")]:
        around = slice(max(place - 1, 0), place + 2)
        if is_edge.sum() + (~is_edge[around]).sum() > 2 + 3 * n_bins // 4:
            break
        is_edge[around] = True
        light[place] = 0
    left = n_bins + 1 - int(is_edge.sum())
    passed = np.cumsum(light)
    shares = passed[-1] * np.arange(1, left + 1) / (left + 1)
    is_edge[np.searchsorted(passed, shares)] = True
    return values[is_edge]


class _Counts(NamedTuple):
    """Distinct values of a column, sorted, and how many rows have each."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, column: np.ndarray) -> _Counts:
        """Return the counts of numbers (n,): of all, or of ranks at equal distances, the ends among them."""
        values, weights = np.unique(column, return_counts=True)
        if len(values) <= _MOST_VALUES:
            return cls(values, weights)
        ranks = np.linspace(0, len(column) - 1, _MOST_VALUES).round().astype(np.int64)
        ends = np.concatenate([[0], (ranks[1:] + ranks[:-1] + 1) // 2, [len(column)]])
        return cls.sum([cls(np.repeat(values, weights)[ranks], np.diff(ends))])

    @classmethod
    def sum(cls, parts: Sequence[_Counts]) -> _Counts:
        """Return the counts of all rows of some parts."""
        values, places = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
        weights = np.zeros(len(values), np.int64)
        np.add.at(weights, places, np.concatenate([part.weights for part in parts]))
        return cls(values, weights)


def _counts_of_columns(block: np.ndarray) -> list[_Counts]:
    """Return the counts of each column of a block (n, p)."""
    return [_Counts.of(column) for column in block.T]


# --- coordinates -------------------------------------------------------------------------------------


def coordinates(x: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of numbers x (n,) among the edges of bins, and their derivatives by x.

    The coordinate in bin t is t + (x - e_t) / (e_(t+1) - e_t). It continues linearly below the first edge and
    above the last, for up to 4 bins; beyond, it does not change.
    """
    n_bins = len(edges) - 1
    t = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, n_bins - 1)
    slopes = 1 / np.diff(edges)[t]
    u = t + (x - edges[t]) * slopes
    slopes[(u < -_MOST_OUTSIDE) | (u > n_bins + _MOST_OUTSIDE)] = 0
    return np.clip(u, -_MOST_OUTSIDE, n_bins + _MOST_OUTSIDE), slopes


# --- the layer ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PiecewiseLinearEmbedding(Adaptable):
    """Embed each number by piecewise linear functions of it, which are learned and bend at the edges of bins.

    A number x of column i becomes the vector `z * w_i + b_i + encoding(x) @ V_i`. The encoding is 1 for the
    bins below that of x, 0 for those above, and for its own how far x is in it. z is the place of x among the
    edges, from -1 at the first to 1 at the last. So numbers need not be scaled. Rows of p numbers become
    p * embedding_dim; without an embedding, the encodings side by side.

    Parameters
    ----------
    boundaries : sequence of sequences of float or None, default=None
        Edges of the bins of each column, ascending, at least two. None: `adapt` learns them.
    embedding_dim : int or None, default=16
        Length of the vectors. None: the encoding alone, and nothing is learned in training.
    n_bins : int, default=48
        Most bins of a column that `adapt` makes. All distinct values are edges if they are few; frequent
        values have bins of their own, and the other rows are cut into equal shares.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning".

    Examples
    --------
    >>> import numpy as np
    >>> from dasknn.layers import PiecewiseLinearEmbedding
    >>> layer = PiecewiseLinearEmbedding([[0, 1, 10]], embedding_dim=None)
    >>> layer.outputs(np.array([[0.25], [5.5], [11.8]]))
    array([[0.25, 0.  ],
           [1.  , 0.5 ],
           [1.  , 1.2 ]])
    """

    boundaries: Any = None
    embedding_dim: int | None = 16
    n_bins: int = 48

    def __post_init__(self):
        super().__post_init__()
        for name in ("embedding_dim", "n_bins"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"PiecewiseLinearEmbedding expects {name} to be at least 1, received {value!r}."
                )
        if self.boundaries is not None:
            found = tuple(tuple(float(edge) for edge in edges) for edges in self.boundaries)
            for column, edges in enumerate(found):
                if len(edges) < 2 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
                    raise ValueError(
                        "PiecewiseLinearEmbedding expects at least two ascending boundaries of each column, "
                        f"received {edges} for column {column}."
                    )
            object.__setattr__(self, "boundaries", found or None)

    def _learn(self, data):
        def summarize(block):
            return _counts_of_columns(checked_columns(self, block))

        parts = summaries(data, summarize)
        columns = [_Counts.sum([part[i] for part in parts]) for i in range(len(parts[0]))]
        return {"boundaries": [_edges_of(counts, self.n_bins) for counts in columns]}

    @property
    def _edges(self) -> list[np.ndarray]:
        if self.boundaries is None:
            raise ValueError(
                "PiecewiseLinearEmbedding has no boundaries yet. Call adapt(X) with the data of fit before "
                "it is added to a model."
            )
        return [np.array(edges) for edges in self.boundaries]

    @property
    def _inner(self) -> Any:
        """The layer of coordinates among the bins; if it embeds, of z and coordinates."""
        n_bins = tuple(len(edges) - 1 for edges in self._edges)
        if self.embedding_dim is None:
            return BinEncoding(n_bins)
        return BinEmbedding(n_bins, self.embedding_dim)

    def _n_inner(self, n_inputs: int) -> int:
        """Return the number of inputs of the inner layer for rows of n_inputs numbers."""
        expected = len(self._edges)
        if n_inputs != expected:
            raise ValueError(
                f"PiecewiseLinearEmbedding has boundaries of {expected} columns, received {n_inputs}."
            )
        return n_inputs if self.embedding_dim is None else 2 * n_inputs

    def weights(self, n_inputs):
        return self._inner.weights(self._n_inner(n_inputs))

    def n_outputs(self, n_inputs):
        return self._inner.n_outputs(self._n_inner(n_inputs))

    def output_shape(self, shape):
        return (self.n_outputs(flat(self, shape)),)

    def outputs(self, X, *weights):
        inputs = np.empty((len(X), self._n_inner(X.shape[1])), X.dtype)
        _Coordinates(self).write(X, inputs)
        return self._inner.outputs(inputs, *weights)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundPiecewise(self, n_rows, n_inputs, dtype)


class _Coordinates:
    """Writes the inputs of the inner layer."""

    def __init__(self, layer: PiecewiseLinearEmbedding):
        self.edges = layer._edges
        self.n_bins = np.array([len(edges) - 1 for edges in self.edges])
        self.scales = layer.embedding_dim is not None

    def write(self, X: np.ndarray, out: np.ndarray, slopes: np.ndarray | None = None) -> None:
        """Write numbers by their places, unless there is an encoding only, and coordinates of X (n, p).

        slopes (n, p): takes the derivatives of the coordinates.
        """
        p = len(self.edges)
        for column, edges in enumerate(self.edges):
            u, of_u = coordinates(X[:, column].astype(np.float64), edges)
            out[:, column - p] = u
            if slopes is not None:
                slopes[:, column] = of_u
        if self.scales:
            np.divide(out[:, p:], (self.n_bins / 2).astype(out.dtype), out=out[:, :p])
            out[:, :p] -= 1


class _BoundPiecewise(Bound):
    def __init__(self, layer: PiecewiseLinearEmbedding, n_rows: int, n_inputs: int, dtype):
        width = layer._n_inner(n_inputs)
        self.inner = layer._inner.bind(n_rows, width, dtype)
        self.A, self.dA = self.inner.A, self.inner.dA
        self.coordinates = _Coordinates(layer)
        self.inputs = np.empty((n_rows, width), dtype)
        self.slopes = np.empty((n_rows, n_inputs), dtype)

    def forward(self, X, weights, rng):
        self.coordinates.write(X, self.inputs, self.slopes)
        return self.inner.forward(self.inputs, weights, rng)

    def backward(self, X, weights, grads, dX):
        if dX is None:
            self.inner.backward(self.inputs, weights, grads, None)
            return
        d_inputs = np.empty_like(self.inputs)
        self.inner.backward(self.inputs, weights, grads, d_inputs)
        p = dX.shape[1]
        np.copyto(dX, d_inputs[:, -p:])
        if self.coordinates.scales:
            dX += d_inputs[:, :p] * (2 / self.coordinates.n_bins).astype(dX.dtype)
        dX *= self.slopes


def _edges_of(counts: _Counts, n_bins: int) -> list[float]:
    """Return edges for a column, at least two of them."""
    if len(counts.values) == 1:
        value = float(counts.values[0])
        return [value, value + max(1.0, abs(value))]
    return greedy_edges(*counts, n_bins).tolist()


def checked_columns(layer: Layer, block: np.ndarray) -> np.ndarray:
    """Return a block of data (n, p) in float64. ValueError: it is no table of finite numbers."""
    block = numbers_in(block, layer).astype(np.float64)
    if block.ndim != 2:
        raise ValueError(
            f"{type(layer).__name__} expects rows of numbers (n, p) to adapt to, received shape "
            f"{block.shape}. Use X.reshape(-1, 1) for a single column."
        )
    if not (is_known := np.isfinite(block)).all():
        row, column = (int(found[0]) for found in np.nonzero(~is_known))
        raise ValueError(
            f"{type(layer).__name__} expects finite numbers, received {block[row, column]} in column "
            f"{column}. Fill missing values before."
        )
    return block
