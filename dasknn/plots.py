"""Pictures of trainings and of fitted models, in scikit-learn's Display convention.

    from_estimator, from_predictions, ...   compute what is shown, where the data is, and draw it
    .plot(ax=None)                          draw it again; .ax_ and .figure_ are what it was drawn on

Curves and confusion matrices of Dask data follow from counts (`curves`), which workers make in one pass over
the partitions; scikit-learn's own displays draw them. matplotlib is imported by the first picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import sklearn.calibration
import sklearn.metrics
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from dasknn.cluster import faults
from dasknn.evaluation.counts import (
    Curves,
    LabelCounts,
    check_lengths,
    count_given_labels,
    count_labels,
    counted,
    curves_of_model,
    curves_of_scores,
)
from dasknn.evaluation.responders import place_of, responder_of, rows_for
from dasknn.evaluation.score_sketch import BinnedScores, ScoreCounts, bins_for
from dasknn.models.sequential import Sequential
from dasknn.saving.serialization import did_you_mean

__all__ = [
    "CalibrationDisplay",
    "ConfusionMatrixDisplay",
    "EpochTimesDisplay",
    "LearningCurveDisplay",
    "PrecisionRecallDisplay",
    "RocCurveDisplay",
    "SlicesDisplay",
]

# The palette of Okabe and Ito (2008), which color-blind readers can tell apart.
_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _RED, _PINK = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
_GRAY, _LIGHT_GRAY = "#777777", "#BBBBBB"
_COLORS = (_BLUE, _RED, _GREEN, _PINK, _ORANGE, _SKY, _BLACK)
_LINES = ("-", "--", ":", "-.")
_SQUARE = (5.6, 5.4)
# A legend above the axes hides nothing.
_ABOVE = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "fontsize": "small",
    "borderaxespad": 0.2,
}


# --- what is drawn on --------------------------------------------------------------------------------


def _pyplot():
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed. Use: pip install 'dasknn[plots]'"
        ) from error
    return matplotlib.pyplot


def _axes(ax, **settings):
    """Return ax, or the axes of a new figure, whose lines take colors that everyone can tell apart."""
    plt = _pyplot()
    if ax is not None:
        return ax
    cycle = plt.cycler(linestyle=_LINES) * plt.cycler(color=_COLORS)
    with plt.rc_context({"axes.prop_cycle": cycle}):
        return plt.subplots(layout="constrained", **settings)[1]


def _whole_numbers(axis, most: int = 9) -> None:
    """Let an axis have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


# --- confusion matrix --------------------------------------------------------------------------------


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
        _pyplot()
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
        _pyplot()
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
        return super().plot(ax=_axes(ax, figsize=(1.2 * size, size)), **settings)


def _normalized(matrix: np.ndarray, normalize: str | None) -> np.ndarray:
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(f"Expected normalize to be 'true', 'pred', 'all' or None, received {normalize!r}.")
    axes = {"true": 1, "pred": 0, "all": None}
    if normalize is None:
        return matrix
    totals = matrix.sum(axis=axes[normalize], keepdims=True)
    return np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)


# --- curves of scores --------------------------------------------------------------------------------


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


