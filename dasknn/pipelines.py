"""Fitted models in files: estimators, and pipelines that prepare a table for one.

A file of a pipeline holds the arrays of its network, and a description of its steps: what
`TablePreprocessor` has learned, and what the file of the network alone would say.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from math import prod

from sklearn.pipeline import Pipeline

from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor, conversion
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


def save(model, path: str | os.PathLike) -> None:
    """Write a fitted model to a path or fsspec URL: one safetensors file, which `load` reads.

    model: MLPClassifier, MLPRegressor, Sequential, a TablePreprocessor, or a Pipeline of a TablePreprocessor
    and one of the others. A Sequential alone is written as its own `save` does, and read by
    `dasknn.load_model`. TypeError: another model. NotFittedError: a model that is not fitted.
    """
    if isinstance(model, Model):
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


def load(path: str | os.PathLike, custom_objects=None) -> Model | TablePreprocessor | Pipeline:
    """Return the fitted model that `save`, or the model's own, wrote. Executes no code from the file.

    custom_objects: names to functions and classes that losses and metrics of a Sequential are made of.

    FileNotFoundError: no such file. ModelFileError: a file that is damaged, not ours, or too new; a
    Sequential alone, which `dasknn.load_model` reads.
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
            f"The table in {path} has {len(table.get_feature_names_out())} columns, and its network takes "
            f"{n_inputs}. Save the model again."
        )
    return Pipeline([(first["name"], table), (second["name"], network)])


def steps_of(model) -> tuple[TablePreprocessor, Model]:
    """Return the two steps of a pipeline. TypeError: another model."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps]
        if len(steps) == 2 and isinstance(steps[0], TablePreprocessor) and isinstance(steps[1], Model):
            return steps[0], steps[1]
        received = f"a Pipeline of {', '.join(type(step).__name__ for step in steps)}"
    else:
        received = type(model).__name__
    raise TypeError(
        "Expected MLPClassifier, MLPRegressor, Sequential, TablePreprocessor, or a Pipeline of a "
        f"TablePreprocessor and one of the others, received {received}. Save the network alone, or the whole "
        "with joblib.dump."
    )


def _versions() -> dict[str, str]:
    """Return what a file was written with, for whoever looks into it later."""
    return {name: version(name) for name in ("dasknn", "dask", "numpy", "scikit-learn")}
