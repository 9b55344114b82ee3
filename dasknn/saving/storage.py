"""Files at a path or an fsspec URL (s3://, gs://, abfs://, memory://, ...), written whole or not at all.

Both are written under a temporary name beside the file and then renamed, on this machine after a sync.
Credentials and endpoints come from the environment or from fsspec's own configuration.

Transactions of fsspec are not used, since they promise less. On this machine the temporary file is in the
folder of the system, which may be on another disk: it is then copied to its place, and never synced. A
transaction belongs to the file system object, which all threads share, so threads would commit or discard
each other's files. And in stores without transactions, an interrupted write leaves a part of the file.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


def write(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file. Readers of the path see the old file or the new one, never a part.

    FileNotFoundError: there is no such folder. OSError: it could not be written; nothing of it is left.
    """
    store, place = _resolved(path)
    if isinstance(store, LocalFileSystem):
        _write_here(place, data)
        return
    folder, name = posixpath.split(place)
    temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:12]}")
    with _os_errors(path):
        try:
            store.pipe_file(temporary, bytes(data))
            store.mv(temporary, place)
        except BaseException:
            with suppress(Exception):
                store.rm_file(temporary)
            raise


def _write_here(path: str, data: bytes | memoryview) -> None:
    folder = check_folder(path)
    temporary = os.path.join(str(folder), f".{Path(path).name}.{uuid.uuid4().hex[:12]}")
    # The kernel applies the umask: to ask for it, one has to set it, for all threads of the process.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(str(folder))


def _sync_folder(folder: str) -> None:
    """Sync a folder, so that a new name in it survives a loss of power, where the system can do so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: str | os.PathLike) -> bytes:
    """Return the bytes of a file. FileNotFoundError: there is none; OSError: it cannot be read."""
    store, place = _resolved(path)
    with _os_errors(path):
        try:
            return store.cat_file(place)
        except (FileNotFoundError, IsADirectoryError):
            raise FileNotFoundError(f"Expected a file at {os.fspath(path)!r}, found none.") from None


def exists(path: str | os.PathLike) -> bool:
    """Return whether there is a file, or a folder."""
    store, place = _resolved(path)
    with _os_errors(path):
        store.invalidate_cache(posixpath.dirname(place))
        return store.exists(place)


def names(folder: str | os.PathLike) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; none where there is no folder."""
    store, place = _resolved(folder)
    with _os_errors(folder):
        store.invalidate_cache(place)
        try:
            found = store.ls(place, detail=False)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(name.rstrip("/")) for name in found)


def remove(path: str | os.PathLike) -> None:
    """Remove a file, if it is there."""
    store, place = _resolved(path)
    with suppress(FileNotFoundError), _os_errors(path):
        store.rm_file(place)


def make_folder(path: str | os.PathLike) -> None:
    """Make a folder, and those above it, where they are missing."""
    store, place = _resolved(path)
    with _os_errors(path):
        store.makedirs(place, exist_ok=True)


def join(folder: str | os.PathLike, name: str) -> str:
    """Return the path or URL of a name in a folder."""
    folder = os.fspath(folder)
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else os.path.join(folder, name)


def folder_of(path: str | os.PathLike) -> str:
    """Return the path or URL of the folder that a file is in."""
    path = os.fspath(path)
    return path.rpartition("/")[0] if "://" in path else os.path.dirname(path) or os.curdir


def check_folder(path: str | os.PathLike) -> Path | None:
    """Return the folder that a file will be written to; None for a URL, whose folders may be mere names.

    FileNotFoundError: there is no such folder. IsADirectoryError: the path is a folder itself.
    """
    store, place = _resolved(path)
    if not isinstance(store, LocalFileSystem):
        return None
    if Path(place).is_dir():
        raise IsADirectoryError(
            f"Expected the name of a file to write, received the folder {os.fspath(path)}."
        )
    folder = Path(place).resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected an existing folder to write {Path(place).name} to, found none at {folder}."
        )
    return folder


def _resolved(path: str | os.PathLike) -> tuple[AbstractFileSystem, str]:
    """Return (file system, path in it).

    ValueError: an unknown protocol. ImportError: a protocol that needs another package; it says which.
    """
    text = os.fspath(path)
    if "://" not in text:
        # Not as a URL: "~" and "::" are parts of names here.
        return LocalFileSystem(), os.path.abspath(text)
    return url_to_fs(text)


@contextmanager
def _os_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn the errors of stores, which have classes of their own, into OSError."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise OSError(f"{os.fspath(path)}: {type(error).__name__}: {error}") from error