def _legend(ax, where: str) -> None:
    """Show what has a label: again, since properties of lines have changed, and in columns, if it is much."""
    _, labels = ax.get_legend_handles_labels()
    if labels:
        ax.legend(loc=where, fontsize="small", ncols=1 + len(labels) // 14)


class _Drawn:
    """What every picture has once it was drawn."""

    ax_: Any
    figure_: Any


class _ScoreCurves(_Drawn):
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
        _pyplot()
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
        _pyplot()
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
    a single curve is of. Drawn by sklearn.metrics.RocCurveDisplay; line_ is the line, or a list of them.
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
        _draw_curves(self, make, names, _axes(ax, figsize=_SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level:
            style = {"color": _GRAY, "linestyle": "--", "linewidth": 1, "label": "Chance level (AUC = 0.5)"}
            (self.chance_level_,) = self.ax_.plot((0, 1), (0, 1), **{**style, **(chance_level_kw or {})})
        _legend(self.ax_, "lower right")
        return self


class PrecisionRecallDisplay(_ScoreCurves):
    """Precision against recall of a classifier, a curve for each class where there are several.

    precision, recall (m,), average_precision, name, prevalence_pos_label: of a curve, or lists with an item
    for each curve. Drawn by sklearn.metrics.PrecisionRecallDisplay; line_ is the line, or a list of them.
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
        drawn = _draw_curves(self, make, names, _axes(ax, figsize=_SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level and shares[0] is not None:
            style = {"linestyle": "--", "linewidth": 1, **(chance_level_kw or {})}
            levels = []
            for one, share in zip(drawn, shares, strict=True):
                color = _GRAY if len(drawn) == 1 else one.line_.get_color()
                label = f"Chance level (AP = {share:.2f})" if len(drawn) == 1 else None
                levels += self.ax_.plot((0, 1), (share, share), **{"color": color, "label": label, **style})
            self.chance_level_ = _only(levels)
        _legend(self.ax_, "lower left")
        return self


class CalibrationDisplay(_Drawn):
    """Whether probabilities are what they say: the share of positive rows in bins of predicted probability.

    prob_true, prob_pred (m,), name: of a curve, or lists with an item for each curve. Drawn by
    sklearn.calibration.CalibrationDisplay; line_ is the line, or a list of them.
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
        _pyplot()
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
        _pyplot()
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
        _draw_curves(self, make, names, _axes(ax, figsize=_SQUARE), kwargs, ref_line=ref_line)
        # A probability and a share: the reference is the diagonal of a square.
        self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        _legend(self.ax_, "best")
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


# --- trainings ---------------------------------------------------------------------------------------

# What a history says of an epoch besides losses and metrics.
_NO_METRICS = {
    *("epoch", "n_samples", "learning_rate", "bytes_sent", "seconds", "rows_per_second", "faults", "workers"),
}
# marker, color of what happens to a cluster.
_EVENTS = {
    faults.LOST: ("X", _BLACK),
    faults.SILENT: ("s", _PINK),
    faults.FAILED: ("D", _ORANGE),
    faults.RETIRED: ("v", _SKY),
    faults.JOINED: ("^", _GREEN),
}


def _history_of(model) -> list[dict]:
    """Return what a training has left. NotFittedError; ValueError, TypeError: there is none."""
    last = model[-1] if hasattr(model, "steps") else model
    if isinstance(last, Sequential):
        if last.history is None:
            raise NotFittedError(
                "This Sequential has no history. Call 'fit' first; a model that was loaded has none."
            )
        return _checked_history(last.history)
    if isinstance(last, type) or not hasattr(last, "fit"):
        raise TypeError(
            f"Expected a trained MLPClassifier, MLPRegressor or Sequential, received {model!r:.80}."
        )
    check_is_fitted(last)
    if not hasattr(last, "history_"):
        raise TypeError(f"Expected a model of dasknn, received {type(last).__name__}, which has no history_.")
    return _checked_history(last.history_)


def _checked_history(history) -> list[dict]:
    entries = list(getattr(history, "entries", history))
    if not entries:
        raise ValueError(
            "Expected a history with an epoch or more, received none. A model that was not trained here "
            "(loaded, made from scikit-learn's or Keras's, a member of an ensemble) may have no history."
        )
    for entry in entries:
        if not isinstance(entry, Mapping) or "epoch" not in entry:
            raise ValueError(f"Expected the entries of history_ or History.entries, received {entry!r:.80}.")
    return entries


class LearningCurveDisplay(_Drawn):
    """Loss and metrics of a training, epoch by epoch, with what happened to the cluster.

    entries: of `history_` or `History.entries`. metrics: names of those to show, all by default. Attributes:
    epochs (n,); curves, values (n,) by name, NaN where an epoch has none; learning_rates (n,); events, a dict
    for each. axes_: the axes from top to bottom: loss, each metric, and the learning rate if it varies.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, metrics: Iterable[str] | None = None):
        entries = _checked_history(entries)
        self.epochs = np.array([entry["epoch"] for entry in entries])
        names = dict.fromkeys(name for entry in entries for name in entry if name not in _NO_METRICS)
        found = {name: np.array([_number(entry.get(name)) for entry in entries]) for name in names}
        self.curves = {name: values for name, values in found.items() if not np.isnan(values).all()}
        self.learning_rates = np.array([_number(entry.get("learning_rate")) for entry in entries])
        self.events = [
            {**event, "epoch": entry["epoch"]} for entry in entries for event in entry.get("faults", ())
        ]
        self.metrics = self._panels(metrics)

    def _panels(self, metrics: Iterable[str] | None) -> list[str]:
        """Return the names of what has a panel each; the values of validation go with those of training."""
        known = list(dict.fromkeys(name.removeprefix("val_") for name in self.curves))
        if metrics is None:
            # The loss first.
            return sorted(known, key=lambda name: name != "loss")
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in metrics:
            if name not in known:
                raise ValueError(
                    f"Expected metrics among {known}, received {name!r}.{did_you_mean(name, known)}"
                )
        return metrics

    @classmethod
    def from_estimator(cls, model, *, metrics=None, ax=None, **kwargs):
        """Draw the training of a fitted MLPClassifier, MLPRegressor or Sequential, or of a Pipeline of one.

        kwargs: properties of the lines. NotFittedError; ValueError: no history, no such metric.
        """
        return cls(_history_of(model), metrics=metrics).plot(ax, **kwargs)

    @classmethod
    def from_history(cls, entries, *, metrics=None, ax=None, **kwargs):
        """Draw the entries of `history_` or `History.entries`. ValueError: no history, no such metric."""
        return cls(entries, metrics=metrics).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw it in place of ax, which becomes the uppermost axes, or on a new figure. Returns self.

        kwargs: properties of the lines. ValueError: ax is not of a grid, and several axes are needed.
        """
        rates = self.learning_rates[~np.isnan(self.learning_rates)]
        varies = len(set(rates.tolist())) > 1
        heights = [2.0] * len(self.metrics) + [0.8] * varies
        heights[0] = 3.0
        self.axes_ = _stacked(ax, heights)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        for panel, name in zip(self.axes_, self.metrics, strict=False):
            self._draw_metric(panel, name, kwargs)
        if varies:
            self.axes_[-1].plot(self.epochs, self.learning_rates, color=_GRAY, drawstyle="steps-mid")
            self.axes_[-1].set(ylabel="learning\nrate", yscale="log", ymargin=0.2)
            # Those of a logarithmic axis crowd where rates change by less than a decade.
            ends = [rates.min(), rates.max()]
            self.axes_[-1].set_yticks([], minor=True)
            self.axes_[-1].set_yticks(ends, [f"{rate:.2g}" for rate in ends])
        handles = self._draw_events()
        lines = {line.get_label(): line for panel in self.axes_ for line in panel.get_lines()}
        shown = [lines[label] for label in ("training", "validation") if label in lines]
        if len(shown) + len(handles) > 1 or "validation" in lines:
            self.ax_.legend(handles=shown + handles, ncols=3, **_ABOVE)
        _whole_numbers(self.axes_[-1].xaxis)
        self.axes_[-1].set(xlabel="epoch", xlim=(self.epochs.min() - 0.5, self.epochs.max() + 0.5))
        return self

    def _draw_metric(self, panel, name: str, kwargs) -> None:
        mark = "o" if len(self.epochs) <= 30 else None
        is_validation_only = name.startswith("validation")
        for key, of_validation in ((name, is_validation_only), (f"val_{name}", True)):
            if key in self.curves:
                style = {
                    "color": _RED if of_validation else _BLUE,
                    "linestyle": "--" if of_validation else "-",
                    "label": "validation" if of_validation else "training",
                    "marker": mark,
                    "markersize": 3,
                }
                panel.plot(self.epochs, self.curves[key], **{**style, **kwargs})
        panel.set_ylabel(name.replace("_", " "))
        panel.grid(axis="y", alpha=0.3)

    def _draw_events(self) -> list:
        """Mark what happened in an epoch by a line through all axes; return what the legend shows."""
        from matplotlib.lines import Line2D

        counts: dict[str, int] = {}
        height_of: dict[int, int] = {}
        styles: dict[str, dict[str, Any]] = {}
        drawn = set()
        for event in self.events:
            what, epoch = event["what"], event["epoch"]
            counts[what] = counts.get(what, 0) + 1
            if (what, epoch) in drawn:
                continue
            drawn.add((what, epoch))
            marker, color = _EVENTS.get(what, ("o", _BLACK))
            for panel in self.axes_:
                panel.axvline(epoch, color=color, linewidth=0.8, alpha=0.6, zorder=0.5)
            # Several in one epoch: below one another.
            below = height_of[epoch] = height_of.get(epoch, -1) + 1
            styles[what] = {"linestyle": "", "marker": marker, "color": color, "markersize": 6}
            where = self.ax_.get_xaxis_transform()
            self.ax_.plot([epoch], [0.95 - 0.08 * below], label=f"_{what}", transform=where, **styles[what])
        return [
            Line2D([], [], label=what if n == 1 else f"{what} ({n}×)", **styles[what])
            for what, n in counts.items()
        ]


def _number(value) -> float:
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _stacked(ax, heights: list[float]) -> list:
    """Return axes below one another, in a new figure or in place of ax, which is the first of them."""
    plt = _pyplot()
    if ax is None:
        size = (7.0, 0.6 + 0.95 * sum(heights))
        figure = plt.figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        return list(grid[:, 0])
    if len(heights) == 1:
        return [ax]
    whole = ax.get_subplotspec()
    if whole is None:
        raise ValueError(
            f"Expected axes of plt.subplots, in whose place {len(heights)} axes can be put, received axes at "
            "a fixed position. Draw on a new figure, with ax=None."
        )
    grid = whole.subgridspec(len(heights), 1, height_ratios=heights)
    ax.set_subplotspec(grid[0])
    below = [ax.figure.add_subplot(grid[i], sharex=ax) for i in range(1, len(heights))]
    for panel in [ax, *below[:-1]]:
        panel.tick_params(labelbottom=False)
    return [ax, *below]


_PARTS = {"compute": _BLUE, "communication": _ORANGE, "waiting": _LIGHT_GRAY}
_THIS_PROCESS = "this process"
# Labels of more bars than this would run into one another.
_MOST_BAR_LABELS = 64
_MOST_BARS_WITH_EDGES = 40


class EpochTimesDisplay(_Drawn):
    """Where the time of epochs goes: computing, communicating, waiting for others.

    entries: of `history_` or `History.entries`. by: "worker", a bar for each, the mean over the epochs in
    which it took part; "epoch", a bar for each, the mean over its workers. Attributes: names, of the bars;
    times, a dict of compute, communication and waiting to seconds (n,) in their order. What trained in this
    process waited for nobody: all of it is compute.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, by: str = "worker"):
        if by not in ("worker", "epoch"):
            raise ValueError(f"Expected by to be 'worker' or 'epoch', received {by!r}.")
        entries = _checked_history(entries)
        self.by, self.n_epochs = by, len(entries)
        if any("workers" not in entry for entry in entries):
            raise ValueError(
                "Expected entries with 'workers', the times of each worker, received entries without: they "
                "are of a training by an older version of dasknn."
            )
        bars: dict[Any, list[Mapping[str, float]]] = {}
        for entry in entries:
            workers = entry["workers"] or {_THIS_PROCESS: {"compute": entry.get("seconds", 0.0)}}
            for address, times in workers.items():
                bars.setdefault(_shown(address) if by == "worker" else entry["epoch"], []).append(times)
        self.names = sorted(bars, key=_in_natural_order)
        self._n_times = [len(bars[name]) for name in self.names]
        self.times = {
            part: np.array([np.mean([times.get(part, 0.0) for times in bars[name]]) for name in self.names])
            for part in _PARTS
        }

    @classmethod
    def from_estimator(cls, model, *, by="worker", ax=None, **kwargs):
        """Draw the training of a fitted MLPClassifier, MLPRegressor or Sequential, or of a Pipeline of one.

        kwargs: properties of the bars. NotFittedError; ValueError: no history.
        """
        return cls(_history_of(model), by=by).plot(ax, **kwargs)

    @classmethod
    def from_history(cls, entries, *, by="worker", ax=None, **kwargs):
        """Draw the entries of `history_` or `History.entries`. ValueError: no history."""
        return cls(entries, by=by).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw it on ax, or on a new figure; kwargs: properties of the bars. Returns self.

        bars_: a container of bars for each of compute, communication and waiting.
        """
        n = len(self.names)
        size = (7.0, 1.2 + 0.3 * min(n, 12) + 0.16 * max(n - 12, 0)) if self.by == "worker" else (7.0, 3.6)
        self.ax_ = _axes(ax, figsize=size)
        self.figure_ = self.ax_.figure
        draw = self._bars_of_workers if self.by == "worker" else self._bars_of_epochs
        self.bars_ = draw(kwargs)
        self.ax_.legend(handles=list(self.bars_.values()), ncols=3, **_ABOVE)
        return self

    def _bars_of_workers(self, kwargs) -> dict[str, Any]:
        places = np.arange(len(self.names))
        ends = np.zeros(len(places))
        bars = {}
        for part, color in _PARTS.items():
            style = {"color": color, "label": part, "height": 0.8, **kwargs}
            bars[part] = self.ax_.barh(places, self.times[part], left=ends, **style)
            ends = ends + self.times[part]
        labels = [
            name if n == self.n_epochs else f"{name}  ({n} of {self.n_epochs} epochs)"
            for name, n in zip(self.names, self._n_times, strict=True)
        ]
        step = -(-len(places) // _MOST_BAR_LABELS)
        size = "medium" if len(places) <= 12 else "small" if len(places) <= 30 else "x-small"
        self.ax_.set_yticks(places[::step], labels[::step], fontsize=size)
        self.ax_.set_ylim(len(places) - 0.4, -0.6)
        epochs = "epoch" if self.n_epochs == 1 else f"mean of {self.n_epochs} epochs"
        self.ax_.set_xlabel(f"seconds an epoch ({epochs})" if self.n_epochs > 1 else "seconds of the epoch")
        return bars

    def _bars_of_epochs(self, kwargs) -> dict[str, Any]:
        ends = np.zeros(len(self.names))
        bars = {}
        for part, color in _PARTS.items():
            width = 0.8 if len(self.names) <= _MOST_BARS_WITH_EDGES else 1.0
            style = {"color": color, "label": part, "width": width, **kwargs}
            bars[part] = self.ax_.bar(self.names, self.times[part], bottom=ends, **style)
            ends = ends + self.times[part]
        ends_at = (min(self.names) - 0.6, max(self.names) + 0.6)
        self.ax_.set(xlabel="epoch", ylabel="seconds (mean over workers)", xlim=ends_at)
        _whole_numbers(self.ax_.xaxis)
        return bars


def _shown(address: str) -> str:
    """Return an address without its protocol."""
    address = str(address)
    # Of tasks that Dask's local scheduler runs.
    return _THIS_PROCESS if address == "None" else address.split("://")[-1]


def _in_natural_order(name) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(name))]


# --- slices ------------------------------------------------------------------------------------------


class SlicesDisplay(_Drawn):
    """A metric by slice, with its confidence intervals, from what `dasknn.evaluate` or `compare` returns.

    names, rows, values, low, high (n,): of the slices. metric: what is shown. overall: (value, low, high,
    rows) of all rows, or None. is_difference: values are differences of two models, around 0. confidence: of
    the intervals, in (0, 1), or None.
    """

    def __init__(
        self,
        names,
        rows,
        values,
        low,
        high,
        *,
        metric,
        overall=None,
        is_difference=False,
        confidence=None,
    ):
        self.names, self.rows = list(names), np.asarray(rows)
        self.values, self.low, self.high = (np.asarray(column, float) for column in (values, low, high))
        self.metric, self.overall, self.is_difference = metric, overall, is_difference
        self.confidence = confidence

    @classmethod
    def from_evaluation(cls, frame, metric=None, *, sort=True, ax=None, **kwargs):
        """Draw a metric of the frame that `evaluate` or `compare` returns.

        metric: its name, the first of the frame by default. sort: the best first, or else as in the frame.
        kwargs: properties of dots and intervals. ValueError: another frame, no such metric, no slices.
        """
        columns = [str(column) for column in getattr(frame, "columns", ())]
        found = {
            name.removesuffix("_difference"): name
            for name in columns
            if f"{name}_low" in columns and f"{name}_high" in columns
        }
        if not {"slice", "rows"} <= set(columns) or not found:
            raise ValueError(
                "Expected the frame that dasknn.evaluate or dasknn.compare returns, with the columns "
                "'slice', 'rows', 'accuracy', 'accuracy_low' and 'accuracy_high', received "
                f"{columns or type(frame)}."
            )
        metric = next(iter(found)) if metric is None else metric.removesuffix("_difference")
        if metric not in found:
            raise ValueError(
                f"Expected a metric of {list(found)}, received {metric!r}.{did_you_mean(metric, found)}"
            )
        column = found[metric]
        names = ["slice", "rows", column, f"{column}_low", f"{column}_high"]
        table = list(zip(*(frame[name].tolist() for name in names), strict=True))
        overall = None
        if table and table[0][0] == "all":
            overall = (*table[0][2:], table[0][1])
            table = table[1:]
        if not table:
            raise ValueError(
                "Expected a frame with a slice or more, received all rows alone. Use "
                "dasknn.evaluate(..., slices=['column'])."
            )
        is_difference = column != metric
        known = getattr(frame, "attrs", {})
        if sort:
            sign = 1 if known.get("greater_is_better", {}).get(metric, True) or is_difference else -1
            # Those without a value come last.
            table.sort(key=lambda row: (np.isnan(row[2]), -sign * row[2]))
        display = cls(
            *zip(*table, strict=True),
            metric=metric,
            overall=overall,
            is_difference=is_difference,
            confidence=known.get("confidence"),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw it on ax, or on a new figure; kwargs: properties of dots and intervals. Returns self."""
        n = len(self.names)
        self.ax_ = _axes(ax, figsize=(7.0, 1.4 + 0.28 * n))
        self.figure_ = self.ax_.figure
        places = np.arange(n)
        known = ~np.isnan(self.values)
        # Few rows may have no interval.
        reach = np.nan_to_num(np.abs(np.stack([self.low, self.high]) - self.values))
        style = {"fmt": "o", "color": _BLUE, "markersize": 5, "capsize": 2.5, "elinewidth": 1.4}
        self.errorbar_ = self.ax_.errorbar(
            self.values[known], places[known], xerr=reach[:, known], **{**style, **kwargs}
        )
        if self.is_difference:
            # Hollow: the interval holds 0, and the models may be as good as one another.
            same = known & (self.low <= 0) & (self.high >= 0)
            self.ax_.plot(self.values[same], places[same], "o", color="white", markersize=3, zorder=5)
        self._draw_reference()
        for place in places[~known]:
            where = {"transform": self.ax_.get_yaxis_transform(), "va": "center", "fontsize": "small"}
            where["backgroundcolor"] = "white"
            self.ax_.text(0.02, place, "too few rows", color=_GRAY, style="italic", **where)
        labels = [f"{name}  ({rows:,})" for name, rows in zip(self.names, self.rows.tolist(), strict=True)]
        size = "medium" if n <= 30 else "small" if n <= 60 else "x-small"
        self.ax_.set_yticks(places, labels, fontsize=size)
        self.ax_.set_ylim(n - 0.4, -0.6)
        self.ax_.set_ylabel("slice (rows)")
        self.ax_.grid(axis="x", alpha=0.3)
        what = self.metric.replace("_", " ")
        if self.is_difference:
            what = f"difference of {what}, a − b"
        if self.confidence is not None:
            what += f"  ({100 * self.confidence:g}% intervals)"
        self.ax_.set_xlabel(what)
        if self.ax_.get_legend_handles_labels()[1]:
            self.ax_.legend(ncols=2, **_ABOVE)
        return self

    def _draw_reference(self) -> None:
        """Draw the line that slices are compared with: all rows, and of differences 0."""
        self.line_ = None
        if self.is_difference:
            self.ax_.axvline(0, color=_BLACK, linewidth=0.9)
        if self.overall is not None and not np.isnan(self.overall[0]):
            value, low, high, rows = self.overall
            label = f"all rows: {value:{'+' if self.is_difference else ''}.3f}  ({rows:,})"
            self.line_ = self.ax_.axvline(value, color=_RED, linestyle="--", linewidth=1.2, label=label)
            if not np.isnan([low, high]).any():
                self.ax_.axvspan(low, high, color=_RED, alpha=0.12, linewidth=0)
