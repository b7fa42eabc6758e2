"""Operators' API tokens: an administrator makes and ends them."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import ApiToken
from wavegate_server.adapters.reads import page as reads_page
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.tokens import Role, create_token, revoke_token
from wavegate_server.api.auth import Manager
from wavegate_server.api.context import Ctx
from wavegate_server.api.once import OnceKey
from wavegate_server.api.pages import Page, PageQuery, Paging, page_of
from wavegate_server.api.problems import problem_responses

__all__ = ["router"]

router = APIRouter(tags=["tokens"])


class NewApiToken(BaseModel):
    """The API token to create."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci", "role": "publisher"}]})

    name: str = Field(min_length=1, max_length=100)
    role: Role
    days: int | None = Field(default=None, ge=1, le=3650, description="life in days; null never expires")


class ApiTokenView(BaseModel):
    """A token, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    prefix: str = Field(description="the first characters, to tell tokens apart")
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked: bool


class ApiTokenSecret(ApiTokenView):
    """A new token, with its secret: shown this once."""

    token: str


@router.get("/tokens", operation_id="list_tokens", summary="List API tokens")
def list_tokens(context: Ctx, page: Paging, _: Manager) -> Page[ApiTokenView]:
    """All tokens ever made, oldest first."""
    with read(context.engine) as session:
        return page_of(_tokens(session, page), ApiTokenView.model_validate)


@router.post(
    "/tokens",
    operation_id="create_token",
    summary="Make an API token",
    status_code=201,
    response_model=ApiTokenSecret,
    responses=problem_responses(409),
)
def new_token(body: NewApiToken, context: Ctx, once: OnceKey, who: Manager) -> Response:
    """The answer holds the token's text, this once."""
    now = context.clock()
    life = None if body.days is None else timedelta(days=body.days)
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        text = create_token(session, name=body.name, role=body.role, now=now, life=life)
        row = session.exec(select(ApiToken).order_by(col(ApiToken.id).desc())).first()
        view = ApiTokenView.model_validate(row)
        detail = {"name": view.name, "role": view.role}
        audit.append(session, actor=who.name, action="token.create", subject=f"token/{view.id}", now=now, detail=detail)
        return once.answer(session, ApiTokenSecret(**view.model_dump(), token=text), status=201, secret=True)


@router.post(
    "/tokens/{token_id}/revoke",
    operation_id="revoke_token",
    summary="End an API token",
    responses=problem_responses(404),
)
def end_token(token_id: Annotated[int, Path(ge=1, le=2**31 - 1)], context: Ctx, who: Manager) -> ApiTokenView:
    """Takes effect at once and also ends every browser session opened with it. Idempotent: repeating the call has no further effect."""
    with write(context.engine) as session:
        view = ApiTokenView.model_validate(revoke_token(session, token_id))
        subject = f"token/{token_id}"
        audit.append(session, actor=who.name, action="token.revoke", subject=subject, now=context.clock())
        return view


def _tokens(session: Session, page: PageQuery) -> reads_page.Page[ApiToken]:
    query = select(ApiToken).order_by(col(ApiToken.id)).limit(page.limit + 1)
    if page.cursor is not None:
        query = query.where(col(ApiToken.id) > reads_page.cursor_number(page.cursor))
    rows = list(session.exec(query))
    shown = tuple(rows[: page.limit])
    return reads_page.Page(shown, reads_page.cursor_text(shown[-1].id or 0) if len(rows) > page.limit else None)
