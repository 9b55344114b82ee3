"""Accuracy: the share of correct predictions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from dasknn.metrics.reduction import MeanOfOutputs, MeanOfRows


class _Hits(MeanOfOutputs):
    """Base class of metrics that are the share of correct outputs."""

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return which outputs are correct, bool (n, k)."""

    def sums(self, y, P, weight):
        if weight is not None:
            return super().sums(y, P, weight)
        hits = self.terms(self._targets(y, P), P)
        return np.array([np.count_nonzero(hits) / P.shape[1], len(P)], np.float64)


@dataclass(frozen=True)
class Accuracy(_Hits):
    """Share of outputs that equal their targets."""

    name: str | None = "accuracy"
    dtype: str | None = None

    def terms(self, y, P):
        return y == P


@dataclass(frozen=True)
class BinaryAccuracy(_Hits):
    """Share of outputs on the correct side of a threshold; targets are 0 and 1.

    Parameters
    ----------
    threshold : float, default=0.5
        An output above it predicts 1.
    """

    name: str | None = "binary_accuracy"
    dtype: str | None = None
    threshold: float = 0.5

    def terms(self, y, P):
        return np.equal(np.greater(P, self.threshold), y)


@dataclass(frozen=True)
class CategoricalAccuracy(MeanOfRows):
    """Share of rows whose largest output is that of the true class; targets (n, k) are one-hot."""

    name: str | None = "categorical_accuracy"
    dtype: str | None = None
    _for_labels = "SparseCategoricalAccuracy"

    def rows(self, y, P):
        return self._targets(y, P).argmax(axis=1) == P.argmax(axis=1)


@dataclass(frozen=True)
class SparseCategoricalAccuracy(MeanOfRows):
    """Share of rows whose largest output is that of the label; labels (n,) are integers."""

    name: str | None = "sparse_categorical_accuracy"
    dtype: str | None = None

    def rows(self, y, P):
        return self._labels(y) == P.argmax(axis=1)


def _are_among_top(labels, P, k: int):
    """Return the rows with fewer than k outputs above that of the label: ties count as hits, as in Keras."""
    own = np.take_along_axis(P, labels.astype(np.intp)[:, np.newaxis], axis=1)
    return np.count_nonzero(own < P, axis=1) < k


@dataclass(frozen=True)
class TopKCategoricalAccuracy(MeanOfRows):
    """Share of rows where the output of the true class is among the k largest; targets (n, k) are one-hot.

    Parameters
    ----------
    k : int, default=5
        Number of largest outputs.
    """

    k: int = 5
    name: str | None = "top_k_categorical_accuracy"
    dtype: str | None = None
    _for_labels = "SparseTopKCategoricalAccuracy"

    def rows(self, y, P):
        return _are_among_top(self._targets(y, P).argmax(axis=1), P, self.k)


@dataclass(frozen=True)
class SparseTopKCategoricalAccuracy(MeanOfRows):
    """Share of rows where the output of the label is among the k largest; labels (n,) are integers.

    Parameters
    ----------
    k : int, default=5
        Number of largest outputs.
    from_sorted_ids : bool, default=False
        Whether P holds labels, most likely first, instead of outputs.
    """

    k: int = 5
    name: str | None = "sparse_top_k_categorical_accuracy"
    dtype: str | None = None
    from_sorted_ids: bool = False

    def rows(self, y, P):
        labels = self._labels(y)
        if self.from_sorted_ids:
            return np.equal(P[:, : self.k], labels[:, np.newaxis]).any(axis=1)
        return _are_among_top(labels, P, self.k)

    def get_config(self):
        config = super().get_config()
        if not self.from_sorted_ids:
            del config["from_sorted_ids"]
        return config
