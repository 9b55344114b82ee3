"""scikit-learn's MLPClassifier, for Dask data too."""

from __future__ import annotations

from typing import ClassVar

from sklearn.utils.metaestimators import available_if

from dasknn._compat.sklearn import StrOptions, _check_partial_fit_first_call
from dasknn.data import targets
from dasknn.estimators.answers import NetworkClassifier
from dasknn.estimators.losses import BinaryLogLoss, CategoricalLogLoss
from dasknn.estimators.mlp import BaseMLP, takes_steps


class MLPClassifier(NetworkClassifier, BaseMLP):
    """Multi-layer perceptron classifier: scikit-learn's, for data on a Dask cluster too.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Activation of the hidden layers.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        Optimizer. 'lbfgs' uses all rows in each iteration; an iteration counts as an epoch.
    alpha : float, default=0.0001
        Strength of the L2 penalty.
    batch_size : int, 'auto' or 'full', default='auto'
        Rows of a step over all replicas; for an ensemble, of a step of each member. 'auto': 200, or all rows
        if there are fewer. On Dask data, in epochs of more than 250 such steps, up to 200 per replica as long
        as 250 steps remain; with averaged weights always 200 per replica. 'full': all rows, one step per
        epoch.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of the learning rate, for solver='sgd'.
    learning_rate_init : float, default=0.001
        Initial learning rate. With batch_size='auto' it is the rate for 200 rows: a step of R times as many
        rows uses R times the rate (solver='adam': the square root of R times), after a warm-up of one epoch.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs, or iterations of lbfgs.
    shuffle : bool, default=True
        Whether rows are visited in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights and of the order of rows.
    tol : float, default=1e-4
        Training stops if the loss has not fallen by tol for n_iter_no_change epochs (early_stopping: if the
        score has not risen by tol). lbfgs: if no element of the gradient exceeds tol.
    verbose : bool, int or None, default=None
        True or 1: scikit-learn's lines. 2: a progress bar, also within an epoch and while data is loaded.
        None: the bar for Dask data in terminals and notebooks, else nothing. Bars go to stderr. False or 0:
        nothing.
    warm_start : bool, default=False
        Whether fit starts from the weights of the previous fit.
    momentum : float, default=0.9
        Momentum, for solver='sgd'.
    nesterovs_momentum : bool, default=True
        Whether the momentum is Nesterov's, for solver='sgd'.
    early_stopping : bool, default=False
        Whether the score on held-out rows decides when to stop, and which epoch's weights to keep. Held-out
        rows of plain data are drawn as in scikit-learn, of Dask data from each partition in proportion; a
        validation set that is passed to fit replaces them.
    validation_fraction : float, default=0.1
        Share of the rows to hold out.
    beta_1 : float, default=0.9
        Decay of the first moment, for solver='adam'.
    beta_2 : float, default=0.999
        Decay of the second moment, for solver='adam'.
    epsilon : float, default=1e-8
        Added to the root of the second moment, for solver='adam'.
    n_iter_no_change : int, default=10
        See tol.
    max_fun : int, default=15000
        Most evaluations of the loss by solver='lbfgs'.
    class_weight : dict, 'balanced' or None, default=None
        Weights of the labels, by which the weights of rows are multiplied. 'balanced': `rows / (n_classes *
        rows_of_class)` over all of y, with rows counted by their weights.
    strategy : {'auto', 'gradients', 'weights', 'predictions'} or Strategy, default='auto'
        What replicas average. 'auto': plain data trains in this process, Dask data by averaged gradients;
        `strategy_reason_` says why. See `dasknn.strategies` for objects with settings.
    replicas : int or None, default=None
        Number of replicas that train side by side. For given partitions, replicas and random_state, results
        have the same bits on any cluster. None: one for each thread of the cluster, as long as each replica
        has 32 rows of a step, or ten steps if replicas take steps of their own.
    transport : {'auto', 'peer', 'tasks'}, default='auto'
        How averages travel: directly between workers, or as tasks through the scheduler. Results have the
        same bits. 'auto': 'peer' for rounds shorter than 100 ms, if workers can connect to one another.
    engine : {'auto', 'numpy', 'numba'}, default='auto'
        What computes. 'numba': compiled steps, several times as fast for small networks, which need the extra
        `fast`; what they lack is left to numpy, and `engine_reason_` says so. 'auto': compiled steps for Dask
        data and explicit strategies, where driver and workers have the same version of numba; numpy for plain
        data in this process, which gives scikit-learn's own numbers. Results of engines differ by rounding.
    dtype : {'float32', 'float64'} or None, default=None
        Dtype to compute in. None: float32 if X is, else float64.
    callbacks : Callback, list of them or None, default=None
        Called during training, in the process that called fit.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Labels, sorted.
    coefs_ : list of arrays (n_inputs, units)
        Weights of each layer. An ensemble has none.
    intercepts_ : list of arrays (units,)
        Biases of each layer. An ensemble has none.
    members_ : list of estimators
        The members of an ensemble, fitted; one network is its own only member.
    loss_ : float
        Mean training loss of the last epoch.
    best_loss_ : float or None
        Least mean training loss of an epoch; None with early stopping. lbfgs has none.
    loss_curve_ : list of float
        Mean training loss of each epoch. lbfgs has none.
    history_ : list of dicts
        One for each epoch: 'epoch', 'loss', 'learning_rate', 'n_samples', 'bytes_sent' between workers,
        'seconds', 'rows_per_second', 'workers' with the seconds of each, 'faults', and scores.
        The first that a call of fit adds has 'seconds_to_start', from the call to the first epoch.
    n_iter_ : int
        Number of epochs.
    t_ : int
        Number of rows seen in training.
    validation_scores_ : list of float or None
        Accuracy on validation rows after each epoch.
    best_validation_score_ : float or None
        The best of them.
    n_layers_ : int
        Number of layers, with the inputs.
    n_outputs_ : int
        Number of outputs.
    out_activation_ : str
        Activation of the outputs.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array (n_features_in_,)
        Names of the columns of X, if all are strings.
    target_name_ : str
        Name of y, if it is a series that has one.
    interrupted_ : bool
        Whether Ctrl-C ended training early.
    replicas_ : int
        Number of replicas.
    strategy_ : Strategy or None
        The strategy; None if training ran in this process.
    strategy_reason_ : str
        Why this strategy was used.
    transport_ : {'process', 'tasks', 'peer'}
        How averages travelled.
    engine_ : {'numpy', 'numba'}
        What computed.
    engine_reason_ : str
        Why this engine was used.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _twin = "MLPClassifier"

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=None,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        class_weight=None,
        strategy="auto",
        replicas=None,
        transport="auto",
        engine="auto",
        dtype=None,
        callbacks=None,
    ):
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            class_weight=class_weight,
            strategy=strategy,
            replicas=replicas,
            transport=transport,
            engine=engine,
            dtype=dtype,
            callbacks=callbacks,
        )

    @available_if(takes_steps)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train for one epoch, starting from what was learned before.

        The optimizer and its learning rate continue, too.

        Parameters
        ----------
        X, y, sample_weight
            Data as for `fit`.
        classes : array (n_classes,), default=None
            All labels of this and later calls. The first call needs it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Data that cannot be trained on (a PartitionError names the partition), or labels that are not in
            classes.
        NonFiniteLossError
            Training diverges.
        """
        _check_partial_fit_first_call(self, classes)
        return self._fit(X, y, sample_weight, is_partial=True)

    def _loss(self, encoder):
        if isinstance(encoder, targets.MultilabelEncoder) or encoder.n_outputs == 1:
            return BinaryLogLoss()
        return CategoricalLogLoss()
