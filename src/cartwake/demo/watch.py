"""Looking at the engine, and never touching it: what waits, what moves, and where every cart stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cartwake.kit.db import ENGINE, row, rows
from cartwake.kit.runtime import Runtime
from cartwake.messages.model import ENDED

# Every cart of the demonstration (it has the database for itself) and its text.
CARTS = """
SELECT s.external_id, s.state AS cart, s.refusal, s.abandoned_at, s.attribution, s.updated_at AS cart_at,
       m.state AS text, m.reason, m.due_at, m.segments, m.credits, m.accepted_at, m.carrier_sid,
       m.updated_at AS text_at
FROM checkout_sessions s LEFT JOIN sms_messages m USING (organization_id, shop_id, session_id)
"""
# When something is due, and whether anything is under way.
ENGINE_ROOM = """
SELECT (SELECT min(next_due_at) FROM sms_shop_queues) AS next_due_at,
       (SELECT min(scan_at) FROM checkout_sessions WHERE state IN ('open', 'abandoned')) AS scan_at,
       EXISTS (SELECT FROM sms_messages WHERE NOT state = ANY(%s) AND state NOT IN ('scheduled', 'held'))
         OR EXISTS (SELECT FROM carrier_events WHERE processed_at IS NULL) AS under_way,
       (SELECT COALESCE(sum(available_credits), 0)::bigint FROM org_sms_credit_balances) AS available_credits,
       (SELECT COALESCE(sum(credits), 0)::bigint FROM sms_credit_reservations WHERE state = 'reserved')
         AS reserved_credits
"""


@dataclass(frozen=True)
class Cart:
    """Where one cart and its text stand; everything about the text is None while there is none."""

    external_id: str
    cart: str
    refusal: str | None
    abandoned_at: datetime | None
    attribution: str | None
    cart_at: datetime
    text: str | None
    reason: str | None
    due_at: datetime | None
    segments: int | None
    credits: int | None
    accepted_at: datetime | None
    carrier_sid: str | None
    text_at: datetime | None


@dataclass(frozen=True)
class Look:
    """One look at everything."""

    carts: dict[str, Cart]
    next_due_at: datetime | None
    scan_at: datetime | None
    under_way: bool  # a text at the carrier, or news of one that nobody has worked off
    available_credits: int
    reserved_credits: int

    @property
    def at_rest(self) -> bool:
        """Nothing moves, and nothing will by itself, save that old carts expire."""
        return not self.under_way and self.next_due_at is None and self.scan_at is None


async def look(runtime: Runtime) -> Look:
    """Look once."""
    async with runtime.db.transaction(ENGINE) as conn:
        carts = [Cart(**found) for found in await rows(conn, CARTS)]
        engine_room = await row(conn, ENGINE_ROOM, [list(ENDED)])
    assert engine_room is not None
    return Look({cart.external_id: cart for cart in carts}, **engine_room)
