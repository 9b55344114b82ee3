"""Metrics for regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasknn import losses
from dasknn.metrics.metric import Metric
from dasknn.metrics.reduction import MeanOfLoss, MeanOfOutputs


@dataclass(frozen=True)
class RootMeanSquaredError(MeanOfOutputs):
    """`sqrt(mean((P - y)**2))` over rows and outputs."""

    name: str | None = "root_mean_squared_error"
    dtype: str | None = None

    def terms(self, y, P):
        return (P - y) ** 2

    def result_of(self, sums, n_outputs):
        return float(np.sqrt(super().result_of(sums, n_outputs)))


@dataclass(frozen=True)
class MeanSquaredError(MeanOfLoss):
    """Mean of the loss `losses.MeanSquaredError`."""

    name: str | None = "mean_squared_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredError


@dataclass(frozen=True)
class MeanAbsoluteError(MeanOfLoss):
    """Mean of the loss `losses.MeanAbsoluteError`."""

    name: str | None = "mean_absolute_error"
    dtype: str | None = None
    _loss = losses.MeanAbsoluteError


@dataclass(frozen=True)
class MeanAbsolutePercentageError(MeanOfLoss):
    """Mean of the loss `losses.MeanAbsolutePercentageError`."""

    name: str | None = "mean_absolute_percentage_error"
    dtype: str | None = None
    _loss = losses.MeanAbsolutePercentageError


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(MeanOfLoss):
    """Mean of the loss `losses.MeanSquaredLogarithmicError`."""

    name: str | None = "mean_squared_logarithmic_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredLogarithmicError


@dataclass(frozen=True)
class LogCoshError(MeanOfLoss):
    """Mean of the loss `losses.LogCosh`."""

    name: str | None = "logcosh"
    dtype: str | None = None
    _loss = losses.LogCosh


@dataclass(frozen=True)
class CosineSimilarity(MeanOfLoss):
    """Cosine of the angle between y and P: minus the loss `losses.CosineSimilarity`.

    Parameters
    ----------
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    """

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
class R2Score(Metric):
    """`1 - sum((y - P)**2) / sum((y - mean(y))**2)`.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average", None}, default="uniform_average"
        Mean over outputs, mean weighted by the variance of the targets of each output, or (None) the score of
        each output (k,).
    num_regressors : int, default=0
        Number of columns of X, for the adjusted score; 0: not adjusted.

    Notes
    -----
    Sums of squares lose digits if targets are far from 0. `update_state` and `MetricSet` therefore subtract
    the same number from the targets and outputs of all rows; callers of `sums` should do so, too.
    """

    class_aggregation: str | None = "uniform_average"
    num_regressors: int = 0
    name: str | None = "r2_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "Expected class_aggregation to be None, 'uniform_average' or 'variance_weighted_average', "
                f"received {self.class_aggregation!r}."
            )
        if self.num_regressors < 0:
            raise ValueError(f"Expected num_regressors to be at least 0, received {self.num_regressors}.")

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
        # As in Keras, n_samples counts targets, not rows. The score is not adjusted if there are too few.
        if self.num_regressors and self.num_regressors < n_samples - 1:
            scores = 1 - (1 - scores) * (n_samples - 1) / (n_samples - self.num_regressors - 1)
        return scores if self.class_aggregation is None else float(scores)


def deviation_of(first, second, weight) -> np.ndarray:
    """Return the weighted sum of squared deviations from the mean; 0 for constant numbers.

    Parameters
    ----------
    first, second : arrays
        Weighted sums of the numbers and of their squares. Subtract a number near their mean first: the
        difference of two large sums has few correct digits.
    weight : array
        Sums of the weights.
    """
    first, second, weight = np.broadcast_arrays(first, second, weight)
    square = np.divide(first**2, weight, out=np.zeros(first.shape), where=weight != 0)
    # For constant numbers, only rounding errors remain.
    return np.where(second - square <= 1e-14 * second, 0.0, second - square)
