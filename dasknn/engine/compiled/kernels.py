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
from numba import carray

from dasknn.engine.compiled.arithmetic import compiled, exp, fill_uniform, inlined
from dasknn.engine.compiled.functions import activate, differentiate
from dasknn.engine.compiled.products import dot, multiply, multiply_turned_left, multiply_turned_right
from dasknn.engine.compiled.program import (
    ADAM_STEP,
    AMSGRAD,
    BETA_1,
    BETA_2,
    BIAS,
    BOUNDS_AT,
    CLASSES,
    DENSE,
    DROPOUT,
    EPSILON,
    FROM_LOGITS,
    FUNCTION,
    IS_FIRST,
    KERNEL,
    KIND,
    L2,
    LABELS_AT,
    LABELS_OF_CLASSES,
    LABELS_SIZE,
    LEAST,
    LOSS,
    LOSS_SUM,
    MOMENTUM,
    N_BATCHES,
    N_INPUTS,
    N_NOISE,
    N_OUTPUTS,
    N_STEPS,
    N_TAKEN,
    NESTEROV,
    NOISE_AT,
    ORDER_AT,
    ORDER_SIZE,
    OUTPUTS,
    OVER_ROWS,
    PARAMS_AT,
    PREDICTIONS,
    RATES_AT,
    RELU,
    REST_1,
    REST_2,
    ROWS,
    SEEN_AT,
    SLOPE_SCALE,
    SLOTS_AT,
    SMOOTH_SHARE,
    SMOOTHING,
    SQUARED,
    STEPS,
    SUM,
    TARGETS_AT,
    TARGETS_SIZE,
    TO_LOGITS,
    TOTAL_AT,
    VALUE_SCALE,
    WEIGHT,
    WEIGHT_AT,
    WEIGHT_SIZE,
    WHAT,
    X_AT,
    X_SIZE,
)
from dasknn.engine.compiled.signals import load, pointer, store, wait_for, wait_until_other

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
                # A number that is not one is not less than 0, and stays.
                by_row[i, j] = zero if z < zero else z
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
                d = zero if outputs[i, j] <= zero else slopes[i, j]
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
    beta_1, beta_2 = optimizer[BETA_1], optimizer[BETA_2]
    rest_1, rest_2 = optimizer[REST_1], optimizer[REST_2]
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
    """Take a step with the gradient summed over rows of this weight; rates: see `program.rates_of`."""
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


# --- mini-batches ------------------------------------------------------------------------------------


