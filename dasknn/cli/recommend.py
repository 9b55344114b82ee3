"""dask nn recommend"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from typing import Any

import click

import dasknn
from dasknn.cli import reports
from dasknn.cli.options import (
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


@click.command()
@data_argument
@target_option
@table_options
@task_option
@model_option
@network_options
@recipe_options
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
            found = dasknn.recommend(client, model, prepared.columns(prepared.train)[0])
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
            click.echo(reports.as_json(report))
