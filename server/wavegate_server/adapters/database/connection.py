"""Opening the database: the engine, its SQLite pragmas, and one transaction at a time.

SQLite is the embedded default: WAL, `synchronous=FULL` (an acknowledged message is on disk), foreign keys on, and every
write transaction starts with BEGIN IMMEDIATE so that two writers queue instead of failing. PostgreSQL takes the same calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlmodel import Session, create_engine

__all__ = ["connect", "open_engine", "read", "sqlite_url", "write"]


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def open_engine(url: str) -> Engine:
    """An engine for `url`; nothing is created or migrated here."""
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if url.startswith("sqlite"):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def write(engine: Engine) -> Iterator[Session]:
    """A session in one write transaction: committed at the end, rolled back on any exception."""
    with (
        engine.connect().execution_options(wavegate_write=True) as connection,
        connection.begin(),
        Session(bind=connection, expire_on_commit=False) as session,
    ):
        yield session
        session.flush()


@contextmanager
def connect(engine: Engine) -> Iterator[Connection]:
    """A bare connection in one write transaction, for compiled SQL."""
    with engine.connect().execution_options(wavegate_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Session]:
    """A session for reading; it sees one snapshot."""
    with (
        engine.connect() as connection,
        connection.begin(),
        Session(bind=connection, expire_on_commit=False) as session,
    ):
        yield session


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "cache_size=-16384",  # KiB; the default of 2 MB is smaller than one batch of the ingest
        "wal_autocheckpoint=4000",  # pages; the default moves the log after every second batch
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("wavegate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
