"""A space maps the unit cube to settings: values as they were given, and numbers of Python."""

import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.model_selection import ParameterGrid

from dasknn.search.space import Choice, Space
from dasknn.seeds import same_each_time


class Dice:
    """A distribution of the user's own, without quantiles."""

    def rvs(self, random_state=None):
        return random_state.randint(1, 7)


class Offset:
    """A distribution of the user's own, with quantiles of no known kind."""

    def rvs(self, random_state=None):
        return random_state.uniform()

    def ppf(self, u):
        return np.asarray(u + 10)


def drawn(space, n=2000):
    return [space.at(u) for u in same_each_time().random((n, space.n_dims))]


def test_a_choice_of_k_values_is_the_one_at_floor_of_u_times_k():
    values = ["adam", None, (64, 32), 0.5]
    space = Space({"x": values})
    found = [space.at([u])["x"] for u in (0, 0.24, 0.25, 0.5, 0.74, 0.99, 1)]
    assert found == ["adam", "adam", None, (64, 32), (64, 32), 0.5, 0.5]


def test_values_are_the_objects_that_were_given():
    values = [object(), [1, 2], np.arange(3)]
    assert all(Space({"x": values}).at([(i + 0.5) / 3])["x"] is values[i] for i in range(3))


def test_numbers_are_those_of_python_and_can_be_written_as_json():
    space = Space(
        {
            "units": stats.randint(8, 11),
            "layers": stats.poisson(3),
            "alpha": stats.loguniform(1e-6, 1e-1),
            "batch": np.array([32, 64]),
            "offset": Offset(),
        }
    )
    for settings in drawn(space, 50):
        assert {name: type(value) for name, value in settings.items()} == {
            "alpha": float,
            "batch": int,
            "layers": int,
            "offset": float,
            "units": int,
        }
        assert json.loads(json.dumps(settings)) == settings
    assert {settings["units"] for settings in drawn(space)} == {8, 9, 10}


def test_a_discrete_distribution_may_have_values_between_whole_numbers():
    halves = stats.rv_discrete(values=([0.5, 1.5], [0.25, 0.75]))
    assert {settings["x"] for settings in drawn(Space({"x": halves}))} == {0.5, 1.5}


def test_loguniform_is_even_on_the_scale_of_logarithms():
    alphas = np.log10([settings["alpha"] for settings in drawn(Space({"alpha": stats.loguniform(1e-6, 1)}))])
    counts = np.histogram(alphas, bins=6, range=(-6, 0))[0]
    assert counts.sum() == 2000
    assert abs(counts - 2000 / 6).max() < 80


def test_a_distribution_is_its_quantile_and_never_infinite():
    space = Space({"x": stats.norm(3, 2)})
    assert_allclose(space.at([0.8])["x"], stats.norm(3, 2).ppf(0.8))
    assert np.isfinite([space.at([u])["x"] for u in (0, 1)]).all()


def test_a_distribution_without_quantiles_is_drawn_by_the_number():
    space = Space({"x": Dice()})
    assert [space.at([u]) for u in (0.1, 0.2)] == [space.at([u]) for u in (0.1, 0.2)]
    found = [settings["x"] for settings in drawn(space, 600)]
    assert abs(np.bincount(found, minlength=7)[1:] - 100).max() < 45


def test_the_order_in_which_names_are_written_has_no_effect():
    parameters = {"b": [1, 2, 3], "a": stats.uniform(), "c": ["x", "y"]}
    turned = dict(reversed(parameters.items()))
    assert Space(parameters).names == Space(turned).names == ("a", "b", "c")
    assert drawn(Space(parameters), 20) == drawn(Space(turned), 20)


def test_of_several_dicts_each_is_equally_likely():
    space = Space([{"solver": ["sgd"], "momentum": [0.5, 0.9]}, {"solver": ["adam"]}])
    assert space.n_dims == 3
    assert space.names == ("momentum", "solver")
    found = drawn(space)
    assert all(("momentum" in settings) == (settings["solver"] == "sgd") for settings in found)
    assert abs(sum(settings["solver"] == "sgd" for settings in found) - 1000) < 100
    assert abs(sum(settings.get("momentum") == 0.9 for settings in found) - 500) < 80


