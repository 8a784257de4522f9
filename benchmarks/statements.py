"""How many statements go to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import psycopg


@dataclass
class Statements:
    """What this process has asked of PostgreSQL so far."""

    count: int = 0


@contextmanager
def counted() -> Iterator[Statements]:
    """Count the statements of all connections of this process, as long as the block lasts."""
    statements = Statements()
    execute = psycopg.AsyncCursor.execute

    async def counting(cursor: Any, *args: Any, **options: Any) -> Any:
        statements.count += 1
        return await execute(cursor, *args, **options)

    with patch.object(psycopg.AsyncCursor, "execute", counting):
        yield statements
