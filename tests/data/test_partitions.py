"""Whatever comes in, row-aligned shards come out, and bad data is named before training."""

import math
from functools import partial

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from dasknn import MLPClassifier
from dasknn.callbacks import LambdaCallback
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.data import loading, partitions
from dasknn.data import shards as shards_module
from dasknn.data.bundles import Bundle, Spot
from dasknn.data.shards import deal, make_shards
from dasknn.data.targets import ClassSummary, NumberSummary
from dasknn.engine.state import Shard
from dasknn.exceptions import PartitionError

N = 60


def table(seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.standard_normal((N, 3)), columns=["a", "b", "c"])
    frame["label"] = rng.integers(0, 3, N)
    frame["weight"] = rng.uniform(0.5, 2, N)
    return frame


def loaded(X, y, weight=None, summarize=ClassSummary.of, n_parts=1, names=None):
    parts = partitions.parts(X, y, weight, n_parts)
    return loading.load(LocalExecutor(), parts, "float64", summarize, names)


def shards_of(data, replicas):
    """Return {shard: Shard} and the replicas' lists of shards."""
    encoder = data.targets.encoder("float64")
    made = make_shards(
        LocalExecutor(), data, replicas, lambda X, y, weight: Shard(X, encoder.encode(y), weight)
    )
    return made._in_memory, made


def blocks_of(tasks, data):
    """Return the blocks of loaded data."""
    graph = Graph()
    groups = data.add_blocks(graph)
    lists = tasks.run(graph, [graph.add("same", lambda blocks: blocks, group.reference) for group in groups])
    found = {n: own[at] for group, own in zip(groups, lists, strict=True) for n, at in group.at.items()}
    return [found[number] for number in range(len(data.parts))]


def rows_in(shards):
    return np.vstack([shard.X for shard in shards.values()])


def sorted_rows(X):
    return X[np.lexsort(X.T)]


def forms():
    frame = table()
    X, y, weight = frame[["a", "b", "c"]], frame["label"], frame["weight"]
    values = X.to_numpy()
    ddf = dd.from_pandas(frame, npartitions=4, sort=False)
    array = da.from_array(values, chunks=(17, -1))
    unknown = dd.from_pandas(frame, npartitions=4, sort=False)
    coo = sparse.coo_matrix(values)
    return {
        "scipy COO": (coo, y.to_numpy(), weight.to_numpy()),
        "one column of weights": (ddf[["a", "b", "c"]], ddf["label"], ddf[["weight"]]),
        "numpy": (values, y.to_numpy(), weight.to_numpy()),
        "pandas": (X, y, weight),
        "lists": (values.tolist(), y.tolist(), weight.tolist()),
        "scipy sparse": (sparse.csr_matrix(values), y.to_numpy(), weight.to_numpy()),
        "Dask array": (array, da.from_array(y.to_numpy(), chunks=17), None),
        "y in other chunks": (array, da.from_array(y.to_numpy(), chunks=25), None),
        "plain y and weight": (array, y.to_numpy(), weight.to_list()),
        "Dask dataframe": (ddf[["a", "b", "c"]], ddf["label"], ddf["weight"]),
        "y in a dataframe": (ddf[["a", "b", "c"]], ddf[["label"]], None),
        "unknown chunks": (unknown[["a", "b", "c"]].values, unknown["label"].values, None),
        "dataframe and array": (ddf[["a", "b", "c"]], ddf["label"].values, None),
        "array and series": (ddf[["a", "b", "c"]].values, ddf["label"], None),
        "sparse chunks": (array.map_blocks(sparse.csr_matrix), da.from_array(y.to_numpy(), 17), None),
    }


