"""`cartwake explain`: the whole story of a cart, with what its shopper said and what somebody can do about it."""

from __future__ import annotations

import asyncio

import pytest

from cartwake.kit.db import ENGINE
from cartwake.messages.schedule import scan
from deployment import Deployment, leave_cart
from typed import Cartwake
from world import RUTA, ShopClient


async def explained(cartwake: Cartwake, deployment: Deployment, shop: ShopClient, cart: str = "cart-1") -> list[str]:
    words = ("explain", str(shop.merchant.organization_id), str(shop.shop_id), cart)
    said = await asyncio.to_thread(cartwake, *words, database_url=deployment.database_url)
    assert said.status == 0, said
    return said.out.splitlines()


async def test_a_stop_is_told_after_the_text_that_it_answers(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10)
    await leave_cart(shop)
    await deployment.pass_time(minutes=50)
    await deployment.reply(RUTA, "nie piszcie do mnie")
    await deployment.settle()

    verdict, *story = await explained(cartwake, deployment, shop)
    assert verdict == "The text is delivered."
    assert [line.split()[2:] for line in story] == [
        ["consent", "granted", "by", "checkbox"],
        ["schedule", "schedule", "scheduled"],
        ["carrier", "send", "all_gates_passed"],
        ["carrier", "send", "accepted"],
        ["receipt", "delivered", "of", (await deployment.messages(shop))[0]["carrier_sid"]],
        ["consent", "suppressed", "by", "inbound_text"],
    ]


async def test_what_somebody_can_mend_comes_with_how(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10, sender=None)
    await leave_cart(shop)
    await deployment.pass_time(minutes=50)
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict == "The text is dropped (no_lawful_sender)."
    assert advice == "  -> Give the shop a sender that may text this phone's country: `cartwake number add`."


@pytest.mark.thorough
async def test_a_pause_comes_with_what_ends_it(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10)
    await leave_cart(shop)
    await deployment.pass_time(minutes=40)
    switch = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch"
    await deployment.world.operator.call("PUT", switch)
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict == "Not texted yet: scheduled, and sending is paused by a kill switch."
    assert advice.startswith("  -> `cartwake resume` lets a paused deployment go on")


async def test_the_carrier_s_error_and_receipts_are_told(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10)
    await leave_cart(shop)
    await deployment.faults(lost_callback_rate=1.0)
    await deployment.outlast_a_cart()
    (message,) = await deployment.messages(shop)
    await deployment.carrier_says(shop, "sent")
    deployment.clock.advance(seconds=7)
    await deployment.carrier_says(shop, "undelivered", ErrorCode="30003")

    verdict, advice, *story = await explained(cartwake, deployment, shop)
    meaning = "error 30003, the recipient's phone is switched off or out of reach"
    assert verdict == f"The text is undelivered (carrier_recipient_soft): {meaning}."
    assert advice == "  -> Nothing to mend, unless many texts to one country end so."
    sent, ended = story[-2:]
    assert sent.split()[2:] == ["receipt", "sent", "of", message["carrier_sid"]]
    assert ended.endswith(f"receipt      undelivered  of {message['carrier_sid']}, {meaning}")
    assert ended.split()[:2] == f"{deployment.clock.now():%Y-%m-%d %H:%M:%S}".split()

    (seen,) = (await shop.call("GET", "/v1/messages"))["data"]
    assert (seen["error_code"], seen["error_meaning"]) == (30003, meaning.partition(", ")[2])
    assert seen["sent_at"] < seen["ended_at"]


@pytest.mark.thorough
async def test_an_error_that_nobody_knows_is_told_by_its_number(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10)
    await leave_cart(shop)
    await deployment.script(RUTA, outcome="rejected", error_code=29999)
    await deployment.outlast_a_cart()
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict.startswith("The text is rejected (carrier_account): error 29999, which the carrier explains")
    assert "`cartwake doctor`" in advice
    assert (await shop.call("GET", "/v1/messages"))["data"][0]["error_meaning"] is None


async def test_a_new_organization_without_credits_is_told_when_they_come(
    deployment: Deployment, cartwake: Cartwake
) -> None:
    shop = await deployment.shop(credits=0)
    await leave_cart(shop)
    deployment.clock.advance(minutes=31)
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await scan(conn, deployment.runtime.moment(), 100)
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict.startswith("Not texted: insufficient_credits")
    assert "A new organization has none until its plan's first ones come, within an hour." in advice
