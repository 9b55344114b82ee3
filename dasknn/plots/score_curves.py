"""Curves of scores: ROC, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import sklearn.calibration
import sklearn.metrics

from dasknn.evaluation.counts import (
    Curves,
    curves_of_model,
    curves_of_scores,
)
from dasknn.evaluation.score_sketch import BinnedScores, ScoreCounts, bins_for
from dasknn.plots.style import GRAY, SQUARE, Drawn, axes_for, legend, pyplot


def _count_scores(n_curves: int, is_positive, scores, weight) -> ScoreCounts:
    return ScoreCounts.of(is_positive, scores, weight, bins_for(n_curves))


def _only(values: list):
    return values[0] if len(values) == 1 else values


def _listed(values) -> list:
    return list(values) if isinstance(values, list | tuple) else [values]


def _listed_curves(points) -> list:
    """Return a list of arrays (m,): of one curve it has one item, in whatever form that is."""
    several = isinstance(points, list | tuple) and len(points) > 0 and np.ndim(points[0])
    return list(points) if several else [np.asarray(points)]


def _names(name, n_curves: int) -> list:
    names = _listed(name)
    if len(names) not in (1, n_curves):
        raise ValueError(f"Expected a name for each of {n_curves} curves, received {len(names)}.")
    return names * n_curves if len(names) == 1 else names


def _draw_curves(display, make: Callable, names: list, ax, line: Mapping[str, Any], **settings) -> list:
    """Draw a display of scikit-learn's for each curve; return them. line: properties of the lines."""
    drawn = []
    for i, name in enumerate(names):
        one = make(i).plot(ax=ax, name=name, **settings)
        one.line_.set(**line)
        drawn.append(one)
    display.ax_, display.figure_ = ax, ax.figure
    display.line_ = _only([one.line_ for one in drawn])
    return drawn


class _ScoreCurves(Drawn):
    """What the curves of scores have in common: where their counts come from."""

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        sample_weight=None,
        drop_intermediate=True,
        response_method="auto",
        pos_label=None,
        name=None,
        ax=None,
        **settings,
    ):
        """Draw the curve of a fitted classifier on X (n, p) and y (n,), or (n, k) of multi-label data.

        estimator: an estimator or Pipeline of classes, or a Sequential with sigmoid or softmax outputs. X, y,
        sample_weight: Dask collections, whose rows stay where they are, or plain data. pos_label: the one
        class to draw; by default the second of two, or each of several. response_method: "predict_proba",
        "decision_function" or "auto", the first of these that there is. drop_intermediate: leave out points
        that change nothing about the curve. settings: see plot.

        Areas are those of all rows to within 1e-4, and exact for up to 65,536 distinct scores (of several
        curves, 262,144 divided by their number). ValueError: a regressor, no rows of a class.
        """
        pyplot()
        curves = curves_of_model(_count_scores, response_method, estimator, X, y, sample_weight, pos_label)
        if name is None and curves.is_single:
            name = type(estimator).__name__
        return cls._of_counts(curves, name, drop_intermediate).plot(ax, **settings)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_score,
        *,
        sample_weight=None,
        drop_intermediate=True,
        pos_label=None,
        labels=None,
        name=None,
        ax=None,
        **settings,
    ):
        """Draw the curve of scores: (n,) of the positive class, or (n, k), a column for each of `labels`.

        y_true, y_score, sample_weight: Dask collections or plain data. labels: by default the columns of a
        dataframe, or 0, 1, ... pos_label: the one class to draw. Others as in from_estimator. ValueError:
        other shapes, scores that are not finite, no rows of a class.
        """
        pyplot()
        curves = curves_of_scores(_count_scores, y_true, y_score, sample_weight, pos_label, labels)
        if name is None and curves.is_single:
            name = "Classifier"
        return cls._of_counts(curves, name, drop_intermediate).plot(ax, **settings)

    @classmethod
    def _of_counts(cls, curves: Curves, name: str | None, drop_intermediate: bool):
        raise NotImplementedError


