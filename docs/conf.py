"""Sphinx builds the site from docs/: `make docs`, into build/docs. A warning fails the build."""

import importlib
import inspect
import re
from dataclasses import replace

from docutils.utils import new_document
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import dasknn

project = "dasknn"
release = version = dasknn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["images/*"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
smartquotes = False
highlight_language = "python"

html_theme = "pydata_sphinx_theme"
html_title = "dasknn"
html_static_path = ["_static"]
html_css_files = ["dasknn.css"]
html_sidebars = {"index": [], "tutorial": []}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "pygments_light_style": "friendly",
    "pygments_dark_style": "github-dark",
    "show_toc_level": 2,
}

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# What a user may take from each module: subclasses of these, or all that is defined there.
PUBLIC = {
    "callbacks": "Callback",
    "compression": "Compression",
    "constraints": "Constraint",
    "dashboard": None,
    "exceptions": None,
    "initializers": "Initializer",
    "layers": "Layer",
    "losses": "Loss",
    "metrics": "Metric",
    "optimizers": "Optimizer",
    "plots": None,
    "regularizers": "Regularizer",
    "schedules": "LearningRateSchedule",
    "strategies": "Strategy",
}
# What the package itself is made of, in those modules.
NOT_FOR_USERS = {
    "dasknn.callbacks.CallbackList",
    "dasknn.callbacks.Monitor",
    "dasknn.dashboard.Board",
    "dasknn.dashboard.Page",
    "dasknn.dashboard.Run",
    "dasknn.optimizers.LBFGS",
}


class Markdown(SphinxDirective):
    """Parses its content as Markdown, in which docstrings are written."""

    has_content = True

    def run(self):
        # Formulas are full of * and <.
        config = replace(
            self.env.myst_config,
            disable_syntax=["emphasis", "html_inline", "html_block", "link", "reference"],
        )
        parser = create_md_parser(config, SphinxRenderer)
        document = new_document(str(self.env.doc2path(self.env.docname)), self.state.document.settings)
        parser.options["document"] = document
        parser.render("\n".join(self.content))
        return document.children


def list_entry(match):
    """Turn an entry of numpydoc's sections, "names : kind" and indented lines, into an item of a list."""
    names, _, kind = match[1].partition(" : ")
    description = " ".join(match[2].split())
    # Some say what it is in the first line, and go on in the next.
    goes_on = kind[-1:] in ".,;:" or description[:1].islower()
    between = " " if goes_on else "\\\n  "
    return f"- `{names}`: {kind}{between}{description}\n"


def as_markdown(docstring):
    """Return a docstring in Markdown, which it is already but for numpydoc's sections."""
    prose, *sections = re.split(r"^(\w+)\n-{4,}\n", docstring, flags=re.MULTILINE)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        body = re.sub(r"^(\S.*)\n((?: {4}.*\n|\n(?= {4}))+)", list_entry, body, flags=re.MULTILINE)
        body = re.sub(r"^(?!- )(\S+(?:, \S+)*) : (.*)", r"- `\1`: \2", body, flags=re.MULTILINE)
        prose += f"\n```{{rubric}} {title}\n```\n\n{body}"
    return prose


def read_as_markdown(app, what, name, obj, options, lines):
    """Hand docstrings to `Markdown`; leave out those of modules, which are for those who work on them."""
    if what == "module":
        lines.clear()
    else:
        text = as_markdown("\n".join(lines) + "\n")
        lines[:] = [".. markdown::", "", *("   " + line for line in text.splitlines()), ""]


def public_names():
    """Yield the full names of all that users may import."""
    yield from (f"dasknn.{name}" for name in dasknn.__all__ if not inspect.ismodule(getattr(dasknn, name)))
    for module_name, root_name in PUBLIC.items():
        module = importlib.import_module(f"dasknn.{module_name}")
        for name, value in vars(module).items():
            is_own = inspect.isclass(value) or inspect.isfunction(value)
            is_own = is_own and value.__module__ == module.__name__ and value.__name__ == name
            if name.startswith("_") or not is_own or name in dasknn.__all__:
                continue
            if root_name is None or (
                inspect.isclass(value) and issubclass(value, getattr(module, root_name))
            ):
                yield f"{module.__name__}.{name}"


def refuse_gaps(app, env):
    """Warn of public names that the reference leaves out, which fails the build."""
    described = env.get_domain("py").objects
    for name in sorted(set(public_names()) - NOT_FOR_USERS - set(described)):
        logging.getLogger(__name__).warning(
            "Expected %s in the reference, found it nowhere. Add it to a page of docs/api.", name
        )


def setup(app):
    app.add_directive("markdown", Markdown)
    app.connect("autodoc-process-docstring", read_as_markdown)
    app.connect("env-check-consistency", refuse_gaps)
