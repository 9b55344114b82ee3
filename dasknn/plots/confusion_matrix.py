"""Which classes are confused with which."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import sklearn.metrics

from dasknn.evaluation.counts import LabelCounts, check_lengths, count_labels, counted
from dasknn.evaluation.responders import Given, classifier_of, place_of, rows_for
from dasknn.plots.style import axes_for, pyplot


class ConfusionMatrixDisplay(sklearn.metrics.ConfusionMatrixDisplay):
    """scikit-learn's confusion matrix, also for Dask data, whose rows are counted where they are.

    Parameters
    ----------
    confusion_matrix : array (k, k)
        A row for each true label, a column for each predicted one.
    display_labels : array (k,), default=None
        Names of the classes.

    Attributes
    ----------
    im_, text_, ax_, figure_
        As in scikit-learn.
    """

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, sample_weight: Any = None, **settings: Any
    ) -> Self:
        """Draw the confusion matrix of a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            An estimator, a Sequential with sigmoid or softmax outputs, or a Pipeline of one.
        X : array or dataframe (n, p), of Dask or plain
            Dask collections stay where they are.
        y : array (n,) of labels, of Dask or plain
        sample_weight : array (n,), default=None
        settings
            See `from_predictions`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            The model is a regressor or a multi-label classifier, or there are no rows.
        """
        pyplot()
        responder = classifier_of(estimator)
        if responder.is_multilabel:
            raise ValueError(
                "Expected a classifier that predicts one class for each row, received a multi-label one. Use "
                "RocCurveDisplay, with a curve for each label."
            )
        X = rows_for(estimator, X)
        counts = counted(count_labels, responder, X, y, sample_weight, place_of(estimator))
        return cls._of_counts(counts[0], sample_weight is not None, **settings)

    @classmethod
    def from_predictions(
        cls, y_true: Any, y_pred: Any, *, sample_weight: Any = None, **settings: Any
    ) -> Self:
        """Draw the confusion matrix of labels that were predicted already.

        Parameters
        ----------
        y_true, y_pred : array (n,) of labels, of Dask or plain
        sample_weight : array (n,), default=None
        settings
            `labels`, `normalize` and `display_labels` as in scikit-learn; others go to `plot`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Scores instead of labels, labels of several kinds, or no rows.
        """
        pyplot()
        check_lengths(y_true=y_true, y_pred=y_pred, sample_weight=sample_weight)
        counts = counted(count_labels, Given(classes=None), y_pred, y_true, sample_weight)
        return cls._of_counts(counts[0], sample_weight is not None, **settings)

    @classmethod
    def _of_counts(
        cls,
        counts: LabelCounts,
        weighted: bool,
        *,
        labels: Any = None,
        normalize: str | None = None,
        display_labels: Any = None,
        **settings: Any,
    ) -> Self:
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

    def plot(self, *, ax: Any = None, **settings: Any) -> Self:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        settings
            Other arguments of scikit-learn's `plot`.

        Returns
        -------
        display
        """
        # The numbers of ten classes and more need room.
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
