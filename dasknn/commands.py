"""The commands of `dask nn`: train, predict, evaluate, inspect, recommend.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error that users can mend, 2 wrong
usage, 3 a threshold of `evaluate` is not met, 130 interrupted (what was learned is saved).
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import click
import dask
import fsspec
from distributed import Client, KilledWorker, LocalCluster
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import pipelines, reports
from dasknn.callbacks import Callback, progress
from dasknn.cluster.limits import available_cpus
from dasknn.data import readers
from dasknn.data.preprocessing import Categories, TablePreprocessor, require_columns
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.options import (
    Names,
    StrategyType,
    cluster_options,
    columns_in,
    data_argument,
    format_option,
    json_option,
    network_options,
    number_of,
    quiet_option,
    read_config,
    slices_of,
    table_options,
    target_option,
    task_option,
    thresholds_of,
    validation_of,
)
from dasknn.saving import storage
from dasknn.wording import in_shell

_CONNECT_SECONDS = 30
_MISSED = 3
# What pandas says of a CSV file whose columns do not go on as they begin.
_CSV_ERRORS = ("Unable to parse string", "could not convert string", "cannot safely cast", "bool-like values")
_CSV_REMEDY = (
    "If this is a CSV file, a column of it changes its kind after the first 10,000 rows. Name it in "
    "--categorical, and it is read as text; a target that has fractions needs --task regression."
)
# Whole numbers in a target, from which on it is said how they are understood.
_MANY_CLASSES = 20
# The exit code of a program that Ctrl-C has ended.
_INTERRUPTED = 130


# --- train -------------------------------------------------------------------------------------------


@click.command()
@data_argument
@click.option(
    "--config",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="TOML",
    help="File with options as keys, and DATA as data; the command line wins.",
)
@target_option
@click.option("--output", required=True, help="File or fsspec URL to write the model to.")
@table_options
@click.option("--weights", metavar="COLUMN", help="Column of the weights of rows.")
@click.option("--shuffle", is_flag=True, help="Mix the rows over all files first, where they are sorted.")
@click.option("--drop-missing-target", is_flag=True, help="Leave out rows whose target is missing.")
@task_option
@network_options
@click.option(
    "--epochs",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Times to go over the rows, at most.",
)
@click.option(
    "--learning-rate",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="How far a step goes.",
)
@click.option(
    "--alpha",
    default=1e-4,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Strength of the L2 penalty on weights.",
)
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    type=StrategyType(),
    help="What replicas average: auto, gradients, weights, predictions; with settings as in "
    "weights:every=16,outer or predictions:members=5.",
)
@click.option(
    "--class-weight",
    type=click.Choice(["balanced"]),
    help="balanced: rows of rare classes count for more.",
)
@click.option(
    "--validation",
    multiple=True,
    default=["0.1"],
    show_default="0.1",
    metavar="FRACTION|FILES",
    help="Rows to score after each epoch: a share of DATA, which is not trained on, or files. 0: none.",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=None,
    help="Stop when the validation score has not risen for 10 epochs, and keep the best epoch's weights. "
    "[default: yes, where there are rows for validation]",
)
@click.option("--test", multiple=True, metavar="FILES", help="Files to score the model on at the end.")
@click.option("--checkpoint", metavar="PATH", help="Folder or URL to write the training to after each epoch.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint, where there is one.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Where random numbers begin: for the same one, the same model.",
)
@json_option
@quiet_option
@cluster_options
def train(**options) -> None:
    """Train a network on the files DATA, and write it to one file.

    Example: dask nn train 'adult/*.parquet' --target income --output model.safetensors
    """
    if options["resume"] and not options["checkpoint"]:
        raise click.UsageError("--resume needs --checkpoint PATH.")
    options["validation"] = validation_of(options["validation"])
    may_stop = bool(options["validation"]) and options["solver"] != "lbfgs"
    if options["early_stopping"] is None:
        options["early_stopping"] = may_stop
    elif options["early_stopping"] and not may_stop:
        reason = "rows for it: --validation 0.1" if options["validation"] == () else "--solver adam or sgd"
        raise click.UsageError(f"--early-stopping needs {reason}.")
    with _friendly_errors(), _client(options):
        storage.check_folder(options["output"])
        began = time.perf_counter()
        prepared = _Prepared(options)
        model = prepared.model(
            options,
            learning_rate_init=options["learning_rate"],
            alpha=options["alpha"],
            strategy=options["strategy"],
            random_state=options["seed"],
            max_iter=options["epochs"],
            early_stopping=options["early_stopping"] and prepared.validation is not None,
            callbacks=[_ManyClasses(options)] if prepared.may_be_numbers else None,
            verbose=0 if options["quiet"] else 2,
        )
        _fit(model, prepared, options)
        if not model.history_:
            _say("interrupted before the end of the first epoch; nothing was saved")
            raise SystemExit(_INTERRUPTED)
        prepared.save(model, options["output"])
        report = reports.of_training(model, len(prepared.names), time.perf_counter() - began)
        report |= {"target": options["target"], "output": options["output"]}
        if prepared.validation is not None:
            report["validation"] |= reports.scores(model, *prepared.numbers(prepared.validation))
        if prepared.test is not None:
            report["test"] = reports.scores(model, *prepared.numbers(prepared.test))
        click.echo(reports.as_json(report) if options["as_json"] else reports.text_of_training(report))
        if model.interrupted_:
            _say(f"interrupted after {model.n_iter_} of {options['epochs']} epochs")
            raise SystemExit(_INTERRUPTED)


class _Prepared:
    """The tables of a training: read, split and, unless --preprocess none, with what makes numbers of them.

    names: the columns to learn from. table: the fitted TablePreprocessor, or None.
    """

    def __init__(self, options: dict[str, Any]):
        self._options = options
        self.target, self.weights = options["target"], options.get("weights")
        dropped, codes = (
            [name for names in options[option] for name in names] for option in ("drop", "categorical")
        )
        frame = self._read(options["data"], "train", codes)
        kind = getattr(frame[self.target].dtype, "kind", "O")
        self.is_regression = kind == "f" if options["task"] == "auto" else options["task"] == "regression"
        # Whole numbers may be meant as numbers or as codes of classes.
        self.may_be_numbers = options["task"] == "auto" and kind in "iu"
        self.names = [
            name for name in frame.columns if name not in {self.target, self.weights, *_known(frame, dropped)}
        ]
        if options.get("shuffle"):
            frame = dasknn.shuffle(frame, random_state=options["seed"])
        self.train, self.validation = self._split(frame, options.get("validation", ()), codes)
        test = options.get("test")
        self.test = self._read(test, "test", codes) if test else None
        self.table = None
        if options["preprocess"] == "auto":
            self.table = TablePreprocessor(
                categorical=[name for name in _known(frame, codes) if name in self.names],
                min_frequency=options["min_frequency"],
                max_categories=options["max_categories"],
                dtype=options["dtype"],
            )
            _say("looking at the columns", options)
            self.table.fit(self.train[self.names])

    def _read(self, paths: Sequence[str], role: str, codes: Sequence[str]):
        options = self._options
        asked = {"auto": None, "regression": True, "classification": False}[options["task"]]
        wanted = readers.Wanted(self.target, role, codes, asked)
        frame = readers.read(paths, wanted, options["form"])
        _known(frame, [self.target, *filter(None, [self.weights])])
        return frame.dropna(subset=[self.target]) if options.get("drop_missing_target") else frame

    def _split(self, frame, validation: Sequence[str], codes: Sequence[str]):
        """Return (rows to train on, rows to validate on or None)."""
        if not validation:
            return frame, None
        share = number_of(validation[0])
        if share is None:
            return frame, self._read(validation, "test", codes)
        left, held_out = frame.random_split([1 - share, share], random_state=self._options["seed"])
        if frame.npartitions == 1 and not len(held_out):
            # Only a small table can be without any; it is read quickly.
            _say("too few rows to hold some out for validation", self._options)
            return frame, None
        return left, held_out

    def numbers(self, frame) -> tuple[Any, Any, Any]:
        """Return X, y and weight (or None) of a table, lazily."""
        _known(frame, self.names)
        X = frame[self.names]
        if self.table is not None:
            X = self.table.transform(X)
        return X, frame[self.target], None if self.weights is None else frame[self.weights]

    def model(self, options: dict[str, Any], **settings) -> Any:
        """Return an estimator with the options of the network, not fitted."""
        settings |= {name: options[name] for name in ("activation", "solver", "batch_size", "dtype")}
        settings |= {name: options[name] for name in ("replicas", "transport")}
        settings["hidden_layer_sizes"] = options["hidden"]
        if self.is_regression:
            if options.get("class_weight"):
                raise click.UsageError("--class-weight is for classes; this target is of numbers.")
            return MLPRegressor(**settings)
        return MLPClassifier(**settings, class_weight=options.get("class_weight"))

    def save(self, model, path: str) -> None:
        """Write the fitted model, with what makes numbers of tables."""
        whole = model if self.table is None else Pipeline([("table", self.table), ("mlp", model)])
        pipelines.save(whole, path)


class _ManyClasses(Callback):
    """Says that whole numbers are taken for classes, where there are so many that numbers may be meant."""

    def __init__(self, options: dict[str, Any]):
        self._options = options

    def on_train_begin(self, logs=None) -> None:
        n_classes = len(self.model.classes_)
        if n_classes > _MANY_CLASSES:
            _say(
                f"{self._options['target']} holds {n_classes} whole numbers, each of which is taken for a "
                "class of its own. To learn how large they are, use --task regression.",
                self._options,
            )


def _fit(model, prepared: _Prepared, options: dict[str, Any]) -> None:
    X, y, weight = prepared.numbers(prepared.train)
    held_out = None
    if prepared.validation is not None:
        held_out = prepared.numbers(prepared.validation)[: 3 if weight is not None else 2]
    with warnings.catch_warnings():
        # Who asks for a number of epochs wants them, not convergence; and an interruption is told later.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Training interrupted by user")
        try:
            model.fit(
                X, y, weight,
                validation_data=held_out, checkpoint=options["checkpoint"], resume=options["resume"],
            )  # fmt: skip
        except ValueError as error:
            if "Drop rows without a target" in str(error):
                error.add_note("--drop-missing-target leaves them out.")
            raise


def _known(frame, names: Sequence[str]) -> list[str]:
    """Return names of columns. ValueError: some are missing."""
    require_columns(frame.columns, names)
    return list(names)


# --- predict -----------------------------------------------------------------------------------------


@click.command()
@click.argument("model_file", metavar="MODEL")
@data_argument
@click.option(
    "--output",
    required=True,
    help="Folder (or fsspec URL) to write Parquet files to, or one file that ends in .csv.",
)
@click.option("--proba", is_flag=True, help="Write a column of probabilities for each class, too.")
@click.option("--keep", multiple=True, type=Names(), help="Columns of DATA to write, too: id,name.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@format_option
@quiet_option
@cluster_options
def predict(**options) -> None:
    """Predict with a saved MODEL for the files DATA: tables as they were trained on.

    Example: dask nn predict model.safetensors 'new/*.csv' --keep id --output predictions.csv
    """
    with _friendly_errors():
        model, output = _model_in(options["model_file"]), options["output"]
        if not options["overwrite"] and _is_filled(output):
            raise click.ClickException(
                f"Expected nothing, or an empty folder, at {output}, found files. Name another, or add "
                "--overwrite."
            )
        if output.endswith(".csv"):
            storage.check_folder(output)
        if options["proba"] and not hasattr(model, "predict_proba"):
            raise click.UsageError("--proba is for classifiers; this model predicts numbers.")
        with _client(options):
            kept = [name for names in options["keep"] for name in names]
            frame = _read_for(model, options, kept=kept)
            frame = _with_index(frame, kept)
            names = _columns_of(model, frame, kept)
            predictions = _predictions(model, frame, names, kept, options["proba"])
            has_index = frame.index.name not in (None, *kept)
            if output.endswith(".csv"):
                predictions.to_csv(output, single_file=True, index=has_index)
            else:
                predictions.to_parquet(output, write_index=has_index, overwrite=options["overwrite"])
            click.echo(f"predictions written to {output}")


def _model_in(path: str):
    model = pipelines.load(path)
    if isinstance(model, TablePreprocessor):
        raise ValueError(f"{path} holds a table without a network. Expected a model that predicts.")
    return model


def _read_for(model, options: dict[str, Any], target: str | None = None, kept: Sequence[str] = ()):
    """Return the table of DATA, with the types of columns that a model was trained on."""
    texts = _columns_of_text(model)
    if target is not None and is_classifier(model) and isinstance(model.classes_.tolist()[0], str):
        texts.add(target)
    wanted = readers.Wanted(target, "test", texts, not is_classifier(model), kept)
    return readers.read(options["data"], wanted, options["form"])


def _with_index(frame, names: Sequence[str]):
    """Return a table whose index is a column, too, if it is among names: by its name, or as "index".

    ValueError: names that are neither.
    """
    index = frame.index.name or "index"
    if index in names and index not in frame.columns:
        frame = frame.assign(**{index: frame.index})
    _known(frame, names)
    return frame


def _columns_of_text(model) -> set[str]:
    if not isinstance(model, Pipeline):
        return set()
    return {
        column.name
        for column in model[0].columns_
        if isinstance(column, Categories)
        and any(isinstance(value, str) for value in (*column.values, *column.infrequent))
    }


def _columns_of(model, frame, others: Sequence[str]) -> list[str]:
    """Return the columns that a model takes; of one that knows no names, all but the others."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return [name for name in frame.columns if name not in others]
    # A table from which the model was trained may go on holding its target.
    return _known(frame, list(names))


