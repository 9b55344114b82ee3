"""dask nn evaluate"""

from __future__ import annotations

from typing import Any

import click
from sklearn.pipeline import Pipeline

import dasknn
from dasknn.cli import reports
from dasknn.cli.options import (
    Names,
    cluster_options,
    columns_in,
    data_argument,
    format_option,
    json_option,
    quiet_option,
    slices_of,
    thresholds_of,
)
from dasknn.cli.session import client_of, columns_of, friendly_errors, read_for, read_model, say, with_index
from dasknn.saving import storage

_MISSED = 3


@click.command()
@click.argument("model_file", metavar="MODEL")
@data_argument
@click.option(
    "--target", metavar="COLUMN", help="Column with the true values [the column that the model predicts]."
)
@click.option(
    "--metrics",
    multiple=True,
    type=Names(),
    help="Names of metrics, such as accuracy,log_loss [some that suit the model].",
)
@click.option(
    "--slices",
    multiple=True,
    metavar="COLUMN[:N][+...],...",
    help="Also score slices of the rows: by values of a column (region,sex), of several columns together "
    "(region+sex), or by N ranges of a column of numbers (age:5).",
)
@click.option(
    "--threshold",
    multiple=True,
    metavar="METRIC=VALUE",
    help="Exit with code 3 if all rows, or a slice with enough rows, miss it. accuracy=0.8: at least 0.8 for "
    "a score, at most for an error. With a comparison: 'r2>=0.7'.",
)
@click.option(
    "--bound",
    default="value",
    show_default=True,
    type=click.Choice(["value", "worst", "best"]),
    help="Compare thresholds with the metric, or with the worst or best end of its confidence interval.",
)
@click.option(
    "--min-rows",
    default=100,
    show_default=True,
    type=click.IntRange(min=0),
    help="Compare thresholds only with slices of at least this many rows.",
)
@click.option("--weights", metavar="COLUMN", help="Column with the weights of the rows.")
@click.option("--output", metavar="FILE", help="CSV file or fsspec URL to write the table to.")
@format_option
@json_option
@quiet_option
@cluster_options
def evaluate(**options: Any) -> None:
    """Score a saved MODEL on the files DATA, over all rows and by slices, with confidence intervals.

    Example: dask nn evaluate model.safetensors test.parquet --slices sex,age:5 --threshold accuracy=0.8
    """
    thresholds = thresholds_of(options["threshold"])
    with friendly_errors():
        if options["output"]:
            storage.check_folder(options["output"])
        model = read_model(options["model_file"])
        target = options["target"] or _target_of(model)
        with client_of(options):
            weights = options["weights"]
            frame = read_for(model, options, target)
            slices = slices_of(options["slices"], frame.columns)
            by = sorted({column for one in slices for column in columns_in(one)})
            frame = with_index(frame, [target, *by, *filter(None, [weights])])
            names = columns_of(model, frame, [target, *filter(None, [weights])])
            metrics = [name for names in options["metrics"] for name in names]
            if metrics:
                # Metrics with a threshold are computed, too.
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
                say(str(missed))
                raise SystemExit(_MISSED)


def _target_of(model: Any) -> str:
    """Return the column that a model predicts. UsageError: its file does not say it."""
    found = getattr(model[-1] if isinstance(model, Pipeline) else model, "target_name_", None)
    if found is None:
        raise click.UsageError(
            "Expected --target COLUMN: the model file does not say which column the model predicts."
        )
    return found


def _missed(found: Any, thresholds: dict[str, Any], bound: str) -> dasknn.ThresholdError | None:
    """Return the error that lists the slices that miss a threshold, None if there are none."""
    if thresholds:
        try:
            dasknn.assert_thresholds(found, thresholds, bound=bound)
        except dasknn.ThresholdError as error:
            return error
    return None
