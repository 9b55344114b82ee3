"""dask nn search"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import click
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

import dasknn
from dasknn.cli import reports, search_reports
from dasknn.cli.options import (
    class_weight_option,
    cluster_options,
    data_argument,
    json_option,
    model_option,
    number_of,
    output_option,
    quiet_option,
    rows_options,
    settle_model,
    table_options,
    target_option,
    task_option,
    validation_of,
)
from dasknn.cli.prepared import Prepared, prepare
from dasknn.cli.search_config import (
    NETWORK_STEP,
    TABLE_STEP,
    SearchConfig,
    arguments_of,
    read_search_config,
)
from dasknn.cli.session import INTERRUPTED, client_of, friendly_errors, say
from dasknn.saving import storage
from dasknn.search import GridSearch, HyperbandSearch, RandomSearch, SuccessiveHalvingSearch
from dasknn.search.spaces import default_space

_METHODS: dict[str, type] = {
    "hyperband": HyperbandSearch,
    "halving": SuccessiveHalvingSearch,
    "random": RandomSearch,
    "grid": GridSearch,
}
# Arguments of searches, by the names of options.
_ARGUMENTS = {"trials": "n_trials", "epochs": "max_iter", "budget": "time_budget", "scoring": "scoring"}
_ARGUMENTS |= {"sampler": "sampler", "hold_out": "hold_out", "cv": "cv"}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
# The largest ensemble that a search chooses networks for, unless a larger one is asked for.
_MOST_NETWORKS = 16


class Budget(click.ParamType):
    """A number of seconds, minutes or hours, as seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+|\d*\.\d+)([smh])", str(value).strip())
        if found is None or not float(found[1]):
            self.fail(f"expected a time such as 90s, 30m or 2h, received {str(value)!r}", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


@click.command()
@data_argument
@click.option(
    "--config",
    is_eager=True,
    callback=read_search_config,
    metavar="TOML",
    help="File with the settings to try, in the table [parameters]; settings of all trials, in [settings]; "
    "arguments of the search, in [search]; and options by their names. Options on the command line take "
    "precedence.",
)
@target_option
@output_option
@model_option
@table_options
@rows_options
@task_option
@class_weight_option
@click.option(
    "--method",
    default="hyperband",
    show_default=True,
    type=click.Choice(list(_METHODS)),
    help="hyperband, halving: many settings for few epochs, and the best of them for more. random, grid: all "
    "to the end.",
)
@click.option(
    "--budget",
    type=Budget(),
    help="Time after which no more is trained, such as 90s, 30m or 2h. halving and random then try as many "
    "settings as there is time for, unless --trials says how many.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help="How many settings are tried [hyperband: 49 for 27 epochs; halving: 27; random: 20; grid: all].",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Most epochs of a trial [27].")
@click.option(
    "--sampler",
    type=click.Choice(["random", "sobol", "tpe"]),
    help="What proposes settings. sobol: evenly. tpe: those that are like the best so far; needs optuna. "
    "[random]",
)
@click.option(
    "--validation",
    "scored",
    multiple=True,
    metavar="FRACTION|FILES",
    help="Rows that trials are scored on: a share of DATA, which is not trained on, or files [0.15].",
)
@click.option(
    "--cv",
    type=click.IntRange(min=2),
    help="Train each trial on so many folds instead, and the best one on all rows in the end.",
)
@click.option(
    "--hold-out",
    type=click.Choice(["random", "last"]),
    help="Which rows of DATA trials are scored on. last: the last ones, of rows that are sorted by time. "
    "[random]",
)
@click.option(
    "--groups",
    metavar="COLUMN",
    help="Score all rows of some groups, such as customers, or folds of groups. It is no column to learn "
    "from.",
)
@click.option(
    "--time",
    metavar="COLUMN",
    help="Score the latest rows by this column of dates or numbers. It is no column to learn from.",
)
@click.option(
    "--scoring",
    metavar="NAME",
    help="What is scored: the name of one of scikit-learn's scorers, such as neg_log_loss or roc_auc "
    "[accuracy, or r2].",
)
@click.option(
    "--ensemble",
    type=click.IntRange(min=1),
    metavar="NETWORKS",
    help="Write the mean of so many networks, which were chosen to predict best together, instead of the "
    "best network.",
)
@click.option(
    "--report",
    multiple=True,
    metavar="FILE",
    help="File to write the trials to: .html, with a picture; .md; or .csv.",
)
@click.option("--checkpoint", metavar="FOLDER", help="Folder or URL to write each trial to after each epoch.")
@click.option("--resume", is_flag=True, help="Go on with the search in the folder, if there is one.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of all random numbers: the same seed and data give the same trials, whatever the cluster, "
    "unless the budget ends them.",
)
@json_option
@quiet_option
@cluster_options
def search(**options: Any) -> None:
    """Search for the settings of the best network for the files DATA, and write it to one file.

    Without --config, settings are tried that suit the kind of model.

    Example: dask nn search 'adult/*.parquet' --target income --budget 30m --output model.safetensors
    """
    config: SearchConfig = options["config"]
    arguments = _settle(options, config)
    with friendly_errors(), client_of(options):
        for path in (options["output"], *options["report"]):
            storage.check_folder(path)
        began = time.perf_counter()
        options["dtype"] = config.settings.get("dtype", "float32")
        prepared = prepare(options)
        found = _search(prepared, options, arguments)
        _fit(found, prepared, options)
        n_networks = options["ensemble"]
        if n_networks is not None:
            # A search that was interrupted may have chosen less.
            n_networks = min(n_networks, len(found.ensemble_path_))
        model = found.best_estimator_ if n_networks is None else found.ensemble(n_networks)
        dasknn.save(model, options["output"])
        report = search_reports.of_search(found, options["method"], n_networks)
        report |= {"columns": len(prepared.names), "seconds": time.perf_counter() - began}
        report |= {"target": options["target"], "output": options["output"]}
        for path in options["report"]:
            search_reports.write(path, report, found)
        text = reports.as_json if options["as_json"] else search_reports.text_of_search
        click.echo(text(report))
        if found.interrupted_:
            say(f"interrupted; {options['output']} has the best of what was found until then")
            raise SystemExit(INTERRUPTED)


# --- options -----------------------------------------------------------------------------------------


def _settle(options: dict[str, Any], config: SearchConfig) -> dict[str, Any]:
    """Give options their defaults; return the arguments of the search. UsageError: they do not fit together.

    The argument validation is texts, as on the command line.
    """
    if options["resume"] and not options["checkpoint"]:
        raise click.UsageError("--resume needs --checkpoint FOLDER.")
    search_reports.check_kinds(options["report"])
    # These are the search's own, for both kinds of models.
    own = {name: options.pop(name) for name in ("hold_out", "groups", "time", "epochs")}
    settle_model(options)
    options |= own
    method = options["method"]
    config.check(method, arguments_of(_METHODS[method]), options["model"])
    arguments = {**config.arguments, **_given(options)}
    for option, name in _ARGUMENTS.items():
        if name in arguments and name not in arguments_of(_METHODS[method]):
            raise click.UsageError(
                f"--method {method} has no --{option}: it tries all combinations of values. Leave --{option} "
                "out."
            )
    if method == "grid" and not config.parameters:
        raise click.UsageError(
            "--method grid needs lists of values: --config TOML, with a table [parameters]."
        )
    if arguments.get("refit") is False and options["ensemble"] is None:
        raise click.UsageError(
            "refit = false leaves no network to write. Leave it out, or use --ensemble NETWORKS."
        )
    if isinstance(arguments.get("time_budget"), str):
        arguments["time_budget"] = Budget().convert(arguments["time_budget"], None, None)
    if method in ("halving", "random") and arguments.get("time_budget") is not None:
        arguments.setdefault("n_trials", None)
    if "validation" in arguments:
        value = arguments["validation"]
        texts = value if isinstance(value, list | tuple) else [value]
        arguments["validation"] = validation_of([str(text) for text in texts])
    _check_rows(options, arguments)
    arguments["random_state"] = options["seed"]
    if options["ensemble"] is not None:
        most = arguments.get("max_ensemble", _MOST_NETWORKS)
        if isinstance(most, int):
            arguments["max_ensemble"] = max(options["ensemble"], most)
        # The networks of the ensemble are kept as they are.
        arguments.setdefault("refit", False)
    if options["quiet"]:
        arguments["verbose"] = False
    return arguments


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the search that are on the command line."""
    given = {name: options[option] for option, name in _ARGUMENTS.items() if options[option] is not None}
    if options["scored"]:
        given["validation"] = options["scored"]
    return given


def _check_rows(options: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raise UsageError if options disagree on which rows are scored."""
    scored, cv = arguments.get("validation"), arguments.get("cv")
    if cv is not None and not isinstance(cv, int):
        raise click.BadParameter(f"expected a number of folds for cv, received {cv!r}", param_hint="--config")
    if scored == ():
        raise click.UsageError("A search needs rows to score. Leave --validation 0 out, or use --cv 5.")
    ways = [f"--{name} {options[name]}" for name in ("groups", "time") if options[name]]
    if arguments.get("hold_out") == "last":
        ways.append("--hold-out last")
    if scored is not None and number_of(scored[0]) is None:
        ways.append("--validation FILES")
    if cv is not None:
        # Folds may be of groups.
        ways = [way for way in ways if not way.startswith("--groups")]
        if scored is not None and "--validation FILES" not in ways:
            ways.append(f"--validation {scored[0]}")
        ways.append(f"--cv {cv}")
    if len(ways) > 1:
        raise click.UsageError(
            f"Expected one way to say which rows are scored, received {' and '.join(ways)}. Leave one of "
            "them out."
        )
    for name in ("groups", "time"):
        if options[name] and options[name] == options["target"]:
            raise click.UsageError(
                f"Expected --{name} to be another column than --target, received one for both."
            )


# --- the search --------------------------------------------------------------------------------------


def _search(prepared: Prepared, options: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """Return the search, not fitted."""
    config: SearchConfig = options["config"]
    estimator = _estimator(prepared, config)
    parts = [_prefixed(estimator, part) for part in config.parameters]
    space = default_space(estimator) if not parts else parts[0] if len(parts) == 1 else parts
    settings = dict(arguments)
    if settings.get("sampler") == "tpe":
        settings["sampler"] = _tpe()
    if (scored := settings.get("validation")) is not None:
        share = number_of(scored[0])
        settings["validation"] = _columns(prepared, scored) if share is None else share
    return _METHODS[options["method"]](estimator, space, **settings)


def _columns(prepared: Prepared, files: Sequence[str]) -> tuple[Any, ...]:
    """Return (X, y) or (X, y, weight) of files."""
    return tuple(column for column in prepared.raw_columns(prepared.more(files)) if column is not None)


def _estimator(prepared: Prepared, config: SearchConfig) -> Any:
    """Return an unfitted estimator of raw columns, with the settings of all trials."""
    of_table = {name: value for name, value in config.settings.items() if name.startswith(TABLE_STEP)}
    of_network = {name: value for name, value in config.settings.items() if name not in of_table}
    # ValueError: with --preprocess none, there is no table.
    return prepared.whole(**{"dtype": "float32", **of_network}).set_params(**of_table)


def _prefixed(estimator: Any, part: dict[str, Any]) -> dict[str, Any]:
    """Return a space with names as the estimator has them."""
    if not isinstance(estimator, Pipeline):
        return part
    return {name if name.startswith(TABLE_STEP) else NETWORK_STEP + name: part[name] for name in part}


def _tpe() -> Any:
    try:
        from optuna.samplers import TPESampler
    except ImportError as error:
        raise ImportError(
            "--sampler tpe needs optuna, which is not installed. Use: pip install 'dasknn[search]'"
        ) from error
    return TPESampler()


def _fit(found: Any, prepared: Prepared, options: dict[str, Any]) -> None:
    """Search. SystemExit: an interruption before there was anything to keep."""
    frame = prepared.train
    if found.cv is not None and frame.npartitions < found.cv:
        # Folds are of whole partitions.
        frame = frame.repartition(npartitions=found.cv)
    X, y, weight = prepared.raw_columns(frame)
    splits = {name: frame[column] for name, column in prepared.splits.items()}
    say(f"searching: {search_reports.line_of_plan(found)}", options)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        # Trials end early by design.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            found.fit(X, y, weight, checkpoint=options["checkpoint"], resume=options["resume"], **splits)
        except KeyboardInterrupt:
            if hasattr(found, "best_score_"):
                raise
            say("interrupted before any network was scored; nothing was saved")
            raise SystemExit(INTERRUPTED) from None
        except ValueError as error:
            if "Drop rows without a target" in str(error):
                error.add_note("--drop-missing-target leaves them out.")
            raise
