"""Trainings tell the scheduler of themselves, and a page of its dashboard shows them, in a real browser."""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import threading
import time
import weakref
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

import dask
import dask.array as da
import programs
import pytest
from conftest import assert_nothing_left
from distributed import Client

from dasknn import MLPClassifier, Sequential, WeightAveraging, dashboard
from dasknn.callbacks import Callback, announcements
from dasknn.callbacks.announcements import Announcements
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import TOPIC
from dasknn.dashboard import server
from dasknn.layers import Dense, Input

SETTINGS = {
    "hidden_layer_sizes": (16,),
    "strategy": "gradients",
    "batch_size": 100,
    "n_iter_no_change": 10_000,
    "random_state": 0,
}
PLAIN = (int, float, str, bool, type(None))


def fit(data, **settings):
    return MLPClassifier(**{**SETTINGS, "max_iter": 4, **settings}).fit(*data)


def events_of(client, run=None):
    """What the scheduler has heard, of the newest training or of one."""
    events = [event for _, event in client.get_events(TOPIC)]
    # Searches of other tests log under the topic, too.
    events = [event for event in events if "run" in event]
    run = run or (events[-1]["run"] if events else None)
    return [event for event in events if event["run"] == run]


def assert_plain(value):
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in PLAIN


class Do(Callback):
    """Call a function once, after an epoch (from 0)."""

    def __init__(self, epoch, function):
        self.epoch, self.function = epoch, function

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.function(self)


@pytest.fixture
def eager(monkeypatch):
    """Announce each epoch and each wave, however short."""
    monkeypatch.setattr(announcements, "_EPOCH_SECONDS", 0.0)
    monkeypatch.setattr(announcements, "_WAVE_SECONDS", 0.0)


# --- events ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["peer", "tasks"])
def test_a_training_tells_of_itself_from_beginning_to_end(client, dask_digits, transport, eager):
    model = fit(dask_digits, transport=transport, replicas=2, early_stopping=True)
    events = events_of(client)
    assert [events[0]["what"], events[-1]["what"], events[-1]["state"]] == ["begin", "end", "completed"]
    assert {"epoch", "wave"} >= {event["what"] for event in events[1:-1]} > set()
    about = events[0]["about"]
    assert (about["model"], about["layers"]) == ("MLPClassifier", "64-16-10")
    assert (about["transport"], about["engine"]) == (transport, model.engine_)
    assert about["name"] == f"MLPClassifier 64-16-10, gradients, {transport}, 2 replicas, 4 epochs"
    assert all(event["about"] == about and event["client"] == client.id for event in events)
    told = [entry for event in events for entry in event["entries"]]
    assert [entry["epoch"] for entry in told] == [1, 2, 3, 4]
    for entry, kept in zip(told, model.history_, strict=True):
        assert entry["workers"].keys() == kept["workers"].keys()
        assert entry["loss"] == pytest.approx(kept["loss"], rel=1e-5)
        assert entry["validation_score"] == pytest.approx(kept["validation_score"], rel=1e-5)
        assert entry["rows_per_second"] > 0
    assert_plain(events)


def test_waves_show_life_within_an_epoch(client, dask_digits, eager):
    fit(dask_digits, transport="tasks", replicas=2, max_iter=1)
    waves = [event["running"] for event in events_of(client) if event["what"] == "wave"]
    rows = [wave["n_samples"] for wave in waves]
    assert len(rows) > 1
    assert rows == sorted(rows)
    assert rows[0] < 1797 == rows[-1]
    assert all(wave["epoch"] == 1 and wave["loss"] > 0 and wave["rows_per_second"] > 0 for wave in waves)


def test_short_epochs_share_an_event(client, dask_digits, monkeypatch):
    monkeypatch.setattr(announcements, "_EPOCH_SECONDS", 1000.0)
    monkeypatch.setattr(announcements, "_WAVE_SECONDS", 1000.0)
    fit(dask_digits, max_iter=30, replicas=1)
    events = events_of(client)
    assert [event["what"] for event in events] == ["begin", "end"]
    assert [entry["epoch"] for event in events for entry in event["entries"]] == list(range(1, 31))


