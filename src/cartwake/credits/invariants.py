"""What must always be true of credits: read-only queries that return whatever contradicts it.

Each is one statement, so it sees one moment even while others write. On the engine's or operator's
login they see every organization.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cartwake.credits import store
from cartwake.kit.db import Connection, rows


async def balances_off_ledger(conn: Connection) -> list[dict[str, Any]]:
    """Balances that are not the sum of their ledger, or do not stand at its last entry."""
    return await rows(conn, store.SELECT_BALANCES_OFF_LEDGER)


async def broken_chains(conn: Connection) -> list[dict[str, Any]]:
    """Entries that do not continue the one before them, in number or in balance."""
    return await rows(conn, store.SELECT_BROKEN_CHAINS)


async def reservations_off_ledger(conn: Connection) -> list[dict[str, Any]]:
    """Reservations whose entries do not tell the same story as their state."""
    return await rows(conn, store.SELECT_RESERVATIONS_OFF_LEDGER)


async def reservations_open_longer_than(conn: Connection, now: datetime, seconds: float) -> list[dict[str, Any]]:
    """Reservations that nobody has settled for more than `seconds`, oldest first."""
    return await rows(conn, store.SELECT_OPEN_SINCE, {"before": now - timedelta(seconds=seconds)})
