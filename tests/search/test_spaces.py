"""Spaces where nobody has written one, and ranges between two ends."""

import pickle

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.pipeline import Pipeline

from dasknn import MLPClassifier, MLPRegressor, TablePreprocessor, TabularClassifier, TabularRegressor
from dasknn.search.space import Space
from dasknn.search.spaces import between, default_space

ESTIMATORS = [MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_all_settings_of_a_default_space_are_valid(kind):
    space = Space(default_space(kind()))
    rng = np.random.default_rng(0)
    for _ in range(20):
        kind().set_params(**space.at(rng.random(space.n_dims)))._validate_params()


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_the_defaults_of_the_recipe_are_inside_of_the_space(kind):
    space = default_space(kind())
    assert space["learning_rate_init"].cdf(kind().learning_rate_init) not in (0, 1)
    assert kind().embedding_dim in space["embedding_dim"]


def test_settings_of_a_pipeline_have_the_name_of_its_step():
    pipeline = Pipeline([("table", TablePreprocessor()), ("network", MLPClassifier())])
    space = default_space(pipeline)
    assert set(space) == {f"network__{name}" for name in default_space(MLPClassifier())}
    pipeline.set_params(**Space(space).at(np.full(len(space), 0.5)))


def test_a_function_has_no_default_space():
    def build():
        raise AssertionError("it is not called")

    with pytest.raises(TypeError, match=r"received build\. Say which"):
        default_space(build)


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_have_both_ends(log):
    numbers = Space({"n": between(2, 5, log=log)})
    found = [numbers.at(np.array([u]))["n"] for u in np.linspace(0, 1, 200)]
    assert sorted(set(found)) == [2, 3, 4, 5]
    assert {type(one) for one in found} == {int}
    assert found == sorted(found)


def test_factors_of_whole_numbers_are_about_even():
    draws = np.log(between(1, 1000, log=True).rvs(size=4000, random_state=0))
    assert abs(np.mean(draws < np.log(31)) - 0.5) < 0.1
    assert np.mean(draws < np.log(10.5)) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(("log", "middle"), [(False, 50.005), (True, 1.0)])
def test_numbers_are_even_in_differences_or_in_factors(log, middle):
    numbers = between(0.01, 100.0, log=log)
    assert numbers.ppf([0, 0.5, 1]) == pytest.approx([0.01, middle, 100])
    draws = numbers.rvs(size=500, random_state=0)
    assert kstest(draws, numbers.cdf).pvalue > 0.001


@pytest.mark.parametrize("ends", [(1, 9, False), (1, 9, True), (0.1, 2.0, False), (0.1, 2.0, True)])
def test_the_share_of_a_number_leads_back_to_it(ends):
    # Samplers of Optuna are told shares.
    numbers = between(*ends)
    for u in (0.05, 0.4, 0.95):
        number = numbers.ppf(u)
        assert numbers.ppf(numbers.cdf(number)) == pytest.approx(number)
    assert pickle.loads(pickle.dumps(numbers)).ppf(0.3) == numbers.ppf(0.3)


@pytest.mark.parametrize(
    ("ends", "message"),
    [((2, 1), "low = 2 and high = 1"), ((1, 1), "low to be less"), ((0, 1, True), "greater than 0 for log")],
)
def test_ends_that_make_no_range_are_explained(ends, message):
    with pytest.raises(ValueError, match=message):
        between(*ends)
