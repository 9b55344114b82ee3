"""Parts that all commands share: the client, model files, tables for a model, errors in the shell's words."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import dask
import dask.system
from distributed import Client, KilledWorker, LocalCluster
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from dasknn import pipelines
from dasknn.callbacks import progress
from dasknn.cli.wording import in_shell
from dasknn.data import readers
from dasknn.data.column_kinds import Categories
from dasknn.data.columns import require_columns
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.data.tables.kinds import CategoryColumn, NumberColumn
from dasknn.data.tables.reading import DATE
from dasknn.ensembles import EnsembleClassifier, EnsembleRegressor
from dasknn.estimators.tabular import BaseTabular

_CONNECT_SECONDS = 30
# Errors of pandas for a CSV file with a column whose later values are of another type than the first ones.
_CSV_ERRORS = ("Unable to parse string", "could not convert string", "cannot safely cast", "bool-like values")
_CSV_REMEDY = (
    "If this is a CSV file, a column holds values of another type after the first 10,000 rows. Name it in "
    "--categorical to read it as text; for a target with fractions, use --task regression."
)
#: Exit code of a program that was ended by Ctrl-C.
INTERRUPTED = 130


def known_columns(frame: Any, names: Sequence[str]) -> list[str]:
    """Return the names. ValueError: some are not columns of the table."""
    require_columns(frame.columns, names)
    return list(names)


def read_model(path: str) -> Any:
    """Return the model in a file. ValueError: it holds a preprocessor alone."""
    model = pipelines.load(path)
    if isinstance(model, TablePreprocessor):
        raise ValueError(
            f"Expected a model that predicts in {path}, received a TablePreprocessor without a network. Save "
            "both as one Pipeline with dasknn.save."
        )
    return model


def read_for(model: Any, options: dict[str, Any], target: str | None = None, kept: Sequence[str] = ()) -> Any:
    """Return the table of DATA, with columns of the types that a model was trained on."""
    texts, dates = _texts_and_dates_of(model)
    if target is not None and is_classifier(model) and isinstance(model.classes_.tolist()[0], str):
        texts.add(target)
    wanted = readers.Wanted(target, "test", texts, not is_classifier(model), kept, dates)
    return readers.read(options["data"], wanted, options["form"])


def with_index(frame: Any, names: Sequence[str]) -> Any:
    """Return a table whose index is also a column if it is among the names, by its own name or as "index".

    ValueError: a name of neither a column nor the index.
    """
    index = frame.index.name or "index"
    if index in names and index not in frame.columns:
        frame = frame.assign(**{index: frame.index})
    known_columns(frame, names)
    return frame


def _texts_and_dates_of(model: Any) -> tuple[set[str], set[str]]:
    """Return the columns that a model was trained on as text, and those of dates."""
    if isinstance(model, EnsembleClassifier | EnsembleRegressor):
        found = [_texts_and_dates_of(member) for member in model.members_]
        return set().union(*(texts for texts, _ in found)), set().union(*(dates for _, dates in found))
    if isinstance(model, BaseTabular):
        columns = model._table.columns
        texts = {one.name for one in columns if isinstance(one, CategoryColumn) and one.holds == "text"}
        return texts, {one.name for one in columns if isinstance(one, NumberColumn) and one.holds == DATE}
    if not isinstance(model, Pipeline):
        return set(), set()
    texts = {
        column.name
        for column in model[0].columns_
        if isinstance(column, Categories)
        and any(isinstance(value, str) for value in (*column.values, *column.infrequent))
    }
    return texts, set()


def columns_of(model: Any, frame: Any, others: Sequence[str]) -> list[str]:
    """Return the columns that a model predicts from; if it knows no names, all but the others."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return [name for name in frame.columns if name not in others]
    # The table may hold other columns, too, such as the target.
    return known_columns(frame, list(names))


# --- clusters and errors -----------------------------------------------------------------------------


@contextmanager
def client_of(options: dict[str, Any]) -> Iterator[Any]:
    """Yield a client of the given scheduler, or of a cluster that is started on this machine."""
    scheduler, file = options["scheduler"], options["scheduler_file"]
    if scheduler is None and file is None and options["workers"] is None:
        # As Client() does; DASK_SCHEDULER_ADDRESS sets it, for instance.
        scheduler = dask.config.get("scheduler-address", None)
    if scheduler is None and file is None:
        n_workers = options["workers"] or dask.system.CPU_COUNT
        # Workers ignore Ctrl-C: this process ends training in order, while they would die with tracebacks.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                dashboard_address=":0",
                # Errors of tasks are reported here; workers would also print them, with tracebacks.
                silence_logs=logging.CRITICAL,
                # For workers that a nanny starts later in place of lost ones.
                preload="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
            )
        finally:
            signal.signal(signal.SIGINT, handler)
        with cluster, Client(cluster) as client:
            say(f"cluster of {n_workers} workers on this machine{_dashboard(client)}", options)
            yield client
        return
    if scheduler is not None and file is not None:
        raise click.UsageError("Expected --scheduler or --scheduler-file, received both.")
    if file is not None and not os.path.exists(file):
        raise click.ClickException(
            f"Expected a scheduler file at {file}, found none. Start a scheduler with `dask scheduler "
            f"--scheduler-file {file}`."
        )
    where = scheduler or file
    try:
        client = Client(scheduler, scheduler_file=file, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise click.ClickException(
            f"Expected a scheduler at {where}, found none within {_CONNECT_SECONDS} s ({error})."
        ) from error
    with client:
        n_workers = len(client.nthreads())
        say(f"cluster of {n_workers} workers at {where}{_dashboard(client)}", options)
        if not n_workers:
            say("waiting for workers: start some with `dask worker`, or press Ctrl-C")
        yield client


def _dashboard(client: Client) -> str:
    """Return the link to the dashboard as the end of a line, "" if there is no dashboard."""
    try:
        found = client.run_on_scheduler(_has_dashboard)
    except Exception:
        # Some schedulers do not run functions of clients; the link is not worth an error.
        return ""
    return f", dashboard {client.dashboard_link}" if found else ""


def _has_dashboard(dask_scheduler: Any) -> bool:
    """Return whether a scheduler has pages; a scheduler without any still has a port for them."""
    applications = getattr(dask_scheduler.http_application, "applications", [])
    return any(path.endswith("/status") for app in applications for path in getattr(app, "app_paths", ()))


def say(text: str, options: dict[str, Any] | None = None) -> None:
    """Write a line to stderr, unless the options are quiet."""
    if options is None or not options["quiet"]:
        progress.say(text)


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Show errors that users can fix as one message without a traceback, and warnings as one line."""
    try:
        with warnings.catch_warnings():
            for noise in (DeprecationWarning, FutureWarning, ResourceWarning):
                warnings.simplefilter("ignore", noise)
            if not sys.warnoptions:
                warnings.showwarning = lambda message, *_: say(f"warning: {in_shell(str(message))}")
            yield
    except (ValueError, OSError, ImportError, RuntimeError, KilledWorker) as error:
        if any(words in str(error) for words in _CSV_ERRORS):
            error.add_note(_CSV_REMEDY)
        notes = "\n".join(getattr(error, "__notes__", []))
        raise click.ClickException(in_shell(f"{error}\n{notes}".rstrip())) from error
    except KeyboardInterrupt:
        say("interrupted; nothing was saved")
        raise SystemExit(INTERRUPTED) from None
