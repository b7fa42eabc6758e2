"""The pages that only read: fleet, device, models, rollouts."""

from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlmodel import Session

from wavegate_server.adapters.reads.device import device_detail, device_events, device_history, device_why
from wavegate_server.adapters.reads.fleet import device_rows, fleet_summary
from wavegate_server.adapters.reads.models import model_metrics, model_rows
from wavegate_server.adapters.reads.page import revision as read_revision
from wavegate_server.adapters.reads.rollouts import rollout_rows
from wavegate_server.adapters.reads.series import RANGES
from wavegate_server.web.filters import FleetView, fleet_view
from wavegate_server.web.model_page import model_page
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.part_cache import PartCache
from wavegate_server.web.render import HTML, is_part, packed
from wavegate_server.web.rollout_page import rollout_page

__all__ = ["add_pages"]

_ROWS = 50
_EVENTS = 16
_NEW = timedelta(minutes=45)
"""A device this young has little to show by the minute: its charts begin with the raw windows of the last 15 minutes."""


def add_pages(router: APIRouter, desk: PageContext) -> None:
    """Add them to the router."""
    _add_fleet(router, desk)
    _add_models(router, desk)
    _add_rollouts(router, desk)


def _add_fleet(router: APIRouter, desk: PageContext) -> None:
    cache = PartCache()

    @router.get("/fleet")
    def fleet(request: Request) -> Response:
        viewer = desk.viewer(request)
        view = fleet_view(request.query_params)
        with desk.session() as session:
            revision = read_revision(session)
            if is_part(request):
                text = cache.get(
                    (view, viewer.language),
                    revision,
                    lambda: desk.renderer.part("fleet.html", viewer, **_fleet(session, desk, view)),
                )
                answer = packed(request, text.encode(), HTML)
            else:
                data = _fleet(session, desk, view)
                answer = desk.renderer.page(request, "fleet.html", viewer, revision=revision, **data)
        answer.headers["hx-replace-url"] = view.here()
        return answer

    @router.get("/devices/{device_id}")
    def device(request: Request, device_id: str) -> Response:
        viewer = desk.viewer(request)
        with desk.session() as session:
            model = request.query_params.get("model")
            detail = device_detail(session, desk.now(), device_id, model)
            data: dict[str, Any] = {
                "device": detail,
                "events": device_events(session, device_id, cursor=request.query_params.get("events"), limit=_EVENTS),
                "older": bool(request.query_params.get("events")),
                "history": device_history(session, device_id),
                "why": device_why(session, device_id, detail.row.model or None),
                "model": detail.row.model,
                "metrics": model_metrics(session),
                "ranges": tuple(RANGES),
                "range": _range(request.query_params.get("range"), detail.enrolled_at, desk.now()),
                "revision": read_revision(session),
            }
        return desk.renderer.page(request, "device.html", viewer, **data)


def _add_models(router: APIRouter, desk: PageContext) -> None:
    @router.get("/models")
    def models(request: Request) -> Response:
        viewer = desk.viewer(request)
        with desk.session() as session:
            page = model_rows(session, cursor=request.query_params.get("cursor"))
            revision = read_revision(session)
        return desk.renderer.page(request, "models.html", viewer, models=page, revision=revision)

    @router.get("/models/{name}")
    def model(request: Request, name: str) -> Response:
        return model_page(request, desk, name)


def _add_rollouts(router: APIRouter, desk: PageContext) -> None:
    @router.get("/rollouts")
    def rollouts(request: Request) -> Response:
        viewer = desk.viewer(request)
        with desk.session() as session:
            page = rollout_rows(session, cursor=request.query_params.get("cursor"))
            revision = read_revision(session)
        return desk.renderer.page(request, "rollouts.html", viewer, rollouts=page, revision=revision)

    @router.get("/rollouts/{rollout_id}")
    def rollout(request: Request, rollout_id: str) -> Response:
        return rollout_page(request, desk, rollout_id)


def _fleet(session: Session, desk: PageContext, view: FleetView) -> dict[str, Any]:
    now = desk.now()
    return {
        "view": view,
        "summary": fleet_summary(session, now),
        "devices": device_rows(session, now, view.chosen, cursor=view.cursor, limit=_ROWS),
        "rollouts": rollout_rows(session, open_only=True, limit=5).items,
        "metrics": model_metrics(session),
    }


def _range(asked: str | None, enrolled_at: datetime | None, now: datetime) -> str:
    if asked in RANGES:
        return asked
    return "15m" if enrolled_at and now - enrolled_at < _NEW else "1h"
