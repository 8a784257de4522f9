"""A kill switch, or a worker that is told to stop, also stops the calls that a claimed batch has not made yet."""

from __future__ import annotations

import asyncio

import pytest

from cartwake.messages.dispatch import Calls
from cartwake.worker import deliver, dispatch_once
from deployment import Deployment, leave_cart, phone
from world import ShopClient


async def a_slow_batch(deployment: Deployment) -> ShopClient:
    """Three texts of a sender that takes one segment a second; two segments each."""
    shop = await deployment.shop(sender=None)
    await deployment.add_sender(shop, "+12015550199", segments_per_s=1)
    for number in range(3):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    return shop


async def first_call(deployment: Deployment) -> None:
    while deployment.sandbox.state.accepted < 1:
        await asyncio.sleep(0)


async def sent_while_thrown(deployment: Deployment, shop: ShopClient, switch: str) -> None:
    """Send the batch, and throw the switch after its first call."""
    attempts = (await dispatch_once(deployment.runtime)).attempts
    calls = Calls(at_a_time=64)
    sending = asyncio.create_task(deliver(deployment.runtime, deployment.carrier, attempts, calls))
    await first_call(deployment)
    await deployment.world.operator.call("PUT", switch)
    while calls.allow(shop.scope):  # the worker looks by itself, twice a second
        await asyncio.sleep(0.01)
    deployment.clock.advance(seconds=10)
    await sending
    await deployment.settle()


async def test_a_shops_switch_stops_the_rest_of_a_batch_that_is_being_sent(deployment: Deployment) -> None:
    shop = await a_slow_batch(deployment)
    switch = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch"
    await sent_while_thrown(deployment, shop, switch)

    assert deployment.sandbox.state.accepted == 1
    assert await shop.texts() == ["delivered", "held", "held"]
    assert (await deployment.trace(shop, "cart-2"))[-1] == "carrier hold call_not_started"
    assert (await shop.merchant.credits())["reserved_credits"] == 0
    await deployment.jump(minutes=10)
    assert deployment.sandbox.state.accepted == 1, "what waits keeps waiting"

    await deployment.world.operator.call("DELETE", switch)
    await deployment.jump(minutes=1)
    await deployment.jump(minutes=1)
    assert [len(await deployment.phone_shows(phone(number))) for number in range(3)] == [1, 1, 1]


async def test_the_deployments_switch_covers_every_shop(deployment: Deployment) -> None:
    shop = await a_slow_batch(deployment)
    await sent_while_thrown(deployment, shop, "/v1/kill-switch")
    assert deployment.sandbox.state.accepted == 1


async def test_a_worker_that_is_told_to_stop_calls_nobody_more_and_leaves_nothing_in_doubt(
    deployment: Deployment,
) -> None:
    shop = await a_slow_batch(deployment)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    stop = asyncio.Event()
    calls = Calls(64, stop)
    sending = asyncio.create_task(deliver(deployment.runtime, deployment.carrier, attempts, calls))
    await first_call(deployment)
    stop.set()
    deployment.clock.advance(seconds=10)
    await sending
    await deployment.settle()
    assert await shop.texts() == ["delivered", "held", "held"]

    await deployment.jump(minutes=1)  # another worker goes on
    await deployment.jump(minutes=1)
    assert [len(await deployment.phone_shows(phone(number))) for number in range(3)] == [1, 1, 1]


@pytest.mark.thorough
async def test_no_more_calls_are_under_way_than_there_are_lines(deployment: Deployment) -> None:
    shop = await deployment.shop()
    for number in range(6):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    stop = asyncio.Event()
    calls = Calls(2, stop)
    async with calls.line, calls.line:
        sending = asyncio.create_task(deliver(deployment.runtime, deployment.carrier, attempts, calls))
        deployment.clock.advance(seconds=10)  # every slot has come
        for _ in range(50):
            await asyncio.sleep(0)
        assert deployment.sandbox.state.accepted == 0, "no line is free"
        stop.set()
    await sending
    assert deployment.sandbox.state.accepted == 0, "asked once more when a line is free, not when the text was claimed"
