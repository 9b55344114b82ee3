"""Options of `dask nn`: their types and help texts, and files of options."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

import dasknn
from dasknn import strategies
from dasknn.cli.wording import in_shell
from dasknn.engine import engines
from dasknn.saving import storage
from dasknn.saving.serialization import did_you_mean


def _options(*options: Callable) -> Callable:
    """Return a decorator that adds all these options to a command."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Names(click.ParamType):
    """Names of columns or metrics, separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        names = value if isinstance(value, list) else str(value).split(",")
        return tuple(name.strip() for name in names if name.strip())


class Counts(click.ParamType):
    """Numbers of something, separated by commas.

    name: of what. example: how to write them. least: the smallest that is allowed; None: others decide.
    """

    def __init__(self, name: str, example: str, least: int | None = None):
        self.name = name
        self._example, self._least = example, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        words = value if isinstance(value, list) else str(value).split(",")
        try:
            found = tuple(int(word) for word in words if word != "")
            is_allowed = self._least is None or min(found) >= self._least
        except ValueError:
            is_allowed = False
        if not is_allowed:
            self.fail(
                f"expected numbers of {self.name} such as {self._example}, received {value!r}", param, ctx
            )
        return found


class BatchSize(click.ParamType):
    """A number of rows, auto or full."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) in ("auto", "full"):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"expected auto, full or a number of rows, received {value!r}", param, ctx)
        return int(value)


class Levels(click.ParamType):
    """Levels of quantiles, separated by commas."""

    name = "levels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        words = value if isinstance(value, list) else str(value).split(",")
        levels = [number_of(str(word)) for word in words if str(word).strip()]
        if not levels or any(level is None or not 0 < level < 1 for level in levels):
            self.fail(
                f"expected numbers between 0 and 1 such as 0.05,0.5,0.95, received {value!r}", param, ctx
            )
        return tuple(sorted({level for level in levels if level is not None}))


# Settings of strategies that can be written on a command line.
_SETTINGS = {
    "weights": ("every", "outer", "balance"),
    "predictions": ("members", "hop"),
    "gradients": ("compression", "delay", "balance"),
}


class StrategyType(click.ParamType):
    """The name of a strategy, with settings or without: weights:every=16,outer."""

    name = "strategy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, _, words = value.partition(":")
        if name not in ("auto", *_SETTINGS) or (name == "auto" and words):
            self.fail(f"expected auto, gradients, weights or predictions, received {value!r}", param, ctx)
        if not words:
            return name
        settings = dict(word.partition("=")[::2] for word in words.split(","))
        if unknown := sorted(set(settings) - set(_SETTINGS[name])):
            known = ", ".join(_SETTINGS[name])
            self.fail(f"{name} has the settings {known}, received {unknown[0]!r}", param, ctx)
        try:
            return _strategy(name, settings)
        except ValueError as error:
            self.fail(in_shell(str(error)), param, ctx)


def _strategy(name: str, settings: dict[str, str]) -> strategies.Strategy:
    words = {"true": True, "false": False}
    found: dict[str, Any] = {
        key: int(value) if value.isdecimal() else words.get(value, value) for key, value in settings.items()
    }
    if not isinstance(found.get("hop", True), bool):
        raise ValueError(f"expected hop to be true or false, received {found['hop']!r}")
    if "outer" in found:
        found["outer"] = strategies.OuterNesterov()
    return type(strategies.get(name))(**found)


def read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """Make the keys of a TOML file the defaults of the command's options."""
    if path is not None:
        set_defaults(ctx, param, path, read_toml(ctx, param, path))


def read_toml(ctx: click.Context, param: click.Parameter, path: str) -> dict[str, Any]:
    """Return what is in a TOML file. BadParameter: it is none."""
    try:
        return tomllib.loads(storage.read(path).decode())
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"expected a TOML file at {path} ({error})", ctx, param) from error


