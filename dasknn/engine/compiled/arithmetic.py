"""Exponentials that compile to vector instructions, and random numbers that are numpy's.

The system's `exp` takes one number at a time. These functions use additions, multiplications and shifts
alone, so the compiler works on several numbers at once, and every processor computes the same bits.

Only what is compiled imports this module: it needs numba.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Options of every compiled function: no lock is held, division by zero gives infinity as in numpy, and no
# operations are reordered, since that would let bits depend on the width of vectors.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
compiled: Any = njit(**OPTIONS)
# Becomes a part of what calls it: a large function would be optimized twice.
inlined: Any = njit(inline="always", **OPTIONS)

# log(2), in two parts whose multiples are exact, and the numbers that round to integers when added.
_LOG2E = 1.4426950408889634
_LN2_HIGH_64, _LN2_LOW_64 = 0.693147180369123816490, 1.90821492927058770002e-10
_LN2_HIGH_32, _LN2_LOW_32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND_64, _ROUND_32 = 6755399441055744.0, np.float32(12582912.0)
# Above these, e**x is no number.
_MOST_64, _MOST_32 = math.log(np.finfo(np.float64).max), np.float32(88.72283)
# Taylor's coefficients of exp(r) - 1 - r: r is at most log(2) / 2.
_C64 = tuple(1 / math.factorial(k) for k in range(14, 1, -1))
_C32 = tuple(np.float32(1 / math.factorial(k)) for k in range(8, 1, -1))


@compiled
def _power_of_2_64(n):
    return np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64)


@compiled
def _power_of_2_32(n):
    return np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def _reduced_64(x):
    """Return (r, exp(r) - 1 - r, n) with x = r + n log(2), for x from -708 to _MOST_64."""
    n = (x * _LOG2E + _ROUND_64) - _ROUND_64
    r = (x - n * _LN2_HIGH_64) - n * _LN2_LOW_64
    q = _C64[0]
    q = q * r + _C64[1]
    q = q * r + _C64[2]
    q = q * r + _C64[3]
    q = q * r + _C64[4]
    q = q * r + _C64[5]
    q = q * r + _C64[6]
    q = q * r + _C64[7]
    q = q * r + _C64[8]
    q = q * r + _C64[9]
    q = q * r + _C64[10]
    q = q * r + _C64[11]
    q = q * r + _C64[12]
    return r, q * r * r, n


@compiled
def _reduced_32(x):
    """Do as `_reduced_64`, for x from -87 to _MOST_32."""
    n = (x * np.float32(_LOG2E) + _ROUND_32) - _ROUND_32
    r = (x - n * _LN2_HIGH_32) - n * _LN2_LOW_32
    q = _C32[0]
    q = q * r + _C32[1]
    q = q * r + _C32[2]
    q = q * r + _C32[3]
    q = q * r + _C32[4]
    q = q * r + _C32[5]
    q = q * r + _C32[6]
    return r, q * r * r, n


@compiled
def _exp_64(x):
    clipped = min(max(x, -708.0), _MOST_64)
    r, rest, n = _reduced_64(clipped)
    # Two factors: 2**1024 is not a number.
    half = (n * 0.5 + _ROUND_64) - _ROUND_64
    found = (1.0 + (r + rest)) * _power_of_2_64(half) * _power_of_2_64(n - half)
    found = 0.0 if x < -708.0 else found
    found = math.inf if x > _MOST_64 else found
    return found if x == x else x


@compiled
def _exp_32(x):
    one = np.float32(1.0)
    clipped = min(max(x, np.float32(-87.0)), _MOST_32)
    r, rest, n = _reduced_32(clipped)
    half = (n * np.float32(0.5) + _ROUND_32) - _ROUND_32
    found = (one + (r + rest)) * _power_of_2_32(half) * _power_of_2_32(n - half)
    found = np.float32(0.0) if x < np.float32(-87.0) else found
    found = np.float32(math.inf) if x > _MOST_32 else found
    return found if x == x else x


@compiled
def _expm1_64(x):
    r, rest, n = _reduced_64(min(max(x, -50.0), 700.0))
    power = _power_of_2_64(n)
    found = power * (r + rest) + (power - 1.0)
    return found if x == x else x


@compiled
def _expm1_32(x):
    r, rest, n = _reduced_32(min(max(x, np.float32(-30.0)), np.float32(87.0)))
    power = _power_of_2_32(n)
    found = power * (r + rest) + (power - np.float32(1.0))
    return found if x == x else x


def exp(x):
    """Return e**x of a float32 or float64."""


def expm1(x):
    """Return e**x - 1 of a float32 or float64; exact near 0, and limited for large x."""


def tanh(x):
    """Return the hyperbolic tangent of a float32 or float64."""


def expit(x):
    """Return 1 / (1 + e**-x) of a float32 or float64."""


@overload(exp, jit_options=OPTIONS)
def _of_exp(x):
    if x == types.float32:
        return lambda x: _exp_32(x)
    return lambda x: _exp_64(x)


@overload(expm1, jit_options=OPTIONS)
def _of_expm1(x):
    if x == types.float32:
        return lambda x: _expm1_32(x)
    return lambda x: _expm1_64(x)


@overload(tanh, jit_options=OPTIONS)
def _of_tanh(x):
    number = np.float32 if x == types.float32 else np.float64
    two, most = number(2), number(10 if x == types.float32 else 20)

    def of(x):
        rise = expm1(two * min(abs(x), most))
        found = rise / (rise + two)
        found = -found if x < 0 else found
        return found if x == x else x

    return of


@overload(expit, jit_options=OPTIONS)
def _of_expit(x):
    number = np.float32 if x == types.float32 else np.float64
    one = number(1)

    def of(x):
        return one / (one + exp(-x))

    return of


# --- PCG64, numpy's default generator ----------------------------------------------------------------

_WIDE, _NARROW = ir.IntType(128), ir.IntType(64)
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645


@intrinsic
def _next_state(typingctx, high, low, increment_high, increment_low):
    """Return (high, low) of state * multiplier + increment, all of 128 bits."""
    signature = types.UniTuple(types.uint64, 2)(types.uint64, types.uint64, types.uint64, types.uint64)

    def codegen(context, builder, signature, args):
        def wide(high, low):
            shifted = builder.shl(builder.zext(high, _WIDE), ir.Constant(_WIDE, 64))
            return builder.or_(shifted, builder.zext(low, _WIDE))

        state = builder.mul(wide(args[0], args[1]), ir.Constant(_WIDE, _MULTIPLIER))
        state = builder.add(state, wide(args[2], args[3]))
        high = builder.trunc(builder.lshr(state, ir.Constant(_WIDE, 64)), _NARROW)
        return cgutils.pack_array(builder, [high, builder.trunc(state, _NARROW)])

    return signature, codegen


@compiled
def next_uint64(state):
    """Return 64 random bits; state: uint64 (5,), the state and increment of PCG64, then 32 bits left over."""
    state[0], state[1] = _next_state(state[0], state[1], state[2], state[3])
    mixed = state[0] ^ state[1]
    turn = state[0] >> np.uint64(58)
    return (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))


@compiled
def _next_uint32(state):
    # As numpy does, half of the bits are kept for the next call; the highest bit tells whether there are any.
    kept = state[4]
    if kept >> np.uint64(63):
        state[4] = np.uint64(0)
        return kept & np.uint64(0xFFFFFFFF)
    found = next_uint64(state)
    state[4] = (found >> np.uint64(32)) | np.uint64(1 << 63)
    return found & np.uint64(0xFFFFFFFF)


def fill_uniform(state, out):
    """Fill out (n,) with numbers in [0, 1), as `numpy.random.Generator.random` does."""


@overload(fill_uniform, jit_options=OPTIONS)
def _of_fill_uniform(state, out):
    if out.dtype == types.float32:

        def fill(state, out):
            for i in range(out.size):
                out[i] = np.float32(_next_uint32(state) >> np.uint64(8)) * np.float32(1 / 16777216)
    else:

        def fill(state, out):
            for i in range(out.size):
                out[i] = np.float64(next_uint64(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)

    return fill
