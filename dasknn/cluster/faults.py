"""What happens to the cluster during a fit: logged at once, counted, and kept for the history.

A fault is what cost work: a failed attempt, or a lost worker that had replicas. Workers that join, or retire
as they were told to, are changes; they are recorded too, and do not count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dasknn.exceptions import WorkerLeftError

logger = logging.getLogger("dasknn")

LOST, SILENT, RETIRED, JOINED = "worker lost", "worker silent", "worker retired", "worker joined"
#: An attempt failed, and no worker is missing.
FAILED = "attempt failed"
# A lost worker may be on the scheduler's list for as long as a broken connection is (Dask's
# `distributed.comm.timeouts.tcp`); who tries to reach it meets the same fault again.
_SAME_FAULT_SECONDS = 30.0
# Seconds before the second attempt after the first that failed, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0


def pause_before(n_failed: int) -> float:
    """Return the seconds to wait before another attempt, when `n_failed` had failed before the last one."""
    return min(_FIRST_PAUSE * 2 ** (n_failed - 1), _LONGEST_PAUSE) if n_failed else 0.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a worker, and the replicas that moved because of it.

    Attributes
    ----------
    what : str
        One of LOST, SILENT, RETIRED, JOINED, FAILED.
    worker : str or None
        Address of the worker.
    replicas, moved_to : tuple
        Numbers of the replicas that moved, and the address where each works now.
    epoch : int
        The epoch in which work resumed, from 1; 0 in a search, whose networks have epochs of their own.
    time : str
        UTC, ISO 8601.
    seconds : float
        The time that was lost: from the start of the lost part until work resumed.
    error : str
        The exception that revealed it, if there was one.
    """

    what: str
    worker: str | None = None
    replicas: tuple[int, ...] = ()
    moved_to: tuple[str | None, ...] = ()
    epoch: int = 0
    time: str = ""
    seconds: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        text = f"{self.time} epoch {self.epoch}: {self.what}" if self.epoch else f"{self.time} {self.what}"
        if self.worker is not None:
            text += f" {self.worker}"
        # The networks of a search go where there is room.
        if self.replicas and self.epoch:
            replicas = ", ".join(map(str, self.replicas))
            move = f"replica {replicas} moves" if len(self.replicas) == 1 else f"replicas {replicas} move"
            text += f"; {move} to {', '.join(sorted(set(map(str, self.moved_to))))}"
        text += f"; {self.seconds:.1f} s"
        return f"{text} ({self.error})" if self.error else text

    @property
    def is_fault(self) -> bool:
        """Whether it counts as a fault."""
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
    """The events of one fit.

    max_faults: how many faults are allowed; the next one is raised.
    """

    def __init__(self, max_faults: int):
        self.max_faults = max_faults
        self.events: list[Event] = []
        self.n_faults = 0
        self._epoch, self._stage = 0, "before its first epoch"
        self._failed: list[BaseException] = []
        self._last: BaseException | None = None
        # How many attempts have counted since work resumed, and when the last of them failed.
        self._n_counted, self._counted_at = 0, 0.0
        self._n_taken = 0

    def begin(self, epoch: int | None) -> None:
        """Note that an epoch begins, from 0. None: many networks do, each with epochs of its own."""
        self._epoch = 0 if epoch is None else epoch + 1
        self._stage = f"in epoch {self._epoch}" if self._epoch else "while its networks were trained"

    def failed(self, error: BaseException, counts: bool = True) -> None:
        """Record that an attempt has failed. Raises the error, with a summary, if it is one too many.

        A task that has killed several workers, one after the other, counts as that many faults: otherwise it
        could kill all workers of a cluster. An attempt that fails before its workers have begun
        (`error.while_restoring`) is the same fault as the one before: it has met what that one left behind.

        Parameters
        ----------
        error : exception
        counts : bool
            Whether it counts as a fault.
        """
        if error is self._last:
            # It ends the fit, and is counted.
            raise error
        self._failed.append(error)
        logger.warning(
            "%s was lost (%s) and is computed again from the same state.",
            f"Epoch {self._epoch}: a part" if self._epoch else "A part",
            _described(error),
        )
        was_reached = not getattr(error, "while_restoring", False) or hasattr(error, "allowed_failures")
        now = time.monotonic()
        if self._n_counted and not was_reached and now - self._counted_at < _SAME_FAULT_SECONDS:
            return
        if counts:
            self._n_counted += 1
            self._counted_at = now
            self._count(error, getattr(error, "allowed_failures", 0) + 1)

    def recovered(self, seconds: float, found: list[Event]) -> None:
        """Record what has happened since the last call, now that work resumes.

        Workers that were lost at the same time (a machine, a rack) are one fault, or none if a failed
        attempt has been counted for them.

        Parameters
        ----------
        seconds : float
            The time that all of it cost.
        found : list of Event

        Raises
        ------
        WorkerLeftError
            That makes too many faults.
        """
        failed, self._failed = self._failed, []
        was_counted, self._n_counted = self._n_counted > 0, 0
        if failed and all(event.what == JOINED for event in found):
            found = [Event(FAILED), *found]
        # A worker that joins costs nothing, unless nothing else has happened.
        costly = [event for event in found if event.what != JOINED] or found
        each = round(seconds / max(len(costly), 1), 3)
        errors = "; ".join(dict.fromkeys(map(_described, failed)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for event in found:
            if event in costly:
                event = replace(event, seconds=each, error=errors)
            event = replace(event, epoch=self._epoch, time=now)
            self.events.append(event)
            logger.warning("%s", event)
        gone = [str(event.worker) for event in found if event.is_fault]
        if gone and not was_counted:
            self._count(WorkerLeftError(f"The cluster has lost {', '.join(gone)}."))

    def _count(self, error: BaseException, n: int = 1) -> None:
        self.n_faults += n
        if self.n_faults > self.max_faults:
            earlier = "".join(f"\n  {event}" for event in self.events) or " failed attempts of this part."
            error.add_note(
                f"This was fault {self.n_faults} of this fit, {self._stage}; it allows "
                f"max_faults={self.max_faults}. Earlier events:{earlier}\n"
                "Look in the logs of the workers for why they die, or allow more faults: "
                "fit(..., max_faults=...)."
            )
            self._last = error
            raise error

    def take(self) -> list[dict[str, Any]]:
        """Return the events since the last call, as dicts."""
        new = self.events[self._n_taken :]
        self._n_taken = len(self.events)
        return [_as_dict(event) for event in new]


def _as_dict(event: Event) -> dict[str, Any]:
    # Lists, as in JSON: checkpoints keep the history.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(event).items()}


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
