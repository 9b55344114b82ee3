"""Schedules against the rates that Keras computed."""

import json
import pickle
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from dasknn import schedules
from dasknn.schedules import CosineDecayRestarts, ExponentialDecay, PiecewiseConstantDecay

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


@pytest.mark.parametrize(
    ("make", "message"),
    [
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
