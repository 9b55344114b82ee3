"""What all searches share: estimators of scikit-learn's API that try many networks side by side.

fit ── Running: rows, loaded once ── Course: trials ── results ── picks for ensembles ── best estimator
"""

from __future__ import annotations

import time
from abc import abstractmethod
from math import inf
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from dasknn._compat.sklearn import Interval, StrOptions
from dasknn.callbacks import checkpoints, progress
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS
from dasknn.cluster.origins import Placed
from dasknn.data import inputs
from dasknn.ensembles import EnsembleClassifier, EnsembleRegressor
from dasknn.ensembles.members import Member, is_member
from dasknn.evaluation.responders import last_step
from dasknn.search import interrupts, results
from dasknn.search.announcements import Announcements, described
from dasknn.search.course import Course
from dasknn.search.division import Division
from dasknn.search.folder import Folder, identity_of
from dasknn.search.kinds import Kind, kind_of
from dasknn.search.progress import SearchBar
from dasknn.search.rungs import Bracket, Plan
from dasknn.search.running import Running, Settings
from dasknn.search.sampling import Sampler, sampler_of
from dasknn.search.scoring import responder_of, scorer_of
from dasknn.search.selection import Candidate, Picks, select
from dasknn.search.space import Space
from dasknn.search.trials import Patience, Trial
from dasknn.search.wording import score_name
from dasknn.training.fit import Columns

# Ensembles are chosen among so many trials, the best ones.
_MOST_CANDIDATES = 50


def _best_has(name: str) -> Any:
    """Return a check that the best estimator, or the one to search for, has a method."""

    def check(search: Any) -> bool:
        has = hasattr(getattr(search, "best_estimator_", search.estimator), name)
        if not has and not hasattr(search, "best_estimator_") and callable(search.estimator):
            return name == "predict"
        return has

    return check


