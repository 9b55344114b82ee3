"""A page of Dask's dashboard that shows trainings while they run.

    client                       scheduler
    announcements ── events ──→  topic "dasknn" ──→ Board, one Run per training ──→ Page, one per browser
                                 (newest 1,000)     (one for all browsers)

`install` adds the page; events are sent with or without it. Everything except `install` runs on the event
loop of the scheduler, so it must be fast. Bokeh is imported within functions, since only schedulers with a
dashboard need it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dasknn.dashboard.board import Board
from dasknn.dashboard.page import EVERY_MILLISECONDS, Page

logger = logging.getLogger("dasknn.dashboard")

#: Path of the page on the dashboard.
PATH = "/dasknn"


def install(client: Any = None) -> str:
    """Add a page on trainings to Dask's dashboard, with a link in its navigation bar.

    The page shows all trainings on this scheduler, including those that are running or have ended. A second
    call changes nothing.

    Parameters
    ----------
    client : distributed.Client, default=None
        A synchronous client of the scheduler; None uses the current client.

    Returns
    -------
    str
        URL of the page.

    Raises
    ------
    RuntimeError
        The scheduler has no dashboard.
    ImportError
        The scheduler cannot import bokeh or dasknn.
    TypeError
        The client is asynchronous.
    ValueError
        There is no current client.

    Examples
    --------
    ::

        from distributed import Client

        import dasknn.dashboard

        client = Client("tcp://192.168.0.1:8786")
        print(dasknn.dashboard.install(client))
    """
    if client is None:
        from distributed import get_client

        client = get_client()
    if getattr(client, "asynchronous", False):
        raise TypeError(
            "Expected a synchronous client, received one with asynchronous=True. In its event loop, use "
            "await asyncio.to_thread(dasknn.dashboard.install, Client(address))."
        )
    try:
        prefix = client.run_on_scheduler(_add_page)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "dasknn":
            raise
        raise ImportError(
            f"The scheduler {client.scheduler.address} cannot import dasknn ({error}), which draws the page. "
            "Install the same version of dasknn in the scheduler's environment, and restart the scheduler."
        ) from error
    return _address(client.dashboard_link, prefix)


def _address(link: str, prefix: str) -> str:
    """Return the URL of the page. link: URL of Dask's own page, which knows proxies from dask.config."""
    parts = urlsplit(link)
    folder = parts.path.removesuffix("status").rstrip("/")
    if not folder.endswith(prefix):
        # Dask's links do not contain --dashboard-prefix.
        folder += prefix
    return urlunsplit(parts._replace(path=folder + PATH))


# --- on the scheduler --------------------------------------------------------------------------------


def _add_page(dask_scheduler: Any) -> str:
    """Add the page to the scheduler's web server if it is missing; return the prefix of its paths."""
    try:
        from bokeh.server.tornado import BokehTornado
        from tornado.ioloop import IOLoop

        from dasknn._compat.dashboard import BokehApplication, template_variables
    except ImportError as error:
        raise ImportError(
            f"The scheduler {dask_scheduler.address} has no dashboard: it cannot import bokeh ({error}). "
            "Use pip install 'dasknn[dashboard]' in its environment, and restart it."
        ) from None
    applications = getattr(getattr(dask_scheduler, "http_application", None), "applications", [])
    of_bokeh = [application for application in applications if isinstance(application, BokehTornado)]
    if not of_bokeh:
        raise RuntimeError(
            f"The scheduler {dask_scheduler.address} was started without a dashboard. Start it with one: "
            "LocalCluster(dashboard_address=':8787') or dask scheduler --dashboard."
        )
    first = of_bokeh[0]
    if not any(PATH in application.app_paths for application in of_bokeh):
        variables = template_variables(dask_scheduler)
        board = Board(dask_scheduler)
        page = BokehApplication({PATH: _document(board)}, dask_scheduler, first.prefix, variables)
        # After Dask's own, which other code expects to be the first, and before any that takes all paths,
        # such as Jupyter.
        applications.insert(applications.index(first) + 1, page)
        page.initialize(IOLoop.current())
        page.start()
        # All pages of Dask share this list.
        variables["pages"].append(PATH.strip("/"))
    return first.prefix


def _document(board: Board) -> Callable:
    """Return the function that fills the document of each browser, with the signature that Dask calls."""

    def fill(scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
        from dasknn._compat.dashboard import BOKEH_THEME, add_periodic_callback, env

        page = Page(board)
        page.update()
        add_periodic_callback(doc, page, EVERY_MILLISECONDS)
        doc.add_root(page.root)
        doc.title = "Dask: dasknn"
        doc.theme = BOKEH_THEME
        doc.template = env.get_template("simple.html")
        doc.template_variables.update(extra)

    return fill
