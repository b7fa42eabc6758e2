"""Every error as an RFC 9457 problem with a stable `type`: `urn:wavegate:error:<code>`, codes from `wavegate_shared.errors`.

Covers what endpoints raise, what FastAPI and Starlette raise (422, 404, 405 with every method of the address in `Allow`, 413)
and, as the server's request boundary, whatever nobody caught: logged with its trace, counted, answered as `internal`.

A browser that asks for a page gets one: the dashboard sets `app.state.problem_page`, and an address outside the API that was asked
for as HTML is answered by it. Everything else, and every address of the API, stays a problem document.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavegate_server.core.advice import ADVICE
from wavegate_shared.errors import CODES, UsageError, WavegateError

__all__ = ["MEDIA_TYPE", "Boundary", "PageMaker", "Problem", "add_problem_handlers", "problem_response", "status_of"]

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
URN = "urn:wavegate:error:"
API = "/api/"

PageMaker = Callable[[Request, str, str, int], Response]
"""Makes the page of a problem from the request, the error code, the detail and the HTTP status."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_STATUS = {
    "not_found": 404,
    "document_missing": 404,
    "conflict": 409,
    "version_revoked": 409,
    "unauthenticated": 401,
    "forbidden": 403,
    "token_invalid": 403,
    "renewal_refused": 403,
    "method_not_allowed": 405,
    "precondition_failed": 412,
    "precondition_required": 428,
    "too_large": 413,
    "setup": 503,
    "key_missing": 503,
    "internal": 500,
    "disk_full": 507,
}
_STATUS_BY_KIND = {"TrustError": 422, "TransferError": 503, "DeviceError": 422, "UsageError": 422}
_CODE_OF_STATUS = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    412: "precondition_failed",
    413: "too_large",
    428: "precondition_required",
}


class FieldError(BaseModel):
    """One field of the request that is invalid, and why."""

    loc: list[str | int] = Field(description="path to the field, as [body, policy, alpha]")
    msg: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": URN + "not_found",
                    "title": "no such thing",
                    "status": 404,
                    "detail": "no device 'kiosk-9'",
                    "code": "not_found",
                    "retry": False,
                    "action": ADVICE["not_found"],
                    "errors": [],
                }
            ]
        }
    )

    type: str = Field(description="stable name of the error: `urn:wavegate:error:<code>`")
    title: str = Field(description="what the code means")
    status: int
    detail: str = Field(description="what happened this time")
    code: str
    retry: bool = Field(description="whether trying the same thing again can help")
    action: str = Field(default="", description="what to do")
    errors: list[FieldError] = []


def status_of(code: str) -> int:
    """The HTTP status of an error code."""
    return _STATUS.get(code) or _STATUS_BY_KIND[CODES[code].kind]


def problem_response(
    code: str,
    detail: str = "",
    *,
    status: int | None = None,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The answer for an error code; `status` overrides the code's own."""
    known = CODES[code]
    problem = Problem(
        type=URN + code,
        title=known.meaning,
        status=status or status_of(code),
        detail=detail or known.meaning,
        code=code,
        retry=known.retry,
        action=ADVICE.get(code, ""),
        errors=list(errors),
    )
    headers = dict(headers or {})
    if problem.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(problem.model_dump(), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(WavegateError, _on_wavegate_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_wavegate_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WavegateError)  # noqa: S101 - registered for this class only
    return await _answer(request, error.code, error.detail)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    errors = [FieldError(loc=list(item["loc"]), msg=str(item["msg"])) for item in error.errors()]
    first = errors[0]
    detail = f"{'.'.join(str(part) for part in first.loc)}: {first.msg}"
    return await _answer(request, "invalid", detail, errors=errors)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    status = 422 if error.status_code == 400 else error.status_code  # FastAPI's word for a form it cannot read
    code = _CODE_OF_STATUS.get(status, "invalid" if status < 500 else "internal")
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    if error.status_code == 404:
        detail = f"nothing at {request.url.path}"
    return await _answer(request, code, detail, status=status, headers=headers)


async def _answer(
    request: Request,
    code: str,
    detail: str = "",
    *,
    status: int | None = None,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """The problem as a page for a browser, else as a document."""
    page: PageMaker | None = getattr(request.app.state, "problem_page", None)
    if page is None or request.url.path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
        return problem_response(code, detail, status=status, errors=errors, headers=headers)
    response = await run_in_threadpool(page, request, code, detail, status or status_of(code))
    response.headers.update(headers or {})
    return response


def _allowed(request: Request) -> list[str]:
    """Every method the address takes. Starlette names only those of the first route that fits."""
    fits = (
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    )
    return sorted(set(fits))


class Boundary:
    """The server's request boundary: no exception leaves it, each is logged and counted.

    Attributes:
        failures: requests that ended in an exception nobody caught, since the start.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; after an exception, answer 500 unless the answer had begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            log.exception("request_failed method=%s path=%s", scope["method"], scope["path"])
            scope["app"].state.failures += 1
            if begun:
                raise
            try:
                response = await _answer(Request(scope), "internal")
            except Exception:  # the page of an error must not hide the error
                log.exception("problem_page_failed path=%s", scope["path"])
                response = problem_response("internal")
            await response(scope, receive, send)


def not_found(what: str, name: str) -> UsageError:
    """The error for a name that leads nowhere."""
    return UsageError("not_found", f"no {what} {name!r}")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries that declare problems for `statuses`."""
    return {status: {"model": Problem} for status in statuses}
