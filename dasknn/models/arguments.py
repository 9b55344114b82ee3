"""Arguments of Sequential's methods, checked, and results in Keras's forms."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import numpy as np

from dasknn import callbacks as cb
from dasknn.callbacks import progress
from dasknn.data import inputs, partitions
from dasknn.data.blocks import load_block
from dasknn.engine.state import TrainState
from dasknn.metrics import MetricSet
from dasknn.models.layer_stack import DTYPE
from dasknn.saving import storage
from dasknn.training.fit import Columns

# What y and sample_weight are called at the door.
TARGET_NAMES = ("y", "sample_weight")


def checked_batch_size(batch_size) -> int:
    if batch_size is None:
        return 32
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"Expected batch_size to be an integer of at least 1, received {batch_size!r}.")
    return int(batch_size)


def check_fit(
    epochs, initial_epoch, steps_per_epoch, validation_split, validation_steps, validation_freq
) -> None:
    for name, value in (("epochs", epochs), ("initial_epoch", initial_epoch)):
        if not isinstance(value, int | np.integer) or value < 0:
            raise ValueError(f"Expected {name} to be an integer of at least 0, received {value!r}.")
    is_list = isinstance(validation_freq, Collection) and not isinstance(validation_freq, str)
    frequencies = list(validation_freq) if is_list else [validation_freq]
    if not all(isinstance(number, int | np.integer) and number >= 1 for number in frequencies):
        raise ValueError(
            "Expected validation_freq to be an integer of at least 1, every how many epochs, or the numbers "
            f"of epochs, from 1, received {validation_freq!r}."
        )
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"Expected steps_per_epoch to be at least 1, received {steps_per_epoch!r}.")
    if not 0 <= validation_split < 1:
        raise ValueError(f"Expected validation_split to be in [0, 1), received {validation_split!r}.")
    refuse_steps("validation_steps", validation_steps)


def checked_validation(data) -> Columns:
    """Return validation_data as columns. ValueError: it is no pair, nor a triple."""
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ValueError(
            f"Expected validation_data to be (x, y) or (x, y, sample_weight), received {type(data).__name__}."
        )
    return Columns(*data)


def refuse_steps(name: str, steps) -> None:
    if steps is not None:
        raise ValueError(f"Expected {name}=None: all rows are used, received {steps!r}. Pass fewer rows.")


def lines_of(verbose, n_steps: int) -> list[cb.Callback]:
    shown = 1 if verbose == "auto" else int(verbose)
    return [progress.KerasLines(n_steps, bar=shown == 1)] if shown else []


def report(metric_set: MetricSet | None, state: TrainState) -> dict[str, Any]:
    """Return what callbacks hear of a state."""
    found = {} if metric_set is None else metric_set.results(state.metric_sums)
    return {"loss": state.loss, **found}


def scalar_or_list(logs: dict[str, Any]):
    values = list(logs.values())
    return values if len(values) > 1 else values[0]


def flat_columns(column):
    """Return a list as an array, and an array of rows (n, ...) as (n, k); whatever else as it is."""
    column = np.asarray(column) if isinstance(column, list | tuple) else column
    return partitions.flat_rows(column) if getattr(column, "ndim", 1) > 2 else column


def reshaped(block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return block.reshape(len(block), *shape)


def one_block(x, y, sample_weight):
    """Return plain data as a block has them. ValueError: lengths that differ; PartitionError: bad numbers."""
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    y, sample_weight = inputs.admit(y, sample_weight, names=TARGET_NAMES)
    columns = {"X": x, "y": flat_columns(y)}
    if sample_weight is not None:
        columns["weight"] = flat_columns(sample_weight)
    block = load_block(tuple((name,) for name in columns), DTYPE, None, *columns.values())
    block.check()
    return block.X, block.y, block.weight


def checked_path(filepath, overwrite: bool, endings: tuple[str, ...]) -> str:
    path = os.fspath(filepath)
    if not path.endswith(endings):
        raise ValueError(f"Expected a path that ends in {' or '.join(endings)}, received {path!r}.")
    if not overwrite and storage.exists(path):
        raise FileExistsError(f"{path} exists. Pass overwrite=True, or another name.")
    return path
