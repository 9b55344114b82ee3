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

import asyncio
import collections
import errno
import hmac
import os
import platform
import queue
import secrets
import socket
import ssl
import struct
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import dask
import numpy as np

from dasknn.exceptions import LinkError

SOCKET, DASK = "socket", "dask"

# Asked for as the kernel's buffers of a socket; it gives what it is allowed to.
_BUFFER_BYTES = 4_194_304
# Waking a sleeping thread costs more than most rounds: look for this long before going to sleep.
_SPIN_SECONDS = 1e-4
_CONNECT_SECONDS = 8.0
_HELLO_SECONDS = 5.0
_MOST_STRANGERS = 32
# What a caller sees of a listener that hangs up on it, and how long it waits before it calls again.
_HUNG_UP = (ConnectionAbortedError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
_AGAIN_SECONDS = 0.05
# Why nobody can be let in just now: too many open files; whoever called has gone.
_FOR_A_MOMENT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
# A member in step with us is never so many messages ahead.
_MOST_WAITING = 256
_MOST_MEMBERS = 2**32

_MAGIC = b"dnn1"
_NONCE_BYTES = _MAC_BYTES = 32
# magic, run, attempt, rank, nonce, proof
_HELLO = struct.Struct(f"<4s16sII{_NONCE_BYTES}s{_MAC_BYTES}s")
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
            self._connect(rank, contacts, time.monotonic() + _CONNECT_SECONDS)
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


def open_endpoint(kind: str, run: bytes, attempt: int, secret: Secret) -> Handle:
    """Open an endpoint of the worker whose task this is."""
    from distributed import get_worker

    kinds = {SOCKET: SocketEndpoint.on_worker, DASK: DaskEndpoint}
    worker = get_worker()
    kinds[kind](run, attempt, secret, worker)
    return Handle(run, attempt, worker.address)


# --- sockets ------------------------------------------------------------------------------------------


class SocketLink(Link):
    """A plain TCP connection, used from one thread; the kernel keeps the deadlines."""

    @staticmethod
    def missing_calls() -> list[str]:
        """Return the calls that a system lacks for it; on Windows these are all but the last."""
        needed = ("sendmsg", "recvmsg_into", "MSG_DONTWAIT", "MSG_WAITALL")
        return [name for name in needed if not hasattr(socket, name) and not hasattr(socket.socket, name)]

    def __init__(self, connection: socket.socket, peer: str):
        self.peer = peer
        self._socket = connection
        self._seconds = 0.0

    def wait_at_most(self, seconds):
        whole = int(seconds)
        value = struct.pack("ll", whole, int(1e6 * (seconds - whole)))
        # Python's own timeouts would ask the kernel twice for each message.
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._seconds = seconds

    def send(self, buffers):
        buffers = _as_bytes(buffers)
        self.bytes_sent += sum(map(len, buffers))
        try:
            sent = self._socket.sendmsg(buffers)
            for buffer in _after(buffers, sent):
                self._socket.sendall(buffer)
        except OSError as error:
            raise self._gone(error) from error

    def receive(self, buffers):
        buffers = _as_bytes(buffers)
        length = sum(map(len, buffers))
        try:
            received = self._spin(buffers)
            while received < length:
                left = _after(buffers, received)
                n, *_ = self._socket.recvmsg_into(left, 0, socket.MSG_WAITALL)
                if not n:
                    raise LinkError(f"{self.peer} closed its connection.")
                received += n
        except OSError as error:
            raise self._gone(error) from error

    def _spin(self, buffers) -> int:
        until = time.perf_counter() + _SPIN_SECONDS
        while True:
            try:
                n, *_ = self._socket.recvmsg_into(buffers, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.perf_counter() > until:
                    return 0
            else:
                if not n:
                    raise LinkError(f"{self.peer} closed its connection.")
                return n

    def _gone(self, error: OSError) -> LinkError:
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return LinkError(f"{self.peer} was silent for {self._seconds:g} s.")
        return LinkError(f"The connection to {self.peer} broke: {error!r}.")

    def close(self):
        _shut(self._socket)


class TLSLink(SocketLink):
    """A TCP connection under TLS, where Python's ssl module keeps the deadlines."""

    def wait_at_most(self, seconds):
        self._socket.settimeout(seconds)
        self._seconds = seconds

    def send(self, buffers):
        # Small buffers would each become a record of their own.
        data = b"".join(_as_bytes(buffers))
        self.bytes_sent += len(data)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from error

    def receive(self, buffers):
        try:
            for buffer in _as_bytes(buffers):
                while len(buffer):
                    n = self._socket.recv_into(buffer)
                    if not n:
                        raise LinkError(f"{self.peer} closed its connection.")
                    buffer = buffer[n:]
        except OSError as error:
            raise self._gone(error) from error


def _as_bytes(buffers: Sequence[Any]) -> list[memoryview]:
    return [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]


def _after(buffers: list[memoryview], n: int) -> list[memoryview]:
    """Return what follows the first n bytes of buffers."""
    left = []
    for buffer in buffers:
        if n < len(buffer):
            left.append(buffer[n:])
        n = max(0, n - len(buffer))
    return left


def _shut(connection: socket.socket) -> None:
    # Wakes a thread that waits on it, which closing alone does not. Past TLS, whose goodbye could block.
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Caller:
    """Whoever has connected to a listener and has not said yet who it is."""

    def __init__(self, connection: socket.socket):
        self.connection = connection


def _hang_up(callers: collections.deque[_Caller]) -> None:
    """Close the connection of the caller that has been there longest; its thread notices."""
    with suppress(IndexError):
        _shut(callers.popleft().connection)


class SocketEndpoint(Endpoint):
    """A listening socket, until every member has come.

    listen_on: the host, where Dask's own comm listens; contexts: (server, client) for TLS, or None.
    `dasknn.ports` of dask.config names the ports: "0" (any free one, the default) or "40000-40100".
    """

    def __init__(
        self,
        run,
        attempt,
        secret,
        address: str,
        listen_on: str,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    ):
        super().__init__(run, attempt, secret, address)
        self._server_context = contexts[0] if contexts else None
        self._client_context = contexts[1] if contexts else None
        self._listener = _listen(listen_on)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._all_here = threading.Event()
        self.contact = (listen_on, self._listener.getsockname()[1], address)

    @classmethod
    def on_worker(cls, run, attempt, secret, worker) -> SocketEndpoint:
        """Listen where the worker's own comm listens, with its certificates."""
        parts = urlsplit(worker.address)
        if parts.scheme not in ("tcp", "tls", "inproc"):
            raise LinkError(f"Sockets cannot follow {parts.scheme}:// of {worker.address}.")
        if missing := SocketLink.missing_calls():
            raise LinkError(f"{platform.system()} has no {', '.join(missing)}, at {worker.address}.")
        contexts = None
        if parts.scheme == "tls":
            security = worker.security
            contexts = (
                security.get_listen_args("worker")["ssl_context"],
                security.get_connection_args("worker")["ssl_context"],
            )
        # All workers of inproc:// are in this process.
        host = "127.0.0.1" if parts.scheme == "inproc" else parts.hostname
        return cls(run, attempt, secret, worker.address, host, contexts)

    def _connect(self, rank, contacts, deadline):
        self._rank = rank
        wanted = set(range(rank + 1, len(contacts)))
        acceptor = threading.Thread(
            target=self._accept, args=(wanted, contacts), name="dasknn-accept", daemon=True
        )
        if wanted:
            acceptor.start()
        else:
            self._listener.close()
        for other in range(rank):
            self._call(rank, other, contacts[other], deadline)
        if wanted and not self._all_here.wait(max(0.0, deadline - time.monotonic())):
            missing = [contacts[other][2] for other in sorted(wanted - set(self.links))]
            raise LinkError(f"{self.address} waited {_CONNECT_SECONDS:.0f} s for {', '.join(missing)}.")
        if self._aborted.is_set():
            raise LinkError(f"{self.address} was told to stop.")

    def _call(self, rank: int, other: int, contact, deadline: float) -> None:
        while True:
            try:
                self._greet_peer(rank, other, contact, deadline)
                return
            except _HUNG_UP:
                # Among many strangers the other one may have taken us for one of them.
                if self._aborted.wait(_AGAIN_SECONDS) or time.monotonic() > deadline:
                    raise

    def _greet_peer(self, rank: int, other: int, contact, deadline: float) -> None:
        host, port, address = contact
        seconds = max(0.1, deadline - time.monotonic())
        connection = _tune(socket.create_connection((host, port), timeout=seconds))
        if self._client_context is not None:
            connection = self._client_context.wrap_socket(connection, server_hostname=host)
        self._remember(connection)
        connection.settimeout(_HELLO_SECONDS)
        nonce = _read(connection, _NONCE_BYTES)
        own = os.urandom(_NONCE_BYTES)
        proof = self._proof(b"call", nonce, own, rank)
        connection.sendall(_HELLO.pack(_MAGIC, self.run, self.attempt, rank, own, proof))
        answer = _read(connection, _MAC_BYTES)
        if not hmac.compare_digest(answer, self._proof(b"answer", own, nonce, other)):
            raise LinkError(f"{address} does not know the secret of this run.")
        self._add(other, connection, address)

    def _accept(self, wanted: set[int], contacts) -> None:
        """Let members in until all are here; what strangers send is bounded in length and in time.

        However many strangers there are, the newest caller is heard: members say at once who they are, so the
        one that has been silent longest makes room.
        """
        callers: collections.deque[_Caller] = collections.deque()
        while not self._all_here.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in _FOR_A_MOMENT:
                    # The listener was closed.
                    return
                _hang_up(callers)
                self._all_here.wait(_AGAIN_SECONDS)
                continue
            if len(callers) >= _MOST_STRANGERS:
                _hang_up(callers)
            caller = _Caller(connection)
            callers.append(caller)
            threading.Thread(
                target=self._greet, args=(caller, wanted, contacts, callers), name="dasknn-greet", daemon=True
            ).start()

    def _greet(self, caller: _Caller, wanted: set[int], contacts, callers) -> None:
        try:
            caller.connection.settimeout(_HELLO_SECONDS)
            self._remember(caller.connection)
            if self._server_context is not None:
                self._forget(caller.connection)
                # The handshake waits for the caller, whom somebody may have to hang up on meanwhile.
                caller.connection = self._server_context.wrap_socket(
                    caller.connection, server_side=True, do_handshake_on_connect=False
                )
                self._remember(caller.connection)
                caller.connection.do_handshake()
            rank = self._check(_tune(caller.connection))
            with self._lock:
                is_new = rank in wanted and rank not in self.links
            if not is_new:
                raise LinkError("Not one of the members that are missing.")
            self._add(rank, caller.connection, contacts[rank][2])
            if wanted <= set(self.links):
                self._all_here.set()
                _shut(self._listener)
                self._listener.close()
        except (OSError, LinkError):
            self._forget(caller.connection)
            caller.connection.close()
        finally:
            with suppress(ValueError):
                callers.remove(caller)

    def _check(self, connection) -> int:
        """Return the rank of whoever calls, once that is proved, and prove who answers."""
        nonce = os.urandom(_NONCE_BYTES)
        connection.sendall(nonce)
        magic, run, attempt, rank, other_nonce, proof = _HELLO.unpack(_read(connection, _HELLO.size))
        expected = self._proof(b"call", nonce, other_nonce, rank)
        if (magic, run, attempt) != (_MAGIC, self.run, self.attempt) or not hmac.compare_digest(
            proof, expected
        ):
            raise LinkError("A stranger.")
        connection.sendall(self._proof(b"answer", other_nonce, nonce, self._rank))
        return rank

    def _proof(self, role: bytes, nonce: bytes, other: bytes, rank: int) -> bytes:
        return self._secret.proof(role, self.run, struct.pack("<II", self.attempt, rank), nonce, other)

    def _add(self, rank: int, connection, address: str) -> None:
        kind = SocketLink if self._client_context is None else TLSLink
        with self._lock:
            self.links[rank] = kind(connection, address)

    def _remember(self, connection) -> None:
        with self._lock:
            self._sockets.append(connection)

    def _forget(self, connection) -> None:
        with self._lock, suppress(ValueError):
            self._sockets.remove(connection)

    def abort(self):
        """See Endpoint.abort."""
        super().abort()
        # Also whoever waits for members that have not come.
        self._all_here.set()

    def close(self):
        """See Endpoint.close."""
        self._all_here.set()
        _shut(self._listener)
        self._listener.close()
        super().close()
        with self._lock:
            connections, self._sockets = self._sockets, []
        for connection in connections:
            _shut(connection)
            connection.close()


def _listen(host: str) -> socket.socket:
    for port in _ports():
        with suppress(OSError):
            return socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
            )
    raise LinkError(
        f"No port of {dask.config.get('dasknn.ports')!r} is free at {host}. Set a wider range: "
        "dask.config 'dasknn.ports', such as '40000-40100'."
    )


def _ports() -> Iterator[int]:
    first, _, last = str(dask.config.get("dasknn.ports", "0")).partition("-")
    yield from range(int(first), int(last or first) + 1)


def _tune(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return connection


def _read(connection, n: int) -> bytes:
    """Read exactly n bytes of a greeting. OSError: it ends before, or takes too long as a whole."""
    data, deadline = b"", time.monotonic() + _HELLO_SECONDS
    while len(data) < n:
        connection.settimeout(max(1e-3, deadline - time.monotonic()))
        part = connection.recv(n - len(data))
        if not part:
            raise ConnectionAbortedError("A connection ended during its greeting.")
        data += part
    return data


# --- Dask's comms -------------------------------------------------------------------------------------

_OPERATION = "dasknn_frame"
# Taken again by whatever the garbage collector closes meanwhile.
_handlers_lock = threading.RLock()


class DaskLink(Link):
    """Messages over Dask's comm to a peer's worker, and a mailbox for those that come from it."""

    # A message costs more than its bytes: few and long ones.
    chunk_bytes = 16_777_216

    def __init__(self, loop: asyncio.AbstractEventLoop, comm, peer: str, stamp: dict[str, Any]):
        self.peer = peer
        # Not the endpoint: the loop, which holds what watches the peer, would then keep it from closing.
        self._loop = loop
        self._comm = comm
        self._stamp = stamp
        self._turn = asyncio.Lock()
        self._sent = self._received = 0
        self._seconds = 0.0
        self._mailbox: queue.SimpleQueue = queue.SimpleQueue()
        self._watch = asyncio.ensure_future(self._watch_peer())

    def wait_at_most(self, seconds):
        self._seconds = seconds

    def send(self, buffers):
        # The caller may write to its buffers as soon as this returns.
        data = np.frombuffer(b"".join(_as_bytes(buffers)), np.uint8)
        self.bytes_sent += len(data)
        self._start(self._write, self._sent, data)
        self._sent += 1

    def _start(self, function, *args) -> None:
        # No coroutine is made before the loop, which may have been closed, asks for it.
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(function(*args)))

    async def _write(self, number: int, data) -> None:
        from distributed.protocol import to_serialize

        message = {**self._stamp, "number": number, "data": to_serialize(data)}
        try:
            # Writes of one comm must not overlap; the lock is fair, so they keep their order.
            async with self._turn:
                await self._comm.write(message)
        except Exception as error:
            self._mailbox.put(error)

    async def _watch_peer(self) -> None:
        """Notice when the peer's process is gone: it never answers, so all that can come is the end."""
        try:
            await self._comm.read()
        except Exception as error:
            self._mailbox.put(error)

    def deliver(self, number: int, data) -> None:
        """Take a message that has come, on the event loop."""
        if number == _GOODBYE:
            self._mailbox.put(ConnectionAbortedError("it has left"))
        elif self._mailbox.qsize() < _MOST_WAITING:
            self._mailbox.put((number, data))

    def receive(self, buffers):
        try:
            message = self._mailbox.get(timeout=self._seconds)
        except queue.Empty:
            raise LinkError(f"{self.peer} was silent for {self._seconds:g} s.") from None
        if isinstance(message, Exception):
            raise LinkError(f"The connection to {self.peer} broke: {message!r}.") from message
        number, data = message
        data = memoryview(data).cast("B")
        buffers = _as_bytes(buffers)
        if number != self._received or len(data) != sum(map(len, buffers)):
            raise LinkError(f"{self.peer} is out of step: message {number} of {len(data)} bytes.")
        self._received += 1
        for buffer in buffers:
            buffer[:], data = data[: len(buffer)], data[len(buffer) :]

    def close(self):
        self._mailbox.put(ConnectionAbortedError("closed"))
        with suppress(RuntimeError):
            self._start(self._close)

    async def _close(self) -> None:
        self._watch.cancel()
        await self._comm.close()

    def abort(self):
        """See Link.abort."""
        with suppress(RuntimeError):
            # The end of a comm that it only reads from is nothing that the peer would notice.
            self._start(self._write, _GOODBYE, np.empty(0, np.uint8))
        self.close()


_GOODBYE = -1


class DaskEndpoint(Endpoint):
    """A handler of the worker's own server, through which messages come."""

    def __init__(self, run, attempt, secret, worker):
        super().__init__(run, attempt, secret, worker.address)
        self.contact = (None, None, worker.address)
        self.loop = worker.loop.asyncio_loop
        self._worker = weakref.ref(worker)
        self._connection_args = worker.security.get_connection_args("worker")
        self._early: dict[int, list] = {}
        with _handlers_lock:
            worker.handlers[_OPERATION] = _handler_of(worker.address)
            _mailrooms[worker.address, run, attempt] = self

    def _connect(self, rank, contacts, deadline):
        addresses = {other: contact[2] for other, contact in enumerate(contacts) if other != rank}
        made = asyncio.run_coroutine_threadsafe(self._make_links(rank, addresses), self.loop)
        try:
            made.result(timeout=max(0.1, deadline - time.monotonic()))
        finally:
            made.cancel()

    async def _make_links(self, rank: int, addresses: dict[int, str]) -> None:
        from distributed.comm import connect

        # What the handler of a peer understands.
        stamp = {
            "op": _OPERATION,
            "reply": False,
            "run": self.run,
            "attempt": self.attempt,
            "rank": rank,
            "proof": self._proof(rank),
        }
        for other, address in addresses.items():
            comm = await connect(address, timeout=_CONNECT_SECONDS, **self._connection_args)
            link = self.links[other] = DaskLink(self.loop, comm, address, stamp)
            for number, data in self._early.pop(other, ()):
                link.deliver(number, data)

    def _proof(self, rank: int) -> bytes:
        return self._secret.proof(b"message", self.run, struct.pack("<II", self.attempt, rank))

    def deliver(self, rank: int, number: int, proof: bytes, data) -> None:
        """Put a message into the mailbox of its sender; drop it if that is no member."""
        is_known = isinstance(rank, int) and isinstance(proof, bytes) and 0 <= rank < _MOST_MEMBERS
        if not is_known or not hmac.compare_digest(proof, self._proof(rank)):
            return
        if rank in self.links:
            self.links[rank].deliver(number, data)  # type: ignore[attr-defined]
        elif len(self._early.setdefault(rank, [])) < _MOST_WAITING:
            # It has made its links before we have made ours.
            self._early[rank].append((number, data))

    def close(self):
        """See Endpoint.close."""
        super().close()
        with _handlers_lock:
            _mailrooms.pop((self.address, self.run, self.attempt), None)
            worker = self._worker()
            if worker is not None and not any(address == self.address for address, *_ in list(_mailrooms)):
                worker.handlers.pop(_OPERATION, None)


_mailrooms: weakref.WeakValueDictionary[tuple, DaskEndpoint] = weakref.WeakValueDictionary()


def _handler_of(address: str):
    def dasknn_frame(run, attempt, rank, number, proof, data):
        # Of another run, or of an attempt that was given up: nobody waits for it.
        if (endpoint := _mailrooms.get((address, run, attempt))) is not None:
            endpoint.deliver(rank, number, proof, data)

    return dasknn_frame
