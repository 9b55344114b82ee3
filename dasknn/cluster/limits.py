"""What this process may use: processors and memory, as containers, affinity and quotas leave them."""

from __future__ import annotations

import os

import dask.system


def available_cpus() -> int:
    """Return the number of processors that this process may use."""
    return dask.system.CPU_COUNT


def available_memory() -> int:
    """Return the bytes of memory that this process may use."""
    # Not above: distributed takes a while to import, and many a process does without.
    try:
        import distributed.system
    except ImportError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return distributed.system.MEMORY_LIMIT
