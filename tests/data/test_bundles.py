"""Many partitions are loaded in bundles, a task for each; everything else is as with few of them."""

import asyncio
import os
import time

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.distributed import wait

from dasknn import MLPClassifier
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.data import bundles, loading, partitions
from dasknn.data.targets import ClassSummary
from dasknn.exceptions import PartitionError

N = 60
SETTINGS = {
    "hidden_layer_sizes": (4,),
    "max_iter": 2,
    "batch_size": 64,
    "replicas": 2,
    "strategy": "gradients",
    "random_state": 0,
    "engine": "numpy",
}


def frame(number):
    rows = np.random.default_rng(number).standard_normal((number % 7 + 3, 3)).astype(np.float32)
    return pd.DataFrame(rows, columns=["a", "b", "c"]).assign(label=np.arange(len(rows)) % 2)


def read(number, broken=None):
    if number == broken:
        raise OSError("disk on fire")
    return frame(number)


def frames(n=N, **settings):
    made = dd.from_map(read, range(n), meta=frame(0).iloc[:0], **settings)
    return made[["a", "b", "c"]], made["label"]


def arrays(n=N, chunk=5):
    rows = np.random.default_rng(0).standard_normal((n * chunk, 3)).astype(np.float32)
    return da.from_array(rows, chunks=(chunk, -1)), da.from_array((rows[:, 0] > 0).astype(int), chunks=chunk)


def centered(n=N):
    X, y = arrays(n)
    return X - X.mean(axis=0), y


def rechunked(n=N):
    X, y = arrays(n)
    return X.rechunk((7, -1)), y


def held(n=N):
    X, y = dask.persist(*arrays(n))
    wait([X, y])
    return X, y


def plain_targets(n=N):
    X, y = arrays(n)
    return X, y.compute()


SOURCES = [frames, arrays, centered, rechunked, held, plain_targets]


@pytest.fixture
def tasks(client):
    with ClusterExecutor(client) as executor:
        yield executor


def load(tasks, data, **settings):
    return loading.load(tasks, partitions.parts(*data), "float32", ClassSummary.of, **settings)


def weights(model):
    return [part.tobytes() for part in (*model.coefs_, *model.intercepts_)]


def started(monkeypatch):
    """Return a list to which the names of the tasks of ours are added that are started."""
    names, start = [], ClusterExecutor.start

    def watch(self, graph, wanted):
        names.extend(str(key).rsplit("-", 2)[0] for key in graph.tasks)
        return start(self, graph, wanted)

    monkeypatch.setattr(ClusterExecutor, "start", watch)
    return names


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_bundles_give_the_bits_of_partitions_loaded_one_by_one(client, make, streamed, monkeypatch):
    if streamed:
        monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    settings = {**SETTINGS, "early_stopping": True, "transport": "peer"}
    in_bundles = MLPClassifier(**settings).fit(*make())
    monkeypatch.setattr(bundles, "are_bundled", lambda executor, n_parts: False)
    one_by_one = MLPClassifier(**settings).fit(*make())
    assert weights(in_bundles) == weights(one_by_one)
    assert in_bundles.validation_scores_ == one_by_one.validation_scores_


@pytest.mark.parametrize("make", [frames, arrays, held], ids=lambda make: make.__name__)
def test_a_thousand_partitions_take_few_tasks(client, make, monkeypatch):
    data = make(1000)
    names = started(monkeypatch)
    seen = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    MLPClassifier(**SETTINGS, transport="peer").fit(*data)
    assert len(names) < 100
    # Nor are those of the collection: a task of the scheduler has four transitions or more.
    after = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    assert after - seen < 1000


def test_few_partitions_are_loaded_one_by_one(client, monkeypatch):
    names = started(monkeypatch)
    MLPClassifier(**SETTINGS, transport="peer").fit(*arrays(16))
    assert names.count("dasknn-load") == 16


def test_held_partitions_are_loaded_where_they_lie(client, tasks):
    workers = sorted(client.nthreads())
    X, y = arrays()
    # Every third on one worker, the others on the other.
    at = [workers[number % 3 > 0] for number in range(N)]
    blocks = [
        client.persist(X.blocks[number], workers=[worker], allow_other_workers=False)
        for number, worker in enumerate(at)
    ]
    wait(blocks)
    loaded = load(tasks, (da.concatenate(blocks), y))
    places = tasks.where([spot.bundle.held for spot in loaded.blocks])
    sampled = 8
    assert places[sampled:] == [{worker} for worker in at[sampled:]]


def test_bundles_are_of_partitions_that_go_to_one_replica(tasks):
    loaded = load(tasks, arrays(1000), replicas=2)
    of_bundle = {}
    for number, (bundle, _) in enumerate(loaded.blocks):
        of_bundle.setdefault(bundle, []).append(number)
    assert max(map(len, of_bundle.values())) > 20
    assert all(len({number % 2 for number in own}) == 1 for own in of_bundle.values())


def test_a_bundle_has_few_bytes(tasks, monkeypatch):
    monkeypatch.setattr(bundles, "_BUNDLE_BYTES", 3 * 5 * (3 * 4 + 8))
    loaded = load(tasks, arrays(1000))
    assert {spot.bundle.size for spot in loaded.blocks[8:]} <= {2, 3}


