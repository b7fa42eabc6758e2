"""What all tables share: aware times, JSON columns, and the naming of constraints that migrations rely on."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, MetaData, TypeDecorator
from sqlmodel import Field, SQLModel

__all__ = ["METADATA", "UtcDateTime", "json_column", "time_column"]


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out on every database: SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Refuse naive times, store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA: MetaData = SQLModel.metadata
METADATA.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def json_column(*, nullable: bool = False) -> Any:
    """A JSON object that is only read back whole; empty by default, or None where that is allowed."""
    if nullable:
        return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    return Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


def time_column(*, index: bool = False, nullable: bool = False) -> Any:
    """An aware UTC time."""
    return Field(default=None, sa_column=Column(UtcDateTime, index=index, nullable=nullable))
