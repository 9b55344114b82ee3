"""A fit of the estimators for tables: raw tables are learned and encoded before the usual steps."""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d, validate_data

from dasknn.callbacks import Callback, Monitor, progress
from dasknn.cluster.executor import Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.data import groups, inputs, partitions, targets, times
from dasknn.data.blocks import Block
from dasknn.data.columns import require_columns
from dasknn.data.loading import NoWeightError
from dasknn.data.preprocessing import check_names_of_columns
from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.learning import learn_table
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.estimators.fitting import (
    VALIDATED,
    EstimatorFit,
    checked_targets,
    checked_weight,
    require_targets,
)
from dasknn.estimators.member_selection import choose_members
from dasknn.estimators.recipe import LEAST_HELD_OUT
from dasknn.estimators.stopping import Patience
from dasknn.estimators.tabular_stopping import BestEpoch
from dasknn.exceptions import NonFiniteLossError
from dasknn.strategies import Strategy, auto
from dasknn.training.datasets import Rows, RowsOnWorkers
from dasknn.training.fit import Choice, Columns, Fit, Targets
from dasknn.training.loop import Hooks, Training

# Plain data trains in this process with at most so many replicas, each in a thread, however many processors
# there are: the bits of a model should not depend on them. Each has so many rows of a step, counted once for
# each member, and rows of its own.
_PLAIN_REPLICAS, _LEAST_ROWS_OF_STEP, _LEAST_ROWS_OF_REPLICA = 4, 128, 500
# With fewer rows in a bin, a network would learn the bins of small tables by heart.
_ROWS_OF_BIN = 20
# A bar for plain data appears after so many seconds: most fits of small tables are quicker.
BAR_SECONDS = 3.0


