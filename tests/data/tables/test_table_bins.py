"""Edges of bins: where the rows are, and where the target changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import KBinsDiscretizer, QuantileTransformer

from dasknn.data.tables.bins import greedy_edges, quantile_edges, tree_edges
from dasknn.data.tables.sketch import NumberSketch

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("choose", [greedy_edges, quantile_edges])
@settings(deadline=None, max_examples=80)
@given(
    numbers=st.lists(st.integers(-200, 200), min_size=2, max_size=400).filter(
        lambda some: len(set(some)) > 1
    ),
    n_bins=st.integers(1, 60),
)
def test_edges_ascend_from_end_to_end_and_are_not_too_many(choose, numbers, n_bins):
    edges = choose(NumberSketch.of(np.array(numbers) / 3), n_bins)
    assert np.all(np.diff(edges) > 0)
    assert 2 <= len(edges) <= n_bins + 1
    assert (edges[0], edges[-1]) == (min(numbers) / 3, max(numbers) / 3)


def test_few_distinct_values_are_edges_each():
    numbers = RNG.integers(0, 49, 2000) * 2.0
    assert_array_equal(greedy_edges(NumberSketch.of(numbers), 48), np.arange(49) * 2.0)


def test_greedy_bins_of_numbers_without_repetitions_have_equal_shares():
    numbers = RNG.lognormal(size=4800)
    edges = greedy_edges(NumberSketch.of(numbers), 48)
    assert len(edges) == 49
    counts = np.histogram(numbers, edges)[0]
    assert counts.min() >= 99
    assert counts.max() <= 101


def test_values_of_many_rows_get_edges_of_their_own():
    # As many gains in a census: none for most people, some round sums, and all kinds of others.
    rest = RNG.lognormal(8, 1, 2000)
    numbers = np.concatenate([np.zeros(9000), np.full(600, 5000.0), rest])
    edges = greedy_edges(NumberSketch.of(numbers), 24)
    distinct = np.unique(numbers)
    for heavy in (0.0, 5000.0):
        place = np.searchsorted(distinct, heavy)
        assert set(distinct[max(place - 1, 0) : place + 2]) <= set(edges)
    shares = np.histogram(rest, edges)[0]
    assert shares.max() < 2.5 * len(rest) / (len(edges) - 5)
    # Quantiles see neither the rest nor the second spike.
    assert len(quantile_edges(NumberSketch.of(numbers), 24)) < 9


def test_beside_a_spike_the_rest_of_the_rows_has_equal_shares():
    rest = RNG.uniform(0, 1, 4000)
    edges = greedy_edges(NumberSketch.of(np.concatenate([rest, np.full(6000, 0.5)])), 48)
    assert len(edges) == 49
    shares = np.histogram(rest, edges)[0]
    # But for the neighbors of the spike, which end their bins early.
    assert np.sum(np.abs(shares - 4000 / 45) <= 2) == 44


def test_many_heavy_values_leave_a_quarter_of_the_edges_to_the_rest():
    numbers = np.concatenate([np.repeat(np.arange(0, 200, 10), 500) * 1.0, RNG.uniform(200, 300, 3000)])
    edges = greedy_edges(NumberSketch.of(numbers), 24)
    assert len(edges) <= 25
    assert (edges > 200).sum() >= 4


def test_quantile_bins_are_those_of_scikit_learn():
    numbers = RNG.lognormal(size=(700, 1))
    settings = {"encode": "ordinal", "strategy": "quantile", "quantile_method": "linear"}
    expected = KBinsDiscretizer(16, subsample=None, **settings).fit(numbers).bin_edges_[0]
    assert_allclose(quantile_edges(NumberSketch.of(numbers[:, 0]), 16), expected, rtol=1e-14)


def test_quantiles_that_coincide_are_one_edge():
    numbers = RNG.integers(0, 9, (500, 1)) ** 2.0
    quantiles = QuantileTransformer(n_quantiles=17, subsample=None).fit(numbers).quantiles_
    edges = quantile_edges(NumberSketch.of(numbers[:, 0]), 16)
    assert_allclose(edges, np.unique(quantiles), rtol=1e-14)
    assert len(edges) < 17


def test_trees_split_where_the_target_changes_and_stay_within_the_ends():
    numbers = RNG.random(3000)
    y = np.where(numbers > 0.7, 5.0, np.where(numbers > 0.2, -1.0, 0.0))
    edges = tree_edges(NumberSketch.of(numbers), 48, numbers, y, False)
    assert_allclose(edges[[0, -1]], [numbers.min(), numbers.max()])
    assert_allclose(edges[1:-1], [0.2, 0.7], atol=2e-3)
    assert len(tree_edges(NumberSketch.of(numbers), 2, numbers, y, False)) == 3
    assert len(tree_edges(NumberSketch.of(numbers), 1, numbers, y, False)) == 2


def test_trees_without_known_numbers_or_without_reasons_to_split_have_one_bin():
    numbers = RNG.random(500)
    known = NumberSketch.of(numbers)
    ends = known.values[[0, -1]]
    for some, y in ((np.full(5, np.nan), np.zeros(5)), (numbers, np.zeros(500))):
        assert_array_equal(tree_edges(known, 48, some, y, False), ends)


def test_trees_survive_outliers_beyond_float32():
    numbers = np.concatenate([RNG.random(2000), [1e300, -1e300]])
    edges = tree_edges(NumberSketch.of(numbers), 48, numbers, (numbers > 0.5) * 1.0, False)
    assert np.isfinite(edges).all()
    assert np.abs(edges - 0.5).min() < 2e-3
