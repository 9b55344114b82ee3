"""Where each replica works: spread evenly over the workers, with few moves when workers change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Home = str | None


def place(slots: Sequence[Home], replicas: int, before: Sequence[Home] = ()) -> list[Home]:
    """Return the home of each replica.

    Replicas that can stay stay. The others take what is left, neighbors on the same worker: neighbors are
    summed first, so a worker then has few sums to send to others.

    Parameters
    ----------
    slots : sequence of addresses
        One for each thread, the best ones first.
    replicas : int
    before : sequence of addresses
        The homes of the replicas until now.
    """
    left = _quotas(slots, replicas, Counter(before))
    homes: dict[int, Home] = {}
    for replica, home in enumerate(before):
        if left[home]:
            left[home] -= 1
            homes[replica] = home
    free = iter(sorted(left.elements(), key=str))
    return [homes[replica] if replica in homes else next(free) for replica in range(replicas)]


def _quotas(slots: Sequence[Home], replicas: int, held: Counter) -> Counter:
    """Return how many replicas each worker gets; if they cannot be equal, workers with more keep more."""
    threads: Counter = Counter()
    ranked = []
    for position, home in enumerate(slots):
        ranked.append((threads[home], -held[home], position, home))
        threads[home] += 1
    order = [home for *_, home in sorted(ranked, key=lambda slot: slot[:3])]
    return Counter(order[replica % len(order)] for replica in range(replicas))