class RocCurveDisplay(_ScoreCurves):
    """The ROC curve of a classifier, one for each class where there are several (one against the rest).

    fpr, tpr (m,), roc_auc, name: of a curve, or lists with an item for each curve. pos_label: the class that
    a single curve is of. Drawn by sklearn.metrics.RocCurveDisplay; `line_` is the line, or a list of them.
    """

    def __init__(self, *, fpr, tpr, roc_auc=None, name=None, pos_label=None):
        self.fpr, self.tpr, self.roc_auc = fpr, tpr, roc_auc
        self.name, self.pos_label = name, pos_label

    @classmethod
    def _of_counts(cls, curves: Curves, name: str | None, drop_intermediate: bool):
        rates, areas = [], []
        for counts in curves.counts:
            is_positive, scores, weight = counts.as_rows()
            points = sklearn.metrics.roc_curve(
                is_positive, scores, sample_weight=weight, drop_intermediate=drop_intermediate
            )
            rates.append(points[:2])
            areas.append(float(sklearn.metrics.roc_auc_score(is_positive, scores, sample_weight=weight)))
        return cls(
            fpr=_only([fpr for fpr, _ in rates]),
            tpr=_only([tpr for _, tpr in rates]),
            roc_auc=_only(areas),
            name=_only(curves.names(name)),
            pos_label=curves.pos_label,
        )

    def plot(
        self,
        ax=None,
        *,
        name=None,
        plot_chance_level=False,
        chance_level_kw=None,
        despine=False,
        **kwargs,
    ):
        """Draw it on ax, or on a new figure; kwargs: properties of the lines. Returns self."""
        fpr, tpr, areas = _listed_curves(self.fpr), _listed_curves(self.tpr), _listed(self.roc_auc)

        def make(i: int):
            area = areas[i] if i < len(areas) else None
            return sklearn.metrics.RocCurveDisplay(
                fpr=fpr[i], tpr=tpr[i], roc_auc=area, pos_label=self.pos_label
            )

        names = _names(self.name if name is None else name, len(fpr))
        _draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level:
            style = {"color": GRAY, "linestyle": "--", "linewidth": 1, "label": "Chance level (AUC = 0.5)"}
            (self.chance_level_,) = self.ax_.plot((0, 1), (0, 1), **{**style, **(chance_level_kw or {})})
        legend(self.ax_, "lower right")
        return self


class PrecisionRecallDisplay(_ScoreCurves):
    """Precision against recall of a classifier, a curve for each class where there are several.

    precision, recall (m,), average_precision, name, prevalence_pos_label: of a curve, or lists with an item
    for each curve. Drawn by sklearn.metrics.PrecisionRecallDisplay; `line_` is the line, or a list of them.
    """

    def __init__(
        self,
        precision,
        recall,
        *,
        average_precision=None,
        name=None,
        pos_label=None,
        prevalence_pos_label=None,
    ):
        self.precision, self.recall, self.average_precision = precision, recall, average_precision
        self.name, self.pos_label, self.prevalence_pos_label = name, pos_label, prevalence_pos_label

    @classmethod
    def _of_counts(cls, curves: Curves, name: str | None, drop_intermediate: bool):
        points, averages, shares = [], [], []
        for counts in curves.counts:
            is_positive, scores, weight = counts.as_rows()
            points.append(
                sklearn.metrics.precision_recall_curve(
                    is_positive, scores, sample_weight=weight, drop_intermediate=drop_intermediate
                )
            )
            average = sklearn.metrics.average_precision_score(is_positive, scores, sample_weight=weight)
            averages.append(float(average))
            positive, negative = counts.totals
            shares.append(positive / (positive + negative))
        return cls(
            _only([precision for precision, _, _ in points]),
            _only([recall for _, recall, _ in points]),
            average_precision=_only(averages),
            name=_only(curves.names(name)),
            pos_label=curves.pos_label,
            prevalence_pos_label=_only(shares),
        )

    def plot(
        self,
        ax=None,
        *,
        name=None,
        plot_chance_level=False,
        chance_level_kw=None,
        despine=False,
        **kwargs,
    ):
        """Draw it on ax, or on a new figure; kwargs: properties of the lines. Returns self.

        plot_chance_level: a line at the share of positive rows, for each curve.
        """
        precision, recall = _listed_curves(self.precision), _listed_curves(self.recall)
        averages, shares = _listed(self.average_precision), _listed(self.prevalence_pos_label)

        def make(i: int):
            return sklearn.metrics.PrecisionRecallDisplay(
                precision[i],
                recall[i],
                average_precision=averages[i] if i < len(averages) else None,
                pos_label=self.pos_label,
            )

        names = _names(self.name if name is None else name, len(precision))
        drawn = _draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level and shares[0] is not None:
            style = {"linestyle": "--", "linewidth": 1, **(chance_level_kw or {})}
            levels = []
            for one, share in zip(drawn, shares, strict=True):
                color = GRAY if len(drawn) == 1 else one.line_.get_color()
                label = f"Chance level (AP = {share:.2f})" if len(drawn) == 1 else None
                levels += self.ax_.plot((0, 1), (share, share), **{"color": color, "label": label, **style})
            self.chance_level_ = _only(levels)
        legend(self.ax_, "lower left")
        return self


