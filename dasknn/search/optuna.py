"""Samplers of Optuna as samplers of a search.

    results ──► trials of a new study in memory ──► sampler.ask ──► parameters of Optuna ──► settings

Each proposal has a study of its own, so a search holds no state of Optuna and may be resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import isclose, isnan, sqrt
from typing import Any, NamedTuple

import numpy as np

from dasknn.search.sampling import Result, Sampler
from dasknn.search.space import Choice, Distribution, Space
from dasknn.seeds import Stream, generator

# They learn only from trials that hold their own notes, or count the trials that they began.
_NEED_THEIR_OWN_TRIALS = {
    "BaseGASampler",
    "CmaEsSampler",
    "GridSampler",
    "NSGAIISampler",
    "NSGAIIISampler",
    "QMCSampler",
}


class _Parameter(NamedTuple):
    """A setting as Optuna sees it."""

    distribution: Any
    # Optuna's value -> the setting, and back.
    setting: Callable[[Any], Any]
    value: Callable[[Any], Any]


class OptunaSampler(Sampler):
    """Lets a sampler of Optuna propose the settings of trials, such as TPESampler or GPSampler.

    Trials with the most epochs of all are complete, and those with fewer are pruned at their last score.
    Failed trials are left out. Choices are categories, `uniform`, `loguniform` and `randint` of SciPy are
    Optuna's own distributions, and other distributions are numbers from 0 to 1, of which the quantile is
    taken.

    A proposal is a function of the seed, the number of the trial and the results: a copy of the sampler is
    given new seeds for each trial. That is tested for Optuna's TPESampler and RandomSampler. A sampler whose
    `reseed_rng` makes no RandomState, such as BruteForceSampler, is as repeatable as its own seed makes it.

    Parameters
    ----------
    sampler : optuna.samplers.BaseSampler
        What proposes; it is not changed.
    space : Space
        The settings to propose, one dict.
    seed : int
        Seed of the proposals. It takes the place of the sampler's own seed.

    Raises
    ------
    ImportError
        Optuna is not installed.
    ValueError
        The space has several dicts or a distribution without `ppf` and `cdf`, or the sampler learns only from
        trials that it began itself, as CmaEsSampler does.
    """

    learns = True

    def __init__(self, sampler: Any, space: Space, seed: int):
        self._sampler, self._space, self._seed = sampler, space, seed
        _check_sampler(sampler)
        _parameters(_optuna(), space)

    def propose(self, number: int, results: Sequence[Result]) -> dict[str, Any]:
        """Return the settings that the sampler proposes after these results."""
        optuna = _optuna()
        parameters = _parameters(optuna, self._space)
        with _quiet(optuna):
            study = optuna.create_study(sampler=self._reseeded(number), direction="maximize")
            study.add_trials(_trials(optuna, parameters, results))
            values = study.ask({name: one.distribution for name, one in parameters.items()}).params
        return {name: one.setting(values[name]) for name, one in parameters.items()}

    def _reseeded(self, number: int) -> Any:
        sampler = deepcopy(self._sampler)
        # Makes the generators that are else made at their first use, from the system's randomness.
        sampler.reseed_rng()
        rng = generator(self._seed, Stream.SETTINGS, number)
        for one in _inside(sampler):
            if isinstance(one, np.random.RandomState):
                one.seed(rng.integers(2**32, size=4))
        return sampler


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "Samplers of Optuna need optuna, which is not installed. Use: pip install 'dasknn[search]'"
        ) from error
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Silence Optuna's log below errors."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _inside(sampler: Any) -> Iterator[Any]:
    """Yield a sampler, its generators, and all objects of Optuna inside of it, in a fixed order."""
    found, seen = [sampler], {id(sampler)}
    while found:
        yield (one := found.pop())
        for part in getattr(one, "__dict__", {}).values():
            is_ours = isinstance(part, np.random.RandomState) or type(part).__module__.startswith("optuna.")
            if is_ours and id(part) not in seen:
                seen.add(id(part))
                found.append(part)


def _check_sampler(sampler: Any) -> None:
    for one in _inside(sampler):
        if _NEED_THEIR_OWN_TRIALS & {kind.__name__ for kind in type(one).__mro__}:
            raise ValueError(
                f"Expected a sampler of Optuna that learns from any results, received "
                f"{type(one).__name__}, which needs trials that it began itself. Use TPESampler() or "
                "GPSampler(), or 'sobol' for an even spread."
            )


# --- settings and Optuna's parameters -----------------------------------------------------------------


def _parameters(optuna: Any, space: Space) -> dict[str, _Parameter]:
    if len(space.parts) > 1:
        raise ValueError(
            f"Expected one dict of settings for a sampler of Optuna, received {len(space.parts)}. Search "
            "each dict by itself, or use 'random' or 'sobol'."
        )
    return {
        name: _category(optuna, one) if isinstance(one, Choice) else _number(optuna, name, one)
        for name, one in space.parts[0].items()
    }


def _category(optuna: Any, choice: Choice) -> _Parameter:
    # Positions instead of values, since categories of Optuna are text, numbers, True, False or None.
    positions = optuna.distributions.CategoricalDistribution(list(range(len(choice.values))))
    return _Parameter(positions, choice.values.__getitem__, choice.position)


def _number(optuna: Any, name: str, dimension: Distribution) -> _Parameter:
    frozen = dimension.frozen
    if not (hasattr(frozen, "ppf") and hasattr(frozen, "cdf")):
        raise ValueError(
            f"Expected a distribution with ppf and cdf for {name!r}, which samplers of Optuna need, received "
            f"{frozen!r:.200}. Use a distribution of scipy.stats, or 'random'."
        )
    family = getattr(getattr(frozen, "dist", None), "name", None)
    if family == "randint":
        low, high = frozen.support()
        return _integers(optuna, int(low), int(high))
    if family == "uniform":
        low, high = frozen.support()
        return _floats(optuna, float(low), float(high), log=False)
    if family in ("loguniform", "reciprocal"):
        low, high = frozen.support()
        # Shifted by loc, it is not even on the scale of logarithms.
        if low > 0 and isclose(frozen.median(), sqrt(low) * sqrt(high), rel_tol=1e-6):
            return _floats(optuna, float(low), float(high), log=True)
    return _Parameter(
        optuna.distributions.FloatDistribution(0.0, 1.0),
        dimension.at,
        lambda setting: _quantile_of(dimension, setting),
    )


def _integers(optuna: Any, low: int, high: int) -> _Parameter:
    return _Parameter(
        optuna.distributions.IntDistribution(low, high),
        int,
        lambda setting: min(max(int(setting), low), high),
    )


def _floats(optuna: Any, low: float, high: float, log: bool) -> _Parameter:
    return _Parameter(
        optuna.distributions.FloatDistribution(low, high, log=log),
        float,
        # Rounding may take a quantile out of the interval.
        lambda setting: min(max(float(setting), low), high),
    )


def _quantile_of(dimension: Distribution, setting: Any) -> float:
    u = float(dimension.frozen.cdf(setting))
    if dimension.is_discrete:
        # A whole interval has this value; its middle is safe from rounding.
        u -= float(dimension.frozen.pmf(setting)) / 2
    return min(max(u, 0.0), 1.0)


# --- results and Optuna's trials ----------------------------------------------------------------------


def _trials(optuna: Any, parameters: dict[str, _Parameter], results: Sequence[Result]) -> list[Any]:
    """Return a trial of Optuna for each trial that did not fail, in the order of their first results."""
    failed = {result.number for result in results if isnan(result.score)}
    settings: dict[int, dict[str, Any]] = {}
    scores: dict[int, dict[int, float]] = {}
    for result in results:
        if result.number not in failed:
            settings.setdefault(result.number, result.settings)
            scores.setdefault(result.number, {})[int(result.n_epochs)] = float(result.score)
    most = max((n_epochs for by_epochs in scores.values() for n_epochs in by_epochs), default=0)
    states = optuna.trial.TrialState
    return [
        optuna.trial.create_trial(
            state=states.COMPLETE if max(by_epochs) == most else states.PRUNED,
            value=by_epochs[max(by_epochs)],
            params={name: one.value(settings[number][name]) for name, one in parameters.items()},
            distributions={name: one.distribution for name, one in parameters.items()},
            intermediate_values=by_epochs,
        )
        for number, by_epochs in scores.items()
    ]
