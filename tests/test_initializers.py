"""Initial values: their distributions against Keras's, their bits against scikit-learn's rule."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import initializers
from dasknn.initializers import (
    GlorotUniform,
    Identity,
    Orthogonal,
    RandomNormal,
    TruncatedNormal,
    VarianceScaling,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
SHAPE = tuple(GOLDEN["shape"])
CASES = [
    pytest.param(case, id="-".join([case["class_name"], *map(str, list(case["config"].values())[1:4])]))
    for case in GOLDEN["initializers"]
]
# What newer versions of Keras write, too; older ones do not know them.
NEWER = ("input_axes", "output_axes")
RANDOM = ["RandomNormal", "RandomUniform", "TruncatedNormal", "GlorotNormal", "HeUniform", "Orthogonal"]


@pytest.mark.parametrize("make_rng", [np.random.default_rng, np.random.RandomState])
@pytest.mark.parametrize("case", CASES)
def test_draws_are_distributed_as_those_of_keras(case, make_rng):
    config = {name: value for name, value in case["config"].items() if name != "seed"}
    draw = initializers.get({**case, "config": config}).draw(make_rng(3), *SHAPE, SHAPE)
    assert draw.shape == SHAPE
    assert draw.dtype == np.float64
    # Of 120,000 numbers, the standard deviation is known to 0.3%, and the mean to 0.3% of that.
    assert_allclose(draw.std(), case["std"], rtol=0.012, atol=1e-12)
    assert_allclose(draw.mean(), case["mean"], atol=0.015 * case["std"] + 1e-12)
    spread = case["high"] - case["low"] + 1e-12
    assert_allclose(np.quantile(draw, [0.001, 0.999]), [case["low"], case["high"]], atol=0.02 * spread)


def test_truncated_numbers_are_within_two_standard_deviations():
    draw = TruncatedNormal(1.0, 0.5).draw(np.random.default_rng(0), 1, 1, (100_000,))
    assert 0.0 <= draw.min() < 0.01
    assert 1.99 < draw.max() <= 2.0


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_that_of_older_versions_of_keras(case):
    initializer = initializers.deserialize(case)
    written = json.loads(json.dumps(initializers.serialize(initializer)))
    expected = {name: value for name, value in case["config"].items() if name not in NEWER}
    # Keras forgets the gain, but reads it.
    assert written["config"] == ({"gain": 1.0} if case["class_name"] == "Identity" else expected)
    assert written["module"] == "keras.initializers"
    assert initializers.deserialize(written) == initializer


def test_glorot_uniform_draws_the_bits_of_scikit_learn():
    bound = np.sqrt(6.0 / (7 + 3))
    expected = np.random.RandomState(5).uniform(-bound, bound, (7, 3))
    assert_array_equal(GlorotUniform().draw(np.random.RandomState(5), 7, 3, (7, 3)), expected)


def test_a_third_of_glorots_variance_is_scikit_learns_rule_for_logistic_units():
    bound = np.sqrt(2.0 / (7 + 4))
    expected = np.random.RandomState(5).uniform(-bound, bound, (7, 4))
    initializer = VarianceScaling(1 / 3, "fan_avg", "uniform")
    assert_array_equal(initializer.draw(np.random.RandomState(5), 7, 4, (7, 4)), expected)


@pytest.mark.parametrize("kind", RANDOM)
def test_an_own_seed_takes_the_place_of_the_random_state(kind):
    seeded = initializers.get({"class_name": kind, "config": {"seed": 4}})
    rng = np.random.default_rng(0)
    first, second = (seeded.draw(rng, 5, 3, (5, 3)) for _ in range(2))
    assert_array_equal(first, second)
    free = initializers.get(kind)
    assert np.any(free.draw(rng, 5, 3, (5, 3)) != free.draw(rng, 5, 3, (5, 3)))


def test_a_generator_of_seeds_in_a_file_of_keras_counts_as_no_seed():
    seed = {
        "module": "keras.random",
        "class_name": "SeedGenerator",
        "config": {"seed": 3},
        "registered_name": None,
    }
    assert initializers.get({"class_name": "HeNormal", "config": {"seed": seed}}) == initializers.HeNormal()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_orthogonal_draws_are_orthonormal(shape):
    draw = Orthogonal(2.0).draw(np.random.default_rng(0), *shape, shape)
    small = draw.T @ draw if shape[0] >= shape[1] else draw @ draw.T
    assert_allclose(small, 4 * np.eye(min(shape)), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomNormal(seed="a"), "seed to be an integer or None"),
        (lambda: VarianceScaling(0.0), "scale to be above 0"),
        (lambda: VarianceScaling(mode="fan"), "mode to be one of fan_in"),
        (lambda: VarianceScaling(distribution="cauchy"), "distribution to be one of truncated_normal"),
        (lambda: Identity().draw(None, 3, 3, (3,)), "a weight that is a matrix"),
        (lambda: Orthogonal(seed=1).draw(None, 3, 3, (3,)), "a weight that is a matrix"),
        (lambda: initializers.get("glorot_unifrom"), "Did you mean 'glorot_uniform'"),
        (lambda: initializers.get({"class_name": "Zeros", "config": {"input_axes": [0]}}), "input_axes"),
    ],
)
def test_settings_that_make_no_sense_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
