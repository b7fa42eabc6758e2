"""Models: import a bundle, publish, take back, alias, look at."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Response, UploadFile
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.reads import page as reads_page
from wavegate_server.adapters.reads.models import model_detail, model_rows, version_rows
from wavegate_server.adapters.store.models import Alias, get_model, get_version, mark_revoked, set_alias
from wavegate_server.api.auth import ModelWriter, Reader
from wavegate_server.api.context import Ctx
from wavegate_server.api.etags import IfMatch, check_match, etag
from wavegate_server.api.model_views import AliasBody, ImportAnswer, ModelView, RevokeVersion, VersionView
from wavegate_server.api.once import OnceKey
from wavegate_server.api.pages import Page, Paging, page_of
from wavegate_server.api.problems import problem_responses
from wavegate_server.api.uploads import stored_upload
from wavegate_server.core.class_limits import over_limit
from wavegate_server.services import registry
from wavegate_shared.errors import UsageError

__all__ = ["router"]

router = APIRouter(tags=["models"])
ModelName = Annotated[str, Path(max_length=63, examples=["address-match"])]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[2])]


@router.get("/models", operation_id="list_models", summary="List models")
def list_models(context: Ctx, page: Paging, _: Reader) -> Page[ModelView]:
    """In the order of their names, each with its newest version."""
    with read(context.engine) as session:
        return page_of(model_rows(session, cursor=page.cursor, limit=page.limit), ModelView.model_validate)


@router.get("/models/{model}", operation_id="get_model", summary="Look at a model", responses=problem_responses(404))
def show_model(model: ModelName, context: Ctx, response: Response, _: Reader) -> ModelView:
    """With the ETag that a change of its aliases needs."""
    with read(context.engine) as session:
        view = _model_view(session, model)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.get(
    "/models/{model}/versions",
    operation_id="list_versions",
    summary="List a model's versions",
    responses=problem_responses(404),
)
def list_versions(model: ModelName, context: Ctx, page: Paging, _: Reader) -> Page[VersionView]:
    """Newest first."""
    before = None if page.cursor is None else reads_page.cursor_number(page.cursor)
    with read(context.engine) as session:
        get_model(session, model)
        rows = [row for row in version_rows(session, model) if before is None or row.number < before]
    shown = tuple(rows[: page.limit])
    following = reads_page.cursor_text(shown[-1].number) if len(rows) > page.limit else None
    return page_of(reads_page.Page(shown, following), VersionView.model_validate)


@router.get(
    "/models/{model}/versions/{number}",
    operation_id="get_version",
    summary="Look at a version",
    responses=problem_responses(404),
)
def show_version(model: ModelName, number: Number, context: Ctx, _: Reader) -> VersionView:
    """With the before/after table it was signed with."""
    with read(context.engine) as session:
        return _version_view(session, model, number)


@router.put(
    "/models/{model}/aliases/{alias}",
    operation_id="set_alias",
    summary="Point an alias at a version",
    responses=problem_responses(404, 409, 412, 428),
)
def put_alias(
    model: ModelName,
    alias: Alias,
    body: AliasBody,
    context: Ctx,
    response: Response,
    who: ModelWriter,
    if_match: IfMatch = None,
) -> ModelView:
    """`champion` is the version in charge, `challenger` the one on trial; only published versions can be either."""
    with write(context.engine) as session:
        row = get_model(session, model)
        check_match(if_match, row.revision)
        set_alias(session, row, alias, body.version, actor=who.name, now=context.clock())
        session.flush()
        view = _model_view(session, model)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.post(
    "/models/{model}/versions/{number}/publish",
    operation_id="publish_version",
    summary="Sign a version into the release list",
    responses=problem_responses(404, 409, 503),
)
def publish(model: ModelName, number: Number, context: Ctx, who: ModelWriter) -> VersionView:
    """From then on rollouts can offer it. Publishing a published version changes nothing."""
    now = context.clock()
    with read(context.engine) as session:
        get_version(session, model, number)
    registry.publish(context.engine, context.tuf_repo, model, number, actor=who.name, now=now)
    with read(context.engine) as session:
        return _version_view(session, model, number)


@router.post(
    "/models/{model}/versions/{number}/revoke",
    operation_id="revoke_version",
    summary="Take a version off the release list",
    responses=problem_responses(404, 409, 503),
)
def revoke(
    model: ModelName, number: Number, context: Ctx, who: ModelWriter, body: RevokeVersion | None = None
) -> VersionView:
    """Devices refuse it from their next look at the list on; those that run it go on until a rollout moves them."""
    now = context.clock()
    with read(context.engine) as session:
        state = get_version(session, model, number).state
    if state == "published":  # the signature first: a crash in between is repaired by calling again
        context.tuf_repo.revoke(model, number, now)
    with write(context.engine) as session:
        version = get_version(session, model, number)
        mark_revoked(session, version, actor=who.name, now=now, reason=body.reason if body else "")
        session.flush()
        return _version_view(session, model, number)


@router.post(
    "/models/import",
    operation_id="import_bundle",
    summary="Import a bundle as a new version",
    status_code=201,
    response_model=ImportAnswer,
    responses={**problem_responses(413), 200: {"model": ImportAnswer, "description": "it was imported before"}},
)
def import_bundle(
    bundle: UploadFile,
    context: Ctx,
    once: OnceKey,
    who: ModelWriter,
    unchecked: Annotated[bool, Form(description="register it even when its golden set fails on this host")] = False,
) -> Response:
    """A zip of the bundle's directory. The same bundle again gives the version it already is (200)."""
    with stored_upload(bundle, context) as (path, digest):
        once = once.for_body(f"{digest}:{unchecked}")
        with read(context.engine) as session:
            if replayed := once.replay(session):
                return replayed
        ref = registry.import_bundle(
            context.engine, context.objects, path, unchecked=unchecked, actor=who.name, now=context.clock()
        )
    with write(context.engine) as session:
        if replayed := once.replay(session):  # a twin of this request was quicker
            return replayed
        view = _version_view(session, ref.model, ref.number)
        limits = context.settings.class_limits
        above = over_limit(view.info.get("parameters") or 0, view.info.get("flops"), limits)
        answer = ImportAnswer(created=ref.created, version=view, warnings=[str(each) for each in above])
        location = {"Location": f"/api/v1/models/{ref.model}/versions/{ref.number}"}
        return once.answer(session, answer, status=201 if ref.created else 200, headers=location)


def _model_view(session: Session, name: str) -> ModelView:
    return ModelView.model_validate(model_detail(session, name).row)


def _version_view(session: Session, model: str, number: int) -> VersionView:
    for row in version_rows(session, model):
        if row.number == number:
            return VersionView.model_validate(row)
    raise UsageError("not_found", f"no version {number} of model {model!r}")