@pytest.mark.parametrize(
    "parameters",
    [
        {"b": [1, 2], "a": ["x", None, (1,)]},
        [{"solver": ["sgd"], "momentum": [0.5, 0.9]}, {"solver": ["adam", "lbfgs"]}],
    ],
    ids=["a dict", "two dicts"],
)
def test_a_grid_has_the_combinations_of_scikit_learn_in_its_order(parameters):
    space, expected = Space(parameters), list(ParameterGrid(parameters))
    assert list(space.grid()) == expected
    assert [space.combination(number) for number in range(len(expected))] == expected
    for number, settings in enumerate(expected):
        assert list(space.combination(number)) == sorted(settings)
    assert len(space.grid()) == space.n_combinations == len(expected)
    assert space.is_finite


def test_a_grid_of_a_distribution_is_refused():
    space = Space({"a": [1], "b": stats.uniform()})
    assert space.n_combinations is None
    assert not space.is_finite
    with pytest.raises(ValueError, match=r"a distribution for 'b'.*Use RandomSearch, or give a list"):
        space.grid()


def test_combinations_are_counted_beyond_the_integers_of_numpy():
    assert Space({str(number): range(10) for number in range(30)}).n_combinations == 10**30


def test_the_position_of_a_value_tells_equal_values_of_other_types_apart():
    same = np.arange(3)
    choice = Choice([1, True, 1.0, (1,), same, np.arange(4)])
    assert [choice.position(value) for value in (1, True, 1.0, (1,), same, np.arange(4))] == list(range(6))
    assert choice.position(float("1")) == 2
    # As JSON has it.
    assert Choice([0.5, 2.0]).position(2) == 1
    with pytest.raises(ValueError, match=r"Expected one of the values .*, received 7"):
        choice.position(7)


def test_unknown_names_are_refused_with_what_is_similar():
    known = ["alpha", "mlp__alpha", "mlp__hidden_layer_sizes"]
    Space({"alpha": [1], "mlp__alpha": [1]}).check(known, "the pipeline")
    with pytest.raises(
        ValueError,
        match=r"settings of the pipeline, received 'mlp__alhpa'. Did you mean 'mlp__alpha'",
    ):
        Space({"mlp__alhpa": [1]}).check(known, "the pipeline")
    with pytest.raises(ValueError, match=r"received 'zzz'. There are: alpha, mlp__alpha"):
        Space([{"alpha": [1]}, {"zzz": [1]}]).check(known, "the pipeline")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({}, ValueError, "at least one setting, received an empty dict"),
        ([], ValueError, "at least one dict of settings"),
        ([{"a": [1]}, {}], ValueError, "at least one setting"),
        ({"a": []}, ValueError, "at least one value for 'a'"),
        ({"a": np.array([])}, ValueError, "at least one value for 'a'"),
        ({"a": 0.1}, ValueError, r"received 0.1. If this is the only value, write \[0.1\]"),
        ({"a": "adam"}, ValueError, r"write \['adam'\]"),
        ({"a": None}, ValueError, r"write \[None\]"),
        ({"a": np.array(3)}, ValueError, "Expected a list of values"),
        ({"a": np.ones((2, 2))}, ValueError, "Expected a list of values"),
        ({"a": {1, 2}}, ValueError, "Expected a list of values"),
        ({"a": stats.loguniform}, ValueError, "with its arguments for 'a'"),
        ({"a": stats.uniform(0, -1)}, ValueError, "valid arguments for 'a'"),
        (7, TypeError, "Expected a dict of settings.*received 7"),
        ([7], TypeError, "Expected a dict of settings.*received 7"),
        ({3: [1]}, TypeError, "names of settings to be text, received 3"),
    ],
)
def test_what_is_no_space_is_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        Space(parameters)


@pytest.mark.parametrize("u", [[0.5], [0.5, 1.5], [0.5, -0.1], [0.5, np.nan], 0.5])
def test_a_point_outside_of_the_unit_cube_is_refused(u):
    with pytest.raises(ValueError, match="point of the unit cube of 2 dimensions"):
        Space({"a": [1, 2], "b": [1, 2]}).at(u)


def test_a_space_can_be_sent_and_shown():
    space = Space({"b": stats.uniform(), "a": [1, 2]})
    assert pickle.loads(pickle.dumps(space)).at([0.7, 0.2]) == space.at([0.7, 0.2]) == {"a": 2, "b": 0.2}
    assert repr(space) == "Space(a, b)"
