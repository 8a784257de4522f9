"""Receipts that never come: after three days the carrier is asked, and what it says is what becomes of the text."""

from __future__ import annotations

import pytest

from cartwake import scheduler
from cartwake.kit.db import ENGINE
from cartwake.messages import reconcile
from deployment import Deployment, Json, leave_cart, phone
from ports import free_port
from world import ShopClient

UNTOUCHED, PAID = 200, 198  # of 100 credits and PRO's 100; Lithuanian letters make two segments


async def accepted_texts(deployment: Deployment, count: int = 1, **outcome: object) -> ShopClient:
    """So many shoppers were texted, every receipt was lost, and `outcome` is what the carrier made of the texts."""
    shop = await deployment.shop()
    for number in range(count):
        await deployment.script(phone(number), **outcome)
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.faults(lost_callback_rate=1)
    await deployment.jump(minutes=30)
    await deployment.jump(minutes=15)
    return shop


async def messages(deployment: Deployment) -> list[Json]:
    return await deployment.rows("SELECT state, reason, error_code, carrier_sid FROM sms_messages ORDER BY message_id")


async def states(deployment: Deployment) -> set[str]:
    return {message["state"] for message in await messages(deployment)}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("outcome", "state", "reason", "error_code", "credits"),
    [
        ({}, "delivered", None, None, PAID),
        ({"outcome": "undelivered"}, "undelivered", "carrier_recipient_soft", 30003, UNTOUCHED),
        ({"outcome": "failed", "error_code": 30007}, "failed", "carrier_content", 30007, UNTOUCHED),
    ],
    ids=["delivered", "undelivered", "failed"],
)
async def test_the_end_of_a_text_is_asked_for_when_nobody_told_it(
    deployment: Deployment, outcome: Json, state: str, reason: str | None, error_code: int | None, credits: int
) -> None:
    shop = await accepted_texts(deployment, **outcome)
    await deployment.jump(hours=71, minutes=50)
    assert await states(deployment) == {"accepted"}, "a receipt may still come"
    await deployment.jump(hours=1)
    (message,) = await messages(deployment)
    assert (message["state"], message["reason"], message["error_code"]) == (state, reason, error_code)
    assert (await shop.merchant.credits())["available_credits"] == credits
    assert deployment.sandbox.state.accepted == 1


async def test_a_number_that_does_not_exist_is_not_texted_again(deployment: Deployment) -> None:
    shop = await accepted_texts(deployment, outcome="undelivered", error_code=30005)
    await deployment.jump(hours=73)
    assert await states(deployment) == {"undelivered"}
    assert (await shop.session("cart-0"))["consent"] == {"granted": True, "suppressed": True}


async def test_an_opt_out_whose_receipt_was_lost_counts(deployment: Deployment) -> None:
    shop = await accepted_texts(deployment, outcome="unsubscribed")
    await deployment.jump(hours=73)
    (message,) = await messages(deployment)
    assert (message["state"], message["reason"]) == ("delivery_unknown", "no_receipt")
    assert (await shop.session("cart-0"))["consent"]["suppressed"]


async def test_a_text_that_the_carrier_has_no_end_for_either(deployment: Deployment) -> None:
    shop = await accepted_texts(deployment)
    for text in deployment.sandbox.state.texts.values():
        text.status = "sent"
    await deployment.jump(hours=73)
    (message,) = await messages(deployment)
    assert (message["state"], message["reason"]) == ("delivery_unknown", "no_receipt")
    assert (await shop.merchant.credits())["available_credits"] == PAID


async def test_a_carrier_that_cannot_be_asked_is_asked_again_for_a_day(deployment: Deployment) -> None:
    await accepted_texts(deployment)
    async with deployment.carrier_with(twilio_api_base=f"http://127.0.0.1:{free_port()}") as nobody:
        deployment.clock.advance(hours=95)
        await deployment.work(carrier=nobody)
        assert await states(deployment) == {"accepted"}
        deployment.clock.advance(hours=2)
        await deployment.work(carrier=nobody)
    assert await states(deployment) == {"delivery_unknown"}


async def test_a_carrier_that_can_be_asked_again_tells_the_end(deployment: Deployment) -> None:
    await accepted_texts(deployment)
    async with deployment.carrier_with(twilio_api_base=f"http://127.0.0.1:{free_port()}") as nobody:
        deployment.clock.advance(hours=90)
        await deployment.work(carrier=nobody)
    await deployment.jump(hours=1)
    assert await states(deployment) == {"delivered"}


async def test_all_of_them_are_asked_about_in_batches(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "ASK_BATCH", 3)
    await accepted_texts(deployment, count=8)
    deployment.clock.advance(hours=73)
    await scheduler.ask_for_missing_receipts(deployment.runtime, deployment.carrier)
    assert [message["state"] for message in await messages(deployment)] == ["delivered"] * 8


async def test_a_receipt_that_comes_while_the_carrier_is_asked_counts_once(deployment: Deployment) -> None:
    shop = await accepted_texts(deployment, outcome="undelivered")
    deployment.clock.advance(hours=73)
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        silent = await reconcile.read_silent(conn, deployment.clock.now(), 10)
    fates = await reconcile.look_up(deployment.carrier, silent)
    await deployment.carrier_says(shop, "undelivered", external_id="cart-0", ErrorCode="30003")
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        moment = deployment.runtime.moment()
        assert await reconcile.record_looked_up(conn, moment, fates, ("undelivered", "failed")) == []
    assert (await shop.merchant.credits())["available_credits"] == UNTOUCHED, "refunded once"
