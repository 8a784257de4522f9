"""A whole deployment in one process, for stories: real HTTP in both directions, a clock that the story moves.

Web, worker, scheduler and the sandbox carrier are the real ones; only their loops are replaced by
`Deployment.pass_time`, so that a story can say "an hour later" and look at what holds then.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import uvicorn

from cartwake.carriers.open import INBOUND_PATH, open_carrier
from cartwake.carriers.protocol import Carrier
from cartwake.carriers.sandbox.server import Sandbox, running_sandbox
from cartwake.carriers.sandbox.state import Options
from cartwake.invariants import broken_invariants
from cartwake.jobs import periodic
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, OPERATOR, Database
from cartwake.kit.ids import Ids
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import TASKS, run_due
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from cartwake.web.app import create_app
from cartwake.worker import deliver, dispatch_once, work_off_events
from world import Caller, MerchantClient, ShopClient, World

Json = dict[str, Any]
STEP = timedelta(minutes=5)  # the abandonment scan's pace


@dataclass
class Deployment:
    """Everything that runs, and the clock that all of it shares."""

    world: World
    runtime: Runtime
    clock: ManualClock
    carrier: Carrier
    sandbox: Sandbox
    http: httpx.AsyncClient

    # --- people ----------------------------------------------------------------------------------

    async def merchant(self, name: str = "Lino Namai", plan: str = "PRO", credits: int = 100) -> MerchantClient:
        return await self.world.merchant(name, plan, credits)

    async def shop(self, name: str = "Lino Namai", **facts: Any) -> ShopClient:
        return await self.world.shop(name, **facts)

    async def reply(self, phone: str, body: str, to: str | None = None) -> None:
        """The shopper answers the last text (or writes to `to`), and we work that off."""
        answer = await self.http.post(
            f"{self.sandbox.url}/sandbox/replies", json={"from": phone, "body": body} | ({"to": to} if to else {})
        )
        assert answer.status_code == 201, answer.text
        await self.settle()

    async def script(self, phone: str, **outcome: Any) -> None:
        """What the carrier will do with texts to this phone."""
        answer = await self.http.put(f"{self.sandbox.url}/sandbox/recipients/{phone}", json=outcome)
        assert answer.status_code == 200, answer.text

    async def phone_shows(self, phone: str) -> list[Json]:
        """The texts that reached a phone's carrier, oldest first."""
        answer = await self.http.get(f"{self.sandbox.url}/sandbox/messages", params={"to": phone})
        found: list[Json] = answer.json()["messages"]
        return found[::-1]

    async def tap(self, url: str, **options: Any) -> httpx.Response:
        """Open a link from a text, without following it further."""
        return await self.http.get(url, **options)

    # --- time ------------------------------------------------------------------------------------

    async def pass_time(self, *, until: datetime | None = None, **delta: float) -> None:
        """Let time pass, in the scan's steps: whatever is due on the way happens when it is due."""
        end = until or self.clock.now() + timedelta(**delta)
        while self.clock.now() < end:
            self.clock.set(min(self.clock.now() + STEP, end))
            await self.work()

    async def pass_until(self, local: str, zone: str) -> None:
        """Let time pass until the next moment that clocks in `zone` show `local` (HH:MM)."""
        here = self.clock.now().astimezone(ZoneInfo(zone))
        hour, minute = map(int, local.split(":"))
        then = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if then <= here:
            then = (here + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        await self.pass_time(until=then.astimezone(self.clock.now().tzinfo))

    async def work(self) -> None:
        """What scheduler and worker do now."""
        await run_due(self.runtime, self.carrier)
        await self.dispatch()
        await self.settle()

    async def dispatch(self) -> None:
        """Send whatever is due."""
        while (claimed := await dispatch_once(self.runtime)).more:
            if claimed.attempts:
                await deliver(self.runtime, self.carrier, claimed.attempts)

    async def settle(self) -> None:
        """Let the carrier finish, and work off what it said."""
        await self.sandbox.settled()
        while await work_off_events(self.runtime, 500):
            pass

    # --- looking ---------------------------------------------------------------------------------

    async def sound(self) -> None:
        """No invariant is broken."""
        async with self.runtime.db.transaction(ENGINE) as conn:
            assert await broken_invariants(conn, self.clock.now()) == []


@pytest.fixture
async def deployment(db: Database, clock: ManualClock, ids: Ids, vault: Vault) -> AsyncIterator[Deployment]:
    """A deployment on a fresh database; at the end every invariant must hold, whatever the story was."""
    public_url = f"http://127.0.0.1:{free_port()}"
    options = Options(sent_after_ms=0, delivered_after_ms=0, inbound_url=public_url + INBOUND_PATH)
    async with running_sandbox(options, clock) as sandbox, httpx.AsyncClient() as http:
        settings = Settings(public_url=public_url, twilio_api_base=sandbox.url)
        runtime = Runtime(settings, clock, ids, vault, db)
        carrier = open_carrier(settings)
        app = create_app(runtime, carrier)
        async with db.transaction(OPERATOR) as conn:
            key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
        async with db.transaction(ENGINE) as conn:
            await periodic.enrol(conn, clock.now(), [task.name for task in TASKS])
        async with serving(app, public_url), httpx.AsyncClient(base_url=public_url) as api:
            world = World(app, runtime, api, Caller(api, key))
            made = Deployment(world, runtime, clock, carrier, sandbox, http)
            yield made
            await made.settle()
            await made.sound()
        await carrier.close()


class serving:  # noqa: N801 - read as a verb
    """Serve an application at an address for as long as the block lasts."""

    def __init__(self, app: Any, url: str) -> None:
        config = uvicorn.Config(
            app, host="127.0.0.1", port=int(url.rpartition(":")[2]), log_level="error", access_log=False
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
