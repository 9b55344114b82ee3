"""Base classes of losses: the summed loss of a mini-batch, and its derivative.

`Loss.bind` makes a `BoundLoss` for mini-batches of one size:

    loss_sum = bound(P, y, weight, out=dP)

P (n, k) are the outputs of the network. dP becomes the derivative with respect to the logits of the last
activation if `to_logits`, else with respect to P. Both are *sums* over rows, times weight (n,) or (None) 1.
`Loss.divisor` returns the number to divide them by, so that sums and divisors of replicas add up.

y (n, k) has the dtype of P; if the loss `takes_labels`, y (n,) are integers. Names, arguments and rules are
Keras's. Most losses compute the derivative row by row (`RowLoss`); the four most used have buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np

from dasknn.saving.serialization import Configurable

# Keras keeps probabilities and divisors at least this far from 0.
EPSILON = 1e-7
_OVER_ROWS = ("sum_over_batch_size", "mean")
_OVER_WEIGHTS = "mean_with_sample_weight"
# How losses read the outputs of a row: see Loss.judges.
NUMBERS, LABELS, CLASSES = "numbers", "labels", "classes"


@dataclass(frozen=True)
class Form:
    """A loss as numbers: all that an engine needs to know which computes it in its own way.

    Attributes
    ----------
    kind : {LABELS, CLASSES, BINARY, SQUARED}
        Cross-entropy of labels, of targets of all classes, of each output by itself; squared differences.
    from_logits : bool
        Whether outputs are logits.
    to_logits : bool
        Whether the derivative is with respect to the logits of the last activation, by the closed form.
    over_rows : bool
        Whether sums are divided by the number of rows, whatever their weights.
    least : float
        How far probabilities are kept from 0 and 1.
    value_scale, slope_scale : float
        Factors of the loss of a row and of its derivative.
    smoothing, smooth_share : float
        Targets become y * (1 - smoothing) + smoothing * smooth_share.
    """

    LABELS: ClassVar[str] = "labels"
    CLASSES: ClassVar[str] = "classes"
    BINARY: ClassVar[str] = "binary"
    SQUARED: ClassVar[str] = "squared"

    kind: str
    from_logits: bool
    to_logits: bool
    over_rows: bool
    least: float = 0.0
    value_scale: float = 1.0
    slope_scale: float = 1.0
    smoothing: float = 0.0
    smooth_share: float = 0.0


class BoundLoss(Protocol):
    """A loss with its buffers for n rows and k outputs; called once per step."""

    #: Whether the derivative is with respect to the logits, not the outputs.
    to_logits: bool

    @abstractmethod
    def __call__(self, P: np.ndarray, y: Any, weight: np.ndarray | None, out: np.ndarray) -> float:
        """Return the weighted sum of the losses of all rows; write its derivative (n, k) into out."""

    def mean(self, P: np.ndarray, y: Any, weight: np.ndarray | None) -> float:
        """Return the weighted mean over rows; allocates an array of the size of P."""
        return self(P, y, weight, np.empty_like(P)) / (len(P) if weight is None else float(weight.sum()))


class Loss(ABC):
    """Base class of losses.

    For a loss of your own, subclass `RowLoss`; or this class, to compute in buffers of your own.
    """

    name: str = "loss"
    #: Whether targets are labels (n,) of integers.
    takes_labels: ClassVar[bool] = False
    #: How it reads the outputs of a row: as NUMBERS; as LABELS, one yes or no for each output; or as CLASSES,
    #: one of which is true.
    judges: ClassVar[str] = NUMBERS
    #: Whether outputs are margins, whose sign is the prediction, instead of probabilities.
    takes_margins: ClassVar[bool] = False

    @abstractmethod
    def bind(self, n_rows: int, n_outputs: int, dtype, output_activation: str) -> BoundLoss:
        """Return the loss with its buffers.

        Parameters
        ----------
        n_rows, n_outputs : int
            Shape of the outputs.
        dtype : numpy dtype
            Their dtype.
        output_activation : str
            Name of the last activation of the network, for losses with a closed form of both derivatives.

        Returns
        -------
        BoundLoss
        """

    @abstractmethod
    def check_targets(self, y: np.ndarray, n_outputs: int) -> None:
        """Raise ValueError if targets have a shape, dtype or range that this loss does not accept."""

    def form(self, n_outputs: int, output_activation: str, dtype: Any) -> Form | None:
        """Return the loss as numbers, for networks with this last activation; None: it has no such form.

        It is that of the class that defines it, and not of subclasses, which may compute something else.
        """
        return None

    @property
    def of_mean(self) -> Loss:
        """The loss of predictions: this loss, unless a network has members, whose mean they are."""
        return self

    def divisor(self, n_rows: int, weight: np.ndarray | None) -> float:
        """Return the number to divide a sum over rows by; here, the sum of their weights."""
        return n_rows if weight is None else float(weight.sum())

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        """Return the mean loss of a batch.

        Parameters
        ----------
        y_true : array (n, k), or (n,) for one output
            Targets; labels (n,) or (n, 1) if the loss takes labels.
        y_pred : array (n, k) or (n,)
            Outputs.
        sample_weight : float, array (n,) or (n, 1), or None, default=None
            Weights of rows.

        Raises
        ------
        ValueError
            Targets or weights of an unexpected shape or range.
        """
        P = as_outputs(y_pred)
        y = as_labels(y_true) if self.takes_labels else as_targets(y_true, P)
        self.check_targets(y, P.shape[1])
        weight = as_weights(sample_weight, P)
        loss_sum = self.bind(len(P), P.shape[1], P.dtype, "")(P, y, weight, np.empty_like(P))
        divisor = self.divisor(len(P), weight)
        return loss_sum / divisor if divisor else 0.0


def as_outputs(y_pred) -> np.ndarray:
    """Return outputs as floats (n, k); ValueError if they have more dimensions."""
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
    """Return targets in the dtype of the outputs P (n, k); as (n, 1) if there is one output."""
    y = np.asarray(y_true, P.dtype)
    return y.reshape(-1, 1) if y.ndim < 2 and P.shape[1] == 1 else y


def as_weights(sample_weight, P: np.ndarray, *, of_outputs: bool = False) -> np.ndarray | None:
    """Return the weights of rows (n,) in the dtype of the outputs P (n, k).

    Parameters
    ----------
    sample_weight : float, array (n,) or (n, 1), or None
        A number is the weight of every row; None is returned as it is.
    P : array (n, k)
        Outputs.
    of_outputs : bool, default=False
        Whether weights of single outputs (n, k) are accepted, too.

    Raises
    ------
    ValueError
        Weights of another shape, even if there are n of them.
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
    """Return labels (n,) or (n, 1) as (n,); whole numbers in floats as integers."""
    y = np.asarray(y_true)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(-1)
    if y.dtype.kind == "f" and np.array_equal(y, np.rint(y)):
        y = y.astype(np.intp)
    return y


