"""Models on disk: one safetensors file with arrays and a JSON description.

Reading executes nothing that the file holds: arrays are raw numbers, the description is JSON, and names of
classes are looked up among our own. A checksum over both tells a damaged file from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dasknn.exceptions import ModelFileError

_FORMAT = "dasknn"
_VERSION = 1


def write(path: str | os.PathLike, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a model file; whoever reads the path sees the old file or the new one, never a part.

    description: JSON objects, lists, strings, numbers. arrays: names to numeric arrays.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(description, sort_keys=True, allow_nan=True)
    metadata = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "description": text,
        "sha256": _checksum(text, arrays),
    }
    write_bytes(path, save(arrays, metadata=metadata))


def write_bytes(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file; whoever reads the path sees the old file or the new one, never a part.

    FileNotFoundError: there is no such folder.
    """
    folder = check_folder(path)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{Path(path).name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_folder(path: str | os.PathLike) -> Path:
    """Return the folder of a file to be written. FileNotFoundError: there is no such folder."""
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder at {folder} to write {Path(path).name} to.")
    return folder


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description, arrays) of a model file.

    FileNotFoundError: no such file. ModelFileError: a file that is damaged, not ours, or too new.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Expected a model file at {path!r}, found none.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path} is damaged, or not a safetensors file ({error}). Save the model again."
        ) from error
    if metadata.get("format") != _FORMAT:
        raise ModelFileError(
            f"{path} is a safetensors file, but not one that dasknn wrote (its metadata has no "
            f"format={_FORMAT!r}). Use the program that wrote it."
        )
    version = metadata.get("version", "")
    if version != str(_VERSION):
        raise ModelFileError(
            f"Expected version {_VERSION} of the model format in {path}, received {version!r}. "
            "Use the version of dasknn that wrote it."
        )
    text = metadata.get("description", "")
    if metadata.get("sha256") != _checksum(text, arrays):
        raise ModelFileError(f"{path} is damaged: its checksum does not fit. Save the model again.")
    return json.loads(text), arrays


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
