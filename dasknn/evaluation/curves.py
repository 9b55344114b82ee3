"""Scores of classes, tallied for a curve of each: from a model, or from scores that exist already."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from dasknn.data import partitions
from dasknn.evaluation.counts import check_lengths, counted
from dasknn.evaluation.responders import ANYWHERE, Given, Responder, classifier_of, place_of, rows_for
from dasknn.evaluation.score_sketch import (
    CellTally,
    ShareTally,
    Tally,
    bins_for,
    in_bins,
    weights_by_class,
)
from dasknn.exceptions import caller_stacklevel

#: More curves cannot be told apart.
MOST_CURVES = 28

#: (n_curves, is_positive (n,), scores (n,), weight (n,) or None) -> a tally with `totals` of negative and
#: positive rows first.
TallyScores = Callable[[int, np.ndarray, np.ndarray, np.ndarray | None], Tally]


def tally_scores(
    n_curves: int, is_positive: np.ndarray, scores: np.ndarray, weight: np.ndarray | None
) -> ShareTally:
    """Tally the scores of a class for a curve (see `TallyScores`)."""
    return ShareTally.of(is_positive, scores, weight, bins_for(n_curves))


def tally_bins(
    edges: np.ndarray, n_curves: int, is_positive: np.ndarray, scores: np.ndarray, weight: np.ndarray | None
) -> CellTally:
    """Tally the scores of a class by bin, with edges (n_bins + 1,)."""
    return in_bins(np.asarray(scores, dtype=np.float64), weights_by_class(is_positive, weight), edges)


@dataclass(frozen=True)
class Curves:
    """Tallies of the scores of classes, one for each curve of a plot.

    Attributes
    ----------
    tallies : list of Tally
    classes : list
        Their labels.
    pos_label
        The class of a single curve; None if classes were not chosen.
    """

    tallies: list[Any]
    classes: list
    pos_label: Any

    @property
    def is_single(self) -> bool:
        """Whether there is one curve."""
        return len(self.tallies) == 1

    def names(self, name: str | None) -> list[str | None]:
        """Return the name of each curve of a model of that name."""
        if self.is_single:
            return [name]
        return [str(label) if name is None else f"{name}, {label}" for label in self.classes]


def curves_of_model(
    tally: TallyScores, method: str, estimator: Any, X: Any, y: Any, sample_weight: Any, pos_label: Any
) -> Curves:
    """Tally the scores of a model.

    Parameters
    ----------
    tally : TallyScores
        Is applied to each partition, for each class.
    method : "predict_proba", "decision_function" or "auto"
        The method that gives scores.
    estimator : fitted classifier
        See `responders.responder_of`.
    X, y, sample_weight : Dask collections or plain data
    pos_label
        The class to tally; None: the second of two classes, or each of several.

    Raises
    ------
    ValueError
        A model without classes or with a single one, a class that it does not have, no rows of a class.
    """
    responder = classifier_of(estimator, method)
    if len(responder.known_classes) == 1:
        raise ValueError(
            "Expected a classifier of two classes or more, received one of "
            f"{responder.known_classes[0]!r} alone."
        )
    columns = _columns_of(responder, pos_label)
    X = rows_for(estimator, X)
    return _curves(tally, responder, columns, X, y, sample_weight, place_of(estimator))


def curves_of_scores(
    tally: TallyScores, y_true: Any, y_score: Any, sample_weight: Any, pos_label: Any, labels: Any
) -> Curves:
    """Tally scores that exist already.

    Parameters
    ----------
    tally, sample_weight, pos_label
        As for `curves_of_model`.
    y_true : (n,) labels, or (n, k) of multi-label data
    y_score : (n,) of the positive class, or (n, k)
    labels : list or None
        The classes of the columns of scores; None: the names of a dataframe's columns, or 0, 1, ...
    """
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
        classes = np.asarray([1 if pos_label is None else pos_label])
        return _curves(
            tally, Given(classes=classes, is_binary=pos_label is None), [0], y_score, y_true, sample_weight
        )
    as_text = labels is None and partitions.is_dataframe(y_score)
    if labels is None:
        labels = [str(name) for name in y_score.columns] if as_text else list(range(n_columns))
        pos_label = str(pos_label) if as_text and pos_label is not None else pos_label
    if len(labels) != n_columns:
        raise ValueError(f"Expected labels for {n_columns} columns of scores, received {len(labels)}.")
    is_multilabel = getattr(y_true, "ndim", np.ndim(y_true)) == 2 and _n_columns(y_true) > 1
    responder = Given(classes=np.asarray(labels), is_multilabel=is_multilabel, as_text=as_text)
    return _curves(tally, responder, _columns_of(responder, pos_label), y_score, y_true, sample_weight)


def _n_columns(table: Any) -> int:
    return len(table.columns) if partitions.is_dataframe(table) else int(np.shape(table)[1])


def _columns_of(responder: Responder, pos_label: Any) -> list[int]:
    """Return which columns of scores have a curve: pos_label, the second of two classes, or each."""
    classes = responder.known_classes.tolist()
    if pos_label is not None:
        if pos_label not in classes:
            raise ValueError(f"Expected pos_label to be one of {classes[:20]}, received {pos_label!r}.")
        return [classes.index(pos_label)]
    return [1] if len(classes) == 2 and not responder.is_multilabel else list(range(len(classes)))


def _curves(
    tally: TallyScores,
    responder: Responder,
    columns: list[int],
    X: Any,
    y: Any,
    sample_weight: Any,
    place: Mapping[str, Any] = ANYWHERE,
) -> Curves:
    if len(columns) > MOST_CURVES:
        raise ValueError(
            f"Expected at most {MOST_CURVES} classes to draw a curve each, received {len(columns)}. Choose "
            "one with pos_label=..."
        )
    tallies = counted(partial(_tally_columns, tally, columns), responder, X, y, sample_weight, place)
    classes = responder.known_classes[columns].tolist()
    drawn: list = []
    missing: list = []
    for found, label in zip(tallies, classes, strict=True):
        (drawn if all(found.totals[:2]) else missing).append((found, label))
    if not drawn:
        negative, positive = tallies[0].totals[:2]
        raise ValueError(
            f"Expected rows of {classes[0]!r} and others, received rows that weigh {positive:g} and "
            f"{negative:g}. Look at the labels of y and, where there is one, at pos_label."
        )
    if missing:
        warnings.warn(
            f"No curve for {[label for _, label in missing]}: there are no rows of that class, or no others.",
            UndefinedMetricWarning,
            stacklevel=caller_stacklevel(),
        )
    shown = [label for _, label in drawn]
    return Curves([found for found, _ in drawn], shown, classes[0] if len(columns) == 1 else None)


def _tally_columns(
    tally: TallyScores,
    columns: list[int],
    responder: Responder,
    X: Any,
    y: np.ndarray,
    weight: np.ndarray | None,
) -> list[Tally]:
    classes = responder.known_classes
    k = len(classes)
    # Estimators of other packages refuse X without rows.
    scores = responder.scores(X) if len(y) else np.empty((0, k))
    if scores.shape[1] != k or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected scores of numbers (n, {k}), received {scores.shape} of dtype {scores.dtype}. Use "
            "predict_proba, not the labels that predict returns."
        )
    bad = ~np.isfinite(scores).all(axis=1)
    if bad.any():
        raise ValueError(f"Expected finite scores, received {scores[bad][0]} in row {int(bad.argmax())}.")
    if isinstance(responder, Given) and responder.is_binary:
        _check_binary(y)
    if y.ndim == 2 and y.shape[1] != k:
        raise ValueError(f"Expected targets (n,) or (n, {k}), received shape {y.shape}.")
    if y.ndim == 1 and isinstance(responder, Given) and responder.as_text:
        y = y.astype(str)
    of_classes = (y[:, j] == 1 if y.ndim == 2 else y == classes[j] for j in columns)
    return [
        tally(len(columns), np.broadcast_to(is_positive, len(y)), scores[:, j], weight)
        for is_positive, j in zip(of_classes, columns, strict=True)
    ]


def _check_binary(y: np.ndarray) -> None:
    if y.ndim != 1:
        raise ValueError(f"Expected y_true (n,) for scores (n,), received shape {y.shape}.")
    found = set(np.unique(y).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        # scikit-learn's words.
        raise ValueError(
            f"y_true takes value in {sorted(found)[:10]} and pos_label is not specified: either make y_true "
            "take value in {0, 1} or {-1, 1} or pass pos_label explicitly."
        )
