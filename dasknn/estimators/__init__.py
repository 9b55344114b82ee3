"""scikit-learn's API: MLPClassifier and MLPRegressor."""

from dasknn.estimators.classifier import MLPClassifier
from dasknn.estimators.persistence import from_sklearn
from dasknn.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
