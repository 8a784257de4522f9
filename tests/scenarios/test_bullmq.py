"""Texts timed by BullMQ: the queue says when, PostgreSQL says whether, and what is in the queue is not believed."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from cartwake.jobs.text_job import TextJob
from cartwake.kit.clock import machine_ms
from cartwake.messages.queue import CYCLE
from cartwake.timekeeping import put_back_texts, put_texts
from deployment import Deployment, leave_cart, phone
from queue_server import QueueServer, queue_server
from queued import ABOUT_S, Queued, job_of, on_queue, scheduled, texts
from traces import holds
from world import RUTA


async def test_a_scheduled_text_is_a_delayed_job_with_an_id_of_its_own(queued: Queued) -> None:
    shop = await scheduled(queued)
    (job,) = queued.delayed()
    expected = await job_of(queued, shop)
    assert (job.job_id, job.data) == (expected.job_id, expected.data)
    assert job.job_id == f"sms-recovery-{expected.session_id}-1"
    assert abs(job.in_s - 15 * 60) < ABOUT_S  # 45 minutes after the cart was left


async def test_nothing_in_the_queue_holds_a_phone(deployment: Deployment, valkey: QueueServer) -> None:
    """Not in a job that waits, that was moved, that failed, nor in an event or an id."""
    queued = on_queue(deployment, valkey, queue_email=True)
    await scheduled(queued)
    await queued.deployment.faults(throttle_rate=1.0)
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        await queued.fire()
        await queued.next_delayed()
        queued.add("sms-recovery-broken", {"no": "job of ours"})
        await queued.at_rest()
    held = everything(queued)
    assert "sms-recovery-" in held and "cartwake-email" in held and queued.failed()
    assert holds(held, RUTA) == []


def everything(queued: Queued) -> str:
    """Every key of the deployment's, with all that lies under it."""
    readers: dict[str, Any] = {
        "hash": queued.redis.hgetall,
        "list": lambda key: queued.redis.lrange(key, 0, -1),
        "zset": lambda key: queued.redis.zrange(key, 0, -1),
        "set": queued.redis.smembers,
        "stream": queued.redis.xrange,
        "string": queued.redis.get,
    }
    keys = list(queued.redis.scan_iter(f"{queued.prefix}:*"))
    return "\n".join(f"{key}: {readers[str(queued.redis.type(key))](key)}" for key in keys)


async def test_adding_a_job_twice_makes_one(queued: Queued) -> None:
    shop = await scheduled(queued)
    due = [(await job_of(queued, shop), queued.deployment.clock.now() + timedelta(minutes=15))]
    await put_texts(queued.runtime, due)
    await put_back_texts(queued.runtime)
    assert queued.count() == 1


async def test_a_job_that_fires_sends_its_text_and_is_gone(queued: Queued) -> None:
    await scheduled(queued)
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        await queued.fire()
    assert await texts(queued) == 1
    assert queued.count() == 0


async def test_a_job_that_fires_early_sends_nothing_and_moves_itself(queued: Queued) -> None:
    await scheduled(queued)
    async with queued.worker():
        await queued.fire()
    (job,) = queued.delayed()
    assert await texts(queued) == 0
    assert abs(job.in_s - 15 * 60) < ABOUT_S
    assert job.attempts_made == 0


async def test_a_slid_cart_s_job_fires_early_and_moves_itself(queued: Queued) -> None:
    shop = await scheduled(queued)
    queued.deployment.clock.advance(minutes=10)
    await shop.put_session("cart-1", cart_value_minor=7990)  # she is back, and leaves again
    queued.deployment.clock.advance(minutes=5)
    async with queued.worker():
        await queued.fire()
    (job,) = queued.delayed()
    assert await texts(queued) == 0
    assert abs(job.in_s - 40 * 60) < ABOUT_S


