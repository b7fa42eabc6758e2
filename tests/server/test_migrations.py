from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from wavegate_server.adapters.database.connection import connect, open_engine, sqlite_url
from wavegate_server.adapters.database.tables import METADATA
from wavegate_server.migrations import current_revision, upgrade


def migrated(directory: Path) -> Engine:
    engine = open_engine(sqlite_url(directory / "new.db"))
    upgrade(engine)
    return engine


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    """`alembic check`: when this is red, write the next revision (see `wavegate_server.migrations`)."""
    engine = migrated(tmp_path)
    with connect(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": _same_time_type})
        differences = compare_metadata(context, METADATA)
    engine.dispose()

    assert differences == []


def _same_time_type(
    _context: object, _column: object, _target: object, inspected: object, wanted: object
) -> bool | None:
    return False if type(wanted).__name__ == "UtcDateTime" and "DATETIME" in str(inspected) else None


def test_a_table_the_migrations_do_not_know_is_noticed(tmp_path: Path) -> None:
    engine = migrated(tmp_path)
    with connect(engine) as connection:
        connection.execute(text("ALTER TABLE device DROP COLUMN clock"))
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, METADATA)
    engine.dispose()

    assert any(difference[0] == "add_column" for difference in differences)


def test_upgrading_again_changes_nothing(tmp_path: Path) -> None:
    engine = migrated(tmp_path)
    first = current_revision(engine)
    upgrade(engine)

    assert first is not None
    assert current_revision(engine) == first
    engine.dispose()


def test_every_constraint_has_a_name(tmp_path: Path) -> None:
    """Without names a later revision cannot drop them."""
    engine = migrated(tmp_path)
    with connect(engine) as connection:
        inspector = inspect(connection)
        found = [each["name"] for table in METADATA.tables for each in inspector.get_unique_constraints(table)]
    engine.dispose()

    assert found
    assert all(found)
