"""What users do wrong ends in a clear error or a finished run; it never hangs, and leaves nothing behind."""

import asyncio
import copy
import os
import pickle
import re
import signal
import threading
import warnings
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left, assert_workers_clean, bits, params_of
from distributed import Client
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import dasknn
from dasknn import GradientAveraging, MLPClassifier, MLPRegressor, Sequential, WeightAveraging
from dasknn.callbacks import Callback, EarlyStopping
from dasknn.data import loading, shards
from dasknn.exceptions import NonFiniteLossError
from dasknn.layers import Dense, Input

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:Training interrupted by user"),
    # A bad partition may also be one that is unlike the others.
    pytest.mark.filterwarnings("ignore::dasknn.exceptions.DataSkewWarning"),
]

CHUNK, N = 20, 60
X = np.random.default_rng(0).standard_normal((N, 3))
Y = (X[:, 0] > 0).astype(int)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
FACES = ["scikit-learn", "keras"]


def on_dask(*columns):
    return [da.from_array(column, chunks=(CHUNK, *column.shape[1:])) for column in columns]


def data_at(place):
    """Return X and y, plain for training in this process."""
    return (X, Y) if place == "process" else on_dask(X, Y)


def new_model(face, place="threads", strategy=None):
    """Return a model that trains at that place: "process", "threads", or a transport."""
    transport = place if place in ("tasks", "peer") else "auto"
    strategy = None if place == "process" else strategy or WeightAveraging(replicas=2)
    if face == "scikit-learn":
        settings = {"random_state": 0, "batch_size": CHUNK, "tol": 0, "n_iter_no_change": 10**9}
        return MLPClassifier((3,), strategy=strategy or "auto", transport=transport, **settings)
    dasknn.set_random_seed(0)
    with strategy.scope() if strategy else nullcontext():
        model = Sequential([Input((3,)), Dense(3, "relu"), Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", transport=transport)
    return model


def fit(model, data, epochs=3, callbacks=(), weight=None):
    """Train either kind of model; return it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer")
        if isinstance(model, Sequential):
            model.fit(*data, CHUNK, epochs, 0, list(callbacks), sample_weight=weight)
        else:
            model.set_params(max_iter=epochs, callbacks=list(callbacks)).fit(*data, weight)
    return model


def history_of(model):
    return model.history.epoch if isinstance(model, Sequential) else model.history_


#: What numpy and Python say, where nothing is said of what a user passed.
FROM_DEEP_INSIDE = re.compile(
    "values to unpack|broadcast|too deep|unsized|has no len|must have same number of dimensions|inhomogeneous"
    "|be promoted|a string or a real number|subscriptable|unsupported operand|NoneType|out of bounds"
    "|with a sequence|not iterable|has no attribute|Cannot cast array data"
)


@contextmanager
def refused(*words):
    """Fail unless what is within ends in a clear error that has all of these words (regular expressions)."""
    try:
        yield
    except (ValueError, TypeError) as error:
        said = "\n".join([str(error), *getattr(error, "__notes__", [])])
        if FROM_DEEP_INSIDE.search(said):
            problem = f"Expected a message for users, received {said!r}"
        elif missing := [word for word in words if not re.search(word, said)]:
            problem = f"Expected {missing} in {said!r}"
        else:
            return
    except Exception as error:
        problem = f"Expected a ValueError or TypeError, received {error!r}"
    else:
        problem = "Expected an error, received none"
    pytest.fail(problem, pytrace=False)


# --- callbacks -----------------------------------------------------------------------------------------


class Mistake(Exception):
    """A user's own."""


class Raising(Callback):
    """Raises an error when an event happens for the n-th time."""

    def __init__(self, event, n, error):
        self.left, self.error = n, error
        setattr(self, event, self._happens)

    def _happens(self, *args, **logs):
        self.left -= 1
        if self.left == 0:
            raise self.error


# Event: when to raise, and how many epochs are whole by then, of 4.
EVENTS = {
    "on_train_begin": (1, 0),
    "on_train_ready": (1, 0),
    "on_epoch_begin": (3, 2),
    "on_train_batch_end": (3, 2),
    "on_epoch_end": (2, 2),
    "on_epoch_done": (2, 2),
    "on_train_end": (1, 4),
}


@pytest.mark.parametrize(
    ("event", "place", "face"),
    [
        *((event, place, face) for event in EVENTS for place in ("process", "threads") for face in FACES),
        ("on_train_begin", "tasks", "scikit-learn"),
        ("on_train_end", "tasks", "keras"),
        ("on_epoch_begin", "peer", "scikit-learn"),
        ("on_train_end", "peer", "keras"),
    ],
)
def test_a_callbacks_error_arrives_and_the_model_has_its_last_whole_epoch(event, place, face, request):
    client = request.getfixturevalue("client") if place in ("tasks", "peer") else None
    n, n_whole = EVENTS[event]
    error = Mistake("of the user's own")
    model = new_model(face, place)
    with pytest.raises(Mistake) as caught:
        fit(model, data_at(place), 4, [Raising(event, n, error)])
    assert caught.value is error
    if client is not None:
        assert_nothing_left(client)
        assert_workers_clean(client)
    if n_whole:
        assert bits(model) == bits(fit(new_model(face, place), data_at(place), n_whole))
    elif face == "keras":
        assert bits(model) == bits(new_model(face, place))
    else:
        with pytest.raises(NotFittedError):
            model.predict(X)
    fit(model, data_at(place), 2)
    if face == "keras":
        assert model.history.epoch == [0, 1]
    else:
        assert bits(model) == bits(fit(new_model(face, place), data_at(place), 2))


@pytest.mark.parametrize("event", ["on_test_begin", "on_test_end"])
def test_an_error_of_a_callback_in_validation_arrives(event):
    data, raising = on_dask(X, Y), Raising(event, 2, Mistake())
    model = new_model("keras")
    with pytest.raises(Mistake):
        model.fit(*data, CHUNK, 4, 0, [raising], validation_data=data)
    # Validation comes at the end of an epoch, when its weights are there.
    assert len(model.history.epoch) == 1
    assert bits(model) == bits(fit(new_model("keras"), data, 2))


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "event",
    EVENTS,
)
def test_a_callback_that_raises_is_let_go_and_others_hear_of_the_end(event, face):
    heard = []
    raising, other = Raising(event, 1, Mistake()), Callback()
    other.on_train_end = lambda logs=None: heard.append("end")
    with pytest.raises(Mistake):
        fit(new_model(face), data_at("threads"), 2, [raising, other])
    assert raising.model is raising.training is other.model is other.training is None
    assert heard == ["end"]


class Copying(Callback):
    """Makes a copy of the model at the end of the second epoch."""

    def __init__(self, how):
        self.how = how
        self.copied = None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            ways = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "deepcopy": copy.deepcopy}
            self.copied = (ways | {"clone": clone})[self.how](self.model)


