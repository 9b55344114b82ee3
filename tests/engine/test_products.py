"""Products of compiled steps against numpy: only the result is written, in the same bits wherever it lies."""

import numpy as np
import pytest
from given_jobs import DTYPES
from numpy.testing import assert_array_equal

from dasknn.engine.compiled import cache, products, tiles

# The first test of a process compiles.
pytestmark = pytest.mark.timeout(600)

# Around tiles of 6 rows, and of 2 to 16 columns.
ROWS, LENGTHS, COLUMNS = (1, 2, 5, 6, 7, 8, 13, 53), (1, 2, 3, 4, 6, 7, 9), range(1, 20)
# On both sides of the limits above which BLAS multiplies.
LARGE = [(128, 128, 127), (128, 128, 128), (128, 128, 129), (128, 256, 128), (129, 257, 131), (700, 784, 10)]
# Numbers before and after each result, which stay: more than a tile holds, with what lies between its rows.
GUARD, MARK = 2048, 12345.0
# Of the sum of absolute products: many times what rounding does.
TOLERANCE = {"float64": 1e-14, "float32": 1e-5}


def matrix(n, m, dtype, seed=0):
    return np.random.default_rng([seed, n, m]).standard_normal((n, m)).astype(dtype)


def product(function, left, right, shape, sizes):
    """Return the product of two matrices, after a look at what lies around it."""
    n = shape[0] * shape[1]
    memory = np.full(n + 2 * GUARD, MARK, left.dtype)
    result = memory[GUARD : GUARD + n]
    result[:] = np.nan
    function(left.ravel(), right.ravel(), result, *sizes)
    assert (memory[:GUARD] == MARK).all(), f"written before the result of {sizes}"
    assert (memory[GUARD + n :] == MARK).all(), f"written after the result of {sizes}"
    return result.reshape(shape)


def multiply(A, B):
    (n, k), m = A.shape, B.shape[1]
    return product(products.multiply, A, B, (n, m), (n, k, m))


def multiply_turned_left(A, B):
    (n, k), m = A.shape, B.shape[1]
    return product(products.multiply_turned_left, A, B, (k, m), (n, k, m))


def multiply_turned_right(A, B):
    (n, m), k = A.shape, B.shape[0]
    return product(products.multiply_turned_right, A, B, (n, k), (n, m, k))


def check(n, k, m, dtype):
    """Fail unless the three products of a layer of k inputs and m outputs, with n rows, are numpy's."""
    X, W, dY = matrix(n, k, dtype), matrix(k, m, dtype, 1), matrix(n, m, dtype, 2)
    for found, left, right in (
        (multiply(X, W), X, W),
        (multiply_turned_left(X, dY), X.T, dY),
        (multiply_turned_right(dY, W), dY, W.T),
    ):
        left, right = left.astype("float64"), right.astype("float64")
        error = np.abs(found - left @ right)
        assert (error <= TOLERANCE[dtype] * (np.abs(left) @ np.abs(right))).all(), (n, k, m)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", ROWS)
def test_products_of_few_rows_and_columns(n, dtype):
    for k in LENGTHS:
        for m in COLUMNS:
            check(n, k, m, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_products(shape, dtype):
    check(*shape, dtype)


def test_large_products_lie_on_both_sides_of_the_limits():
    sizes = [n * k * m for n, k, m in LARGE]
    for limit in (products._SMALL, products._SMALL_TURNED):
        assert min(sizes) < limit < max(sizes)
        assert limit in sizes


@pytest.mark.skipif(not tiles.HAS_FMA, reason="this processor has no fused multiplication: BLAS does it all")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [4, 7, 8, 9, 16, 19, 40])
def test_the_bits_of_a_row_do_not_depend_on_where_it_lies(m, dtype):
    n, k = 53, 9
    X, W, dY = matrix(n, k, dtype), matrix(k, m, dtype, 1), matrix(7, m, dtype, 2)
    whole = multiply(X, W)
    for first, last in ((0, 1), (0, 6), (1, 7), (3, 16), (50, 53), (52, 53)):
        assert_array_equal(multiply(X[first:last], W), whole[first:last])
    assert_array_equal(multiply(X[::-1], W), whole[::-1])
    # Rows of the other product are columns of X.
    left = np.ascontiguousarray(X[:7])
    whole = multiply_turned_left(left, dY)
    for first, last in ((0, 1), (0, 6), (1, 8), (8, 9)):
        assert_array_equal(multiply_turned_left(left[:, first:last], dY), whole[first:last])


@pytest.mark.skipif(not tiles.HAS_FMA, reason="this processor has no fused multiplication: BLAS does it all")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_a_column_do_not_depend_on_the_width(dtype):
    X, W = matrix(13, 9, dtype), matrix(9, 40, dtype, 1)
    whole = multiply(X, W)
    for m in (4, 5, 8, 9, 15, 16, 17, 31, 33):
        assert_array_equal(multiply(X, W[:, :m]), whole[:, :m])


def test_the_name_in_the_cache_changes_with_every_source(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))

    def name():
        return cache.Function(cache.kernels.serve, 7)._with_cache().py_func.__qualname__

    names = []
    cache._digest.cache_clear()
    try:
        for text in ("a = 1", "a = 2"):
            for path in ("kernels.py", "tiles.py"):
                (tmp_path / path).write_text(text)
                names.append(name())
                # A process keeps the name with which it began.
                (tmp_path / path).write_text(text + "0")
                assert name() == names[-1]
                (tmp_path / path).write_text(text)
                cache._digest.cache_clear()
                assert name() == names[-1]
                cache._digest.cache_clear()
    finally:
        cache._digest.cache_clear()
    assert len(set(names)) == 4
