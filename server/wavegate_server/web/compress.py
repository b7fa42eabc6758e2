"""Compression on a model's page: what it shows, and the forms that start and cancel a job. The API's functions do the work."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from sqlmodel import Session

from wavegate_server.adapters import reads
from wavegate_server.adapters.bundle_keep import is_kept
from wavegate_server.adapters.compress_jobs import ask_cancel, create_job, get_job, job_page
from wavegate_server.adapters.database import write
from wavegate_server.adapters.tokens import Principal, Scope
from wavegate_server.api.auth import same_origin
from wavegate_server.core.budget import default_budget
from wavegate_server.core.class_limits import over_limit
from wavegate_server.web.compress_words import job_view
from wavegate_server.web.desk import Desk
from wavegate_server.web.render import HEADERS
from wavegate_shared.errors import UsageError

__all__ = ["TIMES_MIN", "add_compress", "compression"]

TIMES_MIN = (5, 10, 20, 60)
_JOBS = 8


def compression(session: Session, desk: Desk, model: reads.ModelDetail) -> dict[str, Any]:
    """What the page of a model needs: its newest jobs, what the form offers, and versions above a class's limits."""
    limits = desk.context.settings.class_limits
    metrics = {version.number: version.metric for version in model.versions}
    jobs = job_page(session, model=model.row.name, limit=_JOBS).items
    kept = [version for version in model.versions if is_kept(version.info)]
    above = {
        version.number: over_limit(int(version.info["parameters"]), version.info.get("flops"), limits)
        for version in model.versions
        if version.info.get("parameters")
    }
    originals = [version for version in kept if version.parent is None]
    return {
        "jobs": [job_view(job, metrics[job.version]) for job in jobs if job.version in metrics],
        "choices": kept,
        "first_choice": (originals or kept)[0].number if kept else None,
        "default_budget": default_budget(model.versions[0].metric, model.versions[0].slo) if model.versions else "",
        "classes": reads.fleet_summary(session, desk.now()).classes,
        "times": TIMES_MIN,
        "above": above,
    }


def add_compress(router: APIRouter, desk: Desk) -> None:
    """`POST /models/{name}/compress` and `POST /compress-jobs/{id}/cancel`."""

    @router.post("/models/{name}/compress")
    def start(
        request: Request,
        name: str,
        version: Annotated[str, Form(max_length=9)] = "",
        budget: Annotated[str, Form(max_length=300)] = "",
        hardware_class: Annotated[str, Form(alias="class", max_length=63)] = "",
        minutes: Annotated[str, Form(max_length=9)] = "",
    ) -> Response:
        principal = _allowed(desk, request)
        with write(desk.context.engine) as session:
            job = create_job(
                session,
                model=name,
                version=_number(version),
                budget=budget.strip(),
                device_class=hardware_class,
                time_s=60.0 * _number(minutes),
                actor=principal.name,
                now=desk.now(),
            )
        return _back(name, job.id or 0)

    @router.post("/compress-jobs/{job_id}/cancel")
    def cancel(request: Request, job_id: int) -> Response:
        principal = _allowed(desk, request)
        with write(desk.context.engine) as session:
            ask_cancel(session, job_id, actor=principal.name, now=desk.now())
            job = get_job(session, job_id)
        return _back(job.model, job_id)


def _allowed(desk: Desk, request: Request) -> Principal:
    principal = desk.principal(request)
    if not same_origin(request) or not principal.may(Scope.MODELS):
        raise UsageError("forbidden", f"{principal.name} may not compress models from here")
    return principal


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError("invalid", f"{text!r} is no number")
    return int(text)


def _back(model: str, job: int) -> Response:
    return Response(status_code=303, headers={**HEADERS, "location": f"/models/{model}#job-{job}"})
