"""The page shows searches beside trainings, whatever else is logged under the topic."""

import re
import threading

import pytest
from test_dashboard import HTML, Scheduler, Viewer, begun, browser  # noqa: F401

from dasknn import HyperbandSearch, MLPClassifier, dashboard
from dasknn.dashboard.searches import _MOST_CURVES, _MOST_POINTS, _MOST_TRIALS

ABOUT = {
    "name": "HyperbandSearch of MLPClassifier, 5 trials, up to 9 epochs",
    "kind": "HyperbandSearch",
    "model": "MLPClassifier",
    "score": "accuracy",
    "n_trials": 5,
    "max_iter": 9,
    "n_epochs": 21,
    "brackets": ({"goals": (1, 3, 9), "n_trials": 4}, {"goals": (9,), "n_trials": 1}),
}


def event_of(search, **more):
    event = {"search": search, "about": ABOUT, "what": "begin", "time": 0.0, "seconds": 0.0, "n_epochs": 0}
    event |= {"trials": (), "scores": (), "best": None}
    return event | {"client": "c"} | more


def row_of(trial, status="running", rungs=(), **more):
    row = {"trial": trial, "bracket": 0, "rung": max(0, len(rungs) - 1), "status": status, "epochs": 1}
    row |= {"score": max(rungs, default=None), "rungs": rungs, "settings": f"units={trial}"}
    return row | more


def page_of(*events):
    board = dashboard.Board(Scheduler(events))
    page = dashboard.Page(board)
    page.update()
    return page, board


HALFWAY = event_of(
    "s",
    what="news",
    seconds=10.0,
    n_epochs=7,
    best=1,
    trials=(
        row_of(0, "paused", (0.5,)),
        row_of(1, "running", (0.7, 0.8), rung=2),
        row_of(2, "failed", ()),
        row_of(3, "running"),
        row_of(4, "finished", (0.6,), bracket=1),
    ),
    scores=((0, 1, 0.5), (1, 1, 0.7), (1, 2, 0.75), (1, 3, 0.8), (4, 1, None), (4, 2, 0.6)),
)


def test_rungs_say_how_many_trials_are_at_each_and_the_best_score_there():
    _, board = page_of(event_of("s"), HALFWAY)
    rows = board.searches["s"].rungs
    assert [(row["bracket"], row["epochs"]) for row in rows] == [(0, 1), (0, 3), (0, 9), (1, 9)]
    assert [row["reached"] for row in rows] == [2, 1, 0, 1]
    assert [(row["score"], row["trial"]) for row in rows] == [(0.7, 1), (0.8, 1), (None, None), (0.6, 4)]
    counts = {status: [row[status] for row in rows] for status in ("running", "paused", "ended", "failed")}
    assert counts == {
        "running": [1, 0, 1, 0],
        "paused": [1, 0, 0, 0],
        "ended": [0, 0, 0, 1],
        "failed": [1, 0, 0, 0],
    }


def test_the_page_shows_a_search_instead_of_a_training():
    page, _ = page_of(begun("a"), event_of("s"), HALFWAY)
    assert (page._drawings.visible, page._search_drawings.visible) == (False, True)
    text = re.sub("<[^>]*>", "", page._header.text)
    assert "HyperbandSearch of MLPClassifier running" in text
    assert "units=1" in text
    for fact in ("5 of 5 trials", "2 running", "1 failed", "7 epochs of about 21", "0:00:20 left", "0.8000"):
        assert fact in text
    lines = page._curves._lines.data
    assert dict(zip(lines["trial"], lines["scores"], strict=True)) == {
        0: [0.5],
        1: [0.7, 0.75, 0.8],
        4: [0.6],
    }
    assert page._curves._best.data == {"epoch": [1, 2, 3], "score": [0.7, 0.75, 0.8]}
    assert len(set(lines["color"])) == 2
    assert "units=1" in page._rungs.root.text