@pytest.mark.parametrize(
    ("face", "place", "how"),
    [
        ("scikit-learn", "process", "pickle"),
        ("scikit-learn", "process", "deepcopy"),
        ("scikit-learn", "process", "clone"),
        ("keras", "process", "deepcopy"),
        ("scikit-learn", "threads", "pickle"),
        ("keras", "process", "pickle"),
        ("scikit-learn", "tasks", "pickle"),
        ("scikit-learn", "tasks", "clone"),
        ("keras", "peer", "pickle"),
    ],
)
def test_a_model_can_be_copied_while_it_trains(face, place, how, request):
    if place in ("tasks", "peer"):
        request.getfixturevalue("client")
    copying = Copying(how)
    model = fit(new_model(face, place), data_at(place), 3, [copying])
    assert bits(model) == bits(fit(new_model(face, place), data_at(place), 3))
    if how == "clone":
        assert copying.copied.get_params().keys() == model.get_params().keys()
        with pytest.raises(NotFittedError):
            copying.copied.predict(X)
        return
    assert bits(copying.copied) == bits(fit(new_model(face, place), data_at(place), 2))


NO_CALLBACKS = {
    "a class": [EarlyStopping],
    "text": "early_stopping",
    "a dict": {"stop": 1},
    "None in a list": [None],
    "a number": 5,
}


