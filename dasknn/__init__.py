"""dasknn: neural networks trained where the data is, on a Dask cluster."""

from dasknn.compression import PowerSGD
from dasknn.estimators import MLPClassifier, MLPRegressor, from_sklearn, load
from dasknn.recommend import recommend
from dasknn.strategies import GradientAveraging, OuterNesterov, PredictionAveraging, WeightAveraging

__version__ = "0.1.0"

__all__ = [
    "GradientAveraging",
    "MLPClassifier",
    "MLPRegressor",
    "OuterNesterov",
    "PowerSGD",
    "PredictionAveraging",
    "WeightAveraging",
    "from_sklearn",
    "load",
    "recommend",
]
