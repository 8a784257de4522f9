"""After a restore: what the carrier took since the backup is not in the database, and must not be sent again.

The backup knows a message as waiting; the carrier may have taken it since. Its text carries the message's own
link, so the carrier's record tells which. A text whose message is younger than the backup is matched by its
phone and the shop whose number sent it; one that matches nothing still counts for the phone's 24 hours. What
shoppers answered since is worked off again, so that no STOP is lost.

Recovered texts end as `sent_before_restore`, and their links open again. The organization whose sender sent a text
pays for it, under a reservation named after the carrier's id, so it pays once however often this runs. Where the
backup's balance is too small, because what was bought since is missing as well, the report says by how much.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from cartwake.carriers.protocol import ListedText
from cartwake.carts.links import PATHS, LinkRow, link_id_of, read_link_token, record_links
from cartwake.credits.model import ReserveRequest
from cartwake.credits.pricing import price
from cartwake.credits.reservations import confirm, find_reservations, reserve
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import country_of, hash_phone
from cartwake.messages import store
from cartwake.messages.facts import load_shops
from cartwake.messages.inbox import INBOUND, store_events
from cartwake.messages.model import CART_RECOVERY, FIRST_STEP, Gate, MessageState, Outcome, Verdict, sources
from cartwake.messages.segments import measure
from cartwake.messages.trace import Traced, keep
from cartwake.numbers.senders import find_owners
from cartwake.tenants.model import ShopScope

LINK_TOKEN = re.compile(re.escape(PATHS["recover"]) + r"([A-Za-z0-9_-]{24})")
SENT_BEFORE_RESTORE = Verdict(Outcome.DROP, Gate.CARRIER, "sent_before_restore")

# Names the reservation of a recovered text after the carrier's id for it.
CHARGES = UUID("5b0c9a3e-8d0f-5c47-9f57-0f6a3d6c1d11")

Key = tuple[UUID, UUID, UUID, UUID]  # organization, shop, session, message


@dataclass(frozen=True)
class Recovered:
    """What a batch of the carrier's record came to."""

    texts: int = 0  # that the carrier took and the backup does not know about
    messages: int = 0  # of them, marked as sent
    credits: int = 0  # taken for them
    unpaid_credits: int = 0  # that no balance could pay
    replies: int = 0  # from shoppers, to be worked off again

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Links:
    """The links that texts of the backup's messages carry, or would carry."""

    waiting: dict[bytes, Key]
    in_flight: frozenset[bytes]  # handed over when the backup was taken: reconciliation asks about those


async def read_links(conn: Connection, vault: Vault) -> Links:
    """Every message that is not over and not known to be accepted, by its link's id."""
    found = [(link_id_of(vault, each["message_id"]), each) for each in await rows(conn, store.READ_UNSETTLED)]
    waiting = {
        link: (each["organization_id"], each["shop_id"], each["session_id"], each["message_id"])
        for link, each in found
        if each["waits"]
    }
    return Links(waiting, frozenset(link for link, each in found if not each["waits"]))


async def recover(
    conn: Connection, moment: Moment, links: Links, texts: Sequence[ListedText], refund_on: Collection[str] = ()
) -> Recovered:
    """Account for a batch of what we sent, by the carrier's record. Idempotent: what was accounted for no longer waits.

    `refund_on`: final outcomes that cost nothing, as for every text.
    """
    outbound = await _unaccounted(conn, moment.vault, links, texts)
    known = {text.sid: key for text in outbound if (key := links.waiting.get(_link_id(moment.vault, text) or b""))}
    lost = await _adopt(conn, moment, [text for text in outbound if text.sid not in known])
    keys = known | lost
    marked = await _mark(conn, moment, outbound, keys)
    await _remember_phones(conn, moment, outbound)
    paid, unpaid = await _charge(conn, moment, [text for text in outbound if text.status not in refund_on], keys)
    return Recovered(len(outbound), len(marked), paid, unpaid)


