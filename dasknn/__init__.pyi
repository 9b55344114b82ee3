from . import (
    activations,
    callbacks,
    compression,
    constraints,
    dashboard,
    exceptions,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    plots,
    regularizers,
    schedules,
    strategies,
)
from .callbacks.checkpoints import Checkpoint
from .compression import PowerSGD
from .data.preprocessing import TablePreprocessor
from .data.shuffle import shuffle
from .ensembles import EnsembleClassifier, EnsembleRegressor
from .estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, from_sklearn
from .evaluation.dependence import partial_dependence
from .evaluation.evaluate import compare, evaluate
from .evaluation.importance import permutation_importance
from .evaluation.metrics import RowMetric
from .evaluation.slicing import Buckets
from .evaluation.thresholds import ThresholdError, assert_thresholds
from .exceptions import DataSkewWarning
from .layers import Input
from .models import (
    Sequential,
    from_keras,
    load_model,
    model_from_json,
    set_random_seed,
    to_keras,
)
from .pipelines import load, save
from .search import (
    GridSearch,
    HyperbandSearch,
    HyperbandSearchCV,
    IncrementalSearchCV,
    RandomSearch,
    SuccessiveHalvingSearch,
    SuccessiveHalvingSearchCV,
)
from .strategies import (
    GradientAveraging,
    MirroredStrategy,
    MultiWorkerMirroredStrategy,
    OuterNesterov,
    PredictionAveraging,
    WeightAveraging,
)
from .training.recommend import recommend

__version__: str

__all__ = [
    "Buckets",
    "Checkpoint",
    "DataSkewWarning",
    "EnsembleClassifier",
    "EnsembleRegressor",
    "GradientAveraging",
    "GridSearch",
    "HyperbandSearch",
    "HyperbandSearchCV",
    "IncrementalSearchCV",
    "Input",
    "MLPClassifier",
    "MLPRegressor",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OuterNesterov",
    "PowerSGD",
    "PredictionAveraging",
    "RandomSearch",
    "RowMetric",
    "Sequential",
    "SuccessiveHalvingSearch",
    "SuccessiveHalvingSearchCV",
    "TablePreprocessor",
    "TabularClassifier",
    "TabularRegressor",
    "ThresholdError",
    "WeightAveraging",
    "activations",
    "assert_thresholds",
    "callbacks",
    "compare",
    "compression",
    "constraints",
    "dashboard",
    "evaluate",
    "exceptions",
    "from_keras",
    "from_sklearn",
    "initializers",
    "layers",
    "load",
    "load_model",
    "losses",
    "metrics",
    "model_from_json",
    "optimizers",
    "partial_dependence",
    "permutation_importance",
    "plots",
    "recommend",
    "regularizers",
    "save",
    "schedules",
    "set_random_seed",
    "shuffle",
    "strategies",
    "to_keras",
]
