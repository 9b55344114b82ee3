"""The engine of compiled steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from dasknn.engine.compiled import steps
from dasknn.engine.compiled.program import reason_against_layers
from dasknn.engine.compiled.rounds import CompiledRounds
from dasknn.engine.engines import Engine, FastRounds, SideBySide
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.engine.steps import Steps
from dasknn.engine.updater import Update
from dasknn.engine.workspace import GradientSum


class _Numba(Engine):
    def steps(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Steps:
        return steps.CompiledSteps(job, params, slots)

    def gradient_sum(self, job: TrainingJob, params: np.ndarray, *before: Any) -> GradientSum:
        return steps.CompiledGradientSum(job, params, *before)

    def rounds(self, job: TrainingJob, params: np.ndarray, n_threads: int) -> FastRounds:
        return CompiledRounds(job, params, n_threads)

    def side_by_side(self, job: TrainingJob, n_threads: int) -> SideBySide:
        return steps.CompiledSideBySide(job, n_threads)

    def updater(self, job: TrainingJob, params: np.ndarray, slots: np.ndarray) -> Update:
        return steps.CompiledUpdate(job, params, slots)

    def predict(self, network: Network, params: np.ndarray, X: Any) -> np.ndarray:
        if reason_against_layers(network):
            # A model may have got other layers since it was trained.
            return network.predict(params, X)
        return steps.predict(network, params, X)


ENGINE = _Numba()
