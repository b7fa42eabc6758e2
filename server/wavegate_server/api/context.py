"""What the API and the dashboard work with, handed in once by the wiring and carried by the application."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.director import Director
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_server.config import Settings

__all__ = ["Context", "Ctx"]


@dataclass(frozen=True, slots=True)
class Context:
    """The server's parts.

    Attributes:
        clock: gives aware UTC.
        checks: named health checks for `GET /api/v1/health`; each gives "" when all is well, else what is wrong.
    """

    settings: Settings
    engine: Engine
    objects: Objects
    tuf_repo: ImageRepository
    director: Director
    authority: Authority
    keystore: KeyStore
    clock: Callable[[], datetime]
    checks: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def assignments(self) -> AssignmentWriter:
        """Signs what devices are told."""
        return AssignmentWriter(self.director, self.tuf_repo, self.settings.topics)


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Ctx = Annotated[Context, Depends(_context)]
"""Parameter type of an endpoint that needs the context."""