def test_a_sequential_tells_of_itself(client, dask_digits):
    X, y = dask_digits
    with WeightAveraging(replicas=2).scope():
        model = Sequential([Input((64,)), Dense(8, activation="relu"), Dense(10, activation="softmax")])
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(X, y, epochs=2, validation_data=(X, y), verbose=0)
    events = events_of(client)
    assert events[0]["about"]["name"].startswith("Sequential 64-8-10, weights, ")
    last = [entry for event in events for entry in event["entries"]][-1]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(last)


@pytest.mark.parametrize(
    ("state", "error", "end"),
    [
        ("stopped", None, lambda callback: setattr(callback.training, "stop_training", True)),
        ("interrupted", UserWarning, lambda callback: signal.raise_signal(signal.SIGINT)),
        ("failed", ZeroDivisionError, lambda callback: 1 / 0),
    ],
)
def test_a_training_says_how_it_ended(client, dask_digits, state, error, end):
    callbacks = [Do(1, end)]
    if error is None:
        fit(dask_digits, callbacks=callbacks)
    elif error is UserWarning:
        with pytest.warns(UserWarning, match="interrupted"):
            fit(dask_digits, callbacks=callbacks)
    else:
        with pytest.raises(error):
            fit(dask_digits, callbacks=callbacks)
    last = events_of(client)[-1]
    assert (last["what"], last["state"]) == ("end", state)
    assert last.get("error", "") == ("ZeroDivisionError: division by zero" if state == "failed" else "")


def test_a_training_that_goes_on_tells_of_epochs_before(client, dask_digits, tmp_path):
    fit_with = {"checkpoint": tmp_path / "checkpoints", "resume": True}
    MLPClassifier(**SETTINGS, max_iter=3).fit(*dask_digits, **fit_with)
    MLPClassifier(**SETTINGS, max_iter=5).fit(*dask_digits, **fit_with)
    first, *others = events_of(client)
    assert [entry["epoch"] for entry in first["entries"]] == [1, 2, 3]
    assert [entry["epoch"] for event in others for entry in event["entries"]] == [4, 5]


