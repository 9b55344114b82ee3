"""The folder of a search: which search it is of, and a folder of checkpoints for each network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dasknn.callbacks.checkpoints import Checkpoint
from dasknn.saving import storage

_DESCRIPTION = "search.json"


@dataclass(frozen=True)
class Folder:
    """Where a search is written to.

    Attributes
    ----------
    settings : Checkpoint
        The folder, and how often each network is written.
    described : dict of str
        What must be the same when the search goes on.
    seed : int
    is_new : bool
        Whether no search is there yet.
    """

    settings: Checkpoint
    described: Mapping[str, str]
    seed: int
    is_new: bool

    @classmethod
    def of(cls, settings: Checkpoint, resume: bool, described: Mapping[str, str], seed: int) -> Folder:
        """Return the folder of a search to begin, with this seed, or to go on with, with its own.

        FileExistsError: there is a search, and resume is False. ValueError: it is another one.
        """
        storage.make_folder(settings.path)
        path = storage.join(settings.path, _DESCRIPTION)
        if not storage.exists(path):
            return cls(settings, described, seed, True)
        if not resume:
            raise FileExistsError(
                f"{settings.path} already holds a search. Pass resume=True to go on with it, or use "
                "another folder."
            )
        found = json.loads(storage.read(path))
        before = found["settings"]
        differences = [
            f"{name} was {before.get(name)}, and is {described.get(name)} now"
            for name in sorted({*before, *described})
            if before.get(name) != described.get(name)
        ]
        if differences:
            raise ValueError(
                f"The search in {settings.path} differs from this one: {'; '.join(differences)}. Use the "
                "same settings as before, or another folder."
            )
        return cls(settings, described, int(found["seed"]), False)

    def claim(self) -> None:
        """Write which search this is, if it is new."""
        if self.is_new:
            told = {"settings": dict(self.described), "seed": self.seed}
            storage.write(storage.join(self.settings.path, _DESCRIPTION), json.dumps(told).encode())

    def of_network(self, trial: int, split: int) -> Checkpoint:
        """Return where a network is written to."""
        path = storage.join(self.settings.path, f"trial-{trial:05d}-{split}")
        return Checkpoint(path, self.settings.every)


def identity_of(thing: Any) -> str:
    """Return what tells an object from others; where it is in memory says nothing."""
    return getattr(thing, "__qualname__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))
