"""Metrics of numbers, and how much of their variance is explained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasknn import losses
from dasknn.metrics.metric import Metric
from dasknn.metrics.reduction import MeanOfLoss, MeanOfOutputs


@dataclass(frozen=True)
class RootMeanSquaredError(MeanOfOutputs):
    """Root of the mean of (P - y)^2."""

    name: str | None = "root_mean_squared_error"
    dtype: str | None = None

    def terms(self, y, P):
        return (P - y) ** 2

    def result_of(self, sums, n_outputs):
        return float(np.sqrt(super().result_of(sums, n_outputs)))


@dataclass(frozen=True)
class MeanSquaredError(MeanOfLoss):
    """See `losses.MeanSquaredError`."""

    name: str | None = "mean_squared_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredError


@dataclass(frozen=True)
class MeanAbsoluteError(MeanOfLoss):
    """See `losses.MeanAbsoluteError`."""

    name: str | None = "mean_absolute_error"
    dtype: str | None = None
    _loss = losses.MeanAbsoluteError


@dataclass(frozen=True)
class MeanAbsolutePercentageError(MeanOfLoss):
    """See `losses.MeanAbsolutePercentageError`."""

    name: str | None = "mean_absolute_percentage_error"
    dtype: str | None = None
    _loss = losses.MeanAbsolutePercentageError


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(MeanOfLoss):
    """See `losses.MeanSquaredLogarithmicError`."""

    name: str | None = "mean_squared_logarithmic_error"
    dtype: str | None = None
    _loss = losses.MeanSquaredLogarithmicError


@dataclass(frozen=True)
class LogCoshError(MeanOfLoss):
    """See `losses.LogCosh`."""

    name: str | None = "logcosh"
    dtype: str | None = None
    _loss = losses.LogCosh


@dataclass(frozen=True)
class CosineSimilarity(MeanOfLoss):
    """The cosine of the angle between y and P: minus `losses.CosineSimilarity`."""

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


def deviation_of(first, second, weight) -> np.ndarray:
    """Return the weighted sum of squared deviations from the mean, and 0 where numbers are constant.

    first, second: weighted sums of numbers and of their squares, less a center: far from the mean, nothing is
    left of the difference of two large sums.
    """
    first, second, weight = np.broadcast_arrays(first, second, weight)
    square = np.divide(first**2, weight, out=np.zeros(first.shape), where=weight != 0)
    # What rounding leaves of a constant is no deviation.
    return np.where(second - square <= 1e-14 * second, 0.0, second - square)
