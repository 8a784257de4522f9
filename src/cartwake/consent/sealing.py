"""The sealer: what shoppers agreed to and took back since the last time becomes part of its shop's chain.

Apart from writing, so that no checkout and no STOP waits for the one before it at the chain's head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.consent import chain_store
from cartwake.consent.chain import Head, digest_of, genesis, link_of, public_fields
from cartwake.consent.chain_store import NewLink, Place
from cartwake.kit.db import Connection

# Events of one transaction: some megabytes, and some tenths of a second.
BATCH = 5000

Shop = tuple[UUID, UUID]


@dataclass(frozen=True)
class Sealed:
    """What one batch came to."""

    events: int
    next: Place | None  # where the next batch begins; None: nothing is left


async def seal_batch(conn: Connection, now: datetime, after: Place, limit: int = BATCH) -> Sealed:
    """Chain the events of the next window, of as many shops as it holds. Engine login.

    Any number of sealers may run: each holds the heads that it moves, and leaves out those that another holds.
    """
    window = await chain_store.read_window(conn, after, limit)
    if not window:
        return Sealed(0, None)
    heads = {_shop(head): head for head in await chain_store.lock_heads(conn, window)}
    mine = [shop for shop in window if _shop(shop) in heads]
    events = await chain_store.read_unsealed(conn, mine, limit) if mine else []
    links = _continue({shop: _head_of(head) for shop, head in heads.items()}, events, now)
    if links:
        await chain_store.store_links(conn, links)
    last = window[-1]
    if last["window_size"] < limit:
        return Sealed(len(links), None)
    return Sealed(len(links), Place(last["organization_id"], last["shop_id"], last["at"], last["event_id"]))


async def read_head(conn: Connection, organization_id: UUID, shop_id: UUID) -> Head:
    """Where a shop's chain stands: at its genesis, when nothing was sealed yet."""
    found = await chain_store.read_head(conn, organization_id, shop_id)
    return found or Head(0, genesis(organization_id, shop_id), None)


def _continue(heads: dict[Shop, Head], events: Sequence[Mapping[str, Any]], now: datetime) -> list[NewLink]:
    """The links of `events`, which come in the order in which they are to be chained."""
    links = []
    for event in events:
        head = heads[_shop(event)]
        # Machines' clocks differ; along a chain time does not run backwards all the same.
        sealed_at = max(now, head.sealed_at or now)
        position = head.position + 1
        link = link_of(head.head, digest_of(public_fields(event, position, sealed_at)))
        heads[_shop(event)] = Head(position, link, sealed_at)
        links.append(NewLink(*_shop(event), position, event["event_id"], event["waits_at"], link, sealed_at))
    return links


def _head_of(found: Mapping[str, Any]) -> Head:
    return Head(found["position"], found["head"] or genesis(*_shop(found)), found["sealed_at"])


def _shop(found: Mapping[str, Any]) -> Shop:
    return found["organization_id"], found["shop_id"]
