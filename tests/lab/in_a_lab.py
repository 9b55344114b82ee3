"""A lab of several hosts on this machine: benchmarks/netlab.py. Its tests are skipped where it cannot be."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def there_is_a_lab():
    import netlab

    if lacking := netlab.missing():
        pytest.skip(f"A lab needs {lacking}.")
