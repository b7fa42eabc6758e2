"""Cursor pages: `items` and the `next_cursor` that continues after the last of them.

Cursors are made and checked where the rows are read (`adapters/reads/page.py`); to clients they are opaque.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from wavegate_server.adapters.reads import page

__all__ = ["Page", "PageQuery", "Paging", "page_of"]

Item = TypeVar("Item", bound=BaseModel)
Row = TypeVar("Row")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(
        default=None, description="send as `cursor` for the next page; null on the last one"
    )


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which page is asked for. Attributes: limit (1 to 200), and the cursor of the page before, or None."""

    limit: int
    cursor: str | None


def _paging(
    limit: Annotated[int, Query(ge=1, le=page.MAX_LIMIT, description="items a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")] = None,
) -> PageQuery:
    return PageQuery(limit, cursor)


Paging = Annotated[PageQuery, Depends(_paging)]


def page_of(rows: page.Page[Row], view: Callable[[Row], Item]) -> Page[Item]:
    """A page of views made from a page of rows."""
    return Page(items=[view(row) for row in rows.items], next_cursor=rows.next_cursor)
