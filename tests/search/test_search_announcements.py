"""A search tells the scheduler of itself: all of it, in bounded events, and never at its own cost."""

import json
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from dasknn import HyperbandSearch, MLPClassifier
from dasknn.cluster.executor import TOPIC
from dasknn.search import announcements
from dasknn.search.announcements import Announcements, described
from dasknn.search.course import Course
from dasknn.search.rungs import Bracket, Plan
from dasknn.search.trials import SCORE, Run, Trial

SPACE = {"learning_rate_init": [1e-4, 1e-3, 1e-2, -1.0], "activation": ["relu", "tanh"]}
PLAIN = (int, float, str, bool, type(None))


@pytest.fixture
def eager(monkeypatch):
    """Announce whatever is new, however soon."""
    monkeypatch.setattr(announcements, "_SECONDS", 0.0)
    monkeypatch.setattr(announcements, "_PAUSES", 0)


def search_of(**settings):
    settings = {"max_iter": 3, "random_state": 0, "max_ensemble": 0, "verbose": False, **settings}
    return HyperbandSearch(MLPClassifier((4,)), SPACE, **settings)


def events_of(client):
    events = [event for _, event in client.get_events(TOPIC) if "search" in event]
    return [event for event in events if event["search"] == events[-1]["search"]]


def assert_plain(value):
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in PLAIN


def assert_tells(events, search):
    """The events together have what the search has found."""
    results = search.cv_results_
    scores = {(trial, epoch): score for event in events for trial, epoch, score in event["scores"]}
    assert len(scores) == sum(len(event["scores"]) for event in events)
    assert scores == {
        (entry["trial"], entry["epoch"]): pytest.approx(entry["score"], rel=1e-5) for entry in search.history_
    }
    trials = {row["trial"]: row for event in events for row in event["trials"]}
    assert [trials[k]["status"] for k in range(len(trials))] == results["status"].tolist()
    for name in ("bracket", "rung"):
        assert [trials[k][name] for k in range(len(trials))] == results[name].tolist()
    assert [trials[k]["epochs"] for k in range(len(trials))] == results["n_epochs"].tolist()
    told = [np.nan if trials[k]["score"] is None else trials[k]["score"] for k in range(len(trials))]
    np.testing.assert_allclose(told, results["mean_test_score"], rtol=1e-5)


# --- on a cluster --------------------------------------------------------------------------------------


def test_a_search_tells_of_itself_from_beginning_to_end(client, dask_digits, eager):
    search = search_of().fit(*dask_digits)
    events = events_of(client)
    assert [events[0]["what"], events[-1]["what"], events[-1]["state"]] == ["begin", "end", "completed"]
    assert {event["what"] for event in events[1:-1]} == {"news"}
    about = events[0]["about"]
    assert about["name"] == "HyperbandSearch of MLPClassifier, 5 trials, up to 3 epochs"
    assert (about["score"], about["n_trials"], about["max_iter"]) == ("accuracy", 5, 3)
    assert about["brackets"] == ({"goals": (1, 3), "n_trials": 3}, {"goals": (3,), "n_trials": 2})
    assert all(event["about"] == about and event["client"] == client.id for event in events)
    assert_tells(events, search)
    assert events[-1]["best"] == search.best_index_
    assert events[-1]["best_score"] == pytest.approx(search.best_score_, rel=1e-5)
    rate = search.best_params_["learning_rate_init"]
    assert f"learning_rate_init={rate:.3g}" in events[-1]["best_settings"]
    assert_plain(events)


def test_trials_do_not_announce_trainings_of_their_own(client, dask_digits):
    before = len([event for _, event in client.get_events(TOPIC) if "run" in event])
    search_of(n_trials=2).fit(*dask_digits)
    assert len([event for _, event in client.get_events(TOPIC) if "run" in event]) == before


# --- without one ---------------------------------------------------------------------------------------


class Told:
    """Stands for an executor, and keeps what is announced."""

    def __init__(self):
        self.events = []

    def announce(self, event, patience=0.0):
        assert patience <= 1.0
        self.events.append(json.loads(json.dumps(event)))


def course_of(n_trials, n_epochs=0, goals=(3, 9)):
    """A search that was never made, all of whose trials run."""
    bracket = Bracket(goals, 3, n_trials)
    hopper = SimpleNamespace(stop=lambda error, everything=False: None, is_on_way=lambda pace: True)
    course = Course(Plan([bracket]), None, n_trials, None, hopper, lambda: 1)
    for number in range(n_trials):
        trial = Trial(number, {"units": number}, 0, has_begun=True)
        trial.runs.append(Run(number, 0, lambda: None))
        train(trial, n_epochs)
        course.trials.append(trial)
        course.plan.add(number, 0)
    course._open = {job.trial: number for number, job in enumerate(course.plan.jobs)}
    return course


def train(trial, n_epochs):
    for _ in range(n_epochs):
        for run in trial.runs:
            run.entries.append({SCORE: 0.5 + trial.number / 1e5, "ended": 0.0})


def told_of(course, score="accuracy"):
    told = Told()
    search = search_of()
    return Announcements(course, told, described(search, score, course.plan.brackets, 100.0)), told


def test_a_trial_runs_while_it_is_trained_or_scored_on_a_worker_and_waits_otherwise():
    course = course_of(3)
    trained, scored, _ = course.trials
    on_way = {trained.runs[0].pace, scored.runs[0].pace_of_scores}
    course._hopper.is_on_way = on_way.__contains__
    assert [course.status(trial) for trial in course.trials] == ["running", "running", "waiting"]