async def test_quiet_hours_move_the_same_job_to_the_morning_and_burn_no_attempt(queued: Queued) -> None:
    deployment = queued.deployment
    deployment.clock.set(deployment.next_time("18:40", "Europe/Vilnius"))
    shop = await scheduled(queued, spread_s=0)
    before = queued.delayed()[0].job_id
    deployment.clock.advance(minutes=15)  # 19:25
    async with queued.worker():
        await queued.fire()
        (job,) = queued.delayed()
        until_ten = (deployment.next_time("10:00", "Europe/Vilnius") - deployment.clock.now()).total_seconds()
        assert (job.job_id, job.attempts_made) == (before, 0)
        assert abs(job.in_s - until_ten) < ABOUT_S
        deployment.clock.set(deployment.next_time("10:00", "Europe/Vilnius"))
        await queued.fire()
    assert await texts(queued) == 1
    assert [decision["reason"] for decision in (await shop.session())["decisions"]][-3:] == [
        "quiet_hours",
        "all_gates_passed",
        "accepted",
    ]
    assert queued.count() == 0


async def test_a_text_that_the_carrier_was_too_busy_for_gets_its_job_back(queued: Queued) -> None:
    await scheduled(queued)
    await queued.deployment.faults(throttle_rate=1.0)
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        await queued.fire()
        assert await texts(queued) == 0
        (job,) = await queued.next_delayed()
        assert job.in_s < ABOUT_S
        await queued.deployment.faults()
        queued.deployment.clock.advance(minutes=1)
        await queued.fire()
    assert await texts(queued) == 1


async def test_a_shop_at_its_cap_has_its_jobs_moved_to_the_next_cycle(queued: Queued) -> None:
    shop = await queued.deployment.shop(cycle_cap=2)
    for number in range(5):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    queued.deployment.clock.advance(minutes=30)
    await queued.scan()
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        for sent in (2, 4, 5):
            await queued.fire()
            assert sum([await texts(queued, phone(number)) for number in range(5)]) == sent
            assert len(queued.delayed()) == 5 - sent
            assert all(job.in_s <= CYCLE.total_seconds() for job in queued.delayed())
            queued.deployment.clock.advance(minutes=5)


async def test_jobs_that_run_twice_send_nothing_twice(queued: Queued) -> None:
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        await queued.fire()
        for _ in range(3):
            await put_texts(queued.runtime, [(job, queued.deployment.clock.now())])
            await queued.fire()  # it may be a millisecond early yet
    assert await texts(queued) == 1
    assert queued.count() == 0


async def test_lost_jobs_are_put_back_by_the_next_scan(queued: Queued) -> None:
    await scheduled(queued)
    for key in queued.redis.scan_iter(f"{queued.prefix}:*"):
        queued.redis.delete(key)
    queued.deployment.clock.advance(minutes=5)  # due in ten minutes: not before the scan after next
    await queued.scan()
    queued.deployment.clock.advance(minutes=5)
    await queued.scan()
    (job,) = queued.delayed()
    assert abs(job.in_s - 5 * 60) < ABOUT_S
    queued.deployment.clock.advance(minutes=5)
    async with queued.worker():
        await queued.fire()
    assert await texts(queued) == 1


async def test_a_job_that_waits_for_too_late_a_time_is_put_right(queued: Queued) -> None:
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    queued.deployment.clock.advance(minutes=10)
    key = f"{queued.prefix}:cartwake-texts:delayed"
    queued.redis.zadd(key, {job.job_id: (machine_ms() + 86_400_000) * 0x1000})
    await queued.scan()
    assert [found.job_id for found in queued.delayed()] == [job.job_id]
    assert abs(queued.delayed()[0].in_s - 5 * 60) < ABOUT_S


