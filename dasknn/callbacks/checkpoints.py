"""Checkpoints: the whole state of a training in a folder, from which another fit resumes with the same bits.

    folder/epoch-00011.safetensors    the one before, in case the newest is damaged
    folder/epoch-00012.safetensors    the newest; `saving/snapshots.py` describes its content

`begin` reads the newest intact checkpoint, if there is one, and returns a callback for the fit:

    on_train_ready    restore the training from it
    on_epoch_done     take a snapshot; write it every `every` epochs
    on_train_end      write the snapshot of the last epoch, also after Ctrl-C and errors
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from dataclasses import dataclass
from numbers import Integral

from dasknn.callbacks.callback import Callback, named
from dasknn.exceptions import ModelFileError, caller_stacklevel
from dasknn.saving import snapshots, storage
from dasknn.saving.snapshots import Snapshot


class BackupAndRestore(Callback):
    """Back up the training after each epoch, and resume an interrupted training from the backup.

    Parameters
    ----------
    backup_dir : str or path
        Folder of the backup.
    save_freq : "epoch", default="epoch"
        For compatibility with Keras.
    double_checkpoint : bool, default=False
        For compatibility with Keras; ignored: a new file always replaces the old one when it is complete.
    delete_checkpoint : bool, default=True
        Whether to remove the backup when training is complete.

    Notes
    -----
    The backup holds weights, the state of the optimizer, the epoch, histories, the seed of all random numbers
    and the state of all callbacks, so the resumed training gives the same bits as an uninterrupted one. Keras
    restores weights and epoch.

    `fit(checkpoint=..., resume=True)` keeps two files, and so survives a damaged file and a full disk.
    """

    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        if save_freq != "epoch":
            raise ValueError(f"BackupAndRestore expects save_freq='epoch', received {save_freq!r}.")
        self.backup_dir = named("backup_dir", backup_dir)
        self.delete_checkpoint = delete_checkpoint

    @property
    def path(self) -> str:
        """File of the backup."""
        return storage.join(self.backup_dir, "training.safetensors")

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        if storage.exists(self.path):
            remedy = "Use the same settings and data as before, or another backup_dir."
            snapshots.restore(self.training, snapshots.read(self.path), self.path, remedy)

    def on_epoch_done(self, epoch, logs=None):
        storage.make_folder(self.backup_dir)
        snapshots.write(self.path, snapshots.snapshot(self.training))

    def on_train_end(self, logs=None):
        if self.delete_checkpoint and self.training.is_complete:
            storage.remove(self.path)


_NAME = re.compile(r"epoch-(\d{5,})\.safetensors")
# Left behind by a process that was killed while writing.
_UNFINISHED = re.compile(r"\.epoch-\d+\.safetensors\..+")
_N_KEPT = 2
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often `fit(checkpoint=...)` writes checkpoints.

    Parameters
    ----------
    path : str or path
        Folder, or fsspec URL such as `"s3://bucket/training"`.
    every : int, default=1
        Number of epochs between checkpoints. There is also one when training ends or stops.
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


def settings_of(checkpoint: str | os.PathLike | Checkpoint | None, resume: bool) -> Checkpoint | None:
    """Return the settings that `fit(checkpoint=..., resume=...)` means.

    ValueError: resume without a folder.
    """
    if checkpoint is None:
        if resume:
            raise ValueError(
                "Expected the folder to resume from, received checkpoint=None and resume=True. Pass "
                "checkpoint='folder'."
            )
        return None
    return checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


def begin(checkpoint: str | os.PathLike | Checkpoint | None, resume: bool) -> Checkpoints | None:
    """Return the callback that writes checkpoints; if `resume`, it has read the newest intact one.

    Parameters
    ----------
    checkpoint : str, path, Checkpoint or None
        Folder or settings; None: no checkpoints, and None is returned.
    resume : bool
        Whether to resume from the newest intact checkpoint.

    Raises
    ------
    ValueError
        `resume` without a checkpoint.
    FileExistsError
        The folder holds checkpoints, and `resume` is False.
    ModelFileError
        All checkpoints are damaged.
    """
    settings = settings_of(checkpoint, resume)
    if settings is None:
        return None
    storage.make_folder(settings.path)
    names = storage.names(settings.path)
    there = sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
    if not resume:
        if there:
            raise FileExistsError(
                f"{os.fspath(settings.path)} already holds checkpoints, the newest of epoch {there[-1]}. "
                "Pass resume=True to resume from it, or use another folder."
            )
        return Checkpoints(settings)
    for name in names:
        if _UNFINISHED.fullmatch(name):
            storage.remove(storage.join(settings.path, name))
    return Checkpoints(settings, _newest(settings.path, there) if there else None, there)


def _newest(folder: str | os.PathLike, there: list[int]) -> Snapshot:
    """Return the newest intact checkpoint; warn of newer ones, which are damaged."""
    damaged = []
    for epoch in reversed(there):
        try:
            found = snapshots.read(_file(folder, epoch))
        except ModelFileError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warnings.warn(
                f"A damaged checkpoint is skipped, and training resumes from epoch {epoch}: {problem}",
                stacklevel=caller_stacklevel(),
            )
        return found
    raise ModelFileError(
        f"All checkpoints in {os.fspath(folder)} are damaged: {' '.join(damaged)} Remove them to start over."
    )


def _file(folder: str | os.PathLike, epoch: int) -> str:
    return storage.join(folder, f"epoch-{epoch:05d}.safetensors")


class Checkpoints(Callback):
    """Writes the checkpoints of one fit, and keeps the two newest; one if there is no space for more.

    It runs before all other callbacks.

    Parameters
    ----------
    settings : Checkpoint
        Folder and frequency.
    found : Snapshot or None, default=None
        Snapshot to resume from.
    there : list of int or None, default=None
        Epochs of the checkpoints in the folder.
    """

    def __init__(self, settings: Checkpoint, found: Snapshot | None = None, there: list[int] | None = None):
        self.settings_of_fit = settings
        self.found = found
        # Newer ones are damaged: they stay until they are overwritten.
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
            remedy = "Use the same settings and data as before, or another folder."
            snapshots.restore(
                self.training, self.found, f"the checkpoint {_file(self._folder, self.found.epoch)}", remedy
            )
            self.found = None

    def on_epoch_done(self, epoch, logs=None):
        # Take one in each epoch: if the next is interrupted, its end can no longer be reconstructed.
        self._pending = snapshots.snapshot(self.training)
        if self.training.epoch % self.settings_of_fit.every == 0:
            self._write()

    def on_train_end(self, logs=None):
        if self.training.is_complete and self.training.has_ended:
            # SciPy reports that it has converged without another epoch.
            self._pending = snapshots.snapshot(self.training)
        if self._pending is not None:
            self._write()

    def _write(self) -> None:
        snapshot = self._pending
        assert snapshot is not None
        try:
            self._write_within_space(snapshot)
        except OSError as error:
            last = _file(self._folder, self._kept[-1]) if self._kept else "none yet"
            self._warn(
                f"The checkpoint of epoch {snapshot.epoch} could not be written ({type(error).__name__}: "
                f"{error}). Training continues; the last complete checkpoint is {last}."
            )
        else:
            self._kept = [*(epoch for epoch in self._kept if epoch != snapshot.epoch), snapshot.epoch]
            self._remove_old(self._n_kept)
        self._pending = None

    def _write_within_space(self, snapshot: Snapshot) -> None:
        """Write a snapshot; if there is no space for a third file, remove the oldest first."""
        path = _file(self._folder, snapshot.epoch)
        try:
            snapshots.write(path, snapshot)
        except OSError as error:
            if error.errno not in _NO_SPACE or len(self._kept) < 2:
                raise
            self._remove_old(1)
            snapshots.write(path, snapshot)
            self._n_kept = 1
            self._warn(
                f"There is no space in {os.fspath(self._folder)} for {_N_KEPT + 1} checkpoints ({error}). "
                f"Training continues and keeps one from now on: {path}. Free some space to keep two."
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
        warnings.warn(text, stacklevel=caller_stacklevel())
