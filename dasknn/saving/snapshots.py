"""Snapshots of a running training, from which another one resumes to the same bits.

A snapshot is a description and arrays: the state (parameters, vectors of the optimizer, step, learning rate),
the epoch, the history, the seed, the memory of the transport, of the API and of each callback, and whether
training has stopped. A fingerprint of data and settings tells whether a training may resume from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dasknn.exceptions import ModelFileError
from dasknn.saving import safetensors_file, schema
from dasknn.saving.serialization import JSONEncoder, decode

if TYPE_CHECKING:
    from dasknn.callbacks.callback import Callback
    from dasknn.engine.state import TrainState
    from dasknn.training.loop import Training

_KIND = "training"
# A larger number in a file is an attack: each replica costs memory before the rest of the file is looked at.
_MOST_REPLICAS = 2**16
_VALUES = schema.table(schema.anything)
_EVENT = schema.record(
    {
        "what": schema.text,
        "worker": schema.optional(schema.text),
        "replicas": schema.each(schema.integer()),
        "epoch": schema.integer(),
        "time": schema.text,
        "seconds": schema.number(),
        "error": schema.text,
    },
    others=schema.anything,
)
#: An entry of a history.
EPOCH = schema.record(
    {"epoch": schema.integer(1), "loss": schema.number()},
    {
        "n_samples": schema.integer(),
        "seconds": schema.number(),
        "validation_score": schema.number(),
        "faults": schema.each(_EVENT),
    },
    schema.anything,
)
_SNAPSHOT = schema.record(
    {
        "kind": schema.text,
        "fingerprint": schema.record({"replicas": schema.integer(1, _MOST_REPLICAS)}, others=schema.anything),
        "seed": schema.integer(0, 2**128),
        "first_epoch": schema.integer(),
        "n_before": schema.integer(),
        "epoch": schema.integer(),
        "stopped": schema.flag,
        "state": _VALUES,
        "transport": _VALUES,
        "face": schema.record({}, {"n_parts": schema.integer(1, _MOST_REPLICAS)}, schema.anything),
        "callbacks": schema.each(schema.record({"class": schema.text, "state": _VALUES})),
        "history": schema.each(schema.table(schema.anything)),
    },
    others=schema.anything,
)
# An error lists so many differences.
_MOST_DIFFERENCES = 6
# Settings without an effect on a training that has begun.
_WITHOUT_EFFECT = ("name", "seed", "input_shape", "input_dim", "loss_scale_factor")
_LONGEST = 60


class Snapshot(NamedTuple):
    """State of a training between two epochs."""

    description: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended."""
        return self.description["epoch"]

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.description["fingerprint"]["replicas"]

    @property
    def engine(self) -> str:
        """Name of the engine."""
        name, _, _ = str(self.description["fingerprint"].get("engine", "numpy")).partition(" ")
        return name if name in ("numpy", "numba") else "numpy"

    @property
    def face(self) -> dict[str, Any]:
        """Values that the API keeps."""
        return _unpacked("face", self.description["face"], self.arrays)


def write(path: str | os.PathLike, snapshot: Snapshot) -> None:
    """Write a snapshot to one file, whole or not at all. OSError: it could not be written."""
    # Encoded only now: most snapshots are never written, and entries no longer change.
    history = _encode(snapshot.description["history"], "history")
    safetensors_file.write(path, snapshot.description | {"history": history}, snapshot.arrays)


def read(path: str | os.PathLike) -> Snapshot:
    """Return the snapshot in a file.

    FileNotFoundError: there is no such file. ModelFileError: it is damaged, or holds something else.
    """
    description, arrays = safetensors_file.read(path, remedy="")
    if description.get("kind") != _KIND:
        raise ModelFileError(
            f"Expected a checkpoint of a training in {os.fspath(path)}, received a file of kind "
            f"{str(description.get('kind'))[:60]!r}."
        )
    with schema.refusing(os.fspath(path), "a checkpoint of a training", ""):
        _check(description)
    return Snapshot(description, arrays)


