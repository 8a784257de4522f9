"""`cartwake migrate` on a part of a database: it says so and what to do, and changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.schema import expected_revision
from conftest import database_url
from tools import binaries, run_tool
from typed import Cartwake, Said

CATALOGUE = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
ADVICE = 'Restore once more, into an empty database (docs/operate.md, "Back up, and restore")'


@pytest.fixture
def backup(settled_url: str, tmp_path: Path) -> Path:
    file = tmp_path / "cartwake.dump"
    run_tool("pg_dump", "--format=custom", f"--file={file}", "--dbname", settled_url)
    return file


@pytest.fixture
def empty_url(server_url: str, fresh_url: str) -> Iterator[str]:
    """Another database on the server, which has the logins."""
    name = sql.Identifier(f"{psycopg.conninfo.conninfo_to_dict(fresh_url)['dbname']}_half")
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
    yield database_url(server_url, name.as_string().strip('"'))
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def refused(cartwake: Cartwake, url: str) -> str:
    """What `migrate` says when it refuses, having changed nothing."""
    with psycopg.connect(url) as conn:
        before = conn.execute(CATALOGUE).fetchall()
    said: Said = cartwake("migrate", database_url=url)
    assert said.status == 1 and said.out == ""
    assert "Traceback" not in said.err and "process.failed" not in said.err
    assert "Nothing was changed." in said.err
    with psycopg.connect(url) as conn:
        after = conn.execute(CATALOGUE).fetchall()
    assert {name for (name,) in after} - {name for (name,) in before} <= {"alembic_version", "alembic_version_pkc"}
    return said.err


def owner(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.mark.parametrize(
    "part", [0.9, *(pytest.param(part, marks=pytest.mark.thorough) for part in (0.02, 0.1, 0.3, 0.45, 0.55, 0.7, 0.99))]
)
def test_a_restore_that_was_broken_off_is_told(
    cartwake: Cartwake, backup: Path, empty_url: str, tmp_path: Path, part: float
) -> None:
    entries = [line for line in run_tool("pg_restore", "--list", str(backup)).splitlines() if not line.startswith(";")]
    wanted = tmp_path / "wanted"
    wanted.write_text("\n".join(entries[: int(len(entries) * part)]))
    run_tool("pg_restore", "--exit-on-error", f"--use-list={wanted}", "--dbname", empty_url, str(backup))
    assert ADVICE in refused(cartwake, empty_url)


@pytest.mark.thorough
def test_a_whole_restore_is_none_of_that(cartwake: Cartwake, backup: Path, empty_url: str) -> None:
    run_tool("pg_restore", "--exit-on-error", "--dbname", empty_url, str(backup))
    for _ in range(2):
        said = cartwake("migrate", database_url=empty_url)
        assert (said.status, said.out) == (0, f"The database is at revision {expected_revision()}.\n"), said.err


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("DROP TABLE sms_replies", "but lacks column body_sealed of sms_replies, "),
        pytest.param(
            "DROP TABLE deployment_schema", "but lacks what the last migration wrote down", marks=pytest.mark.thorough
        ),
        pytest.param(
            "DELETE FROM deployment_schema", "but lacks what the last migration wrote down", marks=pytest.mark.thorough
        ),
        ("ALTER TABLE shops DISABLE ROW LEVEL SECURITY", "but lacks forced row-level security of shops."),
        pytest.param("DROP POLICY tenant ON shops", "but lacks policy tenant of shops.", marks=pytest.mark.thorough),
        pytest.param(
            "DROP INDEX api_keys_directory", "but lacks index api_keys_directory.", marks=pytest.mark.thorough
        ),
        pytest.param("DROP TABLE alembic_version", "has tables of Cartwake's (api_keys, ", marks=pytest.mark.thorough),
        ("DELETE FROM alembic_version", "has tables of Cartwake's (api_keys, "),
    ],
)
def test_what_is_missing_is_named(cartwake: Cartwake, settled_url: str, broken: str, said: str) -> None:
    owner(settled_url, broken)
    assert said in refused(cartwake, settled_url)


@pytest.mark.thorough
def test_what_a_newer_version_migrated_is_left_to_it(cartwake: Cartwake, settled_url: str) -> None:
    owner(settled_url, "UPDATE alembic_version SET version_num = '9998'")
    said = cartwake("migrate", database_url=settled_url)
    assert said.status == 0, said.err
    assert said.out == (
        "The database is at revision 9998, newer than this version of Cartwake knows; nothing was to be done.\n"
    )


@pytest.mark.thorough
def test_a_stranger_s_table_with_the_name_of_one_of_ours_is_left_alone(cartwake: Cartwake, empty_url: str) -> None:
    owner(empty_url, "CREATE TABLE shops (name text)", "INSERT INTO shops VALUES ('theirs')")
    assert "has tables of Cartwake's (shops) and no version" in refused(cartwake, empty_url)
    owner(empty_url, "DROP TABLE shops", "CREATE FUNCTION refuse_change() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert "met something that it did not expect: function" in refused(cartwake, empty_url)


@pytest.mark.thorough
def test_the_doctor_names_what_is_missing(cartwake: Cartwake, settled_url: str) -> None:
    owner(settled_url, "DROP INDEX api_keys_directory")
    said = cartwake("doctor", database_url=settled_url)
    assert said.status == 1 and "the schema is not whole: it lacks index api_keys_directory" in said.out


@pytest.mark.slow
def test_a_server_without_the_logins_is_told(cartwake: Cartwake, backup: Path, tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "elsewhere") as server:
        command = [str(binaries() / "pg_restore"), "--no-owner", "--dbname", server.url, str(backup)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1, "it goes on over what fails"
        err = refused(cartwake, server.url)
    assert "lacks the logins cartwake_web, cartwake_operator, cartwake_engine, which a backup does not hold" in err
    assert ADVICE in err
