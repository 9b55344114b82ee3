"""The arithmetic of compiled steps: exponentials near those of numpy, and numpy's own random numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import special

from dasknn.engine.compiled import arithmetic
from dasknn.engine.compiled.arithmetic import compiled
from dasknn.engine.compiled.steps import _state_of
from dasknn.seeds import Stream, generator

pytestmark = pytest.mark.timeout(600)
DTYPES = (np.float64, np.float32)


@compiled
def _all_of(X, of_exp, of_expm1, of_tanh, of_expit):
    for i in range(X.size):
        of_exp[i] = arithmetic.exp(X[i])
        of_expm1[i] = arithmetic.expm1(X[i])
        of_tanh[i] = arithmetic.tanh(X[i])
        of_expit[i] = arithmetic.expit(X[i])


@compiled
def _fill(state, out):
    arithmetic.fill_uniform(state, out)


def ours(X):
    found = [np.empty_like(X) for _ in range(4)]
    _all_of(X, *found)
    return dict(zip(("exp", "expm1", "tanh", "expit"), found, strict=True))


def exact(X):
    wide = X.astype(np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        return {
            "exp": np.exp(wide),
            "expm1": np.expm1(wide),
            "tanh": np.tanh(wide),
            "expit": 1 / (1 + np.exp(-wide)),
        }


def grid(dtype):
    """Numbers of all sizes that exponentials do not turn into 0 or infinity."""
    rng = np.random.default_rng(0)
    most = 700 if dtype == np.float64 else 86
    small = 10.0 ** rng.uniform(-30, 0, 20_000) * rng.choice([-1, 1], 20_000)
    return np.concatenate([rng.uniform(-most, most, 20_000), rng.uniform(-3, 3, 20_000), small]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "expm1", "tanh", "expit"])
def test_exponentials_are_right_to_the_last_places(name, dtype):
    X = grid(dtype)
    found, expected = ours(X)[name], exact(X)[name]
    assert found.dtype == dtype
    last_place = np.spacing(np.abs(expected).astype(dtype)).astype(np.longdouble)
    # Numbers with fewer digits count as 0.
    smallest = np.finfo(dtype).tiny
    is_normal = np.abs(expected) > 2 * smallest
    assert (np.abs(found - expected) / last_place)[is_normal].max() < 2.5
    assert np.abs(found[~is_normal]).max(initial=0) <= 2 * smallest + np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_near_the_largest_number(dtype):
    most = np.log(np.finfo(dtype).max).astype(dtype)
    X = np.linspace(most - 1, most - most * np.finfo(dtype).eps, 1000).astype(dtype)
    np.testing.assert_allclose(ours(X)["exp"], exact(X)["exp"].astype(dtype), rtol=2e-7)
    X = np.array([most + 1, 1e4, 1e30], dtype)
    assert_array_equal(ours(X)["exp"], [np.inf] * 3)
    assert_array_equal(ours(-X)["exp"], [0] * 3)
    assert_array_equal(ours(X)["expit"], [1] * 3)
    assert_array_equal(ours(X)["tanh"], [1] * 3)
    assert_array_equal(ours(-X)["tanh"], [-1] * 3)
    assert_array_equal(ours(-X)["expm1"], [-1] * 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_of_what_is_no_number_and_of_0(dtype):
    found = ours(np.array([np.inf, -np.inf, 0.0, -0.0, np.nan], dtype))
    # The exponential less 1 is limited: only that of negative numbers is used.
    assert found["expm1"][0] > 1e37
    found["expm1"][0] = np.inf
    expected = {
        "exp": [np.inf, 0, 1, 1, np.nan],
        "expm1": [np.inf, -1, 0, 0, np.nan],
        "tanh": [1, -1, 0, 0, np.nan],
        "expit": [1, 0, 0.5, 0.5, np.nan],
    }
    for name, values in expected.items():
        assert_array_equal(found[name], np.array(values, dtype), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_exponentials_of_any_numbers_are_near_those_of_numpy(dtype, numbers):
    X = np.array(numbers, dtype)
    found = ours(X)
    with np.errstate(all="ignore"):
        expected = {"exp": np.exp(X), "tanh": np.tanh(X), "expit": special.expit(X)}
        for name, values in expected.items():
            tolerance = 1e-6 if dtype == np.float32 else 1e-14
            np.testing.assert_allclose(found[name], values, tolerance, np.finfo(dtype).tiny * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_what_is_computed_at_once(dtype):
    X = np.random.default_rng(0).normal(0, 3, 1001).astype(dtype)
    whole = ours(X)
    for begin, end in ((0, 1), (1, 4), (4, 11), (11, 12), (3, 500), (998, 1001)):
        for name, values in ours(X[begin:end].copy()).items():
            assert_array_equal(values, whole[name][begin:end])


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**64), sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_random_numbers_are_those_of_numpy_draw_after_draw(dtype, seed, sizes):
    rng = np.random.default_rng(seed)
    state = np.array(_state_of(rng), np.uint64)
    # Of float32, odd numbers of them leave half of the bits for the next draw.
    for size in sizes:
        out = np.empty(size, dtype)
        _fill(state, out)
        assert_array_equal(out, rng.random(size, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_random_numbers_of_a_training_are_those_of_numpy(dtype):
    rng = generator(3, Stream.NOISE, 17, 2, 64)
    state, out = np.array(_state_of(rng), np.uint64), np.empty(100_001, dtype)
    for _ in range(2):
        _fill(state, out)
        assert_array_equal(out, rng.random(len(out), dtype))
