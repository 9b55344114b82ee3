"""A stack of layers with an optimizer, a loss and metrics, and the state of the optimizer between fits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from inspect import isfunction
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from dasknn import losses, metrics, optimizers, strategies
from dasknn.engine import engines, updater
from dasknn.engine.network import Network
from dasknn.exceptions import caller_stacklevel
from dasknn.losses import Loss
from dasknn.metrics import MetricSet
from dasknn.models.arguments import flat_columns
from dasknn.models.layer_stack import Stack
from dasknn.models.views import OptimizerHandle
from dasknn.optimizers import Optimizer
from dasknn.strategies import Strategy, auto
from dasknn.training.loop import Training

# Names of losses that depend on the shape of y.
_CROSSENTROPY = ("crossentropy", "ce")


class Compiled(NamedTuple):
    """Arguments of `compile`, as objects; a loss that depends on the shape of y is still a name."""

    optimizer: Optimizer
    loss: Loss | str | None
    metrics: tuple
    weighted_metrics: tuple
    transport: str
    engine: str


class CompiledStack(Stack):
    """Layers that can be compiled, within the scope of a strategy or outside of any."""

    def __init__(self, layers: Sequence | None, trainable: bool, name: str | None, seed: int):
        self._strategy: Strategy | None = strategies.in_scope()
        # What happened within the scope of the strategy: created, compiled or fitted.
        self._scoped = "created"
        self._compiled: Compiled | None = None
        # The running training, which has the current learning rate and weights.
        self._training: Training | None = None
        self._forget_steps()
        super().__init__(layers, trainable, name, seed)

    # --- compile -----------------------------------------------------------------------------------

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        *,
        transport="auto",
        engine="auto",
    ) -> None:
        """Set optimizer, loss and metrics, with Keras's arguments.

        Parameters
        ----------
        optimizer : str, Optimizer or dict, default='rmsprop'
        loss : str, Loss, dict or None, default=None
            'crossentropy' is the cross-entropy that fits the shape of y.
        loss_weights : None
            There is one output, so there is nothing to weight.
        metrics : list or None, default=None
            Metrics, their names, or functions of (y_true, y_pred) that return a number for each row.
        weighted_metrics : list or None, default=None
            Metrics for which rows count by their weights.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Arguments of Keras that have no effect.
        transport : {'auto', 'peer', 'tasks'}, default='auto'
            How averages travel: directly between workers, or as tasks through the scheduler. Results have
            the same bits. 'auto': 'peer' for rounds shorter than 100 ms, if workers can connect to one
            another.
        engine : {'auto', 'numpy', 'numba'}, default='auto'
            What computes. 'auto': compiled steps, where driver and workers have the same version of numba and
            the model needs nothing else. Results of engines differ by rounding.

        Raises
        ------
        ValueError
            An unknown name, or an invalid argument.
        RuntimeError
            The model has a strategy, and this is the scope of another one.
        """
        if loss_weights not in (None, 1, 1.0, [1], [1.0]):
            raise ValueError(
                f"Expected loss_weights=None, since there is one output, received {loss_weights!r}."
            )
        if transport not in ("auto", auto.PEER, auto.TASKS):
            raise ValueError(f"Expected transport to be 'auto', 'peer' or 'tasks', received {transport!r}.")
        if engine not in engines.NAMES:
            raise ValueError(f"Expected engine to be 'auto', 'numpy' or 'numba', received {engine!r}.")
        self._take_scope("compiled")
        if isinstance(optimizer, OptimizerHandle):
            optimizer = optimizer.settings
        if isinstance(loss, list | tuple) and len(loss) == 1:
            loss = loss[0]
        depends_on_y = isinstance(loss, str) and loss.lower() in _CROSSENTROPY
        self._compiled = Compiled(
            optimizers.get(optimizer),
            loss if depends_on_y else losses.get(loss),
            tuple(_listed(metrics)),
            tuple(_listed(weighted_metrics)),
            transport,
            engine,
        )
        self._loss = None if depends_on_y else self._compiled.loss
        self._forget_steps()
        if self.built:
            self._rebuild()
            self._metric_set()

    def _take_scope(self, scoped: str) -> None:
        """Take the strategy of the current scope. RuntimeError: the model has another strategy."""
        current = strategies.in_scope()
        if self._strategy is None:
            self._strategy, self._scoped = current, scoped
        elif current is not None and current != self._strategy:
            raise RuntimeError(
                f"This model was {self._scoped} in the scope of {self._strategy}, and is used in that of "
                f"{current}. A model has one strategy: create another one there, with strategy.scope(): "
                "model = Sequential(...)."
            )

    def _settle_loss(self, y) -> Compiled:
        """Return the arguments of `compile`, in which the shape of y decides which cross-entropy it is."""
        settings = self._settings("loss")
        if isinstance(settings.loss, str) and y is not None:
            n_outputs = self._built_network().n_outputs
            shape = np.shape(flat_columns(y)) if not hasattr(y, "ndim") else (None, *tuple(y.shape)[1:])
            kind: type[Loss] = losses.CategoricalCrossentropy
            if n_outputs == 1:
                kind = losses.BinaryCrossentropy
            elif len(shape) < 2 or shape[-1] == 1:
                kind = losses.SparseCategoricalCrossentropy
            self._compiled = settings = settings._replace(loss=kind())
            self._loss = settings.loss
            self._rebuild()
        return settings

    def _warn_of_one_class(self) -> None:
        network = self._built_network()
        loss = self._loss
        is_softmax = network.layers[-1].activation_name == "softmax"
        of_classes = isinstance(loss, losses.CategoricalCrossentropy | losses.SparseCategoricalCrossentropy)
        if network.n_outputs == 1 and (is_softmax or of_classes):
            name = "softmax" if is_softmax else type(loss).__name__
            warnings.warn(
                f"{name} of one output does not depend on the weights, so this model cannot learn. For two "
                "classes use Dense(1, activation='sigmoid') and loss='binary_crossentropy', or an output for "
                "each class.",
                stacklevel=caller_stacklevel(),
            )

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None

    @property
    def optimizer(self) -> OptimizerHandle:
        """The optimizer, with the current learning rate. AttributeError: the model is not compiled."""
        return OptimizerHandle(self, self._settings("optimizer").optimizer)

    @property
    def loss(self) -> Any:
        """The loss. AttributeError: the model is not compiled."""
        return self._settings("loss").loss

    @property
    def metrics_names(self) -> list[str]:
        """Names of the numbers that `evaluate` returns. AttributeError: the model is not compiled."""
        return ["loss", *(name for name, _, _ in self._metric_set().entries)]

    def _settings(self, attribute: str) -> Compiled:
        if self._compiled is None:
            raise AttributeError(f"You must call `compile()` before using `{attribute}`.")
        return self._compiled

    def _check_compiled(self, method: str) -> Compiled:
        if self._compiled is None:
            raise ValueError(f"You must call `compile()` before calling `{method}()`.")
        if self._compiled.loss is None:
            raise ValueError(
                f"`{method}()` needs a loss, received compile(loss=None). Pass one, such as loss='mse'."
            )
        return self._compiled

    def _metric_set(self, summary=None) -> MetricSet:
        """Return the metrics, for targets with this summary."""
        center = getattr(summary, "center", None)
        settings = self._settings("metrics")
        n_outputs = self._built_network().n_outputs
        plain, weighted = (
            [metrics.resolve(metric, settings.loss, n_outputs) for metric in wanted]
            for wanted in (settings.metrics, settings.weighted_metrics)
        )
        is_weighted = [False] * len(plain) + [True] * len(weighted)
        names = metrics.named(plain, weighted)
        return MetricSet(tuple(zip(names, [*plain, *weighted], is_weighted, strict=True)), n_outputs, center)

    def _built_network(self) -> Network:
        self._check_built()
        assert self._network is not None
        return self._network

    # --- configuration -----------------------------------------------------------------------------

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return the arguments of `compile` in Keras's form, with the current learning rate.

        Returns
        -------
        dict or None
            None: the model is not compiled.
        """
        if self._compiled is None:
            return None
        settings = self._compiled
        optimizer = settings.optimizer
        if isinstance(optimizer.learning_rate, Real):
            # As a float, since Keras takes no integers.
            optimizer = replace(optimizer, learning_rate=float(self._learning_rate))  # type: ignore[type-var]
        loss = settings.loss
        return {
            "optimizer": optimizers.serialize(optimizer),
            "loss": losses.serialize(loss) if isinstance(loss, Loss) else loss,
            "loss_weights": None,
            "metrics": [_described(metric) for metric in settings.metrics] or None,
            "weighted_metrics": [_described(metric) for metric in settings.weighted_metrics] or None,
            "run_eagerly": False,
            "steps_per_execution": 1,
            "jit_compile": "auto",
        }

    def compile_from_config(self, config: dict[str, Any], custom_objects=None) -> None:
        """Compile with the arguments that `get_compile_config` returned.

        Parameters
        ----------
        config : dict
        custom_objects : dict or None, default=None
            Functions and classes of your own losses and metrics, by name.

        Raises
        ------
        ValueError
            An unknown name.
        """
        known = ("optimizer", "loss", "metrics", "weighted_metrics")
        self.compile(**{name: _looked_up(config.get(name), custom_objects or {}) for name in known})

    # --- state of the optimizer --------------------------------------------------------------------

    def _forget_steps(self) -> None:
        self._slots: np.ndarray | None = None
        self._step = 0
        self._rate: float | None = None

    def _layout_changed(self) -> None:
        self._forget_steps()

    @property
    def _learning_rate(self) -> float:
        if self._training is not None:
            return self._training.learning_rate
        return self._settings("optimizer").optimizer.initial_rate if self._rate is None else self._rate

    def _set_learning_rate(self, rate: float) -> None:
        if self._training is not None:
            self._training.learning_rate = rate
            return
        if not isinstance(self._settings("optimizer").optimizer.learning_rate, Real):
            raise TypeError("Expected an optimizer with a number for its learning rate, received a schedule.")
        self._rate = rate

    def _replace_members(self, members: np.ndarray) -> None:
        super()._replace_members(members)
        if self._training is not None:
            state = self._training.state
            self._training.state = replace(state, params=members.reshape(state.params.shape))

    def _n_optimizer_params(self) -> int:
        if self._slots is None:
            return 0
        optimizer = self._settings("optimizer").optimizer
        kept = self._slots.reshape(-1, self._slots.shape[-2], self._slots.shape[-1])
        own = kept[:, : updater.n_slots(optimizer), : self._built_network().n_learned]
        has_schedule = not isinstance(optimizer.learning_rate, Real)
        return own.size + (1 if has_schedule else 2)


