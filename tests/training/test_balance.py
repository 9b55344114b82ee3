"""Rows by the speed of workers: a slow worker gets fewer, only where it is asked for."""

import os
import signal
import time

import dask.array as da
import numpy as np
import pytest
from conftest import assert_nothing_left
from hypothesis import given
from hypothesis import strategies as st

from dasknn import GradientAveraging, MLPClassifier, PredictionAveraging, Sequential, WeightAveraging
from dasknn.callbacks import Callback
from dasknn.data.shards import deal
from dasknn.layers import Dense
from dasknn.strategies import get
from dasknn.training.balance import shares_of

SETTINGS = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "replicas": 4, "dtype": "float32"}


def test_the_share_of_a_worker_is_its_speed():
    rows = np.array([100.0, 100, 100, 100])
    # b takes twice as long for as many rows; of its two replicas, each gets half of its share.
    found = shares_of(rows, ["a", "a", "b", "b"], {"a": 1.0, "b": 2.0})
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 6, 1 / 6])
    # With these shares, both take as long.
    rows = 400 * found
    again = shares_of(rows, ["a", "a", "b", "b"], {"a": 4 / 3, "b": 4 / 3})
    np.testing.assert_allclose(again, found)


def test_nothing_is_known_of_a_worker_that_has_not_computed():
    assert shares_of(np.ones(2), ["a", "b"], {"a": 1.0}) is None
    assert shares_of(np.ones(2), ["a", "b"], {"a": 1.0, "b": 0.0}) is None


def test_a_worker_that_stood_still_keeps_some_rows():
    assert shares_of(np.ones(2), ["a", "b"], {"a": 1.0, "b": 1e6})[1] > 0.04


@given(data=st.data())
def test_all_rows_are_dealt_out_by_any_shares(data):
    rows = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=8))
    replicas = data.draw(st.integers(1, 5))
    if sum(rows) < replicas:
        return
    shares = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=replicas, max_size=replicas)))
    dealt = deal(rows, replicas, (shares / shares.sum()).tolist())
    assert len(dealt) == replicas
    assert all(sum(piece.n_rows for piece in own) >= 1 for own in dealt)
    found = sorted(
        (piece.block, row) for own in dealt for piece in own for row in range(piece.begin, piece.end)
    )
    assert found == [(block, row) for block, n in enumerate(rows) for row in range(n)]


@pytest.fixture
def one_slow(client, monkeypatch):
    """A cluster whose first worker sleeps for each piece of rows that it computes."""

    def slow_down(dask_worker, slow):
        from dasknn.engine.workspace import Workspace

        Workspace.quick = Workspace.loss_and_grad

        def loss_and_grad(workspace, *args, **kwargs):
            if dask_worker.address == slow:
                # In proportion to the rows.
                time.sleep(1e-3 * workspace.n_rows)
            return Workspace.quick(workspace, *args, **kwargs)

        Workspace.loss_and_grad = loss_and_grad

    def restore():
        from dasknn.engine.workspace import Workspace

        Workspace.loss_and_grad = Workspace.quick
        del Workspace.quick

    slow = sorted(client.nthreads())[0]
    client.run(slow_down, slow=slow)
    yield slow
    client.run(restore)


def data_of(n_rows=1200, n_parts=5):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 6)).astype("float32")
    y = (X[:, 0] > 0).astype(int)
    return da.from_array(X, (n_rows // n_parts, -1)), da.from_array(y, n_rows // n_parts)


@pytest.mark.parametrize("transport", ["peer", "tasks"])
@pytest.mark.parametrize("kind", [GradientAveraging, WeightAveraging])
def test_a_slow_worker_gets_fewer_rows_where_it_is_asked_for(client, one_slow, caplog, kind, transport):
    settings = SETTINGS | {"engine": "numpy", "transport": transport, "batch_size": 400}
    with caplog.at_level("INFO", logger="dasknn"):
        model = MLPClassifier(strategy=kind(balance="speed"), **settings).fit(*data_of())
    dealt = [
        r.getMessage() for r in caplog.records if r.getMessage().startswith("Rows of replicas, by the speed")
    ]
    assert dealt
    rows = [int(n) for n in dealt[0].split(": ")[1].rstrip(".").split(", ")]
    assert sum(rows) == 1200
    # Two replicas are on the slow worker, in the order of addresses.
    assert max(rows[:2]) < min(rows[2:])
    assert all(entry["n_samples"] == 1200 for entry in model.history_)
    assert_nothing_left(client)


def test_without_being_asked_for_rows_stay(client, one_slow, caplog):
    with caplog.at_level("INFO", logger="dasknn"):
        MLPClassifier(strategy="gradients", engine="numpy", **SETTINGS).fit(*data_of())
    assert not [r for r in caplog.records if "by the speed" in r.getMessage()]


def test_a_sequential_deals_rows_by_speed_too(client, one_slow, caplog):
    with GradientAveraging(balance="speed", replicas=2).scope():
        model = Sequential([Dense(8, "relu"), Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", engine="numpy")
    with caplog.at_level("INFO", logger="dasknn"):
        model.fit(*data_of(), epochs=3, batch_size=400, verbose=0)
    assert [r for r in caplog.records if "by the speed" in r.getMessage()]


def test_streamed_rows_are_dealt_by_speed_too(client, one_slow, caplog, monkeypatch):
    monkeypatch.setattr("dasknn.data.loading._MEMORY_SHARE", 1e-9)
    settings = SETTINGS | {"engine": "numpy", "transport": "peer", "batch_size": 400}
    with caplog.at_level("INFO", logger="dasknn"):
        model = MLPClassifier(strategy=GradientAveraging(balance="speed"), **settings).fit(*data_of())
    assert [r for r in caplog.records if "by the speed" in r.getMessage()]
    assert all(entry["n_samples"] == 1200 for entry in model.history_)
    assert_nothing_left(client)


@pytest.mark.parametrize("transport", ["peer", "tasks"])
def test_rows_by_speed_outlive_a_worker(new_cluster, transport):
    client = new_cluster(3)
    pid = max(client.run(os.getpid).items())[1]

    class Kills(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                os.kill(pid, signal.SIGKILL)

    settings = SETTINGS | {"transport": transport, "max_iter": 6, "callbacks": [Kills()]}
    model = MLPClassifier(strategy=GradientAveraging(balance="speed"), **settings).fit(*data_of())
    assert [entry["n_samples"] for entry in model.history_] == [1200] * 6
    assert [event for entry in model.history_ for event in entry["faults"]]
    assert_nothing_left(client)


def test_other_balances_are_refused():
    with pytest.raises(ValueError, match="Expected balance to be 'rows' or 'speed', received 'fair'"):
        GradientAveraging(balance="fair")
    with pytest.raises(ValueError, match="Leave balance out"):
        PredictionAveraging(balance="speed")


def test_strategies_are_written_as_they_are_made():
    for strategy in (
        GradientAveraging(),
        GradientAveraging(delay=1, balance="speed"),
        WeightAveraging(every=16),
        PredictionAveraging(members=5, hop=False),
    ):
        assert eval(repr(strategy)) == strategy
    assert repr(get("gradients")) == "GradientAveraging()"
