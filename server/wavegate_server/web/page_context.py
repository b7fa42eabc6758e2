"""What every page needs: the server's context, the templates, and who is looking."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from fastapi import Request
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.store.tokens import SESSION_COOKIE, Principal, check_session
from wavegate_server.api.context import Context
from wavegate_server.web.render import Renderer, SignedOut, Viewer, viewer_of

__all__ = ["PageContext"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PageContext:
    """Handed to every module that adds routes."""

    context: Context
    renderer: Renderer

    def now(self) -> datetime:
        """Aware UTC."""
        return self.context.clock()

    def principal(self, request: Request) -> Principal:
        """Who is signed in. Raises `SignedOut`."""
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie:
            with read(self.context.engine) as session:
                principal = check_session(session, cookie, self.now())
            if principal is not None:
                request.state.principal = principal  # a problem page keeps the navigation
                return principal
        raise SignedOut

    def viewer(self, request: Request) -> Viewer:
        """Who looks at a page, and how. Raises `SignedOut`."""
        return viewer_of(request, self.principal(request))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One snapshot for one page."""
        with read(self.context.engine) as session:
            yield session