def _check(description: dict[str, Any]) -> None:
    _SNAPSHOT(description, "")
    n_epochs = description["epoch"] - description["first_epoch"]
    n_entries = len(description["history"])
    if n_epochs < 0 or n_entries != description["n_before"] + n_epochs:
        raise schema.Mismatch(
            f"expected {description['n_before']} entries of the history and one for each of {n_epochs} "
            f"epochs, received {n_entries}"
        )


def snapshot(training: Training) -> Snapshot:
    """Return the snapshot of a training that is between two epochs."""
    arrays: dict[str, np.ndarray] = {}
    callbacks: list[dict[str, Any]] = []
    if training.history:
        # An entry that no file can hold is refused in the first epoch.
        _encode(training.history[-1], "history")
    for callback in training.callbacks:
        if (state := callback.state()) is not None:
            # Copies, since the callback may change its arrays before the snapshot is written.
            state = {
                name: value.copy() if isinstance(value, np.ndarray) else value
                for name, value in state.items()
            }
            kept = _packed(f"callback.{len(callbacks)}", state, arrays)
            callbacks.append({"class": type(callback).__name__, "state": kept})
    description = {
        "kind": _KIND,
        "fingerprint": fingerprint(training),
        "seed": training.transport.job.seed,
        "first_epoch": training.first_epoch,
        "n_before": training.n_before,
        "epoch": training.epoch,
        "stopped": bool(training.should_stop or training.has_ended),
        "state": _packed("state", vars(training.state), arrays),
        "transport": _packed("transport", training.transport.memory(), arrays),
        "face": _packed("face", training.hooks.kept, arrays),
        "callbacks": callbacks,
        "history": list(training.history),
    }
    return Snapshot(description, arrays)


def restore(training: Training, kept: Snapshot, where: str, remedy: str) -> None:
    """Let a training that has not begun resume from a snapshot.

    where, remedy: place of the snapshot and advice, for errors. ValueError: the training differs from that of
    the snapshot; the message lists the differences. ModelFileError: the snapshot is incomplete.
    """
    description, arrays = kept
    with schema.refusing(where, "a checkpoint of a training", ""):
        # A fingerprint without an engine is that of a training in numpy.
        there, here = (
            one | {"engine": one.get("engine", "numpy")}
            for one in (description["fingerprint"], fingerprint(training))
        )
        found = list(differences(there, here))
    if found:
        more = f"; and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
        raise ValueError(
            f"The training in {where} differs from this one: {'; '.join(found[:_MOST_DIFFERENCES])}{more}. "
            f"{remedy}"
        )
    callbacks = [callback for callback in training.callbacks if callback.state() is not None]
    with schema.refusing(where, "the state that this training needs", ""):
        state = replace(training.state, **_restored_state(training.state, description["state"], arrays))
        history = _decode(description["history"])
        schema.each(EPOCH)(history, "history")
        face, memory = kept.face, _unpacked("transport", description["transport"], arrays)
        training.hooks.check_kept(face, "face")
        states = [
            _unpacked(f"callback.{number}", entry["state"], arrays)
            for number, entry in enumerate(description["callbacks"])
        ]
        for callback, values in zip(callbacks, states, strict=True):
            _check_callback(callback, values)
        training.transport.job = replace(training.transport.job, seed=description["seed"])
        training.transport.recall(memory)
        for callback, values in zip(callbacks, states, strict=True):
            callback.restore(values)
    training.state = training.running = state
    training.first_epoch, training.n_before, training.epoch = (
        description[name] for name in ("first_epoch", "n_before", "epoch")
    )
    training.history[:] = history
    training.stop_training = description["stopped"]
    training.hooks.kept.clear()
    training.hooks.kept.update(face)
    training.hooks.publish(state)


