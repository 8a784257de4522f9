"""What carriers tell us, stored before it is answered and worked off in order of arrival.

The hook has verified the signature; here the event becomes durable, sealed, and is then applied in
batches by the worker, in a transaction that marks it as done: a crash in between costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.jobs.trigger import Wake, announce
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.moment import Moment
from cartwake.messages import store

STATUS = "status"
INBOUND = "inbound"
SEAL = "carrier-event"


@dataclass(frozen=True)
class StoredEvent:
    """One stored event, sealed."""

    event_id: UUID
    kind: str
    payload_sealed: bytes
    received_at: datetime


@dataclass(frozen=True)
class CarrierEvent:
    """One stored event, opened."""

    event_id: UUID
    kind: str
    payload: dict[str, Any]
    received_at: datetime


async def store_events(
    conn: Connection,
    moment: Moment,
    events: Sequence[tuple[str, dict[str, Any]]],
    received_ats: Sequence[datetime] | None = None,
) -> None:
    """Make verified events durable: (`STATUS` or `INBOUND`, payload). The web login may insert and nothing else.

    A shopper's text that was stored before is passed over. `received_ats`: when each was said, if not just now.
    """
    await conn.execute(
        store.INSERT_EVENTS,
        {
            "received_ats": list(received_ats or [moment.now] * len(events)),
            "events": [moment.new_id() for _ in events],
            "kinds": [kind for kind, _ in events],
            "inbound_sids": [payload["sid"] if kind == INBOUND else None for kind, payload in events],
            "payloads": [moment.vault.seal(json.dumps(payload), SEAL) for _, payload in events],
        },
    )
    await announce(conn, Wake.EVENTS)


async def claim_events(conn: Connection, limit: int) -> list[StoredEvent]:
    """Stored events nobody has worked off, oldest first, locked until commit; other workers pass them over."""
    return [StoredEvent(**found) for found in await rows(conn, store.CLAIM_EVENTS, {"limit": limit})]


async def oldest_waiting(conn: Connection) -> datetime | None:
    """When the event that has waited the longest came; None when none waits. Engine login."""
    found = await row(conn, store.OLDEST_WAITING)
    return found["received_at"] if found else None


def open_events(vault: Vault, stored: Sequence[StoredEvent]) -> list[CarrierEvent]:
    """What is in them. Raises `ValueError` where a payload was not sealed with our keys."""
    return [_opened(vault, each) for each in stored]


async def finish_events(conn: Connection, moment: Moment, outcomes: dict[UUID, str]) -> None:
    """Mark events as worked off, each with what came of it."""
    params = {"now": moment.now, "events": list(outcomes), "outcomes": list(outcomes.values())}
    await conn.execute(store.FINISH_EVENTS, params)


async def claim_event(conn: Connection, event_id: UUID) -> list[StoredEvent]:
    """This one, locked until commit, unless somebody works it off or has."""
    return [StoredEvent(**found) for found in await rows(conn, store.CLAIM_EVENT, [event_id])]


def _opened(vault: Vault, stored: StoredEvent) -> CarrierEvent:
    payload = json.loads(vault.open(bytes(stored.payload_sealed), SEAL))
    return CarrierEvent(stored.event_id, stored.kind, payload, stored.received_at)
