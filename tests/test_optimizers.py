"""Optimizers, and what surrounds their steps, against figures that Keras computed."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import constraints, optimizers, regularizers, schedules
from dasknn.engine import updater as updater_module
from dasknn.engine.updater import Updater, Variable
from dasknn.optimizers import LBFGS, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop
from dasknn.regularizers import BatchL2

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
START = np.concatenate([np.ravel(part) for part in GOLDEN["start"]])
GRADIENTS = [np.concatenate([np.ravel(part) for part in step]) for step in GOLDEN["gradients"]]
SHAPES = [np.shape(part) for part in GOLDEN["start"]]
ALL = (SGD, RMSprop, Adam, AdamW, Adamax, Nadam, Adagrad, Adadelta, Lion)


def name_of(case):
    defaults = optimizers.get(case["class_name"]).get_config()
    special = {name: value for name, value in case["config"].items() if value != defaults[name]}
    around = [part["class_name"] for part in case["regularizers"] + case["constraints"] if part]
    special["learning_rate"] = "schedule" if isinstance(case["config"]["learning_rate"], dict) else "rate"
    return "-".join([case["class_name"], *(f"{k}={v}" for k, v in special.items()), *around])


CASES = [pytest.param(case, id=name_of(case)) for case in GOLDEN["optimizers"]]


def variables_of(case=None):
    parts = []
    for number, (name, shape) in enumerate(zip(("kernel", "bias"), SHAPES, strict=True)):
        of_part = {} if case is None else {
            "regularizer": regularizers.get(case["regularizers"][number]),
            "constraint": constraints.get(case["constraints"][number]),
        }  # fmt: skip
        parts.append(Variable(0, name, 6 * number, shape, **of_part))
    return parts


def trained(optimizer, dtype, variables=(), divisor=1.0):
    """Parameters after each step, and the state."""
    params, grad = START.astype(dtype), np.empty(len(START), dtype)
    slots = updater_module.initial_slots(optimizer, params)
    updater = Updater(optimizer, BatchL2(), 6, params, slots, grad, variables)
    steps = []
    for step, gradient in enumerate(GRADIENTS, 1):
        grad[...] = divisor * gradient
        updater.step(divisor, step, optimizer.rate(optimizer.initial_rate, step))
        steps.append(params.copy())
    assert params.dtype == slots.dtype == dtype
    return steps, slots


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-9), (np.float32, 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_keras_after_every_step(case, dtype, rtol):
    optimizer = optimizers.deserialize(case)
    if optimizer.clipnorm or optimizer.global_clipnorm or any(case["constraints"]):
        # Keras, with torch, takes norms and compares in float32.
        rtol = max(rtol, 3e-7)
    steps, slots = trained(optimizer, dtype, variables_of(case), divisor=4.0)
    assert_allclose(steps, case["steps"], rtol=rtol, atol=rtol)
    if optimizer.use_ema:
        final = updater_module.averages(optimizer, steps[-1], slots, variables_of(case))
        assert_allclose(final, case["final"], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_that_of_keras(case):
    written = json.loads(json.dumps(optimizers.serialize(optimizers.deserialize(case))))
    assert written["config"] == case["config"]
    assert written["class_name"] == case["class_name"]
    assert written["module"] == "keras.optimizers"


@pytest.mark.parametrize("kind", ALL)
def test_an_optimizer_is_known_by_its_name_and_its_configuration(kind):
    optimizer = kind(learning_rate=0.3)
    assert optimizers.deserialize(optimizers.serialize(optimizer)) == optimizer
    assert optimizers.get(kind.__name__.lower()) == optimizers.get(kind.__name__) == kind()
    assert optimizers.get(optimizer) is optimizer
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert hash(kind(0.3)) == hash(optimizer)


def test_a_schedule_survives_the_configuration_of_its_optimizer():
    optimizer = Adam(schedules.CosineDecay(0.1, 20))
    assert optimizers.deserialize(json.loads(json.dumps(optimizers.serialize(optimizer)))) == optimizer


@pytest.mark.parametrize("kind", ALL)
def test_blocks_are_updated_as_one_vector_would_be(kind, monkeypatch):
    expected, _ = trained(kind(0.1), np.float64)
    monkeypatch.setattr(updater_module, "_BLOCK", 3)
    steps, _ = trained(kind(0.1), np.float64)
    assert_array_equal(steps, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeping_averages_changes_no_step(dtype):
    plain, _ = trained(Adam(0.1), dtype)
    averaging, _ = trained(Adam(0.1, use_ema=True), dtype, variables_of())
    assert_array_equal(averaging, plain)


def test_before_any_step_the_averages_are_the_parameters():
    optimizer = Adam(use_ema=True)
    slots = updater_module.initial_slots(optimizer, START)
    assert_array_equal(updater_module.averages(optimizer, START, slots, variables_of()), START)


def test_what_is_not_learned_is_neither_decayed_nor_averaged():
    kernel, bias = variables_of()
    variables = [kernel, replace(bias, is_learned=False)]
    optimizer = AdamW(0.1, 0.5, use_ema=True, clipnorm=1.0)
    params, grad = START.copy(), np.zeros(len(START))
    slots = updater_module.initial_slots(optimizer, params)
    grad[6:] = [4.0, -8.0]
    Updater(optimizer, BatchL2(), 6, params, slots, grad, variables).step(4.0, 1, 0.1)
    # It falls by what its layer says.
    assert_allclose(params[6:], START[6:] - [1.0, -2.0])
    assert_array_equal(updater_module.averages(optimizer, params, slots, variables)[6:], params[6:])
    assert np.all(params[:6] != START[:6])


def test_penalties_count_once_for_each_row():
    kernel, bias = variables_of()
    variables = [replace(kernel, regularizer=regularizers.L2(0.5)), bias]
    updater = Updater(SGD(), BatchL2(), 6, START.copy(), np.zeros((0, 8)), np.zeros(8), variables)
    assert_allclose(updater.penalty(4.0), 4 * 0.5 * np.square(START[:6]).sum())


def test_plain_sgd_needs_no_state():
    assert SGD().n_slots == 0
    assert [kind().n_slots for kind in (RMSprop, Adam, AdamW, Adamax, Nadam, Adagrad, Adadelta, Lion)] == [
        1, 2, 2, 2, 2, 1, 2, 1,
    ]  # fmt: skip
    assert RMSprop(momentum=0.9, centered=True).n_slots == Adam(amsgrad=True).n_slots == 3
    assert updater_module.n_slots(SGD(use_ema=True, gradient_accumulation_steps=2)) == 2


def test_keras_defaults_and_positions():
    assert Adam() == Adam(0.001, 0.9, 0.999, 1e-7, False)
    assert SGD() == SGD(0.01, 0.0, False)
    assert AdamW() == AdamW(0.001, 0.004, 0.9, 0.999, 1e-7, False)
    assert RMSprop() == RMSprop(0.001, 0.9, 0.0, 1e-7, False)


def test_schedules_count_steps_from_zero_even_where_gradients_are_accumulated():
    optimizer = SGD(schedules.PiecewiseConstantDecay([2], [1.0, 0.1]), gradient_accumulation_steps=2)
    assert [optimizer.rate(5.0, step) for step in (1, 3, 4)] == [1.0, 1.0, 0.1]
    assert optimizer.initial_rate == 1.0
    assert SGD(0.2).rate(0.5, 3) == 0.5
    assert SGD(0.2).initial_rate == 0.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD("fast"), "learning_rate to be a number"),
        (lambda: SGD(lambda: 0.1), "learning_rate to be a number"),
        (lambda: SGD(0.1, momentum=1.5), r"momentum to be in \[0, 1\]"),
        (lambda: Adam(beta_1=1.0), r"beta_1 to be in \[0, 1\)"),
        (lambda: Adam(clipnorm=1.0, clipvalue=1.0), "one of clipnorm, clipvalue, global_clipnorm"),
        (lambda: Adam(clipnorm=-1.0), "clipnorm to be at least 0"),
        (lambda: Adam(use_ema=True, ema_momentum=1.5), "ema_momentum"),
        (lambda: Adam(use_ema=True, ema_overwrite_frequency=0), "ema_overwrite_frequency"),
        (lambda: Adam(gradient_accumulation_steps=1), "gradient_accumulation_steps"),
        (lambda: Adam(loss_scale_factor=2.0), "loss_scale_factor"),
        (lambda: AdamW(weight_decay=None), "weight_decay to be a number"),
        (lambda: Lion(beta_1=0.0), "beta_1"),
        (lambda: optimizers.get("adan"), "Did you mean 'adam'"),
        (lambda: optimizers.deserialize({"class_name": "Adam", "config": {"lr": 1.0}}), "received 'lr'"),
    ],
)
def test_settings_that_make_no_sense_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lbfgs_asks_for_nothing_around_its_steps():
    assert updater_module.n_slots(LBFGS()) == 0
    assert updater_module.initial_slots(LBFGS(), START).shape == (0, len(START))
    assert LBFGS().initial_rate == 1.0
    with pytest.raises(TypeError, match="minimize"):
        LBFGS().update(START, START, None, None, 1, 1.0)


@pytest.mark.parametrize("beta_1", [0.0, 0.5, 0.9, 0.999])
def test_the_momentum_product_of_nadam_follows_from_the_step(beta_1):
    product = 1.0
    for step in range(1, 2000):
        product *= beta_1 * (1 - 0.5 * 0.96**step)
        assert 1 - optimizers._nadam_product(beta_1, step) == pytest.approx(1 - product, rel=1e-12)
