"""A running training as a description and arrays, from which another one goes on: to the same bits.

What is kept: the state (parameters, the optimizer's vectors, step, learning rate), the epoch, the history,
the seed
of all streams, what the transport remembers between epochs, and what each callback does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dasknn.exceptions import ModelFileError


def snapshot(training) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a `training.Training` between two epochs."""
    state, job = training.state, training.transport.job
    arrays = {"params": state.params, "slots": state.slots}
    arrays |= {f"transport.{name}": array for name, array in training.transport.memory().items()}
    callbacks = []
    for number, callback in enumerate(training.callbacks):
        kept = callback.state()
        own = {name: value for name, value in kept.items() if isinstance(value, np.ndarray)}
        arrays |= {f"callback.{number}.{name}": value for name, value in own.items()}
        rest = {name: _to_json(value) for name, value in kept.items() if name not in own}
        callbacks.append({"class": type(callback).__name__, "state": rest})
    description = {
        "kind": "training",
        "fingerprint": fingerprint(training),
        "seed": job.seed,
        "epoch": training.epoch,
        "step": state.step,
        "learning_rate": float(state.learning_rate),
        "history": _to_json(training.history),
        "callbacks": callbacks,
    }
    return description, arrays


def fingerprint(training) -> dict[str, Any]:
    """Return what must be the same for a training to go on from another one's snapshot."""
    transport = training.transport
    job = transport.job
    return {
        "parameters": list(training.state.params.shape),
        "rows": transport.n_samples,
        "batch_size": job.batch_size,
        "replicas": job.replicas,
        "shuffle": job.shuffle,
        "optimizer": str(job.optimizer),
        "callbacks": [type(callback).__name__ for callback in training.callbacks],
    }


def restore(training, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Make a training that has not begun go on from a snapshot.

    ModelFileError: a file that holds something else. ValueError: a training that differs; it says in what.
    """
    if description.get("kind") != "training":
        raise ModelFileError(f"Expected the copy of a training, received {description.get('kind')!r}.")
    own, kept = fingerprint(training), description["fingerprint"]
    differing = [
        f"{name} {kept.get(name)} there, {own[name]} here" for name in own if kept.get(name) != own[name]
    ]
    if differing:
        raise ValueError(
            f"The interrupted training differs from this one: {'; '.join(differing)}. Use the settings and "
            f"data of "
            "before, or another backup_dir."
        )
    transport = training.transport
    transport.job = replace(transport.job, seed=description["seed"])
    transport.recall(_below("transport.", arrays))
    training.state = training.running = replace(
        training.state,
        params=arrays["params"],
        slots=arrays["slots"],
        step=description["step"],
        learning_rate=description["learning_rate"],
    )
    training.epoch = description["epoch"]
    training.history[:] = description["history"]
    for number, (callback, found) in enumerate(
        zip(training.callbacks, description["callbacks"], strict=True)
    ):
        callback.restore(found["state"] | _below(f"callback.{number}.", arrays))
    training.face.publish(training.state)


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _to_json(value):
    if isinstance(value, dict):
        return {name: _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
