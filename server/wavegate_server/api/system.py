"""How the server is, and the certificate authority's certificate. No authentication: monitors and new devices ask."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from wavegate_server.adapters.database.connection import read
from wavegate_server.api.context import Context, Ctx
from wavegate_shared import __version__

__all__ = ["HealthAnswer", "router"]

router = APIRouter(tags=["system"])


class HealthAnswer(BaseModel):
    """Whether the server can do its work.

    Attributes:
        live: the process answers; restart it when it does not.
        ready: every check passed; send it requests only then.
        checks: name of the check -> "" or what is wrong.
        failed_requests: requests that ended in an unexpected exception since the start.
    """

    live: bool = True
    ready: bool
    checks: dict[str, str]
    failed_requests: int
    version: str = __version__


@router.get(
    "/health",
    operation_id="health",
    summary="Live and ready",
    responses={503: {"model": HealthAnswer, "description": "live but not ready"}},
)
def health(request: Request, response: Response, context: Ctx) -> HealthAnswer:
    """200 when ready, 503 when live but not ready; `checks` says what is wrong."""
    checks = {"database": _database(context)} | {name: check() for name, check in context.checks.items()}
    ready = not any(checks.values())
    response.status_code = 200 if ready else 503
    return HealthAnswer(ready=ready, checks=checks, failed_requests=request.app.state.failures)


@router.get(
    "/ca",
    operation_id="get_ca",
    summary="The certificate authority's certificate",
    response_class=Response,
    responses={200: {"content": {"application/x-pem-file": {"schema": {"type": "string"}}}}},
)
def ca(context: Ctx) -> Response:
    """PEM. A device compares its fingerprint with the one in its enrolment token before it trusts it."""
    return Response(context.authority.ca_pem(), media_type="application/x-pem-file")


def _database(context: Context) -> str:
    try:
        with read(context.engine) as session:
            session.connection().execute(text("SELECT value FROM revision"))
    except SQLAlchemyError as error:
        return f"{type(error).__name__}"
    return ""
