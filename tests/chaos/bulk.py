"""Carts written straight into the tables, many at a time, with their consent and its proof, as an import would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cartwake.consent.events import grant
from cartwake.consent.model import Channel, ConsentChange, Evidence
from cartwake.kit.moment import Moment
from cartwake.kit.phones import hash_phone, seal_phone
from cartwake.tenants.model import ShopScope
from chaos.plan import IDLE, Cart

STALE_AFTER = timedelta(hours=96)
TRY_AGAIN_AFTER_S = 0.5
PROOF = Evidence(actor="import")

# A batch whose commit was cut off may be there or not: written again, it changes nothing that is there.
INSERT = """
INSERT INTO checkout_sessions (organization_id, shop_id, session_id, external_id, state, phone_sealed,
  phone_hash, phone_country, consented_phone, country, locale, cart_value_minor, currency, checkout_url_sealed,
  last_activity_at, scan_at, stale_at, created_at, updated_at)
SELECT org, shop, id, external_id, 'open', sealed, hash, country, hash, country, locale, 5990, 'EUR', %(url)s,
  %(left_at)s, %(scan_at)s, %(stale_at)s, %(left_at)s, %(left_at)s
FROM unnest(%(orgs)s::uuid[], %(shops)s::uuid[], %(ids)s::uuid[], %(external_ids)s::text[], %(sealed)s::bytea[],
            %(hashes)s::bytea[], %(countries)s::text[], %(locales)s::text[])
  AS c (org, shop, id, external_id, sealed, hash, country, locale)
ON CONFLICT (organization_id, shop_id, external_id) DO NOTHING
RETURNING organization_id, shop_id, phone_hash
"""


async def write_carts(url: str, moment: Moment, scopes: Sequence[ShopScope], carts: Sequence[Cart]) -> None:
    """Write carts of these shops, left just long enough ago to count as abandoned. Tries until it is committed."""
    params = _columns(moment, scopes, carts)
    before = Moment(params["left_at"], moment.ids, moment.vault)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as conn:
                cursor = await conn.execute(INSERT, params)
                new = [ConsentChange(**found, evidence=PROOF) for found in await cursor.fetchall()]
                await grant(conn, before, Channel.CHECKBOX, new)
            return
        except psycopg.OperationalError:
            await asyncio.sleep(TRY_AGAIN_AFTER_S)


def _columns(moment: Moment, scopes: Sequence[ShopScope], carts: Sequence[Cart]) -> dict[str, Any]:
    vault = moment.vault
    return {
        "left_at": moment.now - IDLE,
        "scan_at": moment.now,
        "stale_at": moment.now - IDLE + STALE_AFTER,
        "url": vault.seal("https://shop.example/checkout?c=1", "checkout-url"),
        "orgs": [scope.organization_id for scope in scopes],
        "shops": [scope.shop_id for scope in scopes],
        "ids": [moment.new_id() for _ in carts],
        "external_ids": [cart.external_id for cart in carts],
        "sealed": [seal_phone(vault, cart.phone) for cart in carts],
        "hashes": [hash_phone(vault, cart.phone) for cart in carts],
        "countries": [cart.country for cart in carts],
        "locales": [cart.locale for cart in carts],
    }
