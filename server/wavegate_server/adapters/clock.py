"""The server's only reading of the wall clock."""

from datetime import UTC, datetime

__all__ = ["now"]


def now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)
