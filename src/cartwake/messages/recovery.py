"""After a restore: what the carrier took since the backup is not in the database, and must not be sent again.

The backup knows a message as waiting; the carrier may have taken it since. Its text carries the message's own
link, so the carrier's record tells which. A text whose message is younger than the backup is matched by its
phone and the shop whose number sent it; one that matches nothing still counts for the phone's 24 hours. What
shoppers answered since is worked off again, so that no STOP is lost.

Recovered texts end as `sent_before_restore`. Their credits are not taken: the ledger of the backup never
reserved them, and purchases since may be missing too. The report says how many, for the operator to settle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.carriers.protocol import ListedText
from cartwake.carts.links import PATHS, link_id_of, read_link_token
from cartwake.credits.pricing import price
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import country_of, hash_phone
from cartwake.messages import store
from cartwake.messages.inbox import INBOUND, store_events
from cartwake.messages.model import CART_RECOVERY, Gate, MessageState, Outcome, Verdict, sources
from cartwake.messages.segments import measure
from cartwake.messages.trace import Traced, keep
from cartwake.numbers.senders import find_owners
from cartwake.tenants.model import ShopScope

LINK_TOKEN = re.compile(re.escape(PATHS["recover"]) + r"([A-Za-z0-9_-]{24})")
SENT_BEFORE_RESTORE = Verdict(Outcome.DROP, Gate.CARRIER, "sent_before_restore")

Key = tuple[UUID, UUID, UUID, UUID]  # organization, shop, session, message


@dataclass(frozen=True)
class Recovered:
    """What a batch of the carrier's record came to."""

    texts: int = 0  # that the carrier took
    messages: int = 0  # of them, marked as sent
    credits: int = 0  # that those messages would have cost
    replies: int = 0  # from shoppers, to be worked off again

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(
            self.texts + other.texts,
            self.messages + other.messages,
            self.credits + other.credits,
            self.replies + other.replies,
        )


async def read_waiting_links(conn: Connection, vault: Vault) -> dict[bytes, Key]:
    """Every message that still waits, by the id of the link that its text would carry."""
    return {
        link_id_of(vault, each["message_id"]): (
            each["organization_id"],
            each["shop_id"],
            each["session_id"],
            each["message_id"],
        )
        for each in await rows(conn, store.READ_WAITING)
    }


async def recover(
    conn: Connection, moment: Moment, waiting: dict[bytes, Key], texts: Sequence[ListedText]
) -> Recovered:
    """Account for a batch of the carrier's record. Idempotent: what was accounted for no longer waits."""
    outbound = [text for text in texts if not text.inbound]
    replies = [text for text in texts if text.inbound]
    known = {text.sid: key for text in outbound if (key := _by_link(moment.vault, waiting, text))}
    lost = await _adopt(conn, moment, [text for text in outbound if text.sid not in known])
    marked = await _mark(conn, moment, outbound, known | lost)
    await _remember_phones(conn, moment, outbound)
    if replies:
        await store_events(conn, moment, [(INBOUND, _payload(text)) for text in replies])
    return Recovered(len(outbound), len(marked), sum(map(_credits, marked)), len(replies))


def _by_link(vault: Vault, waiting: dict[bytes, Key], text: ListedText) -> Key | None:
    found = LINK_TOKEN.search(text.body)
    link_id = read_link_token(vault, found.group(1), "recover") if found else None
    return waiting.get(link_id) if link_id else None


async def _adopt(conn: Connection, moment: Moment, texts: Sequence[ListedText]) -> dict[str, Key]:
    """Message rows for texts whose own the backup never had: for the carts of that phone at that sender's shop."""
    owners = await find_owners(conn, list({text.sender for text in texts}))
    phones = {(owners[text.sender], hash_phone(moment.vault, text.to)): text for text in texts if text.sender in owners}
    params: dict[str, Any] = {
        "organizations": [shop.organization_id for shop, _ in phones],
        "shops": [shop.shop_id for shop, _ in phones],
        "phones": [phone for _, phone in phones],
    }
    carts = await rows(conn, store.READ_CARTS_OF_PHONES, params) if phones else []
    new = {
        "now": moment.now,
        "kind": CART_RECOVERY,
        "organizations": [cart["organization_id"] for cart in carts],
        "shops": [cart["shop_id"] for cart in carts],
        "sessions": [cart["session_id"] for cart in carts],
        "messages": [moment.new_id() for _ in carts],
        "due_ats": [moment.now for _ in carts],
        "traceparents": [None for _ in carts],
    }
    made = {each["session_id"]: each["message_id"] for each in await rows(conn, store.INSERT_MESSAGES, new)}
    adopted: dict[str, Key] = {}
    for cart in carts:
        shop = ShopScope(cart["organization_id"], cart["shop_id"])
        text = phones[shop, bytes(cart["phone_hash"])]
        key = (cart["organization_id"], cart["shop_id"], cart["session_id"], made[cart["session_id"]])
        # Two carts of one phone: nobody can say which one the text was for, so neither gets another.
        adopted[text.sid if text.sid not in adopted else f"{text.sid}/{cart['session_id']}"] = key
    return adopted


async def _mark(
    conn: Connection, moment: Moment, texts: Sequence[ListedText], keys: dict[str, Key]
) -> list[ListedText]:
    params = {
        "now": moment.now,
        "messages": [key[3] for key in keys.values()],
        "sids": [sid.partition("/")[0] for sid in keys],
        "from_states": sources(MessageState.DROPPED),
    }
    marked = (
        {each["message_id"] for each in await rows(conn, store.MARK_SENT_BEFORE_RESTORE, params)} if keys else set()
    )
    await keep(conn, moment, [Traced(*key, SENT_BEFORE_RESTORE) for key in keys.values() if key[3] in marked])
    return [text for text in texts if text.sid in keys and keys[text.sid][3] in marked]


async def _remember_phones(conn: Connection, moment: Moment, texts: Sequence[ListedText]) -> None:
    params = {
        "phones": [hash_phone(moment.vault, text.to) for text in texts],
        "messages": [moment.new_id() for _ in texts],
        "ats": [min(text.created_at, moment.now) for text in texts],
    }
    await conn.execute(store.REMEMBER_RECIPIENTS, params)


def _credits(text: ListedText) -> int:
    return price(measure(text.body).segments, country_of(text.to))


def _payload(text: ListedText) -> dict[str, Any]:
    return {"sid": text.sid, "sender": text.sender, "to": text.to, "body": text.body, "opt_out_type": None}


def oldest_first(texts: Sequence[ListedText]) -> list[ListedText]:
    """In order of time: of a STOP and a START, the last one counts."""

    def time_of(text: ListedText) -> datetime:
        return text.created_at

    return sorted(texts, key=time_of)
