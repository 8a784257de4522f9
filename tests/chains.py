"""The consent chain as tests use it: sealing, exporting, and what an audit finds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from cartwake.consent.chain_store import Place
from cartwake.consent.events import grant, withdraw
from cartwake.consent.model import Channel, ConsentChange, Evidence
from cartwake.consent.sealing import BATCH, seal_batch
from cartwake.consent.verify import Verified, verify
from cartwake.invariants import broken_invariants, broken_proofs
from cartwake.kit.db import ENGINE
from cartwake.kit.phones import hash_phone
from cartwake.kit.runtime import Runtime
from world import Json, ShopClient

EXPORT = "/v1/consent-chain/export"


async def seal(runtime: Runtime, limit: int = BATCH) -> int:
    """What the scheduler does every minute; how many events were sealed."""
    count, place = 0, Place()
    while place is not None:
        async with runtime.db.transaction(ENGINE) as conn:
            sealed = await seal_batch(conn, runtime.clock.now(), place, limit)
        count, place = count + sealed.events, sealed.next  # type: ignore[assignment]
    return count


async def say(runtime: Runtime, shop: ShopClient, phones: Sequence[str], *, yes: bool = True) -> None:
    """Shoppers agree, or take it back, all in one transaction of the engine's."""
    scope, moment = shop.scope, runtime.moment()
    changes = [
        ConsentChange(
            scope.organization_id,
            scope.shop_id,
            hash_phone(moment.vault, phone),
            Evidence(phone=phone, wording="Text me: žinutė apie krepšelį"),
        )
        for phone in phones
    ]
    async with runtime.db.transaction(ENGINE) as conn:
        await (grant if yes else withdraw)(conn, moment, Channel.CHECKBOX, changes)


async def exported(shop: ShopClient, **params: str) -> bytes:
    """The shop's chain as the API gives it."""
    answer = await shop.api("GET", EXPORT, params=params)
    assert answer.status_code == 200, answer.text
    return answer.content


def verified(export: bytes, *heads: str) -> Verified:
    """What the offline verifier finds; it raises at what is wrong."""
    return verify(io.BytesIO(export), heads)


def lines_of(export: bytes) -> list[Json]:
    """Every line of an export, parsed."""
    return [json.loads(line) for line in export.splitlines()]


async def audit(runtime: Runtime) -> list[str]:
    """Names of what does not hold."""
    async with runtime.db.transaction(ENGINE) as conn:
        found = await broken_invariants(conn, runtime.clock.now())
        found += await broken_proofs(conn, runtime.vault)
    return [each.name for each in found]


@contextmanager
def as_owner(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Whoever owns the database: no wall, no trigger and no foreign key in the way."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        yield owner
