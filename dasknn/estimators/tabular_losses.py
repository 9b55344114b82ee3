"""Losses of the estimators for tables; `losses.loss` has the interface.

Each is for one last activation, and writes the derivative with respect to its logits.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dasknn.losses import CLASSES, LABELS, BoundLoss, Loss


class TabularLoss(Loss):
    """Base class of these losses."""

    #: The activation of the last layer that the loss is for.
    activation: ClassVar[str]

    @abstractmethod
    def rows(self, y: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return the loss of each row (n,), given targets y and outputs P (n, k)."""

    @abstractmethod
    def write_slopes(self, y: np.ndarray, P: np.ndarray, out: np.ndarray) -> None:
        """Write the derivative of the loss of each row by its logits into out (n, k)."""

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        return _Bound(self)


class _Bound(BoundLoss):
    to_logits = True

    def __init__(self, loss: TabularLoss):
        self.loss = loss

    def __call__(self, P, y, weight, out) -> float:
        rows = self.loss.rows(y, P)
        self.loss.write_slopes(y, P, out)
        if weight is None:
            return float(rows.sum())
        np.multiply(out, weight[:, np.newaxis], out=out)
        return float(rows @ weight)


def _log(P: np.ndarray) -> np.ndarray:
    """Return logarithms of probabilities, which are kept above 0."""
    return np.log(np.maximum(P, np.finfo(P.dtype).tiny))


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise ValueError(f"Expected label_smoothing to be in [0, 1), received {smoothing!r}.")


@dataclass(frozen=True)
class Crossentropy(TabularLoss):
    """Cross-entropy in nats of labels (n,), given probabilities (n, k) of softmax.

    label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al. 2016).
    """

    label_smoothing: float = 0.0
    name: ClassVar[str] = "crossentropy"  # type: ignore[misc]
    activation: ClassVar[str] = "softmax"
    takes_labels: ClassVar[bool] = True
    judges: ClassVar[str] = CLASSES

    def __post_init__(self):
        _check_smoothing(self.label_smoothing)

    def rows(self, y, P):
        kept = 1 - self.label_smoothing
        of_labels = -_log(P[np.arange(len(y)), y])
        if kept == 1:
            return of_labels
        return kept * of_labels - self.label_smoothing * _log(P).mean(axis=1)

    def write_slopes(self, y, P, out):
        np.subtract(P, P.dtype.type(self.label_smoothing / P.shape[1]), out=out)
        out[np.arange(len(y)), y] -= P.dtype.type(1 - self.label_smoothing)

    def check_targets(self, y, n_outputs):
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(
                f"Expected labels of shape (n,) and integer dtype, received shape {y.shape} and {y.dtype}."
            )
        if len(y) and not 0 <= y.min() <= y.max() < n_outputs:
            raise ValueError(f"Expected labels in [0, {n_outputs}), received {y.min()} to {y.max()}.")


class _OfOutputShape(TabularLoss):
    def check_targets(self, y, n_outputs):
        if y.ndim != 2 or y.shape[1] != n_outputs:
            raise ValueError(f"Expected targets of shape (n, {n_outputs}), received {y.shape}.")


@dataclass(frozen=True)
class BinaryCrossentropy(_OfOutputShape):
    """Cross-entropy in nats of y (n, k) of 0 and 1, given probabilities (n, k); summed over the k outputs.

    label_smoothing: half of it is what 0 becomes, and what 1 falls by, as with two classes of `Crossentropy`.
    """

    label_smoothing: float = 0.0
    name: ClassVar[str] = "binary_crossentropy"  # type: ignore[misc]
    activation: ClassVar[str] = "logistic"
    judges: ClassVar[str] = LABELS

    def __post_init__(self):
        _check_smoothing(self.label_smoothing)

    def _smoothed(self, y):
        return y if not self.label_smoothing else y * (1 - self.label_smoothing) + self.label_smoothing / 2

    def rows(self, y, P):
        y = self._smoothed(y)
        return -(y * _log(P) + (1 - y) * _log(1 - P)).sum(axis=1)

    def write_slopes(self, y, P, out):
        np.subtract(P, self._smoothed(y), out=out)


@dataclass(frozen=True)
class HalfSquares(_OfOutputShape):
    """Half the squared error of y (n, k), summed over the k outputs."""

    name: ClassVar[str] = "squared_error"  # type: ignore[misc]
    activation: ClassVar[str] = "identity"

    def rows(self, y, P):
        return 0.5 * np.square(P - y).sum(axis=1)

    def write_slopes(self, y, P, out):
        np.subtract(P, y, out=out)


@dataclass(frozen=True)
class Pinball(TabularLoss):
    """The pinball loss of some quantiles of one number: y (n, 1), outputs (n, q), summed over quantiles.

    With u = y - p, that of the quantile at level a is `max(a * u, (a - 1) * u)`; its minimum is the quantile.

    References
    ----------
    Koenker and Bassett (1978), "Regression quantiles".
    """

    levels: tuple[float, ...] = (0.5,)
    name: ClassVar[str] = "pinball"  # type: ignore[misc]
    activation: ClassVar[str] = "identity"

    def rows(self, y, P):
        levels, above = np.array(self.levels, P.dtype), y - P
        return np.maximum(levels * above, (levels - 1) * above).sum(axis=1)

    def write_slopes(self, y, P, out):
        np.subtract((y < P).astype(P.dtype), np.array(self.levels, P.dtype), out=out)

    def check_targets(self, y, n_outputs):
        if y.ndim != 2 or y.shape[1] != 1:
            raise ValueError(f"Expected targets of shape (n, 1) for quantiles, received {y.shape}.")
