"""What is learned of a table does not depend on where its rows are."""

import subprocess
import sys

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from raw_tables import mixed
from scipy import sparse

from dasknn.cluster.local import LocalExecutor
from dasknn.data.tables import summaries
from dasknn.data.tables.kinds import CategoryColumn, IgnoredColumn, NumberColumn
from dasknn.data.tables.learning import learn_table
from dasknn.exceptions import PartitionError


def in_partitions(frame, n_partitions):
    return dd.from_pandas(frame, npartitions=n_partitions, sort=False)


def kinds(encoder):
    return {column.name: column.kind for column in encoder.columns}


# --- the same everywhere -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_partitions", [1, 3, 7])
@pytest.mark.parametrize("bins", ["greedy", "quantile", "tree"])
def test_partitions_teach_what_the_whole_table_teaches(n_partitions, bins):
    frame = mixed().assign(y=np.arange(300) % 7 / 2)
    X, y = frame.drop(columns="y"), frame["y"]
    expected = learn_table(X, y, bins=bins)
    parts = in_partitions(frame, n_partitions)
    found = learn_table(parts.drop(columns="y"), parts["y"], bins=bins)
    assert found == expected
    assert found.describe() == expected.describe()


def test_a_cluster_teaches_what_this_process_teaches(client):
    frame = mixed().assign(y=np.arange(300) % 7 / 2)
    X = in_partitions(frame, 5)
    for settings in ({}, {"y": X["y"], "bins": "tree"}):
        assert learn_table(X, **settings) == learn_table(X, **settings, executor=LocalExecutor())


def test_an_executor_that_is_given_runs_the_tasks():
    class Counting(LocalExecutor):
        n_graphs = 0

        def start(self, graph, wanted):
            self.n_graphs += 1
            return super().start(graph, wanted)

    tasks = Counting()
    assert learn_table(in_partitions(mixed(), 3), executor=tasks) == learn_table(mixed())
    assert tasks.n_graphs == 1


def test_many_partitions_come_back_as_one_summary():
    X = in_partitions(mixed(), 30)
    fetched = []

    class Watching(LocalExecutor):
        def start(self, graph, wanted):
            fetched.extend(wanted)
            return super().start(graph, wanted)

    assert learn_table(X, executor=Watching()) == learn_table(mixed())
    assert len(fetched) == 1


def test_columns_of_very_many_values_have_bins_of_nearly_equal_shares(monkeypatch):
    monkeypatch.setattr("dasknn.data.tables.sketch.MOST_VALUES", 500)
    monkeypatch.setattr("dasknn.data.tables.sketch._GROUPS", 100)
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=4000)})
    twice = [learn_table(in_partitions(frame, 7)) for _ in range(2)]
    assert twice[0] == twice[1]
    ranks = np.searchsorted(np.sort(frame["x"]), twice[0].edges[0]) / len(frame)
    # 7 partitions are merged in 3 levels, each of which moves ranks by a group at most.
    assert np.abs(np.diff(ranks) - 1 / 48).max() < 4 * 2 / 100


def test_arrays_and_sparse_matrices_teach_what_their_numbers_teach():
    dense = sparse.random(60, 4, 0.5, format="csr", random_state=0)
    rows = da.from_array(dense.toarray(), chunks=(25, 4))
    expected = learn_table(dense.toarray())
    for X in (dense, dense.tocoo(), rows, rows.map_blocks(sparse.csr_matrix)):
        assert learn_table(X) == expected
    named = pd.DataFrame(dense.toarray(), columns=expected.feature_names_in)
    assert learn_table(named).columns == expected.columns


def test_arrays_of_objects_teach_what_a_dataframe_teaches():
    rows = [[1, "a", None, True], [2, "b", 3.5, False], [7, None, 2, None], [9, "a", 1, True]]
    X = np.array(rows, dtype=object)
    expected = learn_table(pd.DataFrame(rows, columns=["x0", "x1", "x2", "x3"])).columns
    assert [column.kind for column in expected] == ["number", "category", "number", "binary"]
    for given in (X, rows, da.from_array(X, chunks=(3, 4))):
        assert learn_table(given).columns == expected


