"""Permutation importance: how much worse a metric becomes if a column takes the values of other rows.

    sample (X, y, weight)    on one worker (`sampling`)
      answers                the predictions for it
      difference             the metric of the answers less that with a column permuted, exact and for each
                             bootstrap replicate: a task for each column and repeat
    importances, and intervals from the replicates of their means over repeats ── in this process

Columns are permuted in the table as the user passes it, before any step of a pipeline sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.cluster.graph import Graph
from dasknn.data import inputs
from dasknn.evaluation import metrics as evaluation_metrics
from dasknn.evaluation.bootstrap import Draws, interval, sum_slices
from dasknn.evaluation.estimates import Estimate, Estimates, Settings
from dasknn.evaluation.ledger import Ledger
from dasknn.evaluation.metrics import METRICS, Metric, RowMetric
from dasknn.evaluation.plan import add_models, check_answers
from dasknn.evaluation.problem import REGRESSION, Answers, Problem
from dasknn.evaluation.responders import Responder, problem_for, responder_of, rows_for
from dasknn.evaluation.sampling import (
    Chosen,
    Rows,
    Sampling,
    as_table,
    checked_number,
    chosen_columns,
    in_sample,
    tasks_for,
    with_rows_of,
)
from dasknn.seeds import Stream, generator

# Scorers of scikit-learn whose names are not "neg_" and the name of the metric.
_SCORERS = {"neg_brier_score": "neg_brier_score_loss"}
# Columns that are listed when a result is printed.
_MOST_SHOWN = 40


# --- the result ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class PermutationImportance:
    """Result of `permutation_importance`; printed, it is a table with the most important column first.

    Attributes
    ----------
    importances : array (n_columns, n_repeats)
        How much worse the metric is in each repeat.
    importances_mean, importances_std : array (n_columns,)
        Mean and standard deviation over repeats.
    interval_low, interval_high : array (n_columns,)
        The ends of an interval for the mean; NaN without replicates.
    feature_names : tuple
        The name of each column; a tuple of names for columns that were permuted together.
    baseline : float
        The metric of the sample as it is.
    scoring : str
        The name of the metric.
    greater_is_better : bool
    n_samples : int
        Rows of the sample.
    confidence : float
        Of the intervals.
    """

    importances: np.ndarray
    importances_mean: np.ndarray
    importances_std: np.ndarray
    interval_low: np.ndarray
    interval_high: np.ndarray
    feature_names: tuple
    baseline: float
    scoring: str
    greater_is_better: bool
    n_samples: int
    confidence: float

    def __getitem__(self, name: str) -> Any:
        """Return an attribute by its name, as scikit-learn's Bunch does."""
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    @property
    def order(self) -> np.ndarray:
        """The numbers of the columns, the most important first."""
        return np.argsort(-self.importances_mean, kind="stable")

    @property
    def labels(self) -> list[str]:
        """The name of each column as text."""
        return [
            " + ".join(map(str, name)) if isinstance(name, tuple) else str(name)
            for name in self.feature_names
        ]

    def to_frame(self) -> Any:
        """Return a pandas dataframe with a row for each column, the most important first."""
        from dasknn.evaluation.frames import WholeFrame

        order = self.order
        columns = {
            "column": [self.labels[number] for number in order],
            "importance": self.importances_mean[order],
            "importance_std": self.importances_std[order],
            "importance_low": self.interval_low[order],
            "importance_high": self.interval_high[order],
        }
        frame = WholeFrame(columns)
        for name in ("scoring", "baseline", "greater_is_better", "n_samples", "confidence"):
            frame.attrs[name] = self[name]
        return frame

    def __repr__(self) -> str:
        change = "drop" if self.greater_is_better else "rise"
        n_repeats = self.importances.shape[1]
        has_intervals = not np.isnan(self.interval_low).all()
        told = f"{n_repeats} repeat{'s' * (n_repeats > 1)}"
        if has_intervals:
            told += f", {100 * self.confidence:g}% intervals"
        largest = np.abs(self.importances_mean).max()
        digits = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 4
        labels, order = self.labels, self.order
        width = max(len(labels[number]) for number in order[:_MOST_SHOWN])
        lines = [
            f"{change} in {self.scoring} (of {self.baseline:.4g}) if a column is permuted: "
            f"{self.n_samples:,} rows, {told}"
        ]
        for number in order[:_MOST_SHOWN]:
            # Without the sign of a zero.
            mean, low, high = (
                round(float(one[number]), digits) + 0.0
                for one in (self.importances_mean, self.interval_low, self.interval_high)
            )
            line = f"  {labels[number]:<{width}}  {mean:{digits + 4}.{digits}f}"
            if has_intervals:
                line += f"  [{low:.{digits}f}, {high:.{digits}f}]"
            lines.append(line)
        if len(order) > _MOST_SHOWN:
            lines.append(f"  and {len(order) - _MOST_SHOWN} more")
        return "\n".join(lines)


