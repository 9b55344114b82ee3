"""What rows that were held out say of predictions: how sure probabilities should be, how far numbers are off.

Both are found where the rows are, in one or two passes, as sums that add up.
"""

from __future__ import annotations

from functools import partial
from math import ceil

import numpy as np

from dasknn.data.blocks import Block
from dasknn.data.tables.sketch import NumberSketch
from dasknn.data.targets import ClassEncoder, MultilabelEncoder, StandardEncoder, as_numbers
from dasknn.training.datasets import Rows
from dasknn.training.prediction import Predictor, tempered

# The search for a temperature: over its logarithm, evenly in this range, then around the best one.
_WIDEST, _POINTS = 3.0, 33
# Few rows that are all predicted right would make probabilities 0 and 1. In nats for all rows together, so it
# means nothing for many.
_PRIOR = 2.0


def fit_temperature(rows: Rows, predictor: Predictor) -> float:
    """Return the temperature with which probabilities have the least log-loss on rows that were held out.

    One number for all classes, found on the mean of the members: calibrated members would not have a
    calibrated mean (Rahaman and Thiery 2021). 1 if there are no such rows.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks".
    """
    logs = np.linspace(-_WIDEST, _WIDEST, _POINTS)
    for _ in range(2):
        losses = rows.total(partial(_losses, tuple(logs)), predictor)
        if not np.isfinite(losses).any() or not losses.any():
            return 1.0
        best = int(np.nanargmin(losses + _PRIOR * logs**2))
        step = logs[1] - logs[0]
        chosen = float(logs[best])
        logs = np.linspace(chosen - step, chosen + step, _POINTS)
    return float(np.exp(chosen))


def _losses(logs: tuple[float, ...], predictor: Predictor, block: Block) -> np.ndarray:
    """Return the summed log-loss of a block for each logarithm of a temperature; NaN for unknown labels."""
    block.check()
    encoder, y = predictor.encoder, block.y
    assert y is not None, "a loss needs targets"
    assert isinstance(encoder, ClassEncoder | MultilabelEncoder), "only classes have probabilities"
    if not len(y):
        return np.zeros(len(logs))
    try:
        targets = encoder.encode(y)
    except ValueError:
        return np.full(len(logs), np.nan)
    outputs = predictor.outputs(block.X).astype(np.float64)
    weight = np.ones(len(y)) if block.weight is None else block.weight
    found = []
    for log in logs:
        P = tempered(outputs, float(np.exp(log)), encoder)
        chances = P[np.arange(len(y)), targets] if targets.ndim == 1 else np.where(targets == 1, P, 1 - P)
        of_rows = -np.log(np.maximum(chances, np.finfo(np.float64).tiny)).reshape(len(y), -1).sum(axis=1)
        found.append(float(of_rows @ weight))
    return np.array(found)


def sketch_errors(rows: Rows, predictor: Predictor) -> NumberSketch:
    """Return how far predictions of one number are off on rows that were held out, each counted once.

    Rows of weight 0 are left out.
    That is the distance of the target from the prediction; of a model of quantiles, from the range between
    the lowest and the highest one, below 0 within it (Romano, Patterson and Candes 2019).
    """
    return rows.total(_errors, predictor)


def _errors(predictor: Predictor, block: Block) -> NumberSketch:
    block.check()
    encoder = predictor.encoder
    assert block.y is not None, "errors need targets"
    assert isinstance(encoder, StandardEncoder), "only numbers have errors"
    y = as_numbers(block.y).astype(np.float64).reshape(-1)
    numbers = encoder.numbers(predictor.outputs(block.X))
    errors = np.maximum(numbers[:, 0] - y, y - numbers[:, -1])
    return NumberSketch.of(errors if block.weight is None else errors[block.weight > 0])


def margin(errors: NumberSketch, coverage: float) -> float:
    """Return how far an interval has to reach beyond the prediction to hold a share of new targets.

    It holds on average over trainings, whatever the distribution is, if new rows come from that of the rows
    that were held out (split-conformal prediction, Lei et al. 2018). ValueError: too few rows for it.
    """
    rank = ceil((errors.n_rows + 1) * coverage)
    if rank > errors.n_rows:
        raise ValueError(
            f"Expected a coverage of at most {errors.n_rows / (errors.n_rows + 1):.4g} with the "
            f"{errors.n_rows} rows that were held out, received {coverage}. Hold out more rows "
            "(validation_fraction), or ask for less."
        )
    return float(errors.values[np.searchsorted(np.cumsum(errors.weights), rank)])
