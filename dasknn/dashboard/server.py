"""A page of Dask's dashboard that shows trainings while they run.

    driver                       scheduler                                        browsers
    announcements ── events ──→  topic "dasknn" ──→ Board: a Run each ──→ Page ──→ one each
                                 (the newest 1,000)  (one, for all viewers)

`install` puts the page there; events come with it or without it. Everything but `install` runs in the
scheduler's process, on its event loop, and so is kept short. Bokeh is there if Dask's dashboard is: it is
imported within functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from dasknn.dashboard.board import Board
from dasknn.dashboard.page import EVERY_MILLISECONDS, Page

logger = logging.getLogger("dasknn.dashboard")

PATH = "/dasknn"


def install(client=None) -> str:
    """Add the page /dasknn to the dashboard of a client's scheduler; return the page's URL.

    client: a synchronous distributed Client, the current one by default. Once is enough for all trainings on
    that scheduler, also those that run or have ended; another time changes nothing. Dask's navigation bar
    then has a link to it.

    RuntimeError: a scheduler without a dashboard. ImportError: one that cannot import bokeh or dasknn.
    TypeError: an asynchronous client. ValueError: no client.
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
            f"The scheduler {client.scheduler.address} cannot import dasknn ({error}), which draws the page "
            "there. Install dasknn in the scheduler's environment, in the version of this one, and start it "
            "again."
        ) from error
    return _address(client.dashboard_link, prefix)


def _address(link: str, prefix: str) -> str:
    """Return the page's URL. link: that of Dask's own, behind proxies if dask.config says so."""
    parts = urlsplit(link)
    folder = parts.path.removesuffix("status").rstrip("/")
    if not folder.endswith(prefix):
        # Dask's links know nothing of --dashboard-prefix.
        folder += prefix
    return urlunsplit(parts._replace(path=folder + PATH))


# --- on the scheduler --------------------------------------------------------------------------------


def _add_page(dask_scheduler) -> str:
    """Add the page to the scheduler's web server, unless it is there; return the prefix of its paths."""
    try:
        from bokeh.server.tornado import BokehTornado
        from tornado.ioloop import IOLoop

        from dasknn._compat.dashboard import BokehApplication, template_variables
    except ImportError as error:
        raise ImportError(
            f"The scheduler {dask_scheduler.address} has no dashboard: it cannot import bokeh: {error}."
            " Install it there, pip install 'dasknn[dashboard]', and start the scheduler again."
        ) from None
    applications = getattr(getattr(dask_scheduler, "http_application", None), "applications", [])
    of_bokeh = [application for application in applications if isinstance(application, BokehTornado)]
    if not of_bokeh:
        raise RuntimeError(
            f"The scheduler {dask_scheduler.address} was started without a dashboard. Start it with one: "
            "LocalCluster(dashboard_address=':8787'), dask scheduler --dashboard."
        )
    first = of_bokeh[0]
    if not any(PATH in application.app_paths for application in of_bokeh):
        variables = template_variables(dask_scheduler)
        board = Board(dask_scheduler)
        page = BokehApplication({PATH: _document(board)}, dask_scheduler, first.prefix, variables)
        # Dask's own comes first, which others look for, and behind ours what takes all paths, as Jupyter.
        applications.insert(applications.index(first) + 1, page)
        page.initialize(IOLoop.current())
        page.start()
        # All of Dask's pages share this list.
        variables["pages"].append(PATH.strip("/"))
    return first.prefix


def _document(board: Board) -> Callable:
    """Return what fills a document for each browser, with the signature that Dask calls."""

    def fill(scheduler, extra, doc) -> None:
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
