"""Metrics of predictions as functions of sums over rows, so that they can be computed part by part.

    Answers         what a model says of rows
      families      numbers of each row that add up: counts of classes, losses, errors
      rankings      scores whose order counts: see `ranking`
    Metric          its value from the sums, for a whole or for all replicates of a bootstrap at once

Names and values are those of scikit-learn, where it has the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf, prod

import numpy as np

from dasknn.evaluation import score_sketch
from dasknn.evaluation.bootstrap import Ranking
from dasknn.metrics.regression import deviation_of
from dasknn.saving.serialization import did_you_mean

BINARY, MULTICLASS, REGRESSION = "binary classification", "multiclass classification", "regression"
_CLASSES = (BINARY, MULTICLASS)

# Bins of calibration_error.
_CALIBRATION_BINS = 10


@dataclass(frozen=True, eq=False)
class Problem:
    """What is predicted: kind, classes (n_classes,) or None, n outputs of a regression.

    positive: of two classes, the number of the one that is looked for. one_hot: whether targets may be rows
    of 0 with a single 1. signed: whether -1 stands for the class 0.
    """

    kind: str
    classes: np.ndarray | None = None
    n_outputs: int = 1
    positive: int = 1
    one_hot: bool = False
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of rows: labels, their classes' numbers (n,) or a regression's numbers (n, q).

    proba (n, n_classes), or None where nobody asks for it.
    """

    labels: np.ndarray
    proba: np.ndarray | None = None

    def __getitem__(self, rows: slice) -> Answers:
        return Answers(self.labels[rows], None if self.proba is None else self.proba[rows])


# --- families: y, answers -> numbers of each row (n, ...), to be multiplied with its weight ------------


def _ones(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    return np.ones(len(y))


def _counts(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, 3, n_classes): whether a row is of a class and predicted as it, is of it, is predicted."""
    assert problem.classes is not None
    classes = np.arange(len(problem.classes))
    true, predicted = y[:, np.newaxis] == classes, answers.labels[:, np.newaxis] == classes
    return np.stack([true & predicted, true, predicted], axis=1).astype(np.float64)


def _seen(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, n_classes): whether a row speaks of a class at all, whatever it weighs."""
    counts = _counts(problem, y, answers)
    return np.maximum(counts[:, 1], counts[:, 2])


def _log_loss(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    proba = _proba(answers)
    # As in scikit-learn, by the precision of the dtype.
    eps = np.finfo(proba.dtype).eps
    return -np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps).astype(np.float64))


