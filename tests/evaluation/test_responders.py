"""Models of every kind are asked as what they are."""

import dask.array as da
import dask.dataframe as dd
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from given_models import Given, blobs, columns_to_slice_by, probabilities, y_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from sklearn import metrics as skm
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC

import dasknn
from dasknn import Input, MLPClassifier, MLPRegressor, Sequential, TablePreprocessor
from dasknn.evaluation.responders import (
    EstimatorResponder,
    MLPResponder,
    NetworkResponder,
    SequentialResponder,
    responder_of,
)
from dasknn.layers import Dense
from dasknn.plots import ConfusionMatrixDisplay

matplotlib.use("Agg")

# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "predictions"])
def test_an_mlp_has_the_metrics_of_its_predictions(strategy):
    X, y = blobs()
    labels = np.array(["a", "b", "c"])[y]
    model = MLPClassifier((8,), max_iter=5, random_state=0, strategy=strategy, replicas=2).fit(X, labels)
    found = dasknn.evaluate(model, da.from_array(X, chunks=(250, -1)), labels).iloc[0]
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(labels, model.predict(X)))
    assert found["log_loss"] == pytest.approx(skm.log_loss(labels, model.predict_proba(X)), rel=1e-5)
    assert list(found.index[2::3]) == ["accuracy", "balanced_accuracy", "f1_macro", "log_loss"]


def test_an_mlp_of_numbers_has_the_metrics_of_its_predictions():
    X, y = blobs()
    model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0).fit(X, y.astype(float))
    found = dasknn.evaluate(model, X, y).iloc[0]
    assert found["r2"] == pytest.approx(skm.r2_score(y, model.predict(X)), rel=1e-5)


def sequential(units, activation, loss):
    dasknn.set_random_seed(0)
    model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(units, activation=activation)])
    model.compile(optimizer="adam", loss=loss)
    return model


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (1, "sigmoid", "binary_crossentropy"),
        (1, None, dasknn.losses.BinaryCrossentropy(from_logits=True)),
        (3, "softmax", "sparse_categorical_crossentropy"),
        (3, None, dasknn.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (3, "softmax", "categorical_crossentropy"),
    ],
)
def test_a_sequential_has_the_metrics_of_its_outputs(units, activation, loss):
    X, y = blobs()
    y = (y == 2).astype(int) if units == 1 else y
    targets = np.eye(3)[y] if loss == "categorical_crossentropy" else y
    model = sequential(units, activation, loss)
    model.fit(X, targets, epochs=2, verbose=0)
    outputs = model.predict(X, verbose=0)
    if activation is None:
        outputs = expit(outputs) if units == 1 else np.exp(outputs) / np.exp(outputs).sum(axis=1)[:, None]
    labels = (outputs[:, 0] > 0.5).astype(int) if units == 1 else outputs.argmax(axis=1)
    P = np.hstack([1 - outputs, outputs]) if units == 1 else outputs
    X = da.from_array(X, chunks=(250, -1))
    found = dasknn.evaluate(model, X, targets, ["accuracy", "log_loss"]).iloc[0]
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(y, labels))
    assert found["log_loss"] == pytest.approx(skm.log_loss(y, P), rel=1e-4)


@pytest.mark.parametrize(("units", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_the_last_layer_tells_what_an_uncompiled_sequential_predicts(units, activation):
    X, y = blobs()
    model = Sequential([Input((4,)), Dense(units, activation=activation)])
    model.build()
    found = dasknn.evaluate(model, X, y % 2 if units == 1 else y)
    assert "log_loss" in found


@pytest.mark.parametrize(("units", "loss"), [(3, "categorical_hinge"), (1, "hinge"), (1, "squared_hinge")])
def test_a_sequential_of_margins_has_metrics_of_labels_alone(units, loss):
    X, y = blobs()
    y = y if units == 3 else (y == 2).astype(int)
    # As losses of one margin take them, too.
    targets = np.eye(3)[y] if units == 3 else 2 * y - 1
    model = sequential(units, None, loss)
    model.fit(X, targets, epochs=2, verbose=0)
    margins = model.predict(X, verbose=0)
    labels = margins.argmax(axis=1) if units == 3 else (margins[:, 0] > 0).astype(int)
    found = dasknn.evaluate(model, X, targets)
    assert not {"log_loss", "roc_auc"} & set(found)
    assert found["accuracy"].iloc[0] == pytest.approx(skm.accuracy_score(y, labels))
    with pytest.raises(ValueError, match="predict_proba for metric 'log_loss'"):
        dasknn.evaluate(model, X, targets, "log_loss")


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_outputs_that_say_classes_do_so_with_a_loss_of_numbers(units, activation):
    X, y = blobs()
    y = y if units == 3 else (y == 2).astype(int)
    model = sequential(units, activation, "mse")
    model.fit(X, np.eye(3)[y] if units == 3 else y, epochs=2, verbose=0)
    outputs = model.predict(X, verbose=0)
    found = dasknn.evaluate(model, X, y, ["accuracy", "log_loss"]).iloc[0]
    labels = outputs.argmax(axis=1) if units == 3 else outputs[:, 0] > 0.5
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(y, labels))
    assert found["log_loss"] == pytest.approx(skm.log_loss(y, outputs), rel=1e-4)


def test_a_sequential_of_numbers_is_a_regression():
    X, y = blobs()
    model = sequential(1, None, "mse")
    model.fit(X, y, epochs=1, verbose=0)
    found = dasknn.evaluate(model, X, y, ["mean_squared_error"]).iloc[0]
    predicted = model.predict(X, verbose=0)[:, 0]
    assert found["mean_squared_error"] == pytest.approx(skm.mean_squared_error(y, predicted), rel=1e-4)


def test_a_network_is_asked_once_for_labels_and_probabilities(monkeypatch):
    X, y, _ = probabilities(2, 400)
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, y)
    asked = []
    predict = type(model._network_).predict
    monkeypatch.setattr(
        type(model._network_), "predict", lambda *args: asked.append(len(args[2])) or predict(*args)
    )
    dasknn.evaluate(model, X, y)
    dasknn.evaluate(make_pipeline(StandardScaler().fit(X), model), X, y)
    assert asked == [400, 400]


