"""All random streams of dasknn in one table, so that no two purposes ever share random numbers.

A draw is a pure function of the seed, the number of its stream, and the numbers that say what it is for
(the epoch, the shard, ...). It does not depend on which worker draws, or when.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What random numbers are for. The comments say what follows the seed and the stream, and who draws."""

    # Training: engine/state.py, strategies/compression.py
    PARAMS = 1  # initial parameters: member of the ensemble
    SHARD_ORDER = 2  # order of the shards of a replica: epoch, replica
    ROW_ORDER = 3  # order of the rows of a shard: epoch, shard
    PROJECTIONS = 5  # first projections of PowerSGD: epoch
    NOISE = 6  # dropout and Gaussian noise: step, shard, first row
    # Data: data/loading.py, data/shuffle.py, data/tables/summaries.py
    HELD_OUT = 4  # rows held out for validation: partition
    HELD_OUT_GROUPS = 7  # which groups of rows are held out
    SHUFFLE_KEYS = 101  # keys by which the rows of dataframes are sorted: partition
    SHUFFLE_CUTS = 102  # how many rows go from each chunk to each new one
    SHUFFLE_CHUNK = 103  # order of the rows of a chunk before it is cut: chunk
    SHUFFLE_NEW_CHUNK = 104  # order of the rows of a new chunk: new chunk
    TABLE_SAMPLE = 105  # keys by which rows of tables are sampled: partition
    # Models: models/layer_stack.py
    LAYER_WEIGHTS = 11  # initial weights of Sequential
    # Evaluation: evaluation/bootstrap.py, evaluation/sampling.py, evaluation/importance.py
    REPLICATES = 201  # how often bootstrap replicates draw each row: partition, chunk of its rows
    SAMPLED_ROWS = 202  # which rows are in a sample: partition
    PERMUTED_ROWS = 203  # order in which a column takes the values of other rows: repeat, its positions
    # Searches: search/sampling.py, search/space.py, search/optuna.py
    SETTINGS = 301  # settings of trials, by random numbers, a scrambled sequence or Optuna: trial


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """Return the generator of a stream for these numbers, which the table lists."""
    return np.random.default_rng([seed, int(stream), *numbers])


def seed_of_fit(seed: int, n_fits: int) -> int:
    """Return the seed of a model's next fit, of which there were n_fits before."""
    return int(np.random.SeedSequence([seed, n_fits]).generate_state(1)[0] >> 1)


def same_each_time() -> np.random.Generator:
    """Return a generator for samples and probes that need no seed: its numbers are always the same."""
    return np.random.default_rng(0)