def _brier(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    proba = _proba(answers).astype(np.float64)
    distance = ((proba - (y[:, np.newaxis] == np.arange(proba.shape[1]))) ** 2).sum(axis=1)
    # As in scikit-learn, (p - y)^2 of the one class that is looked for.
    return distance / 2 if problem.kind == BINARY else distance


def _calibration(problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
    """Return (n, bins): what happened less its probability, in the bin of the probability."""
    proba = _proba(answers).astype(np.float64)
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


def _proba(answers: Answers) -> np.ndarray:
    assert answers.proba is not None, "a metric of probabilities needs them"
    return answers.proba


#: Of y alone, less a center: (n, 2, q) numbers and their squares.
TARGETS = "targets"
WEIGHT = "weight"
#: Sums over rows, whatever they weigh.
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


# --- metrics -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowMetric:
    """A metric of your own: numbers of each row, which are multiplied with its weight and added up.

    Parameters
    ----------
    name : str
        What it is called.
    rows : callable
        (y_true, y_pred) -> numbers (n,), or (n, width). y_true as it came; y_pred what `method` gives, as
        numpy arrays.
    value : callable or None
        (sums (..., width), weight (...)) -> (...), of a whole or of many replicates at once. By default the
        weighted mean of the first number.
    width : int
        How many numbers a row.
    method : {"predict", "predict_proba"}
        What the model is asked for.
    greater_is_better : bool or None
        Whether `assert_thresholds` asks for more or for less; None: it must be told.

    Notes
    -----
    It must be picklable, as everything that workers compute.
    """

    name: str
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    value: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    width: int = 1
    method: str = "predict"
    greater_is_better: bool | None = None

    def __post_init__(self):
        if self.method not in ("predict", "predict_proba"):
            raise ValueError(f"Expected method 'predict' or 'predict_proba', received {self.method!r}.")

    def sums_of(self, problem: Problem, y: np.ndarray, answers: Answers) -> np.ndarray:
        """Return the numbers of each row, (n, width). ValueError: the function gives something else."""
        predicted = _proba(answers) if self.method == "predict_proba" else _decoded(problem, answers.labels)
        numbers = np.asarray(self.rows(_decoded(problem, y), predicted), dtype=np.float64)
        expected = [(len(y), self.width)] + [(len(y),)] * (self.width == 1)
        if numbers.shape not in expected:
            raise ValueError(
                f"Expected metric {self.name!r} to give numbers of shape {expected[-1]}, received "
                f"{numbers.shape}. Return them for each row, and leave the mean over rows to evaluate; for "
                "several numbers a row use dasknn.RowMetric(..., width=k)."
            )
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"Expected finite numbers for each row of metric {self.name!r}, received others."
            )
        return numbers.reshape(len(y), self.width)


def _decoded(problem: Problem, answers: np.ndarray) -> np.ndarray:
    if problem.classes is not None:
        return problem.classes[answers]
    return answers[:, 0] if problem.n_outputs == 1 else answers


@dataclass(frozen=True)
class Metric:
    """A metric by name: for which kinds of problems, from what, and how.

    families: what `value(problem, *sums)` takes, the sum of weights first. curve: for metrics of rankings,
    weights (m, 2, ...) -> area. greater_is_better: None, where neither is. least, most: what it can be.
    centered: whether replicates are moved to have their mean where the metric is, since drawing rows again
    moves it. least_rows: of fewer rows it is not defined. trials: of a share, from what `value` takes, the
    weight of the rows that it is a share of.
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


def _mean(problem, weight, total):
    return ratio(total, weight)


def _accuracy(problem, weight, counts):
    return ratio(counts[..., 0, :].sum(axis=-1), weight)


def _balanced_accuracy(problem, weight, counts):
    hits, true = counts[..., 0, :], counts[..., 1, :]
    return ratio(ratio(hits, true, 0.0).sum(axis=-1), (true > 0).sum(axis=-1))


# Of each class (..., n_classes), from its hits, its rows and its predictions; 0 where it is not defined, as
# in scikit-learn.


def _precision(hits, true, predicted):
    return ratio(hits, predicted, 0.0)


def _recall(hits, true, predicted):
    return ratio(hits, true, 0.0)


def _f1(hits, true, predicted):
    return ratio(2 * hits, true + predicted, 0.0)


def _of_positive(score, problem, weight, counts):
    return _defined(score(*np.moveaxis(counts[..., problem.positive], -1, 0)), weight)


def _macro(score, problem, weight, counts, seen):
    of_classes = score(*np.moveaxis(counts, -2, 0))
    # Of a class that no row speaks of, all scores are 0.
    return _defined(ratio(of_classes.sum(axis=-1), (seen > 0).sum(axis=-1)), weight)


def _micro(score, problem, weight, counts):
    return _defined(score(*np.moveaxis(counts.sum(axis=-1), -1, 0)), weight)


def _weighted(score, problem, weight, counts):
    of_classes = score(*np.moveaxis(counts, -2, 0))
    return ratio((of_classes * counts[..., 1, :]).sum(axis=-1), counts[..., 1, :].sum(axis=-1))


def _defined(values, weight):
    return np.where(weight > 0, values, np.nan)


def _positive_rate(problem, weight, counts):
    return ratio(counts[..., 2, problem.positive], weight)


# What shares are shares of.


def _rows(problem, weight, counts):
    return weight


def _chosen(problem, weight, counts):
    return counts[..., 2, problem.positive]


def _sought(problem, weight, counts):
    return counts[..., 1, problem.positive]


def _calibration_error(problem, weight, bins):
    return ratio(np.abs(bins).sum(axis=-1), weight)


def _of_errors(which: int, problem, weight, errors):
    return ratio(errors[..., which, :], weight[..., np.newaxis]).mean(axis=-1)


def _root_mean_squared_error(problem, weight, errors):
    return np.sqrt(ratio(errors[..., 2, :], weight[..., np.newaxis])).mean(axis=-1)


def _r2(problem, weight, targets, errors):
    weight = weight[..., np.newaxis]
    first, second, error = targets[..., 0, :], targets[..., 1, :], errors[..., 2, :]
    deviation = deviation_of(first, second, weight)
    scores = np.where(deviation == 0, np.where(error == 0, 1.0, 0.0), 1 - ratio(error, deviation, 0.0))
    return np.where(weight > 0, scores, np.nan).mean(axis=-1)


def _own(metric: RowMetric, problem, weight, sums):
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


def _error(name: str, value, greater_is_better: bool | None = False, least: float = 0.0) -> Metric:
    return Metric(
        name, (REGRESSION,), ("errors",), value, greater_is_better=greater_is_better, least=least, most=inf
    )


METRICS = _named()

#: What is looked at where nothing else is said.
DEFAULTS = {
    BINARY: ("accuracy", "precision", "recall", "roc_auc", "log_loss"),
    MULTICLASS: ("accuracy", "balanced_accuracy", "f1_macro", "log_loss"),
    REGRESSION: ("r2", "root_mean_squared_error", "mean_absolute_error", "mean_error"),
}
_OTHER_WORDS = {
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


def resolve(wanted, problem: Problem, has_proba: bool) -> list[Metric]:
    """Return the metrics of these names, functions and RowMetrics; None: the defaults of the problem.

    ValueError: what is not known, or cannot be had of this problem or without probabilities.
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


def _resolve(wanted, problem: Problem) -> Metric:
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
            f"{_did_you_mean(str(wanted), of_kind)} There are {', '.join(of_kind)}."
        )
    if problem.kind not in found.kinds:
        near = f"{wanted}_macro" if f"{wanted}_macro" in of_kind else f"{wanted}_ovr"
        hint = f" Did you mean {near!r}?" if near in of_kind else ""
        raise ValueError(
            f"Metric {wanted!r} is one of {' and '.join(found.kinds)}, and this is {problem.kind}.{hint} "
            f"There are {', '.join(of_kind)}."
        )
    return found


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    plain = name.lower().removeprefix("neg_")
    other = _OTHER_WORDS.get(plain)
    return did_you_mean(other if other in known else plain, known)


