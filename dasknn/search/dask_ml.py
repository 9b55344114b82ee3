"""Searches with the names and arguments of dask-ml's, whose own run with no version of Dask since 2025.3."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from dasknn._compat.sklearn import Interval, StrOptions
from dasknn.search import rungs
from dasknn.search.base import BaseSearch
from dasknn.search.rungs import Bracket
from dasknn.search.sampling import GridSampler, Sampler
from dasknn.search.space import Space


class _OfDaskML(BaseSearch):
    """Arguments of dask-ml, in the terms of this package."""

    _parameter_constraints: ClassVar[dict] = {
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "test_size": [Interval(Real, 0, 1, closed="neither"), None],
        "patience": [Interval(Integral, 1, None, closed="left"), "boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose", None],
    }

    sampler = "random"
    cv = None
    hold_out = "random"
    time_budget = None
    refit = True
    max_ensemble = 16
    test_size: float | None

    @property
    def validation(self) -> float:  # type: ignore[override]
        """Share of the rows that is scored."""
        return 0.15 if self.test_size is None else self.test_size

    @property
    def model_history_(self) -> dict[int, list[dict[str, Any]]]:
        """The entries of `history_` of each trial, by its number."""
        found: dict[int, list[dict[str, Any]]] = {}
        for entry in self.history_:
            found.setdefault(entry["trial"], []).append(entry)
        return found


class HyperbandSearchCV(_OfDaskML):
    """`HyperbandSearch` with the arguments of dask-ml.

    An iteration is an epoch here, a pass over all rows; in dask-ml it is one call of `partial_fit` with one
    chunk.

    Parameters
    ----------
    estimator : as in `HyperbandSearch`
    parameters : dict
    max_iter : int, default=81
        Most epochs of a trial.
    aggressiveness : int, default=3
        Of each rung, one in so many goes on.
    patience : int or bool, default=False
        A trial ends when its score has not risen by `tol` for more than so many epochs. True: a third of
        `max_iter`.
    tol : float, default=0.001
    test_size : float or None, default=None
        Share of the rows that is scored. None: 0.15.
    random_state : int, RandomState or None, default=None
    scoring : str, callable or None, default=None
    verbose : bool, int or None, default=False
    prefix : str, default=""
        Has no effect.

    Attributes
    ----------
    model_history_ : dict
        The entries of `history_` of each trial, by its number.
    others : as in `HyperbandSearch`

    See Also
    --------
    HyperbandSearch : With more settings.
    """

    _parameter_constraints: ClassVar[dict] = {
        **_OfDaskML._parameter_constraints,
        "aggressiveness": [Interval(Real, 1, None, closed="neither")],
    }

    def __init__(
        self,
        estimator,
        parameters,
        max_iter=81,
        aggressiveness=3,
        patience=False,
        tol=1e-3,
        test_size=None,
        random_state=None,
        scoring=None,
        verbose=False,
        prefix="",
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.max_iter = max_iter
        self.aggressiveness = aggressiveness
        self.patience = patience
        self.tol = tol
        self.test_size = test_size
        self.random_state = random_state
        self.scoring = scoring
        self.verbose = verbose
        self.prefix = prefix

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        return rungs.hyperband(n_trials, int(self.max_iter), float(self.aggressiveness))

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        return sum(bracket.n_trials or 0 for bracket in self._brackets(None))


class IncrementalSearchCV(_OfDaskML):
    """`RandomSearch`, or `GridSearch`, with the arguments of dask-ml: all trials are trained to the end.

    An iteration is an epoch here, a pass over all rows.

    Parameters
    ----------
    estimator : as in `RandomSearch`
    parameters : dict
    n_initial_parameters : int or "grid", default=10
        How many settings are tried. "grid": all combinations of the values, as in `GridSearch`.
    decay_rate : None, default=None
        Expected to be None, as in dask-ml since 1.4: `SuccessiveHalvingSearch` leaves trials behind.
    test_size : float or None, default=None
        Share of the rows that is scored. None: 0.15.
    patience : int or bool, default=False
        A trial ends when its score has not risen by `tol` for more than so many epochs. True: a third of
        `max_iter`.
    tol : float, default=0.001
    fits_per_score : int, default=1
        Has no effect: each epoch is scored.
    max_iter : int, default=100
        Most epochs of a trial.
    random_state : int, RandomState or None, default=None
    scoring : str, callable or None, default=None
    verbose : bool, int or None, default=False
    prefix : str, default=""
        Has no effect.

    Attributes
    ----------
    model_history_ : dict
        The entries of `history_` of each trial, by its number.
    others : as in `RandomSearch`
    """

    _parameter_constraints: ClassVar[dict] = {
        **_OfDaskML._parameter_constraints,
        "n_initial_parameters": [Interval(Integral, 1, None, closed="left"), StrOptions({"grid"})],
        "decay_rate": [None],
        "fits_per_score": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        parameters,
        n_initial_parameters=10,
        decay_rate=None,
        test_size=None,
        patience=False,
        tol=1e-3,
        fits_per_score=1,
        max_iter=100,
        random_state=None,
        scoring=None,
        verbose=False,
        prefix="",
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.n_initial_parameters = n_initial_parameters
        self.decay_rate = decay_rate
        self.test_size = test_size
        self.patience = patience
        self.tol = tol
        self.fits_per_score = fits_per_score
        self.max_iter = max_iter
        self.random_state = random_state
        self.scoring = scoring
        self.verbose = verbose
        self.prefix = prefix

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        return rungs.together(n_trials, int(self.max_iter))

    def _sampler(self, space: Space, seed: int) -> Sampler:
        return GridSampler(space) if self.n_initial_parameters == "grid" else super()._sampler(space, seed)

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        return sampler.count if self.n_initial_parameters == "grid" else int(self.n_initial_parameters)


class SuccessiveHalvingSearchCV(_OfDaskML):
    """`SuccessiveHalvingSearch` with the arguments of dask-ml; an iteration is an epoch.

    Parameters
    ----------
    estimator : as in `SuccessiveHalvingSearch`
    parameters : dict
    n_initial_parameters : int, default=10
        How many settings are tried.
    n_initial_iter : int, default=1
        Epochs after which trials are first compared.
    max_iter : int or None, default=None
        Most epochs of a trial. None: as many as one trial has when all others have been left behind.
    aggressiveness : int, default=3
        Of each rung, one in so many goes on.
    test_size : float or None, default=None
        Share of the rows that is scored. None: 0.15.
    patience : int or bool, default=False
        A trial ends when its score has not risen by `tol` for more than so many epochs.
    tol : float, default=0.001
    random_state : int, RandomState or None, default=None
    scoring : str, callable or None, default=None
    verbose : bool, int or None, default=False
    prefix : str, default=""
        Has no effect.

    Attributes
    ----------
    model_history_ : dict
        The entries of `history_` of each trial, by its number.
    others : as in `SuccessiveHalvingSearch`
    """

    _parameter_constraints: ClassVar[dict] = {
        **_OfDaskML._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "n_initial_parameters": [Interval(Integral, 1, None, closed="left")],
        "n_initial_iter": [Interval(Integral, 1, None, closed="left")],
        "aggressiveness": [Interval(Real, 1, None, closed="neither")],
    }

    def __init__(
        self,
        estimator,
        parameters,
        n_initial_parameters=10,
        n_initial_iter=1,
        max_iter=None,
        aggressiveness=3,
        test_size=None,
        patience=False,
        tol=1e-3,
        random_state=None,
        scoring=None,
        verbose=False,
        prefix="",
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.n_initial_parameters = n_initial_parameters
        self.n_initial_iter = n_initial_iter
        self.max_iter = max_iter
        self.aggressiveness = aggressiveness
        self.test_size = test_size
        self.patience = patience
        self.tol = tol
        self.random_state = random_state
        self.scoring = scoring
        self.verbose = verbose
        self.prefix = prefix

    @property
    def _most_epochs(self) -> int:
        if self.max_iter is not None:
            return int(self.max_iter)
        most, left = int(self.n_initial_iter), float(self.n_initial_parameters)
        while left >= self.aggressiveness:
            most, left = round(most * self.aggressiveness), left / self.aggressiveness
        return most

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        least = min(int(self.n_initial_iter), self._most_epochs)
        return rungs.halving(n_trials, least, self._most_epochs, float(self.aggressiveness))

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        return int(self.n_initial_parameters)
