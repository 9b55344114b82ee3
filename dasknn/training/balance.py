"""Rows dealt out by the speed of workers: a slow one gets fewer, so that the others do not wait for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from dasknn.cluster.placement import Home
from dasknn.data.shards import Shards

logger = logging.getLogger("dasknn")

# Dealing again moves rows, so it has to bring something: the share of a replica changes by as much.
_LEAST_CHANGE = 0.15
# No replica gets less than this part of an equal share: a worker may be slow for a moment only.
_LEAST_SHARE = 0.1


class Balance:
    """Deals the rows of a training out again between epochs.

    Parameters
    ----------
    shards : Shards
    """

    def __init__(self, shards: Shards):
        self._shards = shards
        self._seconds: dict[str, float] = {}

    def note(self, spent: Mapping[str, tuple[float, float]]) -> None:
        """Note how many seconds each worker computed in an epoch: the first of each pair."""
        self._seconds = {address: compute for address, (compute, _) in spent.items()}

    def deal_again(self, homes: Sequence[Home]) -> bool:
        """Deal rows out by the speed of the last epoch, where that changes much; return whether it did.

        homes: where each replica has worked.
        """
        seconds, self._seconds = self._seconds, {}
        rows = np.array([sum(own.values()) for own in self._shards.rows_of_replicas()], dtype=float)
        shares = shares_of(rows, [str(home) for home in homes], seconds)
        if shares is None or np.abs(shares * rows.sum() / rows - 1).max() < _LEAST_CHANGE:
            return False
        self._shards.deal_again(shares.tolist())
        now = [sum(own.values()) for own in self._shards.rows_of_replicas()]
        logger.info("Rows of replicas, by the speed of their workers: %s.", ", ".join(map(str, now)))
        return True


def shares_of(rows: np.ndarray, homes: Sequence[str], seconds: Mapping[str, float]) -> np.ndarray | None:
    """Return the share of the rows for each replica by the speed of its worker; None if that is not known.

    Parameters
    ----------
    rows : array (replicas,)
        How many each had.
    homes : sequence of str
        The address of the worker of each.
    seconds : mapping
        Seconds that each worker computed, by address.
    """
    at = np.array(homes)
    if any(seconds.get(home, 0.0) <= 0 for home in homes):
        return None
    speeds = np.array([rows[at == home].sum() / seconds[home] / (at == home).sum() for home in homes])
    shares = np.maximum(speeds / speeds.sum(), _LEAST_SHARE / len(homes))
    return shares / shares.sum()
