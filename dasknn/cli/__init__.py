"""`dask nn`, a plug-in of Dask's command line."""

from dasknn.cli.main import nn

__all__ = ["nn"]
