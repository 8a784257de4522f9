"""Hand-written SQL on the web login against every tenant table, read from the catalogue: a new one cannot be forgotten.

Whoever asks (another organization, a sibling shop, nobody) and whatever the verb, the victim's rows are
not read, not changed, not removed, and none is added in the victim's name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from cartwake.kit.crypto import Vault
from cartwake.kit.db import WEB, Database, rows
from cartwake.tenants.model import Scope
from cartwake.tenants.scope import tenant_transaction
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


@dataclass
class Walls:
    """A victim with a row in every tenant table, and connections as others would have them."""

    victim: ShopClient
    sibling: ShopClient
    stranger: ShopClient
    owner: psycopg.Connection[Any]
    web_conninfo: str
    tables: list[str]

    def as_web(self, organization_id: UUID | None, shop_id: UUID | None) -> psycopg.Connection[Any]:
        """A web connection with this scope set by hand."""
        conn = psycopg.connect(self.web_conninfo)
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

    def victim_rows(self, table: str) -> list[dict[str, Any]]:
        where = sql.SQL("organization_id = {}").format(sql.Literal(self.victim.merchant.organization_id))
        if table not in SHARED_BY_SHOPS:
            where += sql.SQL(" AND shop_id = {}").format(sql.Literal(self.victim.shop_id))
        query = sql.SQL("SELECT to_jsonb(t) FROM {} AS t WHERE {}").format(sql.Identifier(table), where)
        return [found for (found,) in self.owner.execute(query).fetchall()]


@pytest.fixture
async def walls(deployment: Deployment, fresh_url: str) -> AsyncIterator[Walls]:
    merchant = await deployment.merchant("Lino Namai")
    victim, sibling = await merchant.shop("Linas"), await merchant.shop("Vilna")
    stranger = await deployment.shop("Knygos")
    for shop, phone in ((victim, RUTA), (stranger, AINO)):
        await shop.put_session(consent=TICKED, phone=phone)
        await shop.call("POST", "/v1/previews", {}, headers={"Idempotency-Key": "one"})
        await shop.call("PUT", "/v1/templates/en", {"text": "{shop}: {link} {opt_out}"})
        await shop.call("PUT", "/v1/reply-webhook", {"url": "https://shop.example/hook"})
    await deployment.outlast_a_cart()
    for phone in (RUTA, AINO):
        await deployment.reply(phone, "Hello?")
    for shop, phone in ((victim, RUTA), (stranger, AINO)):  # what was said so far is sealed, and this is not yet
        await shop.call("POST", "/v1/consent-withdrawals", {"phone": phone})
    with psycopg.connect(fresh_url) as owner:
        found = owner.execute(TABLES).fetchall()
        tables = [name for name, _walled, has_organization, *_ in found if has_organization]
        yield Walls(victim, sibling, stranger, owner, deployment.runtime.db.conninfo(WEB), tables)


async def test_nobody_reaches_another_tenants_rows(walls: Walls) -> None:
    assert len(walls.tables) > 12
    for table in walls.tables:
        there = walls.victim_rows(table)
        assert there, f"the story leaves no row in {table}: this test would prove nothing about it"
        for who, conn in walls.intruders().items():
            if who == "a sibling shop" and table in SHARED_BY_SHOPS:
                continue
            for verb, statement, params in attacks(table, there[0]):
                reached = attempt(conn, statement, params)
                assert reached == 0, f"{who} could {verb} {reached} of the victim's rows in {table}"
        assert walls.victim_rows(table) == there, table


async def test_a_sibling_shop_changes_nothing_of_what_it_shares(walls: Walls) -> None:
    sibling = walls.as_web(walls.sibling.merchant.organization_id, walls.sibling.shop_id)
    for table in SHARED_BY_SHOPS:
        for verb, statement, params in attacks(table, walls.victim_rows(table)[0])[1:]:
            assert attempt(sibling, statement, params) == 0, f"a sibling shop could {verb} in {table}"


async def test_a_shop_sees_no_key_and_no_answer_of_its_organization(walls: Walls) -> None:
    """Those rows are without a shop, and what they open is wider than the shop."""
    merchant = walls.victim.merchant
    await merchant.call("POST", "/v1/keys", {"kind": "organization"}, headers={"Idempotency-Key": "one"})
    shop = walls.as_web(merchant.organization_id, walls.victim.shop_id)
    organization = walls.as_web(merchant.organization_id, None)
    for table in ("api_keys", "idempotent_answers"):
        query = sql.SQL("SELECT organization_id FROM {} WHERE shop_id IS NULL").format(sql.Identifier(table))
        assert attempt(shop, query, []) == 0, table
        assert attempt(organization, query, []) > 0, table
    forged = "INSERT INTO api_keys VALUES (%s, NULL, gen_random_uuid(), 'organization', 'x', '2026-11-24')"
    assert attempt(shop, sql.Composed([sql.SQL(forged)]), [merchant.organization_id]) == 0


async def test_the_owner_of_a_row_does_see_it(walls: Walls) -> None:
    """Or the tests above would be satisfied by a wall around everything."""
    conn = walls.as_web(walls.victim.merchant.organization_id, walls.victim.shop_id)
    seen = {table for table in walls.tables if attempt(conn, *attacks(table, walls.victim_rows(table)[0])[0][1:]) > 0}
    assert seen >= {"checkout_sessions", "sms_messages", "consent_states", "sms_decisions", "org_sms_credit_ledger"}


async def test_a_shops_door_shows_this_shop_and_its_organizations_door_all_of_them(walls: Walls, db: Database) -> None:
    victim, sibling = walls.victim.scope, walls.sibling.scope
    for scope, seen in (
        (victim, {victim.shop_id}),
        (sibling, {sibling.shop_id}),
        (Scope(victim.organization_id), {victim.shop_id, sibling.shop_id}),
    ):
        async with tenant_transaction(db, scope) as conn:
            assert {found["shop_id"] for found in await rows(conn, "SELECT shop_id FROM shops")} == seen
            sessions = await rows(conn, "SELECT shop_id FROM checkout_sessions")
            assert {found["shop_id"] for found in sessions} == seen & {victim.shop_id}


async def test_a_pooled_connection_forgets_whose_it_was(walls: Walls, fresh_url: str, vault: Vault) -> None:
    """The next request on it may be anybody's: after a commit, after a failure, and after a lost tenant."""
    pool = Database(fresh_url, vault, pool_size=1)
    try:
        async with tenant_transaction(pool, walls.victim.scope) as conn:
            assert len(await rows(conn, "SELECT FROM checkout_sessions")) == 1
            pid = conn.info.backend_pid
        with pytest.raises(ZeroDivisionError):
            async with tenant_transaction(pool, walls.victim.scope):
                raise ZeroDivisionError
        async with pool.transaction(WEB) as conn:
            assert conn.info.backend_pid == pid, "the same connection, or this proves nothing"
            for table in walls.tables:
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    async with conn.transaction():
                        found = await rows(conn, sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(table)))
                        assert found == [], table
        async with tenant_transaction(pool, walls.stranger.scope) as conn:
            found = await rows(conn, "SELECT shop_id FROM checkout_sessions")
            assert [each["shop_id"] for each in found] == [walls.stranger.shop_id]
    finally:
        await pool.close()


