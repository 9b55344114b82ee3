"""Areas under curves of counts at many thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit

from dasknn.metrics.metric import flat_weights, ratio, settle_outputs
from dasknn.metrics.thresholds import ByThreshold, Counts, Thresholds, counts_of, histogram


@dataclass(frozen=True)
class AUC(ByThreshold):
    """Area under the ROC, precision-recall or precision-recall-gain curve.

    Parameters
    ----------
    num_thresholds : int, default=200
        Number of thresholds, evenly spaced from 0 to 1.
    curve : {"ROC", "PR", "PRGAIN"}, default="ROC"
        The curve.
    summation_method : {"interpolation", "minoring", "majoring"}, default="interpolation"
        Height between two thresholds: the mean of both (for "PR", Davis and Goadrich's interpolation), the
        smaller, or the larger.
    thresholds : list of float or None, default=None
        Thresholds between 0 and 1, in place of `num_thresholds`.
    multi_label : bool, default=False
        Whether to return the mean of the areas of all outputs. If not, all outputs are counted together.
    num_labels : int or None, default=None
        Expected number of outputs, with `multi_label`.
    label_weights : array (k,) or None, default=None
        Weights of outputs.
    from_logits : bool, default=False
        Whether P are logits.

    References
    ----------
    - Davis and Goadrich (2006), "The relationship between precision-recall and ROC curves".
    - Flach and Kull (2015), "Precision-recall-gain curves: PR analysis done right".
    """

    num_thresholds: int = 200
    curve: str = "ROC"
    summation_method: str = "interpolation"
    name: str | None = None
    dtype: str | None = None
    thresholds: Any = None
    multi_label: bool = False
    num_labels: int | None = None
    label_weights: Any = None
    from_logits: bool = False

    def __post_init__(self):
        super().__post_init__()
        settle_outputs(self)
        curve, method = self.curve.upper(), self.summation_method.lower()
        if curve not in ("ROC", "PR", "PRGAIN"):
            raise ValueError(f"Expected curve to be 'ROC', 'PR' or 'PRGAIN', received {self.curve!r}.")
        if method not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                "Expected summation_method to be 'interpolation', 'minoring' or 'majoring', received "
                f"{self.summation_method!r}."
            )
        if self.num_labels and not self.multi_label:
            raise ValueError(f"Expected multi_label=True with num_labels={self.num_labels}, received False.")
        if self.thresholds is not None:
            inner = tuple(sorted(self.thresholds))
            if inner and not 0 <= inner[0] <= inner[-1] <= 1:
                raise ValueError(f"Expected thresholds to be in [0, 1], received {self.thresholds}.")
            object.__setattr__(self, "thresholds", inner)
            object.__setattr__(self, "num_thresholds", len(inner) + 2)
        if self.num_thresholds < 2:
            raise ValueError(f"Expected num_thresholds to be at least 2, received {self.num_thresholds}.")
        object.__setattr__(self, "curve", curve)
        object.__setattr__(self, "summation_method", method)

    @cached_property
    def _thresholds(self) -> Thresholds:
        return Thresholds.even(self.num_thresholds, self.thresholds)

    def size(self, n_outputs):
        return super().size(n_outputs) * (n_outputs if self.multi_label else 1)

    def sums(self, y, P, weight):
        y, n_outputs = self._targets(y, P), P.shape[1]
        if self.from_logits:
            P = expit(P)
        weight = self._weights_of_outputs(weight, P)
        first = np.arange(n_outputs) * (2 * self._thresholds.n_buckets) if self.multi_label else 0
        return histogram(self._thresholds, y, P, weight, first, self.size(n_outputs))

    def _weights_of_outputs(self, weight, P):
        """Return one weight for each output of each row, flat, or None."""
        n_outputs = P.shape[1]
        for what, n in (("num_labels", self.num_labels), ("label_weights", self._n_label_weights)):
            if n and n != n_outputs:
                raise ValueError(f"AUC expects {what} for {n_outputs} outputs, received {what} for {n}.")
        weight = flat_weights(weight, P)
        if self.label_weights is not None and not self.multi_label:
            of_outputs = np.tile(self.label_weights, len(P))
            return of_outputs if weight is None else weight * of_outputs
        return weight

    @property
    def _n_label_weights(self) -> int:
        return 0 if self.label_weights is None else len(self.label_weights)

    def result_of(self, sums, n_outputs):
        counts = counts_of(self._thresholds, sums.reshape(-1, 2, self._thresholds.n_buckets))
        # One area for each output, or one for all.
        areas = self._result(counts)
        return float(np.average(areas, weights=self.label_weights if self.multi_label else None))

    def _result(self, counts):
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_precision(counts)
        if self.curve == "ROC":
            x, y = ratio(counts.fp, counts.fp + counts.tn), counts.recall
        elif self.curve == "PR":
            x, y = counts.recall, counts.precision
        else:
            x, y = _gains(counts)
        left, right = y[..., :-1], y[..., 1:]
        if self.summation_method == "interpolation":
            heights = (left + right) / 2
        else:
            heights = (np.minimum if self.summation_method == "minoring" else np.maximum)(left, right)
        return ((x[..., :-1] - x[..., 1:]) * heights).sum(axis=-1)

    def get_config(self):
        config = super().get_config()
        if self.thresholds is None:
            del config["thresholds"]
        return config


def _interpolated_precision(counts: Counts):
    """Return the area under the precision-recall curve by Davis and Goadrich's interpolation.

    Between two thresholds, true positives grow in proportion to all positives.
    """
    positive = counts.tp + counts.fp
    gained, shown = counts.tp[..., :-1] - counts.tp[..., 1:], positive[..., :-1] - positive[..., 1:]
    slope = ratio(gained, np.maximum(shown, 0))
    intercept = counts.tp[..., 1:] - slope * positive[..., 1:]
    growth = np.where(
        (positive[..., :-1] > 0) & (positive[..., 1:] > 0), ratio(positive[..., :-1], positive[..., 1:]), 1.0
    )
    true = np.maximum(counts.tp[..., 1:] + counts.fn[..., 1:], 0)
    return ratio(slope * (gained + intercept * np.log(growth)), true).sum(axis=-1)


def _gains(counts: Counts):
    """Return recall gains and precision gains (Flach and Kull 2015)."""
    odds = ratio(counts.tp + counts.fn, counts.tn + counts.fp)
    is_none = counts.tp == 0
    recall = np.where(is_none, 0.0, 1 - odds * ratio(counts.fn, counts.tp))
    precision = np.where(is_none, 1.0, 1 - odds * ratio(counts.fp, counts.tp))
    return np.maximum(recall, 0), precision
