"""Metrics of evaluations by name, and metrics of your own, as functions of sums over rows.

    families    numbers of each row that add up (`ledger`): counts of classes, losses, errors
    Metric      its value from their sums, of a slice or of all replicates of a bootstrap at once
    resolve     names, functions and RowMetrics -> Metrics for a problem

Names and values are those of scikit-learn, where it has the metric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import numpy as np

from dasknn.evaluation import score_sketch
from dasknn.evaluation.problem import BINARY, MULTICLASS, REGRESSION, Answers, Problem
from dasknn.metrics.regression import deviation_of
from dasknn.saving.serialization import did_you_mean

_CLASSES = (BINARY, MULTICLASS)

#: Families that every metric, or that r2, is computed from.
WEIGHT, TARGETS = "weight", "targets"


# --- what a metric is ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowMetric:
    """A metric of your own, from numbers of each row, which are multiplied with its weight and added up.

    It must be picklable, since workers compute it.

    Parameters
    ----------
    name : str
    rows : callable (y_true, y_pred) -> array (n,) or (n, width)
        Returns the numbers of each row. y_true holds the targets as they came, y_pred the result of `method`,
        both as numpy arrays.
    value : callable (sums, weight) -> array (...), default=None
        Computes the metric from sums (..., width) and the sum of weights (...), for a slice or for many
        replicates at once. None: the weighted mean of the first number.
    width : int, default=1
        How many numbers `rows` returns for a row.
    method : {"predict", "predict_proba"}, default="predict"
        The method of the model whose result is y_pred.
    greater_is_better : bool, default=None
        Whether a number alone is a minimum (True) or a maximum (False) for `assert_thresholds`. None:
        thresholds need a comparison.

    Raises
    ------
    ValueError
        Another method.
    """

    name: str
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    value: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    width: int = 1
    method: str = "predict"
    greater_is_better: bool | None = None

    def __post_init__(self) -> None:
        if self.method not in ("predict", "predict_proba"):
            raise ValueError(f"Expected method 'predict' or 'predict_proba', received {self.method!r}.")

    def sums_of(self, problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
        """Return the numbers of each row (n, width). ValueError: `rows` returned others."""
        predicted = answers.known_proba if self.method == "predict_proba" else problem.decoded(answers.labels)
        numbers = np.asarray(self.rows(problem.decoded(y), predicted), dtype=np.float64)
        expected = [(len(y), self.width)] + [(len(y),)] * (self.width == 1)
        if numbers.shape not in expected:
            raise ValueError(
                f"Expected metric {self.name!r} to return numbers of shape {expected[-1]}, received "
                f"{numbers.shape}. Return one for each row, and leave the mean over rows to evaluate; for "
                "several numbers for each row use dasknn.RowMetric(..., width=k)."
            )
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"Expected finite numbers for each row of metric {self.name!r}, received NaN or infinity."
            )
        return numbers.reshape(len(y), self.width)


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes
    ----------
    name : str
    kinds : tuple of str
        The kinds of problems that it is for.
    families : tuple of str
        What `value` takes besides the sum of weights.
    value : callable (problem, weight, *sums) -> array (...)
        Computes it from sums of families.
    curve : callable (weights (m, 2, ...)) -> array (...)
        Computes it from rankings instead: an area.
    greater_is_better : bool or None
        None: neither is.
    least, most : float
        Its range.
    needs_proba : bool
        Whether it is computed from probabilities.
    least_rows : int
        It is not defined for fewer.
    trials : callable (problem, weight, *sums) -> array (...)
        The weight of the rows that it is a share of, if it is a share.
    centered : bool
        Whether replicates are shifted to have their mean at the metric, since drawing rows again moves it.
    own : RowMetric or None
        The user's metric that it stands for.
    """

    name: str
    kinds: tuple[str, ...]
    families: tuple[str, ...] = ()
    value: Callable[..., np.ndarray] | None = None
    curve: Callable[[np.ndarray], np.ndarray] | None = None
    greater_is_better: bool | None = True
    least: float = 0.0
    most: float = 1.0
    needs_proba: bool = False
    least_rows: int = 1
    trials: Callable[..., np.ndarray] | None = None
    centered: bool = False
    own: RowMetric | None = None


def ratio(total: np.ndarray, weight: np.ndarray, undefined: float = float("nan")) -> np.ndarray:
    """Return total / weight, and `undefined` where the weight is 0."""
    total, weight = np.broadcast_arrays(np.asarray(total, np.float64), np.asarray(weight, np.float64))
    return np.divide(total, weight, out=np.full(total.shape, undefined), where=weight != 0)


def _mean(problem: Problem, weight: np.ndarray, total: np.ndarray) -> np.ndarray:
    return ratio(total, weight)


