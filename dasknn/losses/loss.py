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
from dataclasses import fields
from typing import Any, ClassVar, Protocol

import numpy as np

from dasknn.saving.serialization import Configurable

# Keras keeps probabilities, and what it divides by, this far from 0.
EPSILON = 1e-7
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

    ::

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


class Bound(BoundLoss):
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


class _BoundRows(Bound):
    def allocate(self, n_rows, n_outputs, dtype):
        pass

    def write_rows(self, P, y):
        self.rows[...] = self.loss.rows(y, P)

    def write_slopes(self, P, y, out):
        out[...] = self.loss.slopes(y, P)


class BufferedLoss(RowLoss):
    """A loss whose bound form needs no array per step."""

    def rows(self, y, P):
        bound = self.bind(len(P), P.shape[1], P.dtype, "")
        bound.write_rows(P, y)
        return bound.rows

    @abstractmethod
    def bind(self, n_rows, n_outputs, dtype, output_activation) -> Bound:
        """Return the loss with its buffers."""


class ElementwiseLoss(RowLoss):
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


class OneHotLoss(RowLoss):
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