def test_what_trains_in_this_process_tells_nobody(client, digits, dask_digits):
    before = len(client.get_events(TOPIC))
    MLPClassifier(max_iter=2).fit(*digits)
    model = Sequential([Input((64,)), Dense(10, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    model.fit(*digits, verbose=0)
    assert len(client.get_events(TOPIC)) == before


def test_announcing_leaves_nothing_on_the_scheduler_but_its_topic(client, dask_digits):
    def state(dask_scheduler):
        return list(dask_scheduler.plugins), list(dask_scheduler.extensions), set(dask_scheduler.get_events())

    before = client.run_on_scheduler(state)
    fit(dask_digits)
    assert_nothing_left(client)
    plugins, extensions, topics = client.run_on_scheduler(state)
    assert (plugins, extensions) == before[:2]
    new = topics - before[2]
    # Dask has some of its own.
    assert {topic for topic in new if not topic.startswith(("tcp://", "Client"))} <= {
        TOPIC,
        "all",
        "scheduler",
    }


def test_announcing_fails_for_nobody(cluster):
    client = Client(cluster)
    tasks = ClusterExecutor(client)
    tasks.announce({"run": "a"}, patience=10)
    assert client.get_events(TOPIC)[-1][1] == {"run": "a", "client": client.id}
    tasks.announce({"run": object()}, patience=10)
    client.close()
    tasks.announce({"run": "b"}, patience=0.1)


def test_announcements_come_in_order_however_long_each_takes(client):
    heard = []

    async def log_event(topic, msg):
        await asyncio.sleep(0.05 * (3 - msg["k"]))
        heard.append(msg["k"])

    tasks = ClusterExecutor(client)
    scheduler = SimpleNamespace(log_event=log_event)
    tasks.client = SimpleNamespace(id="c", loop=client.loop, scheduler=scheduler)
    for k in range(3):
        tasks.announce({"k": k})
    tasks.announce({"k": 3}, patience=10)
    assert heard == [0, 1, 2, 3]


class Told:
    """Stands for tasks, and keeps what is announced."""

    def __init__(self):
        self.events = []

    def announce(self, event, patience=0.0):
        self.events.append(event)


def train(n_epochs, make_entry, tasks):
    """Announce a training that was never made."""
    network = SimpleNamespace(n_inputs=2, widths=[2, 1], weights=[(SimpleNamespace(name="kernel"),)])
    job = SimpleNamespace(network=network, replicas=2, engine="numpy")
    transport = SimpleNamespace(name="peer", job=job)
    callback = Announcements(tasks)
    callback.model = SimpleNamespace()
    callback.training = training = SimpleNamespace(
        transport=transport, first_epoch=0, epoch=0, max_epochs=n_epochs, n_samples=10, history=[]
    )
    training.interrupted = training.has_ended = False
    callback.on_train_begin()
    callback.on_train_ready()
    for epoch in range(n_epochs):
        callback.on_epoch_begin(epoch)
        training.history.append(make_entry(epoch + 1))
        training.epoch = training.n_epochs = epoch + 1
        callback.on_epoch_done(epoch)
    training.is_complete = True
    callback.on_train_end()


def entry_of(epoch, **more):
    return {"epoch": epoch, "loss": 1 / epoch, "seconds": 1.0, "rows_per_second": 10.0, "faults": []} | more


def test_events_are_small_however_large_the_cluster_is(eager):
    fault = {"what": "worker lost", "worker": "tcp://10.0.0.1:1" * 50, "replicas": [*range(999)]}
    fault |= {"moved_to": ["tcp://10.0.0.2:1"] * 999, "epoch": 1, "time": "2026", "seconds": 1.0}
    fault["error"] = "x" * 9999
    many = {
        "workers": {
            f"tcp://10.0.{k // 256}.{k % 256}:40000": {
                "compute": float(k),
                "communication": 0.1,
                "waiting": 0.2,
            }
            for k in range(1000)
        },
        "faults": [fault] * 500,
        **{f"metric_{k}": 0.1 for k in range(500)},
        "confusion": [[1] * 100] * 100,
        "nan": float("nan"),
    }
    told = Told()
    train(3, lambda epoch: entry_of(epoch, **many), told)
    assert max(len(json.dumps(event)) for event in told.events) < 40_000
    (entry,) = told.events[1]["entries"]
    assert len(entry["workers"]) == 64
    # The slowest and the fastest.
    assert {spent["compute"] for spent in entry["workers"].values()} >= {0, 999}
    assert entry["faults"][0]["n_replicas"] == 999
    assert "confusion" not in entry
    assert_plain(told.events)


def test_what_a_scheduler_keeps_of_a_long_training_shows_all_of_it(eager):
    told = Told()
    lost = [{"what": "worker lost", "worker": "w", "replicas": [0], "moved_to": ["v"], "epoch": 7}]
    lost[0] |= {"time": "2026-11-25T10:00:00+00:00", "seconds": 1.0, "error": ""}
    train(5000, lambda epoch: entry_of(epoch, faults=lost if epoch == 7 else []), told)
    scheduler = Scheduler([event | {"client": "c"} for event in told.events][-1000:])
    board = dashboard.Board(scheduler)
    board.refresh()
    (run,) = board.runs.values()
    epochs = [entry["epoch"] for entry in run.history]
    assert epochs == sorted(epochs)
    assert epochs[0] < 100
    assert epochs[-1] == 5000
    assert max(b - a for a, b in pairwise(epochs)) < 100
    assert len(epochs) <= 1000
    assert [fault["worker"] for fault in run.faults] == ["w"]
    assert run.state == "completed"


# --- what the scheduler makes of events --------------------------------------------------------------


class Scheduler:
    """Stands for a scheduler with events."""

    def __init__(self, events=(), clients=("c",)):
        self.events = [(float(k), event) for k, event in enumerate(events)]
        self.clients = set(clients)

    def get_events(self, topic):
        return tuple(self.events)

    def log(self, event):
        self.events = [*self.events, (float(len(self.events)), event)]


def begun(run, **more):
    about = {"name": run, "model": "M", "layers": "1-1", "strategy": "weights", "transport": "peer"}
    about |= {"engine": "numpy", "replicas": 2, "first_epoch": 1, "last_epoch": 9, "n_samples": 10}
    event = {"run": run, "about": about, "what": "begin", "seconds": 0.0, "epoch": 1, "entries": ()}
    return event | {"client": "c"} | more


def test_a_training_whose_client_is_gone_is_not_said_to_run():
    scheduler = Scheduler([begun("a")])
    board = dashboard.Board(scheduler)
    board.refresh()
    assert board.state_of("a") == "running"
    scheduler.clients.clear()
    assert board.state_of("a") == "lost"


def test_the_newest_training_that_runs_comes_first():
    end = {"what": "end", "state": "completed"}
    scheduler = Scheduler([begun("a"), begun("b"), begun("c"), begun("c", **end)])
    board = dashboard.Board(scheduler)
    board.refresh()
    assert board.newest == "b"
    scheduler.log(begun("b", **end))
    scheduler.log(begun("a", **end))
    board.refresh()
    assert board.newest == "c"


def test_events_are_heard_once():
    scheduler = Scheduler([begun("a", entries=(entry_of(1),))])
    board = dashboard.Board(scheduler)
    for _ in range(3):
        board.refresh()
    assert board.version == 1
    scheduler.log(begun("a", what="epoch", entries=(entry_of(2),)))
    board.refresh()
    assert board.version == 2
    assert [entry["epoch"] for entry in board.runs["a"].history] == [1, 2]


def test_what_others_log_under_the_topic_does_no_harm():
    strange = [None, "text", {}, {"run": "a"}, begun("b") | {"about": {}}, begun("c", entries=({},))]
    board = dashboard.Board(Scheduler([*strange, begun("d")]))
    board.refresh()
    assert board.state_of("d") == "running"


HTML = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"entries": [{"epoch": HTML, "loss": 1.0}]}, r"entries\[0\]\.epoch"),
        ({"entries": [{"epoch": 1, "loss": HTML}]}, r"entries\[0\]\.loss"),
        ({"entries": [{"epoch": 1, "workers": {"w": {"compute": HTML}}}]}, "workers"),
        ({"entries": [{"epoch": 1, "faults": [{"what": 3}]}]}, "faults"),
        ({"entries": [{"epoch": 1, "seconds": 1e300}]}, "seconds"),
        ({"about": {**begun("a")["about"], "n_samples": HTML}}, "about.n_samples"),
        ({"about": {**begun("a")["about"], "last_epoch": HTML}}, "about.last_epoch"),
        ({"what": "end", "state": HTML}, "state"),
        ({"what": HTML}, "what"),
        ({"what": "wave", "running": {"epoch": 1}}, "running"),
        ({"seconds": float("inf")}, "seconds"),
        ({"run": ["a"]}, "run"),
    ],
    ids=str,
)
def test_an_event_of_other_types_is_left_out_and_that_is_logged_once(change, where, caplog):
    scheduler = Scheduler([begun("good"), begun("bad") | change, begun("bad") | change])
    board = dashboard.Board(scheduler)
    page = dashboard.Page(board)
    page.update()
    assert list(board.runs) == ["good"]
    # Clusters of other tests may still be closing.
    (record,) = (record for record in caplog.records if record.name.startswith("dasknn"))
    assert re.search(f"such as one with this problem: expected .*{where}", record.message)
    scheduler.log(begun("later"))
    page.update()
    assert list(board.runs) == ["good", "later"]


