"""The SQL of room `consent`. Every change locks its state row, and dispatch shares that lock while it claims."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.consent.model import Action, Channel, ConsentChange, ConsentEvent, ConsentState
from cartwake.kit.db import Connection, row, rows

# Rows are taken in one order everywhere, so that two batches cannot wait for each other. Each of these answers the
# time of the last event of every row that it changed, for `INSERT_EVENTS` to stamp the new one later than that; a
# row that is new has had none, and stands for the moment before this one until then.
_CHANGED = """
WITH changed AS (
  SELECT DISTINCT * FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(phones)s::bytea[])
    AS c (organization_id, shop_id, phone_hash)
  ORDER BY 1, 2, 3
)
"""
# A box was ticked. A suppression stays: only START lifts it.
GRANT = (
    _CHANGED
    + """
INSERT INTO consent_states AS s (organization_id, shop_id, phone_hash, state, state_at)
SELECT organization_id, shop_id, phone_hash, 'granted', %(before)s FROM changed
ON CONFLICT (organization_id, shop_id, phone_hash)
DO UPDATE SET state = 'granted'
RETURNING s.organization_id, s.shop_id, s.phone_hash, s.state_at
"""
)
# Consent was taken back; a later box may give it again. It is one more no to a phone that said STOP: a START from
# before it, that no worker has got to yet, lifts nothing.
WITHDRAW = (
    _CHANGED
    + """
INSERT INTO consent_states AS s (organization_id, shop_id, phone_hash, state, state_at)
SELECT organization_id, shop_id, phone_hash, 'withdrawn', %(before)s FROM changed
ON CONFLICT (organization_id, shop_id, phone_hash)
DO UPDATE SET state = 'withdrawn',
  suppressed_at = CASE WHEN s.suppressed_at IS NOT NULL THEN GREATEST(s.suppressed_at, %(said_at)s) END
RETURNING s.organization_id, s.shop_id, s.phone_hash, s.state_at
"""
)
# STOP and its like, from the moment that it was said, or from that of a withdrawal which was told after it and worked
# off before it. An unreachable number says nothing about consent, so its state is left alone.
SUPPRESS = (
    _CHANGED
    + """
INSERT INTO consent_states AS s
  (organization_id, shop_id, phone_hash, state, state_at, suppressed_at, suppression_reason)
SELECT organization_id, shop_id, phone_hash, 'withdrawn', %(before)s, %(said_at)s, %(reason)s FROM changed
ON CONFLICT (organization_id, shop_id, phone_hash) DO UPDATE SET
  state = CASE WHEN EXCLUDED.suppression_reason = 'unreachable' THEN s.state ELSE 'withdrawn' END,
  suppressed_at = GREATEST(s.suppressed_at, EXCLUDED.suppressed_at,
    CASE WHEN s.state = 'withdrawn' AND s.suppressed_at IS NULL THEN s.state_at END),
  suppression_reason = CASE WHEN s.suppression_reason IN ('stop', 'not_my_number')
    THEN s.suppression_reason ELSE EXCLUDED.suppression_reason END
RETURNING s.organization_id, s.shop_id, s.phone_hash, s.state_at
"""
)
# START takes back a STOP that was said before it, and is itself the owner's consent. Another worker may have
# recorded a later STOP already. It does not touch "not my number".
UNSUPPRESS = (
    _CHANGED
    + """
UPDATE consent_states s
SET state = 'granted', suppressed_at = NULL, suppression_reason = NULL
FROM changed c
WHERE (s.organization_id, s.shop_id, s.phone_hash) = (c.organization_id, c.shop_id, c.phone_hash)
  AND s.suppression_reason IN ('stop', 'carrier_opt_out') AND s.suppressed_at <= %(said_at)s
RETURNING s.organization_id, s.shop_id, s.phone_hash, s.state_at
"""
)
# What a shopper has said is said again: nothing new, but from now on.
SAY_AGAIN = """
UPDATE consent_states SET suppressed_at = GREATEST(suppressed_at, %s)
WHERE suppression_reason IN (%s, 'not_my_number') AND organization_id = %s AND shop_id = %s AND phone_hash = %s
RETURNING suppression_reason
"""
CHANGES = {
    Action.GRANTED: GRANT,
    Action.WITHDRAWN: WITHDRAW,
    Action.SUPPRESSED: SUPPRESS,
    Action.UNSUPPRESSED: UNSUPPRESS,
}
# The events of rows that the transaction has locked, each later than the last one of its row: `state_at` says when
# that was. What awaits sealing is written with them, in the one statement.
INSERT_EVENTS = """
WITH e AS (
  SELECT * FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(phones)s::bytea[], %(events)s::uuid[],
                       %(commitments)s::bytea[], %(ats)s::timestamptz[])
    AS e (organization_id, shop_id, phone_hash, event_id, commitment, at)
), stamped AS (
  UPDATE consent_states s SET state_at = e.at FROM e
  WHERE (s.organization_id, s.shop_id, s.phone_hash) = (e.organization_id, e.shop_id, e.phone_hash)
), written AS (
  INSERT INTO consent_events (organization_id, shop_id, event_id, action, channel, commitment, at)
  SELECT organization_id, shop_id, event_id, %(action)s, %(channel)s, commitment, at FROM e
  RETURNING organization_id, shop_id, at, event_id
)
INSERT INTO consent_unsealed (organization_id, shop_id, at, event_id) SELECT * FROM written
"""
INSERT_EVIDENCE = """
INSERT INTO consent_evidence (organization_id, shop_id, event_id, phone_hash, salt, evidence_sealed)
SELECT * FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(events)s::uuid[], %(phones)s::bytea[],
                     %(salts)s::bytea[], %(evidence)s::bytea[])
