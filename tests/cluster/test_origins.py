"""Who trains, and on whose data: workers that users name, and clients that hold collections."""

import time

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, default_client, get_worker
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import dasknn
from dasknn import MLPClassifier, MLPRegressor, Sequential, TablePreprocessor, layers
from dasknn.cluster.connect import connect
from dasknn.cluster.origins import Selection, selection
from dasknn.evaluation.responders import place_of

CHUNKS = ((60, 30, 60, 50), -1)


@pytest.fixture(scope="module")
def crew(start_cluster):
    """Three workers with names, in this process."""
    with start_cluster(3, processes=False) as cluster:
        yield cluster


@pytest.fixture
def client(crew):
    with Client(crew) as client:
        yield client


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4))
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture
def data(rows):
    return da.from_array(rows[0], chunks=CHUNKS), da.from_array(rows[1], chunks=CHUNKS[:1])


def workers_of(client):
    return client.scheduler_info(n_workers=-1)["workers"]


def classifier(**settings):
    return MLPClassifier((4,), max_iter=1, batch_size=16, tol=0, random_state=0, **settings)


def sequential(transport="auto"):
    model = Sequential([layers.Input((4,)), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", transport=transport)
    return model


ran_on = set()


def note(block):
    """Note which worker this runs on; all of them are in this process."""
    ran_on.add(get_worker().address)
    return block


def trainers(model):
    """Addresses of the workers that took part in the last fit."""
    history = model.history.entries if isinstance(model, Sequential) else model.history_
    return set(history[-1]["workers"])


# --- which workers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["peer", "tasks"])
@pytest.mark.parametrize("api", ["estimator", "Sequential"])
@pytest.mark.parametrize("by", ["setting", "annotated fit", "annotated data"])
def test_only_the_workers_that_are_named_train(client, rows, api, transport, by):
    wanted = sorted(workers_of(client))[1:]
    model = classifier(transport=transport, replicas=2) if api == "estimator" else sequential(transport)
    if by == "setting":
        model.workers = wanted
    with dask.annotate(**({"workers": wanted} if by == "annotated data" else {})):
        X, y = da.from_array(rows[0], chunks=CHUNKS), da.from_array(rows[1], chunks=CHUNKS[:1])
    with dask.annotate(**({"workers": wanted} if by == "annotated fit" else {})):
        model.fit(X, y, **({} if api == "estimator" else {"batch_size": 128, "verbose": 0}))
    assert model.replicas_ == 2
    assert trainers(model) == set(wanted)


def test_rows_stay_on_the_workers_that_are_named(client, data):
    (wanted,) = list(workers_of(client))[:1]
    ran_on.clear()
    model = classifier()
    model.workers = wanted
    X = data[0].map_blocks(note, meta=np.empty((0, 0)))
    model.fit(X, data[1])
    model.score(X, data[1])
    dasknn.evaluate(model, X, data[1])
    assert ran_on == {wanted}


def slowly(block):
    """Take a while, so that workers that have nothing to do look for work."""
    time.sleep(0.1)
    return note(block)


def test_nobody_takes_work_from_a_busy_worker_that_is_named(client):
    wanted = sorted(workers_of(client))[:1]
    ran_on.clear()
    X = da.random.default_rng(0).standard_normal((400, 4), chunks=(10, -1))
    model = classifier()
    model.workers = wanted
    model.fit(X.map_blocks(slowly, meta=np.empty((0, 0))), (X[:, 0] > 0).astype(int))
    assert ran_on == set(wanted)


def test_workers_have_addresses_names_and_hosts(client):
    workers = workers_of(client)
    address, about = next(iter(workers.items()))
    for words, n in (
        ([address], 1),
        ([address.removeprefix("inproc://")], 1),
        ([about["name"]], 1),
        ([about["host"]], 3),
    ):
        with connect(client, True, workers=words) as tasks:
            assert len(tasks.slots()) == n


def test_a_setting_is_stronger_than_an_annotation_and_wishes_do_not_count():
    with dask.annotate(workers=["alice"]):
        assert selection(None).words == ("alice",)
        assert selection("bob").words == ("bob",)
    with dask.annotate(workers=["alice"], allow_other_workers=True):
        assert selection(None) is None


def test_memory_and_results_sent_from_here_are_those_of_the_workers_that_are_named(client):
    wanted = sorted(workers_of(client))[0]
    with connect(client, True) as everybody, connect(client, True, workers=[wanted]) as tasks:
        assert tasks.memory_limit() < everybody.memory_limit()
        held = tasks.put([np.zeros(3)] * 4, [None] * 4)
        places = client.who_has(held)
        assert {at for ats in places.values() for at in ats} == {wanted}


def test_workers_that_never_come_are_named_with_those_that_are_there(client, data):
    model = classifier()
    model.workers = ["nobody", "10.0.0.9"]
    with (
        dask.config.set({"dasknn.timeout": 1}),
        pytest.raises(
            TimeoutError, match=r"none of the workers 10\.0\.0\.9, nobody for 1 s; its workers are: inproc"
        ),
    ):
        model.fit(*data)


@pytest.mark.parametrize("workers", [[], 5, [None], {"a": 1}.items()])
def test_workers_that_are_no_words_are_refused(client, data, workers):
    model = classifier()
    model.workers = workers
    with pytest.raises(TypeError, match="list of addresses, names or hosts"):
        model.fit(*data)


def test_workers_without_a_client_are_refused(data):
    model = sequential()
    model.workers = ["alice"]
    with pytest.raises(ValueError, match="Expected a client, since the model has workers set"):
        model.fit(*data, verbose=0)


def test_what_models_of_others_call_workers_says_nothing():
    model = LogisticRegression()
    model.workers = 4
    assert place_of(model) == place_of(make_pipeline(model)) == {"client": None, "workers": None}


def test_clones_go_where_their_model_goes_and_files_do_not(client, data):
    for model in (classifier(), TablePreprocessor()):
        model.client, model.workers = client, ["alice"]
        (twin,) = clone(make_pipeline(model)).named_steps.values()
        assert (twin.client, twin.workers) == (client, ["alice"])
        assert "workers" not in model.__getstate__()
    other = sequential()
    other.client = client
    assert "client" not in other.__getstate__()


def test_selections_look_again_for_workers_that_have_joined():
    found = Selection(["alice"])
    found.look_at({"tcp://a:1": {"name": "bob", "host": "a"}})
    assert found.knows(["tcp://a:1"])
    assert not found.allows("tcp://a:1")
    assert not found.knows(["tcp://a:1", "tcp://a:2"])
    found.look_at({"tcp://a:2": {"name": "alice", "host": "a"}})
    assert found.allows("tcp://a:2")


# --- whose client -----------------------------------------------------------------------------------


@pytest.fixture
def other(new_cluster):
    """A client of another cluster, which is the current one."""
    client = new_cluster(1, processes=False)
    with client.as_current():
        yield client


def test_both_apis_train_with_the_client_that_they_are_told(client, other, data):
    assert default_client() is other
    X, y = client.persist(list(data))
    frame = client.persist(dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0, 3.0]}), npartitions=2))
    own = set(workers_of(client))
    for model, settings in ((classifier(), {}), (sequential(), {"verbose": 0}), (TablePreprocessor(), None)):
        model.client = client
        if settings is None:
            model.fit(frame)
            continue
        model.fit(X, y, **settings)
        assert trainers(model) <= own


def test_data_of_another_cluster_is_named_with_both(client, other, data):
    X, y = client.persist(list(data))
    ours, theirs = other.scheduler.address, client.scheduler.address
    calls = [
        lambda: classifier().fit(X + 1, y),
        lambda: classifier().fit(*data, validation_data=(X, y)),
        lambda: MLPRegressor(max_iter=1).fit(data[0], y),
        lambda: sequential().fit(X, y, verbose=0),
        lambda: dasknn.recommend(None, classifier(), X),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"persisted on the cluster of {theirs}.*on that of {ours}"):
            call()


def test_data_of_another_client_of_the_same_cluster_is_taken(client, crew, data):
    X, y = client.persist(list(data))
    with Client(crew, set_as_default=False) as second:
        model = classifier()
        model.client = second
        assert model.fit(X, y).n_iter_ == 1


def test_data_of_a_client_that_is_closed_is_named(client, crew, data):
    with Client(crew, set_as_default=False) as second:
        X, y = second.persist(list(data))
    with pytest.raises(ValueError, match="persisted with a client that is now closed"):
        classifier().fit(X, y)
