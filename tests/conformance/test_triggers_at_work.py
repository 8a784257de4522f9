"""What a deployment owes its shoppers whatever keeps the times: real processes, killed and cut off from their queue.

Every story ends the same: each text that was due went out, once.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from processes import Child, Machine, Shop
from queue_server import KINDS, QueueServer

pytestmark = [pytest.mark.slow, pytest.mark.bullmq]

EVERY_TRIGGER = ("postgres", *KINDS)
CARTS = 40
SLOW_CARRIER = {"latency_ms": 150, "latency_rate": 1.0}
WAITING = "SELECT FROM sms_messages WHERE state IN ('scheduled', 'held')"
# The world goes so many times as fast as the machine: a scan every few seconds.
FAST = 60


@dataclass
class Story:
    """A deployment on one trigger, with a shop; whoever is started in it goes by that trigger."""

    machine: Machine
    environment: dict[str, str]
    queue: QueueServer | None
    web: Child
    shop: Shop
    phones: list[str] = field(default_factory=list)

    @property
    def server(self) -> QueueServer:
        """The queue, in stories that have one."""
        assert self.queue is not None
        return self.queue

    async def start(self, name: str) -> Child:
        return await self.machine.start(name, source=None, **self.environment)

    async def leave_carts(self, count: int = CARTS, minutes: float = 50, apart_minutes: float = 0) -> None:
        """Shoppers leave, one some time after the other perhaps."""
        for number in range(len(self.phones), len(self.phones) + count):
            self.phones.append(await self.machine.leaves_cart(self.web, self.shop, number, minutes))
            minutes -= apart_minutes

    async def until_scheduled(self) -> None:
        """Return once the scan has seen every cart, and put its time where the trigger keeps it."""

        async def all_are() -> bool:
            kept = self.jobs() if self.queue else await self.machine.rows("SELECT FROM sms_messages")
            return len(kept) == len(self.phones)

        await self.machine.until(all_are)

    async def until_nothing_waits(self) -> None:
        """Return once no message waits, and the queue holds no job any more."""

        async def so() -> bool:
            return not await self.machine.rows(WAITING) and not self.jobs()

        await self.machine.until(so)

    def jobs(self) -> list[str]:
        """The ids of all jobs about texts, whatever their state."""
        if self.queue is None:
            return []
        with self.queue.client() as client:
            found: Any = client.scan_iter("bull:cartwake-texts:sms-recovery-*")
            return [key for key in found if not key.endswith(":lock")]

    async def texted_once_each(self) -> None:
        """Everybody got one text."""
        await self.machine.until_texted(len(self.phones))
        await self.until_nothing_waits()
        assert Counter(await self.machine.texts()) == Counter(self.phones)


@pytest.fixture(params=EVERY_TRIGGER)
async def story(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> AsyncIterator[Story]:
    """On PostgreSQL's own times, on BullMQ on a Valkey from a wheel, on BullMQ on Debian's Redis."""
    queue = None if request.param == "postgres" else QueueServer(request.param, tmp_path / "queue")
    environment = {"CARTWAKE_DISPATCH_BATCH": "10"}
    if queue is not None:
        queue.start()
        environment["CARTWAKE_QUEUE"] = queue.url
    try:
        web = await machine.start("serve", source=None, **environment)
        yield Story(machine, environment, queue, web, await machine.shop(web))
    finally:
        if queue is not None:
            queue.kill()


# For stories that only a queue outside of PostgreSQL has.
on_a_queue = pytest.mark.parametrize("story", KINDS, indirect=True)


async def test_two_workers_send_every_text_once(story: Story) -> None:
    await story.leave_carts()
    await story.start("scheduler")
    await story.start("worker")
    await story.start("worker")
    story.machine.clock.set_speed(FAST)
    await story.texted_once_each()


async def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(story: Story) -> None:
    await story.leave_carts()
    await story.start("scheduler")
    await story.machine.http.put(f"{story.machine.sandbox.url}/sandbox/faults", json=SLOW_CARRIER)
    killed = await story.start("worker")
    story.machine.clock.set_speed(FAST)
    await story.machine.until_texted(1)
    killed.process.send_signal(signal.SIGKILL)
    await killed.ends()
    left = await story.machine.rows(WAITING)
    assert left, "it was killed in the middle"
    await story.machine.http.put(f"{story.machine.sandbox.url}/sandbox/faults", json={})
    await story.start("worker")
    await story.until_nothing_waits()  # what the dead one held runs again, and finds that it is decided
    texted = Counter(await story.machine.texts())
    assert set(texted.values()) == {1}
    in_doubt = await story.machine.rows("SELECT FROM sms_messages WHERE state IN ('sending', 'unknown')")
    assert len(texted) + len(in_doubt) >= CARTS, "who got none is one whose text is in doubt"


async def test_a_worker_that_is_told_to_stop_hands_its_jobs_back(story: Story) -> None:
    await story.leave_carts()
    await story.start("scheduler")
    await story.machine.http.put(f"{story.machine.sandbox.url}/sandbox/faults", json=SLOW_CARRIER)
    worker = await story.start("worker")
    story.machine.clock.set_speed(FAST)
    await story.machine.until_texted(1)
    assert await worker.told_to_stop() == 0, worker.said()
    assert "Traceback" not in worker.said()
    assert await story.machine.rows(WAITING), "it stopped in the middle"
    await story.machine.http.put(f"{story.machine.sandbox.url}/sandbox/faults", json={})
    await story.start("worker")
    await story.texted_once_each()


@on_a_queue
async def test_a_queue_that_is_emptied_in_the_middle_is_filled_by_the_next_scan(story: Story) -> None:
    await story.leave_carts(minutes=44, apart_minutes=0.5)  # one comes due every half minute, for twenty
    await story.start("scheduler")
    await story.start("worker")
    story.machine.clock.set_speed(FAST)
    await story.machine.until_texted(CARTS // 4)
    with story.server.client() as client:
        client.flushall()
    assert await story.machine.rows(WAITING), "in the middle"
    await story.texted_once_each()


@pytest.mark.parametrize(
    ("story", "how", "for_s"),
    [("valkey", "gone", 60), ("valkey", "hanging", 5), ("redis", "gone", 5)],
    indirect=["story"],
)
async def test_a_queue_that_is_away_for_a_minute_stops_no_text(story: Story, how: str, for_s: float) -> None:
    await story.leave_carts(minutes=44, apart_minutes=1)  # one comes due every minute
    await story.start("scheduler")
    worker = await story.start("worker")
    story.machine.clock.set_speed(2 * FAST)
    await story.machine.until_texted(3)
    with story.server.away(how):
        while "queue.unreachable" not in worker.said():
            await asyncio.sleep(0.1)
        story.machine.clock.set_speed(FAST)
        before = len(await story.machine.texts())
        await story.machine.until_texted(min(before + 2, CARTS))  # by the database's times
        story.machine.clock.set_speed(1)
        await asyncio.sleep(for_s)
    story.machine.clock.set_speed(FAST)
    await story.leave_carts(3)
    await story.texted_once_each()
    assert worker.said().count("queue.unreachable") == 1
    assert worker.said().count("queue.back") == 1


@on_a_queue
async def test_jobs_that_run_again_and_again_send_nothing_again(story: Story) -> None:
    await story.leave_carts()
    await story.start("scheduler")
    await story.until_scheduled()
    story.machine.clock.set_speed(FAST)
    jobs = await read_jobs(story.server)
    assert len(jobs) == CARTS
    for _ in range(2):
        await story.start("worker")
    for _ in range(5):
        add_again(story.server, jobs)
        await story.until_nothing_waits()
    await story.texted_once_each()


@on_a_queue
async def test_a_job_whose_message_is_gone_is_discarded(story: Story) -> None:
    await story.leave_carts(3)
    await story.start("scheduler")
    await story.until_scheduled()
    jobs = await read_jobs(story.server)
    job_id, fields = next(iter(jobs.items()))
    gone = "00000000-0000-7000-8000-000000000000"
    session_id = job_id.removeprefix("sms-recovery-").removesuffix("-1")
    data = fields["data"].replace(session_id, gone)
    add_again(story.server, {f"sms-recovery-{gone}-1": fields | {"data": data}})
    worker = await story.start("worker")
    story.machine.clock.set_speed(FAST)
    await story.texted_once_each()
    assert worker.said().count("queue.job_discarded") == 1


async def read_jobs(queue: QueueServer) -> dict[str, dict[str, str]]:
    """Every job about a text as it lies in the queue, by its id."""
    with queue.client() as client:
        found: Any = client.zrange("bull:cartwake-texts:delayed", 0, -1)
        found += client.lrange("bull:cartwake-texts:wait", 0, -1)
        jobs: dict[str, Any] = {job_id: client.hgetall(f"bull:cartwake-texts:{job_id}") for job_id in found}
        return jobs


def add_again(queue: QueueServer, jobs: dict[str, dict[str, str]]) -> None:
    """As if somebody had added jobs that ran long ago, or run just now: each is ready to run."""
    with queue.client() as client, client.pipeline() as pipe:
        for job_id, fields in jobs.items():
            mapping: dict[Any, Any] = {"delay": 0, "priority": 0} | {
                name: fields[name] for name in ("name", "data", "opts", "timestamp")
            }
            pipe.hset(f"bull:cartwake-texts:{job_id}", mapping=mapping)
            pipe.lpush("bull:cartwake-texts:wait", job_id)
        pipe.zadd("bull:cartwake-texts:marker", {"0": 0})
        pipe.execute()
