"""`cartwake explain`: the whole story of a cart, with what its shopper said and what somebody can do about it."""

from __future__ import annotations

import asyncio

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
        ["consent", "suppressed", "by", "inbound_text"],
    ]


async def test_what_somebody_can_mend_comes_with_how(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10, sender=None)
    await leave_cart(shop)
    await deployment.pass_time(minutes=50)
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict == "The text is dropped (no_lawful_sender)."
    assert advice == "  -> Give the shop a sender that may text this phone's country: `cartwake number add`."


async def test_a_pause_comes_with_what_ends_it(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop(credits=10)
    await leave_cart(shop)
    await deployment.pass_time(minutes=40)
    switch = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch"
    await deployment.world.operator.call("PUT", switch)
    verdict, advice, *_ = await explained(cartwake, deployment, shop)
    assert verdict == "Not texted yet: scheduled, and sending is paused by a kill switch."
    assert advice.startswith("  -> `cartwake resume` lets a paused deployment go on")
