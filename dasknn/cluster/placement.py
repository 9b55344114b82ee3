"""Where each replica works: evenly over the workers, and with as few moves as possible when those change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Home = str | None


def place(slots: Sequence[Home], replicas: int, before: Sequence[Home] = ()) -> list[Home]:
    """Return the home of each replica. slots: an address for each thread, best ones first.

    before: their homes until now. Whoever can stay there stays; others take what is left, neighbors on one
    worker: they are added up first, so a worker then has few sums to send to others.
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
    """Return how many replicas each worker gets; if that does not come out even, who has more keeps more."""
    threads: Counter = Counter()
    ranked = []
    for position, home in enumerate(slots):
        ranked.append((threads[home], -held[home], position, home))
        threads[home] += 1
    order = [home for *_, home in sorted(ranked, key=lambda slot: slot[:3])]
    return Counter(order[replica % len(order)] for replica in range(replicas))
