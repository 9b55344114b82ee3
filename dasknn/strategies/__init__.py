"""What replicas average: gradients, weights or predictions."""

from dasknn.strategies.gradients import GradientAveraging
from dasknn.strategies.predictions import PredictionAveraging
from dasknn.strategies.registry import MirroredStrategy, MultiWorkerMirroredStrategy, get
from dasknn.strategies.strategy import Strategy, in_scope
from dasknn.strategies.weights import OuterNesterov, WeightAveraging

__all__ = [
    "GradientAveraging",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OuterNesterov",
    "PredictionAveraging",
    "Strategy",
    "WeightAveraging",
    "get",
    "in_scope",
]
