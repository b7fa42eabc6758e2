"""The dashboard, added to the API's application: what the pages share, put together once from the server's context."""

import logging

from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.reads.page import revision
from wavegate_server.api.context import Context
from wavegate_server.web import vendor
from wavegate_server.web.actions import add_actions
from wavegate_server.web.assets import add_assets, load_assets
from wavegate_server.web.compress import add_compress
from wavegate_server.web.live import Ticker, add_events
from wavegate_server.web.login import add_login
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.pages import add_pages
from wavegate_server.web.render import Renderer, SignedOut, page_route, viewer_of
from wavegate_server.web.series import add_series

__all__ = ["add_web"]

log = logging.getLogger(__name__)


def add_web(app: FastAPI, context: Context) -> APIRouter:
    """Add every page to the API's application, which shares the sign-in; a browser's errors become pages. Gives the pages' router."""
    if vendor.missing():
        log.warning("vendor_missing files=%s hint=%r", ",".join(vendor.missing()), vendor.ADVICE)
    assets = load_assets()
    desk = PageContext(context, Renderer(assets, context.clock))
    router = APIRouter(route_class=page_route(desk.renderer), include_in_schema=False)
    add_assets(router, assets)
    add_login(router, desk)
    add_pages(router, desk)
    add_series(router, desk)
    add_actions(router, desk)
    add_compress(router, desk)
    add_events(router, Ticker(lambda: _revision(context)), desk.principal)
    app.include_router(router)
    app.state.problem_page = lambda *problem: _problem_page(desk, *problem)
    return router


def _problem_page(desk: PageContext, request: Request, code: str, detail: str, status: int) -> Response:
    """The page of an error outside all pages; whoever is signed in keeps the navigation, unless the database is the trouble."""
    try:
        viewer = desk.viewer(request)
    except (SignedOut, SQLAlchemyError):
        viewer = viewer_of(request)
    return desk.renderer.server_problem(request, viewer, code, detail, status)


def _revision(context: Context) -> int:
    with read(context.engine) as session:
        return revision(session)
