"""The tables of the schema, as PostgreSQL's own catalogue tells them."""

from __future__ import annotations

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
