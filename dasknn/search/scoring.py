"""Scores of trials: a number for each epoch, the greater the better, computed where its rows are.

OfTraining    what a fit reports of its validation rows anyway
OfSums        of numbers of each row, added up station by station: most names of scikit-learn's scorers
OfAnswers     of all predictions, which come here: scorers whose score is no sum, such as areas under curves
OfRows        a function of (estimator, X, y): the rows that are scored are brought to one worker for it
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from dasknn.callbacks.monitor import Monitor
from dasknn.data.blocks import Block, concatenate
from dasknn.data.targets import ClassEncoder, MultilabelEncoder, as_array
from dasknn.evaluation.bootstrap import Moments
from dasknn.evaluation.ledger import Ledger
from dasknn.evaluation.metrics import METRICS
from dasknn.evaluation.plan import targets_of
from dasknn.evaluation.responders import MLPResponder, Responder, SequentialResponder, problem_for
from dasknn.models.sequential import Sequential
from dasknn.saving.serialization import did_you_mean
from dasknn.search.ground import RowsToScore
from dasknn.training.prediction import Predictor

_OF_ESTIMATORS = "validation_score"


class Scorer(ABC):
    """Scores a model in the thread that trains it.

    Attributes
    ----------
    name : str
        What is scored, for people.
    """

    name: str

    @abstractmethod
    def score(self, model: Any, rows: RowsToScore, logs: Mapping[str, Any]) -> float:
        """Return the score of a model after an epoch; NaN: it is not defined.

        model: has the weights of the epoch. logs: of the epoch.
        """


class OfTraining(Scorer):
    """A number in the logs of an epoch; without a name, the model's own score, or its loss."""

    def __init__(self, name: str | None = None):
        self._log = name
        self.name = name or "score"

    def score(self, model, rows, logs):
        name = self._log or (_OF_ESTIMATORS if _OF_ESTIMATORS in logs else "val_loss")
        if name not in logs:
            raise ValueError(
                f"Expected scoring to be in the logs of an epoch, received {name!r}."
                f"{did_you_mean(name, logs)} There are {', '.join(logs)}."
            )
        if name == _OF_ESTIMATORS:
            return float(logs[name])
        return Monitor(name, "auto", 0.0)._sign() * float(logs[name])


class OfSums(Scorer):
    """A metric of `dasknn.evaluate`."""

    def __init__(self, name: str):
        self.name = name
        self._metric = METRICS[name.removeprefix("neg_")]

    def score(self, model, rows, logs):
        responder = responder_of(model)
        problem = None if responder.is_multilabel else problem_for(responder, np.empty(0), None)
        if problem is None or problem.kind not in self._metric.kinds:
            # scikit-learn knows this score, or says why there is none.
            return OfAnswers(self.name, get_scorer(self.name)).score(model, rows, logs)
        ledger = Ledger(problem, (self._metric,))
        sums = rows.total(partial(_sums, ledger), responder)
        value = float(ledger.value(self._metric, sums.total[0], []))
        return value if self._metric.greater_is_better else -value


class OfAnswers(Scorer):
    """A scorer of scikit-learn, which is given all predictions."""

    def __init__(self, name: str, scorer: Callable[..., float]):
        self.name, self._scorer = name, scorer

    def score(self, model, rows, logs):
        found = rows.total(_answers, responder_of(model))
        y, weight = np.concatenate(found.y), concatenate(found.weight)
        given = _Given.of(responder_of(model), found)
        rows_asked, extra = np.arange(len(y))[:, np.newaxis], {}
        if weight is not None and self._takes_weights:
            extra["sample_weight"] = weight
        elif weight is not None:
            # Rows without a weight do not count, whatever the score is.
            rows_asked, y = rows_asked[weight > 0], y[weight > 0]
        return float(self._scorer(given, rows_asked, y, **extra))

    @property
    def _takes_weights(self) -> bool:
        parameters = inspect.signature(self._scorer._score_func).parameters.values()  # type: ignore[attr-defined]
        return any(one.name == "sample_weight" or one.kind is one.VAR_KEYWORD for one in parameters)


class OfRows(Scorer):
    """A function (estimator, X, y) -> float; X is as the network takes it, and so does the estimator."""

    def __init__(self, function: Callable[..., float]):
        self.name = getattr(function, "__name__", "score")
        self._function = function

    def score(self, model, rows, logs):
        return rows.gathered(partial(_call, self._function), _asked(responder_of(model)))