@pytest.mark.parametrize("form", list(forms()))
@pytest.mark.parametrize("replicas", [1, 3])
def test_every_form_of_data_becomes_the_same_rows(form, replicas):
    X, y, weight = forms()[form]
    frame = table()
    data = loaded(X, y, weight, n_parts=2)
    assert data.n_rows == N
    assert_array_equal(data.targets.labels, [0, 1, 2])
    shards, _ = shards_of(data, replicas)
    dense = {
        k: Shard(np.asarray(s.X.todense()) if sparse.issparse(s.X) else s.X, s.y, s.weight)
        for k, s in shards.items()
    }
    expected = frame[["a", "b", "c"]].to_numpy()
    assert_array_equal(sorted_rows(rows_in(dense)), sorted_rows(expected))
    # Rows and targets still belong together.
    label_of = {tuple(row): label for row, label in zip(expected, frame["label"], strict=True)}
    weight_of = {tuple(row): w for row, w in zip(expected, frame["weight"], strict=True)}
    for shard in dense.values():
        assert [label_of[tuple(row)] for row in shard.X] == shard.y.tolist()
        if weight is not None:
            assert [weight_of[tuple(row)] for row in shard.X] == shard.weight.tolist()


def test_a_dataframe_whose_columns_are_read_in_other_partitions_stays_aligned(tmp_path):
    # dask.dataframe fuses Parquet files when few of their columns are read, so that a series taken from
    # a frame has fewer partitions than the rest of the frame.
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((N, 30)))
    frame.columns = [f"x{i}" for i in range(30)]
    frame["label"] = (frame["x0"] > 0).astype(int)
    dd.from_pandas(frame, npartitions=10, sort=False).to_parquet(tmp_path)
    read = dd.read_parquet(tmp_path)
    data = loaded(read.drop(columns="label"), read["label"])
    shards, _ = shards_of(data, 2)
    for shard in shards.values():
        assert_array_equal(shard.y[:, 0], shard.X[:, 0] > 0)
    assert data.n_rows == N


def test_dataframes_from_several_files_keep_their_partitions(tmp_path):
    # Read apart, the wide one is fused in other groups of files than the narrow one.
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.standard_normal((N, 30)), columns=[f"x{i}" for i in range(30)])
    narrow = pd.DataFrame({"label": (wide["x0"] > 0).astype(int), **{f"z{i}": 0.0 for i in range(4)}})
    for name, frame in (("wide", wide), ("narrow", narrow)):
        dd.from_pandas(frame, npartitions=10, sort=False).to_parquet(tmp_path / name)
    X, y = dd.read_parquet(tmp_path / "wide")[["x0", "x1"]], dd.read_parquet(tmp_path / "narrow")["label"]
    shards, _ = shards_of(loaded(X, y), 2)
    for shard in shards.values():
        assert_array_equal(shard.y[:, 0], shard.X[:, 0] > 0)


def test_nullable_labels_in_several_columns_and_mixed_kinds_of_labels():
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "p": [0, 1, 1, 0], "q": [1, 1, 0, 0]})
    ddf = dd.from_pandas(frame.astype({"p": "Int64", "q": "Int64"}), npartitions=2, sort=False)
    assert loaded(ddf[["a"]], ddf[["p", "q"]]).targets.multilabel
    with pytest.raises(ValueError, match="labels of text in some partitions and of numbers in others"):
        ClassSummary.of(np.array([0, 1])) + ClassSummary.of(np.array(["a", "b"]))


