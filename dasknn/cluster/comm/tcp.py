"""Links over TCP connections between the threads of two tasks, under TLS where the cluster uses it."""

from __future__ import annotations

import collections
import errno
import hmac
import os
import platform
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import dask

from dasknn.cluster.comm.core import CONNECT_SECONDS, Endpoint, Link, Secret
from dasknn.cluster.comm.transfer import SocketTransfer, after, as_bytes
from dasknn.exceptions import LinkError

# Waking a sleeping thread takes longer than most rounds: poll for this long before going to sleep. Nearly all
# answers come within the first time; after it, others that wait for the processor get it between two looks.
_SPIN_SECONDS = 1e-4
_LONGEST_SPIN_SECONDS = 1e-3
# Not every system has the call.
_let_others_run = getattr(os, "sched_yield", partial(time.sleep, 0))
# How long the kernel at the other end may take to answer, try by try.
_REACH_SECONDS = (1.2, 2.4)
# How long a greeting may take, and how many callers may not have said yet who they are.
_HELLO_SECONDS = 5.0
_MOST_STRANGERS = 32
# The errors of a caller whose connection the listener closes, and how long it waits before it calls again.
_HUNG_UP = (ConnectionAbortedError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
_AGAIN_SECONDS = 0.05
# Errors that prevent a connection only for the moment: too many open files, or the caller has left.
_FOR_A_MOMENT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)

_MAGIC = b"dnn1"
_TLS_RECORD_BYTES = 16_384
_NONCE_BYTES = MAC_BYTES = 32
# magic, run, attempt, rank, nonce, proof
_HELLO = struct.Struct(f"<4s16sII{_NONCE_BYTES}s{MAC_BYTES}s")


