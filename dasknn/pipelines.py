"""Fitted models in files: estimators, and pipelines of a TablePreprocessor and a network.

The file of a pipeline holds the arrays of its network, and a description of each step: the columns that
`TablePreprocessor` has learned, and the description that the network alone would have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from typing import Any

from sklearn.pipeline import Pipeline

from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, conversion
from dasknn.estimators import persistence as estimator_files
from dasknn.exceptions import ModelFileError
from dasknn.models import Sequential
from dasknn.models import persistence as model_files
from dasknn.saving import safetensors_file, schema

PIPELINE = "Pipeline"
TABLE = TablePreprocessor.__name__
_STEP = schema.record({"name": schema.text, "kind": schema.text}, others=schema.anything)
_STEPS = schema.record(
    {"steps": schema.each(_STEP, 2, 2), "versions": schema.table(schema.text)}, others=schema.anything
)
_REMEDY = "Use the version of dasknn that wrote it."

Model = MLPClassifier | MLPRegressor | Sequential


def save(model: Any, path: str | os.PathLike) -> None:
    """Write a fitted model to one safetensors file, which `load` reads.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, Sequential, \
        TablePreprocessor or Pipeline
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
    if isinstance(model, Model | TabularClassifier | TabularRegressor):
        model.save(path)
        return
    if isinstance(model, TablePreprocessor):
        safetensors_file.write(path, {"kind": TABLE, **model.describe(), "versions": _versions()}, {})
        return
    table, network = steps_of(model)
    if isinstance(network, Sequential):
        description, arrays = model_files.parts_of(network)
    else:
        description, arrays = conversion.parts_of(network)
    names = [name for name, _ in model.steps]
    steps = [{"name": names[0], "kind": TABLE, **table.describe()}, {**description, "name": names[1]}]
    safetensors_file.write(path, {"kind": PIPELINE, "steps": steps, "versions": _versions()}, arrays)


def load(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None
) -> Model | TabularClassifier | TabularRegressor | TablePreprocessor | Pipeline:
    """Read a fitted model that `save`, or the `save` of an estimator, has written.

    No code from the file is executed.

    Parameters
    ----------
    path : str or path-like
        Path or fsspec URL.
    custom_objects : dict of str to object, default=None
        Functions and classes that the losses and metrics of a Sequential in a pipeline are made of, by name.

    Returns
    -------
    MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, TablePreprocessor or Pipeline

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
    if kind == TABLE:
        with schema.refusing(path, "a table", _REMEDY):
            return TablePreprocessor.from_description(description)
    if kind != PIPELINE:
        return estimator_files.from_parts(description, arrays, path)
    with schema.refusing(path, "a table and a network", _REMEDY):
        _STEPS(description, "")
        first, second = description["steps"]
        schema.one_of(TABLE)(first["kind"], "steps[0].kind")
        if first["name"] == second["name"]:
            raise schema.Mismatch(f"expected two names of steps, received {first['name']!r} twice")
        table = TablePreprocessor.from_description(first)
    if second["kind"] == Sequential.__name__:
        network: Model = model_files.from_parts(
            Sequential, second, arrays, path, custom_objects=custom_objects
        )
        n_inputs = prod((network.input_shape or (None, 0))[1:])
    else:
        network = estimator_files.from_parts(second, arrays, path)
        n_inputs = network.n_features_in_
    if len(table.get_feature_names_out()) != n_inputs:
        raise ModelFileError(
            f"Expected as many columns from the preprocessing in {path} as its network has inputs, received "
            f"{len(table.get_feature_names_out())} and {n_inputs}. Save the model again."
        )
    return Pipeline([(first["name"], table), (second["name"], network)])


def steps_of(model: Any) -> tuple[TablePreprocessor, Model]:
    """Return the two steps of a pipeline. TypeError: another model."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps]
        if len(steps) == 2 and isinstance(steps[0], TablePreprocessor) and isinstance(steps[1], Model):
            return steps[0], steps[1]
        received = f"a Pipeline of {', '.join(type(step).__name__ for step in steps)}"
    else:
        received = type(model).__name__
    raise TypeError(
        "Expected MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, Sequential, "
        "TablePreprocessor, or a Pipeline of a "
        f"TablePreprocessor and one of the others, received {received}. Save the network alone, or all steps "
        "with joblib.dump."
    )


def _versions() -> dict[str, str]:
    """Return the versions of packages that write a file, for `dask nn inspect`."""
    return {name: version(name) for name in ("dasknn", "dask", "numpy", "scikit-learn")}
