"""Steps of the optimizer against a plain loop: decays that follow schedules, weights of their own pace."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn.engine import updater
from dasknn.engine.updater import Updater, Variable, initial_slots, paces
from dasknn.optimizers import SGD, AdamW
from dasknn.regularizers import BatchL2
from dasknn.schedules import CosineLogDecay, FlatCosineDecay, LearningRateSchedule

# name, size, rate_factor, decay_factor: as of the layers for tables.
WEIGHTS = [("scale", 3, 6.0, 0.0), ("bins", 10, 0.3, 0.3), ("kernel", 7, 0.5, 1.0), ("bias", 2, 0.1, 0.0)]
N_STEPS = 12


def variables_of(weights):
    begins = np.cumsum([0, *(size for _, size, *_ in weights)]).tolist()
    return [
        Variable(0, name, begin, (size,), rate_factor=rate, decay_factor=decay)
        for (name, size, rate, decay), begin in zip(weights, begins, strict=False)
    ]


def at(setting, step):
    """The value of a setting, which may be a schedule, in a step from 0."""
    return setting(step) if isinstance(setting, LearningRateSchedule) else setting


def plain_adamw(optimizer, params, gradients, variables):
    """AdamW, each weight by itself."""
    found = params.copy()
    for variable in variables:
        w, m, v = found[variable.span], 0.0, 0.0
        for step, grad in enumerate(gradients):
            g, rate = grad[variable.span], at(optimizer.learning_rate, step)
            w = w * (1 - rate * at(optimizer.weight_decay, step) * variable.decay_factor)
            m = optimizer.beta_1 * m + (1 - optimizer.beta_1) * g
            v = optimizer.beta_2 * v + (1 - optimizer.beta_2) * g**2
            # epsilon is added before v is corrected, as in Keras.
            m_hat = m / (1 - optimizer.beta_1 ** (step + 1))
            correction = np.sqrt(1 - optimizer.beta_2 ** (step + 1))
            w = w - rate * variable.rate_factor * m_hat * correction / (np.sqrt(v) + optimizer.epsilon)
        found[variable.span] = w
    return found


def steps(optimizer, params, gradients, variables, divisor=1.0):
    found, slots = params.copy(), initial_slots(optimizer, params)
    steps = Updater(optimizer, BatchL2(0.0), 0, found, slots, np.empty_like(found), variables)
    for step, grad in enumerate(gradients, 1):
        steps.apply(grad * divisor, divisor, step, optimizer.rate(optimizer.learning_rate, step))
    return found


@pytest.mark.parametrize("clipped", [False, True], ids=["plain", "clipped"])
@pytest.mark.parametrize("decay", [0.0, 0.3, FlatCosineDecay(0.3, N_STEPS)], ids=repr)
@pytest.mark.parametrize("rate", [0.05, CosineLogDecay(0.05, N_STEPS)], ids=repr)
def test_rates_and_decays_of_each_weight_are_those_of_a_plain_loop(rate, decay, clipped):
    rng = np.random.default_rng(0)
    variables = variables_of(WEIGHTS)
    params = rng.standard_normal(22)
    gradients = rng.standard_normal((N_STEPS, 22))
    longest = 2.0 if clipped else None
    optimizer = AdamW(rate, beta_2=0.95, epsilon=1e-8, weight_decay=decay, global_clipnorm=longest)
    used = gradients
    if clipped:
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        assert norms.min() > longest
        used = gradients * longest / norms
    expected = plain_adamw(optimizer, params, used, variables)
    assert_allclose(steps(optimizer, params, gradients, variables, divisor=7.0), expected, rtol=1e-9)


def test_a_decay_that_has_ended_changes_nothing():
    rng = np.random.default_rng(0)
    params, gradients = rng.standard_normal(22), np.zeros((6, 22))
    variables = variables_of(WEIGHTS)
    found = steps(SGD(0.5, weight_decay=FlatCosineDecay(0.2, 4)), params, gradients, variables)
    shares = np.prod([1 - 0.5 * FlatCosineDecay(0.2, 4)(step) for step in range(4)])
    assert_allclose(found[13:20], params[13:20] * shares)
    # What does not decay stays as it is, to the last bit.
    assert_array_equal(found[:3], params[:3])
    assert_array_equal(found[20:], params[20:])


def test_neighbors_of_one_pace_are_updated_together():
    weights = [("a", 4, 1.0, 1.0), ("b", 5, 1.0, 1.0), ("c", 2, 1.0, 0.0), ("d", 3, 2.0, 0.0)]
    assert paces(variables_of(weights), 14) == [(0, 9, 1.0, 1.0), (9, 11, 1.0, 0.0), (11, 14, 2.0, 0.0)]
    assert paces([], 14) == [(0, 14, 1.0, 1.0)]


def test_blocks_that_cross_the_borders_of_paces_give_the_same_bits(monkeypatch):
    rng = np.random.default_rng(0)
    params, gradients = rng.standard_normal(22), rng.standard_normal((3, 22))
    optimizer, variables = AdamW(0.1, weight_decay=0.1), variables_of(WEIGHTS)
    whole = steps(optimizer, params, gradients, variables)
    monkeypatch.setattr(updater, "_BLOCK", 4)
    assert_array_equal(steps(optimizer, params, gradients, variables), whole)
