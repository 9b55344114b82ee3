"""Runs `dask nn` in tests, in this process or in others, and makes a table of people."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
from click.testing import CliRunner

from dasknn.cli import nn

DASK = [sys.executable, "-W", "ignore", "-m", "dask"]


def people(n_rows=600, seed=0):
    """A table like Adult: text, booleans, numbers, missing values, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(n_rows) + 10_000,
            "age": rng.integers(17, 90, n_rows),
            "job": rng.choice(["clerk", "farmer", "pilot"], n_rows),
            "sex": rng.choice(["female", "male"], n_rows),
            "member": rng.random(n_rows) < 0.5,
            "hours": np.where(rng.random(n_rows) < 0.1, np.nan, rng.normal(40, 9, n_rows).round(1)),
            "weight": rng.uniform(0.5, 2, n_rows).round(2),
        }
    )
    frame.loc[rng.random(n_rows) < 0.1, "job"] = None
    rich = (frame["age"] > 50) ^ (frame["job"] == "clerk").fillna(False)
    frame["wage"] = (frame["age"] * 0.1 + 3.0 * frame["member"]).round(3)
    frame["income"] = np.where(rich, ">50K", "<=50K")
    return frame


class Runner(CliRunner):
    """Runs commands in this process; what they write to stderr is kept apart, as click does from 8.2 on."""

    def __init__(self):
        try:
            super().__init__(mix_stderr=False)
        except TypeError:
            super().__init__()

    @contextmanager
    def isolation(self, *args, **kwargs):
        with super().isolation(*args, **kwargs) as streams:
            # As the stderr of a program; click 8.1 does not flush this one at the end.
            sys.stderr.reconfigure(line_buffering=True)
            yield streams


def runner_on(scheduler):
    """Return a function that runs a command in this process, on the cluster of a scheduler.

    run(*words, code=0) returns its result.
    """

    def run(*words, code=0):
        where = [] if words[0] == "inspect" else ["--scheduler", scheduler]
        result = Runner().invoke(nn, [*map(str, words), *where])
        told = f"{result.stdout}\n{result.stderr}"
        assert result.exit_code == code, (told, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def run_process(*words):
    """Run a command as a process of its own; return what it wrote to stdout."""
    done = subprocess.run([*DASK, *map(str, words)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
