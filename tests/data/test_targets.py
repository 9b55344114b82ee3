"""Targets that are standardized: parts add up to the whole, and predictions come back as numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dasknn.data.targets import SpreadSummary, StandardEncoder

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def rows(n_outputs=1, n=50, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(1e6, 3.0, (n, n_outputs)) * np.arange(1, n_outputs + 1)
    return y[:, 0] if n_outputs == 1 else y


def merged(y, weight, cuts):
    parts = zip(np.split(y, cuts), [None] * 99 if weight is None else np.split(weight, cuts), strict=False)
    first, *others = (SpreadSummary.of(*part) for part in parts)
    return sum(others, first)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cuts", [[25], [1, 2, 49], [0, 10, 10, 50]], ids=str)
def test_a_sum_of_summaries_is_that_of_the_whole(n_outputs, weighted, cuts):
    y = rows(n_outputs)
    weight = np.random.default_rng(1).choice([0, 0.5, 2], 50) if weighted else None
    whole, found = SpreadSummary.of(y, weight), merged(y, weight, cuts)
    for name in ("weight", "total", "mean", "m2", "lowest", "highest"):
        assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-10, err_msg=name)
    assert found.n_rows == 50


@given(y=NUMBERS, data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_spread_of_any_numbers_is_that_of_numpy(y, data):
    cut = data.draw(st.integers(0, len(y)))
    y = np.array(y)
    found = merged(y, None, [cut])
    assert_allclose(found.mean, [y.mean()], rtol=1e-9, atol=1e-6)
    assert_allclose(np.sqrt(found.m2 / found.weight), [y.std()], rtol=1e-6, atol=1e-6)
    assert (found.lowest, found.highest) == (y.min(), y.max())


def test_rows_of_weight_0_do_not_count():
    y, weight = rows(), np.ones(50)
    y[:5], weight[:5] = 1e9, 0
    found, expected = SpreadSummary.of(y, weight), SpreadSummary.of(y[5:])
    for name in ("mean", "m2", "lowest", "highest"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    nothing = SpreadSummary.of(y[:5], weight[:5])
    assert_allclose((nothing + found).mean, expected.mean)
    assert_allclose((found + nothing).m2, expected.m2)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets_that_are_encoded_are_decoded_to_themselves(n_outputs, dtype):
    y = rows(n_outputs)
    encoder = SpreadSummary.of(y).encoder(dtype)
    encoded = encoder.encode(y)
    assert encoded.dtype == dtype
    assert encoded.shape == (50, n_outputs)
    assert_allclose(encoded.mean(axis=0), 0, atol=1e-5)
    assert_allclose(encoded.std(axis=0), 1, rtol=1e-5)
    # Standardized in double precision: a large mean costs no digits.
    assert_allclose(encoder.decode(encoded), y, rtol=1e-12 if dtype == "float64" else 1e-9)


def test_predictions_stay_within_the_range_of_the_targets():
    encoder = SpreadSummary.of(np.array([1.0, 2.0, 5.0])).encoder("float64")
    assert_array_equal(encoder.decode(np.array([[-100.0], [100.0]])), [1, 5])


def test_a_constant_target_is_predicted():
    encoder = SpreadSummary.of(np.full(4, 7.0)).encoder("float32")
    assert_array_equal(encoder.encode(np.full(4, 7.0)), np.zeros((4, 1)))
    assert_array_equal(encoder.decode(np.array([[0.3]], "float32")), [7])


def test_quantiles_come_in_order_and_the_prediction_is_the_one_nearest_to_the_median():
    encoder = StandardEncoder(1, "float64", (10.0,), (2.0,), (0.0,), (20.0,), levels=(0.1, 0.6, 0.9))
    outputs = np.array([[1.0, 0.0, 2.0], [-9.0, 0.0, 9.0]])
    assert_array_equal(encoder.numbers(outputs), [[10, 12, 14], [0, 10, 20]])
    assert_array_equal(encoder.decode(outputs), [12, 10])
    assert encoder.place_of_median == 1


def test_targets_with_other_columns_raise():
    encoder = SpreadSummary.of(rows(2)).encoder("float64")
    with pytest.raises(ValueError, match="y with 2 columns, received 3"):
        encoder.encode(rows(3))
