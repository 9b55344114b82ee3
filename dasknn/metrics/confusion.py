"""Metrics that follow from counts of right and wrong, at one threshold or at many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from dasknn.metrics.metric import Metric, flat_weights, ratio, settle_outputs

# Keras's threshold where nothing but the largest outputs count, and what it writes over the others.
_NOTHING = -1e10
EPSILON = 1e-7


@dataclass(frozen=True)
class _Thresholds:
    """T thresholds; an output is positive at those that are below it.

    is_even: they are 0, 1 / (T - 1), ..., 1, so that arithmetic finds an output's place among them.
    has_margin: the first is a little below 0, the last above 1.
    """

    values: tuple[float, ...]
    is_even: bool
    has_margin: bool = False

    @classmethod
    def of(cls, values, default: float) -> _Thresholds:
        """Return thresholds that a user gave: None, one, or many. ValueError: outside [0, 1]."""
        if values is None:
            return cls((default,), False)
        values = tuple(float(value) for value in np.atleast_1d(np.asarray(values, np.float64)))
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"Expected thresholds in [0, 1], received {values}.")
        return cls(values, _are_even(values))

    @classmethod
    def even(cls, n_thresholds: int, inner: Sequence[float] | None = None) -> _Thresholds:
        """Return those of AUC: n_thresholds from 0 to 1, or some between them, with the margin."""
        if inner is None:
            inner = [i / (n_thresholds - 1) for i in range(1, n_thresholds - 1)]
            is_even = True
        else:
            is_even = _are_even((0.0, *inner, 1.0))
        return cls((-EPSILON, *inner, 1 + EPSILON), is_even, has_margin=True)

    @property
    def n_buckets(self) -> int:
        """Outputs have from 0 to T thresholds below them."""
        return len(self.values) + 1

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.values, kind="stable")

    def buckets(self, P: np.ndarray) -> np.ndarray:
        """Return how many thresholds are below each output, intp of the shape of P."""
        if not self.is_even:
            if len(self.values) == 1:
                return np.greater(P, self.values[0]).astype(np.intp)
            # In the dtype of P, as Keras compares them.
            return np.searchsorted(np.array(self.values, P.dtype)[self._order], P, side="left")
        n_below = np.ceil(P * (len(self.values) - 1))
        # fmin and fmax turn NaN into a bound.
        np.fmin(n_below, len(self.values) - 1, out=n_below)
        np.fmax(n_below, 1 if self.has_margin else 0, out=n_below)
        return n_below.astype(np.intp)

    def above(self, counts: np.ndarray) -> np.ndarray:
        """Return how much of counts (..., T + 1), by buckets, is above each threshold (..., T)."""
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
class _Counts:
    """Weights of true and false positives and negatives, each (T,), or (n_outputs, T)."""

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


class _ByThreshold(Metric):
    """What follows from counts of positives and negatives at some thresholds.

    Its sums are weights by bucket between thresholds: first of the negatives, then of the positives.
    """

    top_k: int | None = None
    class_id: int | None = None

    @property
    @abstractmethod
    def _thresholds(self) -> _Thresholds: ...

    @abstractmethod
    def _result(self, counts: _Counts): ...

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("top_k", 1), ("class_id", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Expected {name} of at least {least}, received {value!r}.")

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
            # As in Keras, these are the outputs of one row, whose largest are looked for.
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
                    f"{type(self).__name__} expects top_k of at most {n_outputs}, the number of outputs, "
                    f"received {self.top_k}."
                )
            P = _only_largest(P, self.top_k)
        if self.class_id is not None:
            if self.class_id >= n_outputs:
                raise ValueError(
                    f"{type(self).__name__} expects class_id in [0, {n_outputs}), the outputs, received "
                    f"{self.class_id}."
                )
            y, P = y[:, self.class_id : self.class_id + 1], P[:, self.class_id : self.class_id + 1]
        return _histogram(self._thresholds, y, P, flat_weights(weight, P))

    def result_of(self, sums, n_outputs):
        return self._result(_counts(self._thresholds, sums.reshape(2, -1)))


def _histogram(thresholds: _Thresholds, y, P, weight, first=0, size=0) -> np.ndarray:
    """Return the weights of negatives and positives by bucket, float64; weight one for each output, flat.

    first: where the counts of an output begin.
    """
    bucket = thresholds.buckets(P)
    bucket += first
    bucket += (y != 0) * np.intp(thresholds.n_buckets)
    size = size or 2 * thresholds.n_buckets
    return np.bincount(bucket.reshape(-1), weight, minlength=size).astype(np.float64, copy=False)


def _counts(thresholds: _Thresholds, sums: np.ndarray) -> _Counts:
    """Return counts for histograms (..., 2, T + 1)."""
    above, total = thresholds.above(sums), sums.sum(axis=-1, keepdims=True)
    below = total - above
    return _Counts(tp=above[..., 1, :], fp=above[..., 0, :], tn=below[..., 0, :], fn=below[..., 1, :])


def _only_largest(P, k: int):
    """Return P with all but the k largest outputs of each row at -1e10; of equals, the first."""
    largest = np.argsort(-P, axis=1, kind="stable")[:, :k]
    kept = np.full_like(P, _NOTHING)
    np.put_along_axis(kept, largest, np.take_along_axis(P, largest, axis=1), axis=1)
    return kept


def _one_or_all(values: np.ndarray):
    return float(values[0]) if len(values) == 1 else values


class _AtThresholds(_ByThreshold):
    """A number for each of the thresholds that the user gave."""

    thresholds: float | Sequence[float] | None

    def __post_init__(self):
        super().__post_init__()
        settle_outputs(self)
        _ = self._thresholds

    @cached_property
    def _thresholds(self) -> _Thresholds:
        return _Thresholds.of(self.thresholds, 0.5 if self.top_k is None else _NOTHING)


@dataclass(frozen=True)
class TruePositives(_AtThresholds):
    """Weight of outputs above the threshold whose target is not 0."""

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.tp)


@dataclass(frozen=True)
class TrueNegatives(_AtThresholds):
    """Weight of outputs not above the threshold whose target is 0."""

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.tn)


@dataclass(frozen=True)
class FalsePositives(_AtThresholds):
    """Weight of outputs above the threshold whose target is 0."""

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.fp)


@dataclass(frozen=True)
class FalseNegatives(_AtThresholds):
    """Weight of outputs not above the threshold whose target is not 0."""

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.fn)


@dataclass(frozen=True)
class Precision(_AtThresholds):
    """True positives of all positives; of output class_id only, of the top_k largest in a row only."""

    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.precision)


@dataclass(frozen=True)
class Recall(_AtThresholds):
    """True positives of all that are true; of output class_id only, of the top_k largest in a row only."""

    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.recall)


class _BestThreshold(_ByThreshold):
    """The best of one number at thresholds where another is at least `_least`."""

    num_thresholds: int
    _least: ClassVar[str]

    def __post_init__(self):
        super().__post_init__()
        if self.num_thresholds < 1:
            raise ValueError(f"Expected num_thresholds of at least 1, received {self.num_thresholds}.")
        if not 0 <= getattr(self, self._least) <= 1:
            raise ValueError(f"Expected {self._least} in [0, 1], received {getattr(self, self._least)}.")

    @cached_property
    def _thresholds(self) -> _Thresholds:
        if self.num_thresholds == 1:
            return _Thresholds((0.5,), False)
        return _Thresholds(tuple(np.linspace(0, 1, max(self.num_thresholds, 2)).tolist()), True)

    def _best(self, values, constrained) -> float:
        return float(np.max(values[constrained >= getattr(self, self._least)], initial=0.0))


@dataclass(frozen=True)
class SensitivityAtSpecificity(_BestThreshold):
    """The best sensitivity where specificity is at least so high."""

    specificity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "specificity"

    def _result(self, counts):
        return self._best(counts.recall, counts.specificity)


@dataclass(frozen=True)
class SpecificityAtSensitivity(_BestThreshold):
    """The best specificity where sensitivity is at least so high."""

    sensitivity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "sensitivity"

    def _result(self, counts):
        return self._best(counts.specificity, counts.recall)


@dataclass(frozen=True)
class PrecisionAtRecall(_BestThreshold):
    """The best precision where recall is at least so high."""

    recall: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "recall"

    def _result(self, counts):
        return self._best(counts.precision, counts.recall)


@dataclass(frozen=True)
class RecallAtPrecision(_BestThreshold):
    """The best recall where precision is at least so high."""

    precision: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "precision"

    def _result(self, counts):
        return self._best(counts.recall, counts.precision)


@dataclass(frozen=True)
class AUC(_ByThreshold):
    """Area under a curve of counts at num_thresholds thresholds from 0 to 1.

    curve: "ROC", "PR" or "PRGAIN". summation_method: "interpolation" (for "PR" that of Davis and Goadrich
    2006), "minoring" or "majoring". thresholds: others, between 0 and 1. multi_label: the mean over outputs
    of the area of each, not the area of all outputs together. label_weights (k,): of the outputs.
    from_logits: P are logits.
    """

    num_thresholds: int = 200
    curve: str = "ROC"
    summation_method: str = "interpolation"
    name: str | None = None
    dtype: str | None = None
    thresholds: Any = None
    multi_label: bool = False
    num_labels: int | None = None
    label_weights: Any = None
    from_logits: bool = False

    def __post_init__(self):
        super().__post_init__()
        settle_outputs(self)
        curve, method = self.curve.upper(), self.summation_method.lower()
        if curve not in ("ROC", "PR", "PRGAIN"):
            raise ValueError(f"Expected curve 'ROC', 'PR' or 'PRGAIN', received {self.curve!r}.")
        if method not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                "Expected summation_method 'interpolation', 'minoring' or 'majoring', received "
                f"{self.summation_method!r}."
            )
        if self.num_labels and not self.multi_label:
            raise ValueError(f"num_labels needs multi_label=True, received num_labels={self.num_labels}.")
        if self.thresholds is not None:
            inner = tuple(sorted(self.thresholds))
            if inner and not 0 <= inner[0] <= inner[-1] <= 1:
                raise ValueError(f"Expected thresholds in [0, 1], received {self.thresholds}.")
            object.__setattr__(self, "thresholds", inner)
            object.__setattr__(self, "num_thresholds", len(inner) + 2)
        if self.num_thresholds < 2:
            raise ValueError(f"Expected num_thresholds of at least 2, received {self.num_thresholds}.")
        object.__setattr__(self, "curve", curve)
        object.__setattr__(self, "summation_method", method)

    @cached_property
    def _thresholds(self) -> _Thresholds:
        return _Thresholds.even(self.num_thresholds, self.thresholds)

    def size(self, n_outputs):
        return super().size(n_outputs) * (n_outputs if self.multi_label else 1)

    def sums(self, y, P, weight):
        y, n_outputs = self._targets(y, P), P.shape[1]
        if self.from_logits:
            P = expit(P)
        weight = self._weights_of_outputs(weight, P)
        first = np.arange(n_outputs) * (2 * self._thresholds.n_buckets) if self.multi_label else 0
        return _histogram(self._thresholds, y, P, weight, first, self.size(n_outputs))

    def _weights_of_outputs(self, weight, P):
        """Return a weight for each output, flat, or None."""
        n_outputs = P.shape[1]
        for what, n in (("num_labels", self.num_labels), ("label_weights", self._n_label_weights)):
            if n and n != n_outputs:
                raise ValueError(f"AUC expects {what} for {n_outputs} outputs, received {n}.")
        weight = flat_weights(weight, P)
        if self.label_weights is not None and not self.multi_label:
            of_outputs = np.tile(self.label_weights, len(P))
            return of_outputs if weight is None else weight * of_outputs
        return weight

    @property
    def _n_label_weights(self) -> int:
        return 0 if self.label_weights is None else len(self.label_weights)

    def result_of(self, sums, n_outputs):
        counts = _counts(self._thresholds, sums.reshape(-1, 2, self._thresholds.n_buckets))
        # One area for each output, or a single one.
        areas = self._result(counts)
        return float(np.average(areas, weights=self.label_weights if self.multi_label else None))

    def _result(self, counts):
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_precision(counts)
        if self.curve == "ROC":
            x, y = ratio(counts.fp, counts.fp + counts.tn), counts.recall
        elif self.curve == "PR":
            x, y = counts.recall, counts.precision
        else:
            x, y = _gains(counts)
        left, right = y[..., :-1], y[..., 1:]
        if self.summation_method == "interpolation":
            heights = (left + right) / 2
        else:
            heights = (np.minimum if self.summation_method == "minoring" else np.maximum)(left, right)
        return ((x[..., :-1] - x[..., 1:]) * heights).sum(axis=-1)

    def get_config(self):
        config = super().get_config()
        if self.thresholds is None:
            del config["thresholds"]
        return config


def _interpolated_precision(counts: _Counts):
    """Return the area under precision over recall; between two thresholds true positives grow in proportion.

    Davis and Goadrich 2006, "The relationship between precision-recall and ROC curves".
    """
    positive = counts.tp + counts.fp
    gained, shown = counts.tp[..., :-1] - counts.tp[..., 1:], positive[..., :-1] - positive[..., 1:]
    slope = ratio(gained, np.maximum(shown, 0))
    intercept = counts.tp[..., 1:] - slope * positive[..., 1:]
    growth = np.where(
        (positive[..., :-1] > 0) & (positive[..., 1:] > 0), ratio(positive[..., :-1], positive[..., 1:]), 1.0
    )
    true = np.maximum(counts.tp[..., 1:] + counts.fn[..., 1:], 0)
    return ratio(slope * (gained + intercept * np.log(growth)), true).sum(axis=-1)


def _gains(counts: _Counts):
    """Return recall gain and precision gain (Flach and Kull 2015)."""
    odds = ratio(counts.tp + counts.fn, counts.tn + counts.fp)
    is_none = counts.tp == 0
    recall = np.where(is_none, 0.0, 1 - odds * ratio(counts.fn, counts.tp))
    precision = np.where(is_none, 1.0, 1 - odds * ratio(counts.fp, counts.tp))
    return np.maximum(recall, 0), precision
