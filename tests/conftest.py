"""Clusters and data that several test files share. Clusters are real processes unless a name says threads."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import ExitStack
from hashlib import sha256
from importlib.util import find_spec

# Before numpy is imported. Threads of BLAS that wait for one another, in as many processes as the machine has
# processors or more, take twice the time of one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import dask
import dask.array as da
import numpy as np
import programs
import pytest
from distributed import Client, LocalCluster, Scheduler
from distributed.utils import get_mp_context
from sklearn.datasets import load_digits

# Names of `dasknn` are imported when they are first used. What workers need is used here, to be preloaded.
from dasknn import MLPClassifier, Sequential, TablePreprocessor, evaluate  # noqa: F401
from dasknn.cluster import clock  # noqa: F401

# Tests press Ctrl-C, which programs in the background are started to ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)

# xdist sets it, and tqdm 4.66 would cut its bars to that width where stderr is no terminal.
os.environ.pop("COLUMNS", None)

# Worker processes are forked from one that has imported what they need, which takes seconds each time.
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
get_mp_context()
OF_DASKNN = sorted(name for name in sys.modules if name.startswith("dasknn"))
COMPILED = []
if find_spec("numba"):
    # Here first: to compile takes longer than a cluster may take to start.
    import compiled_steps  # noqa: F401

    COMPILED = ["tests.compiled_steps"]
# Functions of tests that run on workers are imported there, and with them pytest.
multiprocessing.set_forkserver_preload(["distributed", "dask.dataframe", "pytest", *OF_DASKNN, *COMPILED])

# How long the scheduler may take to forget what has been released.
_FORGET_SECONDS = 20


# --- which tests need a cluster ---------------------------------------------------------------------

# Where a test trains; tests with several such places ask for their client only in these.
_ON_WORKERS = {"client", "cluster", "tasks", "peer"}


def _needs_a_cluster(item):
    places = item.callspec.params.values() if hasattr(item, "callspec") else ()
    asks = "request" in item.fixturenames and any(
        isinstance(place, str) and place in _ON_WORKERS for place in places
    )
    return asks or not {"start_cluster", "start_program"}.isdisjoint(item.fixturenames)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in filter(_needs_a_cluster, items):
        item.add_marker(pytest.mark.cluster)


class _Watch:
    """Fails a test that starts a scheduler in this process and is not marked as one that does."""

    item = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        self.item = item

    def start(self, scheduler, *args, **settings):
        assert self.item.get_closest_marker("cluster"), "Start clusters by the fixture `start_cluster`."
        return _start(scheduler, *args, **settings)


_start = Scheduler.__init__


def pytest_configure(config):
    watch = _Watch()
    config.pluginmanager.register(watch)
    Scheduler.__init__ = lambda *args, **settings: watch.start(*args, **settings)


# --- clusters and programs --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def start_cluster():
    """start_cluster(n_workers, processes=True, ...) returns a new cluster, to be used by `with`."""

    def start(n_workers, *, processes=True, threads_per_worker=1, **settings):
        settings = {"dashboard_address": ":0", **settings}
        return LocalCluster(
            n_workers=n_workers, threads_per_worker=threads_per_worker, processes=processes, **settings
        )

    return start


@pytest.fixture(scope="session")
def cluster(start_cluster):
    """Two worker processes with one thread each, for tests that leave them alive."""
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of the two workers; fails the test that leaves a task on the scheduler."""
    with Client(cluster) as client:
        yield client
        assert_nothing_left(client)


@pytest.fixture
def new_cluster(start_cluster):
    """Make clusters of a test's own: new_cluster(n_workers, processes=True) returns a client."""
    with ExitStack() as stack:

        def make(n_workers, **settings):
            return stack.enter_context(Client(stack.enter_context(start_cluster(n_workers, **settings))))

        yield make


@pytest.fixture
def start_program():
    """start_program(function, *args, output=path) returns the process that calls it, killed in the end."""
    started = []

    def start(function, *args, output=os.devnull, own_session=False):
        open(output, "w").close()
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=programs.run, args=(output, own_session, function, args))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="session")
def digits():
    """X (1797, 64) float64 in [0, 16], y (1797,) int."""
    return load_digits(return_X_y=True)


@pytest.fixture
def dask_digits(digits):
    """The digits as Dask arrays of 4 uneven partitions."""
    X, y = digits
    chunks = (700, 100, 500, 497)
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


def tasks_left(client):
    """Names of the tasks that the scheduler knows."""
    return client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks])


def assert_nothing_left(client, but=()):
    """Fail unless the scheduler soon knows no tasks except those whose name contains one of `but`."""
    deadline = time.monotonic() + _FORGET_SECONDS
    while left := [key for key in tasks_left(client) if not any(name in key for name in but)]:
        assert time.monotonic() < deadline, f"left on the scheduler: {left[:10]}"
        time.sleep(0.05)


def params_of(model):
    """All parameters of a fitted estimator as one array, members of an ensemble included."""
    return np.array(model._members)


def bits(model):
    """A name for all parameters of a fitted estimator, to the last bit."""
    return sha256(params_of(model).tobytes()).hexdigest()


def left_on_worker(dask_worker):
    """What a training may leave in a worker's process."""
    import gc
    import threading

    from dasknn.cluster.comm import core
    from dasknn.cluster.comm import dask as comm_dask

    gc.collect()
    return {
        "endpoints": len(core._endpoints),
        "mailrooms": len(comm_dask._mailrooms),
        "handlers": [name for name in dask_worker.handlers if "dasknn" in name],
        "threads": [thread.name for thread in threading.enumerate() if "dasknn" in thread.name],
    }


def assert_workers_clean(client):
    deadline = time.monotonic() + 20
    while True:
        left = client.run(left_on_worker)
        dirty = {
            at: found
            for at, found in left.items()
            if found["endpoints"] or found["mailrooms"] or found["handlers"] or found["threads"]
        }
        if not dirty:
            return
        assert time.monotonic() < deadline, dirty
        time.sleep(0.1)
