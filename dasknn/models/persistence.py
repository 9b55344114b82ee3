"""A Sequential in files: writing one, and making a model from one.

Functions that make a model take its class as an argument, `kind`, since models import this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from dasknn import layers
from dasknn.engine import updater
from dasknn.exceptions import ModelFileError
from dasknn.models import keras_format
from dasknn.models.layer_stack import DTYPE
from dasknn.saving import safetensors_file, schema, storage

# Endings of files.
MODEL_ENDINGS, WEIGHTS_ENDINGS = (".keras", ".safetensors"), (".weights.h5", ".safetensors")
#: The kind of model, as files name it.
SEQUENTIAL = "Sequential"
MODEL, REMEDY = "a model", "Save the model again."
_PARTS = schema.record(
    {
        "kind": schema.text,
        "config": schema.table(schema.anything),
        "step": schema.integer(),
        "learning_rate": schema.optional(schema.number()),
    },
    {"feature_names_in": schema.each(schema.text)},
    others=schema.anything,
)


# --- writing -----------------------------------------------------------------------------------------


def checked_path(filepath, overwrite: bool, endings: tuple[str, ...]) -> str:
    """Return a path for a new file. ValueError: another ending. FileExistsError: it exists."""
    path = os.fspath(filepath)
    if not path.endswith(endings):
        raise ValueError(f"Expected a path that ends in {' or '.join(endings)}, received {path!r}.")
    if not overwrite and storage.exists(path):
        raise FileExistsError(f"{path} exists. Pass overwrite=True, or another path.")
    return path


def save(model: Any, filepath, overwrite: bool, include_optimizer: bool) -> None:
    """Write a model to one file, in the format of its ending. See `Sequential.save`."""
    model._check_built()
    path = checked_path(filepath, overwrite, MODEL_ENDINGS)
    if path.endswith(".keras"):
        state = optimizer_state(model) if include_optimizer else []
        weights = model._by_layer(model._params_of_one())
        columns = model.feature_names_in_.tolist() if hasattr(model, "feature_names_in_") else None
        keras_format.write(path, keras_format.KerasFile(_whole_config(model), weights, state, columns))
        return
    safetensors_file.write(path, *parts_of(model, include_optimizer))


def save_weights(model: Any, filepath, overwrite: bool) -> None:
    """Write the weights of a model to a file. See `Sequential.save_weights`."""
    path = checked_path(filepath, overwrite, WEIGHTS_ENDINGS)
    if path.endswith(".h5"):
        weights = model._by_layer(model._params_of_one())
        file = keras_format.KerasFile({}, weights, optimizer_state(model))
        keras_format.write_weights(path, file, _names(model))
        return
    arrays = {f"{number:06d}": weight for number, weight in enumerate(model.get_weights())}
    safetensors_file.write(path, {"kind": "weights"}, arrays)


def parts_of(model: Any, include_optimizer: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a built Sequential, which its file holds."""
    model._check_built()
    assert model._members is not None
    arrays = {"members": model._members}
    description = {
        "kind": SEQUENTIAL,
        "config": _whole_config(model),
        "step": model._step,
        "learning_rate": None if model._rate is None else float(model._rate),
    }
    if hasattr(model, "feature_names_in_"):
        description["feature_names_in"] = model.feature_names_in_.tolist()
    if include_optimizer and model._slots is not None:
        arrays["slots"] = model._slots
    return description, arrays


def _whole_config(model: Any) -> dict[str, Any]:
    """Return layers, shape of the inputs and arguments of `compile`, in the form of Keras's files."""
    config = described(model) | {"build_config": {"input_shape": list(model.input_shape or ())}}
    if model._compiled is not None:
        config["compile_config"] = model.get_compile_config()
    return config


def described(model: Any) -> dict[str, Any]:
    """Return the layers, in Keras's form."""
    return {
        "module": "keras",
        "class_name": SEQUENTIAL,
        "config": model.get_config(),
        "registered_name": None,
    }


def _names(model: Any) -> list[tuple[str, str]]:
    """Return class and name of each layer, from which Keras derives the names in its weight files."""
    return [(type(layer).__name__, layer.name or "") for layer in model._layers]


def optimizer_state(model: Any) -> list[np.ndarray]:
    """Return the variables that Keras keeps of an optimizer; none if the model is not compiled."""
    if model._compiled is None:
        return []
    params, slots = model._params_of_one(), model._slots
    if slots is None:
        slots = updater.initial_slots(model._compiled.optimizer, params)
    # The slots of an ensemble with one member are (1, n_slots, n).
    slots = slots.reshape(-1, len(params))
    return keras_format.optimizer_variables(
        model._compiled.optimizer, ordered_variables(model), slots, model._step, model._learning_rate
    )


def ordered_variables(model: Any) -> list[updater.Variable]:
    """Return the trainable variables in Keras's order, layer by layer."""
    network = model._built_network()
    order = {(i, w.name): (i, k) for i, ws in enumerate(network.weights) for k, w in enumerate(ws)}
    learned = [variable for variable in network.variables if variable.is_learned]
    return sorted(learned, key=lambda variable: order[variable.layer, variable.name])


# --- reading -----------------------------------------------------------------------------------------


