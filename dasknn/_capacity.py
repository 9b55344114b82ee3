"""How many replicas can work at the same time: strategies ask, and the package lets the cluster answer.

Strategies import no cluster, so `dasknn/__init__.py`, which knows both, registers what counts.
"""

from __future__ import annotations

from collections.abc import Callable

_counters: list[Callable[[], int]] = []


def register(counter: Callable[[], int]) -> None:
    """Set the function that counts the threads of the current cluster, or else the processors."""
    _counters[:] = [counter]


def count() -> int:
    """Return how many replicas can work at the same time."""
    (counter,) = _counters
    return counter()
