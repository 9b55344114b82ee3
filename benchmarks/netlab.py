"""A lab of several hosts on one machine, whose network can delay, lose, cut off and filter.

    with Lab(3) as lab:
        lab.run(0, "dask", "scheduler", "--host", lab.address(0))
        lab.delay(0.001)
        lab.cut(2)

Hosts are network namespaces; netlab.c, compiled when it is first needed, is the switch between them. Nothing
of it has a name on the machine, so labs do not meet, and nothing is left when the process ends, however it
ends. It needs root, Linux with /dev/net/tun, and a C compiler; `missing()` says what of it there is not.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

_MOST_HOSTS, _MOST_RANGES = 32, 8
# Fields of `struct control` and `struct host` in netlab.c, all of them uint32.
_READY, _DELAY, _LOSS, _BLOCKED, _HOSTS = range(5)
_NAMESPACE, _CUT, _RATE, _N_RANGES, _RANGES = range(5)
_HOST_WORDS = _RANGES + 2 * _MOST_RANGES
_CONTROL_BYTES = 4 * (_HOSTS + _MOST_HOSTS * _HOST_WORDS)
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
# How long the switch may take to make its hosts, and a process to end.
_START_SECONDS = 60.0
_END_SECONDS = 10.0


def missing() -> str:
    """Return what a lab lacks on this machine, "" for nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "root on Linux"
    if not os.path.exists("/dev/net/tun"):
        return "/dev/net/tun"
    if shutil.which("cc") is None:
        return "a C compiler, cc"
    try:
        with Lab(1):
            return ""
    except (OSError, RuntimeError) as error:
        # For example a container that may not make namespaces.
        return str(error)


@functools.cache
def _compiled() -> str:
    """Return the path of the compiled netlab.c, which goes when this process ends."""
    folder = _kept.enter_context(tempfile.TemporaryDirectory(prefix="netlab-"))
    program = os.path.join(folder, "netlab")
    source = Path(__file__).with_suffix(".c")
    done = subprocess.run(["cc", "-O2", "-o", program, source], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cc cannot compile netlab.c: {done.stderr}")
    return program


# Folders are removed when the interpreter ends.
_kept = ExitStack()


class Lab:
    """Hosts with the addresses 10.77.0.1, 10.77.0.2, ..., numbered from 0, and the network between them.

    Parameters
    ----------
    n_hosts : int
        At most 32.
    """

    def __init__(self, n_hosts: int):
        if not 1 <= n_hosts <= _MOST_HOSTS:
            raise ValueError(f"Expected 1 to {_MOST_HOSTS} hosts, received {n_hosts}.")
        self.hosts = range(n_hosts)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="netlab-"))
            file.truncate(_CONTROL_BYTES)
            self._control = stack.enter_context(mmap.mmap(file.fileno(), _CONTROL_BYTES))
            command = [_compiled(), "switch", file.name, str(len(self.hosts))]
            self._switch = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(self._end_switch)
            deadline = time.monotonic() + _START_SECONDS
            while self._word(_READY) < len(self.hosts):
                if self._switch.poll() is not None or time.monotonic() > deadline:
                    self._switch.kill()
                    raise RuntimeError(f"The switch does not start: {self._switch.stderr.read()}")
                time.sleep(0.01)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _end_switch(self) -> None:
        self._switch.stdin.close()
        try:
            self._switch.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._switch.kill()
            self._switch.wait()
        self._switch.stderr.close()

    def _word(self, at: int) -> int:
        return struct.unpack_from("=I", self._control, 4 * at)[0]

    def _set(self, at: int, value: int) -> None:
        struct.pack_into("=I", self._control, 4 * at, value)

    def _at(self, host: int, field: int) -> int:
        return _HOSTS + self.hosts[host] * _HOST_WORDS + field

    # --- the network ----------------------------------------------------------------------------------

    def address(self, host: int) -> str:
        """Return the IPv4 address of a host."""
        return f"10.77.0.{self.hosts[host] + 1}"

    def delay(self, seconds: float) -> None:
        """Let every frame take this long from one host to another."""
        self._set(_DELAY, round(1e6 * seconds))

    def loss(self, share: float) -> None:
        """Lose this share of all frames."""
        self._set(_LOSS, round(1e6 * share))

    def rate(self, host: int, bytes_per_second: float) -> None:
        """Let a host send no more than so many bytes in a second; 0 for no limit."""
        self._set(self._at(host, _RATE), round(bytes_per_second))

    def cut(self, *hosts: int) -> None:
        """Cut hosts off without a word: nothing reaches them, and nothing comes from them."""
        for host in hosts:
            self._set(self._at(host, _CUT), 1)

    def join(self, *hosts: int) -> None:
        """Undo `cut`."""
        for host in hosts:
            self._set(self._at(host, _CUT), 0)

    def firewall(self, *ranges: tuple[int, int], hosts: Iterable[int] | None = None) -> None:
        """Drop whatever begins a connection to a port outside these ranges; without ranges, nothing.

        Connections that exist stay. hosts: those that the firewalls are before; None for all.
        """
        if len(ranges) > _MOST_RANGES:
            raise ValueError(f"Expected at most {_MOST_RANGES} ranges of ports, received {len(ranges)}.")
        for host in self.hosts if hosts is None else hosts:
            for number, port in enumerate(port for pair in ranges for port in pair):
                self._set(self._at(host, _RANGES + number), port)
            self._set(self._at(host, _N_RANGES), len(ranges))

    @property
    def n_blocked(self) -> int:
        """How many frames firewalls have dropped."""
        return self._word(_BLOCKED)

    # --- processes ------------------------------------------------------------------------------------

    def _namespace(self, host: int) -> str:
        return f"/proc/{self._switch.pid}/fd/{self._word(self._at(host, _NAMESPACE))}"

    def run(self, host: int, *command: Any, **settings: Any) -> subprocess.Popen:
        """Start a command on a host; it and its children are killed when the lab is left.

        It is killed, too, when the thread that calls this ends. settings: those of subprocess.Popen.
        """
        words = [_compiled(), "run", self._namespace(host), str(os.getpid()), *map(str, command)]
        process = subprocess.Popen(words, start_new_session=True, **settings)
        self._stack.callback(_end, process.pid, process.wait)
        return process

    def call(self, host: int, function: Callable[..., Any], *args: Any, output: str = os.devnull) -> Call:
        """Start function(talk, *args) on a host, in a forked process; see `Call`.

        Function and arguments are pickled. The process and its children are killed when the lab is left.
        output: a file, to which it writes what would go to the terminal.
        """
        ours, theirs = multiprocessing.Pipe()
        # From a process without threads that has imported what is needed.
        context = multiprocessing.get_context("forkserver")
        args = (self._namespace(host), output, theirs, function, args)
        process = context.Process(target=_call, args=args, daemon=False)
        process.start()
        theirs.close()
        self._stack.callback(ours.close)
        self._stack.callback(_end, process.pid, process.join)
        return Call(process, ours)


