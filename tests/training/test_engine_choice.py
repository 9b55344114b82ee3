"""One engine for a training: numba where driver and workers have the same, and nobody else joins in."""

import dask.array as da
import numpy as np
import pytest
from conftest import assert_nothing_left, bits

import dasknn
from dasknn import MLPClassifier, MLPRegressor, Sequential, WeightAveraging
from dasknn.callbacks import Callback
from dasknn.cluster.faults import JOINED
from dasknn.engine import engines
from dasknn.exceptions import EngineError
from dasknn.layers import Dense, Input

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(engines.numba_version() is None, reason="numba is missing"),
]
VERSION = engines.numba_version()
REMEDY = "pip install 'dasknn[fast]', or use engine='numpy'"
# What makes another worker of a worker, before it connects to the scheduler.
WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None\n"
OTHER_VERSION = """
from types import SimpleNamespace
from dasknn.engine import versions
versions.metadata = SimpleNamespace(version=lambda name: "0.1.2", PackageNotFoundError=KeyError)
"""
LACKS = {"no numba": WITHOUT_NUMBA, "numba 0.1.2": OTHER_VERSION}
ROADS = {
    "peer": {"strategy": "gradients", "transport": "peer"},
    "tasks": {"strategy": WeightAveraging(every=2), "transport": "tasks"},
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((240, 4))
    return X, (X[:, 0] + 0.5 * rng.standard_normal(240) > 0).astype(int)


@pytest.fixture(scope="module")
def data(rows):
    chunks = (100, 20, 60, 60)
    return [da.from_array(column, chunks=(chunks, *column.shape[1:])) for column in rows]


def fit(data, road="peer", **settings):
    defaults = {"hidden_layer_sizes": (5,), "batch_size": 40, "max_iter": 4, "random_state": 1, "replicas": 2}
    return MLPClassifier(**(defaults | ROADS[road] | settings)).fit(*data)


@pytest.fixture(scope="module")
def bits_here(data):
    """What training without a cluster gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasknn.cluster.connect._current_client", lambda: None)
        return {
            (engine, road): bits(fit(data, road, transport="auto", engine=engine))
            for engine in ("numpy", "numba")
            for road in ROADS
        }


def computed(dask_worker):
    """Keys of the tasks that a worker has run, but for those that only give out a state."""
    done = {str(key) for key, *transition in dask_worker.state.log if transition[1:2] == ["executing"]}
    return {key for key in done if not key.startswith("dasknn-state")}


def start_another(client, path, program):
    """Start one more worker, which runs a program first; return its address."""
    before = set(client.nthreads())
    path.write_text(program)
    client.cluster.new_spec["options"]["preload"] = [str(path)]
    client.cluster.scale(len(before) + 1)
    client.wait_for_workers(len(before) + 1, timeout=180)
    (other,) = set(client.nthreads()) - before
    return other


def entries_of(model):
    return {entry["engine"] for entry in model.history_}


# --- which engine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_numba_runs_where_driver_and_workers_have_the_same(client, data, bits_here, road):
    model = fit(data, road)
    assert (model.engine_, entries_of(model)) == ("numba", {"numba"})
    reason = f"numba: compiled steps hold no lock; version {VERSION} here and on all workers"
    assert model.engine_reason_ == reason
    assert bits(model) == bits_here["numba", road]
    asked = fit(data, road, engine="numpy")
    assert (asked.engine_, asked.engine_reason_) == ("numpy", "numpy: asked for")
    assert bits(asked) == bits_here["numpy", road] != bits(model)


@pytest.mark.parametrize("has", LACKS)
def test_a_worker_that_lacks_numba_is_named(new_cluster, data, bits_here, tmp_path, has):
    client = new_cluster(1)
    other = start_another(client, tmp_path / "before.py", LACKS[has])
    problem = f"worker {other} has {has}, and this process {VERSION}"
    for road in ROADS:
        model = fit(data, road)
        assert (model.engine_, model.engine_reason_) == ("numpy", f"numpy: {problem}")
        assert bits(model) == bits_here["numpy", road]
        with pytest.raises(EngineError) as caught:
            fit(data, road, engine="numba")
        assert problem in str(caught.value)
        assert REMEDY in str(caught.value)
    # What has no compiled steps anyway does not ask for numba.
    assert fit(data, engine="numba", solver="lbfgs", strategy="auto", transport="auto").engine_ == "numpy"
    assert_nothing_left(client)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("has", [*LACKS, f"numba {VERSION}"])
def test_only_workers_with_the_same_numba_may_join(new_cluster, data, bits_here, tmp_path, has, road):
    client = new_cluster(1)
    (first,) = client.nthreads()
    joined = []

    class Join(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if not joined:
                joined.append(start_another(client, tmp_path / "before.py", LACKS.get(has, "")))

    model = fit(data, road, callbacks=[Join()])
    assert (model.engine_, entries_of(model)) == ("numba", {"numba"})
    assert bits(model) == bits_here["numba", road]
    events = [event for entry in model.history_ for event in entry["faults"]]
    is_used = has not in LACKS
    assert [event["what"] for event in events] == [JOINED] * is_used
    if not is_used:
        found = client.run(computed)
        assert found[first]
        assert not found[joined[0]]
        # Where numpy is asked for, anybody may.
        fit(data, road, engine="numpy")
        assert client.run(computed)[joined[0]]
    assert_nothing_left(client)


def fail_to_compile():
    from dasknn.engine.compiled import steps

    def prepare(dtype):
        raise OSError(f"no BLAS for {dtype}")

    steps.prepare = prepare


def test_a_worker_on_which_numba_fails_is_named(new_cluster, data, bits_here):
    client = new_cluster(2)
    broken = sorted(client.nthreads())[1]
    client.run(fail_to_compile, workers=[broken])
    problem = f"worker {broken}: numba failed here: OSError: no BLAS for float64"
    model = fit(data)
    assert (model.engine_, model.engine_reason_) == ("numpy", f"numpy: {problem}")
    assert bits(model) == bits_here["numpy", "peer"]
    with pytest.raises(EngineError) as caught:
        fit(data, engine="numba")
    assert problem in str(caught.value)
    assert_nothing_left(client)


@pytest.mark.parametrize("where", ["in process", "on Dask"])
def test_without_numba_here_numpy_runs(rows, data, bits_here, monkeypatch, where):
    monkeypatch.setattr(engines, "numba_version", lambda: None)
    if where == "on Dask":
        model = fit(data, transport="auto")
        assert (model.engine_, model.engine_reason_) == ("numpy", "numpy: this process has no numba")
        assert bits(model) == bits_here["numpy", "peer"]
    with pytest.raises(EngineError, match="this process has no numba") as caught:
        fit(rows if where == "in process" else data, transport="auto", engine="numba")
    assert REMEDY in str(caught.value)
    model = sequential()
    model.fit(*rows, epochs=1, verbose=0)
    assert (model.engine_, model.engine_reason_) == ("numpy", "numpy: this process has no numba")


def sequential(**compiled):
    dasknn.set_random_seed(1)
    model = Sequential([Input((4,)), Dense(5, "relu"), Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", **compiled)
    return model


def test_a_model_that_numba_has_trained_predicts_without_it(rows, data, monkeypatch):
    X = np.tile(rows[0], (10, 1))
    estimator, model = fit(data, transport="auto", engine="numba"), sequential(engine="numba")
    model.fit(*rows, epochs=1, verbose=0)
    by_numba = estimator.predict_proba(X), model.predict(X, verbose=0)
    monkeypatch.setattr(engines, "numba_version", lambda: None)
    monkeypatch.setattr("dasknn.engine.compiled.steps.predict", None)
    by_numpy = estimator.predict_proba(X), model.predict(X, verbose=0)
    for found, expected in zip(by_numpy, by_numba, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_plain_data_of_estimators_stays_in_numpy_unless_numba_is_asked_for(rows):
    X, y = rows
    for Model in (MLPClassifier, MLPRegressor):
        settings = {"hidden_layer_sizes": (5,), "max_iter": 2, "random_state": 1}
        model = Model(**settings).fit(X, y)
        reason = "numpy: plain data in this process gives scikit-learn's own numbers"
        assert (model.engine_, model.engine_reason_) == ("numpy", reason)
        asked = Model(**settings, engine="numba").fit(X, y)
        assert (asked.engine_, asked.engine_reason_) == ("numba", f"numba: asked for; version {VERSION}")
        assert asked.loss_curve_ == pytest.approx(model.loss_curve_, rel=1e-10)
        assert asked.partial_fit(X, y).engine_ == "numba"
    model = sequential()
    history = model.fit(X, y, epochs=2, verbose=0)
    assert (model.engine_, {entry["engine"] for entry in history.entries}) == ("numba", {"numba"})


@pytest.mark.parametrize("engine", ["jax", "", None])
def test_engines_that_do_not_exist_are_refused(rows, engine):
    with pytest.raises(ValueError, match="'engine' parameter of MLPClassifier"):
        MLPClassifier(engine=engine).fit(*rows)
    with pytest.raises(ValueError, match="Expected engine to be 'auto', 'numpy' or 'numba'"):
        sequential(engine=engine)


# --- resuming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["numpy", "numba"])
def test_auto_keeps_the_engine_of_a_checkpoint(rows, tmp_path, there):
    def train(epochs, folder, engine, **arguments):
        model = sequential(engine=engine)
        model.fit(*rows, epochs=epochs, verbose=0, checkpoint=folder, **arguments)
        return model

    calm = train(4, tmp_path / "calm", there)
    train(2, tmp_path / "broken", there)
    resumed = train(4, tmp_path / "broken", "auto", resume=True)
    assert resumed.engine_ == there
    assert resumed.engine_reason_.startswith(f"{there}: as before the training was resumed")
    for found, expected in zip(resumed.get_weights(), calm.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_of_another_version_of_numba_is_refused(data, tmp_path, monkeypatch):
    def train(max_iter, **arguments):
        model = MLPClassifier(
            hidden_layer_sizes=(5,), batch_size=40, max_iter=max_iter, random_state=1, replicas=2
        )
        return model.fit(*data, checkpoint=tmp_path, **arguments)

    assert train(2).engine_ == "numba"
    monkeypatch.setattr("dasknn.engine.state.numba_version", lambda: "0.1.2")
    with pytest.raises(ValueError, match=f"engine: numba {VERSION} there, numba 0.1.2 here"):
        train(4, resume=True)
    monkeypatch.undo()
    assert train(4, resume=True).n_iter_ == 4


def test_a_checkpoint_of_numba_is_not_resumed_on_workers_without_it(new_cluster, data, tmp_path):
    client = new_cluster(1)

    def train(max_iter, **arguments):
        model = MLPClassifier(
            hidden_layer_sizes=(5,), batch_size=40, max_iter=max_iter, random_state=1, replicas=2
        )
        return model.fit(*data, checkpoint=tmp_path / "checkpoints", **arguments)

    assert train(2).engine_ == "numba"
    other = start_another(client, tmp_path / "before.py", WITHOUT_NUMBA)
    with pytest.raises(EngineError, match="as before the training was resumed") as caught:
        train(4, resume=True)
    assert f"worker {other} has no numba" in str(caught.value)
