"""Errors and warnings that name what was expected, what came and what to do."""

import sys


class PartitionError(ValueError):
    """Data that cannot be trained on; the message names the partition and the row."""


class ModelFileError(ValueError):
    """A model file that is damaged, foreign, or from a newer version."""


class ModelNotFoundError(ModelFileError, FileNotFoundError):
    """There is no file: for Keras's users a ValueError, for others a FileNotFoundError."""


class ClusterTimeoutError(TimeoutError):
    """The cluster made no progress for the time allowed; the message says whom we waited for."""


class DataLostError(RuntimeError):
    """Data that cannot be computed again was lost with the worker that held it."""


class NonFiniteLossError(ValueError):
    """The loss is no longer a finite number; the message names the epoch."""


class LinkError(RuntimeError):
    """A worker could not exchange vectors with another one; the message names it."""


class WorkerLeftError(RuntimeError):
    """A worker that was needed is no longer on the cluster; the message names it."""


class SchedulerLostError(ConnectionError):
    """The connection to the scheduler is gone; the message says how to go on."""


class DataSkewWarning(UserWarning):
    """Partitions whose targets or sizes differ so much that training suffers; the message names a remedy."""


def caller_stacklevel() -> int:
    """Return the `stacklevel` with which a warning points at the code that called dasknn."""
    ours = ("dasknn", "contextlib")
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    return level
