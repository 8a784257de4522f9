"""How many statements go to PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import psycopg


@dataclass
class Statements:
    """What this process has asked of PostgreSQL so far."""

    by_query: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.by_query.total()


@contextmanager
def counted() -> Iterator[Statements]:
    """Count the statements of all connections of this process, as long as the block lasts."""
    statements = Statements()
    execute = psycopg.AsyncCursor.execute

    async def counting(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        statements.by_query[str(query)] += 1
        return await execute(cursor, query, *args, **options)

    with patch.object(psycopg.AsyncCursor, "execute", counting):
        yield statements
