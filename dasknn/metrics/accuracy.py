"""How often the prediction is right."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from dasknn.metrics.reduction import MeanOfOutputs, MeanOfRows


class _Hits(MeanOfOutputs):
    """How many outputs are right."""

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return which outputs are right, bool (n, k)."""

    def sums(self, y, P, weight):
        if weight is not None:
            return super().sums(y, P, weight)
        hits = self.terms(self._targets(y, P), P)
        return np.array([np.count_nonzero(hits) / P.shape[1], len(P)], np.float64)


@dataclass(frozen=True)
class Accuracy(_Hits):
    """How often outputs equal targets."""

    name: str | None = "accuracy"
    dtype: str | None = None

    def terms(self, y, P):
        return y == P


@dataclass(frozen=True)
class BinaryAccuracy(_Hits):
    """How often an output is above the threshold where the target is 1, and not where it is 0."""

    name: str | None = "binary_accuracy"
    dtype: str | None = None
    threshold: float = 0.5

    def terms(self, y, P):
        return np.equal(np.greater(P, self.threshold), y)


@dataclass(frozen=True)
class CategoricalAccuracy(MeanOfRows):
    """How often the largest output is that of the class; targets one-hot."""

    name: str | None = "categorical_accuracy"
    dtype: str | None = None
    _for_labels = "SparseCategoricalAccuracy"

    def rows(self, y, P):
        return self._targets(y, P).argmax(axis=1) == P.argmax(axis=1)


@dataclass(frozen=True)
class SparseCategoricalAccuracy(MeanOfRows):
    """How often the largest output is that of the label."""

    name: str | None = "sparse_categorical_accuracy"
    dtype: str | None = None

    def rows(self, y, P):
        return self._labels(y) == P.argmax(axis=1)


def _are_among_top(labels, P, k: int):
    """Return where fewer than k outputs are above that of the label; so ties count, as in Keras."""
    own = np.take_along_axis(P, labels.astype(np.intp)[:, np.newaxis], axis=1)
    return np.count_nonzero(own < P, axis=1) < k


@dataclass(frozen=True)
class TopKCategoricalAccuracy(MeanOfRows):
    """How often the output of the class is among the k largest; targets one-hot."""

    k: int = 5
    name: str | None = "top_k_categorical_accuracy"
    dtype: str | None = None
    _for_labels = "SparseTopKCategoricalAccuracy"

    def rows(self, y, P):
        return _are_among_top(self._targets(y, P).argmax(axis=1), P, self.k)


@dataclass(frozen=True)
class SparseTopKCategoricalAccuracy(MeanOfRows):
    """How often the output of the label is among the k largest.

    from_sorted_ids: P holds labels, the most likely first.
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
