"""Says once if workers exchange gradients, or wait for a slow one, for most of an epoch, and what helps."""

from __future__ import annotations

import logging
from typing import Any

from dasknn.callbacks import Callback
from dasknn.engine.state import TrainingJob
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy
from dasknn.strategies.strategy import BY_ROWS
from dasknn.training import spent
from dasknn.training.probing import OFTEN, OFTEN_STEPS

logger = logging.getLogger("dasknn")

# An epoch that takes so many times the best one is worth a word, unless both are short.
MUCH_LONGER = 2.0
_LEAST_SECONDS = 0.2
# A worker is slow if others wait for it for this share of so many epochs.
_LEAST_SHARE, _IN_A_ROW = 0.25, 2


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
    """Says once if an epoch would take much less time with fewer exchanges, or without one slow worker.

    Parameters
    ----------
    job : TrainingJob
    strategy : Strategy
        Of the training.
    """

    def __init__(self, job: TrainingJob, strategy: Strategy):
        self._job = job
        self._may_exchange_less = isinstance(strategy, GradientAveraging)
        self._may_deal = strategy.balance == BY_ROWS and not isinstance(strategy, PredictionAveraging)
        self._slow: list[str] = []

    def state(self) -> None:
        return None

    def on_epoch_done(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The first epoch connects workers, and may compile.
        if len(self.training.history) - self.training.n_before < 2:
            return
        entry = self.training.history[-1]
        if self._may_exchange_less:
            self._compare_exchanges(entry)
        if self._may_deal:
            self._compare_workers(entry)

    def _compare_exchanges(self, entry: dict[str, Any]) -> None:
        best, communication = seconds_with_fewer_exchanges(entry, self._job)
        if entry["seconds"] < max(MUCH_LONGER * best, best + _LEAST_SECONDS):
            return
        self._may_exchange_less = False
        logger.warning(
            "An epoch takes %.3g s; for %.3g s of them workers exchange gradients. With strategy="
            "WeightAveraging(every=%d, outer=OuterNesterov()) it would take about %.2g s, and learn another "
            "network: dasknn.recommend compares strategies on this cluster.",
            entry["seconds"],
            communication,
            OFTEN_STEPS,
            best,
        )

    def _compare_workers(self, entry: dict[str, Any]) -> None:
        found = spent.straggler(entry["workers"])
        waited = max((times["waiting"] for times in entry["workers"].values()), default=0.0)
        is_worth_it = found is not None and waited > max(_LEAST_SECONDS, _LEAST_SHARE * entry["seconds"])
        self._slow = [*self._slow, found.address] if found is not None and is_worth_it else []
        # A worker may be slow for a moment.
        if len(self._slow) < _IN_A_ROW or len(set(self._slow[-_IN_A_ROW:])) > 1:
            return
        assert found is not None
        self._may_deal = False
        logger.warning(
            "Workers wait for %s, which takes %.2g times as long as the others to compute its rows: %.3g s "
            "of an epoch of %.3g s. Look at what else runs there, or let it have fewer rows: strategies take "
            "balance='speed'.",
            found.address,
            found.factor,
            waited,
            entry["seconds"],
        )
