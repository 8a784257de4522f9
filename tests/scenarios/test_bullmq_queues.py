"""Three queues; and what is no different from PostgreSQL's own times: what merchants see, its cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import SecretStr

from benchmarks.statements import counted
from cartwake.jobs.bullmq import JobWorker, NewJob, Settled
from cartwake.kit.clock import machine_ms
from cartwake.kit.db import ENGINE
from cartwake.maintenance import job_id_of, run_queued_scheduler
from cartwake.messages import queue, store
from cartwake.scheduler import TASKS
from deployment import Deployment, leave_cart, phone
from ports import free_port
from queue_server import QueueServer
from queued import QUEUE_SERVERS, Queued, on_queue, scheduled
from world import ShopClient

PATIENCE_S = 20.0
TOGETHER, FEW = 60, 3  # texts due at once; batches that they may come in
A_BATCH_COSTS_ONE = {"claim": queue.TAKE_DUE, "send": store.BEGIN_SENDING, "jobs": store.READ_FATES}


@asynccontextmanager
async def scheduler(queued: Queued) -> AsyncIterator[None]:
    """A scheduler, as its process runs it; asked to stop at the end."""
    stop = asyncio.Event()
    running = asyncio.create_task(run_queued_scheduler(queued.runtime, queued.deployment.carrier, stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.02)


def jobs_in(queued: Queued, name: str, state: str) -> dict[str, dict[str, str]]:
    """The jobs of another queue than that of texts, by id."""
    found: Any = queued.redis.zrange(f"{queued.prefix}:{name}:{state}", 0, -1)
    jobs: dict[str, Any] = {job_id: queued.redis.hgetall(f"{queued.prefix}:{name}:{job_id}") for job_id in found}
    return jobs


# --- periodic work ----------------------------------------------------------------------------------------


async def test_periodic_tasks_run_as_jobs_of_a_queue_of_their_own(queued: Queued) -> None:
    shop = await queued.deployment.shop()
    await leave_cart(shop)
    queued.deployment.clock.advance(minutes=31)

    async def all_wait_for_their_next_time() -> bool:
        waiting = jobs_in(queued, "cartwake-maintenance", "delayed")
        return bool(queued.delayed()) and set(waiting) == {job_id_of(task.name) for task in TASKS}

    async with scheduler(queued):
        await until(all_wait_for_their_next_time)
    ran = await queued.deployment.rows("SELECT name FROM periodic_tasks WHERE last_run_at IS NOT NULL")
    assert {each["name"] for each in ran} == {task.name for task in TASKS}
    assert len(queued.delayed()) == 1, "the scan has put the text's job"


async def test_a_stranger_s_job_among_the_periodic_ones_fails_with_its_reason(queued: Queued) -> None:
    async with queued.other_queue("cartwake-maintenance") as other:
        await other.put([NewJob("maintenance-everything", "maintenance", {}, machine_ms())])

    async def it_failed() -> bool:
        return bool(jobs_in(queued, "cartwake-maintenance", "failed"))

    async with scheduler(queued):
        await until(it_failed)
    (failed,) = jobs_in(queued, "cartwake-maintenance", "failed").values()
    assert "no periodic task has this id" in failed["failedReason"]


async def test_without_its_queue_periodic_work_goes_by_the_database_s_times(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    deployment.clock.advance(minutes=31)
    settings = deployment.runtime.settings.model_copy(update={"queue": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    stop = asyncio.Event()
    runtime = replace(deployment.runtime, settings=settings)
    running = asyncio.create_task(run_queued_scheduler(runtime, deployment.carrier, stop))

    async def it_is_scheduled() -> bool:
        return bool(await deployment.messages(shop))

    await until(it_is_scheduled)
    stop.set()
    await running


# --- e-mail -----------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.bullmq
async def test_e_mail_steps_are_handed_on_where_that_is_wanted(deployment: Deployment, valkey: QueueServer) -> None:
    wanted = {"queue_email": True, "queue_concurrency": {"texts": 500, "email": 3, "maintenance": 1}}
    queued = on_queue(deployment, valkey, **wanted, queue_rate={"email": 20})
    shop = await scheduled(queued)
    (session,) = await deployment.rows("SELECT session_id FROM checkout_sessions")
    job_id = f"email-recovery-{session['session_id']}-1"
    # Its time is now: it waits already, or will in a millisecond.
    job: Any = queued.redis.hgetall(f"{queued.prefix}:cartwake-email:{job_id}")
    assert job["name"] == "email-recovery" and str(shop.shop_id) in job["data"]
    meta: Any = queued.redis.hgetall(f"{queued.prefix}:cartwake-email:meta")
    assert (meta["concurrency"], meta["max"], meta["duration"]) == ("3", "20", "1000")


async def test_e_mail_steps_stay_where_nobody_asked_for_them(queued: Queued) -> None:
    await scheduled(queued)
    assert list(queued.redis.scan_iter(f"{queued.prefix}:cartwake-email:*")) == []


# --- limits of each queue ---------------------------------------------------------------------------------


@pytest.fixture(params=["cartwake-texts", "cartwake-maintenance"])
async def crowded(request: pytest.FixtureRequest, queued: Queued) -> str:
    """A queue of eight jobs that fire now."""
    name: str = request.param
    async with queued.other_queue(name) as other:
        await other.put([NewJob(f"job-{number}", "job", {}, machine_ms()) for number in range(8)])
    return name


async def test_no_more_jobs_are_taken_than_the_rate_allows(queued: Queued, crowded: str) -> None:
    async with taking_from(queued, crowded, per_second=3) as (one, other):
        taken = await one.take(100)
        assert len(taken + await other.take(100)) <= 3, "both together, in one second"
        while len(taken) < 8:
            more = await one.take(100)
            assert len(more) <= 3
            taken += more


async def test_no_more_jobs_are_taken_at_a_time_than_the_setting_allows(queued: Queued, crowded: str) -> None:
    async with taking_from(queued, crowded, per_second=None) as (one, _):
        assert [len(await one.take(5)), len(await one.take(5))] == [5, 3]


@asynccontextmanager
async def taking_from(queued: Queued, name: str, per_second: int | None) -> AsyncIterator[tuple[JobWorker, JobWorker]]:
    """Two processes that take jobs of a queue."""
    both = [JobWorker(queued.server.url, name, queued.prefix, per_second) for _ in range(2)]
    try:
        yield both[0], both[1]
    finally:
        for each in both:
            await each.settle(Settled())
            await each.close()


# --- what must be the same --------------------------------------------------------------------------------


@dataclass
class Plain(Queued):
    """The same deployment on PostgreSQL's own times; there is no queue to look into."""

    async def fire(self) -> None:
        await self.at_rest()

    async def at_rest(self) -> None:
        async def nothing_is_due() -> bool:
            async with self.runtime.db.transaction(ENGINE) as conn:
                next_due_at = await queue.next_due(conn)
            self.let_senders_go_on()
            return (next_due_at is None or next_due_at > self.deployment.clock.now()) and not await self._in_flight()

        await until(nothing_is_due)
        await self.deployment.settle()