# --- pipelines and other estimators ---------------------------------------------------------------


def test_a_pipeline_takes_tables_with_columns_of_text():
    frame = columns_to_slice_by()[["region", "age"]].assign(region=lambda f: f.region.fillna("?"))
    y = (frame.region == "EU").astype(int) ^ (frame.age > 80)
    model = make_pipeline(dasknn.TablePreprocessor(), MLPClassifier((8,), max_iter=3, random_state=0))
    model.fit(frame, y)
    found = dasknn.evaluate(model, dd.from_pandas(frame, npartitions=3), y_of(y, 3), slices=["region"])
    assert found["accuracy"].iloc[0] == pytest.approx(skm.accuracy_score(y, model.predict(frame)))
    assert found["slice"].tolist() == ["all", "region=?", "region=Asia", "region=EU", "region=US"]


def test_a_pipeline_that_ends_in_a_sequential_is_evaluated_as_its_last_step():
    X = pd.DataFrame({"x": [0.0, 1.0] * 20, "sex": list("mmff") * 10})
    y = (X["x"] > 0).astype(int)
    network = Sequential([Dense(1, activation="sigmoid")])
    network.compile(loss="binary_crossentropy")
    pipeline = make_pipeline(TablePreprocessor(), network).fit(X, y, sequential__verbose=0)
    found = dasknn.evaluate(pipeline, dd.from_pandas(X, npartitions=2), y_of(y, 2), slices=["sex"])
    assert found["rows"].tolist() == [40, 20, 20]
    last_step = dasknn.evaluate(
        pipeline[-1], pipeline[:-1].transform(X), y, slices=["sex"], slice_data=X, n_bootstrap=0
    )
    for name in ("accuracy", "log_loss"):
        assert_allclose(found[name], last_step[name])


@pytest.mark.parametrize("network", ["mlp", "sequential"])
def test_the_network_of_nested_pipelines_is_asked_once(network, monkeypatch):
    X, y = blobs()
    if network == "mlp":
        last = MLPClassifier((4,), max_iter=2, random_state=0)
    else:
        last = sequential(3, "softmax", "sparse_categorical_crossentropy")
    inner = make_pipeline(MinMaxScaler(), last)
    model = make_pipeline(StandardScaler(), "passthrough", inner).fit(X, y)
    responder = responder_of(model)
    assert isinstance(responder, NetworkResponder)
    X_inner = MinMaxScaler().fit_transform(StandardScaler().fit_transform(X))
    assert_allclose(responder.answers(X).known_proba, responder_of(last).answers(X_inner).known_proba)
    expected = np.asarray(model.predict(X))
    assert_array_equal(responder.labels(X), expected if expected.ndim == 1 else expected.argmax(axis=1))


def test_every_kind_of_model_has_its_responder():
    X, y = blobs()
    mlp = MLPClassifier((2,), max_iter=1, random_state=0).fit(X, y)
    network = sequential(3, "softmax", "sparse_categorical_crossentropy")
    other = LogisticRegression().fit(X, y)
    expected = {MLPResponder: mlp, SequentialResponder: network, EstimatorResponder: other}
    for kind, model in expected.items():
        assert type(responder_of(model)) is kind
        assert type(responder_of(make_pipeline(StandardScaler().fit(X), model))) is kind
        found = dasknn.evaluate(model, X, y, ["accuracy"])["accuracy"][0]
        matrix = ConfusionMatrixDisplay.from_estimator(model, X, y).confusion_matrix
        assert found == np.trace(matrix) / 600
    plt.close("all")


def test_a_model_without_probabilities_has_metrics_of_labels():
    X, y = blobs()
    model = LinearSVC().fit(X, y == 2)
    found = dasknn.evaluate(model, X, y == 2)
    assert list(found.columns[2::3]) == ["accuracy", "precision", "recall"]
    with pytest.raises(ValueError, match="predict_proba for metric 'roc_auc'"):
        dasknn.evaluate(model, X, y == 2, "roc_auc")


def test_pos_label_says_which_class_is_looked_for():
    P, y, _ = probabilities(2)
    labels = np.array(["bad", "good"])[y]
    model = Given(labels=["bad", "good"]).fit()
    names = ["recall", "roc_auc", "average_precision", "brier_score_loss"]
    found = dasknn.evaluate(model, P, labels, names, pos_label="bad").iloc[0]
    assert found["recall"] == pytest.approx(skm.recall_score(labels, model.predict(P), pos_label="bad"))
    assert found["roc_auc"] == pytest.approx(skm.roc_auc_score(y == 0, P[:, 0]))
    assert found["average_precision"] == pytest.approx(skm.average_precision_score(y == 0, P[:, 0]))


def test_models_that_cannot_be_evaluated_say_why():
    X, y = blobs()
    with pytest.raises(NotFittedError):
        dasknn.evaluate(MLPClassifier(), X, y)
    with pytest.raises(NotFittedError):
        dasknn.evaluate(LogisticRegression(), X, y)
    with pytest.raises(TypeError, match="model with predict"):
        dasknn.evaluate("model.safetensors", X, y)
    several = np.stack([y > 0, y > 1], axis=1).astype(int)
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, several)
    with pytest.raises(ValueError, match="one label a row"):
        dasknn.evaluate(model, X, several)