# --- what metrics need of rows -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ledger:
    """The columns of a block of numbers: which metrics of which problem they are for."""

    problem: Problem
    metrics: tuple[Metric, ...]

    @property
    def needs_proba(self) -> bool:
        """Whether any metric needs probabilities."""
        return any(metric.needs_proba for metric in self.metrics)

    @property
    def needs_labels(self) -> bool:
        """Whether any metric needs what is predicted, rather than probabilities."""
        return any(not metric.needs_proba for metric in self.metrics)

    @property
    def families(self) -> list[str]:
        """The families that the metrics need, each once, the weight first."""
        needed = [family for metric in self.metrics for family in metric.families]
        return list(dict.fromkeys([WEIGHT, *needed]))

    @property
    def ranked_classes(self) -> list[int]:
        """Classes whose probabilities are ranked."""
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
        """Where each family is in a block."""
        ends = np.cumsum([0, *(prod(self._shape(family)) for family in self.families)]).tolist()
        return {family: slice(*edge) for family, edge in zip(self.families, pairwise(ends), strict=True)}

    def block(self, y: np.ndarray, answers: Answers, weight: np.ndarray | None, center) -> np.ndarray:
        """Return the numbers of each row (n, k), times its weight; center (q,): what targets are less by."""
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
        """Return what is ranked: the probabilities of the positive class, or of each."""
        weight = np.ones(len(y)) if weight is None else weight.astype(np.float64)
        return [
            Ranking(score_sketch.keys_of_probabilities(_proba(answers)[:, number]), y == number, weight)
            for number in self.ranked_classes
        ]

    def value(self, metric: Metric, sums: np.ndarray, curves: Sequence[np.ndarray]) -> np.ndarray:
        """Return a metric (...) from sums (..., k) of a block, or from weights (m, 2, ...) of rankings."""
        if metric.curve is not None:
            areas = np.stack([metric.curve(weights) for weights in curves])
            # Of a slice that lacks a class, scikit-learn's mean over classes would be NaN.
            is_defined = ~np.isnan(areas)
            return ratio(np.where(is_defined, areas, 0.0).sum(axis=0), is_defined.sum(axis=0))
        assert metric.value is not None
        return metric.value(self.problem, *self._of_families(metric, sums))

    def trials(self, metric: Metric, sums: np.ndarray) -> float | None:
        """Return the weight of the rows that a metric is a share of, from sums (k,); None: it is no share."""
        if metric.trials is None:
            return None
        return float(metric.trials(self.problem, *self._of_families(metric, sums)))

    def _of_families(self, metric: Metric, sums: np.ndarray) -> list[np.ndarray]:
        places, leading = self.columns, sums.shape[:-1]
        return [
            sums[..., places[family]].reshape((*leading, *self._shape(family)))
            for family in (WEIGHT, *metric.families)
        ]