@given(rows=st.lists(st.integers(0, 500), min_size=1, max_size=30), replicas=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_every_row_is_dealt_out_once_and_evenly(rows, replicas):
    if sum(rows) < replicas:
        return
    dealt = deal(rows, replicas)
    slices = sorted((piece.block, piece.begin, piece.end) for replica in dealt for piece in replica)
    reached = dict.fromkeys(range(len(rows)), 0)
    for block, begin, end in slices:
        assert begin == reached[block] < end
        reached[block] = end
    assert list(reached.values()) == rows
    share = sum(rows) / replicas
    for replica in dealt:
        assert abs(sum(piece.n_rows for piece in replica) - share) <= 1 + 0.1 * share


def test_equal_partitions_are_not_cut():
    dealt = deal([50] * 6, 3)
    assert [[piece.block for piece in replica] for replica in dealt] == [[0, 3], [1, 4], [2, 5]]


def test_a_thousand_small_partitions_become_few_shards():
    X = da.ones((3000, 4), chunks=(3, -1))
    y = da.arange(3000, chunks=3) % 2
    shards, made = shards_of(loaded(X, y), 2)
    assert len(shards) == 2
    assert [sum(rows.values()) for rows in made.rows_of_replicas()] == [1500, 1500]


def test_empty_partitions_vanish_and_labels_that_a_partition_lacks_are_known():
    X = da.from_array(np.arange(12.0).reshape(6, 2), chunks=((0, 2, 0, 2, 2, 0), -1))
    y = da.from_array(np.array(["no", "no", "yes", "yes", "maybe", "maybe"]), chunks=X.chunks[:1])
    data = loaded(X, y)
    assert data.targets.labels.tolist() == ["maybe", "no", "yes"]
    shards, _ = shards_of(data, 2)
    assert sum(len(shard) for shard in shards.values()) == 6
    assert sorted(np.concatenate([shard.y for shard in shards.values()]).tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([True, False, True], [False, True]),
        (pd.Categorical(["x", "y", "x"]), ["x", "y"]),
        (pd.array([3, 1, 3], dtype="Int64"), [1, 3]),
        (pd.array(["u", "v", "u"], dtype="string"), ["u", "v"]),
        ([1.0, 2.0, 1.0], [1, 2]),
    ],
    ids=["strings", "booleans", "categories", "nullable", "string dtype", "whole floats"],
)
def test_labels_of_any_kind_are_encoded(labels, classes):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "label": labels})
    ddf = dd.from_pandas(frame, npartitions=2, sort=False)
    data = loaded(ddf[["a"]], ddf["label"])
    assert data.targets.labels.tolist() == classes
    shards, _ = shards_of(data, 1)
    assert [shard.y[:, 0].tolist() for shard in shards.values()] == [
        [float(label == classes[1]) for label in list(labels)]
    ]


def test_a_label_that_was_never_seen_cannot_be_encoded():
    encoder = ClassSummary.of(np.array([1, 2])).encoder("float64")
    with pytest.raises(ValueError, match=r"Expected labels among \[1 2\], received .*7"):
        encoder.encode(np.array([1, 7]))


# --- errors -----------------------------------------------------------------------------------------


def plain():
    frame = table()
    return frame[["a", "b", "c"]].to_numpy(copy=True), frame["label"].to_numpy(copy=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_with_partition_row_and_column(bad):
    X, y = plain()
    X[37, 1] = bad
    with pytest.raises(PartitionError, match=rf"Partition 1: X holds {bad} in row 7, column 'b'"):
        loaded(da.from_array(X, chunks=(30, -1)), da.from_array(y, chunks=30), names=["a", "b", "c"])


def test_a_missing_value_in_sparse_chunks_is_named():
    X, y = plain()
    X[37, 1] = np.nan
    chunks = da.from_array(X, chunks=(30, -1)).map_blocks(sparse.csr_matrix)
    with pytest.raises(PartitionError, match="Partition 1: X holds nan in row 7, column 1"):
        loaded(chunks, da.from_array(y, chunks=30))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_label_is_named(missing):
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "label": pd.Series(["x", "y", missing, "x"], dtype=object)})
    ddf = dd.from_pandas(frame, npartitions=1, sort=False)
    with (
        dask.config.set({"dataframe.convert-string": False}),
        pytest.raises(PartitionError, match=r"Partition 0: y holds .* in row 2"),
    ):
        loaded(ddf[["a"]], ddf["label"])


def test_missing_values_of_pandas_nullable_dtypes_are_found():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "label": [0, 1, 0]})
    ddf = dd.from_pandas(frame, npartitions=1, sort=False)
    with pytest.raises(PartitionError, match="Partition 0: X holds nan in row 1, column 'a'"):
        loaded(ddf[["a"]], ddf["label"], names=["a"])


def test_negative_and_vanishing_weights_are_refused():
    X, y = plain()
    with pytest.raises(PartitionError, match=r"sample_weight holds -1\.0 in row 3; expected >= 0"):
        loaded(X, y, np.r_[np.ones(3), -1, np.ones(N - 4)])
    with pytest.raises(ValueError, match="at least one non-zero number"):
        loaded(X, y, np.zeros(N))


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="at least one row to learn from, found 0 samples in 2 part"):
        loaded(da.ones((0, 3), chunks=((0, 0), 3)), da.ones(0, chunks=((0, 0),), dtype=int))


def test_fewer_rows_than_replicas_are_refused():
    X, y = plain()
    with pytest.raises(ValueError, match="at least one row for each of 3 replicas, received 2"):
        shards_of(loaded(X[:2], y[:2]), 3)