# --- arguments of compile, as objects and as descriptions --------------------------------------------


def _listed(wanted) -> list:
    """Return one metric, several, or None as a list."""
    if wanted is None:
        return []
    if isinstance(wanted, dict):
        raise ValueError(f"Expected a list of metrics, since there is one output, received {wanted!r}.")
    if not isinstance(wanted, list | tuple):
        return [wanted]
    return [metric for item in wanted for metric in (item if isinstance(item, list | tuple) else [item])]


def _described(metric):
    """Return a metric in Keras's form."""
    if isfunction(metric):
        return {
            "module": "builtins",
            "class_name": "function",
            "config": metric.__name__,
            "registered_name": "function",
        }
    return metric if isinstance(metric, str | dict) else metrics.serialize(metrics.resolve(metric, None, 1))


def _looked_up(described, custom_objects: dict[str, Any]):
    """Return the user's object for a description; other functions by their names, all else as it is."""
    if isinstance(described, list | tuple):
        return [_looked_up(item, custom_objects) for item in described]
    if isinstance(described, str):
        return custom_objects.get(described, described)
    if not isinstance(described, dict):
        return described
    if described.get("class_name") == "function":
        return _looked_up(str(described.get("config")), custom_objects)
    kind = custom_objects.get(str(described.get("class_name")))
    return described if kind is None else kind.from_config(described["config"])
