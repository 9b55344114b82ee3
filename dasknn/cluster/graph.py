"""Graphs of tasks, with the names that the dashboard shows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from dasknn._compat.dask import DataNode, GraphNode, Task, TaskRef
from dasknn.cluster.blas import single_blas_thread
from dasknn.cluster.renaming import names_again, renamed

# Results that one task merges: a power of two, so that the binary tree stays what it is.
MERGE_WIDTH = 8


class Graph:
    """Tasks to submit together: names, functions, arguments, and the worker each should run on.

    `add` returns a reference by which other tasks take the result as an argument. Arguments are such
    references, held results (`Executor.start`), or plain objects, passed as they are.
    """

    def __init__(self):
        self.run = uuid.uuid4().hex[:12]
        self.tasks: dict[Hashable, GraphNode] = {}
        self.homes: dict[Hashable, str] = {}
        self._strict: set[Hashable] = set()
        self._sources: dict[int, tuple[HighLevelGraph, set]] = {}

    def add(
        self, name: str, function: Callable, *args, home: str | None = None, strict: bool = False
    ) -> TaskRef:
        """Add function(*args); the dashboard shows it as `name`, and it prefers to run at `home`.

        strict: it runs nowhere else, and waits for ever when that worker is gone; see `fetch`.
        """
        key = self._key(name)
        self.tasks[key] = Task(key, _call, function, *args)
        if home is not None:
            self.homes[key] = home
        if strict:
            self._strict.add(key)
        return TaskRef(key)

    @property
    def is_strict(self) -> bool:
        """Whether tasks of it may run in one place only, where others may wait for them."""
        return bool(self._strict)

    def add_value(self, name: str, value) -> TaskRef:
        """Add a value that travels with the graph."""
        key = self._key(name)
        self.tasks[key] = DataNode(key, value)
        return TaskRef(key)

    def add_source(self, delayed) -> TaskRef:
        """Add what computes a Delayed object of the user's."""
        graph = delayed.__dask_graph__()
        self._sources.setdefault(id(graph), (graph, set()))[1].add(delayed.key)
        return TaskRef(delayed.key)

    def add_tree(self, merge: Callable, references: list[TaskRef], most: int = 1) -> list[TaskRef]:
        """Add tasks merge(*results) of neighbors, a few at a time; return at most `most` references.

        With a `merge` that adds up by `merge_tree`, all of it is one binary tree, in the order of references.
        """
        while len(references) > most:
            groups = range(0, len(references), MERGE_WIDTH)
            references = [self.add("dasknn-merge", merge, *references[i : i + MERGE_WIDTH]) for i in groups]
        return references

    def _key(self, name: str) -> str:
        return f"{name}-{self.run}-{len(self.tasks)}"

    def layers(self, confined: bool = False) -> HighLevelGraph:
        """Return everything as one graph, with soft pins to the homes where they are not strict.

        confined: whoever submits it says which workers may run it. Homes that are not strict do not count
        then, and sources are computed under names of their own: what the scheduler knows already stays where
        it is, and waits there.
        """
        sources, tasks = [_cull(*source) for source in self._sources.values()], self.tasks
        # A strict pin would leave its task pending for ever when that worker dies.
        annotations: dict[str, Any] = {
            "workers": self.homes.get,
            "allow_other_workers": lambda key: key not in self._strict,
        }
        if confined:
            annotations = {"workers": lambda key: self.homes.get(key) if key in self._strict else None}
            names = names_again(self.run, sources)
            sources = [renamed(source, names) for source in sources]
            tasks = {key: task.substitute(names) for key, task in tasks.items()}
        own = MaterializedLayer(tasks, annotations=annotations)
        graph = HighLevelGraph({f"dasknn-{self.run}": own}, {f"dasknn-{self.run}": set()})
        return HighLevelGraph.merge(graph, *sources)


def graph_of(delayed) -> HighLevelGraph:
    """Return the tasks that compute a Delayed object, and no others."""
    return _cull(delayed.__dask_graph__(), {delayed.key})


def _cull(graph, keys: set) -> HighLevelGraph:
    if not isinstance(graph, HighLevelGraph):
        graph = HighLevelGraph.from_collections(str(id(graph)), graph, dependencies=())
    return graph.cull(keys)


def _call(function, *args):
    # A training that diverges is noticed by its loss; numpy's warnings on workers would reach nobody.
    with single_blas_thread, np.errstate(over="ignore", invalid="ignore"):
        return function(*args)


def merge_tree(merge: Callable, *items):
    """Merge items pairwise, neighbours first: a binary tree that depends on their number alone."""
    level = list(items)
    while len(level) > 1:
        pairs = [merge(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]
