"""Messages that travel side by side: what a member sends to several others, and what it gets from them.

A message may be longer than what the kernel keeps for a connection. If two members sent theirs to each other
before they read, both could wait for ever; so each does at any moment whatever is possible, and adds up
what has arrived while the rest is on its way.
"""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from dasknn.exceptions import LinkError

# At most so many bytes are moved at a time, so that sending, receiving and adding take turns.
_BYTES_AT_A_TIME = 262_144
# Waking a sleeping thread takes longer than most messages: look again for this long before going to sleep.
_SPIN_SECONDS = 1e-4

# Called with the number of bytes of a message that have arrived.
Progress = Callable[[int], None]


class Transfer(ABC):
    """Messages to send and to receive; links of one kind make it: `Link.transfer`."""

    @abstractmethod
    def send(self, link: Any, buffers: Sequence[Any]) -> None:
        """Send bytes-like buffers as one message, after earlier ones to the same member.

        They must not change until `run` has returned.
        """

    @abstractmethod
    def receive(self, link: Any, buffers: Sequence[Any], progress: Progress) -> None:
        """Fill writable buffers with the next message of a member. progress may send and receive more."""

    @abstractmethod
    def run(self) -> None:
        """Return when all messages were sent and received.

        Raises
        ------
        LinkError
            A peer is gone or silent.
        """


class _Message:
    def __init__(self, buffers: Sequence[Any], progress: Progress | None = None):
        self.left = as_bytes(buffers)
        self.progress = progress
        self.n_done = 0

    def next(self) -> list[memoryview]:
        """Return the next bytes that are to be moved, at most _BYTES_AT_A_TIME of them."""
        room, found = _BYTES_AT_A_TIME, []
        for buffer in self.left:
            found.append(buffer[:room])
            room -= len(found[-1])
            if not room:
                break
        return found

    def note(self, n: int) -> None:
        """Note that n bytes more have been moved."""
        self.n_done += n
        self.left = after(self.left, n)
        if self.progress is not None and n:
            self.progress(self.n_done)


class SocketTransfer(Transfer):
    """Over connections that can say that they are not ready.

    These links have `try_send(buffers)` and `try_receive(buffers)`, which return how many bytes were moved
    at once, `fileno()`, `seconds` and `peer`.
    """

    def __init__(self) -> None:
        self._out: dict[Any, deque[_Message]] = {}
        self._into: dict[Any, deque[_Message]] = {}

    def send(self, link: Any, buffers: Sequence[Any]) -> None:
        self._out.setdefault(link, deque()).append(_Message(buffers))

    def receive(self, link: Any, buffers: Sequence[Any], progress: Progress) -> None:
        self._into.setdefault(link, deque()).append(_Message(buffers, progress))

    def run(self) -> None:
        links = {*self._out, *self._into}
        for link in links:
            link.begin_polling()
        last = time.perf_counter()
        while self._out or self._into:
            n_moved = sum([_move(self._out, link, link.try_send) for link in list(self._out)])
            n_moved += sum([_move(self._into, link, link.try_receive) for link in list(self._into)])
            now = time.perf_counter()
            if n_moved:
                last = now
            elif now - last > _SPIN_SECONDS:
                self._sleep(now - last)
        for link in links:
            link.end_polling()

    def _sleep(self, waited: float) -> None:
        """Wait until one of the connections is ready."""
        awaited = {*self._out, *self._into}
        seconds = min(link.seconds for link in awaited)
        poll = select.poll()
        for link in awaited:
            events = (select.POLLOUT if link in self._out else 0) | (
                select.POLLIN if link in self._into else 0
            )
            poll.register(link.fileno(), events)
        if not poll.poll(max(0.0, 1e3 * (seconds - waited))):
            peers = sorted(link.peer for link in awaited)
            were = "was" if len(peers) == 1 else "were"
            raise LinkError(f"{', '.join(peers)} {were} silent for {seconds:g} s.")


def _move(queues: dict[Any, deque[_Message]], link: Any, move: Callable[[list[memoryview]], int]) -> int:
    """Move some bytes of the first message of a link; return how many."""
    queue = queues[link]
    message = queue[0]
    n = move(message.next())
    if not n:
        return 0
    message.note(n)
    if not message.left:
        queue.popleft()
        if not queue:
            del queues[link]
    return n


class MailTransfer(Transfer):
    """Over links whose `send` never waits for the other end."""

    def __init__(self) -> None:
        self._into: deque[tuple[Any, _Message]] = deque()

    def send(self, link: Any, buffers: Sequence[Any]) -> None:
        for chunk in in_chunks(as_bytes(buffers), link.chunk_bytes):
            link.send(chunk)

    def receive(self, link: Any, buffers: Sequence[Any], progress: Progress) -> None:
        self._into.append((link, _Message(buffers, progress)))

    def run(self) -> None:
        while self._into:
            link, message = self._into.popleft()
            for chunk in in_chunks(message.left, link.chunk_bytes):
                link.receive(chunk)
                message.note(sum(map(len, chunk)))


def as_bytes(buffers: Sequence[Any]) -> list[memoryview]:
    """Return bytes-like buffers as views of their bytes, without empty ones."""
    return [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]


def after(buffers: Sequence[memoryview], n: int) -> list[memoryview]:
    """Return what follows the first n bytes of buffers."""
    left = []
    for buffer in buffers:
        if n < len(buffer):
            left.append(buffer[n:])
        n = max(0, n - len(buffer))
    return left


def in_chunks(buffers: Sequence[memoryview], chunk_bytes: int) -> list[list[memoryview]]:
    """Cut a message into lists of buffers, each list of chunk_bytes but the last."""
    chunks: list[list[memoryview]] = [[]]
    room = chunk_bytes
    for buffer in buffers:
        while len(buffer):
            if not room:
                chunks.append([])
                room = chunk_bytes
            chunks[-1].append(buffer[:room])
            buffer, room = buffer[room:], room - min(room, len(buffer))
    return chunks
