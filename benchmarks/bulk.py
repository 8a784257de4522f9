"""Thousands of shops and carts at once, written straight into the tables: benchmarks measure what follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from cartwake.kit.db import Connection
from cartwake.kit.phones import hash_phone, seal_phone
from cartwake.kit.runtime import Runtime
from cartwake.tenants.model import SmsConfig
from cartwake.tenants.store import CONFIG_FIELDS


@dataclass(frozen=True)
class Bulk:
    """How large a world is made."""

    organizations: int = 500
    shops: int = 2000
    carts: int = 20_000
    credits: int = 1_000_000


async def make_world(conn: Connection, runtime: Runtime, bulk: Bulk, idle_since: datetime) -> None:
    """Organizations with credits, shops with a sender each, and consented carts idle since a moment. Owner login."""
    now = idle_since - timedelta(days=1)
    orgs = [runtime.ids.new(now) for _ in range(bulk.organizations)]
    shops = [(orgs[n % len(orgs)], runtime.ids.new(now)) for n in range(bulk.shops)]
    await _tenants(conn, runtime, bulk, now, orgs, shops)
    await _carts(conn, runtime, bulk, idle_since, shops)
    await conn.execute("ANALYZE")


async def _tenants(
    conn: Connection, runtime: Runtime, bulk: Bulk, now: datetime, orgs: list[Any], shops: list[Any]
) -> None:
    config = SmsConfig(enabled=True)
    params: dict[str, Any] = {
        "now": now,
        "orgs": orgs,
        "shop_orgs": [org for org, _ in shops],
        "shops": [shop for _, shop in shops],
        "senders": [runtime.ids.new(now) for _ in shops],
        "numbers": [f"+3706{n:07d}" for n in range(len(shops))],
        "credits": bulk.credits,
    } | {name: getattr(config, name) for name in CONFIG_FIELDS}
    await conn.execute(
        "INSERT INTO organizations SELECT id, 'bench', 'PRO', %(now)s FROM unnest(%(orgs)s::uuid[]) AS o (id)", params
    )
    await conn.execute(
        "INSERT INTO org_sms_credit_balances (organization_id, account, available_credits, last_entry_no, updated_at)"
        " SELECT id, 'sms', %(credits)s, 1, %(now)s FROM unnest(%(orgs)s::uuid[]) AS o (id)",
        params,
    )
    await conn.execute(
        "INSERT INTO org_sms_credit_ledger (organization_id, account, entry_no, entry_type, credits, balance_after, at)"
        " SELECT id, 'sms', 1, 'ADJUSTMENT', %(credits)s, %(credits)s, %(now)s FROM unnest(%(orgs)s::uuid[]) AS o (id)",
        params,
    )
    await conn.execute(
        "INSERT INTO shops SELECT org, shop, 'Bench Shop', 'LT', 'en', %(now)s"
        " FROM unnest(%(shop_orgs)s::uuid[], %(shops)s::uuid[]) AS s (org, shop)",
        params,
    )
    fields = sql.SQL(", ").join(map(sql.Identifier, CONFIG_FIELDS))
    values = sql.SQL(", ").join(map(sql.Placeholder, CONFIG_FIELDS))
    await conn.execute(
        sql.SQL(
            "INSERT INTO shop_sms_configs (organization_id, shop_id, updated_at, {}) SELECT org, shop, %(now)s, {}"
            " FROM unnest(%(shop_orgs)s::uuid[], %(shops)s::uuid[]) AS s (org, shop)"
        ).format(fields, values),
        params,
    )
    await conn.execute(
        "INSERT INTO senders SELECT org, shop, sender, number, 'long_code', 'LT', 'active', 1000, %(now)s, %(now)s FROM"
        " unnest(%(shop_orgs)s::uuid[], %(shops)s::uuid[], %(senders)s::uuid[], %(numbers)s::text[])"
        " AS s (org, shop, sender, number)",
        params,
    )
    await conn.execute(
        "INSERT INTO sms_shop_queues SELECT org, shop, NULL, %(now)s, 'epoch', 0"
        " FROM unnest(%(shop_orgs)s::uuid[], %(shops)s::uuid[]) AS s (org, shop)",
        params,
    )


async def _carts(conn: Connection, runtime: Runtime, bulk: Bulk, idle_since: datetime, shops: list[Any]) -> None:
    vault = runtime.vault
    phones = [f"+3706{n:07d}" for n in range(bulk.carts)]
    owners = [shops[n % len(shops)] for n in range(bulk.carts)]
    params: dict[str, Any] = {
        "at": idle_since,
        "scan_at": idle_since + timedelta(minutes=30),
        "stale_at": idle_since + timedelta(hours=96),
        "orgs": [org for org, _ in owners],
        "shops": [shop for _, shop in owners],
        "ids": [runtime.ids.new(idle_since) for _ in owners],
        "sealed": [seal_phone(vault, phone) for phone in phones],
        "hashes": [hash_phone(vault, phone) for phone in phones],
        "url": vault.seal("https://shop.example/checkout?c=1", "checkout-url"),
    }
    await conn.execute(
        """
        INSERT INTO checkout_sessions (organization_id, shop_id, session_id, external_id, state, phone_sealed,
          phone_hash, phone_country, consented_phone, country, locale, cart_value_minor, currency, checkout_url_sealed,
          last_activity_at, scan_at, stale_at, created_at, updated_at)
        SELECT org, shop, id, id::text, 'open', sealed, hash, 'LT', hash, 'LT', 'en', 5990, 'EUR', %(url)s,
          %(at)s, %(scan_at)s, %(stale_at)s, %(at)s, %(at)s
        FROM unnest(%(orgs)s::uuid[], %(shops)s::uuid[], %(ids)s::uuid[], %(sealed)s::bytea[], %(hashes)s::bytea[])
          AS c (org, shop, id, sealed, hash)
        """,
        params,
    )
    await conn.execute(
        """
        INSERT INTO consent_states (organization_id, shop_id, phone_hash, state, state_at)
        SELECT org, shop, hash, 'granted', %(at)s
        FROM unnest(%(orgs)s::uuid[], %(shops)s::uuid[], %(hashes)s::bytea[]) AS c (org, shop, hash)
        """,
        params,
    )