def set_defaults(ctx: click.Context, param: click.Parameter, path: str, config: dict[str, Any]) -> None:
    """Make what a file holds the defaults of the command's options. BadParameter: an unknown key."""
    params = {_key(known): known for known in ctx.command.params if known is not param}
    defaults = {}
    for key, value in config.items():
        name = key.replace("-", "_")
        if name not in params:
            known = [one.replace("_", "-") for one in params]
            meant = did_you_mean(key.replace("_", "-"), known)
            raise click.BadParameter(
                f"{path} has an unknown key {key!r}.{meant} Known keys: {', '.join(sorted(known))}.",
                ctx,
                param,
            )
        takes_many = params[name].multiple or params[name].nargs == -1
        defaults[str(params[name].name)] = [value] if takes_many and not isinstance(value, list) else value
    ctx.meta["dasknn.data"] = defaults.pop("data", ())
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _key(param: click.Parameter) -> str:
    """Return the name of a parameter in a file of options, which is that on the command line."""
    longest = max((opt for opt in param.opts), key=len)
    return longest.lstrip("-").replace("-", "_")


def _data(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    value = value or tuple(ctx.meta.get("dasknn.data", ()))
    if not value:
        raise click.MissingParameter(ctx=ctx, param=param)
    return value


data_argument = click.argument("data", nargs=-1, callback=_data)
cluster_options = _options(
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Address of the scheduler of a cluster, such as tcp://host:8786 [DASK_SCHEDULER_ADDRESS, or a "
        "cluster is started on this machine].",
    ),
    click.option(
        "--scheduler-file", metavar="PATH", help="File that dask scheduler --scheduler-file has written."
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Start a cluster on this machine with this many workers [one for each core].",
    ),
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "npz"]),
    help="Format of the files [by their extension].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
quiet_option = click.option("--quiet", is_flag=True, help="Print only the result and errors, no progress.")
target_option = click.option(
    "--target", required=True, help="Column to predict; in npz files, an array (y also finds y_train)."
)
output_option = click.option(
    "--output", required=True, metavar="MODEL", help="File or fsspec URL to write the model to."
)
rows_options = _options(
    click.option("--weights", metavar="COLUMN", help="Column with the weights of the rows."),
    click.option(
        "--shuffle", is_flag=True, help="First shuffle the rows across all files, if they are sorted."
    ),
    click.option("--drop-missing-target", is_flag=True, help="Leave out rows without a target."),
)
class_weight_option = click.option(
    "--class-weight",
    type=click.Choice(["balanced"]),
    help="balanced: give rows of rare classes more weight.",
)
task_option = click.option(
    "--task",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "classification", "regression"]),
    help="auto: regression if the target has floating-point numbers, otherwise classification.",
)
table_options = _options(
    format_option,
    click.option("--drop", multiple=True, type=Names(), help="Columns to leave out, such as id,name."),
    click.option(
        "--categorical",
        multiple=True,
        type=Names(),
        help="Columns whose numbers are codes, to treat like text.",
    ),
    click.option(
        "--min-frequency",
        type=click.IntRange(min=1),
        help="Let values of text with fewer rows share one column or code [table: by the numbers of rows and "
        "values; mlp: each value has its own].",
    ),
    click.option(
        "--max-categories",
        type=click.IntRange(min=1),
        help="Most values of a column of text with columns or codes of their own. table: the others share "
        "codes [4096]. mlp: a column with more is refused [1000].",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(["auto", "none"]),
        help="Of mlp. auto: standardize numbers, one-hot encode text and fill missing values; the model file "
        "includes these steps. none: all columns are numbers, and are used as they are. [auto]",
    ),
)
network_options = _options(
    click.option(
        "--hidden",
        type=Counts("units", "128,64"),
        help="Units of the hidden layers, such as 128,64 [table: by the number of rows; mlp: 100].",
    ),
    click.option(
        "--activation",
        default="relu",
        show_default=True,
        type=click.Choice(["relu", "tanh", "logistic", "identity"]),
        help="Activation of the hidden layers.",
    ),
    click.option(
        "--batch-size",
        default="auto",
        show_default=True,
        type=BatchSize(),
        help="Rows of one step, over all replicas. auto: by the number of rows. full: all rows.",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(min=1),
        help="Copies of the network that train in parallel, each on its own rows [by strategy and workers].",
    ),
    click.option(
        "--transport",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "peer", "tasks"]),
        help="How replicas exchange averages. peer: directly between workers. tasks: through the scheduler.",
    ),
    click.option(
        "--engine",
        default="auto",
        show_default=True,
        type=click.Choice(engines.NAMES),
        help="What computes. numba: compiled steps, where there are any for this network. auto: numba if all "
        "workers have the same version of it, otherwise numpy.",
    ),
    click.option(
        "--dtype",
        default="float32",
        show_default=True,
        type=click.Choice(["float32", "float64"]),
        help="Data type of the network's numbers.",
    ),
    click.option(
        "--solver",
        type=click.Choice(["adam", "sgd", "lbfgs"]),
        help="Optimizer of mlp [adam].",
    ),
)

