"""Samplers: a trial is a function of the seed and its number, and no combination is wasted."""

import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc
from sklearn.model_selection import ParameterGrid

from dasknn.search.sampling import (
    AskTell,
    GridSampler,
    RandomSampler,
    Result,
    SobolSampler,
    sampler_of,
)
from dasknn.search.space import Space

CHOICES = {"a": [1, 2, 3, 4], "b": ["x", "y", "z"], "c": [None, (1,)]}
MIXED = {"alpha": stats.loguniform(1e-6, 1e-1), "units": stats.randint(8, 257), "act": ["relu", "tanh"]}
SQUARE = {"x": stats.uniform(), "y": stats.uniform()}


def proposals(sampler, numbers):
    return {number: sampler.propose(number, []) for number in numbers}


def key(settings):
    return tuple(sorted((name, repr(value)) for name, value in settings.items()))


@pytest.mark.parametrize("parameters", [CHOICES, MIXED, [CHOICES, MIXED]], ids=["choices", "mixed", "dicts"])
@pytest.mark.parametrize("kind", [RandomSampler, SobolSampler])
def test_trials_are_the_same_in_any_order_and_differ_between_seeds(kind, parameters):
    space = Space(parameters)
    forwards = proposals(kind(space, 3), range(20))
    assert proposals(kind(space, 3), reversed(range(20))) == forwards
    assert proposals(pickle.loads(pickle.dumps(kind(space, 3))), [11]) == {11: forwards[11]}
    assert proposals(kind(space, 4), range(20)) != forwards


def test_results_do_not_change_what_is_random():
    sampler = RandomSampler(Space(MIXED), 0)
    assert not sampler.learns
    assert sampler.propose(5, [Result(0, sampler.propose(0), 3, 0.7)]) == sampler.propose(5)


def test_random_trials_do_not_change_from_version_to_version():
    sampler = RandomSampler(Space({"act": ["relu", "tanh"], "x": stats.uniform()}), 7)
    expected = np.random.default_rng([7, 301, 4]).random(2)
    assert sampler.propose(4) == {"act": ["relu", "tanh"][int(expected[0] * 2)], "x": float(expected[1])}


def test_choices_are_drawn_without_replacement():
    sampler = RandomSampler(Space(CHOICES), 0)
    assert sampler.count == 24
    found = [key(settings) for settings in proposals(sampler, range(24)).values()]
    assert set(found) == {key(settings) for settings in ParameterGrid(CHOICES)}
    assert found != [key(settings) for settings in ParameterGrid(CHOICES)]
    with pytest.raises(IndexError, match="below 24"):
        sampler.propose(24)


def test_each_combination_is_as_likely_as_the_others_at_each_place():
    space = Space({"a": [0, 1, 2, 3]})
    counts = np.zeros((4, 4))
    for seed in range(3000):
        for number, settings in proposals(RandomSampler(space, seed), range(4)).items():
            counts[number, settings["a"]] += 1
    # 750 of 3000 on average, with a standard deviation of 24.
    assert abs(counts - 750).max() < 100


def test_combinations_too_many_to_shuffle_are_drawn_all_the_same():
    space = Space({str(number): range(10) for number in range(30)})
    sampler = RandomSampler(space, 0)
    assert sampler.count == 10**30
    assert len({key(settings) for settings in proposals(sampler, range(50)).values()}) == 50


def test_a_large_grid_is_not_shuffled_as_a_whole():
    sampler = RandomSampler(Space({str(number): range(10) for number in range(11)}), 0)
    found = proposals(sampler, range(100))
    assert len({key(settings) for settings in found.values()}) == 100
    assert abs(np.mean([settings["0"] for settings in found.values()]) - 4.5) < 1.2


def test_random_trials_have_no_limit_where_there_is_a_distribution():
    assert RandomSampler(Space(MIXED), 0).count is None
    assert SobolSampler(Space(MIXED), 0).count is None


def test_a_sobol_sequence_fills_the_square_more_evenly_than_random_trials():
    def discrepancy(kind, n):
        found = proposals(kind(Space(SQUARE), 0), range(n)).values()
        return qmc.discrepancy([[settings["x"], settings["y"]] for settings in found])

    for n in (16, 50):
        assert discrepancy(SobolSampler, n) < discrepancy(RandomSampler, n) / 3


def test_sobol_trials_are_the_points_of_the_scrambled_sequence():
    rng = np.random.default_rng([5, 301])
    points = qmc.Sobol(2, scramble=True, seed=rng).random(8)
    sampler = SobolSampler(Space(SQUARE), 5)
    for number in (7, 0, 3):
        np.testing.assert_array_equal(sampler.point(number), points[number])


def test_a_grid_is_walked_in_the_order_of_scikit_learn():
    sampler = GridSampler(Space(CHOICES))
    assert sampler.count == 24
    assert list(proposals(sampler, range(24)).values()) == list(ParameterGrid(CHOICES))
    with pytest.raises(IndexError, match="below 24"):
        sampler.propose(24, [])
    with pytest.raises(ValueError, match="Use RandomSearch"):
        GridSampler(Space(MIXED))


class Notes:
    """Proposes how often it was asked, and notes what it is told."""

    def __init__(self):
        self.asked, self.told = 0, []

    def ask(self):
        self.asked += 1
        return {"a": self.asked}

    def tell(self, settings, score, n_epochs):
        self.told.append((settings["a"], score, n_epochs))


def test_a_study_is_told_each_result_once_and_in_order():
    notes = Notes()
    sampler = AskTell(notes)
    assert sampler.learns
    assert sampler.propose(0, []) == {"a": 1}
    assert sampler.propose(1, []) == {"a": 2}
    results = [Result(1, {"a": 2}, 3, 0.5), Result(0, {"a": 1}, 3, 0.25)]
    assert sampler.propose(2, results) == {"a": 3}
    # Trial 1 was continued.
    results.append(Result(1, {"a": 2}, 9, 0.75))
    sampler.propose(3, results)
    sampler.propose(4, results)
    assert notes.told == [(2, 0.5, 3), (1, 0.25, 3), (2, 0.75, 9)]
    # It failed when it was continued once more.
    sampler.propose(5, [*results, Result(1, {"a": 2}, 9, np.nan)])
    assert notes.told[3:] == [(2, pytest.approx(np.nan, nan_ok=True), 9)]


def test_a_study_that_asks_for_no_dict_is_refused():
    notes = Notes()
    notes.ask = lambda: 7
    with pytest.raises(TypeError, match=r"ask\(\) of Notes to return a dict of settings, received 7"):
        AskTell(notes).propose(0, [])


def test_samplers_are_found_by_name_or_by_what_they_can_do():
    space = Space(MIXED)
    assert isinstance(sampler_of("random", space, 0), RandomSampler)
    assert isinstance(sampler_of("sobol", space, 0), SobolSampler)
    assert sampler_of("random", space, 3).propose(2, []) == RandomSampler(space, 3).propose(2)
    assert isinstance(sampler_of(Notes(), space, 0), AskTell)
    given = SobolSampler(space, 0)
    assert sampler_of(given, space, 1) is given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("randm", "received 'randm'. Did you mean 'random'.*TPESampler"),
        ("tpe", "There are: 'random', 'sobol', a sampler of Optuna"),
        (None, "received None. There are"),
        (Notes, r"received the class Notes. Make an object of it: Notes\(...\)"),
    ],
)
def test_what_is_no_sampler_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(given, Space(MIXED), 0)
