"""dask nn predict"""

from __future__ import annotations

from typing import Any

import click
import fsspec

from dasknn.cli.options import (
    Names,
    cluster_options,
    data_argument,
    format_option,
    quiet_option,
)
from dasknn.cli.session import client_of, columns_of, friendly_errors, read_for, read_model, with_index
from dasknn.estimators import TabularRegressor
from dasknn.saving import storage


@click.command()
@click.argument("model_file", metavar="MODEL")
@data_argument
@click.option(
    "--output",
    required=True,
    metavar="PATH",
    help="Folder or fsspec URL to write Parquet files to; if it ends in .csv, one CSV file.",
)
@click.option("--proba", is_flag=True, help="Also write the probability of each class.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="COVERAGE",
    help="Also write intervals, as lower and upper, that hold the target of this share of new rows, such as "
    "0.9.",
)
@click.option("--keep", multiple=True, type=Names(), help="Columns of DATA to copy, such as id,name.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@format_option
@quiet_option
@cluster_options
def predict(**options: Any) -> None:
    """Predict with a saved MODEL for the files DATA, which have the columns that it was trained on.

    A model that was trained with --quantiles also predicts these.

    Example: dask nn predict model.safetensors 'new/*.csv' --keep id --output predictions.csv
    """
    with friendly_errors():
        model, output = read_model(options["model_file"]), options["output"]
        if not options["overwrite"] and _is_filled(output):
            raise click.ClickException(
                f"Expected no files at {output}, found some. Choose another --output, or add --overwrite."
            )
        if output.endswith(".csv"):
            storage.check_folder(output)
        if options["proba"] and not hasattr(model, "predict_proba"):
            raise click.UsageError("--proba needs a classifier, and this model predicts numbers.")
        if options["interval"] and not isinstance(model, TabularRegressor):
            raise click.UsageError(
                "--interval needs a model of --model table that predicts numbers, received "
                f"{type(model).__name__}."
            )
        with client_of(options):
            kept = [name for names in options["keep"] for name in names]
            frame = read_for(model, options, kept=kept)
            frame = with_index(frame, kept)
            names = columns_of(model, frame, kept)
            predictions = _predictions(model, frame, names, kept, options)
            has_index = frame.index.name not in (None, *kept)
            if output.endswith(".csv"):
                predictions.to_csv(output, single_file=True, index=has_index)
            else:
                predictions.to_parquet(output, write_index=has_index, overwrite=options["overwrite"])
            click.echo(f"predictions written to {output}")


def _predictions(model: Any, frame: Any, names: list[str], kept: list[str], options: dict[str, Any]) -> Any:
    """Return a Dask dataframe of the kept columns, predictions, quantiles and what else is wanted."""
    import dask.dataframe as dd
    import pandas as pd

    frame = frame[list(dict.fromkeys([*names, *kept]))]
    # This fixes the partitions: while reading files, Dask may fuse them differently for other columns.
    frame = dd.from_delayed(frame.to_delayed(), meta=frame._meta, verify_meta=False)
    predicted = model.predict(frame[names])
    if predicted.ndim == 1:
        predicted = predicted.to_frame(name="prediction")
    else:
        predicted = predicted.rename(columns={name: f"prediction_{name}" for name in predicted.columns})
    pieces = [frame[kept], predicted] if kept else [predicted]
    if options["proba"]:
        chances = model.predict_proba(frame[names])
        pieces.append(chances.rename(columns={name: f"probability_{name}" for name in chances.columns}))
    if isinstance(model, TabularRegressor) and model.quantiles is not None:
        levels = model.predict_quantiles(frame[names])
        pieces.append(levels.rename(columns={name: f"quantile_{name}" for name in levels.columns}))
    if options["interval"]:
        pieces.append(model.predict_interval(frame[names], options["interval"]))
    return dd.map_partitions(
        _side_by_side,
        *pieces,
        meta=pd.concat([piece._meta for piece in pieces], axis=1),
        align_dataframes=False,
        enforce_metadata=False,
    )


def _side_by_side(*frames: Any) -> Any:
    import pandas as pd

    index = frames[0].index
    # Rows are matched by their order, since an index may hold a label twice.
    return pd.concat([frame.reset_index(drop=True) for frame in frames], axis=1).set_axis(index)


def _is_filled(output: str) -> bool:
    files, path = fsspec.core.url_to_fs(output)
    return files.exists(path) and (files.isfile(path) or bool(files.ls(path)))
