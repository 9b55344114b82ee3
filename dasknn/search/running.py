"""A search while it runs: rows that trials share, the runs of each trial, and what is kept of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dasknn.callbacks import checkpoints
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.executor import Executor
from dasknn.data.stations import Stations
from dasknn.exceptions import TrainingStopped
from dasknn.search.ahead import Ahead
from dasknn.search.division import Division
from dasknn.search.folder import Folder
from dasknn.search.ground import Ground, RowsToScore, RowsToTrainOn, ground_of
from dasknn.search.kinds import Kind
from dasknn.search.scoring import Scorer
from dasknn.search.trials import Gate, Patience, Run, Trial
from dasknn.seeds import seed_of_fit
from dasknn.training.fit import Columns
from dasknn.training.hopping import Hopper


@dataclass(frozen=True)
class Settings:
    """Settings of a search that all of its trials share.

    Attributes
    ----------
    kind : Kind
    scorer : Scorer
    division : Division
    patience : Patience
    max_iter : int
        Most epochs of a trial.
    seed : int
    folder : Folder or None
        Where the search is written to.
    resume : bool
    is_shown : bool
        Whether bars show the progress.
    """

    kind: Kind
    scorer: Scorer
    division: Division
    patience: Patience
    max_iter: int
    seed: int
    folder: Folder | None = None
    resume: bool = False
    is_shown: bool = False


class Running:
    """The networks of a search, on their cluster.

    Parameters
    ----------
    settings : Settings
    columns : Columns
        The rows, as the user passed them.
    executor : Executor
    """

    def __init__(self, settings: Settings, columns: Columns, executor: Executor):
        self.settings, self._columns, self.executor = settings, columns, executor
        self.hopper = Hopper(executor, Stations(executor))
        self._grounds: dict[Hashable, Ground] = {}
        self._of_trials: dict[int, Ground] = {}
        self._runs: list[Run] = []
        self.began = time.time()

    def ground(self, settings: Mapping[str, Any]) -> Ground:
        """Return the rows for trials of these settings, loaded if nobody has asked for them before.

        ValueError: data that cannot be trained on (a PartitionError names the partition).
        """
        own = self.settings
        kind = own.kind
        key = kind.key(settings)
        if key not in self._grounds:
            columns, preparation = kind.columns(settings, self._columns)
            division = own.division
            if division.data is not None and preparation is not None:
                X = preparation.transform(division.data.X)
                division = replace(division, data=division.data._replace(X=X))
            model = kind.model(settings, own.seed, own.max_iter)
            fit = kind.fit(model, settings, columns, self.executor, None, own.max_iter)
            # Of loading: an estimator's own choice is for its own fits.
            fit._verbose = 2 if own.is_shown else 0
            like = next(iter(self._grounds.values()), None)
            self._grounds[key] = ground_of(
                fit, columns, division, self.executor, self.hopper, kind.is_classifier, preparation, like
            )
        return self._grounds[key]

    def begin(self, trial: Trial) -> None:
        """Set up the runs of a trial, and start them; they wait for permission before each epoch."""
        ground = self.ground(trial.settings)
        trial.preparation = ground.preparation
        self._of_trials[trial.number] = ground
        starts = []
        try:
            for split in range(ground.n_splits):
                run = Run(trial.number, split, self.hopper.wake)
                starts.append((run, self._set_up(run, trial, ground, split)))
        except BaseException:
            trial.runs.clear()
            raise
        trial.runs += [run for run, _ in starts]
        for run, train in starts:
            self._runs.append(run)
            run.begin(train)

    def _set_up(self, run: Run, trial: Trial, ground: Ground, split: int) -> Callable[[], None]:
        own = self.settings
        run.model = own.kind.model(trial.settings, seed_of_fit(own.seed, trial.number), own.max_iter)

        def priority() -> tuple:
            # What has come far comes first: then there is soon a network that is trained to the end.
            return (-trial.rung, trial.number, split)

        ahead = Ahead()
        rows = RowsToTrainOn(ground, split, run.pace, priority, ahead, n_allowed=run.n_allowed)
        scored = RowsToScore(ground, split, run.pace_of_scores, priority, ahead)
        run.gate = Gate(run, own.scorer, scored, own.patience)
        return self._training(run, trial.settings, ground, rows, scored, own.max_iter)

    def _training(
        self,
        run: Run,
        settings: Mapping[str, Any],
        ground: Ground,
        rows: RowsToTrainOn,
        scored: RowsToScore | None,
        max_iter: int,
    ) -> Callable[[], None]:
        """Return what trains the model of a run."""
        found = self._checkpoints(run)
        fit = self.settings.kind.fit(run.model, settings, ground.columns, self.executor, found, max_iter)
        fit.last_callback = run.gate
        self.settings.kind.teach(fit, ground, rows)
        training, targets = fit.set_up(rows, scored)
        return lambda: fit.train(training, targets)

    def _checkpoints(self, run: Run) -> Checkpoints | None:
        folder = self.settings.folder
        # The last training of the best settings is not resumed.
        if folder is None or run.split < 0:
            return None
        return checkpoints.begin(folder.of_network(run.trial, run.split), self.settings.resume)

    def train_on_all_rows(self, trial: Trial, is_wanted: Callable[[], bool]) -> Any:
        """Return the model of a trial, trained again on all rows, for as many epochs as its best had.

        None: before it was done, it was no longer wanted.
        """
        own, ground = self.settings, self._of_trials[trial.number]
        # The time for trials may be over.
        self.hopper.resume()
        run = Run(trial.number, -1, self.hopper.wake)
        run.model = own.kind.model(trial.settings, seed_of_fit(own.seed, trial.number), own.max_iter)
        if hasattr(run.model, "early_stopping"):
            # No rows are left to score.
            run.model.set_params(early_stopping=False)
        run.gate = Gate(run, own.scorer, None, Patience())
        rows = RowsToTrainOn(ground, -1, run.pace, tuple, Ahead(), n_allowed=run.n_allowed)
        train = self._training(run, trial.settings, ground, rows, None, own.max_iter)
        run.allow(trial.best_epoch)
        self._runs.append(run)
        run.begin(train)

        def is_done() -> bool:
            if len(run.entries) >= trial.best_epoch:
                run.end()
            return run.has_ended or not is_wanted()

        self.hopper.run(is_done)
        if not run.has_ended:
            return None
        if run.error is not None:
            raise run.error
        return self.finished(trial, run.model)

    def finished(self, trial: Trial, model: Any) -> Any:
        """Return the model of a trial that users get."""
        return self.settings.kind.finished(model, trial.preparation)

    def ground_of(self, trial: Trial) -> Ground:
        """Return the rows of a trial."""
        return self._of_trials[trial.number]

    def close(self) -> None:
        """Let all runs end, and release whatever is on workers."""
        for run in self._runs:
            run.end()
        # Whatever has ended the search, nobody waits for a journey that nobody serves.
        self.hopper.end(TrainingStopped())
        self.hopper.close()
