"""Strategies by name."""

from __future__ import annotations

from dasknn.strategies.gradients import GradientAveraging
from dasknn.strategies.predictions import PredictionAveraging
from dasknn.strategies.strategy import Strategy
from dasknn.strategies.weights import WeightAveraging


def get(strategy: str | Strategy) -> Strategy:
    """Return the strategy of that name; a Strategy is returned as it is.

    Raises
    ------
    ValueError
        It is neither a name nor a Strategy.
    """
    if isinstance(strategy, Strategy):
        return strategy
    by_name = {kind.name: kind for kind in (GradientAveraging, WeightAveraging, PredictionAveraging)}
    if isinstance(strategy, str) and strategy in by_name:
        return by_name[strategy]()
    raise ValueError(
        f"Expected strategy to be 'auto', one of {sorted(by_name)} or an object such as "
        f"GradientAveraging(), received {strategy!r}."
    )


# TensorFlow's names for it.
MirroredStrategy = MultiWorkerMirroredStrategy = GradientAveraging