def _predictions(model, frame, names: list[str], kept: list[str], proba: bool):
    """Return a Dask dataframe: columns that are kept, predictions, probabilities."""
    import dask.dataframe as dd
    import pandas as pd

    frame = frame[list(dict.fromkeys([*names, *kept]))]
    # From here on partitions stay as they are: those of files, Dask may fuse in another way for each column.
    frame = dd.from_delayed(frame.to_delayed(), meta=frame._meta, verify_meta=False)
    predicted = model.predict(frame[names])
    if predicted.ndim == 1:
        predicted = predicted.to_frame(name="prediction")
    else:
        predicted = predicted.rename(columns={name: f"prediction_{name}" for name in predicted.columns})
    pieces = [frame[kept], predicted] if kept else [predicted]
    if proba:
        chances = model.predict_proba(frame[names])
        pieces.append(chances.rename(columns={name: f"probability_{name}" for name in chances.columns}))
    return dd.map_partitions(
        _side_by_side,
        *pieces,
        meta=pd.concat([piece._meta for piece in pieces], axis=1),
        align_dataframes=False,
        enforce_metadata=False,
    )


def _side_by_side(*frames):
    import pandas as pd

    index = frames[0].index
    # Rows go by their order: an index may hold a label twice.
    return pd.concat([frame.reset_index(drop=True) for frame in frames], axis=1).set_axis(index)


