"""Tables in files as lazy Dask dataframes: Parquet, CSV and npz, at paths, globs or fsspec URLs.

    paths ── names of files ── format, by their extensions ── a dataframe, read on the workers

The first rows of a CSV file decide the types of its columns; columns of whole numbers are read so that
missing values and fractions may come later, and text becomes dates where that is wanted. An npz file has
arrays X (n, ...) and y (n,) or, like MNIST, x_train, y_train, x_test and y_test; X becomes columns x0, ...
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import numpy as np
from fsspec import AbstractFileSystem
from fsspec.core import open as open_file
from fsspec.core import url_to_fs
from numpy.lib import format as npy

from dasknn.data.columns import require_columns

FORMATS = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2", ".csv.xz", ".csv.zst"),
    "npz": (".npz",),
}
# Rows of a CSV file that decide the types of its columns.
_SAMPLE_ROWS = 10_000
# Size of a partition of an npz file.
_PART_BYTES = 2**24
_FEATURES = ("X", "x")
# Dates as ISO 8601 writes them, with a time of day or without, and a time zone or without.
_DATE = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?\s?(?P<zone>Z|[+-]\d\d(:?\d\d)?)?)?"
_SEPARATORS = ",;\t|"
# Kinds of tables with a log, which alone says which Parquet files hold current rows, and names of its files.
_LOGS = {
    "Delta Lake": re.compile(r"(.*)/_delta_log/\d{20}\."),
    "Apache Iceberg": re.compile(r"(.*)/metadata/[^/]*\.metadata\.json$"),
    "Apache Hudi": re.compile(r"(.*)/\.hoodie/hoodie\.properties$"),
}
_LOG_FOLDERS = ("_delta_log", "metadata", ".hoodie")

# Shape and dtype of each array of an npz file, by name.
Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class Wanted:
    """How to read a table.

    target: the column to predict, or None. role: "train" or "test", for the arrays of an npz file that has
    both. as_text: columns whose numbers are codes. is_regression: the target is a number; None: its type
    decides. kept: columns that are only copied. dates: columns of CSV files that are dates; None: those whose
    first rows hold nothing but dates in ISO 8601, such as 2026-01-31 or 2026-01-31T12:30:00Z.
    """

    target: str | None = None
    role: str = "train"
    as_text: Collection[str] = ()
    is_regression: bool | None = None
    kept: Collection[str] = ()
    dates: Collection[str] | None = ()


def read(paths: Sequence[str], wanted: Wanted, form: str | None = None) -> Any:
    """Return a Dask dataframe of all rows of files, folders, globs or fsspec URLs; nothing is computed.

    form: "parquet", "csv" or "npz"; None: by the extensions. ValueError: no files, files of several or
    unknown formats, or files of a table with a log such as Delta Lake, which may hold deleted rows.
    ImportError: pandas, or a package for a protocol, is not installed.
    """
    try:
        import dask.dataframe  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Reading tables needs pandas and pyarrow ({error}): pip install 'dasknn[dataframe]'."
        ) from error
    files = [name for path in paths for name in _files_at(path)]
    form = form or _form(files)
    if form == "parquet":
        return _read_parquet(paths, files)
    return _read_csv(files, wanted) if form == "csv" else _read_npz(files, wanted)


# --- which files -------------------------------------------------------------------------------------


def _files_at(path: str) -> list[str]:
    """Return the names of the files at a path, glob or URL.

    ValueError: there are none, or they belong to a table with a log.
    """
    store, place = url_to_fs(path)
    everything: list[str] = []
    if store.isdir(place):
        everything = store.find(place)
        names = [name for name in everything if not _is_hidden(name, place)]
    elif _is_glob(place):
        root = re.split(r"[*?[]", place)[0].rpartition("/")[0]
        names = [name for name in store.glob(place) if not _is_hidden(name, root)]
    else:
        names = [place] if store.exists(place) else []
    if not names:
        raise ValueError(f"Expected {_known_forms()} files at {path}, found none.")
    if any(_form_of(name) == "parquet" for name in names):
        # In a folder, all files are known already; logs may also be above it, or above single files.
        _refuse_logs(everything)
        for folder in _folders_above([place] if everything else names, store):
            _refuse_logs(_files_of_logs(folder, store))
    return [store.unstrip_protocol(name) if "://" in path else name for name in sorted(names)]


def _refuse_logs(files: Sequence[str]) -> None:
    """Raise ValueError if one of the files belongs to the log of a table."""
    for name in files:
        for kind, log in _LOGS.items():
            if found := log.match(name):
                raise ValueError(
                    f"Expected plain Parquet files, received those of a {kind} table, {found[1]}, which may "
                    "hold deleted or replaced rows. Read the table with a package that knows its log "
                    "(dask_deltatable.read_deltalake, pyiceberg, ...), and train on that dataframe in Python "
                    "or write it to another folder with to_parquet."
                )


def _folders_above(places: Sequence[str], store: AbstractFileSystem) -> Iterator[str]:
    """Yield each folder above these files or folders, except those of partitions, which hold no logs."""
    seen = set()
    for place in places:
        while (above := store._parent(place)) not in (place, ""):
            if above in seen:
                break
            seen.add(above)
            if "=" not in above.rpartition("/")[2]:
                yield above.rstrip("/")
            place = above


def _files_of_logs(folder: str, store: AbstractFileSystem) -> list[str]:
    names: list[str] = []
    for log in _LOG_FOLDERS:
        try:
            if store.isdir(f"{folder}/{log}"):
                names += store.ls(f"{folder}/{log}", detail=False)
        except OSError:
            # A folder further up may be closed; the log of a readable table is readable.
            continue
    return names


def _is_glob(place: str) -> bool:
    return any(mark in place for mark in "*?[")


def _is_hidden(name: str, folder: str) -> bool:
    """Return whether a file below a folder holds no data, such as _SUCCESS, by its name or its folders'."""
    return any(part.startswith(("_", ".")) for part in name[len(folder) :].split("/"))


