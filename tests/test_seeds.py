"""Random streams: one table, and numbers that never change."""

import re
from pathlib import Path

import numpy as np
import pytest

from dasknn.seeds import Stream, generator, same_each_time, seed_of_fit

PACKAGE = Path(__file__).parent.parent / "dasknn"
# Models that users seed themselves, in Keras's ways.
WITH_SEEDS_OF_USERS = {"seeds.py", "initializers.py", "models/sequential.py"}


def test_no_two_streams_have_one_number():
    numbers = [int(stream) for stream in Stream.__members__.values()]
    assert len(set(numbers)) == len(numbers)


def test_the_number_of_a_stream_does_not_change_from_version_to_version():
    assert {name: int(stream) for name, stream in Stream.__members__.items()} == {
        **{"PARAMS": 1, "SHARD_ORDER": 2, "ROW_ORDER": 3, "HELD_OUT": 4, "PROJECTIONS": 5, "NOISE": 6},
        "HELD_OUT_GROUPS": 7,
        **{"LAYER_WEIGHTS": 11, "REPLICATES": 201, "SAMPLED_ROWS": 202, "PERMUTED_ROWS": 203},
        **{"SHUFFLE_KEYS": 101, "SHUFFLE_CUTS": 102, "SHUFFLE_CHUNK": 103, "SHUFFLE_NEW_CHUNK": 104},
        **{"TABLE_SAMPLE": 105, "SETTINGS": 301},
    }


@pytest.mark.parametrize("stream", Stream)
def test_a_generator_is_that_of_the_seed_the_stream_and_the_numbers(stream):
    expected = np.random.default_rng([7, stream.value, 3, 0]).integers(2**60, size=5)
    np.testing.assert_array_equal(generator(7, stream, 3, 0).integers(2**60, size=5), expected)


def test_seeds_of_fits_and_of_probes_do_not_change():
    assert [seed_of_fit(7, n_fits) for n_fits in range(3)] == [1041839916, 184785996, 504589498]
    assert same_each_time().integers(1000, size=3).tolist() == [850, 636, 511]


def test_no_other_module_makes_generators_of_its_own():
    made = re.compile(r"(default_rng|SeedSequence|PCG64)\(")
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if made.search(path.read_text())
    }
    assert found == WITH_SEEDS_OF_USERS