@inlined
def _answer(request, sums, network, loss_of, optimization, grad, buffers):
    """Do what a request says, batch by batch; return how many batches were taken.

    Steps end early after a batch of weight 0, which is no step: rates and noise of later ones are others.
    """
    layers, settings = network
    loss, scales = loss_of
    kind, optimizer, n_weights, n_learned, penalized, penalties, n_params, n_slots = optimization
    outputs, slopes, deltas, of_X, of_labels, of_targets, of_weight, capacity = buffers
    T = grad.dtype
    what, n_batches, n_noise = request[WHAT], request[N_BATCHES], request[N_NOISE]
    X = carray(pointer(request[X_AT]), (request[X_SIZE],), T)
    labels = carray(pointer(request[LABELS_AT]), (request[LABELS_SIZE],), np.int64)
    targets = carray(pointer(request[TARGETS_AT]), (request[TARGETS_SIZE],), T)
    weight = carray(pointer(request[WEIGHT_AT]), (request[WEIGHT_SIZE],), T)
    rows = carray(pointer(request[ORDER_AT]), (request[ORDER_SIZE],), np.int64)
    bounds = carray(pointer(request[BOUNDS_AT]), (n_batches + 1,), np.int64)
    params = carray(pointer(request[PARAMS_AT]), (n_params,), T)
    slots = carray(pointer(request[SLOTS_AT]), (n_slots * n_params if what == STEPS else 0,), T)
    rates = carray(pointer(request[RATES_AT]), (n_batches if what == STEPS else 0, 3), T)
    total = carray(pointer(request[TOTAL_AT]), (n_learned if what == SUM else 0,), T)
    noise = carray(pointer(request[NOISE_AT]), (n_noise, 5), np.uint64)
    n_inputs, k = layers[0, N_INPUTS], layers[layers.shape[0] - 1, N_OUTPUTS]
    n_seen = (bounds[n_batches] - bounds[0]) * k if request[SEEN_AT] else 0
    seen = carray(pointer(request[SEEN_AT]), (n_seen,), T)
    sums[:] = 0.0
    if what == SUM:
        sums[N_STEPS] = 1
    for batch in range(n_batches):
        begin = bounds[batch]
        n = bounds[batch + 1] - begin
        inputs = _part(X, n_inputs, rows, begin, n, of_X)
        # The draws of a sum continue from one batch to the next.
        draws = noise[min(batch, n_noise - 1)] if n_noise else noise.reshape(-1)
        P = forward(layers, settings, params, inputs, n, draws, outputs, slopes, capacity)
        if n_seen:
            first = (begin - bounds[0]) * k
            seen[first : first + n * k] = P
        if what == PREDICTIONS:
            continue
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
        sums[ROWS] += n
        sums[WEIGHT] += divisor
        if what == SUM:
            sums[LOSS_SUM] += loss_sum
            if batch == 0 and request[IS_FIRST]:
                total[:] = grad[:n_learned]
            else:
                for i in range(n_learned):
                    total[i] += grad[i]
            continue
        if divisor == 0:
            return batch + 1
        loss_sum += penalize(optimizer, params, grad, n_weights, penalized, penalties, divisor)
        update(kind, optimizer, params, slots, grad, n_weights, n_learned, divisor, rates[batch])
        sums[LOSS_SUM] += loss_sum / divisor * n
        sums[N_STEPS] += 1
    return n_batches


# --- what is called from Python ----------------------------------------------------------------------


def serve(lane, signals, requests, sums, network, loss_of, optimization, grad, buffers):
    """Answer requests, in several threads that stay in this function from one round to the next.

    Each thread has a lane. The one of lane 0 comes from Python when there are requests for all lanes, and
    returns when they are done; False: another lane is gone. The others return when they are told to end.

    Parameters
    ----------
    lane : int
    signals : int64 (8 * (1 + n_lanes),)
        The number of the round, negative to end; then, 8 apart, the last round of each lane, negative if its
        thread is gone.
    requests : int64 (n_lanes, 24)
        What to do with which arrays: `program` explains the columns.
    sums : float64 (n_lanes, 4)
        Set to: the loss (of a sum: summed over rows; of steps: the mean losses times their rows), the weight
        of the rows, the rows, the steps (a sum is for one).
    network : (layers, settings)
    loss_of : (loss, scales)
    optimization : tuple
        See `program.optimization_of`.
    grad, buffers
        Working space of this lane.
    """
    n_lanes = requests.shape[0]
    last = load(signals, 8 + 8 * lane)
    if lane == 0:
        last += 1
        store(signals, 0, last)
    while True:
        if lane:
            last = wait_until_other(signals, 0, last)
            if last < 0:
                return True
        if requests[lane, WHAT]:
            requests[lane, N_TAKEN] = _answer(
                requests[lane], sums[lane], network, loss_of, optimization, grad, buffers
            )
        store(signals, 8 + 8 * lane, last)
        if lane == 0:
            are_here = True
            for other in range(1, n_lanes):
                are_here &= wait_for(signals, 8 + 8 * other, last)
            return are_here


def apply_gradient(optimization, params, slots, grad, weight, rates):
    """Take a step with a gradient that was summed over rows of this weight; return the penalties.

    rates: (3,), as a row of `program.rates_of`. grad is overwritten.
    """
    kind, optimizer, n_weights, n_learned, penalized, penalties, _, _ = optimization
    penalty = penalize(optimizer, params, grad, n_weights, penalized, penalties, weight)
    update(kind, optimizer, params, slots, grad, n_weights, n_learned, weight, rates)
    return penalty
