"""One thread for BLAS inside a task: more would change bits, and slow down other tasks."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _SingleBlasThread:
    """A context in which BLAS has one thread: its number of threads changes bits.

    The setting belongs to the process, so the first task that begins makes it and the last to end undoes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._limiter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter = _blas().limit(limits=1, user_api="blas")
            self._tasks += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._tasks -= 1
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter.restore_original_limits()
                _let_any_thread_set_limits()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    # Finding the libraries takes milliseconds, so it is done once in a process.
    return ThreadpoolController()


def _let_any_thread_set_limits() -> None:
    # Since threadpoolctl 3.8, only the thread that set a limit first may set the next one; calls from others
    # silently do nothing. Tasks begin and end in any thread.
    for library in _blas().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


single_blas_thread = _SingleBlasThread()
