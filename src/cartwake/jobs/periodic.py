"""Periodic work: any number of schedulers, each task run by one of them at a time.

A task's row says when it runs next. Claiming moves that time on, so a second scheduler finds nothing to
do; a lease, renewed while the task runs, covers a scheduler that dies: the task runs again at its next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import croniter

from cartwake.kit.db import Connection, row, rows


@dataclass(frozen=True)
class TaskRow:
    """What is recorded about one task."""

    name: str
    next_run_at: datetime
    leased_until: datetime | None
    last_run_at: datetime | None
    last_error: str | None


# A run whose lease was not renewed for so long is taken for dead, and the next may start. Machine seconds.
LEASE_S = 60.0

ENROL = """
INSERT INTO periodic_tasks (name, next_run_at) SELECT name, %(now)s FROM unnest(%(names)s::text[]) AS n (name)
ON CONFLICT (name) DO NOTHING
"""
CLAIM = """
UPDATE periodic_tasks SET next_run_at = %(next_run_at)s, leased_until = %(leased_until)s, last_run_at = %(now)s
WHERE name = %(name)s AND next_run_at <= %(now)s AND (leased_until IS NULL OR leased_until <= %(now)s)
RETURNING name
"""
RENEW = """
UPDATE periodic_tasks SET leased_until = %(leased_until)s WHERE name = %(name)s AND leased_until IS NOT NULL
"""
FINISH = """
UPDATE periodic_tasks
SET leased_until = NULL, last_error = %(error)s, next_run_at = LEAST(next_run_at, %(again_at)s::timestamptz)
WHERE name = %(name)s
"""
READ_TASKS = """
SELECT name, next_run_at, leased_until, last_run_at, last_error FROM periodic_tasks ORDER BY name
"""
NEXT_RUNS = """
SELECT name, GREATEST(next_run_at, leased_until) AS at FROM periodic_tasks WHERE name = ANY(%(names)s) ORDER BY 2
"""


async def enrol(conn: Connection, now: datetime, names: Sequence[str]) -> None:
    """Make sure that every task has its row; a new one runs at once."""
    await conn.execute(ENROL, {"now": now, "names": list(names)})


async def claim(conn: Connection, now: datetime, name: str, cron: str, lease: timedelta) -> bool:
    """Whether this scheduler runs the task now. `cron` (UTC) says when it is due after that."""
    params = {"name": name, "now": now, "next_run_at": next_time(cron, now), "leased_until": now + lease}
    return await row(conn, CLAIM, params) is not None


async def renew(conn: Connection, now: datetime, name: str, lease: timedelta) -> None:
    """The run goes on."""
    await conn.execute(RENEW, {"name": name, "leased_until": now + lease})


async def finish(conn: Connection, name: str, error: str | None, again_at: datetime | None = None) -> None:
    """The run is over; `error` is kept for people to see. `again_at`: when to try again, if before its next time."""
    await conn.execute(FINISH, {"name": name, "error": error, "again_at": again_at})


async def due_tasks(conn: Connection, now: datetime, names: Sequence[str]) -> tuple[list[str], datetime | None]:
    """The tasks that are due, and when the next of the others will be."""
    found = await rows(conn, NEXT_RUNS, {"names": list(names)})
    later = [each["at"] for each in found if each["at"] > now]
    return [each["name"] for each in found if each["at"] <= now], min(later, default=None)


async def read_tasks(conn: Connection) -> dict[str, TaskRow]:
    """What is recorded about tasks; one that no scheduler has enrolled is left out. Engine login."""
    return {found["name"]: TaskRow(**found) for found in await rows(conn, READ_TASKS)}


async def next_runs(conn: Connection, names: Sequence[str]) -> dict[str, datetime]:
    """When each task is due next; one that is running, when its lease ends."""
    return {each["name"]: each["at"] for each in await rows(conn, NEXT_RUNS, {"names": list(names)})}


def next_time(cron: str, after: datetime) -> datetime:
    """The first time (UTC) after `after` that a cron expression names."""
    found: datetime = croniter(cron, after.astimezone(UTC)).get_next(datetime)
    return found
