"""Matrix products: small ones by `tiles`, others by the BLAS of SciPy, called with nothing in between.

numba's `np.dot` checks shapes and layouts at each call, and takes half a second to compile at each place.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.linalg import ensure_blas

from dasknn._compat.numba import GEMM
from dasknn.engine.compiled.arithmetic import compiled
from dasknn.engine.compiled.tiles import fits, multiply_small

# Up to so many multiplications, tiles are faster; a transposed left matrix is read in columns.
_SMALL, _SMALL_TURNED = 2**22, 2**21

_CHAR, _INTP = ir.IntType(8), ir.IntType(64)
_POINTER = _CHAR.as_pointer()


@intrinsic
def _gemm(typingctx, turn_a, turn_b, m, n, k, a, lda, b, ldb, c, ldc):
    """c (m, n) = a (m, k) @ b (k, n) in column-major order; turn_a, turn_b: transpose them."""
    kind = {types.float32: b"s", types.float64: b"d"}[c.dtype]
    signature = types.void(turn_a, turn_b, m, n, k, a, lda, b, ldb, c, ldc)

    def codegen(context, builder, signature, args):
        arguments = [
            *[_CHAR] * 3,
            *[_INTP] * 3,
            *[_POINTER, _POINTER, _INTP, _POINTER, _INTP, _POINTER, _POINTER, _INTP],
        ]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(32), arguments), GEMM
        )
        number = context.get_value_type(c.dtype)

        def letter(flag):
            return builder.select(flag, ir.Constant(_CHAR, ord("t")), ir.Constant(_CHAR, ord("n")))

        def slot(value):
            place = cgutils.alloca_once(builder, number)
            builder.store(value, place)
            return builder.bitcast(place, _POINTER)

        def data(position):
            array = context.make_array(signature.args[position])(context, builder, args[position])
            return builder.bitcast(array.data, _POINTER)

        zero, one = ir.Constant(number, 0.0), ir.Constant(number, 1.0)
        builder.call(
            function,
            (
                ir.Constant(_CHAR, ord(kind)),
                letter(args[0]),
                letter(args[1]),
                *args[2:5],
                slot(one),
                data(5),
                args[6],
                data(7),
                args[8],
                slot(zero),
                data(9),
                args[10],
            ),
        )
        return context.get_dummy_value()

    return signature, codegen


# All of these take flat arrays whose matrices are in row-major order, which BLAS reads as their transposes.


@compiled
def multiply(A, B, C, n, k, m):
    """C (n, m) = A (n, k) @ B (k, m)."""
    if m == 1:
        np.dot(A.reshape((n, k)), B, C)
    elif fits(n, k, m, _SMALL, C.itemsize):
        multiply_small(A, k, 1, B, C, n, k, m)
    else:
        _gemm(False, False, m, n, k, B, m, A, k, C, m)


@compiled
def multiply_turned_left(A, B, C, n, k, m):
    """C (k, m) = A.T @ B, for A (n, k) and B (n, m)."""
    if m == 1:
        np.dot(A.reshape((n, k)).T, B, C)
    elif fits(n, k, m, _SMALL_TURNED, C.itemsize):
        multiply_small(A, 1, k, B, C, k, n, m)
    else:
        _gemm(False, True, m, k, n, B, m, A, k, C, m)


@compiled
def multiply_turned_right(A, B, C, n, m, k):
    """C (n, k) = A @ B.T, for A (n, m) and B (k, m)."""
    if m == 1:
        by_row = C.reshape((n, k))
        for i in range(n):
            for j in range(k):
                by_row[i, j] = A[i] * B[j]
    else:
        _gemm(True, False, k, n, m, B, m, A, m, C, k)


@compiled
def dot(a):
    """Return the sum of squares of a (n,)."""
    return np.dot(a, a)


def prepare() -> None:
    """Look for SciPy's BLAS, which a product in compiled code cannot say that it lacks."""
    ensure_blas()
