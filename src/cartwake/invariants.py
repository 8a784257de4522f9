"""What must always be true, as read-only queries that return whatever contradicts it.

Tests, the hourly job and `cartwake audit` share them. They look across rooms on purpose: most of what can
go wrong goes wrong between two of them. Each is one statement, so it sees one moment even while others
write, and each names the guarantee that it watches. What only a reading of every consent event tells is apart, in
`broken_proofs`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cartwake.consent import invariants as consents
from cartwake.credits import invariants as credits
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows

# G2: credits that are reserved belong to a text that is in flight, and to no other.
OPEN_RESERVATION_WITHOUT_FLIGHT = """
SELECT r.organization_id, r.reservation_id, m.message_id, m.state
FROM sms_credit_reservations r
LEFT JOIN sms_messages m ON m.organization_id = r.organization_id AND m.attempt_id = r.reservation_id
WHERE r.account = 'sms' AND r.state = 'reserved' AND (m.state IS NULL OR m.state NOT IN ('sending', 'unknown'))
"""
# G2: a text in flight has reserved exactly what it costs.
FLIGHT_WITHOUT_RESERVATION = """
SELECT m.organization_id, m.message_id, m.state, m.credits, r.state AS reservation, r.credits AS reserved
FROM sms_messages m
LEFT JOIN sms_credit_reservations r
  ON r.organization_id = m.organization_id AND r.account = 'sms' AND r.reservation_id = m.attempt_id
WHERE m.state IN ('sending', 'unknown') AND (r.state IS DISTINCT FROM 'reserved' OR r.credits <> m.credits)
"""
# G2: what the carrier took was paid for; what it refused was not.
ENDED_WITH_WRONG_RESERVATION = """
SELECT m.organization_id, m.message_id, m.state, r.state AS reservation
FROM sms_messages m
LEFT JOIN sms_credit_reservations r
  ON r.organization_id = m.organization_id AND r.account = 'sms' AND r.reservation_id = m.attempt_id
WHERE m.state IN ('accepted', 'sent', 'delivered', 'undelivered', 'failed', 'delivery_unknown')
      AND r.state IS DISTINCT FROM 'confirmed'
   OR m.state IN ('rejected', 'not_accepted', 'unresolved') AND r.state IS DISTINCT FROM 'released'
"""
# G3: one cart, one accepted text of each kind and step.
ACCEPTED_TWICE = """
SELECT organization_id, subject_id AS message_id, count(*) AS acceptances
FROM sms_credit_reservations WHERE account = 'sms' AND state = 'confirmed'
GROUP BY organization_id, subject_id HAVING count(*) > 1
"""
# G4: when a text was claimed, the last word of that phone to that shop was yes. Clocks of two machines differ: a yes
# that looks a little younger than the claim was there, and a no that looks a little older may have come after it;
# the locks decide, to the instant. One pass over both sides, for the planner may have no statistics: a database
# that has just recovered has none, and asking anew for each message then reads every consent for each.
TEXTED_WITHOUT_CONSENT = """
SELECT m.organization_id, m.shop_id, m.message_id, m.attempted_at,
  max(c.at) FILTER (WHERE c.is_yes AND c.at < m.attempted_at + interval '5 seconds') AS yes_at,
  max(c.at) FILTER (WHERE NOT c.is_yes AND c.at < m.attempted_at - interval '5 seconds') AS no_at
FROM sms_messages m
LEFT JOIN (
  SELECT organization_id, shop_id, v.phone_hash, e.at, e.action IN ('granted', 'unsuppressed') AS is_yes
  FROM consent_events e JOIN consent_evidence v USING (organization_id, shop_id, event_id)
) AS c ON (c.organization_id, c.shop_id, c.phone_hash) = (m.organization_id, m.shop_id, m.phone_hash)
WHERE m.attempt_id IS NOT NULL
GROUP BY m.organization_id, m.shop_id, m.message_id, m.attempted_at
HAVING COALESCE(max(c.at) FILTER (WHERE NOT c.is_yes AND c.at < m.attempted_at - interval '5 seconds')
  >= max(c.at) FILTER (WHERE c.is_yes AND c.at < m.attempted_at + interval '5 seconds'), false)
  OR max(c.at) FILTER (WHERE c.is_yes AND c.at < m.attempted_at + interval '5 seconds') IS NULL
