"""A deployment whose texts are timed by BullMQ: a real Valkey, a real worker, and a look into the queue.

The story's clock stands still between its moves while the queue goes by the machine's, so `fire` lets every delayed
job fire now: whose time has not come by the story's clock has to notice and move itself.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from bullmq import Queue
from pydantic import SecretStr

from cartwake.jobs.bullmq import JobQueue
from cartwake.jobs.text_job import TextJob
from cartwake.kit.clock import machine_ms
from cartwake.kit.queues import QUEUE_NAMES
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import run_due
from cartwake.timekeeping import open_trigger
from cartwake.worker import run_worker
from deployment import Deployment, leave_cart
from queue_server import QueueServer, queue_server
from world import RUTA, ShopClient

PATIENCE_S = 20.0
TEXTS = QUEUE_NAMES["texts"]


@dataclass(frozen=True)
class Job:
    """A job as it lies in the queue."""

    job_id: str
    name: str
    data: Any
    attempts_made: int
    failed_reason: str | None
    in_s: float  # until it fires


@dataclass
class Queued:
    """A deployment, and the queue it goes by."""

    deployment: Deployment
    runtime: Runtime
    server: QueueServer
    prefix: str
    redis: redis.Redis

    async def scan(self) -> None:
        """What the scheduler does now."""
        await run_due(self.runtime, self.deployment.carrier)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker, as its process runs it; asked to stop at the end."""
        stop = asyncio.Event()
        trigger = open_trigger(self.runtime, stop)
        working = asyncio.create_task(run_worker(self.runtime, self.deployment.carrier, trigger, stop))
        try:
            yield
        finally:
            stop.set()
            await working
            await trigger.close()

    async def fire(self) -> None:
        """Let every job fire now, and wait until each has been dealt with."""
        queue = Queue(TEXTS, {"connection": self.server.url, "prefix": self.prefix})
        await queue.promoteJobs({})
        await queue.backend.close()
        await self.at_rest()

    async def at_rest(self) -> None:
        """Nothing waits and nothing runs; the carrier has finished."""
        async with asyncio.timeout(PATIENCE_S):
            while self._length("wait") or self._length("active"):
                await asyncio.sleep(0.01)
            while await self._in_flight():
                self.let_senders_go_on()
                await asyncio.sleep(0.01)
        await self.deployment.settle()

    def let_senders_go_on(self) -> None:
        """A sender takes only so many segments per second: time moves on to its next slot."""
        clock = self.deployment.clock
        if (slot := clock.next_wakeup) is not None and slot - clock.now() < timedelta(seconds=5):
            clock.set(slot)

    def add(self, job_id: str, data: Any, name: str = "sms-recovery", *, raw: str | None = None) -> None:
        """Somebody else's job, ready to run; `raw`: data that is not JSON perhaps."""
        key = f"{self.prefix}:{TEXTS}"
        with self.redis.pipeline() as pipe:
            fields: dict[Any, Any] = {"name": name, "data": raw if raw is not None else json.dumps(data), "opts": "{}"}
            pipe.hset(f"{key}:{job_id}", mapping=fields | {"timestamp": machine_ms(), "delay": 0, "priority": 0})
            pipe.lpush(f"{key}:wait", job_id)
            pipe.zadd(f"{key}:marker", {"0": 0})
            pipe.execute()

    def delayed(self) -> list[Job]:
        """Jobs whose time is to come."""
        return self._jobs("delayed")

    async def next_delayed(self) -> list[Job]:
        """The same, once there are any: what a worker puts back it puts after its answers are committed."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := self.delayed()):
                await asyncio.sleep(0.01)
        return found

    def failed(self) -> list[Job]:
        """Jobs that were refused."""
        return self._jobs("failed")

    def count(self) -> int:
        """How many jobs there are in all."""
        return sum(self._length(state) for state in ("wait", "active", "delayed", "failed", "completed"))

    @asynccontextmanager
    async def other_queue(self, name: str) -> AsyncIterator[JobQueue]:
        """A queue as the product writes to it."""
        async with JobQueue(self.server.url, name, self.prefix) as queue:
            yield queue

    async def _in_flight(self) -> bool:
        found = await self.deployment.rows("SELECT FROM sms_messages WHERE state = 'sending'")
        return bool(found)

    def _length(self, state: str) -> int:
        key = f"{self.prefix}:{TEXTS}:{state}"
        counted: Any = self.redis.llen(key) if state in ("wait", "active") else self.redis.zcard(key)
        return int(counted)

    def _jobs(self, state: str) -> list[Job]:
        found: Any = self.redis.zrange(f"{self.prefix}:{TEXTS}:{state}", 0, -1, withscores=True)
        return [self._job(job_id, score) for job_id, score in found]

    def _job(self, job_id: str, score: float) -> Job:
        raw: Any = self.redis.hgetall(f"{self.prefix}:{TEXTS}:{job_id}")
        in_s = (score / 0x1000 - machine_ms()) / 1000
        made = int(raw.get("atm", 0))
        return Job(job_id, raw["name"], json.loads(raw["data"]), made, raw.get("failedReason"), in_s)


# The servers that BullMQ is tested on, by the names of their fixtures; `make bullmq` has both.
QUEUE_SERVERS = (
    pytest.param("valkey", marks=[pytest.mark.thorough, pytest.mark.bullmq]),
    pytest.param("debian_redis", marks=[pytest.mark.slow, pytest.mark.bullmq]),
)


@pytest.fixture(scope="session")
def debian_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    """Debian's Redis, as `valkey` is."""
    with queue_server("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    """One Valkey for all tests of a process; each has keys of its own."""
    with queue_server("valkey", tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(params=QUEUE_SERVERS)
async def queued(deployment: Deployment, request: pytest.FixtureRequest) -> Queued:
    """The deployment on BullMQ."""
    return on_queue(deployment, request.getfixturevalue(request.param))


def on_queue(deployment: Deployment, server: QueueServer, **settings: Any) -> Queued:
    """The deployment on BullMQ on this server, under keys of its own."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    changed = {"queue": SecretStr(server.url), "queue_prefix": prefix} | settings
    runtime = replace(deployment.runtime, settings=deployment.runtime.settings.model_copy(update=changed))
    return Queued(deployment, runtime, server, prefix, server.client())


# How exactly a job's time is compared: the machine's clock goes on while a test runs.
ABOUT_S = 30.0


async def job_of(queued: Queued, shop: ShopClient, external_id: str = "cart-1") -> TextJob:
    (message,) = await queued.deployment.messages(shop, external_id)
    return TextJob(message["organization_id"], message["shop_id"], message["session_id"], message["step"])


async def scheduled(queued: Queued, **facts: Any) -> ShopClient:
    """Rūta left her cart half an hour ago, and the scan has seen it."""
    shop = await queued.deployment.shop(**facts)
    await leave_cart(shop)
    queued.deployment.clock.advance(minutes=30)
    await queued.scan()
    return shop


async def texts(queued: Queued, to: str = RUTA) -> int:
    return len(await queued.deployment.phone_shows(to))
