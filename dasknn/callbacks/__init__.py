"""Keras's callbacks."""

from dasknn.callbacks.callback import Callback, CallbackList, LambdaCallback, as_list, check_weights
from dasknn.callbacks.checkpoints import BackupAndRestore
from dasknn.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from dasknn.callbacks.loggers import CSVLogger, History, TensorBoard
from dasknn.callbacks.monitor import EarlyStopping, ModelCheckpoint, Monitor, TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Monitor",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "as_list",
    "check_weights",
]
