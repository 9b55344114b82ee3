"""Samplers of Optuna: their proposals follow from the seed, the trial and the results, and they do learn."""

import logging
import pickle
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from dasknn.search.optuna import OptunaSampler
from dasknn.search.sampling import RandomSampler, Result, sampler_of
from dasknn.search.space import Space


class Anything:
    """A value that Optuna has no category for."""


FIRST, SECOND = Anything(), Anything()
PARAMETERS = {
    "alpha": stats.loguniform(1e-6, 1e-1),
    "dropout": stats.uniform(0.1, 0.5),
    "layers": [(64,), (64, 32), None],
    "object": [FIRST, SECOND],
    "rate": stats.norm(-3, 1),
    "times": stats.poisson(4),
    "units": stats.randint(8, 65),
}


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def loss(settings):
    """Lowest at alpha=1e-4, units=40, layers=(64, 32) and rate=-2."""
    return (
        (np.log10(settings["alpha"]) + 4) ** 2
        + ((settings["units"] - 40) / 20) ** 2
        + (settings["layers"] != (64, 32))
        + (settings["rate"] + 2) ** 2
    )


def random_results(n, n_epochs=10, seed=0):
    sampler = RandomSampler(Space(PARAMETERS), seed)
    proposed = [sampler.propose(number) for number in range(n)]
    return [Result(number, one, n_epochs, -loss(one)) for number, one in enumerate(proposed)]


def optuna_sampler(optuna, seed=0, **settings):
    return OptunaSampler(optuna.samplers.TPESampler(**settings), Space(PARAMETERS), seed)


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler"])
@pytest.mark.parametrize("n_results", [0, 25])
def test_a_proposal_follows_from_the_seed_the_trial_and_the_results(optuna, name, n_results):
    def proposed(numbers, seed=0, own_seed=None):
        sampler = OptunaSampler(getattr(optuna.samplers, name)(seed=own_seed), Space(PARAMETERS), seed)
        return {number: sampler.propose(number, results) for number in numbers}

    results = random_results(n_results)
    found = proposed(range(25, 31))
    assert proposed(reversed(range(25, 31))) == found
    assert proposed([27], own_seed=5) == {27: found[27]}
    assert len({settings["alpha"] for settings in found.values()}) == 6
    assert proposed([27], seed=1) != {27: found[27]}


def test_a_sampler_that_was_sent_proposes_the_same(optuna):
    sampler, results = optuna_sampler(optuna), random_results(25)
    before = sampler.propose(25, results)
    # Together, since objects without an equality of their own are found by identity.
    copied, its_results = pickle.loads(pickle.dumps((sampler, results)))
    after = copied.propose(25, its_results)
    assert isinstance(after.pop("object"), Anything)
    assert after == {name: value for name, value in before.items() if name != "object"}


def test_proposals_are_settings_of_the_space(optuna):
    space = Space(PARAMETERS)
    for number in range(12):
        settings = optuna_sampler(optuna, n_startup_trials=3).propose(20 + number, random_results(20))
        assert tuple(settings) == space.names
        assert 1e-6 <= settings["alpha"] <= 1e-1
        assert 0.1 <= settings["dropout"] <= 0.6
        assert settings["layers"] in [(64,), (64, 32), None]
        assert settings["object"] in [FIRST, SECOND]
        assert 8 <= settings["units"] <= 64
        kinds = {name: type(settings[name]) for name in ("alpha", "rate", "times", "units")}
        assert kinds == {"alpha": float, "rate": float, "times": int, "units": int}


