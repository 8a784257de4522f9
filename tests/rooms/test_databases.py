"""The tests' own databases: whatever a test did to one, the next test finds what the migrations left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from databases import Databases

INSERT = (
    "INSERT INTO suppressed_phones (phone_hash, reason, at) VALUES (sha256(%s::text::bytea), 'not_my_number', now())"
)


@pytest.fixture
def own(server_url: str, template: str) -> Iterator[Databases]:
    made = Databases(server_url, template)
    yield made
    made.close()


def oid(databases: Databases, name: str) -> object:
    with psycopg.connect(databases.url(name)) as conn:
        found = conn.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert found is not None
    return found[0]


def test_one_with_rows_is_lent_again_without_them_and_under_another_name(own: Databases) -> None:
    name = own.take()
    was = oid(own, name)
    with psycopg.connect(own.url(name), autocommit=True) as left_open:
        for number in range(3000):
            left_open.execute(INSERT, [number])
        own.give_back(name)
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(own.url(name))
    again = own.take()
    assert oid(own, again) == was
    with psycopg.connect(own.url(again)) as conn:
        assert conn.execute("SELECT count(*) FROM suppressed_phones").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


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
def test_one_that_is_another_now_is_not_lent_again(own: Databases, change: str) -> None:
    name = own.take()
    was = oid(own, name)
    with psycopg.connect(own.url(name), autocommit=True) as conn:
        conn.execute(change)
    own.give_back(name)
    assert oid(own, own.take()) != was
