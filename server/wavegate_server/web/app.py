"""The dashboard's router: what the pages share, put together once from the server's context."""

import logging

from fastapi import APIRouter

from wavegate_server.adapters import reads
from wavegate_server.adapters.database import read
from wavegate_server.api.context import Context
from wavegate_server.web import vendor
from wavegate_server.web.actions import add_actions
from wavegate_server.web.assets import add_assets, load_assets
from wavegate_server.web.compress import add_compress
from wavegate_server.web.desk import Desk
from wavegate_server.web.live import Ticker, add_events
from wavegate_server.web.login import add_login
from wavegate_server.web.pages import add_pages
from wavegate_server.web.render import Renderer, page_route
from wavegate_server.web.series import add_series

__all__ = ["create_web"]

log = logging.getLogger(__name__)


def create_web(context: Context) -> APIRouter:
    """Every page, for `app.include_router`; the API and the pages share one application and one sign-in."""
    if vendor.missing():
        log.warning("vendor_missing files=%s hint=%r", ",".join(vendor.missing()), vendor.ADVICE)
    assets = load_assets()
    desk = Desk(context, Renderer(assets, context.clock))
    router = APIRouter(route_class=page_route(desk.renderer), include_in_schema=False)
    add_assets(router, assets)
    add_login(router, desk)
    add_pages(router, desk)
    add_series(router, desk)
    add_actions(router, desk)
    add_compress(router, desk)
    add_events(router, Ticker(lambda: _revision(context)), desk.principal)
    return router


def _revision(context: Context) -> int:
    with read(context.engine) as session:
        return reads.revision(session)
