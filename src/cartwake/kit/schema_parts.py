"""Whether a database holds the whole schema that it says it has.

A restore that stopped in the middle, or that found no logins on a new server, leaves tables without keys, without
constraints or without their walls, and a version that says all is well. So each migration writes down, in its own
transaction, what the catalogue held after it; whatever of that is missing later is a part that was lost.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg

WALL = "forced row-level security of "

# What the catalogue calls our things. Objects of extensions are not ours. Constraints that say NOT NULL have rows here
# from PostgreSQL 18 on, under names of the server's own, so they are left out.
PARTS = """
WITH r AS (
  SELECT c.oid, c.relname, c.relkind, c.relrowsecurity AND c.relforcerowsecurity AS walled FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'i', 'I')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
)
SELECT CASE WHEN r.relkind IN ('r', 'p') THEN 'table ' ELSE 'index ' END || r.relname AS part FROM r
UNION ALL SELECT format('column %s of %s', a.attname, r.relname) FROM r JOIN pg_attribute a ON a.attrelid = r.oid
  WHERE r.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT format('constraint %s of %s', n.conname, r.relname) FROM r JOIN pg_constraint n ON n.conrelid = r.oid
  WHERE n.contype <> 'n'
UNION ALL SELECT format('policy %s of %s', p.polname, r.relname) FROM r JOIN pg_policy p ON p.polrelid = r.oid
UNION ALL SELECT format('trigger %s of %s', t.tgname, r.relname) FROM r JOIN pg_trigger t ON t.tgrelid = r.oid
  WHERE NOT t.tgisinternal
UNION ALL SELECT format('forced row-level security of %s', r.relname) FROM r WHERE r.walled
UNION ALL SELECT 'function ' || f.proname FROM pg_proc f
  WHERE f.pronamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = f.oid AND d.deptype = 'e')
ORDER BY 1
"""
KEEP = """
INSERT INTO public.deployment_schema (revision, parts) VALUES (%s, %s)
ON CONFLICT (only_row) DO UPDATE SET revision = EXCLUDED.revision, parts = EXCLUDED.parts
"""
IS_KEPT = "SELECT to_regclass('public.deployment_schema') IS NOT NULL"
READ_KEPT = "SELECT parts FROM public.deployment_schema"
OUR_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname = ANY(%s) ORDER BY relname
"""
SHOWN_MAX = 3

Sync = psycopg.Connection[Any]


def keep_parts(conn: Sync, revision: str) -> None:
    """Write down what there is, in the transaction of the migration that made it."""
    conn.execute(KEEP, [revision, [part for (part,) in conn.execute(PARTS).fetchall()]])


def missing_parts(conn: Sync) -> list[str]:
    """What the last migration left here and is here no more. For a database that has a version."""
    (is_kept,) = conn.execute(IS_KEPT).fetchone() or (False,)
    kept = conn.execute(READ_KEPT).fetchone() if is_kept else None
    if kept is None:
        return ["what the last migration wrote down about itself (deployment_schema)"]
    there = {part for (part,) in conn.execute(PARTS).fetchall()}
    return [part for part in kept[0] if part not in there]


def tables_of_ours(conn: Sync) -> list[str]:
    """Tables here that bear the name of one of ours."""
    return [name for (name,) in conn.execute(OUR_TABLES, [sorted(_our_tables())]).fetchall()]


def some(parts: list[str]) -> str:
    """The first few of them."""
    more = len(parts) - SHOWN_MAX
    return ", ".join(parts[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


@cache
def _our_tables() -> frozenset[str]:
    versions = files("cartwake.migrations") / "versions"
    steps = [step for folder in versions.iterdir() if folder.is_dir() for step in folder.iterdir()]
    text = "\n".join(step.read_text() for step in steps if step.name.endswith(".sql"))
    return frozenset(re.findall(r"^CREATE TABLE (\w+)", text, re.MULTILINE))
