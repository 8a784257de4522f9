"""Texts that shoppers send to our numbers: STOP and START act, everything else is kept and passed on to the shop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from cartwake.carts.abandonment import ask_again_for_phone
from cartwake.consent.events import lift, suppress
from cartwake.consent.model import Channel, ConsentChange, Evidence, Suppression
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.kit.phones import hash_phone
from cartwake.messages.inbox import CarrierEvent
from cartwake.messages.keywords import Intent, intent
from cartwake.messages.replies import Reply, keep_replies
from cartwake.numbers.senders import find_owners
from cartwake.tenants.model import ShopScope


async def apply_inbound(conn: Connection, moment: Moment, events: Sequence[CarrierEvent]) -> dict[UUID, str]:
    """Act on a batch of stored texts, in order of arrival; what came of each.

    `stop`, `start`, `help`, `other`, or `unmatched` when the number is none of ours. HELP is not answered by
    us: the carrier does that where it must be (docs/decisions/0022-help-is-the-carriers-to-answer.md).
    """
    owners = await find_owners(conn, list({event.payload["to"] for event in events}))
    outcomes: dict[UUID, str] = {}
    replies: list[Reply] = []
    for event in events:
        shop = owners.get(event.payload["to"])
        meaning = intent(event.payload["body"], event.payload.get("opt_out_type"))
        outcomes[event.event_id] = meaning if shop else "unmatched"
        # One by one: a person who writes STOP and then START means the last.
        if shop and meaning is Intent.STOP:
            change = _change(moment.vault, shop, event.payload)
            await suppress(conn, moment, Channel.INBOUND_TEXT, Suppression.STOP, [change], said_at=event.received_at)
        elif shop and meaning is Intent.START:
            change = _change(moment.vault, shop, event.payload)
            if await lift(conn, moment, Channel.INBOUND_TEXT, [change], said_at=event.received_at):
                await ask_again_for_phone(conn, moment.now, shop, change.phone_hash)
        elif shop:
            replies.append(_reply(shop, meaning, event))
    await keep_replies(conn, moment, replies)
    return outcomes


def _reply(shop: ShopScope, meaning: Intent, event: CarrierEvent) -> Reply:
    said = event.payload
    return Reply(
        shop=shop,
        carrier_sid=said["sid"],
        meaning=meaning,
        phone=said["sender"],
        sent_to=said["to"],
        body=said["body"],
        received_at=event.received_at,
    )


def _change(vault: Vault, shop: ShopScope, payload: dict[str, Any]) -> ConsentChange:
    evidence = Evidence(phone=payload["sender"], wording=payload["body"], actor="shopper")
    return ConsentChange(shop.organization_id, shop.shop_id, hash_phone(vault, payload["sender"]), evidence)
