"""Losses of probabilities, or of the logits from which they are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from dasknn.losses.loss import (
    CLASSES,
    EPSILON,
    LABELS,
    BufferedBound,
    BufferedLoss,
    ElementwiseLoss,
    Form,
    OneHotLoss,
    RowLoss,
)

_BINARY_REMEDY = (
    "Encode two classes as 0 and 1, or use loss='hinge' for -1 and 1; for more classes use "
    "loss='sparse_categorical_crossentropy' and as many outputs."
)


# --- probabilities of k labels ------------------------------------------------------------------------------


def _clipped(P, out=None):
    """Return P, kept 1e-7 away from 0 and 1."""
    out = np.maximum(P, EPSILON, out=out)
    return np.minimum(out, 1 - EPSILON, out=out)


def _clear_clipped(slopes, P, mask=None) -> None:
    """Set the derivative to 0 where `_clipped` changed P: there the loss does not depend on P."""
    mask = np.less(P, EPSILON, out=mask)
    np.copyto(slopes, 0, where=mask)
    np.greater(P, 1 - EPSILON, out=mask)
    np.copyto(slopes, 0, where=mask)


def _smoothed(y, smoothing: float, share: float, out=None):
    """Return y * (1 - smoothing) + smoothing * share."""
    if not smoothing:
        return y
    out = np.multiply(y, 1 - smoothing, out=out)
    return np.add(out, smoothing * share, out=out)


def _form(loss, kind: str, activation: str, canonical: str, scale=1.0, smooth_share=0.0) -> Form | None:
    """Return the form of a loss of logits, or of the outputs of its canonical activation."""
    if not (loss.from_logits or activation == canonical):
        return None
    smoothing = getattr(loss, "label_smoothing", 0.0)
    return Form(
        kind,
        loss.from_logits,
        not loss.from_logits,
        loss.is_over_rows,
        EPSILON,
        scale,
        scale,
        smoothing,
        smooth_share,
    )


class _BoundBinaryCrossentropy(BufferedBound):
    def allocate(self, n_rows, n_outputs, dtype):
        super().allocate(n_rows, n_outputs, dtype)
        self.probabilities = np.empty_like(self.terms)
        self.targets = np.empty_like(self.terms)
        self.mask = np.empty(self.terms.shape, bool)

    def write_rows(self, P, y):
        # log(1 - p) + y (log p - log(1 - p))
        y = _smoothed(y, self.loss.label_smoothing, 0.5, self.targets)
        terms, probabilities = self.terms, _clipped(P, self.probabilities)
        np.subtract(1, probabilities, out=terms)
        np.log(terms, out=terms)
        np.log(probabilities, out=probabilities)
        np.subtract(probabilities, terms, out=probabilities)
        np.multiply(probabilities, y, out=probabilities)
        np.add(terms, probabilities, out=terms)
        np.matmul(terms, self.ones, out=self.rows)
        np.multiply(self.rows, -1 / P.shape[1], out=self.rows)

    def write_slopes(self, P, y, out):
        if self.loss.label_smoothing:
            y = self.targets
        if self.to_logits:
            # The closed form. Keras's gradient is 0 where it clips P, so that a network which is sure of a
            # wrong label never learns; with the closed form it does.
            np.subtract(P, y, out=out)
        else:
            probabilities, terms = _clipped(P, self.probabilities), self.terms
            np.subtract(1, probabilities, out=terms)
            np.multiply(terms, probabilities, out=terms)
            np.subtract(probabilities, y, out=out)
            np.divide(out, terms, out=out)
            _clear_clipped(out, P, self.mask)
        np.multiply(out, 1 / P.shape[1], out=out)


class _BoundBinaryLogits(_BoundBinaryCrossentropy):
    def allocate(self, n_rows, n_outputs, dtype):
        super().allocate(n_rows, n_outputs, dtype)
        self.totals = np.empty_like(self.terms)

    def write_rows(self, P, y):
        # max(z, 0) - z y + log(1 + exp(-|z|)) does not overflow. log1p takes many times as long, and differs
        # only where losses are smaller than the rounding of 1 in this dtype.
        y = _smoothed(y, self.loss.label_smoothing, 0.5, self.targets)
        terms, probabilities, totals = self.terms, self.probabilities, self.totals
        np.abs(P, out=probabilities)
        np.negative(probabilities, out=probabilities)
        np.exp(probabilities, out=probabilities)
        np.add(probabilities, 1, out=totals)
        np.log(totals, out=terms)
        # exp(-|z|) / (1 + exp(-|z|)) where z is negative, else 1 / (1 + exp(-|z|)).
        np.greater_equal(P, 0, out=self.mask)
        np.copyto(probabilities, 1, where=self.mask)
        np.divide(probabilities, totals, out=probabilities)
        np.maximum(P, 0, out=totals)
        np.add(terms, totals, out=terms)
        np.multiply(P, y, out=totals)
        np.subtract(terms, totals, out=terms)
        np.matmul(terms, self.ones, out=self.rows)
        np.multiply(self.rows, 1 / P.shape[1], out=self.rows)

    def write_slopes(self, P, y, out):
        np.subtract(self.probabilities, self.targets if self.loss.label_smoothing else y, out=out)
        np.multiply(out, 1 / P.shape[1], out=out)


@dataclass(frozen=True)
class BinaryCrossentropy(BufferedLoss):
    """`-y * log(p) - (1 - y) * log(1 - p)` in nats, averaged over outputs; y is in [0, 1].

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits: `p = sigmoid(P)`. If not, `p = P`.
    label_smoothing : float, default=0.0
        Targets become `y * (1 - label_smoothing) + label_smoothing / 2`.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.

    Notes
    -----
    After a sigmoid layer, the derivative is that of the closed form `p - y`. Keras's is 0 where it clips p to
    [1e-7, 1 - 1e-7].
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

    def form(self, n_outputs, output_activation, dtype):
        scale = 1 / n_outputs
        return _form(self, Form.BINARY, output_activation, "logistic", scale, 0.5)


