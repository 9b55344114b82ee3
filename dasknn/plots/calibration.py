"""Whether predicted probabilities are right, bin by bin."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import numpy as np
import sklearn.calibration

from dasknn.evaluation.curves import (
    Curves,
    TallyScores,
    curves_of_model,
    curves_of_scores,
    tally_bins,
    tally_scores,
)
from dasknn.evaluation.score_sketch import CellTally, ShareTally, Tally, in_bins
from dasknn.plots.score_curves import draw_curves, listed_curves, names_of, only
from dasknn.plots.style import SQUARE, Drawn, axes_for, legend, pyplot


class CalibrationDisplay(Drawn):
    """The share of positive rows by predicted probability; with several classes, a curve for each.

    It is drawn by `sklearn.calibration.CalibrationDisplay`.

    Parameters
    ----------
    prob_true : array (m,)
        The share of positive rows in each bin.
    prob_pred : array (m,)
        The mean predicted probability in each bin.
    name : str, default=None
        Of the curve in the legend.
    pos_label : label, default=None
        The class of a single curve.

    Attributes
    ----------
    prob_true, prob_pred, name, pos_label
        As given. If there are several curves, the first three are lists with an item for each.
    line_ : matplotlib line, or a list of them
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(self, prob_true: Any, prob_pred: Any, *, name: Any = None, pos_label: Any = None):
        self.prob_true, self.prob_pred = prob_true, prob_pred
        self.name, self.pos_label = name, pos_label

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        n_bins: int = 5,
        strategy: str = "uniform",
        sample_weight: Any = None,
        pos_label: Any = None,
        name: str | None = None,
        ax: Any = None,
        ref_line: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of a fitted classifier with probabilities.

        Parameters
        ----------
        n_bins : int, default=5
        strategy : {"uniform", "quantile"}, default="uniform"
            "uniform": bins of the same width. "quantile": bins with about as many rows each.
        ref_line : bool, default=True
            Whether to draw the line of perfect calibration.
        estimator, X, y, sample_weight, pos_label, name, ax
            See `RocCurveDisplay.from_estimator`.
        kwargs
            Properties of the lines.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            The model has no probabilities, a class has no rows, or `n_bins` or `strategy` is another value.
        """
        pyplot()
        tally = _tally_for(n_bins, strategy)
        curves = curves_of_model(tally, "predict_proba", estimator, X, y, sample_weight, pos_label)
        if name is None and curves.is_single:
            name = type(estimator).__name__
        return cls._of_curves(curves, name, n_bins).plot(ax=ax, ref_line=ref_line, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_prob: Any,
        *,
        n_bins: int = 5,
        strategy: str = "uniform",
        sample_weight: Any = None,
        pos_label: Any = None,
        labels: Any = None,
        name: str | None = None,
        ax: Any = None,
        ref_line: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of probabilities that exist already; of several columns, a curve for each.

        Parameters
        ----------
        y_true : array (n,) of labels, or (n, k) of multi-label data, of Dask or plain
        y_prob : array (n,) or (n, k), or dataframe, of Dask or plain
            The probabilities of the positive class, or a column for each of `labels`.
        labels : list, default=None
            The classes of the columns. None: the names of a dataframe's columns, or 0, 1, ...
        n_bins, strategy, sample_weight, pos_label, name, ax, ref_line, kwargs
            See `from_estimator`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Other shapes, numbers outside of [0, 1], or no rows of a class.
        """
        pyplot()
        tally = _tally_for(n_bins, strategy)
        curves = curves_of_scores(tally, y_true, y_prob, sample_weight, pos_label, labels)
        if name is None and curves.is_single:
            name = "Classifier"
        return cls._of_curves(curves, name, n_bins).plot(ax=ax, ref_line=ref_line, **kwargs)

    @classmethod
    def _of_curves(cls, curves: Curves, name: str | None, n_bins: int) -> Self:
        points = [_points(tally, n_bins) for tally in curves.tallies]
        return cls(
            only([prob_true for prob_true, _ in points]),
            only([prob_pred for _, prob_pred in points]),
            name=only(curves.names(name)),
            pos_label=curves.pos_label,
        )

    def plot(self, *, ax: Any = None, name: Any = None, ref_line: bool = True, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        name : str or list of str, default=None
            Of the curves in the legend. None: `self.name`.
        ref_line : bool, default=True
            Whether to draw the line of perfect calibration.
        kwargs
            Properties of the lines.

        Returns
        -------
        display
        """
        prob_true, prob_pred = listed_curves(self.prob_true), listed_curves(self.prob_pred)

        def make(i: int) -> sklearn.calibration.CalibrationDisplay:
            return sklearn.calibration.CalibrationDisplay(
                prob_true[i], prob_pred[i], None, pos_label=self.pos_label
            )

        names = names_of(self.name if name is None else name, len(prob_true))
        draw_curves(self, make, names, axes_for(ax, figsize=SQUARE), kwargs, ref_line=ref_line)
        # A probability and a share: the reference is the diagonal of a square.
        self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        legend(self.ax_, "best")
        return self


def _tally_for(n_bins: int, strategy: str) -> TallyScores:
    """Return the function that tallies the probabilities of a class."""
    if strategy not in ("uniform", "quantile"):
        raise ValueError(f"Expected strategy to be 'uniform' or 'quantile', received {strategy!r}.")
    if n_bins < 1:
        raise ValueError(f"Expected n_bins of at least 1, received {n_bins}.")
    # The edges of quantiles follow from a tally of all scores.
    tally = tally_scores if strategy == "quantile" else partial(tally_bins, np.linspace(0, 1, n_bins + 1))
    return partial(_tally_probabilities, tally)


def _tally_probabilities(
    tally: TallyScores,
    n_curves: int,
    is_positive: np.ndarray,
    scores: np.ndarray,
    weight: np.ndarray | None,
) -> Tally:
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(
            f"Expected probabilities in [0, 1], received scores from {scores.min():g} to {scores.max():g}."
        )
    return tally(n_curves, is_positive, scores, weight)


def _points(tally: Tally, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (share of positive rows, mean probability) of each bin that holds rows."""
    if isinstance(tally, ShareTally):
        tally = in_bins(tally.keys, tally.weights, tally.quantiles(np.linspace(0, 1, n_bins + 1)))
    assert isinstance(tally, CellTally), "scores are tallied by bin or by score"
    negative, positive, scored = tally.weights.T
    weight = negative + positive
    held = weight > 0
    return positive[held] / weight[held], scored[held] / weight[held]
