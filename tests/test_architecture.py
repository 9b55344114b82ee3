"""The plan of the house: an import goes only to a lower floor, and one file submits tasks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dasknn"

FLOORS = {
    "exceptions": 0,
    "configs": 0,
    "frames": 0,
    "names": 0,
    "schema": 1,
    "wording": 0,
    "summary": 0,
    "activations": 1,
    "initializers": 1,
    "regularizers": 1,
    "constraints": 1,
    "schedules": 1,
    "ranking": 1,
    "scores": 1,
    "targets": 1,
    "resampling": 2,
    "slicing": 2,
    "skew": 2,
    "optimizers": 2,
    "losses": 2,
    "layers": 2,
    "updates": 2,
    "cluster.clock": 1,
    "cluster.faults": 1,
    "cluster.limits": 1,
    "cluster.origins": 1,
    "cluster.liveness": 0,
    "cluster.renaming": 0,
    "cluster.waiting": 1,
    "cluster.placement": 1,
    "cluster.inputs": 1,
    "cluster.sources": 1,
    "cluster.tasks": 2,
    "cluster.links": 2,
    "measures": 3,
    "metrics": 3,
    "sklearn_losses": 3,
    "network": 3,
    "outputs": 4,
    "cluster.partitions": 3,
    "cluster.collective": 3,
    "cluster.members": 4,
    "rounds": 4,
    "thresholds": 4,
    "storage": 3,
    "saving": 4,
    "resuming": 5,
    "compression": 5,
    "keras_files": 5,
    "learners": 6,
    "strategies": 7,
    "curves": 8,
    "features": 8,
    "preprocessing": 8,
    "tables": 9,
    "prediction": 8,
    "shuffling": 8,
    "callbacks": 8,
    "choice": 8,
    "handles": 8,
    "transports": 9,
    "progress": 9,
    "announcements": 9,
    "checkpoints": 9,
    "sklearn_rules": 9,
    "stack": 9,
    "training": 10,
    "datasets": 10,
    "conversion": 10,
    "responses": 10,
    "estimators": 11,
    "sequential": 11,
    "plots": 12,
    "evaluation": 12,
    "advice": 12,
    "dashboard": 12,
    "pipelines": 12,
    "reports": 13,
    "options": 13,
    "commands": 14,
    "cli": 15,
}
CORE = [name for name, floor in FLOORS.items() if floor <= 7 and "cluster" not in name]


def modules():
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


def imported_modules(path):
    """Modules of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dasknn"):
            module = node.module.removeprefix("dasknn").removeprefix(".")
            names = [".".join(filter(None, [module, alias.name])) for alias in node.names]
            found.update(name if name in FLOORS else module for name in names)
    return found


def test_every_module_has_a_floor():
    assert set(modules()) == set(FLOORS)


@pytest.mark.parametrize("module", sorted(FLOORS))
def test_imports_go_to_lower_floors(module):
    for imported in imported_modules(modules()[module]) - {""}:
        assert FLOORS[imported] < FLOORS[module], f"{module} imports {imported}"


def test_the_core_runs_where_dask_is_not_installed():
    program = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('dask', 'distributed'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import types\n"
        f"package = types.ModuleType('dasknn'); package.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['dasknn'] = package\n"
        f"import importlib\n"
        f"for name in {CORE!r}: importlib.import_module('dasknn.' + name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_other_commands_of_dask_do_not_wait_for_our_imports():
    program = (
        "import sys, dasknn.cli\n"
        "assert not {'sklearn', 'pandas', 'scipy', 'distributed'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_the_tasks_module_submits_tasks():
    submitting = {"submit", "compute", "persist", "scatter", "map", "get", "run", "replicate"}
    for module, path in modules().items():
        if module == "cluster.tasks":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in submitting:
                owner = ast.unparse(node.value)
                assert "client" not in owner.lower(), f"{module}: {owner}.{node.attr}"
                assert node.attr not in ("persist", "scatter", "compute"), f"{module}: {owner}"
