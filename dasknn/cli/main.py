"""`dask nn`, a plug-in of Dask's command line.

Dask loads it for each of its commands, `dask worker` among them; what `dask nn` needs is imported when it is
used.
"""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = ("evaluate", "inspect", "predict", "recommend", "train")


class _Lazily(click.Group):
    """A group whose commands are imported when one of them is looked at."""

    def list_commands(self, ctx):
        return list(_COMMANDS)

    def get_command(self, ctx, cmd_name):
        if cmd_name not in _COMMANDS:
            return None
        return getattr(import_module(f"dasknn.cli.{cmd_name}"), cmd_name)


@click.group(cls=_Lazily)
def nn() -> None:
    """Train neural networks on tables in files, on a Dask cluster, and use them.

    Tables are Parquet, CSV or npz files: paths, folders, quoted globs or fsspec URLs such as
    s3://bucket/folder. Workers read them, so they must reach them, too.
    """