def _is_filled(output: str) -> bool:
    files, path = fsspec.core.url_to_fs(output)
    return files.exists(path) and (files.isfile(path) or bool(files.ls(path)))


# --- evaluate ----------------------------------------------------------------------------------------


@click.command()
@click.argument("model_file", metavar="MODEL")
@data_argument
@click.option(
    "--target", metavar="COLUMN", help="Column that holds what is right [the one that the model has learned]."
)
@click.option(
    "--metrics", multiple=True, type=Names(), help="Metrics: accuracy,log_loss [a few that suit the model]."
)
@click.option(
    "--slices",
    multiple=True,
    metavar="COLUMN[:N][+...],...",
    help="Score rows by the values of columns (region,sex), of several together (region+sex), or by N ranges "
    "of numbers (age:5).",
)
@click.option(
    "--threshold",
    multiple=True,
    metavar="METRIC=VALUE",
    help="What all rows, and each slice of enough rows, must reach, else exit code 3: accuracy=0.8, the "
    "least of a score and the most of an error; or with a comparison, 'r2>=0.7'.",
)
@click.option(
    "--bound",
    default="value",
    show_default=True,
    type=click.Choice(["value", "worst", "best"]),
    help="What thresholds judge: the metric, or an end of its confidence interval.",
)
@click.option(
    "--min-rows", default=100, show_default=True, type=click.IntRange(min=0), help="Rows that a slice needs."
)
@click.option("--weights", metavar="COLUMN", help="Column of the weights of rows.")
@click.option("--output", help="CSV file or fsspec URL to write the table to.")
@format_option
@json_option
@quiet_option
@cluster_options
def evaluate(**options) -> None:
    """Score a saved MODEL on the files DATA, over all rows and by slices, with confidence intervals.

    Example: dask nn evaluate model.safetensors test.parquet --slices sex,age:5 --threshold accuracy=0.8
    """
    thresholds = thresholds_of(options["threshold"])
    with _friendly_errors():
        if options["output"]:
            storage.check_folder(options["output"])
        model = _model_in(options["model_file"])
        target = options["target"] or _target_of(model)
        with _client(options):
            weights = options["weights"]
            frame = _read_for(model, options, target)
            slices = slices_of(options["slices"], frame.columns)
            by = sorted({column for one in slices for column in columns_in(one)})
            frame = _with_index(frame, [target, *by, *filter(None, [weights])])
            names = _columns_of(model, frame, [target, *filter(None, [weights])])
            metrics = [name for names in options["metrics"] for name in names]
            if metrics:
                # What is judged is computed.
                metrics = list(dict.fromkeys([*metrics, *thresholds]))
            found = dasknn.evaluate(
                model,
                frame[names],
                frame[target],
                metrics or None,
                slices,
                sample_weight=None if weights is None else frame[weights],
                slice_data=frame[by] if by else None,
                min_rows=options["min_rows"],
            )
            if options["output"]:
                storage.write(options["output"], found.to_csv(index=False).encode())
            missed = _missed(found, thresholds, options["bound"])
            if options["as_json"]:
                failures = [] if missed is None else missed.failures.to_dict("records")
                verdict = {"passed": missed is None, "failures": failures} if thresholds else {}
                click.echo(reports.as_json({"slices": found.to_dict("records"), **verdict}))
            else:
                click.echo(reports.text_of_evaluation(found))
            if missed is not None:
                _say(str(missed))
                raise SystemExit(_MISSED)


