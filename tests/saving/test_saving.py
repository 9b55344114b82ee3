"""A model on disk is the model, or a clear error."""

import json
import os

import fsspec
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file
from sklearn.base import clone

import dasknn
from dasknn import MLPClassifier, MLPRegressor, PredictionAveraging, Sequential
from dasknn.callbacks import Callback, ModelCheckpoint
from dasknn.exceptions import ModelFileError
from dasknn.layers import Dense, Input
from dasknn.saving import storage


@pytest.fixture
def saved(tmp_path, digits):
    X, y = digits
    model = MLPClassifier((8,), max_iter=2, random_state=0).fit(X, y)
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


def test_a_loaded_classifier_predicts_the_same_bits(saved, digits):
    model, path = saved
    again = dasknn.load(path)
    assert_array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))
    assert again.get_params() == model.get_params()
    assert_array_equal(again.classes_, model.classes_)
    for name in (
        "loss_",
        "n_iter_",
        "t_",
        "n_features_in_",
        "loss_curve_",
        "out_activation_",
        "interrupted_",
    ):
        assert getattr(again, name) == getattr(model, name)


def test_the_name_of_the_target_is_kept(tmp_path):
    X = np.arange(8.0).reshape(8, 1)
    model = MLPClassifier((2,), max_iter=1, random_state=0).fit(X, pd.Series([0, 1] * 4, name="income"))
    model.save(tmp_path / "m")
    assert dasknn.load(tmp_path / "m").target_name_ == "income"
    assert not hasattr(model.fit(X, [0, 1] * 4), "target_name_")


@pytest.mark.parametrize("labels", [["x", "y"], [False, True], [3.0, 5.0], [7, 8]], ids=str)
def test_labels_of_any_kind_are_kept(tmp_path, labels):
    X = np.random.default_rng(0).standard_normal((30, 2))
    y = np.array(labels)[(X[:, 0] > 0).astype(int)]
    model = MLPClassifier((3,), max_iter=2).fit(X, y)
    model.save(tmp_path / "m")
    again = dasknn.load(tmp_path / "m")
    assert again.classes_.dtype == model.classes_.dtype
    assert_array_equal(again.predict(X), model.predict(X))


def test_regressors_ensembles_and_their_strategies_are_kept(tmp_path, digits):
    X, y = digits
    regressor = MLPRegressor("poisson", (4,), max_iter=2).fit(X, y)
    ensemble = MLPClassifier((4,), max_iter=2, strategy=PredictionAveraging(3)).fit(X, y)
    for model in (regressor, ensemble):
        model.save(tmp_path / "m")
        again = dasknn.load(tmp_path / "m")
        assert type(again) is type(model)
        assert_array_equal(again.predict(X), model.predict(X))
    assert again.strategy == PredictionAveraging(3)


def test_feature_names_are_kept(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(0).random((20, 2)), columns=["a", "b"])
    MLPClassifier((3,), max_iter=1).fit(frame, [0, 1] * 10).save(tmp_path / "m")
    with pytest.raises(ValueError, match="feature names should match"):
        dasknn.load(tmp_path / "m").predict(frame.rename(columns={"a": "z"}))


def test_what_cannot_be_written_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_has_the_mode_of_the_umask_which_nobody_touches(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            # It belongs to the whole process: another thread may be making a file.
            patched.delattr(os, "umask")
            storage.write(tmp_path / "model", b"bytes")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o640


def test_the_folder_is_synced_after_the_file_has_its_name(tmp_path, monkeypatch):
    fsync, synced = os.fsync, []

    def note(handle):
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), sorted(os.listdir(tmp_path))))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    storage.write(tmp_path / "model", b"bytes")
    assert synced[-1] == (str(tmp_path), ["model"])
    assert len(synced) == 2


def test_a_folder_that_does_not_exist_is_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected an existing folder .*nowhere"):
        saved[0].save(tmp_path / "nowhere" / "model")


def test_no_file_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model file at .*, found none"):
        dasknn.load(tmp_path / "model")


