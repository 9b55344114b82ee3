"""What classifiers say of rows, and what it comes to: labels and scores, counted where the rows are.

A responder (Classifier, Network, Given) goes to the workers and says, of a partition of X, scores (n, k), a
column for each of its classes, or labels (n,).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from dasknn.cluster.origins import Placed
from dasknn.data import partitions
from dasknn.data.blocks import Block, cast, refuse_problems
from dasknn.data.columns import check_columns
from dasknn.data.targets import ClassEncoder
from dasknn.engine.outputs import MARGINS, PROBABILITIES, Outputs
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.evaluation.metrics import BINARY, MULTICLASS, REGRESSION, Answers, Problem
from dasknn.exceptions import PartitionError
from dasknn.losses import CLASSES, NUMBERS
from dasknn.models.layer_stack import Stack
from dasknn.models.sequential import Sequential
from dasknn.training.prediction import Predictor


@dataclass(frozen=True, eq=False)
class NetworkResponder:
    """A network of ours: one way through it gives labels and probabilities.

    says: what its outputs say of classes; None for a regression. names: the columns of a dataframe.
    """

    predictor: Predictor
    problem: Problem
    says: Outputs | None
    names: list | None
    needs_labels: bool = True
    needs_proba: bool = True

    @property
    def has_proba(self) -> bool:
        return self.says is not None and self.says.has_probabilities

    def answers(self, X) -> Answers:
        values = cast(partitions.flat_rows(X), self.predictor.network.dtype)
        self._check(values)
        outputs = self.predictor.outputs(values)
        if self.says is None:
            return Answers(outputs)
        scores = self.says.scores(outputs)
        return Answers(self.says.labels(scores), scores if self.has_proba else None)

    def _check(self, values) -> None:
        """PartitionError: NaN or infinity; it names the column."""
        try:
            refuse_problems(Block(values, None, None))
        except PartitionError:
            if self.names is None:
                raise
            row, column = np.argwhere(~np.isfinite(values))[0].tolist()
            raise PartitionError(
                f"X holds {values[row, column]} in row {row}, column {self.names[column]!r}. Expected finite "
                "numbers: drop such rows, or fill them (dask.dataframe's fillna, or an imputer)."
            ) from None


def _labels(proba: np.ndarray) -> np.ndarray:
    """Return the numbers of the likeliest classes (n,); of two, the second one only above 0.5."""
    if proba.shape[1] == 2:
        return (proba[:, 1] > 0.5).astype(np.intp)
    return proba.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class EstimatorResponder:
    """Any fitted estimator, applied to a partition as it is."""

    model: Any
    problem: Problem
    has_proba: bool
    needs_labels: bool = True
    needs_proba: bool = True

    def answers(self, X) -> Answers:
        if self.problem.classes is None:
            numbers = np.asarray(self.model.predict(X), dtype=np.float64)
            return Answers(numbers.reshape(len(numbers), -1))
        proba = None
        if self.needs_proba or self._is_ours:
            proba = np.asarray(self.model.predict_proba(X))
        if self._is_ours:
            assert proba is not None
            # One way through the pipeline is enough.
            return Answers(_labels(proba), proba)
        if not self.needs_labels:
            assert proba is not None
            return Answers(np.zeros(len(proba), dtype=np.intp), proba)
        labels = np.asarray(self.model.predict(X))
        return Answers(ClassEncoder(self.problem.classes, "float64").numbers(labels), proba)

    @property
    def _is_ours(self) -> bool:
        return hasattr(self.model, "steps") and isinstance(self.model[-1], MLPClassifier)


def responders_of(models: Sequence[Any], X, y, pos_label) -> tuple[list[Any], Any]:
    """Return what asks each model, and X as all of them take it."""
    respondents: list[NetworkResponder | EstimatorResponder] = []
    respondent: NetworkResponder | EstimatorResponder
    for model in models:
        if isinstance(model, Sequential):
            respondent, X = _sequential(model, X, pos_label)
        elif isinstance(model, MLPClassifier | MLPRegressor):
            respondent = _mlp(model, X, pos_label)
        else:
            respondent = _estimator(model, y, pos_label)
        respondents.append(respondent)
    return respondents, X


def _mlp(model, X, pos_label) -> NetworkResponder:
    predictor = model._predictor()
    try:
        check_columns(model, X if hasattr(X, "ndim") else np.asarray(X), reset=False)
    except ValueError as error:
        error.add_note("Columns to slice by that the model must not see go to slice_data.")
        raise
    names = list(X.columns) if partitions.is_dataframe(X) else None
    if isinstance(model, MLPRegressor):
        return NetworkResponder(predictor, Problem(REGRESSION, None, model.n_outputs_), None, names)
    if not isinstance(predictor.encoder, ClassEncoder):
        raise ValueError(_MULTILABEL)
    problem = _classes(predictor.encoder.classes, pos_label)
    return NetworkResponder(
        predictor, problem, Outputs(CLASSES, PROBABILITIES, predictor.network.n_outputs), names
    )


_MULTILABEL = (
    "Expected a model of one label a row, received one of several labels. Evaluate one label after the other."
)


def _sequential(model: Sequential, X, pos_label) -> tuple[NetworkResponder, Any]:
    if not model.built:
        raise NotFittedError("This Sequential is not built yet. Call 'fit' first.")
    names = list(X.columns) if partitions.is_dataframe(X) else None
    X = model._ready(X)
    network = model._built_network()
    assert model._members is not None
    predictor = Predictor(network, model._members, None)
    says = Outputs.of_network(network)
    if says.of == NUMBERS:
        return NetworkResponder(predictor, Problem(REGRESSION, None, network.n_outputs), None, names), X
    if says.is_multilabel:
        raise ValueError(_MULTILABEL)
    problem = _classes(says.classes, pos_label)
    problem = replace(problem, one_hot=says.of == CLASSES, signed=says.scale == MARGINS)
    return NetworkResponder(predictor, problem, says, names), X


def _estimator(model, y, pos_label) -> EstimatorResponder:
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise TypeError(
            f"Expected a fitted model with predict (an estimator, a Pipeline or a Sequential), received "
            f"{model!r:.80}."
        )
    if hasattr(model, "steps") and isinstance(model[-1], Sequential):
        raise ValueError(
            "Expected a Pipeline that ends in a classifier or a regressor, received one that ends in a "
            "Sequential. Evaluate its last step: dasknn.evaluate(pipeline[-1], pipeline[:-1].transform(X), "
            "y, slice_data=X)."
        )
    check_is_fitted(model)
    model = bare(model)
    if is_regressor(model):
        n_outputs = np.shape(y)[1] if np.ndim(y) == 2 else 1
        return EstimatorResponder(model, Problem(REGRESSION, None, int(n_outputs)), has_proba=False)
    classes = getattr(model, "classes_", None)
    if not is_classifier(model) or classes is None:
        raise TypeError(
            f"Expected a classifier with classes_ or a regressor, received {type(model).__name__}."
        )
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise ValueError(_MULTILABEL)
    return EstimatorResponder(
        model, _classes(np.asarray(classes), pos_label), hasattr(model, "predict_proba")
    )


def _classes(classes: np.ndarray, pos_label) -> Problem:
    known = classes.tolist()
    if len(known) < 2:
        raise ValueError(f"Expected a classifier of two classes or more, received one of {known} alone.")
    if pos_label is None:
        return Problem(BINARY if len(known) == 2 else MULTICLASS, classes)
    if len(known) > 2 or pos_label not in known:
        raise ValueError(
            f"Expected pos_label to be one of two classes, received {pos_label!r} for {known[:20]}."
        )
    return Problem(BINARY, classes, positive=known.index(pos_label))


def check_alike(problems: Sequence[Problem]) -> None:
    for other in problems[1:]:
        first = problems[0]
        one, two = (None if p.classes is None else p.classes.tolist() for p in (first, other))
        if (first.kind, one) != (other.kind, two):
            raise ValueError(
                f"Expected two models that predict the same, received {first.kind} of {one} and {other.kind} "
                f"of {two}."
            )


# See `place_of`: no model says otherwise.
ANYWHERE: Mapping[str, Any] = {"client": None}


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier, as workers get it. classes: those of the columns of its scores.

    multilabel: a row has any number of them. method: predict_proba or decision_function.
    """

    model: Any
    classes: np.ndarray
    multilabel: bool
    method: str

    def scores(self, X) -> np.ndarray:
        """Return (n, k): a column a class."""
        scores = np.asarray(getattr(self.model, self.method)(X))
        return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores

    def labels(self, X) -> np.ndarray:
        """Return labels (n,)."""
        return np.asarray(self.model.predict(X))


