"""When each shop's next message is due, and whose turn it is.

The message rows are the jobs; a row per shop says when its next one is due. A claim locks shop rows,
longest unserved first, and takes from each no more than its cycle still allows. So one shop's pile never
starves another, a shop's allowance is counted by one worker at a time, and a shop that is at its cap
waits as a whole, without touching its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cartwake.kit.db import Connection, row, rows
from cartwake.kit.moment import Moment
from cartwake.messages.model import DueMessage
from cartwake.tenants.model import ShopScope

CYCLE = timedelta(minutes=5)  # the abandonment scan's; a shop's cap counts within one
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

OPEN_QUEUE = """
INSERT INTO sms_shop_queues (organization_id, shop_id, next_due_at, turn_at, cycle_started_at, cycle_used)
VALUES (%s, %s, NULL, %s, %s, 0) ON CONFLICT (organization_id, shop_id) DO NOTHING
"""
# Messages joined these shops' queues, the earliest of each at `due_at`.
ADVANCE = """
UPDATE sms_shop_queues q SET next_due_at = LEAST(COALESCE(q.next_due_at, n.due_at), n.due_at)
FROM (
  SELECT q.organization_id, q.shop_id, n.due_at FROM sms_shop_queues q
  JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(due_ats)s::timestamptz[])
    AS n (organization_id, shop_id, due_at) USING (organization_id, shop_id)
  ORDER BY q.organization_id, q.shop_id FOR UPDATE OF q
) AS n
WHERE (q.organization_id, q.shop_id) = (n.organization_id, n.shop_id)
"""
# Shops with something due, none of them paused, longest unserved first, and what their cycle still allows. A row that
# is a cycle ahead was written by a machine whose clock is: that cycle is shared, or each would begin it anew.
TAKE_TURNS = """
SELECT q.organization_id, q.shop_id,
       GREATEST(c.cycle_cap - CASE WHEN q.cycle_started_at IN (%(cycle)s, %(next_cycle)s) THEN q.cycle_used ELSE 0 END,
                0) AS allowance
FROM sms_shop_queues q JOIN shop_sms_configs c USING (organization_id, shop_id)
WHERE q.next_due_at <= %(now)s AND c.paused_at IS NULL AND NOT EXISTS (SELECT FROM deployment_switches)
ORDER BY q.turn_at, q.organization_id, q.shop_id LIMIT %(limit)s
FOR UPDATE OF q SKIP LOCKED
"""
# Each such shop's due messages, oldest first, at most its share.
TAKE_DUE = """
SELECT m.organization_id, m.shop_id, m.message_id, m.session_id, m.step, m.due_at, m.traceparent
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(shares)s::int[]) AS t (organization_id, shop_id, share)
CROSS JOIN LATERAL (
  SELECT * FROM sms_messages m
  WHERE m.organization_id = t.organization_id AND m.shop_id = t.shop_id
    AND m.state IN ('scheduled', 'held') AND m.due_at <= %(now)s
  ORDER BY m.due_at LIMIT t.share
) AS m
"""
# Back in the row: what was spent, and when the shop is next of interest: its next message, but no earlier
# than the next cycle when this one is spent.
END_TURNS = """
UPDATE sms_shop_queues q SET
  turn_at = %(now)s, cycle_started_at = t.cycle, cycle_used = t.used,
  next_due_at = CASE WHEN t.used >= t.cap AND n.due_at IS NOT NULL
                THEN GREATEST(n.due_at, t.cycle + %(cycle_length)s) ELSE n.due_at END
