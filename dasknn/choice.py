"""Which strategy, which transport: rules that follow from sizes alone, with their reasons in words.

Nothing here is measured while training, so that the same data and settings give the same choice, and so the
same bits, everywhere. `recommend` measures a cluster and shows what the rules stand on.
"""

from __future__ import annotations

from typing import NamedTuple

from dasknn.network import Network
from dasknn.strategies import GradientAveraging, OuterNesterov, PredictionAveraging, Strategy, WeightAveraging

PEER, TASKS, PROCESS = "peer", "tasks", "process"

# What the rules take for granted of a worker and of the network between workers; deliberately modest.
OPERATIONS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e9
PEER_ROUND_SECONDS = 1e-4
TASK_ROUND_SECONDS = 15e-3
# What an exchange may take on top of computing before it is too much.
_SHORT_SECONDS = 1e-3
# Rounds that last so long hide what a round of tasks costs.
_LONG_ROUND_SECONDS = 0.1
_LINEAR_FOR_ADAM = 8
# Steps between averages of weights, and how many averages an epoch should have.
_EVERY = 16
_LEAST_ROUNDS = 4


class Sizes(NamedTuple):
    """What the rules look at. batch_size counts rows of a step over all replicas; None stands for all."""

    network: Network
    n_rows: int
    replicas: int
    batch_size: int | None

    @property
    def rows_of_step(self) -> float:
        """Rows of one step of one replica."""
        return min(self.batch_size or self.n_rows, self.n_rows) / self.replicas

    @property
    def step_seconds(self) -> float:
        """Time that one replica computes for a step of averaged gradients."""
        return 6 * self.network.n_weights * self.rows_of_step / OPERATIONS_PER_SECOND

    @property
    def vector_bytes(self) -> int:
        """Bytes of a gradient."""
        return self.network.n_params * (4 if self.network.dtype == "float32" else 8)

    @property
    def n_steps(self) -> int:
        """Steps of an epoch of averaged gradients."""
        return -(-self.n_rows // min(self.batch_size or self.n_rows, self.n_rows))


def exchange_seconds(sizes: Sizes) -> float:
    """Return how long an all-reduce of one gradient takes between workers."""
    share = 2 * (sizes.replicas - 1) / sizes.replicas
    return PEER_ROUND_SECONDS + share * sizes.vector_bytes / BYTES_PER_SECOND


def round_seconds(strategy: Strategy, sizes: Sizes) -> float:
    """Return how long replicas compute between two exchanges."""
    if isinstance(strategy, GradientAveraging):
        return sizes.step_seconds
    every = strategy.every if isinstance(strategy, WeightAveraging) else "epoch"
    return sizes.step_seconds * (sizes.n_steps if isinstance(every, str) else min(every, sizes.n_steps))


def choose_transport(strategy: Strategy, sizes: Sizes) -> str:
    """Return PEER for short rounds, TASKS for long ones and where replicas exchange nothing."""
    if isinstance(strategy, PredictionAveraging):
        return TASKS
    if strategy.remembers or sizes.network.is_synchronized:
        return PEER
    return PEER if round_seconds(strategy, sizes) < _LONG_ROUND_SECONDS else TASKS


def choose_strategy(sizes: Sizes, transport: str, solver: str = "adam") -> tuple[Strategy, str]:
    """Return a strategy, and why. transport: what it will run on, PEER or TASKS.

    Averaging weights every 16 steps, with an outer Nesterov step, learned more in an epoch than averaged
    gradients did on Covertype (2, 4 and 8 replicas) and Fashion-MNIST (2 and 4), as much on Adult, and
    exchanges less. With fewer than some 60 steps in an epoch there was no difference. Measured with Adam.
    """
    gradients = GradientAveraging()
    if sizes.replicas == 1:
        return gradients, "gradients: there is one replica, so nothing to average"
    if sizes.batch_size is None:
        return gradients, "gradients: a step takes all rows, so there is one exchange an epoch"
    compute = sizes.step_seconds
    said = f"{sizes.rows_of_step:.0f} rows a replica compute for about {_ms(compute)}"
    every = _EVERY
    if transport == TASKS:
        said += f", and a round of tasks costs {_ms(TASK_ROUND_SECONDS)}"
        if compute >= _LONG_ROUND_SECONDS:
            return gradients, f"gradients: {said}"
        every = min(sizes.n_steps, max(_EVERY, round(_LONG_ROUND_SECONDS / compute)))
    else:
        exchange = exchange_seconds(sizes)
        said += f", and exchanging {sizes.vector_bytes / 1e6:.2g} MB takes {_ms(exchange)}"
        is_cheap = exchange <= compute + _SHORT_SECONDS
        if is_cheap and solver != "adam":
            return gradients, f"gradients: {said}"
        if is_cheap and sizes.n_steps < _EVERY * _LEAST_ROUNDS:
            return gradients, f"gradients: {said}; an epoch has only {sizes.n_steps} steps"
    return WeightAveraging(every, OuterNesterov()), f"weights every {every} steps: {said}"


def rate_factor(solver: str, replicas: float) -> float:
    """Return by how much to multiply the learning rate when so many replicas share a step.

    Linear, as Goyal et al. (2017) found for SGD. For Adam the square root is often recommended; measured on
    Covertype, Fashion-MNIST and Adult with 2, 4 and 8 replicas it cost up to 1.8 points of accuracy after
    six epochs, and a linear rate none, so Adam takes the root only beyond 8.
    """
    if solver == "adam" and replicas > _LINEAR_FOR_ADAM:
        return _LINEAR_FOR_ADAM * (replicas / _LINEAR_FOR_ADAM) ** 0.5
    return max(1.0, replicas)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2g} ms"
