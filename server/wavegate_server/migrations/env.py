"""What alembic runs: online only, on the connection that `upgrade` hands in."""

from typing import Any, Literal

from alembic import context
from sqlmodel import AutoString

from wavegate_server.adapters.database.columns import UtcDateTime
from wavegate_server.adapters.database.tables import METADATA


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Write our types as what they are in the database, so that old revisions depend neither on our code nor on SQLModel."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String({item.length or ''})"
    return False


def compare_type(
    _context: Any, _inspected: Any, _metadata: Any, inspected_type: Any, metadata_type: Any
) -> bool | None:
    """Our time type equals a plain DateTime; all else is alembic's own comparison."""
    if isinstance(metadata_type, UtcDateTime):
        return type(inspected_type).__visit_name__.upper() not in ("DATETIME", "TIMESTAMP")
    return None


def run() -> None:
    """Run the revisions that are asked for."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=METADATA,
        render_as_batch=True,
        render_item=render_item,
        compare_type=compare_type,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
