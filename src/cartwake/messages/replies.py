"""What shoppers write back: kept for the shop, and passed on to its server where it has named one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import hash_phone, mask, open_phone, seal_phone
from cartwake.messages import store
from cartwake.messages.keywords import Intent
from cartwake.outbox.model import REPLY_RECEIVED, Delivery, NewEvent
from cartwake.outbox.queue import enqueue, read_deliveries
from cartwake.tenants.model import ShopScope

BODY_SEAL = "reply"


@dataclass(frozen=True, repr=False)
class Reply:
    """Something a shopper wrote to a shop's number that is neither STOP nor START."""

    shop: ShopScope
    carrier_sid: str
    meaning: Intent
    phone: str  # E.164
    sent_to: str  # our number
    body: str
    received_at: datetime


@dataclass(frozen=True, repr=False)
class ReplyView:
    """A reply as its shop sees it."""

    reply_id: UUID
    meaning: str
    message_id: UUID | None  # the shop's text that it answers, where one is known
    external_id: str | None  # of that text's checkout
    sent_to: str
    phone_masked: str
    body: str
    received_at: datetime
    delivery: Delivery | None  # to the shop's webhook; None: there was none when the reply came


async def keep_replies(conn: Connection, moment: Moment, replies: Sequence[Reply]) -> None:
    """Store replies, and tell the shops that listen. What the carrier told before changes nothing."""
    if not replies:
        return
    vault = moment.vault
    fresh = {moment.new_id(): reply for reply in replies}
    params = {
        "organizations": [reply.shop.organization_id for reply in replies],
        "shops": [reply.shop.shop_id for reply in replies],
        "replies": list(fresh),
        "sids": [reply.carrier_sid for reply in replies],
        "meanings": [reply.meaning for reply in replies],
        "addresses": [reply.sent_to for reply in replies],
        "sealed_phones": [seal_phone(vault, reply.phone) for reply in replies],
        "phones": [hash_phone(vault, reply.phone) for reply in replies],
        "bodies": [vault.seal(reply.body, BODY_SEAL) for reply in replies],
        "received_ats": [reply.received_at for reply in replies],
    }
    kept = await rows(conn, store.INSERT_REPLIES, params)
    await enqueue(conn, moment, [_event(fresh[found["reply_id"]], found) for found in kept])


async def list_replies(
    conn: Connection, vault: Vault, scope: ShopScope, *, before: UUID | None = None, limit: int = 50
) -> list[ReplyView]:
    """A page of a shop's replies, newest first; `before` is the last id of the page before."""
    params = {"organization_id": scope.organization_id, "shop_id": scope.shop_id, "before": before, "limit": limit}
    found = await rows(conn, store.LIST_REPLIES, params)
    deliveries = await read_deliveries(conn, scope, [each["reply_id"] for each in found])
    return [_view(vault, each, deliveries.get(each["reply_id"])) for each in found]


def _event(reply: Reply, found: dict[str, Any]) -> NewEvent:
    """What the shop's server is told. It gets the whole phone number: it is its own shopper's."""
    data = {
        "reply_id": str(found["reply_id"]),
        "meaning": reply.meaning,
        "body": reply.body,
        "phone": reply.phone,
        "sent_to": reply.sent_to,
        "received_at": _rfc3339(reply.received_at),
        "message_id": str(found["message_id"]) if found["message_id"] else None,
        "external_id": found["external_id"],
    }
    payload = {"type": REPLY_RECEIVED, "timestamp": _rfc3339(reply.received_at), "data": data}
    return NewEvent(reply.shop, found["reply_id"], REPLY_RECEIVED, json.dumps(payload, ensure_ascii=False))


def _view(vault: Vault, found: dict[str, Any], delivery: Delivery | None) -> ReplyView:
    phone, body = found.pop("phone_sealed"), found.pop("body_sealed")
    return ReplyView(
        **found,
        phone_masked=mask(open_phone(vault, phone)),
        body=vault.open(body, BODY_SEAL).decode(),
        delivery=delivery,
    )


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
