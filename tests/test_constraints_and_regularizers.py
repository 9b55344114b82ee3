"""Constraints and penalties against figures that Keras computed."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import constraints, regularizers
from dasknn.constraints import MaxNorm, UnitNorm
from dasknn.regularizers import L1, L1L2, L2

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
W = np.array(GOLDEN["W"])


def cases(kind):
    return [
        pytest.param(case, id=f"{case['class_name']}-{number}") for number, case in enumerate(GOLDEN[kind])
    ]


# Keras compares in float32, with torch.
PRECISIONS = pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-7), (np.float32, 1e-5)])


@PRECISIONS
@pytest.mark.parametrize("case", cases("constraints"))
def test_projections_are_those_of_keras(case, dtype, rtol):
    constraint = constraints.deserialize(case)
    weights = W.astype(dtype)
    projected = constraint(weights)
    assert_allclose(projected.ravel(), case["value"], rtol=rtol, atol=rtol)
    assert_array_equal(weights, W.astype(dtype))
    constraint.apply(weights)
    assert_array_equal(weights, projected)
    assert projected.dtype == dtype


@PRECISIONS
@pytest.mark.parametrize("case", cases("regularizers"))
def test_penalties_and_their_derivatives_are_those_of_keras(case, dtype, rtol):
    regularizer = regularizers.deserialize(case)
    weights, gradient = W.astype(dtype), np.ones_like(W, dtype)
    assert_allclose(regularizer(weights), case["value"], rtol=rtol, atol=rtol)
    regularizer.add_gradient(weights, gradient, 3.0)
    assert_allclose(gradient.ravel(), 1 + 3 * np.array(case["gradient"]), rtol=rtol, atol=rtol)
    assert gradient.dtype == dtype


@pytest.mark.parametrize(
    ("module", "case"),
    [
        *((constraints, case) for case in GOLDEN["constraints"]),
        *((regularizers, case) for case in GOLDEN["regularizers"]),
    ],
)
def test_the_configuration_is_that_of_keras(module, case):
    thing = module.deserialize(case)
    written = json.loads(json.dumps(module.serialize(thing)))
    assert {name: written[name] for name in ("class_name", "config")} == {
        name: case[name] for name in ("class_name", "config")
    }
    assert module.get(written) == thing
    assert hash(module.get(written)) == hash(thing)


def test_names_stand_for_keras_defaults():
    assert constraints.get("max_norm") == MaxNorm(2, 0)
    assert constraints.get("unit_norm") == UnitNorm()
    assert regularizers.get("l1") == L1(0.01)
    assert regularizers.get("L2") == regularizers.get("l2") == L2(0.01)
    assert regularizers.get("l1l2") == L1L2(0.0, 0.0)
    assert regularizers.get(None) is constraints.get(None) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1(-1.0), "l1 to be a number of at least 0"),
        (lambda: L2(float("nan")), "l2 to be a number of at least 0"),
        (lambda: L1L2("a"), "l1 to be a number of at least 0"),
        (lambda: regularizers.get("l3"), "There are: L1, L1L2, L2"),
        (lambda: regularizers.get(3), "Expected a regularizer"),
        (lambda: constraints.get("maxnrm"), "Did you mean 'maxnorm'"),
    ],
)
def test_what_makes_no_sense_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
