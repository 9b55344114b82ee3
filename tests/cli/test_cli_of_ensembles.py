"""`dask nn` with the file of an ensemble: inspect, predict, evaluate."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from shell import people, runner_on
from sklearn.metrics import accuracy_score
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import (
    EnsembleClassifier,
    EnsembleRegressor,
    MLPClassifier,
    Sequential,
    TablePreprocessor,
    TabularClassifier,
)
from dasknn.layers import Dense

COLUMNS = ["age", "job", "sex", "member", "hours"]


@pytest.fixture
def run(client):
    """Run a command in this process, on the two workers: run(*words, code=0) returns its result."""
    return runner_on(client.scheduler.address)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file of an ensemble that has learned incomes, and the ensemble."""
    frame = people()
    X, y = frame[COLUMNS], frame["income"]
    table = TabularClassifier(members=2, hidden_layer_sizes=(8,), max_iter=2, random_state=0).fit(X, y)
    mlp = Pipeline([("table", TablePreprocessor()), ("mlp", MLPClassifier((4,), max_iter=3, random_state=0))])
    model = EnsembleClassifier([table, mlp.fit(X, y)], [3, 1])
    path = tmp_path_factory.mktemp("ensemble") / "m.safetensors"
    model.save(path)
    return path, model


def test_an_ensemble_tells_what_its_members_are(run, saved):
    path, _ = saved
    text = run("inspect", path).stdout
    assert re.search(r"^kind +EnsembleClassifier$", text, re.MULTILINE)
    assert re.search(r"^target +income$", text, re.MULTILINE)
    assert re.search(r"^classes +<=50K, >50K$", text, re.MULTILINE)
    assert re.search(r"^member 0 +share 0.75; TabularClassifier: 8 relu - 1 logistic; ", text, re.MULTILINE)
    assert re.search(
        r"^member 1 +share 0.25; a table's preprocessing, then MLPClassifier: 4 relu", text, re.MULTILINE
    )
    assert re.search(r"^  job: category", text, re.MULTILINE)
    report = json.loads(run("inspect", path, "--json").stdout)
    assert [member["kind"] for member in report["of_members"]] == ["TabularClassifier", "Pipeline"]
    assert report["shares"] == [0.75, 0.25]
    assert report["versions"]["dasknn"] == dasknn.__version__


def test_an_ensemble_of_sequentials_is_inspected(run, tmp_path):
    model = Sequential([dasknn.Input((3,)), Dense(4), Dense(1)])
    EnsembleRegressor([model, model]).save(tmp_path / "m")
    assert "share 0.5; Sequential of 2 layers; 21 parameters" in run("inspect", tmp_path / "m").stdout


def test_predictions_of_a_file_are_those_of_the_ensemble(run, saved, tmp_path):
    path, model = saved
    frame = people(200, 1)
    # Text that looks like numbers stays text.
    frame.to_csv(tmp_path / "new.csv", index=False)
    run("predict", path, tmp_path / "new.csv", "--output", tmp_path / "p.csv", "--proba", "--keep", "id")
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found.columns) == ["id", "prediction", "probability_<=50K", "probability_>50K"]
    assert found["prediction"].tolist() == model.predict(frame[COLUMNS]).tolist()
    np.testing.assert_allclose(found.iloc[:, 2:], model.predict_proba(frame[COLUMNS]), atol=1e-6)
    said = run(
        "predict", path, tmp_path / "new.csv", "--output", tmp_path / "i.csv", "--interval", 0.9, code=2
    )
    assert "received EnsembleClassifier" in said.stderr


def test_text_that_looks_like_numbers_is_text_again_when_predicting(run, tmp_path):
    frame = pd.DataFrame({"zip": ["01", "02", "01", "02"] * 20, "y": ["a", "b"] * 40})
    X, y = frame[["zip"]], frame["y"]
    table = TabularClassifier(members=2, hidden_layer_sizes=(8,), max_iter=2, random_state=0).fit(X, y)
    model = EnsembleClassifier([table])
    model.save(tmp_path / "m")
    frame[["zip"]].to_csv(tmp_path / "new.csv", index=False)
    run("predict", tmp_path / "m", tmp_path / "new.csv", "--output", tmp_path / "p.csv", "--proba")
    found = pd.read_csv(tmp_path / "p.csv")
    np.testing.assert_allclose(found[["probability_a", "probability_b"]], model.predict_proba(X), atol=1e-6)


def test_an_ensemble_is_evaluated_by_slices(run, saved, tmp_path):
    path, model = saved
    frame = people(300, 1)
    frame.to_parquet(tmp_path / "test.parquet", index=False)
    words = ["--slices", "sex", "--metrics", "accuracy", "--threshold", "accuracy=0.99", "--json"]
    report = json.loads(run("evaluate", path, tmp_path / "test.parquet", *words, code=3).stdout)
    assert [row["slice"] for row in report["slices"]] == ["all", "sex=female", "sex=male"]
    expected = accuracy_score(frame["income"], model.predict(frame[COLUMNS]))
    assert report["slices"][0]["accuracy"] == pytest.approx(expected)
    assert not report["passed"]
