"""The SQL of the chain: what awaits sealing, the links, the heads; and reading them back with their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cartwake.consent.chain import Head
from cartwake.kit.db import Connection, row, rows

# The shops of the next window of what awaits sealing, and how far each goes in it. By the key, so that no window is
# larger than another and a shop with a million events delays nobody.
READ_WINDOW = """
WITH waiting AS (
  SELECT organization_id, shop_id, at, event_id FROM consent_unsealed
  WHERE (organization_id, shop_id, at, event_id) > (%(organization_id)s, %(shop_id)s, %(at)s, %(event_id)s)
  ORDER BY organization_id, shop_id, at, event_id LIMIT %(limit)s
)
SELECT DISTINCT ON (organization_id, shop_id) organization_id, shop_id, at, event_id, count(*) OVER () AS window_size
FROM waiting ORDER BY organization_id, shop_id, at DESC, event_id DESC
"""
# A shop's first events: its chain begins. In order, so that two sealers cannot wait for each other; for shops without
# a chain alone, for an insert that runs into a row waits for whoever is changing that row.
BEGIN_CHAINS = """
INSERT INTO consent_chains (organization_id, shop_id, position)
SELECT organization_id, shop_id, 0 FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[])
  AS s (organization_id, shop_id)
WHERE NOT EXISTS (SELECT FROM consent_chains c
                  WHERE (c.organization_id, c.shop_id) = (s.organization_id, s.shop_id))
ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""
# The heads that nobody else is sealing at, held until commit.
LOCK_HEADS = """
SELECT c.organization_id, c.shop_id, c.position, c.head, c.sealed_at
FROM consent_chains c
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS s (organization_id, shop_id)
  USING (organization_id, shop_id)
ORDER BY 1, 2
FOR UPDATE OF c SKIP LOCKED
"""
# What awaits sealing in those shops: read once their heads are held, so another sealer's work is not done again. From
# each shop's first on, so that what one phone said is chained in the order in which it was said.
READ_UNSEALED = """
SELECT u.organization_id, u.shop_id, u.event_id, u.at AS waits_at, e.at, e.action, e.channel, e.commitment
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(ats)s::timestamptz[], %(events)s::uuid[])
  AS s (organization_id, shop_id, last_at, last_event_id)
JOIN consent_unsealed u ON (u.organization_id, u.shop_id) = (s.organization_id, s.shop_id)
  AND (u.at, u.event_id) <= (s.last_at, s.last_event_id)
CROSS JOIN LATERAL (
  SELECT * FROM consent_events e
  WHERE (e.organization_id, e.shop_id, e.event_id) = (u.organization_id, u.shop_id, u.event_id) LIMIT 1
) AS e
ORDER BY u.organization_id, u.shop_id, u.at, u.event_id LIMIT %(limit)s
"""
INSERT_LINKS = """
INSERT INTO consent_links (organization_id, shop_id, position, event_id, link, sealed_at)
SELECT * FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(positions)s::bigint[], %(events)s::uuid[],
                     %(links)s::bytea[], %(sealed_ats)s::timestamptz[])
"""
MOVE_HEADS = """
UPDATE consent_chains c SET position = s.position, head = s.head, sealed_at = s.sealed_at
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(positions)s::bigint[], %(heads)s::bytea[],
            %(sealed_ats)s::timestamptz[]) AS s (organization_id, shop_id, position, head, sealed_at)
WHERE (c.organization_id, c.shop_id) = (s.organization_id, s.shop_id)
"""
DELETE_UNSEALED = """
DELETE FROM consent_unsealed u
USING unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(ats)s::timestamptz[], %(events)s::uuid[])
  AS s (organization_id, shop_id, at, event_id)
WHERE (u.organization_id, u.shop_id, u.at, u.event_id) = (s.organization_id, s.shop_id, s.at, s.event_id)
"""
READ_HEAD = """
SELECT position, head, sealed_at FROM consent_chains WHERE organization_id = %s AND shop_id = %s
"""
OLDEST_UNSEALED = """
SELECT min(at) AS at FROM consent_unsealed
"""
# Links with their events and the evidence that is still there; an event that is gone shows as nulls. The page is cut
# first and the rest looked up by key, whatever is believed of tables that have just grown: planned as a join, each page
# of a young chain read every event there is.
_PAGE = """
WITH page AS MATERIALIZED (
  SELECT * FROM consent_links
"""
_WITH_EVENTS = """
)
SELECT l.organization_id, l.shop_id, l.position, l.event_id, l.link, l.sealed_at,
  e.action, e.channel, e.at, e.commitment, v.phone_hash, v.salt, v.evidence_sealed
FROM page l
LEFT JOIN LATERAL (
  SELECT * FROM consent_events e
  WHERE (e.organization_id, e.shop_id, e.event_id) = (l.organization_id, l.shop_id, l.event_id) LIMIT 1
) AS e ON true
LEFT JOIN LATERAL (
  SELECT * FROM consent_evidence v
  WHERE (v.organization_id, v.shop_id, v.event_id) = (l.organization_id, l.shop_id, l.event_id) LIMIT 1
) AS v ON true
ORDER BY l.organization_id, l.shop_id, l.position
"""
# Of one shop. By equality: beside the wall's own condition, a comparison of rows would begin at the first link again.
READ_LINKS = (
    _PAGE
    + """
  WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND position > %(position)s
  ORDER BY position LIMIT %(limit)s
"""
    + _WITH_EVENTS
)
# Of every shop.
READ_EVERY_LINK = (
    _PAGE
    + """
  WHERE (organization_id, shop_id, position) > (%(organization_id)s, %(shop_id)s, %(position)s)
  ORDER BY organization_id, shop_id, position LIMIT %(limit)s
"""
    + _WITH_EVENTS
)
GREW = """
SELECT organization_id, shop_id FROM consent_chains WHERE sealed_at > %(since)s ORDER BY organization_id, shop_id
"""
# The newest links of some shops' chains: `depth` of each, and the one before those.
READ_NEWEST_LINKS = """
SELECT l.organization_id, l.shop_id, l.position, l.event_id, l.link, l.sealed_at,
  e.action, e.channel, e.at, e.commitment
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS s (organization_id, shop_id)
JOIN consent_chains c USING (organization_id, shop_id)
CROSS JOIN LATERAL (
  SELECT * FROM consent_links l
  WHERE (l.organization_id, l.shop_id) = (c.organization_id, c.shop_id) AND l.position >= c.position - %(depth)s
) AS l
LEFT JOIN LATERAL (
  SELECT * FROM consent_events e
  WHERE (e.organization_id, e.shop_id, e.event_id) = (l.organization_id, l.shop_id, l.event_id) LIMIT 1
) AS e ON true
ORDER BY l.organization_id, l.shop_id, l.position
"""
# Heads that are not where their chain ends, and chains without a head. The last link is found by its key.
HEADS_OFF_THEIR_LINKS = """
SELECT organization_id, shop_id, c.position, c.head, l.position AS last_position, l.link AS last_link
FROM (SELECT organization_id, shop_id FROM shops) AS s
LEFT JOIN consent_chains c USING (organization_id, shop_id)
LEFT JOIN LATERAL (
  SELECT l.position, l.link FROM consent_links l
  WHERE (l.organization_id, l.shop_id) = (s.organization_id, s.shop_id) ORDER BY l.position DESC LIMIT 1
) AS l ON true
WHERE (COALESCE(c.position, 0), c.head) IS DISTINCT FROM (COALESCE(l.position, 0), l.link)
LIMIT %(limit)s
"""
# Events that are neither in their shop's chain nor waiting to be.
FORGOTTEN_EVENTS = """
SELECT organization_id, shop_id, e.event_id, e.at FROM consent_events e
LEFT JOIN consent_links l USING (organization_id, shop_id, event_id)
LEFT JOIN consent_unsealed u USING (organization_id, shop_id, event_id)
WHERE l.event_id IS NULL AND u.event_id IS NULL
LIMIT %(limit)s
"""
# What awaits sealing, with the evidence that is still there.
READ_WAITING = """
WITH page AS MATERIALIZED (
  SELECT * FROM consent_unsealed
  WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND (at, event_id) > (%(at)s, %(event_id)s)
  ORDER BY at, event_id LIMIT %(limit)s
)
SELECT u.organization_id, u.shop_id, u.event_id, u.at AS waits_at, e.action, e.channel, e.at, e.commitment,
  v.phone_hash, v.salt, v.evidence_sealed
FROM page u
CROSS JOIN LATERAL (
  SELECT * FROM consent_events e
  WHERE (e.organization_id, e.shop_id, e.event_id) = (u.organization_id, u.shop_id, u.event_id) LIMIT 1
) AS e
LEFT JOIN LATERAL (
  SELECT * FROM consent_evidence v
  WHERE (v.organization_id, v.shop_id, v.event_id) = (u.organization_id, u.shop_id, u.event_id) LIMIT 1
) AS v ON true
ORDER BY u.at, u.event_id
"""