class Call:
    """A function that runs on a host of a lab.

    It gets a `multiprocessing.connection.Connection` as its first argument, to talk to whoever has called it.
    """

    def __init__(self, process: Any, connection: Any):
        self.process, self._connection = process, connection

    def send(self, message: Any) -> None:
        """Send an object to the function."""
        self._connection.send(message)

    def receive(self, seconds: float) -> Any:
        """Return the next object that the function has sent.

        Raises
        ------
        TimeoutError
            There was none within so many seconds.
        RuntimeError
            The function has raised an error, or its process has ended.
        """
        if not self._connection.poll(seconds):
            raise TimeoutError(f"No message for {seconds} s.")
        try:
            kind, message = self._connection.recv()
        except EOFError:
            raise RuntimeError("The process has ended.") from None
        if kind == "error":
            raise RuntimeError(message)
        return message

    def messages(self) -> list[Any]:
        """Return what has arrived until now."""
        found = []
        while self._connection.poll():
            found.append(self.receive(0))
        return found


class Talk:
    """The other end of a `Call`."""

    def __init__(self, connection: Any):
        self._connection = connection

    def send(self, message: Any) -> None:
        self._connection.send(("message", message))

    def has_message(self) -> bool:
        return self._connection.poll()

    def receive(self) -> Any:
        return self._connection.recv()


def _call(namespace: str, output: str, connection: Any, function: Callable[..., Any], args: tuple) -> None:
    os.setsid()
    # The process that forks ends with the one that has called it, and this one with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    enter(namespace)
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    try:
        function(Talk(connection), *args)
    except BaseException:
        with suppress(OSError):
            connection.send(("error", traceback.format_exc()))
        raise


def enter(namespace: str) -> None:
    """Move this process, which has one thread, into a network namespace."""
    # os.setns is new in Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace) as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _end(pid: int, wait: Callable[[], Any]) -> None:
    # The process is the first of a session of its own; stopped ones end, too.
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    wait()