class RowLoss(Configurable, Loss):
    """Base class of losses that are computed row by row.

    Parameters
    ----------
    reduction : {"sum_over_batch_size", "mean", "mean_with_sample_weight"}, default="sum_over_batch_size"
        Divide the sum over a batch by the number of rows (the first two), or by the sum of their weights.
    name : str
        Name of the loss.
    dtype : None or "float32", default=None
        For compatibility with Keras; a loss computes in the dtype of the model.

    Examples
    --------
    A loss of your own has two methods, the loss and its derivative for targets y and outputs P (n, k)::

        @dataclass(frozen=True)
        class Cubed(RowLoss):
            name: str = "cubed"

            def rows(self, y, P):
                return (np.abs(P - y) ** 3).sum(axis=1)

            def slopes(self, y, P):
                return 3 * (P - y) * np.abs(P - y)
    """

    reduction: str = "sum_over_batch_size"
    dtype: str | None = None

    #: Range of valid targets: outside, the loss is unbounded or meaningless.
    targets_in: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    #: End of the message about targets outside that range.
    targets_remedy: ClassVar[str] = "Scale them, or choose another loss."
    #: Settings that Keras omits from a configuration; here they are omitted if they have the default.
    _unwritten: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.reduction not in (*_OVER_ROWS, _OVER_WEIGHTS):
            raise ValueError(
                f"Expected reduction 'sum_over_batch_size' or 'mean_with_sample_weight', received "
                f"{self.reduction!r}. Use one of these, because replicas add up shares of a mean; instead of "
                "a sum, use a larger learning rate."
            )
        if self.dtype not in (None, "float32"):
            raise ValueError(
                f"Expected dtype None or 'float32', received {self.dtype!r}. Omit it: a loss computes in the "
                "dtype of the model."
            )
        if getattr(self, "axis", -1) not in (-1, 1):
            raise ValueError(
                f"Expected axis -1, received {self.axis!r}. Omit it: rows are flat."  # type: ignore[attr-defined]
            )
        super().__post_init__()

    @abstractmethod
    def rows(self, y: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return the loss of each row (n,), without weights."""

    def slopes(self, y: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return the derivative (n, k) of the loss of each row with respect to its outputs."""
        raise NotImplementedError(
            f"{type(self).__name__} has no derivative. Define the method `slopes`, or override `bind`."
        )

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
        # Rounding may put smoothed labels slightly outside.
        if not least - 1e-6 <= y.min() <= y.max() <= most + 1e-6:
            expected = f"of at least {least:g}" if most == np.inf else f"in [{least:g}, {most:g}]"
            raise ValueError(
                f"{type(self).__name__} expects targets {expected}, received {y.min():g} to {y.max():g}. "
                f"{self.targets_remedy}"
            )

    def _remedy(self, y, n_columns: int) -> str:
        return f"Use {n_columns} units in the last layer, or as many columns in y as the model has outputs."

    @property
    def is_over_rows(self) -> bool:
        """Whether sums are divided by the number of rows, whatever their weights."""
        return self.reduction in _OVER_ROWS

    def divisor(self, n_rows, weight):
        return n_rows if weight is None or self.is_over_rows else float(weight.sum())

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        defaults = {setting.name: setting.default for setting in fields(self)}  # type: ignore[arg-type]
        for name in self._unwritten:
            if getattr(self, name) == defaults[name]:
                del config[name]
        return config


class BufferedBound(BoundLoss):
    """A loss with buffers, which writes the losses of rows and their derivatives, without weights.

    Rows are summed by products with ones: numpy's own sums along short rows take ten times as long.
    """

    to_logits = False

    def __init__(self, loss: Any, n_rows: int, n_outputs: int, dtype, to_logits: bool = False):
        self.loss = loss
        self.to_logits = to_logits
        self.rows = np.empty(n_rows, dtype)
        self.allocate(n_rows, n_outputs, np.dtype(dtype))

    def allocate(self, n_rows: int, n_outputs: int, dtype: np.dtype) -> None:
        """Allocate the buffers."""
        self.terms = np.empty((n_rows, n_outputs), dtype)
        self.ones = np.ones(n_outputs, dtype)

    @abstractmethod
    def write_rows(self, P, y) -> None:
        """Write the losses of rows into self.rows."""

    @abstractmethod
    def write_slopes(self, P, y, out) -> None:
        """Write the derivatives (n, k) into out; called after `write_rows` with the same P and y."""

    def __call__(self, P, y, weight, out) -> float:
        self.write_rows(P, y)
        self.write_slopes(P, y, out)
        if weight is None:
            return float(np.add.reduce(self.rows))
        np.multiply(out, weight[:, np.newaxis], out=out)
        return float(np.dot(weight, self.rows))


class _BoundRows(BufferedBound):
    def allocate(self, n_rows, n_outputs, dtype):
        pass

    def write_rows(self, P, y):
        self.rows[...] = self.loss.rows(y, P)

    def write_slopes(self, P, y, out):
        out[...] = self.loss.slopes(y, P)


class BufferedLoss(RowLoss):
    """A loss that allocates nothing per step."""

    def rows(self, y, P):
        bound = self.bind(len(P), P.shape[1], P.dtype, "")
        bound.write_rows(P, y)
        return bound.rows

    @abstractmethod
    def bind(self, n_rows, n_outputs, dtype, output_activation) -> BufferedBound:
        """Return the loss with its buffers."""


class ElementwiseLoss(RowLoss):
    """A loss that is a mean over outputs of a function of one target and one output."""

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return the loss of each output (n, k)."""

    @abstractmethod
    def term_slopes(self, y, P) -> np.ndarray:
        """Return the derivative (n, k) of the loss of each output."""

    def rows(self, y, P):
        return self.terms(y, P).mean(axis=1)

    def slopes(self, y, P):
        return self.term_slopes(y, P) / P.shape[1]


class OneHotLoss(RowLoss):
    """A loss whose targets (n, k) are probabilities of classes, or one-hot."""

    judges = CLASSES
    targets_in = (0, np.inf)

    def _remedy(self, y, n_columns):
        if n_columns == 1:
            return (
                "Use loss='sparse_categorical_crossentropy' for labels, or one-hot targets; for a model with "
                "one output use loss='binary_crossentropy'."
            )
        return super()._remedy(y, n_columns)
