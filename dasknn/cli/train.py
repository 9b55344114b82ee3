"""dask nn train"""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import redirect_stdout
from typing import Any

import click
from sklearn.exceptions import ConvergenceWarning

from dasknn.callbacks import Callback
from dasknn.cli import reports
from dasknn.cli.options import (
    MLP,
    TABLE,
    StrategyType,
    check_held_out,
    class_weight_option,
    cluster_options,
    data_argument,
    held_out_options,
    json_option,
    model_option,
    network_options,
    output_option,
    quiet_option,
    read_config,
    recipe_options,
    rows_options,
    settle_model,
    table_options,
    target_option,
    task_option,
    validation_of,
)
from dasknn.cli.prepared import Prepared, prepare
from dasknn.cli.session import INTERRUPTED, client_of, friendly_errors, say
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
@output_option
@model_option
@table_options
@rows_options
@task_option
@network_options
@recipe_options
@held_out_options
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Most passes over the rows [table: by rules; mlp: 20].",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate; lbfgs has none [table: 0.04; mlp: 0.001].",
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0),
    help="Strength of the L2 penalty on the weights of mlp [0.0001].",
)
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    type=StrategyType(),
    help="What replicas average: auto, gradients, weights or predictions; also with settings, such as "
    "weights:every=16,outer or predictions:members=5.",
)
@class_weight_option
@click.option(
    "--validation",
    multiple=True,
    metavar="FRACTION|FILES",
    help="Rows to score after each epoch: a share of DATA, which is held out, or files. 0: none. [table: "
    "0.15, none of less than 100 rows; mlp: 0.1]",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=None,
    help="Stop when more epochs seem useless (mlp: after 10 without a better validation score), and keep the "
    "weights of the best epoch. [default: yes, if there are rows for validation]",
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
    """Train a network on the files DATA, and write it to one file with what it has learned of the columns.

    Example: dask nn train 'adult/*.parquet' --target income --output model.safetensors
    """
    _settle(options)
    with friendly_errors(), client_of(options):
        storage.check_folder(options["output"])
        began = time.perf_counter()
        prepared = prepare(options)
        model = prepared.model(
            strategy=options["strategy"],
            random_state=options["seed"],
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
            report["validation"] |= reports.scores(model, *prepared.columns(prepared.validation))
        elif report["validation"] is None and model.early_stopping == "auto":
            say("too few rows to hold some out for validation", options)
        if prepared.test is not None:
            report["test"] = reports.scores(model, *prepared.columns(prepared.test))
        click.echo(reports.as_json(report) if options["as_json"] else reports.text_of_training(report))
        if model.interrupted_:
            say(reports.text_of_interruption(model))
            raise SystemExit(INTERRUPTED)


def _settle(options: dict[str, Any]) -> None:
    """Give options their defaults. UsageError: some that do not fit together."""
    if options["resume"] and not options["checkpoint"]:
        raise click.UsageError("--resume needs --checkpoint FOLDER.")
    if options["quantiles"] and options["task"] == "classification":
        raise click.UsageError("--quantiles needs a regression, received --task classification.")
    settle_model(options)
    options["validation"] = validation_of(options["validation"])
    if options["model"] == TABLE:
        check_held_out(options)
    may_stop = options["validation"] != () and options.get("solver") != "lbfgs"
    if options["early_stopping"] and not may_stop:
        reason = "rows for it: --validation 0.1" if options["validation"] == () else "--solver adam or sgd"
        raise click.UsageError(f"--early-stopping needs {reason}.")
    if options["early_stopping"] is None and (options["model"] == MLP or not may_stop):
        options["early_stopping"] = may_stop


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
    X, y, weight = prepared.columns(prepared.train)
    settings = prepared.fit_settings()
    held_out = None
    if prepared.validation is not None:
        held_out = prepared.columns(prepared.validation)[: 3 if weight is not None else 2]
    # What callbacks print belongs to the progress: stdout is for the report.
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        # --epochs was chosen, so its end needs no warning; an interruption is reported later.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Training interrupted by user")
        try:
            model.fit(
                X, y, weight,
                validation_data=held_out, checkpoint=options["checkpoint"], resume=options["resume"],
                **settings,
            )  # fmt: skip
        except ValueError as error:
            if "Drop rows without a target" in str(error):
                error.add_note("--drop-missing-target leaves them out.")
            raise
