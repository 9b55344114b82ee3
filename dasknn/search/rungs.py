"""Which trials go on, and how far: rungs of successive halving, brackets of them, or one goal for all.

A *job* trains a trial to a goal, a number of epochs. Jobs have numbers in the order in which they are given
out, and their results are judged in this order, whatever order they come in: so decisions, and with them the
results of a search, do not depend on the cluster. Nothing waits for a rung to be full: with each result that
is judged, trials that are now among the best of their rung go on (ASHA).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Job(NamedTuple):
    """A trial's way to the next rung."""

    trial: int
    bracket: int
    rung: int


@dataclass
class Bracket:
    """Rungs of successive halving: the best 1 / eta of each rung go on to the next.

    Parameters
    ----------
    goals : sequence of int
        The epochs at which trials are compared, ascending.
    eta : float
    n_trials : int or None
        How many trials begin here. None: nobody knows yet.
    """

    goals: Sequence[int]
    eta: float
    n_trials: int | None = None
    #: Of each rung: the score of each trial that has reached it, and the trials that have left it upwards.
    scores: list[dict[int, float]] = field(init=False)
    promoted: list[set[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.scores = [{} for _ in self.goals]
        self.promoted = [set() for _ in self.goals]

    def judge(self, job: Job, score: float) -> list[Job]:
        """Note the score of a job, the greater the better; return the jobs that follow from it."""
        self.scores[job.rung][job.trial] = score
        found: list[Job] = []
        for rung in range(len(self.goals) - 1):
            found += [Job(trial, job.bracket, rung + 1) for trial in self._promotable(rung)]
        return found

    def _promotable(self, rung: int) -> list[int]:
        """Return the trials that go on from a rung now, the best first."""
        scores, gone = self.scores[rung], self.promoted[rung]
        known = sorted((-score, trial) for trial, score in scores.items() if not math.isnan(score))
        most = math.floor(len(scores) / self.eta)
        if not most and self._is_full(rung):
            # However few trials there are, one is trained to the end.
            most = 1
        best = [trial for _, trial in known[:most] if trial not in gone]
        gone.update(best)
        return best

    def _is_full(self, rung: int) -> bool:
        """Return whether no more trials will come to a rung."""
        if rung == 0:
            return len(self.scores[0]) == self.n_trials
        return self._is_full(rung - 1) and len(self.scores[rung]) == len(self.promoted[rung - 1])

    @property
    def n_epochs(self) -> float:
        """About how many epochs are trained in all, if each rung passes on its share."""
        if self.n_trials is None:
            return math.inf
        left, before, total = float(self.n_trials), 0, 0.0
        for goal in self.goals:
            total += max(left, 1.0) * (goal - before)
            left, before = left / self.eta, goal
        return total


def goals_of(least: int, most: int, eta: float) -> list[int]:
    """Return the goals of rungs from `least` epochs, each eta times the one before, to `most`."""
    found = [most]
    while found[-1] / eta >= least * (1 - 1e-9) and round(found[-1] / eta) < found[-1]:
        found.append(max(1, round(found[-1] / eta)))
    return found[::-1]


def halving(n_trials: int | None, least: int, most: int, eta: float) -> list[Bracket]:
    """Return the one bracket of successive halving."""
    return [Bracket(goals_of(least, most, eta), eta, n_trials)]


def hyperband(n_trials: int | None, most: int, eta: float) -> list[Bracket]:
    """Return the brackets of Hyperband (Li et al. 2018), from that with most rungs to that with one goal.

    n_trials: shared among the brackets in Hyperband's proportions. None: Hyperband's own numbers.
    """
    n_brackets = len(goals_of(1, most, eta))
    goals = [goals_of(1, most, eta)[first:] for first in range(n_brackets)]
    own = [math.ceil(n_brackets / len(rungs) * eta ** (len(rungs) - 1)) for rungs in goals]
    if n_trials is None:
        shares = own
    else:
        ends = [round(sum(own[: k + 1]) * n_trials / sum(own)) for k in range(n_brackets)]
        shares = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    found = zip(goals, shares, strict=True)
    return [Bracket(rungs, eta, share) for rungs, share in found if share]


def together(n_trials: int | None, most: int) -> list[Bracket]:
    """Return one bracket without rungs: all trials are trained to the end."""
    return [Bracket([most], math.inf, n_trials)]


def brackets_of_trials(brackets: Sequence[Bracket]) -> list[int]:
    """Return the bracket of each trial, in turns, so that each bracket soon has some."""
    due = [
        ((number + 0.5) / (bracket.n_trials or 1), place)
        for place, bracket in enumerate(brackets)
        for number in range(bracket.n_trials or 0)
    ]
    return [place for _, place in sorted(due)]


@dataclass
class Plan:
    """The jobs of a search, in their order, and what has been judged of them.

    Parameters
    ----------
    brackets : sequence of Bracket
    """

    brackets: Sequence[Bracket]
    jobs: list[Job] = field(default_factory=list)
    #: Scores of jobs that have ended, by number; NaN: the trial has failed.
    scores: dict[int, float] = field(default_factory=dict)
    n_judged: int = 0

    def add(self, trial: int, bracket: int) -> None:
        """Give out the first job of a trial."""
        self.jobs.append(Job(trial, bracket, 0))

    def goal(self, job: Job) -> int:
        """Return the epoch to which a job trains."""
        return self.brackets[job.bracket].goals[job.rung]

    def end(self, number: int, score: float) -> None:
        """Note the score of a job."""
        self.scores[number] = score

    def judge_next(self) -> Job | None:
        """Judge the next result, if it is there: add the jobs that follow from it, and return its job."""
        if (score := self.scores.get(self.n_judged)) is None:
            return None
        job = self.jobs[self.n_judged]
        self.n_judged += 1
        self.jobs += self.brackets[job.bracket].judge(job, score)
        return job