def test_a_file_that_is_cut_or_changed_anywhere_is_refused(saved):
    _, path = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            dasknn.load(path)
    header = int.from_bytes(whole[:8], "little") + 8
    for place in [*range(8), *rng.integers(8, header, 60), *rng.integers(header, len(whole), 20)]:
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            dasknn.load(path)
    path.write_bytes(whole)
    dasknn.load(path)


def test_foreign_files_and_later_versions_are_refused(saved, tmp_path):
    _, path = saved
    foreign = tmp_path / "foreign"
    save_file({"weight": np.ones(3)}, foreign)
    with pytest.raises(ModelFileError, match="not one that dasknn wrote"):
        dasknn.load(foreign)
    save_file(load_file(path), foreign, metadata={"format": "dasknn", "version": "99"})
    with pytest.raises(ModelFileError, match=r"Expected version 1 .* received '99'"):
        dasknn.load(foreign)
    foreign.write_text(json.dumps({"pickle": "cos\nsystem\n"}))
    with pytest.raises(ModelFileError, match="damaged, or not a safetensors file"):
        dasknn.load(foreign)


# --- object stores -------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    """A folder in fsspec's memory; a URL."""
    store = fsspec.filesystem("memory")
    store.makedirs("/models")
    yield "memory://models"
    store.rm("/models", recursive=True)


def test_models_go_to_an_object_store_and_back(saved, memory, digits):
    model, _ = saved
    model.save(f"{memory}/model.safetensors")
    again = dasknn.load(f"{memory}/model.safetensors")
    assert_array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))
    assert storage.names(memory) == ["model.safetensors"]
    with pytest.raises(FileNotFoundError, match="Expected a model file at 'memory://models/other'"):
        dasknn.load(f"{memory}/other")


@pytest.mark.parametrize("ending", [".safetensors", ".keras", ".weights.h5"])
def test_a_sequential_goes_to_an_object_store_and_back(memory, ending):
    if ending != ".safetensors":
        pytest.importorskip("h5py")
    model, x = Sequential([Input((4,)), Dense(3)]), np.ones((2, 4), np.float32)
    path = f"{memory}/model{ending}"
    if ending.startswith(".weights"):
        model.save_weights(path)
        again = Sequential([Input((4,)), Dense(3)])
        again.load_weights(path)
    else:
        model.save(path)
        again = dasknn.load_model(path)
    assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save_weights(path, overwrite=False) if "weights" in path else model.save(path, overwrite=False)


def test_model_checkpoint_writes_to_an_object_store(memory, digits):
    path = memory + "/runs/at-{epoch}.safetensors"
    MLPClassifier((3,), max_iter=2, callbacks=[ModelCheckpoint(path)]).fit(*digits)
    assert storage.names(f"{memory}/runs") == ["at-1.safetensors", "at-2.safetensors"]
    assert dasknn.load(path.format(epoch=2)).n_layers_ == 3