# --- options of one kind of model --------------------------------------------------------------------

TABLE, MLP = "table", "mlp"
model_option = click.option(
    "--model",
    default=TABLE,
    show_default=True,
    type=click.Choice([TABLE, MLP]),
    help="table: networks that embed numbers, dates and text, with settings by the size of the table "
    "(TabularClassifier, TabularRegressor). mlp: dense layers on standardized numbers and one-hot encoded "
    "text (MLPClassifier, MLPRegressor).",
)
recipe_options = _options(
    click.option(
        "--members",
        type=click.IntRange(min=1),
        help="Networks of table that share most weights; predictions are their mean [by the number of rows].",
    ),
    click.option(
        "--quantiles",
        type=Levels(),
        metavar="LEVELS",
        help="Predict these quantiles of the target instead of its mean, such as 0.05,0.5,0.95. Of table, "
        "for a regression.",
    ),
    click.option(
        "--embedding",
        type=click.Choice(["auto", "piecewise_linear", "encoding", "periodic", "pbld", "none"]),
        help="How numbers enter the networks of table [piecewise_linear; none for more than 100 numbers].",
    ),
    click.option(
        "--dropout",
        type=click.FloatRange(0, 1, max_open=True),
        help="Share of the hidden units of table that are dropped in a step [less for more rows].",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        help="Decoupled weight decay of table [less for more rows].",
    ),
)
held_out_options = _options(
    click.option(
        "--hold-out",
        type=click.Choice(["random", "last"]),
        help="Which rows of DATA table holds out for validation. last: the last ones, of rows that are "
        "sorted by time. [random]",
    ),
    click.option(
        "--groups",
        metavar="COLUMN",
        help="Hold out all rows of some groups, such as customers. Of table, which does not learn from the "
        "column.",
    ),
    click.option(
        "--time",
        metavar="COLUMN",
        help="Hold out the latest rows by this column of dates or numbers. Of table, which does not learn "
        "from the column.",
    ),
    click.option(
        "--select-members",
        is_flag=True,
        default=None,
        help="Keep only those members of table whose mean predicts the rows that are held out best.",
    ),
    click.option(
        "--refit",
        type=click.Choice(["all"]),
        help="all: when the best epoch is known, train table again for so many epochs, on all rows.",
    ),
)
# Options of table that need rows of DATA to be held out.
_OF_HELD_OUT = ("hold_out", "groups", "time", "refit")
# Defaults of options that are None unless they are given. None here: chosen by rules, or not at all.
_DEFAULTS: dict[str, dict[str, Any]] = {
    TABLE: dict.fromkeys(
        ("members", "quantiles", "embedding", "dropout", "weight_decay", "select_members", *_OF_HELD_OUT),
        None,
    ),
    MLP: {"solver": "adam", "alpha": 1e-4, "preprocess": "auto"},
}
_MLP_VALUES = {"hidden": (100,), "epochs": 20, "learning_rate": 1e-3, "max_categories": 1000}


def settle_model(options: dict[str, Any]) -> None:
    """Give the options that depend on --model their defaults. UsageError: one that this model has not."""
    kind = options["model"]
    for other in _DEFAULTS.keys() - {kind}:
        for name in _DEFAULTS[other]:
            if options.get(name) is not None:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(
                    f"{option} is an option of --model {other}, received with --model {kind}. Leave {option} "
                    f"out, or use --model {other}."
                )
    defaults = _DEFAULTS[kind] | (_MLP_VALUES if kind == MLP else {})
    for name, value in defaults.items():
        # Not every command has all of them.
        if name in options and options[name] is None:
            options[name] = value


