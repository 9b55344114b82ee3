"""The plan of the house: imports go downwards between wings, and one wing submits tasks."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dasknn"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
# For each contract, an import that breaks it: the file, and what it must not import.
BREAKS = {
    "Wings import downwards": ("engine/network.py", "dasknn.strategies.auto"),
    "The cluster knows nothing of what is trained": ("cluster/faults.py", "dasknn.saving.schema"),
    "The core runs without Dask": ("losses/loss.py", "distributed"),
    "The core knows no API and no cluster": ("saving/storage.py", "dasknn.cluster.faults"),
}
MOST_LINES = 700


def modules():
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


def broken_contracts(folder):
    """Names of the contracts that the package in a folder breaks."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {contract["name"] for contract in CONTRACTS if f"{contract['name']} BROKEN" in done.stdout}
    kept = {contract["name"] for contract in CONTRACTS if f"{contract['name']} KEPT" in done.stdout}
    assert found | kept == set(BREAKS), done.stdout + done.stderr
    assert bool(done.returncode) == bool(found)
    return found


def test_imports_keep_the_contracts():
    assert broken_contracts(ROOT) == set()


def test_each_contract_is_broken_by_an_import_that_it_forbids(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "dasknn", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, module in BREAKS.values():
        path = tmp_path / "dasknn" / file
        path.write_text(path.read_text() + f"\nimport {module}\n")
    assert broken_contracts(tmp_path) == set(BREAKS)


def test_every_wing_is_part_of_the_contract_of_layers():
    layers = {name for layer in CONTRACTS[0]["layers"] for name in layer.split(" | ")}
    wings = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    # The public path of strategies/compression.py.
    assert wings - {"__init__", "compression"} == {name.removeprefix("dasknn.") for name in layers}


def test_the_page_on_architecture_names_files_that_there_are():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`(?:dasknn/)?((?:[\w]+/)*[\w]+\.py|(?:[\w]+/)+)`", text))
    assert len(named) > 40
    folders = (PACKAGE, ROOT)
    missing = {
        name
        for name in named
        if not any((folder / name).exists() for folder in folders)
        and not any(path.name == name for path in PACKAGE.rglob("*.py"))
    }
    assert not missing - {"dasknn/"}
    wings = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert not {wing for wing in wings if f"`{wing}/`" not in text}


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_file_is_too_long_to_find_a_way_in(module):
    assert len(modules()[module].read_text().splitlines()) <= MOST_LINES


def test_the_core_runs_where_dask_is_not_installed():
    core = next(contract for contract in CONTRACTS if contract["name"] == "The core runs without Dask")
    names = [
        f"dasknn.{module}"
        for module in modules()
        if any(f"dasknn.{module}.".startswith(f"{wing}.") for wing in core["source_modules"])
    ]
    program = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('dask', 'distributed'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    assert len(names) > 40
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


def test_other_commands_of_dask_do_not_wait_for_our_imports():
    program = (
        "import sys, dasknn.cli\n"
        "assert not {'sklearn', 'pandas', 'scipy', 'distributed'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_the_cluster_submits_tasks():
    submitting = {"submit", "compute", "persist", "scatter", "map", "get", "run", "replicate"}
    for module, path in modules().items():
        if module.startswith("cluster."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in submitting:
                owner = ast.unparse(node.value)
                assert "client" not in owner.lower(), f"{module}: {owner}.{node.attr}"
                # Plots scatter points.
                others = () if module.startswith("plots.") else ("scatter",)
                assert node.attr not in ("persist", "compute", *others), f"{module}: {owner}"
