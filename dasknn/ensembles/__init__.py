"""Fitted models whose predictions are averaged: EnsembleClassifier and EnsembleRegressor."""

from dasknn.ensembles.estimators import EnsembleClassifier, EnsembleRegressor

__all__ = ["EnsembleClassifier", "EnsembleRegressor"]
