"""The base class of the estimators for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import ceil, log2
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone

from dasknn import callbacks as cb
from dasknn import strategies
from dasknn._compat.sklearn import Interval, StrOptions
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.data import inputs
from dasknn.data.tables.encoder import TableEncoder
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.estimators import tabular_files
from dasknn.estimators.base import NetworkEstimator
from dasknn.estimators.fitting import one_validation
from dasknn.estimators.recipe import LEAST_HELD_OUT, Recipe, recipe_for
from dasknn.estimators.tabular_columns import LearnedColumn, learned_columns
from dasknn.estimators.tabular_fitting import TabularFit, checked_table, encoded, learn_columns
from dasknn.estimators.tabular_losses import TabularLoss
from dasknn.layers import (
    Activation,
    BinEmbedding,
    BinEncoding,
    ByteDropout,
    ColumnGroups,
    Embedding,
    Layer,
    MemberDense,
    MemberHeads,
    MemberScale,
    Omit,
    OneHot,
    PBLDEmbedding,
    PeriodicEmbedding,
    Scale,
)
from dasknn.losses import MemberLoss
from dasknn.optimizers import AdamW
from dasknn.regularizers import BatchL2
from dasknn.schedules import CosineDecay, CosineLogDecay, FlatCosineDecay
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.training.datasets import Rows
from dasknn.training.prediction import Predictor
from dasknn.training.recommend import Measurable

# Categories of more codes than this become vectors of a table, the others one-hot columns.
_MOST_ONE_HOT = 9
_CYCLES = 4
PIECEWISE_LINEAR, ENCODING, PERIODIC, PBLD = "piecewise_linear", "encoding", "periodic", "pbld"
# Greater than the defaults of the layers: with these epochs, lower frequencies lose on California Housing and
# on Adult. The learning rate is that of dense layers with kernels of variance 1, hence the factor.
_PERIODIC: dict[str, Any] = {"frequency_scale": 2.0, "rate_factor": 0.1}
_PBLD: dict[str, Any] = {"frequency_scale": 1.0, "rate_factor": 0.1}
_EMBEDDINGS = (BinEmbedding, Embedding, PBLDEmbedding, PeriodicEmbedding)


class BaseTabular(NetworkEstimator):
    """What the classifier and the regressor for tables share."""

    _fit_class = TabularFit
    # Settings that the steps of a fit ask for, and that these estimators do not have.
    solver = "adam"
    warm_start = False
    tol = 0.0

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", StrOptions({"auto"})],
        "activation": [str],
        "members": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "adapters": [StrOptions({"first", "all"})],
        "embedding": [StrOptions({"auto", PIECEWISE_LINEAR, ENCODING, PERIODIC, PBLD}), None],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        "bins": [StrOptions({"greedy", "quantile", "tree"})],
        "categorical_features": ["array-like", None],
        "min_frequency": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "max_categories": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [StrOptions({"coslog4", "cosine", "constant"})],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "clipnorm": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [StrOptions({"auto", "full"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "hold_out": [StrOptions({"random", "last"})],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "refit": [StrOptions({"all"}), None],
        "select_members": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose", None],
        "strategy": [StrOptions({"auto", "gradients", "weights", "predictions"}), Strategy],
        "replicas": [Interval(Integral, 1, None, closed="left"), None],
        "transport": [StrOptions({"auto", auto.PEER, auto.TASKS})],
        "engine": [StrOptions(set(engines.NAMES))],
        "dtype": [StrOptions({"float32", "float64"})],
        "callbacks": ["array-like", cb.Callback, None],
    }

    selected_members_: list[int] | None
    _table: TableEncoder
    recipe_: Recipe

    def fit(
        self,
        X,
        y,
        sample_weight=None,
        *,
        groups=None,
        time=None,
        X_val=None,
        y_val=None,
        sample_weight_val=None,
        validation_data=None,
        checkpoint=None,
        resume=False,
        max_faults=MAX_FAULTS,
    ):
        """Fit the model to a table.

        Dask collections, or an explicit strategy, train on the cluster of `self.client` or of the current
        client, else on Dask's local scheduler. Plain data with strategy="auto" trains in this process.

        Parameters
        ----------
        X : Dask dataframe or array, dataframe, array, sparse matrix or list, (n, p)
            The table as it is: numbers, text, categories, booleans, dates, durations, with missing values.
        y : Dask series or array, series, array or list, (n,) or (n, k)
        sample_weight : Dask series or array, series, array, list or None, (n,), default=None
            Weights of the rows in losses and scores. Columns are learned from all rows alike, those of weight
            0 among them.
        groups : Dask series, series, array or None, (n,), default=None
            The group of each row, such as a customer: rows that are held out are those of whole groups.
            Small tables hold none out, unless early_stopping=True.
        time : Dask series, series, array or None, (n,), default=None
            The time of each row, as a date or a number: rows that are held out are the latest ones, about
            `validation_fraction` of all. Rows of one time stay together. It is no column to learn from; for
            that, leave it in X, too. Neither groups nor time count if rows to validate with are passed.
        X_val, y_val, sample_weight_val : as X, y and sample_weight, default=None
            Rows to score after each epoch, instead of rows that are held out.
        validation_data : (X, y) or (X, y, sample_weight), default=None
            The same rows in one argument.
        checkpoint : str, path, Checkpoint or None, default=None
            A folder or fsspec URL, or a `dasknn.Checkpoint`, to which the whole training is written after
            each epoch. The two newest files are kept.
        resume : bool, default=False
            Whether to resume from the newest undamaged file, with the same bits as a training that was not
            interrupted. With refit="all", the second stage begins again.
        max_faults : int, default=10
            How many faults of the cluster (lost workers, failed attempts) may cost work before the last one
            is raised. The history has the faults of each epoch.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before training: data that cannot be trained on (a PartitionError names the partition), or a
            checkpoint of a training with other settings or data.
        FileExistsError
            The folder holds checkpoints, and resume is False.
        ModelFileError
            All checkpoints in the folder are damaged.
        NonFiniteLossError
            Training diverges.
        """
        if X_val is not None or y_val is not None or sample_weight_val is not None:
            validation_data = one_validation(validation_data, X_val, y_val, sample_weight_val)
        data = (X, y, sample_weight, validation_data)
        return self._fit_from(checkpoint, resume, *data, max_faults=max_faults, groups=groups, time=time)

    def _check_settings(self, validation_data, is_partial):
        super()._check_settings(validation_data, is_partial)
        if not self.select_members:
            return
        if self.strategy != "auto" and isinstance(strategies.get(self.strategy), PredictionAveraging):
            raise ValueError(
                "select_members=True chooses among members that share one network, received strategy "
                "'predictions', which trains several networks. Leave one of them out."
            )
        if self.refit == "all":
            # Good members of one training are no better than others in the next, although they begin alike.
            raise ValueError(
                "select_members=True chooses by rows that are held out, received refit='all', whose second "
                "network is trained on all rows. Leave one of them out."
            )
        if not self.early_stopping and validation_data is None:
            raise ValueError(
                "select_members=True needs rows that are held out, received early_stopping=False. Leave it "
                "out, or pass X_val and y_val."
            )

    # --- the recipe --------------------------------------------------------------------------------

    def _choose_recipe(self, n_rows: int, n_validation: int | None) -> None:
        """Choose the settings that are left to rules.

        n_rows: to train on, and to hold out from. n_validation: rows that the user passed to validate with.
        """
        self.recipe_ = self._recipe_for(n_rows)
        n_scored = n_rows * self.validation_fraction if n_validation is None else n_validation
        self._stops_early = (
            n_scored >= LEAST_HELD_OUT if self.early_stopping == "auto" else self.early_stopping
        )

    def _recipe_for(self, n_rows: int) -> Recipe:
        """Return the settings that parameters or rules choose for a table of so many rows."""
        found = recipe_for(n_rows, self._table.n_numbers, self._table.n_features_in)
        own: dict[str, Any] = {}
        for name in ("members", "dropout", "weight_decay"):
            if getattr(self, name) != "auto":
                own[name] = getattr(self, name)
        if not isinstance(self.hidden_layer_sizes, str):
            own["hidden"] = tuple(int(n) for n in np.atleast_1d(self.hidden_layer_sizes))
        if self.embedding != "auto":
            own["embeds"] = self.embedding is not None
        if self.max_iter != "auto":
            own["epochs"] = int(self.max_iter)
        if self.batch_size == "full":
            own["batch_size"] = n_rows
        elif self.batch_size != "auto":
            own["batch_size"] = min(int(self.batch_size), n_rows)
        return found._replace(**own)

    @property
    def _monitor(self) -> str:
        """What early stopping watches."""
        return "validation_score"

    @property
    def _n_epochs(self) -> int:
        return self.recipe_.epochs

    def _ends_of_cycles(self) -> list[int]:
        """Return the numbers of the epochs, from 1, with which the cycles of the learning rate end."""
        if self.learning_rate != "coslog4":
            return []
        shares = [(2**cycle - 1) / (2**_CYCLES - 1) for cycle in range(1, _CYCLES + 1)]
        return [ceil(share * self._n_epochs - 1e-9) for share in shares]

    # --- the network -------------------------------------------------------------------------------

    def _loss(self, encoder: Any) -> TabularLoss:
        """Return the loss of one member."""
        raise NotImplementedError

    def _network(self, encoder: Any, dtype: str) -> Network:
        recipe, loss = self.recipe_, self._loss(encoder)
        k = recipe.members
        groups = self._column_groups()
        table = ColumnGroups(tuple((width, layer) for width, layer, _ in groups))
        layers: list[Layer] = [table, Scale()]
        if k > 1:
            widths = [width for _, _, of_columns in groups for width in of_columns]
            is_embedded = any(isinstance(layer, _EMBEDDINGS) for _, layer, _ in groups)
            layers.append(MemberScale(k, tuple(widths), "normal" if is_embedded else "signs"))
        for number, units in enumerate(recipe.hidden):
            every = self.adapters == "all" and k > 1
            layers.append(MemberDense(units, k, self.activation, every and number > 0, every))
            if recipe.dropout:
                layers.append(ByteDropout(recipe.dropout))
        layers.append(MemberHeads(self._units(encoder), k, loss.activation))
        return Network(self._table.width, tuple(layers), MemberLoss(loss, k), dtype)

    def _units(self, encoder: Any) -> int:
        """Return the outputs of a member."""
        return encoder.n_outputs

    def _column_groups(self) -> list[tuple[int, Layer, list[int]]]:
        """Return the groups of encoded columns.

        Each is (number of columns, their layer, how many outputs of the layer each column of the table has).
        """
        table = self._table
        found: list[tuple[int, Layer, list[int]]] = []
        p, q = table.n_numbers, table.n_plain
        places = table.groups
        if p:
            bins = table.n_bins
            if not self.recipe_.embeds:
                # The coordinates among bins are left out.
                found.append((p, Activation("linear"), _runs(places[:p])))
                found.append((p, Omit(), []))
            elif self.embedding == ENCODING:
                found.append((p, Omit(), []))
                found.append((p, BinEncoding(bins), list(bins)))
            elif self.embedding in (PERIODIC, PBLD):
                waves: PeriodicEmbedding | PBLDEmbedding
                if self.embedding == PERIODIC:
                    waves = PeriodicEmbedding(embedding_dim=self.embedding_dim, **_PERIODIC)
                else:
                    waves = PBLDEmbedding(embedding_dim=self.embedding_dim, **_PBLD)
                found.append((p, waves, [waves.embedding_dim] * p))
                found.append((p, Omit(), []))
            else:
                d = self.embedding_dim
                found.append((2 * p, BinEmbedding(bins, d, 0.3), [d] * p))
        if q:
            found.append((q, Activation("linear"), _runs(places[2 * p : 2 * p + q])))
        for size in table.n_codes:
            if size <= _MOST_ONE_HOT:
                found.append((1, OneHot((size,)), [size - 1]))
            else:
                d = embedding_width(size)
                found.append((1, Embedding(size, d, "uniform"), [d]))
        return found

    def _job(self, sizes: auto.Sizes, seed: int) -> TrainingJob:
        network, _, replicas, batch_size = sizes
        recipe = self.recipe_
        n_steps = self._steps_of_epoch * recipe.epochs
        rate: Any = self.learning_rate_init
        decay: Any = recipe.weight_decay
        if self.learning_rate == "coslog4":
            rate = CosineLogDecay(rate, n_steps, _CYCLES)
        elif self.learning_rate == "cosine":
            rate = CosineDecay(rate / 25, n_steps, warmup_target=rate, warmup_steps=0.05 * n_steps)
        if decay:
            decay = FlatCosineDecay(decay, n_steps)
        optimizer = AdamW(
            rate,
            beta_2=self.beta_2,
            epsilon=1e-8,
            weight_decay=decay,
            global_clipnorm=self.clipnorm,
        )
        noise = FlatCosineDecay(1.0, n_steps) if recipe.dropout else None
        return TrainingJob(
            network, optimizer, BatchL2(0.0), batch_size, seed, replicas, True, noise_schedule=noise
        )

    def _sizes(self, network: Network, n_rows: int, replicas: int, strategy: Strategy | None) -> auto.Sizes:
        batch_size = min(self.recipe_.batch_size, n_rows)
        in_step = (strategy or GradientAveraging()).replicas_in_step(replicas)
        self._steps_of_epoch = max(1, ceil(n_rows * in_step / (replicas * batch_size)))
        return auto.Sizes(network, n_rows, replicas, batch_size)

    def _default_replicas(self, strategy: Strategy | None, n_slots: int, n_rows: int) -> int:
        batch_size = self.recipe_.batch_size
        return auto.default_replicas(strategy or GradientAveraging(), n_slots, n_rows, batch_size)

    def _keep_members(self, numbers: Sequence[int]) -> None:
        """Keep these members of the trained network alone."""
        predictor = self._predictor()
        network, params = predictor.network.with_members(predictor.members[0], numbers)
        self._set_predictor(replace(predictor, network=network, members=params[np.newaxis]))
        self.selected_members_ = list(numbers)

    def _learn_from_held_out(self, rows: Rows) -> None:
        """Learn what rows that were held out say of the predictions of the trained network."""

    def _measurable(self, X: Any, n_rows: int, executor: Executor) -> Measurable:
        model, assumed = self, ""
        encoder: Any
        if self.__sklearn_is_fitted__():
            network, encoder = self._network_, self._encoder
            # Rows to validate with may have been passed.
            took_all = any(entry.get("n_samples") == n_rows for entry in self.history_[:1])
            stops_early = self.best_epoch_ is not None and not took_all
        else:
            model = clone(self)
            (X,) = inputs.admit(X)
            learn_columns(model, checked_table(model, X, reset=True), None, executor)
            model._choose_recipe(n_rows, None)
            stops_early = model._stops_early
            encoder, assumed = self._assumed_targets(self.dtype)
            network = model._network(encoder, self.dtype)
        n_trained = n_rows - (ceil(n_rows * self.validation_fraction) if stops_early else 0)
        rows = f"{n_trained:,} of {n_rows:,} rows" if stops_early else f"{n_rows:,} rows"
        described = f"{rows} x {model._table.n_features_in} columns"
        return Measurable(model, network, encoder, n_trained, described, assumed)

    # --- what was learned --------------------------------------------------------------------------

    @property
    def columns_(self) -> list[LearnedColumn]:
        """What was learned of each column; `pandas.DataFrame(model.columns_)` shows it as a table."""
        network = self._predictor().network
        return learned_columns(self._table, network)

    # --- predict -----------------------------------------------------------------------------------

    def _predictor(self) -> Predictor:
        return replace(super()._predictor(), temperature=vars(self).get("temperature_", 1.0))

    def _network_inputs(self, X: Any) -> Any:
        return encoded(self, checked_table(self, X, reset=False))

    def _parts(self):
        return tabular_files.parts_of(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


def embedding_width(size: int) -> int:
    """Return the length of the vectors for a category of this many codes: 8, and more for very many."""
    return int(min(32, max(8, 2 * log2(size) - 8)))


def _runs(places: Any) -> list[int]:
    """Return the lengths of runs of equal places."""
    return [len(list(run)) for _, run in groupby(places)]
