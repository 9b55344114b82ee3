"""A page of Dask's dashboard that shows trainings while they run."""

from dasknn.dashboard.board import LOST, Board, Run
from dasknn.dashboard.page import Page
from dasknn.dashboard.server import PATH, install

__all__ = ["LOST", "PATH", "Board", "Page", "Run", "install"]
