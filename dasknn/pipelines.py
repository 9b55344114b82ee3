"""Files of fitted models: estimators, ensembles, and pipelines of a TablePreprocessor and a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sklearn.pipeline import Pipeline

from dasknn import descriptions
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.ensembles import EnsembleClassifier, EnsembleRegressor
from dasknn.ensembles import files as ensemble_files
from dasknn.estimators import TabularClassifier, TabularRegressor
from dasknn.exceptions import ModelFileError
from dasknn.models import Sequential
from dasknn.saving import safetensors_file


def save(model: Any, path: str | os.PathLike) -> None:
    """Write a fitted model to one safetensors file, which `load` reads.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, EnsembleClassifier, \
        EnsembleRegressor, Sequential, TablePreprocessor or Pipeline
        A Pipeline has two steps, a TablePreprocessor and a model. A Sequential alone is written by its own
        `save`, and read by `dasknn.load_model`.
    path : str or path-like
        Path or fsspec URL, such as `s3://bucket/model.safetensors`.

    Raises
    ------
    TypeError
        Another kind of model.
    NotFittedError
        The model is not fitted.
    OSError
        The file cannot be written. An existing file stays as it is.
    """
    has_own = (
        descriptions.Network | TabularClassifier | TabularRegressor | EnsembleClassifier | EnsembleRegressor
    )
    if isinstance(model, has_own):
        model.save(path)
        return
    safetensors_file.write(path, *descriptions.parts_of(model))


def load(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None
) -> (
    descriptions.Network
    | TabularClassifier
    | TabularRegressor
    | EnsembleClassifier
    | EnsembleRegressor
    | TablePreprocessor
    | Pipeline
):
    """Read a fitted model that `save`, or the `save` of an estimator, has written.

    No code from the file is executed.

    Parameters
    ----------
    path : str or path-like
        Path or fsspec URL.
    custom_objects : dict of str to object, default=None
        Functions and classes that the losses and metrics of a Sequential in a pipeline or an ensemble are
        made of, by name.

    Returns
    -------
    MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, EnsembleClassifier, EnsembleRegressor, \
        TablePreprocessor or Pipeline

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelFileError
        The file is damaged, of another program or of a later version; or it holds a Sequential alone, which
        `dasknn.load_model` reads.
    """
    description, arrays = safetensors_file.read(path)
    kind = description.get("kind")
    if kind == Sequential.__name__:
        raise ModelFileError(f"{path} holds a Sequential. Use dasknn.load_model.")
    if isinstance(kind, str) and kind in ensemble_files.KINDS:
        return ensemble_files.from_parts(description, arrays, path, custom_objects)
    return descriptions.from_parts(description, arrays, path, custom_objects)
