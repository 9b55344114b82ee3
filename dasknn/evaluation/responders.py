"""One family of responders: a fitted model of any kind, as tasks ask it about partitions of X.

responder_of(model) ─► MLPResponder          MLPClassifier, MLPRegressor  ┐ also as the last step
                       SequentialResponder   Sequential                   ┘ of a Pipeline
                       EnsembleResponder     EnsembleClassifier and -Regressor: one for each member
                       EstimatorResponder    any other estimator with scikit-learn's predict
                       Given                 predictions that exist already: X is them

here         rows_for(model, X): X as the model takes it; place_of(model): where it runs
on workers   .labels(X), .scores(X): for plots; .answers(X): for metrics, in one pass over the rows
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from dasknn.cluster.origins import Placed
from dasknn.data import partitions
from dasknn.data.blocks import cast, problem_of, refuse
from dasknn.data.columns import check_columns
from dasknn.data.targets import ClassEncoder, MultilabelEncoder, NumberEncoder, as_array
from dasknn.engine import engines
from dasknn.engine.outputs import MARGINS, Outputs
from dasknn.ensembles import EnsembleClassifier, EnsembleRegressor
from dasknn.ensembles.mixture import Mixture
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.evaluation.problem import BINARY, MULTICLASS, REGRESSION, Answers, Problem
from dasknn.losses import CLASSES, NUMBERS
from dasknn.models.layer_stack import Stack
from dasknn.models.sequential import Sequential
from dasknn.training.prediction import Predictor

#: Settings of `connect` for data without a model; see `place_of`.
ANYWHERE: Mapping[str, Any] = {"client": None}


@dataclass(frozen=True, eq=False, kw_only=True)
class Responder(ABC):
    """Predicts with a fitted model for one partition of X after another.

    Attributes
    ----------
    classes : array (k,) or None
        Labels of the classes, one for each column of `scores`; None for a regression.
    n_outputs : int or None
        Columns of a regression's predictions; None: as many as y has.
    is_multilabel : bool
        Whether a row can have several of the classes.
    has_proba : bool
        Whether the model has probabilities.
    one_hot, signed : bool
        Whether targets may be one-hot rows, or -1 for the class 0.
    """

    classes: np.ndarray | None
    n_outputs: int | None = 1
    is_multilabel: bool = False
    has_proba: bool = False
    one_hot: bool = False
    signed: bool = False

    @property
    def known_classes(self) -> np.ndarray:
        """The classes, of a classifier."""
        assert self.classes is not None, "a regression has no classes"
        return self.classes

    @abstractmethod
    def labels(self, X: Any) -> np.ndarray:
        """Return the predicted labels (n,)."""

    @abstractmethod
    def scores(self, X: Any) -> np.ndarray:
        """Return probabilities or other scores (n, k), a column for each class."""

    def answers(self, X: Any, needs_labels: bool = True, needs_proba: bool = True) -> Answers:
        """Return the predictions from which metrics are computed."""
        if self.classes is None:
            numbers = np.asarray(self.labels(X), dtype=np.float64)
            return Answers(numbers.reshape(len(numbers), -1))
        proba = self.scores(X) if needs_proba else None
        if not needs_labels:
            assert proba is not None, "metrics need labels or probabilities"
            return Answers(np.zeros(len(proba), dtype=np.intp), proba)
        return Answers(ClassEncoder(self.classes, "float64").numbers(self.labels(X)), proba)


# --- networks of dasknn ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkResponder(Responder):
    """A network of dasknn, which is asked once for labels and probabilities.

    Attributes
    ----------
    predictor : Predictor
    steps : tuple of transformers
        Steps of pipelines before the network, applied in turn.
    """

    predictor: Predictor
    steps: tuple[Any, ...] = ()

    def rows(self, X: Any) -> Any:
        """Return the network's inputs. PartitionError: NaN or infinity, with its row and column."""
        for step in self.steps:
            X = step.transform(X)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        rows = cast(partitions.flat_rows(X), self.predictor.network.dtype)
        refuse(problem_of(rows, feature_names=names))
        return rows

    def answers(self, X: Any, needs_labels: bool = True, needs_proba: bool = True) -> Answers:
        if self.classes is None:
            return Answers(self.predictor.outputs(self.rows(X)))
        scores = self.scores(X)
        return Answers(self._numbers(scores), scores if self.has_proba else None)

    @abstractmethod
    def _numbers(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers of the predicted classes (n,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MLPResponder(NetworkResponder):
    """An MLPClassifier or MLPRegressor."""

    @classmethod
    def of(cls, model: MLPClassifier | MLPRegressor) -> MLPResponder:
        """Return the responder. NotFittedError: the model is not fitted."""
        predictor = model._predictor()
        encoder = predictor.encoder
        if isinstance(encoder, NumberEncoder):
            return cls(predictor=predictor, classes=None, n_outputs=encoder.n_outputs)
        assert isinstance(encoder, ClassEncoder | MultilabelEncoder)
        return cls(
            predictor=predictor,
            classes=encoder.classes,
            is_multilabel=isinstance(encoder, MultilabelEncoder),
            has_proba=True,
        )

    def labels(self, X: Any) -> np.ndarray:
        return self.predictor.predict(self.rows(X))

    def scores(self, X: Any) -> np.ndarray:
        return self.predictor.predict_proba(self.rows(X))

    def _numbers(self, scores: np.ndarray) -> np.ndarray:
        if scores.shape[1] == 2:
            return (scores[:, 1] > 0.5).astype(np.intp)
        return scores.argmax(axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class SequentialResponder(NetworkResponder):
    """A Sequential, whose classes are 0, 1, ...

    Attributes
    ----------
    outputs : Outputs
        How its outputs are read.
    """

    outputs: Outputs

    @classmethod
    def of(cls, model: Sequential) -> SequentialResponder:
        """Return the responder. NotFittedError: the model is not built."""
        if not model.built:
            raise NotFittedError("This Sequential is not built yet. Call 'fit' first.")
        network = model._built_network()
        assert model._members is not None
        outputs = Outputs.of_network(network)
        return cls(
            predictor=Predictor(network, model._members, None, vars(model).get("engine_", engines.NUMPY)),
            outputs=outputs,
            classes=None if outputs.of == NUMBERS else outputs.classes,
            n_outputs=network.n_outputs,
            is_multilabel=outputs.is_multilabel,
            has_proba=outputs.has_probabilities,
            one_hot=outputs.of == CLASSES,
            signed=outputs.scale == MARGINS,
        )

    def labels(self, X: Any) -> np.ndarray:
        if self.classes is None:
            return self.predictor.outputs(self.rows(X))
        return self.outputs.labels(self.scores(X))

    def scores(self, X: Any) -> np.ndarray:
        return self.outputs.scores(self.predictor.outputs(self.rows(X)))

    def _numbers(self, scores: np.ndarray) -> np.ndarray:
        return self.outputs.labels(scores)


# --- ensembles ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsembleResponder(Responder):
    """An EnsembleClassifier or EnsembleRegressor, each of whose members is asked once.

    Attributes
    ----------
    responders : tuple of Responder
        One for each member.
    mixture : Mixture
        How their predictions are combined.
    """

    responders: tuple[Responder, ...]
    mixture: Mixture

    @classmethod
    def of(cls, model: EnsembleClassifier | EnsembleRegressor) -> EnsembleResponder:
        """Return the responder. NotFittedError: a member is not fitted."""
        members, mixture = model._council()
        responders = tuple(map(responder_of, model.members))
        return cls(
            responders=responders,
            mixture=mixture,
            classes=mixture.classes,
            n_outputs=members[0].n_targets,
            is_multilabel=mixture.is_multilabel,
            has_proba=mixture.classes is not None,
            one_hot=all(responder.one_hot for responder in responders),
        )

    def labels(self, X: Any) -> np.ndarray:
        if self.classes is not None:
            return self.mixture.labels_of(self.scores(X))
        answers = [responder.answers(X).labels for responder in self.responders]
        return self.mixture.numbers(*answers)

    def scores(self, X: Any) -> np.ndarray:
        return self.mixture.mean(*(responder.scores(X) for responder in self.responders))

    def answers(self, X: Any, needs_labels: bool = True, needs_proba: bool = True) -> Answers:
        if self.classes is None:
            return super().answers(X)
        scores = self.scores(X)
        labels = self.mixture.labels_of(scores)
        return Answers(ClassEncoder(self.classes, "float64").numbers(labels), scores)


# --- other models ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class EstimatorResponder(Responder):
    """Any fitted estimator, applied to a partition as it is.

    Attributes
    ----------
    model : estimator
    method : str
        The method that gives scores: predict_proba or decision_function.
    """

    model: Any
    method: str = "predict_proba"

    @classmethod
    def of(cls, model: Any) -> EstimatorResponder:
        """Return the responder.

        Raises
        ------
        NotFittedError
            The model is not fitted.
        TypeError
            It is neither a classifier nor a regressor.
        ValueError
            It has several outputs of classes.
        """
        if isinstance(model, type) or not hasattr(model, "predict"):
            raise TypeError(
                "Expected a fitted model with predict (an estimator, a Pipeline or a Sequential), received "
                f"{model!r:.80}."
            )
        check_is_fitted(model)
        if is_regressor(model):
            return cls(model=_light(model), classes=None, n_outputs=None)
        classes = getattr(model, "classes_", None)
        if not is_classifier(model) or classes is None:
            raise TypeError(
                f"Expected a classifier with classes_ or a regressor, received {type(model).__name__}."
            )
        if isinstance(classes, list) or np.ndim(classes) != 1:
            raise ValueError(
                f"Expected a {type(model).__name__} with one output, received one with several. Train a "
                "model for each of them."
            )
        last = last_step(model)
        return cls(
            model=_light(model),
            classes=np.asarray(classes),
            # As scikit-learn's MLPClassifier tells it.
            is_multilabel=getattr(last, "out_activation_", None) == "logistic"
            and getattr(last, "n_outputs_", 1) > 1,
            has_proba=hasattr(model, "predict_proba"),
        )

    def labels(self, X: Any) -> np.ndarray:
        return np.asarray(self.model.predict(X))

    def scores(self, X: Any) -> np.ndarray:
        scores = np.asarray(getattr(self.model, self.method)(X))
        return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores


def _light(model: Any) -> Any:
    """Return a model or a Pipeline without callbacks of dasknn's models, which may not be picklable."""
    light = copy.copy(model)
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        light.steps = [*model.steps[:-1], (name, _light(last))]
    elif hasattr(model, "history_"):
        light.callbacks, light.history_ = None, []
    else:
        return model
    return light


@dataclass(frozen=True, eq=False, kw_only=True)
class Given(Responder):
    """Predictions that exist already, in place of X.

    Attributes
    ----------
    is_binary : bool
        Whether 0, 1 and -1 are the only targets that there may be.
    as_text : bool
        Whether classes are names of columns, so that targets are compared with them as text.
    """

    is_binary: bool = False
    as_text: bool = False

    def labels(self, X: Any) -> np.ndarray:
        labels = as_array(X)
        return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels

    def scores(self, X: Any) -> np.ndarray:
        scores = np.asarray(X.to_numpy() if hasattr(X, "to_numpy") else X)
        return scores.reshape(len(scores), -1)


# --- from a model to its responder -------------------------------------------------------------------


def responder_of(model: Any) -> Responder:
    """Return the responder of a fitted model.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, Sequential, Pipeline, ensemble or any fitted estimator
        A pipeline may end in any of the others.

    Raises
    ------
    NotFittedError
        The model is not fitted or built.
    TypeError
        It predicts nothing, or it is neither a classifier nor a regressor.
    ValueError
        It has several outputs of classes.
    """
    if isinstance(model, MLPClassifier | MLPRegressor):
        return MLPResponder.of(model)
    if isinstance(model, Sequential):
        return SequentialResponder.of(model)
    if isinstance(model, EnsembleClassifier | EnsembleRegressor):
        return EnsembleResponder.of(model)
    if isinstance(model, Pipeline) and _ends_in_network(model):
        responder = responder_of(model[-1])
        assert isinstance(responder, NetworkResponder)
        before = (model[:-1],) if len(model) > 1 else ()
        return replace(responder, steps=(*before, *responder.steps))
    return EstimatorResponder.of(model)


def _ends_in_network(model: Pipeline) -> bool:
    last = model[-1]
    # Pipelines of other packages may have steps that transform no rows.
    if len(model) > 1 and not hasattr(model[:-1], "transform"):
        return False
    if isinstance(last, Pipeline):
        return _ends_in_network(last)
    return isinstance(last, MLPClassifier | MLPRegressor | Sequential)


def classifier_of(model: Any, method: str = "auto") -> Responder:
    """Return the responder of a fitted classifier, whose scores are those of a method.

    Parameters
    ----------
    model
        See `responder_of`.
    method : "predict_proba", "decision_function" or "auto"
        "auto" is the first of these that the model has.

    Raises
    ------
    ValueError
        The model is not a classifier, or it does not have the method. Also as for `responder_of`.
    """
    responder = responder_of(model)
    if isinstance(responder, SequentialResponder):
        _check_sequential(last_step(model), responder, method)
        return responder
    name = type(model).__name__
    if responder.classes is None:
        raise ValueError(
            f"Expected a classifier, received {name}, which predicts numbers. Use LearningCurveDisplay or "
            "SlicesDisplay, which show regressions, too."
        )
    methods = ["predict_proba", "decision_function"] if method == "auto" else [method]
    found = [one for one in methods if hasattr(model, one)]
    if not found:
        raise ValueError(f"Expected a model with {' or '.join(methods)}, received {name}.")
    return replace(responder, method=found[0]) if isinstance(responder, EstimatorResponder) else responder


def _check_sequential(model: Any, responder: SequentialResponder, method: str) -> None:
    network = responder.predictor.network
    if responder.classes is None:
        raise ValueError(
            "Expected a Sequential that predicts classes, received one with "
            f"loss={network.loss!r} and activation={network.layers[-1].activation_name!r}. Use "
            "activation='sigmoid' or 'softmax' in the last layer, or compile with a loss of classes, such as "
            "BinaryCrossentropy(from_logits=True)."
        )
    if method == "predict_proba" and not responder.has_proba:
        raise ValueError(
            f"Expected a Sequential of probabilities, received one with loss={network.loss!r}, whose outputs "
            "are margins. Train with a crossentropy."
        )


def problem_for(responder: Responder, y: Any, pos_label: Any) -> Problem:
    """Return what a model predicts. ValueError: several labels, one class, or another pos_label."""
    if responder.is_multilabel:
        raise ValueError(
            "Expected a model of one label a row, received one of several labels. Evaluate one label after "
            "the other."
        )
    if responder.classes is None:
        n_outputs = responder.n_outputs
        if n_outputs is None:
            n_outputs = int(np.shape(y)[1]) if np.ndim(y) == 2 else 1
        return Problem(REGRESSION, None, n_outputs)
    known = responder.classes.tolist()
    if len(known) < 2:
        raise ValueError(f"Expected a classifier of two classes or more, received one of {known} alone.")
    kind = BINARY if len(known) == 2 else MULTICLASS
    positive = 1
    if pos_label is not None:
        if kind == MULTICLASS or pos_label not in known:
            raise ValueError(
                f"Expected pos_label to be one of two classes, received {pos_label!r} for {known[:20]}."
            )
        positive = known.index(pos_label)
    return Problem(
        kind, responder.classes, positive=positive, one_hot=responder.one_hot, signed=responder.signed
    )


def last_step(model: Any) -> Any:
    """Return the last step of a Pipeline, or the model itself."""
    return last_step(model[-1]) if hasattr(model, "steps") else model


def rows_for(model: Any, X: Any) -> Any:
    """Return X as a model takes it, Dask collection or plain. ValueError: other columns or shapes."""
    if isinstance(model, Sequential):
        return model._ready(X)
    if isinstance(model, MLPClassifier | MLPRegressor):
        X = X if hasattr(X, "ndim") else np.asarray(X)
        check_columns(model, X, reset=False)
    if isinstance(model, EnsembleClassifier | EnsembleRegressor):
        # Each checks its columns. Rows of several dimensions become flat, and only a Sequential takes these.
        first, *_ = [rows_for(member, X) for member in model.members_]
        return first
    return X


def place_of(model: Any) -> dict[str, Any]:
    """Return where a model, or the last step of a Pipeline, was told to run: settings of `connect`."""
    last = last_step(model)
    # Attributes of these names may mean something else in other packages' models.
    is_placed = isinstance(last, Placed | Stack)
    return {name: getattr(last, name, None) if is_placed else None for name in ("client", "workers")}