WHOLE = ("n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_", "interrupted_")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"early_stopping": True},
        {"solver": "lbfgs"},
        {"strategy": PredictionAveraging(2)},
    ],
    ids=str,
)
def test_a_model_that_is_saved_after_an_epoch_is_whole(settings, digits, tmp_path):
    X, y = (part[:400] for part in digits)
    keep = ModelCheckpoint(tmp_path / "m-{epoch}.safetensors")
    model = MLPClassifier((4,), max_iter=3, random_state=0, **settings)
    # Of an earlier fit nothing may be left.
    model.fit(X, y).set_params(max_iter=2, callbacks=[keep]).fit(X, y)
    for epoch in (1, 2):
        saved = dasknn.load(tmp_path / f"m-{epoch}.safetensors")
        alone = clone(model).set_params(max_iter=epoch, callbacks=None).fit(X, y)
        for name in WHOLE:
            assert vars(saved).get(name) == vars(alone).get(name), name
        assert saved.loss_ == saved.history_[-1]["loss"]
        assert [len(member.coefs_) for member in saved.members_] == [2] * len(model._members)
        if "solver" not in settings:
            saved.partial_fit(X, y) if not model.early_stopping else saved.predict(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_that_is_saved_within_an_epoch_says_what_epochs_have_come_to(digits, tmp_path):
    X, y = digits
    keep = ModelCheckpoint(tmp_path / "m", save_freq=1)
    MLPClassifier((4,), max_iter=1, batch_size=5, random_state=0, callbacks=[keep]).fit(X, y)
    saved = dasknn.load(tmp_path / "m")
    assert (saved.n_iter_, saved.t_, saved.loss_curve_) == (0, 0, [])


def test_what_a_model_cannot_be_saved_as_is_refused_before_it_is_trained(digits, tmp_path):
    class Fails(Callback):
        def on_train_begin(self, logs=None):
            pytest.fail("Training has begun.")

    def fit(model, **settings):
        callbacks = [ModelCheckpoint(**settings), Fails()]
        if isinstance(model, Sequential):
            model.compile("sgd", "mse")
            model.fit(*digits, callbacks=callbacks, verbose=0)
        else:
            model.set_params(callbacks=callbacks).fit(*digits)

    with pytest.raises(ValueError, match=r"received ModelCheckpoint\(save_weights_only=True\)"):
        fit(MLPClassifier(), filepath=tmp_path / "m.safetensors", save_weights_only=True)
    for name in ("m-{epoch}.keras", "m.weights.h5"):
        with pytest.raises(ValueError, match=r"'model\.safetensors', since estimators are saved"):
            fit(MLPClassifier(), filepath=tmp_path / name)
    for name, weights in (("m.txt", False), ("m.weights.h5", False), ("m.keras", True)):
        with pytest.raises(ValueError, match="Expected a path that ends in"):
            fit(Sequential([Dense(1)]), filepath=tmp_path / name, save_weights_only=weights)
    model = MLPClassifier((2,), max_iter=1).fit(*digits)
    with pytest.raises(ValueError, match=r"Keras's files are for dasknn\.Sequential"):
        model.save(tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_uploaded_leaves_the_old_file_and_nothing_else(saved, memory, monkeypatch):
    model, _ = saved
    store = fsspec.filesystem("memory")
    path = f"{memory}/model"
    model.save(path)
    before = store.cat_file(path)

    def fail(self, *paths, **settings):
        # Stores have errors of their own kinds.
        raise RuntimeError("503 Slow Down")

    monkeypatch.setattr(type(store), "mv", fail)
    with pytest.raises(OSError, match="memory://models/model: RuntimeError: 503 Slow Down"):
        model.save(path)
    assert store.cat_file(path) == before
    assert storage.names(memory) == ["model"]


def test_a_file_url_is_a_path(saved, tmp_path):
    model, path = saved
    model.save(f"file://{tmp_path}/other")
    assert_array_equal(dasknn.load(tmp_path / "other").coefs_[0], model.coefs_[0])
    assert_array_equal(dasknn.load(path.as_uri()).coefs_[0], model.coefs_[0])
    with pytest.raises(FileNotFoundError, match="Expected an existing folder"):
        model.save(f"file://{tmp_path}/nowhere/model")
    with pytest.raises(ValueError, match="nowhere"):
        model.save("nowhere://model")


@pytest.mark.parametrize("where", ["here", "memory"])
def test_storage_lists_removes_and_makes_folders(tmp_path, memory, where):
    folder = storage.join(tmp_path if where == "here" else memory, "a/b")
    assert storage.names(folder) == []
    assert not storage.exists(folder)
    storage.make_folder(folder)
    storage.make_folder(folder)
    path = storage.join(folder, "c")
    assert storage.folder_of(path) == folder
    storage.remove(path)
    storage.write(path, b"some bytes")
    storage.write(path, memoryview(b"other bytes"))
    assert storage.read(path) == b"other bytes"
    assert storage.exists(path)
    assert storage.names(folder) == ["c"]
    storage.remove(path)
    assert not storage.exists(path)
    with pytest.raises(FileNotFoundError):
        storage.read(path)


def test_files_and_members_know_columns_that_are_called_by_integers(tmp_path):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)))
    y = X[0] > 0
    model = MLPClassifier((4,), max_iter=2, strategy=PredictionAveraging(members=2), random_state=0).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    for other in (dasknn.load(tmp_path / "model.safetensors"), model.members_[0]):
        assert len(other.predict(X)) == 40
        with pytest.raises(ValueError, match="in the same order"):
            other.predict(X[[1, 0]])