@dataclass(frozen=True)
class Network:
    """What a Sequential predicts, if that is labels or classes: those are 0, 1, ..."""

    predictor: Predictor
    says: Outputs

    @property
    def classes(self) -> np.ndarray:
        """Numbers of the classes."""
        return self.says.classes

    @property
    def multilabel(self) -> bool:
        """Whether a row has any number of them."""
        return self.says.is_multilabel

    def scores(self, X) -> np.ndarray:
        """Return probabilities or margins (n, k): a column a class."""
        return self.says.scores(self.predictor.outputs(X))

    def labels(self, X) -> np.ndarray:
        """Return labels (n,)."""
        return self.says.labels(self.scores(X))


@dataclass(frozen=True)
class Given:
    """Scores that a user has already: X are they. binary: 0, 1 or -1 are the only targets there may be.

    as_text: classes are names of columns, so targets are compared with them as text.
    """

    classes: np.ndarray
    multilabel: bool = False
    binary: bool = False
    as_text: bool = False

    def scores(self, X) -> np.ndarray:
        """Return (n, k): a column a class."""
        scores = np.asarray(X.to_numpy() if hasattr(X, "to_numpy") else X)
        return scores.reshape(len(scores), -1)


def responder_of(model, method: str = "auto") -> Classifier | Network:
    """Return what says scores and labels of rows. NotFittedError; ValueError: it is not a classifier."""
    if isinstance(model, Stack):
        return _network(model, method)
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise TypeError(
            f"Expected a fitted classifier (an estimator, a Pipeline or a Sequential), received "
            f"{model!r:.80}."
        )
    check_is_fitted(model)
    if not is_classifier(model):
        raise ValueError(
            f"Expected a classifier, received {type(model).__name__}, which predicts numbers. Of those, "
            "LearningCurveDisplay and SlicesDisplay show something."
        )
    methods = ["predict_proba", "decision_function"] if method == "auto" else [method]
    found = [name for name in methods if hasattr(model, name)]
    if not found:
        raise ValueError(f"Expected a model with {' or '.join(methods)}, received {type(model).__name__}.")
    classes = np.asarray(getattr(model, "classes_", ()))
    last = model[-1] if hasattr(model, "steps") else model
    multilabel = getattr(last, "out_activation_", None) == "logistic" and getattr(last, "n_outputs_", 1) > 1
    if classes.ndim != 1 or not len(classes):
        raise ValueError(
            f"Expected a {type(model).__name__} with classes_ (k,), received one with {classes.shape}."
        )
    return Classifier(bare(model), classes, multilabel, found[0])


