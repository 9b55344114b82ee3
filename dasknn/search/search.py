"""The searches: random, grid, successive halving and Hyperband."""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar

from dasknn._compat.sklearn import Interval
from dasknn.search import rungs
from dasknn.search.base import BaseSearch
from dasknn.search.rungs import Bracket
from dasknn.search.sampling import GridSampler, Sampler
from dasknn.search.space import Space


class HyperbandSearch(BaseSearch):
    """Try many settings for few epochs, and few for many, in Hyperband's brackets.

    Each bracket is a successive halving that begins with another number of epochs: it costs little that
    nobody knows how early a good network shows. Trials that are paused keep their state, and go on where they
    were.

    Parameters
    ----------
    estimator : estimator, Pipeline or callable
        MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, a Pipeline that ends in one of them,
        whose other steps are fitted once for all trials that share them, or a function that builds and
        compiles a `Sequential` from settings.
    parameters : dict, or list of dict
        For each name of a setting a list of values, or a distribution of scipy.stats. Names are those of
        `set_params`, or arguments of the function; for a function also "batch_size".
    n_trials : int or None, default=None
        How many settings are tried. None: as many as Hyperband's brackets have, 49 for 27 epochs.
    max_iter : int, default=27
        Most epochs of a trial.
    eta : float, default=3
        Of each rung, the best 1 / eta go on to eta times the epochs.
    sampler : "random", "sobol", a sampler of Optuna or an object with ask and tell, default="random"
        What proposes settings. "sobol" fills the space more evenly.
    scoring : str, callable or None, default=None
        What is scored after each epoch, the greater the better: a name of scikit-learn's scorers, a function
        (estimator, X, y) -> float, or a name in the logs of an epoch, such as "val_loss". None: the score of
        the estimator, accuracy or R^2; of a Sequential its loss, negated.
    validation : float or (X, y) or (X, y, sample_weight), default=0.15
        Share of the rows that is scored and not trained on, or rows for that.
    cv : int, splitter or None, default=None
        Folds instead: each setting is trained once for each, and scored by the mean. Folds of Dask
        collections are of whole partitions, or of groups.
    hold_out : {"random", "last"}, default="random"
        Whether the share is of random rows or of the last ones.
    patience : int or None, default=None
        A trial ends when its score has not risen by more than `tol` for more than so many epochs.
    tol : float, default=0.0
    time_budget : float or None, default=None
        Seconds after which no more is trained, counted from when the rows are loaded; but one network is
        scored in any case.
    refit : bool or "all", default=True
        True: `best_estimator_` is the best network, with the weights of its best epoch; of a search with
        folds, the best settings trained on all rows. "all": trained on all rows in any case. False: there is
        no best estimator.
    max_ensemble : int, default=16
        The largest ensemble that networks are chosen for. 0: none.
    random_state : int, RandomState or None, default=None
        Seed of the settings, the networks and the order of rows.
    verbose : bool, int or None, default=None
        Whether a bar shows the progress. None: in terminals and notebooks.

    Attributes
    ----------
    best_estimator_ : estimator, Pipeline or Sequential
        Fitted. Only with refit.
    best_params_, best_score_, best_index_, best_epoch_ : dict, float, int, int
        Of the trial with the best score, the first of equals.
    cv_results_ : dict of arrays (n_trials,)
        As scikit-learn's: `params`, `param_*`, `split*_test_score`, `mean_test_score`, `rank_test_score`; and
        `n_epochs`, `best_epoch`, `bracket`, `rung`, `status` ("finished", "paused", "stopped" by itself,
        "failed"), `error`, `ensemble_weight` (how often it is in the largest ensemble) and `ensemble_gain`
        (by how much it lowers the loss of that).
    history_ : list of dict
        One for each epoch of each trial: `trial`, `split`, `epoch`, `score`, `loss`, `time` (seconds since
        the start), and the seconds that workers computed.
    workers_ : dict
        For each worker `threads`; `compute` and `busy`, the seconds in all of them that networks were trained
        or scored, and that there was something to do at all; and `seconds`, how long the search was.
    faults_ : list of dict
        What has happened to workers: `what`, `worker`, `time`, `seconds`, `error`.
    ensemble_path_ : list of int
        Numbers of the trials that `ensemble` adds, one after the other.
    interrupted_, timed_out_ : bool
        Whether Ctrl-C or the budget of time ended the search.
    n_splits_, refit_time_, search_time_, bytes_moved_ : int, float, float, int

    See Also
    --------
    SuccessiveHalvingSearch : One bracket.
    RandomSearch : All trials are trained to the end.

    References
    ----------
    Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization", JMLR 18, 2018.

    Nakandala, Zhang and Kumar, "Cerebro: A Data System for Optimized Deep Learning Model Selection", PVLDB
    13(11), 2020: data stays, networks travel.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_digits
    >>> from dasknn import HyperbandSearch, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> search = HyperbandSearch(
    ...     MLPClassifier(),
    ...     {"hidden_layer_sizes": [(32,), (64, 64)], "learning_rate_init": loguniform(1e-4, 1e-1)},
    ...     n_trials=8, max_iter=9, random_state=0, verbose=False,
    ... ).fit(X, y)
    >>> search.best_score_ > 0.9
    True
    >>> search.ensemble(4).predict(X[:3])
    array([0, 1, 2])
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseSearch._parameter_constraints,
        "eta": [Interval(Real, 1, None, closed="neither")],
    }

    def __init__(
        self,
        estimator,
        parameters,
        *,
        n_trials=None,
        max_iter=27,
        eta=3,
        sampler="random",
        scoring=None,
        validation=0.15,
        cv=None,
        hold_out="random",
        patience=None,
        tol=0.0,
        time_budget=None,
        refit=True,
        max_ensemble=16,
        random_state=None,
        verbose=None,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.n_trials = n_trials
        self.max_iter = max_iter
        self.eta = eta
        self.sampler = sampler
        self.scoring = scoring
        self.validation = validation
        self.cv = cv
        self.hold_out = hold_out
        self.patience = patience
        self.tol = tol
        self.time_budget = time_budget
        self.refit = refit
        self.max_ensemble = max_ensemble
        self.random_state = random_state
        self.verbose = verbose

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        return rungs.hyperband(n_trials, int(self.max_iter), float(self.eta))

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        if self.n_trials is not None:
            return self.n_trials
        return sum(bracket.n_trials or 0 for bracket in self._brackets(None))


class SuccessiveHalvingSearch(BaseSearch):
    """Train the best 1 / eta of all trials for eta times the epochs, again and again.

    This is asynchronous (ASHA): with each result that comes, trials go on that are now among the best 1 / eta
    of their rung, and nothing waits for a rung to be full. Results are judged in the order of the trials, so
    the same seed gives the same search on any cluster.

    Parameters
    ----------
    estimator : estimator, Pipeline or callable
        MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, a Pipeline that ends in one of them,
        whose other steps are fitted once for all trials that share them, or a function that builds and
        compiles a `Sequential` from settings.
    parameters : dict, or list of dict
        For each name of a setting a list of values, or a distribution of scipy.stats. Names are those of
        `set_params`, or arguments of the function; for a function also "batch_size".
    n_trials : int or None, default=27
        How many settings are tried. None: as many as there is time for: needs `time_budget`.
    max_iter : int, default=27
        Most epochs of a trial.
    min_iter : int, default=1
        Epochs after which trials are first compared.
    eta : float, default=3
        Of each rung, the best 1 / eta go on to eta times the epochs.
    sampler : "random", "sobol", a sampler of Optuna or an object with ask and tell, default="random"
        What proposes settings. "sobol" fills the space more evenly.
    scoring : str, callable or None, default=None
        What is scored after each epoch, the greater the better: a name of scikit-learn's scorers, a function
        (estimator, X, y) -> float, or a name in the logs of an epoch, such as "val_loss". None: the score of
        the estimator, accuracy or R^2; of a Sequential its loss, negated.
    validation : float or (X, y) or (X, y, sample_weight), default=0.15
        Share of the rows that is scored and not trained on, or rows for that.
    cv : int, splitter or None, default=None
        Folds instead: each setting is trained once for each, and scored by the mean. Folds of Dask
        collections are of whole partitions, or of groups.
    hold_out : {"random", "last"}, default="random"
        Whether the share is of random rows or of the last ones.
    patience : int or None, default=None
        A trial ends when its score has not risen by more than `tol` for more than so many epochs.
    tol : float, default=0.0
    time_budget : float or None, default=None
        Seconds after which no more is trained, counted from when the rows are loaded; but one network is
        scored in any case.
    refit : bool or "all", default=True
        True: `best_estimator_` is the best network, with the weights of its best epoch; of a search with
        folds, the best settings trained on all rows. "all": trained on all rows in any case. False: there is
        no best estimator.
    max_ensemble : int, default=16
        The largest ensemble that networks are chosen for. 0: none.
    random_state : int, RandomState or None, default=None
        Seed of the settings, the networks and the order of rows.
    verbose : bool, int or None, default=None
        Whether a bar shows the progress. None: in terminals and notebooks.

    Attributes
    ----------
    best_estimator_ : estimator, Pipeline or Sequential
        Fitted. Only with refit.
    best_params_, best_score_, best_index_, best_epoch_ : dict, float, int, int
        Of the trial with the best score, the first of equals.
    cv_results_ : dict of arrays (n_trials,)
        As scikit-learn's: `params`, `param_*`, `split*_test_score`, `mean_test_score`, `rank_test_score`; and
        `n_epochs`, `best_epoch`, `bracket`, `rung`, `status` ("finished", "paused", "stopped" by itself,
        "failed"), `error`, `ensemble_weight` (how often it is in the largest ensemble) and `ensemble_gain`
        (by how much it lowers the loss of that).
    history_ : list of dict
        One for each epoch of each trial: `trial`, `split`, `epoch`, `score`, `loss`, `time` (seconds since
        the start), and the seconds that workers computed.
    workers_ : dict
        For each worker `threads`; `compute` and `busy`, the seconds in all of them that networks were trained
        or scored, and that there was something to do at all; and `seconds`, how long the search was.
    faults_ : list of dict
        What has happened to workers: `what`, `worker`, `time`, `seconds`, `error`.
    ensemble_path_ : list of int
        Numbers of the trials that `ensemble` adds, one after the other.
    interrupted_, timed_out_ : bool
        Whether Ctrl-C or the budget of time ended the search.
    n_splits_, refit_time_, search_time_, bytes_moved_ : int, float, float, int

    References
    ----------
    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020: ASHA.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseSearch._parameter_constraints,
        "eta": [Interval(Real, 1, None, closed="neither")],
        "min_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        parameters,
        *,
        n_trials=27,
        max_iter=27,
        min_iter=1,
        eta=3,
        sampler="random",
        scoring=None,
        validation=0.15,
        cv=None,
        hold_out="random",
        patience=None,
        tol=0.0,
        time_budget=None,
        refit=True,
        max_ensemble=16,
        random_state=None,
        verbose=None,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.n_trials = n_trials
        self.max_iter = max_iter
        self.min_iter = min_iter
        self.eta = eta
        self.sampler = sampler
        self.scoring = scoring
        self.validation = validation
        self.cv = cv
        self.hold_out = hold_out
        self.patience = patience
        self.tol = tol
        self.time_budget = time_budget
        self.refit = refit
        self.max_ensemble = max_ensemble
        self.random_state = random_state
        self.verbose = verbose

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        least, most = int(self.min_iter), int(self.max_iter)
        return rungs.halving(n_trials, least, most, float(self.eta))


