"""Fitted estimators from files, and from scikit-learn's estimators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn.neural_network

from dasknn.estimators import conversion, tabular_files
from dasknn.estimators.classifier import MLPClassifier
from dasknn.estimators.regressor import MLPRegressor
from dasknn.estimators.tabular import BaseTabular
from dasknn.estimators.tabular_classifier import TabularClassifier
from dasknn.estimators.tabular_regressor import TabularRegressor
from dasknn.exceptions import ModelFileError
from dasknn.saving import schema

Estimator = MLPClassifier | MLPRegressor | TabularClassifier | TabularRegressor
_KINDS: tuple[Any, ...] = (MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor)


def from_parts(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: str | os.PathLike
) -> Estimator:
    """Return the fitted model with these parts. ModelFileError, which names the path: another kind."""
    kinds = {kind.__name__: kind for kind in _KINDS}
    kind = kinds.get(str(description.get("kind")))
    if kind is None or "members" not in arrays:
        raise ModelFileError(
            f"Expected a model of kind {' or '.join(kinds)} in {path}, received "
            f"{str(description.get('kind'))[:60]!r}. Use the version of dasknn that wrote it."
        )
    with schema.refusing(path, "a model", "Use the version of dasknn that wrote it."):
        if issubclass(kind, BaseTabular):
            schema.table(schema.anything)(description.get("parameters"), "parameters")
        else:
            conversion.check(dict(description))
        model = kind(
            **{name: conversion.from_json(value) for name, value in description["parameters"].items()}
        )
        model._validate_params()
        if isinstance(model, BaseTabular):
            tabular_files.restore(model, description, arrays)
        else:
            conversion.restore(model, description, arrays["members"])
    return model


def from_sklearn(estimator) -> MLPClassifier | MLPRegressor:
    """Convert a fitted MLP of scikit-learn to a model of dasknn.

    The optimizer's state is not converted: partial_fit begins with a new one.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        A fitted estimator.

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted, with the same weights and predictions.

    Raises
    ------
    TypeError
        Another kind of estimator.
    NotFittedError
        The estimator is not fitted.
    """
    for kind in (MLPClassifier, MLPRegressor):
        if isinstance(estimator, getattr(sklearn.neural_network, kind._twin)):
            return conversion.from_sklearn(kind, estimator)
    raise TypeError(
        "Expected sklearn.neural_network.MLPClassifier or MLPRegressor, received "
        f"{type(estimator).__module__}.{type(estimator).__name__}."
    )