@pytest.mark.parametrize(
    ("face", "what"),
    [
        *((face, what) for face in FACES for what in NO_CALLBACKS),
    ],
)
def test_what_are_no_callbacks_are_refused(face, what):
    model = new_model(face, "process")
    with refused("callback"):
        if face == "keras":
            model.fit(X, Y, verbose=0, callbacks=NO_CALLBACKS[what])
        else:
            model.set_params(callbacks=NO_CALLBACKS[what]).fit(X, Y)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(list, id="a list"),
        pytest.param(tuple, id="a tuple"),
        pytest.param(iter, id="an iterator"),
        pytest.param(lambda callbacks: callbacks[0], id="one alone"),
    ],
)
def test_callbacks_are_called_however_they_are_given(given):
    seen = []
    callback = Callback()
    callback.on_epoch_end = lambda epoch, logs=None: seen.append(epoch)
    new_model("keras", "process").fit(X, Y, epochs=2, verbose=0, callbacks=given([callback]))
    assert seen == [0, 1]


# --- Ctrl-C --------------------------------------------------------------------------------------------


@contextmanager
def ctrl_c_after(seconds):
    """Press Ctrl-C after so many seconds, and again every 5 seconds until what is within ends."""
    ended = threading.Event()

    def press():
        wait = seconds
        while not ended.wait(wait):
            os.kill(os.getpid(), signal.SIGINT)
            wait = 5

    thread = threading.Thread(target=press)
    try:
        thread.start()
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("place", "face"),
    [
        *((place, face) for place in ("process", "threads", "peer") for face in FACES),
        ("tasks", "scikit-learn"),
    ],
)
def test_ctrl_c_at_any_moment_leaves_usable_weights_or_none_and_nothing_else(place, face, request):
    client = request.getfixturevalue("client") if place in ("tasks", "peer") else None
    expected = bits(fit(new_model(face, place), data_at(place), 2))
    moments = np.random.default_rng([FACES.index(face), len(place)]).uniform(
        0, 0.6, 3 if client is None else 2
    )
    for seconds in moments:
        model = new_model(face, place)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with ctrl_c_after(seconds):
                    fit(model, data_at(place), 10**6)
            except KeyboardInterrupt:
                began = False
            else:
                began = True
        said = [str(warning.message) for warning in caught]
        assert ("Training interrupted by user." in said) == began
        if client is not None:
            assert_nothing_left(client)
            assert_workers_clean(client)
        if began:
            assert np.isfinite(params_of(model)).all()
            assert len(model.predict(X)) == N
        if face == "keras":
            # Keras's models go on from what they have; a new one begins anew.
            model = new_model(face, place)
        assert bits(fit(model, data_at(place), 2)) == expected


PRESS_AT_A_LOCK = """
import faulthandler, os, signal, sys, threading, warnings
import dask.array as da, numpy as np
from distributed import Client, LocalCluster
from dasknn import MLPClassifier

warnings.simplefilter("ignore")
def press_at(n):
    left = n
    def watch(frame, event, arg):
        nonlocal left
        if event == "return" and frame.f_code is threading.Condition.__enter__.__code__:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)
    sys.setprofile(watch)

X = np.random.default_rng(0).random((40, 3))
data = da.from_array(X, chunks=(20, -1)), da.from_array((X[:, 0] > 0.5).astype(int), chunks=20)
settings = {"processes": False, "dashboard_address": None}
with LocalCluster(n_workers=1, threads_per_worker=2, **settings) as cluster, Client(cluster) as client:
    model = MLPClassifier((3,), max_iter=2, strategy="gradients", replicas=2, transport="tasks")
    for n in range(1, 60, 6):
        # Whatever hangs ends here.
        faulthandler.dump_traceback_later(6, exit=True)
        press_at(n)
        try:
            model.fit(*data)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        alive = threading.Event()
        client.loop.add_callback(alive.set)
        if not alive.wait(3):
            os._exit(1)
os._exit(0)
"""


def test_ctrl_c_never_stops_the_clients_event_loop(start_program, tmp_path):
    # An interruption may come when threading.Condition.__enter__ has the lock, and has not returned yet.
    told = tmp_path / "output"
    process = start_program(exec, PRESS_AT_A_LOCK, {}, output=told)
    process.join(50)
    assert process.exitcode == 0, told.read_text()


# --- sources that fail ---------------------------------------------------------------------------------


