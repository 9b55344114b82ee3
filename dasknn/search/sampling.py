"""Samplers: what proposes the settings of each trial of a search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from dasknn.saving.serialization import did_you_mean
from dasknn.search.space import Space
from dasknn.seeds import Stream, generator

# From so many combinations on, they are drawn with replacement: the same one twice is rare.
_MANY = 2**40


class Result(NamedTuple):
    """What became of a trial.

    Attributes
    ----------
    number : int
        Number of the trial, from 0. A trial that was continued has several results.
    settings : dict
        What was proposed.
    n_epochs : int
        Epochs trained so far, when it was scored.
    score : float
        Higher is better; NaN if the trial failed.
    """

    number: int
    settings: dict[str, Any]
    n_epochs: int
    score: float


class Sampler(ABC):
    """Base class of samplers.

    Attributes
    ----------
    learns : bool
        Whether proposals depend on results. If not, `propose` may be called without any.
    count : int or None
        How many different trials there are; None: there is no limit.
    """

    learns: bool = False
    count: int | None = None

    @abstractmethod
    def propose(self, number: int, results: Sequence[Result]) -> dict[str, Any]:
        """Return the settings of a trial.

        Parameters
        ----------
        number : int
            Number of the trial, from 0.
        results : sequence of Result
            All results so far, in the order in which they came.

        Returns
        -------
        dict
            A value for each name of a setting.

        Raises
        ------
        IndexError
            There are only `count` trials.
        """

    def _check(self, number: int) -> None:
        if self.count is not None and number >= self.count:
            raise IndexError(
                f"Expected the number of a trial below {self.count}, which is how many combinations of "
                f"settings there are, received {number}. Try fewer, or give more values."
            )


class RandomSampler(Sampler):
    """Draws each trial at random: a function of the seed and the number of the trial.

    If all settings are choices, no combination is drawn twice, as in scikit-learn's ParameterSampler. Only
    beyond 2**40 combinations, each trial is drawn for itself.

    Parameters
    ----------
    space : Space
        The settings to draw from.
    seed : int
        Seed of all draws.
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._seed = space, seed
        self.count = space.n_combinations
        self._shuffle = None if self.count is None or self.count > _MANY else _Shuffle(self.count, seed)

    def propose(self, number: int, results: Sequence[Result] = ()) -> dict[str, Any]:
        """Return the settings of a trial, whatever the results."""
        self._check(number)
        if self._shuffle is not None:
            return self._space.combination(self._shuffle.position(number))
        return self._space.at(generator(self._seed, Stream.SETTINGS, number).random(self._space.n_dims))


class _Shuffle:
    """The numbers below n in a random order, of which only the beginning is ever computed."""

    def __init__(self, n: int, seed: int):
        self._n, self._rng = n, generator(seed, Stream.SETTINGS)
        self._order: list[int] = []
        # Fisher-Yates on an array of which only those numbers are kept that are not at their own place.
        self._moved: dict[int, int] = {}

    def position(self, number: int) -> int:
        while len(self._order) <= number:
            begin = len(self._order)
            other = int(self._rng.integers(begin, self._n))
            self._order.append(self._moved.get(other, other))
            self._moved[other] = self._moved.pop(begin, begin)
        return self._order[number]


