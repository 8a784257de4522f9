"""After the last kill: let time pass until nothing moves any more, and nothing will."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from cartwake.demo.pace import Steering
from cartwake.jobs.periodic import next_time
from cartwake.kit.clock import VirtualClock
from cartwake.kit.db import ENGINE, row
from cartwake.kit.runtime import Runtime
from cartwake.messages.reconcile import NO_RECEIPT_AFTER
from cartwake.scheduler import TASKS
from chaos.storefronts import Doors

LOOK_EVERY_S = 0.1
PATIENCE_S = 1200.0
CRON = {task.name: task.cron for task in TASKS}
INSTANT = timedelta(microseconds=1)
# What must all have come to its end.
LEFT = ("waiting", "in_doubt", "without_receipt", "events", "pending", "paying")

LOOK = """
SELECT count(*) FILTER (WHERE state IN ('sending', 'unknown')) AS in_doubt,
       count(*) FILTER (WHERE state IN ('scheduled', 'held')) AS waiting,
       count(*) FILTER (WHERE state IN ('accepted', 'sent')) AS without_receipt,
       min(accepted_at) FILTER (WHERE state IN ('accepted', 'sent')) AS accepted_at,
       (SELECT min(next_due_at) FROM sms_shop_queues) AS due_at,
       (SELECT min(scan_at) FROM checkout_sessions WHERE state IN ('open', 'abandoned')) AS scan_at,
       (SELECT count(*) FROM checkout_sessions WHERE state = 'payment_pending') AS paying,
       (SELECT count(*) FROM carrier_events WHERE processed_at IS NULL) AS events
FROM sms_messages
"""


async def look(runtime: Runtime) -> dict[str, Any]:
    """Where everything stands."""
    async with runtime.db.transaction(ENGINE) as conn:
        found = await row(conn, LOOK)
    assert found is not None
    return found


async def drain(
    runtime: Runtime, clock: VirtualClock, doors: Doors, speed: float, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return the last look, once it finds everything at rest; or, after a long time, what is left over.

    The clock keeps its speed while anything is under way, and runs fast across hours in which nothing is due.
    """
    await doors.sandbox("PUT", "/sandbox/faults", {})
    deadline_s = time.monotonic() + PATIENCE_S
    with Steering(clock, speed) as steering:
        while True:
            pending = (await doors.sandbox("GET", "/sandbox", {}))["pending"]
            seen = await look(runtime)
            seen["pending"] = pending
            tell(f"draining: {_left(seen)}")
            if time.monotonic() > deadline_s or _is_over(seen):
                return seen
            if _moves(seen) or (due_at := _next(seen, clock.now())) <= clock.now():
                steering.something_happens()
            else:
                steering.nothing_until(due_at)
            await asyncio.sleep(LOOK_EVERY_S)


def _moves(seen: dict[str, Any]) -> bool:
    return bool(seen["in_doubt"] or seen["events"] or seen["pending"] or seen["paying"])


def _is_over(seen: dict[str, Any]) -> bool:
    return not _moves(seen) and not seen["waiting"] and not seen["without_receipt"] and seen["scan_at"] is None


def _next(seen: dict[str, Any], now: datetime) -> datetime:
    """When something that waits will move: a text that is due, or whatever a task of the scheduler comes to."""
    times = [seen["due_at"]]
    if seen["scan_at"]:
        times.append(next_time(CRON["abandonment_scan"], max(seen["scan_at"] - INSTANT, now)))
    if seen["accepted_at"]:
        times.append(next_time(CRON["missing_receipts"], max(seen["accepted_at"] + NO_RECEIPT_AFTER, now)))
    return min((at for at in times if at is not None), default=now)


def _left(seen: dict[str, Any]) -> str:
    return ", ".join(f"{seen[name]} {name.replace('_', ' ')}" for name in LEFT if seen[name]) or "nothing left"