async def test_a_paused_shop_s_jobs_look_again_and_go_on_at_once_when_it_is_resumed(queued: Queued) -> None:
    shop = await scheduled(queued)
    switch = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch"
    await queued.deployment.world.operator.api("PUT", switch)
    queued.deployment.clock.advance(minutes=15)
    async with queued.worker():
        await queued.fire()
        assert (await texts(queued), len(queued.delayed())) == (0, 1)
        await queued.deployment.world.operator.api("DELETE", switch)
        while not await texts(queued):  # the announcement, not the job: that one looks again in five minutes
            await queued.at_rest()
    assert await texts(queued) == 1


# --- what is in the queue is not believed ---------------------------------------------------------------


def uuid_of(number: int) -> str:
    return str(uuid.UUID(int=number))


BROKEN: dict[str, tuple[str, Any, str]] = {
    "no JSON": ("j-1", None, "data is not an object"),
    "a list": ("j-1", [1], "data is not an object"),
    "no version": ("j-1", {"session_id": uuid_of(1), "step": 1}, "version"),
    "a version of the future": ("j-1", {"v": 2}, "version"),
    "no step": ("j-1", {"v": 1}, "data.step"),
    "a step that is true": ("j-1", {"v": 1, "step": True}, "data.step"),
    "an organization that is no id": ("j-1", {"v": 1, "step": 1, "organization_id": "1; DROP"}, "organization_id"),
    "a session that is a number": (
        "j-1",
        {"v": 1, "step": 1, "organization_id": uuid_of(1), "shop_id": uuid_of(2), "session_id": 7},
        "session_id",
    ),
    "another's id": (
        f"sms-recovery-{uuid_of(4)}-1",
        {"v": 1, "step": 1, "organization_id": uuid_of(1), "shop_id": uuid_of(2), "session_id": uuid_of(3)},
        "its id is not",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_job_fails_with_advice_and_stops_nothing(
    queued: Queued, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id, data, problem = BROKEN[case]
    await scheduled(queued)
    queued.deployment.clock.advance(minutes=15)
    queued.add(job_id, data, raw="{nonsense \x00" if case == "no JSON" else None)
    async with queued.worker():
        await queued.fire()
    listed: Any = queued.redis.zrange(f"{queued.prefix}:cartwake-texts:failed", 0, -1)
    (failed,) = listed
    reason: Any = queued.redis.hget(f"{queued.prefix}:cartwake-texts:{failed}", "failedReason")
    assert failed == job_id
    assert problem in reason and "docs/bullmq.md" in reason
    assert capsys.readouterr().out.count("queue.job_broken") == 1
    assert await texts(queued) == 1


@pytest.mark.parametrize("made", ["²", "9" * 5000, "-1", "many"])
async def test_a_count_of_attempts_that_is_none_stops_nothing(queued: Queued, made: str) -> None:
    await scheduled(queued)
    queued.deployment.clock.advance(minutes=15)
    queued.add("j-1", {"v": 2})
    queued.redis.hset(f"{queued.prefix}:cartwake-texts:j-1", "atm", made)
    async with queued.worker():
        await queued.fire()
    assert await texts(queued) == 1


async def test_a_job_with_another_name_fails(queued: Queued) -> None:
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    queued.add("other", job.data, name="send-email")
    async with queued.worker():
        await queued.at_rest()
    assert [failed.job_id for failed in queued.failed()] == ["other"]


async def test_a_failed_job_under_a_message_s_id_does_not_keep_its_own_out(queued: Queued) -> None:
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    async with queued.worker():
        for key in queued.redis.scan_iter(f"{queued.prefix}:*"):
            queued.redis.delete(key)
        queued.add(job.job_id, {"v": 99})
        await queued.at_rest()
        assert [failed.job_id for failed in queued.failed()] == [job.job_id]
        queued.deployment.clock.advance(minutes=15)
        await queued.scan()
        await queued.at_rest()
    assert queued.failed() == []
    assert await texts(queued) == 1


async def test_a_job_under_another_tenant_s_ids_is_discarded(queued: Queued) -> None:
    """The message exists and is due, but not under this shop."""
    shop = await scheduled(queued)
    stranger = await queued.deployment.shop("Stranger")
    job = await job_of(queued, shop)
    wrong = TextJob(stranger.merchant.organization_id, stranger.shop_id, job.session_id, job.step)
    for key in queued.redis.scan_iter(f"{queued.prefix}:*"):
        queued.redis.delete(key)
    async with queued.worker():
        queued.add(wrong.job_id, wrong.data)
        await queued.at_rest()
    assert queued.count() == 0
    assert await texts(queued) == 0


async def test_a_job_for_a_message_that_does_not_exist_is_discarded(queued: Queued) -> None:
    shop = await queued.deployment.shop()
    gone = TextJob(shop.merchant.organization_id, shop.shop_id, uuid.UUID(int=5), 1)
    async with queued.worker():
        queued.add(gone.job_id, gone.data)
        await queued.at_rest()
    assert queued.count() == 0


# --- limits ------------------------------------------------------------------------------------------------


@pytest.mark.thorough
async def test_with_a_rate_limit_no_more_is_claimed_than_jobs_fired(
    deployment: Deployment, valkey: QueueServer
) -> None:
    queued = on_queue(deployment, valkey, queue_rate={"texts": 1000})
    shop = await deployment.shop()
    for number in range(3):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    deployment.clock.advance(minutes=30)
    await queued.scan()
    deployment.clock.advance(minutes=15)
    jobs = [await job_of(queued, shop, f"cart-{number}") for number in range(3)]
    for key in queued.redis.scan_iter(f"{queued.prefix}:*"):
        queued.redis.delete(key)
    async with queued.worker():
        for fired in (1, 2, 3):
            await put_texts(queued.runtime, [(jobs[fired - 1], deployment.clock.now())])
            while sum([await texts(queued, phone(number)) for number in range(3)]) < fired:
                queued.let_senders_go_on()
                await deployment.settle()
            assert sum([await texts(queued, phone(number)) for number in range(3)]) == fired


@pytest.mark.thorough
async def test_without_its_queue_texts_go_out_by_the_database_s_times(deployment: Deployment) -> None:
    queued = on_queue(deployment, QueueServerThatIsAway())  # type: ignore[arg-type]
    await scheduled(queued)
    deployment.clock.advance(minutes=15)
    async with queued.worker():
        while not await texts(queued):
            await deployment.settle()
    assert await texts(queued) == 1


REFUSING = {
    "a password that nobody gave us": ("--requirepass", "secret"),
    "a replica": ("--replicaof", "127.0.0.1 1"),
    "no memory left": ("--maxmemory", "1"),
    "too few replicas": ("--min-replicas-to-write", "1"),
}


@pytest.mark.thorough
@pytest.mark.bullmq
@pytest.mark.parametrize("why", REFUSING)
async def test_a_queue_that_refuses_stops_no_text_and_is_told_once(
    deployment: Deployment, tmp_path: Path, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with queue_server("valkey", tmp_path, *REFUSING[why]) as server:
        queued = on_queue(deployment, server)
        await scheduled(queued)
        deployment.clock.advance(minutes=15)
        async with queued.worker():
            while not await texts(queued):
                await deployment.settle()
    assert await texts(queued) == 1
    assert capsys.readouterr().out.count("queue.unreachable") == 1


def test_the_page_shows_the_shape_of_the_jobs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bullmq.md").read_text()
    job = TextJob(uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3), 1)
    shape = {name: "…" if isinstance(value, str) else value for name, value in job.data.items()}
    assert f"`{json.dumps(shape, ensure_ascii=False)}`" in page
    assert f"`{job.job_id}`".replace(f"{job.session_id}-1", "<session_id>-<step>") in page
    assert f"`{job.email_job_id}`".replace(f"{job.session_id}", "<session_id>") in page


class QueueServerThatIsAway:
    """An address where nobody listens."""

    url = SecretStr("redis://127.0.0.1:1/0").get_secret_value()

    def client(self) -> None:
        """Nobody to talk to."""