class Watching:
    """Stands for a sampler of Optuna, and keeps what it is shown."""

    shown = None

    def reseed_rng(self):
        pass

    def before_trial(self, study, trial):
        pass

    def infer_relative_search_space(self, study, trial):
        Watching.shown = study.get_trials()
        return {}

    def sample_relative(self, study, trial, space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low


def shown_trials(parameters, results):
    OptunaSampler(Watching(), Space(parameters), 0).propose(len(results), results)
    return Watching.shown[:-1]


def test_trials_with_the_most_epochs_are_complete_and_others_pruned(optuna):
    alpha = {"alpha": [0.1, 0.01]}
    results = [
        Result(0, {"alpha": 0.1}, 3, 0.5),
        Result(1, {"alpha": 0.01}, 3, 0.4),
        Result(2, {"alpha": 0.1}, 3, np.nan),
        Result(0, {"alpha": 0.1}, 9, 0.7),
        Result(3, {"alpha": 0.01}, 1, 0.2),
        # Failed when it was continued.
        Result(3, {"alpha": 0.01}, 27, np.nan),
    ]
    found = [
        (one.state.name, one.params["alpha"], one.value, one.intermediate_values)
        for one in shown_trials(alpha, results)
    ]
    assert found == [("COMPLETE", 0, 0.7, {3: 0.5, 9: 0.7}), ("PRUNED", 1, 0.4, {3: 0.4})]


def test_distributions_of_scipy_are_those_of_optuna(optuna):
    of = optuna.distributions
    shifted = stats.loguniform(1, 10, loc=5)
    parameters = {**PARAMETERS, "shifted": shifted}
    settings = {**random_results(1)[0].settings, "shifted": float(shifted.ppf(0.25))}
    (trial,) = shown_trials(parameters, [Result(0, settings, 1, 0.5)])
    assert trial.distributions == {
        "alpha": of.FloatDistribution(1e-6, 1e-1, log=True),
        "dropout": of.FloatDistribution(0.1, 0.6),
        "layers": of.CategoricalDistribution([0, 1, 2]),
        "object": of.CategoricalDistribution([0, 1]),
        "rate": of.FloatDistribution(0.0, 1.0),
        "shifted": of.FloatDistribution(0.0, 1.0),
        "times": of.FloatDistribution(0.0, 1.0),
        "units": of.IntDistribution(8, 64),
    }
    assert trial.params["shifted"] == pytest.approx(0.25)


def test_settings_are_what_they_were_after_the_way_through_optuna(optuna):
    results = random_results(30)
    trials = shown_trials(PARAMETERS, results)
    for result, trial in zip(results, trials, strict=True):
        assert trial.params["alpha"] == result.settings["alpha"]
        assert trial.params["units"] == result.settings["units"]
        assert PARAMETERS["layers"][trial.params["layers"]] is result.settings["layers"]
        assert PARAMETERS["rate"].ppf(trial.params["rate"]) == pytest.approx(result.settings["rate"])
        assert PARAMETERS["times"].ppf(trial.params["times"]) == result.settings["times"]
        # The middle of the interval that has this value.
        below, upto = PARAMETERS["times"].cdf(np.array([-1, 0]) + result.settings["times"])
        assert trial.params["times"] == pytest.approx((below + upto) / 2)


@pytest.mark.parametrize("n_epochs", [10, 3], ids=["complete", "pruned"])
def test_tpe_proposes_better_settings_than_random_after_40_results(optuna, n_epochs):
    results = random_results(40, n_epochs)
    # The worst of all has the most epochs, so that the others are pruned where they have 3.
    results.append(Result(40, {**results[0].settings, "alpha": 1e-6, "rate": 2.0}, 10, -30.0))
    learned = [loss(optuna_sampler(optuna).propose(41 + number, results)) for number in range(20)]
    at_random = [-result.score for result in random_results(200, seed=1)]
    assert np.mean(learned) < np.mean(at_random) / 2


def test_the_log_of_optuna_is_silent_and_then_as_before(optuna):
    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, handler, before = [], Collect(), optuna.logging.get_verbosity()
    logging.getLogger("optuna").addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        optuna_sampler(optuna).propose(0, [])
        assert lines == []
        optuna.create_study()
        assert len(lines) == 1
    finally:
        optuna.logging.set_verbosity(before)
        logging.getLogger("optuna").removeHandler(handler)


def test_the_sampler_that_was_given_is_not_changed(optuna):
    given, untouched = optuna.samplers.TPESampler(seed=3), optuna.samplers.TPESampler(seed=3)
    OptunaSampler(given, Space(PARAMETERS), 0).propose(0, random_results(20))
    drawn = [
        optuna.create_study(sampler=one).ask({"x": optuna.distributions.FloatDistribution(0, 1)}).params
        for one in (given, untouched)
    ]
    assert drawn[0] == drawn[1]


def test_samplers_of_optuna_are_found_by_what_they_can_do(optuna):
    found = sampler_of(optuna.samplers.TPESampler(), Space(PARAMETERS), 0)
    assert isinstance(found, OptunaSampler)
    assert found.learns
    with pytest.raises(ValueError, match=r"Pass its sampler: study.sampler"):
        sampler_of(optuna.create_study(), Space(PARAMETERS), 0)
    with pytest.raises(ValueError, match=r"Make an object of it: TPESampler"):
        sampler_of(optuna.samplers.TPESampler, Space(PARAMETERS), 0)


@pytest.mark.parametrize("name", ["QMCSampler", "NSGAIISampler", "GridSampler"])
def test_samplers_that_need_their_own_trials_are_refused(optuna, name):
    arguments = [{"a": [1, 2]}] if name == "GridSampler" else []
    # Some samplers are experimental in some versions.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = getattr(optuna.samplers, name)(*arguments)
        wrapped = optuna.samplers.PartialFixedSampler({}, sampler)
    for one in (sampler, wrapped):
        with pytest.raises(ValueError, match=f"received {name}, which needs trials.*Use TPESampler"):
            OptunaSampler(one, Space({"a": [1, 2]}), 0)


class Draws:
    def rvs(self, random_state=None):
        return 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([{"a": [1]}, {"b": [1]}], "Expected one dict of settings.*received 2. Search each dict by itself"),
        ({"a": Draws()}, "a distribution with ppf and cdf for 'a'"),
    ],
)
def test_spaces_that_optuna_cannot_express_are_refused(optuna, parameters, message):
    with pytest.raises(ValueError, match=message):
        OptunaSampler(optuna.samplers.TPESampler(), Space(parameters), 0)


def test_without_optuna_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'dasknn\[search\]'"):
        sampler_of(Watching(), Space({"a": [1]}), 0)