def _network(model, method: str) -> Network:
    if not model.built:
        raise NotFittedError("This Sequential is not built yet. Call 'fit' first.")
    network = model._built_network()
    says = Outputs.of_network(network)
    if says.of == NUMBERS:
        raise ValueError(
            "Expected a Sequential that says classes: one whose last layer has activation='sigmoid' or "
            "'softmax', or that was compiled with a loss of them, such as "
            f"BinaryCrossentropy(from_logits=True); received loss={network.loss!r} and "
            f"activation={network.layers[-1].activation_name!r}."
        )
    if method == "predict_proba" and not says.has_probabilities:
        raise ValueError(
            f"Expected a Sequential of probabilities, received one with loss={network.loss!r}, whose outputs "
            "are margins. Train with a crossentropy."
        )
    return Network(Predictor(network, model._members, None), says)


def bare(model):
    """Return a model of ours, or a Pipeline of one, as it can travel: callbacks may hold what cannot."""
    light = copy.copy(model)
    if hasattr(model, "steps"):
        light.steps = [*model.steps[:-1], (model.steps[-1][0], bare(model.steps[-1][1]))]
    elif hasattr(model, "history_"):
        light.callbacks, light.history_ = None, []
    else:
        return model
    return light


def rows_for(model, X):
    """Return X as a model takes it. ValueError: a Sequential takes other shapes."""
    return model._ready(X) if isinstance(model, Stack) else X  # type: ignore[attr-defined]


def place_of(model) -> dict[str, Any]:
    """Return where a model, or the last step of a Pipeline, was told to run: settings of `connect`."""
    last = model[-1] if hasattr(model, "steps") else model
    # What models of others call so may mean something else.
    is_ours = isinstance(last, Placed | Stack)
    return {name: getattr(last, name, None) if is_ours else None for name in ("client", "workers")}
