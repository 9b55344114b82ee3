"""Connections between the workers that train together.

    open_endpoint(kind, run, attempt, secret)   on each worker: ready to be reached, at endpoint.contact
    endpoint.connect(rank, contacts)            on each worker: a Link to every other member
    link.send(buffers), link.receive(buffers)   blocking, from the thread of the task that trains
    abort(run)                                  wakes whoever waits in this process

Two kinds carry the same bytes. SOCKET: a TCP connection of its own between two task threads, with the
cluster's TLS where it has TLS. DASK: messages over Dask's comms, for workers that reach each other no other
way. A connection belongs to one attempt of one run, and proves that it knows the secret of that attempt
before anything else is read from it. An endpoint lives as long as the result of the task that opened it: when
that is released, or the client is gone, it closes.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dasknn.exceptions import LinkError

SOCKET, DASK = "socket", "dask"
CONNECT_SECONDS = 8.0
MOST_MEMBERS = 2**32
_RUN_BYTES = 16


def new_run() -> bytes:
    """Return a name for a run: random, so that no two meet."""
    return secrets.token_bytes(_RUN_BYTES)


class Secret:
    """What the members of one attempt prove to know. Logs and errors show tasks: its repr says nothing."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | None = None):
        self._value = secrets.token_bytes(32) if value is None else value

    def proof(self, *said: bytes) -> bytes:
        """Return what only those can say of these words who know the secret."""
        return hmac.digest(self._value, b"".join(said), "sha256")

    def __reduce__(self):
        return Secret, (self._value,)

    def __repr__(self):
        return "<Secret>"


class Link(ABC):
    """A connection to one other member. Both ends send and receive messages in an agreed order."""

    peer: str
    bytes_sent: int = 0
    #: What one message may hold without anybody reading at the other end.
    chunk_bytes: int = 262_144

    @abstractmethod
    def wait_at_most(self, seconds: float) -> None:
        """Set how long the peer may be silent."""

    @abstractmethod
    def send(self, buffers: Sequence[Any]) -> None:
        """Send bytes-like buffers as one message, of at most chunk_bytes. LinkError: the peer is gone."""

    @abstractmethod
    def receive(self, buffers: Sequence[Any]) -> None:
        """Fill writable buffers with the next message. LinkError: the peer is gone, silent or out of step."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; whoever waits on it here gets a LinkError."""

    def abort(self) -> None:
        """Close the connection; whoever waits on it, here or at the other end, gets a LinkError."""
        self.close()


class Endpoint(ABC):
    """What a worker holds of an attempt of a run: the way to be reached, and its links.

    `contact` says how others reach it.
    """

    contact: Any
    address: str

    def __init__(self, run: bytes, attempt: int, secret: Secret, address: str):
        self.run, self.attempt, self.address = run, attempt, address
        self._secret = secret
        self._aborted = threading.Event()
        self.links: dict[int, Link] = {}
        _endpoints[run, attempt, address] = self

    def connect(self, rank: int, contacts: Sequence[Any]) -> None:
        """Make `links` to all other members. LinkError: one of them could not be reached, or is no member."""
        try:
            self._connect(rank, contacts, time.monotonic() + CONNECT_SECONDS)
        except (TimeoutError, OSError) as error:
            self.close()
            raise LinkError(f"{self.address} could not connect to its peers: {error!r}.") from error
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _connect(self, rank: int, contacts: Sequence[Any], deadline: float) -> None: ...

    @property
    def is_aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._aborted.is_set()

    def abort(self) -> None:
        """End every wait on these links, in any thread."""
        self._aborted.set()
        for link in list(self.links.values()):
            link.abort()

    def close(self) -> None:
        """Close all links, and stop being reachable."""
        _endpoints.pop((self.run, self.attempt, self.address), None)
        for link in list(self.links.values()):
            link.close()


# What this process holds of all runs.
_endpoints: dict[tuple[bytes, int, str], Endpoint] = {}


class Handle:
    """The result of the task that opened an endpoint: what Dask keeps of it.

    When Dask forgets it, the endpoint closes. Where a worker runs out of memory Dask writes results to disk
    and forgets them for that; then the endpoint stays, until `close` of its run.
    """

    def __init__(self, run: bytes, attempt: int, address: str):
        self._key = run, attempt, address
        self._is_written = False

    def endpoint(self) -> Endpoint:
        """Return the endpoint. LinkError: it was closed."""
        try:
            return _endpoints[self._key]
        except KeyError:
            raise LinkError(f"The endpoint of {self._key[2]} is no longer there.") from None

    def __reduce__(self):
        self._is_written = True
        return Handle, self._key

    def __del__(self):
        # While the interpreter ends, parts of it may be gone already.
        with suppress(Exception):
            if not self._is_written and self._key in _endpoints:
                _endpoints[self._key].close()


def abort(run: bytes) -> None:
    """Abort what this process holds of a run."""
    for endpoint in _of_run(run):
        endpoint.abort()


def close(run: bytes) -> None:
    """Close what this process holds of a run."""
    for endpoint in _of_run(run):
        endpoint.close()


def _of_run(run: bytes) -> list[Endpoint]:
    return [endpoint for (of, _, _), endpoint in list(_endpoints.items()) if of == run]


def as_bytes(buffers: Sequence[Any]) -> list[memoryview]:
    return [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