@pytest.fixture(params=[pytest.param("postgres", marks=[pytest.mark.thorough, pytest.mark.bullmq]), *QUEUE_SERVERS])
async def timed(deployment: Deployment, request: pytest.FixtureRequest) -> Queued:
    """A deployment, whatever keeps its times."""
    if request.param == "postgres":
        nowhere: Any = None
        return Plain(deployment, deployment.runtime, nowhere, "", nowhere)
    return on_queue(deployment, request.getfixturevalue(request.param))


async def decisions(shop: ShopClient, external_id: str) -> list[str]:
    found = (await shop.session(external_id))["decisions"]
    return [f"{each['outcome']} {each['reason']}" for each in found]


SENT = ["send all_gates_passed", "send accepted"]
SEEN = {
    "plain": ["schedule scheduled", *SENT],
    "stop": ["schedule scheduled", "drop suppressed"],
    "bought": ["schedule scheduled", "drop completed"],
    "back": [
        "schedule scheduled",
        "hold active_again",
        "send all_gates_passed",
        "hold throttled",
        *SENT,
        "schedule scheduled_before",
    ],
    "night": ["schedule scheduled", "hold quiet_hours", *SENT],
}


async def test_a_merchant_sees_the_same_whatever_keeps_the_times(timed: Queued) -> None:
    """A text, a STOP, a cart that is bought, a busy carrier, a shopper who is back, and the night."""
    deployment = timed.deployment
    shop = await deployment.shop(spread_s=0)
    for name, number in {"plain": 1, "stop": 2, "bought": 3, "back": 4}.items():
        await leave_cart(shop, name, phone=phone(number))
    deployment.clock.advance(minutes=30)
    await timed.scan()
    deployment.clock.advance(minutes=10)
    await shop.put_session("back", phone=phone(4), cart_value_minor=7990)
    await shop.complete("bought")
    await deployment.reply(phone(2), "STOP", to="+37061000001")
    deployment.clock.advance(minutes=5)
    async with timed.worker():
        await timed.fire()
        await deployment.faults(throttle_rate=1.0)
        deployment.clock.advance(minutes=45)
        await timed.fire()  # the one who was back is left again, and the carrier is busy
        await deployment.faults()
        deployment.clock.set(deployment.next_time("18:30", "Europe/Vilnius"))
        await timed.fire()
        await leave_cart(shop, "night", phone=phone(5))
        deployment.clock.advance(minutes=31)
        await timed.scan()
        deployment.clock.advance(minutes=15)
        await timed.fire()
        deployment.clock.set(deployment.next_time("10:00", "Europe/Vilnius"))
        await timed.fire()
    seen = {name: await decisions(shop, name) for name in ("plain", "stop", "bought", "back", "night")}
    assert seen == SEEN, seen
    assert [len(await deployment.phone_shows(phone(number))) for number in range(1, 6)] == [1, 0, 0, 1, 1]


async def test_a_text_asks_no_more_of_postgresql_than_with_its_own_times(timed: Queued) -> None:
    """Texts that come due together are one batch, by jobs as by PostgreSQL's own times."""
    shop = await timed.deployment.shop(cycle_cap=100, sender=None)
    await timed.deployment.add_sender(shop, "+37061000009", segments_per_s=1000)
    for number in range(TOGETHER):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    timed.deployment.clock.advance(minutes=30)
    await timed.scan()
    timed.deployment.clock.advance(minutes=16)
    with counted() as statements:
        async with timed.worker():
            await timed.fire()
    assert sum([len(await timed.deployment.phone_shows(phone(number))) for number in range(TOGETHER)]) == TOGETHER
    costs = {name: statements.by_query[query] for name, query in A_BATCH_COSTS_ONE.items()}
    assert max(costs.values()) <= FEW, costs
    assert costs["claim"] >= 1