def _target_of(model) -> str:
    """Return the column that a model has learned. UsageError: its file does not say it."""
    found = getattr(model[-1] if isinstance(model, Pipeline) else model, "target_name_", None)
    if found is None:
        raise click.UsageError(
            "Expected --target COLUMN: the file of this model does not say which column it has learned."
        )
    return found


def _missed(found, thresholds: dict[str, Any], bound: str) -> dasknn.ThresholdError | None:
    """Return what says which slices do not reach the thresholds, if some do not."""
    if thresholds:
        try:
            dasknn.assert_thresholds(found, thresholds, bound=bound)
        except dasknn.ThresholdError as error:
            return error
    return None


# --- inspect, recommend ------------------------------------------------------------------------------


@click.command()
@click.argument("model_file", metavar="MODEL")
@json_option
def inspect(model_file: str, as_json: bool) -> None:
    """Say what is in a saved MODEL: network, columns and their values, how it was trained."""
    with _friendly_errors():
        report = reports.of_file(model_file)
        click.echo(reports.as_json(report) if as_json else reports.text_of_file(report))


@click.command()
@data_argument
@target_option
@table_options
@task_option
@network_options
@json_option
@quiet_option
@cluster_options
def recommend(**options) -> None:
    """Measure the cluster, and predict what an epoch of DATA would take with each strategy.

    Trains nothing. Example: dask nn recommend 'adult/*.parquet' --target income --hidden 128,64
    """
    with _friendly_errors(), _client(options) as client:
        prepared = _Prepared(options)
        model = prepared.model(options)
        with redirect_stdout(io.StringIO() if options["as_json"] else sys.stdout):
            found = dasknn.recommend(client, model, prepared.numbers(prepared.train)[0])
        if options["as_json"]:
            rows = [
                {
                    "strategy": repr(row.strategy),
                    "transport": row.transport,
                    "seconds": row.seconds,
                    "bytes_sent": row.bytes_sent,
                    "is_default": row.is_default,
                }
                for row in found.rows
            ]
            click.echo(
                reports.as_json({"rows": rows, "strategy": repr(found.strategy), "reason": found.reason})
            )


