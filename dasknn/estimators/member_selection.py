"""Chooses members of a trained network by the rows that were held out.

held-out rows ── loss of the mean with each other member ── sum, in order of partitions ── the best one
                 (once for each member that is chosen)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from dasknn.data.blocks import Block, cast
from dasknn.data.targets import RowWeights
from dasknn.engine.network import ROWS_AT_ONCE
from dasknn.training.datasets import Rows
from dasknn.training.prediction import Predictor

# Outputs of all members take more memory than rows: so many numbers at a time.
_NUMBERS_AT_ONCE = 2**21


def choose_members(rows: Rows, predictor: Predictor, weights: RowWeights | None) -> list[int]:
    """Return the numbers of the members, ascending, whose mean predicts rows that were held out best.

    The search is greedy: it begins with the best member, then adds the one with which the mean has the least
    loss, until none makes it less. Of equals, the one of the lower number is chosen. All members are kept if
    their mean is as good.

    Each step is a pass over the rows, where they are. Only sums of losses travel, so the memory does not grow
    with rows, and the result has the same bits on any cluster.

    Parameters
    ----------
    rows : Rows
        Those that were held out.
    predictor : Predictor
        Of one network, whose members share it.
    weights : RowWeights or None
        Weights of classes, as in the validation loss.

    References
    ----------
    - Caruana, Niculescu-Mizil, Crew and Ksikes (2004), "Ensemble selection from libraries of models".
    - Gorishniy, Kotelnikov and Babenko (2025), "TabM: advancing tabular deep learning with
      parameter-efficient ensembling", on submodels.
    """
    everyone = tuple(range(predictor.network.n_members))
    chosen: tuple[int, ...] = ()
    least = of_all = np.inf
    while len(chosen) < len(everyone):
        # trials: members whose mean is tried; first of all those of all members, too
        trials = [(*chosen, number) for number in everyone if number not in chosen]
        if not chosen:
            trials.append(everyone)
        losses = rows.total(partial(_losses, weights, trials), predictor)
        losses = np.where(np.isnan(losses), np.inf, losses)
        if not chosen:
            of_all, losses = losses[-1], losses[:-1]
        best = int(np.argmin(losses))
        if not losses[best] < least:
            break
        least, chosen = losses[best], trials[best]
    return sorted(chosen) if least < of_all else list(everyone)


def _losses(
    weights: RowWeights | None, trials: Sequence[tuple[int, ...]], predictor: Predictor, block: Block
) -> np.ndarray:
    """Return the summed loss of a block for the mean of each of these sets of members.

    The loss is the network's. NaN: unknown labels.
    """
    block.check()
    network, encoder, y, weight = predictor.network, predictor.encoder, block.y, block.weight
    assert y is not None, "a loss needs targets"
    assert encoder is not None, "a loss needs an encoder"
    found = np.zeros(len(trials))
    if not len(y):
        return found
    try:
        targets = encoder.encode(y)
        if weights is not None:
            weight = weights.rows(y, weight)
    except ValueError:
        return np.full(len(trials), np.nan)
    loss, X = network.loss.of_mean, cast(block.X, network.dtype)
    at_once = min(ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // (network.n_members * network.n_outputs)))
    for begin in range(0, len(y), at_once):
        part = slice(begin, begin + at_once)
        outputs = network.member_outputs(predictor.members[0], X[part]).astype(np.float64)
        for place, trial in enumerate(trials):
            of_rows = loss.rows(targets[part], outputs[:, trial].mean(axis=1))
            found[place] += of_rows.sum() if weight is None else of_rows @ weight[part]
    return found
