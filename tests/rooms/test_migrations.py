"""Migrations expand first and contract later, so that old and new processes can share a schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cartwake.migrations
from cartwake.kit.schema import expected_revision

VERSIONS = Path(cartwake.migrations.__file__).parent / "versions"
FOUNDATION = "0001_foundation"
# What breaks a process of the release before, or holds a table while it reads all of it.
CONTRACTS = {
    r"\bDROP\s+(TABLE|COLUMN|CONSTRAINT|FUNCTION|PROCEDURE|TYPE|POLICY|VIEW)\b": "an older process may still use it",
    r"\bRENAME\b": "an older process knows the old name: add, copy, and drop a release later",
    r"\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b": "it rewrites the table under an exclusive lock",
    r"\bSET\s+NOT\s+NULL\b": "an older process does not write it",
    r"\bADD\s+COLUMN\s+(?![^,;]*\bDEFAULT\b)[^,;]*\bNOT\s+NULL\b": "an older process does not write it",
    r"\bREVOKE\b": "an older process may need it",
    r"\bTRUNCATE\b": "it loses rows",
}
# On a file's first line, the release in which the last use of what it takes away ended.
PERMIT = re.compile(r"-- contract: not used since \d+\.\d+\.\d+\b")


def breaks(sql: str) -> list[str]:
    """Why this step may not run while processes of the release before do."""
    if PERMIT.match(sql):
        return []
    code = re.sub(r"--[^\n]*|'(?:[^']|'')*'", " ", sql)
    return [why for pattern, why in CONTRACTS.items() if re.search(pattern, code, re.IGNORECASE)]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE shops DROP COLUMN name;",
        "DROP TABLE shops;",
        "ALTER TABLE shops RENAME COLUMN name TO title;",
        "ALTER TABLE shops RENAME TO stores;",
        "ALTER TABLE shops ALTER COLUMN name TYPE varchar(10);",
        "ALTER TABLE shops ALTER COLUMN name SET NOT NULL;",
        "ALTER TABLE shops ADD COLUMN title text NOT NULL;",
        "ALTER TABLE shops\n  ADD COLUMN title text\n  NOT NULL;",
        "REVOKE SELECT ON shops FROM cartwake_web;",
    ],
)
def test_what_contracts_is_noticed(sql: str) -> None:
    assert breaks(sql)
    assert not breaks(f"-- contract: not used since 0.3.0\n{sql}")


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE shops ADD COLUMN title text;",
        "ALTER TABLE shops ADD COLUMN title text NOT NULL DEFAULT '';",
        "CREATE TABLE campaigns (name text NOT NULL);",
        "CREATE INDEX ON shops (name); -- DROP TABLE would be another matter",
        "GRANT SELECT ON shops TO cartwake_web;",
    ],
)
def test_what_expands_passes(sql: str) -> None:
    assert not breaks(sql)


def test_revisions_are_numbered_so_that_any_process_knows_which_is_newer() -> None:
    numbers = sorted(file.name.partition("_")[0] for file in VERSIONS.glob("[!_]*.py"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert expected_revision() == numbers[-1]


def test_every_migration_after_the_first_expands() -> None:
    later = [step for step in sorted(VERSIONS.glob("*/*.sql")) if step.parent.name != FOUNDATION]
    assert {
        str(step.relative_to(VERSIONS)): breaks(step.read_text()) for step in later if breaks(step.read_text())
    } == {}
    assert (VERSIONS / FOUNDATION).is_dir()
