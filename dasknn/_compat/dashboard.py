"""What the pages of a scheduler's dashboard are made of. ImportError: there is no bokeh."""

from __future__ import annotations

from distributed.dashboard.components import add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables

__all__ = ["BOKEH_THEME", "BokehApplication", "add_periodic_callback", "env", "template_variables"]
