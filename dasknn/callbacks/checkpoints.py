"""Checkpoints: a whole training in a folder, from which another fit goes on to the same bits.

    folder/epoch-00011.safetensors    the one before, in case the newest is damaged
    folder/epoch-00012.safetensors    the newest; `resuming` says what is in it

`begin` reads the newest whole one, where there is any, and returns a callback of the fit:

    on_train_ready    the training goes on from what was read
    on_epoch_done     a snapshot, written when its turn has come
    on_train_end      that of the last epoch, after Ctrl-C and errors, too
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from dataclasses import dataclass
from numbers import Integral

from dasknn.callbacks.callback import Callback, named
from dasknn.exceptions import ModelFileError
from dasknn.saving import snapshots, storage
from dasknn.saving.snapshots import Snapshot


class BackupAndRestore(Callback):
    """Keeps a copy of the whole training in a folder; a fit that was interrupted goes on from it.

    Weights, the optimizer's state, the epoch, histories, the seed of all random draws and the state of all
    callbacks: the resumed run gives the bits of one that was not interrupted. (Keras restores weights and
    epoch.)
    The copy is written to a new name and renamed. delete_checkpoint: remove it once training has ended.
    `fit(checkpoint=..., resume=True)` keeps two copies, and survives a damaged one and a full disk.
    """

    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        if save_freq != "epoch":
            raise ValueError(f"BackupAndRestore expects save_freq='epoch', received {save_freq!r}.")
        self.backup_dir = named("backup_dir", backup_dir)
        self.delete_checkpoint = delete_checkpoint

    @property
    def path(self) -> str:
        """The file of the copy."""
        return storage.join(self.backup_dir, "training.safetensors")

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        if storage.exists(self.path):
            remedy = "Use the settings and data of before, or another backup_dir."
            snapshots.restore(self.training, snapshots.read(self.path), self.path, remedy)

    def on_epoch_done(self, epoch, logs=None):
        storage.make_folder(self.backup_dir)
        snapshots.write(self.path, snapshots.snapshot(self.training))

    def on_train_end(self, logs=None):
        if self.delete_checkpoint and self.training.is_complete:
            storage.remove(self.path)


_NAME = re.compile(r"epoch-(\d{5,})\.safetensors")
# What a process leaves that is killed while it writes.
_UNFINISHED = re.compile(r"\.epoch-\d+\.safetensors\..+")
_N_KEPT = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often `fit(checkpoint=...)` writes.

    path: a folder, or an fsspec URL such as "s3://bucket/training". every: epochs between two checkpoints;
    there is one after the last epoch, too, and when training stops.
    """

    path: str | os.PathLike
    every: int = 1

    def __post_init__(self):
        if not isinstance(self.path, str | os.PathLike):
            raise ValueError(
                f"Expected checkpoint to be a folder, an fsspec URL or a dasknn.Checkpoint, received "
                f"{self.path!r}."
            )
        if not (isinstance(self.every, Integral) and self.every >= 1):
            raise ValueError(
                f"Checkpoint expects every to be an integer of at least 1, received {self.every!r}."
            )


def begin(checkpoint: str | os.PathLike | Checkpoint | None, resume: bool) -> Checkpoints | None:
    """Return what writes checkpoints, and has read the newest whole one where training shall go on; or None.

    ValueError: resume, and no checkpoint. FileExistsError: the folder holds checkpoints, and resume is False.
    ModelFileError: none of them is whole.
    """
    if checkpoint is None:
        if resume:
            raise ValueError(
                "resume=True needs the folder to go on from, received checkpoint=None. Pass "
                "checkpoint='folder'."
            )
        return None
    settings = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    storage.make_folder(settings.path)
    names = storage.names(settings.path)
    there = sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
    if not resume:
        if there:
            raise FileExistsError(
                f"{os.fspath(settings.path)} holds checkpoints already, the newest of epoch {there[-1]}. "
                "Pass resume=True to go on from it, or name another folder."
            )
        return Checkpoints(settings)
    for name in names:
        if _UNFINISHED.fullmatch(name):
            storage.remove(storage.join(settings.path, name))
    return Checkpoints(settings, _newest(settings.path, there) if there else None, there)


