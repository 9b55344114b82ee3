"""Whatever a file says, its checksum being right, it is loaded or refused, and takes little memory for it."""

import copy
import json
import tracemalloc
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

import dasknn
from dasknn import (
    EnsembleClassifier,
    MLPClassifier,
    MLPRegressor,
    Sequential,
    TablePreprocessor,
    TabularClassifier,
    TabularRegressor,
)
from dasknn.callbacks import EarlyStopping
from dasknn.exceptions import ModelFileError
from dasknn.layers import BatchNormalization, Dense, Input
from dasknn.metrics import AUC
from dasknn.saving import safetensors_file

N_MUTATIONS = 40
# Several times what the largest of these files takes; a bomb takes gigabytes.
MOST_BYTES = 2**25

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4))
BINARY = (X[:, 0] > 0).astype(np.float32)
WORDS = np.array(["a", "bee", "c"])[np.arange(60) % 3]
FRAME = pd.DataFrame({"x": X[:, 0], "word": WORDS})
TABULAR = {"members": 2, "hidden_layer_sizes": (3,), "embedding_dim": 2, "max_iter": 2, "random_state": 0}


def estimator(**settings):
    return MLPClassifier((3,), max_iter=2, random_state=0, **settings)


def sequential(n_inputs=4):
    model = Sequential(
        [Input((n_inputs,)), Dense(3, activation="relu"), BatchNormalization(), Dense(1, "sigmoid")]
    )
    model.compile("adam", "mse", metrics=["mae", AUC(num_thresholds=10)])
    return model


def fit_sequential(checkpoint=None, resume=False):
    model = sequential()
    watch = EarlyStopping("loss", patience=5, restore_best_weights=True)
    model.fit(X, BINARY, epochs=3, verbose=0, callbacks=[watch], checkpoint=checkpoint, resume=resume)
    return model


def write_pipeline(path, network):
    dasknn.save(make_pipeline(TablePreprocessor(), network).fit(FRAME, WORDS), path)


def write_sequential_pipeline(path):
    pipeline = make_pipeline(TablePreprocessor(), sequential())
    table = pipeline[0].fit_transform(FRAME)
    pipeline[1].fit(table, BINARY, verbose=0)
    dasknn.save(pipeline, path)


def write_ensemble(path):
    pipeline = make_pipeline(TablePreprocessor(), estimator()).fit(FRAME, WORDS)
    members = [pipeline, TabularClassifier(**TABULAR).fit(FRAME, WORDS)]
    EnsembleClassifier(members, weights=[1, 2]).save(path)


def write_weights(path):
    fit_sequential().save_weights(path)


def load_weights(path):
    model = sequential()
    model.load_weights(path)
    return model


MODELS = {
    "classifier": (lambda path: estimator(early_stopping=True).fit(X, WORDS).save(path), dasknn.load),
    "ensemble": (
        lambda path: (
            estimator(strategy=dasknn.PredictionAveraging(2), class_weight={"a": 2.0})
            .fit(X, WORDS)
            .save(path)
        ),
        dasknn.load,
    ),
    "regressor": (
        lambda path: MLPRegressor("poisson", (3,), max_iter=2).fit(X, X[:, 0] ** 2).save(path),
        dasknn.load,
    ),
    "tabular classifier": (
        lambda path: TabularClassifier(**TABULAR).fit(FRAME, WORDS).save(path),
        dasknn.load,
    ),
    "tabular regressor": (
        lambda path: (
            TabularRegressor(quantiles=[0.1, 0.9], early_stopping=True, **TABULAR).fit(X, X[:, 0]).save(path)
        ),
        dasknn.load,
    ),
    "pipeline": (lambda path: write_pipeline(path, estimator()), dasknn.load),
    "pipeline of a Sequential": (write_sequential_pipeline, dasknn.load),
    "ensemble of fitted models": (write_ensemble, dasknn.load),
    "ensemble of Sequentials": (
        lambda path: EnsembleClassifier([fit_sequential(), estimator().fit(X, BINARY)]).save(path),
        dasknn.load,
    ),
    "table": (lambda path: dasknn.save(TablePreprocessor().fit(FRAME), path), dasknn.load),
    "Sequential": (lambda path: fit_sequential().save(path), dasknn.load_model),
    "weights": (write_weights, load_weights),
    "keras": (lambda path: fit_sequential().save(path), dasknn.load_model),
}
CHECKPOINTS = {
    "estimator": lambda folder, resume: estimator(early_stopping=True).fit(
        X, WORDS, checkpoint=folder, resume=resume
    ),
    "inverse scaling": lambda folder, resume: estimator(solver="sgd", learning_rate="invscaling").fit(
        X, WORDS, checkpoint=folder, resume=resume
    ),
    "Sequential": fit_sequential,
}


