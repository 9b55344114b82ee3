"""Metrics: sums over rows that may be added up in any order, and what follows from them.

    sums = metric.sums(y, P, weight)             float64 (size,) of one mini-batch, partition or replica
    metric.result_of(sums + others, n_outputs)   the metric of all their rows

Names, arguments, their order, defaults and results are Keras's. y is targets (n, k), or labels (n,) of
integers; P (n, k) are the network's outputs; weight (n,) or None, or (n, k) for metrics that count outputs
one by one (`takes_output_weights`). On top of that core every metric has Keras's habit of keeping a tally:
`update_state`, `result`, `reset_state`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from dasknn import losses
from dasknn.saving.serialization import Configurable, Kinds, snake_case
from dasknn.scores import deviation_of

# Keras's threshold where nothing but the largest outputs count, and what it writes over the others.
_NOTHING = -1e10
_EPSILON = 1e-7


class Metric(Configurable, ABC):
    """Settings of a metric. For one of your own, write `size`, `sums` and `result_of`.

    class Bias(Metric):
        name = "bias"

        def size(self, n_outputs):
            return 2

        def sums(self, y, P, weight):
            errors = (P - y).mean(axis=1)
            return np.array([errors.sum(), len(P)] if weight is None else [errors @ weight, weight.sum()])

        def result_of(self, sums, n_outputs):
            return sums[0] / sums[1]
    """

    name: str | None = None
    dtype: str | None = None
    #: Whether it is the same for targets and outputs less a number: with the mean of targets near 0, sums of
    #: their squares keep their digits.
    is_shift_invariant: ClassVar[bool] = False
    #: Whether each output of a row may have a weight of its own.
    takes_output_weights: ClassVar[bool] = False
    #: The metric to use for labels instead.
    _for_labels: ClassVar[str] = "a metric that takes them"

    def __post_init__(self):
        super().__post_init__()
        if self.name is None:
            object.__setattr__(self, "name", snake_case(type(self).__name__))

    @abstractmethod
    def size(self, n_outputs: int) -> int:
        """Return how many sums it needs."""

    @abstractmethod
    def sums(self, y: np.ndarray, P: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the sums over these rows, float64 (size,). ValueError: targets that it cannot take."""

    @abstractmethod
    def result_of(self, sums: np.ndarray, n_outputs: int) -> float | np.ndarray:
        """Return the metric of all rows that were summed."""

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add rows to the tally.

        y_true, y_pred (n, k), or (n,) for one output; labels (n,) or (n, 1) where the metric takes them;
        sample_weight a number, (n,), (n, 1) or None, or (n, k) where the metric counts outputs one by one.
        ValueError: targets or weights that it cannot take.
        """
        P = losses.as_outputs(y_pred)
        weight = losses.as_weights(sample_weight, P, of_outputs=self.takes_output_weights)
        y = np.asarray(y_true)
        earlier, _, center = self.__dict__.get("_tally", (0.0, 0, None))
        n_outputs = P.shape[1]
        if self.is_shift_invariant:
            # The first rows say where all of them are moved to.
            center = _center(y, weight, P) if center is None else center
            y, P = _less(center, y, P)
        # Settings may be frozen; what was counted is not one of them.
        self.__dict__["_tally"] = (earlier + self.sums(y, P, weight), n_outputs, center)

    def result(self) -> float | np.ndarray:
        """Return the metric of the rows since `reset_state`."""
        sums, n_outputs, _ = self.__dict__.get("_tally", (None, 1, None))
        return self.result_of(np.zeros(self.size(n_outputs)) if sums is None else sums, n_outputs)

    def reset_state(self) -> None:
        """Forget all rows."""
        self.__dict__.pop("_tally", None)

    def __call__(self, y_true, y_pred, sample_weight=None) -> float | np.ndarray:
        """Add rows to the tally, and return the metric of all so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() if is_dataclass(self) else {"name": self.name}
        return {**config, "dtype": self.dtype or "float32"}

    def _targets(self, y, P) -> np.ndarray:
        """Return targets of the shape of P. ValueError: others."""
        if y.ndim < 2 and P.shape[1] == 1:
            y = y.reshape(-1, 1)
        if y.shape != P.shape:
            raise ValueError(
                f"{type(self).__name__} expects targets of shape {P.shape}, received {y.shape}. "
                f"Use one-hot targets, or {self._for_labels} for labels."
            )
        return y

    def _labels(self, y) -> np.ndarray:
        """Return labels (n,). ValueError: targets of another shape."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim != 1:
            kind = type(self).__name__
            raise ValueError(
                f"{kind} expects labels of shape (n,), received targets of shape {y.shape}. "
                f"Use {kind.removeprefix('Sparse')} for one-hot targets."
            )
        return y


def _center(y, weight, P) -> tuple[float, ...] | None:
    """Return the mean of targets of the shape of P (n, k), 0 for an output of which none counts.

    None for targets of other shapes, and where no row counts.
    """
    y = np.asarray(y, np.float64)
    if y.size != P.size or not len(P) or (weight is not None and not weight.any()):
        return None
    weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
    weight = np.broadcast_to(weight if weight.ndim == 2 else weight[:, np.newaxis], P.shape)
    return tuple(_ratio((weight * y.reshape(P.shape)).sum(axis=0), weight.sum(axis=0)).tolist())


def _less(center: tuple[float, ...] | None, y, P):
    """Return targets and outputs (n, k) less a center (k,), float64; as they are, where there is none."""
    if center is None or y.size != P.size:
        return y, P
    return np.asarray(y, np.float64).reshape(P.shape) - center, P.astype(np.float64) - center


def _ratio(above, below):
    """Return above / below, and 0 where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


