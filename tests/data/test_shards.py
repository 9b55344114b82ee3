"""Shards of data that is in memory already: which of them copy it."""

import time

import dask.array as da
import numpy as np
import pytest
from dask.distributed import wait

from dasknn import MLPClassifier
from dasknn.callbacks import Callback

ROWS = 400


class Shards(Callback):
    """Looks at the shards on workers in this process before the first epoch."""

    def __init__(self, workers):
        self.workers, self.X = workers, []

    def state(self):
        return None

    def on_epoch_begin(self, epoch, logs=None):
        n_rows = 0
        while n_rows < ROWS:
            time.sleep(0.01)
            found = {key: worker.data[key] for worker in self.workers() for key in list(worker.data)}
            self.X = [shard.X for key, shard in found.items() if "dasknn-shard" in str(key)]
            n_rows = sum(map(len, self.X))


def shards_of(new_cluster, make, dtype, replicas, n_workers=2, **settings):
    """Return X of each shard, and of each chunk on the workers."""
    client = new_cluster(n_workers, processes=False)
    data = client.persist(make()) if settings.pop("persist", True) else make()
    wait(data)
    workers = client.cluster.workers
    chunks = [value for worker in workers.values() for value in worker.data.values()]
    look = Shards(workers.values)
    settings = {"max_iter": 1, "transport": "peer", "strategy": "gradients", **settings}
    MLPClassifier((4,), dtype=dtype, replicas=replicas, callbacks=[look], **settings).fit(*data)
    return look.X, [chunk for chunk in chunks if getattr(chunk, "ndim", 0) == 2]


def arrays(dtype, n_blocks):
    rows = np.random.default_rng(0).standard_normal((ROWS, 5)).astype(dtype)
    return da.from_array(rows, chunks=(ROWS // n_blocks, -1)), da.from_array(rows[:, 0] > 0, ROWS // n_blocks)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n_blocks", "replicas"), [(2, 2), (1, 2), (1, 3), (2, 3)])
def test_persisted_rows_of_one_block_are_not_copied(new_cluster, dtype, n_blocks, replicas):
    X, chunks = shards_of(new_cluster, lambda: arrays(dtype, n_blocks), dtype, replicas)
    assert len(X) == replicas
    shared = [any(np.shares_memory(own, chunk) for chunk in chunks) for own in X]
    # Of two blocks and three replicas, the second replica has rows of both.
    assert shared.count(False) == (n_blocks, replicas).count(2) * (replicas == 3)


def test_rows_of_another_dtype_do_not_keep_the_whole_block(new_cluster):
    X, chunks = shards_of(new_cluster, lambda: arrays("float64", 1), "float32", 2)
    assert not any(np.shares_memory(own, chunk) for own in X for chunk in chunks)
    assert all(own.base is None for own in X)


def test_rows_that_nobody_else_holds_do_not_keep_the_whole_block(new_cluster):
    X, _ = shards_of(new_cluster, lambda: arrays("float32", 1), "float32", 2, persist=False)
    assert all(own.base is None for own in X)
