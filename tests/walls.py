"""A victim with a row in every tenant table, and others who would like to have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from cartwake.kit.db import WEB
from catalogue import TABLES
from deployment import Deployment
from world import AINO, RUTA, TICKED, ShopClient

# Seen by the whole organization: sibling shops share it by design (credits, plan) or it names the organization.
SHARED_BY_SHOPS = {
    "organizations",
    "org_sms_credit_balances",
    "org_sms_credit_ledger",
    "sms_credit_reservations",
}
WRITABLE = """
SELECT a.attname FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
  AND has_column_privilege('cartwake_web', a.attrelid, a.attnum, 'UPDATE')
  AND has_column_privilege('cartwake_web', a.attrelid, a.attnum, 'SELECT') ORDER BY a.attnum DESC
"""

Json = dict[str, Any]
Statement = tuple[str, sql.Composed, list[Any]]


@dataclass
class Walls:
    """The victim, the others, and connections as they would have them."""

    victim: ShopClient
    sibling: ShopClient
    stranger: ShopClient
    owner: psycopg.Connection[Any]
    connect_as_web: Callable[[], psycopg.Connection[Any]]
    tables: list[str]

    def as_web(self, organization_id: UUID | None, shop_id: UUID | None) -> psycopg.Connection[Any]:
        """A web connection with this scope set by hand."""
        conn = self.connect_as_web()
        for name, value in (("cartwake.org", organization_id), ("cartwake.shop", shop_id)):
            conn.execute("SELECT set_config(%s, %s, false)", [name, str(value or "")])
        conn.commit()
        return conn

    def intruders(self) -> dict[str, psycopg.Connection[Any]]:
        stranger, sibling = self.stranger.scope, self.sibling.scope
        return {
            "another organization": self.as_web(stranger.organization_id, None),
            "another organization's shop": self.as_web(stranger.organization_id, stranger.shop_id),
            "another organization with the victim's shop": self.as_web(stranger.organization_id, self.victim.shop_id),
            "a sibling shop": self.as_web(sibling.organization_id, sibling.shop_id),
            "nobody": self.as_web(None, None),
        }

    def rows_of(self, shop: ShopClient, table: str) -> list[Json]:
        """What a shop has in a table, or its organization where the shops share it."""
        where = sql.SQL("organization_id = {}").format(sql.Literal(shop.merchant.organization_id))
        if table not in SHARED_BY_SHOPS:
            where += sql.SQL(" AND shop_id = {}").format(sql.Literal(shop.shop_id))
        query = sql.SQL("SELECT to_jsonb(t) FROM {} AS t WHERE {} ORDER BY t::text").format(
            sql.Identifier(table), where
        )
        return [found for (found,) in self.owner.execute(query).fetchall()]

    def victim_rows(self, table: str) -> list[Json]:
        return self.rows_of(self.victim, table)

    def writable(self, table: str) -> str:
        """A column that the web login may update; the tenant's key where it may none."""
        found = self.owner.execute(WRITABLE, [table]).fetchone()
        return str(found[0]) if found else "organization_id"

    def attacks(self, table: str) -> list[Statement]:
        """One statement of each verb, aimed at the victim's organization, and at its shop where the table has one."""
        row = self.victim_rows(table)[0]
        where, params = _is_its(row)
        name, column = sql.Identifier(table), sql.Identifier(self.writable(table))
        return [
            ("read", sql.SQL("SELECT organization_id FROM {} WHERE {}").format(name, where), params),
            ("change", sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(name, column, column, where), params),
            ("remove", sql.SQL("DELETE FROM {} WHERE {}").format(name, where), params),
            ("add", _insert(name), [json.dumps(row)]),
            ("empty", sql.SQL("TRUNCATE {}").format(name), []),
        ]

    def moves(self, table: str, intruder: ShopClient) -> list[Statement]:
        """The intruder's own row becomes the victim's, and a copy of it does. None where it has no row."""
        own, victims = self.rows_of(intruder, table), self.victim_rows(table)[0]
        if not own:
            return []
        where, params = _is_its(own[0])
        keys = {key: victims[key] for key in ("organization_id", "shop_id") if victims.get(key)}
        name = sql.Identifier(table)
        change = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(key)) for key in keys)
        move = sql.SQL("UPDATE {} SET {} WHERE {}").format(name, change, where)
        return [
            ("move a row to", move, [*keys.values(), *params]),
            ("add a copy to", _insert(name), [json.dumps(own[0] | keys)]),
        ]


def attempt(conn: psycopg.Connection[Any], statement: sql.Composed, params: list[Any]) -> int:
    """How many rows a statement reached; 0 when it was refused. Nothing is kept."""
    try:
        return conn.execute(statement, params).rowcount
    except psycopg.errors.InsufficientPrivilege:
        return 0
    finally:
        conn.rollback()


def _is_its(row: Json) -> tuple[sql.Composed, list[Any]]:
    """The condition that a row is of the same organization, and of the same shop where it has one."""
    keys = [key for key in ("organization_id", "shop_id") if row.get(key)]
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(key)) for key in keys)
    return where, [row[key] for key in keys]


def _insert(table: sql.Identifier) -> sql.Composed:
    return sql.SQL("INSERT INTO {} SELECT (jsonb_populate_record(NULL::{}, %s)).*").format(table, table)


@pytest.fixture
async def walls(deployment: Deployment, fresh_url: str) -> AsyncIterator[Walls]:
    merchant = await deployment.merchant("Lino Namai")
    victim, sibling = await merchant.shop("Linas"), await merchant.shop("Vilna")
    stranger = await deployment.shop("Knygos")
    for shop, phone, cart in ((victim, RUTA, "cart-of-ruta"), (stranger, AINO, "cart-of-aino")):
        await shop.put_session(cart, consent=TICKED, phone=phone, checkout_url=f"https://shop.example/{cart}")
        await shop.call("POST", "/v1/previews", {}, headers={"Idempotency-Key": f"preview-{cart}"})
        await shop.call("PUT", "/v1/templates/en", {"text": f"{{shop}} kept {cart}: {{link}} {{opt_out}}"})
        await shop.call("PUT", "/v1/reply-webhook", {"url": f"https://hooks.example/{cart}"})
    await deployment.outlast_a_cart()
    for phone in (RUTA, AINO):
        await deployment.reply(phone, f"Hello from {phone[-4:]}?")
    for shop, phone in ((victim, RUTA), (stranger, AINO)):  # what was said so far is sealed, and this is not yet
        await shop.call("POST", "/v1/consent-withdrawals", {"phone": phone})
    with ExitStack() as connections:

        def connect_as_web() -> psycopg.Connection[Any]:
            conn = psycopg.connect(deployment.runtime.db.conninfo(WEB), options="-c lock_timeout=5000")
            return connections.enter_context(conn)

        owner = connections.enter_context(psycopg.connect(fresh_url, autocommit=True))
        found = owner.execute(TABLES).fetchall()
        tables = [name for name, _walled, has_organization, *_ in found if has_organization]
        yield Walls(victim, sibling, stranger, owner, connect_as_web, tables)