def check_held_out(options: dict[str, Any]) -> None:
    """Raise UsageError for options on the rows of DATA that are held out if none are, or if they disagree."""
    given = [f"--{name.replace('_', '-')}" for name in _OF_HELD_OUT if options.get(name)]
    validation = options["validation"]
    reason = None
    if validation == ():
        reason = "--validation 0 holds out none. Leave it out"
    elif validation is not None and number_of(validation[0]) is None:
        reason = "--validation names files, so none are. Leave one of them out"
    elif options["early_stopping"] is False:
        reason = "--no-early-stopping chooses no epoch by them. Leave one of them out"
    if given and reason is not None:
        raise click.UsageError(f"{given[0]} needs rows of DATA that are held out, and {reason}.")
    ways = [f"--{name}" for name in ("groups", "time") if options[name]]
    if options["hold_out"] == "last":
        ways = ["--hold-out last", *ways, *(["--shuffle"] if options["shuffle"] else [])]
    if len(ways) > 1:
        raise click.UsageError(f"Expected {ways[0]} or {ways[1]}, received both. Leave one of them out.")
    for name in ("groups", "time"):
        if options[name] and options[name] == options["target"]:
            raise click.UsageError(
                f"Expected --{name} to be another column than --target, received one for both."
            )
    has_none = validation == () or (validation is None and options["early_stopping"] is False)
    if options["select_members"] and has_none:
        raise click.UsageError("--select-members needs rows that are held out, such as --validation 0.15.")


# --- values of options -------------------------------------------------------------------------------


def number_of(text: str) -> float | None:
    """Return a text as a number, None if it is not one."""
    try:
        return float(text)
    except ValueError:
        return None


def validation_of(values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the value of --validation: one share of the rows, files, or nothing if it is 0.

    None: it was not given.
    """
    if not values:
        return None
    shares = [share for share in map(number_of, values) if share is not None]
    if shares and (len(values) > 1 or not 0 <= shares[0] < 1):
        raise click.BadParameter(
            f"expected a share of the rows such as 0.2, files, or 0 for none, received {' '.join(values)}",
            param_hint="--validation",
        )
    return () if shares == [0] else tuple(values)


def thresholds_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return thresholds as `assert_thresholds` takes them: {"accuracy": 0.8, "r2": [(">=", 0.6)]}."""
    found: dict[str, Any] = {}
    for text in texts:
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=|=|>|<)\s*(\S+)\s*", text)
        value = number_of(parts[3]) if parts else None
        if parts is None or value is None:
            raise click.BadParameter(
                f"expected a metric and a number such as accuracy=0.8, received {text!r}",
                param_hint="--threshold",
            )
        if parts[2] == "=":
            found[parts[1]] = value
        else:
            checks = found.get(parts[1])
            found[parts[1]] = [*(checks if isinstance(checks, list) else []), (parts[2], value)]
    return found


def slices_of(texts: Sequence[str], columns: Collection[str]) -> list[Any]:
    """Return slices as `dasknn.evaluate` takes them: sex,age:5+job -> ["sex", (Buckets("age", 5), "job")].

    columns: of the table; the name of a column may contain ":" or "+".
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    return [_slice_of(word, columns) for word in words if word]


def _slice_of(word: str, columns: Collection[str]) -> Any:
    if word in columns:
        return word
    found = [_dimension_of(part.strip(), columns) for part in word.split("+")]
    return found[0] if len(found) == 1 else tuple(found)


def _dimension_of(word: str, columns: Collection[str]) -> str | dasknn.Buckets:
    column, _, n = word.rpartition(":")
    if word in columns or not column:
        return word
    if not n.isdecimal() or int(n) < 2:
        raise click.BadParameter(
            f"expected a number of ranges such as age:5, received {word!r}", param_hint="--slices"
        )
    return dasknn.Buckets(column, int(n))


def columns_in(wanted: Any) -> list[Any]:
    """Return the columns of a slice."""
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    return [part.column if isinstance(part, dasknn.Buckets) else part for part in parts]
