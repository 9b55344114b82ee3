"""Which numbers of each row the metrics need, and where they are in a block whose sums give the metrics.

Answers (n rows)  ─►  Ledger.block      (n, k): families of numbers side by side, times the weight
                  ─►  Ledger.rankings   scores whose order counts, class by class
sums (..., k)     ─►  Ledger.value      a metric, of a slice or of all replicates at once
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from dasknn.evaluation.bootstrap import Moments, Ranking
from dasknn.evaluation.metrics import TARGETS, WEIGHT, Metric, RowMetric, ratio
from dasknn.evaluation.problem import BINARY, Answers, Problem
from dasknn.evaluation.score_sketch import keys_of_probabilities

# Bins of calibration_error.
_CALIBRATION_BINS = 10


# --- families: numbers (n, ...) of each row, from its target and the model's answers ------------------


def _ones(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    return np.ones(len(y))


def _counts(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, 3, n_classes): whether a row is of a class and predicted as it, is of it, is predicted."""
    assert problem.classes is not None, "a regression counts no classes"
    classes = np.arange(len(problem.classes))
    true, predicted = y[:, np.newaxis] == classes, answers.labels[:, np.newaxis] == classes
    return np.stack([true & predicted, true, predicted], axis=1).astype(np.float64)


def _seen(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, n_classes): whether a row is of a class or predicted as it, whatever the row weighs."""
    counts = _counts(problem, y, answers)
    return np.maximum(counts[:, 1], counts[:, 2])


def _log_loss(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    proba = answers.known_proba
    # As in scikit-learn, by the precision of the dtype.
    eps = np.finfo(proba.dtype).eps
    return -np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps).astype(np.float64))


def _brier(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    proba = answers.known_proba.astype(np.float64)
    distance = ((proba - (y[:, np.newaxis] == np.arange(proba.shape[1]))) ** 2).sum(axis=1)
    # As in scikit-learn, (p - y)^2 of the one class that is looked for.
    return distance / 2 if problem.kind == BINARY else distance


def _calibration(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, bins): 0 or 1 for what happened, less its probability, in the bin of the probability."""
    proba = answers.known_proba.astype(np.float64)
    if problem.kind == BINARY:
        chance, happened = proba[:, problem.positive], y == problem.positive
    else:
        chance, happened = proba.max(axis=1), y == proba.argmax(axis=1)
    bins = np.minimum((chance * _CALIBRATION_BINS).astype(np.intp), _CALIBRATION_BINS - 1)
    return (bins[:, np.newaxis] == np.arange(_CALIBRATION_BINS)) * (happened - chance)[:, np.newaxis]


