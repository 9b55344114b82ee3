"""One task for the sources of many partitions.

Dask takes about 2 ms for each task, whatever it does. A partition of a user's collection has a task or more,
so a thousand small partitions take seconds. A `Recipe` is the tasks that only one partition needs; one task
of ours follows the recipes of many partitions, one after the other (`Graph.add_recipes`).

    graph of a collection     read 0 -> scale 0     read 1 -> scale 1     ...     (mean -> all scales)
    recipes                   [read 0, scale 0]     [read 1, scale 1]     ...     each needs `mean`

What several partitions need, what is held, and what the scheduler knows already stays as it is: a recipe
needs its result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dask.base import is_dask_collection

from dasknn._compat.dask import DataNode, GraphNode, TaskRef, convert_legacy_graph

# The owner of a task that several partitions need.
_SHARED = -1


class Place(NamedTuple):
    """Where the scheduler has the result of a task: workers (none: it has no result yet) and bytes."""

    workers: Sequence[str]
    nbytes: int


class Steps(NamedTuple):
    """Tasks to run in their order, and the keys of the results that are wanted."""

    tasks: tuple[GraphNode, ...]
    wanted: tuple[Hashable, ...]

    def run(self, found: Mapping[Hashable, Any]) -> tuple:
        """Return the values of the wanted results. found: results that the tasks need, by key."""
        own: dict[Hashable, Any] = {}
        for task in self.tasks:
            own[task.key] = task({key: own[key] if key in own else found[key] for key in task.dependencies})
        return tuple(own[key] if key in own else found[key] for key in self.wanted)


@dataclass(frozen=True)
class Recipe:
    """How to make the values of the sources of one partition.

    Attributes
    ----------
    steps : Steps
    needs : dict
        References to what is made elsewhere, or held results, by key.
    graphs : tuple
        Where the tasks are found that make what it needs.
    """

    steps: Steps
    needs: dict[Hashable, Any]
    graphs: tuple[Any, ...]


class Sources:
    """The tasks that make the sources of partitions.

    Parameters
    ----------
    parts : sequence of sequences
        The sources of each partition: Delayed objects, held results, or plain values.
    """

    def __init__(self, parts: Sequence[Sequence[Any]]):
        self._parts = parts
        delayed = [source for part in parts for source in part if is_dask_collection(source)]
        self._graphs = {id(graph): graph for graph in (source.__dask_graph__() for source in delayed)}
        self._tasks: dict[Hashable, GraphNode] = {}
        for graph in self._graphs.values():
            self._tasks.update(convert_legacy_graph(dict(graph)))

    @property
    def keys(self) -> list[Hashable]:
        """Keys of all results on which the partitions depend."""
        keys = dict.fromkeys(source.key for part in self._parts for source in part if hasattr(source, "key"))
        for key, task in self._tasks.items():
            keys[key] = None
            keys.update(dict.fromkeys(task.dependencies))
        return list(keys)

    def recipes(self, known: Mapping[Hashable, Place]) -> list[Recipe | None]:
        """Return the recipe of each partition; None: its sources have to stay tasks of their own.

        That is so where it needs a result that is not in memory, and that other tasks have to make first:
        nobody knows where that will be, and a partition is loaded where its data is.
        """
        if any(layer.annotations for graph in self._graphs.values() for layer in _layers_of(graph)):
            # Where they run, or with what, is the user's choice.
            return [None] * len(self._parts)
        owners = self._owners(known)
        return [self._recipe(number, known, owners) for number in range(len(self._parts))]

    def _owners(self, known: Collection[Hashable]) -> dict[Hashable, int]:
        """Return the one partition that needs a task, or _SHARED, by key; without what is known."""
        owners: dict[Hashable, int] = {}
        for number, sources in enumerate(self._parts):
            todo = [source.key for source in sources if is_dask_collection(source)]
            while todo:
                key = todo.pop()
                owner = owners.get(key)
                if key in known or key not in self._tasks or owner in (number, _SHARED):
                    continue
                owners[key] = number if owner is None else _SHARED
                todo += self._tasks[key].dependencies
        return owners

    def _recipe(
        self, number: int, known: Mapping[Hashable, Place], owners: Mapping[Hashable, int]
    ) -> Recipe | None:
        sources = self._parts[number]
        if not all(hasattr(source, "key") for source in sources):
            return None
        held = {source.key: source for source in sources if not is_dask_collection(source)}
        steps: dict[Hashable, GraphNode] = {}
        needs: dict[Hashable, Any] = {}
        todo = [source.key for source in sources]
        while todo:
            key = todo[-1]
            if key in steps or key in needs:
                todo.pop()
            elif owners.get(key) != number:
                if not self._is_within_reach(key, known):
                    return None
                needs[key] = held.get(key, TaskRef(key))
            else:
                task = self._tasks[key]
                if task.is_coro or task.block_fusion:
                    return None
                missing = [
                    before for before in task.dependencies if before not in steps and before not in needs
                ]
                if not missing:
                    steps[key] = task
                todo += missing
        wanted = Steps(tuple(steps.values()), tuple(source.key for source in sources))
        graphs = {id(g): g for g in (s.__dask_graph__() for s in sources if is_dask_collection(s))}
        return Recipe(wanted, needs, tuple(graphs.values()))

    def _is_within_reach(self, key: Hashable, known: Mapping[Hashable, Place]) -> bool:
        """Return whether a result is in memory, or comes straight from data that travels with the graph."""
        if key in known:
            return bool(known[key].workers)
        if key not in self._tasks:
            return False
        before = self._tasks[key].dependencies
        return all(isinstance(self._tasks.get(one), DataNode) for one in before)


def _layers_of(graph: Any) -> Sequence[Any]:
    return list(getattr(graph, "layers", {}).values())


def places_of(keys: Collection[Hashable]) -> Callable[[Any], dict]:
    """Return a function that finds the fields of `Place` for these keys, on the scheduler."""

    # Defined inside another one, it is sent by value, and the scheduler needs no dasknn.
    def find(dask_scheduler: Any) -> dict:
        known = [(key, dask_scheduler.tasks[key]) for key in keys if key in dask_scheduler.tasks]
        return {key: ([at.address for at in task.who_has or ()], max(task.nbytes, 0)) for key, task in known}

    return find