@pytest.mark.parametrize(
    "change",
    [
        {"entries": [{"epoch": 1, "loss": 1.0, HTML: 1.0}]},
        {"about": {**begun("a")["about"], "model": HTML, "layers": HTML, "strategy": HTML, "name": HTML}},
        {"what": "end", "state": "failed", "error": HTML},
    ],
    ids=str,
)
def test_what_an_event_says_is_drawn_as_text(change):
    board = dashboard.Board(Scheduler([begun("a") | change]))
    page = dashboard.Page(board)
    page.update()
    assert "<img" not in page._header.text
    assert "&lt;img" in page._header.text


def test_a_board_stays_small():
    scheduler = Scheduler()
    board = dashboard.Board(scheduler)
    for k in range(100):
        scheduler.events = [(float(k), begun(f"run {k}"))]
        board.refresh()
    assert list(board.runs) == [f"run {k}" for k in range(80, 100)]


# --- the page ----------------------------------------------------------------------------------------


@pytest.fixture
def scheduler_of(start_cluster):
    """scheduler_of(**settings): a client of a scheduler with its own settings, and without workers."""

    @contextmanager
    def open_one(**settings):
        with start_cluster(0, processes=False, **settings) as cluster, Client(cluster) as client:
            yield client

    return open_one


def read(url):
    with urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return answer.read()