def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return value


STRANGE = [
    *(None, True, -1, 0, 7, 1e300, -1e300, float("nan"), float("inf"), 10**30, 2**40, 2**31, 0.5),
    *("", "x", "predict", "<U1000000000", "(1000000000,)f8", "O", "float64"),
    *([], {}, [1], ["x", 1], {"x": 1}, deep(30), [0] * 1000, [["a" * 50_000, *"b" * 1000]]),
    *({"numpy": "<U1000000000", "value": "a"}, {"numpy": "<f8", "value": [1.0, 2.0]}),
    *({"strategy": "weights", "every": 10**30}, {"items": [[1, 2], [[], 3]]}),
]
NAMES = ["predict", "__class__", "on_epoch_end", "model", "training", "_members", "units", "x"]


def places(value, path=()):
    """Yield the paths of all items of lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*path, name)
        yield from places(item, (*path, name))


def mutated(description, rng):
    """Return a description with one to three items replaced, removed or added."""
    description = copy.deepcopy(description)
    for _ in range(rng.integers(1, 4)):
        found = list(places(description))
        # Else most would be in histories.
        short = [path for path in found if "history" not in path] or found
        if not short:
            description["kind"] = "nothing is left"
            continue
        path = short[rng.integers(len(short))]
        owner = description
        for name in path[:-1]:
            owner = owner[name]
        what, strange = rng.integers(6), copy.deepcopy(STRANGE[rng.integers(len(STRANGE))])
        if what == 0:
            del owner[path[-1]]
        elif what == 1 and isinstance(owner, dict):
            owner[NAMES[rng.integers(len(NAMES))]] = strange
        elif what == 2 and isinstance(owner, list):
            owner.append(strange)
        else:
            owner[path[-1]] = strange
    return description


def mutated_arrays(arrays, rng):
    """Return arrays, of which one is dropped, flattened, cut, empty, of another dtype or not finite."""
    if not arrays:
        return {"members": np.zeros((1, 3))}
    arrays = dict(arrays)
    name = sorted(arrays)[rng.integers(len(arrays))]
    array = arrays.pop(name)
    changed = [
        array.ravel(),
        array[..., :-1],
        array[:0],
        array[np.newaxis],
        array.astype(np.int64),
        array.astype(np.float32) if array.dtype.itemsize > 4 else array.astype(np.float64),
        np.zeros((0, 2**40)),
    ]
    what = rng.integers(len(changed) + 1)
    return arrays if what == len(changed) else arrays | {name: changed[what]}


def outcome(function, *expected):
    """Return what it raises, or None; fail for what is not expected, or takes much memory."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function()
    except expected as error:
        return error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MOST_BYTES
    return None