class CalibrationDisplay(Drawn):
    """Whether probabilities are what they say: the share of positive rows in bins of predicted probability.

    prob_true, prob_pred (m,), name: of a curve, or lists with an item for each curve. Drawn by
    sklearn.calibration.CalibrationDisplay; `line_` is the line, or a list of them.
    """

    def __init__(self, prob_true, prob_pred, *, name=None, pos_label=None):
        self.prob_true, self.prob_pred = prob_true, prob_pred
        self.name, self.pos_label = name, pos_label

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        n_bins=5,
        strategy="uniform",
        sample_weight=None,
        pos_label=None,
        name=None,
        ax=None,
        ref_line=True,
        **kwargs,
    ):
        """Draw the curve of a fitted classifier with predict_proba on X (n, p) and y (n,).

        strategy: bins of the same width ("uniform"), or with as many rows each ("quantile"). pos_label: the
        one class to draw; by default the second of two, or each of several. Other arguments and errors as in
        RocCurveDisplay.from_estimator. kwargs: properties of the lines.
        """
        pyplot()
        counter = _bin_counter(n_bins, strategy)
        curves = curves_of_model(counter, "predict_proba", estimator, X, y, sample_weight, pos_label)
        if name is None and curves.is_single:
            name = type(estimator).__name__
        return cls._of_counts(curves, name, n_bins).plot(ax=ax, ref_line=ref_line, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_prob,
        *,
        n_bins=5,
        strategy="uniform",
        sample_weight=None,
        pos_label=None,
        labels=None,
        name=None,
        ax=None,
        ref_line=True,
        **kwargs,
    ):
        """Draw the curve of probabilities: (n,) of the positive class, or (n, k), a column for each label.

        Arguments and errors as in from_estimator and RocCurveDisplay.from_predictions.
        """
        pyplot()
        counter = _bin_counter(n_bins, strategy)
        curves = curves_of_scores(counter, y_true, y_prob, sample_weight, pos_label, labels)
        if name is None and curves.is_single:
            name = "Classifier"
        return cls._of_counts(curves, name, n_bins).plot(ax=ax, ref_line=ref_line, **kwargs)

    @classmethod
    def _of_counts(cls, curves: Curves, name: str | None, n_bins: int):
        points = []
        for counts in curves.counts:
            if isinstance(counts, ScoreCounts):
                counts = counts.binned(counts.quantiles(np.linspace(0, 1, n_bins + 1)))
            points.append(counts.curve())
        return cls(
            _only([prob_true for prob_true, _ in points]),
            _only([prob_pred for _, prob_pred in points]),
            name=_only(curves.names(name)),
            pos_label=curves.pos_label,
        )

    def plot(self, *, ax=None, name=None, ref_line=True, **kwargs):
        """Draw it on ax, or on a new figure; kwargs: properties of the lines. Returns self."""
        prob_true, prob_pred = _listed_curves(self.prob_true), _listed_curves(self.prob_pred)

        def make(i: int):
            return sklearn.calibration.CalibrationDisplay(
                prob_true[i], prob_pred[i], None, pos_label=self.pos_label
            )

        names = _names(self.name if name is None else name, len(prob_true))
        _draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, ref_line=ref_line)
        # A probability and a share: the reference is the diagonal of a square.
        self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        legend(self.ax_, "best")
        return self


def _bin_counter(n_bins: int, strategy: str) -> Callable:
    """Return what counts the probabilities of a column."""
    if strategy not in ("uniform", "quantile"):
        raise ValueError(f"Expected strategy to be 'uniform' or 'quantile', received {strategy!r}.")
    if n_bins < 1:
        raise ValueError(f"Expected n_bins of at least 1, received {n_bins}.")
    return partial(_count_chances, np.linspace(0, 1, n_bins + 1) if strategy == "uniform" else None)


def _count_chances(edges, n_curves: int, is_positive, chances, weight) -> BinnedScores | ScoreCounts:
    if len(chances) and (chances.min() < 0 or chances.max() > 1):
        raise ValueError(
            f"Expected probabilities in [0, 1], received scores from {chances.min():g} to {chances.max():g}."
        )
    if edges is None:
        return _count_scores(n_curves, is_positive, chances, weight)
    return BinnedScores.of(is_positive, chances, weight, edges)
