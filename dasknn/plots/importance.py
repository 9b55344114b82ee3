"""Which columns matter, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from dasknn.evaluation.importance import PermutationImportance, permutation_importance
from dasknn.plots.style import BLACK, BLUE, Drawn, axes_for, pyplot


class ImportanceDisplay(Drawn):
    """Permutation importances of columns as bars with intervals, the most important first.

    Parameters
    ----------
    names : sequence of str (n,)
        Of the columns.
    values, low, high : array (n,)
        How much worse the metric becomes, and the ends of its interval; NaN if there is none.
    scoring : str
        The name of the metric.
    greater_is_better : bool, default=True
        Whether the metric drops when it becomes worse.
    confidence : float, default=None
        Of the intervals, in (0, 1).
    n_columns : int, default=None
        The number of columns, if the display has only some of them.

    Attributes
    ----------
    names, values, low, high, scoring, greater_is_better, confidence, n_columns
        As given.
    bars_ : matplotlib container of bars
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(
        self,
        names: Iterable[str],
        values: Any,
        low: Any,
        high: Any,
        *,
        scoring: str,
        greater_is_better: bool = True,
        confidence: float | None = None,
        n_columns: int | None = None,
    ):
        self.names = list(names)
        self.values, self.low, self.high = (np.asarray(column, float) for column in (values, low, high))
        self.scoring, self.greater_is_better, self.confidence = scoring, greater_is_better, confidence
        self.n_columns = len(self.names) if n_columns is None else n_columns

    @classmethod
    def from_importance(
        cls, importance: PermutationImportance, *, max_columns: int = 20, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw importances that have been computed.

        Parameters
        ----------
        importance : PermutationImportance
            The result of `dasknn.permutation_importance`.
        max_columns : int, default=20
            Most columns to show: the most important ones.
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of the bars.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Another object, or `max_columns` below 1.
        """
        if not isinstance(importance, PermutationImportance):
            raise ValueError(
                "Expected the result of dasknn.permutation_importance, received "
                f"{type(importance).__name__}. Use ImportanceDisplay(names, values, low, high, scoring=...) "
                "for importances of another kind."
            )
        if max_columns < 1:
            raise ValueError(f"Expected max_columns of at least 1, received {max_columns}.")
        order = importance.order[:max_columns]
        display = cls(
            [importance.labels[number] for number in order],
            importance.importances_mean[order],
            importance.interval_low[order],
            importance.interval_high[order],
            scoring=importance.scoring,
            greater_is_better=importance.greater_is_better,
            confidence=importance.confidence,
            n_columns=len(importance.feature_names),
        )
        return display.plot(ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        scoring: Any = None,
        n_repeats: int = 5,
        max_samples: int | None = 10_000,
        random_state: Any = None,
        columns: Any = None,
        pos_label: Any = None,
        max_columns: int = 20,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Compute the importances of columns for a fitted model, and draw them.

        Parameters
        ----------
        model, X, y, sample_weight, scoring, n_repeats, max_samples, random_state, columns, pos_label
            See `dasknn.permutation_importance`.
        max_columns, ax, kwargs
            See `from_importance`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            As for `dasknn.permutation_importance`.
        """
        pyplot()
        found = permutation_importance(
            model,
            X,
            y,
            sample_weight=sample_weight,
            scoring=scoring,
            n_repeats=n_repeats,
            max_samples=max_samples,
            random_state=random_state,
            columns=columns,
            pos_label=pos_label,
        )
        return cls.from_importance(found, max_columns=max_columns, ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of the bars.

        Returns
        -------
        display
        """
        n = len(self.names)
        self.ax_ = axes_for(ax, figsize=(7.0, 1.1 + 0.28 * n))
        self.figure_ = self.ax_.figure
        places = np.arange(n)
        reach = np.abs(np.stack([self.low, self.high]) - self.values)
        has_intervals = not np.isnan(reach).any()
        style: dict[str, Any] = {"color": BLUE, "height": 0.7}
        if has_intervals:
            style |= {"xerr": reach, "ecolor": BLACK, "capsize": 2.5, "error_kw": {"elinewidth": 1.2}}
        self.bars_ = self.ax_.barh(places, self.values, **{**style, **kwargs})
        self.ax_.axvline(0, color=BLACK, linewidth=0.9)
        size = "medium" if n <= 30 else "small" if n <= 60 else "x-small"
        self.ax_.set_yticks(places, self.names, fontsize=size)
        self.ax_.set_ylim(n - 0.4, -0.6)
        if n < self.n_columns:
            self.ax_.set_ylabel(f"{n} of {self.n_columns} columns")
        self.ax_.grid(axis="x", alpha=0.3)
        self.ax_.set_axisbelow(True)
        what = f"{'drop' if self.greater_is_better else 'rise'} in {self.scoring.replace('_', ' ')}"
        what += " if the column is permuted"
        if has_intervals and self.confidence is not None:
            what += f"  ({100 * self.confidence:g}% intervals)"
        self.ax_.set_xlabel(what)
        return self
