"""`dask nn train` and `dask nn predict`: a plug-in of Dask's command line."""

from __future__ import annotations

import difflib
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from dasknn import storage

_CONNECT_SECONDS = 30
# The exit code of a program that Ctrl-C has ended.
_INTERRUPTED = 130


@click.group()
def nn() -> None:
    """Train neural networks on data in Parquet files, on a Dask cluster, and predict with them."""


def _cluster_options(command):
    for option in (
        click.option("--scheduler", metavar="ADDRESS", help="Scheduler to use, such as tcp://host:8786."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Workers of the cluster that is started where no --scheduler is given [one a core].",
        ),
    ):
        command = option(command)
    return command


@nn.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--target", required=True, help="Column to learn.")
@click.option("--hidden", default="100", show_default=True, help="Units of hidden layers: 128,64.")
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--batch-size",
    default="auto",
    show_default=True,
    help="Rows of one step over all replicas; auto: 200 a replica; full: all rows.",
)
@click.option("--learning-rate", default=1e-3, show_default=True, type=float)
@click.option("--alpha", default=1e-4, show_default=True, type=float, help="L2 penalty.")
@click.option("--solver", default="adam", show_default=True, type=click.Choice(["adam", "sgd"]))
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "gradients", "weights", "predictions"]),
    help="What replicas average.",
)
@click.option("--replicas", type=click.IntRange(min=1), help="Replicas that train side by side.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option(
    "--task",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "classification", "regression"]),
    help="auto: regression for a target of floating-point numbers, else classification.",
)
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--test", multiple=True, help="Parquet files to score the model on.")
@click.option("--output", required=True, help="File to write the model to.")
@_cluster_options
def train(
    data,
    target,
    hidden,
    epochs,
    batch_size,
    learning_rate,
    alpha,
    solver,
    strategy,
    replicas,
    dtype,
    task,
    seed,
    test,
    output,
    scheduler,
    workers,
):
    """Train a network on the Parquet files DATA (paths, globs or fsspec URLs)."""
    units, rows_of_step = _units(hidden), _batch_size(batch_size)
    with _friendly_errors(), _client(scheduler, workers):
        storage.check_folder(output)
        frame = _read(data)
        _known_columns(frame, [target])
        features = [name for name in frame.columns if name != target]
        is_regression = _is_regression(frame[target].dtype, task)
        model = _model(
            is_regression,
            hidden_layer_sizes=units,
            batch_size=rows_of_step,
            learning_rate_init=learning_rate,
            alpha=alpha,
            solver=solver,
            strategy=strategy,
            replicas=replicas,
            dtype=dtype,
            random_state=seed,
            max_iter=epochs,
            verbose=2,
        )
        tests = _read(test)[[*features, target]] if test else None
        begin = time.perf_counter()
        _fit(model, frame[features], frame[target])
        seconds = time.perf_counter() - begin
        if not model.history_:
            click.echo("interrupted before the end of the first epoch; nothing was saved", err=True)
            raise SystemExit(_INTERRUPTED)
        model.save(output)
        rows = model.history_[0]["n_samples"]
        click.echo(
            f"trained on {rows:,} rows x {len(features)} features, {model.replicas_} replicas, "
            f"strategy {model.strategy_.name}: {model.n_iter_} epochs in {seconds:.1f} s, "
            f"loss {model.loss_:.4f}"
        )
        if strategy == "auto":
            click.echo(f"strategy chosen: {model.strategy_reason_}")
        click.echo(f"model saved to {output}")
        if tests is not None:
            score = model.score(tests[features], tests[target])
            click.echo(f"test {'R^2' if is_regression else 'accuracy'}: {score:.4f}")
        if model.interrupted_:
            click.echo(f"interrupted after {model.n_iter_} of {epochs} epochs", err=True)
            raise SystemExit(_INTERRUPTED)


@nn.command()
@click.argument("model_file", metavar="MODEL")
@click.argument("data", nargs=-1, required=True)
@click.option("--output", required=True, help="Folder (or fsspec URL) to write Parquet files to.")
@click.option("--proba", is_flag=True, help="Write a column of probabilities for each class, too.")
@click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
@_cluster_options
def predict(model_file, data, output, proba, overwrite, scheduler, workers):
    """Predict with a saved MODEL for the Parquet files DATA; write one file a partition."""
    import dasknn

    with _friendly_errors():
        model = dasknn.load(model_file)
        if not overwrite and _is_filled(output):
            raise click.ClickException(
                f"Expected a new or empty folder at {output}, found files. Name another, or add --overwrite."
            )
        if proba and not hasattr(model, "predict_proba"):
            raise click.UsageError("--proba is for classifiers; this model predicts numbers.")
        with _client(scheduler, workers):
            frame = _read(data)
            # A table from which the model was trained may go on holding its target.
            frame = frame[_known_columns(frame, list(model.feature_names_in_))]
            predictions = model.predict(frame)
            if predictions.ndim == 1:
                predictions = predictions.to_frame(name="prediction")
            if proba:
                probabilities = model.predict_proba(frame)
                for name in probabilities.columns:
                    predictions[f"probability_{name}"] = probabilities[name]
            predictions.columns = [str(name) for name in predictions.columns]
            predictions.to_parquet(output, write_index=frame.index.name is not None, overwrite=overwrite)
            click.echo(f"{frame.npartitions} files of predictions written to {output}")


