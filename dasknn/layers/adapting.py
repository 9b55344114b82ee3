"""Layers that learn from data before training, and are called on data outside of a model.

    layer.adapt(X)    summarize each block of X where it is ── merge the summaries here ──► settings
    layer(X)          apply the layer to each block of X where it is

Dask collections are recognized by their methods: this wing runs without Dask.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from dasknn.layers.layer import Layer


@dataclass(frozen=True)
class Adaptable(Layer):
    """A layer with settings that it can learn from data."""

    def adapt(self, data) -> Self:
        """Learn from data what the layer needs to know, in place of what it knew.

        A model has copies of its layers. So adapt a layer before it is added, or use the model's own:
        `model.layers[0].adapt(X)`.

        Parameters
        ----------
        data : Dask array, dataframe or series, array, dataframe, series or list
            Blocks of Dask data are summarized where they are, in one pass.

        Returns
        -------
        Layer
            The layer itself. Keras returns None.

        Raises
        ------
        ValueError
            There is nothing to learn from the data, or a model already has a copy of the layer.
        """
        if vars(self).get("_is_copied", False):
            raise ValueError(
                f"{type(self).__name__} expects adapt before it is added to a model, which has a copy of it. "
                "Call model.layers[...].adapt(X) on the model's own."
            )
        # The one change of a layer after it is made: models have not copied it yet.
        for name, value in self._learn(data).items():
            object.__setattr__(self, name, value)
        self.__post_init__()
        return self

    @abstractmethod
    def _learn(self, data: Any) -> dict[str, Any]:
        """Return settings by name that follow from data."""

    def note_copy(self) -> None:
        object.__setattr__(self, "_is_copied", True)


# --- blocks of data ----------------------------------------------------------------------------------


def is_lazy(data: Any) -> bool:
    """Return whether data is a collection of Dask."""
    return hasattr(data, "__dask_graph__")


def is_frame(data: Any) -> bool:
    """Return whether data is a dataframe or series, of pandas or Dask."""
    return hasattr(data, "iloc") or hasattr(data, "map_partitions")


def values_of(data: Any) -> np.ndarray:
    """Return plain data as an array; text, and columns of several kinds, as objects."""
    if not is_frame(data):
        found = np.asarray(data)
        # Rows of different lengths, and scalars, have no columns.
        if found.ndim == 0:
            raise ValueError(f"Expected an array, dataframe, series or list of rows, received {data!r:.80}.")
        return found.astype(object) if found.dtype.kind in "US" else found
    found = data.to_numpy()
    return found if found.dtype.kind in "fiub" else data.to_numpy(dtype=object)


def numbers_in(data: np.ndarray, layer: Layer) -> np.ndarray:
    """Return an array of numbers as it is, others as float64. ValueError: it holds something else."""
    if data.dtype.kind in "fiub":
        return data
    try:
        return data.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{type(layer).__name__} expects numbers, received {data.dtype} such as "
            f"{data.reshape(-1)[0]!r:.60}. Look text up with StringLookup or Hashing before."
        ) from None


def in_one_chunk_of_columns(data: Any) -> Any:
    """Return a Dask array with chunks of rows only."""
    return data.rechunk(dict.fromkeys(range(1, data.ndim), -1)) if data.ndim > 1 else data


def summaries(data: Any, summarize: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return summarize(block) of each block with rows, in order. ValueError: there are no rows.

    Summaries become an array here, by which a Dask collection computes them: on the current cluster, if any.
    """
    if not is_lazy(data):
        boxes = _boxed(values_of(data), summarize)
    elif is_frame(data):
        boxes = np.asarray(data.map_partitions(_boxed_frame, summarize, meta=(None, object)))
    else:
        data = in_one_chunk_of_columns(data)
        ones = [(1,) * n for n in data.numblocks]
        meta = np.empty((0,) * data.ndim, object)
        boxes = np.asarray(data.map_blocks(_boxed, summarize, dtype=object, chunks=ones, meta=meta))
    found = [summary for summary in boxes.reshape(-1) if summary is not None]
    if not found:
        raise ValueError("Expected data with rows to adapt to, received none.")
    return found


def _boxed(block: np.ndarray, summarize: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Return the summary of a block, None without rows, in an array of one object."""
    box = np.empty((1,) * block.ndim, object)
    if len(block):
        # A whole index: numpy does not take the object apart.
        box[(0,) * block.ndim] = summarize(block)
    return box


def _boxed_frame(frame: Any, summarize: Callable[[np.ndarray], Any]) -> Any:
    import pandas as pd

    return pd.Series([_boxed(values_of(frame), summarize).item()], dtype=object)


def applied(layer: Any, data: Any) -> Any:
    """Return layer.apply(block) of the blocks of data: lazily for Dask, in a frame for frames."""
    if not is_lazy(data):
        return apply_layer(data, layer)
    if is_frame(data):
        empty = apply_layer(data._meta.iloc[:0], layer)
        return data.map_partitions(apply_layer, layer, meta=empty, enforce_metadata=False)
    data = in_one_chunk_of_columns(data)
    meta = layer.apply(np.empty((0, *data.shape[1:]), data.dtype))
    chunks = (data.chunks[0], *((n,) for n in meta.shape[1:]))
    changes: dict[str, Any] = {}
    if meta.ndim > data.ndim:
        changes["new_axis"] = list(range(data.ndim, meta.ndim))
    return data.map_blocks(
        apply_layer, layer, dtype=meta.dtype, chunks=chunks, meta=meta[(slice(0),) * meta.ndim], **changes
    )


def apply_layer(data: Any, layer: Any) -> Any:
    """Return layer.apply of plain data. The dashboard shows tasks by the name of this function."""
    found = layer.apply(values_of(data))
    if not is_frame(data):
        return found
    import pandas as pd

    if found.ndim == 1:
        return pd.Series(found, index=data.index, name=data.name)
    if found.ndim > 2:
        raise ValueError(
            f"{type(layer).__name__} makes several columns of each column, which no dataframe can hold. "
            "Call it on one column, or on an array."
        )
    columns = data.columns if data.ndim == 2 and found.shape[1] == data.shape[1] else None
    return pd.DataFrame(found, index=data.index, columns=columns)