def test_each_partition_is_reported(tasks):
    seen = []
    load(tasks, frames(), feature_names=["a", "b", "c"], on_partition=lambda: seen.append(1))
    assert len(seen) == N


@pytest.mark.parametrize("broken", [3, 40])
def test_a_source_that_raises_names_its_partition_in_a_bundle(client, broken):
    with pytest.raises(OSError, match="disk on fire") as caught:
        MLPClassifier(**SETTINGS).fit(*frames(broken=broken))
    assert f"This happened while partition {broken} was loaded." in caught.value.__notes__


def test_a_source_that_several_partitions_need_is_named_too(client, tasks):
    def fail(block):
        raise OSError("disk on fire")

    good, y = arrays()
    # Partitions 40 and 41 share one task.
    pair = da.from_array(np.ones((10, 3), np.float32), chunks=(10, -1)).map_blocks(fail, dtype=np.float32)
    X = da.concatenate([good[:200], pair.rechunk((5, -1)), good[210:]])
    with pytest.raises(OSError, match="disk on fire") as caught:
        load(tasks, (X, y))
    assert any("while partition 40 was" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_value_in_a_bundle_names_its_partition(client, value):
    X, y = arrays()
    X = X.map_blocks(
        lambda block, block_info=None: np.where(
            block_info[0]["chunk-location"][0] == 40, np.float32(value), block
        ),
        dtype=np.float32,
    )
    with pytest.raises(PartitionError, match=r"Partition 40: X holds"):
        MLPClassifier(**SETTINGS).fit(X, y)


def test_a_streamed_partition_of_a_bundle_that_fails_later_is_named(client, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    X, y = arrays()

    def fails_later(block, block_info=None):
        if block_info[0]["chunk-location"][0] != 40:
            return block
        with open(tmp_path / "count", "ab") as file:
            file.write(b".")
            if file.tell() > 1:
                raise OSError("disk on fire")
        return block

    with pytest.raises(OSError, match="disk on fire") as caught:
        MLPClassifier(**SETTINGS, transport="peer").fit(X.map_blocks(fails_later, dtype=np.float32), y)
    assert "This happened while partition 40 was read again." in caught.value.__notes__


def test_tasks_of_a_user_with_annotations_stay_tasks(tasks, monkeypatch):
    names = started(monkeypatch)
    with dask.annotate(priority=3):
        made = [dask.delayed(read)(number) for number in range(N)]
        parts = [partitions.Part((one[["a", "b", "c"]], one["label"]), (("X",), ("y",))) for one in made]
    loading.load(tasks, parts, "float32", ClassSummary.of)
    assert names.count("dasknn-load") == N


def slowly(number):
    time.sleep(0.02)
    return frame(number)


def end_one(client):
    worker = sorted(client.nthreads())[0]
    client.run(lambda: os._exit(1), workers=[worker], on_error="ignore", wait=False)


def test_bundles_that_are_lost_while_they_are_loaded_are_loaded_again(new_cluster, monkeypatch):
    made = dd.from_map(slowly, range(N), meta=frame(0).iloc[:0])
    client, data = new_cluster(2), (made[["a", "b", "c"]], made["label"])
    calm = weights(MLPClassifier(**SETTINGS).fit(*data))
    start, n_started = loading._Loading._start, []

    def lose(self, *args):
        found = start(self, *args)
        n_started.append(1)
        # After the first few partitions, bundles.
        if len(n_started) == 2:
            end_one(client)
        return found

    monkeypatch.setattr(loading._Loading, "_start", lose)
    assert weights(MLPClassifier(**SETTINGS).fit(*data)) == calm


def test_held_bundles_that_are_lost_are_loaded_again(new_cluster, monkeypatch):
    client, data = new_cluster(2), arrays()
    calm = weights(MLPClassifier(**SETTINGS, early_stopping=True).fit(*data))
    hold_out = loading.Loaded.hold_out

    def lose_first(self, executor, *args):
        executor.wait_for([spot.bundle.held for spot in self.blocks])
        end_one(client)
        return hold_out(self, executor, *args)

    monkeypatch.setattr(loading.Loaded, "hold_out", lose_first)
    assert weights(MLPClassifier(**SETTINGS, early_stopping=True).fit(*data)) == calm


def test_a_bundle_that_cannot_be_recovered_is_made_of_its_sources(tasks):
    loaded = load(tasks, arrays())
    bundle = loaded.blocks[20].bundle
    bundle.held.cancel()
    tasks.client.sync(asyncio.sleep, 0.1)
    assert tasks.broken([bundle.held]) == [True]
    loaded.repair(tasks)
    assert loaded.blocks[20].bundle is not bundle
    tasks.wait_for([spot.bundle.held for spot in loaded.blocks])


def test_parts_of_one_bundle_are_dropped_with_the_last_of_them(client, tasks):
    loaded = load(tasks, arrays())
    even, odd = loaded.divided([range(0, N, 2), range(1, N, 2)])
    both = {spot.bundle for spot in even.blocks} & {spot.bundle for spot in odd.blocks}
    assert both
    keys = {bundle.held.key for bundle in both}
    even.release(tasks)
    assert keys <= set(tasks._held)
    odd.release(tasks)
    assert keys.isdisjoint(tasks._held)
