"""Rungs: who goes on, and that nothing but scores in the order of jobs decides it."""

import math
import random

import pytest

from dasknn.search.rungs import (
    Bracket,
    Job,
    Plan,
    brackets_of_trials,
    goals_of,
    halving,
    hyperband,
    together,
)


def run(brackets, score, shuffle=None):
    """Carry out a plan, whose results come in any order. Returns (jobs, epochs of trials)."""
    plan = Plan(brackets)
    for trial, bracket in enumerate(brackets_of_trials(brackets)):
        plan.add(trial, bracket)
    left, epochs = set(range(len(plan.jobs))), {}
    while left:
        number = sorted(left)[0] if shuffle is None else shuffle.choice(sorted(left))
        left.discard(number)
        job = plan.jobs[number]
        epochs[job.trial] = max(epochs.get(job.trial, 0), plan.goal(job))
        plan.end(number, score(job.trial, plan.goal(job)))
        known = len(plan.jobs)
        while plan.judge_next() is not None:
            pass
        left |= set(range(known, len(plan.jobs)))
    assert plan.n_judged == len(plan.jobs)
    return plan.jobs, epochs


@pytest.mark.parametrize(
    ("least", "most", "eta", "goals"),
    [
        (1, 27, 3, [1, 3, 9, 27]),
        (1, 9, 3, [1, 3, 9]),
        (2, 50, 4, [3, 12, 50]),
        (1, 1, 3, [1]),
        (10, 9, 3, [9]),
        (1, 10, 3, [1, 3, 10]),
        (1, 8, 1.5, [1, 2, 3, 5, 8]),
    ],
)
def test_goals_are_eta_apart_and_end_with_the_most_epochs(least, most, eta, goals):
    assert goals_of(least, most, eta) == goals


def test_hyperband_has_the_brackets_of_its_authors():
    # Li et al. 2018, table 1, R = 81 and eta = 3: n and r of the first rung of each bracket.
    found = [(bracket.n_trials, bracket.goals[0]) for bracket in hyperband(None, 81, 3)]
    assert found == [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40, 100])
def test_any_number_of_trials_is_shared_among_the_brackets(n):
    brackets = hyperband(n, 27, 3)
    assert sum(bracket.n_trials for bracket in brackets) == n
    assert sorted(brackets_of_trials(brackets)) == sorted(
        place for place, bracket in enumerate(brackets) for _ in range(bracket.n_trials)
    )


def test_the_best_third_of_each_rung_goes_on():
    _, epochs = run(halving(27, 1, 27, 3), lambda trial, goal: trial)
    assert sorted(epochs, key=epochs.get)[-1] == 26
    assert epochs[26] == 27
    assert epochs[0] < 27
    counts = [sum(own >= goal for own in epochs.values()) for goal in (1, 3, 9, 27)]
    assert counts[0] == 27
    # Promotions before all results are known may be too many, never too few.
    assert all(count >= 27 / 3**rung for rung, count in enumerate(counts))


def test_nobody_waits_for_a_rung_to_be_full():
    bracket = Bracket([1, 3], 3, n_trials=9)
    assert bracket.judge(Job(0, 0, 0), 0.1) == []
    assert bracket.judge(Job(1, 0, 0), 0.2) == []
    assert bracket.judge(Job(2, 0, 0), 0.3) == [Job(2, 0, 1)]


@pytest.mark.parametrize("n", [1, 2])
def test_one_trial_is_trained_to_the_end_however_few_there_are(n):
    _, epochs = run(halving(n, 1, 27, 3), lambda trial, goal: -trial)
    assert epochs[0] == 27


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("brackets", [lambda: hyperband(40, 27, 3), lambda: halving(30, 1, 9, 3)])
def test_the_order_in_which_results_come_decides_nothing(brackets, seed):
    def score(trial, goal):
        return math.sin(trial * 12.9898 + goal)

    assert run(brackets(), score, random.Random(seed)) == run(brackets(), score)


def test_trials_that_fail_do_not_go_on():
    jobs, epochs = run(halving(9, 1, 9, 3), lambda trial, goal: math.nan if trial == 8 else trial)
    assert epochs[8] == 1
    assert epochs[7] == 9
    assert Job(8, 0, 1) not in jobs


def test_without_rungs_all_trials_are_trained_to_the_end():
    _, epochs = run(together(5, 7), lambda trial, goal: trial)
    assert epochs == dict.fromkeys(range(5), 7)


def test_the_number_of_epochs_is_about_what_is_trained():
    brackets = hyperband(None, 27, 3)
    _, epochs = run(brackets, lambda trial, goal: (trial * 7) % 49)
    expected = sum(bracket.n_epochs for bracket in brackets)
    assert 0.6 < sum(epochs.values()) / expected < 1.6
