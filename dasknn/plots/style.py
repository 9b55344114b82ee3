"""Colors, axes and legends of all plots. The first plot imports matplotlib."""

from __future__ import annotations

from abc import ABC
from typing import Any

# The palette of Okabe and Ito (2008), which color-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
GRAY, LIGHT_GRAY = "#777777", "#BBBBBB"
_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK)
_LINES = ("-", "--", ":", "-.")
SQUARE = (5.6, 5.4)
# Panels beside one another.
_PANELS_OF_ROW = 3
# A legend above the axes hides nothing.
ABOVE = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "fontsize": "small",
    "borderaxespad": 0.2,
}


def pyplot() -> Any:
    """Return `matplotlib.pyplot`. ImportError: it is not installed."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed. Use: pip install 'dasknn[plots]'"
        ) from error
    return matplotlib.pyplot


def axes_for(ax: Any, **settings: Any) -> Any:
    """Return ax, or the axes of a new figure, with line colors that color-blind readers can tell apart."""
    plt = pyplot()
    if ax is not None:
        return ax
    cycle = plt.cycler(linestyle=_LINES) * plt.cycler(color=_COLORS)
    # No rc_context: a notebook's first figure turns interactive mode on, which would end with it.
    ax = plt.subplots(layout="constrained", **settings)[1]
    ax.set_prop_cycle(cycle)
    return ax


def columns_of(n_panels: int) -> int:
    """Return how many panels are beside one another."""
    return 2 if n_panels == 4 else min(n_panels, _PANELS_OF_ROW)


def panels(ax: Any, n: int) -> list:
    """Return n axes in rows, with one y-axis: in a new figure, or in place of ax."""
    plt = pyplot()
    n_columns = columns_of(n)
    n_rows = -(-n // n_columns)
    if n == 1:
        return [axes_for(ax, figsize=(5.6, 4.0))]
    if ax is None:
        size = (1.0 + 3.0 * n_columns, 0.6 + 2.8 * n_rows)
        grid = plt.figure(figsize=size, layout="constrained").add_gridspec(n_rows, n_columns)
        ax = grid.figure.add_subplot(grid[0])
    else:
        whole = ax.get_subplotspec()
        if whole is None:
            raise ValueError(
                f"Expected axes of plt.subplots, which {n} axes can replace, received axes at a fixed "
                "position. Draw on a new figure, with ax=None."
            )
        grid = whole.subgridspec(n_rows, n_columns)
        ax.set_subplotspec(grid[0])
    others = [ax.figure.add_subplot(grid[number], sharey=ax) for number in range(1, n)]
    for number, panel in enumerate(others, start=1):
        if number % n_columns:
            panel.tick_params(labelleft=False)
    return [ax, *others]


def line_style(number: int) -> dict[str, str]:
    """Return color and line of curve `number`, in the order of `axes_for`."""
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _LINES[number // len(_COLORS) % len(_LINES)],
    }


def whole_numbers(axis: Any, most: int = 9) -> None:
    """Put the ticks of an axis at whole numbers, at most so many."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def legend(ax: Any, where: str) -> None:
    """Draw a legend with the lines as they are now, in several columns if it is long."""
    _, labels = ax.get_legend_handles_labels()
    if labels:
        ax.legend(loc=where, fontsize="small", ncols=1 + len(labels) // 14)


class Drawn(ABC):
    """A display that can be drawn.

    Attributes
    ----------
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    ax_: Any
    figure_: Any