FROM (
  SELECT q.organization_id, q.shop_id, c.cycle_cap AS cap,
         CASE WHEN q.cycle_started_at = %(next_cycle)s THEN q.cycle_started_at ELSE %(cycle)s END AS cycle,
         t.sent + CASE WHEN q.cycle_started_at IN (%(cycle)s, %(next_cycle)s) THEN q.cycle_used ELSE 0 END AS used
  FROM sms_shop_queues q
  JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(sent)s::int[]) AS t (organization_id, shop_id, sent)
    USING (organization_id, shop_id)
  JOIN shop_sms_configs c USING (organization_id, shop_id)
) AS t
CROSS JOIN LATERAL (
  SELECT min(m.due_at) AS due_at FROM sms_messages m
  WHERE m.organization_id = t.organization_id AND m.shop_id = t.shop_id AND m.state IN ('scheduled', 'held')
) AS n
WHERE (q.organization_id, q.shop_id) = (t.organization_id, t.shop_id)
"""
# A paused shop's messages wait where they are; whoever lifts the switch wakes the workers.
NEXT_DUE = """
SELECT min(q.next_due_at) AS next_due_at
FROM sms_shop_queues q JOIN shop_sms_configs c USING (organization_id, shop_id)
WHERE q.next_due_at IS NOT NULL AND c.paused_at IS NULL AND NOT EXISTS (SELECT FROM deployment_switches)
"""


@dataclass(frozen=True)
class Turn:
    """A shop whose turn it is; its queue row is locked until commit."""

    shop: ShopScope
    allowance: int


async def open_queue(conn: Connection, moment: Moment, shop: ShopScope) -> None:
    """A new shop's place in the rotation."""
    await conn.execute(OPEN_QUEUE, [shop.organization_id, shop.shop_id, moment.now, NEVER])


async def advance(conn: Connection, due: Sequence[tuple[ShopScope, datetime]]) -> None:
    """Messages of these shops are due at these times; the queues must not sleep past them."""
    earliest: dict[ShopScope, datetime] = {}
    for shop, due_at in due:
        earliest[shop] = min(due_at, earliest.get(shop, due_at))
    params = _shops(list(earliest)) | {"due_ats": list(earliest.values())}
    await conn.execute(ADVANCE, params)


async def claim(
    conn: Connection, now: datetime, about: int, at_most: int | None = None
) -> tuple[list[Turn], list[DueMessage]]:
    """About so many due messages, in fair shares of the shops whose turn it is, and never more than `at_most`.

    Locks those shops' queue rows until commit; `end_turns` must follow in the same transaction. Shops that
    another worker holds are passed over.
    """
    limit = about if at_most is None else min(about, at_most)
    found = await rows(conn, TAKE_TURNS, _cycles(now) | {"now": now, "limit": limit})
    turns = [Turn(ShopScope(each["organization_id"], each["shop_id"]), each["allowance"]) for each in found]
    if not turns:
        return [], []
    share = -(-limit // len(turns)) if limit == about else limit // len(turns)
    shares = [min(turn.allowance, share) for turn in turns]
    params = _shops([turn.shop for turn in turns]) | {"shares": shares, "now": now}
    return turns, [DueMessage.of(each) for each in await rows(conn, TAKE_DUE, params)]


async def end_turns(conn: Connection, now: datetime, turns: Sequence[Turn], sent: dict[ShopScope, int]) -> None:
    """Count what each shop sent in this cycle and find when it is next of interest."""
    params = _shops([turn.shop for turn in turns]) | _cycles(now)
    params |= {"sent": [sent.get(turn.shop, 0) for turn in turns], "now": now, "cycle_length": CYCLE}
    await conn.execute(END_TURNS, params)


async def next_due(conn: Connection) -> datetime | None:
    """When the next message of any shop is due; None when nothing waits."""
    found = await row(conn, NEXT_DUE)
    return found["next_due_at"] if found else None


def cycle_of(now: datetime) -> datetime:
    """The beginning of the 5-minute cycle that `now` lies in."""
    return now - (now - NEVER) % CYCLE


def _cycles(now: datetime) -> dict[str, datetime]:
    return {"cycle": cycle_of(now), "next_cycle": cycle_of(now) + CYCLE}


def _shops(shops: Sequence[ShopScope]) -> dict[str, object]:
    return {"organizations": [s.organization_id for s in shops], "shops": [s.shop_id for s in shops]}
