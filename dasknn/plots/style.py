"""Pictures of trainings and of fitted models, in scikit-learn's Display convention.

    from_estimator, from_predictions, ...   compute what is shown, where the data is, and draw it
    .plot(ax=None)                          draw it again; .ax_ and .figure_ are what it was drawn on

Curves and confusion matrices of Dask data follow from counts (`curves`), which workers make in one pass over
the partitions; scikit-learn's own displays draw them. matplotlib is imported by the first picture.
"""

from __future__ import annotations

from typing import Any

# The palette of Okabe and Ito (2008), which color-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
GRAY, LIGHT_GRAY = "#777777", "#BBBBBB"
_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK)
_LINES = ("-", "--", ":", "-.")
SQUARE = (5.6, 5.4)
# A legend above the axes hides nothing.
ABOVE = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "fontsize": "small",
    "borderaxespad": 0.2,
}


def pyplot():
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed. Use: pip install 'dasknn[plots]'"
        ) from error
    return matplotlib.pyplot


def axes_for(ax, **settings):
    """Return ax, or the axes of a new figure, whose lines take colors that everyone can tell apart."""
    plt = pyplot()
    if ax is not None:
        return ax
    cycle = plt.cycler(linestyle=_LINES) * plt.cycler(color=_COLORS)
    with plt.rc_context({"axes.prop_cycle": cycle}):
        return plt.subplots(layout="constrained", **settings)[1]


def whole_numbers(axis, most: int = 9) -> None:
    """Let an axis have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def legend(ax, where: str) -> None:
    """Show what has a label: again, since properties of lines have changed, and in columns, if it is much."""
    _, labels = ax.get_legend_handles_labels()
    if labels:
        ax.legend(loc=where, fontsize="small", ncols=1 + len(labels) // 14)


class Drawn:
    """What every picture has once it was drawn."""

    ax_: Any
    figure_: Any
