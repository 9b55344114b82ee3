"""Partitions of Dask collections as Delayed objects, one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
from dask.array.optimization import optimize
from dask.base import tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph


def of_frame(frame: Any) -> list[Delayed]:
    """Return one Delayed for each partition of a Dask dataframe or series."""
    # Optimizing it could fuse its partitions, and it must stay aligned with other data.
    return frame.to_delayed(optimize_graph=False)


def of_arrays(arrays: Mapping[str, da.Array]) -> dict[str, list[Delayed]]:
    """Return one Delayed for each block of arrays, chunked by rows; their graphs are optimized as one.

    Optimized one by one, they would read shared blocks once each. And if the scheduler has them already
    (`client.persist([X, y])`), the same keys would belong to different graphs.
    """
    if not arrays:
        return {}
    keys = {name: list(flatten(array.__dask_keys__())) for name, array in arrays.items()}
    merged = HighLevelGraph.merge(*(array.__dask_graph__() for array in arrays.values()))
    optimized = dict(optimize(merged, [key for own in keys.values() for key in own]))
    layer = f"dasknn-blocks-{tokenize(keys)}"
    graph = HighLevelGraph.from_collections(layer, optimized, dependencies=())
    return {name: [Delayed(key, graph, layer=layer) for key in own] for name, own in keys.items()}
