"""How long an epoch takes on clusters of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from dasknn.plots.style import ABOVE, GRAY, Drawn, axes_for
from dasknn.training.recommend import ClusterSize, Recommendation, name_of

_MOST_TICKS = 12


class ScalingDisplay(Drawn):
    """Seconds of an epoch against the number of workers, a line for each strategy.

    Where a line leaves the thin gray one, which halves with twice the workers, more workers cost more than
    they bring. Numbers at the points say in which share of the time workers compute.

    Parameters
    ----------
    sizes : list of ClusterSize
        `scaling` of a recommendation, for at least one number of workers.

    Attributes
    ----------
    curves : dict of str to (array (n,), array (n,), array (n,))
        Workers, seconds of an epoch and share of computing, by the name of the strategy.
    lines_ : dict of str to matplotlib line
    ax_, figure_
        The axes and the figure of the last drawing.
    """

    def __init__(self, sizes: Sequence[ClusterSize]):
        sizes = list(sizes)
        if not sizes or not all(isinstance(size, ClusterSize) for size in sizes):
            raise ValueError(
                "Expected predictions for at least one number of workers. Use: dasknn.recommend(client, "
                "model, X, workers=[1, 2, 4, 8])"
            )
        self.curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for name in dict.fromkeys(name_of(size.strategy) for size in sizes):
            own = sorted((s for s in sizes if name_of(s.strategy) == name), key=lambda s: s.n_workers)
            self.curves[name] = (
                np.array([size.n_workers for size in own]),
                np.array([size.seconds for size in own]),
                np.array([size.computing for size in own]),
            )
        self.lines_: dict[str, Any] = {}

    @classmethod
    def from_recommendation(cls, recommendation: Recommendation, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw what `dasknn.recommend(..., workers=[...])` has predicted.

        Parameters
        ----------
        recommendation : Recommendation
        ax : matplotlib axes, default=None
            None: those of a new figure.
        kwargs
            Properties of the lines.

        Returns
        -------
        ScalingDisplay

        Raises
        ------
        ValueError
            No numbers of workers were asked for.
        ImportError
            Matplotlib is missing.
        """
        return cls(recommendation.scaling).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw it again; see `from_recommendation`.

        Returns
        -------
        ScalingDisplay
        """
        ax = axes_for(ax, figsize=(6.4, 4.2))
        from matplotlib.ticker import LogLocator

        for number, (name, (workers, seconds, computing)) in enumerate(self.curves.items()):
            if not number:
                ideal = seconds[0] * workers[0] / workers
                ax.plot(
                    workers,
                    ideal,
                    color=GRAY,
                    linewidth=0.8,
                    linestyle="-",
                    label="twice the workers, half the time",
                )
            (self.lines_[name],) = ax.plot(workers, seconds, marker="o", label=name, **kwargs)
            # Curves are often close to each other: the numbers of one are above it, those of the next below.
            below = number % 2
            for n, y, share in zip(workers, seconds, computing, strict=True):
                offset, align = ((0, -5), "top") if below else ((0, 5), "bottom")
                place = {"textcoords": "offset points", "ha": "center", "va": align}
                ax.annotate(f"{share:.0%}", (n, y), offset, fontsize="x-small", **place)
        ax.set(xscale="log", yscale="log", xlabel="workers", ylabel="predicted seconds of an epoch")
        ticks = sorted({int(n) for workers, *_ in self.curves.values() for n in workers})
        ax.set_xticks(ticks[:: -(-len(ticks) // _MOST_TICKS)])
        ax.minorticks_off()
        ax.xaxis.set_major_formatter(lambda n, _: f"{n:g}")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.legend(**ABOVE, ncols=len(self.curves) + 1)
        self.ax_, self.figure_ = ax, ax.figure
        return self