def test_install_adds_a_page_once(client):
    def applications(dask_scheduler):
        return [sorted(getattr(app, "app_paths", [])) for app in dask_scheduler.http_application.applications]

    url = dashboard.install(client)
    before = client.run_on_scheduler(applications)
    assert before.count(["/dasknn"]) == 1
    assert dashboard.install() == url == client.dashboard_link.removesuffix("status") + "dasknn"
    assert client.run_on_scheduler(applications) == before
    for page in (url, client.dashboard_link):
        assert read(page).count(b'<a href="dasknn">') == 1


def test_the_page_needs_nothing_from_elsewhere(client):
    url = dashboard.install(client)
    page = read(url).decode()
    sources = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page)
    assert any("bokeh" in source for source in sources)
    for source in sources:
        assert urlsplit(urljoin(url, source)).netloc == urlsplit(url).netloc
        if not source.startswith("data:"):
            assert read(urljoin(url, source))


def test_a_prefix_of_the_dashboard_is_one_of_the_page(scheduler_of):
    with scheduler_of(scheduler_kwargs={"http_prefix": "/proxy/8787"}) as client:
        url = dashboard.install(client)
        assert urlsplit(url).path == "/proxy/8787/dasknn"
        assert b"bokeh" in read(url)
        assert dashboard.install(client) == url


@pytest.mark.parametrize(
    ("link", "prefix", "url"),
    [
        ("http://host:8787/status", "", "http://host:8787/dasknn"),
        ("https://hub/user/me/proxy/8787/status", "", "https://hub/user/me/proxy/8787/dasknn"),
        ("https://hub/proxy/8787/status", "/proxy/8787", "https://hub/proxy/8787/dasknn"),
        ("http://host:8787/status", "/dask", "http://host:8787/dask/dasknn"),
        ("https://cluster.example?token=abc", "", "https://cluster.example/dasknn?token=abc"),
    ],
)
def test_the_url_goes_where_the_link_of_the_dashboard_goes(link, prefix, url):
    assert server._address(link, prefix) == url


def test_the_url_follows_dask_config(client):
    with dask.config.set({"distributed.dashboard.link": "https://hub/proxy/{port}/status"}):
        assert dashboard.install(client).startswith("https://hub/proxy/")


def test_no_dashboard_is_said(scheduler_of):
    with (
        scheduler_of(scheduler_kwargs={"dashboard": False}) as client,
        pytest.raises(RuntimeError, match="started without a dashboard"),
    ):
        dashboard.install(client)


@pytest.mark.parametrize(
    ("missing", "message"), [("dasknn", "cannot import dasknn"), ("bokeh", "dasknn\\[dashboard\\]")]
)
def test_what_a_scheduler_lacks_is_said(missing, message, tmp_path, start_program):
    file = tmp_path / "scheduler.json"
    start_program(programs.scheduler_without, missing, file)
    with Client(scheduler_file=str(file), timeout=60) as client, pytest.raises(ImportError, match=message):
        dashboard.install(client)


def test_an_asynchronous_client_is_refused(cluster):
    async def install():
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            with pytest.raises(TypeError, match="synchronous client"):
                dashboard.install(client)

    asyncio.run(install())


def test_viewers_that_leave_leave_nothing_behind(scheduler_of, monkeypatch):
    from bokeh.client import pull_session

    pages = weakref.WeakSet()

    class Counted(dashboard.Page):
        def __init__(self, board):
            super().__init__(board)
            pages.add(self)

    monkeypatch.setattr(server, "Page", Counted)
    application = dask.config.get("distributed.scheduler.dashboard.bokeh-application")
    quickly = application | {"unused_session_lifetime_milliseconds": 10}
    with (
        dask.config.set({"distributed.scheduler.dashboard.bokeh-application": quickly}),
        scheduler_of() as client,
    ):
        url = dashboard.install(client)
        viewers = [pull_session(url=url) for _ in range(2)]
        assert len(pages) == 2
        for viewer in viewers:
            viewer.close()
        deadline = time.monotonic() + 60
        while pages:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            gc.collect()


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture
def browser():
    """A Chromium. Without one the test is left out, but not where DASKNN_BROWSER_TESTS is set, as in CI."""
    leave_out = pytest.fail if os.environ.get("DASKNN_BROWSER_TESTS") else pytest.skip
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        leave_out("There is no Chromium here to look at the page with: apt-get install chromium.")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        leave_out("There is no playwright here to drive a browser with: pip install playwright.")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


