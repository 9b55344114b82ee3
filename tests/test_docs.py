"""Every block of code in README.md and docs/ runs, page by page; a block that cannot run here says why.

A page is one session: its blocks run in their order, in one process and one new folder. `Client()` connects
them to the cluster that all pages share.
"""

import importlib
import inspect
import operator
import os
import re
import signal
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pages
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from pages import Block

import dasknn

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = {"python", "sh", "console"}
# What is shown and not run: output, files, and directives of Sphinx.
SHOWN = re.compile(r"text|yaml|toml|dockerfile|\{.*\}")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
# Settings of Dask's configuration, the file that they are in, and a preload, which only Dask imports.
NOT_PYTHON = {
    "dasknn.collective",
    "dasknn.ports",
    "dasknn.silence",
    "dasknn.timeout",
    "dasknn.yaml",
    "dasknn.cluster.comeback",
}
# Pages may start programs, each of which imports what it needs.
SECONDS = 240


def blocks_of(page):
    reason = None
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.strip() else ""
            yield Block(page, token.map[0] + 1, language, token.content, reason)
        if token.level == 0 and token.type != "html_block":
            reason = None
        elif match := NOT_RUN.search(token.content):
            reason = match[1]


BLOCKS = {page: list(blocks_of(page)) for page in PAGES}


def name_of(page):
    return str(page.relative_to(ROOT))


def to_run(page):
    return [block for block in BLOCKS[page] if block.language in CODE and block.reason is None]


@pytest.fixture(scope="module")
def cluster(start_cluster):
    """Two worker processes for all pages, which show what is on the scheduler: nothing of other tests."""
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A folder with the files that pages speak of: covertype/{train,test}/*.parquet, in small."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    n = 2400
    numbers = pd.DataFrame(rng.standard_normal((n, 10)), columns=[f"number_{k}" for k in range(10)])
    kinds = pd.get_dummies(
        pd.Series(rng.integers(0, 44, n)).astype(pd.CategoricalDtype(range(44))), dtype=int
    )
    frame = pd.concat([numbers, kinds.add_prefix("kind_")], axis=1)
    frame["cover_type"] = (numbers @ rng.standard_normal((10, 7))).to_numpy().argmax(axis=1)
    for part, rows in {"train": frame[:2000], "test": frame[2000:]}.items():
        dd.from_pandas(rows, npartitions=4).to_parquet(folder / "covertype" / part, write_index=False)
    return folder


@pytest.mark.timeout(SECONDS + 20)
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=name_of)
def test_the_code_of_the_page_runs(page, cluster, tables, tmp_path, start_program):
    for table in tables.iterdir():
        (tmp_path / table.name).symlink_to(table)
    output = tmp_path / "output"
    # Not in tmp_path: the names of sockets are short.
    with tempfile.TemporaryDirectory() as commands:
        args = to_run(page), tmp_path, commands, cluster.scheduler_address
        process = start_program(pages.run_page, *args, output=output, own_session=True)
        process.join(SECONDS)
        # What the page has left in the background ends, too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    told = output.read_text() if output.exists() else ""
    assert process.exitcode == 0, f"{name_of(page)}, exit code {process.exitcode}:\n{told}"


def test_every_block_is_run_shown_or_says_why_not():
    for block in (block for blocks in BLOCKS.values() for block in blocks):
        assert block.language in CODE or SHOWN.fullmatch(block.language), (
            f"{name_of(block.page)}, line {block.line}: expected a block of {sorted(CODE)}, or one that is "
            f"shown (text, yaml, ...), received {block.language!r}."
        )


@pytest.mark.parametrize(
    "block",
    [block for blocks in BLOCKS.values() for block in blocks if block.language in CODE and block.reason],
    ids=lambda block: f"{name_of(block.page)}:{block.line}",
)
def test_what_does_not_run_is_listed_as_skipped(block):
    pytest.skip(f"{name_of(block.page)}, line {block.line}: {block.reason}")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGES.md"])
def test_links_lead_to_files(name):
    for token in MarkdownIt().parse((ROOT / name).read_text()):
        for child in token.children or ():
            link = child.attrGet("href") or child.attrGet("src") or ""
            if link and "://" not in link and not link.startswith("#"):
                assert (ROOT / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_is_made_can_be_made(name):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([\w-]+)`", (ROOT / name).read_text()))
    named |= set(re.findall(r"^make ([\w-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_extras_that_are_named_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "".join(page.read_text() for page in PAGES)
    named = {extra for group in re.findall(r"(?:dasknn|\.)\[([\w,]+)\]", text) for extra in group.split(",")}
    assert named <= set(project["optional-dependencies"])


def documented_paths(page):
    """Yield every full name on a page: entries of the reference, and names in prose and code."""
    text = page.read_text()
    module = None
    for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)", text, re.MULTILINE):
        if directive == "currentmodule":
            module = name
            yield module
        else:
            yield f"{module}.{name}"
    yield from re.findall(r"\bdasknn(?:\.\w+)+", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_paths_can_be_imported(page):
    for path in sorted(set(documented_paths(page)) - NOT_PYTHON - {"dasknn"}):
        names = path.split(".")[1:]
        # Other tests import submodules, which makes them attributes; users may have `import dasknn` alone.
        assert names[0] in dasknn.__all__, f"{name_of(page)} names {path}, which dasknn/__init__.pyi lacks."
        found = operator.attrgetter(".".join(names))(dasknn)
        if inspect.ismodule(found):
            assert importlib.import_module(path) is found