@pytest.mark.parametrize("chunks", [30, 20])
def test_y_of_another_length_is_refused(chunks):
    X, y = plain()
    with pytest.raises(ValueError, match="X has 60 rows, y has 59"):
        loaded(da.from_array(X, chunks=(30, -1)), da.from_array(y[:-1], chunks=chunks))
    with pytest.raises(ValueError, match="X has 60 rows, y has 59"):
        loaded(X, y[:-1])


def test_partitions_of_other_lengths_are_named():
    X, y = plain()
    X = da.from_array(X, chunks=(30, -1)).map_blocks(lambda block: block[1:], chunks=((np.nan,) * 2, (3,)))
    with pytest.raises(PartitionError, match=r"Partition \d: X has 29 rows, y has 30"):
        loaded(X, da.from_array(y, chunks=30))


def test_chunks_of_columns_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"received 3 chunks of columns\. Use X\.rechunk\(\{1: -1\}\)"):
        partitions.parts(da.ones((6, 3), chunks=(2, 1)), da.ones(6, chunks=2))


def test_partitions_that_cannot_be_aligned_are_refused_with_the_remedy():
    frame = dd.from_pandas(table(), npartitions=4, sort=False)
    other = dd.from_pandas(table(), npartitions=3, sort=False)
    with pytest.raises(ValueError, match="same partitions, received 4, 3"):
        partitions.parts(frame[["a"]], other["label"])
    with pytest.raises(ValueError, match="X has 4 partitions, y has 3, and not all of their lengths"):
        partitions.parts(frame[["a"]].values, other["label"].values)
    with pytest.raises(ValueError, match="y is a ndarray in this process, but the partitions of X have"):
        partitions.parts(frame[["a"]], np.ones(N))


def test_plain_x_with_distributed_y_is_refused():
    with pytest.raises(ValueError, match="X is a ndarray in this process, but y or sample_weight is a"):
        partitions.parts(np.ones((6, 2)), da.ones(6))


def test_partitions_with_other_features_are_named():
    X = da.from_delayed(dask.delayed(np.ones)((2, 3)), (2, 3), float)
    X = da.concatenate([X, da.from_delayed(dask.delayed(np.ones)((2, 4)), (2, 3), float)])
    with pytest.raises(PartitionError, match="Partition 0 of X has 3 features, partition 1 has 4"):
        loaded(X, da.zeros(4, chunks=2, dtype=int))


def test_continuous_targets_are_no_classes_and_strings_are_no_numbers():
    X, _ = plain()
    with pytest.raises(PartitionError, match=r"Unknown label type: continuous.*Use a regressor"):
        loaded(X, X[:, 0])
    with pytest.raises(PartitionError, match=r"Expected numbers in y.*Use a classifier"):
        loaded(X, np.array(["x"] * N), summarize=NumberSummary.of)


def test_a_source_that_raises_names_its_partition():
    def fail(block):
        raise OSError("disk on fire")

    X = da.concatenate([da.ones((2, 3)), da.ones((2, 3)).map_blocks(fail, meta=np.ones((1, 1)))])
    with pytest.raises(OSError, match="disk on fire"):
        loaded(X, da.zeros(4, chunks=2, dtype=int))


# --- memory -----------------------------------------------------------------------------------------


class SmallMemory(LocalExecutor):
    """A place with little memory, which loads two partitions at a time."""

    at_once = 2

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def memory_limit(self):
        return self.limit


@pytest.mark.parametrize(("limit", "streamed"), [(10**6, False), (2 * N * 4 * 8 - 2, True)])
def test_data_that_does_not_fit_in_half_of_memory_is_streamed(limit, streamed):
    X, y = plain()
    parts = partitions.parts(da.from_array(X, chunks=(10, -1)), da.from_array(y, chunks=10))
    tasks = SmallMemory(limit)
    data = loading.load(tasks, parts, "float64", ClassSummary.of)
    made = make_shards(tasks, data, 2, partial(Shard))
    assert made.streamed is streamed
    assert bool(made._in_memory) is not streamed


# --- data that is computed again ---------------------------------------------------------------------


