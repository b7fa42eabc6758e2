"""One seeded fleet for all tests that only read it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from tests.support.seed import seed_fleet
from wavegate_server.adapters.database.connection import open_engine, read
from wavegate_server.adapters.database.tables import METADATA

SEEDED_AT = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def seeded_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The fleet as of `SEEDED_AT`, with 35 minutes of telemetry before it. Tests write nothing to it."""
    opened = open_engine(f"sqlite:///{tmp_path_factory.mktemp('reads') / 'w.db'}")
    METADATA.create_all(opened)
    seed_fleet(opened, SEEDED_AT, minutes=35)
    yield opened
    opened.dispose()


@pytest.fixture
def session(seeded_engine: Engine) -> Iterator[Session]:
    """A session that reads the seeded fleet."""
    with read(seeded_engine) as opened:
        yield opened
