"""Which engine a training runs on: chosen once, before its first step, for all workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from dasknn.cluster.executor import Executor
from dasknn.engine import engines
from dasknn.engine.state import TrainingJob
from dasknn.exceptions import EngineError

logger = logging.getLogger("dasknn")

# Reading what was compiled before takes a fraction of this.
_NOTICEABLE = 2.0
_INSTALL = "Install it on the driver and on every worker: pip install 'dasknn[fast]'"


class EngineChoice(NamedTuple):
    """The name of an engine, and why it is that one."""

    name: str
    reason: str


def choose(
    asked: str, job: TrainingJob, executor: Executor | None, earlier: str | None, n_places: int = 0
) -> EngineChoice:
    """Return the engine of a training, with all that it needs in place.

    Parameters
    ----------
    asked : {"auto", "numpy", "numba"}
    job : TrainingJob
    executor : Executor or None
        None: the training stays in this process.
    earlier : str or None
        The engine of the checkpoint that is resumed, which "auto" keeps.
    n_places : int, default=0
        How many threads of workers compute; 0: one for each replica of the job.

    Raises
    ------
    EngineError
        numba was asked for, or has to be kept, and is missing or of different versions.
    """
    if asked == engines.AUTO and earlier is not None:
        asked, why = earlier, "as before the training was resumed"
    else:
        why = "asked for"
    if asked == engines.NUMPY:
        return EngineChoice(engines.NUMPY, f"numpy: {why}")
    if reason := engines.reason_against(job.network, job.optimizer):
        return EngineChoice(engines.NUMPY, f"numpy: there are no compiled steps for {reason}")
    problem = _problem(job, executor, n_places or job.replicas)
    if not problem:
        if asked == engines.AUTO:
            why = "compiled steps hold no lock"
        where = " here and on all workers" if executor is not None and executor.is_remote else ""
        return EngineChoice(engines.NUMBA, f"numba: {why}; version {engines.numba_version()}{where}")
    if asked == engines.NUMBA:
        # With another engine, the training would not be that of the checkpoint.
        instead = "use" if earlier is None else "start over in another folder with"
        raise EngineError(
            f"Expected numba for engine='numba' ({why}), but {problem}. {_INSTALL}, or {instead} "
            "engine='numpy'."
        )
    return EngineChoice(engines.NUMPY, f"numpy: {problem}")


def _problem(job: TrainingJob, executor: Executor | None, n_places: int) -> str:
    """Return why compiled steps cannot run everywhere; "" if they are ready to."""
    version = engines.numba_version()
    if version is None:
        return "this process has no numba"
    dtype = job.network.dtype
    preparation = engines.Preparation(dtype)
    if executor is None or not executor.is_remote:
        with _announced(dtype):
            return preparation()
    for worker, theirs in executor.answers(engines.numba_version).items():
        if theirs != version:
            has = "no numba" if theirs is None else f"numba {theirs}"
            return f"worker {worker} has {has}, and this process {version}"
    with _announced(dtype):
        found = executor.problems(preparation, n_places)
    for worker, problem in found.items():
        if problem:
            return f"worker {worker}: {problem}"
    executor.require(engines.numba_version, version)
    return ""


@contextmanager
def _announced(dtype: str) -> Iterator[None]:
    """Log what takes so long, if it does."""
    text = "Compiling the steps for %s, once on each machine: this takes some seconds."
    timer = threading.Timer(_NOTICEABLE, logger.warning, (text, dtype))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
