"""Texts of which nobody knows whether they were sent: the operator sees each, and what to do, by API and command."""

from __future__ import annotations

import asyncio

import pytest

from deployment import Deployment, leave_cart, phone
from ports import free_port
from typed import Cartwake, Said

pytestmark = pytest.mark.usefixtures("settled_url")  # or the command would find a restored copy, and pause it


async def test_texts_in_doubt_are_listed_with_what_to_do_until_somebody_knows(
    deployment: Deployment, cartwake: Cartwake
) -> None:
    shop = await deployment.shop()
    for cart in range(2):
        await leave_cart(shop, f"cart-{cart}", phone=phone(cart))
    assert (await listed(deployment), (await typed(deployment, cartwake)).out) == ([], "0 texts in doubt.\n")
    await deployment.faults(drop_after_rate=1, lost_callback_rate=1)
    async with deployment.carrier_with(twilio_api_base=f"http://127.0.0.1:{free_port()}") as nobody:
        await deployment.jump(minutes=30)
        deployment.clock.advance(minutes=15)
        await deployment.dispatch()
        asked = [(await deployment.messages(shop, f"cart-{cart}"))[0] for cart in (1, 0)]
        for hours, state, advice in (
            (1, "unknown", "Nothing yet: the carrier is asked every minute"),
            (24, "unresolved", "Look the text up at the carrier by its attempt id"),
        ):
            await deployment.jump(hours=hours, carrier=nobody)
            doubts = await listed(deployment)
            assert [(each["message_id"], each["attempt_id"]) for each in doubts] == [
                (str(each["message_id"]), str(each["attempt_id"])) for each in asked
            ]
            assert {each["state"] for each in doubts} == {state} and all(advice in each["advice"] for each in doubts)
            said = await typed(deployment, cartwake)
            assert said.out.endswith("2 texts in doubt.\n") and said.out.count(advice) == 2
            for each in asked:
                assert f"{state:<10} message {each['message_id']}  attempt {each['attempt_id']}  " in said.out
            assert all(phone(cart)[1:] not in said.out + str(doubts) for cart in range(2))


async def test_what_is_known_in_the_end_is_in_doubt_no_more(deployment: Deployment, cartwake: Cartwake) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.faults(drop_after_rate=1, lost_callback_rate=1)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    await deployment.dispatch()
    assert [each["state"] for each in await listed(deployment)] == ["unknown"]
    await deployment.jump(minutes=1)
    assert (await listed(deployment), (await typed(deployment, cartwake)).out) == ([], "0 texts in doubt.\n")


async def listed(deployment: Deployment) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await deployment.world.operator.call("GET", "/v1/doubtful-messages"))["data"]
    return found


async def typed(deployment: Deployment, cartwake: Cartwake) -> Said:
    said = await asyncio.to_thread(cartwake, "doubts", database_url=deployment.database_url)
    assert said.status == 0, said
    return said
