"""How late this process and the workers are: on a machine with too much to do, silence means less."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# How often the event loop is to wake up.
_EVERY_SECONDS = 0.5
# Whoever answers so many times later than the event loop was, at most, is not silent.
_TIMES = 4
# `dasknn.silence` grows to so many times what was set: a worker that is gone must be noticed at some time.
_MOST_TIMES = 4
# After so many seconds half of what was seen is forgotten.
_HALF_LIFE_SECONDS = 30.0


class Lag:
    """Measures how late the event loop of a client is, as long as it is open.

    Parameters
    ----------
    loop : asyncio event loop
        It runs in another thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        # The most seconds that were seen, as of a moment, and when the loop has to wake up.
        self._seconds, self._at = 0.0, time.monotonic()
        self._due = self._at + _EVERY_SECONDS
        self._task: asyncio.Task | None = None
        self._call(self._begin)

    def _call(self, function: Callable[[], Any]) -> None:
        # A loop that is closed runs nothing.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            self._due = time.monotonic() + _EVERY_SECONDS
            await asyncio.sleep(_EVERY_SECONDS)
            self.note(time.monotonic() - self._due)

    def note(self, seconds: float) -> None:
        """Note that somebody was so many seconds late: this event loop, or a worker with its answer."""
        if seconds > self._left():
            self._seconds, self._at = seconds, time.monotonic()

    def _left(self) -> float:
        return self._seconds * 0.5 ** ((time.monotonic() - self._at) / _HALF_LIFE_SECONDS)

    @property
    def seconds(self) -> float:
        """By how many seconds somebody was late of late."""
        # The loop may be late at this moment, too.
        return max(self._left(), time.monotonic() - self._due)

    def patience(self, silence: float) -> float:
        """Return how many seconds workers may be silent, where `silence` are those of a machine in peace."""
        return min(max(silence, _TIMES * self.seconds), _MOST_TIMES * silence)

    def close(self) -> None:
        """Stop measuring."""
        self._call(lambda: self._task and self._task.cancel())
