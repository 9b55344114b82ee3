"""Which numba there is, without importing it."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec


@lru_cache(maxsize=1)
def numba_version() -> str | None:
    """Return the version of numba in this process's environment; None where it cannot be used.

    On Windows it is not: threads of compiled steps wait for one another by calls of POSIX systems.
    """
    if os.name != "posix" or find_spec("numba") is None:
        return None
    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return None
