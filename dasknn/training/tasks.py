"""Training by tasks: each round is part of a graph, in which the state goes from task to task.

A wave is a graph of some rounds:

    state ──┬── visit(shard 0) ── visit(shard 3) ── finish ──┐
            ├── visit(shard 1) ──────────────────── finish ──┼── merge ── apply ── state of the next round
            └── visit(shard 2) ── visit(shard 4) ── finish ──┘

Only the last state of a wave returns to the driver, and no result of the wave stays on workers. Several
rounds in one graph save the way through the client, which is half the cost of a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import MERGE_WIDTH, Graph, merge_tree
from dasknn.cluster.placement import Home
from dasknn.data.shards import Shards
from dasknn.engine.schedule import Piece, Round
from dasknn.engine.state import Contribution, Shard, TrainingJob, TrainState
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.strategies.strategy import BY_SPEED
from dasknn.training.balance import Balance
from dasknn.training.transport import LossAndGrad, OnWave, Transport, layout_of

# A state of more bytes is sent to one worker first, instead of with the graph.
_INLINE_BYTES = 1_000_000
# About how long a wave should last: short enough to show progress, long enough to hide the client's part.
_WAVE_SECONDS = 1.0
_MOST_TASKS_IN_WAVE = 2_000

AddShard = Callable[[Graph, int, Home], Any]


class OnTasks(Transport):
    """Trains by tasks, on any scheduler."""

    name = auto.TASKS

    def __init__(self, job: TrainingJob, strategy: Strategy, executor: Executor, shards: Shards):
        self.job = job
        self.n_samples = sum(sum(rows.values()) for rows in shards.rows_of_replicas())
        self._strategy = strategy
        self._executor = executor
        self._shards = shards
        # Seconds of a round in the fastest wave so far.
        self._pace: float | None = None
        self._balance = Balance(shards) if strategy.balance == BY_SPEED else None
        executor.start_clock()

    def epoch(self, state: TrainState, on_wave: OnWave) -> TrainState:
        if self._balance is not None:
            self._balance.deal_again(self._executor.homes(self.job.replicas))
        rows = [sum(own.values()) for own in self._shards.rows_of_replicas()]
        homes = self._executor.homes(self.job.replicas)
        sent = bytes_between_workers(self._strategy, self.job, state, rows, homes)
        rounds = self._strategy.rounds(self.job, self._shards.rows_of_replicas(), state.epoch)
        most = max(1, _MOST_TASKS_IN_WAVE // (self.job.replicas + 1))
        size = min(8, most)
        self._executor.rebalance(self.job.replicas)
        while wave := list(islice(rounds, size)):
            begin = time.perf_counter()
            usual = None if self._pace is None else self._pace * len(wave)
            state = self._run_wave(add_rounds, self._strategy, self.job, state, wave, usual)
            on_wave(state)
            seconds = time.perf_counter() - begin
            self._pace = min(seconds / len(wave), self._pace or float("inf"))
            # The size of waves may depend on the clock, since it does not change the weights.
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
        """Return the result of the task that `add` adds to a graph for a wave of rounds.

        usual: seconds that the wave takes without faults, if known.
        """
        executor, shards = self._executor, self._shards

        def attempt(homes: list[Home], ready: Callable[[], None]) -> Any:
            graph = Graph()
            scattered: list[Any] = []
            shards.repair()
            held = shards.hold_for(wave, homes)
            try:
                # states: of the training and of each replica, references into the graph or held results
                states, scattered = self._states(graph, strategy, state, job.replicas)
                last = add(graph, strategy, job, states, wave, shards.add_to, held, homes)
                ready()
                with shards.named():
                    (result,) = executor.run(graph, [last])
                # Dask itself has recomputed what a lost worker held; this notices which workers were lost.
                executor.homes(job.replicas)
            finally:
                executor.drop(scattered)
            return result

        return executor.retry(job.replicas, state.epoch, attempt, usual)

    def _states(
        self, graph: Graph, strategy: Strategy, state: TrainState, replicas: int
    ) -> tuple[list[Any], list[Any]]:
        """Return (the whole state and the part that each replica needs, held results to drop afterwards)."""
        shares = [strategy.share(state, replica) for replica in range(replicas)]
        whole_is_shared = all(share is state for share in shares)
        values = [state] if whole_is_shared else [state, *shares]
        if state.params.nbytes + state.slots.nbytes > _INLINE_BYTES:
            nodes = scattered = self._executor.put(values, [None] * len(values))
        else:
            nodes, scattered = [graph.add_value("dasknn-state", value) for value in values], []
        if whole_is_shared:
            nodes = nodes * (replicas + 1)
        return nodes, scattered

    def layout(self) -> dict[str, Any]:
        return layout_of(self._strategy, self._shards)

    def events(self) -> list[dict[str, Any]]:
        return self._executor.log.take()

    def spent(self) -> dict[str, tuple[float, float]]:
        spent = self._executor.spent()
        if self._balance is not None:
            self._balance.note(spent)
        return spent

    def loss_and_grad(self, state: TrainState) -> LossAndGrad:
        # One round of all rows, in their order.
        job = replace(self.job, batch_size=None, shuffle=False)
        strategy = GradientAveraging()
        self._executor.rebalance(job.replicas)
        wave = [next(iter(strategy.rounds(job, self._shards.rows_of_replicas(), state.epoch)))]
        total: Contribution = self._run_wave(add_total, strategy, job, state, wave)
        return total.loss_sum / total.weight_sum, total.vector, total.weight_sum


def bytes_between_workers(
    strategy: Strategy, job: TrainingJob, state: TrainState, rows: Sequence[int], homes: Sequence[Home]
) -> int:
    """Return the bytes that tasks send to other workers in an epoch, if each runs at its home.

    rows, homes: the number of rows and the worker of each replica.
    """
    away = [replica for replica, home in enumerate(homes) if home != homes[0]]
    n_rounds = strategy.schedule(job, list(rows)).n_rounds
    # If a batch has fewer rows than there are replicas, some replicas contribute nothing to a round.
    n_sent = sum(min(n_rounds, rows[replica]) for replica in away)
    up = n_sent * strategy.contribution_length(job) * state.params.itemsize
    down = {homes[replica]: strategy.share(state, replica) for replica in away}
    return up + n_rounds * sum(share.params.nbytes + share.slots.nbytes for share in down.values())


def add_rounds(
    graph: Graph,
    strategy: Strategy,
    job: TrainingJob,
    states: Sequence[Any],
    wave: Sequence[Round],
    add_shard: AddShard,
    held: Mapping[int, Any],
    homes: Sequence[Home],
) -> TaskRef:
    """Add the rounds of a wave, one after the other; return a reference to the state after the last.

    states[0]: the whole state; states[1 + r]: the part that replica r needs. held: shards in memory; others
    are added by add_shard(graph, number, home).
    """
    apply = partial(_apply, strategy, job)
    whole, seen = states[0], states[1:]
    references: dict[int, Any] = dict(held)
    for pieces_of_replicas in wave:
        contributions = _add_round(
            graph, strategy, job, seen, pieces_of_replicas, add_shard, references, homes
        )
        whole = graph.add("dasknn-apply", apply, whole, *contributions, home=homes[0])
        seen = [whole] * job.replicas
    return whole


def add_total(
    graph: Graph,
    strategy: Strategy,
    job: TrainingJob,
    states: Sequence[Any],
    wave: Sequence[Round],
    add_shard: AddShard,
    held: Mapping[int, Any],
    homes: Sequence[Home],
) -> TaskRef:
    """Add the one round of a wave; return a reference to its merged contributions, which are not applied."""
    contributions = _add_round(graph, strategy, job, states[1:], wave[0], add_shard, dict(held), homes)
    merge = partial(merge_tree, strategy.merge)
    return graph.add("dasknn-merge", merge, *contributions, home=homes[0])


def _add_round(
    graph: Graph,
    strategy: Strategy,
    job: TrainingJob,
    seen: Sequence[Any],
    pieces_of_replicas: Round,
    add_shard: AddShard,
    references: dict[int, Any],
    homes: Sequence[Home],
) -> list[TaskRef]:
    """Add a round; return references to at most MERGE_WIDTH contributions.

    seen: the state of each replica. references: to shards; those that the round adds are put in.
    """
    visit, finish = partial(strategy.visit, job), partial(strategy.finish, job)
    merge = partial(merge_tree, strategy.merge)
    contributions = []
    for replica, pieces in enumerate(pieces_of_replicas):
        carry, home = None, homes[replica]
        for piece in pieces:
            if piece.shard not in references:
                references[piece.shard] = add_shard(graph, piece.shard, home)
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


def _visit(
    visit: Callable[..., Any],
    finish: Callable[..., Contribution] | None,
    state: TrainState,
    carry: Any,
    shard: Shard,
    piece: Piece,
) -> Any:
    carry = visit(state, carry, shard, piece)
    return carry if finish is None else finish(state, carry)


def _apply(
    strategy: Strategy, job: TrainingJob, state: TrainState, *contributions: Contribution
) -> TrainState:
    return strategy.apply(job, state, merge_tree(strategy.merge, *contributions))
