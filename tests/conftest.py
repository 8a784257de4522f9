"""What every test may ask for: a fresh migrated database, a clock that stands still, seeded ids."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from filelock import FileLock
from psycopg import sql

from cartwake.kit.clock import ManualClock
from cartwake.kit.config import DEVELOPMENT_SECRET, Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Database
from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.ids import Ids
from cartwake.kit.runtime import Runtime
from cartwake.kit.schema import migrate
from databases import NOTE_ARROWS, Databases, Lent

pytest_plugins = [
    "world",
    "deployment",
    "chromium",
    "processes",
    "typed",
    "homes",
    "queued",
    "walls",
    "conformance.bench",
    "conformance.trial",
]

# A Tuesday, 10:15 in Vilnius and Helsinki, 09:15 in Berlin; no daylight saving change is near.
TUESDAY_MORNING = datetime(2026, 11, 24, 8, 15, tzinfo=UTC)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all pytest-xdist workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def server_url(shared_folder: Path) -> Iterator[str]:
    """A PostgreSQL to test against: `CARTWAKE_DATABASE_URL`, or an embedded one that the workers share."""
    if url := os.environ.get("CARTWAKE_DATABASE_URL"):
        yield url
        return
    with embedded_postgres(shared_folder / "postgres", durable=False) as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            # Logging in costs 3 ms less with the roles' passwords hashed once, and tests log in thousands of times.
            conn.execute("ALTER SYSTEM SET scram_iterations = 1")
            conn.execute("SELECT pg_reload_conf()")
        yield server.url


@pytest.fixture(scope="session")
def vault() -> Vault:
    return Vault([DEVELOPMENT_SECRET.encode()])


@pytest.fixture(scope="session")
def template(server_url: str, vault: Vault, shared_folder: Path) -> str:
    """A migrated database that tests copy: much quicker than migrating each time."""
    name = f"cartwake_template_{shared_folder.name.replace('-', '_')}"
    with FileLock(shared_folder / "template.lock"), psycopg.connect(server_url, autocommit=True) as conn:
        if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            migrate(database_url(server_url, name), vault)
    return name


@pytest.fixture(scope="session")
async def databases(server_url: str, template: str, vault: Vault) -> AsyncIterator[Databases]:
    found = Databases(server_url, template, vault)
    yield found
    await found.close()


@pytest.fixture(scope="session")
async def watched_databases(server_url: str, template: str, vault: Vault) -> AsyncIterator[Databases]:
    """Databases that note each move of a message: a deployment's."""
    found = Databases(server_url, template, vault, NOTE_ARROWS)
    yield found
    await found.close()


@pytest.fixture
def lender(request: pytest.FixtureRequest) -> Databases:
    """Where the test's database comes from."""
    kind = "watched_databases" if "deployment" in request.fixturenames else "databases"
    found: Databases = request.getfixturevalue(kind)
    return found


@pytest.fixture
async def lent(lender: Databases) -> AsyncIterator[Lent]:
    """An empty migrated database of the test's own."""
    borrowed = lender.take()
    yield borrowed
    await lender.give_back(borrowed)


@pytest.fixture
def fresh_url(lent: Lent) -> str:
    """Its address (owner login)."""
    return lent.url


@pytest.fixture
def db(lent: Lent) -> Database:
    return lent.pools


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(TUESDAY_MORNING)


@pytest.fixture
def ids() -> Ids:
    return Ids(seed=7)


@pytest.fixture
def runtime(db: Database, clock: ManualClock, ids: Ids, vault: Vault) -> Runtime:
    return Runtime(Settings(), clock, ids, vault, db)


def database_url(server_url: str, name: str) -> str:
    """The same server and login, another database."""
    return psycopg.conninfo.make_conninfo(server_url, dbname=name)
