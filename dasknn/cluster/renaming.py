"""Sources that are computed again under new names.

A task that the scheduler knows stays on the worker that has it. If that worker does not answer, the same
task is computed elsewhere under another name.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from dasknn._compat.dask import convert_legacy_graph

# The new names begin with this.
_AGAIN = "dasknn-again"


def names_again(run: str, graphs: Sequence[HighLevelGraph]) -> dict[Any, Any]:
    """Return new names for the tasks of these graphs, but not for results that are held."""
    tasks = [key for graph in graphs for key in convert_legacy_graph(graph)]
    return {key: (f"{_AGAIN}-{run}", key) for key in tasks}


def first_name(key: Hashable) -> Hashable:
    """Return the name that a task had before it was computed again under another."""
    is_new = isinstance(key, tuple) and str(key[0]).startswith(_AGAIN)
    return key[1] if is_new else key  # type: ignore[index]


def renamed(graph: HighLevelGraph, names: dict[Any, Any]) -> HighLevelGraph:
    """Return a graph with new names for its tasks; their annotations stay."""
    layers = {}
    for name, layer in graph.layers.items():
        tasks = convert_legacy_graph(layer, graph)
        annotations = {
            kind: {names[key]: value(key) if callable(value) else value for key in tasks}.get
            for kind, value in (layer.annotations or {}).items()
        }
        again = {names[key]: task.substitute(names, key=names[key]) for key, task in tasks.items()}
        layers[name] = MaterializedLayer(again, annotations=annotations)
    return HighLevelGraph(layers, graph.dependencies)
