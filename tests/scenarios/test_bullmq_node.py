"""The official Node client and our jobs: it lists, reads, moves and removes them, and ours runs what it adds."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployment import Deployment, leave_cart, phone
from queue_server import QueueServer
from queued import ABOUT_S, Queued, job_of, on_queue, scheduled, texts

pytestmark = [pytest.mark.slow, pytest.mark.bullmq]

NODE = Path(__file__).parents[1] / "node"
PATIENCE_S = 60.0


async def node(queued: Queued, command: str, argument: str = "", queue: str = "cartwake-texts") -> Any:
    """What tests/node/jobs.mjs answers."""
    assert (NODE / "node_modules").is_dir(), "the npm clients are not installed: `make bullmq` does that"
    where = {"QUEUE_URL": queued.server.url, "QUEUE_PREFIX": queued.prefix, "QUEUE_NAME": queue}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(NODE / "jobs.mjs"),
        command,
        argument,
        env=os.environ | where,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_node_lists_our_delayed_jobs(queued: Queued) -> None:
    shop = await scheduled(queued)
    expected = await job_of(queued, shop)
    (listed,) = await node(queued, "list")
    told = {name: listed[name] for name in ("id", "name", "data", "state", "attemptsMade")}
    assert told == {
        "id": f"sms-recovery-{expected.session_id}-1",
        "name": "sms-recovery",
        "data": {
            "v": 1,
            "organization_id": str(shop.merchant.organization_id),
            "shop_id": str(shop.shop_id),
            "session_id": str(expected.session_id),
            "step": 1,
        },
        "state": "delayed",
        "attemptsMade": 0,
    }
    assert abs(listed["delay"] / 1000 - 15 * 60) < ABOUT_S


async def test_node_reads_and_removes_a_job_and_the_text_goes_out_all_the_same(queued: Queued) -> None:
    shop = await scheduled(queued)
    job_id = (await job_of(queued, shop)).job_id
    assert (await node(queued, "read", job_id))["state"] == "delayed"
    assert await node(queued, "remove", job_id) == 1
    assert await node(queued, "read", job_id) is None
    queued.deployment.clock.advance(minutes=15)
    await queued.scan()
    async with queued.worker():
        await queued.fire()
    assert await texts(queued) == 1
    assert await node(queued, "list") == []


async def test_ours_runs_what_node_adds_in_the_documented_shape(deployment: Deployment, valkey: QueueServer) -> None:
    queued = on_queue(deployment, valkey, queue_rate={"texts": 1000})  # so that nothing but jobs sends texts
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    await node(queued, "remove", job.job_id)
    deployment.clock.advance(minutes=15)
    async with queued.worker():
        assert await texts(queued) == 0
        added = await node(
            queued, "add", json.dumps({"id": job.job_id, "name": "sms-recovery", "data": job.data, "delay": 300})
        )
        assert added["id"] == job.job_id
        while queued.count():
            await queued.at_rest()
    assert await texts(queued) == 1


async def test_a_job_that_node_adds_beside_ours_is_ours(queued: Queued) -> None:
    shop = await scheduled(queued)
    job = await job_of(queued, shop)
    await node(queued, "add", json.dumps({"id": job.job_id, "name": "sms-recovery", "data": job.data, "delay": 0}))
    (listed,) = await node(queued, "list")
    assert abs(listed["delay"] / 1000 - 15 * 60) < ABOUT_S


async def test_node_sees_that_a_job_promoted_too_early_has_moved_itself(queued: Queued) -> None:
    shop = await scheduled(queued)
    job_id = (await job_of(queued, shop)).job_id
    async with queued.worker():
        await node(queued, "promote", job_id)
        await queued.at_rest()
        assert await node(queued, "workers") >= 1
    assert await node(queued, "workers") == 0
    found = await node(queued, "read", job_id)
    assert (found["state"], found["attemptsMade"]) == ("delayed", 0)
    assert await texts(queued) == 0


async def test_a_sender_in_node_takes_the_e_mail_steps_no_more_at_a_time_than_the_setting_says(
    deployment: Deployment, valkey: QueueServer
) -> None:
    queued = on_queue(
        deployment, valkey, queue_email=True, queue_concurrency={"texts": 500, "email": 2, "maintenance": 1}
    )
    shop = await deployment.shop()
    for number in range(6):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    deployment.clock.advance(minutes=30)
    await queued.scan()
    sessions = await deployment.rows("SELECT session_id FROM checkout_sessions")
    found = await node(queued, "take", "6", queue="cartwake-email")
    assert sorted(found["taken"]) == sorted(f"email-recovery-{each['session_id']}-1" for each in sessions)
    assert found["most"] <= 2
    deployment.clock.advance(minutes=5)
    await queued.scan()
    assert await node(queued, "list", queue="cartwake-email") == []


async def test_node_reads_why_its_broken_job_failed_and_others_go_on(queued: Queued) -> None:
    await scheduled(queued)
    stranger = await queued.deployment.shop("Stranger")
    await leave_cart(stranger, phone="+37069900001")
    queued.deployment.clock.advance(minutes=30)
    await queued.scan()
    job = await job_of(queued, stranger)
    broken = {"id": "my-own-id", "name": "sms-recovery", "data": job.data, "delay": 0}
    other = replace(job, step=7)
    unknown = {"id": other.job_id, "name": "sms-recovery", "data": other.data, "delay": 0}
    async with queued.worker():
        await node(queued, "add", json.dumps(broken))
        await node(queued, "add", json.dumps(unknown))
        await queued.fire()
    (failed,) = [each for each in await node(queued, "list") if each["state"] == "failed"]
    assert failed["id"] == "my-own-id"
    assert "its id is not sms-recovery-<data.session_id>-<data.step>" in failed["failedReason"]
    assert await node(queued, "read", other.job_id) is None
    assert await texts(queued) == 1
