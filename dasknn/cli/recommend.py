"""dask nn recommend"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

import click

import dasknn
from dasknn.cli import reports
from dasknn.cli.options import (
    Counts,
    cluster_options,
    data_argument,
    json_option,
    model_option,
    network_options,
    quiet_option,
    recipe_options,
    settle_model,
    table_options,
    target_option,
    task_option,
)
from dasknn.cli.prepared import prepare
from dasknn.cli.session import client_of, friendly_errors
from dasknn.training.recommend import ClusterSize


@click.command()
@data_argument
@target_option
@table_options
@task_option
@model_option
@network_options
@recipe_options
@click.option(
    "--scaling",
    type=Counts("workers", "1,2,4", least=1),
    help="Also predict epochs on clusters of so many workers, such as 1,2,4,8,64.",
)
@click.option(
    "--workers-per-host", type=click.IntRange(1), help="How many workers of --scaling share a machine."
)
@json_option
@quiet_option
@cluster_options
def recommend(**options: Any) -> None:
    """Measure the cluster, and predict how long an epoch of DATA takes with each strategy.

    The network is that of `dask nn train`, and nothing is trained.

    Example: dask nn recommend 'adult/*.parquet' --target income --hidden 128,64
    """
    settle_model(options)
    with friendly_errors(), client_of(options) as client:
        prepared = prepare(options)
        model = prepared.model()
        with redirect_stdout(io.StringIO() if options["as_json"] else sys.stdout):
            found = dasknn.recommend(
                client,
                model,
                prepared.columns(prepared.train)[0],
                workers=options["scaling"],
                workers_per_host=options["workers_per_host"],
            )
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
            report = {"rows": rows, "strategy": repr(found.strategy), "reason": found.reason}
            report |= {"engine": found.engine, "engine_reason": found.engine_reason}
            report |= {"advice": found.advice, "scaling": [_as_dict(size) for size in found.scaling]}
            click.echo(reports.as_json(report))


def _as_dict(size: ClusterSize) -> dict[str, Any]:
    return asdict(size) | {"strategy": repr(size.strategy), "worker_seconds": size.worker_seconds}
