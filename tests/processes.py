"""Real processes of Cartwake for tests: started as an operator would, and stopped by a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from cartwake.carriers.open import INBOUND_PATH
from cartwake.carriers.sandbox.server import Sandbox, running_sandbox
from cartwake.carriers.sandbox.state import Options
from cartwake.kit.clock import VirtualClock
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, OPERATOR, Database, rows
from cartwake.kit.ids import Ids
from cartwake.kit.moment import Moment
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from conftest import TUESDAY_MORNING
from deployment import LOCK_WAITERS, plain_http
from ports import free_port
from world import TICKED, Json, cart

PATIENCE_S = 60.0


@dataclass
class Child:
    """One running process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    url: str = ""  # where it listens, if it does

    async def ends(self) -> int:
        """Its status, once it has ended. Raises `TimeoutError`, and kills it, when it does not."""
        try:
            return await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        except TimeoutError:
            self.process.kill()
            raise

    async def told_to_stop(self) -> int:
        """SIGTERM, as every supervisor sends it; the status with which it ends."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ends()

    def said(self) -> str:
        return self.log.read_text()


@dataclass
class Shop:
    """A shop, and its storefront's key."""

    organization_id: str
    shop_id: str
    key: str


@dataclass
class Machine:
    """A database, a carrier, a clock, and the processes that share them."""

    database_url: str
    db: Database
    sandbox: Sandbox
    clock: VirtualClock
    http: httpx.AsyncClient
    operator_key: str
    folder: Path
    environment: dict[str, str]
    children: list[Child] = field(default_factory=list)

    async def start(self, *arguments: str, source: Path | None = None, **environment: str) -> Child:
        """Run `cartwake ARGUMENTS`, of this source or another's; a web process is waited for."""
        port = free_port()
        variables = self.environment | {"CARTWAKE_PORT": str(port)} | environment
        if source is not None:
            variables["PYTHONPATH"] = str(source)
        name = f"{len(self.children)}-{arguments[0]}"
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cartwake", *arguments, stdout=output, stderr=output, env=variables
            )
        child = Child(name, process, log)
        self.children.append(child)
        if arguments[0] == "serve":
            child.url = f"http://127.0.0.1:{port}"
            await self.until(lambda: self._answers(child))
        return child

    async def runs(self, *arguments: str, source: Path | None = None) -> tuple[int, str]:
        """Run a command to its end: its status and what it said."""
        child = await self.start(*arguments, source=source)
        return await child.ends(), child.said()

    async def shop(self, web: Child, credits: int = 1000, segments_per_s: float = 1000) -> Shop:
        """A shop whose texts are due soon after its carts are left."""
        operator = {"Authorization": f"Bearer {self.operator_key}"}

        async def post(path: str, body: Json) -> Json:
            answer = await self.http.post(web.url + path, json=body, headers=operator)
            assert answer.is_success, answer.text
            made: Json = answer.json()
            return made

        organization = (await post("/v1/organizations", {"name": "Lino Namai", "plan": "PRO"}))["organization_id"]
        base = f"/v1/organizations/{organization}"
        await post(f"{base}/credit-adjustments", {"credits": credits, "note": "for a test"})
        made = await post(
            f"{base}/shops",
            {"name": "Lino Namai", "default_country": "LT", "default_locale": "lt", "sms_config": {"enabled": True}},
        )
        sender = {"address": "+37061000001", "segments_per_s": segments_per_s}
        await post(f"{base}/shops/{made['shop_id']}/senders", sender)
        return Shop(organization, made["shop_id"], made["secret_key"])

    async def leaves_cart(self, web: Child, shop: Shop, number: int, minutes: float = 50) -> str:
        """A shopper left a cart so long ago: its text is due after 45, once the scan has seen it. Her phone."""
        left_at = self.clock.now() - timedelta(minutes=minutes)
        phone = f"+3706{number:07}"
        answer = await self.http.put(
            f"{web.url}/v1/checkout-sessions/cart-{number}",
            json=cart(phone=phone, occurred_at=left_at, consent=TICKED),
            headers={"Authorization": f"Bearer {shop.key}"},
        )
        assert answer.status_code == 201, answer.text
        return phone

    async def texts(self) -> list[str]:
        """Whom the carrier took a text for, each time that it did."""
        answer = await self.http.get(f"{self.sandbox.url}/sandbox/messages", params={"limit": 10_000})
        return [each["to"] for each in answer.json()["messages"] if each["direction"] != "inbound"]

    async def rows(self, query: str, *params: object) -> list[Json]:
        """Straight from the database, across all tenants."""
        async with self.db.transaction(ENGINE) as conn:
            return await rows(conn, query, params)

    async def until(self, holds: Any) -> None:
        """Return once the awaitable that `holds()` gives is true; these are other processes, so we can only look."""
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():
                await asyncio.sleep(0.02)

    async def until_texted(self, count: int) -> None:
        async def enough() -> bool:
            return self.sandbox.state.accepted >= count

        await self.until(enough)

    async def until_waiting_for_a_lock(self, waits: bool = True) -> None:
        """Return once some transaction of ours waits for another's lock; with `waits` False, once none does."""
        with psycopg.connect(self.database_url, autocommit=True) as owner:

            async def is_so() -> bool:
                return bool(owner.execute(LOCK_WAITERS).fetchall()) is waits

            await self.until(is_so)

    async def _answers(self, web: Child) -> bool:
        assert web.process.returncode is None, web.said()
        try:
            return (await self.http.get(f"{web.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
async def machine(fresh_url: str, db: Database, vault: Vault, tmp_path: Path) -> AsyncIterator[Machine]:
    """No process runs yet; all that were started are ended afterwards."""
    with psycopg.connect(fresh_url) as owner:  # a copy of a template, at home where it is
        owner.execute(
            "UPDATE deployment_home SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    clock = VirtualClock.create(tmp_path / "clock", TUESDAY_MORNING, 1.0)
    async with db.transaction(OPERATOR) as conn:
        key = await create_key(conn, Moment(clock.now(), Ids(), vault, clock.now), KeyKind.OPERATOR)
    public_url = f"http://127.0.0.1:{free_port()}"
    options = Options(sent_after_ms=0, delivered_after_ms=0, inbound_url=public_url + INBOUND_PATH)
    async with running_sandbox(options, clock) as sandbox, plain_http() as http:
        made = Machine(fresh_url, db, sandbox, clock, http, key, tmp_path, _environment(fresh_url, sandbox, tmp_path))
        try:
            yield made
        finally:
            for child in made.children:
                if child.process.returncode is None:
                    child.process.kill()
                    await child.process.wait()


def _environment(database_url: str, sandbox: Sandbox, folder: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    return ours | {
        "CARTWAKE_DATABASE_URL": database_url,
        "CARTWAKE_CLOCK": f"virtual:{folder / 'clock'}",
        "CARTWAKE_TWILIO_API_BASE": sandbox.url,
        "CARTWAKE_TWILIO_CONCURRENCY": "4",
    }