class BaseSearch(Placed, MetaEstimatorMixin, BaseEstimator):
    """A search over settings of networks."""

    _parameter_constraints: ClassVar[dict] = {
        "n_trials": [Interval(Integral, 1, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "validation": [Interval(Real, 0, 1, closed="neither"), tuple, list],
        "hold_out": [StrOptions({"random", "last"})],
        "patience": [Interval(Integral, 1, None, closed="left"), None, "boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "time_budget": [Interval(Real, 0, None, closed="neither"), None],
        "refit": [StrOptions({"all"}), "boolean"],
        "max_ensemble": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose", None],
    }

    estimator: Any
    parameters: Any
    max_iter: int
    sampler: Any
    scoring: Any
    validation: Any
    cv: Any
    hold_out: str
    patience: Any
    tol: float
    time_budget: float | None
    refit: Any
    max_ensemble: int
    random_state: Any
    verbose: Any

    # --- differences between searches --------------------------------------------------------------

    @abstractmethod
    def _brackets(self, n_trials: int | None) -> list[Bracket]:
        """Return the brackets of so many trials."""

    def _wanted_trials(self, sampler: Sampler) -> int | None:
        """Return how many trials there should be; None: as many as there is time for."""
        return self.n_trials  # type: ignore[attr-defined]

    @property
    def _most_epochs(self) -> int:
        """Most epochs of a trial."""
        return int(self.max_iter)

    @property
    def _n_patient(self) -> float:
        """For how many epochs a trial may be without a better score."""
        if self.patience is True:
            return max(1, self._most_epochs // 3)
        return int(self.patience) if self.patience else inf

    def _sampler(self, space: Space, seed: int) -> Sampler:
        return sampler_of(self.sampler, space, seed)

    # --- fit ---------------------------------------------------------------------------------------

    def fit(
        self,
        X,
        y,
        sample_weight=None,
        *,
        groups=None,
        time=None,
        checkpoint=None,
        resume=False,
        max_faults=MAX_FAULTS,
    ) -> Self:
        """Search for the settings of the best network.

        Dask collections are searched on, and plain data is sent to, the cluster of `self.client` or of the
        current client; without one, networks train in threads of this process.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or list, (n, p)
        y : Dask array or series, array, series or list, (n,) or (n, k)
        sample_weight : Dask array or series, array, series, list or None, (n,), default=None
        groups : Dask series, series, array or None, (n,), default=None
            The group of each row: no group is both trained on and scored by a network.
        time : Dask series, series, array or None, (n,), default=None
            The time of each row: the latest rows are scored.
        checkpoint : str, path, Checkpoint or None, default=None
            A folder or fsspec URL to which each trial is written after each epoch.
        resume : bool, default=False
            Whether to go on with the search in the folder, with the same bits as one that was not
            interrupted.
        max_faults : int, default=10
            How many faults of the cluster may cost work before the last one is raised.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Settings that the estimator does not have, an empty space, data that cannot be trained on (a
            PartitionError names the partition), or no trial that could be scored.
        FileExistsError
            The folder holds a search, and resume is False.

        Notes
        -----
        Ctrl-C ends the search, and keeps what was found: `interrupted_` is True then. Before any network was
        scored, there is nothing to keep, and KeyboardInterrupt is raised.
        """
        self._validate_params()
        self._check_settings(groups, time)
        kind = kind_of(self.estimator)
        space = Space(self.parameters)
        space.check(*kind.known())
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        folder = None
        if (kept := checkpoints.settings_of(checkpoint, resume)) is not None:
            folder = Folder.of(kept, resume, self._described(), seed)
            seed = folder.seed
        sampler = self._sampler(space, seed)
        n_trials = self._wanted_trials(sampler)
        if n_trials is None and self.time_budget is None and sampler.count is None:
            raise ValueError(
                "Expected n_trials or time_budget to say when the search ends, received neither. Set one."
            )
        if sampler.count is not None:
            n_trials = sampler.count if n_trials is None else min(n_trials, sampler.count)
        columns = Columns(*inputs.admit(X, y, sample_weight))
        settings = Settings(
            kind=kind,
            scorer=scorer_of(self.scoring),
            division=self._division(groups, time, seed).fixed(columns),
            patience=Patience(self._n_patient, self.tol),
            max_iter=self._most_epochs,
            seed=seed,
            folder=folder,
            resume=resume,
            is_shown=progress.can_move() if self.verbose is None else bool(self.verbose),
        )
        place = {"workers": self._placed("workers"), "data": [X, y, sample_weight, groups, time]}
        with connect(self._placed("client"), columns.is_distributed, max_faults, **place) as executor:
            running = Running(settings, columns, executor)
            try:
                self._search(running, sampler, n_trials)
                self.faults_ = results.faults(executor.log.take())
            finally:
                running.close()
        self._learn_columns(columns)
        return self

    def _search(self, running: Running, sampler: Sampler, n_trials: int | None) -> None:
        kind = running.settings.kind
        brackets = self._brackets(n_trials)
        began = time.monotonic()
        deadline = inf if self.time_budget is None else began + float(self.time_budget)
        _load(running, kind, sampler)
        if running.settings.folder is not None:
            running.settings.folder.claim()
        course = Course(
            Plan(brackets),
            sampler,
            n_trials,
            running.begin,
            running.hopper,
            lambda: max(1, sum(running.hopper.n_threads.values())),
            deadline,
        )
        n_splits = running.settings.division.n_splits
        total = n_splits * sum(bracket.n_epochs for bracket in brackets)
        is_shown = running.settings.is_shown
        score = score_name(self.estimator, self.scoring)
        bar = SearchBar(course, total, score, is_shown)
        told = Announcements(course, running.executor, described(self, score, brackets, total))
        self.interrupted_ = False

        def tick() -> bool:
            self.interrupted_ |= wish.is_there
            if self.interrupted_ and not course.is_stopping:
                course.stop()
            bar.update()
            told.update()
            return course.tick()

        running.executor.log.begin(None)
        try:
            with interrupts.noted(running.hopper.wake) as wish:
                running.hopper.run(tick)
        except KeyboardInterrupt:
            # It may have come within a step, which is not done then.
            self.interrupted_ = True
            course.stop(at_once=True)
            running.hopper.run(tick)
        finally:
            told.end(self.interrupted_)
            bar.close(not (self.interrupted_ or course.has_timed_out))
        self._learn_results(course, running, n_splits)
        self.search_time_ = time.monotonic() - began

    # --- results -----------------------------------------------------------------------------------

    def _learn_results(self, course: Course, running: Running, n_splits: int) -> None:
        """Set the fitted attributes. ValueError: no trial has a score."""
        hopper = running.hopper
        self.n_splits_ = n_splits
        self.scorer_ = self.scoring
        self.multimetric_ = False
        self.timed_out_ = course.has_timed_out
        self.cv_results_ = results.cv_results(course, n_splits)
        self.history_ = results.history(course, running.began)
        self.workers_ = {
            str(home): {
                "threads": n,
                "compute": hopper.computed.get(home, 0.0),
                "busy": hopper.busy.get(home, 0.0),
                "seconds": hopper.seconds,
            }
            for home, n in {**dict.fromkeys(hopper.busy, 0), **hopper.n_threads}.items()
        }
        self.bytes_moved_ = hopper.bytes_moved
        best = course.best()
        if best is None and self.interrupted_:
            raise KeyboardInterrupt
        if best is None:
            raise ValueError(_nothing(course))
        self.best_index_ = best.number
        self.best_params_ = dict(best.settings)
        self.best_score_ = float(self.cv_results_["mean_test_score"][best.number])
        self.best_epoch_ = best.best_epoch
        self._learn_ensemble(course, running)
        self.__dict__.pop("best_estimator_", None)
        if not self.refit:
            return
        began = time.monotonic()
        self.best_estimator_ = self._refitted(best, running)
        self.refit_time_ = time.monotonic() - began
        if hasattr(self.best_estimator_, "classes_"):
            self.classes_ = self.best_estimator_.classes_

    def _refitted(self, best: Trial, running: Running) -> Any:
        # Who has interrupted the search does not wait for another training.
        if (len(best.runs) > 1 or self.refit == "all") and not self.interrupted_:
            with interrupts.noted(running.hopper.wake) as wish:
                model = running.train_on_all_rows(best, lambda: not wish.is_there)
            if model is not None:
                return model
            self.interrupted_ = True
        models = [running.finished(best, run.model) for run in best.runs]
        # Not all pipelines can be averaged.
        is_one = len(models) == 1 or not is_member(models[0])
        return models[0] if is_one else _mean_of(models)

    def _learn_ensemble(self, course: Course, running: Running) -> None:
        """Choose trials whose mean predicts the scored rows best, and keep their models."""
        scores = self.cv_results_["mean_test_score"]
        order = [int(number) for number in np.argsort(-np.nan_to_num(scores, nan=-inf), kind="stable")]
        numbers = sorted(n for n in order[:_MOST_CANDIDATES] if not np.isnan(scores[n]))
        picks: Picks | None = None
        if self.max_ensemble:
            candidates = [_candidate(running, course.trials[number]) for number in numbers]
            with interrupts.noted() as wish:
                picks = select(
                    running.executor,
                    running.hopper.stations,
                    candidates,
                    int(self.max_ensemble),
                    lambda: not wish.is_there,
                )
            self.interrupted_ |= wish.is_there
        results.add_ensemble(self.cv_results_, numbers, picks)
        chosen = [] if picks is None else [numbers[number] for number in picks.numbers]
        self.ensemble_path_ = chosen
        self.ensemble_losses_ = [] if picks is None else picks.losses
        self._models = {
            number: [running.finished(course.trials[number], run.model) for run in course.trials[number].runs]
            for number in set(chosen)
        }

    def ensemble(self, k: int = 8) -> EnsembleClassifier | EnsembleRegressor:
        """Return the mean of the k networks that predict best together.

        They were chosen one after the other, with replacement: a good one may be in it several times, which
        gives it more weight. So the same path serves all k.

        Parameters
        ----------
        k : int, default=8
            At most `max_ensemble`.

        Returns
        -------
        EnsembleClassifier or EnsembleRegressor
            Fitted; of a search with folds, the members are the networks of all folds.

        Raises
        ------
        TypeError
            The networks are in pipelines whose other steps are not a TablePreprocessor.
        ValueError
            k is not between 1 and `max_ensemble`.

        References
        ----------
        Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004.
        """
        check_is_fitted(self, "ensemble_path_")
        if not self.ensemble_path_:
            raise ValueError(
                "Expected a search that has chosen networks for an ensemble, received one with "
                "max_ensemble=0. Search with a larger one."
            )
        if not all(is_member(model) for models in self._models.values() for model in models):
            raise TypeError(
                "Expected networks alone, or behind a TablePreprocessor, to be averaged, received Pipelines "
                "of other steps. Use best_estimator_, or a TablePreprocessor."
            )
        if not 1 <= k <= len(self.ensemble_path_):
            hint = "Search with a larger max_ensemble."
            if len(self.ensemble_path_) < self.max_ensemble:
                hint = "It was interrupted before it had chosen more."
            raise ValueError(
                f"Expected k from 1 to {len(self.ensemble_path_)}, for which this search has chosen "
                f"networks, received {k}. {hint}"
            )
        path = self.ensemble_path_[:k]
        chosen = sorted(set(path))
        members = [model for number in chosen for model in self._models[number]]
        weights = [float(path.count(number)) for number in chosen for _ in self._models[number]]
        return _mean_of(members, weights)

    # --- settings ----------------------------------------------------------------------------------

    def _check_settings(self, groups: Any, time: Any) -> None:
        """Raise ValueError for parameters that do not fit together."""
        given = [name for name, value in (("groups", groups), ("time", time)) if value is not None]
        given += ["hold_out='last'"] * (self.hold_out == "last")
        if len(given) > 1:
            raise ValueError(
                f"Expected one way to say which rows are scored, received {' and '.join(given)}. Leave one "
                "of them out."
            )
        has_rows = not isinstance(self.validation, Real)
        if has_rows and (self.cv is not None or given):
            other = "cv" if self.cv is not None else given[0]
            raise ValueError(
                f"Expected one way to say which rows are scored, received validation=(X, y) and {other}. "
                "Leave one of them out."
            )
        if has_rows and len(self.validation) not in (2, 3):
            raise ValueError(
                "Expected validation to be a share of the rows, (X, y) or (X, y, sample_weight), received "
                f"{len(self.validation)} items."
            )
        if self.cv is not None:
            is_number = isinstance(self.cv, Integral) and not isinstance(self.cv, bool)
            is_splitter = hasattr(self.cv, "split") and hasattr(self.cv, "get_n_splits")
            if (is_number and self.cv < 2) or not (is_number or is_splitter):
                raise ValueError(
                    "Expected cv to be a number of folds, at least 2, or a splitter such as KFold(5), "
                    f"received {self.cv!r}."
                )
            if given and given != ["groups"]:
                raise ValueError(
                    f"Expected folds or the latest rows to be scored, received cv and {given[0]}. Leave cv "
                    "out."
                )

    def _division(self, groups: Any, time: Any, seed: int) -> Division:
        own: dict[str, Any] = {"cv": self.cv, "groups": groups, "time": time, "seed": seed}
        own |= {"last": self.hold_out == "last", "trains_all": self.refit == "all"}
        if isinstance(self.validation, Real):
            return Division(share=float(self.validation), **own)
        return Division(data=Columns(*inputs.admit(*self.validation)), **own)

    def _placed(self, name: str) -> Any:
        """Return the client or the workers of the search, or else of its estimator."""
        own = getattr(self, name)
        last = last_step(self.estimator)
        return own if own is not None or not isinstance(last, Placed) else getattr(last, name)

    def _described(self) -> dict[str, str]:
        """Return what must be the same when a search goes on."""
        left_out = {"verbose", "refit", "max_ensemble", "time_budget", "random_state", "validation"}
        left_out |= {"estimator", "parameters", "sampler", "scoring"}
        found = {
            name: repr(value) for name, value in self.get_params(deep=False).items() if name not in left_out
        }
        if isinstance(self.validation, Real):
            found["validation"] = repr(self.validation)
        if isinstance(self.random_state, Integral):
            found["random_state"] = repr(int(self.random_state))
        for name in ("estimator", "sampler", "scoring"):
            found[name] = identity_of(getattr(self, name, None))
        found["parameters"] = Space(self.parameters).described()
        return {"search": type(self).__name__, **found}

    def _learn_columns(self, columns: Columns) -> None:
        """Set the number of the columns, and their names, as scikit-learn's searches do."""
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            found = getattr(getattr(self, "best_estimator_", None), name, None)
            if found is not None:
                setattr(self, name, found)
        if not hasattr(self, "n_features_in_") and len(np.shape(columns.X)) > 1:
            self.n_features_in_ = int(np.shape(columns.X)[1])

    # --- predict -----------------------------------------------------------------------------------

    def _best(self) -> Any:
        check_is_fitted(self, "best_index_")
        if not hasattr(self, "best_estimator_"):
            raise AttributeError(
                f"This {type(self).__name__} was fitted with refit=False, so it has no best_estimator_. Use "
                "refit=True, or ensemble(k)."
            )
        return self.best_estimator_

    @available_if(_best_has("predict"))
    def predict(self, X):
        """Predict with the best estimator.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        array or Dask collection (n,) or (n, k)
        """
        return self._best().predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X):
        """Return probabilities of the best estimator.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        array or Dask collection (n, n_classes)
        """
        return self._best().predict_proba(X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X):
        """Return logarithms of the probabilities of the best estimator.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        array or Dask collection (n, n_classes)
        """
        return self._best().predict_log_proba(X)

    @available_if(_best_has("score"))
    def score(self, X, y, sample_weight=None) -> float:
        """Return the score of the best estimator: accuracy or R^2, whatever `scoring` is.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`

        Returns
        -------
        float
        """
        return self._best().score(X, y, sample_weight)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_index_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if isinstance(self.estimator, BaseEstimator):
            of_estimator = get_tags(self.estimator)
            tags.estimator_type = of_estimator.estimator_type
            tags.classifier_tags, tags.regressor_tags = (
                of_estimator.classifier_tags,
                of_estimator.regressor_tags,
            )
            tags.input_tags.sparse = of_estimator.input_tags.sparse
        return tags


def _mean_of(members: list[Any], weights: list[float] | None = None) -> Any:
    kind = EnsembleRegressor if Member.of(members[0]).classes is None else EnsembleClassifier
    return kind(members, weights)


def _candidate(running: Running, trial: Trial) -> Candidate:
    ground = running.ground_of(trial)
    stations = [(n, split) for split in range(ground.n_splits) for n in ground.stations(split, scored=True)]
    return Candidate([responder_of(run.model) for run in trial.runs], stations)


def _load(running: Running, kind: Kind, sampler: Sampler) -> None:
    """Load the rows of the first trial: what is wrong with them is no fault of a trial."""
    if sampler.learns:
        # Asking is not repeatable. The first trial loads them.
        return
    settings = sampler.propose(0, ())
    try:
        kind.model(settings, 0, 1)
    except Exception:
        # The trial will tell.
        return
    running.ground(settings)


def _nothing(course: Course) -> str:
    """Return why no trial has a score."""
    failed = [trial for trial in course.trials if trial.has_failed]
    if not failed and any(trial.n_epochs for trial in course.trials):
        return (
            f"Expected a trial whose score is a number, received NaN for all of {len(course.trials)} trials. "
            "Use another scoring, or score other rows (validation=)."
        )
    if not failed:
        return (
            f"Expected at least one epoch of a trial before the end of the search, received none of "
            f"{len(course.trials)} trials. Give it more time."
        )
    failure = failed[0].failure
    return (
        f"None of {len(course.trials)} trials could be scored; {len(failed)} have failed. The first error, "
        f"of {failed[0].settings}, was {type(failure).__name__}: {failure}"
    )
