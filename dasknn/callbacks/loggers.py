"""Callbacks that record a training: in memory, as CSV, for TensorBoard."""

from __future__ import annotations

import csv
import os
import warnings
from typing import Any

import numpy as np

from dasknn.callbacks.callback import Callback, named
from dasknn.exceptions import caller_stacklevel


class History(Callback):
    """Records a training in memory; `Sequential.fit` returns it.

    Attributes
    ----------
    epoch : list of int
        Numbers of the epochs, from 0.
    history : dict of lists
        Loss and metrics by name, with one item for each epoch.
    entries : list of dict
        For each epoch, loss and metrics with details such as "seconds", "learning_rate", "bytes_sent".
        The first that a call of fit adds has "seconds_to_start", from the call to the first epoch.
    """

    def __init__(self):
        self.epoch: list[int] = []
        self.history: dict[str, list] = {}
        self.entries: list[dict[str, Any]] = []

    def on_train_begin(self, logs=None):
        self.epoch, self.history, self.entries = [], {}, []

    def note(self, epoch: int, logs: dict[str, Any]) -> None:
        """Record an epoch."""
        self.epoch.append(epoch)
        for name, value in sorted(logs.items()):
            self.history.setdefault(name, []).append(value)

    def on_epoch_end(self, epoch, logs=None):
        self.note(epoch, logs or {})

    def on_train_end(self, logs=None):
        n_epochs = len(self.epoch)
        self.entries = self.training.history[-n_epochs:] if n_epochs else []

    def __repr__(self):
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"


class CSVLogger(Callback):
    """Write one line per epoch to a CSV file: the epoch, from 0, and the logs; NA for missing values.

    The columns are the logs of the first epoch, and those of the validation.

    Parameters
    ----------
    filename : str or path
        The file.
    separator : str, default=","
        Separator of columns.
    append : bool, default=False
        Whether to append to an existing file, with its columns.
    """

    def __init__(self, filename, separator=",", append=False):
        self.filename = named("filename", filename)
        self.separator = separator
        self.append = append
        self.keys: list[str] | None = None
        self._left_out: list[str] = []
        #: Length of the file in bytes, to which the next line is appended.
        self.size = 0

    def state(self):
        return {"keys": self.keys, "size": self.size}

    def on_train_begin(self, logs=None):
        if self.training.hooks.follows:
            return
        self.keys, self.size, self._left_out = None, 0, []
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="") as file:
                header = next(csv.reader(file, delimiter=self.separator), None)
            self.keys = header[1:] if header else None
            self.size = os.path.getsize(self.filename)

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        with open(self.filename, "a", newline="") as file:
            if file.tell() < self.size:
                self.keys, self.size = None, 0
            # A resumed training repeats the epochs after the last checkpoint.
            file.truncate(self.size)
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self.keys is None:
                self.keys = sorted({*logs, *self.training.hooks.validated})
                writer.writerow(["epoch", *self.keys])
            writer.writerow([epoch, *(logs.get(key, "NA") for key in self.keys)])
        if strange := sorted(set(logs) - {*self.keys, *self._left_out}):
            self._left_out += strange
            warnings.warn(
                f"{self.filename} has no column for {', '.join(strange)}; these logs are not written.",
                stacklevel=caller_stacklevel(),
            )
        self.size = os.path.getsize(self.filename)


class TensorBoard(Callback):
    """Write event files for TensorBoard: loss, metrics and learning rate of each epoch.

    Requires the package tensorboard: `pip install 'dasknn[tensorboard]'`.

    Parameters
    ----------
    log_dir : str or path, default="logs"
        Folder of the files.
    histogram_freq : int, default=0
        Number of epochs between histograms of weights; 0: no histograms.
    write_graph, write_images, profile_batch, embeddings_freq, embeddings_metadata
        For compatibility with Keras; graphs, images, profiles and embeddings are not written.
    write_steps_per_second : bool, default=False
        Whether to write the steps per second of each epoch.
    update_freq : {"epoch", "batch"} or int, default="epoch"
        Unless "epoch": also write loss and metrics when progress within an epoch is reported.
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        write_images=False,
        write_steps_per_second=False,
        update_freq="epoch",
        profile_batch=0,
        embeddings_freq=0,
        embeddings_metadata=None,
    ):
        if update_freq not in ("epoch", "batch") and not isinstance(update_freq, int):
            raise ValueError(
                f"Expected update_freq to be 'epoch', 'batch' or an integer, received {update_freq!r}."
            )
        self.log_dir = named("log_dir", log_dir)
        self.histogram_freq = histogram_freq
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = update_freq
        self._writers: dict[str, Any] = {}

    def state(self):
        return None

    def on_train_begin(self, logs=None):
        _tensorboard()

    def on_epoch_begin(self, epoch, logs=None):
        self._step = self.training.state.step

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            self._write("train", batch, {f"batch_{name}": value for name, value in (logs or {}).items()})

    def on_epoch_end(self, epoch, logs=None):
        logs = dict(logs or {})
        own = {f"epoch_{name}": value for name, value in logs.items() if not name.startswith("val_")}
        own["epoch_learning_rate"] = self.training.learning_rate
        if self.write_steps_per_second:
            entry = self.training.history[-1]
            own["epoch_steps_per_second"] = (self.training.state.step - self._step) / entry["seconds"]
        self._write("train", epoch, own)
        validation = {
            f"epoch_{name.removeprefix('val_')}": value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        if validation:
            self._write("validation", epoch, validation)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            network = self.training.transport.job.network
            params = np.atleast_2d(self.training.state.params)[0]
            for variable in network.variables:
                layer = network.layers[variable.layer].name or f"layer_{variable.layer}"
                self._write_histogram(f"{layer}/{variable.name}", epoch, params[variable.span])

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, folder: str, step: int, values: dict[str, float]) -> None:
        _, summary, _ = _tensorboard()
        found = [summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._add(folder, step, summary(value=found))

    def _write_histogram(self, tag: str, step: int, values: np.ndarray) -> None:
        _, summary, histogram = _tensorboard()
        counts, edges = np.histogram(values, bins=30)
        proto = histogram(
            min=float(values.min()),
            max=float(values.max()),
            num=len(values),
            sum=float(values.sum()),
            sum_squares=float(np.square(values).sum()),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._add("train", step, summary(value=[summary.Value(tag=tag, histo=proto)]))

    def _add(self, folder: str, step: int, summary) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        if folder not in self._writers:
            writer, _, _ = _tensorboard()
            self._writers[folder] = writer(os.path.join(self.log_dir, folder))
        self._writers[folder].add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writers[folder].flush()


def _tensorboard():
    try:
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise ImportError(
            "callbacks.TensorBoard requires the package tensorboard: pip install 'dasknn[tensorboard]'."
        ) from None
    return EventFileWriter, Summary, HistogramProto