def _form(files: Sequence[str]) -> str:
    found = {name: _form_of(name) for name in files}
    forms = set(found.values())
    if len(forms) > 1:
        examples = {form: name for name, form in found.items()}
        raise ValueError(
            f"Expected files of one format, received {' and '.join(sorted(map(str, examples.values())))}. "
            "Select those of one format with a glob such as 'folder/*.parquet'."
        )
    form = forms.pop()
    if form is None:
        raise ValueError(
            f"Expected {_known_forms()} files, received {files[0]}, whose extension is none of theirs. Use "
            "--format parquet, csv or npz."
        )
    return form


def _form_of(name: str) -> str | None:
    for form, endings in FORMATS.items():
        if name.lower().endswith(endings):
            return form
    return None


def _known_forms() -> str:
    return "Parquet, CSV or npz"


# --- Parquet -----------------------------------------------------------------------------------------


def _read_parquet(paths: Sequence[str], files: list[str]) -> Any:
    import dask.dataframe as dd

    # By names of files: for a folder, Dask would also read leftovers in _temporary/. Names of folders such as
    # year=2020 still become columns.
    named = [name for name in files if _form_of(name) == "parquet"]
    try:
        frame = dd.read_parquet(named or files)
    except (OSError, IndexError, ValueError) as error:
        # Dask puts its own sentence before the message of pyarrow.
        reason = str(error).rpartition("Original Message: ")[2]
        raise ValueError(f"Expected Parquet files at {', '.join(paths)}. ({reason})") from error
    if len(frame.columns) == 0:
        raise ValueError(f"Expected Parquet files at {', '.join(paths)}, found none with columns.")
    return frame


# --- CSV ---------------------------------------------------------------------------------------------


