"""What waits to be told, shop by shop.

A shop's row in `shop_webhooks` is its queue: one worker at a time holds its lease, so a shop whose server
hangs costs one call at a time, and no other shop waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.jobs.trigger import Wake, announce
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.moment import Moment
from cartwake.outbox import store
from cartwake.outbox.model import Delivery, DeliveryState, Event, Failing, NewEvent, Round, Try, outcome
from cartwake.outbox.webhooks import SECRET_SEAL, URL_SEAL
from cartwake.tenants.model import ShopScope

PAYLOAD_SEAL = "webhook-payload"
# At most so many calls follow each other within one lease.
EVENTS_PER_ROUND = 10


async def enqueue(conn: Connection, moment: Moment, events: Sequence[NewEvent]) -> int:
    """Tell the shops that listen; how many of the events that is. Comes last in its transaction.

    An event that is enqueued twice is told once.
    """
    found = await rows(conn, store.LOCK_LISTENING, _shops({event.shop for event in events})) if events else []
    listening = {ShopScope(each["organization_id"], each["shop_id"]) for each in found}
    wanted = [event for event in events if event.shop in listening]
    if not wanted:
        return 0
    params = {
        "organizations": [event.shop.organization_id for event in wanted],
        "shops": [event.shop.shop_id for event in wanted],
        "events": [event.event_id for event in wanted],
        "kinds": [event.kind for event in wanted],
        "payloads": [moment.vault.seal(event.payload, PAYLOAD_SEAL) for event in wanted],
        "now": moment.now,
    }
    await conn.execute(store.INSERT_EVENTS, params)
    await conn.execute(store.ADVANCE, _shops(listening) | {"now": moment.now})
    await announce(conn, Wake.OUTBOX)
    return len(wanted)


async def claim(conn: Connection, vault: Vault, now: datetime, lease: timedelta, limit: int) -> list[Round]:
    """Up to `limit` shops with something due, leased. Whoever claims them delivers and calls `record` for each."""
    lease_until = now + lease
    leased = await rows(conn, store.LEASE_SHOPS, {"now": now, "lease_until": lease_until, "limit": limit})
    if not leased:
        return []
    shops = {ShopScope(each["organization_id"], each["shop_id"]): each for each in leased}
    due: dict[ShopScope, list[Event]] = {shop: [] for shop in shops}
    for each in await rows(conn, store.TAKE_DUE, _shops(shops) | {"now": now, "share": EVENTS_PER_ROUND}):
        payload = vault.open(each["payload_sealed"], PAYLOAD_SEAL).decode()
        event = Event(each["event_id"], payload, each["attempts"], each["created_at"])
        due[ShopScope(each["organization_id"], each["shop_id"])].append(event)
    return [
        Round(
            shop,
            vault.open(found["url_sealed"], URL_SEAL).decode(),
            _secrets(vault, found),
            tuple(due[shop]),
            lease_until,
        )
        for shop, found in shops.items()
    ]


async def record(conn: Connection, now: datetime, worked: Round, tries: Sequence[Try]) -> None:
    """What came of a round, and when the shop is next of interest.

    A server that gave no answer is left alone until its event is due again, whatever else waits for it.
    """
    keys = {"organization_id": worked.shop.organization_id, "shop_id": worked.shop.shop_id}
    outcomes = [outcome(now, tried) for tried in tries]
    await conn.execute(store.LOCK_WEBHOOK, keys)  # as whoever removes it does, before its events
    if tries:
        params = keys | {
            "now": now,
            "events": [tried.event.event_id for tried in tries],
            "states": [state for state, _ in outcomes],
            "due_ats": [due_at for _, due_at in outcomes],
            "statuses": [tried.status for tried in tries],
            "errors": [tried.error for tried in tries],
        }
        await conn.execute(store.RECORD_TRIES, params)
    silent = bool(tries) and tries[-1].status is None
    ending = {
        "pause_until": outcomes[-1][1] if silent else None,
        "lease_until": worked.lease_until,
        "tried": bool(tries),
        "failing_with": tries[-1].failure if tries else None,
        "now": now,
    }
    await conn.execute(store.END_ROUND, keys | ending)


async def next_due(conn: Connection) -> datetime | None:
    """When a shop is next to be told something; None when nothing waits."""
    found = await row(conn, store.NEXT_DUE)
    return found["next_due_at"] if found else None


async def shops_not_heard(conn: Connection, before: datetime, limit: int) -> list[Failing]:
    """Shops whose server has taken nothing since `before` or longer, the longest first. Engine login."""
    found = await rows(conn, store.SELECT_FAILING, {"before": before, "limit": limit})
    return [
        Failing(ShopScope(each["organization_id"], each["shop_id"]), each["failing_since"], each["failing_with"])
        for each in found
    ]


async def read_deliveries(conn: Connection, scope: ShopScope, event_ids: Sequence[UUID]) -> dict[UUID, Delivery]:
    """Where these events stand; those that the shop was not to be told of are left out."""
    found = await rows(conn, store.SELECT_DELIVERIES, [scope.organization_id, scope.shop_id, list(event_ids)])
    return {each["event_id"]: _delivery(each) for each in found}


def _delivery(found: dict[str, Any]) -> Delivery:
    state = DeliveryState(found["state"])
    return Delivery(
        state=state,
        attempts=found["attempts"],
        next_try_at=found["due_at"] if state is DeliveryState.WAITING else None,
        last_status=found["last_status"],
        last_error=found["last_error"],
        ended_at=found["ended_at"],
    )


def _secrets(vault: Vault, found: dict[str, Any]) -> tuple[bytes, ...]:
    sealed = (found["secret_sealed"], found["former_secret_sealed"])
    return tuple(vault.open(each, SECRET_SEAL) for each in sealed if each is not None)


def _shops(shops: Any) -> dict[str, list[UUID]]:
    return {
        "organizations": [shop.organization_id for shop in shops],
        "shops": [shop.shop_id for shop in shops],
    }
