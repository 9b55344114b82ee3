"""Activations: values and derivatives against those that Keras and torch computed."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dasknn import activations
from dasknn.activations import elu, leaky_relu, relu

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
POINTS, COTANGENT = (np.array([GOLDEN[name]]) for name in ("points", "cotangent"))
CASES = [
    *(pytest.param(activations.get(name), case, id=name) for name, case in GOLDEN["activations"].items()),
    *(
        pytest.param(activations.get(case), case, id=f"{case['class_name']}-{number}")
        for number, case in enumerate(GOLDEN["layers"])
    ),
]


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-7), (np.float32, 1e-5)])
@pytest.mark.parametrize(("function", "case"), CASES)
def test_values_and_derivatives_are_those_of_keras(function, case, dtype, rtol):
    A, dA = POINTS.astype(dtype), COTANGENT.astype(dtype)
    scratch = function.scratch(*A.shape, np.dtype(dtype))
    function.forward(A, scratch)
    assert_allclose(A, [case["values"]], rtol=rtol, atol=rtol)
    function.backward(A, dA, scratch)
    assert_allclose(dA, [case["derivative"]], rtol=rtol, atol=rtol)
    assert A.dtype == dA.dtype == dtype


@pytest.mark.parametrize(("function", "case"), CASES)
def test_new_data_needs_no_scratch(function, case):
    assert_allclose(function(POINTS), [case["values"]], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("points", [np.array([[-1e4, -800.0, 800.0, 1e4]]), np.zeros((1, 4))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(GOLDEN["activations"]) - {"exponential"}))
def test_far_points_neither_overflow_nor_warn(name, dtype, points):
    function = activations.get(name)
    A, dA = points.astype(dtype), np.ones((1, 4), dtype)
    scratch = function.scratch(1, 4, np.dtype(dtype))
    function.forward(A, scratch)
    assert np.isfinite(A).all()
    function.backward(A, dA, scratch)
    assert np.isfinite(dA).all()


@pytest.mark.parametrize(("function", "case"), CASES)
def test_functions_survive_pickling_and_their_configuration(function, case):
    again = pickle.loads(pickle.dumps(function))
    assert again == function
    assert hash(again) == hash(function)
    assert activations.get(json.loads(json.dumps(activations.serialize(function)))) == function


def test_names_are_written_as_keras_writes_them():
    written = {name: activations.serialize(activations.get(name)) for name in GOLDEN["activations"]}
    aliases = {"swish": "silu", "hard_swish": "hard_silu"}
    assert written == {name: aliases.get(name, name) for name in written}
    own = {name: activations.serialize(activations.get(name)) for name in ("identity", "logistic", "exp")}
    assert own == {"identity": "linear", "logistic": "sigmoid", "exp": "exponential"}
    assert activations.serialize(leaky_relu(0.3)) == {
        "module": "keras.layers",
        "class_name": "LeakyReLU",
        "config": {"negative_slope": 0.3},
        "registered_name": None,
    }


def test_nothing_stands_for_identity_and_settings_make_functions_equal():
    assert activations.get(None).name == "identity"
    assert leaky_relu() == activations.get("leaky_relu") == activations.get(leaky_relu)
    assert leaky_relu(0.3) == leaky_relu(0.3) != leaky_relu()
    assert relu() is activations.get("relu")
    assert elu() == activations.get("elu") != elu(0.5)
    assert (
        activations.get({"class_name": "function", "config": "relu", "registered_name": "function"}) is relu()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: activations.get(np.tanh), r"cannot differentiate. There are: .*tanh"),
        (lambda: activations.get("rellu"), "Did you mean 'relu'"),
        (lambda: activations.get("sine wave"), "There are: celu"),
        (
            lambda: activations.get({"class_name": "ReLU", "config": {"slope": 1.0}}),
            "Expected the configuration",
        ),
        (lambda: activations.get({"class_name": "PReLU", "config": {}}), "Expected the configuration"),
        (lambda: relu(max_value=-1.0), "max_value to be at least 0"),
        (lambda: relu(threshold=None), "threshold to be at least 0"),
        (lambda: leaky_relu(None), "negative_slope to be a number"),
    ],
)
def test_what_is_no_activation_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
