"""Lists that can grow: newest first, a page at a time, all alike.

`next` of a page is `before` of the one after it. It is the id of the page's last row, so what is added
meanwhile appears on no later page twice, and nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Query

LIMIT_MAX = 200

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Rows on the page, at most.")]
BEFORE = "`next` of the page before this one; without it the newest rows."
Before = Annotated[UUID | None, Query(description=BEFORE)]

Row = TypeVar("Row")
Cursor = TypeVar("Cursor")


def cut(found: Sequence[Row], limit: int, cursor: Callable[[Row], Cursor]) -> tuple[Sequence[Row], Cursor | None]:
    """A page of `limit` rows out of `limit + 1` that were asked for, and `next`: None when there is no more."""
    page = found[:limit]
    return page, cursor(page[-1]) if len(found) > limit else None
