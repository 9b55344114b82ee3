"""Bundles: blocks of several partitions that one task loads, and that are held as one result.

Dask takes about 2 ms for each task, so one for each of many small partitions would take most of the time of
loading. With few partitions, a bundle is one of them. How bundles are cut changes no bit: everything is
computed for each block, and joined in the order of the blocks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from dasknn.cluster.executor import Executor
from dasknn.cluster.fusing import Place, Recipe
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home

# With fewer partitions for each thread, each is a bundle. With more, each thread gets so many bundles: more
# would cost tasks, fewer could not be shared out evenly.
_BUNDLES_OF_A_THREAD = 8
# A bundle has no more bytes, so that a worker has room for those that it is making.
_BUNDLE_BYTES = 64 * 2**20
# So many partitions are loaded first, to see how large they are.
_SAMPLE = 8


@dataclass(eq=False)
class Bundle:
    """Blocks that are held as one result, a list.

    size: number of blocks. n_users: how many `Loaded` have blocks in it; the last one that releases it drops
    it.
    """

    held: Any
    size: int
    n_users: int = 1


class Spot(NamedTuple):
    """Where a block is held: the bundle, and the position in it."""

    bundle: Bundle
    at: int


class Group(NamedTuple):
    """Blocks that one task of a graph can take: a reference to a list, and the positions of their numbers.

    size: length of the list.
    """

    reference: Any
    at: dict[int, int]
    size: int

    @classmethod
    def of(cls, reference: Any, numbers: Iterable[int]) -> Group:
        """Return a group of all blocks in a list, which have these numbers."""
        at = {number: position for position, number in enumerate(numbers)}
        return cls(reference, at, len(at))


class Together(NamedTuple):
    """Partitions that are loaded by one task, on a worker, or on any."""

    numbers: tuple[int, ...]
    home: Home


def spots_of(groups: Sequence[Group], held: Sequence[Any]) -> dict[int, Spot]:
    """Return where each block is, by number; held: the results of groups that were started."""
    spots = {}
    for group, own in zip(groups, held, strict=True):
        bundle = Bundle(own, group.size)
        spots.update({number: Spot(bundle, at) for number, at in group.at.items()})
    return spots


def groups_of(spots: Mapping[int, Spot] | Sequence[Spot], numbers: Iterable[int]) -> list[Group]:
    """Return held blocks with these numbers, those of a bundle together."""
    groups: dict[Bundle, dict[int, int]] = {}
    for number in numbers:
        bundle, at = spots[number]
        groups.setdefault(bundle, {})[number] = at
    return [Group(bundle.held, at, bundle.size) for bundle, at in groups.items()]


def values_of_each(
    executor: Executor,
    name: str,
    function: Callable[..., Any],
    add_groups: Callable[[Graph], Sequence[Group]],
    *shared: Any,
) -> dict[int, Any]:
    """Return the values of function(number, *shared, block), by number, for blocks that are added to a graph.

    Parameters
    ----------
    executor : Executor
    name : str
        Of the tasks.
    function : callable
    add_groups : callable(graph) -> sequence of Group
        Called for each attempt.
    *shared : objects
        Sent once.
    """
    groups: list[Group] = []

    def add(graph: Graph) -> list[Any]:
        groups[:] = add_groups(graph)
        given = [graph.add_value("dasknn-model", value) for value in shared]
        return [
            graph.add(name, partial(_of_each, function, group.at), *given, group.reference)
            for group in groups
        ]

    found = executor.values_of(add)
    return {
        number: value
        for group, values in zip(groups, found, strict=True)
        for number, value in zip(group.at, values, strict=True)
    }


def _of_each(function: Callable[..., Any], at: Mapping[int, int], *args: Any) -> list:
    *shared, blocks = args
    return [function(number, *shared, blocks[position]) for number, position in at.items()]


# --- how bundles are cut -----------------------------------------------------------------------------


def portions(executor: Executor, n_parts: int) -> list[range]:
    """Return the numbers of partitions that are loaded at the same time, one range after the other."""
    most = executor.at_once
    if are_bundled(executor, n_parts):
        sample = max(_SAMPLE, len(executor.slots()))
        return [range(sample), range(sample, n_parts)]
    return [range(first, min(first + most, n_parts)) for first in range(0, n_parts, most)]


def are_bundled(executor: Executor, n_parts: int) -> bool:
    """Return whether there are so many partitions that several of them are loaded by one task."""
    if not executor.is_remote or n_parts <= max(_SAMPLE, _BUNDLES_OF_A_THREAD):
        return False
    return n_parts > _BUNDLES_OF_A_THREAD * len(executor.slots())


def cut(
    numbers: Sequence[int],
    recipes: Sequence[Recipe | None],
    known: Mapping[Any, Place],
    n_threads: int,
    nbytes: int,
    homes: Sequence[Home],
) -> list[Together]:
    """Return which of these partitions are loaded together, and where.

    Those whose data is held are loaded where it lies, those without a recipe one by one. A bundle is of
    partitions that go to the same replica afterwards, so that it goes to one worker as a whole.

    Parameters
    ----------
    numbers : sequence of int
    recipes : sequence of Recipe or None
        Of all partitions.
    known : mapping of key -> Place
    n_threads : int
        Of all workers.
    nbytes : int
        Of the largest partition so far.
    homes : sequence of addresses
        Where data that has to be made should be, by replica; None for anywhere.
    """
    most = min(
        math.ceil(len(numbers) / (_BUNDLES_OF_A_THREAD * n_threads)), max(1, _BUNDLE_BYTES // max(nbytes, 1))
    )
    own = {number: recipe for number in numbers if (recipe := recipes[number]) is not None}
    # What all need, such as the mean of a column, does not say where a partition should be loaded.
    n_users = Counter(key for recipe in own.values() for key in recipe.needs)
    alike: dict[tuple[Home, int], list[int]] = {}
    for number, recipe in own.items():
        # As `shards.deal` deals them out, if they have equally many rows.
        replica = number % len(homes)
        home = _home_of(recipe, known, n_users) or homes[replica]
        alike.setdefault((home, replica), []).append(number)
    found = [Together((number,), None) for number in numbers if number not in own]
    for (home, _), those in alike.items():
        runs = range(0, len(those), most)
        found += [Together(tuple(those[first : first + most]), home) for first in runs]
    return found


def _home_of(recipe: Recipe, known: Mapping[Any, Place], n_users: Counter) -> Home:
    """Return the worker that has most of what a partition needs."""
    nbytes: Counter = Counter()
    for key in recipe.needs:
        if n_users[key] == 1 and key in known:
            for worker in known[key].workers:
                nbytes[worker] += known[key].nbytes + 1
    return max(sorted(nbytes), key=nbytes.__getitem__, default=None)


def by_bytes(numbers: Sequence[int], nbytes: Sequence[int]) -> list[tuple[int, ...]]:
    """Cut numbers of blocks of these bytes into runs, each of few bytes or of one block."""
    runs: list[list[int]] = []
    total = 0
    for number in numbers:
        if not runs or total + nbytes[number] > _BUNDLE_BYTES:
            runs.append([])
            total = 0
        runs[-1].append(number)
        total += nbytes[number]
    return [tuple(run) for run in runs]