# --- what users call -------------------------------------------------------------------------------------


def permutation_importance(
    model: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    scoring: Any = None,
    n_repeats: int = 5,
    max_samples: int | None = 10_000,
    random_state: Any = None,
    columns: Any = None,
    confidence: float = 0.95,
    n_bootstrap: int = 200,
    pos_label: Any = None,
    client: Any = None,
) -> PermutationImportance:
    """Return how much worse a model predicts if the values of a column are permuted, for each column.

    A sample of the rows is drawn where the rows are, in one pass, and gathered on a worker. Then a task for
    each column and repeat gives the column the values of other rows of the sample, and computes the metric.
    The model is not trained again. The same partitions and `random_state` give the same bits on any cluster.

    Parameters
    ----------
    model : estimator of dasknn, Sequential, Pipeline or any fitted estimator
        See `evaluate`. Columns of X are permuted before the first step of a pipeline, and before any encoding
        of a table.
    X : dataframe or array (n, p), of Dask or plain
    y : labels (n,), or numbers (n,) or (n, q), of Dask or plain
    sample_weight : array (n,), default=None
        Weights of rows in the metric. All rows are equally likely to be in the sample.
    scoring : str or RowMetric, default=None
        A metric of `evaluate`, or a scorer of scikit-learn that is such a metric ("neg_log_loss"). None:
        accuracy, or r2 for numbers.
    n_repeats : int, default=5
        How often each column is permuted.
    max_samples : int, default=10_000
        Rows of the sample. None: all rows; they have to fit into the memory of a worker.
    random_state : int, RandomState instance or None, default=None
        Seed of the sample, of permutations and of intervals.
    columns : name, tuple, or a list of these, default=None
        Columns of X by name, and those of an array also by position. A tuple of names: columns that are
        permuted together. None: each column.
    confidence : float, default=0.95
        Of the intervals.
    n_bootstrap : int, default=200
        Replicates from which intervals are made. 0: no intervals.
    pos_label : label, default=None
        The positive class of two. None: the second of the model's classes.
    client : distributed.Client, default=None
        Where to compute. None: on the cluster of the model or the current one if the data is a Dask
        collection, and in this process if it is plain.

    Returns
    -------
    PermutationImportance
        With scikit-learn's `importances` (n_columns, n_repeats), `importances_mean` and `importances_std`,
        and with `interval_low`, `interval_high`, `feature_names`, `baseline`, `scoring`, `n_samples` and
        `to_frame()`. Importances are positive if the metric becomes worse, for losses and errors, too.

    Raises
    ------
    ValueError
        An unknown metric or column, or a metric that is not defined for the sample.
    PartitionError
        Bad data; the message names the partition.
    NotFittedError
        The model is not fitted.

    See Also
    --------
    partial_dependence : How predictions change with the values of a column.

    Notes
    -----
    Intervals are percentiles of a Poisson bootstrap over the rows of the sample, both those that take values
    and those that give them: they say how much the mean over repeats would differ on other rows of the same
    kind. With a single repeat they are wider than they would have to be. Of two columns that carry the same
    information, each may seem unimportant alone; permute them together. Method: Breiman 2001, "Random
    forests", sec. 10.
    """
    n_repeats = checked_number("n_repeats", n_repeats, 1)
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    X, y, sample_weight = inputs.admit(X, y, sample_weight)
    responder = responder_of(model)
    problem = problem_for(responder, y, pos_label)
    X = as_table(rows_for(model, X))
    metric, sign, name = _metric_of(scoring, problem, responder.has_proba)
    chosen = chosen_columns(columns, X, may_be_several=True)
    sampling = Sampling(X, y, sample_weight, problem, max_samples, random_state)
    Settings(confidence, 0, n_bootstrap, pos_label, sampling.seed)
    score = _Score(Ledger(problem, (metric,)), sampling.seed, n_bootstrap)

    def add(graph: Graph) -> list[Any]:
        given, rows = add_models(tasks, graph, responder), sampling.add_to(tasks, graph)
        answers = graph.add("dasknn-predict", score.answers, given, rows)
        baseline = graph.add("dasknn-score", score.baseline, rows, answers)
        return [
            baseline,
            *(
                graph.add("dasknn-permute", score.difference, one, repeat, given, rows, answers)
                for one in chosen
                for repeat in range(n_repeats)
            ),
        ]

    with tasks_for(model, sampling, client) as tasks:
        (n_samples, baseline), *differences = tasks.values_of(add)
    if np.isnan(baseline):
        raise ValueError(
            f"Expected a metric that is defined for the {n_samples:,} rows of the sample, received {name!r}, "
            "which is NaN there. Use more rows, with max_samples=..., or another metric."
        )
    shape = (len(chosen), n_repeats)
    worse = 1.0 if metric.greater_is_better else -1.0
    importances = worse * np.array([one.value for one in differences]).reshape(shape)
    replicates = worse * np.stack([one.replicates for one in differences]).reshape(*shape, n_bootstrap)
    ends = np.array([interval(own.mean(axis=0), confidence) for own in replicates])
    return PermutationImportance(
        importances=importances,
        importances_mean=importances.mean(axis=1),
        importances_std=importances.std(axis=1),
        interval_low=ends[:, 0],
        interval_high=ends[:, 1],
        feature_names=tuple(one.name for one in chosen),
        baseline=sign * baseline,
        scoring=name,
        greater_is_better=bool(metric.greater_is_better) or sign < 0,
        n_samples=n_samples,
        confidence=confidence,
    )


