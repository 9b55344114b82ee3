"""Training by hops: each network goes from station to station alone, in an order of its own.

An epoch of a network is what one machine does that reads the stations in this order. Networks exchange
nothing: the members of an ensemble, or the trials of a search, use the cluster side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import merge_tree
from dasknn.cluster.placement import Home
from dasknn.data.loading import Loaded
from dasknn.data.stations import MakeShard, Station, Stations
from dasknn.engine.schedule import Piece, Route
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.seeds import seed_of_fit
from dasknn.strategies import PredictionAveraging, Strategy, auto
from dasknn.training.hopping import Hopper, Journey
from dasknn.training.transport import LossAndGrad, OnWave, Transport, layout_of_loaded

_ALONE = PredictionAveraging()


def journey_of(job: TrainingJob, state: TrainState, stations: Stations, numbers: Sequence[int]) -> Journey:
    """Return the journey of a network through an epoch.

    Parameters
    ----------
    job : TrainingJob
        The order of stations, and of their rows, follows from its seed.
    state : TrainState
        Of one network, at the start of the epoch.
    stations : Stations
    numbers : sequence of int
        The stations to visit.
    """
    rows = {number: stations.n_rows(number) for number in numbers}
    (n_rows,) = job.rows_of_epoch([sum(rows.values())])
    pieces = Route(job, 0, rows, state.epoch).pieces(0, n_rows)
    visits = [(piece.shard, partial(_train, job, piece)) for piece in pieces]
    nbytes = state.params.nbytes + state.slots.nbytes
    return Journey(visits, state, nbytes, may_stop=True)


def _train(job: TrainingJob, piece: Piece, state: TrainState, station: Station) -> TrainState:
    assert station.shard is not None, "networks train on shards"
    return _ALONE.visit(job, state, state, station.shard, piece)


class OnHops(Transport):
    """What all trainings by hops share.

    Parameters
    ----------
    job : TrainingJob
    hopper : Hopper
    numbers : sequence of int
        The stations to train on.
    layout : dict
        What of the data the weights depend on.
    """

    name = auto.HOP

    def __init__(self, job: TrainingJob, hopper: Hopper, numbers: Sequence[int], layout: dict[str, Any]):
        self.job = job
        self._hopper, self._numbers, self._layout = hopper, list(numbers), layout
        self.n_samples = sum(hopper.stations.n_rows(number) for number in numbers)
        # Journeys add the seconds that they have taken, by worker.
        self._spent: dict[Home, float] = {}

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        raise NotImplementedError("networks that travel take steps; L-BFGS asks for all rows at once")

    def layout(self) -> dict[str, Any]:
        return self._layout

    def spent(self) -> dict[str, tuple[float, float]]:
        found = {str(home): (seconds, 0.0) for home, seconds in self._spent.items()}
        self._spent = {}
        return found


class MembersOnHops(OnHops):
    """Trains the members of an ensemble by hops; each sees all rows.

    Parameters
    ----------
    strategy : PredictionAveraging
    executor : Executor
    loaded : Loaded
        The rows.
    make_shard : callable
    """

    def __init__(
        self,
        job: TrainingJob,
        strategy: Strategy,
        executor: Executor,
        loaded: Loaded,
        make_shard: MakeShard,
    ):
        stations = Stations(executor)
        numbers = stations.add(loaded, make_shard, scored=False)
        stations.spread()
        stations.release_blocks()
        super().__init__(
            job, Hopper(executor, stations, job.replicas), numbers, layout_of(stations, numbers, loaded)
        )
        self._strategy, self._executor = strategy, executor
        # Each member sees all rows in the epoch.
        self.n_samples *= job.replicas
        self._layout |= {"members": job.replicas}

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        members = [self._strategy.share(state, member) for member in range(self.job.replicas)]
        jobs = [self._job_of(member) for member in range(self.job.replicas)]
        sent = [self._send(job, one, n) for n, (job, one) in enumerate(zip(jobs, members, strict=True))]
        before = self._hopper.bytes_moved
        self._executor.log.begin(state.epoch)
        self._hopper.run(lambda: all(result.done() for result in sent))
        found = [
            self._strategy.finish(self.job, one, result.result())
            for one, result in zip(members, sent, strict=True)
        ]
        total = merge_tree(self._strategy.merge, *found)
        state = self._strategy.apply(self.job, state, total)
        on_wave(state)
        return replace(state, bytes_sent=self._hopper.bytes_moved - before)

    def _send(self, job: TrainingJob, state: TrainState, member: int) -> Future:
        journey = journey_of(job, state, self._hopper.stations, self._numbers)
        journey.pace, journey.spent = member, self._spent
        return self._hopper.send(journey)

    def _job_of(self, member: int) -> TrainingJob:
        """Return the job of a member, whose random draws are its own."""
        return replace(self.job, seed=seed_of_fit(self.job.seed, member)) if member else self.job

    def events(self) -> list[dict[str, Any]]:
        return self._executor.log.take()

    def close(self) -> None:
        self._hopper.close()


def layout_of(stations: Stations, numbers: Sequence[int], loaded: Loaded) -> dict[str, Any]:
    """Return the layout of rows that networks visit."""
    rows = [stations.n_rows(number) for number in numbers]
    return {"trains": "by hops", "rows": sum(rows)} | layout_of_loaded(loaded, rows)
