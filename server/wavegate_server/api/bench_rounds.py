"""Bench rounds: have candidates measured beside their original on a device of a class, follow, cancel."""

from contextlib import ExitStack
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Form, Path, Response, UploadFile
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.store.bench_rounds import (
    MAX_CANDIDATES,
    cancel_round,
    get_round,
    round_document,
    round_page,
)
from wavegate_server.api.auth import ModelWriter, Reader
from wavegate_server.api.bench_views import BenchRoundSummary, BenchRoundView
from wavegate_server.api.context import Ctx
from wavegate_server.api.etags import IfMatch, check_match, etag
from wavegate_server.api.once import OnceKey
from wavegate_server.api.pages import Page, Paging, page_of
from wavegate_server.api.problems import problem_responses
from wavegate_server.api.uploads import stored_upload
from wavegate_server.services.bench.intake import RoundSettings, start_round
from wavegate_shared.errors import UsageError

__all__ = ["router"]

router = APIRouter(tags=["benching"])
RoundId = Annotated[str, Path(max_length=63, examples=["b-1a2b3c4d"])]
Seconds = Annotated[float, Form(ge=0, le=7200)]


@router.get("/bench-rounds", operation_id="list_bench_rounds", summary="List bench rounds")
def list_rounds(context: Ctx, page: Paging, _: Reader) -> Page[BenchRoundSummary]:
    """Newest first."""
    with read(context.engine) as session:
        return page_of(round_page(session, cursor=page.cursor, limit=page.limit), BenchRoundSummary.of)


@router.post(
    "/bench-rounds",
    operation_id="create_bench_round",
    summary="Measure candidates on a device",
    status_code=201,
    response_model=BenchRoundView,
    responses=problem_responses(409, 413),
)
def new_round(
    original: UploadFile,
    candidates: list[UploadFile],
    context: Ctx,
    once: OnceKey,
    who: ModelWriter,
    hardware_class: Annotated[str, Form(alias="class", max_length=63)],
    timeout_s: Seconds = 300.0,
    wait_s: Seconds = 120.0,
) -> Response:
    """Zips of bundle directories; a candidate's name is its file's name without `.zip`.

    Refused when no device of the class is enrolled for benching. None of them becomes a version, and no device lets one serve.
    """
    if len(candidates) > MAX_CANDIDATES:
        raise UsageError("invalid", f"a round takes at most {MAX_CANDIDATES} candidates")
    with ExitStack() as stack:
        kept = [stack.enter_context(stored_upload(upload, context)) for upload in [original, *candidates]]
        names = [(upload.filename or "").removesuffix(".zip") for upload in candidates]
        parts = [hardware_class, timeout_s, wait_s, *names, *(digest for _, digest in kept)]
        once = once.for_body(":".join(str(part) for part in parts))
        with read(context.engine) as session:
            if replayed := once.replay(session):
                return replayed
        if len(set(names)) != len(names):
            raise UsageError("invalid", "two candidates have one name")
        paths: dict[str, FilePath] = {name: path for name, (path, _) in zip(names, kept[1:], strict=True)}
        settings = RoundSettings(hardware_class, timeout_s, wait_s)
        round_id = start_round(
            context.engine, context.objects, kept[0][0], paths, settings, actor=who.name, now=context.clock()
        )
    with write(context.engine) as session:
        view = _view(session, round_id)
        headers = {"Location": f"/api/v1/bench-rounds/{round_id}", "ETag": etag(view.revision)}
        return once.answer(session, view, status=201, headers=headers)


@router.get(
    "/bench-rounds/{round_id}",
    operation_id="get_bench_round",
    summary="Look at a bench round",
    responses=problem_responses(404),
)
def show_round(round_id: RoundId, context: Ctx, response: Response, _: Reader) -> BenchRoundView:
    """Each candidate with the figures of the device's signed report, and the ETag that a cancel needs."""
    with read(context.engine) as session:
        view = _view(session, round_id)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.post(
    "/bench-rounds/{round_id}/cancel",
    operation_id="cancel_bench_round",
    summary="Cancel a bench round",
    responses=problem_responses(404, 412, 428),
)
def cancel(
    round_id: RoundId, context: Ctx, response: Response, who: ModelWriter, if_match: IfMatch = None
) -> BenchRoundView:
    """The device gets its own assignment back; figures measured so far are kept. Idempotent: repeating the call has no further effect."""
    with write(context.engine) as session:
        found = get_round(session, round_id)
        if found.finished_at is None:
            check_match(if_match, found.revision)
            cancel_round(session, round_id, actor=who.name, now=context.clock())
        session.flush()
        view = _view(session, round_id)
    response.headers["ETag"] = etag(view.revision)
    return view


def _view(session: Session, round_id: str) -> BenchRoundView:
    return BenchRoundView.model_validate(round_document(session, round_id))
