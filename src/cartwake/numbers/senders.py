"""Adding senders and finding them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import phonenumbers
import psycopg

from cartwake.kit.db import Connection, rows
from cartwake.kit.errors import BadInput, Conflict
from cartwake.kit.moment import Moment
from cartwake.numbers import store
from cartwake.numbers.model import Sender, SenderKind, default_pace
from cartwake.tenants.model import ShopScope

# Up to eleven letters, digits and spaces with at least one letter (Twilio's rule for alphanumeric sender ids).
ALPHANUMERIC = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}", re.ASCII)


async def add_sender(
    conn: Connection,
    moment: Moment,
    scope: ShopScope,
    *,
    address: str,
    kind: SenderKind | None = None,
    segments_per_s: float | None = None,
) -> Sender:
    """Give a shop a sender that is active at once. Operator login.

    `address` is an international number, kept in E.164, or an alphanumeric sender id; `kind` is told from it unless
    given.
    Raises `BadInput` when it is neither, `Conflict` when the number already belongs to a shop.
    """
    address, kind, country = _classify(address.strip(), kind)
    sender = Sender(
        scope.organization_id,
        scope.shop_id,
        moment.new_id(),
        address,
        kind,
        country,
        segments_per_s or default_pace(kind, country),
        moment.now,
    )
    try:
        await conn.execute(store.INSERT_SENDER, vars(sender) | {"now": moment.now})
    except psycopg.errors.UniqueViolation:
        raise Conflict("This sender is already in use by a shop.", slug="sender-in-use", field="address") from None
    return sender


async def read_active_senders(conn: Connection, shops: Sequence[ShopScope]) -> dict[ShopScope, list[Sender]]:
    """The active senders of many shops."""
    params = {"organizations": [s.organization_id for s in shops], "shops": [s.shop_id for s in shops]}
    by_shop: dict[ShopScope, list[Sender]] = {shop: [] for shop in shops}
    for found in await rows(conn, store.SELECT_ACTIVE, params):
        sender = Sender.of(found)
        by_shop[ShopScope(sender.organization_id, sender.shop_id)].append(sender)
    return by_shop


async def find_owners(conn: Connection, addresses: Sequence[str]) -> dict[str, ShopScope]:
    """Which shop each of our numbers answers for; numbers that are nobody's are left out. Engine login."""
    found = await rows(conn, store.FIND_OWNERS, [list(addresses)])
    return {each["address"]: ShopScope(each["organization_id"], each["shop_id"]) for each in found}


async def numbers_in_use(conn: Connection) -> list[str]:
    """The numbers that the shops of all organizations text from. Operator login."""
    return [found["address"] for found in await rows(conn, store.SELECT_NUMBERS_IN_USE)]


async def read_addresses(conn: Connection, sender_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The addresses of senders, whatever their state. Engine login."""
    return {
        found["sender_id"]: found["address"] for found in await rows(conn, store.READ_ADDRESSES, [list(sender_ids)])
    }


async def move_pace(conn: Connection, paced_until: Sequence[tuple[Sender, datetime]]) -> None:
    """Remember until when each sender is busy with what it was handed. The shop's queue row is locked."""
    params: dict[str, Any] = {
        "organizations": [sender.organization_id for sender, _ in paced_until],
        "shops": [sender.shop_id for sender, _ in paced_until],
        "senders": [sender.sender_id for sender, _ in paced_until],
        "untils": [until for _, until in paced_until],
    }
    await conn.execute(store.MOVE_PACE, params)


def _classify(address: str, kind: SenderKind | None) -> tuple[str, SenderKind, str | None]:
    """The address as carriers write it: written otherwise, what shoppers answer would not be known as its."""
    if not address.startswith("+"):
        if ALPHANUMERIC.fullmatch(address) and kind in (None, SenderKind.ALPHANUMERIC):
            return address, SenderKind.ALPHANUMERIC, None
        raise BadInput(
            "A sender is a number in international format, or up to 11 letters, digits and spaces with a letter.",
            slug="invalid-sender",
            field="address",
        )
    try:
        number = phonenumbers.parse(address)
    except phonenumbers.NumberParseException:
        number = None
    country = phonenumbers.region_code_for_number(number) if number else None
    if number is None or country is None or not phonenumbers.is_possible_number(number):
        raise BadInput(
            "The sender's number is not a possible number; write it whole, in international format, like +37061000001.",
            slug="invalid-sender",
            field="address",
        )
    toll_free = phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.TOLL_FREE
    found_kind = kind or (SenderKind.TOLL_FREE if toll_free else SenderKind.LONG_CODE)
    if found_kind is SenderKind.ALPHANUMERIC:
        raise BadInput("A number is not an alphanumeric sender.", slug="invalid-sender", field="kind")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), found_kind, country