def _read_csv(files: list[str], wanted: Wanted) -> Any:
    import dask.dataframe as dd
    import pandas as pd

    separator = _separator(files[0])
    settings: dict[str, Any] = {"sep": separator, "skipinitialspace": True, "compression": "infer"}
    try:
        sample = pd.read_csv(files[0], nrows=_SAMPLE_ROWS, **settings)
    except (ValueError, UnicodeError) as error:
        raise ValueError(
            f"Expected a CSV file with column names in the first line at {files[0]}. ({error})"
        ) from error
    if len(sample.columns) == 1 and wanted.target not in (None, *sample.columns):
        raise ValueError(
            f"Expected columns separated by comma, semicolon, tab or | in {files[0]}, received a single "
            f"column, {str(sample.columns[0])[:60]!r}. Write the file with one of these separators."
        )
    dates = _dates_in(sample, wanted)
    settings["dtype"] = {
        name: "object" if name in dates else _dtype(name, sample.dtypes[name], wanted)
        for name in sample.columns
    }
    plain = [name for name in files if name.lower().endswith((".csv", ".tsv"))]
    frames = [dd.read_csv(plain, **settings)] if plain else []
    # Compressed files cannot be cut. Each kind of them is read separately.
    for ending in sorted({name.rpartition(".")[2] for name in files if name not in plain}):
        alike = [name for name in files if name not in plain and name.endswith(f".{ending}")]
        frames.append(dd.read_csv(alike, blocksize=None, **settings))
    frame = frames[0] if len(frames) == 1 else dd.concat(frames)
    # Column by column, so that those which nobody asks for are not read.
    columns = {
        name: frame[name].map_partitions(
            _as_dates, name, has_zone, meta=_as_dates(frame._meta[name], name, has_zone)
        )
        for name, has_zone in dates.items()
    }
    return frame.assign(**columns) if columns else frame


def _dates_in(sample: Any, wanted: Wanted) -> dict[str, bool]:
    """Return the columns of dates, and of each, whether its dates have time zones. sample: the first rows."""
    found = {}
    for name in sample.columns:
        known = sample[name].dropna()
        if wanted.dates is not None:
            if name in wanted.dates:
                found[name] = bool(len(known)) and _have_zones(known.astype(str)) is True
        elif name not in (wanted.target, *wanted.as_text) and sample[name].dtype.kind not in "biufcmM":
            has_zone = _have_zones(known) if len(known) else None
            if has_zone is not None:
                found[name] = has_zone
    return found


def _have_zones(texts: Any) -> bool | None:
    """Return whether all texts are dates with time zones (True), or without (False); None: neither."""
    if not texts.map(lambda text: isinstance(text, str)).all():
        return None
    found = texts.str.extract(f"^(?P<date>{_DATE})$")
    if found["date"].isna().any() or found["zone"].isna().nunique() > 1:
        return None
    return not found["zone"].isna().any()


def _as_dates(texts: Any, name: str, has_zone: bool) -> Any:
    """Return a pandas series of text as dates, in UTC if they have time zones. ValueError: others."""
    import pandas as pd

    found = pd.to_datetime(texts, format="ISO8601", utc=has_zone, errors="coerce")
    others = texts[found.isna() & texts.notna()]
    if len(others):
        raise ValueError(
            f"Expected dates such as 2026-01-31 in column {name!r}, as in its first rows, received "
            f"{others.iloc[0]!r:.60}. Correct it; or, to train on the column as text, name it in "
            "--categorical."
        )
    # One unit in all partitions, whatever their texts have.
    return found.dt.as_unit("us")