def test_a_training_can_be_chosen_beside_searches():
    page, board = page_of(begun("a"), event_of("s"), HALFWAY, event_of("t"), begun("b"))
    assert board.newest == "b"
    assert [name for name, _ in page._select.options] == ["", "b", "t", "s", "a"]
    assert page._drawings.visible
    page._select.value = "s"
    assert (page._drawings.visible, page._search_drawings.visible) == (False, True)
    assert "7</b> epochs" in page._header.text
    page._select.value = "a"
    assert (page._drawings.visible, page._search_drawings.visible) == (True, False)


def test_a_search_that_has_ended_says_how():
    end = HALFWAY | {"what": "end", "state": "timed out", "best_settings": "units=one", "best_score": 0.8}
    page, board = page_of(end)
    assert board.state_of("s") == "timed out"
    assert "timed out" in page._header.text
    assert "units=one" in page._header.text
    assert "left" not in page._header.text
    page, board = page_of(event_of("s", what="end", state="failed", error=HTML))
    assert "&lt;img" in page._header.text
    assert "<img" not in page._header.text


def test_a_search_whose_client_is_gone_is_not_said_to_run():
    board = dashboard.Board(Scheduler([event_of("s")], clients=()))
    board.refresh()
    assert board.state_of("s") == "lost"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"search": 3}, "search"),
        ({"about": {}}, "about"),
        ({"about": ABOUT | {"brackets": ()}}, "about.brackets"),
        ({"about": ABOUT | {"brackets": ({"goals": (0,), "n_trials": 1},)}}, "goals"),
        ({"what": HTML}, "what"),
        ({"trials": (row_of(0, HTML),)}, r"trials\[0\]\.status"),
        ({"trials": (row_of(0, score=HTML),)}, r"trials\[0\]\.score"),
        ({"trials": (row_of(0, settings=3),)}, r"trials\[0\]\.settings"),
        ({"trials": ({"trial": 1},)}, r"trials\[0\]"),
        ({"scores": ((0, 1),)}, r"scores\[0\]"),
        ({"scores": ((0, 1, HTML),)}, r"scores\[0\]"),
        ({"scores": ((0, 1, float("inf")),)}, r"scores\[0\]"),
        ({"scores": ((-1, 1, 0.5),)}, r"scores\[0\]"),
        ({"best": HTML}, "best"),
        ({"what": "end", "state": HTML}, "state"),
        ({"seconds": float("nan")}, "seconds"),
    ],
    ids=str,
)
def test_a_damaged_event_is_left_out_and_that_is_logged_once(change, where, caplog):
    scheduler = Scheduler([event_of("good"), event_of("bad") | change, event_of("bad") | change])
    board = dashboard.Board(scheduler)
    page = dashboard.Page(board)
    page.update()
    assert list(board.searches) == ["good"]
    (record,) = (record for record in caplog.records if record.name.startswith("dasknn"))
    assert re.search(f"such as one with this problem: expected .*{where}", record.message)
    scheduler.log(event_of("later"))
    page.update()
    assert list(board.searches) == ["good", "later"]


def test_numbers_of_trials_and_brackets_that_do_not_exist_do_no_harm():
    odd = (row_of(7, "running", (0.5, 0.6, 0.7, 0.8, 0.9), bracket=40, rung=63, epochs=2**50),)
    page, board = page_of(event_of("s", trials=odd, scores=((9, 5, 0.5), (7, 2**50, 0.1)), best=11))
    assert sum(row["reached"] for row in board.searches["s"].rungs) == 0
    assert "no scores yet" in page._header.text


def test_what_an_event_says_is_drawn_as_text():
    about = ABOUT | dict.fromkeys(("name", "kind", "model", "score"), HTML)
    row = row_of(0, "paused", (0.5,), settings=HTML)
    page, _ = page_of(event_of("s", about=about, trials=(row,), scores=((0, 1, 0.5),), best=0))
    for text in (page._header.text, page._rungs.root.text):
        assert "<img" not in text
        assert "&lt;img" in text


def test_one_very_bad_score_does_not_flatten_the_others():
    scores = [(trial, 1, 0.5 + trial / 50) for trial in range(9)]
    rows = [row_of(trial, "paused", (score,)) for trial, _, score in scores]
    page, _ = page_of(event_of("s", trials=rows, scores=[*scores, (0, 2, -1e6)], best=8))
    axis = page._curves.figure.y_range
    assert -1 < axis.start < 0.5
    assert axis.end > 0.66


