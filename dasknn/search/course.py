"""The course of a search: proposes trials, judges their scores in a fixed order, lets them go on or end.

`Course.tick` is called by the loop of the hopper, whenever something has happened. It never waits.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from math import inf, isnan

from dasknn.exceptions import TrainingStopped
from dasknn.search.rungs import Plan, brackets_of_trials
from dasknn.search.sampling import Result, Sampler
from dasknn.search.trials import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, WAITING, Trial
from dasknn.training.hopping import Hopper

logger = logging.getLogger("dasknn")

# A sampler that learns proposes a trial when all but so many of the jobs before it have been judged. It is a
# number of its own, so that proposals do not depend on the size of the cluster.
_AHEAD = 16
# To set up a trial takes some hundredths of a second.
_BEGUN_AT_ONCE = 4
# Of an unlimited number of trials, so many wait for each thread of the cluster.
_WAITING = 2


class Course:
    """A search on its way.

    Parameters
    ----------
    plan : Plan
    sampler : Sampler
    n_trials : int or None
        None: trials are proposed until the time is over.
    begin : callable(Trial) -> None
        Prepares the runs of a trial, and starts their threads. An exception is the trial's.
    hopper : Hopper
    n_slots : callable() -> int
    deadline : float
        `time.monotonic()` at which no more training is done.
    """

    def __init__(
        self,
        plan: Plan,
        sampler: Sampler,
        n_trials: int | None,
        begin: Callable[[Trial], None],
        hopper: Hopper,
        n_slots: Callable[[], int],
        deadline: float = inf,
    ):
        self.plan, self.trials = plan, []  # type: Plan, list[Trial]
        self._sampler, self.n_trials, self._begin = sampler, n_trials, begin
        self._hopper, self._n_slots, self._deadline = hopper, n_slots, deadline
        self._brackets = [] if n_trials is None else brackets_of_trials(plan.brackets)
        self._results: list[Result] = []
        self._unbegun: deque[Trial] = deque()
        self._n_started = 0
        # Numbers of the jobs that are trained for, by trial.
        self._open: dict[int, int] = {}
        self.is_stopping = False
        self.has_timed_out = False

    # --- what the loop calls -----------------------------------------------------------------------

    def tick(self) -> bool:
        """Take note of what has happened; return whether all trials have ended."""
        if not self.is_stopping:
            # A search that has found nothing would be a waste of all its time.
            if time.monotonic() > self._deadline and (self.best() is not None or self._has_nothing()):
                self.has_timed_out = True
                self.stop()
            else:
                self._go_on()
        return self.is_stopping and all(run.has_ended for trial in self.trials for run in trial.runs)

    def stop(self, at_once: bool = False) -> None:
        """Train no more: what travels is given up.

        at_once: also what only scores.
        """
        self._end_runs()
        self._hopper.stop(TrainingStopped(), everything=at_once)

    def _end_runs(self) -> None:
        self.is_stopping = True
        for trial in self.trials:
            for run in trial.runs:
                run.end()

    def _has_nothing(self) -> bool:
        """Return whether all trials so far have failed."""
        return bool(self.trials) and all(trial.has_failed for trial in self.trials)

    def _go_on(self) -> None:
        has_changed = True
        while has_changed:
            self._propose()
            self._begin_some()
            self._start_jobs()
            has_changed = self._end_jobs() | self._judge()
        if not self._open and not self._wants_more() and self._n_started == len(self.plan.jobs):
            self._end_runs()

    # --- trials ------------------------------------------------------------------------------------

    def _wants_more(self) -> bool:
        return self.n_trials is None or len(self.trials) < self.n_trials

    def _propose(self) -> None:
        while self._wants_more() and self._may_propose():
            number = len(self.trials)
            bracket = self._brackets[number] if self._brackets else number % len(self.plan.brackets)
            trial = Trial(number, self._sampler.propose(number, list(self._results)), bracket)
            self.trials.append(trial)
            self.plan.add(number, bracket)
            self._unbegun.append(trial)

    def _begin_some(self) -> None:
        """Set up the next trials; not all at once, since workers may have nothing to do meanwhile."""
        for _ in range(min(_BEGUN_AT_ONCE, len(self._unbegun))):
            trial = self._unbegun.popleft()
            try:
                self._begin(trial)
            except Exception as error:
                trial.error = error
            trial.has_begun = True
            for run in trial.runs:
                run.allow(self.plan.brackets[trial.bracket].goals[0])
        if self._unbegun:
            self._hopper.wake()

    def _may_propose(self) -> bool:
        number = len(self.trials)
        if self.n_trials is None:
            return len(self._open) + len(self.plan.jobs) - self._n_started < _WAITING * self._n_slots() + 1
        return not self._sampler.learns or number < _AHEAD + self.plan.n_judged

    # --- jobs --------------------------------------------------------------------------------------

    def _start_jobs(self) -> None:
        for number in range(self._n_started, len(self.plan.jobs)):
            job = self.plan.jobs[number]
            trial, goal = self.trials[job.trial], self.plan.goal(job)
            trial.rung = job.rung
            self._open[job.trial] = number
            for run in trial.runs:
                run.allow(goal)
        self._n_started = len(self.plan.jobs)

    def _end_jobs(self) -> bool:
        """Note the scores of jobs that have ended; return whether there were any."""
        ended = []
        for number in self._open.values():
            job = self.plan.jobs[number]
            trial, goal = self.trials[job.trial], self.plan.goal(job)
            if trial.has_reached(goal):
                ended.append(job.trial)
                self.plan.end(number, trial.score_at(goal))
                if trial.has_failed:
                    self._fail(trial)
        for number in ended:
            del self._open[number]
        return bool(ended)

    def _fail(self, trial: Trial) -> None:
        for run in trial.runs:
            run.end()
        failure = trial.failure
        logger.warning("Trial %d has failed: %s: %s", trial.number, type(failure).__name__, failure)

    def _judge(self) -> bool:
        """Judge results in their order, as far as they are there; return whether there were any."""
        any_judged = False
        while (job := self.plan.judge_next()) is not None:
            any_judged = True
            trial, goal = self.trials[job.trial], self.plan.goal(job)
            score = trial.score_at(goal)
            self._results.append(Result(trial.number, trial.settings, min(goal, trial.n_epochs), score))
            if self._sampler.learns:
                # Each result counts for the proposal that comes next, and for none before.
                self._propose()
        return any_judged

    # --- for people --------------------------------------------------------------------------------

    def status(self, trial: Trial) -> str:
        """Return what a trial does, or what became of it."""
        if trial.has_failed:
            return FAILED
        last = len(self.plan.brackets[trial.bracket].goals) - 1
        goal = self.plan.brackets[trial.bracket].goals[trial.rung]
        if trial.number in self._open:
            if self.is_stopping:
                return PAUSED
            paces = (pace for run in trial.runs for pace in (run.pace, run.pace_of_scores))
            return RUNNING if any(map(self._hopper.is_on_way, paces)) else WAITING
        if trial.rung == last and trial.n_epochs >= goal:
            return FINISHED
        return STOPPED if all(run.has_ended_itself for run in trial.runs) else PAUSED

    def best(self) -> Trial | None:
        """Return the trial with the best score, the first of equals; None: none has a score."""
        scored = [trial for trial in self.trials if not isnan(trial.score)]
        return max(scored, key=lambda one: (one.score, -one.number), default=None)
