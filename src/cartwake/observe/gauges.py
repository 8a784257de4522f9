"""What the database knows about the deployment as a whole: counts and ages, never names.

Like `invariants`, it looks across rooms on purpose, read-only, on the engine's login. Every query is one pass
over an index that holds only what is under way, so its cost follows the work at hand and not the history.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.invariants import INVARIANTS
from cartwake.jobs.periodic import read_tasks
from cartwake.kit import metrics
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.metrics import Sample
from cartwake.messages.aside import count_set_aside
from cartwake.messages.queue import next_due
from cartwake.tenants.switches import read_pauses

# A text of unknown fate is settled within half an hour, unless the carrier cannot be asked.
STALE_AFTER = timedelta(hours=1)

COUNT_WAITING = """
SELECT count(*) FILTER (WHERE due_at <= %(now)s) AS due,
       count(*) FILTER (WHERE due_at > %(now)s AND state = 'scheduled') AS scheduled,
       count(*) FILTER (WHERE due_at > %(now)s AND state = 'held') AS held
FROM sms_messages WHERE state IN ('scheduled', 'held')
"""
COUNT_IN_FLIGHT = """
SELECT (SELECT count(*) FROM sms_messages WHERE state = 'sending') AS sending,
       (SELECT count(*) FROM sms_messages WHERE state = 'unknown') AS unknown,
       (SELECT count(*) FROM sms_messages WHERE state IN ('accepted', 'sent')) AS awaiting_receipt
"""
COUNT_TO_SCAN = """
SELECT count(*) AS sessions FROM checkout_sessions WHERE scan_at <= %(now)s
"""
COUNT_INBOX = """
SELECT k.kind, count(e.event_id) AS events, min(e.received_at) AS oldest_at
FROM (VALUES ('status'), ('inbound')) AS k (kind)
LEFT JOIN carrier_events e ON e.kind = k.kind AND e.processed_at IS NULL
GROUP BY k.kind
"""
COUNT_OUTBOX = """
SELECT count(*) AS events FROM outbox_events WHERE state = 'waiting'
"""
COUNT_RESERVATIONS = """
SELECT count(*) AS open, count(*) FILTER (WHERE reserved_at <= %(stale)s) AS stale
FROM sms_credit_reservations WHERE state = 'reserved'
"""
# As `GET /v1/credits` reckons: from the highest warning of the organization's shops, if any of them texts.
COUNT_LOW = """
SELECT count(*) AS organizations
FROM (
  SELECT organization_id, max(low_credits_at) AS low_at FROM shop_sms_configs WHERE enabled GROUP BY organization_id
) AS c
JOIN organizations o USING (organization_id)
LEFT JOIN org_sms_credit_balances b ON b.organization_id = c.organization_id AND b.account = 'sms'
WHERE o.plan <> 'FREE' AND COALESCE(b.available_credits, 0) <= c.low_at
"""
WITHOUT_CREDITS = """
SELECT o.organization_id FROM organizations o
LEFT JOIN org_sms_credit_balances b ON b.organization_id = o.organization_id AND b.account = 'sms'
WHERE o.plan <> 'FREE' AND COALESCE(b.available_credits, 0) = 0
  AND EXISTS (SELECT FROM shop_sms_configs c WHERE c.organization_id = o.organization_id AND c.enabled)