# Before every id and every time.
NOBODY = UUID(int=0)
EVER = datetime.min.replace(tzinfo=UTC)

Link = tuple[UUID, UUID, int]  # organization, shop, position


@dataclass(frozen=True)
class Place:
    """Where among all that awaits sealing a window ends."""

    organization_id: UUID = NOBODY
    shop_id: UUID = NOBODY
    at: datetime = EVER
    event_id: UUID = NOBODY


@dataclass(frozen=True)
class NewLink:
    """An event's link, to be stored."""

    organization_id: UUID
    shop_id: UUID
    position: int
    event_id: UUID
    waits_at: datetime  # by which it is found again among what awaits sealing
    link: bytes
    sealed_at: datetime


async def read_window(conn: Connection, after: Place, limit: int) -> list[dict[str, Any]]:
    """Shops with something to seal, each with its last event in the window, and how large the window is."""
    return await rows(conn, READ_WINDOW, vars(after) | {"limit": limit})


async def lock_heads(conn: Connection, shops: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The heads of those shops' chains that nobody else holds; new ones for shops without a chain."""
    params = _shops(shops)
    await conn.execute(BEGIN_CHAINS, params)
    return await rows(conn, LOCK_HEADS, params)


async def read_unsealed(conn: Connection, shops: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """What awaits sealing in shops whose heads are held: by shop, and in each by time."""
    last = {"ats": [each["at"] for each in shops], "events": [each["event_id"] for each in shops]}
    return await rows(conn, READ_UNSEALED, _shops(shops) | last | {"limit": limit})


async def store_links(conn: Connection, links: Sequence[NewLink]) -> None:
    """Add links, in order, to chains whose heads are held; their events do not wait any more."""
    params = {
        "organizations": [link.organization_id for link in links],
        "shops": [link.shop_id for link in links],
        "positions": [link.position for link in links],
        "events": [link.event_id for link in links],
        "ats": [link.waits_at for link in links],
        "links": [link.link for link in links],
        "sealed_ats": [link.sealed_at for link in links],
    }
    await conn.execute(INSERT_LINKS, params)
    last = list({(link.organization_id, link.shop_id): link for link in links}.values())
    heads = {
        "organizations": [link.organization_id for link in last],
        "shops": [link.shop_id for link in last],
        "positions": [link.position for link in last],
        "heads": [link.link for link in last],
        "sealed_ats": [link.sealed_at for link in last],
    }
    await conn.execute(MOVE_HEADS, heads)
    await conn.execute(DELETE_UNSEALED, params)


async def read_head(conn: Connection, organization_id: UUID, shop_id: UUID) -> Head | None:
    """Where a shop's chain stands; None when it has not begun."""
    found = await row(conn, READ_HEAD, [organization_id, shop_id])
    return Head(**found) if found and found["head"] else None


async def read_links(conn: Connection, after: Link, limit: int) -> list[dict[str, Any]]:
    """The next links of a shop's chain, with events and evidence."""
    return await rows(conn, READ_LINKS, _after(after, limit))


async def read_newest_links(conn: Connection, shops: Sequence[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
    """The last `depth` links of each of these shops' chains, and the one before, with events. Engine login."""
    return await rows(conn, READ_NEWEST_LINKS, _shops(shops) | {"depth": depth})


async def read_every_link(conn: Connection, after: Link, limit: int) -> list[dict[str, Any]]:
    """The next links, of whichever shop's chain, with events and evidence. Engine login."""
    return await rows(conn, READ_EVERY_LINK, _after(after, limit))


def _after(link: Link, limit: int) -> dict[str, Any]:
    return {"organization_id": link[0], "shop_id": link[1], "position": link[2], "limit": limit}


async def read_waiting(
    conn: Connection, organization_id: UUID, shop_id: UUID, after: tuple[datetime, UUID], limit: int
) -> list[dict[str, Any]]:
    """A page of a shop's events that await sealing, with evidence."""
    params = {"organization_id": organization_id, "shop_id": shop_id, "at": after[0], "event_id": after[1]}
    return await rows(conn, READ_WAITING, params | {"limit": limit})


async def oldest_unsealed(conn: Connection) -> datetime | None:
    """Since when the event that has waited longest awaits sealing. Engine login."""
    found = await row(conn, OLDEST_UNSEALED)
    return found["at"] if found else None


def _shops(shops: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        "organizations": [each["organization_id"] for each in shops],
        "shops": [each["shop_id"] for each in shops],
    }
