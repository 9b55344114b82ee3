"""Says once if workers exchange gradients for most of an epoch, and what would take less time."""

from __future__ import annotations

import logging
from typing import Any

from dasknn.callbacks import Callback
from dasknn.engine.state import TrainingJob
from dasknn.strategies import GradientAveraging, Strategy
from dasknn.training.probing import OFTEN, OFTEN_STEPS

logger = logging.getLogger("dasknn")

# An epoch that takes so many times the best one is worth a word, unless both are short.
MUCH_LONGER = 2.0
_LEAST_SECONDS = 0.2


def seconds_with_fewer_exchanges(entry: dict[str, Any], job: TrainingJob) -> tuple[float, float]:
    """Return what an epoch of averaged gradients would take if weights were averaged now and then instead.

    entry: of the history. Return seconds with an exchange every OFTEN_STEPS steps, and the seconds of
    exchanges that are in those of the epoch.
    """
    communication = min((times["communication"] for times in entry["workers"].values()), default=0.0)
    # Vectors may be longer than gradients: averages of weights carry the optimizer's slots, too.
    length = OFTEN.contribution_length(job) / GradientAveraging().contribution_length(job)
    left = communication * min(1.0, length / OFTEN_STEPS)
    return entry["seconds"] - communication + left, communication


class Pace(Callback):
    """Compares each epoch with what it would take with fewer exchanges; runs in the background of each fit.

    Parameters
    ----------
    job : TrainingJob
    strategy : Strategy
        Of the training.
    """

    def __init__(self, job: TrainingJob, strategy: Strategy):
        self._job = job
        self._is_done = not isinstance(strategy, GradientAveraging)

    def state(self) -> None:
        return None

    def on_epoch_done(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The first epoch connects workers, and may compile.
        if self._is_done or len(self.training.history) - self.training.n_before < 2:
            return
        entry = self.training.history[-1]
        best, communication = seconds_with_fewer_exchanges(entry, self._job)
        if entry["seconds"] < max(MUCH_LONGER * best, best + _LEAST_SECONDS):
            return
        self._is_done = True
        logger.warning(
            "An epoch takes %.3g s; for %.3g s of them workers exchange gradients. With strategy="
            "WeightAveraging(every=%d, outer=OuterNesterov()) it would take about %.2g s, and learn another "
            "network: dasknn.recommend compares strategies on this cluster.",
            entry["seconds"],
            communication,
            OFTEN_STEPS,
            best,
        )