@dataclass(frozen=True)
class BinaryFocalCrossentropy(ElementwiseLoss):
    """Binary cross-entropy times `(1 - p_y)**gamma`, averaged over outputs; p_y is the probability of y.

    Parameters
    ----------
    apply_class_balancing : bool, default=False
        Whether to multiply by alpha where y is 1, and by 1 - alpha where y is 0.
    alpha : float, default=0.25
        Weight of the class 1.
    gamma : float, default=2.0
        Exponent; 0 gives the binary cross-entropy.
    from_logits : bool, default=False
        Whether P are logits: `p = sigmoid(P)`. If not, `p = P`.
    label_smoothing : float, default=0.0
        Targets become `y * (1 - label_smoothing) + label_smoothing / 2`.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.

    References
    ----------
    Lin et al. (2018), "Focal loss for dense object detection".
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
        """Return targets, probabilities of 1, probabilities of not y, cross-entropies, and class weights."""
        y = _smoothed(y, self.label_smoothing, 0.5)
        probabilities = expit(P) if self.from_logits else P
        clipped = _clipped(probabilities)
        terms = -y * np.log(clipped) - (1 - y) * np.log(1 - clipped)
        balance = y * self.alpha + (1 - y) * (1 - self.alpha) if self.apply_class_balancing else 1
        return y, probabilities, 1 - y * probabilities - (1 - y) * (1 - probabilities), terms, balance

    def terms(self, y, P):
        _, _, missed, terms, balance = self._parts(y, P)
        return balance * missed**self.gamma * terms

    def term_slopes(self, y, P):
        y, probabilities, missed, terms, balance = self._parts(y, P)
        clipped = _clipped(probabilities)
        slopes = (clipped - y) / (clipped * (1 - clipped))
        _clear_clipped(slopes, probabilities)
        slopes = balance * (
            missed**self.gamma * slopes + _power_slope(missed, self.gamma) * (1 - 2 * y) * terms
        )
        return slopes * probabilities * (1 - probabilities) if self.from_logits else slopes


def _power_slope(base, power: float):
    """Return the derivative of base**power; finite at 0."""
    return power * np.maximum(base, EPSILON) ** (power - 1) if power else np.zeros_like(base)


# --- probabilities of k classes -----------------------------------------------------------------------------


class _BoundCategorical(BufferedBound):
    """Buffers and softmax, for losses of k classes."""

    def allocate(self, n_rows, n_outputs, dtype):
        BufferedBound.allocate(self, n_rows, n_outputs, dtype)
        self.transposed = np.empty((n_outputs, n_rows), dtype)
        self.probabilities = np.empty_like(self.terms)
        self.targets = np.empty_like(self.terms)
        self.mask = np.empty(self.terms.shape, bool)
        self.totals, self.row = np.empty(n_rows, dtype), np.empty(n_rows, dtype)

    def write_exponentials(self, P) -> None:
        """Write P - max(P) into terms, its exponential into probabilities, and sums of that into totals."""
        # Maxima along short rows are slow: see the softmax in activations.py.
        np.copyto(self.transposed, P.T)
        np.maximum.reduce(self.transposed, axis=0, out=self.row)
        np.subtract(P, self.row[:, np.newaxis], out=self.terms)
        np.exp(self.terms, out=self.probabilities)
        np.matmul(self.probabilities, self.ones, out=self.totals)


class _BoundCategoricalCrossentropy(_BoundCategorical):
    def write_rows(self, P, y):
        y = _smoothed(y, self.loss.label_smoothing, 1 / P.shape[1], self.targets)
        if self.to_logits:
            # The outputs of softmax add up to 1.
            _clipped(P, self.terms)
        else:
            np.matmul(P, self.ones, out=self.totals)
            np.divide(P, self.totals[:, np.newaxis], out=self.probabilities)
            _clipped(self.probabilities, self.terms)
        np.log(self.terms, out=self.terms)
        np.multiply(self.terms, y, out=self.terms)
        np.matmul(self.terms, self.ones, out=self.rows)
        np.negative(self.rows, out=self.rows)

    def write_slopes(self, P, y, out):
        if self.loss.label_smoothing:
            y = self.targets
        if self.to_logits:
            # The closed form. Keras's gradient is 0 where it clips P, so that a network which is sure of a
            # wrong class never learns; with the closed form it does.
            self.write_differences(P, y, out)
            return
        np.divide(y, _clipped(self.probabilities, self.terms), out=out)
        np.negative(out, out=out)
        _clear_clipped(out, self.probabilities, self.mask)
        # P was divided by its sum.
        np.einsum("ij,ij->i", out, self.probabilities, out=self.row)
        np.subtract(out, self.row[:, np.newaxis], out=out)
        np.divide(out, self.totals[:, np.newaxis], out=out)

    def write_differences(self, P, y, out) -> None:
        """Write P * sum(y) - y, the derivative with respect to z if P = softmax(z)."""
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
        np.divide(self.probabilities, self.totals[:, np.newaxis], out=self.probabilities)
        self.write_differences(self.probabilities, self.targets if self.loss.label_smoothing else y, out)


@dataclass(frozen=True)
class CategoricalCrossentropy(OneHotLoss, BufferedLoss):
    """`-sum(y * log(p))` in nats over the classes; y (n, k) is one-hot, or probabilities.

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits: `p = softmax(P)`. If not, `p = P / sum(P)`.
    label_smoothing : float, default=0.0
        Targets become `y * (1 - label_smoothing) + label_smoothing / k`.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.

    Notes
    -----
    After a softmax layer, the derivative is that of the closed form `p - y`. Keras's is 0 where it clips p to
    [1e-7, 1 - 1e-7].
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

    def form(self, n_outputs, output_activation, dtype):
        return _form(self, Form.CLASSES, output_activation, "softmax", 1.0, 1 / n_outputs)


