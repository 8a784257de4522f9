"""Hand-written SQL on the web login against every tenant table, read from the catalogue: a new one cannot be forgotten.

Whoever asks (another organization, a sibling shop, nobody) and whatever the verb, the victim's rows are
not read, not changed, not removed, and none is added in the victim's name.
"""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from psycopg import sql

from cartwake.kit.crypto import Vault
from cartwake.kit.db import WEB, Database, rows
from cartwake.tenants.model import Scope
from cartwake.tenants.scope import tenant_transaction
from catalogue import PLATFORM_TABLES
from walls import SHARED_BY_SHOPS, Walls, attempt

# What the web may know of the deployment whoever asks: the schema's state, and whether sending is paused.
FOR_ALL_TO_SEE = {"alembic_version", "deployment_schema", "deployment_switches"}
EVERYTHING = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO cartwake_web")


@pytest.mark.parametrize("grants", [pytest.param("as-granted", marks=pytest.mark.thorough), "granted-everything"])
async def test_nobody_reaches_another_tenants_rows(walls: Walls, grants: str) -> None:
    """With the web login's own grants; and with all of them, so that each verb reaches the policy on each table.

    No policy stops a TRUNCATE, so nobody is granted that.
    """
    assert len(walls.tables) > 12
    if grants == "granted-everything":
        walls.owner.execute(EVERYTHING)
    intruders = walls.intruders()
    for table in walls.tables:
        there = walls.victim_rows(table)
        assert there, f"the story leaves no row in {table}: this test would prove nothing about it"
        for who, conn in intruders.items():
            if who == "a sibling shop" and table in SHARED_BY_SHOPS:
                continue
            own = walls.sibling if who == "a sibling shop" else walls.stranger
            for verb, statement, params in [*walls.attacks(table), *walls.moves(table, own)]:
                reached = attempt(conn, statement, params)
                assert reached == 0, f"{who} could {verb} {reached} of the victim's rows in {table}"
        assert walls.victim_rows(table) == there, table


@pytest.mark.thorough
async def test_a_sibling_shop_changes_nothing_of_what_it_shares(walls: Walls) -> None:
    sibling = walls.as_web(walls.sibling.merchant.organization_id, walls.sibling.shop_id)
    for table in SHARED_BY_SHOPS:
        for verb, statement, params in walls.attacks(table)[1:]:
            assert attempt(sibling, statement, params) == 0, f"a sibling shop could {verb} in {table}"


@pytest.mark.thorough
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


async def test_the_owner_of_a_row_reaches_it(walls: Walls) -> None:
    """Or the tests above would be satisfied by a wall around everything."""
    walls.owner.execute(EVERYTHING)
    conn = walls.as_web(walls.victim.merchant.organization_id, walls.victim.shop_id)
    # Nobody changes it.
    evidence = {"org_sms_credit_ledger", "consent_events", "consent_links", "sms_template_versions"}
    for table in walls.tables:
        read, change, *_ = walls.attacks(table)
        assert attempt(conn, *read[1:]) > 0, table
        assert (attempt(conn, *change[1:]) > 0) != (table in evidence), table
        assert walls.moves(table, walls.stranger), f"nobody has a row to move into {table}"


async def test_without_a_tenant_the_web_login_sees_no_row_of_any_table(walls: Walls) -> None:
    nobody = walls.as_web(None, None)
    for table in {*walls.tables, *PLATFORM_TABLES} - FOR_ALL_TO_SEE:
        query = sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(table))
        assert walls.owner.execute(query).fetchone() or table in PLATFORM_TABLES, f"{table} is empty"
        assert attempt(nobody, query, []) == 0, table


@pytest.mark.thorough
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
