"""The database's schema over time (alembic). `upgrade` brings any older database to the newest revision.

A new revision: `python -m wavegate_server.migrations 0002 "what changes"` writes it from the difference between the newest revision and
the models. Tests check that models and revisions agree.
"""

import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from wavegate_server.adapters.database.connection import connect, open_engine, sqlite_url

__all__ = ["current_revision", "new_revision", "upgrade"]


def upgrade(engine: Engine, *, to: str = "head") -> None:
    """Bring the database to the newest revision (or `to`), in one transaction; one that is there already is left alone."""
    with connect(engine) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def current_revision(engine: Engine) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with connect(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def new_revision(message: str, number: str) -> None:
    """Write the next revision file from the models (developers only)."""
    with tempfile.TemporaryDirectory() as directory:
        engine = open_engine(sqlite_url(Path(directory) / "scratch.db"))
        upgrade(engine)
        with connect(engine) as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=number)
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config
