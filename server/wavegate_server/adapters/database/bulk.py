"""Many rows with one statement: upsert, insert what is new, update by key. Types are the tables' own, times and JSON among them.

How to think of this: a row by the ORM costs a look-up, an identity and a statement of its own; a wave of devices is one statement
with many parameters instead. The session's objects do not notice: who reads such a row again in the same transaction selects it anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Table, and_, bindparam, insert, update
from sqlalchemy.sql.dml import Insert, Update
from sqlmodel import Session

__all__ = ["chunks", "insert_all", "insert_new", "update_all", "upsert_all"]

Rows = Sequence[dict[str, Any]]
_T = TypeVar("_T")
_NAMES = 500
"""So many names in one IN (...)."""


def chunks(values: Iterable[_T], size: int = _NAMES) -> Iterator[list[_T]]:
    """The values in lists of at most `size`."""
    every = list(values)
    for at in range(0, len(every), size):
        yield every[at : at + size]


def insert_all(session: Session, model: Any, rows: Rows) -> None:
    """Insert rows that all have the same columns."""
    if rows:
        session.connection().execute(insert(model.__table__), list(rows))


def insert_new(session: Session, model: Any, key: str, rows: Rows) -> int:
    """Insert rows, but those whose unique column `key` is there already; how many went in."""
    if not rows:
        return 0
    connection = session.connection()
    statement = _insert_new(connection.dialect.name, model.__table__, key)
    return connection.execute(statement, list(rows)).rowcount


def upsert_all(session: Session, model: Any, keys: tuple[str, ...], rows: Rows, *, keep: tuple[str, ...] = ()) -> None:
    """Insert rows, or update them where the key is there; the columns in `keep` are only written by an insert."""
    if rows:
        connection = session.connection()
        columns = tuple(rows[0])
        statement = _upsert(connection.dialect.name, model.__table__, keys, tuple(c for c in columns if c not in keep))
        connection.execute(statement, list(rows))


def update_all(session: Session, model: Any, keys: tuple[str, ...], rows: Rows) -> None:
    """Update rows by key; all name the same columns."""
    if not rows:
        return
    changed = tuple(column for column in rows[0] if column not in keys)
    named = [{f"b_{name}": value for name, value in row.items()} for row in rows]
    session.connection().execute(_update(model.__table__, keys, changed), named)


@cache
def _insert_new(dialect: str, table: Table, key: str) -> Insert:
    made: Insert = _insert(dialect, table).on_conflict_do_nothing(index_elements=[key])
    return made


@cache
def _upsert(dialect: str, table: Table, keys: tuple[str, ...], columns: tuple[str, ...]) -> Insert:
    statement = _insert(dialect, table)
    changed = {name: statement.excluded[name] for name in columns if name not in keys}
    made: Insert = statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
    return made


@cache
def _update(table: Table, keys: tuple[str, ...], columns: tuple[str, ...]) -> Update:
    found = and_(*(table.c[name] == bindparam(f"b_{name}", type_=table.c[name].type) for name in keys))
    values = {name: bindparam(f"b_{name}", type_=table.c[name].type) for name in columns}
    return update(table).where(found).values(values)


def _insert(dialect: str, table: Table) -> Any:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)