def _metric_of(scoring: Any, problem: Problem, has_proba: bool) -> tuple[Metric, int, str]:
    """Return a metric, 1 or -1 by which it is multiplied, and the name of the product."""
    if scoring is None:
        scoring = "r2" if problem.kind == REGRESSION else "accuracy"
    if not isinstance(scoring, str | RowMetric):
        raise ValueError(
            f"Expected scoring to be one metric by name or a dasknn.RowMetric, received {scoring!r:.80}."
        )
    wanted, sign = scoring, 1
    if isinstance(scoring, str):
        plain = _SCORERS.get(scoring, scoring).removeprefix("neg_")
        # As scikit-learn's scorers, of which more is always better.
        if scoring.startswith("neg_") and plain in METRICS and METRICS[plain].greater_is_better is False:
            wanted, sign = plain, -1
    [metric] = evaluation_metrics.resolve(wanted, problem, has_proba)
    if metric.greater_is_better is None:
        remedy = (
            "Use dasknn.RowMetric(..., greater_is_better=True) or False."
            if metric.own
            else "Use another metric, such as 'accuracy' or 'mean_absolute_error'."
        )
        raise ValueError(
            f"Expected a metric that can be better or worse, received {metric.name!r}, of which neither more "
            f"nor less is better. {remedy}"
        )
    return metric, sign, scoring if isinstance(scoring, str) else metric.name


