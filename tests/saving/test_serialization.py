"""One way to JSON: what it keeps, what it refuses, and that each file's own form comes back."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from dasknn.estimators import conversion
from dasknn.saving import snapshots
from dasknn.saving.serialization import JSONEncoder, decode
from dasknn.strategies import OuterNesterov, WeightAveraging


def through_json(value):
    return json.loads(json.dumps(value))


def test_numbers_of_numpy_and_tuples_become_pythons():
    value = {"a": np.float32(0.5), 3: (np.arange(2), None, True), "text": np.str_("t")}
    expected = {"a": 0.5, "3": [[0, 1], None, True], "text": "t"}
    assert through_json(JSONEncoder().encode(value, "value")) == expected


@pytest.mark.parametrize("odd", [object(), np.array([object()]), np.longdouble(1), {1, 2}])
def test_what_json_does_not_have_is_refused_with_its_place(odd):
    with pytest.raises(TypeError, match=r"value\.list\[1\]"):
        JSONEncoder().encode({"list": [1, odd]}, "value")


def test_objects_are_restored_from_the_inside_out():
    assert decode({"x": {"x": [1, {"x": 2}]}}, lambda found: found["x"], tuple) == (1, 2)


def test_values_of_a_checkpoint_keep_their_dtypes():
    value = {"best": np.float32(0.1), "losses": [0.5, np.arange(3, dtype=np.int16)], "names": np.array(["a"])}
    back = snapshots._decode(through_json(snapshots._encode(value, "value")))
    assert back["best"].dtype == np.float32
    assert back["best"] == np.float32(0.1)
    assert back["losses"][1].dtype == np.int16
    assert back["names"].tolist() == ["a"]


@pytest.mark.parametrize("odd", [{1: 2}, object(), np.array([object()])])
def test_a_checkpoint_says_what_it_cannot_hold(odd):
    with pytest.raises(TypeError, match=r"history\[0\]\.odd is"):
        snapshots._encode([{"odd": odd}], "history")


@pytest.mark.parametrize(
    "value",
    [
        {0: 1.0, "b": 2.5},
        WeightAveraging(every=4, outer=OuterNesterov(momentum=0.8)),
        (3, (2, 1)),
        None,
        "relu",
    ],
)
def test_parameters_of_estimators_come_back(value):
    assert conversion.from_json(through_json(conversion.to_json(value, "value"))) == value


def test_a_random_state_is_no_parameter_of_a_file():
    with pytest.raises(TypeError):
        conversion.to_json(np.random.RandomState(0), "random_state")


def test_a_fingerprint_names_functions_and_describes_objects():
    @dataclass
    class Settings:
        size: tuple = (1, 2)
        seed: int = 3
        loss: object = np.mean

    class Metric:
        def __init__(self):
            self.threshold, self._cache = np.float64(0.5), object()

    assert snapshots.described({"a": Settings(), "b": Metric()}) == {
        # A seed changes nothing once a training has begun.
        "a": {"kind": "Settings", "size": [1, 2], "loss": "mean"},
        "b": {"kind": "Metric", "threshold": 0.5},
    }
