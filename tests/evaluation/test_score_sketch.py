"""Tallies of parts are the tally of all rows, and areas from them are right."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.special import expit
from sklearn import metrics as skm

from dasknn.evaluation.score_sketch import (
    CellTally,
    ShareTally,
    average_precision,
    keys_of_numbers,
    keys_of_probabilities,
    roc_auc,
)


def test_numbers_keep_their_order_as_keys():
    numbers = np.array([-np.inf, -1e300, -2.5, -1e-320, -0.0, 0.0, 1e-320, 1.0, np.inf])
    keys = keys_of_numbers(numbers)
    assert_array_equal(np.diff(keys) > 0, np.diff(numbers) > 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), max_size=40), min_size=3, max_size=3), st.integers(2, 20))
def test_tallies_add_up_in_any_order_to_that_of_all_rows(parts, limit):
    a, b, c = (CellTally.of(keys_of_probabilities(np.array(p)), np.ones(len(p)), limit) for p in parts)
    whole = CellTally.of(
        keys_of_probabilities(np.concatenate([np.array(p) for p in parts])),
        np.ones(sum(map(len, parts))),
        limit,
    )
    for tally in ((a + b) + c, a + (b + c), (c + a) + b):
        assert_array_equal(tally.keys, whole.keys)
        assert_array_equal(tally.weights, whole.weights)
        assert len(tally.keys) <= limit


def test_many_distinct_scores_share_cells_with_hardly_any_error():
    rng = np.random.default_rng(0)
    y = rng.random(300_000) < 0.05
    for scores in (expit(rng.normal(size=len(y)) * 3 + 2 * y), 1e-4 * expit(rng.normal(size=len(y)) + y)):
        weights = np.stack([~y, y], axis=1).astype(float)
        parts = [CellTally.of(keys_of_probabilities(scores[i::3]), weights[i::3]) for i in range(3)]
        tally = reduce(add, parts)
        assert len(tally.keys) <= 100_000
        assert roc_auc(tally.weights) == pytest.approx(skm.roc_auc_score(y, scores), abs=1e-6)
        assert average_precision(tally.weights) == pytest.approx(
            skm.average_precision_score(y, scores), abs=2e-4
        )


def test_shares_bound_the_error_of_an_area_where_cells_by_value_do_not():
    # Scattered scores take the cells, and leave few to the many that lie close together.
    rng = np.random.default_rng(0)
    scattered = np.exp(-rng.uniform(0, 700, 100_000))
    is_positive = rng.random(200_000) < 0.3
    close = 0.3 + 1e-12 * (rng.random(200_000) + is_positive)
    scores = np.concatenate([scattered, close])
    is_positive = np.concatenate([np.arange(100_000) % 2 == 0, is_positive])
    exact = skm.roc_auc_score(is_positive, scores)
    weights = np.stack([~is_positive, is_positive], axis=1).astype(float)
    cells = CellTally.of(keys_of_probabilities(scores), weights)
    shares = [ShareTally.of(is_positive[i::4], scores[i::4]) for i in range(4)]
    assert abs(roc_auc(cells.weights) - exact) > 0.01
    assert abs(roc_auc(ShareTally.merged(shares).weights) - exact) < 1e-4


def test_bins_of_shares_are_merged_with_all_of_their_rows():
    rng = np.random.default_rng(0)
    scores, is_positive = rng.random(5_000), rng.random(5_000) < 0.3
    weight = rng.integers(0, 3, 5_000).astype(float)
    parts = [ShareTally.of(is_positive[i::5], scores[i::5], weight[i::5], 50) for i in range(5)]
    merged = reduce(add, parts)
    assert_array_equal(merged.totals, [weight[~is_positive].sum(), weight[is_positive].sum()])
    assert merged.n_rows == np.count_nonzero(weight)
    assert len(merged.keys) <= 100
