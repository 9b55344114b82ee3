"""F-scores: weighted harmonic means of precision and recall."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dasknn.metrics.metric import Metric
from dasknn.metrics.thresholds import EPSILON


@dataclass(frozen=True)
class FBetaScore(Metric):
    """`(1 + beta**2) * precision * recall / (beta**2 * precision + recall)`.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}, default=None
        None: the score of each output (k,). "micro": of all outputs together. "macro": the mean over outputs.
        "weighted": the mean weighted by the positive targets of each output.
    beta : float, default=1.0
        Weight of recall against precision.
    threshold : float or None, default=None
        An output above it is positive; None: the largest output of each row.
    """

    average: str | None = None
    beta: float = 1.0
    threshold: float | None = None
    name: str | None = "fbeta_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.average not in (None, "micro", "macro", "weighted"):
            raise ValueError(
                f"Expected average to be None, 'micro', 'macro' or 'weighted', received {self.average!r}."
            )
        if not self.beta > 0:
            raise ValueError(f"Expected beta to be above 0, received {self.beta!r}.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"Expected threshold to be None or in (0, 1], received {self.threshold!r}.")

    def size(self, n_outputs):
        return 3 * n_outputs

    def sums(self, y, P, weight):
        y = self._targets(y, P)
        if self.threshold is None:
            # As in Keras, an output of 0 is never positive.
            is_positive = np.equal(P, P.max(axis=1, keepdims=True)) & (np.abs(P) > 1e-9)
        else:
            is_positive = np.greater(P, self.threshold)
        weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
        return np.concatenate([weight @ (is_positive * y), weight @ is_positive, weight @ y])

    def result_of(self, sums, n_outputs):
        both, positive, true = sums.reshape(3, n_outputs)
        if self.average == "micro":
            both, positive, true = both.sum(), positive.sum(), true.sum()
        precision, recall = both / (positive + EPSILON), both / (true + EPSILON)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + EPSILON)
        if self.average is None:
            return scores
        if self.average == "weighted":
            return float((scores * true).sum() / (true.sum() + EPSILON))
        return float(np.mean(scores))


@dataclass(frozen=True)
class F1Score(Metric):
    """Harmonic mean of precision and recall: `FBetaScore` with beta=1.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}, default=None
        As for `FBetaScore`.
    threshold : float or None, default=None
        As for `FBetaScore`.
    """

    average: str | None = None
    threshold: float | None = None
    name: str | None = "f1_score"
    dtype: str | None = None

    def __post_init__(self):
        super().__post_init__()
        _ = self._score

    @cached_property
    def _score(self) -> FBetaScore:
        return FBetaScore(self.average, 1.0, self.threshold)

    def size(self, n_outputs):
        return self._score.size(n_outputs)

    def sums(self, y, P, weight):
        return self._score.sums(self._targets(y, P), P, weight)

    def result_of(self, sums, n_outputs):
        return self._score.result_of(sums, n_outputs)
