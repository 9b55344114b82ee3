"""Keras 3's files: models (`.keras`) and weights (`.weights.h5`), written and read without Keras.

    model.keras        a zip archive
      metadata.json      version of Keras, date
      config.json        layers and arguments of `compile`, in the form of `saving.serialization`
      model.weights.h5   HDF5: layers/dense_1/vars/0 ..., optimizer/vars/0 ...

Groups are named by the class of their layer and a number, in order; names of layers do not matter. Reading a
file executes nothing, and allocates no array larger than the file itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dasknn.engine.updater import Variable
from dasknn.exceptions import ModelFileError, ModelNotFoundError, caller_stacklevel
from dasknn.optimizers import Adam, Nadam, RMSprop
from dasknn.saving import schema, storage
from dasknn.saving.serialization import snake_case
from dasknn.schedules import LearningRateSchedule

# The version that tests compare files with; Keras ignores it. In older versions the variables of Nadam, and
# of averages with accumulated gradients, have another order.
_KERAS_VERSION = "3.15.1"
_CONFIG, _WEIGHTS, _PICKLES = "config.json", "model.weights.h5", "model.weights.npz"
_METADATA, _COLUMNS = "metadata.json", "columns"
# HDF5 as Keras writes it has no checksum, and its library may crash on damaged files. So a weight file has
# one behind its end, which HDF5 ignores. Archives have the checksums of zip.
_SEAL = b"\ndasknn sha256 "
_SEALED = len(_SEAL) + 64
# Keras compresses nothing, but others may. A part of an archive may be this many times as large as the
# archive, or this many bytes large.
_MOST_EXPANSION, _SMALL_BYTES = 4, 2**20
_REMEDY = "Save the model again."
# After this many updates, Nadam's product is 0 in float32 for any beta_1 up to 0.9999.
_MOST_FACTORS = 2_000_000

#: Class and name of a layer.
Names = Sequence[tuple[str, str]]


class KerasFile(NamedTuple):
    """Content of a file.

    Attributes
    ----------
    config : dict
        The model in Keras's form; empty for a file of weights.
    weights : dict of lists of arrays
        Weights by the name of their layer, in Keras's order.
    optimizer : list of arrays
        Keras's variables of the optimizer, in order; empty if they were not kept.
    columns : list of str or None
        Names of the columns that the model was fitted to; None if it was fitted to an array.
    """

    config: dict[str, Any]
    weights: dict[str, list[np.ndarray]]
    optimizer: list[np.ndarray]
    columns: list[str] | None = None


# --- writing -----------------------------------------------------------------------------------------


def write(path: str | os.PathLike, file: KerasFile) -> None:
    """Write a `.keras` file, completely or not at all. ImportError: h5py is not installed."""
    metadata: dict[str, Any] = {
        "keras_version": _KERAS_VERSION,
        "date_saved": f"{datetime.now():%Y-%m-%d@%H:%M:%S}",
    }
    if file.columns is not None:
        # Keras does not read the metadata.
        metadata[_COLUMNS] = file.columns
    weights = _to_h5(file, _names_in(file.config))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_METADATA, json.dumps(metadata))
        archive.writestr(_CONFIG, json.dumps(file.config))
        archive.writestr(_WEIGHTS, weights)
    storage.write(path, buffer.getbuffer())


def write_weights(path: str | os.PathLike, file: KerasFile, names: Names) -> None:
    """Write a `.weights.h5` file, completely or not at all, for layers with these names.

    ImportError: h5py is not installed.
    """
    data = bytes(_to_h5(file, names))
    storage.write(path, data + _seal(data))


def _seal(data: bytes) -> bytes:
    return _SEAL + hashlib.sha256(data).hexdigest().encode()


def _to_h5(file: KerasFile, names: Names) -> memoryview:
    h5py = _import_h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as h5:
        for (_, name), group in zip(names, _groups(names), strict=True):
            _write_variables(h5, f"layers/{group}/vars", name, file.weights.get(name, ()))
        if file.optimizer:
            _write_variables(h5, "optimizer/vars", "optimizer", file.optimizer)
    return buffer.getbuffer()


def _write_variables(h5, where: str, name: str, arrays: Sequence[np.ndarray]) -> None:
    group = h5.create_group(where)
    group.attrs["name"] = name
    for number, array in enumerate(arrays):
        group[str(number)] = array


def _groups(names: Names) -> list[str]:
    """Return Keras's names of the groups of layers: dense, dense_1, dense_2, ..."""
    seen: dict[str, int] = {}
    found = []
    for class_name, _ in names:
        stem = snake_case(class_name)
        number = seen[stem] = seen.get(stem, -1) + 1
        found.append(f"{stem}_{number}" if number else stem)
    return found


