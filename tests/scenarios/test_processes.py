"""Real processes that are told to stop: what is in flight is finished, or left so that nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections import Counter

import psycopg
import pytest

from processes import Child, Machine
from world import cart

pytestmark = pytest.mark.slow
SLOW_CARRIER = {"latency_ms": 300, "latency_rate": 1.0}


async def test_a_worker_that_is_told_to_stop_leaves_nothing_in_doubt(machine: Machine) -> None:
    web, _scheduler = await machine.start("serve"), await machine.start("scheduler")
    shop = await machine.shop(web)
    phones = [await machine.leaves_cart(web, shop, number) for number in range(40)]
    await machine.http.put(f"{machine.sandbox.url}/sandbox/faults", json=SLOW_CARRIER)
    worker = await machine.start("worker")
    machine.clock.set_speed(60)  # until the next scan
    await machine.until_texted(1)
    machine.clock.set_speed(1)
    assert await worker.told_to_stop() == 0, worker.said()

    states = Counter(each["state"] for each in await machine.rows("SELECT state FROM sms_messages"))
    assert set(states) <= {"scheduled", "held", "accepted", "sent", "delivered"}, "nothing is left sending or unknown"
    assert 0 < states["scheduled"] + states["held"] < 40, "it stopped in the middle"
    assert "Traceback" not in worker.said()

    await machine.http.put(f"{machine.sandbox.url}/sandbox/faults", json={})
    await machine.start("worker")
    await machine.until_texted(40)
    assert Counter(await machine.texts()) == Counter(phones)


async def test_a_web_process_that_is_told_to_stop_answers_what_it_was_asked(machine: Machine) -> None:
    web = await machine.start("serve")
    shop = await machine.shop(web)
    await machine.leaves_cart(web, shop, 1)
    with psycopg.connect(machine.database_url) as slow:
        slow.execute("SELECT FROM checkout_sessions FOR UPDATE")
        asked = asyncio.create_task(
            machine.http.put(
                f"{web.url}/v1/checkout-sessions/cart-1",
                json=cart(cart_value_minor=7000),
                headers={"Authorization": f"Bearer {shop.key}"},
            )
        )
        await machine.until_waiting_for_a_lock()
        stopping = asyncio.create_task(web.told_to_stop())
        with pytest.raises(asyncio.TimeoutError):  # it waits for the request that is under way
            await asyncio.wait_for(asyncio.shield(stopping), 0.5)
        slow.rollback()
    answer = await asked
    assert answer.status_code == 200 and answer.json()["cart_value_minor"] == 7000
    assert await stopping == 0, web.said()
    (kept,) = await machine.rows("SELECT cart_value_minor FROM checkout_sessions")
    assert kept["cart_value_minor"] == 7000


async def test_a_scheduler_that_is_told_to_stop_finishes_the_task_that_it_runs(machine: Machine) -> None:
    web = await machine.start("serve")
    shop = await machine.shop(web)
    with psycopg.connect(machine.database_url) as slow:
        slow.execute("SELECT FROM org_sms_credit_balances FOR UPDATE")
        scheduler = await machine.start("scheduler")  # every task is due at once, the refills too
        await machine.until_waiting_for_a_lock()
        stopping = asyncio.create_task(scheduler.told_to_stop())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.5)
        slow.rollback()
    assert await stopping == 0, scheduler.said()
    refills = await machine.rows(
        "SELECT credits FROM org_sms_credit_ledger WHERE entry_type = 'TIER_REFILL' AND organization_id = %s",
        shop.organization_id,
    )
    assert [each["credits"] for each in refills] == [100]
    assert await machine.rows("SELECT name FROM periodic_tasks WHERE leased_until IS NOT NULL") == []


async def test_each_process_says_once_that_it_works(machine: Machine) -> None:
    web, worker, scheduler = [await machine.start(name) for name in ("serve", "worker", "scheduler")]
    for child, name in ((web, "web"), (worker, "worker"), (scheduler, "scheduler")):

        async def has_said(child: Child = child, name: str = name) -> bool:
            return any("process.started" in line and name in line for line in child.said().splitlines())

        await machine.until(has_said)
        assert child.said().count("process.started") == 1
