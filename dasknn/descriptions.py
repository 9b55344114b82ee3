"""Fitted models of every kind as descriptions and arrays, which files hold.

The description of a pipeline holds one of each step: the columns that `TablePreprocessor` has learned, and
the description that the network alone would have, whose arrays are those of the pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor
from dasknn.estimators import persistence as estimator_files
from dasknn.exceptions import ModelFileError
from dasknn.models import Sequential
from dasknn.models import persistence as model_files
from dasknn.saving import schema

#: Kinds of files.
PIPELINE = "Pipeline"
TABLE = TablePreprocessor.__name__
REMEDY = "Use the version of dasknn that wrote it."
_STEP = schema.record({"name": schema.text, "kind": schema.text}, others=schema.anything)
_STEPS = schema.record(
    {"steps": schema.each(_STEP, 2, 2), "versions": schema.table(schema.text)}, others=schema.anything
)

Network = MLPClassifier | MLPRegressor | Sequential
Tabular = TabularClassifier | TabularRegressor


def parts_of(model: Any, include_optimizer: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a fitted model.

    include_optimizer: whether those of a Sequential hold the state of its optimizer. TypeError: a model of
    another kind.
    """
    if isinstance(model, Sequential):
        return model_files.parts_of(model, include_optimizer)
    if isinstance(model, MLPClassifier | MLPRegressor | TabularClassifier | TabularRegressor):
        return model._parts()
    if isinstance(model, TablePreprocessor):
        return {"kind": TABLE, **model.describe(), "versions": versions()}, {}
    table, network = steps_of(model)
    description, arrays = parts_of(network, include_optimizer)
    names = [name for name, _ in model.steps]
    steps = [{"name": names[0], "kind": TABLE, **table.describe()}, {**description, "name": names[1]}]
    return {"kind": PIPELINE, "steps": steps, "versions": versions()}, arrays


def from_parts(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    custom_objects: Mapping[str, Any] | None = None,
) -> Any:
    """Return the fitted model with these parts. ModelFileError, which names the path: there is none."""
    kind = description.get("kind")
    if kind == Sequential.__name__:
        return model_files.from_parts(Sequential, description, arrays, path, custom_objects=custom_objects)
    if kind == TABLE:
        with schema.refusing(path, "a table", REMEDY):
            return TablePreprocessor.from_description(description)
    if kind != PIPELINE:
        return estimator_files.from_parts(description, arrays, path)
    with schema.refusing(path, "a table and a network", REMEDY):
        _STEPS(description, "")
        first, second = description["steps"]
        schema.one_of(TABLE)(first["kind"], "steps[0].kind")
        if first["name"] == second["name"]:
            raise schema.Mismatch(f"expected two names of steps, received {first['name']!r} twice")
        table = TablePreprocessor.from_description(first)
    if second["kind"] == Sequential.__name__:
        network: Network = model_files.from_parts(
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


def steps_of(model: Any) -> tuple[TablePreprocessor, Network]:
    """Return the two steps of a pipeline. TypeError: another model."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps]
        if len(steps) == 2 and isinstance(steps[0], TablePreprocessor) and isinstance(steps[1], Network):
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


def versions() -> dict[str, str]:
    """Return the versions of packages that write a file, for `dask nn inspect`."""
    return {name: version(name) for name in ("dasknn", "dask", "numpy", "scikit-learn")}