class Viewer:
    """A page that is open in a browser, and what its Bokeh document holds."""

    def __init__(self, browser, url):
        self.page = browser.new_page(viewport={"width": 1280, "height": 860})
        self.page.set_default_timeout(60_000)
        self.problems, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(request.url))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on(
            "console", lambda message: message.type == "error" and self.problems.append(message.text)
        )
        self.page.goto(url)
        self.wait_for("Bokeh.documents.length > 0")

    def wait_for(self, condition):
        """Wait until a condition holds; model(name) is a model of the document."""
        model = "const model = name => Bokeh.documents[0].get_model_by_name(name);"
        self.page.wait_for_function(f"() => {{ {model} return {condition} }}")

    def sees(self, text):
        """Wait until a text is visible."""
        self.page.get_by_text(re.compile(text)).first.wait_for()

    def epoch(self):
        """The running epoch, as the header has it."""
        text = self.page.evaluate("Bokeh.documents[0].get_model_by_name('header').text")
        return int(re.search(r"epoch <b>(\d+)</b>", text)[1])


def column(figure, renderer, name):
    return f"Array.from(model('{figure}').renderers[{renderer}].data_source.data.{name})"


class Until(Callback):
    """End training once an event is set."""

    def __init__(self, done):
        self.done = done

    def on_epoch_end(self, epoch, logs=None):
        self.training.stop_training = self.done.is_set()


@contextmanager
def training(data, **settings):
    """Train in a thread for as long as the context lasts."""
    done = threading.Event()
    model = MLPClassifier(**SETTINGS, max_iter=100_000, callbacks=[Until(done)], **settings)
    thread = threading.Thread(target=model.fit, args=data)
    thread.start()
    try:
        yield model
    finally:
        done.set()
        thread.join()


def test_a_browser_shows_a_training_while_it_runs(browser, new_cluster, digits, tmp_path):
    X, y = (da.from_array(column, chunks=(600, *column.shape[1:])) for column in digits)
    client = new_cluster(2)
    with training((X, y), replicas=2, early_stopping=True):
        # A training that began before the page was there.
        while not client.get_events(TOPIC):
            time.sleep(0.05)
        url = dashboard.install(client)
        viewer, another = Viewer(browser, url), Viewer(browser, url)
        viewer.sees("MLPClassifier 64-16-10")
        viewer.sees("running")
        viewer.sees("strategy gradients · transport peer · engine num")
        # Losses, scores, rates and the time of both workers.
        viewer.wait_for(f"{column('loss', 0, 'epoch')}.length > 1")
        viewer.wait_for(f"{column('loss', 0, 'value')}.every(loss => loss > 0 && loss < 10)")
        viewer.wait_for(f"{column('scores', 0, 'value')}.every(score => score > 0 && score <= 1)")
        viewer.wait_for(f"{column('rates', 0, 'value')}.length > 1")
        viewer.wait_for(f"{column('workers', 0, 'worker')}.length == 2")
        viewer.wait_for(f"{column('workers', 0, 'compute')}.every(seconds => seconds > 0)")
        # Epochs go on, for each viewer.
        for each in (viewer, another):
            epoch = each.epoch()
            each.wait_for(f"Math.max(...{column('loss', 0, 'epoch')}) > {epoch}")
            assert each.epoch() > epoch
        # A worker dies.
        address, pid = next(iter(client.run(os.getpid).items()))
        os.kill(pid, signal.SIGKILL)
        viewer.wait_for("Array.from(model('faults').source.data.what).includes('worker lost')")
        viewer.sees("worker lost")
        viewer.sees(re.escape(address))
        viewer.page.screenshot(path=tmp_path / "page.png")
    viewer.sees("stopped")
    # Another training: the newest is shown, and the one before can be chosen.
    with training((X, y), replicas=1):
        viewer.sees("replicas 1 ")
        choice = viewer.page.locator("select")
        choice.select_option(choice.locator("option").nth(2).get_attribute("value"))
        viewer.sees("replicas 2 ")
        viewer.sees("worker lost")
    assert viewer.problems == another.problems == []
    assert viewer.hosts | another.hosts == {urlsplit(url).netloc}


def test_a_browser_says_what_to_do_where_nothing_was_trained(scheduler_of, browser):
    with scheduler_of() as client:
        viewer = Viewer(browser, dashboard.install(client))
        viewer.sees("No training yet")
        viewer.sees("MLPClassifier\\(\\).fit")
        assert viewer.problems == []