def scorer_of(scoring: Any) -> Scorer:
    """Return a scorer by name, or for a function. ValueError: an unknown name."""
    if scoring is None:
        return OfTraining()
    if callable(scoring):
        # Those of scikit-learn ask the estimator for predictions only.
        if hasattr(scoring, "_score_func"):
            return OfAnswers(getattr(scoring._score_func, "__name__", "score"), scoring)
        return OfRows(scoring)
    if not isinstance(scoring, str):
        raise ValueError(
            f"Expected scoring to be a name, a function (estimator, X, y) or None, received {scoring!r}."
        )
    if scoring.startswith("val_"):
        return OfTraining(scoring)
    metric = METRICS.get(scoring.removeprefix("neg_"))
    is_sum = metric is not None and metric.curve is None and metric.greater_is_better is not None
    if is_sum and metric.greater_is_better is not scoring.startswith("neg_"):  # type: ignore[union-attr]
        return OfSums(scoring)
    known = get_scorer_names()
    if scoring not in known:
        raise ValueError(
            f"Expected scoring to be a name of scikit-learn's scorers, received {scoring!r}."
            f"{did_you_mean(scoring, known)} sklearn.metrics.get_scorer_names() lists them."
        )
    return OfAnswers(scoring, get_scorer(scoring))


def responder_of(model: Any) -> Responder:
    """Return what answers for rows as the network takes them."""
    if isinstance(model, Sequential):
        return SequentialResponder.of(model)
    predictor: Predictor = model._predictor()
    encoder = predictor.encoder
    if not isinstance(encoder, ClassEncoder | MultilabelEncoder):
        return _Numbers(predictor=predictor, classes=None, n_outputs=max(1, model._n_targets))
    return MLPResponder(
        predictor=predictor,
        classes=encoder.classes,
        is_multilabel=isinstance(encoder, MultilabelEncoder),
        has_proba=True,
    )


class _Numbers(MLPResponder):
    """A regressor, whose outputs may have to be decoded."""

    def answers(self, X: Any, needs_labels: bool = True, needs_proba: bool = True) -> Any:
        return Responder.answers(self, X, needs_labels, needs_proba)


# --- on workers ----------------------------------------------------------------------------------------


class _Sums:
    """Sums of numbers of rows (1, k), with what their squares are relative to."""

    def __init__(self, total: np.ndarray, moments: Moments | None):
        self.total, self.moments = total, moments

    def __add__(self, other: _Sums) -> _Sums:
        total = other.total
        if self.moments is not None and other.moments is not None:
            (total,) = other.moments.moved((total,), self.moments.center)
        return _Sums(self.total + total, self.moments)


def _sums(ledger: Ledger, responder: Responder, block: Block) -> _Sums:
    assert block.y is not None, "a score needs targets"
    y = targets_of(ledger.problem, block.y)
    answers = responder.answers(block.X, ledger.needs_labels, ledger.needs_proba)
    center = ledger.problem.center_of(y)
    numbers = ledger.block(y, answers, block.weight, center)
    return _Sums(numbers.sum(axis=0, keepdims=True), ledger.moments(0, center))


class _Answers:
    """Targets and predictions of some rows."""

    def __init__(self, y: list, weight: list, labels: list, scores: list):
        self.y, self.weight, self.labels, self.scores = y, weight, labels, scores

    def __add__(self, other: _Answers) -> _Answers:
        return _Answers(
            self.y + other.y,
            self.weight + other.weight,
            self.labels + other.labels,
            self.scores + other.scores,
        )


def _answers(responder: Responder, block: Block) -> _Answers:
    scores = [responder.scores(block.X)] if responder.has_proba else []
    weight = [] if block.weight is None else [block.weight]
    return _Answers([as_array(block.y)], weight, [responder.labels(block.X)], scores)


def _call(function: Callable[..., float], model: Any, X: Any, y: np.ndarray) -> float:
    return float(function(model, X, y))


# --- scikit-learn's scorers ------------------------------------------------------------------------------


class _Asked(BaseEstimator):
    """A model as scikit-learn's scorers ask it: X is rows as the network takes them."""

    def __init__(self, responder: Responder):
        self.responder = responder

    def predict(self, X: Any) -> np.ndarray:
        return self.responder.labels(X)

    @property
    def classes_(self) -> np.ndarray:
        return self.responder.known_classes


class _AskedRegressor(RegressorMixin, _Asked):
    pass


class _AskedClassifier(ClassifierMixin, _Asked):
    pass


class _AskedProbabilities(_AskedClassifier):
    def predict_proba(self, X: Any) -> np.ndarray:
        return self.responder.scores(X)


def _asked(responder: Responder) -> _Asked:
    if responder.classes is None:
        return _AskedRegressor(responder)
    return (_AskedProbabilities if responder.has_proba else _AskedClassifier)(responder)


class _Given(Responder):
    """Predictions that are known: X is the numbers of rows (n, 1)."""

    found: Any

    @classmethod
    def of(cls, responder: Responder, found: _Answers) -> _Asked:
        given = cls(classes=responder.classes, n_outputs=responder.n_outputs, has_proba=responder.has_proba)
        known = (np.concatenate(found.labels), np.concatenate(found.scores) if found.scores else None)
        object.__setattr__(given, "found", known)
        return _asked(given)

    def labels(self, X: np.ndarray) -> np.ndarray:
        return self.found[0][X[:, 0]]

    def scores(self, X: np.ndarray) -> np.ndarray:
        return self.found[1][X[:, 0]]
