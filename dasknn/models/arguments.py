"""Checks of the arguments of Sequential's methods, and results in Keras's forms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn import callbacks as cb
from dasknn.callbacks import progress
from dasknn.data import inputs, partitions
from dasknn.data.blocks import load_block
from dasknn.engine.state import TrainState
from dasknn.metrics import MetricSet
from dasknn.models.layer_stack import DTYPE
from dasknn.models.persistence import MODEL_ENDINGS, WEIGHTS_ENDINGS, checked_path
from dasknn.training.fit import Columns

# Names of y and sample_weight in messages.
TARGET_NAMES = ("y", "sample_weight")


@dataclass(frozen=True)
class FitArguments:
    """Arguments of `Sequential.fit`, with Keras's names and meanings. ValueError: one is out of its range."""

    batch_size: int
    epochs: int
    verbose: Any
    callbacks: list[cb.Callback]
    validation_split: float
    shuffle: bool
    class_weight: Any
    initial_epoch: int
    steps_per_epoch: int | None
    validation_freq: Any

    def __post_init__(self):
        for name in ("epochs", "initial_epoch"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"Expected {name} to be an integer of at least 0, received {value!r}.")
        freq = self.validation_freq
        is_list = isinstance(freq, Collection) and not isinstance(freq, str)
        numbers = list(freq) if is_list else [freq]
        if not all(isinstance(number, int | np.integer) and number >= 1 for number in numbers):
            raise ValueError(
                "Expected validation_freq to be an integer of at least 1, every how many epochs, or the "
                f"numbers of epochs, from 1, received {freq!r}."
            )
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ValueError(f"Expected steps_per_epoch to be at least 1, received {self.steps_per_epoch!r}.")
        if not 0 <= self.validation_split < 1:
            raise ValueError(
                f"Expected validation_split to be in [0, 1), received {self.validation_split!r}."
            )


def checked_batch_size(batch_size) -> int:
    if batch_size is None:
        return 32
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"Expected batch_size to be an integer of at least 1, received {batch_size!r}.")
    return int(batch_size)


def checked_callbacks(callbacks) -> list[cb.Callback]:
    """Return callbacks as a list. ValueError: no callback, or a ModelCheckpoint of a path that cannot be."""
    found = cb.as_list(callbacks)
    for callback in found:
        if isinstance(callback, cb.ModelCheckpoint):
            endings = WEIGHTS_ENDINGS if callback.save_weights_only else MODEL_ENDINGS
            checked_path(callback.filepath, True, endings)
    return found


def checked_validation(data) -> Columns:
    """Return validation_data as columns. ValueError: neither a pair nor a triple."""
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ValueError(
            f"Expected validation_data to be (x, y) or (x, y, sample_weight), received {type(data).__name__}."
        )
    return Columns(*data)


def refuse_steps(name: str, steps) -> None:
    if steps is not None:
        raise ValueError(f"Expected {name}=None: all rows are used, received {steps!r}. Pass fewer rows.")


def lines_of(verbose, n_steps: int) -> list[cb.Callback]:
    """Return the callback that prints Keras's lines, if they are wanted."""
    shown = 1 if verbose == "auto" else int(verbose)
    return [progress.KerasLines(n_steps, bar=shown == 1)] if shown else []


def report(metric_set: MetricSet | None, state: TrainState) -> dict[str, Any]:
    """Return the logs of a state: loss and metrics."""
    found = {} if metric_set is None else metric_set.results(state.metric_sums)
    return {"loss": state.loss, **found}


def scalar_or_list(logs: dict[str, Any]):
    """Return the values of logs, or the only one."""
    values = list(logs.values())
    return values if len(values) > 1 else values[0]


def flat_columns(column):
    """Return a list as an array, an array (n, ...) as (n, k), and anything else unchanged."""
    column = np.asarray(column) if isinstance(column, list | tuple) else column
    return partitions.flat_rows(column) if getattr(column, "ndim", 1) > 2 else column


def reshaped(block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return block.reshape(len(block), *shape)


def one_block(x, y, sample_weight):
    """Return plain data, cast and checked as one block. ValueError: no y. PartitionError: bad data."""
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    y, sample_weight = inputs.admit(y, sample_weight, names=TARGET_NAMES)
    columns = {"X": x, "y": flat_columns(y)}
    if sample_weight is not None:
        columns["weight"] = flat_columns(sample_weight)
    block = load_block(tuple((name,) for name in columns), DTYPE, None, *columns.values())
    block.check()
    return block.X, block.y, block.weight
