"""One thread for BLAS inside a task: more would change bits, and slow the other tasks down."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _SingleBlasThread:
    """While any task of this process runs, BLAS has one thread: its number of threads changes bits.

    The setting belongs to the process, so the first task to begin makes it and the last to end undoes it.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._tasks = 0
        self._limiter: Any = None

    def __enter__(self):
        with self._lock:
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter = _blas().limit(limits=1, user_api="blas")
            self._tasks += 1

    def __exit__(self, *exc_info):
        with self._lock:
            self._tasks -= 1
            if self._tasks == 0:
                _let_any_thread_set_limits()
                self._limiter.restore_original_limits()
                _let_any_thread_set_limits()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, so once a process.
    return ThreadpoolController()


def _let_any_thread_set_limits() -> None:
    # From threadpoolctl 3.8 on, only the thread that set a limit first may set the next; calls of others
    # do nothing, silently. Our tasks begin and end in any thread.
    for library in _blas().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


single_blas_thread = _SingleBlasThread()
