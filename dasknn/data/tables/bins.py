"""Edges of the bins of a column of numbers: chosen from its distribution, or by a decision tree.

Bins are for piecewise-linear encodings (Gorishniy, Rubachev, Babenko 2022): what a network learns of a column
may bend at the edges, and is linear between them.
"""

from __future__ import annotations

import numpy as np

from dasknn.data.tables.sketch import NumberSketch
from dasknn.layers import piecewise

# Settings of the trees, as in section 3.2.2 of the paper.
_LEAST_LEAF, _LEAST_DECREASE = 64, 1e-4
# Outliers beyond it are one to a tree.
_GREATEST = 1e30


def greedy_edges(sketch: NumberSketch, n_bins: int) -> np.ndarray:
    """Return at most n_bins + 1 edges, which are values of the column; see `piecewise.greedy_edges`."""
    return piecewise.greedy_edges(sketch.values, sketch.weights, n_bins)


def quantile_edges(sketch: NumberSketch, n_bins: int) -> np.ndarray:
    """Return the distinct ones of n_bins + 1 quantiles."""
    return np.unique(sketch.quantiles(np.linspace(0, 1, n_bins + 1)))


def tree_edges(
    sketch: NumberSketch, n_bins: int, numbers: np.ndarray, y: np.ndarray, is_classifier: bool
) -> np.ndarray:
    """Return the ends of the column and the thresholds of a decision tree with at most n_bins leaves.

    numbers (m,), NaN where missing, and y (m,) or (m, k): a sample of the rows.
    """
    # scikit-learn takes a second to import, and other bins do not need it.
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    ends = sketch.values[[0, -1]]
    known = np.isfinite(numbers)
    numbers, y = numbers[known], y[known]
    if not len(y):
        return ends
    # Trees compute in float32, which has few digits left for numbers like years in seconds.
    center, scale = sketch.center_and_scale()
    with np.errstate(over="ignore"):
        X = np.clip((numbers - center) * scale, -_GREATEST, _GREATEST)[:, np.newaxis]
    if not is_classifier:
        # The least decrease is relative to the variance of y.
        deviation = y.std(axis=0)
        y = (y - y.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    settings = {"min_samples_leaf": _LEAST_LEAF, "min_impurity_decrease": _LEAST_DECREASE, "random_state": 0}
    kind = DecisionTreeClassifier if is_classifier else DecisionTreeRegressor
    tree = kind(max_leaf_nodes=max(n_bins, 2), **settings).fit(X, y).tree_
    thresholds = tree.threshold[tree.children_left != tree.children_right][: n_bins - 1] / scale + center
    inside = (thresholds > ends[0]) & (thresholds < ends[1])
    return np.unique(np.concatenate([ends, thresholds[inside]]))
