"""Losses of margins: outputs whose sign is the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasknn.losses.loss import LABELS, ElementwiseLoss, OneHotLoss


def _signs(y):
    """Return targets of 0 and 1 as -1 and 1, others unchanged.

    As in Keras, the whole mini-batch decides. Targets of -1 and 1 are safe: if all are 1, they stay 1.
    """
    return 2 * y - 1 if np.all((y == 0) | (y == 1)) else y


@dataclass(frozen=True)
class Hinge(ElementwiseLoss):
    """`max(1 - y * P, 0)`, averaged over outputs; y are -1 and 1, or 0 and 1."""

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
class SquaredHinge(ElementwiseLoss):
    """`max(1 - y * P, 0)**2`, averaged over outputs; y are -1 and 1, or 0 and 1."""

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


@dataclass(frozen=True)
class CategoricalHinge(OneHotLoss):
    """`max(1 + max((1 - y) * P) - sum(y * P), 0)` over the classes; y is one-hot."""

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
