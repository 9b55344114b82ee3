"""Losses for regression: distances between outputs and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasknn.losses.loss import EPSILON, BufferedBound, BufferedLoss, ElementwiseLoss, Form, RowLoss


class _BoundMeanSquaredError(BufferedBound):
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
class MeanSquaredError(BufferedLoss):
    """`(P - y)**2`, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_squared_error"
    dtype: str | None = None

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        return _BoundMeanSquaredError(self, n_rows, n_outputs, dtype)

    def form(self, n_outputs, output_activation, dtype):
        scales = {"value_scale": 1 / n_outputs, "slope_scale": 2 / n_outputs}
        return Form(Form.SQUARED, False, False, self.is_over_rows, **scales)


@dataclass(frozen=True)
class MeanAbsoluteError(ElementwiseLoss):
    """`|P - y|`, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_absolute_error"
    dtype: str | None = None

    def terms(self, y, P):
        return np.abs(P - y)

    def term_slopes(self, y, P):
        return np.sign(P - y)


@dataclass(frozen=True)
class MeanAbsolutePercentageError(ElementwiseLoss):
    """`100 * |P - y| / max(|y|, 1e-7)`, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_absolute_percentage_error"
    dtype: str | None = None

    def terms(self, y, P):
        return 100 * np.abs(P - y) / np.maximum(np.abs(y), EPSILON)

    def term_slopes(self, y, P):
        return 100 * np.sign(P - y) / np.maximum(np.abs(y), EPSILON)


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(ElementwiseLoss):
    """`(log(P + 1) - log(y + 1))**2`, averaged over outputs; P and y are raised to at least 1e-7."""

    reduction: str = "sum_over_batch_size"
    name: str = "mean_squared_logarithmic_error"
    dtype: str | None = None

    def _difference(self, y, P):
        return np.log(np.maximum(P, EPSILON) + 1) - np.log(np.maximum(y, EPSILON) + 1)

    def terms(self, y, P):
        return self._difference(y, P) ** 2

    def term_slopes(self, y, P):
        slopes = 2 * self._difference(y, P) / (np.maximum(P, EPSILON) + 1)
        return np.where(P > EPSILON, slopes, 0)


@dataclass(frozen=True)
class Huber(ElementwiseLoss):
    """`(P - y)**2 / 2` where `|P - y| <= delta`, linear beyond; averaged over outputs (Huber 1964).

    Parameters
    ----------
    delta : float, default=1.0
        Error beyond which the loss is linear.
    """

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
class LogCosh(ElementwiseLoss):
    """`log(cosh(P - y))`, averaged over outputs."""

    reduction: str = "sum_over_batch_size"
    name: str = "log_cosh"
    dtype: str | None = None

    def terms(self, y, P):
        error = np.abs(P - y)
        return error + np.log1p(np.exp(-2 * error)) - np.log(2).astype(P.dtype)

    def term_slopes(self, y, P):
        return np.tanh(P - y)


@dataclass(frozen=True)
class Poisson(ElementwiseLoss):
    """`P - y * log(P + 1e-7)`, averaged over outputs; y is at least 0."""

    targets_in = (0, np.inf)

    reduction: str = "sum_over_batch_size"
    name: str = "poisson"
    dtype: str | None = None

    def terms(self, y, P):
        return P - y * np.log(P + EPSILON)

    def term_slopes(self, y, P):
        return 1 - y / (P + EPSILON)


@dataclass(frozen=True)
class CosineSimilarity(RowLoss):
    """Minus the cosine of the angle between y and P; norms are raised to at least 1e-7."""

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
        along = np.where(norm > EPSILON, unit_P * cosine, 0)
        return (along - unit_y) / norm


def _normalized(A):
    norm = np.maximum(np.sqrt((A * A).sum(axis=1, keepdims=True)), EPSILON)
    return A / norm, norm
