"""A model's page: its versions, its compression jobs, and the form that starts one. Not here: what the form does (`compress`)."""

from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from sqlmodel import Session

from wavegate_server.adapters.files.bundle_store import is_kept
from wavegate_server.adapters.reads.fleet import fleet_summary
from wavegate_server.adapters.reads.fleet_defaults import default_rows
from wavegate_server.adapters.reads.models import ModelDetail, model_detail
from wavegate_server.adapters.reads.page import revision as read_revision
from wavegate_server.adapters.store.compress_jobs import job_page
from wavegate_server.core.class_limits import over_limit
from wavegate_server.core.compress.budget import default_budget
from wavegate_server.web.compress_words import job_view
from wavegate_server.web.forms import FormProblem
from wavegate_server.web.page_context import PageContext

__all__ = ["TIMES_MIN", "model_page"]

TIMES_MIN = (5, 10, 20, 60)
_USUAL_MIN = 10
_JOBS = 8


def model_page(request: Request, desk: PageContext, name: str, problem: FormProblem | None = None) -> Response:
    """The page; with `problem`, the form as it was sent and what is wrong with it.

    Raises:
        UsageError: `not_found`.
        SignedOut: nobody is signed in.
    """
    viewer = desk.viewer(request)
    with desk.session() as session:
        detail, revision = model_detail(session, name), read_revision(session)
        shown = _compression(session, desk, detail)
        fleet_defaults = default_rows(session, name)
    typed = problem.values if problem else {}
    return desk.renderer.page(
        request,
        "model.html",
        replace(viewer, path=f"/models/{name}") if problem else viewer,
        status=problem.status if problem else 200,
        model=detail,
        revision=revision,
        fleet_defaults=fleet_defaults,
        problem=problem,
        typed={**shown.pop("defaults"), **typed},
        **shown,
    )


def _compression(session: Session, desk: PageContext, model: ModelDetail) -> dict[str, Any]:
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
        "defaults": {
            "version": str((originals or kept)[0].number) if kept else "",
            "budget": default_budget(model.versions[0].metric, model.versions[0].slo) if model.versions else "",
            "class": "",
            "minutes": str(_USUAL_MIN),
        },
        "classes": fleet_summary(session, desk.now()).classes,
        "times": TIMES_MIN,
        "above": above,
    }
