"""The bar of a search says what people wait for, where somebody looks at it."""

import sys

import pytest

from dasknn import MLPClassifier, RandomSearch, SuccessiveHalvingSearch
from dasknn.search.progress import SearchBar

SPACE = {"learning_rate_init": [1e-4, 1e-3, 1e-2, -1.0], "activation": ["relu", "tanh"]}
SETTINGS = {"n_trials": 4, "max_iter": 3, "random_state": 0, "max_ensemble": 0}


@pytest.fixture
def in_terminal(capsys, monkeypatch):
    """Call a function with streams that say that they are a terminal; return what stderr was told."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            for stream in (sys.stdout, sys.stderr):
                patch.setattr(stream, "isatty", lambda: True)
            function(*args)
        return capsys.readouterr().err

    return call


def search_of(kind=RandomSearch, **settings):
    return kind(MLPClassifier((4,)), SPACE, **SETTINGS, **settings)


def test_a_terminal_shows_epochs_trials_and_the_best_score(digits, in_terminal):
    search = search_of()
    shown = in_terminal(search.fit, *digits)
    n_failed = int((search.cv_results_["status"] == "failed").sum())
    done = len(search.history_)
    assert "/12 epochs [" in shown
    assert " of 4 trials running" in shown
    # The total was an estimate, and all that was planned is done.
    assert "100%" in shown
    assert f" {done}/{done} epochs [" in shown
    best = shown.splitlines()[-1].rpartition("\r")[2]
    assert f"best {search.best_score_:.4f}, 4 trials" in shown
    assert not n_failed or f"{n_failed} failed" in shown
    rate = search.best_params_["learning_rate_init"]
    assert best == (
        f"best accuracy {search.best_score_:.4f}: trial {search.best_index_}, "
        f"activation={search.best_params_['activation']}, learning_rate_init={rate:.3g}"
    )


def test_nothing_is_shown_where_nobody_looks_or_who_wants_silence(digits, in_terminal, capsys):
    search_of().fit(*digits)
    assert capsys.readouterr() == ("", "")
    assert in_terminal(search_of(verbose=False).fit, *digits) == ""


def test_who_asks_for_it_sees_the_bar_in_a_file_too(digits, capsys):
    search_of(verbose=True).fit(*digits)
    shown = capsys.readouterr().err
    assert "epochs [" in shown
    assert "best accuracy" in shown


def test_without_a_number_of_trials_nobody_says_how_many_epochs(digits, in_terminal):
    settings = SETTINGS | {"n_trials": None, "time_budget": 1.0, "max_iter": 3}
    search = SuccessiveHalvingSearch(MLPClassifier((4,)), {"alpha": _Drawn()}, **settings)
    shown = in_terminal(search.fit, *digits)
    assert f"{len(search.history_)} epochs [" in shown
    assert "/" not in shown.rpartition("epochs [")[0].rpartition("search: ")[2]


class _Drawn:
    """A distribution without an end."""

    def rvs(self, random_state=None):
        return abs(random_state.normal())

    def ppf(self, u):
        return 1e-3 * u


class _Course:
    """A course none of whose trials has begun."""

    n_trials = 3
    trials = ()

    def best(self):
        return None


def test_a_search_without_a_score_has_no_last_line(in_terminal):
    shown = in_terminal(lambda: SearchBar(_Course(), 9, "accuracy", True).close(False))
    assert "0/9 epochs" in shown
    assert "best" not in shown
