"""What workers spent the time of epochs on, from the history: whom the others waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

PARTS = ("compute", "communication", "waiting")
#: A worker that computes so many times as long as the median one is worth a word.
MUCH_SLOWER = 1.5

Workers = Mapping[str, Mapping[str, float]]


class Straggler(NamedTuple):
    """The slowest worker, and how many times as long as the median one it computes."""

    address: str
    factor: float


def total(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the seconds of each part over all entries of a history, by worker."""
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        for address, times in (entry.get("workers") or {}).items():
            own = found.setdefault(address, dict.fromkeys(PARTS, 0.0))
            for part in PARTS:
                own[part] += times.get(part) or 0.0
    return found


def shares(workers: Workers) -> dict[str, float]:
    """Return the share of each part in the time of all workers; empty if there is none."""
    sums = {part: sum(times.get(part) or 0.0 for times in workers.values()) for part in PARTS}
    whole = sum(sums.values())
    return {part: seconds / whole for part, seconds in sums.items()} if whole else {}


def straggler(workers: Workers) -> Straggler | None:
    """Return the worker that the others wait for, if it computes much longer than the median of them."""
    computing = {address: times.get("compute") or 0.0 for address, times in workers.items()}
    if len(computing) < 2:
        return None
    slowest = max(computing, key=computing.__getitem__)
    usual = median(seconds for address, seconds in computing.items() if address != slowest)
    if not usual or computing[slowest] < MUCH_SLOWER * usual:
        return None
    return Straggler(slowest, computing[slowest] / usual)
