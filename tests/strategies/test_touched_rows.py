"""Rows of tables that no mini-batch has touched do not travel, and the sum is that of whole vectors."""

import numpy as np
from numpy.testing import assert_array_equal

from dasknn.engine.network import Network
from dasknn.engine.state import Contribution
from dasknn.estimators.tabular_losses import HalfSquares
from dasknn.layers import ColumnGroups, Dense, Embedding, OneHot
from dasknn.strategies.touched_rows import TouchedRows

N_CODES, DIM = 3000, 4


def network(n_codes=N_CODES):
    groups = ((1, Embedding(n_codes, DIM)), (1, OneHot((4,))), (1, Embedding(5, 2)))
    return Network(3, (ColumnGroups(groups), Dense(1)), HalfSquares(), "float32")


def contributions(net, touched):
    """Contributions of replicas: random but for the large table, in which some rows are touched."""
    rng = np.random.default_rng(0)
    table = max(net.variables, key=lambda variable: variable.shape[0])
    found = {}
    for replica, rows in touched.items():
        vector = rng.standard_normal(net.n_params).astype(net.dtype)
        view = table.view(vector)
        kept = view[rows].copy()
        view[...] = 0
        view[rows] = kept
        found[replica] = Contribution(vector, np.arange(4.0) + replica)
    return found


def test_the_sum_is_that_of_whole_vectors_and_few_numbers_travel():
    net, lengths = network(), []

    def total(parts, like):
        lengths.append(len(like))
        assert all(
            len(part.vector) == len(like) and part.vector.dtype == like.dtype for part in parts.values()
        )
        return Contribution(
            sum(part.vector for part in parts.values()), sum(part.numbers for part in parts.values())
        )

    found = contributions(net, {0: [1, 7, 2999], 1: [7, 8], 3: []})
    expected = total({r: Contribution(p.vector.copy(), p.numbers) for r, p in found.items()}, found[0].vector)
    lengths.clear()
    summed = TouchedRows(net).total(found, 0, total)
    assert_array_equal(summed.vector, expected.vector)
    assert_array_equal(summed.numbers, expected.numbers)
    # One number for each row of the table; then the four rows, and everything else.
    assert lengths == [N_CODES, net.n_params - (N_CODES - 4) * DIM]


def test_small_tables_travel_whole():
    assert TouchedRows(network()).is_useful
    assert not TouchedRows(network(n_codes=100)).is_useful
