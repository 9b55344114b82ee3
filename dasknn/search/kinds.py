"""What a search can try: estimators, functions that build a Sequential, and pipelines that end in one.

kind_of(estimator) ─► EstimatorKind     MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor
                      SequentialKind    a function that builds and compiles a Sequential from settings
                      PipelineKind      transformers, which are fitted once for all trials that share them
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline

from dasknn import strategies
from dasknn.callbacks import Callback, progress
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.executor import Executor
from dasknn.data.targets import Summarize
from dasknn.engine import updater
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.estimators.base import NetworkEstimator
from dasknn.estimators.fitting import EstimatorFit
from dasknn.estimators.tabular import BaseTabular
from dasknn.estimators.tabular_fitting import TabularFit
from dasknn.losses import NUMBERS
from dasknn.models.arguments import FitArguments, checked_batch_size
from dasknn.models.fitting import SequentialFit
from dasknn.models.sequential import Sequential, seeds_from
from dasknn.search.ground import Ground
from dasknn.search.trials import Gate
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.training.datasets import Rows
from dasknn.training.fit import Choice, Columns, Fit, Targets
from dasknn.training.loop import Hooks, Training

_REASON = "gradients: one network, which travels to the rows"
# Settings on which it depends how rows are prepared. Trials that differ in one of them share no rows.
_OF_ROWS = (
    "dtype", "class_weight", "categorical_features", "n_bins", "bins", "min_frequency", "max_categories",
)  # fmt: skip


# Plain data is cut into at most so many parts, whatever the cluster is.
_PLAIN_PARTS = 8


class _Travels:
    """Steps of a fit of a network that travels; before those of its API.

    Attributes
    ----------
    last_callback : Gate
        Runs after all others.
    """

    last_callback: Gate

    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        return GradientAveraging(replicas=1), _REASON

    def callbacks(self, job: TrainingJob, choice: Choice) -> list[Callback]:
        found = super().callbacks(job, choice)  # type: ignore[misc]
        # A search shows its own progress.
        shown = (progress.EpochLines, progress.ProgressBar, progress.KerasLines)
        return [one for one in found if not isinstance(one, shown)] + [self.last_callback]

    def hold_out(self, rows: Rows, targets: Targets) -> Any:
        return None


class _EstimatorTravels(_Travels):
    """Steps of a fit of an estimator."""

    model: Any

    @property
    def summarize(self) -> Summarize:
        """What summarizes targets."""
        return self.model._summarize().of

    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        return self.model._sizes(network, n_rows, 1, None)


class _TravellingMLP(_EstimatorTravels, EstimatorFit):
    def _warn_unless_converged(self, found: Any) -> None:
        """Warn of nothing: a search says how far its networks are trained."""


class _TravellingTable(_EstimatorTravels, TabularFit):
    pass


class _TravellingSequential(_Travels, SequentialFit):
    @property
    def summarize(self) -> Summarize:
        """What summarizes targets."""
        return self._encoder.summarize

    def hooks(self, job: TrainingJob, targets: Targets, held_out: Rows | None) -> Hooks:
        found = super().hooks(job, targets, held_out)
        optimizer, variables = job.optimizer, targets.network.variables
        if not optimizer.use_ema:
            return found

        def averaged(state: TrainState) -> TrainState:
            return replace(state, params=updater.averages(optimizer, state.params, state.slots, variables))

        # Users get averages, so these are what is scored.
        self.last_callback.weights_of = lambda state: averaged(state).params
        validate = found.validate
        return replace(
            found,
            validate=None if validate is None else lambda state: validate(averaged(state)),
            publish=lambda state: found.publish(averaged(state)),
        )

    def train(self, training: Training, targets: Targets) -> None:
        super().train(training, targets)
        if self.last_callback.best_params is not None:
            # Those of its best epoch, which are averages already.
            self.model._members = np.atleast_2d(self.last_callback.best_params)


class Kind(ABC):
    """What is tried."""

    is_classifier: bool

    @abstractmethod
    def known(self) -> tuple[Collection[str], str]:
        """Return (the names of settings that there are, what they are names of)."""

    @abstractmethod
    def model(self, settings: Mapping[str, Any], seed: int, max_iter: int) -> Any:
        """Return a new model. ValueError: settings that it cannot have."""

    @abstractmethod
    def key(self, settings: Mapping[str, Any]) -> Hashable:
        """Return what trials that share their rows have in common."""

    @abstractmethod
    def columns(self, settings: Mapping[str, Any], columns: Columns) -> tuple[Columns, Any]:
        """Return (columns as the network's fit takes them, what has prepared them)."""

    @abstractmethod
    def fit(
        self,
        model: Any,
        settings: Mapping[str, Any],
        columns: Columns,
        executor: Executor,
        checkpoints: Checkpoints | None,
        max_iter: int,
    ) -> Any:
        """Return the fit of a model to columns."""

    @abstractmethod
    def teach(self, fit: Any, ground: Ground, rows: Rows) -> None:
        """Give a fit what reading the rows has found out."""

    def finished(self, model: Any, preparation: Any) -> Any:
        """Return the model that users get."""
        return model


class EstimatorKind(Kind):
    """An estimator of scikit-learn's API."""

    def __init__(self, estimator: NetworkEstimator):
        self.estimator = estimator
        self.is_classifier = is_classifier(estimator)
        estimator._validate_params()
        self._check_strategy(estimator)

    @staticmethod
    def _check_strategy(model: Any) -> None:
        if model.strategy != "auto":
            raise ValueError(
                "Expected strategy='auto': a search trains each network in one place at a time, and many "
                f"side by side; received {strategies.get(model.strategy)}. Leave it out."
            )

    def known(self):
        return list(self.estimator.get_params()), type(self.estimator).__name__

    def model(self, settings, seed, max_iter):
        model: Any = clone(self.estimator)
        # Objects in the space, such as callbacks, are not shared by trials.
        model.set_params(**{"max_iter": max_iter, **clone(dict(settings), safe=False)})
        if model.random_state is None:
            model.set_params(random_state=seed)
        model._validate_params()
        model._check_settings((None, None), False)
        self._check_strategy(model)
        if model._uses_lbfgs:
            raise ValueError(
                "solver='lbfgs' asks for all rows at once, and cannot travel. Use solver='adam' or 'sgd'."
            )
        return model

    def key(self, settings):
        return tuple((name, repr(settings[name])) for name in _OF_ROWS if name in settings)

    def columns(self, settings, columns):
        return columns, None

    def fit(self, model, settings, columns, executor, checkpoints, max_iter):
        of_table = isinstance(model, BaseTabular)
        fit: Any = (_TravellingTable if of_table else _TravellingMLP)(
            model,
            columns,
            # What it is does not matter: these rows are the user's, and have no weights of classes.
            columns,
            None,
            checkpoints,
            0,
            is_partial=False,
            is_continued=False,
        )
        if of_table:
            fit._executor = executor
        _settle(fit)
        return fit

    def teach(self, fit, ground, rows):
        vars(fit.model).update(ground.learned)
        fit.look_at(rows)


class _AnyName(list):
    """Names of a function that takes any."""

    def __contains__(self, name: object) -> bool:
        return True


class SequentialKind(Kind):
    """A function that builds and compiles a Sequential from settings."""

    # Of `Sequential.fit`, unless the function has an argument of this name.
    _OF_FIT = ("batch_size", "class_weight")

    def __init__(self, build: Callable[..., Any]):
        self.build = build
        parameters = inspect.signature(build).parameters.values()
        self._takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        self._names = [
            one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        ]
        # Until a model was built, nobody knows.
        self.is_classifier = False

    def known(self):
        name = getattr(self.build, "__name__", "the function")
        names = _AnyName() if self._takes_any else [*self._names, *self._OF_FIT]
        return names, f"{name}, which builds the model, or of fit"

    def _of_fit(self, settings):
        return {name: settings[name] for name in self._OF_FIT if name in settings and name not in self._names}

    def model(self, settings, seed, max_iter):
        of_fit = self._of_fit(settings)
        own = {name: value for name, value in settings.items() if name not in of_fit}
        with seeds_from(seed):
            model = self.build(**clone(own, safe=False))
        if not isinstance(model, Sequential):
            raise TypeError(
                "Expected a function that returns a compiled dasknn.Sequential, received "
                f"{type(model).__name__}."
            )
        model._check_compiled("fit")
        self.is_classifier = getattr(model._loss, "judges", NUMBERS) != NUMBERS
        if model._strategy is not None:
            raise ValueError(
                "Expected a model without a strategy: a search trains each network in one place at a time; "
                f"received one of {model._strategy}. Create it outside of the scope."
            )
        return model

    def key(self, settings):
        return tuple(
            (name, repr(value)) for name, value in self._of_fit(settings).items() if name != "batch_size"
        )

    def columns(self, settings, columns):
        return columns, None

    def fit(self, model, settings, columns, executor, checkpoints, max_iter):
        of_fit = self._of_fit(settings)
        arguments = FitArguments(
            batch_size=checked_batch_size(of_fit.get("batch_size")),
            epochs=max_iter,
            verbose=0,
            callbacks=[],
            validation_split=0.0,
            shuffle=True,
            class_weight=of_fit.get("class_weight"),
            initial_epoch=0,
            steps_per_epoch=None,
            validation_freq=1,
        )
        fit = _TravellingSequential(model, columns, columns, arguments, checkpoints, 0)
        _settle(fit)
        return fit

    def teach(self, fit, ground, rows):
        fit.prepare(fit.data)
        fit.look_at(rows)


# Parameters of a pipeline itself, which are no settings.
_OF_PIPELINES = ("steps", "memory", "verbose", "transform_input")


class PipelineKind(Kind):
    """A pipeline whose last step is one of the other kinds."""

    def __init__(self, pipeline: Pipeline):
        *steps, (self._name, last) = pipeline.steps
        self._steps = Pipeline(steps)
        self._last = kind_of(last)
        self.is_classifier = self._last.is_classifier
        self._pipeline = pipeline

    def known(self):
        of_last, _ = self._last.known()
        if isinstance(of_last, _AnyName):
            return of_last, "the pipeline"
        of_steps = [*self._steps.named_steps, *self._steps.get_params()] if self._steps.steps else []
        of_steps = [name for name in of_steps if name not in _OF_PIPELINES]
        return [*of_steps, *(f"{self._name}__{name}" for name in of_last)], "the pipeline"

    def _of_last(self, settings):
        prefix = f"{self._name}__"
        return {name.removeprefix(prefix): v for name, v in settings.items() if name.startswith(prefix)}

    def _of_steps(self, settings):
        return {name: v for name, v in settings.items() if not name.startswith(f"{self._name}__")}

    def model(self, settings, seed, max_iter):
        model = self._last.model(self._of_last(settings), seed, max_iter)
        self.is_classifier = self._last.is_classifier
        return model

    def key(self, settings):
        of_steps = sorted(self._of_steps(settings).items())
        return (*((name, repr(value)) for name, value in of_steps), self._last.key(self._of_last(settings)))

    def columns(self, settings, columns):
        own = self._of_steps(settings)
        # What stands in the space stays as it is.
        steps = clone(clone(self._steps).set_params(**own)) if self._steps.steps else self._steps
        X = steps.fit_transform(columns.X, columns.y) if steps.steps else columns.X
        return columns._replace(X=X), steps

    def fit(self, model, settings, columns, executor, checkpoints, max_iter):
        return self._last.fit(model, self._of_last(settings), columns, executor, checkpoints, max_iter)

    def teach(self, fit, ground, rows):
        self._last.teach(fit, ground, rows)

    def finished(self, model, preparation):
        return Pipeline([*preparation.steps, (self._name, model)])


def _settle(fit: Fit) -> None:
    """Set what a fit finds out when it connects: there is one replica, and plain data has some parts."""
    fit.replicas = 1
    fit.n_parts = _PLAIN_PARTS


def kind_of(estimator: Any) -> Kind:
    """Return the kind of an estimator. TypeError: a search cannot try it."""
    if isinstance(estimator, Pipeline):
        return PipelineKind(estimator)
    if isinstance(estimator, NetworkEstimator):
        return EstimatorKind(estimator)
    if isinstance(estimator, Sequential):
        raise TypeError(
            "Expected a function that builds and compiles a Sequential from settings, since each trial has "
            "one of its own; received a Sequential. Write: def build(units, rate): ...; return model."
        )
    if callable(estimator) and not isinstance(estimator, type):
        return SequentialKind(estimator)
    raise TypeError(
        "Expected MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, a Pipeline that ends in "
        "one of these, or a function that builds and compiles a Sequential; received "
        f"{estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__}."
    )
