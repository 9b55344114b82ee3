"""Plots of trainings and of fitted models, in scikit-learn's Display convention.

    from_estimator, from_predictions, ...   compute what is shown, where the data is, and draw it
    .plot(ax=None)                          draws it again; .ax_ and .figure_ are the axes and the figure

Workers count scores and labels of Dask data in one pass over the partitions (`dasknn.evaluation.counts`);
scikit-learn's displays draw the curves and matrices that follow.
"""

from dasknn.plots.calibration import CalibrationDisplay
from dasknn.plots.confusion_matrix import ConfusionMatrixDisplay
from dasknn.plots.epoch_times import EpochTimesDisplay
from dasknn.plots.importance import ImportanceDisplay
from dasknn.plots.learning_curve import LearningCurveDisplay
from dasknn.plots.partial_dependence import PartialDependenceDisplay
from dasknn.plots.scaling import ScalingDisplay
from dasknn.plots.score_curves import PrecisionRecallDisplay, RocCurveDisplay
from dasknn.plots.search import SearchDisplay
from dasknn.plots.slices import SlicesDisplay

__all__ = [
    "CalibrationDisplay",
    "ConfusionMatrixDisplay",
    "EpochTimesDisplay",
    "ImportanceDisplay",
    "LearningCurveDisplay",
    "PartialDependenceDisplay",
    "PrecisionRecallDisplay",
    "RocCurveDisplay",
    "ScalingDisplay",
    "SearchDisplay",
    "SlicesDisplay",
]