def _model(is_regression: bool, **settings) -> Any:
    import dasknn

    return (dasknn.MLPRegressor if is_regression else dasknn.MLPClassifier)(**settings)


def _fit(model, X, y) -> None:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Who asks for a number of epochs wants them, not convergence; and an interruption is told below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Training interrupted by user")
        model.fit(X, y)


def _units(hidden: str) -> tuple[int, ...]:
    try:
        return tuple(int(units) for units in hidden.split(",") if units)
    except ValueError:
        raise click.BadParameter(
            f"expected numbers of units such as 128,64, received {hidden!r}", param_hint="--hidden"
        ) from None


def _batch_size(text: str) -> int | str:
    if text in ("auto", "full"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(
            f"expected auto, full or a number of rows, received {text!r}", param_hint="--batch-size"
        )
    return int(text)


def _read(paths: Sequence[str]):
    try:
        import dask.dataframe as dd
    except ImportError as error:
        raise click.ClickException(
            f"Reading Parquet needs pandas and pyarrow ({error}): pip install 'dasknn[dataframe]'."
        ) from error
    wanted = ", ".join(paths)
    try:
        frame = dd.read_parquet(list(paths))
    except (OSError, IndexError, ValueError) as error:
        hint = ""
        if any(".csv" in path for path in paths):
            hint = "Convert CSV first: dask.dataframe.read_csv(...).to_parquet(...). "
        raise click.ClickException(f"Expected Parquet files at {wanted}. {hint}({error})") from error
    if len(frame.columns) == 0:
        raise click.ClickException(f"Expected Parquet files at {wanted}, found none.")
    return frame


def _is_filled(folder: str) -> bool:
    import fsspec

    files, path = fsspec.core.url_to_fs(folder)
    return files.exists(path) and bool(files.ls(path))


def _known_columns(frame, names: list[str]) -> list[str]:
    """Return names; a ClickException says which are missing, and what they may have meant."""
    columns = [str(name) for name in frame.columns]
    missing = [name for name in names if name not in columns]
    if missing:
        close = difflib.get_close_matches(missing[0], columns, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise click.ClickException(
            f"Expected column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(map(repr, missing))} in the data.{meant} "
            f"Received {len(columns)} columns: {', '.join(columns)}."
        )
    return names


def _is_regression(dtype, task: str) -> bool:
    if task == "auto":
        return getattr(dtype, "kind", "O") == "f"
    return task == "regression"


@contextmanager
def _client(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Yield a client of the scheduler, or of a cluster on this machine for as long as it is needed."""
    from distributed import Client, LocalCluster

    from dasknn.cluster.tasks import available_cpus

    if scheduler is None:
        n_workers = workers or available_cpus()
        # Ctrl-C is for this process: it ends training in order, while workers would die with tracebacks.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")
        finally:
            signal.signal(signal.SIGINT, handler)
        with cluster, Client(cluster) as client:
            click.echo(f"cluster of {n_workers} workers on this machine{_dashboard(client)}")
            yield client
        return
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise click.ClickException(
            f"Expected a scheduler at {scheduler}, found none within {_CONNECT_SECONDS} s ({error})."
        ) from error
    with client:
        n_workers = len(client.nthreads())
        click.echo(f"cluster of {n_workers} workers at {scheduler}{_dashboard(client)}")
        if not n_workers:
            click.echo("waiting for workers: start them with `dask worker`, or press Ctrl-C", err=True)
        yield client


def _dashboard(client) -> str:
    return f", dashboard {client.dashboard_link}" if client.dashboard_link else ""


@contextmanager
def _friendly_errors() -> Iterator[None]:
    """Show errors that users can mend as one message, without a traceback."""
    try:
        yield
    except (ValueError, TimeoutError, FileNotFoundError) as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        raise click.ClickException(f"{error}\n{notes}".rstrip()) from error
