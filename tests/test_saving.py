"""A model on disk is the model, or a clear error."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file

import dasknn
from dasknn import MLPClassifier, MLPRegressor, PredictionAveraging
from dasknn.exceptions import ModelFileError


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


def test_a_folder_that_does_not_exist_is_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a folder at .*nowhere"):
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
