"""What every list read shares: a page of rows with an opaque cursor, and the tables by name.

Cursors are positions in a stable order (a name or a rising number), not offsets: a live fleet moves under an offset.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Executable, select
from sqlmodel import Session

from wavegate_server.adapters.database.tables import METADATA
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = [
    "MAX_LIMIT",
    "Page",
    "columns",
    "cursor_number",
    "cursor_text",
    "cursor_value",
    "revision",
    "rows",
    "scalar",
    "unix_ms",
    "unix_s",
]

MAX_LIMIT = 200
"""Most rows of one page."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in order, and where the next page starts (None: this was the last)."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def columns(table: str) -> Any:
    """The columns of a table, by attribute."""
    return METADATA.tables[table].c


def rows(session: Session, query: Executable) -> list[Any]:
    """All rows of a query, as named tuples."""
    return list(session.connection().execute(query))


def scalar(session: Session, query: Executable) -> Any:
    """The first column of the first row, or None."""
    return session.connection().execute(query).scalar()


def cursor_text(value: str | int) -> str:
    """The opaque form of a position; `cursor_value(cursor_text(v)) == str(v)`."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def cursor_value(text: str) -> str:
    """Read a cursor.

    Raises:
        UsageError: `invalid`, when it was not made by `cursor_text`.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise UsageError("invalid", Sentence("refused.cursor")) from error


def cursor_number(text: str) -> int:
    """Read a cursor that holds a row number.

    Raises:
        UsageError: `invalid`, when it was not made from a number a row can have.
    """
    value = cursor_value(text)
    if not value.isdecimal() or len(value) > 18:  # a longer one does not fit a column and would fail in the database
        raise UsageError("invalid", Sentence("refused.cursor"))
    return int(value)


def unix_s(at: datetime) -> int:
    """Whole Unix seconds, as roll-up buckets count."""
    return int(at.timestamp())


def unix_ms(at: datetime) -> int:
    """Whole Unix milliseconds, as raw windows count."""
    return int(at.timestamp() * 1000)


def revision(session: Session) -> int:
    """The number that rises with every visible change; 0 before the first."""
    row = columns("revision")
    return int(scalar(session, select(row.value).where(row.id == 1)) or 0)
