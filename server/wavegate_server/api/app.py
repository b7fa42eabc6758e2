"""The application: every route under `/api/v1`, problems for every error, and the OpenAPI document.

Not here: the dashboard (`web/`), which the wiring adds to the same application.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from wavegate_server.api import (
    bench_rounds,
    compress_jobs,
    device_lifecycle,
    devices,
    enrol,
    fleet_defaults,
    models,
    rollouts,
    system,
    tokens,
)
from wavegate_server.api.context import Context
from wavegate_server.api.limits import BodyLimit
from wavegate_server.api.problems import MEDIA_TYPE, Boundary, add_problem_handlers, problem_responses
from wavegate_server.config import Settings
from wavegate_shared import __version__

__all__ = ["PREFIX", "create_api"]

PREFIX = "/api/v1"
_BODY_LIMIT = 1 << 20
_DESCRIPTION = """\
Roll machine-learning models out to fleets of devices, with proof at each step.

Errors are RFC 9457 problems whose `type` is `urn:wavegate:error:<code>`. Lists are cursor pages. Changes of what exists need
`If-Match` with the ETag that was read. A POST may carry an `Idempotency-Key`."""


def create_api(context: Context) -> FastAPI:
    """The application around `context`, which endpoints and the dashboard find as `app.state.context`."""
    app = FastAPI(
        title="Wavegate",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # these pages load scripts from a foreign host
        redoc_url=None,
    )
    app.state.context = context
    app.state.failures = 0
    app.add_middleware(BodyLimit, limit=_limits(context.settings))
    app.add_middleware(Boundary)
    add_problem_handlers(app)
    for router in (system.router, enrol.router):
        app.include_router(router, prefix=PREFIX, responses=problem_responses(422))
    guarded = problem_responses(401, 403, 422)
    for router in (
        devices.router,
        device_lifecycle.router,
        models.router,
        compress_jobs.router,
        bench_rounds.router,
        rollouts.router,
        fleet_defaults.router,
        tokens.router,
    ):
        app.include_router(router, prefix=PREFIX, responses=guarded)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    return app


def _limits(settings: Settings) -> Callable[[str], int]:
    upload = settings.upload_limit_mb << 20
    bundles = (f"{PREFIX}/models/import", f"{PREFIX}/compress-jobs/upload", f"{PREFIX}/bench-rounds")
    return lambda path: upload if path in bundles else _BODY_LIMIT


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, servers=[{"url": "/"}]
        )
        for path in document["paths"].values():
            for operation in path.values():
                for answer in operation["responses"].values():
                    _as_problem(answer)
        app.openapi_schema = document
    return app.openapi_schema


def _as_problem(answer: dict[str, Any]) -> None:
    content = answer.get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
        answer["content"] = {MEDIA_TYPE: content["application/json"]}
