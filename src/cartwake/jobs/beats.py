"""Which workers live: each says so every few seconds, so that the doctor need not guess from what is not done.

A row says no more than that a process runs and reaches the database; whether work gets done is another question, and
another check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.kit.db import Connection, rows

# Machine seconds. One write per worker and pause, whatever it sends meanwhile.
BEAT_S = 15.0
# Who has not been seen for so long is gone, or does not reach the database.
GONE_AFTER_S = 60.0
# A worker that was killed is remembered for so long, to say since when there is none.
KEPT_FOR = timedelta(days=7)

BEAT = """
INSERT INTO worker_beats AS b (worker_id, version, started_at, seen_at)
VALUES (%(worker_id)s, %(version)s, %(now)s, %(now)s)
ON CONFLICT (worker_id) DO UPDATE SET seen_at = GREATEST(b.seen_at, EXCLUDED.seen_at)
"""
FORGET = """
DELETE FROM worker_beats WHERE seen_at < %(before)s
"""
END = """
DELETE FROM worker_beats WHERE worker_id = %(worker_id)s
"""
READ = """
SELECT worker_id, version, started_at, seen_at FROM worker_beats ORDER BY seen_at DESC LIMIT %(limit)s
"""


@dataclass(frozen=True)
class Beat:
    """One worker, when it was last seen, and which version it runs."""

    worker_id: UUID
    version: str
    started_at: datetime
    seen_at: datetime


async def beat(conn: Connection, now: datetime, worker_id: UUID, version: str) -> None:
    """This worker lives. Engine login."""
    await conn.execute(BEAT, {"worker_id": worker_id, "version": version, "now": now})
    await conn.execute(FORGET, {"before": now - KEPT_FOR})


async def end(conn: Connection, worker_id: UUID) -> None:
    """It ends in good order."""
    await conn.execute(END, {"worker_id": worker_id})


async def read_beats(conn: Connection, limit: int = 1000) -> Sequence[Beat]:
    """Workers that were seen within a week and did not end in good order, the latest first. Engine login."""
    return [Beat(**found) for found in await rows(conn, READ, {"limit": limit})]
