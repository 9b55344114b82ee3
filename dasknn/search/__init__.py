"""Searches over settings of networks: data stays, networks travel."""

from dasknn.search.dask_ml import HyperbandSearchCV, IncrementalSearchCV, SuccessiveHalvingSearchCV
from dasknn.search.search import GridSearch, HyperbandSearch, RandomSearch, SuccessiveHalvingSearch

__all__ = [
    "GridSearch",
    "HyperbandSearch",
    "HyperbandSearchCV",
    "IncrementalSearchCV",
    "RandomSearch",
    "SuccessiveHalvingSearch",
    "SuccessiveHalvingSearchCV",
]