def _separator(name: str) -> str:
    """Return the separator of the names in the first line of a file."""
    with open_file(name, "rt", compression="infer", encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(_SEPARATORS, key=header.count)


def _dtype(name: str, dtype: np.dtype, wanted: Wanted) -> str:
    """Return the dtype to read a CSV column with. dtype: of its first rows."""
    if name in wanted.as_text:
        return "object"
    if dtype.kind == "b":
        return "boolean"
    if dtype.kind not in "iuf":
        return "object"
    is_label = name == wanted.target and not wanted.is_regression
    if dtype.kind in "iu" and (is_label or name in wanted.kept):
        return "Int64"
    # Fractions or missing values may come later.
    return "float64"


# --- npz ---------------------------------------------------------------------------------------------


def _read_npz(files: list[str], wanted: Wanted) -> Any:
    import dask.dataframe as dd

    return dd.concat([_read_one_npz(name, wanted) for name in files])


def _read_one_npz(name: str, wanted: Wanted) -> Any:
    import dask.dataframe as dd

    shapes = _shapes_in(name)
    keys = {"X": _key_of_features(shapes, wanted, name)}
    if wanted.target is not None:
        keys["y"] = _key_of_target(shapes, wanted, name)
    shape, dtype = shapes[keys["X"]]
    n_rows = shape[0]
    if "y" in keys:
        of_y = shapes[keys["y"]][0]
        if math.prod(of_y) != n_rows or of_y[0] != n_rows:
            raise ValueError(
                f"Expected one target for each of {n_rows} rows of {keys['X']} in {name}, received "
                f"{keys['y']} of shape {of_y}. Choose another array with --target."
            )
    n_parts = max(1, min(n_rows, -(-math.prod(shape) * dtype.itemsize // _PART_BYTES)))
    edges = [n_rows * i // n_parts for i in range(n_parts + 1)]
    load, rows = dask.delayed(_load_npz, pure=True), dask.delayed(_rows_of, pure=True)
    # One worker reads the file, and cuts it.
    arrays = load(name, keys)
    target = wanted.target
    meta = _table(
        np.empty((0, *shape[1:]), dtype), np.empty(0, shapes[keys["y"]][1]) if "y" in keys else None, target
    )
    parts = [rows(arrays, begin, end, target) for begin, end in pairwise(edges)]
    return dd.from_delayed(parts, meta=meta, verify_meta=False, prefix="npz")


def _shapes_in(name: str) -> Shapes:
    """Return shape and dtype of each array in an npz file, from its headers. ValueError: not an npz file."""
    found = {}
    try:
        with open_file(name, "rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as array:
                    version = npy.read_magic(array)
                    read_header = (
                        npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    )
                    shape, _, dtype = read_header(array)
                found[member.removesuffix(".npy")] = (shape, dtype)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"Expected an npz file at {name} ({error}). Write it with numpy.savez.") from error
    return found


def _key_of_target(shapes: Shapes, wanted: Wanted, name: str) -> str:
    target = str(wanted.target)
    for key in (f"{target}_{wanted.role}", target):
        if key in shapes:
            return key
    require_columns(shapes, [target], f"{name} (arrays are its columns)")
    raise AssertionError("one of the two has returned or raised")


def _key_of_features(shapes: Shapes, wanted: Wanted, name: str) -> str:
    for key in (*(f"{x}_{wanted.role}" for x in _FEATURES), *_FEATURES):
        if key in shapes:
            return key
    tables = [key for key, (shape, _) in shapes.items() if len(shape) > 1 and key != wanted.target]
    if len(tables) != 1:
        raise ValueError(
            f"Expected an array X of features in {name}, received {', '.join(shapes)}. Name the features X."
        )
    return tables[0]


def _load_npz(name: str, keys: dict[str, str]) -> dict[str, np.ndarray]:
    with open_file(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {column: arrays[key] for column, key in keys.items()}


def _rows_of(arrays: dict[str, np.ndarray], begin: int, end: int, target: str | None) -> Any:
    y = arrays.get("y")
    return _table(arrays["X"][begin:end], None if y is None else y.reshape(-1)[begin:end], target)


def _table(X: np.ndarray, y: np.ndarray | None, target: str | None) -> Any:
    import pandas as pd

    X = X.reshape(len(X), math.prod(X.shape[1:]))
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    return frame if y is None else frame.assign(**{str(target): y})