async def recover_replies(conn: Connection, moment: Moment, texts: Sequence[ListedText]) -> Recovered:
    """Have what shoppers wrote since worked off again: all `texts` at once, newest first, as the carrier lists them.

    Each was said when the carrier got it. Counted from now, a START of yesterday would lift the STOP of an hour ago.
    """
    # Carriers tell whole seconds: within one, what is listed last is the oldest.
    oldest_first = sorted(texts, key=_said_at, reverse=True)[::-1]
    if oldest_first:
        said = [(INBOUND, _payload(text)) for text in oldest_first]
        await store_events(conn, moment, said, [min(_said_at(text), moment.now) for text in oldest_first])
    return Recovered(replies=len(oldest_first))


async def _unaccounted(conn: Connection, vault: Vault, links: Links, texts: Sequence[ListedText]) -> list[ListedText]:
    """The texts of which the backup neither knows that the carrier took them nor waits to hear."""
    found = await rows(conn, store.READ_ACCEPTED_SIDS, {"sids": [text.sid for text in texts]})
    accepted = {each["carrier_sid"] for each in found}
    return [text for text in texts if text.sid not in accepted and _link_id(vault, text) not in links.in_flight]


def _link_id(vault: Vault, text: ListedText) -> bytes | None:
    found = LINK_TOKEN.search(text.body)
    return read_link_token(vault, found.group(1), "recover") if found else None


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
        "step": FIRST_STEP,
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
    sent = [text for text in texts if text.sid in keys and keys[text.sid][3] in marked]
    await _open_links(conn, moment, [(text, keys[text.sid]) for text in sent])
    return sent


async def _open_links(conn: Connection, moment: Moment, sent: Sequence[tuple[ListedText, Key]]) -> None:
    """Shoppers hold these links, and the backup has never heard of them."""
    shops = await load_shops(conn, [ShopScope(key[0], key[1]) for _, key in sent])
    links = []
    for text, (organization_id, shop_id, session_id, message_id) in sent:
        scope, link_id = ShopScope(organization_id, shop_id), _link_id(moment.vault, text)
        if link_id is not None:
            expires_at = text.created_at + timedelta(seconds=shops[scope].config.attribution_window_s)
            links.append(LinkRow(scope, link_id, session_id, message_id, expires_at))
    await record_links(conn, moment, links)


async def _remember_phones(conn: Connection, moment: Moment, texts: Sequence[ListedText]) -> None:
    params = {
        "phones": [hash_phone(moment.vault, text.to) for text in texts],
        "messages": [moment.new_id() for _ in texts],
        "ats": [min(text.created_at, moment.now) for text in texts],
    }
    await conn.execute(store.REMEMBER_RECIPIENTS, params)


async def _charge(
    conn: Connection, moment: Moment, texts: Sequence[ListedText], keys: dict[str, Key]
) -> tuple[int, int]:
    """Take what these texts cost from the owners of their senders; the credits taken, and those nobody could pay.

    A text that was charged before counts as neither.
    """
    owners = await find_owners(conn, list({text.sender for text in texts}))
    requests = [_charge_of(text, owners[text.sender], keys.get(text.sid)) for text in texts if text.sender in owners]
    before = await find_reservations(conn, [(each.organization_id, each.reservation_id) for each in requests])
    new = [each for each in requests if (each.organization_id, each.reservation_id) not in before]
    granted = await reserve(conn, moment.now, new)
    await confirm(conn, moment.now, [(each.organization_id, each.reservation_id) for each in new])
    paid = sum(each.credits for each in new if each.reservation_id in granted)
    return paid, sum(each.credits for each in new) - paid


def _charge_of(text: ListedText, owner: ShopScope, key: Key | None) -> ReserveRequest:
    charge_id = uuid5(CHARGES, text.sid)
    credits = price(measure(text.body).segments, country_of(text.to))
    return ReserveRequest(owner.organization_id, charge_id, key[3] if key else charge_id, credits)


def _payload(text: ListedText) -> dict[str, Any]:
    return {"sid": text.sid, "sender": text.sender, "to": text.to, "body": text.body, "opt_out_type": None}


def _said_at(text: ListedText) -> datetime:
    return text.created_at