def test_trials_that_have_not_begun_when_a_search_is_stopped_are_paused():
    course = course_of(3)
    course.trials[2].runs.clear()
    course.stop()
    assert [course.status(trial) for trial in course.trials] == ["paused"] * 3


def test_each_event_has_only_what_is_new(eager):
    course = course_of(3)
    announcements, told = told_of(course)
    train(course.trials[1], 2)
    announcements.update()
    announcements.update()
    train(course.trials[1], 1)
    announcements.update()
    assert [event["what"] for event in told.events] == ["begin", "news", "news"]
    assert [row["trial"] for row in told.events[0]["trials"]] == [0, 1, 2]
    assert told.events[1]["scores"] == [[1, 1, 0.50001], [1, 2, 0.50001]]
    (row,) = told.events[2]["trials"]
    assert (row["trial"], row["epochs"], row["rungs"]) == (1, 3, [0.50001])
    assert "settings" not in row
    assert told.events[2]["scores"] == [[1, 3, 0.50001]]


def test_a_trial_that_has_failed_has_reached_no_rung(eager):
    course = course_of(2, n_epochs=3)
    told_by, told = told_of(course)
    assert [len(row["rungs"]) for row in told.events[0]["trials"]] == [1, 1]
    course.trials[1].runs[0].error = ValueError("x")
    told_by.update()
    (row,) = told.events[-1]["trials"]
    assert (row["trial"], row["status"], row["score"], row["rungs"]) == (1, "failed", None, [])


def test_what_is_new_waits_until_an_event_is_due(monkeypatch):
    assert announcements._SECONDS >= 0.5
    monkeypatch.setattr(announcements, "_SECONDS", 1e6)
    course = course_of(2)
    told_by, told = told_of(course)
    for _ in range(20):
        train(course.trials[1], 1)
        told_by.update()
    assert [event["what"] for event in told.events] == ["begin", "news"]
    told_by.end(False)
    assert [event["what"] for event in told.events] == ["begin", "news", "news", "end"]
    assert [epoch for event in told.events for _, epoch, _ in event["scores"]] == list(range(1, 21))


def test_events_are_small_and_leave_nothing_out_however_many_trials_there_are(eager):
    course = course_of(1000, n_epochs=3)
    announcements, told = told_of(course)
    announcements.end(False)
    assert max(len(json.dumps(event)) for event in told.events) < 60_000
    rows = [row["trial"] for event in told.events for row in event["trials"]]
    scores = [(trial, epoch) for event in told.events for trial, epoch, _ in event["scores"]]
    assert sorted(rows) == list(range(1000))
    assert sorted(scores) == [(trial, epoch) for trial in range(1000) for epoch in (1, 2, 3)]
    assert told.events[-1]["what"] == "end"


def test_what_a_scheduler_keeps_of_a_long_search_shows_its_best_trials(eager):
    course = course_of(30)
    announcements, told = told_of(course)
    for k in range(600):
        train(course.trials[k % 30], 1)
        announcements.update()
    kept = told.events[-250:]
    trials = {row["trial"] for event in kept for row in event["trials"] if "settings" in row}
    assert trials == set(range(30))
    epochs = {epoch for event in kept for trial, epoch, _ in event["scores"] if trial == 29}
    assert {1, 20} <= epochs
    assert max(map(len, map(json.dumps, kept))) < 60_000


@pytest.mark.parametrize(
    ("end", "state", "error"),
    [
        (lambda announcements: announcements.end(True), "interrupted", ""),
        (lambda announcements: announcements.end(False), "timed out", ""),
        (
            lambda announcements: failing(announcements, ZeroDivisionError("x")),
            "failed",
            "ZeroDivisionError: x",
        ),
        (lambda announcements: failing(announcements, KeyboardInterrupt()), "interrupted", ""),
    ],
)
def test_a_search_says_why_it_ended(end, state, error):
    course = course_of(2, n_epochs=3)
    course.has_timed_out = state == "timed out"
    announcements, told = told_of(course)
    end(announcements)
    assert [told.events[-1][name] for name in ("what", "state", "error")] == ["end", state, error]
    announcements.update()
    assert told.events[-1]["what"] == "end"


def failing(announcements, error):
    with suppress(type(error)):
        try:
            raise error
        finally:
            announcements.end(False)


def test_a_search_without_a_score_says_that_it_failed():
    announcements, told = told_of(course_of(2))
    announcements.end(False)
    assert told.events[-1]["state"] == "failed"
    assert told.events[-1]["best"] is None


def test_announcing_never_fails_a_search(eager, digits, monkeypatch):
    course = course_of(2, n_epochs=1)
    announcements, told = told_of(course)
    course.best = None
    train(course.trials[0], 1)
    announcements.update()
    announcements.end(False)
    assert [event["what"] for event in told.events] == ["begin"]


def test_a_score_that_is_no_number_is_none(eager):
    course = course_of(1)
    announcements, told = told_of(course)
    course.trials[0].runs[0].entries += [{SCORE: np.nan}, {SCORE: -np.inf}, {"loss": 1.0}]
    announcements.update()
    assert told.events[-1]["scores"] == [[0, 1, None], [0, 2, None], [0, 3, None]]