def _errors(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, 3, q): error, its size and its square."""
    error = answers.labels - y
    return np.stack([error, np.abs(error), error**2], axis=1)


# Sums over rows without their weights.
_UNWEIGHTED = ("seen",)
_FAMILIES: dict[str, Callable[[Problem, np.ndarray, Answers], np.ndarray]] = {
    WEIGHT: _ones,
    "counts": _counts,
    "seen": _seen,
    "log_loss": _log_loss,
    "brier": _brier,
    "calibration": _calibration,
    "errors": _errors,
}


# --- the layout ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ledger:
    """The layout of a block of numbers: which metrics of which problem its columns are for.

    Attributes
    ----------
    problem : Problem
    metrics : tuple of Metric
    """

    problem: Problem
    metrics: tuple[Metric, ...]

    @property
    def needs_proba(self) -> bool:
        """Whether any metric needs probabilities."""
        return any(metric.needs_proba for metric in self.metrics)

    @property
    def needs_labels(self) -> bool:
        """Whether any metric needs labels or predicted numbers, rather than probabilities."""
        return any(not metric.needs_proba for metric in self.metrics)

    @property
    def families(self) -> list[str]:
        """The families that the metrics need, each once, the weight first."""
        needed = [family for metric in self.metrics for family in metric.families]
        return list(dict.fromkeys([WEIGHT, *needed]))

    @property
    def ranked_classes(self) -> list[int]:
        """Numbers of the classes whose probabilities are ranked."""
        if self.problem.classes is None or not any(metric.curve for metric in self.metrics):
            return []
        if self.problem.kind == BINARY:
            return [self.problem.positive]
        return list(range(len(self.problem.classes)))

    def _shape(self, family: str) -> tuple[int, ...]:
        classes = 0 if self.problem.classes is None else len(self.problem.classes)
        q = self.problem.n_outputs
        shapes = {"counts": (3, classes), "seen": (classes,), "calibration": (_CALIBRATION_BINS,)}
        shapes |= {"errors": (3, q), TARGETS: (2, q)}
        shapes |= {name: (own.width,) for name, own in self._own.items()}
        return shapes.get(family, ())

    @property
    def _own(self) -> dict[str, RowMetric]:
        return {metric.families[0]: metric.own for metric in self.metrics if metric.own}

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of each family in a block."""
        ends = np.cumsum([0, *(prod(self._shape(family)) for family in self.families)]).tolist()
        return {family: slice(*edge) for family, edge in zip(self.families, pairwise(ends), strict=True)}

    def block(
        self, y: np.ndarray, answers: Answers, weight: np.ndarray | None, center: np.ndarray
    ) -> np.ndarray:
        """Return the numbers of each row (n, k), times its weight; targets are less the center (q,)."""
        columns = []
        own = self._own
        for family in self.families:
            if family in own:
                numbers = own[family].sums_of(self.problem, y, answers)
            elif family == TARGETS:
                gap = y - center
                numbers = np.stack([gap, gap**2], axis=1)
            else:
                numbers = _FAMILIES[family](self.problem, y, answers)
            numbers = numbers.reshape(len(y), -1)
            if weight is not None and family not in _UNWEIGHTED:
                numbers = numbers * weight[:, np.newaxis]
            columns.append(numbers)
        return np.ascontiguousarray(np.hstack(columns), dtype=np.float64)

    def rankings(self, y: np.ndarray, answers: Answers, weight: np.ndarray | None) -> list[Ranking]:
        """Return the rankings of the positive class, or of each."""
        weight = np.ones(len(y)) if weight is None else weight.astype(np.float64)
        return [
            Ranking(keys_of_probabilities(answers.known_proba[:, number]), y == number, weight)
            for number in self.ranked_classes
        ]

    def moments(self, number: int, center: np.ndarray) -> Moments | None:
        """Return where block `number` has targets and their squares; None if no metric needs them."""
        columns = self.columns
        if TARGETS not in columns:
            return None
        begin, q = columns[TARGETS].start, len(center)
        return Moments(number, columns[WEIGHT].start, begin, begin + q, center)

    def value(self, metric: Metric, sums: np.ndarray, curves: Sequence[np.ndarray]) -> np.ndarray:
        """Return a metric (...) from sums (..., k) of a block, or weights (m, 2, ...) of each ranking."""
        if metric.curve is not None:
            areas = np.stack([metric.curve(weights) for weights in curves])
            # Where a slice lacks a class, scikit-learn's mean over classes would be NaN.
            is_defined = ~np.isnan(areas)
            return ratio(np.where(is_defined, areas, 0.0).sum(axis=0), is_defined.sum(axis=0))
        assert metric.value is not None, "a metric without a curve has a value"
        return metric.value(self.problem, *self._of_families(metric, sums))

    def trials(self, metric: Metric, sums: np.ndarray) -> float | None:
        """Return the weight of the rows of which a metric is a share, from sums (k,); None: not a share."""
        if metric.trials is None:
            return None
        return float(metric.trials(self.problem, *self._of_families(metric, sums)))

    def _of_families(self, metric: Metric, sums: np.ndarray) -> list[np.ndarray]:
        places, leading = self.columns, sums.shape[:-1]
        return [
            sums[..., places[family]].reshape((*leading, *self._shape(family)))
            for family in (WEIGHT, *metric.families)
        ]
