"""Losses: the summed loss of a mini-batch, and its derivative. Names, arguments and rules are Keras's.

`Loss.bind` makes a `BoundLoss` for mini-batches of one size:

    loss_sum = bound(P, y, weight, out=dP)

P (n, k) are the network's outputs; dP becomes the derivative with respect to the logits of the last
activation when `to_logits`, else with respect to P. Everything is a *sum* over rows, times weight (n,) or
(None) 1; `Loss.divisor` says what the sum over a batch is divided by, so that replicas add shares of both.

y (n, k) has the dtype of P, or is labels (n,) of integers where the loss `takes_labels`. Losses whose
derivative is a few lines give it row by row (`RowLoss`); the four that nearly everybody uses have buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy.special import expit, softmax

from dasknn.saving.serialization import Configurable, Kinds

# Keras keeps probabilities, and what it divides by, this far from 0.
_EPSILON = 1e-7
_OVER_ROWS = ("sum_over_batch_size", "mean")
_OVER_WEIGHTS = "mean_with_sample_weight"
#: What losses take outputs for.
NUMBERS, LABELS, CLASSES = "numbers", "labels", "classes"


class BoundLoss(Protocol):
    """One loss with what it needs for n rows and k outputs; called once per step."""

    #: Whether the derivative is that with respect to the logits.
    to_logits: bool

    @abstractmethod
    def __call__(self, P: np.ndarray, y: Any, weight: np.ndarray | None, out: np.ndarray) -> float:
        """Return the weighted sum of the losses of the rows; write its derivative (n, k) into out."""

    def mean(self, P: np.ndarray, y: Any, weight: np.ndarray | None) -> float:
        """Return the weighted mean over rows; takes memory."""
        return self(P, y, weight, np.empty_like(P)) / (len(P) if weight is None else float(weight.sum()))


class Loss(ABC):
    """Settings of a loss; `bind` makes it callable for mini-batches of one size.

    For a loss of your own, subclass `RowLoss`, or this class for one with buffers.
    """

    name: str = "loss"
    #: Whether targets are labels (n,) of integers.
    takes_labels: ClassVar[bool] = False
    #: What it takes outputs for: NUMBERS, LABELS (each says whether a row has one label) or CLASSES (together
    #: they say which of them a row is of); see `outputs`.
    judges: ClassVar[str] = NUMBERS
    #: Whether outputs are margins, of which the sign says the label: no probabilities.
    takes_margins: ClassVar[bool] = False

    @abstractmethod
    def bind(self, n_rows: int, n_outputs: int, dtype, output_activation: str) -> BoundLoss:
        """Return the loss for outputs (n_rows, n_outputs) of a network that ends in that activation."""

    @abstractmethod
    def check_targets(self, y: np.ndarray, n_outputs: int) -> None:
        """ValueError: targets that this loss cannot take."""

    def divisor(self, n_rows: int, weight: np.ndarray | None) -> float:
        """Return what a sum of losses over rows is divided by: here, the sum of their weights."""
        return n_rows if weight is None else float(weight.sum())

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        """Return the loss of a batch, reduced.

        y_true, y_pred (n, k), or (n,) for one output; labels (n,) or (n, 1) where the loss takes them;
        sample_weight a number, (n,), (n, 1) or None. ValueError: targets or weights that it cannot take.
        """
        P = as_outputs(y_pred)
        y = as_labels(y_true) if self.takes_labels else as_targets(y_true, P)
        self.check_targets(y, P.shape[1])
        weight = as_weights(sample_weight, P)
        loss_sum = self.bind(len(P), P.shape[1], P.dtype, "")(P, y, weight, np.empty_like(P))
        divisor = self.divisor(len(P), weight)
        return loss_sum / divisor if divisor else 0.0


def as_outputs(y_pred) -> np.ndarray:
    """Return outputs as (n, k), floating. ValueError: more dimensions."""
    P = np.ascontiguousarray(y_pred)
    if P.dtype.kind != "f":
        P = P.astype(np.float64)
    if P.ndim > 2:
        raise ValueError(
            f"Expected y_pred of shape (n,) or (n, k), received {P.shape}. "
            "Use y_pred.reshape(len(y_pred), -1)."
        )
    return P.reshape(-1, 1) if P.ndim < 2 else P


def as_targets(y_true, P: np.ndarray) -> np.ndarray:
    """Return targets in the dtype of P (n, k); those of one output as (n, 1)."""
    y = np.asarray(y_true, P.dtype)
    return y.reshape(-1, 1) if y.ndim < 2 and P.shape[1] == 1 else y


def as_weights(sample_weight, P: np.ndarray, *, of_outputs: bool = False) -> np.ndarray | None:
    """Return weights in the dtype of P (n, k): (n,), or (n, k) where each output has one; None as it is.

    A number is the weight of each row. of_outputs: whether each output may have one. ValueError: weights of
    another shape, also if they are as many as rows.
    """
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, P.dtype)
    n_rows = len(P)
    if weight.ndim == 0:
        return np.full(n_rows, weight)
    if weight.shape in ((n_rows,), (n_rows, 1)):
        return weight.reshape(n_rows)
    if of_outputs and weight.shape == P.shape:
        return weight
    expected = f"({n_rows},)" + (f" or {P.shape}" if of_outputs and P.shape[1] > 1 else "")
    raise ValueError(
        f"Expected sample_weight of shape {expected}, or one number, for outputs of shape {P.shape}, "
        f"received shape {weight.shape}."
    )


def as_labels(y_true) -> np.ndarray:
    """Return labels (n,) or (n, 1) as (n,); floats that are whole numbers as integers."""
    y = np.asarray(y_true)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(-1)
    if y.dtype.kind == "f" and np.array_equal(y, np.rint(y)):
        y = y.astype(np.intp)
    return y


class RowLoss(Configurable, Loss):
    """A loss given by two functions of the targets y and outputs P (n, k), which work row by row.

        @dataclass(frozen=True)
        class Cubed(RowLoss):
            name: str = "cubed"

            def rows(self, y, P):
                return (np.abs(P - y) ** 3).sum(axis=1)

            def slopes(self, y, P):
                return 3 * (P - y) * np.abs(P - y)

    reduction: what the sum over a batch is divided by; the number of rows ("sum_over_batch_size", also
    called "mean"), or the sum of their weights ("mean_with_sample_weight").
    """

    reduction: str = "sum_over_batch_size"
    dtype: str | None = None

    #: Where targets must be: losses of others have no bound, or no meaning.
    targets_in: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    #: What to do about such targets.
    targets_remedy: ClassVar[str] = "Scale them, or choose another loss."
    #: Settings that Keras leaves out of a configuration; ours has them where they are not the default.
    _unwritten: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.reduction not in (*_OVER_ROWS, _OVER_WEIGHTS):
            raise ValueError(
                f"Expected reduction 'sum_over_batch_size' or 'mean_with_sample_weight', received "
                f"{self.reduction!r}: replicas add up their shares of a mean. Choose one of these; where you "
                "would sum, raise the learning rate."
            )
        if self.dtype not in (None, "float32"):
            raise ValueError(
                f"Expected dtype None or 'float32', received {self.dtype!r}: a loss has the model's. "
                "Leave it out."
            )
        if getattr(self, "axis", -1) not in (-1, 1):
            raise ValueError(
                f"Expected axis -1, received {self.axis!r}: rows of outputs are flat. Leave it out."  # type: ignore[attr-defined]
            )
        super().__post_init__()

    @abstractmethod
    def rows(self, y: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return the loss of each row (n,), without weights."""

    def slopes(self, y: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return the derivative (n, k) of the loss of each row with respect to its outputs."""
        raise NotImplementedError(f"{type(self).__name__} needs `slopes`, or a `bind` of its own.")

    def bind(self, n_rows, n_outputs, dtype, output_activation) -> BoundLoss:
        return _BoundRows(self, n_rows, n_outputs, dtype)

    def check_targets(self, y, n_outputs):
        if y.ndim == 2 and y.shape[1] == n_outputs:
            self._check_range(y)
            return
        n_columns = 1 if y.ndim == 1 else y.shape[-1]
        raise ValueError(
            f"{type(self).__name__} expects targets of shape (n, {n_outputs}), received {y.shape}. "
            + self._remedy(y, n_columns)
        )

    def _check_range(self, y: np.ndarray) -> None:
        least, most = self.targets_in
        if not y.size or self.targets_in == RowLoss.targets_in:
            return
        # Arithmetic may leave labels that were smoothed a little outside.
        if not least - 1e-6 <= y.min() <= y.max() <= most + 1e-6:
            expected = f"of at least {least:g}" if most == np.inf else f"in [{least:g}, {most:g}]"
            raise ValueError(
                f"{type(self).__name__} expects targets {expected}, received {y.min():g} to {y.max():g}. "
                f"{self.targets_remedy}"
            )

    def _remedy(self, y, n_columns: int) -> str:
        return f"Give the last layer {n_columns} units, or y as many columns as there are outputs."

    def divisor(self, n_rows, weight):
        return n_rows if weight is None or self.reduction in _OVER_ROWS else float(weight.sum())

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        defaults = {setting.name: setting.default for setting in fields(self)}  # type: ignore[arg-type]
        for name in self._unwritten:
            if getattr(self, name) == defaults[name]:
                del config[name]
        return config


class _Bound(BoundLoss):
    """Row losses and their derivatives, each in one step, and the weights.

    Rows are summed as products with ones: numpy's own sums along short rows take ten times as long.
    """

    to_logits = False

    def __init__(self, loss: Any, n_rows: int, n_outputs: int, dtype, to_logits: bool = False):
        self.loss = loss
        self.to_logits = to_logits
        self.rows = np.empty(n_rows, dtype)
        self.allocate(n_rows, n_outputs, np.dtype(dtype))

    def allocate(self, n_rows: int, n_outputs: int, dtype: np.dtype) -> None:
        """Make the buffers."""
        self.terms = np.empty((n_rows, n_outputs), dtype)
        self.ones = np.ones(n_outputs, dtype)

    @abstractmethod
    def write_rows(self, P, y) -> None:
        """Write the losses of the rows into self.rows."""

    @abstractmethod
    def write_slopes(self, P, y, out) -> None:
        """Write the derivatives of the rows' losses, after write_rows for the same P and y."""

    def __call__(self, P, y, weight, out) -> float:
        self.write_rows(P, y)
        self.write_slopes(P, y, out)
        if weight is None:
            return float(np.add.reduce(self.rows))
        np.multiply(out, weight[:, np.newaxis], out=out)
        return float(np.dot(weight, self.rows))


class _BoundRows(_Bound):
    def allocate(self, n_rows, n_outputs, dtype):
        pass

    def write_rows(self, P, y):
        self.rows[...] = self.loss.rows(y, P)

    def write_slopes(self, P, y, out):
        out[...] = self.loss.slopes(y, P)


class _BufferedLoss(RowLoss):
    """A loss whose bound form needs no array per step."""

    def rows(self, y, P):
        bound = self.bind(len(P), P.shape[1], P.dtype, "")
        bound.write_rows(P, y)
        return bound.rows

    @abstractmethod
    def bind(self, n_rows, n_outputs, dtype, output_activation) -> _Bound:
        """Return the loss with its buffers."""


# --- regression ---------------------------------------------------------------------------------------------


class _BoundMeanSquaredError(_Bound):
    def allocate(self, n_rows, n_outputs, dtype):
        super().allocate(n_rows, n_outputs, dtype)
        self.squares = np.empty_like(self.terms)

    def write_rows(self, P, y):
        np.subtract(P, y, out=self.terms)
        np.multiply(self.terms, self.terms, out=self.squares)
        np.matmul(self.squares, self.ones, out=self.rows)
        np.multiply(self.rows, 1 / P.shape[1], out=self.rows)

    def write_slopes(self, P, y, out):
        np.multiply(self.terms, 2 / P.shape[1], out=out)


@dataclass(frozen=True)
class MeanSquaredError(_BufferedLoss):
    """(P - y)^2, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_squared_error"
    dtype: str | None = None

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        return _BoundMeanSquaredError(self, n_rows, n_outputs, dtype)


class _ElementwiseLoss(RowLoss):
    """A function of one target and one output, averaged over outputs."""

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return the loss of each output (n, k)."""

    @abstractmethod
    def term_slopes(self, y, P) -> np.ndarray:
        """Return its derivative (n, k)."""

    def rows(self, y, P):
        return self.terms(y, P).mean(axis=1)

    def slopes(self, y, P):
        return self.term_slopes(y, P) / P.shape[1]


@dataclass(frozen=True)
class MeanAbsoluteError(_ElementwiseLoss):
    """|P - y|, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_absolute_error"
    dtype: str | None = None

    def terms(self, y, P):
        return np.abs(P - y)

    def term_slopes(self, y, P):
        return np.sign(P - y)


@dataclass(frozen=True)
class MeanAbsolutePercentageError(_ElementwiseLoss):
    """100 |P - y| / |y|, averaged over outputs; |y| is at least 1e-7."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_absolute_percentage_error"
    dtype: str | None = None

    def terms(self, y, P):
        return 100 * np.abs(P - y) / np.maximum(np.abs(y), _EPSILON)

    def term_slopes(self, y, P):
        return 100 * np.sign(P - y) / np.maximum(np.abs(y), _EPSILON)


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(_ElementwiseLoss):
    """(log(P + 1) - log(y + 1))^2, averaged over outputs; P and y are at least 1e-7."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_squared_logarithmic_error"
    dtype: str | None = None

    def _difference(self, y, P):
        return np.log(np.maximum(P, _EPSILON) + 1) - np.log(np.maximum(y, _EPSILON) + 1)

    def terms(self, y, P):
        return self._difference(y, P) ** 2

    def term_slopes(self, y, P):
        slopes = 2 * self._difference(y, P) / (np.maximum(P, _EPSILON) + 1)
        return np.where(P > _EPSILON, slopes, 0)


@dataclass(frozen=True)
class Huber(_ElementwiseLoss):
    """Half the squared error up to delta, linear beyond; averaged over outputs."""

    delta: float = 1.0
    reduction: str = "sum_over_batch_size"
    name: str = "huber_loss"
    dtype: str | None = None
    _unwritten = ("delta",)

    def terms(self, y, P):
        error = np.abs(P - y)
        return np.where(error <= self.delta, 0.5 * error * error, self.delta * (error - 0.5 * self.delta))

    def term_slopes(self, y, P):
        return np.clip(P - y, -self.delta, self.delta)


@dataclass(frozen=True)
class LogCosh(_ElementwiseLoss):
    """log(cosh(P - y)), averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "log_cosh"
    dtype: str | None = None

    def terms(self, y, P):
        error = np.abs(P - y)
        return error + np.log1p(np.exp(-2 * error)) - np.log(2).astype(P.dtype)

    def term_slopes(self, y, P):
        return np.tanh(P - y)


@dataclass(frozen=True)
class Poisson(_ElementwiseLoss):
    """P - y log(P + 1e-7), averaged over outputs; y of at least 0."""

    targets_in = (0, np.inf)

    reduction: str = "sum_over_batch_size"
    name: str = "poisson"
    dtype: str | None = None

    def terms(self, y, P):
        return P - y * np.log(P + _EPSILON)

    def term_slopes(self, y, P):
        return 1 - y / (P + _EPSILON)


@dataclass(frozen=True)
class CosineSimilarity(RowLoss):
    """Minus the cosine of the angle between y and P; their norms are at least 1e-7."""

    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "cosine_similarity"
    dtype: str | None = None
    _unwritten = ("axis",)

    def rows(self, y, P):
        return -(_normalized(y)[0] * _normalized(P)[0]).sum(axis=1)

    def slopes(self, y, P):
        (unit_y, _), (unit_P, norm) = _normalized(y), _normalized(P)
        cosine = (unit_y * unit_P).sum(axis=1, keepdims=True)
        # A norm that was raised to 1e-7 no longer depends on P.
        along = np.where(norm > _EPSILON, unit_P * cosine, 0)
        return (along - unit_y) / norm


def _normalized(A):
    norm = np.maximum(np.sqrt((A * A).sum(axis=1, keepdims=True)), _EPSILON)
    return A / norm, norm


# --- margins ------------------------------------------------------------------------------------------------


def _signs(y):
    """Return targets of 0 and 1 as -1 and 1, others as they are.

    As in Keras, a mini-batch is looked at as a whole. Targets of -1 and 1 are safe: all of them 1 stays so.
    """
    return 2 * y - 1 if np.all((y == 0) | (y == 1)) else y


@dataclass(frozen=True)
class Hinge(_ElementwiseLoss):
    """max(1 - y P, 0), averaged over outputs; y of -1 and 1, or of 0 and 1."""

    judges = LABELS
    takes_margins = True
    reduction: str = "sum_over_batch_size"
    name: str = "hinge"
    dtype: str | None = None

    def terms(self, y, P):
        return np.maximum(1 - _signs(y) * P, 0)

    def term_slopes(self, y, P):
        y = _signs(y)
        return np.where(1 - y * P > 0, -y, 0)


@dataclass(frozen=True)
class SquaredHinge(_ElementwiseLoss):
    """max(1 - y P, 0)^2, averaged over outputs; y of -1 and 1, or of 0 and 1."""

    judges = LABELS
    takes_margins = True
    reduction: str = "sum_over_batch_size"
    name: str = "squared_hinge"
    dtype: str | None = None

    def terms(self, y, P):
        return np.maximum(1 - _signs(y) * P, 0) ** 2

    def term_slopes(self, y, P):
        y = _signs(y)
        return -2 * y * np.maximum(1 - y * P, 0)


class _OneHotLoss(RowLoss):
    """Targets say how probable each of k classes is."""

    judges = CLASSES
    targets_in = (0, np.inf)

    def _remedy(self, y, n_columns):
        if n_columns == 1:
            return (
                "Use loss='sparse_categorical_crossentropy', or one-hot targets. "
                "With one output, use loss='binary_crossentropy'."
            )
        return super()._remedy(y, n_columns)


@dataclass(frozen=True)
class CategoricalHinge(_OneHotLoss):
    """max(1 + max((1 - y) P) - sum(y P), 0) over the classes; y one-hot."""

    takes_margins = True
    reduction: str = "sum_over_batch_size"
    name: str = "categorical_hinge"
    dtype: str | None = None

    def rows(self, y, P):
        return np.maximum(((1 - y) * P).max(axis=1) - (y * P).sum(axis=1) + 1, 0)

    def slopes(self, y, P):
        rows, best = np.arange(len(P)), ((1 - y) * P).argmax(axis=1)
        slopes = -y
        slopes[rows, best] += 1 - y[rows, best]
        return slopes * (self.rows(y, P) > 0)[:, np.newaxis]


_BINARY_REMEDY = (
    "Encode two classes as 0 and 1, or use loss='hinge' for -1 and 1; for more classes use "
    "loss='sparse_categorical_crossentropy' and as many outputs."
)


# --- probabilities of k events ------------------------------------------------------------------------------


def _clipped(P, out=None):
    """Return P, kept 1e-7 away from 0 and 1."""
    out = np.maximum(P, _EPSILON, out=out)
    return np.minimum(out, 1 - _EPSILON, out=out)


def _clear_clipped(slopes, P, mask=None) -> None:
    """Write 0 where `_clipped` moves P, so that the loss does not depend on it."""
    mask = np.less(P, _EPSILON, out=mask)
    np.copyto(slopes, 0, where=mask)
    np.greater(P, 1 - _EPSILON, out=mask)
    np.copyto(slopes, 0, where=mask)


def _smoothed(y, smoothing: float, share: float, out=None):
    """Return targets moved towards `share`: y (1 - smoothing) + smoothing * share."""
    if not smoothing:
        return y
    out = np.multiply(y, 1 - smoothing, out=out)
    return np.add(out, smoothing * share, out=out)


class _BoundBinaryCrossentropy(_Bound):
    def allocate(self, n_rows, n_outputs, dtype):
        super().allocate(n_rows, n_outputs, dtype)
        self.chances = np.empty_like(self.terms)
        self.targets = np.empty_like(self.terms)
        self.mask = np.empty(self.terms.shape, bool)

    def write_rows(self, P, y):
        # log(1 - p) + y (log p - log(1 - p))
        y = _smoothed(y, self.loss.label_smoothing, 0.5, self.targets)
        terms, chances = self.terms, _clipped(P, self.chances)
        np.subtract(1, chances, out=terms)
        np.log(terms, out=terms)
        np.log(chances, out=chances)
        np.subtract(chances, terms, out=chances)
        np.multiply(chances, y, out=chances)
        np.add(terms, chances, out=terms)
        np.matmul(terms, self.ones, out=self.rows)
        np.multiply(self.rows, -1 / P.shape[1], out=self.rows)

    def write_slopes(self, P, y, out):
        if self.loss.label_smoothing:
            y = self.targets
        if self.to_logits:
            # In closed form. Keras's gradient vanishes where it clips P, and a network that is sure of the
            # wrong label would never learn; this one does.
            np.subtract(P, y, out=out)
        else:
            chances, terms = _clipped(P, self.chances), self.terms
            np.subtract(1, chances, out=terms)
            np.multiply(terms, chances, out=terms)
            np.subtract(chances, y, out=out)
            np.divide(out, terms, out=out)
            _clear_clipped(out, P, self.mask)
        np.multiply(out, 1 / P.shape[1], out=out)


class _BoundBinaryLogits(_BoundBinaryCrossentropy):
    def allocate(self, n_rows, n_outputs, dtype):
        super().allocate(n_rows, n_outputs, dtype)
        self.totals = np.empty_like(self.terms)

    def write_rows(self, P, y):
        # max(z, 0) - z y + log(1 + exp(-|z|)) does not overflow. log1p would take many times as long, for
        # losses that are smaller than the dtype's rounding of 1.
        y = _smoothed(y, self.loss.label_smoothing, 0.5, self.targets)
        terms, chances, totals = self.terms, self.chances, self.totals
        np.abs(P, out=chances)
        np.negative(chances, out=chances)
        np.exp(chances, out=chances)
        np.add(chances, 1, out=totals)
        np.log(totals, out=terms)
        # exp(-|z|) / (1 + exp(-|z|)) where z is negative, else 1 / (1 + exp(-|z|)).
        np.greater_equal(P, 0, out=self.mask)
        np.copyto(chances, 1, where=self.mask)
        np.divide(chances, totals, out=chances)
        np.maximum(P, 0, out=totals)
        np.add(terms, totals, out=terms)
        np.multiply(P, y, out=totals)
        np.subtract(terms, totals, out=terms)
        np.matmul(terms, self.ones, out=self.rows)
        np.multiply(self.rows, 1 / P.shape[1], out=self.rows)

    def write_slopes(self, P, y, out):
        np.subtract(self.chances, self.targets if self.loss.label_smoothing else y, out=out)
        np.multiply(out, 1 / P.shape[1], out=out)


@dataclass(frozen=True)
class BinaryCrossentropy(_BufferedLoss):
    """-y log p - (1 - y) log(1 - p) in nats, averaged over outputs; y in [0, 1].

    p is P, or the logistic function of P if from_logits.
    """

    judges = LABELS
    targets_in = (0, 1)
    targets_remedy = _BINARY_REMEDY

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "binary_crossentropy"
    dtype: str | None = None

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        if self.from_logits:
            return _BoundBinaryLogits(self, n_rows, n_outputs, dtype)
        return _BoundBinaryCrossentropy(self, n_rows, n_outputs, dtype, output_activation == "logistic")


@dataclass(frozen=True)
class BinaryFocalCrossentropy(_ElementwiseLoss):
    """Binary cross-entropy times (1 - p(y))^gamma, averaged over outputs (Lin et al. 2018).

    apply_class_balancing: times alpha where y is 1, and 1 - alpha where it is 0.
    """

    targets_in = (0, 1)
    targets_remedy = _BINARY_REMEDY

    apply_class_balancing: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    judges = LABELS
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "binary_focal_crossentropy"
    dtype: str | None = None

    def _parts(self, y, P):
        """Return targets, chances, the chance that y does not give, cross-entropies, and class weights."""
        y = _smoothed(y, self.label_smoothing, 0.5)
        chances = expit(P) if self.from_logits else P
        clipped = _clipped(chances)
        terms = -y * np.log(clipped) - (1 - y) * np.log(1 - clipped)
        balance = y * self.alpha + (1 - y) * (1 - self.alpha) if self.apply_class_balancing else 1
        return y, chances, 1 - y * chances - (1 - y) * (1 - chances), terms, balance

    def terms(self, y, P):
        _, _, missed, terms, balance = self._parts(y, P)
        return balance * missed**self.gamma * terms

    def term_slopes(self, y, P):
        y, chances, missed, terms, balance = self._parts(y, P)
        clipped = _clipped(chances)
        slopes = (clipped - y) / (clipped * (1 - clipped))
        _clear_clipped(slopes, chances)
        slopes = balance * (
            missed**self.gamma * slopes + _power_slope(missed, self.gamma) * (1 - 2 * y) * terms
        )
        return slopes * chances * (1 - chances) if self.from_logits else slopes


def _power_slope(base, power: float):
    """Return the derivative of base**power; finite at 0."""
    return power * np.maximum(base, _EPSILON) ** (power - 1) if power else np.zeros_like(base)


# --- probabilities of k classes -----------------------------------------------------------------------------


class _BoundCategorical(_Bound):
    """What losses on k classes share: buffers, and softmax."""

    def allocate(self, n_rows, n_outputs, dtype):
        _Bound.allocate(self, n_rows, n_outputs, dtype)
        self.transposed = np.empty((n_outputs, n_rows), dtype)
        self.chances = np.empty_like(self.terms)
        self.targets = np.empty_like(self.terms)
        self.mask = np.empty(self.terms.shape, bool)
        self.totals, self.row = np.empty(n_rows, dtype), np.empty(n_rows, dtype)

    def write_exponentials(self, P) -> None:
        """Write P - max(P) into self.terms, exp of that into self.chances, and its sums into self.totals."""
        # Maxima along short rows are slow; see activations.
        np.copyto(self.transposed, P.T)
        np.maximum.reduce(self.transposed, axis=0, out=self.row)
        np.subtract(P, self.row[:, np.newaxis], out=self.terms)
        np.exp(self.terms, out=self.chances)
        np.matmul(self.chances, self.ones, out=self.totals)


class _BoundCategoricalCrossentropy(_BoundCategorical):
    def write_rows(self, P, y):
        y = _smoothed(y, self.loss.label_smoothing, 1 / P.shape[1], self.targets)
        if self.to_logits:
            # The sum of what softmax returns is 1.
            _clipped(P, self.terms)
        else:
            np.matmul(P, self.ones, out=self.totals)
            np.divide(P, self.totals[:, np.newaxis], out=self.chances)
            _clipped(self.chances, self.terms)
        np.log(self.terms, out=self.terms)
        np.multiply(self.terms, y, out=self.terms)
        np.matmul(self.terms, self.ones, out=self.rows)
        np.negative(self.rows, out=self.rows)

    def write_slopes(self, P, y, out):
        if self.loss.label_smoothing:
            y = self.targets
        if self.to_logits:
            # In closed form. Keras's gradient vanishes where it clips P, and a network that is sure of the
            # wrong class would never learn; this one does.
            self.write_differences(P, y, out)
            return
        np.divide(y, _clipped(self.chances, self.terms), out=out)
        np.negative(out, out=out)
        _clear_clipped(out, self.chances, self.mask)
        # P was divided by its sum.
        np.einsum("ij,ij->i", out, self.chances, out=self.row)
        np.subtract(out, self.row[:, np.newaxis], out=out)
        np.divide(out, self.totals[:, np.newaxis], out=out)

    def write_differences(self, P, y, out) -> None:
        """Write P sum(y) - y: what softmax(z) = P makes of the derivative by z."""
        np.matmul(y, self.ones, out=self.row)
        if len(y) and self.row.min() == self.row.max() == 1:
            np.subtract(P, y, out=out)
            return
        np.multiply(P, self.row[:, np.newaxis], out=out)
        np.subtract(out, y, out=out)


class _BoundCategoricalLogits(_BoundCategoricalCrossentropy):
    def write_rows(self, P, y):
        y = _smoothed(y, self.loss.label_smoothing, 1 / P.shape[1], self.targets)
        self.write_exponentials(P)
        np.log(self.totals, out=self.row)
        np.subtract(self.terms, self.row[:, np.newaxis], out=self.terms)
        np.multiply(self.terms, y, out=self.terms)
        np.matmul(self.terms, self.ones, out=self.rows)
        np.negative(self.rows, out=self.rows)

    def write_slopes(self, P, y, out):
        np.divide(self.chances, self.totals[:, np.newaxis], out=self.chances)
        self.write_differences(self.chances, self.targets if self.loss.label_smoothing else y, out)


@dataclass(frozen=True)
class CategoricalCrossentropy(_OneHotLoss, _BufferedLoss):
    """-sum(y log p) in nats over the classes; y (n, k) one-hot, or probabilities.

    p is P divided by its sum, or softmax(P) if from_logits.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "categorical_crossentropy"
    dtype: str | None = None

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        if self.from_logits:
            return _BoundCategoricalLogits(self, n_rows, n_outputs, dtype)
        return _BoundCategoricalCrossentropy(self, n_rows, n_outputs, dtype, output_activation == "softmax")


class _BoundSparseCategoricalCrossentropy(_Bound):
    def allocate(self, n_rows, n_outputs, dtype):
        self.ones = np.ones(n_outputs, dtype)
        self.first = np.arange(0, n_rows * n_outputs, n_outputs)
        self.index = np.empty(n_rows, np.intp)
        self.picked, self.totals = np.empty(n_rows, dtype), np.empty(n_rows, dtype)
        self.mask = np.empty(n_rows, bool)

    def pick(self, P, y) -> None:
        """Write the outputs of the labels into self.picked, and their places into self.index."""
        np.add(self.first, y, out=self.index)
        np.take(P.reshape(-1), self.index, out=self.picked, mode="clip")

    def write_rows(self, P, y):
        self.pick(P, y)
        if not self.to_logits:
            np.matmul(P, self.ones, out=self.totals)
            np.divide(self.picked, self.totals, out=self.picked)
        _clipped(self.picked, self.rows)
        np.log(self.rows, out=self.rows)
        np.negative(self.rows, out=self.rows)

    def write_slopes(self, P, y, out):
        if self.to_logits:
            # In closed form, also where Keras's clip would make the gradient vanish.
            np.copyto(out, P)
            np.subtract(self.picked, 1, out=self.picked)
            out.reshape(-1)[self.index] = self.picked
            return
        # p = P / sum(P): -log p(label) falls by 1 / P(label), and rises by 1 / sum(P) in every output.
        totals = np.divide(1, self.totals, out=self.totals)
        _clear_clipped(totals, self.picked, self.mask)
        np.copyto(out, totals[:, np.newaxis])
        np.divide(totals, _clipped(self.picked, self.picked), out=self.picked)
        np.subtract(totals, self.picked, out=self.picked)
        out.reshape(-1)[self.index] = self.picked


class _BoundSparseCategoricalLogits(_BoundCategorical, _BoundSparseCategoricalCrossentropy):
    def allocate(self, n_rows, n_outputs, dtype):
        _BoundSparseCategoricalCrossentropy.allocate(self, n_rows, n_outputs, dtype)
        _BoundCategorical.allocate(self, n_rows, n_outputs, dtype)

    def write_rows(self, P, y):
        self.write_exponentials(P)
        self.pick(self.terms, y)
        np.log(self.totals, out=self.rows)
        np.subtract(self.rows, self.picked, out=self.rows)

    def write_slopes(self, P, y, out):
        np.divide(self.chances, self.totals[:, np.newaxis], out=out)
        np.take(out.reshape(-1), self.index, out=self.picked, mode="clip")
        np.subtract(self.picked, 1, out=self.picked)
        out.reshape(-1)[self.index] = self.picked


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(_BufferedLoss):
    """-log p(y) in nats; labels y (n,) of integers in [0, k).

    p is P divided by its sum, or softmax(P) if from_logits. ignore_class: only None.
    """

    judges = CLASSES
    from_logits: bool = False
    ignore_class: int | None = None
    reduction: str = "sum_over_batch_size"
    axis: int = -1
    name: str = "sparse_categorical_crossentropy"
    dtype: str | None = None
    takes_labels = True
    _unwritten = ("axis",)

    def __post_init__(self):
        super().__post_init__()
        if self.ignore_class is not None:
            raise ValueError(
                f"Expected ignore_class None, received {self.ignore_class!r}. Leave those rows out, or give "
                "them sample_weight 0."
            )

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        if self.from_logits:
            return _BoundSparseCategoricalLogits(self, n_rows, n_outputs, dtype)
        return _BoundSparseCategoricalCrossentropy(
            self, n_rows, n_outputs, dtype, output_activation == "softmax"
        )

    def check_targets(self, y, n_outputs):
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(
                f"{type(self).__name__} expects labels of shape (n,) and integer dtype, received shape "
                f"{y.shape} and dtype {y.dtype}. Use loss='categorical_crossentropy' for one-hot targets."
            )
        if len(y) and not 0 <= y.min() <= y.max() < n_outputs:
            raise ValueError(
                f"{type(self).__name__} expects labels in [0, {n_outputs}), received {y.min()} to {y.max()}. "
                f"Give the last layer {max(y.max() + 1, n_outputs)} units, or count labels from 0."
            )


@dataclass(frozen=True)
class CategoricalFocalCrossentropy(_OneHotLoss):
    """-sum(alpha (1 - p)^gamma y log p) in nats over the classes; y (n, k) one-hot (Lin et al. 2018)."""

    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "categorical_focal_crossentropy"
    dtype: str | None = None

    def _parts(self, y, P):
        """Return targets, sums of outputs, and chances."""
        y = _smoothed(y, self.label_smoothing, 1 / P.shape[1])
        if self.from_logits:
            return y, 1, softmax(P, axis=1)
        totals = P.sum(axis=1, keepdims=True)
        return y, totals, P / totals

    def rows(self, y, P):
        y, _, chances = self._parts(y, P)
        clipped = _clipped(chances)
        return -self.alpha * ((1 - clipped) ** self.gamma * y * np.log(clipped)).sum(axis=1)

    def slopes(self, y, P):
        y, totals, chances = self._parts(y, P)
        clipped = _clipped(chances)
        slopes = (
            _power_slope(1 - clipped, self.gamma) * np.log(clipped) - (1 - clipped) ** self.gamma / clipped
        )
        slopes *= self.alpha * y
        _clear_clipped(slopes, chances)
        slopes = (slopes - (slopes * chances).sum(axis=1, keepdims=True)) / totals
        return slopes * chances if self.from_logits else slopes


@dataclass(frozen=True)
class KLDivergence(RowLoss):
    """sum(y log(y / P)) in nats over the outputs; both are kept in [1e-7, 1]."""

    reduction: str = "sum_over_batch_size"
    name: str = "kl_divergence"
    dtype: str | None = None

    def rows(self, y, P):
        y, P = np.clip(y, _EPSILON, 1), np.clip(P, _EPSILON, 1)
        return (y * np.log(y / P)).sum(axis=1)

    def slopes(self, y, P):
        inside = (P >= _EPSILON) & (P <= 1)
        return np.where(inside, -np.clip(y, _EPSILON, 1) / np.clip(P, _EPSILON, 1), 0)


# --- names --------------------------------------------------------------------------------------------------

_SHORT: dict[str, type[Loss]] = {
    "bce": BinaryCrossentropy,
    "kld": KLDivergence,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_KINDS = Kinds(
    "a loss",
    "keras.losses",
    Loss,
    [
        BinaryCrossentropy,
        BinaryFocalCrossentropy,
        CategoricalCrossentropy,
        CategoricalFocalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        Hinge,
        Huber,
        KLDivergence,
        LogCosh,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        SparseCategoricalCrossentropy,
        SquaredHinge,
    ],
    {
        **_SHORT,
        **{name.upper(): kind for name, kind in _SHORT.items()},
        "kullback_leibler_divergence": KLDivergence,
    },
)


def get(identifier) -> Loss | None:
    """Return the loss that a name, a configuration, a class or an object stands for; None as it is.

    ValueError: nothing of the kind, or a function.
    """
    if callable(identifier) and not isinstance(identifier, Loss | type):
        raise ValueError(
            f"Expected a loss with its derivative, received the function {identifier!r}: there is no "
            "automatic differentiation. Subclass dasknn.losses.Loss with `bind`, or dasknn.losses.RowLoss "
            "with `rows` and `slopes`."
        )
    return _KINDS.get(identifier)


def serialize(loss: Loss) -> dict[str, Any]:
    """Return the loss in Keras's form for configurations."""
    return _KINDS.serialize(loss)


def deserialize(config: Mapping[str, Any]) -> Loss:
    """Return the loss of that configuration. ValueError: an unknown kind, or settings it does not know."""
    return _KINDS.deserialize(config)
