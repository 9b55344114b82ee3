"""Names that other packages do not promise: each is there, and comes from `dasknn._compat` alone.

`pytest --noconftest tests/test_compat.py` runs without importing the package, so that a name which is gone
breaks its own case and not the collection of all tests.
"""

import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPClassifier

from dasknn._compat import ATTRIBUTES

PACKAGE = Path(__file__).parent.parent / "dasknn"
COMPAT = PACKAGE / "_compat"
OTHERS = {"dask": "dask", "distributed": "distributed", "sklearn": "scikit-learn", "scipy": "scipy"}


def imports_of(path):
    """Yield (module, name) of all `from module import name` in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def files_outside():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if COMPAT not in path.parents]


def imported():
    """Return {(file, module, name): users} of what the modules of `_compat` import."""
    users = {}
    for path in files_outside():
        for module, name in imports_of(path):
            users.setdefault((module, name), []).append(path.relative_to(PACKAGE).as_posix())
    return {
        (path.name, module, name): users.get((f"dasknn._compat.{path.stem}", name), [])
        for path in sorted(COMPAT.glob("*.py"))
        for module, name in imports_of(path)
        if module.partition(".")[0] in OTHERS
    }


IMPORTED = imported()
LISTED = [(owner, name, users) for owner, names in ATTRIBUTES.items() for name, users in names.items()]


@pytest.mark.parametrize(("file", "module", "name"), IMPORTED, ids=lambda part: part)
def test_a_name_that_is_imported_is_there(file, module, name):
    if "dashboard" in module:
        pytest.importorskip("bokeh")
    users = IMPORTED[file, module, name]
    assert users, f"dasknn/_compat/{file} imports {module}.{name}, which nothing uses."
    package = OTHERS[module.partition(".")[0]]
    try:
        found = hasattr(importlib.import_module(module), name)
    except ImportError:
        found = False
    assert found, (
        f"{package} {version(package)} has no {module}.{name}. Replace it in dasknn/_compat/{file}; it is "
        f"used by {', '.join(users)}."
    )


@pytest.fixture(scope="module")
def owners():
    """Owner -> an object of that kind, from a cluster that has run a task."""
    # Not from a fixture of conftest.py, which this file does without.
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}), npartitions=1)
    settings = {"n_workers": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        future = client.submit(sum, [1, 2])
        future.result()
        scheduler, worker = cluster.scheduler, cluster.workers[0]
        yield {
            "distributed.Client": client,
            "distributed.Client.loop": client.loop,
            "distributed.Scheduler": scheduler,
            "distributed.Scheduler.handlers": scheduler.handlers,
            "distributed.Scheduler.tasks": scheduler.tasks[future.key],
            "distributed.Scheduler.workers": scheduler.workers[worker.address],
            "distributed.Worker": worker,
            "distributed.Worker.loop": worker.loop,
            "distributed.Worker.state": worker.state,
            "distributed.KilledWorker": KilledWorker("key", scheduler.workers[worker.address], 3),
            "dask.array.Array": da.ones(2),
            "dask.dataframe.DataFrame": frame,
            "dask.dataframe.DataFrame.expr": frame.expr,
            "sklearn.base.BaseEstimator": BaseEstimator(),
            "sklearn.neural_network.MLPClassifier": MLPClassifier(
                (2,), early_stopping=True, max_iter=1, solver="sgd"
            ).fit(X, y),
        }


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(("owner", "name", "users"), LISTED, ids=lambda part: part)
def test_an_attribute_that_is_used_is_there(owners, owner, name, users):
    package = OTHERS[owner.partition(".")[0]]
    found = owners[owner]
    assert name in found if isinstance(found, dict) else hasattr(found, name), (
        f"{package} {version(package)} has no {name!r} of {owner}. It is used by {users}."
    )
    for user in users.split(", "):
        assert name in (PACKAGE / user).read_text(), f"dasknn/{user} no longer uses {name!r} of {owner}."


def test_numba_has_the_product_that_compiled_steps_call():
    helpers = pytest.importorskip("numba._helperlib")
    from dasknn._compat.numba import GEMM

    assert GEMM.removeprefix("numba_") in helpers.c_helpers, (
        f"numba {version('numba')} has no {GEMM}. Replace it in dasknn/_compat/numba.py; it is used by "
        "dasknn/engine/compiled/products.py."
    )


def test_private_names_are_imported_in_compat_alone():
    for path in files_outside():
        for module, name in imports_of(path):
            parts = [*module.split("."), name]
            if parts[0] in OTHERS:
                private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
                assert not private, (
                    f"{path.relative_to(PACKAGE)} imports {module}.{name}: use dasknn._compat."
                )
