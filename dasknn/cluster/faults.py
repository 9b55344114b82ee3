"""What happens to the cluster in the course of a fit: told at once, counted, and kept for the history.

A fault is what cost work: an attempt that failed, a worker that was lost with replicas on it. Workers that
join, or leave as they were told to, are changes; they are kept, too, and do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from dasknn.exceptions import WorkerLeftError

logger = logging.getLogger("dasknn")

LOST, SILENT, RETIRED, JOINED = "worker lost", "worker silent", "worker retired", "worker joined"
#: Something failed, and no worker is missing.
FAILED = "attempt failed"
# Seconds before the second attempt after the first that failed, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0


def pause_before(n_failed: int) -> float:
    """Return the seconds to wait before another attempt, when so many had failed before the last one."""
    return min(_FIRST_PAUSE * 2 ** (n_failed - 1), _LONGEST_PAUSE) if n_failed else 0.0


@dataclass(frozen=True)
class Event:
    """What happened, to which worker (its address), and which replicas moved where because of it.

    time: UTC, ISO 8601. epoch counts from 1. seconds: what it cost, from the beginning of what was lost until
    work went on. error: the exception by which it was noticed, if there was one.
    """

    what: str
    worker: str | None = None
    replicas: tuple[int, ...] = ()
    moved_to: tuple[str | None, ...] = ()
    epoch: int = 0
    time: str = ""
    seconds: float = 0.0
    error: str = ""

    def __str__(self):
        text = f"{self.time} epoch {self.epoch}: {self.what}"
        if self.worker is not None:
            text += f" {self.worker}"
        if self.replicas:
            replicas = ", ".join(map(str, self.replicas))
            go = f"replica {replicas} goes" if len(self.replicas) == 1 else f"replicas {replicas} go"
            text += f"; {go} on at {', '.join(sorted(set(map(str, self.moved_to))))}"
        text += f"; {self.seconds:.1f} s"
        return f"{text} ({self.error})" if self.error else text

    @property
    def is_fault(self) -> bool:
        """Whether it counts."""
        return self.what == FAILED or (self.what in (LOST, SILENT) and bool(self.replicas))


def changes(
    before: Sequence[str | None],
    after: Sequence[str | None],
    gone: Iterable[Event],
    joined: Iterable[str | None],
) -> list[Event]:
    """Return events of workers that are gone, and of those that joined, with the replicas that they move.

    before, after: homes of the replicas.
    """
    moves = [(replica, *homes) for replica, homes in enumerate(zip(before, after, strict=True))]
    found = []
    for event in gone:
        own = [(replica, to) for replica, home, to in moves if home == event.worker]
        found.append(_moving(event, own))
    for worker in joined:
        own = [(replica, to) for replica, home, to in moves if to == worker != home]
        found.append(_moving(Event(JOINED, worker), own))
    return found


def _moving(event: Event, moves: list[tuple[int, str | None]]) -> Event:
    return replace(event, replicas=tuple(r for r, _ in moves), moved_to=tuple(to for _, to in moves))


class FaultLog:
    """The events of one fit. max_faults: after so many faults the next one ends it."""

    def __init__(self, max_faults: int):
        self.max_faults = max_faults
        self.events: list[Event] = []
        self.n_faults = 0
        self._failed: list[BaseException] = []
        self._n_counted = 0
        self._n_taken = 0

    def failed(self, epoch: int | None, error: BaseException, counts: bool = True) -> None:
        """Take down that an attempt has failed. Raises the error, with the story, if it is one too many.

        epoch: the one that was begun last, None before the first. A task that has ended several workers, one
        after the other, is as many faults: it would end all of a cluster.
        """
        self._failed.append(error)
        logger.warning(
            "%s lost (%s), and is computed again from the same state.",
            "A part was" if epoch is None else f"Epoch {epoch + 1}: a part was",
            _told(error),
        )
        if counts:
            self._n_counted += 1
            self._count(epoch, error, getattr(error, "allowed_failures", 0) + 1)

    def recovered(self, epoch: int, seconds: float, found: list[Event]) -> None:
        """Take down what has happened since the last time, now that work goes on.

        seconds: what all of it cost. However many workers were lost meanwhile (a machine, a rack), they are
        one fault, or none if an attempt that failed has been counted for them. Raises WorkerLeftError if that
        makes too many faults.
        """
        failed, self._failed = self._failed, []
        was_counted, self._n_counted = self._n_counted > 0, 0
        if failed and all(event.what == JOINED for event in found):
            found = [Event(FAILED), *found]
        # A worker that joins costs nothing by itself, unless nothing else has happened.
        costly = [event for event in found if event.what != JOINED] or found
        each = round(seconds / max(len(costly), 1), 3)
        errors = "; ".join(dict.fromkeys(map(_told, failed)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for event in found:
            if event in costly:
                event = replace(event, seconds=each, error=errors)
            event = replace(event, epoch=epoch + 1, time=now)
            self.events.append(event)
            logger.warning("%s", event)
        gone = [str(event.worker) for event in found if event.is_fault]
        if gone and not was_counted:
            self._count(epoch, WorkerLeftError(f"The cluster has lost {', '.join(gone)}."))

    def _count(self, epoch: int | None, error: BaseException, n: int = 1) -> None:
        self.n_faults += n
        if self.n_faults > self.max_faults:
            story = "".join(f"\n  {event}" for event in self.events) or " attempts of this part alone."
            error.add_note(
                f"This was fault {self.n_faults} of this fit, "
                f"{'before its first epoch' if epoch is None else f'in epoch {epoch + 1}'}, which may have "
                f"max_faults={self.max_faults}. Before it:{story}\n"
                "Look into the logs of the workers for why they die, or allow more: fit(..., max_faults=...)."
            )
            raise error

    def take(self) -> list[dict]:
        """Return the events since the last call, as dicts."""
        new = self.events[self._n_taken :]
        self._n_taken = len(self.events)
        return [_as_dict(event) for event in new]


def _as_dict(event: Event) -> dict:
    # As JSON has it: checkpoints keep the history.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(event).items()}


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
