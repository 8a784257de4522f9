"""The tables of the schema, as PostgreSQL's own catalogue tells them."""

from __future__ import annotations

from collections.abc import Mapping, Set

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

# Tables without a tenant, each for a reason that its caption in the schema gives.
PLATFORM_TABLES = {
    "alembic_version",
    "carrier_events",
    "deployment_home",
    "deployment_keys",
    "deployment_schema",
    "deployment_switches",
    "invariant_checks",
    "operator_idempotent_answers",
    "operator_keys",
    "periodic_tasks",
    "recipient_texts",
    "suppressed_phones",
    "worker_beats",
}
TABLES = """
SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS walled,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id'
               AND a.attnotnull) AS has_organization,
       ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1) AS policies
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1
"""


def every_row(url: str, but: Set[str] = frozenset(), but_of: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Every row of every table, but those of some tables, and those that hold these values."""
    with psycopg.connect(url) as owner:
        names = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        query = sql.SQL("SELECT t::text FROM {} AS t WHERE %s::jsonb IS NULL OR NOT to_jsonb(t) @> %s ORDER BY 1")
        own = Jsonb(but_of) if but_of else None
        return {
            name: [row for (row,) in owner.execute(query.format(sql.Identifier(name)), [own, own]).fetchall()]
            for (name,) in names
            if name not in but
        }