class TabularFit(EstimatorFit):
    """One call of `fit` of a TabularClassifier or TabularRegressor."""

    def __init__(self, *args: Any, groups: Any = None, time: Any = None, **settings: Any):
        super().__init__(*args, **settings)
        given = [name for name, column in (("groups", groups), ("time", time)) if column is not None]
        given += ["hold_out='last'"] * (self.model.hold_out == "last")
        if len(given) > 1:
            raise ValueError(
                f"Expected one way to say which rows are held out, received {' and '.join(given)}. Leave one "
                "of them out, or pass rows to validate with: X_val and y_val."
            )
        self._groups, self._time = groups, time
        self._was_given_validation = self.validation is not None
        self._set_rows_aside = False
        self.in_process = LocalExecutor()
        self._executor: Executor | None = None
        self._held_out: Rows | None = None
        self.given = self.data
        if self.model.verbose is None and not self.data.is_distributed and progress.can_move():
            self._verbose, self._bar_delay = 2, BAR_SECONDS

    def run(self) -> Training:
        training = super().run()
        # Rows for validation that the user passed are none to train on.
        again = self.model.refit == "all" and not self._was_given_validation and self._held_out is not None
        if again and not training.interrupted and self._best_epoch is not None:
            training = RefitOnAllRows(self).run()
        return training

    # --- data --------------------------------------------------------------------------------------

    def _connect(self, stack: ExitStack, *data: Columns) -> Executor | None:
        self._executor = super()._connect(stack, *data)
        return self._executor

    def prepare(self, data: Columns) -> Columns:
        require_targets(self.model, data.y)
        X = checked_table(self.model, data.X, reset=True)
        y, weight = (data.y, data.sample_weight) if data.is_distributed else self._checked_columns(X, data)
        self._learn_columns(X, y)
        if self.validation is None and self.model.early_stopping:
            X, y, weight = self._set_aside(X, y, weight)
        return Columns(encoded(self.model, X), y, weight)

    def _set_aside(self, X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        """Set rows of whole groups, or the latest rows, aside for validation; return the other rows."""
        model, executor = self.model, self._executor
        assert executor is not None, "tables have an executor, plain ones that of this process"
        columns, share = {"X": X, "y": y, "sample_weight": weight}, model.validation_fraction
        least = LEAST_HELD_OUT if model.early_stopping == "auto" else 0
        if self._groups is not None:
            seed = int(model.random_state) if isinstance(model.random_state, Integral) else 0
            kept, held = groups.split(columns, self._groups, share, seed, executor, least)
        elif self._time is not None:
            kept, held = times.split(columns, self._time, share, executor, least)
        else:
            return X, y, weight
        if held is not None:
            self._set_rows_aside, self.validation = True, Columns(*held.values())
        return tuple(kept.values())

    def _learn_columns(self, X: Any, y: Any) -> None:
        learn_columns(self.model, X, y, self._executor)

    def _checked_columns(self, X: Any, data: Columns) -> tuple[Any, Any]:
        """Return plain y and weights, with scikit-learn's checks."""
        model = self.model
        y = validate_data(
            # A copy: without X, it would forget the names of the columns.
            copy(model),
            X="no_validation",
            y=_own_kind(model, checked_targets(*data)),
            multi_output=True,
            y_numeric=isinstance(model, RegressorMixin),
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        n_rows = partitions.n_samples(X)
        if n_rows < 2:
            raise ValueError(f"Expected at least 2 rows to train on, received n_samples = {n_rows}.")
        return y, checked_weight(data.sample_weight, np.empty((n_rows, 1)), np.float64)

    def prepare_validation(self, validation: Columns) -> Columns:
        return validation._replace(X=self.model._network_inputs(validation.X))

    def default_parts(self) -> int:
        if self.data.is_distributed or self.strategy is not None:
            return super().default_parts()
        n_rows = partitions.n_samples(self.data.X)
        recipe = self.model._recipe_for(n_rows)
        useful = recipe.batch_size * recipe.members // _LEAST_ROWS_OF_STEP
        return max(1, min(_PLAIN_REPLICAS, useful, n_rows // _LEAST_ROWS_OF_REPLICA))

    def read(self, executor: Executor | None, data: Columns, is_validation: bool = False) -> Rows:
        assert executor is not None, "plain data has an executor of this process"
        try:
            return self._read_partitions(executor, data, self.model.dtype)
        except NoWeightError:
            if not self._set_rows_aside:
                raise
            raise ValueError(_no_weight("held out" if is_validation else "trained on")) from None

    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        self.model._choose_recipe(rows.n_rows, None if held_out is None else held_out.n_rows)
        if self._set_rows_aside:
            # Groups are of different sizes: those that were set aside judge, even if they have few rows.
            self.model._stops_early = True
        return super().learn_targets(rows, held_out)

    def _all_targets(self, summary: targets.Summary, of_held_out: targets.Summary) -> targets.Summary:
        # A class is known even if all of its rows were set aside, as if random rows are held out.
        if self._set_rows_aside and isinstance(summary, targets.ClassSummary):
            assert isinstance(of_held_out, targets.ClassSummary), "both sides are of one y"
            return summary + of_held_out
        return summary

    # --- how they are trained on -------------------------------------------------------------------

    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        if self.replicas is None and self.strategy is None and not self.data.is_distributed:
            return self.model._sizes(network, n_rows, self.n_parts, None)
        return super().sizes(n_rows, network)

    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        if self.strategy is None and not self.data.is_distributed:
            strategy, _ = self.model._choose_by_rules(sizes)
            return strategy, "gradients: plain data trains in threads of this process"
        return super().choose(rows, sizes)

    def hold_out(self, rows: Rows, targets: Targets) -> Rows | None:
        if not self.model._stops_early:
            return None
        fraction = self.model.validation_fraction
        if self.model.hold_out == "last":
            assert isinstance(rows, RowsOnWorkers), "the rows of a table are in partitions"
            held_out: Rows = rows.hold_out_last(fraction)
        else:
            held_out = rows.hold_out(fraction, None)
        if self.data.sample_weight is not None:
            _require_weight("trained on", rows)
            _require_weight("held out", held_out)
        return held_out

    @property
    def n_epochs(self) -> int:
        return self.model._n_epochs

    def _make_patience(self) -> Patience:
        model = self.model
        if not model._stops_early:
            return Patience(0.0, np.inf, False, bool(model.verbose))
        ends = model._ends_of_cycles() if model.n_iter_no_change == "auto" else []
        patience = np.inf if model.n_iter_no_change == "auto" else model.n_iter_no_change
        return BestEpoch(patience, ends, model._monitor, bool(model.verbose))

    def _make_bar(self) -> progress.ProgressBar:
        return progress.ProgressBar(delay=self._bar_delay, last_line=self._line_of_best)

    def _line_of_best(self) -> str | None:
        """Return the score of the weights that are kept, as a line; None: no validation rows chose them."""
        scores, best = self.model.validation_scores_, self._best_epoch
        if best is None:
            return None
        name = "R^2" if isinstance(self.model, RegressorMixin) else "accuracy"
        return f"{name} {scores[best - 1]:.4f} on validation rows in epoch {best}, the best of {len(scores)}"

    def hooks(self, job: TrainingJob, targets_: Targets, held_out: Rows | None) -> Hooks:
        self._held_out = held_out
        return super().hooks(job, targets_, held_out)

    def train(self, training: Training, targets_: Targets) -> None:
        model = self.model
        model.temperature_ = 1.0
        model._errors = model.selected_members_ = None
        super().train(training, targets_)
        held_out = self._held_out
        if held_out is None or training.interrupted:
            return
        if model.select_members:
            weights = self._weights_of_held_out(targets_)
            model._keep_members(choose_members(held_out, model._predictor(), weights))
        # Of the members that are left.
        model._learn_from_held_out(held_out)

    def _note(self, training: Training) -> None:
        super()._note(training)
        self.model.best_epoch_ = self._best_epoch

    @property
    def _best_epoch(self) -> int | None:
        """The epoch that chose the weights, from 1; None: none did."""
        return self._patience.best_epoch or None if isinstance(self._patience, BestEpoch) else None

    def _settings(self, targets_: Targets) -> dict[str, Any]:
        model = self.model
        found = super()._settings(targets_)
        del found["tol"]
        return found | {"table": model._table.describe(), "recipe": list(model.recipe_)}

    def _warn_unless_converged(self, found: Any) -> None:
        """Warn of nothing: the schedule ends with the last epoch."""


class RefitOnAllRows(TabularFit):
    """The second stage of a fit with refit="all": on all rows, for as many epochs as the best one took.

    Columns and targets stay as they were learned, and so does what the rows held out have said: of the first
    network, which saw fewer rows. If this stage is interrupted, the model is that of the first one.
    """

    def __init__(self, first: TabularFit):
        super().__init__(
            first.model, first.given, None, first.strategy, None, first._max_faults,
            is_partial=False, is_continued=False,
        )  # fmt: skip
        self.replicas = first.replicas
        self.earlier_history = first.model.history_
        self._first = first.model._predictor()
        self._epochs_of_first = first.model.best_epoch_
        names = ("validation_scores_", "best_validation_score_", "n_iter_", "loss_curve_")
        self._of_first = {name: getattr(first.model, name) for name in names}

    def run(self) -> Training:
        return Fit.run(self)

    def _learn_columns(self, X: Any, y: Any) -> None:
        """Learn nothing: the columns are those of the first stage."""

    def hold_out(self, rows: Rows, targets: Targets) -> Rows | None:
        return None

    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        # With the recipe of the first stage.
        return EstimatorFit.learn_targets(self, rows, held_out)

    @property
    def n_epochs(self) -> int:
        return self._epochs_of_first

    @property
    def _best_epoch(self) -> int | None:
        return self._epochs_of_first

    def _line_of_best(self) -> str | None:
        return None

    def callbacks(self, job: TrainingJob, choice: Choice) -> list[Callback]:
        found = super().callbacks(job, choice)
        # No rows are scored, so there is nothing to monitor.
        return [c for c in found if not (isinstance(c, Monitor) and c.monitor in VALIDATED)]

    def hooks(self, job: TrainingJob, targets_: Targets, held_out: Rows | None) -> Hooks:
        return replace(super().hooks(job, targets_, held_out), follows=True)

    def _make_patience(self) -> Patience:
        return Patience(0.0, np.inf, False, bool(self.model.verbose))

    def train(self, training: Training, targets_: Targets) -> None:
        model = self.model
        try:
            EstimatorFit.train(self, training, targets_)
        except NonFiniteLossError:
            model._set_predictor(self._first)
            raise
        if training.interrupted:
            model._set_predictor(self._first)
        of_first = self._of_first
        model.validation_scores_ = of_first["validation_scores_"]
        model.best_validation_score_ = of_first["best_validation_score_"]
        model.n_iter_ += of_first["n_iter_"]
        model.loss_curve_ = [*of_first["loss_curve_"], *model.loss_curve_]


def learn_columns(model: Any, X: Any, y: Any, executor: Executor | None) -> None:
    """Learn the columns of the table X. ValueError: none of them varies.

    y: targets, from which bins='tree' learns; None: bins are chosen as by 'greedy'.
    """
    bins = "greedy" if model.bins == "tree" and y is None else model.bins
    model._table = learn_table(
        X,
        y if bins == "tree" else None,
        categorical_features=model.categorical_features,
        n_bins=model.n_bins,
        bins=bins,
        min_frequency=model.min_frequency,
        max_categories=model.max_categories,
        rows_of_bin=_ROWS_OF_BIN,
        task="regression" if isinstance(model, RegressorMixin) else "classification",
        dtype=model.dtype,
        executor=executor,
    )
    if not model._table.width:
        raise ValueError(
            f"Expected at least one column of X that varies, received {model._table.n_features_in} with "
            "one value each."
        )


def _own_kind(model: Any, y: Any) -> Any:
    """Return plain y as an array of its own kind; of a regressor, numbers. ValueError: they are none.

    scikit-learn would make floats of the nullable integers and booleans of pandas and Arrow, as if these were
    the labels. It refuses missing values, so y is left to it if there are some.
    """
    if sparse.issparse(y):
        return y
    found = targets.as_array(y)
    if targets.first_missing(found) is not None:
        return y
    return targets.as_numbers(found) if isinstance(model, RegressorMixin) else found


def _require_weight(what: str, rows: Rows) -> None:
    """Raise ValueError if these rows have no weight: their loss and their score would be unknown."""
    if not rows.total(_weight_of, None):
        raise ValueError(_no_weight(what))


def _no_weight(what: str) -> str:
    return (
        f"Expected at least one of the rows that are {what} to have a weight above 0, received none. "
        "Hold out other rows (hold_out, validation_fraction), pass rows to validate with (X_val and "
        "y_val), or use early_stopping=False."
    )


def _weight_of(_: None, block: Block) -> float:
    block.check()
    return 0.0 if block.weight is None else float(block.weight.sum())


def checked_table(model: Any, X: Any, *, reset: bool) -> Any:
    """Return X with the checks of scikit-learn that a raw table allows.

    The model learns the number and names of the columns if reset is true. If not, columns of a dataframe are
    found by their names, whatever their order, and others are left out. ValueError: a column is missing.
    """
    if partitions.is_dataframe(X):
        if reset:
            check_names_of_columns([name for name in X.columns if isinstance(name, str)])
        else:
            X = _by_name(model._table, X)
        validate_data(model, X=getattr(X, "_meta", X), skip_check_array=True, reset=reset)
    elif partitions.is_distributed(X):
        like = np.empty((1, int(X.shape[1]) if X.ndim == 2 else 1), dtype=np.float32)
        partitions.check_chunks(X)
        validate_data(model, X=like, skip_check_array=True, reset=reset)
    else:
        X = validate_data(
            model,
            _with_kinds(X),
            accept_sparse="csr",
            dtype=None,
            ensure_all_finite=False,
            reset=reset,
        )
    return X


def _with_kinds(X: Any) -> Any:
    """Return X, or rows of several kinds of values in a list as an array of objects.

    numpy would turn the numbers beside text into text.
    """
    if not isinstance(X, list | tuple):
        return X
    try:
        is_text = np.asarray(X).dtype.kind in "SU"
    except ValueError:
        return X
    return np.array(X, dtype=object) if is_text else X


def _by_name(table: TableEncoder, X: Any) -> Any:
    """Return a dataframe with the columns of the table, in their order, if the table has names.

    ValueError: a column is missing, or there are two of its name.
    """
    if not table.is_named:
        return X
    wanted, names = table.feature_names_in, [str(name) for name in X.columns]
    if tuple(names) == wanted:
        return X
    require_columns(names, wanted, "X, as in fit")
    known = set(wanted)
    check_names_of_columns([name for name in names if name in known])
    found = dict(zip(names, X.columns, strict=True))
    return X[[found[name] for name in wanted]]


def encoded(model: Any, X: Any) -> Any:
    """Return a raw table X as the network takes it: an array, or a lazy Dask collection."""
    (X,) = inputs.admit(X)
    if partitions.is_distributed(X):
        return model._table.transform(X)
    return model._table.encode(X)