def read_keras(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(parts["config.json"]), parts


def write_keras(path, config, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, part)


def walk(path, load, *expected):
    """Return how many of the mutations of a file are refused."""
    is_keras = str(path).endswith(".keras")
    read, write = (read_keras, write_keras) if is_keras else (safetensors_file.read, safetensors_file.write)
    description, arrays = read(path)
    rng, refused = np.random.default_rng(1), 0
    for number in range(N_MUTATIONS):
        if is_keras or number % 4:
            write(path, mutated(description, rng), arrays)
        else:
            write(path, description, mutated_arrays(arrays, rng))
        refused += outcome(load, *expected) is not None
    return refused


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_a_crafted_model_is_loaded_or_refused(kind, tmp_path):
    write, load = MODELS[kind]
    path = f"{tmp_path}/model.{'keras' if kind == 'keras' else 'safetensors'}"
    write(path)

    def load_and_predict():
        model = load(path)
        if isinstance(model, TablePreprocessor):
            model.get_feature_names_out()
        elif isinstance(model, Sequential) and model.built:
            model.predict(np.zeros((2, model.input_shape[1])), verbose=0)
        elif isinstance(model, MLPClassifier | MLPRegressor):
            model.predict(np.zeros((2, model.n_features_in_)))
        elif isinstance(model, EnsembleClassifier):
            if not hasattr(model, "feature_names_in_"):
                model.predict(np.zeros((2, model.n_features_in_)))
        elif isinstance(model, TabularClassifier | TabularRegressor):
            # Whatever a column holds, its values may be missing.
            rows = np.full((2, model.n_features_in_), None)
            names = getattr(model, "feature_names_in_", None)
            rows = rows if names is None else pd.DataFrame(rows, columns=names)
            model.predict(rows)
            if isinstance(model, TabularRegressor):
                with suppress(ValueError):
                    model.predict_interval(rows, 0.5)

    assert load_and_predict() is None
    assert walk(path, load_and_predict, ModelFileError) > N_MUTATIONS / 6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_crafted_checkpoint_is_gone_on_from_or_refused(kind, tmp_path):
    fit = CHECKPOINTS[kind]
    fit(tmp_path, False)
    first, last = sorted(tmp_path.iterdir())
    last.unlink()

    def resume():
        try:
            fit(tmp_path, True)
        finally:
            for path in set(tmp_path.iterdir()) - {first}:
                path.unlink()

    # A fingerprint that has changed is that of another training.
    found = walk(first, resume, ValueError)
    assert found > N_MUTATIONS / 6


# --- what a header declares ----------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    estimator().fit(X, WORDS).save(path)
    return path


@pytest.mark.parametrize("dtype", ["<U250000000", "(250000000,)f8", "V1000000000", "S1000000000", 3])
def test_labels_take_as_much_memory_as_they_are_long(saved, dtype):
    description, arrays = safetensors_file.read(saved)
    description["targets"]["classes_dtype"] = dtype
    safetensors_file.write(saved, description, arrays)
    error = outcome(lambda: dasknn.load(saved), ModelFileError)
    if str(dtype).startswith("<U"):
        assert dasknn.load(saved).classes_.dtype == "<U3"
    else:
        assert "targets.classes" in str(error)


def test_one_long_label_among_many_is_no_bomb(saved):
    description, arrays = safetensors_file.read(saved)
    description["targets"]["classes"] = ["a" * 100_000, *map(str, range(20_000))]
    description["layers"][-1][0] = 20_001
    safetensors_file.write(saved, description, arrays)
    assert "texts of about one length" in str(outcome(lambda: dasknn.load(saved), ModelFileError))


FITTED = {"replicas_": 1, "transport_": "process", "strategy_reason_": "none"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": ["MLPClassifier"]}, "Expected a model of kind"),
        ({"fitted": FITTED | {"predict": 5}}, "expected names among .*, received 'predict'"),
        ({"fitted": FITTED | {"n_iter_": "7"}}, "expected an integer .* at fitted.n_iter_, received '7'"),
        ({"fitted": {}}, "expected 'replicas_' at fitted"),
        ({"parameters": {"evil": 1}}, "evil"),
        ({"parameters": {"alpha": -1}}, "'alpha' parameter"),
        ({"layers": [[-6, "relu"], [3, "softmax"]]}, r"at layers\[0\]\[0\], received -6"),
        ({"layers": [[10**12, "relu"], [3, "softmax"]]}, "Expected parameters of shape"),
        ({"layers": [[3, "relu"], [2, "softmax"]]}, "expected 3 units in the last layer"),
        ({"layers": [[3, "evil"], [3, "softmax"]]}, "Expected an activation"),
        ({"feature_names_in": ["a"]}, "expected names of 4 features, received 1"),
        ({"history": [{"epoch": 1}]}, "expected 'loss'"),
        ({"strategy": {"strategy": "evil"}}, "one of "),
    ],
    ids=str,
)
def test_a_description_of_something_else_is_refused_and_says_where(saved, change, message):
    description, arrays = safetensors_file.read(saved)
    safetensors_file.write(saved, description | change, arrays)
    with pytest.raises(ModelFileError, match=message) as caught:
        dasknn.load(saved)
    assert str(caught.value).count(str(saved)) == 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, "[]", "{", '{"kind": 1e999}', "\x00", "1" * 5000]
)
def test_text_that_describes_nothing_is_refused(saved, text, monkeypatch):
    _, arrays = safetensors_file.read(saved)
    monkeypatch.setattr(json, "dumps", lambda *args, **settings: text)
    safetensors_file.write(saved, {}, arrays)
    monkeypatch.undo()
    with pytest.raises(ModelFileError):
        dasknn.load(saved)


@pytest.mark.parametrize(
    "change", [{"first_epoch": 1e300}, {"first_epoch": -1}, {"epoch": 5}, {"n_before": 1}]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_epochs_that_do_not_add_up_are_refused(tmp_path, change):
    CHECKPOINTS["estimator"](tmp_path, False)
    for path in tmp_path.iterdir():
        description, arrays = safetensors_file.read(path)
        safetensors_file.write(path, description | change, arrays)
    with pytest.raises(ModelFileError, match=r"All checkpoints in .*epoch"):
        CHECKPOINTS["estimator"](tmp_path, True)