class RandomSearch(BaseSearch):
    """Train all trials to the end, side by side.

    Parameters
    ----------
    estimator : estimator, Pipeline or callable
        MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, a Pipeline that ends in one of them,
        whose other steps are fitted once for all trials that share them, or a function that builds and
        compiles a `Sequential` from settings.
    parameters : dict, or list of dict
        For each name of a setting a list of values, or a distribution of scipy.stats. Names are those of
        `set_params`, or arguments of the function; for a function also "batch_size".
    n_trials : int or None, default=20
        How many settings are tried. None: as many as there is time for: needs `time_budget`.
    max_iter : int, default=27
        Most epochs of a trial.
    sampler : "random", "sobol", a sampler of Optuna or an object with ask and tell, default="random"
        What proposes settings. "sobol" fills the space more evenly.
    scoring : str, callable or None, default=None
        What is scored after each epoch, the greater the better: a name of scikit-learn's scorers, a function
        (estimator, X, y) -> float, or a name in the logs of an epoch, such as "val_loss". None: the score of
        the estimator, accuracy or R^2; of a Sequential its loss, negated.
    validation : float or (X, y) or (X, y, sample_weight), default=0.15
        Share of the rows that is scored and not trained on, or rows for that.
    cv : int, splitter or None, default=None
        Folds instead: each setting is trained once for each, and scored by the mean. Folds of Dask
        collections are of whole partitions, or of groups.
    hold_out : {"random", "last"}, default="random"
        Whether the share is of random rows or of the last ones.
    patience : int or None, default=None
        A trial ends when its score has not risen by more than `tol` for more than so many epochs.
    tol : float, default=0.0
    time_budget : float or None, default=None
        Seconds after which no more is trained, counted from when the rows are loaded; but one network is
        scored in any case.
    refit : bool or "all", default=True
        True: `best_estimator_` is the best network, with the weights of its best epoch; of a search with
        folds, the best settings trained on all rows. "all": trained on all rows in any case. False: there is
        no best estimator.
    max_ensemble : int, default=16
        The largest ensemble that networks are chosen for. 0: none.
    random_state : int, RandomState or None, default=None
        Seed of the settings, the networks and the order of rows.
    verbose : bool, int or None, default=None
        Whether a bar shows the progress. None: in terminals and notebooks.

    Attributes
    ----------
    best_estimator_ : estimator, Pipeline or Sequential
        Fitted. Only with refit.
    best_params_, best_score_, best_index_, best_epoch_ : dict, float, int, int
        Of the trial with the best score, the first of equals.
    cv_results_ : dict of arrays (n_trials,)
        As scikit-learn's: `params`, `param_*`, `split*_test_score`, `mean_test_score`, `rank_test_score`; and
        `n_epochs`, `best_epoch`, `bracket`, `rung`, `status` ("finished", "paused", "stopped" by itself,
        "failed"), `error`, `ensemble_weight` (how often it is in the largest ensemble) and `ensemble_gain`
        (by how much it lowers the loss of that).
    history_ : list of dict
        One for each epoch of each trial: `trial`, `split`, `epoch`, `score`, `loss`, `time` (seconds since
        the start), and the seconds that workers computed.
    workers_ : dict
        For each worker `threads`; `compute` and `busy`, the seconds in all of them that networks were trained
        or scored, and that there was something to do at all; and `seconds`, how long the search was.
    faults_ : list of dict
        What has happened to workers: `what`, `worker`, `time`, `seconds`, `error`.
    ensemble_path_ : list of int
        Numbers of the trials that `ensemble` adds, one after the other.
    interrupted_, timed_out_ : bool
        Whether Ctrl-C or the budget of time ended the search.
    n_splits_, refit_time_, search_time_, bytes_moved_ : int, float, float, int
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseSearch._parameter_constraints,
    }

    def __init__(
        self,
        estimator,
        parameters,
        *,
        n_trials=20,
        max_iter=27,
        sampler="random",
        scoring=None,
        validation=0.15,
        cv=None,
        hold_out="random",
        patience=None,
        tol=0.0,
        time_budget=None,
        refit=True,
        max_ensemble=16,
        random_state=None,
        verbose=None,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.n_trials = n_trials
        self.max_iter = max_iter
        self.sampler = sampler
        self.scoring = scoring
        self.validation = validation
        self.cv = cv
        self.hold_out = hold_out
        self.patience = patience
        self.tol = tol
        self.time_budget = time_budget
        self.refit = refit
        self.max_ensemble = max_ensemble
        self.random_state = random_state
        self.verbose = verbose

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        return rungs.together(n_trials, int(self.max_iter))


class GridSearch(BaseSearch):
    """Train all combinations of values to the end, side by side.

    Parameters
    ----------
    estimator : estimator, Pipeline or callable
        MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, a Pipeline that ends in one of them,
        whose other steps are fitted once for all trials that share them, or a function that builds and
        compiles a `Sequential` from settings.
    parameters : dict, or list of dict
        For each name of a setting a list of values, or a distribution of scipy.stats. Names are those of
        `set_params`, or arguments of the function; for a function also "batch_size".
    max_iter : int, default=27
        Most epochs of a trial.
    scoring : str, callable or None, default=None
        What is scored after each epoch, the greater the better: a name of scikit-learn's scorers, a function
        (estimator, X, y) -> float, or a name in the logs of an epoch, such as "val_loss". None: the score of
        the estimator, accuracy or R^2; of a Sequential its loss, negated.
    validation : float or (X, y) or (X, y, sample_weight), default=0.15
        Share of the rows that is scored and not trained on, or rows for that.
    cv : int, splitter or None, default=None
        Folds instead: each setting is trained once for each, and scored by the mean. Folds of Dask
        collections are of whole partitions, or of groups.
    hold_out : {"random", "last"}, default="random"
        Whether the share is of random rows or of the last ones.
    patience : int or None, default=None
        A trial ends when its score has not risen by more than `tol` for more than so many epochs.
    tol : float, default=0.0
    time_budget : float or None, default=None
        Seconds after which no more is trained, counted from when the rows are loaded; but one network is
        scored in any case.
    refit : bool or "all", default=True
        True: `best_estimator_` is the best network, with the weights of its best epoch; of a search with
        folds, the best settings trained on all rows. "all": trained on all rows in any case. False: there is
        no best estimator.
    max_ensemble : int, default=16
        The largest ensemble that networks are chosen for. 0: none.
    random_state : int, RandomState or None, default=None
        Seed of the settings, the networks and the order of rows.
    verbose : bool, int or None, default=None
        Whether a bar shows the progress. None: in terminals and notebooks.

    Attributes
    ----------
    best_estimator_ : estimator, Pipeline or Sequential
        Fitted. Only with refit.
    best_params_, best_score_, best_index_, best_epoch_ : dict, float, int, int
        Of the trial with the best score, the first of equals.
    cv_results_ : dict of arrays (n_trials,)
        As scikit-learn's: `params`, `param_*`, `split*_test_score`, `mean_test_score`, `rank_test_score`; and
        `n_epochs`, `best_epoch`, `bracket`, `rung`, `status` ("finished", "paused", "stopped" by itself,
        "failed"), `error`, `ensemble_weight` (how often it is in the largest ensemble) and `ensemble_gain`
        (by how much it lowers the loss of that).
    history_ : list of dict
        One for each epoch of each trial: `trial`, `split`, `epoch`, `score`, `loss`, `time` (seconds since
        the start), and the seconds that workers computed.
    workers_ : dict
        For each worker `threads`; `compute` and `busy`, the seconds in all of them that networks were trained
        or scored, and that there was something to do at all; and `seconds`, how long the search was.
    faults_ : list of dict
        What has happened to workers: `what`, `worker`, `time`, `seconds`, `error`.
    ensemble_path_ : list of int
        Numbers of the trials that `ensemble` adds, one after the other.
    interrupted_, timed_out_ : bool
        Whether Ctrl-C or the budget of time ended the search.
    n_splits_, refit_time_, search_time_, bytes_moved_ : int, float, float, int
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseSearch._parameter_constraints,
    }

    def __init__(
        self,
        estimator,
        parameters,
        *,
        max_iter=27,
        scoring=None,
        validation=0.15,
        cv=None,
        hold_out="random",
        patience=None,
        tol=0.0,
        time_budget=None,
        refit=True,
        max_ensemble=16,
        random_state=None,
        verbose=None,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.max_iter = max_iter
        self.scoring = scoring
        self.validation = validation
        self.cv = cv
        self.hold_out = hold_out
        self.patience = patience
        self.tol = tol
        self.time_budget = time_budget
        self.refit = refit
        self.max_ensemble = max_ensemble
        self.random_state = random_state
        self.verbose = verbose

    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        return rungs.together(n_trials, int(self.max_iter))

    def _sampler(self, space: Space, seed: int) -> Sampler:
        return GridSampler(space)

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        return sampler.count
