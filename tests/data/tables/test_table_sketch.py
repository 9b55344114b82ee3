"""A sketch of numbers has numpy's quantiles, exactly for few distinct values, nearly for many."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dasknn.data.tables import sketch
from dasknn.data.tables.sketch import NumberSketch

SHARES = np.linspace(0, 1, 49)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


def in_parts(numbers, n_parts):
    """The sum of the sketches of parts of the numbers."""
    return reduce(add, map(NumberSketch.of, np.array_split(numbers, n_parts)))


@pytest.mark.parametrize("n_parts", [1, 3, 7])
@pytest.mark.parametrize("draw", ["normal", "integers", "spike", "constant"])
def test_quantiles_are_those_of_numpy_to_the_last_bit(n_parts, draw):
    rng = np.random.default_rng(0)
    numbers = {
        "normal": rng.normal(1e6, 3, 997),
        "integers": rng.integers(0, 20, 1000) * 1.0,
        "spike": np.where(rng.random(1000) < 0.9, 0, rng.normal(size=1000)),
        "constant": np.full(10, 0.1),
    }[draw]
    found = in_parts(numbers, n_parts)
    assert_array_equal(found.quantiles(SHARES), np.quantile(numbers, SHARES))
    assert found.n_rows == len(numbers)


@settings(deadline=None, max_examples=60)
@given(st.lists(FINITE, min_size=1, max_size=40), st.integers(1, 5))
def test_quantiles_of_any_numbers_are_finite_and_ascending(numbers, n_parts):
    found = in_parts(np.array(numbers), n_parts)
    quantiles = found.quantiles(SHARES)
    assert np.isfinite(quantiles).all()
    assert quantiles[0] == min(numbers)
    assert quantiles[-1] == max(numbers)
    center, scale = found.center_and_scale()
    assert np.isfinite([center, scale]).all()
    assert scale > 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-3, 3), max_size=40), st.integers(1, 5))
def test_a_sum_of_parts_is_the_sketch_of_the_whole(numbers, n_parts):
    numbers = np.array(numbers, dtype=np.float64) * -0.1
    whole, parts = NumberSketch.of(numbers), in_parts(numbers, n_parts)
    assert whole.values.tobytes() == parts.values.tobytes()
    assert_array_equal(whole.weights, parts.weights)


def test_the_scale_is_that_of_the_quartiles_or_of_the_range_if_they_coincide():
    numbers = np.random.default_rng(0).normal(size=500)
    low, high = np.quantile(numbers, [0.25, 0.75])
    assert NumberSketch.of(numbers).center_and_scale() == (np.median(numbers), 1 / (high - low))
    spike = np.array([0.0] * 90 + [5.0, 8.0] * 5)
    assert NumberSketch.of(spike).center_and_scale() == (0.0, 2 / 8)


@pytest.fixture
def small(monkeypatch):
    """Sketches that are compressed early."""
    monkeypatch.setattr(sketch, "MOST_VALUES", 1_000)
    monkeypatch.setattr(sketch, "_GROUPS", 200)


@pytest.mark.parametrize("n_parts", [1, 3, 16])
def test_a_compressed_sketch_keeps_its_ends_its_heavy_values_and_its_rows(small, n_parts):
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.lognormal(size=20_000), np.full(3000, 1.5), np.full(900, 0.25)])
    rng.shuffle(numbers)
    found = in_parts(numbers, n_parts)
    assert len(found.values) <= 1_000
    assert found.n_rows == len(numbers)
    assert set(found.values) <= set(numbers)
    assert found.values[[0, -1]].tolist() == [numbers.min(), numbers.max()]
    for heavy, n in ((1.5, 3000), (0.25, 900)):
        assert found.weights[found.values == heavy] == n


@pytest.mark.parametrize("n_parts", [1, 3, 16])
def test_compression_moves_ranks_by_a_group_for_each_level(small, n_parts):
    numbers = np.random.default_rng(0).lognormal(size=40_000)
    levels = [NumberSketch.of(part) for part in np.array_split(numbers, n_parts)]
    n_levels = 1
    while len(levels) > 1:
        levels = [reduce(add, levels[i : i + 2]) for i in range(0, len(levels), 2)]
        n_levels += 1
    ranks = np.searchsorted(np.sort(numbers), levels[0].quantiles(SHARES)) / len(numbers)
    assert np.abs(ranks - SHARES).max() < n_levels / 200


def test_a_sketch_of_default_size_is_exact_up_to_its_limit_and_small_beyond():
    rng = np.random.default_rng(0)
    exact = rng.permutation(sketch.MOST_VALUES) * 1.0
    assert len(NumberSketch.of(exact).values) == sketch.MOST_VALUES
    found = in_parts(rng.normal(size=50_000), 2)
    assert 2_048 <= len(found.values) <= 6_200


def test_zero_and_negative_zero_are_one_value():
    for numbers in ([0.0, -0.0, 1.0], [-0.0, 0.0, 1.0]):
        assert NumberSketch.of(np.array(numbers)).values.tobytes() == np.array([0.0, 1.0]).tobytes()


def test_differences_from_an_origin_stay_distinct_and_keep_all_rows():
    near = np.array([1.0, np.nextafter(1.0, 2), 5.0])
    found = NumberSketch.of(near).less(-1e6)
    assert_array_equal(found.values, np.unique(near + 1e6))
    assert found.n_rows == 3
