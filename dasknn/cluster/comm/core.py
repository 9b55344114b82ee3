"""Connections between the workers that train together.

    open_endpoint(kind, run, attempt, secret)   on each worker: can be reached at endpoint.contact
    endpoint.connect(rank, contacts)            on each worker: a Link to every other member
    link.transfer()                             messages to and from several members, side by side
    link.swap(…)                                a short message each way, blocking
    abort(run)                                  wakes all threads of this process that wait for a link

There are two kinds, which carry the same bytes. SOCKET: a separate TCP connection between two task threads,
under TLS where the cluster has it. DASK: messages over Dask's comms, for workers that cannot reach each other
in another way. A connection belongs to one attempt of one run, and proves that it knows the secret of that
attempt before anything else is read from it. An endpoint lives as long as the result of the task that opened
it: when that is released, or the client is gone, it closes.
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

from dasknn.cluster.comm.transfer import Transfer
from dasknn.exceptions import LinkError

SOCKET, DASK = "socket", "dask"
#: Seconds within which a member has to connect to all others.
CONNECT_SECONDS = 8.0
#: Members of a run are counted in 32 bits.
MOST_MEMBERS = 2**32
_RUN_BYTES = 16


def new_run() -> bytes:
    """Return a random name for a run, so that no two runs have the same."""
    return secrets.token_bytes(_RUN_BYTES)


class Secret:
    """A key that the members of one attempt share, and prove to know.

    Its repr does not show it, since logs and errors show the arguments of tasks.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | None = None):
        self._value = secrets.token_bytes(32) if value is None else value

    def proof(self, *said: bytes) -> bytes:
        """Return the HMAC-SHA256 of the concatenated `said`, which proves that the secret is known."""
        return hmac.digest(self._value, b"".join(said), "sha256")

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._value,)

    def __repr__(self) -> str:
        return "<Secret>"


class Link(ABC):
    """A connection to one other member. Both ends send and receive messages in an agreed order.

    Attributes
    ----------
    peer : str
        Address of the other member.
    bytes_sent : int
    seconds : float
        How long the peer may be silent.
    """

    peer: str
    bytes_sent: int = 0
    seconds: float = 0.0

    @abstractmethod
    def wait_at_most(self, seconds: float) -> None:
        """Set how many seconds the peer may be silent."""

    @staticmethod
    @abstractmethod
    def transfer() -> Transfer:
        """Return a new `Transfer` for links of this kind."""

    def swap(self, out: Sequence[Any], n_out: int, into: Sequence[Any], n_into: int) -> None:
        """Send one message and receive another, of n_out and n_into bytes, in buffers of bytes or numbers.

        Raises
        ------
        LinkError
            The peer is gone, silent, or has sent another message than the expected one.
        """
        both = self.transfer()
        both.send(self, out)
        both.receive(self, into, lambda n: None)
        both.run()

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a thread that waits on it in this process gets a LinkError."""

    def abort(self) -> None:
        """Close the connection; threads that wait on it, here and at the other end, get a LinkError."""
        self.close()


class Endpoint(ABC):
    """One worker's part in an attempt of a run: where it can be reached, and its links.

    Attributes
    ----------
    contact : tuple
        How others reach it.
    address : str
        The worker's address.
    links : dict
        Links to the other members, by rank.
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
        """Make `links` to all other members.

        Parameters
        ----------
        rank : int
            The number of this member.
        contacts : sequence
            The contacts of all members, by rank.

        Raises
        ------
        LinkError
            One of them could not be reached, or is not a member.
        """
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


# The endpoints of all runs in this process.
_endpoints: dict[tuple[bytes, int, str], Endpoint] = {}


class Handle:
    """The result of the task that opened an endpoint, which Dask keeps.

    When Dask forgets it, the endpoint closes. A worker that runs out of memory writes results to disk and
    forgets them for that reason; then the endpoint stays, until `close` of its run.
    """

    def __init__(self, run: bytes, attempt: int, address: str):
        self._key = run, attempt, address
        self._is_written = False

    def endpoint(self) -> Endpoint:
        """Return the endpoint. Raises LinkError if it was closed."""
        try:
            return _endpoints[self._key]
        except KeyError:
            raise LinkError(f"The endpoint of {self._key[2]} is no longer there.") from None

    def __reduce__(self) -> tuple[Any, ...]:
        self._is_written = True
        return Handle, self._key

    def __del__(self) -> None:
        # When the interpreter exits, parts of it may be gone already.
        with suppress(Exception):
            if not self._is_written and self._key in _endpoints:
                _endpoints[self._key].close()


def abort(run: bytes) -> None:
    """Abort the endpoints of a run in this process."""
    for endpoint in _of_run(run):
        endpoint.abort()


def close(run: bytes) -> None:
    """Close the endpoints of a run in this process."""
    for endpoint in _of_run(run):
        endpoint.close()


def _of_run(run: bytes) -> list[Endpoint]:
    return [endpoint for (of, _, _), endpoint in list(_endpoints.items()) if of == run]
