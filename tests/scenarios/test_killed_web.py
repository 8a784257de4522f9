"""`kill -9` of a web process in the middle of a POST: its retry, at another process, does the work once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest

from cartwake.kit.db import OPERATOR
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from deployment import plain_http
from ports import free_port

pytestmark = pytest.mark.slow

FORM = {"name": "Lino Namai", "plan": "PRO"}
# Whoever comes to this point waits for the lock that the test holds.
WAIT_HERE = """
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
CREATE TRIGGER wait_here {} FOR EACH ROW EXECUTE FUNCTION wait_here();
"""
WAITING = (
    "SELECT FROM pg_locks JOIN pg_database d ON d.oid = database WHERE datname = current_database()"
    " AND locktype = 'advisory' AND NOT granted"
)


@asynccontextmanager
async def web_process(fresh_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """A process of its own, and a client of it."""
    port = free_port()
    environment = os.environ | {"CARTWAKE_DATABASE_URL": fresh_url, "CARTWAKE_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "cartwake", "serve", env=environment)
    try:
        async with plain_http(f"http://127.0.0.1:{port}") as http:
            while True:
                try:
                    await http.get("/healthz")
                    break
                except httpx.TransportError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            yield process, http
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("point", ["AFTER INSERT ON organizations", "BEFORE INSERT ON operator_idempotent_answers"])
async def test_a_killed_process_leaves_nothing_half_done(runtime: Runtime, fresh_url: str, point: str) -> None:
    async with runtime.db.transaction(OPERATOR) as conn:
        key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "lino"}
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute(WAIT_HERE.format(point))
        await owner.execute("SELECT pg_advisory_lock(7)")
        async with web_process(fresh_url) as (process, http):
            asked = asyncio.create_task(http.post("/v1/organizations", json=FORM, headers=headers, timeout=60))
            while not (await owner.execute(WAITING)).rowcount:
                assert not asked.done(), asked.result().text
                await asyncio.sleep(0.01)
            process.kill()
            with pytest.raises(httpx.TransportError):
                await asked
        await owner.execute("SELECT pg_advisory_unlock(7)")
        async with web_process(fresh_url) as (_, http):
            # The dead process's transaction ends when PostgreSQL notices; until then its key is in use.
            while (again := await http.post("/v1/organizations", json=FORM, headers=headers)).status_code == 409:
                assert again.headers["retry-after"] == "1"
                await asyncio.sleep(0.05)
            assert again.status_code == 201 and "idempotent-replayed" not in again.headers
            replay = await http.post("/v1/organizations", json=FORM, headers=headers)
            assert replay.json() == again.json() and replay.headers["idempotent-replayed"] == "true"
        made = await (await owner.execute("SELECT organization_id FROM organizations")).fetchall()
        assert [str(each[0]) for each in made] == [again.json()["organization_id"]]