def _restored_state(
    now: TrainState, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return the fields of the state in a snapshot. Mismatch, ModelFileError: other fields or shapes."""
    found = _unpacked("state", values, arrays)
    fields_now = vars(now)
    if found.keys() != {field.name for field in fields(now)}:
        raise schema.Mismatch(f"expected a state of {sorted(fields_now)}, received {sorted(found)}")
    for name in ("params", "slots"):
        expected, received = fields_now[name], found[name]
        if np.shape(received) != expected.shape or np.asarray(received).dtype != expected.dtype:
            raise ModelFileError(
                f"Expected {name} of shape {expected.shape} and of {expected.dtype}, received "
                f"{np.shape(received)} of {np.asarray(received).dtype}."
            )
    for name in ("step", "epoch", "n_samples", "bytes_sent"):
        schema.integer()(found[name], name)
    for name in ("learning_rate", "loss_total", "weight_sum"):
        schema.number()(found[name], name)
    sums = np.asarray(found["metric_sums"])
    if sums.dtype.kind not in "iuf" or sums.ndim > 1:
        raise schema.Mismatch(f"expected sums of metrics, received {sums.dtype} of shape {sums.shape}")
    return found


def _check_callback(callback: Callback, values: Mapping[str, Any]) -> None:
    """Raise Mismatch for kept values of a callback that would replace a method, or change its kind."""
    kind = type(callback)
    for name in values:
        own = getattr(kind, name, None)
        if name in ("model", "training") or callable(own) or hasattr(own, "__set__"):
            raise schema.Mismatch(f"expected numbers and text of {kind.__name__}, received its {name}")
    _check_alike(callback.state() or {}, values, kind.__name__)


def _check_alike(here: Any, there: Any, where: str) -> None:
    """Raise Mismatch for two values of different kinds; in dicts, for values of the same name.

    None is of any kind: it stands for a value that is not known yet.
    """
    if here is None or there is None:
        return
    kinds = (Mapping, list | tuple, str, Real, np.ndarray)
    if not any(isinstance(here, kind) and isinstance(there, kind) for kind in kinds):
        raise schema.Mismatch(
            f"expected a {type(here).__name__} at {where}, received a {type(there).__name__}"
        )
    if isinstance(here, Mapping):
        for name in here.keys() & there.keys():
            _check_alike(here[name], there[name], f"{where}.{name}")


# --- fingerprints ------------------------------------------------------------------------------------


def fingerprint(training: Training) -> dict[str, Any]:
    """Return what must be the same for a training to resume from a snapshot, in the types of JSON.

    The number of epochs, the transport and the progress display are left out: they change no bit.
    """
    job = training.transport.job
    network = job.network
    return {
        **{name: described(value) for name, value in training.hooks.settings.items()},
        "features": network.n_inputs,
        "layer": [described(layer) for layer in network.layers],
        "loss": described(network.loss),
        "dtype": network.dtype,
        "optimizer": described(job.optimizer),
        "regularizer": described(job.regularizer),
        "warmup": described(job.warmup),
        "batch_size": job.batch_size,
        "steps_per_epoch": job.steps_per_epoch,
        "replicas": job.replicas,
        "shuffle": bool(job.shuffle),
        # Files from before there were others have none.
        **({} if job.engine == "numpy" else {"engine": job.engine_described}),
        "metrics": [
            {"called": name, "weighted": is_weighted, **described(metric)}
            for name, metric, is_weighted in (() if job.metrics is None else job.metrics.entries)
        ],
        **training.transport.layout(),
        "callbacks": [
            {"kind": type(callback).__name__, **described(callback.settings())}
            for callback in training.callbacks
            if callback.state() is not None
        ],
    }


class _FingerprintEncoder(JSONEncoder):
    """Objects are their kind and settings, functions are their names."""

    def encode_other(self, value: Any, where: str) -> Any:
        if hasattr(value, "describe"):
            return self.encode(value.describe(), where)
        if is_dataclass(value) and not isinstance(value, type):
            settings = {field.name: getattr(value, field.name) for field in fields(value)}
        elif callable(value) and hasattr(value, "__qualname__"):
            return value.__qualname__
        elif hasattr(value, "__dict__"):
            settings = {name: item for name, item in vars(value).items() if not name.startswith("_")}
        else:
            return repr(value)
        return {"kind": type(value).__name__} | {
            name: self.encode(item, f"{where}.{name}")
            for name, item in settings.items()
            if name not in _WITHOUT_EFFECT and not name.endswith("_initializer")
        }


def described(value: Any) -> Any:
    """Return settings in the types of JSON, without those that change nothing once a training has begun."""
    return _FingerprintEncoder().encode(value, "the settings")


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield "name: x there, y here" for each difference between two descriptions.

    For lists, that is their lengths or the first item that differs.
    """
    if there == here:
        return
    if isinstance(there, dict) and isinstance(here, dict) and there.get("kind") == here.get("kind"):
        begin = f"{name}." if name else ""
        found = False
        for key in [*here, *(key for key in there if key not in here)]:
            # Shards follow from partitions and replicas. Only for other dtypes they are the only difference.
            if key == "shards" and found:
                continue
            for text in differences(there.get(key), here.get(key), f"{begin}{key}"):
                found = True
                yield text
    elif isinstance(there, list) and isinstance(here, list):
        are_plain = not any(isinstance(item, dict | list) for item in [*there, *here])
        if len(there) != len(here) or (are_plain and len(str(there)) <= _LONGEST):
            yield f"{name}: {_short(there)} there, {_short(here)} here"
            return
        number = next(i for i, pair in enumerate(zip(there, here, strict=True)) if pair[0] != pair[1])
        yield from differences(there[number], here[number], f"{name} {number}")
    else:
        yield f"{name}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return value.get("kind") or ", ".join(f"{name}: {item}" for name, item in value.items())
    if isinstance(value, list):
        text = ", ".join(map(_short, value))
        return f"[{text}]" if len(text) <= _LONGEST else f"{len(value)} of them"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# --- values ------------------------------------------------------------------------------------------


def _packed(prefix: str, values: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Add arrays to `arrays`, under names that begin with prefix; return the rest in the types of JSON."""
    rest = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.ndim:
            # Files have one order of bytes.
            arrays[f"{prefix}.{name}"] = value.astype(value.dtype.newbyteorder("="), copy=False)
        else:
            rest[name] = _encode(value, name)
    return rest


def _unpacked(prefix: str, rest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    begin = f"{prefix}."
    own = {name.removeprefix(begin): array for name, array in arrays.items() if name.startswith(begin)}
    return {name: _decode(value) for name, value in rest.items()} | own


class _ValuesEncoder(JSONEncoder):
    """Encodes values that a resumed training computes with: numbers of NumPy keep their dtypes."""

    def encode_array(self, value: np.ndarray | np.generic, where: str) -> Any:
        if value.dtype.kind not in "biufU":
            return self.encode_other(value, where)
        # Arithmetic on a float64 differs from that on a number of Python's.
        return {"numpy": value.dtype.str, "value": value.tolist()}

    def encode_mapping(self, value: Mapping, where: str) -> Any:
        if not all(isinstance(key, str) for key in value):
            return self.encode_other(value, where)
        return super().encode_mapping(value, where)

    def encode_other(self, value: Any, where: str) -> Any:
        raise TypeError(
            "A checkpoint holds numbers, text and arrays, and lists and dicts (with keys of text) of them; "
            f"{where} is {value!r:.200}. Keep it out of the history, and in a callback under a name that "
            "begins with an underscore."
        )


_encode = _ValuesEncoder().encode


def _decode(value: Any) -> Any:
    return decode(value, _decode_values)


def _decode_values(found: dict[str, Any]) -> Any:
    if found.keys() == {"numpy", "value"}:
        return schema.array_of(found["value"], found["numpy"], "a value of NumPy")[()]
    return found
