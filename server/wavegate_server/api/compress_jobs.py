"""Compression jobs: start one for a version or an uploaded bundle, list, look at, follow, cancel."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Response, UploadFile
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.store.compress_jobs import (
    JobState,
    ask_cancel,
    create_job,
    event_page,
    get_job,
    job_page,
    record,
)
from wavegate_server.adapters.store.models import get_version
from wavegate_server.api.auth import ModelWriter, Reader
from wavegate_server.api.compress_views import (
    BudgetText,
    ClassName,
    CompressEventView,
    CompressJobView,
    JobSeconds,
    NewCompressJob,
    RecordedJob,
)
from wavegate_server.api.context import Context, Ctx
from wavegate_server.api.etags import IfMatch, check_match, etag
from wavegate_server.api.once import Once, OnceKey
from wavegate_server.api.pages import Page, Paging, page_of
from wavegate_server.api.problems import problem_responses
from wavegate_server.api.uploads import stored_upload
from wavegate_server.core.compress.budget import default_budget
from wavegate_server.services import registry
from wavegate_shared.manifest import decode_manifest

__all__ = ["router"]

router = APIRouter(tags=["compression"])
JobId = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]


@router.get("/compress-jobs", operation_id="list_compress_jobs", summary="List compression jobs")
def list_jobs(
    context: Ctx,
    page: Paging,
    _: Reader,
    model: Annotated[str | None, Query(max_length=63)] = None,
    state: JobState | None = None,
) -> Page[CompressJobView]:
    """Newest first."""
    with read(context.engine) as session:
        rows = job_page(session, model=model, state=state, cursor=page.cursor, limit=page.limit)
    return page_of(rows, CompressJobView.of)


@router.post(
    "/compress-jobs",
    operation_id="create_compress_job",
    summary="Compress a version",
    status_code=201,
    response_model=CompressJobView,
    responses=problem_responses(404, 409),
)
def new_job(body: NewCompressJob, context: Ctx, once: OnceKey, who: ModelWriter) -> Response:
    """One job runs at a time, the others wait. What comes out is imported as a new version and not published."""
    return _created(context, once, body, who.name)


@router.post(
    "/compress-jobs/upload",
    operation_id="compress_bundle",
    summary="Import a bundle and compress it",
    status_code=201,
    response_model=CompressJobView,
    responses=problem_responses(404, 409, 413),
)
def upload_job(
    bundle: UploadFile,
    context: Ctx,
    once: OnceKey,
    who: ModelWriter,
    budget: Annotated[BudgetText, Form()] = "",
    hardware_class: Annotated[ClassName, Form(alias="class")] = "",
    time_s: Annotated[JobSeconds, Form()] = 600.0,
) -> Response:
    """The bundle becomes a version first (or is the one it already is), which the result then names as its parent."""
    with stored_upload(bundle, context) as (path, digest):
        once = once.for_body(f"{digest}:{budget}:{hardware_class}:{time_s}")
        with read(context.engine) as session:
            if replayed := once.replay(session):
                return replayed
        ref = registry.import_bundle(
            context.engine, context.objects, path, unchecked=False, actor=who.name, now=context.clock()
        )
    fields = {"model": ref.model, "version": ref.number, "budget": budget, "class": hardware_class, "time_s": time_s}
    return _created(context, once, NewCompressJob.model_validate(fields), who.name)


@router.post(
    "/compress-jobs/record",
    operation_id="record_compress_job",
    summary="Keep the result of a compression that ran elsewhere",
    status_code=201,
    response_model=CompressJobView,
    responses=problem_responses(404),
)
def record_job(body: RecordedJob, context: Ctx, once: OnceKey, who: ModelWriter) -> Response:
    """`wavegate compress` on an operator's machine sends it after it imported the result. Nothing runs here."""
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        job = record(
            session,
            model=body.model,
            version=body.version,
            budget=body.budget,
            device_class=body.hardware_class,
            time_s=body.time_s,
            used_s=body.used_s,
            result=body.result.model_dump(mode="json", by_alias=True),
            result_version=body.result_version,
            actor=who.name,
            now=context.clock(),
        )
        view = CompressJobView.of(job)
        return once.answer(session, view, status=201, headers={"Location": f"/api/v1/compress-jobs/{view.id}"})


@router.get(
    "/compress-jobs/{job_id}",
    operation_id="get_compress_job",
    summary="Look at a compression job",
    responses=problem_responses(404),
)
def show_job(job_id: JobId, context: Ctx, response: Response, _: Reader) -> CompressJobView:
    """With its newest step or its result, and the ETag that a cancel needs. Progress does not change the ETag."""
    with read(context.engine) as session:
        view = CompressJobView.of(get_job(session, job_id))
    response.headers["ETag"] = etag(view.revision)
    return view


@router.get(
    "/compress-jobs/{job_id}/events",
    operation_id="list_compress_events",
    summary="Follow a compression job",
    responses=problem_responses(404),
)
def list_events(
    job_id: JobId,
    context: Ctx,
    page: Paging,
    _: Reader,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="only events with a larger id")] = 0,
) -> Page[CompressEventView]:
    """Its steps in their order. To follow a running job, ask again with `after` set to the last id that was read."""
    with read(context.engine) as session:
        rows = event_page(session, job_id, after=after, cursor=page.cursor, limit=page.limit)
    return page_of(rows, CompressEventView.model_validate)


@router.post(
    "/compress-jobs/{job_id}/cancel",
    operation_id="cancel_compress_job",
    summary="Cancel a compression job",
    response_model=CompressJobView,
    responses=problem_responses(404, 409, 412, 428),
)
def cancel_job(job_id: JobId, context: Ctx, once: OnceKey, who: ModelWriter, if_match: IfMatch = None) -> Response:
    """A running job ends within seconds; its finished steps are kept and the registry is unchanged. Idempotent: repeating the call has no further effect."""
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        before = get_job(session, job_id).revision
        if if_match is None:
            check_match(None, before)
        if ask_cancel(session, job_id, actor=who.name, now=context.clock()):
            check_match(if_match, before)  # raising here takes the change back
        session.flush()
        view = CompressJobView.of(get_job(session, job_id))
        return once.answer(session, view, headers={"ETag": etag(view.revision)})


def _created(context: Context, once: Once, body: NewCompressJob, actor: str) -> Response:
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        job = create_job(
            session,
            model=body.model,
            version=body.version,
            budget=body.budget.strip() or _default(session, body),
            device_class=body.hardware_class,
            time_s=body.time_s,
            actor=actor,
            now=context.clock(),
        )
        session.flush()
        view = CompressJobView.of(job)
        headers = {"Location": f"/api/v1/compress-jobs/{view.id}", "ETag": etag(view.revision)}
        return once.answer(session, view, status=201, headers=headers)


def _default(session: Session, body: NewCompressJob) -> str:
    manifest = decode_manifest(get_version(session, body.model, body.version).manifest)
    return default_budget(manifest.metric, manifest.slo)