def _accuracy(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ratio(counts[..., 0, :].sum(axis=-1), weight)


def _balanced_accuracy(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    hits, true = counts[..., 0, :], counts[..., 1, :]
    return ratio(ratio(hits, true, 0.0).sum(axis=-1), (true > 0).sum(axis=-1))


# Scores of each class (..., n_classes), from its hits, its rows and its predictions; 0 where they are not
# defined, as in scikit-learn.
_Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _precision(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return ratio(hits, predicted, 0.0)


def _recall(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return ratio(hits, true, 0.0)


def _f1(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return ratio(2 * hits, true + predicted, 0.0)


def _of_positive(score: _Score, problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _defined(score(*np.moveaxis(counts[..., problem.positive], -1, 0)), weight)


def _macro(
    score: _Score, problem: Problem, weight: np.ndarray, counts: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    of_classes = score(*np.moveaxis(counts, -2, 0))
    # A class that no row is of or predicted as has scores of 0.
    return _defined(ratio(of_classes.sum(axis=-1), (seen > 0).sum(axis=-1)), weight)


def _micro(score: _Score, problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _defined(score(*np.moveaxis(counts.sum(axis=-1), -1, 0)), weight)


def _weighted(score: _Score, problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    of_classes = score(*np.moveaxis(counts, -2, 0))
    return ratio((of_classes * counts[..., 1, :]).sum(axis=-1), counts[..., 1, :].sum(axis=-1))


def _defined(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.where(weight > 0, values, np.nan)


def _positive_rate(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ratio(counts[..., 2, problem.positive], weight)


# `Metric.trials`: the weight of all rows, of those predicted as the positive class, of those that are of it.


def _rows(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return weight


def _chosen(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts[..., 2, problem.positive]


def _sought(problem: Problem, weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts[..., 1, problem.positive]


def _calibration_error(problem: Problem, weight: np.ndarray, bins: np.ndarray) -> np.ndarray:
    return ratio(np.abs(bins).sum(axis=-1), weight)


def _of_errors(which: int, problem: Problem, weight: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return ratio(errors[..., which, :], weight[..., np.newaxis]).mean(axis=-1)


def _root_mean_squared_error(problem: Problem, weight: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return np.sqrt(ratio(errors[..., 2, :], weight[..., np.newaxis])).mean(axis=-1)


def _r2(problem: Problem, weight: np.ndarray, targets: np.ndarray, errors: np.ndarray) -> np.ndarray:
    weight = weight[..., np.newaxis]
    first, second, error = targets[..., 0, :], targets[..., 1, :], errors[..., 2, :]
    deviation = deviation_of(first, second, weight)
    scores = np.where(deviation == 0, np.where(error == 0, 1.0, 0.0), 1 - ratio(error, deviation, 0.0))
    return np.where(weight > 0, scores, np.nan).mean(axis=-1)


def _own(metric: RowMetric, problem: Problem, weight: np.ndarray, sums: np.ndarray) -> np.ndarray:
    if metric.value is None:
        return ratio(sums[..., 0], weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(metric.value(sums, weight), dtype=np.float64)


def _named() -> dict[str, Metric]:
    metrics = [
        Metric("accuracy", _CLASSES, ("counts",), _accuracy, trials=_rows),
        Metric("balanced_accuracy", _CLASSES, ("counts",), _balanced_accuracy),
        Metric("positive_rate", (BINARY,), ("counts",), _positive_rate, greater_is_better=None, trials=_rows),
        Metric("roc_auc", (BINARY,), curve=score_sketch.roc_auc, needs_proba=True),
        Metric("roc_auc_ovr", _CLASSES, curve=score_sketch.roc_auc, needs_proba=True),
        Metric("average_precision", (BINARY,), curve=score_sketch.average_precision, needs_proba=True),
        _loss("log_loss", _CLASSES, "log_loss", inf),
        _loss("brier_score_loss", _CLASSES, "brier", 2.0),
        Metric(
            "calibration_error",
            _CLASSES,
            ("calibration",),
            _calibration_error,
            greater_is_better=False,
            needs_proba=True,
            centered=True,
        ),
        Metric("r2", (REGRESSION,), (TARGETS, "errors"), _r2, least=-inf, least_rows=2),
        _error("mean_squared_error", partial(_of_errors, 2)),
        _error("root_mean_squared_error", _root_mean_squared_error),
        _error("mean_absolute_error", partial(_of_errors, 1)),
        _error("mean_error", partial(_of_errors, 0), greater_is_better=None, least=-inf),
    ]
    scores = {"precision": (_precision, _chosen), "recall": (_recall, _sought), "f1": (_f1, None)}
    for name, (score, trials) in scores.items():
        metrics += [
            Metric(name, (BINARY,), ("counts",), partial(_of_positive, score), trials=trials),
            Metric(f"{name}_macro", _CLASSES, ("counts", "seen"), partial(_macro, score)),
            Metric(f"{name}_micro", _CLASSES, ("counts",), partial(_micro, score)),
            Metric(f"{name}_weighted", _CLASSES, ("counts",), partial(_weighted, score)),
        ]
    return {metric.name: metric for metric in metrics}


def _loss(name: str, kinds: tuple[str, ...], family: str, most: float) -> Metric:
    return Metric(name, kinds, (family,), _mean, greater_is_better=False, most=most, needs_proba=True)


def _error(
    name: str,
    value: Callable[..., np.ndarray],
    greater_is_better: bool | None = False,
    least: float = 0.0,
) -> Metric:
    return Metric(
        name, (REGRESSION,), ("errors",), value, greater_is_better=greater_is_better, least=least, most=inf
    )


METRICS = _named()

#: Metrics by kind of problem, if none are asked for.
DEFAULTS = {
    BINARY: ("accuracy", "precision", "recall", "roc_auc", "log_loss"),
    MULTICLASS: ("accuracy", "balanced_accuracy", "f1_macro", "log_loss"),
    REGRESSION: ("r2", "root_mean_squared_error", "mean_absolute_error", "mean_error"),
}
# Other names of metrics, to name the one that may be meant.
_OTHER_NAMES = {
    "acc": "accuracy",
    "auc": "roc_auc",
    "roc_auc_score": "roc_auc",
    "auprc": "average_precision",
    "pr_auc": "average_precision",
    "brier": "brier_score_loss",
    "ece": "calibration_error",
    "cross_entropy": "log_loss",
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mae": "mean_absolute_error",
    "bias": "mean_error",
    "selection_rate": "positive_rate",
}


# --- from what users ask for to metrics ----------------------------------------------------------------


def resolve(wanted: Any, problem: Problem, has_proba: bool) -> list[Metric]:
    """Return metrics by name, of functions and of RowMetrics.

    Parameters
    ----------
    wanted : str, function, RowMetric, or a list of these
        None: the defaults of the kind of problem.
    problem : Problem
    has_proba : bool
        Whether the models have probabilities.

    Raises
    ------
    ValueError
        An unknown metric, one of another kind of problem, one that needs probabilities that are not there,
        two of one name.
    """
    if wanted is None:
        metrics = [METRICS[name] for name in DEFAULTS[problem.kind]]
        return [metric for metric in metrics if has_proba or not metric.needs_proba]
    if isinstance(wanted, str | RowMetric) or callable(wanted):
        wanted = [wanted]
    metrics = [_resolve(one, problem) for one in wanted]
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected metrics of one or more different names, received {names}.")
    for metric in metrics:
        if metric.needs_proba and not has_proba:
            raise ValueError(
                f"Expected a model with predict_proba for metric {metric.name!r}, received one without. Use "
                "metrics of labels, such as 'accuracy', or wrap the model in "
                "sklearn.calibration.CalibratedClassifierCV."
            )
    return metrics


def _resolve(wanted: Any, problem: Problem) -> Metric:
    if callable(wanted) and not isinstance(wanted, RowMetric):
        name = getattr(wanted, "__name__", "<lambda>")
        if name == "<lambda>":
            raise ValueError(
                "Expected metrics with names, received a function without one. Use def, or "
                "dasknn.RowMetric('name', function)."
            )
        wanted = RowMetric(name, wanted)
    if isinstance(wanted, RowMetric):
        if wanted.method == "predict_proba" and problem.classes is None:
            raise ValueError(f"Expected a classifier for metric {wanted.name!r}, received a regressor.")
        return Metric(
            wanted.name,
            (problem.kind,),
            (f"own {wanted.name}",),
            partial(_own, wanted),
            greater_is_better=wanted.greater_is_better,
            least=-inf,
            most=inf,
            needs_proba=wanted.method == "predict_proba",
            own=wanted,
        )
    found = METRICS.get(wanted) if isinstance(wanted, str) else None
    of_kind = [name for name, metric in METRICS.items() if problem.kind in metric.kinds]
    if found is None:
        raise ValueError(
            f"Expected metrics by name, functions or dasknn.RowMetric, received {wanted!r}."
            f"{did_you_mean(_usual_name(str(wanted)), of_kind)} There are {', '.join(of_kind)}."
        )
    if problem.kind not in found.kinds:
        near = f"{wanted}_macro" if f"{wanted}_macro" in of_kind else f"{wanted}_ovr"
        hint = f" Did you mean {near!r}?" if near in of_kind else ""
        raise ValueError(
            f"Metric {wanted!r} is one of {' and '.join(found.kinds)}, and this is {problem.kind}.{hint} "
            f"There are {', '.join(of_kind)}."
        )
    return found


def _usual_name(name: str) -> str:
    """Return the name here of a metric that is known by another one, or as a scorer of scikit-learn."""
    plain = name.lower().removeprefix("neg_")
    return _OTHER_NAMES.get(plain, plain)
