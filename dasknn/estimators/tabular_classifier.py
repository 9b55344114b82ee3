"""The classifier for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from dasknn._compat.sklearn import StrOptions
from dasknn.data import targets
from dasknn.estimators.answers import NetworkClassifier
from dasknn.estimators.calibration import fit_temperature
from dasknn.estimators.tabular import BaseTabular
from dasknn.estimators.tabular_losses import BinaryCrossentropy, Crossentropy


class TabularClassifier(NetworkClassifier, BaseTabular):
    """@@DOC@@"""

    _parameter_constraints: ClassVar[dict] = {
        **BaseTabular._parameter_constraints,
        "calibrate": [StrOptions({"temperature"}), None],
        "class_weight": [dict, Mapping, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        *,
        hidden_layer_sizes="auto",
        activation="relu",
        members="auto",
        adapters="first",
        embedding="auto",
        embedding_dim=16,
        n_bins=48,
        bins="greedy",
        categorical_features=None,
        min_frequency=None,
        max_categories=1000,
        learning_rate_init=0.05,
        learning_rate="coslog4",
        beta_2=0.95,
        weight_decay=0.02,
        dropout="auto",
        label_smoothing=0.0,
        clipnorm=None,
        batch_size="auto",
        max_iter="auto",
        early_stopping="auto",
        validation_fraction=0.15,
        n_iter_no_change="auto",
        calibrate="temperature",
        class_weight=None,
        random_state=None,
        verbose=None,
        strategy="auto",
        replicas=None,
        transport="auto",
        engine="auto",
        dtype="float32",
        callbacks=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.members = members
        self.adapters = adapters
        self.embedding = embedding
        self.embedding_dim = embedding_dim
        self.n_bins = n_bins
        self.bins = bins
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.beta_2 = beta_2
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.clipnorm = clipnorm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.calibrate = calibrate
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose
        self.strategy = strategy
        self.replicas = replicas
        self.transport = transport
        self.engine = engine
        self.dtype = dtype
        self.callbacks = callbacks

    def _learn_from_held_out(self, rows):
        if self.calibrate == "temperature":
            self.temperature_ = fit_temperature(rows, self._predictor())

    def _loss(self, encoder):
        if isinstance(encoder, targets.MultilabelEncoder) or encoder.n_outputs == 1:
            return BinaryCrossentropy(self.label_smoothing)
        return Crossentropy(self.label_smoothing)
