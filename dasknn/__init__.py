"""dasknn: neural networks trained where the data is, on a Dask cluster."""

from dasknn.checkpoints import Checkpoint
from dasknn.compression import PowerSGD
from dasknn.estimators import MLPClassifier, MLPRegressor, from_sklearn, load
from dasknn.exceptions import DataSkewWarning
from dasknn.layers import Input
from dasknn.recommend import recommend
from dasknn.sequential import (
    Sequential,
    from_keras,
    load_model,
    model_from_json,
    set_random_seed,
    to_keras,
)
from dasknn.shuffling import shuffle
from dasknn.strategies import (
    GradientAveraging,
    MirroredStrategy,
    MultiWorkerMirroredStrategy,
    OuterNesterov,
    PredictionAveraging,
    WeightAveraging,
)

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "DataSkewWarning",
    "GradientAveraging",
    "Input",
    "MLPClassifier",
    "MLPRegressor",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OuterNesterov",
    "PowerSGD",
    "PredictionAveraging",
    "Sequential",
    "WeightAveraging",
    "from_keras",
    "from_sklearn",
    "load",
    "load_model",
    "model_from_json",
    "recommend",
    "set_random_seed",
    "shuffle",
    "to_keras",
]
