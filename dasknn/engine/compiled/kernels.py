"""Compiled steps: many mini-batches in one call that holds no lock.

All arrays are flat, C-contiguous and of the network's dtype, except for those of integers and the sums, so
there is one signature for each dtype. `program` explains the columns. What a call needs beside its arguments
is in buffers, so that nothing is allocated in a step.

    params ──forward──► outputs ──loss──► deltas ──backward──► grad ──update──► params, slots

Loops run over arrays that begin at 0: with other bounds the compiler cannot rule out negative indices, and
makes no vector instructions.
"""

from __future__ import annotations

import math

import numpy as np

from dasknn.engine.compiled.arithmetic import compiled, exp, fill_uniform
from dasknn.engine.compiled.functions import activate, differentiate
from dasknn.engine.compiled.products import dot, multiply, multiply_turned_left, multiply_turned_right
from dasknn.engine.compiled.program import (
    ADAM_STEP,
    AMSGRAD,
    BETA_1,
    BETA_2,
    BIAS,
    CLASSES,
    DENSE,
    DROPOUT,
    EPSILON,
    FROM_LOGITS,
    FUNCTION,
    KERNEL,
    KIND,
    L2,
    LABELS_OF_CLASSES,
    LEAST,
    LOSS,
    MOMENTUM,
    N_INPUTS,
    N_OUTPUTS,
    NESTEROV,
    OUTPUTS,
    OVER_ROWS,
    RELU,
    SLOPE_SCALE,
    SMOOTH_SHARE,
    SMOOTHING,
    SQUARED,
    TO_LOGITS,
    VALUE_SCALE,
)

# --- rows --------------------------------------------------------------------------------------------


@compiled
def _gather(source, width, rows, out):
    """Copy rows of a flat source (n, width) to out."""
    for i in range(rows.size):
        row = source[rows[i] * width : (rows[i] + 1) * width]
        copy = out[i * width : (i + 1) * width]
        for j in range(width):
            copy[j] = row[j]


@compiled
def _part(source, width, rows, begin, n, buffer):
    """Return n rows of a flat source (m, width), from `begin` in their order; sources may be empty."""
    if source.size == 0:
        return source
    if rows.size == 0:
        return source[begin * width : (begin + n) * width]
    part = buffer[: n * width]
    _gather(source, width, rows[begin : begin + n], part)
    return part


# --- forward -----------------------------------------------------------------------------------------


