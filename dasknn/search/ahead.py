"""An epoch and its scores in one journey, and several epochs where they are short beside the way to a worker.

A trial that is allowed more epochs sends its network through all of them at once. Each state comes back with
what was scored on it, and the loop of the training takes one after the other. If a callback has changed
something in between, what was trained ahead is thrown away: nobody can see a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dasknn.data.stations import Station
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.training.hopping import Hopper, Journey, Visit
from dasknn.training.hops import OnHops, journey_of
from dasknn.training.prediction import Evaluation, Predictor
from dasknn.training.transport import OnWave

# Epochs that together last about so long are sent together.
_SECONDS = 1.0
_MOST_EPOCHS = 64
_MOST_BYTES = 4_000_000


class Question(NamedTuple):
    """What is scored after each epoch: function(model, block), the model having the weights of the epoch."""

    function: Callable[[Any, Any], Any]
    model: Any

    @property
    def predictor(self) -> Predictor | None:
        """What predicts in the model; None: something else."""
        model = self.model.predictor if isinstance(self.model, Evaluation) else self.model
        return model if isinstance(model, Predictor) else None

    def of(self, params: np.ndarray) -> Any:
        """Return the model with other weights."""
        before = self.predictor
        assert before is not None, "only predictors are asked again"
        predictor = replace(before, members=np.atleast_2d(params))
        return replace(self.model, predictor=predictor) if isinstance(self.model, Evaluation) else predictor

    def is_about(self, params: np.ndarray) -> bool:
        """Return whether the model has these weights."""
        predictor = self.predictor
        if predictor is None or predictor.members.shape != (1, *params.shape):
            return False
        return bool(predictor.members.ctypes.data == params.ctypes.data)


class Epoch(NamedTuple):
    """An epoch that was trained ahead: its state, and what was scored on it, by station."""

    state: TrainState
    scored: tuple[Any, ...]


class _Trip(NamedTuple):
    """What is carried: the state, what was scored since its epoch began, the epochs before."""

    state: TrainState
    scored: tuple[Any, ...]
    epochs: tuple[Epoch, ...]


class Ahead:
    """What was trained ahead, and how to ask for it: the training and the rows that are scored share it."""

    def __init__(self) -> None:
        #: What to ask on the way; None: nothing, as nobody has asked, or the answers were of no use.
        self.question: Question | None = None
        self._epochs: list[Epoch] = []
        self._current: Epoch | None = None
        self._was_answered = self._is_in_vain = False

    def put(self, epochs: Sequence[Epoch]) -> None:
        """Keep epochs that were trained."""
        self._epochs, self._current = list(epochs), None

    def take(self, state: TrainState) -> TrainState | None:
        """Return the state after the epoch that begins with this one, if it is there."""
        before, self._current = self._current, None
        if before is not None and before.scored and not self._was_answered:
            # Callbacks may let other weights predict than those that are trained.
            self.question, self._is_in_vain = None, True
        if before is None or not self._epochs or not _continues(state, before.state):
            self._epochs = []
            return None
        return self.next()

    def next(self) -> TrainState:
        """Return the next state that was trained."""
        self._current, self._was_answered = self._epochs.pop(0), False
        return self._current.state

    def answer(self, question: Question) -> tuple[Any, ...] | None:
        """Return what was scored already, by station; None: nobody has asked this of these weights."""
        asked, current = self.question, self._current
        if question.predictor is not None and not self._is_in_vain:
            self.question = question
        if asked is None or current is None or not current.scored:
            return None
        is_same = _described(asked) == _described(question) and question.is_about(current.state.params)
        self._was_answered |= is_same
        return current.scored if is_same else None


def _described(question: Question) -> tuple:
    """Return what two questions have in common that differ only in their weights."""
    function: Any = question.function
    parts = (function.func, function.args) if isinstance(function, partial) else (function, ())
    return (*parts, type(question.model), question.predictor is None)


def _continues(state: TrainState, before: TrainState) -> bool:
    """Return whether a training goes on with what an epoch has left."""
    return (
        state.params is before.params
        and state.slots is before.slots
        and (state.learning_rate, state.step) == (before.learning_rate, before.step)
    )


class OnHopsAhead(OnHops):
    """Trains by hops, and scores on the way; several epochs at once where they are short.

    Parameters
    ----------
    job, hopper, numbers, layout : see `OnHops`
    pace : see `Journey`
    priority : callable() -> tuple
        Of the journey that begins now.
    ahead : Ahead
    scored : sequence of int
        The stations that are scored.
    n_allowed : callable() -> int
        How many epochs may be trained now.
    """

    def __init__(
        self,
        job: TrainingJob,
        hopper: Hopper,
        numbers: Sequence[int],
        layout: dict[str, Any],
        pace: Any,
        priority: Callable[[], tuple],
        ahead: Ahead,
        scored: Sequence[int],
        n_allowed: Callable[[], int],
    ):
        super().__init__(job, hopper, numbers, layout)
        self._pace, self._priority = pace, priority
        self._ahead, self._scored, self._n_allowed = ahead, list(scored), n_allowed

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        found = self._ahead.take(state)
        if found is not None:
            return found
        trip: _Trip = self._hopper.send(self._journey(state, self._n_epochs(state))).result()
        self._ahead.put(trip.epochs)
        return self._ahead.next()

    def _n_epochs(self, state: TrainState) -> int:
        """Return how many epochs to train at once."""
        pace = self._hopper.pace(self._pace)
        if pace is None:
            return 1
        nbytes = state.params.nbytes + state.slots.nbytes
        short = _SECONDS / max(pace * self.n_samples, 1e-9)
        return max(1, int(min(self._n_allowed(), short, _MOST_EPOCHS, _MOST_BYTES / max(nbytes, 1))))

    def _journey(self, state: TrainState, n_epochs: int) -> Journey:
        question, visits = self._ahead.question, []  # type: Question | None, list[tuple[int, Visit]]
        for number in range(n_epochs):
            of_epoch = journey_of(
                self.job, state.begin_epoch(state.epoch + number), self._hopper.stations, self._numbers
            )
            visits += [(station, partial(_train, visit)) for station, visit in of_epoch.visits]
            if question is not None:
                ask = partial(_score, question)
                visits += [(station, ask) for station in self._scored]
            station, last = visits[-1]
            visits[-1] = (station, partial(_end_epoch, last))
        nbytes = state.params.nbytes + state.slots.nbytes
        trip = _Trip(state, (), ())
        journey = Journey(visits, trip, nbytes, self._pace, self._priority(), may_stop=True)
        journey.spent = self._spent
        return journey


def _train(visit: Visit, trip: _Trip, station: Station) -> _Trip:
    return trip._replace(state=visit(trip.state, station))


def _score(question: Question, trip: _Trip, station: Station) -> _Trip:
    found = question.function(question.of(trip.state.params), station.block)
    return trip._replace(scored=(*trip.scored, found))


def _end_epoch(visit: Visit, trip: _Trip, station: Station) -> _Trip:
    trip = visit(trip, station)
    epoch = Epoch(trip.state, trip.scored)
    return _Trip(trip.state.begin_epoch(trip.state.epoch + 1), (), (*trip.epochs, epoch))