class SobolSampler(Sampler):
    """Takes the points of a scrambled Sobol sequence, which fill the space more evenly than random ones.

    A trial is a function of the seed and its number. Where all settings are choices, combinations may come
    twice; RandomSampler avoids that.

    Parameters
    ----------
    space : Space
        The settings to spread over.
    seed : int
        Seed of the scrambling (Owen 1998).
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._seed = space, seed

    def propose(self, number: int, results: Sequence[Result] = ()) -> dict[str, Any]:
        """Return the settings of a trial, whatever the results."""
        return self._space.at(self.point(number))

    def point(self, number: int) -> np.ndarray:
        """Return a point (n_dims,) of the sequence in the unit cube, counted from 0."""
        rng = generator(self._seed, Stream.SETTINGS)
        sequence = qmc.Sobol(self._space.n_dims, scramble=True, seed=rng)
        # SciPy cannot skip 0 points.
        if number:
            sequence.fast_forward(number)
        return sequence.random(1)[0]


class GridSampler(Sampler):
    """Takes all combinations, in the order of scikit-learn's ParameterGrid.

    Parameters
    ----------
    space : Space
        Choices only. ValueError: a setting has a distribution.
    """

    def __init__(self, space: Space):
        self._space, self.count = space, len(space.grid())

    def propose(self, number: int, results: Sequence[Result] = ()) -> dict[str, Any]:
        """Return the settings of a trial, whatever the results."""
        self._check(number)
        return self._space.combination(number)


class AskTell(Sampler):
    """Asks an object for settings, and tells it the results.

    Its proposals are as repeatable as the object is, and depend on the order of trials and results.

    Parameters
    ----------
    study_like : object
        Has `ask()`, which returns a dict of settings, and `tell(settings, score, n_epochs)`, which is called
        once for each result, in their order, before the next `ask`. The score of a failed trial is NaN.
    """

    learns = True

    def __init__(self, study_like: Any):
        self._study = study_like
        self._told: set[tuple[int, int, bool]] = set()

    def propose(self, number: int, results: Sequence[Result]) -> dict[str, Any]:
        """Tell the object what is new, and return what it asks for. TypeError: that is not a dict."""
        for result in results:
            # A trial that failed when it was continued may have no more epochs than before.
            key = (result.number, result.n_epochs, isnan(result.score))
            if key not in self._told:
                self._told.add(key)
                self._study.tell(result.settings, result.score, result.n_epochs)
        settings = self._study.ask()
        if not isinstance(settings, Mapping):
            raise TypeError(
                f"Expected ask() of {type(self._study).__name__} to return a dict of settings, received "
                f"{settings!r:.200}."
            )
        return dict(settings)


_NAMED: dict[str, type[RandomSampler] | type[SobolSampler]] = {
    "random": RandomSampler,
    "sobol": SobolSampler,
}
_THERE_ARE = (
    "There are: 'random', 'sobol', a sampler of Optuna such as optuna.samplers.TPESampler(), and any object "
    "with ask() and tell(settings, score, n_epochs)."
)


def sampler_of(name_or_object: Any, space: Space, seed: int) -> Sampler:
    """Return the sampler that a name or an object stands for.

    Parameters
    ----------
    name_or_object : {"random", "sobol"}, Sampler, sampler of Optuna, or object with ask and tell
        A Sampler is returned as is.
    space : Space
        The settings to propose.
    seed : int
        Seed of the proposals, except for those of an object with ask and tell.

    Returns
    -------
    Sampler

    Raises
    ------
    ValueError
        It stands for no sampler, or the sampler cannot propose settings of this space.
    ImportError
        It is a sampler of Optuna, which is not installed.
    """
    if isinstance(name_or_object, Sampler):
        return name_or_object
    if isinstance(name_or_object, str):
        if name_or_object in _NAMED:
            return _NAMED[name_or_object](space, seed)
        hint = did_you_mean(name_or_object, _NAMED)
        raise ValueError(f"Expected a sampler, received {name_or_object!r}.{hint} {_THERE_ARE}")
    if isinstance(name_or_object, type):
        raise ValueError(
            f"Expected a sampler, received the class {name_or_object.__name__}. Make an object of it: "
            f"{name_or_object.__name__}(...)."
        )
    if _has(name_or_object, "sample_relative", "sample_independent"):
        from dasknn.search.optuna import OptunaSampler

        return OptunaSampler(name_or_object, space, seed)
    if _has(name_or_object, "ask", "tell", "sampler"):
        raise ValueError("Expected a sampler, received a study of Optuna. Pass its sampler: study.sampler.")
    if _has(name_or_object, "ask", "tell"):
        return AskTell(name_or_object)
    raise ValueError(f"Expected a sampler, received {name_or_object!r:.200}. {_THERE_ARE}")


def _has(thing: Any, *names: str) -> bool:
    return all(hasattr(thing, name) for name in names)