# --- clusters, and what goes wrong -------------------------------------------------------------------


@contextmanager
def _client(options: dict[str, Any]) -> Iterator[Any]:
    """Yield a client of the scheduler, or of a cluster on this machine for as long as it is needed."""
    scheduler, file = options["scheduler"], options["scheduler_file"]
    if scheduler is None and file is None and options["workers"] is None:
        # As Client() does: DASK_SCHEDULER_ADDRESS, for instance.
        scheduler = dask.config.get("scheduler-address", None)
    if scheduler is None and file is None:
        n_workers = options["workers"] or available_cpus()
        # Ctrl-C is for this process: it ends training in order, while workers would die with tracebacks.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                dashboard_address=":0",
                # Errors of tasks reach us; workers would write them to the terminal, too, with tracebacks.
                silence_logs=logging.CRITICAL,
                # Workers that a nanny starts later, in place of lost ones.
                preload="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
            )
        finally:
            signal.signal(signal.SIGINT, handler)
        with cluster, Client(cluster) as client:
            _say(f"cluster of {n_workers} workers on this machine{_dashboard(client)}", options)
            yield client
        return
    if scheduler is not None and file is not None:
        raise click.UsageError("Expected --scheduler or --scheduler-file, received both.")
    if file is not None and not os.path.exists(file):
        raise click.ClickException(
            f"Expected a scheduler file at {file}, found none. Start `dask scheduler --scheduler-file "
            f"{file}`."
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
        _say(f"cluster of {n_workers} workers at {where}{_dashboard(client)}", options)
        if not n_workers:
            _say("waiting for workers: start them with `dask worker`, or press Ctrl-C")
        yield client


def _dashboard(client) -> str:
    """Return the link to the dashboard, to go into a line; "" where there is none."""
    try:
        found = client.run_on_scheduler(_has_dashboard)
    except Exception:
        # A scheduler that runs no functions of others; the link is a courtesy.
        return ""
    return f", dashboard {client.dashboard_link}" if found else ""


def _has_dashboard(dask_scheduler) -> bool:
    """Return whether a scheduler has pages; one without them has a port all the same."""
    applications = getattr(dask_scheduler.http_application, "applications", [])
    return any(path.endswith("/status") for app in applications for path in getattr(app, "app_paths", ()))


def _say(text: str, options: dict[str, Any] | None = None) -> None:
    """Write a line to stderr, unless these options say quiet."""
    if options is None or not options["quiet"]:
        progress.say(text)


@contextmanager
def _friendly_errors() -> Iterator[None]:
    """Show errors that users can mend as one message without a traceback, and warnings as one line."""
    try:
        with warnings.catch_warnings():
            for noise in (DeprecationWarning, FutureWarning, ResourceWarning):
                warnings.simplefilter("ignore", noise)
            if not sys.warnoptions:
                warnings.showwarning = lambda message, *_: _say(f"warning: {in_shell(str(message))}")
            yield
    except (ValueError, OSError, ImportError, RuntimeError, KilledWorker) as error:
        if any(words in str(error) for words in _CSV_ERRORS):
            error.add_note(_CSV_REMEDY)
        notes = "\n".join(getattr(error, "__notes__", []))
        raise click.ClickException(in_shell(f"{error}\n{notes}".rstrip())) from error
    except KeyboardInterrupt:
        _say("interrupted; nothing was saved")
        raise SystemExit(_INTERRUPTED) from None
