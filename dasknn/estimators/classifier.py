"""scikit-learn's MLPClassifier, for Dask data too."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from dasknn._compat.sklearn import StrOptions, _check_partial_fit_first_call
from dasknn.data import inputs, partitions, targets
from dasknn.data.blocks import refuse_kinds
from dasknn.data.targets import ClassWeights
from dasknn.estimators.fitting import checked_targets
from dasknn.estimators.losses import BinaryLogLoss, CategoricalLogLoss
from dasknn.estimators.mlp import BaseMLP, takes_steps
from dasknn.estimators.scores import Accuracy


class MLPClassifier(ClassifierMixin, BaseMLP):
    """Multi-layer perceptron classifier: scikit-learn's, for data on a Dask cluster too.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Activation of the hidden layers.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        Optimizer. 'lbfgs' takes all rows in each iteration, of which `history_` has an entry.
    alpha : float, default=0.0001
        Strength of the L2 penalty.
    batch_size : int, 'auto' or 'full', default='auto'
        Rows of one step over all replicas. 'auto': 200, or all rows if fewer, as for plain data; in an epoch
        of more than 250 such steps up to 200 a replica, as long as 250 remain, and with
        strategy='weights' always 200 a replica; the learning rate grows with it, see learning_rate_init.
        'full': all rows, one step an epoch. Members of an ensemble take steps of batch_size rows each.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of the learning rate, for solver='sgd'.
    learning_rate_init : float, default=0.001
        Initial learning rate. With batch_size='auto' it is that of 200 rows: training with R times as many
        uses R times as much (solver='adam': the square root of R times), which the first epoch works up to.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs, or iterations of lbfgs.
    shuffle : bool, default=True
        Whether rows are visited in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and of the order of rows.
    tol : float, default=1e-4
        Training stops when the loss has not fallen (early_stopping: the score has not risen) by tol for
        n_iter_no_change epochs. lbfgs: when no element of the gradient exceeds tol.
    verbose : bool, int or None, default=None
        True or 1: scikit-learn's lines. 2: a progress bar, also while data is loaded and within an epoch.
        None: the bar for Dask data in terminals and notebooks, nothing elsewhere and for plain data. Bars go
        to stderr. False or 0: nothing.
    warm_start : bool, default=False
        Whether fit goes on from the weights of the fit before.
    momentum, nesterovs_momentum : float, default=0.9; bool, default=True
        For solver='sgd'.
    early_stopping : bool, default=False
        Whether rows are held out, whose score decides when to stop and which epoch's weights to keep. From
        plain data they are drawn as in scikit-learn, from Dask data from each partition in proportion.
        fit(validation_data=...) takes their place.
    validation_fraction : float, default=0.1
        Share of the rows to hold out.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999, 1e-8
        For solver='adam'.
    n_iter_no_change : int, default=10
        See tol.
    max_fun : int, default=15000
        Most evaluations of the loss by solver='lbfgs'.
    class_weight : dict of label to weight, 'balanced' or None, default=None
        Factors of the weights of rows. 'balanced': rows / (n_classes * rows of the class), over the whole of
        y, with rows counted by their weights.
    strategy : 'auto', 'gradients', 'weights', 'predictions' or an object of `dasknn.strategies`
        What replicas average. 'auto': plain data trains in this process; Dask data by weights every 16 steps
        with an outer Nesterov step, or by gradients where an epoch has few steps, all rows are one step, or
        the solver is 'sgd' and gradients are cheap to exchange. It depends on settings and sizes alone;
        `strategy_reason_` says why.
    replicas : int or None, default=None
        Number of replicas that train side by side. For given partitions, replicas and random_state, the
        result is the same to the last bit on any cluster. None: one for each thread of the cluster, but no
        more than leave each 32 rows of a step, or, where each takes steps of its own, ten steps.
    transport : 'auto', 'peer' or 'tasks', default='auto'
        How averages travel: between the workers themselves, or as tasks through the scheduler. The result is
        the same to the last bit. 'auto': 'peer' for rounds shorter than 100 ms, where workers reach one
        another.
    dtype : 'float32', 'float64' or None, default=None
        Numbers to compute in. None: float32 if X is, else float64.
    callbacks : list of `callbacks.Callback`, one of them, or None, default=None
        Told what happens; they run in the process that called fit.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Labels, sorted.
    coefs_, intercepts_ : lists of arrays
        Weights (n_inputs, units) and biases (units,), layer by layer; an ensemble has none.
    members_ : list of fitted estimators
        The members of an ensemble.
    loss_, best_loss_, loss_curve_ : float, float, list of float
        Mean training loss of the last, the best and of each epoch; lbfgs has `loss_` alone.
    history_ : list of dicts
        One an epoch: epoch, loss, learning_rate, n_samples, bytes_sent between workers, seconds, ...
    n_iter_, t_ : int
        Epochs, and rows seen.
    validation_scores_, best_validation_score_ : list of float, float
        Accuracy on rows held out, of each epoch and the best.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn.
    target_name_ : str
        The name of y, where it is a series that has one.
    interrupted_ : bool
        Whether Ctrl-C ended training before max_iter or the stopping rule did.
    replicas_, strategy_, transport_ : int, strategy or None, str
        What training used; `strategy_` is None for training in this process.
    strategy_reason_ : str
        Why it was this strategy, in words.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _metric = Accuracy
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
            dtype=dtype,
            callbacks=callbacks,
        )

    @available_if(takes_steps)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train for one epoch on X (n, p), y and sample_weight, going on from what was learned; return self.

        classes: all labels that will ever come; needed in the first call. Data as for fit. The optimizer
        goes on where it was, and the learning rate with it.
        """
        _check_partial_fit_first_call(self, classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def _loss(self, encoder):
        if isinstance(encoder, targets.MultilabelEncoder) or encoder.n_outputs == 1:
            return BinaryLogLoss()
        return CategoricalLogLoss()

    def _summarize(self):
        return targets.ClassSummary

    def _learn_targets(self, summary, dtype, incremental):
        # The first call of partial_fit has set them, too.
        known = vars(self).get("classes_")
        if known is None or not (self.warm_start or incremental):
            self.classes_ = summary.labels
            return summary.encoder(dtype)
        if self.warm_start and set(summary.labels) != set(known):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {known}, `y` has {summary.labels}"
            )
        if not set(summary.labels) <= set(known):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has "
                f"{summary.labels}."
            )
        kind = targets.MultilabelEncoder if summary.multilabel else targets.ClassEncoder
        return kind(known, dtype)

    def _class_weights(self, summary, encoder, incremental):
        if self.class_weight is None:
            return None
        if not isinstance(encoder, targets.ClassEncoder):
            raise ValueError(
                "class_weight is for one label a row, received multi-label data. Use sample_weight."
            )
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not for partial_fit, which sees a part of y. Pass a dict: "
                "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y) of all y."
            )
        return ClassWeights.of(self.class_weight, summary, encoder)

    def predict(self, X):
        """Return labels for X (n, p): (n,), or indicators (n, k) of multi-label data.

        A numpy array for data in this process; for a Dask array a Dask array, for a Dask dataframe a
        Dask series (multi-label: a dataframe), not yet computed.
        """
        return self._predict("predict", X, self._columns_of_outputs())

    def predict_proba(self, X):
        """Return the probability of each class, (n, n_classes) in the order of `classes_`.

        As for predict, lazily for Dask collections; for a dataframe, a dataframe with a column a class, named
        by its label as text.
        """
        check_is_fitted(self)
        return self._predict("predict_proba", X, list(self.classes_))

    def predict_log_proba(self, X):
        """Return the logarithm of predict_proba."""
        check_is_fitted(self)
        return self._predict("predict_log_proba", X, list(self.classes_))

    def predictive_entropy(self, X):
        """Return how uncertain predictions are (n,): the entropy of predict_proba in nats.

        Of multi-label data, summed over labels. Lazily for Dask collections, as for predict. For an ensemble
        it counts what the members disagree about, too (Lakshminarayanan et al. 2017).
        """
        return self._predict("predictive_entropy", X)

    def score(self, X, y, sample_weight=None):
        """Return accuracy on X (n, p), y and sample_weight; Dask collections are scored where they are."""
        X, y, sample_weight = inputs.admit(X, y, sample_weight)
        if partitions.is_distributed(X, y, sample_weight):
            return self._score_where_data_is(X, y, sample_weight)
        refuse_kinds("y", y, "cV")
        refuse_kinds("sample_weight", sample_weight)
        y = checked_targets(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