ORDER BY o.organization_id LIMIT %(limit)s
"""
READ_CHECKS = """
SELECT invariant, broken_rows, checked_at FROM invariant_checks WHERE invariant = ANY(%(invariants)s)
"""

Read = Callable[[Connection, datetime], Awaitable[list[Sample]]]


async def _queue(conn: Connection, now: datetime) -> list[Sample]:
    found = await row(conn, COUNT_WAITING, {"now": now}) or {}
    behind = (metrics.QUEUE_BEHIND, (), _age_s(now, await next_due(conn)))
    return [*((metrics.MESSAGES_WAITING, (state,), count) for state, count in found.items()), behind]


async def _in_flight(conn: Connection, _now: datetime) -> list[Sample]:
    found = await row(conn, COUNT_IN_FLIGHT) or {}
    return [(metrics.TEXTS_IN_FLIGHT, (state,), count) for state, count in found.items()]


async def _scan(conn: Connection, now: datetime) -> list[Sample]:
    found = await row(conn, COUNT_TO_SCAN, {"now": now}) or {}
    return [(metrics.SESSIONS_TO_SCAN, (), found["sessions"])]


async def _inbox(conn: Connection, now: datetime) -> list[Sample]:
    found = await rows(conn, COUNT_INBOX)
    oldest_at = min((each["oldest_at"] for each in found if each["oldest_at"]), default=None)
    waiting: list[Sample] = [(metrics.INBOX_WAITING, (each["kind"],), each["events"]) for each in found]
    pile = await count_set_aside(conn)
    return [
        *waiting,
        (metrics.INBOX_BEHIND, (), _age_s(now, oldest_at)),
        (metrics.EVENTS_SET_ASIDE, (), pile.events),
    ]


async def _outbox(conn: Connection, _now: datetime) -> list[Sample]:
    found = await row(conn, COUNT_OUTBOX) or {}
    return [(metrics.OUTBOX_WAITING, (), found["events"])]


async def _credits(conn: Connection, now: datetime) -> list[Sample]:
    reservations = await row(conn, COUNT_RESERVATIONS, {"stale": now - STALE_AFTER}) or {}
    low = await row(conn, COUNT_LOW) or {}
    return [
        (metrics.RESERVATIONS_OPEN, (), reservations["open"]),
        (metrics.RESERVATIONS_STALE, (), reservations["stale"]),
        (metrics.ORGANIZATIONS_LOW, (), low["organizations"]),
    ]


async def _switches(conn: Connection, _now: datetime) -> list[Sample]:
    pauses = await read_pauses(conn)
    return [(metrics.SHOPS_PAUSED, (), len(pauses.shops)), (metrics.DEPLOYMENT_PAUSED, (), pauses.everywhere)]


async def _tasks(conn: Connection, now: datetime) -> list[Sample]:
    samples: list[Sample] = []
    for task in (await read_tasks(conn)).values():
        name = (task.name,)
        runs = task.leased_until is not None and task.leased_until > now
        samples.append((metrics.TASK_OVERDUE, name, 0.0 if runs else _age_s(now, task.next_run_at)))
        samples.append((metrics.TASK_FAILING, name, task.last_error is not None))
        if task.last_run_at is not None:
            samples.append((metrics.TASK_AGE, name, _age_s(now, task.last_run_at)))
    return samples


async def _invariants(conn: Connection, now: datetime) -> list[Sample]:
    checks = await rows(conn, READ_CHECKS, {"invariants": [name for name, _, _ in INVARIANTS]})
    samples: list[Sample] = [(metrics.INVARIANT_BROKEN, (each["invariant"],), each["broken_rows"]) for each in checks]
    if checks:
        samples.append((metrics.INVARIANT_AGE, (), _age_s(now, min(each["checked_at"] for each in checks))))
    return samples


GROUPS: dict[str, Read] = {
    "queue": _queue,
    "in_flight": _in_flight,
    "scan": _scan,
    "inbox": _inbox,
    "outbox": _outbox,
    "credits": _credits,
    "switches": _switches,
    "tasks": _tasks,
    "invariants": _invariants,
}


async def texting_without_credits(conn: Connection, limit: int) -> list[UUID]:
    """Organizations with a shop that is to text and no credit for it. Engine or operator login."""
    return [found["organization_id"] for found in await rows(conn, WITHOUT_CREDITS, {"limit": limit})]


def groups_read(read: Iterable[str]) -> list[Sample]:
    """Which groups could be read and which could not."""
    good = set(read)
    return [(metrics.GAUGES_READ, (group,), group in good) for group in GROUPS]


def _age_s(now: datetime, since: datetime | None) -> float:
    return max((now - since).total_seconds(), 0.0) if since else 0.0
