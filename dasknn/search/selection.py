"""Which networks of a search predict best together: greedy, with replacement (Caruana et al. 2004).

station ── predictions of all candidates ── stay there
            losses of the mean with each candidate added once more ── sum of all stations ── the best is added

Only sums of losses travel. The first k that were added are an ensemble of k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data.stations import Station, Stations
from dasknn.data.targets import as_numbers
from dasknn.evaluation.plan import targets_of
from dasknn.evaluation.problem import Problem
from dasknn.evaluation.responders import Responder, problem_for

# Chances below this one count as this one in the logarithm.
_LEAST = 1e-7


class Candidate(NamedTuple):
    """A trial that may be chosen.

    Attributes
    ----------
    responders : sequence of Responder
        Of its networks, one for each split.
    stations : sequence of (int, int)
        Where its predictions are scored: numbers of stations, with the split whose network predicts there.
        All candidates have the same rows at the same place in this sequence.
    """

    responders: Sequence[Responder]
    stations: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Picks:
    """The candidates that were added, one after the other.

    Attributes
    ----------
    numbers : list of int
        Positions in the sequence of candidates.
    losses : list of float
        Mean loss of the ensemble after each: the logarithmic loss of classes, the squared error of numbers.
    """

    numbers: list[int]
    losses: list[float]


def select(
    executor: Executor,
    stations: Stations,
    candidates: Sequence[Candidate],
    n_picks: int,
    is_wanted: Callable[[], bool],
) -> Picks:
    """Return the best candidates for an ensemble; less than `n_picks` if more are no longer wanted.

    In each step the candidate is added with which the mean has the least loss; of equals, the first one.
    """
    problem = _problem(candidates[0].responders[0])
    n_places = len(candidates[0].stations)
    libraries: list[Any] = []
    picks = Picks([], [])

    def attempt() -> None:
        graph = Graph()
        wanted = [_add_library(graph, stations, candidates, problem, place) for place in range(n_places)]
        executor.drop(libraries)
        libraries[:] = executor.start(graph, wanted)
        executor.wait_for(libraries)

    def losses() -> np.ndarray:
        counts = np.bincount(picks.numbers, minlength=len(candidates))

        def add(graph: Graph) -> list[TaskRef]:
            if any(executor.broken(libraries)):
                attempt()
            return [graph.add("dasknn-select", partial(_losses, counts), library) for library in libraries]

        found = executor.values_of(add)
        total, weight = (sum(one[part] for one in found) for part in (0, 1))
        return total / weight

    try:
        executor.again(attempt)
        while len(picks.numbers) < n_picks and (is_wanted() or not picks.numbers):
            found = losses()
            found = np.where(np.isnan(found), np.inf, found)
            best = int(np.argmin(found))
            picks.numbers.append(best)
            picks.losses.append(float(found[best]))
    finally:
        executor.drop(libraries)
    return picks


def _problem(responder: Responder) -> Problem | None:
    """Return the problem; None: a row may have several labels."""
    return None if responder.is_multilabel else problem_for(responder, np.empty(0), None)


def _add_library(
    graph: Graph, stations: Stations, candidates: Sequence[Candidate], problem: Problem | None, place: int
) -> TaskRef:
    """Add the predictions of all candidates at one place; return a reference to them."""
    # Candidates whose rows are prepared in the same way share a station.
    by_station: dict[int, list[int]] = {}
    for number, candidate in enumerate(candidates):
        by_station.setdefault(candidate.stations[place][0], []).append(number)
    parts, order = [], []
    for station, numbers in by_station.items():
        responders = [candidates[n].responders[candidates[n].stations[place][1]] for n in numbers]
        rows, home = stations.add_to(graph, station)
        parts.append(graph.add("dasknn-predict", partial(_predict, problem, responders), rows, home=home))
        order += numbers
    return graph.add("dasknn-predict", partial(_joined, order), *parts)


class Library(NamedTuple):
    """Predictions of candidates for the same rows.

    Attributes
    ----------
    predictions : array (n_candidates, n, k)
    y : array (n,) or (n, k)
    weight : array (n,) or None
    kind : {"classes", "labels", "numbers"}
    """

    predictions: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    kind: str


def _predict(problem: Problem | None, responders: Sequence[Responder], station: Station) -> Library:
    block = station.block
    assert block is not None, "candidates are scored on blocks"
    assert block.y is not None, "a score needs targets"
    if problem is None:
        kind, y = "labels", np.asarray(block.y, dtype=np.float32)
    else:
        kind, y = "numbers" if problem.classes is None else "classes", targets_of(problem, block.y)
    predictions = []
    for responder in responders:
        if kind == "numbers":
            found = as_numbers(np.asarray(responder.labels(block.X))).reshape(len(y), -1)
        else:
            found = responder.scores(block.X)
        predictions.append(np.asarray(found, dtype=np.float32))
    return Library(np.stack(predictions), y, block.weight, kind)


def _joined(order: Sequence[int], *parts: Library) -> Library:
    predictions = np.concatenate([part.predictions for part in parts])
    return parts[0]._replace(predictions=predictions[np.argsort(order)])


def _losses(counts: np.ndarray, library: Library) -> tuple[np.ndarray, float]:
    """Return (summed losses of the mean with each candidate added once more, the weight of the rows)."""
    predictions, y, weight, kind = library
    n_picked, n_rows = int(counts.sum()), len(y)
    total = np.zeros(predictions.shape[1:])
    for picked in np.flatnonzero(counts):
        total += counts[picked] * predictions[picked].astype(np.float64)
    weights = np.ones(n_rows) if weight is None else weight.astype(np.float64)
    found = np.empty(len(predictions))
    for number, own in enumerate(predictions):
        mean = (total + own) / (n_picked + 1)
        if kind == "classes":
            of_rows = -np.log(np.maximum(mean[np.arange(n_rows), y], _LEAST))
        elif kind == "labels":
            mean = np.clip(mean, _LEAST, 1 - _LEAST)
            of_rows = -(y * np.log(mean) + (1 - y) * np.log(1 - mean)).sum(axis=1)
        else:
            of_rows = ((mean - y) ** 2).mean(axis=1)
        found[number] = weights @ of_rows
    return found, float(weights.sum())
