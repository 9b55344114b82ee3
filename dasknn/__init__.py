"""dasknn: neural networks trained where the data is, on a Dask cluster."""

from dasknn import dashboard, plots
from dasknn.checkpoints import Checkpoint
from dasknn.compression import PowerSGD
from dasknn.estimators import MLPClassifier, MLPRegressor, from_sklearn
from dasknn.evaluation import compare, evaluate
from dasknn.exceptions import DataSkewWarning
from dasknn.layers import Input
from dasknn.measures import RowMetric
from dasknn.pipelines import load, save
from dasknn.preprocessing import TablePreprocessor
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
from dasknn.slicing import Buckets
from dasknn.strategies import (
    GradientAveraging,
    MirroredStrategy,
    MultiWorkerMirroredStrategy,
    OuterNesterov,
    PredictionAveraging,
    WeightAveraging,
)
from dasknn.thresholds import ThresholdError, assert_thresholds

__version__ = "0.1.0"

__all__ = [
    "Buckets",
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
    "RowMetric",
    "Sequential",
    "TablePreprocessor",
    "ThresholdError",
    "WeightAveraging",
    "assert_thresholds",
    "compare",
    "dashboard",
    "evaluate",
    "from_keras",
    "from_sklearn",
    "load",
    "load_model",
    "model_from_json",
    "plots",
    "recommend",
    "save",
    "set_random_seed",
    "shuffle",
    "to_keras",
]
