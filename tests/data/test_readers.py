"""Files become dataframes, unless what they hold is not what the table holds."""

import json

import fsspec
import pandas as pd
import pytest

from dasknn.data import readers
from dasknn.data.readers import Wanted

LOGS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Apache Iceberg": "metadata/00001-9c12d441-03fe-4693-9a96-a0705ddf69c1.metadata.json",
    "Apache Hudi": ".hoodie/hoodie.properties",
}


def write_table(folder, log=None, parts=("data/g=1/a.parquet", "data/g=2/b.parquet", "c.parquet")):
    """Write Parquet files of 3 rows each to a folder or URL, and the log of a table."""
    store, place = fsspec.core.url_to_fs(str(folder))
    for name in (*parts, *([] if log is None else [LOGS[log]])):
        store.makedirs(f"{place}/{name}".rpartition("/")[0], exist_ok=True)
        with store.open(f"{place}/{name}", "wb") as file:
            if name.endswith(".parquet"):
                pd.DataFrame({"x": [1.0, 2.0, 3.0]}).to_parquet(file)
            else:
                file.write(json.dumps({"commitInfo": {}}).encode())


@pytest.fixture(params=["path", "URL"])
def lake(request, tmp_path):
    """A place for tables."""
    if request.param == "path":
        yield tmp_path / "lake"
    else:
        yield "memory://lake"
        fsspec.filesystem("memory").rm("/lake", recursive=True)


@pytest.mark.parametrize(
    "inside", ["", "/data", "/data/g=1", "/data/g=1/a.parquet", "/*.parquet", "/data/*/*.parquet"]
)
@pytest.mark.parametrize("kind", LOGS)
def test_files_of_a_table_with_a_log_are_refused(lake, kind, inside):
    write_table(f"{lake}/table", kind)
    with pytest.raises(ValueError, match=rf"those of a {kind} table, \S*lake/table, which may hold deleted"):
        readers.read([f"{lake}/table{inside}"], Wanted())
    with pytest.raises(ValueError, match=kind):
        readers.read([f"{lake}/table{inside}"], Wanted(), form="parquet")


def test_a_table_with_a_log_among_others_is_refused(lake):
    write_table(f"{lake}/one")
    write_table(f"{lake}/two", "Delta Lake")
    for paths in ([lake], [f"{lake}/one", f"{lake}/two"], [f"{lake}/*/c.parquet"]):
        with pytest.raises(ValueError, match=r"a Delta Lake table, \S*two"):
            readers.read(list(map(str, paths)), Wanted())


def test_plain_parquet_is_read_whatever_lies_beside_it(lake):
    write_table(f"{lake}/two", "Delta Lake")
    parts = ["g=1/a.parquet", "g=2/b.parquet"]
    # What others leave in a folder, and folders that are called as those of logs are.
    write_table(f"{lake}/one", parts=[*parts, "_temporary/0/g=3/c.parquet", ".tmp/d.parquet"])
    write_table(f"{lake}/one/metadata", parts=["readme.txt"])
    write_table(f"{lake}/one/_delta_log", parts=["g=4/e.parquet"])
    for form in (None, "parquet"):
        paths = [f"{lake}/one/*/*.parquet"] if form is None else [f"{lake}/one"]
        frame = readers.read(paths, Wanted(), form).compute()
        assert frame["g"].tolist() == [1, 1, 1, 2, 2, 2]
    assert len(readers.read([f"{lake}/one/g=1/a.parquet"], Wanted())) == 3
