"""Graphs of tasks, with the names that the dashboard shows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from dasknn._compat.dask import DataNode, GraphNode, Task, TaskRef
from dasknn.cluster.blas import single_blas_thread
from dasknn.cluster.fusing import Recipe, Steps
from dasknn.cluster.renaming import names_again, renamed
from dasknn.exceptions import PartitionError

# How many results one task merges: a power of two, so that the binary tree stays the same.
MERGE_WIDTH = 8

Item = TypeVar("Item")


class Graph:
    """Tasks to submit together: names, functions, arguments, and the worker that each should run on.

    `add` returns a reference, by which other tasks take the result as an argument. Arguments are such
    references, held results (`Executor.start`), or plain objects, which are passed as they are.
    """

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.tasks: dict[Hashable, GraphNode] = {}
        self.homes: dict[Hashable, str] = {}
        self._strict: set[Hashable] = set()
        self._sources: dict[int, tuple[HighLevelGraph, set]] = {}

    def add(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        home: str | None = None,
        strict: bool = False,
    ) -> TaskRef:
        """Add a task that calls function(*args); return a reference to its result.

        Parameters
        ----------
        name : str
            What the dashboard shows.
        function : callable
        *args
            References, held results or plain objects.
        home : str or None
            Address of the worker where it should run.
        strict : bool
            It must run there. When that worker is gone it waits forever: pass `at` to `Executor.fetch`.
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
        """Whether some of its tasks may run in one place only, where others may wait for them."""
        return bool(self._strict)

    def add_value(self, name: str, value: Any) -> TaskRef:
        """Add a value that is sent with the graph."""
        key = self._key(name)
        self.tasks[key] = DataNode(key, value)
        return TaskRef(key)

    def add_source(self, delayed: Any) -> TaskRef:
        """Add the tasks that compute a user's Delayed object."""
        graph = delayed.__dask_graph__()
        self._sources.setdefault(id(graph), (graph, set()))[1].add(delayed.key)
        return TaskRef(delayed.key)

    def add_recipes(
        self,
        name: str,
        calls: Sequence[tuple[Callable[..., Any], str]],
        recipes: Sequence[Recipe],
        home: str | None = None,
    ) -> TaskRef:
        """Add one task that follows recipes; return a reference to the list of results.

        Parameters
        ----------
        name : str
            What the dashboard shows.
        calls : sequence of (function, text)
            For each recipe, what is called with the values that it makes, and the note that exceptions get.
        recipes : sequence of Recipe
        home : str or None
            Address of the worker where it should run.
        """
        needs: dict[Hashable, Any] = {}
        for recipe in recipes:
            needs.update(recipe.needs)
            for graph in recipe.graphs:
                found = [key for key in recipe.needs if key in graph]
                if found:
                    self._sources.setdefault(id(graph), (graph, set()))[1].update(found)
        one_by_one = tuple((recipe.steps, *call) for recipe, call in zip(recipes, calls, strict=True))
        key = self._key(name)
        self.tasks[key] = Task(key, _Follow(one_by_one, tuple(needs)), *needs.values())
        if home is not None:
            self.homes[key] = home
        return TaskRef(key)

    def add_tree(self, merge: Callable[..., Any], references: list[TaskRef], most: int = 1) -> list[TaskRef]:
        """Add tasks that merge neighboring results, a few at a time; return at most `most` references.

        If merge(*results) adds up by `merge_tree`, all tasks together are one binary tree over the
        references, in their order.
        """
        while len(references) > most:
            groups = range(0, len(references), MERGE_WIDTH)
            references = [self.add("dasknn-merge", merge, *references[i : i + MERGE_WIDTH]) for i in groups]
        return references

    def _key(self, name: str) -> str:
        return f"{name}-{self.run}-{len(self.tasks)}"

    def layers(self, confined: bool = False, at_home: bool = False) -> HighLevelGraph:
        """Return everything as one graph, pinned to the homes: softly where they are not strict.

        at_home: all homes are strict.

        confined: the caller restricts the workers for the whole graph. Then homes that are not strict do not
        count, and sources are computed under new names: tasks that the scheduler already knows stay where
        they are, and wait there.
        """
        sources, tasks = [_cull(*source) for source in self._sources.values()], self.tasks
        # A strict pin leaves its task pending forever when that worker dies.
        annotations: dict[str, Any] = {
            "workers": self.homes.get,
            "allow_other_workers": lambda key: not at_home and key not in self._strict,
        }
        if confined:
            annotations = {"workers": lambda key: self.homes.get(key) if key in self._strict else None}
            names = names_again(self.run, sources)
            sources = [renamed(source, names) for source in sources]
            tasks = {key: task.substitute(names) for key, task in tasks.items()}
        own = MaterializedLayer(tasks, annotations=annotations)
        graph = HighLevelGraph({f"dasknn-{self.run}": own}, {f"dasknn-{self.run}": set()})
        return HighLevelGraph.merge(graph, *sources)


@dataclass(frozen=True)
class _Follow:
    """Follows recipes one after the other; called with the results that they need, whose keys are given."""

    recipes: tuple[tuple[Steps, Callable[..., Any], str], ...]
    keys: tuple[Hashable, ...]

    def __call__(self, *values: Any) -> list[Any]:
        found, results = dict(zip(self.keys, values, strict=True)), []
        for steps, function, note in self.recipes:
            try:
                # Steps are the user's tasks, and run as they would alone; what they made is released at once.
                results.append(_call(function, *steps.run(found)))
            except PartitionError:
                # It says which partition it is about.
                raise
            except Exception as error:
                error.add_note(note)
                raise
        return results


def graph_of(delayed: Any) -> HighLevelGraph:
    """Return the tasks that compute a Delayed object, and no others."""
    return _cull(delayed.__dask_graph__(), {delayed.key})


def _cull(graph: HighLevelGraph | Mapping, keys: set) -> HighLevelGraph:
    if not isinstance(graph, HighLevelGraph):
        graph = HighLevelGraph.from_collections(str(id(graph)), graph, dependencies=())
    return graph.cull(keys)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    # The loss shows that a training diverges; nobody would see numpy's warnings on workers.
    with single_blas_thread, np.errstate(over="ignore", invalid="ignore"):
        return function(*args)


def merge_tree(merge: Callable[[Item, Item], Item], *items: Item) -> Item:
    """Merge items pairwise, neighbors first: a binary tree that depends only on their number."""
    level: Sequence[Item] = items
    while len(level) > 1:
        pairs = [merge(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = [*pairs, *level[len(pairs) * 2 :]]
    return level[0]
