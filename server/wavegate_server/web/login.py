"""Signing in and out, and the two choices a browser keeps: language and theme.

A token (form) or a one-time key (the link that `wavegate serve` prints) is exchanged for a session cookie.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store.tokens import (
    SESSION_COOKIE,
    SESSION_LIFE,
    check_token,
    end_session,
    redeem_login_key,
    start_session,
)
from wavegate_server.api.auth import same_origin
from wavegate_server.core.sentences import Sentence
from wavegate_server.web.i18n import LANGUAGES
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.render import HEADERS, LANGUAGE_COOKIE, THEME_COOKIE, THEMES, viewer_of
from wavegate_shared.errors import UsageError

__all__ = ["add_login", "local_path"]

_YEAR_S = 365 * 86400
HOME = "/fleet"


def local_path(text: str | None) -> str:
    """`text` when it is a path of this server, else the first page: a link must not lead elsewhere after signing in."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\")) or not text.isprintable():
        return HOME
    return text


def add_login(router: APIRouter, desk: PageContext) -> None:
    """`/`, `/login`, `/logout`, `/preferences`."""

    @router.get("/")
    def index() -> Response:
        return _go(HOME)

    @router.get("/login")
    def login_form(request: Request, key: str | None = None) -> Response:
        if key and (cookie := _redeem(desk, key)):
            return _signed_in(cookie, HOME)
        return _form(desk, request, failed=bool(key), status=401 if key else 200)

    @router.post("/login")
    def login(
        request: Request, token: Annotated[str, Form()] = "", follow: Annotated[str, Form(alias="next")] = ""
    ) -> Response:
        _from_here(request)
        with write(desk.context.engine) as session:
            principal = check_token(session, token.strip(), desk.now())
            cookie = start_session(session, principal, desk.now()) if principal else None
        if cookie:
            return _signed_in(cookie, local_path(follow))
        return _form(desk, request, failed=True, status=401, follow=follow)

    @router.post("/logout")
    def logout(request: Request) -> Response:
        _from_here(request)
        with write(desk.context.engine) as session:
            end_session(session, request.cookies.get(SESSION_COOKIE, ""))
        answer = _go("/login")
        answer.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    @router.get("/preferences")
    def preferences(
        request: Request, language: str | None = None, theme: str | None = None, follow: str | None = None
    ) -> Response:
        answer = _go(local_path(request.query_params.get("next", follow)))
        if language in LANGUAGES:
            answer.set_cookie(LANGUAGE_COOKIE, str(language), _YEAR_S, path="/", secure=True, samesite="lax")
        if theme in THEMES:
            answer.set_cookie(THEME_COOKIE, str(theme), _YEAR_S, path="/", secure=True, samesite="lax")
        return answer


def _redeem(desk: PageContext, key: str) -> str | None:
    with write(desk.context.engine) as session:
        return redeem_login_key(session, key, desk.now())


def _form(desk: PageContext, request: Request, *, failed: bool, status: int, follow: str = "") -> Response:
    follow = local_path(follow or request.query_params.get("next"))
    return desk.renderer.page(request, "login.html", viewer_of(request), status=status, failed=failed, follow=follow)


def _from_here(request: Request) -> None:
    if not same_origin(request):
        raise UsageError("forbidden", Sentence("refused.origin"))


def _signed_in(cookie: str, path: str) -> Response:
    answer = _go(path)
    answer.set_cookie(
        SESSION_COOKIE,
        cookie,
        int(SESSION_LIFE.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return answer


def _go(path: str) -> Response:
    return Response(status_code=303, headers={**HEADERS, "location": path})
