"""Errors and warnings that say what was expected, what was received and what to do."""

import sys


class PartitionError(ValueError):
    """A partition has data that cannot be trained on; the message names the partition and the row."""


class ModelFileError(ValueError):
    """A model file is damaged, has another format, or is from a newer version."""


class ModelNotFoundError(ModelFileError, FileNotFoundError):
    """A model file does not exist: a ValueError, as in Keras, and a FileNotFoundError."""


class ClusterTimeoutError(TimeoutError):
    """The cluster made no progress for `dasknn.timeout` seconds; the message names the workers."""


class DataLostError(RuntimeError):
    """Data that cannot be computed again was lost with the worker that held it."""


class NonFiniteLossError(ValueError):
    """The loss is no longer a finite number; the message names the epoch."""


class TrainingStopped(Exception):
    """A training is ended from outside: it keeps the weights of the last whole epoch, if there is one."""


class LinkError(RuntimeError):
    """A worker could not exchange data with another one; the message names it."""


class WorkerLeftError(RuntimeError):
    """A worker that was needed has left the cluster or does not answer; the message names it."""


class SchedulerLostError(ConnectionError):
    """The connection to the scheduler is lost; the message says how to resume."""


class EngineError(ValueError):
    """A training cannot run on the engine that was asked for; the message names the worker that lacks it."""


class DataSkewWarning(UserWarning):
    """Targets or sizes of partitions differ so much that training suffers; the message names a remedy."""


def caller_stacklevel() -> int:
    """Return the `stacklevel` with which a warning points at the code that called dasknn."""
    ours = ("dasknn", "contextlib")
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    return level