class SocketLink(Link):
    """A plain TCP connection, used from one thread; the kernel watches the deadlines."""

    transfer = SocketTransfer

    @staticmethod
    def missing_calls() -> list[str]:
        """Return the names that this system lacks for it; on Windows these are all but the last."""
        needed = ("sendmsg", "recvmsg_into", "MSG_DONTWAIT", "MSG_WAITALL")
        return [name for name in needed if not hasattr(socket, name) and not hasattr(socket.socket, name)]

    def __init__(self, connection: socket.socket, peer: str):
        self.peer = peer
        self._socket = connection

    def wait_at_most(self, seconds: float) -> None:
        whole = int(seconds)
        value = struct.pack("ll", whole, int(1e6 * (seconds - whole)))
        # Python's own timeouts need two system calls for each message.
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self.seconds = seconds

    def swap(self, out: Sequence[Any], n_out: int, into: Sequence[Any], n_into: int) -> None:
        if (sent := self.try_send(out)) < n_out:
            # The peer may be sending as much, and may have to be read from first.
            super().swap(after(as_bytes(out), sent), n_out - sent, into, n_into)
            return
        try:
            received = self._spin(into)
            while received < n_into:
                left = after(as_bytes(into), received)
                n, *_ = self._socket.recvmsg_into(left, 0, socket.MSG_WAITALL)
                if not n:
                    raise self._closed()
                received += n
        except OSError as error:
            raise self._gone(error) from error

    # --- what `SocketTransfer` needs -------------------------------------------------------------------

    def begin_polling(self) -> None:
        """Get ready for `try_send` and `try_receive`."""

    def end_polling(self) -> None:
        """Return to waits of `seconds`."""

    def fileno(self) -> int:
        """Return the number of the connection for `select.poll`."""
        return self._socket.fileno()

    def try_send(self, buffers: Sequence[Any]) -> int:
        """Send what the kernel takes now; return how many bytes."""
        try:
            n = self._socket.sendmsg(buffers, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from error
        self.bytes_sent += n
        return n

    def try_receive(self, buffers: Sequence[Any]) -> int:
        """Receive what has arrived; return how many bytes."""
        try:
            n, *_ = self._socket.recvmsg_into(buffers, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from error
        if not n:
            raise self._closed()
        return n

    def _spin(self, buffers: Sequence[Any]) -> int:
        began = time.perf_counter()
        while True:
            try:
                n, *_ = self._socket.recvmsg_into(buffers, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                waited = time.perf_counter() - began
                if waited > _LONGEST_SPIN_SECONDS:
                    return 0
                if waited > _SPIN_SECONDS:
                    _let_others_run()
            else:
                if not n:
                    raise self._closed()
                return n

    def _closed(self) -> LinkError:
        return LinkError(f"{self.peer} closed its connection.")

    def _gone(self, error: OSError) -> LinkError:
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return LinkError(f"{self.peer} was silent for {self.seconds:g} s.")
        return LinkError(f"The connection to {self.peer} broke: {error!r}.")

    def close(self) -> None:
        _shut(self._socket)


class TLSLink(SocketLink):
    """A TCP connection under TLS, where Python's ssl module watches the deadlines."""

    def wait_at_most(self, seconds: float) -> None:
        self.seconds = seconds

    # The shorter way of plain sockets is not that of TLS.
    swap = Link.swap

    def begin_polling(self) -> None:
        self._socket.setblocking(False)

    def end_polling(self) -> None:
        self._socket.settimeout(self.seconds)

    def try_send(self, buffers: Sequence[Any]) -> int:
        # Sent one by one, small buffers would each become a TLS record. What could not be sent has to be
        # offered again as it was, and is: the same buffers make the same record.
        data = buffers[0] if len(buffers[0]) >= _TLS_RECORD_BYTES else _joined(buffers, _TLS_RECORD_BYTES)
        try:
            n = self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise self._gone(error) from error
        self.bytes_sent += n
        return n

    def try_receive(self, buffers: Sequence[Any]) -> int:
        try:
            n = self._socket.recv_into(buffers[0])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise self._gone(error) from error
        if not n:
            raise self._closed()
        return n


def _joined(buffers: Sequence[memoryview], most: int) -> bytes:
    """Return the first bytes of buffers, as one."""
    data = bytearray()
    for buffer in buffers:
        data += buffer[: most - len(data)]
        if len(data) == most:
            break
    return bytes(data)


def _shut(connection: socket.socket) -> None:
    # This wakes a thread that waits on it, which closing alone does not. It bypasses TLS, whose closing
    # message could block.
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Caller:
    """A connection to a listener that has not said yet from which member it is."""

    def __init__(self, connection: socket.socket):
        self.connection = connection


def _hang_up(callers: collections.deque[_Caller]) -> None:
    """Close the connection of the caller that has been silent longest; its thread notices."""
    with suppress(IndexError):
        _shut(callers.popleft().connection)


class SocketEndpoint(Endpoint):
    """A socket that listens until every member has connected.

    `dasknn.ports` of dask.config names the ports: "0" (any free one, the default) or "40000-40100".

    Parameters
    ----------
    run, attempt, secret, address
        As of `Endpoint`.
    listen_on : str
        The host, where Dask's own comm listens.
    contexts : tuple of ssl.SSLContext or None
        (server, client) for TLS.
    """

    def __init__(
        self,
        run: bytes,
        attempt: int,
        secret: Secret,
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
    def on_worker(cls, run: bytes, attempt: int, secret: Secret, worker: Any) -> SocketEndpoint:
        """Listen where the worker's own comm listens, with its certificates.

        Raises
        ------
        LinkError
            The worker's comm is not based on TCP, or its system lacks what sockets need.
        """
        parts = urlsplit(worker.address)
        if parts.scheme not in ("tcp", "tls", "inproc"):
            raise LinkError(
                f"Expected a worker at tcp://, tls:// or inproc:// to connect by sockets, received "
                f"{worker.address}."
            )
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

    def _connect(self, rank: int, contacts: Sequence[Any], deadline: float) -> None:
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
            raise LinkError(f"{self.address} waited {CONNECT_SECONDS:.0f} s for {', '.join(missing)}.")
        if self._aborted.is_set():
            raise LinkError(f"{self.address} was told to stop.")

    def _call(self, rank: int, other: int, contact: Any, deadline: float) -> None:
        while True:
            try:
                self._greet_peer(rank, other, contact, deadline)
                return
            except _HUNG_UP:
                # The other one may have hung up on this member to make room for newer callers.
                if self._aborted.wait(_AGAIN_SECONDS) or time.monotonic() > deadline:
                    raise

    def _greet_peer(self, rank: int, other: int, contact: Any, deadline: float) -> None:
        host, port, address = contact
        connection = _tune(_reach(host, port, deadline))
        if self._client_context is not None:
            connection = self._client_context.wrap_socket(connection, server_hostname=host)
        self._remember(connection)
        connection.settimeout(_HELLO_SECONDS)
        nonce = _read(connection, _NONCE_BYTES)
        own = os.urandom(_NONCE_BYTES)
        proof = self._proof(b"call", nonce, own, rank)
        connection.sendall(_HELLO.pack(_MAGIC, self.run, self.attempt, rank, own, proof))
        answer = _read(connection, MAC_BYTES)
        if not hmac.compare_digest(answer, self._proof(b"answer", own, nonce, other)):
            raise LinkError(f"{address} does not know the secret of this run.")
        self._add(other, connection, address)

    def _accept(self, wanted: set[int], contacts: Sequence[Any]) -> None:
        """Accept members until all are connected; messages of strangers are bounded in length and in time.

        However many strangers there are, the newest caller is served: members say at once who they are, so
        the caller that has been silent longest makes room.
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

    def _greet(
        self,
        caller: _Caller,
        wanted: set[int],
        contacts: Sequence[Any],
        callers: collections.deque[_Caller],
    ) -> None:
        try:
            caller.connection.settimeout(_HELLO_SECONDS)
            self._remember(caller.connection)
            if self._server_context is not None:
                self._forget(caller.connection)
                # The handshake waits for the caller; meanwhile its connection may have to be closed.
                caller.connection = self._server_context.wrap_socket(
                    caller.connection, server_side=True, do_handshake_on_connect=False
                )
                self._remember(caller.connection)
                caller.connection.do_handshake()
            rank = self._check(_tune(caller.connection))
            with self._lock:
                is_new = rank in wanted and rank not in self.links
            if not is_new:
                raise LinkError("The caller is not a missing member.")
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

    def _check(self, connection: socket.socket) -> int:
        """Return the rank of the caller, after it has proved it, and prove the own rank to the caller."""
        nonce = os.urandom(_NONCE_BYTES)
        connection.sendall(nonce)
        magic, run, attempt, rank, other_nonce, proof = _HELLO.unpack(_read(connection, _HELLO.size))
        expected = self._proof(b"call", nonce, other_nonce, rank)
        if (magic, run, attempt) != (_MAGIC, self.run, self.attempt) or not hmac.compare_digest(
            proof, expected
        ):
            raise LinkError("The caller does not know the secret of this attempt.")
        connection.sendall(self._proof(b"answer", other_nonce, nonce, self._rank))
        return rank

    def _proof(self, role: bytes, nonce: bytes, other: bytes, rank: int) -> bytes:
        return self._secret.proof(role, self.run, struct.pack("<II", self.attempt, rank), nonce, other)

    def _add(self, rank: int, connection: socket.socket, address: str) -> None:
        kind = SocketLink if self._client_context is None else TLSLink
        with self._lock:
            self.links[rank] = kind(connection, address)

    def _remember(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock, suppress(ValueError):
            self._sockets.remove(connection)

    def abort(self) -> None:
        super().abort()
        # This also wakes a thread that waits for members which are missing.
        self._all_here.set()

    def close(self) -> None:
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


def _reach(host: str, port: int, deadline: float) -> socket.socket:
    """Return a connection. TimeoutError: nothing answers, as when a firewall drops what comes.

    The kernel of the other machine answers at once, however much that has to do; two tries send four packets,
    of which one is lost now and then.
    """
    for seconds in _REACH_SECONDS:
        with suppress(TimeoutError):
            seconds = min(seconds, max(0.1, deadline - time.monotonic()))
            return socket.create_connection((host, port), timeout=seconds)
    raise TimeoutError(f"{host}:{port} does not answer")


def _tune(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Buffers are left to the kernel, which makes them longer as a long way needs it; a size that is set here
    # would be limited, and turn that off.
    return connection


def _read(connection: socket.socket, n: int) -> bytes:
    """Read exactly n bytes of a greeting. OSError: it ends before that, or takes too long as a whole."""
    data, deadline = b"", time.monotonic() + _HELLO_SECONDS
    while len(data) < n:
        connection.settimeout(max(1e-3, deadline - time.monotonic()))
        part = connection.recv(n - len(data))
        if not part:
            raise ConnectionAbortedError("A connection ended during its greeting.")
        data += part
    return data
