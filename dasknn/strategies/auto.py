"""Rules that choose strategy, transport, batch size and replicas from sizes alone, with a reason in words.

Nothing is measured during training, so that the same data and settings give the same choice, and so the same
bits, everywhere. `recommend` measures a cluster, and shows the numbers that the rules assume.
"""

from __future__ import annotations

from typing import NamedTuple

from dasknn.engine.network import Network
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, WeightAveraging
from dasknn.strategies.learner import OPERATIONS_PER_SECOND

PEER, TASKS, PROCESS, HOP = "peer", "tasks", "process", "hop"

# What the rules assume about the network between workers; deliberately modest.
BYTES_PER_SECOND = 1e9
PEER_ROUND_SECONDS = 1e-4
TASK_ROUND_SECONDS = 15e-3
# How much longer than computing an exchange may take before the reason mentions it.
_SHORT_SECONDS = 1e-3
# In rounds that last this long, the cost of a round of tasks does not matter.
_LONG_ROUND_SECONDS = 0.1
#: Rows of a step with batch_size="auto", unless a rule makes it larger.
AUTO_BATCH = 200
# Where replicas share each step, it becomes larger only if an epoch still has this many steps.
_STEPS_OF_LARGE_EPOCH = 250
# The default number of replicas leaves each at least this many rows of a step, or steps of its own.
_LEAST_ROWS_OF_STEP = 32
_LEAST_STEPS_APART = 10


class Sizes(NamedTuple):
    """The sizes that the rules use.

    Attributes
    ----------
    network : Network
    n_rows : int
    replicas : int
    batch_size : int or None
        Rows of a step over all replicas; None for all rows.
    """

    network: Network
    n_rows: int
    replicas: int
    batch_size: int | None

    @property
    def rows_of_step(self) -> float:
        """Rows of one replica in one step."""
        return min(self.batch_size or self.n_rows, self.n_rows) / self.replicas

    @property
    def step_seconds(self) -> float:
        """Seconds that one replica computes in a step of averaged gradients."""
        return 6 * self.network.n_multiplications * self.rows_of_step / OPERATIONS_PER_SECOND

    @property
    def vector_bytes(self) -> int:
        """Bytes of one gradient."""
        return self.network.n_params * (4 if self.network.dtype == "float32" else 8)

    @property
    def n_steps(self) -> int:
        """Steps in an epoch of averaged gradients."""
        return -(-self.n_rows // min(self.batch_size or self.n_rows, self.n_rows))


def exchange_seconds(sizes: Sizes) -> float:
    """Return how many seconds an all-reduce of one gradient takes between workers."""
    share = 2 * (sizes.replicas - 1) / sizes.replicas
    return PEER_ROUND_SECONDS + share * sizes.vector_bytes / BYTES_PER_SECOND


def round_seconds(strategy: Strategy, sizes: Sizes) -> float:
    """Return how many seconds replicas compute between two exchanges."""
    if isinstance(strategy, GradientAveraging):
        return sizes.step_seconds
    every = strategy.every if isinstance(strategy, WeightAveraging) else "epoch"
    return sizes.step_seconds * (sizes.n_steps if isinstance(every, str) else min(every, sizes.n_steps))


def choose_transport(strategy: Strategy, sizes: Sizes) -> str:
    """Return PEER for short rounds, TASKS for long ones or where replicas exchange nothing, or HOP."""
    if strategy.sees_all_rows:
        return HOP
    if isinstance(strategy, PredictionAveraging):
        return TASKS
    if strategy.remembers or sizes.network.is_synchronized:
        return PEER
    return PEER if round_seconds(strategy, sizes) < _LONG_ROUND_SECONDS else TASKS


def choose_strategy(sizes: Sizes, transport: str) -> tuple[Strategy, str]:
    """Return the strategy that strategy="auto" means, and the reason.

    It is always averaged gradients: they learn what one machine learns with the same batch. Strategies that
    exchange less learn other networks, on some tables worse ones (`benchmarks/bench_convergence.py`), so they
    have to be requested.

    transport: PEER or TASKS, on which it will run.
    """
    gradients = GradientAveraging()
    if sizes.replicas == 1:
        return gradients, "gradients: there is one replica, so nothing to average"
    if sizes.batch_size is None:
        return gradients, "gradients: a step takes all rows, so there is one exchange an epoch"
    compute = sizes.step_seconds
    exchange = TASK_ROUND_SECONDS if transport == TASKS else exchange_seconds(sizes)
    said = (
        f"gradients: they learn what one machine would; {sizes.rows_of_step:.0f} rows a replica compute for "
        f"about {_ms(compute)}, and exchanging {sizes.vector_bytes / 1e6:.2g} MB takes {_ms(exchange)}"
    )
    if exchange > compute + _SHORT_SECONDS:
        said += (
            ". WeightAveraging(every=16, outer=OuterNesterov()) exchanges less, and may reach a lower score"
        )
    return gradients, said


def auto_batch_size(strategy: Strategy, n_rows: int, replicas: int) -> int:
    """Return the rows of a step over all replicas that batch_size="auto" means.

    Replicas that share each step take as many rows as one process does, so that they learn the same. Trained
    to the end, larger steps lost up to 0.8 points of R^2 on California housing, whose epochs are short
    (`benchmarks/bench_convergence.py`), so steps are larger only in long epochs. Replicas that take steps of
    their own have a whole batch each.
    """
    in_step = strategy.replicas_in_step(replicas)
    if not strategy.steps_apart:
        in_step = max(1, min(in_step, n_rows // (AUTO_BATCH * _STEPS_OF_LARGE_EPOCH)))
    return min(AUTO_BATCH * in_step, n_rows)


def default_replicas(strategy: Strategy, n_slots: int, n_rows: int, batch_size: int | str | None) -> int:
    """Return how many replicas train by default: one per slot, while each has enough rows.

    batch_size: rows of a step over all replicas, None for all rows, or "auto".
    """
    if batch_size == "auto" and strategy.steps_apart:
        useful = n_rows // (AUTO_BATCH * _LEAST_STEPS_APART)
    else:
        rows = auto_batch_size(strategy, n_rows, n_slots) if isinstance(batch_size, str) else batch_size
        useful = min(rows or n_rows, n_rows) // _LEAST_ROWS_OF_STEP
    return max(1, min(n_slots, useful))


def rate_factor(solver: str, replicas: float) -> float:
    """Return the factor of the learning rate when this many replicas share a step.

    It is linear for SGD (Goyal et al. 2017), and the square root for Adam (Malladi et al. 2022, arXiv
    2205.10287). With a linear factor, Adam learns faster in the first epochs and overfits sooner: trained to
    the end on Adult with 2, 4 and 8 replicas and one seed, it lost 0.5 to 1.3 points to one process, where
    the square root, with three seeds, lost none (`benchmarks/bench_convergence.py`).
    """
    return max(1.0, replicas**0.5 if solver == "adam" else replicas)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2g} ms"