def test_a_search_stays_small_and_keeps_its_best_trials():
    scheduler = Scheduler()
    board = dashboard.Board(scheduler)
    for begin in range(0, 3000, 100):
        trials = [row_of(k, "paused", (k / 3000,)) for k in range(begin, begin + 100)]
        scores = [(k, 1, k / 3000) for k in range(begin, begin + 100)]
        scheduler.log(event_of("s", trials=trials, scores=scores, best=begin + 99))
        if not begin:
            # A trial that runs stays, however bad it is.
            trials = [row_of(0, "running", (-1.0,)), row_of(1, "paused", (-2.0,)), *trials[2:]]
            scheduler.log(event_of("s", trials=trials, scores=scores, best=1))
    scheduler.log(event_of("s", scores=[(2999, epoch, 0.5) for epoch in range(2, 1000)], best=2999))
    board.refresh()
    run = board.searches["s"]
    assert len(run.trials) == len(run.settings) == _MOST_TRIALS
    assert len(run.curves) == _MOST_CURVES
    assert {2999, 2998, 0} <= run.curves.keys()
    assert 0 in run.trials
    assert 1 not in run.trials
    epochs = sorted(run.curves[2999])
    assert len(epochs) <= _MOST_POINTS
    assert (epochs[0], epochs[-1]) == (1, 999)
    assert run.n_trials == 3000


def test_a_board_keeps_the_newest_searches():
    scheduler = Scheduler()
    board = dashboard.Board(scheduler)
    for k in range(50):
        scheduler.events = [(float(k), event_of(f"search {k}")), (float(k), begun(f"run {k}"))]
        board.refresh()
    assert list(board.searches) == [f"search {k}" for k in range(30, 50)]
    assert list(board.runs) == [f"run {k}" for k in range(30, 50)]


def test_the_page_shows_what_a_search_on_a_cluster_announces(client, dask_digits):
    space = {"learning_rate_init": [1e-4, 1e-3, 1e-2, -1.0]}
    settings = {"max_iter": 3, "random_state": 0, "max_ensemble": 0, "verbose": False}
    search = HyperbandSearch(MLPClassifier((4,)), space, **settings).fit(*dask_digits)
    events = [event for _, event in client.get_events("dasknn") if "search" in event]
    newest = [event for event in events if event["search"] == events[-1]["search"]]
    board = dashboard.Board(Scheduler(newest))
    page = dashboard.Page(board)
    page.update()
    (run,) = board.searches.values()
    assert run.state == "completed"
    assert run.best == search.best_index_
    assert run.best_score == pytest.approx(search.best_score_, rel=1e-5)
    assert sum(map(len, run.curves.values())) == len(search.history_)
    assert run.count("failed") == (search.cv_results_["status"] == "failed").sum()
    rungs = {(row["bracket"], row["epochs"]): row["reached"] for row in run.rungs}
    assert rungs[0, 1] >= rungs[0, 3] >= 1


def test_a_browser_shows_a_search_while_it_runs(browser, new_cluster, dask_digits, tmp_path):  # noqa: F811
    client = new_cluster(2)
    viewer = Viewer(browser, dashboard.install(client))
    viewer.sees("No training yet")
    space = {"learning_rate_init": [1e-4, 3e-4, 1e-3, 1e-2, 3e-2, -1.0], "activation": ["relu", "tanh"]}
    settings = {"max_iter": 500, "n_trials": 12, "random_state": 0, "max_ensemble": 0, "verbose": False}
    search = HyperbandSearch(MLPClassifier((8,)), space, time_budget=5, **settings)
    thread = threading.Thread(target=search.fit, args=dask_digits)
    thread.start()
    viewer.sees("HyperbandSearch of MLPClassifier")
    viewer.sees("best accuracy")
    viewer.wait_for("model('rungs').text.includes('learning_rate_init')")
    viewer.wait_for("model('trials').renderers[0].data_source.data.trial.length > 2")
    thread.join()
    viewer.sees("completed|timed out")
    viewer.page.screenshot(path=tmp_path / "search.png")
    assert viewer.problems == []
