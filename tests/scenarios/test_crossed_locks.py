"""A scan and a worker that want each other's locks: both must come to their end, and neither by losing a deadlock."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from cartwake.carriers.protocol import Accepted, ErrorClass, Rejected, SendResult, Throttled, Unknown
from cartwake.kit.db import ENGINE
from cartwake.messages import schedule
from cartwake.messages.dispatch import Attempt
from cartwake.messages.recording import record_results
from cartwake.worker import dispatch_once
from deployment import Deployment, leave_cart, phone
from typed import Cartwake
from world import ShopClient

LOCK_QUEUE = "SELECT FROM sms_shop_queues WHERE shop_id = %s FOR UPDATE"
LOCK_BALANCE = "SELECT FROM org_sms_credit_balances WHERE organization_id = %s FOR UPDATE NOWAIT"
# Of the cart that is scanned and answered about at once: one writes its consent, both write a decision about it.
OPTED_OUT = Rejected(21610, ErrorClass.OPTED_OUT, "the recipient has opted out of this sender")
ANSWERS = pytest.mark.parametrize("answer", [OPTED_OUT, Unknown("the line was cut")], ids=["opted out", "unknown"])


async def in_flight(deployment: Deployment, shop: ShopClient) -> list[Attempt]:
    """Two carts' texts are on their way when the first one's shopper comes back, and leaves again."""
    for number, external_id in enumerate(("back", "gone")):
        await leave_cart(shop, external_id, phone=phone(number))
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    await shop.put_session("back", cart_value_minor=6990)
    return sorted(attempts, key=lambda attempt: attempt.text.to)


@pytest.mark.thorough
@ANSWERS
async def test_a_scan_waits_for_an_answer_or_it_for_the_scan(deployment: Deployment, answer: SendResult) -> None:
    merchant = await deployment.merchant()
    first, second = [await merchant.shop(name) for name in ("First", "Second")]
    back, gone = await in_flight(deployment, second)
    for number, shop in enumerate((first, second), 8):
        await leave_cart(shop, "new", phone=phone(number))
    deployment.clock.advance(minutes=30)
    async with await psycopg.AsyncConnection.connect(deployment.database_url) as third:
        await third.execute(LOCK_QUEUE, [first.shop_id])
        scanning = asyncio.create_task(scan(deployment))
        await deployment.waits_for_a_lock_or_ends(scanning)
        recording = asyncio.create_task(record(deployment, [(gone, Throttled(20429, 1)), (back, answer)]))
        await deployment.waits_for_a_lock_or_ends(recording, 2)
        await third.rollback()
    await asyncio.gather(scanning, recording)


async def test_answers_lock_every_balance_before_they_settle_any(deployment: Deployment) -> None:
    """A text that was taken settles first, and its merchant's balance comes second."""
    first, second = [await deployment.shop(name) for name in ("First", "Second")]
    for number, shop in enumerate((first, second)):
        await leave_cart(shop, phone=phone(number))
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    refused, taken = sorted(attempts, key=lambda attempt: attempt.message.organization_id)
    async with await psycopg.AsyncConnection.connect(deployment.database_url) as third:
        await third.execute(LOCK_BALANCE, [first.merchant.organization_id])
        recording = asyncio.create_task(record(deployment, [(refused, OPTED_OUT), (taken, Accepted("SM" + "1" * 32))]))
        await deployment.waits_for_a_lock_or_ends(recording)
        await third.execute(LOCK_BALANCE, [second.merchant.organization_id])
        await third.rollback()
    await recording


async def test_credits_added_by_hand_wait_for_carts_before_they_lock_the_balance(
    deployment: Deployment, cartwake: Cartwake, settled_url: str
) -> None:
    merchant = await deployment.merchant(plan="PRO", credits=0)
    shop = await merchant.shop()
    await deployment.leave_credits(merchant, 0)
    await leave_cart(shop)
    await deployment.jump(minutes=35)
    assert (await shop.session())["refusal"] == "insufficient_credits"
    words = ("credits", "adjust", str(merchant.organization_id), "50", "--note", "by hand")
    async with await psycopg.AsyncConnection.connect(deployment.database_url) as third:
        await third.execute("SELECT FROM checkout_sessions WHERE shop_id = %s FOR UPDATE", [shop.shop_id])
        adjusting = asyncio.create_task(asyncio.to_thread(cartwake, *words, database_url=settled_url))
        await deployment.waits_for_a_lock_or_ends(adjusting)
        assert not adjusting.done()
        await third.execute(LOCK_BALANCE, [merchant.organization_id])  # as a claim does: carts first, balances after
        await third.rollback()
    assert (await adjusting).out == "available_credits 50\n"
    assert (await deployment.rows("SELECT FROM checkout_sessions WHERE scan_at = updated_at")) != []


async def scan(deployment: Deployment) -> None:
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await schedule.scan(conn, deployment.runtime.moment(), 1000)


async def record(deployment: Deployment, results: list[tuple[Attempt, SendResult]]) -> None:
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await record_results(conn, deployment.runtime.moment(), results)
