"""Scores as sums over rows, which add up over partitions and are divided once at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasknn.training.prediction import Score


@dataclass(frozen=True)
class Accuracy(Score):
    """Weighted share of rows whose prediction is right: for multi-label data, whose labels all are."""

    total: float = 0.0
    weight: float = 0.0

    @classmethod
    def of(cls, y_true, y_pred, sample_weight=None) -> Accuracy:
        right = np.asarray(y_true) == np.asarray(y_pred)
        if right.ndim == 2:
            right = right.all(axis=1)
        if sample_weight is None:
            return cls(float(right.sum()), float(len(right)))
        weight = np.asarray(sample_weight, dtype=np.float64)
        return cls(float(weight[right].sum()), float(weight.sum()))

    def __add__(self, other: Accuracy) -> Accuracy:
        return Accuracy(self.total + other.total, self.weight + other.weight)

    def result(self) -> float:
        return self.total / self.weight if self.weight else float("nan")


@dataclass(frozen=True)
class R2(Score):
    """Coefficient of determination, averaged over outputs.

    Means and squared deviations are merged so that a large mean costs no digits.

    Attributes
    ----------
    weight : float
    mean, deviation, error : arrays (k,)
        For each output: mean of the targets, sum of their squared deviations, sum of squared errors.

    References
    ----------
    Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
    variances".
    """

    weight: float
    mean: np.ndarray
    deviation: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, y_true, y_pred, sample_weight=None) -> R2:
        y = np.asarray(y_true, dtype=np.float64)
        y = y[:, np.newaxis] if y.ndim == 1 else y
        predicted = np.asarray(y_pred, dtype=np.float64).reshape(y.shape)
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        total = float(weight.sum())
        mean = weight @ y / total if total else np.zeros(y.shape[1])
        return cls(total, mean, weight @ (y - mean) ** 2, weight @ (y - predicted) ** 2)

    def __add__(self, other: R2) -> R2:
        total = self.weight + other.weight
        if not total:
            return self
        gap = other.mean - self.mean
        share = other.weight / total
        return R2(
            total,
            self.mean + gap * share,
            self.deviation + other.deviation + gap**2 * self.weight * share,
            self.error + other.error,
        )

    def result(self) -> float:
        """Return R^2; NaN for no rows.

        As in scikit-learn, a constant target gives 1 if predictions are exact, else 0.
        """
        if not self.weight:
            return float("nan")
        constant = self.deviation == 0
        scores = 1 - self.error / np.where(constant, 1, self.deviation)
        scores = np.where(constant, np.where(self.error == 0, 1.0, 0.0), scores)
        return float(scores.mean())
