"""Links over the connections of Dask's workers, for clusters where no other connection is possible."""

from __future__ import annotations

import asyncio
import hmac
import queue
import struct
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from dasknn.cluster.comm.core import CONNECT_SECONDS, MOST_MEMBERS, Endpoint, Link, Secret
from dasknn.cluster.comm.transfer import MailTransfer, as_bytes
from dasknn.exceptions import LinkError

# A member in step with this one is never this many messages ahead.
_MOST_WAITING = 256
# The number of the message that says that a member leaves.
_GOODBYE = -1

_OPERATION = "dasknn_frame"
# Reentrant: the garbage collector may close an endpoint in a thread that holds it.
_handlers_lock = threading.RLock()


class DaskLink(Link):
    """Messages over a Dask comm to a peer's worker, and a mailbox for those that arrive from it."""

    # A message costs more than its bytes do, so there are few and long ones.
    chunk_bytes = 16_777_216

    def __init__(self, loop: asyncio.AbstractEventLoop, comm: Any, peer: str, stamp: dict[str, Any]):
        self.peer = peer
        # No reference to the endpoint: the loop holds the task that watches the peer, and would then keep the
        # endpoint from closing.
        self._loop = loop
        self._comm = comm
        self._stamp = stamp
        self._turn = asyncio.Lock()
        self._sent = self._received = 0
        self._mailbox: queue.SimpleQueue = queue.SimpleQueue()
        self._watch = asyncio.ensure_future(self._watch_peer())

    transfer = MailTransfer

    def wait_at_most(self, seconds: float) -> None:
        self.seconds = seconds

    def send(self, buffers: Sequence[Any]) -> None:
        """Send bytes-like buffers of at most chunk_bytes; does not wait for the other end."""
        # A copy: the caller may write to its buffers as soon as this returns.
        data = np.frombuffer(b"".join(as_bytes(buffers)), np.uint8)
        self.bytes_sent += len(data)
        self._start(self._write, self._sent, data)
        self._sent += 1

    def _start(self, function: Callable[..., Any], *args: Any) -> None:
        # The coroutine is created in the loop: if that has been closed, there is none that nobody awaits.
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(function(*args)))

    async def _write(self, number: int, data: np.ndarray) -> None:
        from dasknn._compat.distributed import to_serialize

        message = {**self._stamp, "number": number, "data": to_serialize(data)}
        try:
            # Writes to one comm must not overlap; the lock is fair, so they keep their order.
            async with self._turn:
                await self._comm.write(message)
        except Exception as error:
            self._mailbox.put(error)

    async def _watch_peer(self) -> None:
        """Notice when the peer's process is gone: it sends nothing here, so a read ends only with it."""
        try:
            await self._comm.read()
        except Exception as error:
            self._mailbox.put(error)

    def deliver(self, number: int, data: Any) -> None:
        """Put a message that has arrived into the mailbox; called in the event loop."""
        if number == _GOODBYE:
            self._mailbox.put(ConnectionAbortedError("the peer has left"))
        elif self._mailbox.qsize() < _MOST_WAITING:
            self._mailbox.put((number, data))

    def receive(self, buffers: Sequence[Any]) -> None:
        """Fill writable buffers with what one `send` of the peer has sent."""
        try:
            message = self._mailbox.get(timeout=self.seconds)
        except queue.Empty:
            raise LinkError(f"{self.peer} was silent for {self.seconds:g} s.") from None
        if isinstance(message, Exception):
            raise LinkError(f"The connection to {self.peer} broke: {message!r}.") from message
        number, data = message
        data = memoryview(data).cast("B")
        buffers = as_bytes(buffers)
        if number != self._received or len(data) != sum(map(len, buffers)):
            raise LinkError(
                f"{self.peer} is out of step: expected message {self._received} of "
                f"{sum(map(len, buffers))} bytes, received message {number} of {len(data)} bytes."
            )
        self._received += 1
        for buffer in buffers:
            buffer[:], data = data[: len(buffer)], data[len(buffer) :]

    def close(self) -> None:
        self._mailbox.put(ConnectionAbortedError("closed"))
        with suppress(RuntimeError):
            self._start(self._close)

    async def _close(self) -> None:
        self._watch.cancel()
        await self._comm.close()

    def abort(self) -> None:
        with suppress(RuntimeError):
            # The peer would not notice the end of a comm that it only reads from.
            self._start(self._write, _GOODBYE, np.empty(0, np.uint8))
        self.close()


class DaskEndpoint(Endpoint):
    """A handler of the worker's own server, through which messages arrive."""

    def __init__(self, run: bytes, attempt: int, secret: Secret, worker: Any):
        super().__init__(run, attempt, secret, worker.address)
        self.contact = (None, None, worker.address)
        self.loop = worker.loop.asyncio_loop
        self._worker = weakref.ref(worker)
        self._connection_args = worker.security.get_connection_args("worker")
        self._early: dict[int, list] = {}
        with _handlers_lock:
            worker.handlers[_OPERATION] = _handler_of(worker.address)
            _mailrooms[worker.address, run, attempt] = self

    def _connect(self, rank: int, contacts: Sequence[Any], deadline: float) -> None:
        addresses = {other: contact[2] for other, contact in enumerate(contacts) if other != rank}
        made = asyncio.run_coroutine_threadsafe(self._make_links(rank, addresses), self.loop)
        try:
            made.result(timeout=max(0.1, deadline - time.monotonic()))
        finally:
            made.cancel()

    async def _make_links(self, rank: int, addresses: dict[int, str]) -> None:
        from dasknn._compat.distributed import connect

        # The arguments of the peer's handler.
        stamp = {
            "op": _OPERATION,
            "reply": False,
            "run": self.run,
            "attempt": self.attempt,
            "rank": rank,
            "proof": self._proof(rank),
        }
        for other, address in addresses.items():
            comm = await connect(address, timeout=CONNECT_SECONDS, **self._connection_args)
            link = self.links[other] = DaskLink(self.loop, comm, address, stamp)
            for number, data in self._early.pop(other, ()):
                link.deliver(number, data)

    def _proof(self, rank: int) -> bytes:
        return self._secret.proof(b"message", self.run, struct.pack("<II", self.attempt, rank))

    def deliver(self, rank: int, number: int, proof: bytes, data: Any) -> None:
        """Put a message into the mailbox of its sender; drop it if the sender is not a member."""
        is_known = isinstance(rank, int) and isinstance(proof, bytes) and 0 <= rank < MOST_MEMBERS
        if not is_known or not hmac.compare_digest(proof, self._proof(rank)):
            return
        if rank in self.links:
            self.links[rank].deliver(number, data)  # type: ignore[attr-defined]
        elif len(self._early.setdefault(rank, [])) < _MOST_WAITING:
            # The peer has made its links before this member has.
            self._early[rank].append((number, data))

    def close(self) -> None:
        super().close()
        with _handlers_lock:
            _mailrooms.pop((self.address, self.run, self.attempt), None)
            worker = self._worker()
            if worker is not None and not any(address == self.address for address, *_ in list(_mailrooms)):
                worker.handlers.pop(_OPERATION, None)


_mailrooms: weakref.WeakValueDictionary[tuple, DaskEndpoint] = weakref.WeakValueDictionary()


def _handler_of(address: str) -> Callable[..., None]:
    def dasknn_frame(run: bytes, attempt: int, rank: int, number: int, proof: bytes, data: Any) -> None:
        # A message of another run, or of an attempt that was given up, is dropped: nobody waits for it.
        if (endpoint := _mailrooms.get((address, run, attempt))) is not None:
            endpoint.deliver(rank, number, proof, data)

    return dasknn_frame
