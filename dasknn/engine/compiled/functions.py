"""Compiled activation functions: the values and slopes of `dasknn.activations`.

`activate` turns logits into outputs and, for functions whose derivative is not computed from the outputs,
writes slopes; `differentiate` multiplies by the derivative. Only what is compiled imports this module.

Constants are made in the dtype of the array: one of float64 would make all that follows float64.
"""

from __future__ import annotations

import math

import numpy as np

from dasknn.engine.compiled.arithmetic import compiled, exp, expit, expm1, tanh
from dasknn.engine.compiled.program import (
    CLIPPED_RELU,
    ELU,
    EXP,
    GELU,
    HARD_SHRINK,
    HARD_SIGMOID,
    HARD_SILU,
    HARD_TANH,
    IDENTITY,
    LOG_SIGMOID,
    LOGISTIC,
    MISH,
    RELU,
    SILU,
    SOFT_SHRINK,
    SOFTMAX,
    SOFTPLUS,
    SOFTSIGN,
    SPARSE_PLUS,
    SPARSE_SIGMOID,
    SQUAREPLUS,
    TANH,
    TANH_SHRINK,
)


@compiled
def _seldom_used(function, Z, slopes):
    """Turn Z (n,) into values, and write slopes (n,), of functions without settings."""
    T = Z.dtype.type
    zero, half, one, three, six = T(0), T(0.5), T(1), T(3), T(6)
    for i in range(Z.size):
        z = Z[i]
        value, slope = z, one
        if function == SOFTPLUS:
            value = max(z, zero) + T(math.log1p(exp(-abs(z))))
            slope = expit(z)
        elif function == LOG_SIGMOID:
            value = min(z, zero) - T(math.log1p(exp(-abs(z))))
            slope = expit(-z)
        elif function == MISH:
            share = tanh(max(z, zero) + T(math.log1p(exp(-abs(z)))))
            value = z * share
            slope = share + z * (one - share * share) * expit(z)
        elif function == GELU:
            # By erfc: 1 + erf would lose all digits where z is negative.
            share = half * T(math.erfc(-z * T(0.7071067811865476)))
            value = z * share
            slope = share + z * (T(0.3989422804014327) * exp(-half * z * z))
        elif function == SOFTSIGN:
            share = one / (one + abs(z))
            value, slope = z * share, share * share
        elif function == HARD_SIGMOID:
            value = min(max(z / six + half, zero), one)
            slope = one / six if abs(z) < three else zero
        elif function == HARD_SILU:
            value = z * min(max(z / six + half, zero), one)
            outside = one if z > zero else zero
            slope = z / three + half if abs(z) < three else outside
        elif function == TANH_SHRINK:
            share = tanh(z)
            value, slope = z - share, share * share
        elif function == HARD_TANH:
            value, slope = min(max(z, -one), one), one if abs(z) < one else zero
        elif function == SOFT_SHRINK:
            value, slope = z - min(max(z, -half), half), one if abs(z) > half else zero
        elif function == HARD_SHRINK:
            slope = one if abs(z) > half else zero
            value = z if abs(z) > half else zero
        elif function == SQUAREPLUS:
            root = np.sqrt(z * z + T(4))
            value, slope = half * (z + root), half * (one + z / root)
        elif function == SPARSE_PLUS:
            raised = max(z, -one) + one
            value = raised * raised * T(0.25) if z < one else z
            slope = min(max(z * half + half, zero), one)
        elif function == SPARSE_SIGMOID:
            value = min(max(z * half + half, zero), one)
            slope = half if abs(z) < one else zero
        Z[i], slopes[i] = value, slope


@compiled
def activate(function, settings, Z, width, slopes):
    """Turn rows of logits Z, flat, into outputs; slopes: as Z, working space for `differentiate`."""
    T = Z.dtype.type
    zero, one = T(0), T(1)
    first, second, third = settings[0], settings[1], settings[2]
    # A loop of its own becomes vector instructions, but each of them takes time to compile.
    if function == RELU:
        for i in range(Z.size):
            Z[i] = zero if Z[i] < zero else Z[i]
    elif function == TANH:
        for i in range(Z.size):
            Z[i] = tanh(Z[i])
    elif function == LOGISTIC:
        for i in range(Z.size):
            Z[i] = expit(Z[i])
    elif function == EXP:
        for i in range(Z.size):
            Z[i] = exp(Z[i])
    elif function == CLIPPED_RELU:
        # Its settings are the highest value, the slope below the threshold, and that.
        for i in range(Z.size):
            z = Z[i]
            slopes[i] = (one if z < first else zero) if z > third else second
            Z[i] = min(z, first) if z > third else second * (z - third)
    elif function == ELU:
        # Its settings are scale and alpha.
        for i in range(Z.size):
            z = Z[i]
            fall = second * expm1(min(z, zero))
            slopes[i] = first * (one if z > zero else fall + second)
            Z[i] = first * (z if z > zero else fall)
    elif function == SILU:
        for i in range(Z.size):
            z = Z[i]
            share = expit(z)
            slopes[i] = share * (one + z * (one - share))
            Z[i] = z * share
    elif function == SOFTMAX:
        by_row = Z.reshape((Z.size // width, width))
        for i in range(by_row.shape[0]):
            highest = by_row[i, 0]
            for j in range(width):
                highest = max(highest, by_row[i, j])
            for j in range(width):
                by_row[i, j] -= highest
        for i in range(Z.size):
            Z[i] = exp(Z[i])
        for i in range(by_row.shape[0]):
            total = zero
            for j in range(width):
                total += by_row[i, j]
            for j in range(width):
                by_row[i, j] /= total
    elif function != IDENTITY:
        _seldom_used(function, Z, slopes)


@compiled
def differentiate(function, A, slopes, dA):
    """Multiply dA (n,) by the derivative, given the outputs A (n,) and what `activate` wrote."""
    zero, one = A.dtype.type(0), A.dtype.type(1)
    if function == IDENTITY:
        return
    if function == RELU:
        for i in range(A.size):
            dA[i] = zero if A[i] <= zero else dA[i]
    elif function == TANH:
        for i in range(A.size):
            dA[i] *= one - A[i] * A[i]
    elif function == LOGISTIC:
        for i in range(A.size):
            dA[i] *= A[i] * (one - A[i])
    elif function == EXP:
        for i in range(A.size):
            dA[i] *= A[i]
    else:
        for i in range(A.size):
            dA[i] *= slopes[i]