"""
# The latest evidence of each phone that says which phone it is.
READ_LATEST_EVIDENCE = """
SELECT c.organization_id, c.shop_id, c.phone_hash, v.evidence_sealed
FROM (
  SELECT DISTINCT * FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(phones)s::bytea[])
    AS c (organization_id, shop_id, phone_hash)
) AS c
CROSS JOIN LATERAL (
  SELECT v.evidence_sealed FROM consent_evidence v
  WHERE (v.organization_id, v.shop_id, v.phone_hash) = (c.organization_id, c.shop_id, c.phone_hash)
  ORDER BY v.event_id DESC LIMIT 1
) AS v
"""
SUPPRESS_EVERYWHERE = """
SELECT suppress_phone_everywhere(%s, %s)
"""
# What holds for each phone. With the share lock, a withdrawal waits for the claim, or the claim for it.
READ_STATES_LOCKED = """
SELECT s.organization_id, s.shop_id, s.phone_hash, s.state = 'granted' AS granted, s.suppression_reason
FROM consent_states s
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(phones)s::bytea[])
  AS c (organization_id, shop_id, phone_hash) USING (organization_id, shop_id, phone_hash)
ORDER BY s.organization_id, s.shop_id, s.phone_hash
FOR SHARE OF s
"""
READ_STATE = """
SELECT state = 'granted' AS granted, suppression_reason FROM consent_states
WHERE organization_id = %s AND shop_id = %s AND phone_hash = %s
"""
# Phones that no shop of the deployment may text.
READ_SUPPRESSED_EVERYWHERE = """
SELECT phone_hash FROM suppressed_phones WHERE phone_hash = ANY(%s)
"""
# What a phone said to a shop, newest first.
READ_EVENTS = """
SELECT e.at, e.action, e.channel
FROM consent_evidence v JOIN consent_events e USING (organization_id, shop_id, event_id)
WHERE v.organization_id = %s AND v.shop_id = %s AND v.phone_hash = %s
ORDER BY e.at DESC LIMIT %s
"""

StateKey = tuple[UUID, UUID, bytes]
INSTANT = timedelta(microseconds=1)  # the least that PostgreSQL tells apart


async def change_states(
    conn: Connection,
    now: datetime,
    action: Action,
    changes: Sequence[ConsentChange],
    *,
    reason: str | None = None,
    said_at: datetime,
) -> dict[StateKey, datetime]:
    """Apply one action to many phones; which changed, and when the event before this one was, if there was one.

    Their rows are locked when this returns. Hence the answer is always fetched: in a pipeline, a statement that
    nobody asks about has not run yet.
    """
    params = _columns(changes) | {"before": now - INSTANT, "reason": reason, "said_at": said_at}
    return {
        (found["organization_id"], found["shop_id"], found["phone_hash"]): found["state_at"]
        for found in await rows(conn, CHANGES[action], params)
    }


async def say_again(conn: Connection, now: datetime, reason: str, key: StateKey) -> bool:
    """Whether the phone is suppressed for this reason or for a stronger one; if so, as of now."""
    return await row(conn, SAY_AGAIN, [now, reason, *key]) is not None


async def insert_events(
    conn: Connection,
    action: Action,
    channel: Channel,
    changes: Sequence[ConsentChange],
    *,
    proofs: dict[str, list[Any]],
) -> None:
    """`proofs` holds the columns `events`, `ats`, `commitments`, `salts` and `evidence`, one entry per change."""
    params = _columns(changes) | proofs | {"action": action, "channel": channel}
    await conn.execute(INSERT_EVENTS, params)
    await conn.execute(INSERT_EVIDENCE, params)


async def read_latest_evidence(conn: Connection, changes: Sequence[ConsentChange]) -> dict[StateKey, bytes]:
    """The sealed evidence of the last event of each change's phone, where there is one."""
    return {
        (found["organization_id"], found["shop_id"], found["phone_hash"]): found["evidence_sealed"]
        for found in await rows(conn, READ_LATEST_EVIDENCE, _columns(changes))
    }


async def read_states_locked(conn: Connection, keys: Sequence[StateKey]) -> dict[StateKey, ConsentState]:
    organizations, shops, phones = zip(*keys, strict=True) if keys else ((), (), ())
    params = {"organizations": list(organizations), "shops": list(shops), "phones": list(phones)}
    return {
        (found["organization_id"], found["shop_id"], found["phone_hash"]): _state(found)
        for found in await rows(conn, READ_STATES_LOCKED, params)
    }


async def read_state(conn: Connection, key: StateKey) -> ConsentState | None:
    found = await row(conn, READ_STATE, key)
    return _state(found) if found else None


async def read_events(conn: Connection, key: StateKey, limit: int) -> list[ConsentEvent]:
    return [ConsentEvent(**found) for found in await rows(conn, READ_EVENTS, [*key, limit])]


async def read_suppressed_everywhere(conn: Connection, phones: Sequence[bytes]) -> set[bytes]:
    return {found["phone_hash"] for found in await rows(conn, READ_SUPPRESSED_EVERYWHERE, [list(phones)])}


def _state(found: dict[str, Any]) -> ConsentState:
    return ConsentState(granted=found["granted"], suppression=found["suppression_reason"])


def _columns(changes: Sequence[ConsentChange]) -> dict[str, list[Any]]:
    return {
        "organizations": [change.organization_id for change in changes],
        "shops": [change.shop_id for change in changes],
        "phones": [change.phone_hash for change in changes],
    }
