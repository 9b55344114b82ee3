"""The estimators for tables have the same bits wherever and however they train, whatever fails."""

import os
import signal

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left, bits
from distributed import Client
from numpy.testing import assert_allclose

from dasknn import PredictionAveraging, TabularClassifier, TabularRegressor, WeightAveraging
from dasknn.callbacks import Callback, LambdaCallback
from dasknn.cluster.faults import LOST
from dasknn.data import loading, shards
from tests.data.tables.raw_tables import mixed

# Uneven; the second partition has fewer rows than a batch.
ROWS = (150, 9, 81)
SETTINGS = {
    "members": 2,
    "hidden_layer_sizes": (8,),
    "max_iter": 3,
    "batch_size": 24,
    "replicas": 3,
    "random_state": 1,
}
STRATEGIES = {
    "gradients": "gradients",
    "weights": "weights",
    "weights every 2": WeightAveraging(every=2),
    "predictions": PredictionAveraging(hop=False),
    "members that hop": "predictions",
}
# All roads that a training may take over a cluster.
ROADS = {
    "gradients on peers": {"strategy": "gradients", "transport": "peer"},
    "gradients on tasks": {"strategy": "gradients", "transport": "tasks"},
    "weights on peers": {"strategy": "weights", "transport": "peer"},
    "weights on tasks": {"strategy": WeightAveraging(every=2), "transport": "tasks"},
    "predictions": {"strategy": PredictionAveraging(hop=False)},
    "members that hop": {"strategy": "predictions"},
}
KINDS = {"classifier": (TabularClassifier, "label"), "regressor": (TabularRegressor, "number")}


def rows():
    frame = mixed(sum(ROWS)).assign(id=[f"u{number}" for number in range(sum(ROWS))])
    age = frame["age"].to_numpy()
    return frame.assign(label=np.where(age > 50, "old", "young"), number=np.sqrt(age))


def on_dask(frame, lengths=ROWS):
    """A Dask dataframe with partitions of these lengths."""
    ends = np.cumsum(lengths)
    parts = [frame.iloc[end - n : end] for end, n in zip(ends, lengths, strict=True)]
    return dd.concat([dd.from_pandas(part, npartitions=1) for part in parts])


@pytest.fixture(scope="module")
def table():
    return on_dask(rows())


@pytest.fixture(scope="module")
def crew(start_cluster):
    """Two worker processes whose nannies start them again."""
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(crew):
    """A client of the crew, complete again; fails the test that leaves a task on the scheduler."""
    with Client(crew) as client:
        client.wait_for_workers(2, timeout=180)
        yield client
        assert_nothing_left(client)


def fit(table, kind="classifier", callbacks=(), **settings):
    make, target = KINDS[kind]
    arguments = {name: settings.pop(name) for name in ("checkpoint", "resume") if name in settings}
    model = make(**{**SETTINGS, "callbacks": list(callbacks), **settings})
    return model.fit(table.drop(columns=["label", "number"]), table[target], **arguments)


@pytest.fixture(scope="module")
def calm(table):
    """What training without a cluster gives: calm(kind, **settings)."""
    found = {}

    def of(kind="classifier", **settings):
        # Alone the strategy chooses bits, not the transport.
        settings = {name: value for name, value in settings.items() if name != "transport"}
        key = (kind, repr(sorted(settings.items())))
        if key not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
                found[key] = bits(fit(table, kind, **settings))
        return found[key]

    return of


class At(Callback):
    """Call a function once, at the begin of an epoch (from 0)."""

    def __init__(self, epoch, function):
        self.epoch, self.function = epoch, function

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch and self.function is not None:
            function, self.function = self.function, None
            function()


def kill_a_worker(client):
    worker, pid = next(iter(client.run(os.getpid).items()))
    return worker, lambda: os.kill(pid, signal.SIGKILL)


# --- the same bits -----------------------------------------------------------------------------------


def test_strategies_and_kinds_differ(calm):
    found = {calm(kind, strategy=strategy) for kind in KINDS for strategy in STRATEGIES.values()}
    assert len(found) == len(KINDS) * len(STRATEGIES)


@pytest.mark.parametrize(
    ("road", "kind"),
    [
        *((road, "classifier") for road in ROADS),
        ("gradients on peers", "regressor"),
        ("predictions", "regressor"),
    ],
)
def test_all_roads_over_a_cluster_give_the_bits_of_none(client, table, calm, road, kind):
    model = fit(table, kind, **ROADS[road])
    assert model.transport_ == ROADS[road].get("transport", "hop" if "hop" in road else "tasks")
    assert bits(model) == calm(kind, **ROADS[road])


