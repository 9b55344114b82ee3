"""ROC curves, and precision against recall: of a classifier, or of scores that exist already."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import sklearn.metrics

from dasknn.evaluation.curves import Curves, curves_of_model, curves_of_scores, tally_scores
from dasknn.plots.style import GRAY, SQUARE, Drawn, axes_for, legend, pyplot


def only(values: list) -> Any:
    """Return the single item of a list, or the list."""
    return values[0] if len(values) == 1 else values


def listed(values: Any) -> list:
    """Return a list of a value, or the list."""
    return list(values) if isinstance(values, list | tuple) else [values]


def listed_curves(points: Any) -> list:
    """Return a list of arrays (m,), one for each curve; the points of a single curve may be a list, too."""
    several = isinstance(points, list | tuple) and len(points) > 0 and np.ndim(points[0])
    return list(points) if several else [np.asarray(points)]


def names_of(name: Any, n_curves: int) -> list:
    """Return a name for each curve. ValueError: another number of names."""
    names = listed(name)
    if len(names) not in (1, n_curves):
        raise ValueError(f"Expected a name for each of {n_curves} curves, received {len(names)}.")
    return names * n_curves if len(names) == 1 else names


def draw_curves(
    display: Any,
    make: Callable[[int], Any],
    names: list,
    ax: Any,
    line: Mapping[str, Any],
    **settings: Any,
) -> list:
    """Draw scikit-learn's display of each curve.

    Parameters
    ----------
    display : Drawn
        Gets `ax_`, `figure_` and `line_`.
    make : callable (number of a curve) -> display of scikit-learn
    names : list
        Of the curves.
    ax : matplotlib axes
    line : mapping
        Properties of the lines.
    settings
        Arguments of scikit-learn's `plot`.

    Returns
    -------
    list
        scikit-learn's displays.
    """
    drawn = []
    for i, name in enumerate(names):
        one = make(i).plot(ax=ax, name=name, **settings)
        one.line_.set(**line)
        drawn.append(one)
    display.ax_, display.figure_ = ax, ax.figure
    display.line_ = only([one.line_ for one in drawn])
    return drawn


class _ScoreCurves(Drawn):
    """A display whose curves are computed from tallies of scores."""

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        drop_intermediate: bool = True,
        response_method: str = "auto",
        pos_label: Any = None,
        name: str | None = None,
        ax: Any = None,
        **settings: Any,
    ) -> Self:
        """Draw the curve of a fitted classifier; of several classes or labels, a curve for each.

        Parameters
        ----------
        estimator : fitted classifier
            An estimator, a Sequential with sigmoid or softmax outputs, or a Pipeline of one.
        X : array or dataframe (n, p), of Dask or plain
            Dask collections stay where they are.
        y : array (n,) of labels, or (n, k) of multi-label data
        sample_weight : array (n,), default=None
        drop_intermediate : bool, default=True
            Whether to leave out points that do not change the curve.
        response_method : {"auto", "predict_proba", "decision_function"}, default="auto"
            The method that gives scores; "auto" is the first of the others that the model has.
        pos_label : label, default=None
            The only class to draw. None: the second of two classes, or each of several.
        name : str, default=None
            Of the curve in the legend. None: the name of the estimator's class.
        ax : matplotlib axes, default=None
            None: those of a new figure.
        settings
            Other arguments of `plot`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            The model is not a classifier, or a class has no rows.

        Notes
        -----
        Areas are those of all rows to within 1e-4. They are exact for up to 65,536 distinct scores (of
        several curves, 262,144 divided by their number).
        """
        pyplot()
        curves = curves_of_model(tally_scores, response_method, estimator, X, y, sample_weight, pos_label)
        if name is None and curves.is_single:
            name = type(estimator).__name__
        return cls._of_curves(curves, name, drop_intermediate).plot(ax, **settings)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_score: Any,
        *,
        sample_weight: Any = None,
        drop_intermediate: bool = True,
        pos_label: Any = None,
        labels: Any = None,
        name: str | None = None,
        ax: Any = None,
        **settings: Any,
    ) -> Self:
        """Draw the curve of scores that exist already; of several columns, a curve for each.

        Parameters
        ----------
        y_true : array (n,) of labels, or (n, k) of multi-label data, of Dask or plain
        y_score : array (n,) or (n, k), or dataframe, of Dask or plain
            The scores of the positive class, or a column for each of `labels`.
        labels : list, default=None
            The classes of the columns. None: the names of a dataframe's columns, or 0, 1, ...
        sample_weight, drop_intermediate, pos_label, name, ax, settings
            See `from_estimator`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Other shapes, scores that are not finite, or no rows of a class.
        """
        pyplot()
        curves = curves_of_scores(tally_scores, y_true, y_score, sample_weight, pos_label, labels)
        if name is None and curves.is_single:
            name = "Classifier"
        return cls._of_curves(curves, name, drop_intermediate).plot(ax, **settings)

    @classmethod
    @abstractmethod
    def _of_curves(cls, curves: Curves, name: str | None, drop_intermediate: bool) -> Self:
        """Compute the points of the curves."""

    @abstractmethod
    def plot(self, ax: Any = None, **settings: Any) -> Self:
        """Draw the curves."""


class RocCurveDisplay(_ScoreCurves):
    """The ROC curve of a classifier; with several classes, a curve of each against the rest.

    It is drawn by `sklearn.metrics.RocCurveDisplay`.

    Parameters
    ----------
    fpr, tpr : array (m,)
        False and true positive rates.
    roc_auc : float, default=None
        The area under the curve.
    name : str, default=None
        Of the curve in the legend.
    pos_label : label, default=None
        The class of a single curve.

    Attributes
    ----------
    fpr, tpr, roc_auc, name, pos_label
        As given. If there are several curves, the first four are lists with an item for each.
    line_ : matplotlib line, or a list of them
    chance_level_ : matplotlib line or None
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(self, *, fpr: Any, tpr: Any, roc_auc: Any = None, name: Any = None, pos_label: Any = None):
        self.fpr, self.tpr, self.roc_auc = fpr, tpr, roc_auc
        self.name, self.pos_label = name, pos_label

    @classmethod
    def _of_curves(cls, curves: Curves, name: str | None, drop_intermediate: bool) -> Self:
        rates, areas = [], []
        for tally in curves.tallies:
            is_positive, scores, weight = tally.as_rows()
            points = sklearn.metrics.roc_curve(
                is_positive, scores, sample_weight=weight, drop_intermediate=drop_intermediate
            )
            rates.append(points[:2])
            areas.append(float(sklearn.metrics.roc_auc_score(is_positive, scores, sample_weight=weight)))
        return cls(
            fpr=only([fpr for fpr, _ in rates]),
            tpr=only([tpr for _, tpr in rates]),
            roc_auc=only(areas),
            name=only(curves.names(name)),
            pos_label=curves.pos_label,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        name: Any = None,
        plot_chance_level: bool = False,
        chance_level_kw: Mapping[str, Any] | None = None,
        despine: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        name : str or list of str, default=None
            Of the curves in the legend. None: `self.name`.
        plot_chance_level : bool, default=False
            Whether to draw the curve of random scores.
        chance_level_kw : dict, default=None
            Properties of that line.
        despine : bool, default=False
            Whether to leave out the upper and the right spine.
        kwargs
            Properties of the lines.

        Returns
        -------
        display
        """
        fpr, tpr, areas = listed_curves(self.fpr), listed_curves(self.tpr), listed(self.roc_auc)

        def make(i: int) -> sklearn.metrics.RocCurveDisplay:
            area = areas[i] if i < len(areas) else None
            return sklearn.metrics.RocCurveDisplay(
                fpr=fpr[i], tpr=tpr[i], roc_auc=area, pos_label=self.pos_label
            )

        names = names_of(self.name if name is None else name, len(fpr))
        draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level:
            style = {"color": GRAY, "linestyle": "--", "linewidth": 1, "label": "Chance level (AUC = 0.5)"}
            (self.chance_level_,) = self.ax_.plot((0, 1), (0, 1), **{**style, **(chance_level_kw or {})})
        legend(self.ax_, "lower right")
        return self


class PrecisionRecallDisplay(_ScoreCurves):
    """Precision against recall of a classifier; with several classes, a curve of each against the rest.

    It is drawn by `sklearn.metrics.PrecisionRecallDisplay`.

    Parameters
    ----------
    precision, recall : array (m,)
    average_precision : float, default=None
    name : str, default=None
        Of the curve in the legend.
    pos_label : label, default=None
        The class of a single curve.
    prevalence_pos_label : float, default=None
        The share of positive rows.

    Attributes
    ----------
    precision, recall, average_precision, name, pos_label, prevalence_pos_label
        As given. If there are several curves, all but pos_label are lists with an item for each.
    line_ : matplotlib line, or a list of them
    chance_level_ : matplotlib line, a list of them, or None
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(
        self,
        precision: Any,
        recall: Any,
        *,
        average_precision: Any = None,
        name: Any = None,
        pos_label: Any = None,
        prevalence_pos_label: Any = None,
    ):
        self.precision, self.recall, self.average_precision = precision, recall, average_precision
        self.name, self.pos_label, self.prevalence_pos_label = name, pos_label, prevalence_pos_label

    @classmethod
    def _of_curves(cls, curves: Curves, name: str | None, drop_intermediate: bool) -> Self:
        points, averages, shares = [], [], []
        for tally in curves.tallies:
            is_positive, scores, weight = tally.as_rows()
            points.append(
                sklearn.metrics.precision_recall_curve(
                    is_positive, scores, sample_weight=weight, drop_intermediate=drop_intermediate
                )
            )
            average = sklearn.metrics.average_precision_score(is_positive, scores, sample_weight=weight)
            averages.append(float(average))
            negative, positive = tally.totals.tolist()
            shares.append(positive / (positive + negative))
        return cls(
            only([precision for precision, _, _ in points]),
            only([recall for _, recall, _ in points]),
            average_precision=only(averages),
            name=only(curves.names(name)),
            pos_label=curves.pos_label,
            prevalence_pos_label=only(shares),
        )

    def plot(
        self,
        ax: Any = None,
        *,
        name: Any = None,
        plot_chance_level: bool = False,
        chance_level_kw: Mapping[str, Any] | None = None,
        despine: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        plot_chance_level : bool, default=False
            Whether to draw a line at the share of positive rows, for each curve.
        ax, name, chance_level_kw, despine, kwargs
            See `RocCurveDisplay.plot`.

        Returns
        -------
        display
        """
        precision, recall = listed_curves(self.precision), listed_curves(self.recall)
        averages, shares = listed(self.average_precision), listed(self.prevalence_pos_label)

        def make(i: int) -> sklearn.metrics.PrecisionRecallDisplay:
            return sklearn.metrics.PrecisionRecallDisplay(
                precision[i],
                recall[i],
                average_precision=averages[i] if i < len(averages) else None,
                pos_label=self.pos_label,
            )

        names = names_of(self.name if name is None else name, len(precision))
        drawn = draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, despine=despine)
        self.chance_level_ = None
        if plot_chance_level and shares[0] is not None:
            style = {"linestyle": "--", "linewidth": 1, **(chance_level_kw or {})}
            levels: list = []
            for one, share in zip(drawn, shares, strict=True):
                color = GRAY if len(drawn) == 1 else one.line_.get_color()
                label = f"Chance level (AP = {share:.2f})" if len(drawn) == 1 else None
                levels += self.ax_.plot((0, 1), (share, share), **{"color": color, "label": label, **style})
            self.chance_level_ = only(levels)
        legend(self.ax_, "lower left")
        return self