class _BoundSparseCategoricalCrossentropy(BufferedBound):
    def allocate(self, n_rows, n_outputs, dtype):
        self.ones = np.ones(n_outputs, dtype)
        self.first = np.arange(0, n_rows * n_outputs, n_outputs)
        self.index = np.empty(n_rows, np.intp)
        self.picked, self.totals = np.empty(n_rows, dtype), np.empty(n_rows, dtype)
        self.mask = np.empty(n_rows, bool)

    def pick(self, P, y) -> None:
        """Write the outputs of the labels into self.picked, and their flat indices into self.index."""
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
            # The closed form, also where Keras's gradient is 0 because it clips P.
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
        np.divide(self.probabilities, self.totals[:, np.newaxis], out=out)
        np.take(out.reshape(-1), self.index, out=self.picked, mode="clip")
        np.subtract(self.picked, 1, out=self.picked)
        out.reshape(-1)[self.index] = self.picked


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(BufferedLoss):
    """`-log(p[y])` in nats; labels y (n,) are integers in [0, k).

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits: `p = softmax(P)`. If not, `p = P / sum(P)`.
    ignore_class : None, default=None
        For compatibility with Keras. Use `sample_weight=0` for rows to ignore.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
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
                f"Expected ignore_class None, received {self.ignore_class!r}. Remove rows of that class, or "
                "use sample_weight 0 for them."
            )

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        if self.from_logits:
            return _BoundSparseCategoricalLogits(self, n_rows, n_outputs, dtype)
        return _BoundSparseCategoricalCrossentropy(
            self, n_rows, n_outputs, dtype, output_activation == "softmax"
        )

    def form(self, n_outputs, output_activation, dtype):
        return _form(self, Form.LABELS, output_activation, "softmax")

    def check_targets(self, y, n_outputs):
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(
                f"{type(self).__name__} expects labels of shape (n,) and integer dtype, received shape "
                f"{y.shape} and dtype {y.dtype}. Use loss='categorical_crossentropy' for one-hot targets."
            )
        if len(y) and not 0 <= y.min() <= y.max() < n_outputs:
            raise ValueError(
                f"{type(self).__name__} expects labels in [0, {n_outputs}), received {y.min()} to {y.max()}. "
                f"Use {max(y.max() + 1, n_outputs)} units in the last layer, or encode labels from 0."
            )


@dataclass(frozen=True)
class CategoricalFocalCrossentropy(OneHotLoss):
    """`-sum(alpha * (1 - p)**gamma * y * log(p))` in nats over the classes; y (n, k) is one-hot.

    Parameters
    ----------
    alpha : float, default=0.25
        Factor of the loss.
    gamma : float, default=2.0
        Exponent; 0 gives alpha times the categorical cross-entropy.
    from_logits : bool, default=False
        Whether P are logits: `p = softmax(P)`. If not, `p = P / sum(P)`.
    label_smoothing : float, default=0.0
        Targets become `y * (1 - label_smoothing) + label_smoothing / k`.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.

    References
    ----------
    Lin et al. (2018), "Focal loss for dense object detection".
    """

    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str = "sum_over_batch_size"
    name: str = "categorical_focal_crossentropy"
    dtype: str | None = None

    def _parts(self, y, P):
        """Return targets, sums of outputs, and probabilities."""
        y = _smoothed(y, self.label_smoothing, 1 / P.shape[1])
        if self.from_logits:
            return y, 1, softmax(P, axis=1)
        totals = P.sum(axis=1, keepdims=True)
        return y, totals, P / totals

    def rows(self, y, P):
        y, _, probabilities = self._parts(y, P)
        clipped = _clipped(probabilities)
        return -self.alpha * ((1 - clipped) ** self.gamma * y * np.log(clipped)).sum(axis=1)

    def slopes(self, y, P):
        y, totals, probabilities = self._parts(y, P)
        clipped = _clipped(probabilities)
        slopes = (
            _power_slope(1 - clipped, self.gamma) * np.log(clipped) - (1 - clipped) ** self.gamma / clipped
        )
        slopes *= self.alpha * y
        _clear_clipped(slopes, probabilities)
        slopes = (slopes - (slopes * probabilities).sum(axis=1, keepdims=True)) / totals
        return slopes * probabilities if self.from_logits else slopes


@dataclass(frozen=True)
class KLDivergence(RowLoss):
    """`sum(y * log(y / P))` in nats over the outputs; both are clipped to [1e-7, 1]."""

    reduction: str = "sum_over_batch_size"
    name: str = "kl_divergence"
    dtype: str | None = None

    def rows(self, y, P):
        y, P = np.clip(y, EPSILON, 1), np.clip(P, EPSILON, 1)
        return (y * np.log(y / P)).sum(axis=1)

    def slopes(self, y, P):
        inside = (P >= EPSILON) & (P <= 1)
        return np.where(inside, -np.clip(y, EPSILON, 1) / np.clip(P, EPSILON, 1), 0)
