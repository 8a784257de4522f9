"""What must always be true of the chains: looked at hourly where they grow, from end to end by `cartwake audit`.

A chain is checked with the very functions that made it (`chain.py`), a page at a time, so memory stays bounded.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.consent import chain_store
from cartwake.consent.chain import commitment_of, digest_of, genesis, instant, link_of, public_fields
from cartwake.consent.chain_store import NOBODY
from cartwake.consent.events import open_evidence
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.phones import hash_phone

# Every hour: of each chain that grew in the last two, so many of its newest links. That is where a mistake of ours
# would show, and it costs the same however long the chains have become.
GREW_WITHIN = timedelta(hours=2)
NEWEST = 100
PAGE = 2000
CHAINS = PAGE // NEWEST  # of a page of newest links
SHOWN_MAX = 100  # of broken links; one that is wrong makes the one after it wrong too
SHOWN = {"limit": SHOWN_MAX}

Row = dict[str, Any]
# What a link continues, as far as the page before told: the shop, the position, the link.
Before = tuple[UUID, UUID, int, bytes | None]
START: Before = (NOBODY, NOBODY, 0, None)


async def heads_off_their_links(conn: Connection) -> list[Row]:
    """Heads that are not their chain's last link."""
    return [_shown(found) for found in await rows(conn, chain_store.HEADS_OFF_THEIR_LINKS, SHOWN)]


async def broken_newest_links(conn: Connection, now: datetime) -> list[Row]:
    """Of the chains that grew lately, newest links that do not follow from the one before and from their event."""
    grew = await rows(conn, chain_store.GREW, {"since": now - GREW_WITHIN})
    broken: list[Row] = []
    for first in range(0, len(grew), CHAINS):
        newest = await chain_store.read_newest_links(conn, grew[first : first + CHAINS], NEWEST)
        broken += check_links(newest, START)[0]
        if len(broken) >= SHOWN_MAX:
            break
    return broken


async def broken_links(conn: Connection, vault: Vault) -> list[Row]:
    """The same of every link there is, and every evidence that does not open its commitment."""
    broken: list[Row] = []
    before = START
    while page := await chain_store.read_every_link(conn, before[:3], PAGE):
        wrong, before = check_links(page, before, whole=True)
        broken += wrong + [told for found in page if (told := _evidence_off(vault, found))]
        if len(broken) >= SHOWN_MAX:
            break
    return broken


async def forgotten_events(conn: Connection) -> list[Row]:
    """Events that are in no chain and do not wait for theirs either."""
    return await rows(conn, chain_store.FORGOTTEN_EVENTS, SHOWN)


def check_links(found: Iterable[Mapping[str, Any]], before: Before, *, whole: bool = False) -> tuple[list[Row], Before]:
    """Links that are wrong, and where the next page begins.

    `whole`: every chain is there from its first link on. Otherwise the first of each shop is what the others continue.
    """
    broken = []
    for each in found:
        shop = each["organization_id"], each["shop_id"]
        if shop != before[:2]:
            begins = whole or each["position"] == 1
            before = (*shop, 0, genesis(*shop)) if begins else (*shop, each["position"] - 1, None)
        if wrong := _what_is_wrong(each, before):
            broken.append({"shop_id": shop[1], "position": each["position"], "wrong": wrong})
        before = (*shop, each["position"], bytes(each["link"]))
    return broken, before


def _what_is_wrong(link: Mapping[str, Any], before: Before) -> str | None:
    if link["position"] != before[2] + 1:
        return f"follows position {before[2]}"
    if link["action"] is None:
        return "its event is gone"
    previous = before[3]
    if previous is None:  # what comes before it was not read
        return None
    expected = link_of(previous, digest_of(public_fields(link, link["position"], link["sealed_at"])))
    if not hmac.compare_digest(expected, link["link"]):
        return "does not follow from the link before it and its event"
    return None


def _evidence_off(vault: Vault, link: Mapping[str, Any]) -> Row | None:
    """What is wrong with an event's evidence; None when it is right, or erased."""
    if link["salt"] is None or link["action"] is None:
        return None
    told = {"shop_id": link["shop_id"], "position": link["position"]}
    try:
        evidence = open_evidence(vault, link["evidence_sealed"])
    except ValueError as unreadable:
        return told | {"wrong": f"its evidence cannot be opened: {unreadable}"}
    expected = _commitment(link, evidence)
    if not hmac.compare_digest(expected, link["commitment"]):
        return told | {"wrong": "its evidence does not open its commitment"}
    phone = evidence.get("phone")
    if phone is not None and not hmac.compare_digest(hash_phone(vault, phone), link["phone_hash"]):
        return told | {"wrong": "its evidence is about another phone"}
    return None


def _commitment(link: Mapping[str, Any], evidence: Mapping[str, str]) -> bytes:
    at = instant(link["at"])
    return commitment_of(link["salt"], link["event_id"], link["action"], link["channel"], at, evidence)


def _shown(found: Mapping[str, Any]) -> Row:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in found.items()}
