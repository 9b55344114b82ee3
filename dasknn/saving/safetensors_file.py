"""Model files: one safetensors file with arrays and a description in JSON, on disk or in an object store.

Reading executes nothing from the file: arrays are raw numbers, the description is JSON, and names of classes
are looked up among dasknn's own. A checksum over both reveals a damaged file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from dasknn.exceptions import ModelFileError, ModelNotFoundError
from dasknn.saving import schema, storage

_FORMAT = "dasknn"
_VERSION = 1


def write(path: str | os.PathLike, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a model file. Readers of the path or URL see the old file or the new one, never a part.

    description: in the types of JSON. arrays: numeric arrays by name.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(description, sort_keys=True, allow_nan=True)
    metadata = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "description": text,
        "sha256": _checksum(text, arrays),
    }
    storage.write(path, save(arrays, metadata=metadata))


def read(
    path: str | os.PathLike, remedy: str = "Save the model again."
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description, arrays) of a model file.

    remedy: what a message advises to do about a damaged file. FileNotFoundError: there is no such file.
    ModelFileError: a file that is damaged, that dasknn did not write, or of a later version of the format.
    """
    path = os.fspath(path)
    try:
        data = storage.read(path)
    except FileNotFoundError:
        raise ModelNotFoundError(f"Expected a model file at {path!r}, found none.") from None
    with schema.refusing(path, "a safetensors file", remedy):
        # load compares the lengths in the header with the length of the file.
        arrays = load(data)
        header = schema.parse(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
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
        raise ModelFileError(f"{path} is damaged: its checksum does not match. {remedy}".rstrip())
    with schema.refusing(path, "a file of dasknn", remedy):
        description = schema.parse(text)
        schema.table(schema.anything)(description, "")
    return description, arrays


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
