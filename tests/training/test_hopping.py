"""Networks that travel learn what one machine does that reads the stations in the same order."""

import dask.array as da
import numpy as np
import pytest
from conftest import params_of
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from dasknn import MLPClassifier, PredictionAveraging
from dasknn.callbacks import Callback
from dasknn.cluster.local import LocalExecutor
from dasknn.data import stations
from dasknn.data.shards import deal
from dasknn.data.stations import Stations
from dasknn.engine.schedule import Piece
from dasknn.engine.state import Shard
from dasknn.exceptions import TrainingStopped
from dasknn.training import hopping, hops
from dasknn.training.hopping import Hopper, Journey

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
ROWS = (700, 100, 500, 497)
SETTINGS = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0, "batch_size": 50, "engine": "numpy"}


@pytest.fixture(autouse=True)
def three_stations(monkeypatch):
    monkeypatch.setattr(stations, "STATION_BYTES", X.nbytes / 2.5)


def lazy():
    return da.from_array(X, chunks=(ROWS, -1)), da.from_array(y, chunks=(ROWS,))


class Seen(Callback):
    """Keeps the job of a training, and its state before the first epoch."""

    def on_train_ready(self, logs=None):
        self.job, self.first = self.training.transport.job, self.training.state


def fitted(members=1, **settings):
    seen = Seen()
    strategy = PredictionAveraging(members, hop=True)
    return MLPClassifier(strategy=strategy, callbacks=[seen], **SETTINGS, **settings).fit(*lazy()), seen


def by_hand(job, state, encoder):
    """Train as one machine does that has all rows."""
    edges = np.cumsum([0, *ROWS])
    shards = {}
    for number, slices in enumerate(deal(ROWS, 3)):
        rows = np.concatenate([np.arange(s.begin, s.end) + edges[s.block] for s in slices])
        shards[number] = Shard(X[rows], encoder.encode(y[rows]))
    strategy = PredictionAveraging(1)
    for epoch in range(SETTINGS["max_iter"]):
        state = state.begin_epoch(epoch)
        for number in job.shard_order(epoch, 0, list(shards)):
            piece = Piece(number, 0, 0, len(shards[number]))
            state = strategy.visit(job, state, state, shards[number], piece)
    return state


def test_a_network_that_travels_learns_what_one_machine_does():
    model, seen = fitted()
    first = PredictionAveraging(1).share(seen.first, 0)
    assert_array_equal(params_of(model)[0], by_hand(seen.job, first, model._encoder).params)


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_network_sees_each_row_once_an_epoch(monkeypatch, shuffle):
    visits, train = [], hops._train

    def noted(job, piece, state, station):
        visits.append((job.seed, state.epoch, piece.shard, piece.begin, piece.end, len(station.shard)))
        return train(job, piece, state, station)

    monkeypatch.setattr(hops, "_train", noted)
    fitted(members=3, shuffle=shuffle)
    networks = {seed for seed, *_ in visits}
    assert len(networks) == 3
    orders = set()
    for seed in networks:
        for epoch in range(2):
            own = [visit[2:] for visit in visits if visit[:2] == (seed, epoch)]
            assert all((begin, end) == (0, n) for _, begin, end, n in own)
            assert sorted(number for number, *_ in own) == [0, 1, 2]
            assert sum(n for *_, n in own) == len(y)
            orders.add(tuple(number for number, *_ in own))
    assert len(orders) > 1 if shuffle else orders == {(0, 1, 2)}


@pytest.mark.parametrize(("name", "value"), [("_LEG_SECONDS", 0.0), ("_INLINE_BYTES", 0)])
def test_where_legs_begin_changes_no_bit(monkeypatch, name, value):
    expected = params_of(fitted(3)[0])
    monkeypatch.setattr(hopping, name, value)
    assert_array_equal(params_of(fitted(3)[0]), expected)


# --- the hopper -------------------------------------------------------------------------------------------


class Rows(Stations):
    """Stations of numbers, which are at hand."""

    def __init__(self, executor, numbers):
        super().__init__(executor)
        for n in numbers:
            self._places.append(stations._Place(1.0, n, {None: n}))
            self._local.append((None, 0))

    def look(self, present):
        self.measure()


@pytest.fixture
def hopper():
    executor = LocalExecutor()
    hopper = Hopper(executor, Rows(executor, [1, 20, 300]))
    yield hopper
    hopper._pool.close()


def add(carry, station):
    return carry + station


def fail(carry, station):
    raise ValueError("no such station")


def run(hopper, *sent):
    hopper.run(lambda: all(one.done() for one in sent))
    return [one.exception() or one.result() for one in sent]


def test_a_journey_carries_a_value_through_its_stations_in_order(hopper):
    order = []

    def note(carry, station):
        order.append(station)
        return carry + station

    assert run(hopper, hopper.send(Journey([(2, note), (0, note), (1, note)], 1000))) == [1321]
    assert order == [300, 1, 20]
    assert run(hopper, hopper.send(Journey([], 7))) == [7]


def test_an_error_ends_its_own_journey(hopper):
    sent = [hopper.send(Journey([(0, add), (1, visit)], 0)) for visit in (add, fail, add)]
    first, error, last = run(hopper, *sent)
    assert (first, last) == (21, 21)
    assert str(error) == "no such station"


def test_stopping_ends_what_may_be_stopped_and_nothing_else(hopper):
    training = hopper.send(Journey([(0, add)], 0, may_stop=True))
    scoring = hopper.send(Journey([(0, add)], 0))
    hopper.stop(TrainingStopped())
    later = hopper.send(Journey([(0, add)], 0, may_stop=True))
    found = run(hopper, training, scoring, later)
    assert found[1] == 1
    assert isinstance(found[0], TrainingStopped)
    assert isinstance(found[2], TrainingStopped)
    hopper.resume()
    assert run(hopper, hopper.send(Journey([(1, add)], 0, may_stop=True))) == [20]


def test_after_the_end_nothing_waits(hopper):
    hopper.end(RuntimeError("over"))
    with pytest.raises(RuntimeError, match="over"):
        hopper.send(Journey([(0, add)], 0)).result(timeout=10)


def test_what_has_come_far_comes_first(hopper, monkeypatch):
    order = []
    monkeypatch.setattr(LocalExecutor, "slots", lambda self: [None])

    def note(number):
        return lambda carry, station: order.append(number)

    sent = [hopper.send(Journey([(0, note(n))], 0, priority=(-n,))) for n in range(4)]
    run(hopper, *sent)
    assert order == [3, 2, 1, 0]