def load_weights(kind: Any, model: Any, filepath, skip_mismatch: bool) -> None:
    """Read weights into a model. See `Sequential.load_weights`."""
    model._check_built()
    path = os.fspath(filepath)
    if path.endswith(".safetensors"):
        description, arrays = safetensors_file.read(path)
        if description.get("kind") == SEQUENTIAL:
            model.set_weights(from_parts(kind, description, arrays, path, compile=False).get_weights())
            return
        if description.get("kind") != "weights":
            raise ModelFileError(f"Expected weights in {path}, received {description.get('kind')!r}.")
        with schema.refusing(path, "weights of this model", ""):
            model.set_weights([arrays[name] for name in sorted(arrays)])
        return
    read = keras_format.read if path.endswith(".keras") else keras_format.read_weights
    load_by_layer(model, read(path, _names(model)).weights, skip_mismatch)


def load_by_layer(model: Any, by_layer: dict[str, list[np.ndarray]], skip_mismatch: bool = False) -> None:
    """Give a model weights by the names of layers. ModelFileError: some are missing or have other shapes."""
    params = model._params_of_one().copy()
    views = model._views(params)
    keras_format.assign(views, keras_format.fitting(views, by_layer) if skip_mismatch else by_layer)
    model._replace_members(params[np.newaxis])


def restore_optimizer(model: Any, state: list[np.ndarray]) -> None:
    """Give a model's optimizer the state in Keras's variables."""
    if not state or model._compiled is None:
        return
    slots = updater.initial_slots(model._compiled.optimizer, model._params_of_one())
    model._step, rate = keras_format.restore_optimizer(
        model._compiled.optimizer, ordered_variables(model), slots, state
    )
    model._slots = slots
    if rate is not None:
        model._rate = rate


def from_parts(
    kind: Any, description, arrays, path: str | os.PathLike, compile: bool = True, custom_objects=None
) -> Any:
    """Return the model with these parts. ModelFileError, which names the path: another kind of model."""
    if description.get("kind") != SEQUENTIAL:
        raise ModelFileError(
            f"Expected a Sequential in {path}, received {str(description.get('kind'))[:60]!r}. Use "
            "dasknn.load."
        )
    with schema.refusing(path, MODEL, REMEDY):
        _PARTS(description, "")
        members, slots = arrays["members"], arrays.get("slots")
        model = from_config(
            kind, description["config"], compile, partial(_check_members, members), custom_objects
        )
        if slots is not None:
            _check_slots(slots, members)
        model._members = members
        model._step, model._rate = description["step"], description["learning_rate"]
        model._slots = slots if compile else None
        model._learn_names(description.get("feature_names_in"))
    return model


def from_config(
    kind: Any,
    config: dict[str, Any],
    compile: bool = True,
    check: Callable | None = None,
    custom_objects=None,
) -> Any:
    """Return a model of that class from a configuration. ModelFileError: it describes no such model.

    check: called with the shapes of all weights, by layer, before they are allocated, so that a damaged file
    cannot ask for absurd arrays.
    """
    schema.table(schema.anything)(config, "config")
    if config.get("class_name") != SEQUENTIAL:
        raise ModelFileError(
            f"Expected a Sequential model, received a {config.get('class_name')!r}: dasknn has no other."
        )
    try:
        model, shape = unbuilt(kind, config["config"])
        if check is not None:
            check(_weight_shapes(model, shape))
        if shape is not None:
            model.build(shape)
        if compile and (settings := config.get("compile_config")):
            model.compile_from_config(settings, custom_objects)
    except ModelFileError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelFileError(
            f"The model in the file cannot be created: {error} Pass your own losses and metrics to "
            "load_model as custom_objects, or leave optimizer, loss and metrics out with compile=False."
        ) from error
    return model


def unbuilt(kind: Any, config: dict[str, Any]) -> tuple[Any, tuple[int | None, ...] | None]:
    """Return (a model with the layers of a configuration, without weights; the shape of its inputs)."""
    model = kind(trainable=config.get("trainable", True), name=config.get("name"))
    for layer in config.get("layers", ()):
        model.add(layers.deserialize(layer), rebuild=False)
    shape = config.get("build_input_shape") or model.input_shape
    return model, None if shape is None else (None, *shape[1:])


def _weight_shapes(
    model: Any, input_shape: tuple[int | None, ...] | None
) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes that weights will have, by layer, without allocating any."""
    found: dict[str, list[tuple[int, ...]]] = {layer.name or "": [] for layer in model._layers}
    if input_shape is None:
        return found
    shape = layers.Input(shape=input_shape[1:]).shape
    for layer in model._layers:
        found[layer.name or ""] = [weight.shape for weight in layer.weights(prod(shape))]
        shape = layer.output_shape(shape)
    return found


def _check_members(members: np.ndarray, shapes: dict[str, list[tuple[int, ...]]]) -> None:
    n_params = sum(prod(shape) for of_layer in shapes.values() for shape in of_layer)
    if members.ndim != 2 or not len(members) or members.shape[1] != n_params or members.dtype != DTYPE:
        raise ModelFileError(
            f"Expected parameters of shape (members, {n_params}) and of {DTYPE} for the layers described, "
            f"received {members.shape} of {members.dtype}."
        )


def _check_slots(slots: np.ndarray, members: np.ndarray) -> None:
    fits = slots.ndim in (2, 3) and slots.shape[-1] == members.shape[1] and slots.dtype == DTYPE
    if not fits or (slots.ndim == 3 and len(slots) != len(members)):
        raise ModelFileError(
            f"Expected an optimizer's state for parameters of shape {members.shape}, received "
            f"{slots.shape} of {slots.dtype}."
        )
