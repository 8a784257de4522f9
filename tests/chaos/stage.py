"""What one run stands on: a folder, a database, a clock, and the processes that share them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import aiohttp
from pydantic import SecretStr

from cartwake.kit.clock import VirtualClock
from cartwake.kit.config import Settings
from cartwake.kit.runtime import Runtime, open_runtime, vault_of
from cartwake.kit.schema import migrate
from chaos.database import Database
from chaos.machine import LOOPBACK, Machine, Member, steady_port
from chaos.plan import Plan
from chaos.storefronts import Diary, Doors

# A Tuesday, 10:05 in Vilnius: Lithuanian and Finnish windows are open, German ones open within the hour.
TUESDAY = datetime(2026, 11, 24, 8, 5, tzinfo=UTC)
DATABASE_PORT, WEB_PORT, SANDBOX_PORT = 18_432, 18_080, 18_090  # or the next ones that are free


@dataclass(frozen=True)
class Stage:
    """Everything that one run has in hand."""

    plan: Plan
    folder: Path
    journal: Path
    database: Database
    runtime: Runtime
    clock: VirtualClock
    machine: Machine
    doors: Doors
    diary: Diary
    environment: Mapping[str, str]

    async def audit(self) -> tuple[int, str]:
        """Run `cartwake audit`: its status, and what it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cartwake", "audit", env=self.environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode().strip()


@asynccontextmanager
async def set_stage(plan: Plan, folder: Path) -> AsyncIterator[Stage]:
    """Everything running and ready, in an empty folder; all of it stopped on leaving."""
    clock = VirtualClock.create(folder / "clock", TUESDAY, plan.size.speed)
    web_url, sandbox_url = (f"http://{LOOPBACK}:{steady_port(port)}" for port in (WEB_PORT, SANDBOX_PORT))
    with Database(folder / "postgres", steady_port(DATABASE_PORT)) as database:
        settings = Settings(database_url=SecretStr(database.url))
        migrate(database.url, vault_of(settings))
        environment = _environment(folder, database.url, web_url, sandbox_url)
        members = _members(folder, environment, sandbox_url)
        diary = Diary()
        async with (
            Machine(members, Random(plan.size.seed)) as machine,
            open_runtime(settings, database.url, clock=clock) as runtime,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            await machine.wait_until_ready((f"{web_url}/readyz", f"{sandbox_url}/sandbox"))
            doors = Doors(web_url, sandbox_url, http, diary)
            yield Stage(plan, folder, _journal(folder), database, runtime, clock, machine, doors, diary, environment)


def _environment(folder: Path, database_url: str, web_url: str, sandbox_url: str) -> dict[str, str]:
    return os.environ | {
        "CARTWAKE_ENVIRONMENT": "development",
        "CARTWAKE_DATABASE_URL": database_url,
        "CARTWAKE_DATABASE_POOL_SIZE": "5",
        "CARTWAKE_CLOCK": f"virtual:{folder / 'clock'}",
        "CARTWAKE_HOST": LOOPBACK,
        "CARTWAKE_PORT": web_url.rpartition(":")[2],
        "CARTWAKE_PUBLIC_URL": web_url,
        "CARTWAKE_TWILIO_API_BASE": sandbox_url,
        "CARTWAKE_REFUND_ON": "undelivered,failed",
        # Many small batches, so that a kill finds some at every stage.
        "CARTWAKE_DISPATCH_BATCH": "50",
        "CARTWAKE_ABANDONMENT_BATCH": "100",
        # The load is heavier than any storefront's.
        "CARTWAKE_RATE_OPERATOR": "off",
        "CARTWAKE_RATE_ORGANIZATION": "off",
        "CARTWAKE_RATE_SHOP_SECRET": "off",
        "PYTHONUNBUFFERED": "1",
    }


def _members(folder: Path, environment: Mapping[str, str], sandbox_url: str) -> list[Member]:
    logs = folder / "logs"
    logs.mkdir()
    port = sandbox_url.rpartition(":")[2]
    sandbox = ("sandbox", "--port", port, "--journal", str(_journal(folder)))
    commands = {
        "sandbox": sandbox,
        "web": ("serve",),
        "worker 1": ("worker",),
        "worker 2": ("worker",),
        "scheduler 1": ("scheduler",),
        "scheduler 2": ("scheduler",),
    }
    return [Member(name, arguments, environment, logs) for name, arguments in commands.items()]


def _journal(folder: Path) -> Path:
    return folder / "carrier.journal"
