"""Who calls, and may they: a bearer token or the dashboard's session cookie, and one scope per endpoint.

A cookie travels by itself, so for unsafe methods the browser's `Origin` must be this server (cross-site request forgery). A
bearer token does not, and needs no such check.
"""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.store.tokens import SESSION_COOKIE, Principal, Scope, check_session, check_token
from wavegate_server.api.context import Context, Ctx
from wavegate_shared.errors import UsageError

__all__ = [
    "DeviceWriter",
    "Manager",
    "ModelWriter",
    "Reader",
    "RolloutWriter",
    "principal_of",
    "require",
    "same_origin",
]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_bearer = HTTPBearer(auto_error=False, description="An API token: `wgt_...`")
_cookie = APIKeyCookie(name=SESSION_COOKIE, auto_error=False, description="The dashboard's session")


def principal_of(request: Request, context: Context) -> Principal | None:
    """Who sent this request, or None. A wrong token is not retried as a cookie."""
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    cookie = request.cookies.get(SESSION_COOKIE)
    now = context.clock()
    with read(context.engine) as session:
        if header:
            return check_token(session, token.strip(), now) if scheme.lower() == "bearer" else None
        return check_session(session, cookie, now) if cookie else None


def same_origin(request: Request) -> bool:
    """Whether a browser sent this from a page of this server; a request without Origin does not count."""
    origin = request.headers.get("origin", "")
    return origin == f"{request.url.scheme}://{request.headers.get('host', '')}"


def require(scope: Scope) -> Callable[..., Principal]:
    """A dependency that gives the caller, or raises UsageError `unauthenticated` or `forbidden`."""

    def check(
        request: Request,
        context: Ctx,
        _token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        _session: Annotated[str | None, Depends(_cookie)],
    ) -> Principal:
        principal = principal_of(request, context)
        if principal is None:
            raise UsageError("unauthenticated")
        if not principal.may(scope):
            raise UsageError("forbidden", f"role {principal.role} of {principal.name!r} does not hold {scope.value!r}")
        if principal.browser and request.method not in _SAFE and not same_origin(request):
            raise UsageError("forbidden", "a change from a browser must come from a page of this server")
        return principal

    return check


Reader = Annotated[Principal, Depends(require(Scope.READ))]
DeviceWriter = Annotated[Principal, Depends(require(Scope.DEVICES))]
ModelWriter = Annotated[Principal, Depends(require(Scope.MODELS))]
RolloutWriter = Annotated[Principal, Depends(require(Scope.ROLLOUTS))]
Manager = Annotated[Principal, Depends(require(Scope.TOKENS))]
