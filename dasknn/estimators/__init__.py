"""scikit-learn's API: MLPClassifier and MLPRegressor; and the estimators for tables."""

from dasknn.estimators.classifier import MLPClassifier
from dasknn.estimators.persistence import from_sklearn
from dasknn.estimators.regressor import MLPRegressor
from dasknn.estimators.tabular_classifier import TabularClassifier
from dasknn.estimators.tabular_regressor import TabularRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor", "from_sklearn"]