"""
# G5: nothing was claimed at or after the end of the window that it was claimed for.
CLAIMED_OUTSIDE_WINDOW = """
SELECT organization_id, message_id, attempted_at, send_until FROM sms_messages
WHERE attempt_id IS NOT NULL AND attempted_at >= send_until
"""
# G7: one text per phone and day, whichever shops sent them.
RECIPIENT_TEXTED_TWICE_A_DAY = """
SELECT message_id, attempted_at, previous_at FROM (
  SELECT message_id, attempted_at, lag(attempted_at) OVER (PARTITION BY phone_hash ORDER BY attempted_at) AS previous_at
  FROM sms_messages
  WHERE attempt_id IS NOT NULL AND state NOT IN ('rejected', 'not_accepted', 'unresolved')
) AS t
WHERE attempted_at < previous_at + interval '24 hours'
"""
# G7: no shop sent more in a cycle than its cap.
SHOP_OVER_CAP = """
SELECT q.organization_id, q.shop_id, q.cycle_used, c.cycle_cap
FROM sms_shop_queues q JOIN shop_sms_configs c USING (organization_id, shop_id)
WHERE q.cycle_used > GREATEST(c.cycle_cap, 100)
"""
# Nothing is forgotten: a shop's queue wakes no later than its next message, unless its cycle is spent.
QUEUE_SLEEPS_PAST_MESSAGE = """
SELECT q.organization_id, q.shop_id, q.next_due_at, n.due_at
FROM sms_shop_queues q
CROSS JOIN LATERAL (
  SELECT min(m.due_at) AS due_at FROM sms_messages m
  WHERE m.organization_id = q.organization_id AND m.shop_id = q.shop_id AND m.state IN ('scheduled', 'held')
) AS n
WHERE n.due_at IS NOT NULL
  AND (q.next_due_at IS NULL
       OR q.next_due_at > GREATEST(n.due_at, q.cycle_started_at + interval '5 minutes'))
"""
# Nothing is forgotten: a shop that waits to be told something has a queue that will wake.
OUTBOX_SLEEPS = """
SELECT e.organization_id, e.shop_id, e.event_id, e.due_at
FROM outbox_events e LEFT JOIN shop_webhooks w USING (organization_id, shop_id)
WHERE e.state = 'waiting' AND w.next_due_at IS NULL
"""

# What the last look came to, for whoever watches the deployment.
NOTE_CHECKS = """
INSERT INTO invariant_checks AS c (invariant, broken_rows, checked_at)
SELECT invariant, broken_rows, %(now)s
FROM unnest(%(invariants)s::text[], %(counts)s::int[]) AS n (invariant, broken_rows)
ORDER BY invariant
ON CONFLICT (invariant) DO UPDATE SET broken_rows = EXCLUDED.broken_rows, checked_at = EXCLUDED.checked_at
"""

Query = Callable[[Connection, datetime], Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold, with the rows that show it."""

    name: str
    guarantee: str
    rows: list[dict[str, Any]]


async def broken_invariants(conn: Connection, now: datetime) -> list[Broken]:
    """Every invariant that does not hold, with its evidence; empty when all is well. Engine login."""
    found = [Broken(name, guarantee, await query(conn, now)) for name, guarantee, query in INVARIANTS]
    return [broken for broken in found if broken.rows]


async def broken_proofs(conn: Connection, vault: Vault) -> list[Broken]:
    """What of `PROOFS` does not hold. It reads every consent event there is, so `cartwake audit` alone asks."""
    found = [Broken(name, guarantee, await query(conn, vault)) for name, guarantee, query in PROOFS]
    return [broken for broken in found if broken.rows]


async def note_checks(conn: Connection, now: datetime, broken: Sequence[Broken]) -> None:
    """Remember what a look at every invariant came to. Engine login."""
    counts = {name: 0 for name, _, _ in INVARIANTS} | {each.name: len(each.rows) for each in broken}
    await conn.execute(NOTE_CHECKS, {"now": now, "invariants": list(counts), "counts": list(counts.values())})


def _asks(statement: str) -> Query:
    async def query(conn: Connection, _now: datetime) -> list[dict[str, Any]]:
        return await rows(conn, statement)

    return query


INVARIANTS: tuple[tuple[str, str, Query], ...] = (
    ("balance_is_the_ledgers_sum", "G1 G2", lambda conn, _: credits.balances_off_ledger(conn)),
    ("ledger_chains", "G2", lambda conn, _: credits.broken_chains(conn)),
    ("reservations_match_the_ledger", "G2", lambda conn, _: credits.reservations_off_ledger(conn)),
    ("open_reservations_are_in_flight", "G2", _asks(OPEN_RESERVATION_WITHOUT_FLIGHT)),
    ("in_flight_is_reserved", "G2", _asks(FLIGHT_WITHOUT_RESERVATION)),
    ("ended_is_settled", "G2", _asks(ENDED_WITH_WRONG_RESERVATION)),
    ("accepted_once", "G3", _asks(ACCEPTED_TWICE)),
    ("texted_with_consent", "G4", _asks(TEXTED_WITHOUT_CONSENT)),
    ("claimed_inside_the_window", "G5", _asks(CLAIMED_OUTSIDE_WINDOW)),
    ("one_text_per_phone_and_day", "G7", _asks(RECIPIENT_TEXTED_TWICE_A_DAY)),
    ("shops_within_their_cap", "G7", _asks(SHOP_OVER_CAP)),
    ("consent_heads_are_the_last_links", "G10", lambda conn, _: consents.heads_off_their_links(conn)),
    ("newest_consents_chain", "G10", consents.broken_newest_links),
    ("queues_wake_in_time", "nothing is lost", _asks(QUEUE_SLEEPS_PAST_MESSAGE)),
    ("the_outbox_wakes", "nothing is lost", _asks(OUTBOX_SLEEPS)),
)

# Checked with the secret keys, and by reading everything: not every hour.
PROOFS: tuple[tuple[str, str, Callable[[Connection, Vault], Awaitable[list[dict[str, Any]]]]], ...] = (
    ("consents_chain", "G10", consents.broken_links),
    ("every_consent_is_chained", "G10", lambda conn, _: consents.forgotten_events(conn)),
)
