"""Searches that tests run, and what of their results must be the same each time."""

from hashlib import sha256

import numpy as np
from scipy.stats import loguniform
from sklearn.datasets import load_digits

from dasknn import MLPClassifier, Sequential, SuccessiveHalvingSearch, layers, optimizers
from dasknn.search.results import TIMES

RATES = {"learning_rate_init": loguniform(1e-3, 1e-1)}
SHORT = {"max_iter": 4, "random_state": 0, "verbose": False}


def digits():
    """X (1797, 64) float32 in [0, 1], y (1797,)."""
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype("float32"), y


def halving(estimator=None, **settings):
    """A search of nine trials, some of which are paused and go on."""
    parameters = {"hidden_layer_sizes": [(16,), (24, 8)], **RATES}
    own = {"n_trials": 9, "max_iter": 9, "random_state": 0, "verbose": False}
    return SuccessiveHalvingSearch(estimator or MLPClassifier(), parameters, **{**own, **settings})


def build(units=16, rate=1e-2):
    """A Sequential for digits."""
    model = Sequential([layers.Dense(units, "relu"), layers.Dense(10, "softmax")])
    model.compile(optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def same_each_time(search):
    """All results of a search but seconds, as a name."""
    found = {name: column for name, column in search.cv_results_.items() if name not in TIMES}
    text = repr({name: np.asarray(column).tolist() for name, column in found.items()})
    text += repr((search.best_params_, search.best_score_, search.ensemble_path_, search.ensemble_losses_))
    weights = b"".join(model._members.tobytes() for models in search._models.values() for model in models)
    return sha256(text.encode() + weights + search.best_estimator_._members.tobytes()).hexdigest()