@compiled
def _add_bias(Z, bias, is_relu):
    """Add the bias to rows of Z, flat; and apply relu, in the same pass."""
    zero, width = Z.dtype.type(0), bias.size
    by_row = Z.reshape((Z.size // width, width))
    for i in range(by_row.shape[0]):
        if is_relu:
            for j in range(width):
                z = by_row[i, j] + bias[j]
                by_row[i, j] = z if z > zero else zero
        else:
            for j in range(width):
                by_row[i, j] += bias[j]


@compiled
def _drop(inputs, A, factors, rate, factor, noise):
    """Write inputs times random factors, 0 or `factor`, into A; the factors are kept."""
    fill_uniform(noise, factors)
    zero = A.dtype.type(0)
    for i in range(A.size):
        factors[i] = factor if factors[i] >= rate else zero
        A[i] = inputs[i] * factors[i]


@compiled
def forward(layers, settings, params, X, n, noise, outputs, slopes, capacity):
    """Return the outputs for rows X (n, n_inputs), flat.

    noise: uint64 (5,), the state of random draws; (0,) outside of training, where nothing is dropped.
    """
    inputs = X
    for number in range(layers.shape[0]):
        layer, setting = layers[number], settings[number]
        function, width = layer[FUNCTION], layer[N_OUTPUTS]
        begin = layer[OUTPUTS] * capacity
        A, S = outputs[begin : begin + n * width], slopes[begin : begin + n * width]
        is_done = False
        if layer[KIND] == DENSE:
            kernel = params[layer[KERNEL] : layer[KERNEL] + layer[N_INPUTS] * width]
            multiply(inputs, kernel, A, n, layer[N_INPUTS], width)
            if layer[BIAS] >= 0:
                is_done = function == RELU
                _add_bias(A, params[layer[BIAS] : layer[BIAS] + width], is_done)
        elif layer[KIND] == DROPOUT and noise.size:
            _drop(inputs, A, S, setting[0], setting[1], noise)
        else:
            A[:] = inputs
        if not is_done:
            activate(function, setting, A, width, S)
        inputs = A
    return inputs


# --- loss --------------------------------------------------------------------------------------------


@compiled
def _log_of(p, least, one):
    """Return the log of a probability that is kept some distance from 0 and 1, in float64."""
    return math.log(np.float64(min(max(p, least), one - least)))


@compiled
def _of_classes(loss, scales, P, labels, y, weight, dP):
    """Return the loss of rows of outputs P (n, k), given labels (n,), or targets y (n, k) of all classes."""
    T = P.dtype.type
    one, total, log_of_sum, highest = T(1), T(1), 0.0, T(0)
    keep, add = one - scales[SMOOTHING], scales[SMOOTHING] * scales[SMOOTH_SHARE]
    n, k = P.shape
    found = 0.0
    for i in range(n):
        if loss[FROM_LOGITS]:
            highest, total = P[i, 0], T(0)
            for j in range(k):
                highest = max(highest, P[i, j])
            for j in range(k):
                dP[i, j] = exp(P[i, j] - highest)
                total += dP[i, j]
            log_of_sum = math.log(np.float64(total))
        else:
            for j in range(k):
                dP[i, j] = P[i, j]
        of_row = 0.0
        if loss[LOSS] == LABELS_OF_CLASSES:
            for j in range(k):
                dP[i, j] /= total
            dP[i, labels[i]] -= one
            if loss[FROM_LOGITS]:
                of_row = log_of_sum - np.float64(P[i, labels[i]] - highest)
            else:
                of_row = -_log_of(P[i, labels[i]], scales[LEAST], one)
        else:
            sum_of_y = T(0)
            for j in range(k):
                target = y[i, j] * keep + add
                sum_of_y += target
                if loss[FROM_LOGITS]:
                    of_row -= target * (np.float64(P[i, j] - highest) - log_of_sum)
                elif target != 0:
                    of_row -= target * _log_of(P[i, j], scales[LEAST], one)
            for j in range(k):
                dP[i, j] = dP[i, j] / total * sum_of_y - (y[i, j] * keep + add)
        found += of_row * weight[i] if weight.size else of_row
    return found


@compiled
def _of_numbers(loss, scales, P, y, weight, dP):
    """Return the loss of rows of outputs P (n, k), each output of which has a target y (n, k)."""
    T = P.dtype.type
    one, zero = T(1), T(0)
    keep, add = one - scales[SMOOTHING], scales[SMOOTHING] * scales[SMOOTH_SHARE]
    n, k = P.shape
    found = 0.0
    for i in range(n):
        of_row = 0.0
        for j in range(k):
            target = y[i, j] * keep + add
            p = P[i, j]
            if loss[LOSS] == SQUARED:
                of_row += np.float64((p - target) * (p - target))
            elif loss[FROM_LOGITS]:
                small = exp(-abs(P[i, j]))
                p = (one if P[i, j] >= zero else small) / (one + small)
                of_row += math.log(np.float64(one + small)) + max(P[i, j], zero) - P[i, j] * target
            else:
                if target != zero:
                    of_row -= target * _log_of(p, scales[LEAST], one)
                if target != one:
                    of_row -= (one - target) * _log_of(one - p, scales[LEAST], one)
            dP[i, j] = (p - target) * scales[SLOPE_SCALE]
        found += of_row * weight[i] if weight.size else of_row
    return found * scales[VALUE_SCALE]


@compiled
def loss_and_slopes(loss, scales, P, labels, y, weight, n, k, dP):
    """Return (loss, divisor), summed over rows of P (n, k), flat; write the derivative into dP."""
    outputs, slopes = P.reshape((n, k)), dP.reshape((n, k))
    targets = y.reshape((n if y.size else 0, k))
    if loss[LOSS] == LABELS_OF_CLASSES or loss[LOSS] == CLASSES:
        found = _of_classes(loss, scales, outputs, labels, targets, weight, slopes)
    else:
        found = _of_numbers(loss, scales, outputs, targets, weight, slopes)
    divisor = 0.0
    for i in range(weight.size):
        divisor += weight[i]
        for j in range(k):
            slopes[i, j] *= weight[i]
    if weight.size == 0 or loss[OVER_ROWS]:
        divisor = np.float64(n)
    return found, divisor


# --- backward ----------------------------------------------------------------------------------------


@compiled
def _sum_rows(A, dA, out, is_relu):
    """Sum the rows of dA, flat, into out; and multiply it by the derivative of relu before, in one pass."""
    zero, width = out.dtype.type(0), out.size
    out[:] = zero
    outputs, slopes = A.reshape((A.size // width, width)), dA.reshape((A.size // width, width))
    for i in range(outputs.shape[0]):
        if is_relu:
            for j in range(width):
                d = slopes[i, j] if outputs[i, j] > zero else zero
                slopes[i, j] = d
                out[j] += d
        else:
            for j in range(width):
                out[j] += slopes[i, j]


@compiled
def backward(layers, params, X, n, to_logits, outputs, slopes, deltas, capacity, grad):
    """Write the gradient of all weights, given the derivative by the outputs in the first half of deltas."""
    at, other, last = 0, deltas.size // 2, layers.shape[0] - 1
    for back in range(layers.shape[0]):
        number = last - back
        layer = layers[number]
        width, n_inputs, function = layer[N_OUTPUTS], layer[N_INPUTS], layer[FUNCTION]
        begin = layer[OUTPUTS] * capacity
        A, S = outputs[begin : begin + n * width], slopes[begin : begin + n * width]
        dA = deltas[at : at + n * width]
        d_inputs = deltas[other : other + n * n_inputs]
        is_relu = function == RELU and layer[BIAS] >= 0
        if not (is_relu or (back == 0 and to_logits)):
            differentiate(function, A, S, dA)
        if layer[KIND] == DENSE:
            inputs = X
            if number:
                before = layers[number - 1, OUTPUTS] * capacity
                inputs = outputs[before : before + n * n_inputs]
            if layer[BIAS] >= 0:
                _sum_rows(A, dA, grad[layer[BIAS] : layer[BIAS] + width], is_relu)
            kernel = slice(layer[KERNEL], layer[KERNEL] + n_inputs * width)
            multiply_turned_left(inputs, dA, grad[kernel], n, n_inputs, width)
            if number:
                multiply_turned_right(dA, params[kernel], d_inputs, n, width, n_inputs)
        elif layer[KIND] == DROPOUT:
            for i in range(dA.size):
                d_inputs[i] = dA[i] * S[i]
        else:
            d_inputs[:] = dA
        at, other = other, at


# --- update ------------------------------------------------------------------------------------------


@compiled
def penalize(optimizer, params, grad, n_weights, penalized, penalties, divisor):
    """Return the penalties that are added to a loss which `divisor` divides; add the slopes of some to grad.

    Those of all kernels alike are added by `update`.
    """
    found, zero = 0.0, params.dtype.type(0)
    if optimizer[L2]:
        found += 0.5 * np.float64(optimizer[L2]) * np.float64(dot(params[:n_weights]))
    for i in range(penalized.shape[0]):
        l1, l2 = penalties[i, 0] * divisor, penalties[i, 1] * divisor
        weights = params[penalized[i, 0] : penalized[i, 1]]
        slopes = grad[penalized[i, 0] : penalized[i, 1]]
        absolute, squares = 0.0, 0.0
        for j in range(weights.size):
            w = weights[j]
            absolute += abs(w)
            squares += w * w
            slopes[j] += (l1 if w > zero else (-l1 if w < zero else zero)) + (l2 + l2) * w
        found += l1 * absolute + l2 * squares
    return found


@compiled
def _sgd(optimizer, params, grad, velocity, l2, divisor, rates):
    rate, decay, momentum = rates[0], rates[2], optimizer[MOMENTUM]
    if momentum == 0:
        for i in range(params.size):
            p = params[i]
            params[i] = (p - p * decay) - (grad[i] + l2 * p) / divisor * rate
        return
    is_nesterov = optimizer[NESTEROV] != 0
    for i in range(params.size):
        p = params[i]
        step = (grad[i] + l2 * p) / divisor * rate
        v = velocity[i] * momentum - step
        velocity[i] = v
        params[i] = (p - p * decay) + ((v * momentum - step) if is_nesterov else v)


@compiled
def _adam(optimizer, params, grad, first, second, largest, l2, divisor, rates):
    one, beta_1, beta_2 = params.dtype.type(1), optimizer[BETA_1], optimizer[BETA_2]
    rest_1, rest_2 = one - beta_1, one - beta_2
    epsilon, rate, decay = optimizer[EPSILON], rates[1], rates[2]
    is_amsgrad = largest.size > 0
    for i in range(params.size):
        p = params[i]
        g = (grad[i] + l2 * p) / divisor
        m = first[i] * beta_1 + g * rest_1
        v = second[i] * beta_2 + g * g * rest_2
        first[i], second[i] = m, v
        if is_amsgrad:
            v = max(largest[i], v)
            largest[i] = v
        params[i] = (p - p * decay) - rate * m / (np.sqrt(v) + epsilon)


@compiled
def update(kind, optimizer, params, slots, grad, n_weights, n_learned, weight, rates):
    """Take a step with the gradient that was summed over rows of this weight; rates: see `train_steps`."""
    T = params.dtype.type
    divisor, n = T(weight), params.size
    # Kernels, which have the estimators' penalty, and then the other weights.
    for part in range(2):
        begin, end = (n_weights, n_learned) if part else (0, n_weights)
        l2 = T(0) if part else optimizer[L2]
        p, g = params[begin:end], grad[begin:end]
        if kind == ADAM_STEP:
            first, second = slots[begin:end], slots[n + begin : n + end]
            largest = slots[2 * n + begin : (2 * n + end) if optimizer[AMSGRAD] else 2 * n + begin]
            _adam(optimizer, p, g, first, second, largest, l2, divisor, rates)
        else:
            velocity = slots[begin : end if optimizer[MOMENTUM] else begin]
            _sgd(optimizer, p, g, velocity, l2, divisor, rates)


# --- what is called from Python ----------------------------------------------------------------------


def train_steps(
    network,
    loss_of,
    optimization,
    params,
    slots,
    grad,
    total,
    data,
    rows,
    bounds,
    rates,
    noise,
    buffers,
    seen,
    sums,
):
    """Take a step on each mini-batch, or sum their gradients; return how many batches were taken.

    It stops early after a batch of weight 0, which is no step: the rates and noise of later ones are others.

    Parameters
    ----------
    network : (layers, settings)
    loss_of : (loss, scales)
    optimization : (kind, optimizer, n_weights, n_learned, penalized, penalties)
    params, slots, grad : arrays
        The first two change in place; grad is working space.
    total : (n_params,) or (0,)
        If it has a length, no steps are taken: it grows by the gradients of all batches.
    data : (X, labels, targets, weight)
        All rows; those that the loss does not take are empty.
    rows : int64 (m,)
        Order of the rows; (0,): as they are.
    bounds : int64 (b + 1,)
        Where batches begin and end in this order.
    rates : (b, 3)
        For each step its learning rate, that with Adam's corrections, and the share of weight decay.
    noise : uint64 (b, 5) or (0, 5)
        For each batch the state of its random draws; those of a sum continue from the first.
    buffers : tuple
        See `steps.Buffers`.
    seen : (rows * n_outputs,) or (0,)
        Receives the outputs of all batches.
    sums : float64 (4,)
        Grow by: the mean losses of steps times their rows, or the summed losses; the rows; their weight; the
        steps.
    """
    layers, settings = network
    loss, scales = loss_of
    kind, optimizer, n_weights, n_learned, penalized, penalties = optimization
    X, labels, targets, weight = data
    outputs, slopes, deltas, of_X, of_labels, of_targets, of_weight, capacity = buffers
    n_inputs, k = layers[0, N_INPUTS], layers[layers.shape[0] - 1, N_OUTPUTS]
    for batch in range(bounds.size - 1):
        begin = bounds[batch]
        n = bounds[batch + 1] - begin
        inputs = _part(X, n_inputs, rows, begin, n, of_X)
        draws = noise[0 if total.size else batch] if noise.shape[0] else noise.reshape(-1)
        P = forward(layers, settings, params, inputs, n, draws, outputs, slopes, capacity)
        if seen.size:
            first = (begin - bounds[0]) * k
            seen[first : first + n * k] = P
        loss_sum, divisor = loss_and_slopes(
            loss,
            scales,
            P,
            _part(labels, 1, rows, begin, n, of_labels),
            _part(targets, k, rows, begin, n, of_targets),
            _part(weight, 1, rows, begin, n, of_weight),
            n,
            k,
            deltas[: n * k],
        )
        backward(layers, params, inputs, n, loss[TO_LOGITS] != 0, outputs, slopes, deltas, capacity, grad)
        sums[1] += n
        if total.size:
            for i in range(n_learned):
                total[i] += grad[i]
            sums[0] += loss_sum
            sums[2] += divisor
            continue
        if divisor == 0:
            return batch + 1
        loss_sum += penalize(optimizer, params, grad, n_weights, penalized, penalties, divisor)
        update(kind, optimizer, params, slots, grad, n_weights, n_learned, divisor, rates[batch])
        sums[0] += loss_sum / divisor * n
        sums[2] += divisor
        sums[3] += 1
    return bounds.size - 1


def apply_gradient(optimization, params, slots, grad, weight, rates):
    """Take a step with a gradient that was summed over rows of this weight; return the penalties.

    rates: (3,), as a row of those of `train_steps`. grad is overwritten.
    """
    kind, optimizer, n_weights, n_learned, penalized, penalties = optimization
    penalty = penalize(optimizer, params, grad, n_weights, penalized, penalties, weight)
    update(kind, optimizer, params, slots, grad, n_weights, n_learned, weight, rates)
    return penalty


def predict_rows(network, params, X, buffers, no_noise, out):
    """Write the outputs for all rows X (n, n_inputs), flat, into out (n, n_outputs), flat."""
    layers, settings = network
    outputs, slopes, capacity = buffers
    n_inputs, k = layers[0, N_INPUTS], layers[layers.shape[0] - 1, N_OUTPUTS]
    n_rows = X.size // n_inputs
    for part in range((n_rows + capacity - 1) // capacity):
        begin = part * capacity
        end = min(n_rows, begin + capacity)
        n = end - begin
        rows = X[begin * n_inputs : end * n_inputs]
        out[begin * k : end * k] = forward(
            layers, settings, params, rows, n, no_noise, outputs, slopes, capacity
        )
