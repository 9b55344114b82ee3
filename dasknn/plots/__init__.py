"""Plots of models and trainings, in scikit-learn's Display convention."""

from dasknn.plots.confusion_matrix import ConfusionMatrixDisplay
from dasknn.plots.score_curves import CalibrationDisplay, PrecisionRecallDisplay, RocCurveDisplay
from dasknn.plots.slices import SlicesDisplay
from dasknn.plots.training import EpochTimesDisplay, LearningCurveDisplay

__all__ = [
    "CalibrationDisplay",
    "ConfusionMatrixDisplay",
    "EpochTimesDisplay",
    "LearningCurveDisplay",
    "PrecisionRecallDisplay",
    "RocCurveDisplay",
    "SlicesDisplay",
]
