"""`dask nn`, a plug-in of Dask's command line.

Dask loads this module for each of its commands, such as `dask worker`, so the commands of `dask nn` are
imported only when they are used.
"""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = ("evaluate", "inspect", "predict", "recommend", "search", "train")


class _LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(import_module(f"dasknn.cli.{cmd_name}"), cmd_name)


@click.group(cls=_LazyGroup)
def nn() -> None:
    """Train neural networks on tables in files, on a Dask cluster, and use them.

    DATA are Parquet, CSV or npz files: paths, folders, globs in quotes, or fsspec URLs such as
    s3://bucket/folder. Workers read them, so they need access to the files.
    """