def attacks(table: str, row: dict[str, Any]) -> list[tuple[str, sql.Composed, list[Any]]]:
    """One statement of each verb, aimed at the victim's organization, and at its shop where the table has one."""
    keys = [key for key in ("organization_id", "shop_id") if row.get(key)]
    victim = [row[key] for key in keys]
    name = sql.Identifier(table)
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(key)) for key in keys)
    return [
        ("read", sql.SQL("SELECT organization_id FROM {} WHERE {}").format(name, where), victim),
        (
            "change",
            sql.SQL("UPDATE {} SET organization_id = organization_id WHERE {}").format(name, where),
            victim,
        ),
        ("remove", sql.SQL("DELETE FROM {} WHERE {}").format(name, where), victim),
        (
            "add",
            sql.SQL("INSERT INTO {} SELECT (jsonb_populate_record(NULL::{}, %s)).*").format(name, name),
            [json.dumps(row)],
        ),
    ]


def attempt(conn: psycopg.Connection[Any], statement: sql.Composed, params: list[Any]) -> int:
    """How many rows a statement reached; 0 when it was refused. Nothing is kept."""
    try:
        return conn.execute(statement, params).rowcount
    except psycopg.errors.InsufficientPrivilege:
        return 0
    finally:
        conn.rollback()
