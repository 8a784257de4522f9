"""The tenant walls, read from PostgreSQL's own catalogue: a new table cannot be forgotten."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.rows import dict_row

from catalogue import PLATFORM_TABLES, TABLES

# Unique keys that must hold over the whole deployment, because they are looked up before the tenant is known.
DIRECTORY_KEYS = {"api_keys_directory", "senders_directory", "short_links_directory"}
APPEND_ONLY = {"org_sms_credit_ledger", "consent_events", "consent_links", "sms_template_versions"}

UNIQUE_KEYS = """
SELECT i.indexrelid::regclass::text AS name, t.relname AS table_name,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)) AS columns
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'public' AND i.indisunique
"""
FOREIGN_KEYS = """
SELECT c.conname AS name, c.conrelid::regclass::text AS table_name, c.confrelid::regclass::text AS target,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)) AS columns,
       EXISTS (SELECT FROM pg_attribute a
               WHERE a.attrelid = c.confrelid AND a.attname = 'shop_id' AND a.attnotnull) AS to_shop
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = 'public' AND c.contype = 'f'
"""

# For changes and removals of rows, and for emptying the table.
APPEND_ONLY_TRIGGERS = """
SELECT t.tgrelid::regclass::text AS name FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.proname = 'refuse_change' GROUP BY 1 HAVING count(*) = 2
"""


@pytest.fixture
def catalogue(fresh_url: str) -> psycopg.Connection[dict[str, object]]:
    return psycopg.connect(fresh_url, row_factory=dict_row)


def test_every_table_is_a_tenants_or_listed(catalogue: psycopg.Connection[dict[str, object]]) -> None:
    found = catalogue.execute(TABLES).fetchall()
    assert {row["name"] for row in found if not row["has_organization"]} == PLATFORM_TABLES


def test_every_tenant_table_has_forced_row_level_security(catalogue: psycopg.Connection[dict[str, object]]) -> None:
    tenant_tables = [row for row in catalogue.execute(TABLES).fetchall() if row["name"] not in PLATFORM_TABLES]
    assert tenant_tables
    for table in tenant_tables:
        assert table["walled"], table["name"]
        assert table["policies"] == ["every_tenant", "tenant"], table["name"]


def test_every_unique_key_of_a_tenant_table_contains_the_organization(
    catalogue: psycopg.Connection[dict[str, object]],
) -> None:
    keys = [row for row in catalogue.execute(UNIQUE_KEYS).fetchall() if row["table_name"] not in PLATFORM_TABLES]
    without = {str(row["name"]) for row in keys if "organization_id" not in list(row["columns"])}  # type: ignore[call-overload]
    assert without == DIRECTORY_KEYS


def test_no_foreign_key_can_point_into_another_tenant(catalogue: psycopg.Connection[dict[str, object]]) -> None:
    found = catalogue.execute(FOREIGN_KEYS).fetchall()
    assert found
    for key in found:
        columns = set(key["columns"])  # type: ignore[call-overload]
        assert "organization_id" in columns, key["name"]
        assert "shop_id" in columns or not key["to_shop"], f"{key['name']} could point at a sibling shop's row"


def test_evidence_is_append_only_by_trigger(catalogue: psycopg.Connection[dict[str, object]]) -> None:
    found = catalogue.execute(APPEND_ONLY_TRIGGERS).fetchall()
    assert {row["name"] for row in found} == APPEND_ONLY
    for table in sorted(APPEND_ONLY):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            catalogue.execute(psycopg.sql.SQL("TRUNCATE {} CASCADE").format(psycopg.sql.Identifier(table)))
        catalogue.rollback()
