"""Fitted models of every kind that can be a member of an ensemble, and rows for them."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import (
    Input,
    MLPClassifier,
    MLPRegressor,
    Sequential,
    TablePreprocessor,
    TabularClassifier,
    TabularRegressor,
)
from dasknn.layers import Dense

N = 240
_rng = np.random.default_rng(0)
#: Rows of three columns, under an index that is not 0, 1, ...
X = pd.DataFrame(_rng.normal(size=(N, 3)), columns=["a", "b", "c"], index=np.arange(N) * 2 + 5)
#: Labels of three classes, of two, and of several at once; one number and two.
THREE = pd.Series((X["a"] > 0).to_numpy() + (X["b"] > 0.3).to_numpy().astype(int), index=X.index)
TWO = pd.Series((X["a"] > 0).to_numpy().astype(int), index=X.index)
LABELS = np.column_stack([X["a"] > 0, X["b"] > 0, X["c"] > 1]).astype(int)
NUMBER = 2 * X["a"] - X["b"] + 5
PAIR = np.column_stack([NUMBER, X["c"]])

_SMALL = {"max_iter": 3, "random_state": 0}
_TABULAR = {**_SMALL, "members": 2, "hidden_layer_sizes": (8,), "batch_size": 32}


def sequential(units, activation, loss, y, width=3, rows=X):
    """A Sequential that was trained for an epoch."""
    dasknn.set_random_seed(0)
    model = Sequential([Input((width,)), Dense(6, activation="relu"), Dense(units, activation=activation)])
    model.compile("adam", loss)
    model.fit(rows, y, epochs=1, verbose=0)
    return model


def _behind_a_table(network):
    return Pipeline([("table", TablePreprocessor()), ("net", network)])


def _sequential_behind_a_table(units, activation, loss, y):
    table = TablePreprocessor().fit(X)
    return Pipeline(
        [("table", table), ("net", sequential(units, activation, loss, y, 3, table.transform(X)))]
    )


def classifiers(y):
    """A fitted classifier of each kind, by name, for labels 0, 1, ... or several labels."""
    several = np.ndim(y) == 2
    k = y.shape[1] if several else len(np.unique(y))
    units, activation, loss = (k, "softmax", "sparse_categorical_crossentropy")
    if several or k == 2:
        units, activation, loss = k if several else 1, "sigmoid", "binary_crossentropy"
    return {
        "mlp": MLPClassifier((4,), **_SMALL).fit(X, y),
        "wider": MLPClassifier((8, 3), **_SMALL, strategy="predictions", replicas=2).fit(X, y),
        "tabular": TabularClassifier(**_TABULAR).fit(X, y),
        "sequential": sequential(units, activation, loss, y),
        "pipeline": _behind_a_table(MLPClassifier((5,), **_SMALL)).fit(X, y),
        "pipeline of a sequential": _sequential_behind_a_table(units, activation, loss, y),
    }


def regressors(y):
    """A fitted regressor of each kind, by name."""
    q = y.shape[1] if np.ndim(y) == 2 else 1
    return {
        "mlp": MLPRegressor(hidden_layer_sizes=(4,), **_SMALL).fit(X, y),
        "wider": MLPRegressor(hidden_layer_sizes=(8, 3), **_SMALL).fit(X, y),
        "tabular": TabularRegressor(**_TABULAR).fit(X, y),
        "sequential": sequential(q, None, "mse", y),
        "pipeline": _behind_a_table(MLPRegressor(hidden_layer_sizes=(5,), **_SMALL)).fit(X, y),
        "pipeline of a sequential": _sequential_behind_a_table(q, None, "mse", y),
    }


def proba_of(model, rows=X):
    """The probabilities of a classifier of labels 0, 1, ..., by its own methods."""
    network, table = (model[-1], model[0]) if isinstance(model, Pipeline) else (model, None)
    if not isinstance(network, Sequential):
        return model.predict_proba(rows)
    P = network.predict(rows if table is None else table.transform(rows), verbose=0)
    if P.shape[1] == 1:
        return np.hstack([1 - P, P])
    return P / P.sum(axis=1, keepdims=True) if network.layers[-1].activation_name == "softmax" else P


def numbers_of(model, rows=X):
    """The predictions (n, q) of a regressor, by its own methods."""
    network, table = (model[-1], model[0]) if isinstance(model, Pipeline) else (model, None)
    rows = rows if table is None else table.transform(rows)
    found = network.predict(rows, verbose=0) if isinstance(network, Sequential) else network.predict(rows)
    return found.reshape(len(rows), -1)
