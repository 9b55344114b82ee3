"""What classifiers say of rows, and what it comes to: labels and scores, counted where the rows are.

A responder (Classifier, Network, Given) goes to the workers and says, of a partition of X, scores (n, k), a
column for each of its classes, or labels (n,).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.utils.validation import check_is_fitted

from dasknn.cluster.connect import connect
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.origins import Placed
from dasknn.curves import LabelCounts, count_rows
from dasknn.data import partitions
from dasknn.data.blocks import select
from dasknn.data.targets import as_array
from dasknn.engine.outputs import MARGINS, Outputs, from_signs
from dasknn.losses import NUMBERS
from dasknn.models.layer_stack import Stack
from dasknn.training.prediction import Predictor

# More lines than this cannot be told apart.
MOST_CURVES = 28
# See `place_of`: no model says otherwise.
_ANYWHERE: Mapping[str, Any] = {"client": None}


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


def counted(count: Callable, responder, X, y, sample_weight, place: Mapping[str, Any] = _ANYWHERE) -> list:
    """Return what count(responder, X, y, weight) comes to over all rows, counted where they are."""
    if partitions.is_distributed(X, y, sample_weight):
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        with connect(**place, distributed=True, data=(X, y, sample_weight)) as tasks:
            return count_rows(tasks, parts, partial(_with_columns, count, names), responder)
    with LocalExecutor() as tasks:
        return count_rows(tasks, partitions.parts(X, y, sample_weight), count, responder)


def _with_columns(count: Callable, names: list | None, responder, X, y, weight) -> list:
    # A Dask dataframe may announce its columns in another order than its partitions have them.
    return count(responder, select(X, names), y, weight)


def check_lengths(**columns) -> None:
    """Raise ValueError for lengths that are known and differ."""
    lengths = {
        name: partitions.n_samples(column)
        for name, column in columns.items()
        if column is not None and not (partitions.is_dask_frame(column) or isinstance(column, float | int))
    }
    known = {name: n for name, n in lengths.items() if not np.isnan(n)}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in known.items())
        raise ValueError(f"Expected as many rows in each, received: {told}.")


# --- labels ------------------------------------------------------------------------------------------


def count_labels(responder, X, y, weight) -> list[LabelCounts]:
    """Count the labels that a model predicts for X."""
    labels = responder.labels(X) if partitions.n_samples(X) else responder.classes[:0]
    if isinstance(responder, Network) and responder.says.scale == MARGINS:
        y = from_signs(y)
    return _pairs(y, labels, weight)


def count_given_labels(_, y_pred, y, weight) -> list[LabelCounts]:
    """Count labels that were predicted before."""
    labels = as_array(y_pred)
    return _pairs(y, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels, weight)


def _pairs(y, labels, weight) -> list[LabelCounts]:
    if y.ndim == 2 and labels.ndim == 1 and set(np.unique(y).tolist()) <= {0, 1}:
        # One-hot, as Keras's categorical_crossentropy takes them.
        y = y.argmax(axis=1)
    if y.ndim != 1 or labels.ndim != 1:
        raise ValueError(
            f"Expected true and predicted labels (n,), received shapes {y.shape} and {labels.shape}. Of "
            "several labels a row, draw one column after the other."
        )
    return [LabelCounts.of(y, labels, weight)]


# --- scores ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """The counts of the curves of a picture: one, or one for each class."""

    counts: list
    classes: list
    pos_label: Any

    @property
    def is_single(self) -> bool:
        """Whether there is one curve."""
        return len(self.counts) == 1

    def names(self, name: str | None) -> list[str | None]:
        """Return what to call each curve, of a model of that name."""
        if self.is_single:
            return [name]
        return [str(label) if name is None else f"{name}, {label}" for label in self.classes]


def curves_of_model(count: Callable, method: str, estimator, X, y, sample_weight, pos_label) -> Curves:
    """Count the scores of a model: of pos_label, of the second of two classes, or of each class."""
    responder = responder_of(estimator, method)
    if len(responder.classes) == 1:
        raise ValueError(
            f"Expected a classifier of two classes or more, received one of {responder.classes[0]!r} alone."
        )
    columns = _columns_of(responder, pos_label)
    X = rows_for(estimator, X)
    return _curves(count, responder, columns, X, y, sample_weight, place_of(estimator))


def curves_of_scores(count: Callable, y_true, y_score, sample_weight, pos_label, labels) -> Curves:
    """Count scores that there are already: (n,) of the positive class, or (n, k), a column a class."""
    check_lengths(y_true=y_true, y_score=y_score, sample_weight=sample_weight)
    if not hasattr(y_score, "ndim"):
        y_score = np.asarray(y_score)
    n_columns = 1 if y_score.ndim == 1 else _n_columns(y_score)
    if n_columns == 1:
        if labels is not None:
            raise ValueError(
                f"Expected scores (n, k), a column for each of labels={labels!r:.80}, received one column."
            )
        # As they are: they are those of the positive class.
        responder = Given(np.asarray([1 if pos_label is None else pos_label]), binary=pos_label is None)
        return _curves(count, responder, [0], y_score, y_true, sample_weight)
    as_text = labels is None and partitions.is_dataframe(y_score)
    if labels is None:
        labels = [str(name) for name in y_score.columns] if as_text else list(range(n_columns))
        pos_label = str(pos_label) if as_text and pos_label is not None else pos_label
    if len(labels) != n_columns:
        raise ValueError(f"Expected labels for {n_columns} columns of scores, received {len(labels)}.")
    wide = getattr(y_true, "ndim", np.ndim(y_true)) == 2 and _n_columns(y_true) > 1
    responder = Given(np.asarray(labels), multilabel=wide, as_text=as_text)
    return _curves(count, responder, _columns_of(responder, pos_label), y_score, y_true, sample_weight)


def _n_columns(table) -> int:
    return len(table.columns) if partitions.is_dataframe(table) else int(np.shape(table)[1])


def _columns_of(responder: Classifier | Network | Given, pos_label) -> list[int]:
    """Return which columns of scores have a curve: pos_label, the second of two classes, or each."""
    classes = responder.classes.tolist()
    if pos_label is not None:
        if pos_label not in classes:
            raise ValueError(f"Expected pos_label to be one of {classes[:20]}, received {pos_label!r}.")
        return [classes.index(pos_label)]
    return [1] if len(classes) == 2 and not responder.multilabel else list(range(len(classes)))


def _curves(count, responder, columns: list[int], X, y, sample_weight, place=_ANYWHERE) -> Curves:
    if len(columns) > MOST_CURVES:
        raise ValueError(
            f"Expected at most {MOST_CURVES} classes to draw a curve each, received {len(columns)}. Choose "
            "one with pos_label=..."
        )
    counts = counted(partial(_count_columns, count, columns), responder, X, y, sample_weight, place)
    classes = responder.classes[columns].tolist()
    drawn = [(found, label) for found, label in zip(counts, classes, strict=True) if all(found.totals)]
    if not drawn:
        positive, negative = counts[0].totals
        raise ValueError(
            f"Expected rows of {classes[0]!r} and others, received rows that weigh {positive:g} and "
            f"{negative:g}. Look at the labels of y and, where there is one, at pos_label."
        )
    if missing := [label for found, label in zip(counts, classes, strict=True) if not all(found.totals)]:
        warnings.warn(
            f"No curve for {missing}: there are no rows of that class, or no others.",
            UndefinedMetricWarning,
            stacklevel=5,
        )
    shown = [label for _, label in drawn]
    return Curves([found for found, _ in drawn], shown, classes[0] if len(columns) == 1 else None)


def _count_columns(count: Callable, columns: list[int], responder, X, y, weight) -> list:
    """Return count(n_curves, is_positive, scores, weight) for each of these columns of scores."""
    k = len(responder.classes)
    scores = responder.scores(X) if len(y) else np.empty((0, k))
    if scores.shape[1] != k or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected scores of numbers (n, {k}), received {scores.shape} of dtype {scores.dtype}. Use "
            "predict_proba, not the labels that predict returns."
        )
    bad = ~np.isfinite(scores).all(axis=1)
    if bad.any():
        raise ValueError(f"Expected finite scores, received {scores[bad][0]} in row {int(bad.argmax())}.")
    if getattr(responder, "binary", False):
        _check_binary(y)
    if y.ndim == 2 and y.shape[1] != k:
        raise ValueError(f"Expected targets (n,) or (n, {k}), received shape {y.shape}.")
    if y.ndim == 1 and getattr(responder, "as_text", False):
        y = y.astype(str)
    of_classes = (y[:, j] == 1 if y.ndim == 2 else y == responder.classes[j] for j in columns)
    return [
        count(len(columns), np.broadcast_to(is_positive, len(y)), scores[:, j], weight)
        for is_positive, j in zip(of_classes, columns, strict=True)
    ]


def _check_binary(y: np.ndarray) -> None:
    if y.ndim != 1:
        raise ValueError(f"Expected y_true (n,) for scores (n,), received shape {y.shape}.")
    found = set(np.unique(y).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        raise ValueError(
            f"y_true takes value in {sorted(found)[:10]} and pos_label is not specified: either make y_true "
            "take value in {0, 1} or {-1, 1} or pass pos_label explicitly."
        )
