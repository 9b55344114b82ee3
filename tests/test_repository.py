"""The files around the package agree with it and with each other: versions, commands, workflows, forms."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import dasknn

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGES = (ROOT / "CHANGES.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def targets():
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    return set(phony.split())


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == dasknn.__version__
    assert str(citation["version"]) == dasknn.__version__


def test_the_date_of_the_citation_is_that_of_the_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = dict(re.findall(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", CHANGES, re.MULTILINE))
    date = citation.get("date-released")
    assert (date and str(date)) == released.get(dasknn.__version__)


def test_the_oldest_versions_tested_are_those_that_are_promised():
    extras = PROJECT["optional-dependencies"]
    names = ("dataframe", "fast", "keras", "tensorboard", "dashboard", "plots")
    promised = [*PROJECT["dependencies"], *(spec for name in names for spec in extras[name])]
    lower = dict(spec.replace("[array]", "").replace("[dataframe]", "").split(">=") for spec in promised)
    lines = (ROOT / "tests" / "minimum.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    for name, version in lower.items():
        assert tested[name] == version


def test_ci_runs_the_pythons_that_are_promised():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert jobs["check"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    # The oldest versions of dependencies go with the oldest Python.
    steps = jobs["minimum"]["steps"]
    assert [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")] == [
        promised[0]
    ]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_jobs_end_in_time_and_pin_their_actions(file):
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.search(r"@v\d+$", step.get("uses", "@v1"))
            for target in re.findall(r"\bmake (\S+)", step.get("run", "")):
                assert target in targets()


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_forms_for_issues_ask_for_something(file):
    form = yaml.safe_load(file.read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_tells_what_each_target_does():
    done = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, timeout=20, check=True)
    described = set(re.findall(r"^  ([a-z-]+) {2,}\S", done.stdout, re.MULTILINE))
    assert described == targets() == set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"^  ([A-Z_]+) {2,}\S", done.stdout, re.MULTILINE))
    assert variables == {*re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE), "DASKNN_DATA"}


def test_contributors_find_each_target():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert targets() <= set(re.findall(r"`make ([a-z-]+)", page))
