"""dasknn: neural networks trained where the data is, on a Dask cluster."""

from dasknn.estimators import MLPClassifier, MLPRegressor, from_sklearn, load
from dasknn.strategies import GradientAveraging, PredictionAveraging, WeightAveraging

__version__ = "0.1.0"

__all__ = [
    "GradientAveraging",
    "MLPClassifier",
    "MLPRegressor",
    "PredictionAveraging",
    "WeightAveraging",
    "from_sklearn",
    "load",
]
