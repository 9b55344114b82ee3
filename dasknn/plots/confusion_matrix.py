"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np
import sklearn.calibration
import sklearn.metrics

from dasknn.evaluation.counts import (
    LabelCounts,
    check_lengths,
    count_given_labels,
    count_labels,
    counted,
)
from dasknn.evaluation.responders import place_of, responder_of, rows_for
from dasknn.plots.style import axes_for, pyplot


class ConfusionMatrixDisplay(sklearn.metrics.ConfusionMatrixDisplay):
    """scikit-learn's confusion matrix, also of Dask data, which is counted where it is.

    confusion_matrix (k, k), rows by true label; display_labels (k,): names of the classes.
    """

    @classmethod
    def from_estimator(cls, estimator, X, y, *, sample_weight=None, **settings):
        """Draw the confusion matrix of a fitted classifier on X (n, p) and y (n,).

        estimator: an estimator or Pipeline of classes, or a Sequential with sigmoid or softmax outputs. X, y,
        sample_weight: Dask collections or plain data. settings: those of from_predictions. ValueError: a
        regressor, multi-label data, no rows.
        """
        pyplot()
        responder = responder_of(estimator)
        if responder.multilabel:
            raise ValueError(
                "Expected a classifier that predicts one class for each row, received a multi-label one. Use "
                "RocCurveDisplay, with a curve for each label."
            )
        X = rows_for(estimator, X)
        counts = counted(count_labels, responder, X, y, sample_weight, place_of(estimator))
        return cls._of_counts(counts[0], sample_weight is not None, **settings)

    @classmethod
    def from_predictions(cls, y_true, y_pred, *, sample_weight=None, **settings):
        """Draw the confusion matrix of true and predicted labels (n,), Dask collections or plain.

        settings: labels, normalize and display_labels as in scikit-learn; others go to plot. ValueError:
        scores instead of labels, labels of several kinds, no rows.
        """
        pyplot()
        check_lengths(y_true=y_true, y_pred=y_pred, sample_weight=sample_weight)
        counts = counted(count_given_labels, None, y_pred, y_true, sample_weight)
        return cls._of_counts(counts[0], sample_weight is not None, **settings)

    @classmethod
    def _of_counts(
        cls,
        counts: LabelCounts,
        weighted: bool,
        *,
        labels=None,
        normalize=None,
        display_labels=None,
        **settings,
    ):
        if not counts.matrix.sum():
            raise ValueError("Expected at least one row that weighs anything, received none.")
        labels = counts.labels if labels is None else np.asarray(labels)
        matrix = counts.of_labels(labels)
        if not matrix.sum():
            raise ValueError(f"Expected some of the labels {counts.labels[:10]}, received {labels[:10]}.")
        display = cls(
            _normalized(matrix, normalize) if normalize or weighted else matrix.astype(np.int64),
            display_labels=labels if display_labels is None else display_labels,
        )
        return display.plot(**settings)

    def plot(self, *, ax=None, **settings):
        """Draw it on ax, or on a new figure; settings as in scikit-learn. Returns self."""
        # Numbers of ten classes and more need room.
        size = max(5.0, 0.55 * len(self.confusion_matrix))
        return super().plot(ax=axes_for(ax, figsize=(1.2 * size, size)), **settings)


def _normalized(matrix: np.ndarray, normalize: str | None) -> np.ndarray:
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(f"Expected normalize to be 'true', 'pred', 'all' or None, received {normalize!r}.")
    axes = {"true": 1, "pred": 0, "all": None}
    if normalize is None:
        return matrix
    totals = matrix.sum(axis=axes[normalize], keepdims=True)
    return np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