def reads(folder, n_reads, block):
    """Return a block, unless there were that many reads before this one and nobody has mended it."""
    path = os.path.join(folder, "reads")
    with open(path, "ab") as file:
        file.write(b"1")
    if os.path.getsize(path) > n_reads and not os.path.exists(os.path.join(folder, "mended")):
        raise OSError("disk on fire")
    return block


@pytest.mark.parametrize(
    ("place", "face"),
    [("threads", "scikit-learn"), ("threads", "keras"), ("tasks", "scikit-learn"), ("peer", "keras")],
)
def test_a_source_that_fails_in_a_later_epoch_ends_the_training_with_its_last_whole_epoch(
    place, face, request, tmp_path, monkeypatch
):
    client = request.getfixturevalue("client") if place in ("tasks", "peer") else None
    # Nothing fits in memory, so each epoch reads again, partition by partition.
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 0)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 0)
    whole = da.from_array(X, chunks=(CHUNK // 2, -1)), da.from_array(Y, chunks=CHUNK // 2)
    source = whole[0].map_blocks(partial(reads, str(tmp_path), 15), meta=np.empty((0, 0)))
    new = partial(new_model, face, place, GradientAveraging(replicas=2))
    model = new()
    with pytest.raises(OSError, match="disk on fire"):
        fit(model, (source, whole[1]), 100)
    n_whole = len(history_of(model))
    assert n_whole in (1, 2)
    assert bits(model) == bits(fit(new(), whole, n_whole))
    (tmp_path / "mended").touch()
    fit(model, (source, whole[1]), n_whole)
    assert len(history_of(model)) == n_whole
    if client is not None:
        assert_nothing_left(client)


@pytest.mark.parametrize("place", ["tasks", "threads"])
def test_a_source_that_fails_is_named_by_its_partition(place, request):
    if place == "tasks":
        request.getfixturevalue("client")

    def fails(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 1:
            raise KeyError("no such column")
        return block

    source, target = on_dask(X, Y)
    with pytest.raises(KeyError, match="no such column") as caught:
        fit(new_model("scikit-learn"), (source.map_blocks(fails, meta=np.empty((0, 0))), target))
    assert "partition 1" in "".join(getattr(caught.value, "__notes__", []))


# --- partitions that are not what they were announced to be --------------------------------------------


PART, LABELS = X[CHUNK : 2 * CHUNK], Y[CHUNK : 2 * CHUNK]
KINDS = ["classifier", "regressor", "keras"]
# Name: what is there instead of partition 1.
BAD_X = {
    "fewer rows": PART[1:],
    "fewer columns": PART[:, :2],
    "one dimension": PART[:, 0],
    "three dimensions": PART[:, :, np.newaxis],
    "a number": 5.0,
    "None": None,
    "text": np.full(PART.shape, "x"),
    "a dict": {"a": 1},
    "records": np.zeros(CHUNK, [("a", float), ("b", float)]),
    "rows of several lengths": [[1, 2], [3]],
    "complex numbers": PART * 1j,
    "dates": np.zeros(PART.shape, "M8[ns]"),
    "masked numbers": np.ma.masked_array(PART, PART > 0),
    "NaN": np.where(PART > 1, np.nan, PART),
    "infinity": np.where(PART > 1, np.inf, PART),
    "None among them": np.where(PART > 1, None, PART),
}
BAD_Y = {
    "fewer rows": LABELS[1:],
    "two columns": np.column_stack([LABELS, LABELS]),
    "three dimensions": LABELS[:, np.newaxis, np.newaxis],
    "a number": 1,
    "None": None,
    "text": np.full(CHUNK, "yes"),
    "words and numbers": np.array([0, "a"] * (CHUNK // 2), object),
    "complex numbers": LABELS * 1j,
    "dates": np.zeros(CHUNK, "M8[ns]"),
    "NaN": np.where(LABELS, np.nan, 0),
    "infinity": np.where(LABELS, np.inf, 0),
    "None among them": np.where(LABELS, None, 0),
    "pandas.NA among them": pd.Series(LABELS).astype("Int64").where(LABELS > 0),
    "masked numbers": np.ma.masked_array(LABELS, LABELS > 0),
}
BAD_WEIGHT = {
    "fewer rows": np.ones(CHUNK - 1),
    "two columns": np.ones((CHUNK, 2)),
    "a number": 1.0,
    "None": None,
    "text": np.full(CHUNK, "x"),
    "dates": np.zeros(CHUNK, "M8[ns]"),
    "NaN": np.where(LABELS, np.nan, 1),
    "infinity": np.where(LABELS, np.inf, 1),
    "None among them": np.where(LABELS, None, 1),
    "pandas.NA among them": pd.Series(LABELS).astype("Float64").where(LABELS > 0),
    "negative": np.where(LABELS, -1.0, 1.0),
    "masked numbers": np.ma.masked_array(np.ones(CHUNK), LABELS > 0),
}


def cases_of(table):
    """Return parameters (kind, bad) for the cases of a table."""
    return [pytest.param(kind, bad, id=f"{name}-{kind}") for name, bad in table.items() for kind in KINDS]


def model_of(kind, place="threads"):
    if kind != "regressor":
        return new_model("keras" if kind == "keras" else "scikit-learn", place)
    settings = {} if place == "process" else {"strategy": "gradients", "replicas": 2}
    return MLPRegressor(hidden_layer_sizes=(3,), random_state=0, batch_size=CHUNK, **settings)


def with_part(column, bad):
    """Return a Dask array of a column whose partition 1 computes to something else."""
    parts = [column[:CHUNK], bad, column[2 * CHUNK :]]
    shape = (CHUNK, *column.shape[1:])
    return da.concatenate(
        [da.from_delayed(dask.delayed(lambda part=part: part)(), shape, column.dtype) for part in parts]
    )


@pytest.mark.parametrize(("kind", "bad"), cases_of(BAD_X))
def test_a_partition_of_x_that_is_not_of_rows_of_numbers_is_named(kind, bad):
    with refused("artition 1", r"\bX\b"):
        fit(model_of(kind), (with_part(X, bad), on_dask(Y)[0]))


@pytest.mark.parametrize(("kind", "bad"), cases_of(BAD_Y))
def test_a_partition_of_y_that_is_not_of_targets_is_named(kind, bad):
    with refused("artition", r"\by\b|targets|label"):
        fit(model_of(kind), (on_dask(X)[0], with_part(Y, bad)))


@pytest.mark.parametrize(("kind", "bad"), cases_of(BAD_WEIGHT))
def test_a_partition_of_weights_that_are_none_is_named(kind, bad):
    with refused("artition 1", "sample_weight"):
        fit(model_of(kind), on_dask(X, Y), weight=with_part(np.ones(N), bad))


@pytest.mark.parametrize(
    ("of", "bad"),
    [
        ("X", np.full(PART.shape, "x")),
        ("weight", np.where(LABELS, np.nan, 1)),
        ("X", PART[:, 0]),
        ("y", None),
        ("weight", None),
    ],
    ids=["text in X", "NaN in weights", "X of one dimension", "no y", "no weights"],
)
def test_a_bad_partition_on_a_cluster_is_named_and_leaves_nothing(client, of, bad):
    whole = {"X": X, "y": Y, "weight": np.ones(N)}
    data = {name: on_dask(column)[0] for name, column in whole.items()}
    data[of] = with_part(whole[of], bad)
    with refused("artition 1"):
        fit(new_model("scikit-learn", "tasks"), (data["X"], data["y"]), weight=data["weight"])


OTHER_KINDS = {
    "dates": lambda column: column.astype("M8[s]"),
    "durations": lambda column: column.astype("m8[s]"),
    "complex numbers": lambda column: column * 1j,
    "masked numbers": lambda column: np.ma.masked_array(column, column > 0),
}


@pytest.mark.parametrize("of", ["X", "y", "weights"])
@pytest.mark.parametrize("place", ["process", "parts", "threads"])
@pytest.mark.parametrize("kind", ["regressor", "keras"])
@pytest.mark.parametrize("change", OTHER_KINDS.values(), ids=list(OTHER_KINDS))
def test_what_is_not_of_numbers_is_refused_at_fit_predict_and_score(change, kind, place, of):
    columns = {"X": X, "y": columns_for(kind)[1], "weights": np.ones(N)}
    model = fit(model_of(kind, place), (columns["X"], columns["y"]), 1)
    columns[of] = change(columns[of])
    features, *rest = on_dask(*columns.values()) if place == "threads" else columns.values()
    said = "Complex data|numbers in|masked"
    with refused(said):
        fit(model_of(kind, place), (features, rest[0]), 1, weight=rest[1])
    with refused(said):
        if kind == "keras":
            model.evaluate(features, rest[0], verbose=0, sample_weight=rest[1])
        else:
            model.score(features, *rest)
    if of == "X":
        with refused(said):
            np.asarray(model.predict(features))


def test_targets_that_are_missing_or_have_no_columns_are_refused():
    for y in (None, da.zeros((N, 0), chunks=(CHUNK, 0))):
        for kind in KINDS:
            with refused(r"\by\b"):
                fit(model_of(kind), (on_dask(X)[0], y))


def test_a_single_number_as_inputs_is_refused():
    for kind in KINDS:
        with refused("shape"):
            fit(model_of(kind), (on_dask(X)[0].sum(), on_dask(Y)[0]))


# --- a dataframe whose partitions are not as its columns say --------------------------------------------


def frame_with(change):
    """Return a Dask dataframe of X whose partition 1 is changed, though its announcement is not."""
    parts = [FRAME[:CHUNK], change(FRAME[CHUNK : 2 * CHUNK].copy()), FRAME[2 * CHUNK :]]
    return dd.from_map(lambda part: part, parts, meta=FRAME[:0])


FRAMES = {
    "a column less": lambda part: part.drop(columns="b"),
    "a column more": lambda part: part.assign(z=1.0),
    "another name": lambda part: part.rename(columns={"a": "A"}),
    "a name twice": lambda part: part.set_axis(["a", "a", "c"], axis=1),
    "an array": lambda part: part.to_numpy()[:, :2],
    "a series": lambda part: part["a"],
    "None": lambda part: None,
    "text": lambda part: part.assign(b="x"),
    "categories of text": lambda part: part.assign(b=pd.Categorical(["x"] * CHUNK)),
    "complex numbers": lambda part: part.assign(b=1j),
    "dates": lambda part: part.assign(b=pd.Timestamp("2020-01-01")),
    "periods": lambda part: part.assign(b=pd.Period("2020-01-01", "D")),
    "NaN": lambda part: part.assign(b=np.nan),
    "Float64 with NA": lambda part: part.assign(b=part["b"].astype("Float64").where(part["b"] > 0)),
    "boolean with NA": lambda part: part.assign(b=pd.array([True, None] * 10, "boolean")),
    "pyarrow with NA": lambda part: part.assign(b=pd.array([1.5, None] * 10, "double[pyarrow]")),
    "objects with NA": lambda part: part.assign(b=np.array([1.5, pd.NA] * 10, object)),
}


@pytest.mark.parametrize(
    ("kind", "change"), [case for case in cases_of(FRAMES) if "regressor" not in case.id]
)
def test_a_partition_of_a_dataframe_that_is_not_as_announced_is_named(kind, change):
    with refused("artition 1", "column|X"):
        fit(model_of(kind), (frame_with(change), on_dask(Y)[0]))


# --- columns -------------------------------------------------------------------------------------------

STRANGE_COLUMNS = {
    "text": ["x"] * N,
    "categories": pd.Categorical(["x", "y"] * (N // 2)),
    "dates": pd.date_range("2020-01-01", periods=N),
    "dates with a zone": pd.date_range("2020-01-01", periods=N, tz="UTC"),
    "durations": pd.timedelta_range("1 day", periods=N),
    "periods": pd.period_range("2020-01-01", periods=N, freq="D"),
    "objects with NA": np.array([1.5, pd.NA] * (N // 2), object),
}


@pytest.mark.parametrize(
    ("model", "form", "column"),
    [
        pytest.param(model, form, column, id=f"{name}-{model}-{form}")
        for name, column in STRANGE_COLUMNS.items()
        for model, form in [
            ("auto", "pandas"),
            ("gradients", "pandas"),
            ("auto", "Dask"),
            ("keras", "pandas"),
        ]
    ],
)
def test_a_column_that_is_not_of_numbers_is_named_at_fit_and_at_predict(model, form, column):
    frame = FRAME.assign(b=column)
    strange, good = (dd.from_pandas(f, npartitions=3) if form == "Dask" else f for f in (frame, FRAME))
    y = on_dask(Y)[0] if form == "Dask" else Y
    model = new_model("keras") if model == "keras" else MLPClassifier((3,), max_iter=1, strategy=model)
    with refused("'b'", "Encode them"):
        model.fit(strange, y)
    fit(model, (good, y), 1)
    with refused("'b'", "Encode them"):
        model.predict(strange)


@pytest.mark.parametrize("form", ["pandas", "Dask"])
def test_other_columns_than_those_of_fit_are_refused(form):
    def given(frame):
        return dd.from_pandas(frame, npartitions=3) if form == "Dask" else frame

    model = fit(new_model("scikit-learn"), (given(FRAME), on_dask(Y)[0] if form == "Dask" else Y), 1)
    for frame, words in (
        (FRAME[["a", "b"]], "yet now missing:\n- c"),
        (FRAME.assign(z=1.0), "unseen at fit time:\n- z"),
        (FRAME[["c", "b", "a"]], "must be in the same order"),
        (FRAME.set_axis(["a", "a", "c"], axis=1), "received 'a' 2 times"),
    ):
        with refused(words):
            model.predict(given(frame))
        if form == "Dask":
            with refused(words):
                model.score(given(frame), on_dask(Y)[0])


def test_a_name_that_two_columns_have_is_refused_at_fit():
    twice = FRAME.set_axis(["a", "a", "c"], axis=1)
    for X_, y in ((twice, Y), (dd.from_pandas(twice, npartitions=3), on_dask(Y)[0])):
        with refused("received 'a' 2 times"):
            fit(new_model("scikit-learn"), (X_, y))


@pytest.mark.parametrize("face", FACES)
def test_a_series_is_no_dataframe(face):
    series = dd.from_pandas(FRAME["a"], npartitions=3)
    model = new_model(face)
    with refused(r"shape|dimension|Series"):
        fit(model, (series, on_dask(Y)[0]))


# --- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "place"),
    [
        ("scikit-learn", "process"),
        ("scikit-learn", "parts"),
        ("scikit-learn", "threads"),
        ("keras", "process"),
        ("keras", "threads"),
    ],
)
def test_no_columns_are_refused(face, place):
    columns = X[:, :0], Y
    with refused(r"0 feature|0 columns|\(None, 0\)"):
        fit(new_model(face, place), on_dask(*columns) if place == "threads" else columns, 1)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("place", ["process", "threads"])
def test_no_rows_are_refused(face, place):
    empty = (X[:0], Y[:0]) if place == "process" else on_dask(X[:0], Y[:0])
    with refused("0 sample"):
        fit(new_model(face, place), empty)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("scalar", [3.0, np.float64(3), np.array(3), "yes"], ids=repr)
def test_a_number_for_y_or_for_weights_is_refused(face, scalar):
    for data, weight in (((on_dask(X)[0], scalar), None), (on_dask(X, Y), scalar)):
        with refused("y|sample_weight"):
            fit(new_model(face), data, weight=weight)


@pytest.mark.parametrize("face", FACES)
def test_weights_of_another_length_are_called_as_users_call_them(face):
    with refused("X has 60 rows, sample_weight has 59"):
        fit(new_model(face), on_dask(X, Y), weight=np.ones(N - 1))


@pytest.mark.parametrize(
    ("face", "strategy", "x", "y"),
    [
        ("scikit-learn", "auto", *on_dask(X[:1], Y[:1])),
        ("scikit-learn", "gradients", X[:1], Y[:1]),
        ("scikit-learn", "gradients", [[1.0, 2.0, 3.0]], [0]),
        ("keras", None, *on_dask(X[:1], Y[:1])),
        ("keras", "gradients", X[:1], Y[:1]),
    ],
)
def test_one_row_is_enough_where_nobody_asked_for_replicas(face, strategy, x, y):
    with dask.config.set(num_workers=3):
        if face == "scikit-learn":
            model = MLPClassifier((3,), strategy=strategy)
        else:
            with GradientAveraging().scope() if strategy else nullcontext():
                model = Sequential([Input((3,)), Dense(1, "sigmoid")])
            model.compile("adam", "binary_crossentropy")
        fit(model, (x, y), 1)
    assert model.replicas_ == 1


def test_a_score_of_no_rows_is_refused():
    model = fit(new_model("scikit-learn"), on_dask(X, Y), 1)
    with refused("0 sample|no rows|at least one row"):
        model.score(*on_dask(X[:0], Y[:0]))


# --- arrays as they come -------------------------------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


LAYOUTS = {
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "every second row": lambda array: np.repeat(array, 2, axis=0)[::2],
    "backwards": lambda array: array[::-1].copy()[::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "objects": lambda array: array.astype(object),
    "unaligned": lambda array: np.frombuffer(b" " + array.tobytes(), array.dtype, -1, 1).reshape(array.shape),
}


def trained_on(kind, place, columns):
    """Return the bits of a model of that kind after two epochs."""
    model = model_of(kind, place)
    return bits(fit(model, on_dask(*columns) if place == "threads" else columns, 2))


trained_on_plain = lru_cache(lambda kind, place: trained_on(kind, place, columns_for(kind)))


def columns_for(kind):
    return X, X[:, 1].copy() if kind == "regressor" else Y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["process", "parts", "threads"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_layout_of_an_array_changes_no_bit_and_no_array(kind, place, layout):
    columns = [LAYOUTS[layout](column) for column in columns_for(kind)]
    if (kind, layout) == ("keras", "objects"):
        # There, y must be of numbers.
        columns[1] = Y
    before = [array.tobytes() for array in columns]
    assert trained_on(kind, place, columns) == trained_on_plain(kind, place)
    assert [array.tobytes() for array in columns] == before


@pytest.mark.parametrize("dtype", ["Float64", "double[pyarrow]"])
@pytest.mark.parametrize("face", FACES)
def test_pandas_own_dtypes_without_missing_values_are_numbers(face, dtype):
    frame = dd.from_pandas(FRAME.astype(dtype), npartitions=3, sort=False)
    labels = dd.from_pandas(pd.Series(Y).astype("Int64"), npartitions=3, sort=False)
    assert bits(fit(new_model(face), (frame, labels))) == bits(fit(new_model(face), on_dask(X, Y)))


def test_predicted_text_can_be_written_to_parquet(tmp_path):
    frame = dd.from_pandas(FRAME.assign(label=np.where(Y, "yes", "no")), npartitions=3)
    model = fit(new_model("scikit-learn"), (frame[["a", "b", "c"]], frame["label"]), 1)
    predicted = model.predict(frame[["a", "b", "c"]])
    assert predicted.dtype == predicted.compute().dtype
    predicted.to_frame("label").to_parquet(tmp_path)
    assert dd.read_parquet(tmp_path)["label"].isin(["yes", "no"]).all().compute()


def test_numbers_that_overflow_draw_no_warning_of_numpys_from_threads():
    model = model_of("regressor")
    with warnings.catch_warnings(record=True) as caught, dask.config.set(num_workers=4):
        warnings.simplefilter("always")
        with pytest.raises(NonFiniteLossError):
            fit(model, on_dask(X, 1e300 * X[:, 0]))
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == []


# --- clients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", FACES)
def test_an_asynchronous_client_is_refused_in_its_loop(cluster, face):
    model = new_model(face)

    async def train():
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            if face == "scikit-learn":
                model.client = client
            fit(model, on_dask(X, Y))

    with refused("asynchronous", "asyncio.to_thread"):
        asyncio.run(train())


@pytest.mark.parametrize("face", FACES)
def test_a_client_that_was_closed_is_refused(cluster, face):
    client = Client(cluster, set_as_default=False)
    client.close()
    model = new_model(face)
    model.client = client
    # Keras's face takes the current one.
    with client.as_current(), pytest.raises((ValueError, ConnectionError), match=r"client.*closed"):
        fit(model, on_dask(X, Y))


@pytest.mark.parametrize("what", ["tcp://127.0.0.1:8786", "cluster"])
def test_what_is_no_client_is_refused(cluster, what):
    model = new_model("scikit-learn")
    model.client = cluster if what == "cluster" else what
    with refused("Client"):
        fit(model, on_dask(X, Y))


def test_after_the_client_is_closed_a_fit_runs_in_this_process(cluster):
    expected = bits(fit(new_model("scikit-learn"), on_dask(X, Y)))
    with Client(cluster):
        model = fit(new_model("scikit-learn"), on_dask(X, Y))
    assert bits(model) == bits(fit(model, on_dask(X, Y))) == expected
