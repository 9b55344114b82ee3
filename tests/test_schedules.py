"""Schedules against the rates that Keras computed."""

import json
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dasknn import schedules
from dasknn.schedules import (
    CosineDecayRestarts,
    CosineLogDecay,
    ExponentialDecay,
    FlatCosineDecay,
    PiecewiseConstantDecay,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
CASES = [
    pytest.param(case, id=f"{case['class_name']}-{number}") for number, case in enumerate(GOLDEN["schedules"])
]


@pytest.mark.parametrize("case", CASES)
def test_rates_are_those_of_keras(case):
    schedule = schedules.deserialize(case)
    rates = [schedule(step) for step in GOLDEN["schedule_steps"]]
    assert_allclose(rates, case["rates"], rtol=1e-6, atol=1e-9)
    assert all(type(rate) is float for rate in rates)


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_that_of_keras(case):
    schedule = schedules.deserialize(case)
    written = json.loads(json.dumps(schedules.serialize(schedule)))
    assert written["config"] == case["config"]
    assert written["module"] == "keras.optimizers.schedules"
    assert schedules.deserialize(written) == schedule
    assert hash(pickle.loads(pickle.dumps(schedule))) == hash(schedule)


@pytest.mark.parametrize("t_mul", [1.0, 1.5, 2.0, 10.0])
def test_every_restart_begins_at_the_initial_rate(t_mul):
    schedule = CosineDecayRestarts(0.1, 10, t_mul)
    step = length = 10
    for _ in range(6):
        assert schedule(step) == pytest.approx(0.1, rel=1e-2)
        length *= t_mul
        step += length


@pytest.mark.parametrize("cycles", [1, 2, 4, 6])
def test_cosines_of_a_logarithm_fall_to_0_at_the_end_of_each_of_their_doubling_cycles(cycles):
    # A cycle of 10 steps, one of 20, one of 40, ...
    schedule = CosineLogDecay(0.3, 10 * (2**cycles - 1), cycles)
    ends = [10 * (2**cycle - 1) for cycle in range(cycles + 1)]
    assert_allclose([schedule(end) for end in ends], 0, atol=1e-12)
    assert schedule(ends[-1] + 1000) == pytest.approx(0, abs=1e-12)
    rates = np.array([schedule(step) for step in range(ends[-1])])
    # One hill in each cycle, up to the highest rate.
    for begin, end in pairwise(ends):
        hill = rates[begin:end]
        top = int(hill.argmax())
        assert hill[top] == pytest.approx(0.3, rel=0.05)
        assert np.all(np.diff(hill[: top + 1]) > 0)
        assert np.all(np.diff(hill[top:]) < 0)


def test_cosines_of_a_logarithm_have_the_values_of_the_paper():
    schedule = CosineLogDecay(1.0, 100)
    t = np.arange(101) / 100
    expected = (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))) / 2
    assert_allclose([schedule(step) for step in range(101)], expected, atol=1e-12)


def test_a_flat_cosine_is_constant_and_then_falls_to_0():
    schedule = FlatCosineDecay(0.2, 40, flat=0.25)
    rates = [schedule(step) for step in range(60)]
    assert_allclose(rates[:11], 0.2)
    assert np.all(np.diff(rates[10:41]) < 0)
    assert rates[25] == pytest.approx(0.1)
    assert_allclose(rates[40:], 0, atol=1e-12)


@pytest.mark.parametrize("schedule", [CosineLogDecay(0.1, 50, 3), FlatCosineDecay(0.1, 50, 0.3)], ids=repr)
def test_schedules_that_keras_does_not_have_are_written_and_found_by_name(schedule):
    written = json.loads(json.dumps(schedules.serialize(schedule)))
    for found in (schedules.deserialize(written), schedules.get(written), schedules.get(schedule)):
        assert found == schedule
        assert found(17) == schedule(17)
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineLogDecay(0.1, 0), "decay_steps to be above 0"),
        (lambda: FlatCosineDecay(0.1, 10, flat=1.0), r"flat to be in \[0, 1\), received 1.0"),
        (lambda: ExponentialDecay(0.1, 0, 0.5), "decay_steps to be above 0"),
        (lambda: CosineDecayRestarts(0.1, -1), "first_decay_steps to be above 0"),
        (lambda: CosineDecayRestarts(0.1, 5, t_mul=0.5), "t_mul to be at least 1"),
        (lambda: PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "one more value than boundaries"),
        (lambda: schedules.get("ExponentialDecya"), "Did you mean 'ExponentialDecay'"),
    ],
)
def test_settings_that_make_no_sense_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