def _newest(folder: str | os.PathLike, there: list[int]) -> Snapshot:
    """Return the newest whole checkpoint; warn of newer ones that are not. ModelFileError: there is none."""
    damaged = []
    for epoch in reversed(there):
        try:
            found = snapshots.read(_file(folder, epoch))
        except ModelFileError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warnings.warn(
                f"A checkpoint is passed over, and training goes on from that of epoch {epoch}: {problem}",
                stacklevel=4,
            )
        return found
    raise ModelFileError(
        f"None of the checkpoints in {os.fspath(folder)} is whole: {' '.join(damaged)} Remove them to begin "
        "at the beginning."
    )


def _file(folder: str | os.PathLike, epoch: int) -> str:
    return storage.join(folder, f"epoch-{epoch:05d}.safetensors")


class Checkpoints(Callback):
    """Writes the checkpoints of one fit, and keeps the two newest, or one where there is no room for more.

    It comes before all other callbacks.

    found: what training goes on from. there: epochs of the checkpoints in the folder.
    """

    def __init__(self, settings: Checkpoint, found: Snapshot | None = None, there: list[int] | None = None):
        self.settings_of_fit = settings
        self.found = found
        # Newer ones are damaged: they stay until they are written anew.
        self._kept = [epoch for epoch in there or () if found is not None and epoch <= found.epoch]
        self._pending: Snapshot | None = None
        self._n_kept = _N_KEPT

    @property
    def _folder(self) -> str | os.PathLike:
        return self.settings_of_fit.path

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        if self.found is not None:
            remedy = "Use the settings and data of before, or another folder."
            snapshots.restore(
                self.training, self.found, f"the checkpoint {_file(self._folder, self.found.epoch)}", remedy
            )
            self.found = None

    def on_epoch_done(self, epoch, logs=None):
        # A snapshot of each epoch: when training is interrupted within the next, there is no other way back.
        self._pending = snapshots.snapshot(self.training)
        if self.training.epoch % self.settings_of_fit.every == 0:
            self._write()

    def on_train_end(self, logs=None):
        if self.training.is_complete and self.training.has_ended:
            # No epoch tells that SciPy is content.
            self._pending = snapshots.snapshot(self.training)
        if self._pending is not None:
            self._write()

    def _write(self) -> None:
        snapshot = self._pending
        assert snapshot is not None
        try:
            self._write_in_the_room_there_is(snapshot)
        except OSError as error:
            last = _file(self._folder, self._kept[-1]) if self._kept else "none yet"
            self._warn(
                f"The checkpoint of epoch {snapshot.epoch} could not be written ({type(error).__name__}: "
                f"{error}). Training goes on; the last whole checkpoint is {last}."
            )
        else:
            self._kept = [*(epoch for epoch in self._kept if epoch != snapshot.epoch), snapshot.epoch]
            self._remove_old(self._n_kept)
        self._pending = None

    def _write_in_the_room_there_is(self, snapshot: Snapshot) -> None:
        """Write a snapshot; where there is no room for a third file, without the older of the other two."""
        path = _file(self._folder, snapshot.epoch)
        try:
            snapshots.write(path, snapshot)
        except OSError as error:
            if error.errno not in _NO_ROOM or len(self._kept) < 2:
                raise
            self._remove_old(1)
            snapshots.write(path, snapshot)
            self._n_kept = 1
            self._warn(
                f"There is no room for a new checkpoint beside {_N_KEPT} old ones ({error}). Training goes "
                f"on, and from now on keeps one: that of epoch {snapshot.epoch} is {path}. Make room in "
                f"{os.fspath(self._folder)} for {_N_KEPT + 1} of them."
            )

    def _remove_old(self, n_kept: int) -> None:
        while len(self._kept) > n_kept:
            try:
                storage.remove(_file(self._folder, self._kept[0]))
            except OSError as error:
                self._warn(f"An old checkpoint could not be removed ({type(error).__name__}: {error}).")
                return
            del self._kept[0]

    def _warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)