def test_arrays_need_no_pandas():
    program = """
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("pandas", "pyarrow"): raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import dask.array as da
import numpy as np
from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.learning import learn_table
numbers = np.random.default_rng(0).normal(size=(400, 3))
objects = np.array([["a", None, 1.5], ["b", 2, float("nan")], [None, 3, 4]], dtype=object)
dates = np.array([["2020-01-01"], ["2021-05-06"], ["NaT"]], "M8[D]")
for X in (numbers, objects, dates):
    encoder = learn_table(X)
    assert TableEncoder.from_description(encoder.describe()) == encoder
    assert np.array_equal(encoder.transform(da.from_array(X, chunks=(150, -1))).compute(), encoder.encode(X))
assert learn_table(numbers, numbers[:, 0], bins="tree").n_bins[0] > 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- parts that miss something -----------------------------------------------------------------------


def test_a_part_without_known_values_fits_every_kind():
    frame = mixed(40)
    frame.loc[:9, ["age", "job", "seen", "stay", "owner"]] = None
    frame["mostly"] = [None] * 39 + ["a"]
    whole = learn_table(frame)
    assert learn_table(in_partitions(frame, 4)) == whole
    assert kinds(whole)["mostly"] == "category"


def test_a_column_that_one_partition_reads_as_missing_numbers_stays_text():
    parts = [pd.DataFrame({"x": [np.nan, np.nan]}), pd.DataFrame({"x": ["a", "b"]})]
    X = dd.from_delayed([dask.delayed(part) for part in parts], meta=parts[1], verify_meta=False)
    column = learn_table(X).columns[0]
    assert (column.kind, column.values) == ("category", ("a", "b"))


def test_empty_partitions_count_for_nothing():
    frame = mixed(40)
    parts = [frame[:0], frame[:25], frame[25:25], frame[25:], frame[:0].astype(object)]
    X = dd.from_delayed([dask.delayed(part) for part in parts], meta=frame[:0], verify_meta=False)
    assert learn_table(X) == learn_table(frame)


def test_a_single_row_teaches_nothing_and_is_encoded():
    encoder = learn_table(mixed(1))
    assert set(kinds(encoder).values()) == {"ignored"}
    assert encoder.encode(mixed(5)).shape == (5, 0)


def test_no_rows_and_no_columns_are_refused():
    for X in (mixed()[:0], in_partitions(mixed()[:0], 1)):
        with pytest.raises(ValueError, match="Expected at least one row to learn from"):
            learn_table(X)
    with pytest.raises(ValueError, match="Expected at least one column"):
        learn_table(mixed()[[]])


# --- kinds -------------------------------------------------------------------------------------------


def test_each_column_has_the_kind_of_its_values():
    assert kinds(learn_table(mixed())) == {
        **dict.fromkeys(["age", "income", "gain"], "number"),
        **dict.fromkeys(["member", "owner"], "binary"),
        **dict.fromkeys(["job", "region"], "category"),
        **{"seen": "date", "stay": "duration", "constant": "ignored", "nothing": "ignored"},
    }


def test_every_column_says_what_was_learned():
    learned = {column.name: column.learned for column in learn_table(mixed()).columns}
    assert learned["job"] == "3 values"
    assert learned["owner"] == "0 or 1; may be missing"
    assert learned["age"].startswith("median ")
    assert learned["constant"] == "all rows have one value"
    assert learned["nothing"] == "no value is known"


@pytest.mark.parametrize("chosen", [["code"], [1], [False, True], np.array([1]), "code", {"code"}])
def test_numbers_are_categories_where_asked_for(chosen):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "code": [3, 1, 3]})
    chosen = sorted(chosen) if isinstance(chosen, set) else chosen
    column = learn_table(frame, categorical_features=chosen).columns[1]
    assert (column.kind, column.values) == ("category", (1, 3))


def test_codes_are_the_same_in_partitions_where_some_are_missing():
    frame = pd.DataFrame({"code": [3.0, 1.0, None, 3.0, 7.0]}, dtype=object)
    parts = [frame[:2].astype("int64"), frame[2:].astype("float64")]
    X = dd.from_delayed([dask.delayed(part) for part in parts], meta=parts[1], verify_meta=False)
    column = learn_table(X, categorical_features=["code"]).columns[0]
    assert column.values == (1, 3, 7)
    assert all(isinstance(value, int) for value in column.values)


@pytest.mark.parametrize("chosen", [["cod"], [2], [-1], [True], [1.5]])
def test_columns_that_do_not_exist_cannot_be_categories(chosen):
    with pytest.raises(ValueError, match="Expected categorical_features"):
        learn_table(pd.DataFrame({"x": [1.0], "code": [3]}), categorical_features=chosen)


def test_a_constant_number_with_missing_values_becomes_an_indicator():
    encoder = learn_table(pd.DataFrame({"x": [5.0, None, 5.0]}))
    assert encoder.encode(pd.DataFrame({"x": [None, 5.0, 9.0]}, dtype=float)).tolist() == [[1], [0], [0]]
    assert encoder.columns[0].learned == "all known values are equal; may be missing"


def test_small_tables_have_fewer_bins_where_asked_for():
    X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=600)})
    for rows, expected in ((1, 48), (20, 30), (1000, 2)):
        assert learn_table(X, rows_of_bin=rows).n_bins == (expected,)


# --- rare values and many values ---------------------------------------------------------------------


def text_of(counts):
    return pd.DataFrame({"x": [value for value, n in counts.items() for _ in range(n)]})


def test_values_of_few_rows_share_a_code_in_large_tables_with_many_values():
    counts = {f"v{i:02}": 40 for i in range(30)} | {"rare": 4, "single": 1}
    for X in (text_of(counts), in_partitions(text_of(counts), 3)):
        column = learn_table(X).columns[0]
        assert column.values == tuple(f"v{i:02}" for i in range(30))
        assert column.n_codes == 32
    later = pd.DataFrame({"x": ["rare", "single", "new", "v00", None]})
    assert column.codes(later["x"]).tolist() == [31, 31, 31, 1, 0]


@pytest.mark.parametrize(
    "counts",
    [
        {f"v{i}": 20 for i in range(40)} | {"rare": 1},  # less than 1,000 rows
        {f"v{i}": 40 for i in range(29)} | {"rare": 1},  # 30 values
    ],
)
def test_small_tables_and_columns_of_few_values_keep_rare_values(counts):
    column = learn_table(text_of(counts)).columns[0]
    assert "rare" in column.values
    assert column.n_codes == 1 + len(counts)
    assert column.codes(pd.Series(["new"])).tolist() == [0]


def test_what_is_rare_can_be_set():
    X = text_of({"a": 50, "b": 30, "c": 20})
    for frequency, kept in ((21, ("a", "b")), (0.4, ("a",)), (1, ("a", "b", "c"))):
        assert learn_table(X, min_frequency=frequency).columns[0].values == kept


def test_a_column_of_rare_values_alone_is_ignored():
    column = learn_table(pd.DataFrame({"x": [f"v{i}" for i in range(2000)]})).columns[0]
    assert (column.kind, column.learned) == ("ignored", "all values are rare")


def test_rare_values_that_tell_rows_apart_are_hashed():
    column = learn_table(pd.DataFrame({"x": [f"v{i // 3}" for i in range(3000)]})).columns[0]
    assert (column.kind, column.n_codes) == ("hashed category", 1 + 1000)


def test_beyond_the_most_categories_the_most_frequent_keep_their_codes():
    X = text_of({"d": 9, "c": 9, "a": 20, "b": 9, "e": 3, "f": 2})
    column = learn_table(X, max_categories=3, hash_bins=2).columns[0]
    # Of equally frequent ones, the first in their order.
    assert column.values == ("a", "b", "c")
    assert (column.n_codes, column.hashed, column.kind) == (6, True, "hashed category")
    codes = column.codes(pd.Series(["a", "d", "e", "f", "new", None]))
    assert codes[0] == 1
    assert set(codes[1:5]) <= {4, 5}
    assert codes[5] == 0


@pytest.mark.parametrize("n_partitions", [1, 4])
def test_columns_of_very_many_values_are_hashed(monkeypatch, n_partitions):
    monkeypatch.setattr(summaries, "MOST_VALUES", 50)
    X = pd.DataFrame({"x": [f"v{i}" for i in range(100)] * 2})
    column = learn_table(in_partitions(X, n_partitions), hash_bins=16).columns[0]
    assert column == CategoryColumn("x", "text", (), 16, False)
    codes = column.codes(pd.Series(["v1", "v1", "new", None]))
    assert codes[0] == codes[1]
    assert 1 <= codes[2] <= 16
    assert codes[3] == 0


def test_a_column_is_hashed_if_any_of_its_partitions_has_too_many_values(monkeypatch):
    monkeypatch.setattr(summaries, "MOST_VALUES", 50)
    few, many = pd.DataFrame({"x": ["a"] * 70}), pd.DataFrame({"x": [f"v{i}" for i in range(70)]})
    for parts in ([few, many], [many, few], [few, many, few]):
        X = dd.from_delayed([dask.delayed(part) for part in parts], meta=few[:0], verify_meta=False)
        assert learn_table(X, hash_bins=16).columns == (CategoryColumn("x", "text", (), 16, False),)


def test_settings_that_make_no_sense_are_refused():
    X, y = pd.DataFrame({"x": [1.0, 2.0]}), [0, 1]
    for settings, message in (
        ({"n_bins": 0}, "Expected n_bins from 1 to"),
        ({"n_bins": True}, "Expected n_bins from 1 to"),
        ({"rows_of_bin": 0}, "Expected rows_of_bin from 1 to"),
        ({"hash_bins": 2.0}, "Expected hash_bins from 1 to"),
        ({"max_categories": 0}, "Expected max_categories from 1 to"),
        ({"bins": "equal"}, "Expected bins among"),
        ({"task": "ranking"}, "Expected task among"),
        ({"min_frequency": 0}, "Expected min_frequency"),
        ({"min_frequency": 1.5}, "Expected min_frequency"),
        ({"dtype": "float16"}, "Expected dtype to be"),
    ):
        with pytest.raises(ValueError, match=message):
            learn_table(X, y, **settings)
    with pytest.raises(ValueError, match="Expected y, from which bins='tree' learns"):
        learn_table(X, bins="tree")


# --- what cannot be learned --------------------------------------------------------------------------


def test_infinity_is_refused_with_its_partition_column_and_row():
    frame = pd.DataFrame({"a": [1.0] * 6, "x": [1.0, 2.0, 3.0, 4.0, np.inf, 5.0]})
    with pytest.raises(PartitionError, match=r"^Column 'x' holds infinity in row 4\."):
        learn_table(frame)
    with pytest.raises(PartitionError, match=r"^Partition 1: Column 'x' holds infinity in row 1\."):
        learn_table(in_partitions(frame, 2))
    with pytest.raises(PartitionError, match=r"^Partition 1: Column 'x1' holds infinity in row 1\."):
        learn_table(da.from_array(frame.to_numpy(), chunks=(3, 2)))


def test_the_first_bad_partition_is_named():
    frame = pd.DataFrame({"x": [1.0, -np.inf, 3.0, np.inf]})
    for n_partitions in (2, 4):
        with pytest.raises(PartitionError, match=f"Partition {n_partitions // 2 - 1}: "):
            learn_table(in_partitions(frame, n_partitions))


def test_partitions_of_several_kinds_are_refused():
    def learned(*columns, **settings):
        parts = [pd.DataFrame({"x": column}) for column in columns]
        delayed = [dask.delayed(part) for part in parts]
        return learn_table(dd.from_delayed(delayed, meta=parts[0], verify_meta=False), **settings)

    for columns, received in (
        (([1.0, 2.0], ["a", "b"]), "received numbers in some partitions and text in others"),
        ((pd.to_datetime(["2020"]), [1.0]), "received dates in some partitions and numbers in others"),
        (
            (pd.to_datetime(["2020"], utc=True), pd.to_datetime(["2020"])),
            "received dates of the time zone UTC in some partitions and dates in others",
        ),
    ):
        with pytest.raises(PartitionError, match=received):
            learned(*columns)
    with pytest.raises(PartitionError, match="received numbers in some partitions and text in others"):
        learned([1, 2], ["a"], categorical_features=["x"])
    # True and False are 1 and 0.
    assert learned([True, False], [0, 1, 2]).columns[0].kind == "number"


def test_a_partition_with_other_columns_is_refused():
    parts = [pd.DataFrame({"x": [1.0], "z": [2.0]}), pd.DataFrame({"x": [1.0], "y": [2.0]})]
    X = dd.from_delayed([dask.delayed(part) for part in parts], meta=parts[0], verify_meta=False)
    with pytest.raises(PartitionError, match="Partition 1: Expected column 'z'"):
        learn_table(X)


def test_what_is_no_table_is_refused():
    for X in (pd.Series([1.0]), in_partitions(pd.Series([1.0]), 1), np.zeros(3), da.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="Expected"):
            learn_table(X)
    with pytest.raises(ValueError, match="chunked by rows only"):
        learn_table(da.zeros((4, 4), chunks=2))
    with pytest.raises(ValueError, match="different name for each column"):
        learn_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(ValueError, match="sparse X with at most 2,000 columns"):
        learn_table(sparse.csr_matrix((3, 2001)))
    with pytest.raises(ValueError, match="masked value in row 0"):
        learn_table(np.ma.masked_array(np.zeros((2, 2)), mask=[[0, 1], [0, 0]]))


# --- trees -------------------------------------------------------------------------------------------


def steps(n_rows=2000):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.random(n_rows), "noise": rng.random(n_rows)})
    return frame, (frame["x"] > 0.3).astype(int) + (frame["x"] > 0.8)


@pytest.mark.parametrize("target", ["numbers", "classes", "text", "columns"])
def test_trees_put_edges_where_the_target_changes(target):
    X, y = steps()
    forms = {"numbers": 1000.0 * y, "text": y.map({0: "a", 1: "b", 2: "c"}), "classes": y}
    y = np.column_stack([y, y]) * 1.0 if target == "columns" else forms[target]
    x, _ = learn_table(X, y, bins="tree").edges
    assert len(x) == 4
    assert np.allclose(x[1:3], [0.3, 0.8], atol=5e-3)


def test_trees_see_small_differences_of_great_numbers():
    X, y = steps()
    x = learn_table(X + 1e12, y, bins="tree").edges[0]
    assert np.allclose(np.array(x[1:3]) - 1e12, [0.3, 0.8], atol=5e-3)


def test_trees_find_the_day_on_which_the_target_changes():
    when = pd.Series(pd.date_range("1998-03-01", periods=2000, freq="5h"), name="when")
    encoder = learn_table(when.to_frame(), np.arange(2000) >= 600, bins="tree")
    days = encoder.edges[-1]
    assert len(days) == 3
    assert days[1] == pytest.approx(599.5 * 5 / 24)


def test_a_sample_for_trees_is_bounded_and_uniform(monkeypatch):
    monkeypatch.setattr(summaries, "SAMPLE_ROWS", 300)
    X, y = steps()
    frame = X.assign(row=np.arange(len(X)) * 1.0)
    parts = [
        summaries.TableSummary.of(
            tuple(frame.columns), frozenset(), frame[at : at + 500], y[at : at + 500], i
        )
        for i, at in enumerate(range(0, 2000, 500))
    ]
    sample = summaries.merged(*parts).sample
    rows = sample.numbers["row"][0].astype(int)
    assert len(rows) == 300
    assert_array_equal(rows, np.sort(rows))
    assert_array_equal(sample.y, y.to_numpy()[rows])
    counts = np.bincount(rows // 500)
    assert counts.min() > 50


def test_trees_need_targets_that_are_known():
    X, y = steps(50)
    with pytest.raises(PartitionError, match="y holds nan in row 3"):
        learn_table(X, y.astype(float).mask(y.index == 3), bins="tree")
    with pytest.raises(ValueError, match="X has 50 rows, y has 49"):
        learn_table(X, y[:49], bins="tree")


def test_missing_numbers_do_not_disturb_trees():
    X, y = steps()
    X.loc[::3, "x"] = None
    X.loc[:999, "noise"] = None
    frame = X.assign(y=y)
    parts = in_partitions(frame, 4)
    found = learn_table(parts[["x", "noise"]], parts["y"], bins="tree")
    assert found == learn_table(X, y, bins="tree")
    assert np.allclose(found.edges[0][1:3], [0.3, 0.8], atol=1e-2)


def test_the_classes_of_columns_are_values():
    encoder = learn_table(mixed())
    assert {type(column) for column in encoder.columns} == {NumberColumn, CategoryColumn, IgnoredColumn}
    assert hash(encoder) == hash(learn_table(mixed()))