class Unsteady:
    """Passes a partition on so many times, then changes it. Counts in a file, since workers are processes."""

    def __init__(self, path, times, change):
        self.path, self.times, self.change = path, times, change

    def __call__(self, part):
        with open(self.path, "ab") as file:
            file.write(b".")
            n_times = file.tell()
        return part if n_times <= self.times else self.change(part.copy())


def with_nan(part):
    part.iloc[5, 2] = np.nan
    return part


def with_fewer_rows(part):
    return part.iloc[:-2]


def with_another_class(part):
    part.loc[part.index[3], "label"] = 1
    return part


def with_other_labels(part):
    return part.astype({"label": object}).assign(label="x")


CHANGES = {
    with_nan: "Partition 3: X holds nan in row 5, column 'c'",
    with_fewer_rows: "Partition 3 had 50 rows when it was first read, and has 48 now.*persist it or write it",
    with_another_class: r"Partition 3: Expected labels among \[0 2 4\], received 1",
    with_other_labels: r"Partition 3: Expected labels among \[0 2 4\], received",
}


def unsteady_frame(path, times, change):
    """Return X and y of six partitions; the fourth changes after it has been read so many times."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((300, 3)), columns=["a", "b", "c"])
    frame["label"] = rng.choice([0, 2, 4], 300)
    parts = [dask.delayed(frame.iloc[begin : begin + 50]) for begin in range(0, 300, 50)]
    parts[3] = dask.delayed(Unsteady(str(path), times, change))(parts[3])
    frame = dd.from_delayed(parts, meta=frame.iloc[:0], verify_meta=False)
    return frame[["a", "b", "c"]], frame["label"]


@pytest.mark.parametrize("where", ["threads", "client"])
@pytest.mark.parametrize("change", list(CHANGES), ids=lambda change: change.__name__)
def test_a_streamed_partition_that_changes_is_named(where, change, tmp_path, monkeypatch, request):
    # Each replica has one shard, of three partitions.
    settings = {"transport": "tasks"}
    if where == "client":
        request.getfixturevalue("client")
        # Each partition is a shard. Workers that are connected hold two, and so read each in every epoch.
        settings = {"transport": "peer", "batch_size": 30}
        monkeypatch.setattr(shards_module, "_SHARD_BYTES", 1)
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    # Read when it is loaded, and for the first epoch.
    X, y = unsteady_frame(tmp_path / "count", 2, change)
    epochs = []
    model = MLPClassifier(
        (4,),
        max_iter=6,
        strategy="gradients",
        replicas=2,
        random_state=0,
        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))],
        **settings,
    )
    with pytest.raises(PartitionError, match=CHANGES[change]):
        model.fit(X, y)
    assert epochs == [0]


def test_a_streamed_partition_that_stays_as_it_is_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_MEMORY_SHARE", 1e-9)
    X, y = unsteady_frame(tmp_path / "count", 2, lambda part: part)
    MLPClassifier((4,), max_iter=3, strategy="gradients", replicas=2, transport="tasks").fit(X, y)
    assert (tmp_path / "count").stat().st_size == 4


@pytest.mark.parametrize("side", ["trained on", "held out"])
@pytest.mark.parametrize("change", [with_nan, with_fewer_rows], ids=lambda change: change.__name__)
def test_a_streamed_partition_is_checked_before_it_is_split(side, change, tmp_path):
    tasks = SmallMemory(1)
    X, y = unsteady_frame(tmp_path / "count", 1, change)
    data = loading.load(
        tasks, partitions.parts(X, y), "float64", ClassSummary.of, feature_names=["a", "b", "c"]
    )  # fmt: skip
    left, held_out = data.hold_out(tasks, 0.2, seed=0)
    with pytest.raises(PartitionError, match=CHANGES[change]):
        blocks_of(tasks, left if side == "trained on" else held_out)


@pytest.mark.parametrize("held_out", [0, 0.2])
@pytest.mark.parametrize("change", [with_nan, with_fewer_rows], ids=lambda change: change.__name__)
def test_a_lost_block_that_comes_back_changed_is_named(held_out, change, tmp_path):
    # A scheduler computes a lost block again without asking: what makes shards of it must notice.
    X, y = unsteady_frame(tmp_path / "count", 1, change)
    data = loaded(X, y, names=["a", "b", "c"])
    tasks, graph = LocalExecutor(), Graph()
    if held_out:
        data, _ = data.hold_out(tasks, held_out, seed=0)
    sources = data.parts[3].add_to(graph)
    (again,) = tasks.start(graph, [graph.add("dasknn-load", data.load_block, *sources)])
    data.blocks[3] = Spot(Bundle([again], 1), 0)
    with pytest.raises(PartitionError, match=CHANGES[change]):
        shards_of(data, 2)


def test_a_streamed_partition_with_other_columns_is_named(tmp_path):
    widths = Unsteady(str(tmp_path / "count"), 1, lambda block: np.ones((4, 2)))
    X = da.concatenate([da.ones((4, 3)), da.ones((4, 3)).map_blocks(widths, meta=np.ones((1, 1)))])
    tasks = SmallMemory(1)
    data = loading.load(tasks, partitions.parts(X, np.arange(8) % 2), "float64", ClassSummary.of)
    with pytest.raises(PartitionError, match="Partition 1 had 3 features when it was first read, and has 2"):
        blocks_of(tasks, data)


def test_other_columns_of_y_cannot_be_encoded():
    several = ClassSummary.of(np.array([[0, 1], [1, 1]])).encoder("float64")
    with pytest.raises(ValueError, match="Expected y with 2 columns of 0 and 1, received shape"):
        several.encode(np.array([[0, 2]]))
    with pytest.raises(ValueError, match="Expected y with 2 columns of 0 and 1, received shape"):
        several.encode(np.array([[0, 1, 1]]))
    with pytest.raises(ValueError, match="Expected y with 1 columns, received 2"):
        NumberSummary.of(np.array([1.0, 2])).encoder("float64").encode(np.ones((3, 2)))
    with pytest.raises(ValueError, match="Expected labels in one column, received 2 columns"):
        ClassSummary.of(np.array([1, 2])).encoder("float64").encode(np.array([[1, 2]]))


@pytest.mark.parametrize(
    ("known", "new"),
    [(["a", "b"], [1, 2]), ([1, 2], ["a", "b"]), ([True, False], [2, 0])],
    ids=["numbers for text", "text for numbers", "numbers for booleans"],
)
@pytest.mark.parametrize("dtype", [None, object])
def test_labels_of_another_kind_cannot_be_encoded(known, new, dtype):
    encoder = ClassSummary.of(np.array(known, dtype)).encoder("float64")
    with pytest.raises(ValueError, match="Expected labels among"):
        encoder.encode(np.array(new, dtype))


# --- rows held out ----------------------------------------------------------------------------------


def sides_of(rows, fraction, seed, limit=10**6):
    """Return the two sides of a split of X = 0, 1, 2, ... with these rows a partition, as lists of blocks."""
    X = da.from_array(np.arange(sum(rows), dtype=float)[:, None], chunks=(tuple(rows), 1))
    tasks = SmallMemory(limit)
    data = loading.load(
        tasks, partitions.parts(X, X[:, 0] % 2), "float64", ClassSummary.of
    )  # fmt: skip
    sides = []
    for side in data.hold_out(tasks, fraction, seed):
        blocks = blocks_of(tasks, side)
        assert [len(block.y) for block in blocks] == [info.n_rows for info in side.infos]
        sides.append([block.X[:, 0].tolist() for block in blocks])
    return sides


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda rows: sum(rows) > 1),
    st.sampled_from([0.05, 0.1, 0.5, 0.9]),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_each_block_is_split_in_proportion_and_no_row_is_on_both_sides(rows, fraction, streamed):
    left, held_out = sides_of(rows, fraction, 7, limit=8 if streamed else 10**6)
    edges = np.cumsum([0, *rows])
    assert sum(map(len, held_out)) == math.ceil(sum(rows) * fraction)
    for number, (stay, go) in enumerate(zip(left, held_out, strict=True)):
        assert sorted(stay + go) == list(range(edges[number], edges[number + 1]))
        assert abs(len(go) - rows[number] * fraction) <= 2


def test_rows_held_out_depend_on_the_seed_and_differ_between_blocks():
    _, once = sides_of([40, 40], 0.5, seed=1)
    _, again = sides_of([40, 40], 0.5, seed=1)
    _, other = sides_of([40, 40], 0.5, seed=2)
    assert once == again
    assert once != other
    assert once[0] != [row - 40 for row in once[1]]
