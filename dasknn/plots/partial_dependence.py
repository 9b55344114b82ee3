"""How predictions change with the values of columns, a panel for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from dasknn.evaluation.curves import MOST_CURVES
from dasknn.evaluation.dependence import PartialDependence, partial_dependence
from dasknn.plots.style import ABOVE, GRAY, Drawn, columns_of, line_style, panels, pyplot

# Longer names of categories are cut.
_MOST_LETTERS = 24


class PartialDependenceDisplay(Drawn):
    """The mean prediction for each value of a column: lines for numbers, dots for categories.

    Parameters
    ----------
    dependence : PartialDependence
        The result of `dasknn.partial_dependence`.
    pos_label : label, default=None
        The class to show. None: the second of two classes, or each of several.

    Attributes
    ----------
    dependence, pos_label
        As given.
    lines_ : dict of name of the column to list of matplotlib lines
    axes_ : list of matplotlib axes
        Of each column.
    ax_, figure_
        The first axes and the figure of the last drawing.
    """

    def __init__(self, dependence: PartialDependence, *, pos_label: Any = None):
        if not isinstance(dependence, PartialDependence):
            raise ValueError(
                f"Expected the result of dasknn.partial_dependence, received {type(dependence).__name__}."
            )
        self.dependence, self.pos_label = dependence, pos_label
        self._curves = _curves_of(dependence, pos_label)

    @classmethod
    def from_dependence(
        cls, dependence: PartialDependence, *, pos_label: Any = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw mean predictions that have been computed.

        Parameters
        ----------
        dependence : PartialDependence
            The result of `dasknn.partial_dependence`.
        pos_label : label, default=None
            The class to show. None: the second of two classes, or each of several.
        ax : matplotlib axes, default=None
            See `plot`.
        kwargs
            Properties of the lines.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Another object, a class that does not exist, or too many classes to show.
        """
        return cls(dependence, pos_label=pos_label).plot(ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        columns: Any,
        *,
        sample_weight: Any = None,
        grid_resolution: int = 50,
        percentiles: tuple[float, float] = (0.05, 0.95),
        max_categories: int = 20,
        max_samples: int | None = 10_000,
        random_state: Any = None,
        pos_label: Any = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Compute the mean predictions of a fitted model for each value of some columns, and draw them.

        Parameters
        ----------
        model, X, columns, sample_weight, grid_resolution, percentiles, max_categories, max_samples, \
random_state
            See `dasknn.partial_dependence`.
        pos_label, ax, kwargs
            See `from_dependence`.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            As for `dasknn.partial_dependence` and `from_dependence`.
        """
        pyplot()
        found = partial_dependence(
            model,
            X,
            columns,
            sample_weight=sample_weight,
            grid_resolution=grid_resolution,
            percentiles=percentiles,
            max_categories=max_categories,
            max_samples=max_samples,
            random_state=random_state,
        )
        return cls.from_dependence(found, pos_label=pos_label, ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw a panel for each column, all with the same range of predictions.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            The panels are drawn in its place, and it becomes the first of them. None: on a new figure.
        kwargs
            Properties of the lines.

        Returns
        -------
        display

        Raises
        ------
        ValueError
            Several panels are needed, and `ax` is not of a grid.
        """
        names = self.dependence.feature_names
        self.axes_ = panels(ax, len(names))
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        self.lines_ = {}
        for number, (panel, name) in enumerate(zip(self.axes_, names, strict=True)):
            draw = self._draw_categories if self.dependence.is_category[name] else self._draw_numbers
            self.lines_[name] = draw(panel, name, kwargs)
            panel.set_xlabel(str(name))
            panel.grid(axis="y", alpha=0.3)
            if number % columns_of(len(names)) == 0:
                panel.set_ylabel(self._what())
        if len(self._curves) > 1:
            self.ax_.legend(ncols=4, **ABOVE)
        return self

    def _what(self) -> str:
        what = {"predict": "prediction", "predict_proba": "probability", "decision_function": "score"}
        told = f"mean {what[self.dependence.response]}"
        if self.dependence.classes is not None and len(self._curves) == 1:
            told += f" of {self.dependence.classes[self._curves[0]]}"
        return told

    def _label(self, number: int) -> str | None:
        if len(self._curves) == 1:
            return None
        classes = self.dependence.classes
        return f"output {number}" if classes is None else str(classes[number])

    def _draw_numbers(self, panel: Any, name: Any, kwargs: Mapping[str, Any]) -> list:
        values, average = self.dependence.values[name], self.dependence.average[name]
        lines = []
        for place, number in enumerate(self._curves):
            style = {**line_style(place), "label": self._label(number), "marker": "."[: len(values) < 3]}
            lines += panel.plot(values, average[number], **{**style, **kwargs})
        # Where there are many rows, quantiles lie close together.
        where = {"transform": panel.get_xaxis_transform(), "color": GRAY, "markersize": 5}
        panel.plot(values, np.zeros(len(values)), "|", **where)
        if values.dtype.kind == "M":
            panel.tick_params(axis="x", rotation=30)
        return lines

    def _draw_categories(self, panel: Any, name: Any, kwargs: Mapping[str, Any]) -> list:
        average = self.dependence.average[name]
        labels = [
            label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…"
            for label in self.dependence.labels(name)
        ]
        places = np.arange(len(labels))
        lines = []
        for place, number in enumerate(self._curves):
            style = {**line_style(place), "label": self._label(number), "linestyle": "", "marker": "o"}
            lines += panel.plot(places, average[number], **{**style, **kwargs})
        is_long = sum(map(len, labels)) > 24
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
        panel.set_xticks(places, labels, fontsize="small", **turned)
        panel.set_xlim(-0.5, len(labels) - 0.5)
        return lines


def _curves_of(dependence: PartialDependence, pos_label: Any) -> list[int]:
    """Return the numbers of the rows of averages that are shown."""
    n_curves = len(next(iter(dependence.average.values())))
    classes = None if dependence.classes is None else dependence.classes.tolist()
    if pos_label is not None:
        if classes is None or pos_label not in classes:
            known = "none, of a regression" if classes is None else str(classes[:20])
            raise ValueError(f"Expected pos_label to be one of the classes, {known}, received {pos_label!r}.")
        return [classes.index(pos_label)]
    if n_curves > MOST_CURVES:
        raise ValueError(
            f"Expected at most {MOST_CURVES} classes to draw a line each, received {n_curves}. Choose one "
            "with pos_label=..."
        )
    return [1] if classes is not None and n_curves == 2 else list(range(n_curves))
