"""Compiles the functions of `kernels` when they are first called, once for a machine.

numba keeps what it has compiled in a folder: NUMBA_CACHE_DIR, else beside this file, else one of the user's.
Where none of them can be written to, every process compiles for itself. While one process compiles, others of
the same machine wait for it, instead of doing the same at the same time.

numba compiles again when the file of a function has changed, and does not look at those that it calls. So the
name under which a function is kept has a digest of all files of this folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import njit, typeof

from dasknn.engine.compiled import kernels, products
from dasknn.engine.compiled.arithmetic import OPTIONS, compiled

try:
    import fcntl
except ImportError:
    # A system without them: there, processes that start together compile together.
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("dasknn.engine")
# How long a process waits for another one that compiles, before it does so itself.
_PATIENCE = 120.0
_LOOK_AGAIN = 0.05


class Function:
    """A function of `kernels`, compiled for a dtype when it is first called with it.

    position: of the parameters among its arguments, whose dtype is that of all arrays of floats.
    """

    def __init__(self, function: Callable[..., Any], position: int):
        self._function, self._position = function, position
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._compiled: Any = None

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        dtype = args[self._position].dtype
        if dtype.char not in self._known:
            with self._lock:
                self._compile(args)
                self._known.add(dtype.char)
        return self._compiled(*args)

    def _compile(self, args: tuple[Any, ...]) -> None:
        if self._compiled is None:
            products.prepare()
            self._compiled = self._with_cache()
        signature = tuple(map(typeof, args))
        with _one_process_at_a_time(self._compiled):
            try:
                self._compiled.compile(signature)
            except OSError as error:
                # There was a folder that could be written to when this process began; or the disk is full.
                _log.warning("Compiled steps cannot be kept: %s. Set NUMBA_CACHE_DIR to a folder.", error)
                self._compiled = compiled(self._function)
                self._known.clear()
                self._compiled.compile(signature)

    def _with_cache(self) -> Any:
        function = self._function
        named = FunctionType(function.__code__, function.__globals__, function.__name__)
        named.__qualname__ = f"{function.__qualname__}-{_digest()}"
        try:
            return njit(cache=True, **OPTIONS)(named)
        except RuntimeError as error:
            _log.warning("Compiled steps cannot be kept: %s. Set NUMBA_CACHE_DIR to a folder.", error)
            return compiled(self._function)


@lru_cache(maxsize=1)
def _digest() -> str:
    """Return a digest of the source of all compiled functions."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


@contextmanager
def _one_process_at_a_time(function: Any) -> Iterator[None]:
    """Wait until no other process of this machine compiles the same function."""
    folder = getattr(function.stats, "cache_path", None)
    if fcntl is None or not folder:
        yield
        return
    try:
        os.makedirs(folder, exist_ok=True)
        number = os.open(os.path.join(folder, f"{function.py_func.__name__}.lock"), os.O_CREAT | os.O_WRONLY)
    except OSError:
        # Nothing can be kept there either.
        yield
        return
    try:
        # The system releases the lock with the file, also if this process ends.
        _lock(number)
        yield
    finally:
        os.close(number)


def _lock(number: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_LOOK_AGAIN)
        except OSError:
            # A file system without locks.
            return


serve = Function(kernels.serve, 7)
apply_gradient = Function(kernels.apply_gradient, 1)
