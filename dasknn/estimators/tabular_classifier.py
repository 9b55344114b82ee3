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
    """Classifier for tables as they are: numbers, text, categories, dates, missing values.

    Columns are learned in one pass over the rows, where they lie. Numbers enter the network by piecewise
    linear embeddings, categories by tables of vectors. Members that share most of their weights are trained
    together by a recipe that needs no tuning. X is a pandas or Dask dataframe, or an array.

    Parameters
    ----------
    members : int or 'auto', default='auto'
        Networks that share most of their weights; predictions are their mean. 'auto': 16 in small tables, and
        fewer the more rows and columns there are.
    hidden_layer_sizes : array-like of int or 'auto', default='auto'
        Units of each hidden layer.
    activation : str, default='relu'
        Activation of the hidden layers, by its name in `dasknn.activations`.
    adapters : {'first', 'all'}, default='first'
        Which layers have factors of their own for each member: the first one (TabM-mini), or all of them
        (TabM).
    embedding : {'auto', 'piecewise_linear', 'encoding', 'periodic', 'pbld'} or None, default='auto'
        How numbers enter the network: by embeddings of bins, by the bins' encoding alone, by periodic
        embeddings, or (None) scaled. 'auto': 'piecewise_linear', or None in tables of more than 100 numbers.
    embedding_dim : int, default=16
        Length of the vector that a number becomes.
    n_bins : int, default=48
        Most bins of a number. Small tables have fewer: one for 20 rows.
    bins : {'greedy', 'quantile', 'tree'}, default='greedy'
        How the edges of bins are chosen: frequent values have edges of their own and the rest equal shares;
        quantiles; or thresholds of a decision tree for each number and y.
    categorical_features : list of str or int, or mask, default=None
        Columns of numbers that are codes of categories: names, positions or a mask. Text and pandas'
        categories are categories anyway.
    min_frequency : int, float or None, default=None
        Values of categories with fewer rows (int), or with a smaller share of all rows (float), share one
        code. None: fewer than 5 rows, in columns of more than 30 values and tables of 1,000 rows or more.
    max_categories : int, default=4096
        Most values of a column with codes of their own; the others are hashed.
    learning_rate_init : float, default=0.04
        Highest learning rate.
    learning_rate : {'coslog4', 'cosine', 'constant'}, default='coslog4'
        Schedule of the learning rate: four cycles, each twice as long as the one before
        (`schedules.CosineLogDecay`); half a cosine after a warm-up; or none.
    beta_2 : float, default=0.95
        Decay of AdamW's second moment.
    weight_decay : float or 'auto', default='auto'
        Decoupled weight decay, which falls to 0 in the second half. 'auto': less for more rows.
    dropout : float or 'auto', default='auto'
        Share of hidden units that are dropped in a step; it falls to 0 in the second half. 'auto': less for
        more rows.
    label_smoothing : float, default=0.0
        Share of the target that is spread over all classes.
    clipnorm : float or None, default=None
        Largest norm of the whole gradient.
    batch_size : int, 'auto' or 'full', default='auto'
        Rows of a step over all replicas. 'auto': 256; fewer in small tables, 512 from 200,000 rows on.
    max_iter : int or 'auto', default='auto'
        Epochs of the whole schedule. 'auto': 40, and 24 from 200,000 rows on.
    early_stopping : bool or 'auto', default='auto'
        Whether rows are held out to choose the best epoch, whose weights are kept, and to stop early. 'auto':
        if there are at least 15 of them.
    validation_fraction : float, default=0.15
        Share of the rows to hold out.
    hold_out : {'random', 'last'}, default='random'
        Which rows are held out: random ones, or the last ones, of data that is ordered by time. With `groups`
        in fit, random groups; with `time`, the latest rows.
    n_iter_no_change : int or 'auto', default='auto'
        Training stops after more than so many epochs that were not better. 'auto': at the end of a cycle of
        the learning rate in which no epoch was.
    refit : {'all'} or None, default=None
        'all': when the best epoch is known, a second network is trained for so many epochs on all rows, those
        that were held out among them. It takes up to twice the time.
    select_members : bool, default=False
        Whether only those members are kept whose mean predicts the rows that were held out best, chosen
        greedily when training has ended. Predictions become faster and scores stay about as good. Not
        with refit="all", whose second network no rows that were held out have judged.
    calibrate : {'temperature'} or None, default='temperature'
        Whether probabilities are calibrated on the rows that were held out, by one temperature for the mean
        of the members.
    class_weight : dict of label to weight, 'balanced' or None, default=None
        Weights of classes, which multiply the weights of rows.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, of held-out rows, of the order of rows and of dropout.
    verbose : bool, int or None, default=None
        True or 1: a line for each epoch. 2: a progress bar, and a line with the score of the weights that are
        kept. None: the same in terminals and notebooks, for plain data if training takes more than 3 seconds;
        elsewhere nothing. False or 0: nothing.
    strategy : {'auto', 'gradients', 'weights', 'predictions'} or Strategy, default='auto'
        What replicas average. 'auto': gradients. 'predictions' trains an ensemble of such networks. See
        `dasknn.strategies` for objects with settings.
    replicas : int or None, default=None
        Number of replicas that train side by side. For given partitions, replicas and random_state, results
        have the same bits on any cluster. None: one for each thread of the cluster, while each has enough
        rows; four threads of this process for plain data.
    transport : {'auto', 'peer', 'tasks'}, default='auto'
        How averages travel, see `MLPClassifier`.
    engine : {'auto', 'numpy', 'numba'}, default='auto'
        What computes. These networks run on numpy so far; `engine_reason_` says so.
    dtype : {'float32', 'float64'}, default='float32'
        Dtype to compute in.
    callbacks : Callback, list of them or None, default=None
        Called during training, in the process that called fit.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Labels of the classes, sorted.
    members_ : list of estimators
        The members, fitted, each an estimator.
    selected_members_ : list of int or None
        Numbers, from 0 and ascending, of the members that select_members=True has kept; None: all are kept.
    columns_ : list of named tuples
        What was learned of each column of X: `name`, `kind`, `n_bins`, `n_categories` (values with codes of
        their own), `n_shared_codes` (of the other values), `has_missing`, `becomes` (what the network gets of
        it) and `learned`. `pandas.DataFrame(model.columns_)` is a table of them.
    recipe_ : named tuple
        The settings that parameters or rules have chosen: `members`, `hidden`, `embeds` (whether numbers
        are embedded), `epochs` (of the whole schedule), `batch_size`, `dropout` and `weight_decay`.
    history_ : list of dicts
        One for each epoch, see `MLPClassifier`.
    loss_ : float
        Mean training loss of the last epoch.
    loss_curve_ : list of float
        Mean training loss of each epoch.
    n_iter_ : int
        Number of epochs.
    validation_scores_ : list of float or None
        Accuracy on validation rows after each epoch.
    best_validation_score_ : float or None
        The best of them.
    best_epoch_ : int or None
        Number of the epoch, from 1, that was the best on validation rows, and whose weights were kept; with
        refit="all", the second network was trained for so many epochs. None: none was chosen.
    temperature_ : float
        What logits are divided by; 1 without calibration.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array (n_features_in_,)
        Names of the columns of X, if all are strings.
    n_outputs_ : int
        Number of outputs of a member.
    replicas_, strategy_, strategy_reason_, transport_, engine_, engine_reason_, interrupted_
        As of `MLPClassifier`.

    See Also
    --------
    MLPClassifier, MLPRegressor : scikit-learn's networks, for columns of numbers.
    TablePreprocessor : encodes tables as columns of numbers.

    References
    ----------
    - Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning".
    - Gorishniy, Kotelnikov and Babenko (2025), "TabM: advancing tabular deep learning with
      parameter-efficient ensembling".
    - Holzmueller, Grinsztajn and Steinwart (2024), "Better by default: strong pre-tuned MLPs and boosted
      trees on tabular data".

    Examples
    --------
    >>> import pandas
    >>> from dasknn import TabularClassifier
    >>> table = pandas.DataFrame({"age": [20, 40, 30, 50] * 20, "city": ["Rome", "Oslo"] * 40})
    >>> model = TabularClassifier(random_state=0).fit(table, table["city"] == "Oslo")
    >>> model.predict(table[:2])
    array([False,  True])
    """

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
        max_categories=4096,
        learning_rate_init=0.04,
        learning_rate="coslog4",
        beta_2=0.95,
        weight_decay="auto",
        dropout="auto",
        label_smoothing=0.0,
        clipnorm=None,
        batch_size="auto",
        max_iter="auto",
        early_stopping="auto",
        validation_fraction=0.15,
        hold_out="random",
        n_iter_no_change="auto",
        refit=None,
        select_members=False,
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
        self.hold_out = hold_out
        self.n_iter_no_change = n_iter_no_change
        self.refit = refit
        self.select_members = select_members
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