@pytest.mark.parametrize("shape", [(1, 1, True), (1, 3, True), (2, 2, False)], ids=str)
def test_any_number_of_workers_and_threads_give_the_same_bits(new_cluster, table, calm, shape):
    n_workers, threads, processes = shape
    client = new_cluster(n_workers, threads_per_worker=threads, processes=processes)
    for road in ("gradients on peers", "weights on tasks", "predictions"):
        assert bits(fit(table, **ROADS[road])) == calm(**ROADS[road]), road
    assert_nothing_left(client)


@pytest.mark.parametrize("road", ["gradients on peers", "weights on tasks", "predictions"])
def test_streamed_tables_give_the_bits_of_tables_in_memory(client, table, road, monkeypatch):
    # As small shards, in the order of which rows are trained on.
    monkeypatch.setattr(shards, "_SHARD_BYTES", 2_000)
    held = bits(fit(table, **ROADS[road]))
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    streamed = fit(table, **ROADS[road])
    assert bits(streamed) == held


@pytest.mark.parametrize("settings", [
    {"early_stopping": True, "max_iter": 8, "n_iter_no_change": 2},
    {"bins": "tree", "strategy": "gradients"},
    {"adapters": "all", "hidden_layer_sizes": (8, 8), "strategy": "gradients"},
    {"class_weight": "balanced", "embedding": "encoding", "strategy": "gradients"},
    {"refit": "all", "early_stopping": True, "strategy": "gradients"},
    {"batch_size": 2, "max_iter": 1, "strategy": "gradients"},
], ids=str)  # fmt: skip
def test_what_a_fit_has_to_do_besides_gives_the_same_bits(client, table, calm, settings):
    model = fit(table, **settings)
    assert bits(model) == calm(**settings)
    if settings.get("early_stopping"):
        assert len(model.validation_scores_) >= 2
        assert np.isfinite(model.temperature_)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_tables_give_the_bits_of_partitions_as_large(client, calm, kind):
    frame = rows()
    lengths = [len(part) for part in np.array_split(frame, 3)]
    settings = {"strategy": "gradients", "early_stopping": True}
    found = {bits(fit(data, kind, **settings)) for data in (frame, on_dask(frame, lengths))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
        found.add(bits(fit(frame, kind, **settings)))
    assert len(found) == 1


def test_predictions_on_a_cluster_are_those_of_this_process(client, table):
    frame = rows().drop(columns=["label", "number"])
    model = fit(table)
    X = table.drop(columns=["label", "number"])
    chances = model.predict_proba(X).compute()
    assert_allclose(chances.to_numpy(), model.predict_proba(frame), rtol=1e-6)
    assert model.score(X, table["label"]) == model.score(frame, rows()["label"])
    labels = model.predict(X).compute()
    assert isinstance(labels, pd.Series)
    assert labels.index.equals(frame.index)


# --- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_a_worker_killed_in_an_epoch_changes_no_bit(client, table, calm, road):
    worker, kill = kill_a_worker(client)
    model = fit(table, callbacks=[At(1, kill)], **ROADS[road])
    assert bits(model) == calm(**ROADS[road])
    (event,) = (event for entry in model.history_ for event in entry["faults"] if event["what"] == LOST)
    assert event["worker"] == worker


def die_while_summarizing():
    """Make this worker's process end when it summarizes a partition."""
    import os
    import signal

    from dasknn.data.tables.summaries import TableSummary

    TableSummary.of = lambda *args, **settings: os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_while_columns_are_learned_changes_no_bit(client, table, calm):
    client.run(die_while_summarizing, workers=[next(iter(client.run(os.getpid)))])
    assert bits(fit(table, strategy="gradients")) == calm(strategy="gradients")


@pytest.mark.parametrize(
    ("road", "where"),
    [*((road, "cluster") for road in ROADS), ("gradients on peers", "no cluster")],
)
def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(
    client, table, calm, road, where, tmp_path, monkeypatch
):
    class Stops(Exception):
        pass

    def stop(epoch, logs):
        if epoch == 2:
            raise Stops

    settings = {**ROADS[road], "early_stopping": True, "max_iter": 4, "checkpoint": tmp_path}
    with pytest.raises(Stops):
        fit(table, callbacks=[LambdaCallback(on_epoch_begin=stop)], **settings)
    if where == "no cluster":
        monkeypatch.setattr("dasknn.cluster.connect._current_client", lambda: None)
    resumed = fit(table, resume=True, **settings)
    assert resumed.n_iter_ >= 3
    assert bits(resumed) == calm(**ROADS[road], early_stopping=True, max_iter=4)


def test_a_checkpoint_of_another_table_is_refused(table, tmp_path, monkeypatch):
    monkeypatch.setattr("dasknn.cluster.connect._current_client", lambda: None)
    fit(table, checkpoint=tmp_path)
    for changes in ({"n_bins": 5}, {"hidden_layer_sizes": (9,)}, {"max_categories": 3}):
        with pytest.raises(ValueError, match="checkpoint"):
            fit(table, checkpoint=tmp_path, resume=True, **changes)
