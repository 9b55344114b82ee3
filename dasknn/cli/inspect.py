"""dask nn inspect"""

from __future__ import annotations

import click

from dasknn.cli import reports
from dasknn.cli.options import (
    json_option,
)
from dasknn.cli.session import friendly_errors


@click.command()
@click.argument("model_file", metavar="MODEL")
@json_option
def inspect(model_file: str, as_json: bool) -> None:
    """Show what a MODEL file holds: the network, the columns and their values, how it was trained."""
    with friendly_errors():
        report = reports.of_file(model_file)
        click.echo(reports.as_json(report) if as_json else reports.text_of_file(report))