# --- means over rows ----------------------------------------------------------------------------------------


class MeanOfRows(Metric):
    """The weighted mean of a number that each row has."""

    @abstractmethod
    def rows(self, y, P) -> np.ndarray:
        """Return the number of each row (n,)."""

    def size(self, n_outputs):
        return 2

    def sums(self, y, P, weight):
        return _mean_sums(self.rows(y, P), weight)

    def result_of(self, sums, n_outputs):
        return float(_ratio(sums[0], sums[1]))


def _mean_sums(rows, weight) -> np.ndarray:
    if weight is None:
        total = np.count_nonzero(rows) if rows.dtype == bool else np.add.reduce(rows, dtype=np.float64)
        return np.array([total, len(rows)], np.float64)
    return np.array(
        [np.dot(weight.astype(np.float64), rows), np.add.reduce(weight, dtype=np.float64)], np.float64
    )


class _MeanOfOutputs(MeanOfRows):
    """The weighted mean of a number that each output has."""

    takes_output_weights = True

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return the number of each output (n, k), for targets of its shape."""

    def rows(self, y, P):
        terms = self.terms(self._targets(y, P), P)
        return terms.reshape(-1) if P.shape[1] == 1 else terms.mean(axis=1)

    def sums(self, y, P, weight):
        if weight is None or weight.ndim == 1:
            return super().sums(y, P, weight)
        terms = self.terms(self._targets(y, P), P)
        return _mean_sums(terms.reshape(-1), weight.reshape(-1)) / P.shape[1]


class _Hits(_MeanOfOutputs):
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


@dataclass(frozen=True)
class RootMeanSquaredError(_MeanOfOutputs):
    """Root of the mean of (P - y)^2."""

    name: str | None = "root_mean_squared_error"
    dtype: str | None = None

    def terms(self, y, P):
        return (P - y) ** 2

    def result_of(self, sums, n_outputs):
        return float(np.sqrt(super().result_of(sums, n_outputs)))


@dataclass(frozen=True)
class MeanOfFunction(MeanOfRows):
    """The mean of fn(y, P), which returns a number for each row (n,), or for each output (n, k)."""

    fn: Callable[[np.ndarray, np.ndarray], Any]
    name: str | None = None
    dtype: str | None = None

    def __post_init__(self):
        if self.name is None:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            object.__setattr__(self, "name", snake_case(name.strip("<>")))

    def rows(self, y, P):
        if y.ndim < 2 and P.shape[1] == 1:
            y = y.reshape(-1, 1)
        rows = np.asarray(self.fn(y, P))
        if rows.shape[:1] != (len(P),):
            raise ValueError(
                f"{self.name} must return a number for each of {len(P)} rows, received shape {rows.shape}. "
                "Take the mean over axis=-1 only."
            )
        return rows.reshape(len(P), -1).mean(axis=1) if rows.ndim > 1 else rows

    def get_config(self):
        raise ValueError(
            f"Expected a metric with settings, received the function {self.name}, which cannot be written. "
            "Subclass dasknn.metrics.Metric."
        )


# --- the losses as metrics ----------------------------------------------------------------------------------


class _MeanOfLoss(MeanOfRows):
    """The mean of the losses of rows, whatever the loss divides by."""

    _loss: ClassVar[type[losses.RowLoss]]

    @cached_property
    def _rows(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        own = {setting.name for setting in fields(self._loss)} - {"name", "dtype", "reduction"}  # type: ignore[arg-type]
        mine = {setting.name for setting in fields(self)}  # type: ignore[arg-type]
        return self._loss(**{name: getattr(self, name) for name in own & mine}).rows

    def rows(self, y, P):
        if self._loss.takes_labels:
            return self._rows(self._labels(y), P)
        return self._rows(np.asarray(self._targets(y, P), P.dtype), P)


@dataclass(frozen=True)
class MeanSquaredError(_MeanOfLoss):
    """See `regression.MeanSquaredError`."""

    name: str | None = "mean_squared_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredError


@dataclass(frozen=True)
class MeanAbsoluteError(_MeanOfLoss):
    """See `regression.MeanAbsoluteError`."""

    name: str | None = "mean_absolute_error"
    dtype: str | None = None
    _loss = losses.MeanAbsoluteError


@dataclass(frozen=True)
class MeanAbsolutePercentageError(_MeanOfLoss):
    """See `regression.MeanAbsolutePercentageError`."""

    name: str | None = "mean_absolute_percentage_error"
    dtype: str | None = None
    _loss = losses.MeanAbsolutePercentageError


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(_MeanOfLoss):
    """See `regression.MeanSquaredLogarithmicError`."""

    name: str | None = "mean_squared_logarithmic_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredLogarithmicError


@dataclass(frozen=True)
class LogCoshError(_MeanOfLoss):
    """See `regression.LogCosh`."""

    name: str | None = "logcosh"
    dtype: str | None = None
    _loss = losses.LogCosh


@dataclass(frozen=True)
class CosineSimilarity(_MeanOfLoss):
    """The cosine of the angle between y and P: minus `regression.CosineSimilarity`."""

    name: str | None = "cosine_similarity"
    dtype: str | None = None
    axis: int = -1
    _loss = losses.CosineSimilarity

    def rows(self, y, P):
        return -super().rows(y, P)

    def get_config(self):
        config = super().get_config()
        del config["axis"]
        return config


@dataclass(frozen=True)
class BinaryCrossentropy(_MeanOfLoss):
    """See `probabilistic.BinaryCrossentropy`."""

    name: str | None = "binary_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    _loss = losses.BinaryCrossentropy


@dataclass(frozen=True)
class CategoricalCrossentropy(_MeanOfLoss):
    """See `probabilistic.CategoricalCrossentropy`."""

    name: str | None = "categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    axis: int = -1
    _for_labels = "SparseCategoricalCrossentropy"
    _loss = losses.CategoricalCrossentropy


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(_MeanOfLoss):
    """See `probabilistic.SparseCategoricalCrossentropy`."""

    name: str | None = "sparse_categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    _loss = losses.SparseCategoricalCrossentropy

    def __post_init__(self):
        super().__post_init__()
        # Refuse at once what the loss does not know.
        _ = self._rows


@dataclass(frozen=True)
class KLDivergence(_MeanOfLoss):
    """See `probabilistic.KLDivergence`."""

    name: str | None = "kl_divergence"
    dtype: str | None = None
    _loss = losses.KLDivergence


@dataclass(frozen=True)
class Poisson(_MeanOfLoss):
    """See `regression.Poisson`."""

    name: str | None = "poisson"
    dtype: str | None = None
    _loss = losses.Poisson


@dataclass(frozen=True)
class Hinge(_MeanOfLoss):
    """See `hinge.Hinge`."""

    name: str | None = "hinge"
    dtype: str | None = None
    _loss = losses.Hinge


@dataclass(frozen=True)
class SquaredHinge(_MeanOfLoss):
    """See `hinge.SquaredHinge`."""

    name: str | None = "squared_hinge"
    dtype: str | None = None
    _loss = losses.SquaredHinge


@dataclass(frozen=True)
class CategoricalHinge(_MeanOfLoss):
    """See `hinge.CategoricalHinge`."""

    name: str | None = "categorical_hinge"
    dtype: str | None = None
    _loss = losses.CategoricalHinge


# --- counts by thresholds -----------------------------------------------------------------------------------


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
        return cls((-_EPSILON, *inner, 1 + _EPSILON), is_even, has_margin=True)

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
    return n >= 3 and np.allclose(values, np.arange(n) / (n - 1), atol=_EPSILON)


@dataclass(frozen=True)
class _Counts:
    """Weights of true and false positives and negatives, each (T,), or (n_outputs, T)."""

    tp: np.ndarray
    fp: np.ndarray
    tn: np.ndarray
    fn: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> np.ndarray:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> np.ndarray:
        return _ratio(self.tn, self.tn + self.fp)


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
        return _histogram(self._thresholds, y, P, _flat_weights(weight, P))

    def result_of(self, sums, n_outputs):
        return self._result(_counts(self._thresholds, sums.reshape(2, -1)))


def _flat_weights(weight: np.ndarray | None, P) -> np.ndarray | None:
    """Return weights (n,) or (n, k) as one for each output of P (n, k), flat."""
    if weight is None or weight.ndim == 2:
        return weight if weight is None else weight.reshape(-1)
    return np.repeat(weight, P.shape[1])


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


def _settle(metric: Metric) -> None:
    """Make lists tuples, so that a metric can be hashed by what it says."""
    for setting in fields(metric):  # type: ignore[arg-type]
        value = getattr(metric, setting.name)
        if isinstance(value, list | np.ndarray):
            object.__setattr__(metric, setting.name, tuple(np.asarray(value).tolist()))


class _AtThresholds(_ByThreshold):
    """A number for each of the thresholds that the user gave."""

    thresholds: float | Sequence[float] | None

    def __post_init__(self):
        super().__post_init__()
        _settle(self)
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
        _settle(self)
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
        weight = _flat_weights(weight, P)
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
            x, y = _ratio(counts.fp, counts.fp + counts.tn), counts.recall
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
    slope = _ratio(gained, np.maximum(shown, 0))
    intercept = counts.tp[..., 1:] - slope * positive[..., 1:]
    growth = np.where(
        (positive[..., :-1] > 0) & (positive[..., 1:] > 0), _ratio(positive[..., :-1], positive[..., 1:]), 1.0
    )
    true = np.maximum(counts.tp[..., 1:] + counts.fn[..., 1:], 0)
    return _ratio(slope * (gained + intercept * np.log(growth)), true).sum(axis=-1)


def _gains(counts: _Counts):
    """Return recall gain and precision gain (Flach and Kull 2015)."""
    odds = _ratio(counts.tp + counts.fn, counts.tn + counts.fp)
    is_none = counts.tp == 0
    recall = np.where(is_none, 0.0, 1 - odds * _ratio(counts.fn, counts.tp))
    precision = np.where(is_none, 1.0, 1 - odds * _ratio(counts.fp, counts.tp))
    return np.maximum(recall, 0), precision


# --- scores -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FBetaScore(Metric):
    """(1 + beta^2) precision recall / (beta^2 precision + recall), for each output.

    average: None for all of them, "micro" for that of all outputs together, "macro" for their mean,
    "weighted" for the mean by how often each is true. threshold: above which an output is positive; None for
    the largest.
    """

    average: str | None = None
    beta: float = 1.0
    threshold: float | None = None
    name: str | None = "fbeta_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.average not in (None, "micro", "macro", "weighted"):
            raise ValueError(
                f"Expected average None, 'micro', 'macro' or 'weighted', received {self.average!r}."
            )
        if not self.beta > 0:
            raise ValueError(f"Expected beta above 0, received {self.beta!r}.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"Expected threshold None, or in (0, 1], received {self.threshold!r}.")

    def size(self, n_outputs):
        return 3 * n_outputs

    def sums(self, y, P, weight):
        y = self._targets(y, P)
        if self.threshold is None:
            # As in Keras, an output of 0 is never positive.
            is_positive = np.equal(P, P.max(axis=1, keepdims=True)) & (np.abs(P) > 1e-9)
        else:
            is_positive = np.greater(P, self.threshold)
        weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
        return np.concatenate([weight @ (is_positive * y), weight @ is_positive, weight @ y])

    def result_of(self, sums, n_outputs):
        both, positive, true = sums.reshape(3, n_outputs)
        if self.average == "micro":
            both, positive, true = both.sum(), positive.sum(), true.sum()
        precision, recall = both / (positive + _EPSILON), both / (true + _EPSILON)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + _EPSILON)
        if self.average is None:
            return scores
        if self.average == "weighted":
            return float((scores * true).sum() / (true.sum() + _EPSILON))
        return float(np.mean(scores))


@dataclass(frozen=True)
class F1Score(Metric):
    """Harmonic mean of precision and recall: `FBetaScore` with beta 1."""

    average: str | None = None
    threshold: float | None = None
    name: str | None = "f1_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        _ = self._score

    @cached_property
    def _score(self) -> FBetaScore:
        return FBetaScore(self.average, 1.0, self.threshold)

    def size(self, n_outputs):
        return self._score.size(n_outputs)

    def sums(self, y, P, weight):
        return self._score.sums(self._targets(y, P), P, weight)

    def result_of(self, sums, n_outputs):
        return self._score.result_of(sums, n_outputs)


@dataclass(frozen=True)
class R2Score(Metric):
    """1 - sum((y - P)^2) / sum((y - mean(y))^2), for each output.

    class_aggregation: None for all of them, "uniform_average" for their mean, "variance_weighted_average"
    for the mean by the variance of each. num_regressors: adjust for so many; 0 for none.

    Its sums keep their digits for targets near 0: whoever adds them up takes a center off targets and
    outputs, the same for all rows (`MetricSet.center`); `update_state` does.
    """

    class_aggregation: str | None = "uniform_average"
    num_regressors: int = 0
    name: str | None = "r2_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "Expected class_aggregation None, 'uniform_average' or 'variance_weighted_average', received "
                f"{self.class_aggregation!r}."
            )
        if self.num_regressors < 0:
            raise ValueError(f"Expected num_regressors of at least 0, received {self.num_regressors}.")

    is_shift_invariant = True
    takes_output_weights = True

    def size(self, n_outputs):
        return 4 * n_outputs + 1

    def sums(self, y, P, weight):
        y = self._targets(y, P).astype(np.float64)
        weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
        weight = np.broadcast_to(weight if weight.ndim == 2 else weight[:, np.newaxis], y.shape)
        parts = [(weight * part).sum(axis=0) for part in (1.0, y, y * y, (y - P) ** 2)]
        return np.concatenate([*parts, [y.size]])

    def result_of(self, sums, n_outputs):
        count, total, squares, residual = sums[:-1].reshape(4, n_outputs)
        n_samples = sums[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            variation = deviation_of(total, squares, count)
            scores = 1 - residual / variation
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = np.mean(scores)
            elif self.class_aggregation == "variance_weighted_average":
                scores = np.sum(variation * scores) / np.sum(variation)
        # n_samples counts targets, not rows, as in Keras. With too few of them, the score is not adjusted.
        if self.num_regressors and self.num_regressors < n_samples - 1:
            scores = 1 - (1 - scores) * (n_samples - 1) / (n_samples - self.num_regressors - 1)
        return scores if self.class_aggregation is None else float(scores)


# --- several metrics ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricSet:
    """Metrics that are computed together, for a network with n_outputs.

    entries: the name in logs, the metric, and whether it is weighted, for each. center (n_outputs,): about
    the mean of targets, which is taken off for metrics that are shift-invariant; it must be one for all sums
    that are added up.
    """

    entries: tuple[tuple[str, Metric, bool], ...]
    n_outputs: int
    center: tuple[float, ...] | None = None

    @cached_property
    def _sizes(self) -> list[int]:
        return [metric.size(self.n_outputs) for _, metric, _ in self.entries]

    @property
    def size(self) -> int:
        """How many sums there are."""
        return sum(self._sizes)

    def sums(self, y, P, weight) -> np.ndarray:
        """Return the sums of all metrics over these rows, float64 (size,)."""
        parts = []
        for _, metric, is_weighted in self.entries:
            own_y, own_P = _less(self.center, y, P) if metric.is_shift_invariant else (y, P)
            parts.append(metric.sums(own_y, own_P, weight if is_weighted else None))
        return np.concatenate(parts) if parts else np.zeros(0)

    def results(self, sums) -> dict[str, Any]:
        """Return the metrics by name, floats or lists of them; sums may be 0.0, of no rows."""
        sums = np.zeros(self.size) if np.ndim(sums) == 0 else sums
        found, begin = {}, 0
        for (name, metric, _), size in zip(self.entries, self._sizes, strict=True):
            result = metric.result_of(sums[begin : begin + size], self.n_outputs)
            found[name] = np.asarray(result, np.float64).tolist()
            begin += size
        return found


def named(metrics: Sequence[Metric], weighted_metrics: Sequence[Metric] = ()) -> list[str]:
    """Return names for logs, each but once: a, a_1, a_2; weighted ones follow as weighted_a, weighted_a_1."""
    counts: dict[str, int] = {}
    names = []
    for i, metric in enumerate([*metrics, *weighted_metrics]):
        name = metric.name or snake_case(type(metric).__name__)
        if name in counts and i >= len(metrics):
            name = f"weighted_{name}"
        n = counts.get(name, 0)
        counts[name] = n + 1
        names.append(f"{name}_{n}" if n else name)
    return names


_SHORT: dict[str, type[Metric]] = {
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_KINDS = Kinds(
    "a metric",
    "keras.metrics",
    Metric,
    [
        AUC,
        Accuracy,
        BinaryAccuracy,
        BinaryCrossentropy,
        CategoricalAccuracy,
        CategoricalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        F1Score,
        FBetaScore,
        FalseNegatives,
        FalsePositives,
        Hinge,
        KLDivergence,
        LogCoshError,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        Precision,
        PrecisionAtRecall,
        R2Score,
        Recall,
        RecallAtPrecision,
        RootMeanSquaredError,
        SensitivityAtSpecificity,
        SparseCategoricalAccuracy,
        SparseCategoricalCrossentropy,
        SparseTopKCategoricalAccuracy,
        SpecificityAtSensitivity,
        SquaredHinge,
        TopKCategoricalAccuracy,
        TrueNegatives,
        TruePositives,
    ],
    {**_SHORT, **{name.upper(): kind for name, kind in _SHORT.items()}},
)


def get(identifier) -> Metric | None:
    """Return the metric that a name, a configuration, a class, an object or a function stands for.

    A function fn(y, P) and a `RowLoss` become their mean; None stays. ValueError: nothing of the kind.
    """
    if isinstance(identifier, losses.RowLoss):
        return MeanOfFunction(identifier.rows, identifier.name)
    if callable(identifier) and not isinstance(identifier, Metric | type):
        return MeanOfFunction(identifier)
    return _KINDS.get(identifier)


def resolve(identifier, loss, n_outputs: int) -> Metric:
    """Return the metric for a network with that loss and n_outputs, under the name that was given.

    "accuracy" and "crossentropy" (or "acc", "ce") are binary for one output, those of labels where the loss
    takes them, and categorical otherwise. ValueError: no metric.
    """
    if identifier is None:
        raise ValueError("Expected a metric, received None. Leave it out.")
    if not isinstance(identifier, str):
        metric = get(identifier)
        assert metric is not None
        return metric
    takes_labels = getattr(loss, "takes_labels", False)
    metric = None
    if identifier.lower() in ("accuracy", "acc"):
        if n_outputs == 1:
            metric = BinaryAccuracy()
        else:
            metric = SparseCategoricalAccuracy() if takes_labels else CategoricalAccuracy()
    elif identifier.lower() in ("crossentropy", "ce"):
        from_logits = getattr(loss, "from_logits", False)
        if n_outputs == 1:
            metric = BinaryCrossentropy(from_logits=from_logits)
        else:
            kind = SparseCategoricalCrossentropy if takes_labels else CategoricalCrossentropy
            metric = kind(from_logits=from_logits)
    else:
        metric = _KINDS.get(identifier)
    return replace(metric, name=identifier)


def serialize(metric: Metric) -> dict[str, Any]:
    """Return the metric in Keras's form for configurations. ValueError: a function."""
    return _KINDS.serialize(metric)


def deserialize(config: Mapping[str, Any]) -> Metric:
    """Return the metric of that configuration. ValueError: an unknown kind, or settings it does not know."""
    return _KINDS.deserialize(config)
