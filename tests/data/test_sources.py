"""Partitions that go together are read together."""

import dask
import dask.array as da
import numpy as np
from distributed import wait

from dasknn import MLPClassifier


def block(block_id, path=None):
    """Make a block of rows; say so in a file, since workers are processes."""
    with open(path, "ab") as file:
        file.write(b".")
    return np.random.default_rng(block_id[0]).standard_normal((50, 4))


def data(path, name):
    """Return X and y, which are columns of one array of 8 blocks."""
    rows = da.map_blocks(
        block, path=path, dtype=float, meta=np.empty((0, 0)), chunks=((50,) * 8, (4,)), name=name
    )
    return rows[:, :3], (rows[:, 3] > 0).astype(int)


def test_arrays_that_come_from_one_array_are_read_once(tmp_path):
    X, y = data(tmp_path / "fit", "fit")
    weight = abs(X[:, 0])
    model = MLPClassifier((3,), max_iter=2, random_state=0).fit(X, y, weight)
    assert (tmp_path / "fit").stat().st_size == 8
    X, y = data(tmp_path / "score", "score")
    model.score(X, y)
    assert (tmp_path / "score").stat().st_size == 8


def test_they_train_as_arrays_do_that_were_computed_before(tmp_path):
    X, y = data(tmp_path / "count", "rows")
    together = MLPClassifier((3,), max_iter=2, random_state=0).fit(X, y)
    X, y = dask.persist(X, y)
    assert_same(together, MLPClassifier((3,), max_iter=2, random_state=0).fit(X, y))


def assert_same(one, other):
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_the_scheduler_holds_of_them_is_made_in_the_same_way(client, tmp_path):
    X, y = data(tmp_path / "count", "held")
    kept = client.persist([X, y])
    wait(kept)
    client.run_on_scheduler(listen)
    try:
        MLPClassifier((3,), max_iter=1, random_state=0).fit(X, y)
        assert client.run_on_scheduler(heard) == []
    finally:
        client.run_on_scheduler(stop_listening)
    assert (tmp_path / "count").stat().st_size == 8


def listen(dask_scheduler):
    import logging

    class Handler(logging.Handler):
        def emit(self, record):
            self.said.append(record.getMessage())

    dask_scheduler.extensions["said"] = handler = Handler(logging.WARNING)
    handler.said = []
    logging.getLogger("distributed.scheduler").addHandler(handler)


def heard(dask_scheduler):
    return [line for line in dask_scheduler.extensions["said"].said if "run_spec" in line]


def stop_listening(dask_scheduler):
    import logging

    handler = dask_scheduler.extensions.pop("said")
    logging.getLogger("distributed.scheduler").removeHandler(handler)
