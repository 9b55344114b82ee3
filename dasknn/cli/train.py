"""dask nn train"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import click
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import pipelines
from dasknn.callbacks import Callback
from dasknn.cli import reports
from dasknn.cli.options import (
    StrategyType,
    cluster_options,
    data_argument,
    json_option,
    network_options,
    number_of,
    quiet_option,
    read_config,
    table_options,
    target_option,
    task_option,
    validation_of,
)
from dasknn.cli.session import INTERRUPTED, client_of, friendly_errors, known_columns, say
from dasknn.data import readers
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.saving import storage

# With more distinct whole numbers in the target, a message says that they are taken as classes.
_MANY_CLASSES = 20


@click.command()
@data_argument
@click.option(
    "--config",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="TOML",
    help="File of options by their names, with DATA as data. Options on the command line take precedence.",
)
@target_option
@click.option("--output", required=True, metavar="MODEL", help="File or fsspec URL to write the model to.")
@table_options
@click.option("--weights", metavar="COLUMN", help="Column with the weights of the rows.")
@click.option("--shuffle", is_flag=True, help="First shuffle the rows across all files, if they are sorted.")
@click.option("--drop-missing-target", is_flag=True, help="Leave out rows without a target.")
@task_option
@network_options
@click.option(
    "--epochs",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most passes over the rows.",
)
@click.option(
    "--learning-rate",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate of adam and sgd.",
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
    help="What replicas average: auto, gradients, weights or predictions; also with settings, such as "
    "weights:every=16,outer or predictions:members=5.",
)
@click.option(
    "--class-weight",
    type=click.Choice(["balanced"]),
    help="balanced: give rows of rare classes more weight.",
)
@click.option(
    "--validation",
    multiple=True,
    default=["0.1"],
    show_default="0.1",
    metavar="FRACTION|FILES",
    help="Rows to score after each epoch: a share of DATA, which is held out, or files. 0: none.",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=None,
    help="Stop after 10 epochs without a better validation score, and keep the weights of the best epoch. "
    "[default: yes, if there are rows for validation]",
)
@click.option("--test", multiple=True, metavar="FILES", help="Files to score the trained model on, once.")
@click.option(
    "--checkpoint", metavar="FOLDER", help="Folder or URL to write a checkpoint to after each epoch."
)
@click.option("--resume", is_flag=True, help="Resume from the newest checkpoint, if there is one.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of all random numbers: the same seed, data, --replicas and --engine give the same model.",
)
@json_option
@quiet_option
@cluster_options
def train(**options: Any) -> None:
    """Train a network on the files DATA, and write it to one file with its preprocessing.

    Example: dask nn train 'adult/*.parquet' --target income --output model.safetensors
    """
    if options["resume"] and not options["checkpoint"]:
        raise click.UsageError("--resume needs --checkpoint FOLDER.")
    options["validation"] = validation_of(options["validation"])
    may_stop = bool(options["validation"]) and options["solver"] != "lbfgs"
    if options["early_stopping"] is None:
        options["early_stopping"] = may_stop
    elif options["early_stopping"] and not may_stop:
        reason = "rows for it: --validation 0.1" if options["validation"] == () else "--solver adam or sgd"
        raise click.UsageError(f"--early-stopping needs {reason}.")
    with friendly_errors(), client_of(options):
        storage.check_folder(options["output"])
        began = time.perf_counter()
        prepared = Prepared(options)
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
            say("interrupted in the first epoch; nothing was saved")
            raise SystemExit(INTERRUPTED)
        prepared.save(model, options["output"])
        report = reports.of_training(model, len(prepared.names), time.perf_counter() - began)
        report |= {"target": options["target"], "output": options["output"]}
        if prepared.validation is not None:
            report["validation"] |= reports.scores(model, *prepared.numbers(prepared.validation))
        if prepared.test is not None:
            report["test"] = reports.scores(model, *prepared.numbers(prepared.test))
        click.echo(reports.as_json(report) if options["as_json"] else reports.text_of_training(report))
        if model.interrupted_:
            say(f"interrupted after {model.n_iter_} of {options['epochs']} epochs")
            raise SystemExit(INTERRUPTED)


class Prepared:
    """The tables of a training, read and split, and the preprocessing that was fitted to them.

    names: the columns to learn from. table: the TablePreprocessor; None for --preprocess none.
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
        # Whole numbers may be amounts or codes of classes.
        self.may_be_numbers = options["task"] == "auto" and kind in "iu"
        self.names = [
            name
            for name in frame.columns
            if name not in {self.target, self.weights, *known_columns(frame, dropped)}
        ]
        if options.get("shuffle"):
            frame = dasknn.shuffle(frame, random_state=options["seed"])
        self.train, self.validation = self._split(frame, options.get("validation", ()), codes)
        test = options.get("test")
        self.test = self._read(test, "test", codes) if test else None
        self.table = None
        if options["preprocess"] == "auto":
            self.table = TablePreprocessor(
                categorical=[name for name in known_columns(frame, codes) if name in self.names],
                min_frequency=options["min_frequency"],
                max_categories=options["max_categories"],
                dtype=options["dtype"],
            )
            say("learning the columns", options)
            self.table.fit(self.train[self.names])

    def _read(self, paths: Sequence[str], role: str, codes: Sequence[str]) -> Any:
        options = self._options
        asked = {"auto": None, "regression": True, "classification": False}[options["task"]]
        wanted = readers.Wanted(self.target, role, codes, asked)
        frame = readers.read(paths, wanted, options["form"])
        known_columns(frame, [self.target, *filter(None, [self.weights])])
        return frame.dropna(subset=[self.target]) if options.get("drop_missing_target") else frame

    def _split(self, frame: Any, validation: Sequence[str], codes: Sequence[str]) -> tuple[Any, Any]:
        """Return (rows to train on, rows for validation or None)."""
        if not validation:
            return frame, None
        share = number_of(validation[0])
        if share is None:
            return frame, self._read(validation, "test", codes)
        left, held_out = frame.random_split([1 - share, share], random_state=self._options["seed"])
        if frame.npartitions == 1 and not len(held_out):
            # Only for one partition is it known quickly whether rows were held out.
            say("too few rows to hold some out for validation", self._options)
            return frame, None
        return left, held_out

    def numbers(self, frame: Any) -> tuple[Any, Any, Any]:
        """Return X, y and weight (or None) of a table, lazily, with the preprocessing applied to X."""
        known_columns(frame, self.names)
        X = frame[self.names]
        if self.table is not None:
            X = self.table.transform(X)
        return X, frame[self.target], None if self.weights is None else frame[self.weights]

    def model(self, options: dict[str, Any], **settings: Any) -> Any:
        """Return an unfitted estimator with the options of the network."""
        settings |= {name: options[name] for name in ("activation", "solver", "batch_size", "dtype")}
        settings |= {name: options[name] for name in ("replicas", "transport", "engine")}
        settings["hidden_layer_sizes"] = options["hidden"]
        if self.is_regression:
            if options.get("class_weight"):
                raise click.UsageError("--class-weight needs a classification, and this target has numbers.")
            return MLPRegressor(**settings)
        return MLPClassifier(**settings, class_weight=options.get("class_weight"))

    def save(self, model: Any, path: str) -> None:
        """Write the fitted model with its preprocessing."""
        whole = model if self.table is None else Pipeline([("table", self.table), ("mlp", model)])
        pipelines.save(whole, path)


class _ManyClasses(Callback):
    """Says that whole numbers are taken as classes, if there are so many that they may be amounts."""

    def __init__(self, options: dict[str, Any]):
        self._options = options

    def on_train_begin(self, logs: Any = None) -> None:
        n_classes = len(self.model.classes_)
        if n_classes > _MANY_CLASSES:
            say(
                f"the target {self._options['target']} has {n_classes} different whole numbers, and each is "
                "taken as a class. To predict them as numbers, use --task regression.",
                self._options,
            )


def _fit(model: Any, prepared: Prepared, options: dict[str, Any]) -> None:
    X, y, weight = prepared.numbers(prepared.train)
    held_out = None
    if prepared.validation is not None:
        held_out = prepared.numbers(prepared.validation)[: 3 if weight is not None else 2]
    with warnings.catch_warnings():
        # --epochs was chosen, so its end needs no warning; an interruption is reported later.
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
