"""Spaces to search in where nobody has written one, and distributions of numbers between two ends."""

from __future__ import annotations

from math import exp, log
from numbers import Integral
from typing import Any

import numpy as np
from scipy import stats
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from dasknn.estimators.mlp import BaseMLP
from dasknn.estimators.tabular import BaseTabular
from dasknn.evaluation.responders import last_step

# Around the defaults of scikit-learn. Sizes of mini-batches are for all tables, since they are in rows.
_OF_MLPS: dict[str, Any] = {
    "hidden_layer_sizes": [(64,), (128,), (256,), (64, 64), (128, 128), (256, 128), (256, 256)],
    "learning_rate_init": (3e-4, 2e-2),
    "alpha": (1e-6, 1e-1),
    "batch_size": [32, 64, 128, 256],
}
# Around the recipe of `estimators/recipe.py`. Columns are prepared once: no setting is of their preparation.
_OF_TABLES: dict[str, Any] = {
    "hidden_layer_sizes": [(128, 128), (256, 256), (256, 256, 256), (384, 384)],
    "learning_rate_init": (1e-2, 1e-1),
    "dropout": [0.0, 0.1, 0.2, 0.3],
    "weight_decay": (3e-3, 3e-1),
    "embedding_dim": [8, 16, 24],
}
_SMOOTHING = [0.0, 0.05, 0.1]


def default_space(estimator: Any) -> dict[str, Any]:
    """Return the settings to search for, if nobody says which.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, or Pipeline that ends in one

    Returns
    -------
    dict
        For each name of a setting a list of values or a distribution, as searches take them. Names are those
        of `estimator.set_params`.

    Raises
    ------
    TypeError
        It is something else, such as a function that builds a Sequential.
    """
    network = last_step(estimator)
    if isinstance(network, BaseMLP):
        space = dict(_OF_MLPS)
    elif isinstance(network, BaseTabular):
        space = dict(_OF_TABLES)
        if is_classifier(network):
            space["label_smoothing"] = _SMOOTHING
    else:
        raise TypeError(
            "Expected an estimator whose settings are known, received "
            f"{getattr(network, '__name__', type(network).__name__)}. Say which settings to try."
        )
    prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
    return {
        prefix + name: between(values[0], values[1], log=True) if isinstance(values, tuple) else values
        for name, values in space.items()
    }


def between(low: float, high: float, log: bool = False) -> Any:
    """Return a distribution of the numbers between two ends.

    Parameters
    ----------
    low, high : int or float
        Both ends are possible. If both are ints, so are all numbers.
    log : bool, default=False
        Whether all factors are equally likely, instead of all differences.

    Returns
    -------
    frozen distribution of scipy.stats, or another object with ppf, cdf and rvs

    Raises
    ------
    ValueError
        low is not less than high, or, for factors, not positive.
    """
    if not low < high:
        raise ValueError(f"Expected low to be less than high, received low = {low} and high = {high}.")
    if log and not low > 0:
        raise ValueError(f"Expected low to be greater than 0 for log = true, received {low}.")
    are_whole = isinstance(low, Integral) and isinstance(high, Integral)
    if log:
        return _WholeFactors(int(low), int(high)) if are_whole else stats.loguniform(low, high)
    return stats.randint(low, high + 1) if are_whole else stats.uniform(low, high - low)


class _WholeFactors:
    """Whole numbers whose logarithms are even, which SciPy does not have."""

    def __init__(self, low: int, high: int):
        self._low, self._high = low, high
        self._edges = (log(low - 0.5), log(high + 0.5))

    def ppf(self, u: float) -> int:
        """Return the number at a share u of the distribution."""
        below, above = self._edges
        return min(max(round(exp(below + float(u) * (above - below))), self._low), self._high)

    def cdf(self, number: float) -> float:
        """Return the share at the middle of a number, from which `ppf` leads back to it."""
        below, above = self._edges
        return (log(number) - below) / (above - below)

    def rvs(self, size: Any = None, random_state: Any = None) -> Any:
        """Draw numbers."""
        u = check_random_state(random_state).random_sample(size)
        return self.ppf(u) if size is None else np.vectorize(self.ppf)(u)

    def __repr__(self) -> str:
        return f"between({self._low!r}, {self._high!r}, log=True)"
