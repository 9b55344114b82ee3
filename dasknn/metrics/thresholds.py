"""Counts of true and false positives and negatives, at one threshold or several."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dasknn.metrics.metric import Metric, flat_weights, ratio

# As in Keras, the value of outputs that top_k leaves out, and the default threshold then.
NOTHING = -1e10
EPSILON = 1e-7


@dataclass(frozen=True)
class Thresholds:
    """T thresholds; an output is positive at those below it.

    is_even: they are 0, 1 / (T - 1), ..., 1, so that buckets are found by a multiplication.
    has_margin: the first is slightly below 0, the last slightly above 1.
    """

    values: tuple[float, ...]
    is_even: bool
    has_margin: bool = False

    @classmethod
    def of(cls, values, default: float) -> Thresholds:
        """Return the thresholds that a user gave: None, one, or several; ValueError outside [0, 1]."""
        if values is None:
            return cls((default,), False)
        values = tuple(float(value) for value in np.atleast_1d(np.asarray(values, np.float64)))
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"Expected thresholds to be in [0, 1], received {values}.")
        return cls(values, _are_even(values))

    @classmethod
    def even(cls, n_thresholds: int, inner: Sequence[float] | None = None) -> Thresholds:
        """Return the thresholds of AUC: evenly spaced from 0 to 1, or the inner ones given; with margin."""
        if inner is None:
            inner = [i / (n_thresholds - 1) for i in range(1, n_thresholds - 1)]
            is_even = True
        else:
            is_even = _are_even((0.0, *inner, 1.0))
        return cls((-EPSILON, *inner, 1 + EPSILON), is_even, has_margin=True)

    @property
    def n_buckets(self) -> int:
        """T + 1: an output has 0 to T thresholds below it."""
        return len(self.values) + 1

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.values, kind="stable")

    def buckets(self, P: np.ndarray) -> np.ndarray:
        """Return the number of thresholds below each output, intp in the shape of P."""
        if not self.is_even:
            if len(self.values) == 1:
                return np.greater(P, self.values[0]).astype(np.intp)
            # Compare in the dtype of P, as Keras does.
            return np.searchsorted(np.array(self.values, P.dtype)[self._order], P, side="left")
        n_below = np.ceil(P * (len(self.values) - 1))
        # fmin and fmax turn NaN into a bound.
        np.fmin(n_below, len(self.values) - 1, out=n_below)
        np.fmax(n_below, 1 if self.has_margin else 0, out=n_below)
        return n_below.astype(np.intp)

    def above(self, counts: np.ndarray) -> np.ndarray:
        """Return the counts above each threshold (..., T), from counts by bucket (..., T + 1)."""
        above = np.cumsum(counts[..., :0:-1], axis=-1)[..., ::-1]
        if self.is_even or len(self.values) == 1:
            return above
        found = np.empty_like(above)
        found[..., self._order] = above
        return found


def _are_even(values: Sequence[float]) -> bool:
    n = len(values)
    return n >= 3 and np.allclose(values, np.arange(n) / (n - 1), atol=EPSILON)


@dataclass(frozen=True)
class Counts:
    """Weights of true and false positives and negatives, each (T,) or (n_outputs, T)."""

    tp: np.ndarray
    fp: np.ndarray
    tn: np.ndarray
    fn: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> np.ndarray:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> np.ndarray:
        return ratio(self.tn, self.tn + self.fp)


class ByThreshold(Metric):
    """Base class of metrics computed from counts at thresholds.

    The sums are weights by bucket between thresholds: of the negatives, then of the positives.
    """

    top_k: int | None = None
    class_id: int | None = None

    @property
    @abstractmethod
    def _thresholds(self) -> Thresholds: ...

    @abstractmethod
    def _result(self, counts: Counts): ...

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("top_k", 1), ("class_id", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Expected {name} to be at least {least}, received {value!r}.")

    @property
    def takes_output_weights(self) -> bool:  # type: ignore[override]
        return self.class_id is None

    def update_state(self, y_true, y_pred, sample_weight=None):
        if np.ndim(y_pred) == 1 and self.class_id is not None:
            raise ValueError(
                f"{type(self).__name__}(class_id={self.class_id}) expects y_pred of shape (n, k), received "
                f"{np.shape(y_pred)}."
            )
        if np.ndim(y_pred) == 1 and self.top_k is not None:
            # As in Keras, these are the outputs of one row.
            y_true, y_pred = np.reshape(y_true, (1, -1)), np.reshape(y_pred, (1, -1))
            if np.ndim(sample_weight) == 1:
                sample_weight = np.reshape(sample_weight, (1, -1))
        super().update_state(y_true, y_pred, sample_weight)

    def size(self, n_outputs):
        return 2 * self._thresholds.n_buckets

    def sums(self, y, P, weight):
        y, n_outputs = self._targets(y, P), P.shape[1]
        if self.top_k is not None:
            if self.top_k > n_outputs:
                raise ValueError(
                    f"{type(self).__name__} expects top_k to be at most {n_outputs}, the number of outputs, "
                    f"received {self.top_k}."
                )
            P = _only_largest(P, self.top_k)
        if self.class_id is not None:
            if self.class_id >= n_outputs:
                raise ValueError(
                    f"{type(self).__name__} expects class_id to be the index of an output, in "
                    f"[0, {n_outputs}), received {self.class_id}."
                )
            y, P = y[:, self.class_id : self.class_id + 1], P[:, self.class_id : self.class_id + 1]
        return histogram(self._thresholds, y, P, flat_weights(weight, P))

    def result_of(self, sums, n_outputs):
        return self._result(counts_of(self._thresholds, sums.reshape(2, -1)))


def histogram(thresholds: Thresholds, y, P, weight, first=0, size=0) -> np.ndarray:
    """Return the weights of negatives and positives by bucket, float64.

    weight: flat, one for each output. first: index at which the counts of each output begin.
    """
    bucket = thresholds.buckets(P)
    bucket += first
    bucket += (y != 0) * np.intp(thresholds.n_buckets)
    size = size or 2 * thresholds.n_buckets
    return np.bincount(bucket.reshape(-1), weight, minlength=size).astype(np.float64, copy=False)


def counts_of(thresholds: Thresholds, sums: np.ndarray) -> Counts:
    """Return the counts at all thresholds, from histograms (..., 2, T + 1)."""
    above, total = thresholds.above(sums), sums.sum(axis=-1, keepdims=True)
    below = total - above
    return Counts(tp=above[..., 1, :], fp=above[..., 0, :], tn=below[..., 0, :], fn=below[..., 1, :])


def _only_largest(P, k: int):
    """Return P with all but the k largest outputs of each row at -1e10; the first of equal ones is kept."""
    largest = np.argsort(-P, axis=1, kind="stable")[:, :k]
    kept = np.full_like(P, NOTHING)
    np.put_along_axis(kept, largest, np.take_along_axis(P, largest, axis=1), axis=1)
    return kept
