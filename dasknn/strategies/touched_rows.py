"""Sums of gradients of which only the rows of tables travel that a mini-batch has touched.

A table of vectors for thousands of categories has a gradient that is 0 but for the categories that occur in
a mini-batch. So replicas first agree which rows occur, one number each, and then sum those rows and
everything else. The sum has the bits of the whole vector's: what is left out is 0 everywhere.
"""

from __future__ import annotations

from math import prod

import numpy as np

from dasknn.engine.network import Network
from dasknn.engine.state import Contribution
from dasknn.strategies.compression import Compressor, Total

# Smaller tables travel whole: agreeing on their rows would take longer.
_LEAST_NUMBERS = 8_192


class TouchedRows(Compressor):
    """Sums contributions of replicas of a network that has large tables.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network):
        self._tables = [v for v in network.variables if v.is_table and prod(v.shape) >= _LEAST_NUMBERS]
        self._n_rows = sum(variable.shape[0] for variable in self._tables)
        is_dense = np.ones(network.n_params, bool)
        for variable in self._tables:
            is_dense[variable.span] = False
        self._dense = np.flatnonzero(is_dense)
        self._dtype = network.dtype

    @property
    def is_useful(self) -> bool:
        """Whether the network has tables of which only some rows should travel."""
        return bool(self._tables)

    def total(self, found: dict[int, Contribution], step: int, total: Total) -> Contribution:
        touched = {
            replica: Contribution(self._touched(vector), np.zeros_like(numbers))
            for replica, (vector, numbers) in found.items()
        }
        rows = total(touched, np.empty(self._n_rows, self._dtype)).vector > 0
        places = self._places(rows)
        sent = {
            replica: Contribution(vector[places], numbers) for replica, (vector, numbers) in found.items()
        }
        summed = total(sent, np.empty(len(places), self._dtype))
        n_params = len(self._dense) + sum(prod(variable.shape) for variable in self._tables)
        whole = np.zeros(n_params, self._dtype)
        whole[places] = summed.vector
        return Contribution(whole, summed.numbers)

    def _touched(self, vector: np.ndarray) -> np.ndarray:
        """Return 1 for each row of a table with a gradient, 0 for the others."""
        marks = [variable.view(vector).any(axis=1) for variable in self._tables]
        return np.concatenate(marks).astype(self._dtype)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """Return the places in the vector of what travels, given which rows of tables do."""
        places, first = [self._dense], 0
        for variable in self._tables:
            n, width = variable.shape[0], prod(variable.shape[1:])
            own = np.flatnonzero(rows[first : first + n])
            places.append((variable.begin + own[:, np.newaxis] * width + np.arange(width)).reshape(-1))
            first += n
        return np.concatenate(places)
