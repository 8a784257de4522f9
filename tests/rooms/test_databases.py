"""The tests' own databases: whatever a test did to one, the next test finds what the migrations left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE
from databases import Databases, Lent

INSERT = (
    "INSERT INTO suppressed_phones (phone_hash, reason, at) VALUES (sha256(%s::text::bytea), 'not_my_number', now())"
)


@pytest.fixture
async def own(server_url: str, template: str, vault: Vault) -> AsyncIterator[Databases]:
    made = Databases(server_url, template, vault)
    yield made
    await made.close()


def oid(lent: Lent) -> object:
    with psycopg.connect(lent.url) as conn:
        found = conn.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert found is not None
    return found[0]


async def process(lent: Lent) -> int:
    """The server's process behind one of the test's connections."""
    async with lent.pools.transaction(ENGINE) as conn:
        return conn.info.backend_pid


def is_connected(lent: Lent, pid: int) -> bool:
    with psycopg.connect(lent.url) as conn:
        return bool(conn.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())


def holds_nothing_new(lent: Lent) -> bool:
    with psycopg.connect(lent.url) as conn:
        counted = conn.execute(
            "SELECT (SELECT count(*) FROM suppressed_phones), (SELECT count(*) FROM alembic_version)"
        ).fetchone()
    return counted == (0, 1)


async def test_one_with_rows_is_lent_again_without_them_and_with_its_connections(own: Databases) -> None:
    first = own.take()
    was, pid = oid(first), await process(first)
    with psycopg.connect(first.url) as conn:
        for number in range(3000):
            conn.execute(INSERT, [number])
    await own.give_back(first)
    again = own.take()
    assert oid(again) == was
    assert is_connected(again, pid)
    assert holds_nothing_new(again)
    await own.give_back(again)


async def test_one_that_somebody_is_still_connected_to_is_lent_again_under_another_name(own: Databases) -> None:
    first = own.take()
    was, pid = oid(first), await process(first)
    with psycopg.connect(first.url, autocommit=True) as left_open:
        left_open.execute(INSERT, [1])
        await own.give_back(first)
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first.url)
    again = own.take()
    assert oid(again) == was
    assert not is_connected(again, pid)
    assert holds_nothing_new(again)
    await own.give_back(again)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE another ()",
        "DROP TABLE suppressed_phones",
        "ALTER TABLE shops ADD COLUMN another text",
        "ALTER TABLE org_sms_credit_ledger DISABLE TRIGGER USER",
        "ALTER TABLE shops DISABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON suppressed_phones TO PUBLIC",
        "CREATE FUNCTION another() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA another",
        "UPDATE alembic_version SET version_num = '0000'",
    ],
)
async def test_one_that_is_another_now_is_not_lent_again(own: Databases, change: str) -> None:
    first = own.take()
    was = oid(first)
    with psycopg.connect(first.url, autocommit=True) as conn:
        conn.execute(change)
    await own.give_back(first)
    again = own.take()
    assert oid(again) != was
    await own.give_back(again)
