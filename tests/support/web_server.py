"""The API and the dashboard over a seeded database: in process for page tests, over HTTPS on loopback for browsers."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from tests.support.seed import seed_fleet
from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import open_engine, write
from wavegate_server.adapters.database.tables import METADATA
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.tokens import (
    SESSION_COOKIE,
    Role,
    check_token,
    create_login_key,
    create_token,
    start_session,
)
from wavegate_server.api import create_api
from wavegate_server.api.context import Context
from wavegate_server.config import Settings
from wavegate_server.services.first_start import initialise, open_trust
from wavegate_server.web import add_web

__all__ = ["Dashboard", "make_directory", "open_dashboard", "serve"]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard over one data directory. `pages`: the router of the dashboard alone."""

    context: Context
    app: FastAPI
    pages: APIRouter

    def cookie(self, role: Role = Role.ADMIN) -> str:
        """A session of somebody with that role."""
        with write(self.context.engine) as session:
            text = create_token(session, name=f"a-{role}", role=role, now=self.context.clock())
            principal = check_token(session, text, self.context.clock())
            assert principal is not None
            return start_session(session, principal, self.context.clock())

    def login_key(self) -> str:
        """A key for one login link."""
        with write(self.context.engine) as session:
            text = create_token(session, name="link", role=Role.ADMIN, now=self.context.clock())
            principal = check_token(session, text, self.context.clock())
            assert principal is not None
            return create_login_key(session, principal, self.context.clock())

    def token(self, role: Role = Role.ADMIN) -> str:
        """An API token."""
        with write(self.context.engine) as session:
            return create_token(session, name=f"a-{role}", role=role, now=self.context.clock())

    @contextmanager
    def client(self, role: Role | None = Role.ADMIN) -> Iterator[TestClient]:
        """A browser without a screen, signed in unless `role` is None."""
        headers = {"Origin": "https://testserver"}
        with TestClient(self.app, base_url="https://testserver", headers=headers, follow_redirects=False) as client:
            if role is not None:
                client.cookies.set(SESSION_COOKIE, self.cookie(role))
            yield client


def make_directory(directory: Path, now: datetime, *, minutes: int = 240, empty: bool = False) -> None:
    """A data directory with keys, authority, and the seeded fleet (or none)."""
    settings = Settings(data_dir=directory)
    initialise(settings, now)
    engine = open_engine(settings.db_url)
    METADATA.create_all(engine)
    if not empty:
        seed_fleet(engine, now, minutes=minutes)
    engine.dispose()


@contextmanager
def open_dashboard(directory: Path) -> Iterator[Dashboard]:
    """The application over what `make_directory` made."""
    settings = Settings(data_dir=directory)
    engine, trust = open_engine(settings.db_url), open_trust(settings)
    context = Context(
        settings=settings,
        engine=engine,
        objects=Objects(settings.objects_dir),
        tuf_repo=trust.tuf_repo,
        director=trust.director,
        authority=trust.authority,
        keystore=trust.keystore,
        clock=clock.now,
    )
    app = create_api(context)
    pages = add_web(app, context)
    try:
        yield Dashboard(context, app, pages)
    finally:
        engine.dispose()


@contextmanager
def serve(dashboard: Dashboard) -> Iterator[str]:
    """The dashboard over HTTPS on a free port of loopback: its URL."""
    files = dashboard.context.authority.service("server")
    config = uvicorn.Config(
        dashboard.app,
        log_level="warning",
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            end = time.monotonic() + 20
            while not server.started and thread.is_alive() and time.monotonic() < end:
                thread.join(0.02)
            assert server.started
            yield f"https://localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
