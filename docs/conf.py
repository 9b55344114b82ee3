"""Sphinx builds the site from docs/: `make docs`, into build/docs. A warning fails the build."""

import importlib
import inspect

from sphinx.util import logging

import dasknn

project = "dasknn"
release = version = dasknn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["images/*"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
smartquotes = False
# In docstrings, which are in reStructuredText.
default_role = "code"
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

napoleon_google_docstring = False
# Types are prose, such as "array (n, p)", and not names to link one by one.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# What users may import from each module: subclasses of this class, or (None) everything.
PUBLIC = {
    "activations": "Activation",
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
# Names in those modules that serve the package itself.
NOT_FOR_USERS = {
    "dasknn.exceptions.TrainingStopped",
    "dasknn.exceptions.caller_stacklevel",
    "dasknn.callbacks.CallbackList",
    "dasknn.callbacks.Monitor",
    "dasknn.dashboard.Board",
    "dasknn.dashboard.Page",
    "dasknn.dashboard.Run",
    "dasknn.optimizers.LBFGS",
}


def public_names():
    """Yield the full names of everything that users may import."""
    yield from (f"dasknn.{name}" for name in dasknn.__all__ if not inspect.ismodule(getattr(dasknn, name)))
    for module_name, root_name in PUBLIC.items():
        module = importlib.import_module(f"dasknn.{module_name}")
        for name in names_of(module):
            value = getattr(module, name)
            is_class = inspect.isclass(value)
            is_public = root_name is None or (is_class and issubclass(value, getattr(module, root_name)))
            # Keras's other names of a class are not documented apart from it.
            is_own = (is_class or inspect.isfunction(value)) and value.__name__ == name
            if is_public and is_own and name not in dasknn.__all__:
                yield f"{module.__name__}.{name}"


def names_of(module):
    """Return `__all__` of a package, or the public names that a module defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    defined = (
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    )
    return [name for name in defined if not name.startswith("_")]


def refuse_gaps(app, env):
    """Warn of public names that the reference leaves out, which fails the build."""
    described = env.get_domain("py").objects
    for name in sorted(set(public_names()) - NOT_FOR_USERS - set(described)):
        logging.getLogger(__name__).warning(
            "Expected %s in the reference, found it nowhere. Add it to a page in docs/api.", name
        )


def setup(app):
    app.connect("env-check-consistency", refuse_gaps)
