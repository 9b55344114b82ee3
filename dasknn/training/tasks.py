"""Rounds of tasks: each is a part of a graph, and the state goes from task to task.

A training is a value (the state), handed from wave to wave. A wave is a graph of some rounds:

    state ──┬── visit(shard 0) ── visit(shard 3) ── finish ──┐
            ├── visit(shard 1) ──────────────────── finish ──┼── merge ── apply ── state of the next round
            └── visit(shard 2) ── visit(shard 4) ── finish ──┘

Only the last state of a wave comes back to the driver, and nothing of the wave stays behind. Rounds that
follow one another inside a graph spare the way through the client, which is half the cost of a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import MERGE_WIDTH, Graph, merge_tree
from dasknn.data.shards import Shards
from dasknn.engine.schedule import Round
from dasknn.engine.state import Contribution, TrainingJob, TrainState
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.training.transport import LossAndGrad, OnWave, Transport, layout_of

# A state of more bytes goes to one worker first, not into the graph.
_INLINE_BYTES = 1_000_000
# A wave should last about this long: short enough to show progress, long enough to hide the client.
_WAVE_SECONDS = 1.0
_MOST_TASKS_IN_WAVE = 2_000


class OnTasks(Transport):
    """Trains by rounds of tasks."""

    name = auto.TASKS

    def __init__(self, job: TrainingJob, strategy: Strategy, tasks: Executor, shards: Shards):
        self.job = job
        self.n_samples = sum(sum(rows.values()) for rows in shards.rows_of_replicas())
        self._strategy = strategy
        self._tasks = tasks
        self._shards = shards
        #: Seconds of a round, in the fastest wave so far.
        self._pace: float | None = None
        tasks.start_clock()

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        sent = self._bytes_between_workers(state)
        rounds = self._strategy.rounds(self.job, self._shards.rows_of_replicas(), state.epoch)
        most = max(1, _MOST_TASKS_IN_WAVE // (self.job.replicas + 1))
        size = min(8, most)
        self._tasks.rebalance(self.job.replicas)
        while wave := list(islice(rounds, size)):
            begin = time.perf_counter()
            usual = None if self._pace is None else self._pace * len(wave)
            state = self._run_wave(add_rounds, self._strategy, self.job, state, wave, usual)
            on_wave(state)
            seconds = time.perf_counter() - begin
            self._pace = min(seconds / len(wave), self._pace or float("inf"))
            # How rounds are cut into waves changes no bit, so it may follow the clock.
            size = max(1, min(most, 4 * size, round(size * _WAVE_SECONDS / max(seconds, 1e-3))))
        return replace(state, bytes_sent=sent)

    def _run_wave(
        self,
        add: Callable[..., TaskRef],
        strategy: Strategy,
        job: TrainingJob,
        state: TrainState,
        wave: list[Round],
        usual: float | None = None,
    ) -> Any:
        """Return what `add` adds for a wave of rounds. usual: seconds that it takes, if that is known."""
        tasks, shards = self._tasks, self._shards

        def attempt(homes, ready):
            graph, scattered = Graph(), []
            shards.repair()
            held = shards.hold_for(wave, homes)
            try:
                # states: what each replica begins with, a reference into the graph or a held result
                states, scattered = self._states(graph, strategy, state, job.replicas)
                last = add(graph, strategy, job, states, wave, shards, held, homes)
                ready()
                with shards.named():
                    (result,) = tasks.run(graph, [last])
                # Dask makes good by itself what a worker takes with it: who was lost in the meantime?
                tasks.homes(job.replicas)
            finally:
                tasks.drop(scattered)
            return result

        return tasks.retry(job.replicas, state.epoch, attempt, usual)

    def _states(self, graph: Graph, strategy: Strategy, state: TrainState, replicas: int):
        """Return (the whole state and what each replica sees of it, what to drop afterwards)."""
        shares = [strategy.share(state, replica) for replica in range(replicas)]
        whole_is_shared = all(share is state for share in shares)
        values = [state] if whole_is_shared else [state, *shares]
        if state.params.nbytes + state.slots.nbytes > _INLINE_BYTES:
            nodes = scattered = self._tasks.put(values, [None] * len(values))
        else:
            nodes, scattered = [graph.add_value("dasknn-state", value) for value in values], []
        if whole_is_shared:
            nodes = nodes * (replicas + 1)
        return nodes, scattered

    def layout(self) -> dict[str, Any]:
        return layout_of(self._strategy, self._shards)

    def events(self) -> list[dict[str, Any]]:
        return self._tasks.log.take()

    def spent(self) -> dict[str, tuple[float, float]]:
        return self._tasks.spent()

    def _bytes_between_workers(self, state: TrainState) -> int:
        """Return the bytes that tasks hand to tasks on other workers in an epoch, each at its home."""
        homes = self._tasks.homes(self.job.replicas)
        away = [replica for replica, home in enumerate(homes) if home != homes[0]]
        rows = [sum(own.values()) for own in self._shards.rows_of_replicas()]
        n_rounds = self._strategy.schedule(self.job, rows).n_rounds
        # Where a batch has fewer rows than there are replicas, some bring nothing to a round.
        n_sent = sum(min(n_rounds, rows[replica]) for replica in away)
        up = n_sent * self._strategy.contribution_length(self.job) * state.params.itemsize
        down = {homes[replica]: self._strategy.share(state, replica) for replica in away}
        return up + n_rounds * sum(share.params.nbytes + share.slots.nbytes for share in down.values())

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        # One round of all rows, as they lie.
        job = replace(self.job, batch_size=None, shuffle=False)
        strategy = GradientAveraging()
        self._tasks.rebalance(job.replicas)
        wave = [next(iter(strategy.rounds(job, self._shards.rows_of_replicas(), state.epoch)))]
        total: Contribution = self._run_wave(add_total, strategy, job, state, wave)
        return total.loss_sum / total.weight_sum, total.vector, total.weight_sum


def add_rounds(graph: Graph, strategy, job, states, wave, shards, held, homes) -> TaskRef:
    """Add the rounds of a wave, one after the other; return a reference to the state after the last.

    states[0] is the whole state, states[1 + r] what replica r sees of it.
    """
    apply = partial(_apply, strategy, job)
    whole, seen = states[0], states[1:]
    references: dict[int, Any] = dict(held)
    for pieces_of_replicas in wave:
        contributions = _add_round(graph, strategy, job, seen, pieces_of_replicas, shards, references, homes)
        whole = graph.add("dasknn-apply", apply, whole, *contributions, home=homes[0])
        seen = [whole] * job.replicas
    return whole


def add_total(graph: Graph, strategy, job, states, wave, shards, held, homes) -> TaskRef:
    """Add the one round of a wave; return a reference to its merged contributions, which are not applied."""
    contributions = _add_round(graph, strategy, job, states[1:], wave[0], shards, dict(held), homes)
    merge = partial(merge_tree, strategy.merge)
    return graph.add("dasknn-merge", merge, *contributions, home=homes[0])


def _add_round(graph: Graph, strategy, job, seen, pieces_of_replicas, shards, references, homes) -> list:
    """Add a round; return references to at most MERGE_WIDTH contributions."""
    visit, finish = partial(strategy.visit, job), partial(strategy.finish, job)
    merge = partial(merge_tree, strategy.merge)
    contributions = []
    for replica, pieces in enumerate(pieces_of_replicas):
        carry, home = None, homes[replica]
        for piece in pieces:
            if piece.shard not in references:
                references[piece.shard] = shards.add_to(graph, piece.shard, home)
            last = finish if piece is pieces[-1] else None
            carry = graph.add(
                strategy.task_name,
                partial(_visit, visit, last),
                *(seen[replica], carry, references[piece.shard], piece),
                home=home,
            )
        if carry is not None:
            contributions.append(carry)
    return graph.add_tree(merge, contributions, most=MERGE_WIDTH)


def _visit(visit, finish, state, carry, shard, piece):
    carry = visit(state, carry, shard, piece)
    return carry if finish is None else finish(state, carry)


def _apply(strategy, job, state, *contributions):
    return strategy.apply(job, state, merge_tree(strategy.merge, *contributions))