_LAYER = schema.record(
    {"class_name": schema.text, "config": schema.table(schema.anything)}, others=schema.anything
)
_LAYERS = schema.record({"layers": schema.each(_LAYER)}, others=schema.anything)
_CONFIGURED = schema.record({"config": _LAYERS}, others=schema.anything)


def _names_in(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return class and name of the layers in a configuration. ModelFileError: it is not of a Sequential."""
    if not isinstance(config, Mapping) or config.get("class_name") != "Sequential":
        kind = config.get("class_name") if isinstance(config, Mapping) else type(config).__name__
        raise ModelFileError(f"Expected a Sequential model, received {kind!r}: dasknn has no other.")
    _CONFIGURED(config, "")
    layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
    names = [(layer["class_name"], layer["config"].get("name")) for layer in layers]
    for place, (_, name) in enumerate(names):
        schema.text(name, f"layers[{place}].config.name")
    if len({name for _, name in names}) < len(names):
        raise ModelFileError(f"Expected unique names of layers, received {[name for _, name in names]}.")
    return names


# --- reading -----------------------------------------------------------------------------------------


def read(path: str | os.PathLike, names: Names | None = None) -> KerasFile:
    """Read a `.keras` file.

    Parameters
    ----------
    path : str, path or fsspec URL
    names : sequence of (class, name) or None, default=None
        Layers that will have the weights. None: the layers that the file describes.

    Returns
    -------
    KerasFile

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelFileError
        The file is damaged, is not one of Keras 3, or holds another model than a Sequential.
    ImportError
        h5py is not installed.
    """
    path, data = _read(path)
    _import_h5py()
    with schema.refusing(path, "a .keras file of Keras 3", _REMEDY):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = schema.parse(_part(archive, _CONFIG, len(data)))
            described = _names_in(config)
            weights = _part(archive, _WEIGHTS, len(data))
            columns = _columns(archive, len(data))
        return KerasFile(config, *_from_h5(weights, described if names is None else names), columns)


def read_weights(path: str | os.PathLike, names: Names) -> KerasFile:
    """Read a `.weights.h5` file for a model with such layers; raises the errors of `read`."""
    path, data = _read(path)
    _import_h5py()
    with schema.refusing(path, "a .weights.h5 file of Keras 3", _REMEDY):
        if data[-_SEALED:].startswith(_SEAL) and _seal(data[:-_SEALED]) != data[-_SEALED:]:
            raise ModelFileError("Its checksum is wrong, so it is damaged. Save the weights again.")
        return KerasFile({}, *_from_h5(data, names))


def _read(path: str | os.PathLike) -> tuple[str, bytes]:
    path = os.fspath(path)
    try:
        return path, storage.read(path)
    except FileNotFoundError:
        raise ModelNotFoundError(f"Expected a model file at {path!r}, found none.") from None


def _columns(archive: zipfile.ZipFile, size: int) -> list[str] | None:
    """Return the names of columns that dasknn keeps in a file; None in a file of Keras."""
    if _METADATA not in archive.namelist():
        return None
    metadata = schema.parse(_part(archive, _METADATA, size))
    schema.table(schema.anything)(metadata, _METADATA)
    schema.optional(schema.each(schema.text))(metadata.get(_COLUMNS), _COLUMNS)
    return metadata.get(_COLUMNS)


def _part(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Return a part of an archive, after checking its size; zipfile checks its checksum."""
    names = archive.namelist()
    if name not in names:
        if _PICKLES in names:
            raise ModelFileError(
                f"Expected {_WEIGHTS}, received {_PICKLES}, whose pickles could execute anything. Save the "
                "model with weights in HDF5, as Keras does by default."
            )
        raise ModelFileError(f"Expected {name} in the archive, received {sorted(names)[:10]}.")
    part = archive.getinfo(name)
    if part.file_size > max(_MOST_EXPANSION * size, _SMALL_BYTES):
        raise ModelFileError(f"{name} claims to be {part.file_size} bytes, in a file of {size}.")
    return archive.read(part)


def _from_h5(data: bytes, names: Names) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    with _import_h5py().File(io.BytesIO(data), "r") as h5:
        reader = _Reader(h5, len(data))
        groups = _groups(names)
        weights = {
            name: reader.variables(f"layers/{group}/vars")
            for (_, name), group in zip(names, groups, strict=True)
        }
        # Unexpected layers are named by their group; those without weights are ignored.
        for group in reader.groups_in("layers"):
            if group not in groups and (found := reader.variables(f"layers/{group}/vars")):
                weights[f"layers/{group}"] = found
        return weights, reader.variables("optimizer/vars")


class _Reader:
    """Reads plain arrays of an HDF5 file, in total no more bytes than the file has.

    Links and storage outside of the file are refused.
    """

    def __init__(self, h5, n_bytes: int):
        self._h5, self._n_bytes, self._size = h5, n_bytes, n_bytes

    def groups_in(self, path: str) -> list[str]:
        """Return the names in a group. ModelFileError: no such group."""
        group = self._find(path)
        if group is None:
            raise ModelFileError(f"Expected weights of Keras 3 under {path!r}, received none.")
        return list(group)

    def variables(self, path: str) -> list[np.ndarray]:
        """Return the arrays "0", "1", ... of a group; an empty list if there is no such group."""
        group = self._find(path)
        if group is None:
            return []
        names = [str(number) for number in range(len(group))]
        if set(group) != set(names):
            raise ModelFileError(f"Expected arrays {names} in {path}, received {sorted(group)}.")
        return [self._array(group, name) for name in names]

    def _find(self, path: str):
        group = self._h5
        for name in path.split("/"):
            if name not in group:
                return None
            group = self._own(group, name)
            if not isinstance(group, _import_h5py().Group):
                raise ModelFileError(f"Expected a group at {path}, received {type(group).__name__}.")
        return group

    def _own(self, group, name: str):
        kind = group.get(name, getclass=True, getlink=True)
        if kind is not _import_h5py().HardLink:
            raise ModelFileError(f"Expected {name} in the file itself, received a link ({kind.__name__}).")
        return group[name]

    def _array(self, group, name: str) -> np.ndarray:
        data = self._own(group, name)
        where = f"{group.name}/{name}"
        if not isinstance(data, _import_h5py().Dataset) or data.external or data.is_virtual:
            raise ModelFileError(f"Expected an array in the file itself at {where}, received {data!r}.")
        if data.shape is None or data.dtype.kind not in "fiu":
            raise ModelFileError(f"Expected numbers at {where}, received {data.dtype}.")
        # Python's integers do not overflow for absurd lengths. HDF5 reads whole chunks.
        n_bytes, of_chunk = (
            data.dtype.itemsize * prod(map(int, lengths)) for lengths in (data.shape, data.chunks or ())
        )
        self._n_bytes -= n_bytes
        if self._n_bytes < 0 or of_chunk > max(self._size, _SMALL_BYTES):
            raise ModelFileError(
                f"Expected arrays no larger than the file, received {where} of shape {data.shape}, in chunks "
                f"of {data.chunks}."
            )
        return np.asarray(data[()])


def _import_h5py():
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Keras's files need h5py. Install it: pip install 'dasknn[keras]'") from error
    return h5py


# --- weights -----------------------------------------------------------------------------------------


def check_shapes(expected: Mapping[str, Sequence[tuple[int, ...]]], by_layer: Mapping[str, Sequence]) -> None:
    """Compare arrays with expected shapes, by layer. ModelFileError, which names the layer: they differ."""
    if unknown := sorted(set(by_layer) - set(expected)):
        raise ModelFileError(f"Expected weights of layers {sorted(expected)}, received some of {unknown}.")
    for name, shapes in expected.items():
        received = [np.shape(weight) for weight in by_layer.get(name, ())]
        if len(received) != len(shapes):
            raise ModelFileError(
                f"Expected {len(shapes)} weights of layer {name!r}, of shapes {list(shapes)}, received "
                f"{len(received)}, of shapes {received}."
            )
        for number, (shape, of_file) in enumerate(zip(shapes, received, strict=True)):
            if tuple(shape) != of_file:
                raise ModelFileError(
                    f"Expected weight {number} of layer {name!r} to be of shape {tuple(shape)}, received "
                    f"{of_file}."
                )


def assign(views: Mapping[str, Sequence[np.ndarray]], by_layer: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Copy weights into views, by layer, if all of them fit.

    ModelFileError, which names the layer: an unknown layer, another number of weights, or other shapes.
    """
    check_shapes({name: [view.shape for view in of_layer] for name, of_layer in views.items()}, by_layer)
    for name, weights in by_layer.items():
        for view, weight in zip(views[name], weights, strict=True):
            view[...] = weight


def fitting(
    views: Mapping[str, Sequence[np.ndarray]], by_layer: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Sequence[np.ndarray]]:
    """Return weights for all views: of by_layer if they fit, else of the views, with a warning."""
    found = {}
    for name, of_layer in views.items():
        try:
            check_shapes({name: [view.shape for view in of_layer]}, {name: by_layer.get(name, ())})
            found[name] = by_layer.get(name, ())
        except ModelFileError as error:
            warnings.warn(f"Skipped a layer: {error}", stacklevel=caller_stacklevel())
            found[name] = of_layer
    return found


# --- optimizers --------------------------------------------------------------------------------------


def optimizer_variables(
    optimizer, variables: Sequence[Variable], slots: np.ndarray, step: int, learning_rate: float
) -> list[np.ndarray]:
    """Return an optimizer's state as Keras's variables.

    In order: the step, the learning rate unless it is a schedule, averages, accumulated gradients, and the
    slots of the optimizer's formula.

    Parameters
    ----------
    optimizer : Optimizer
    variables : sequence of Variable
        Trainable variables, layer by layer.
    slots : array (n_slots, n)
    step : int
        Steps taken so far.
    learning_rate : float
    """
    found = [np.asarray(step, np.int64)]
    if _has_rate(optimizer):
        found.append(np.asarray(learning_rate, np.float32))
    found += [variable.view(slots[number]).copy() for variable, number in _places(optimizer, variables)]
    if isinstance(optimizer, Nadam):
        found.append(_nadam_product(optimizer, step))
    return found


def restore_optimizer(
    optimizer, variables: Sequence[Variable], slots: np.ndarray, state: Sequence[np.ndarray]
) -> tuple[int, float | None]:
    """Fill slots (n_slots, n) from Keras's variables; return the steps taken, and the learning rate.

    The rate is None if it is that of the settings. A model that was compiled but not trained has no variables
    for slots, which then stay unchanged. ModelFileError: another number of variables, or other shapes.
    """
    n_first = 1 + _has_rate(optimizer)
    places = _places(optimizer, variables)
    n_last = int(isinstance(optimizer, Nadam))
    if len(state) not in (n_first, n_first + len(places) + n_last) or any(v.ndim for v in state[:n_first]):
        raise ModelFileError(
            f"Expected {n_first + len(places) + n_last} variables of {type(optimizer).__name__}, received "
            f"{len(state)} of shapes {[v.shape for v in state]}. Load the model with compile=False."
        )
    step = int(state[0])
    if step < 0:
        raise ModelFileError(f"Expected the number of steps taken, received {step}.")
    arrays = list(state[n_first:])
    if isinstance(optimizer, Nadam) and arrays:
        # The product, the only scalar, follows from the step. Older versions of Keras have it first.
        arrays.pop(next((n for n, array in enumerate(arrays) if array.ndim == 0), -1))
    for (variable, number), array in zip(places, arrays, strict=False):
        if array.shape != variable.shape:
            raise ModelFileError(
                f"Expected a variable of {type(optimizer).__name__} of shape {variable.shape}, for "
                f"{variable.name!r} of layer {variable.layer}, received {array.shape}."
            )
        variable.view(slots[number])[...] = array
    # The file has it in float32, the settings with all digits.
    if n_first == 1 or np.float32(optimizer.learning_rate) == np.float32(state[1]):
        return step, None
    return step, float(state[1])


def _has_rate(optimizer) -> bool:
    """Whether Keras keeps the learning rate as a variable: it is a number."""
    return not isinstance(optimizer.learning_rate, LearningRateSchedule)


def _places(optimizer, variables: Sequence[Variable]) -> list[tuple[Variable, int]]:
    """Return variable and number of the slot for each of Keras's variables, in its order."""
    return [(variable, n) for together in _slots(optimizer) for variable in variables for n in together]


def _slots(optimizer) -> list[tuple[int, ...]]:
    """Return numbers of slots in Keras's order; those in one tuple alternate from variable to variable."""
    own = list(range(optimizer.n_slots))
    around: list[tuple[int, ...]] = []
    if optimizer.use_ema:
        around.append((len(own),))
    if optimizer.gradient_accumulation_steps:
        around.append((len(own) + len(around),))
    if isinstance(optimizer, RMSprop):
        # Here: square, mean if centered, steps if there is momentum. In Keras the mean is last.
        return around + [(n,) for n in (own if not optimizer.centered else [own[0], *own[2:], own[1]])]
    if isinstance(optimizer, Adam):
        return [*around, (0, 1), *((n,) for n in own[2:])]
    return [*around, tuple(own)]


def _nadam_product(optimizer: Nadam, step: int) -> np.ndarray:
    """Return the product of momenta so far: a variable in Keras, derived from the step here."""
    n_updates = min(step // (optimizer.gradient_accumulation_steps or 1), _MOST_FACTORS)
    factors = optimizer.beta_1 * (1 - 0.5 * 0.96 ** np.arange(1, n_updates + 1))
    return np.asarray(np.prod(factors), np.float32)


# --- Keras itself ------------------------------------------------------------------------------------


def to_keras(described: Mapping[str, Any], compile_config: dict[str, Any] | None, weights: list[np.ndarray]):
    """Return a model of Keras. weights: layer by layer. ImportError: Keras is not installed."""
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            "to_keras needs Keras 3 and one of its backends. Install: pip install keras torch"
        ) from error
    model = keras.Sequential.from_config(described["config"])
    model.set_weights(weights)
    if compile_config is not None:
        model.compile_from_config(compile_config)
    return model