# --- what tasks compute ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Score:
    """Computes a metric of sampled rows, as a picklable object.

    Attributes
    ----------
    ledger : Ledger
        Of the one metric.
    seed : int
        Of permutations, and of the rows that replicates draw: the same for each column.
    n_bootstrap : int
    """

    ledger: Ledger
    seed: int
    n_bootstrap: int

    def answers(self, responder: Responder, rows: Rows, X: Any = None) -> Answers:
        """Return the predictions for the rows, or for X in their place."""
        n_rows = len(rows.keys)
        with in_sample(n_rows):
            answers = responder.answers(
                rows.X if X is None else X, self.ledger.needs_labels, self.ledger.needs_proba
            )
            check_answers(self.ledger.problem, answers, n_rows)
        return answers

    def baseline(self, rows: Rows, answers: Answers) -> tuple[int, float]:
        """Return the number of rows, and the metric of the answers for them."""
        everyone = np.arange(len(rows.keys))
        [estimate] = self._estimates([(answers, everyone)], rows, 0)
        return len(everyone), estimate.value

    def difference(
        self, chosen: Chosen, repeat: int, responder: Responder, rows: Rows, answers: Answers
    ) -> Estimate:
        """Return the metric of the answers, less that if columns have the values of other rows."""
        n_rows = len(rows.keys)
        # The numbers of a column do not depend on which others are asked for.
        rng = generator(self.seed, Stream.PERMUTED_ROWS, repeat, *chosen.positions)
        givers = rng.permutation(n_rows)
        permuted = self.answers(responder, rows, with_rows_of(rows.X, chosen.positions, givers))
        everyone, by_giver = np.arange(n_rows), np.argsort(givers)
        if not self.n_bootstrap:
            before, after = self._estimates([(answers, everyone), (permuted, everyone)], rows, 0)
            return before - after
        # A prediction is of two rows, one that takes a value and one that gives it, and another sample would
        # have others of both. So replicates draw the ones, then the others, and add up what changes.
        drawn = [(one, order) for order in (everyone, by_giver) for one in (answers, permuted)]
        before, after, before_of_givers, after_of_givers = self._estimates(drawn, rows, self.n_bootstrap)
        found, of_givers = before - after, before_of_givers - after_of_givers
        return Estimate(found.value, found.replicates + of_givers.replicates - found.value)

    def _estimates(
        self, several: Sequence[tuple[Answers, np.ndarray]], rows: Rows, n_bootstrap: int
    ) -> list[Estimate]:
        """Return the metric of several (answers, order of rows); replicates draw the same places in each."""
        assert rows.y is not None, "there is no score without y"
        ledger, n = self.ledger, len(several)
        center = ledger.problem.center_of(rows.y)
        # y, answers and weight of each
        columns = [
            (rows.y[order], answers[order], None if rows.weight is None else rows.weight[order])
            for answers, order in several
        ]

        def blocks_of(part: slice) -> list[np.ndarray]:
            return [
                ledger.block(y[part], answers[part], None if weight is None else weight[part], center)
                for y, answers, weight in columns
            ]

        rankings = [ranking for one in columns for ranking in ledger.rankings(*one)]
        moments = [ledger.moments(number, center) for number in range(n)]
        sums = sum_slices(
            blocks_of,
            rankings,
            [(np.zeros(len(rows.y), dtype=np.intp), [()])],
            Draws(self.seed, 0, n_bootstrap),
            tuple(one for one in moments if one is not None),
        )
        [metric] = ledger.metrics
        estimates = Estimates([], (ledger,) * n, min_rows=0)
        return [estimates.estimate(sums.slices[0][()], number, metric) for number in range(n)]
