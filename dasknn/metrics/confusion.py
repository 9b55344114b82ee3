"""Metrics computed from true and false positives and negatives: counts, precision, recall and like rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dasknn.metrics.metric import settle_outputs
from dasknn.metrics.thresholds import NOTHING, ByThreshold, Thresholds


def _one_or_all(values: np.ndarray):
    return float(values[0]) if len(values) == 1 else values


class _AtThresholds(ByThreshold):
    """Base class of metrics with a result for each threshold."""

    thresholds: float | Sequence[float] | None

    def __post_init__(self):
        super().__post_init__()
        settle_outputs(self)
        _ = self._thresholds

    @cached_property
    def _thresholds(self) -> Thresholds:
        return Thresholds.of(self.thresholds, 0.5 if self.top_k is None else NOTHING)


@dataclass(frozen=True)
class TruePositives(_AtThresholds):
    """Weight of outputs above the threshold whose target is not 0.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5.
    """

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.tp)


@dataclass(frozen=True)
class TrueNegatives(_AtThresholds):
    """Weight of outputs not above the threshold whose target is 0.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5.
    """

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.tn)


@dataclass(frozen=True)
class FalsePositives(_AtThresholds):
    """Weight of outputs above the threshold whose target is 0.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5.
    """

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.fp)


@dataclass(frozen=True)
class FalseNegatives(_AtThresholds):
    """Weight of outputs not above the threshold whose target is not 0.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5.
    """

    thresholds: Any = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.fn)


@dataclass(frozen=True)
class Precision(_AtThresholds):
    """`TP / (TP + FP)`: share of the positive predictions that are true.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5, or all outputs that `top_k` keeps.
    top_k : int or None, default=None
        Outputs that are not among the k largest of their row count as not positive.
    class_id : int or None, default=None
        Count this output only.
    """

    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.precision)


@dataclass(frozen=True)
class Recall(_AtThresholds):
    """`TP / (TP + FN)`: share of the positive targets that are predicted.

    Parameters
    ----------
    thresholds : float, list of float or None, default=None
        Thresholds in [0, 1], each of which gives a result; None: 0.5, or all outputs that `top_k` keeps.
    top_k : int or None, default=None
        Outputs that are not among the k largest of their row count as not positive.
    class_id : int or None, default=None
        Count this output only.
    """

    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None

    def _result(self, counts):
        return _one_or_all(counts.recall)


class _BestThreshold(ByThreshold):
    """Base class of metrics that are the best of one rate where another is at least `_least`."""

    num_thresholds: int
    _least: ClassVar[str]

    def __post_init__(self):
        super().__post_init__()
        if self.num_thresholds < 1:
            raise ValueError(f"Expected num_thresholds to be at least 1, received {self.num_thresholds}.")
        if not 0 <= getattr(self, self._least) <= 1:
            raise ValueError(
                f"Expected {self._least} to be in [0, 1], received {getattr(self, self._least)}."
            )

    @cached_property
    def _thresholds(self) -> Thresholds:
        if self.num_thresholds == 1:
            return Thresholds((0.5,), False)
        return Thresholds(tuple(np.linspace(0, 1, max(self.num_thresholds, 2)).tolist()), True)

    def _best(self, values, constrained) -> float:
        return float(np.max(values[constrained >= getattr(self, self._least)], initial=0.0))


@dataclass(frozen=True)
class SensitivityAtSpecificity(_BestThreshold):
    """Best sensitivity (recall) among thresholds with at least this specificity.

    Parameters
    ----------
    specificity : float
        The least specificity, in [0, 1].
    num_thresholds : int, default=200
        Number of thresholds, evenly spaced from 0 to 1.
    class_id : int or None, default=None
        Count this output only.
    """

    specificity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "specificity"

    def _result(self, counts):
        return self._best(counts.recall, counts.specificity)


@dataclass(frozen=True)
class SpecificityAtSensitivity(_BestThreshold):
    """Best specificity among thresholds with at least this sensitivity (recall).

    Parameters
    ----------
    sensitivity : float
        The least sensitivity, in [0, 1].
    num_thresholds : int, default=200
        Number of thresholds, evenly spaced from 0 to 1.
    class_id : int or None, default=None
        Count this output only.
    """

    sensitivity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "sensitivity"

    def _result(self, counts):
        return self._best(counts.specificity, counts.recall)


@dataclass(frozen=True)
class PrecisionAtRecall(_BestThreshold):
    """Best precision among thresholds with at least this recall.

    Parameters
    ----------
    recall : float
        The least recall, in [0, 1].
    num_thresholds : int, default=200
        Number of thresholds, evenly spaced from 0 to 1.
    class_id : int or None, default=None
        Count this output only.
    """

    recall: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "recall"

    def _result(self, counts):
        return self._best(counts.precision, counts.recall)


@dataclass(frozen=True)
class RecallAtPrecision(_BestThreshold):
    """Best recall among thresholds with at least this precision.

    Parameters
    ----------
    precision : float
        The least precision, in [0, 1].
    num_thresholds : int, default=200
        Number of thresholds, evenly spaced from 0 to 1.
    class_id : int or None, default=None
        Count this output only.
    """

    precision: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: str | None = None
    _least = "precision"

    def _result(self, counts):
        return self._best(counts.recall, counts.precision)
