"""Credits as a merchant lives with them: the article's race, refunds, refills and the warning.

The article's figures are 50 credits and two texts of 30. No text costs 30 here, so the race is run at a tenth:
5 credits, and texts of 3 to Germany.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest

from cartwake.scheduler import refill_plans
from cartwake.worker import dispatch_once
from deployment import Deployment, leave_cart
from world import AINO, JONAS, RUTA, Json, MerchantClient, ShopClient

HANNA = "+4915198765432"  # Jonas Weber and Hanna Schulz shop from Berlin

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"


async def ledger(merchant: MerchantClient) -> list[Json]:
    """The merchant's entries, oldest first."""
    return list(reversed((await merchant.call("GET", "/v1/credits/ledger", params={"limit": 200}))["data"]))


async def kinds(merchant: MerchantClient) -> list[str]:
    return [entry["entry_type"] for entry in await ledger(merchant)]


async def noon_in_berlin(deployment: Deployment, shops: dict[str, ShopClient]) -> None:
    """Each phone's owner left a cart at that shop, and each text is due at once."""
    deployment.clock.set(deployment.next_time("12:00", "Europe/Berlin"))
    for number, shop in shops.items():
        await leave_cart(shop, f"cart-of-{number}", phone=number, locale="de")
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)


async def test_two_shops_want_the_last_credits_and_exactly_one_gets_them(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    linen, wool = await merchant.shop("Leinen"), await merchant.shop("Wolle")
    await noon_in_berlin(deployment, {JONAS: linen, HANNA: wool})
    await deployment.leave_credits(merchant, 5)
    await deployment.work()
    outcomes = sorted(
        [(await deployment.trace(shop, f"cart-of-{number}"))[-1] for number, shop in ((JONAS, linen), (HANNA, wool))]
    )
    assert outcomes == [ACCEPTED, "credits drop insufficient_credits"]
    assert (await merchant.credits())["available_credits"] == 2
    assert deployment.sandbox.state.accepted == 1


@pytest.mark.thorough
async def test_the_same_race_between_two_workers_again_and_again(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    linen, wool = await merchant.shop("Leinen"), await merchant.shop("Wolle")
    async with deployment.another_process(dispatch_batch=1) as one, deployment.another_process(dispatch_batch=1) as two:
        for round_number in range(6):
            phones = [f"+49151{round_number:03}{digit}1234" for digit in (1, 2)]
            await deployment.leave_credits(merchant, 100)
            await noon_in_berlin(deployment, dict(zip(phones, (linen, wool), strict=True)))
            await deployment.leave_credits(merchant, 5)
            claims = await asyncio.gather(dispatch_once(one), dispatch_once(two))
            assert sum(len(claim.attempts) for claim in claims) <= 1
            await deployment.work()  # whatever one of them left
            balance = await merchant.credits()
            assert balance["available_credits"] == 2, "never -1"
            await deployment.send([attempt for claim in claims for attempt in claim.attempts])
            await deployment.settle()
    assert min(entry["balance_after"] for entry in await ledger(merchant)) >= 0
    assert deployment.sandbox.state.accepted == 6


async def test_a_text_too_dear_does_not_stop_a_cheaper_one_behind_it(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    berlin, vilnius = await merchant.shop("Leinen"), await merchant.shop("Linas")
    deployment.clock.set(deployment.next_time("12:00", "Europe/Berlin"))
    await leave_cart(berlin, phone=JONAS, locale="de")
    deployment.clock.advance(seconds=1)
    await leave_cart(vilnius, phone=RUTA, locale="en")
    await deployment.jump(minutes=30)
    await deployment.leave_credits(merchant, 2)
    await deployment.jump(minutes=15)
    assert await deployment.trace(berlin) == [SCHEDULED, "credits drop insufficient_credits"]
    assert await deployment.trace(vilnius) == [SCHEDULED, SENT, ACCEPTED]
    assert (await merchant.credits())["available_credits"] == 1


async def test_the_last_credits_go_to_the_text_that_was_due_first(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    linen, wool = await merchant.shop("Linas"), await merchant.shop("Vilna")
    await leave_cart(wool, phone=RUTA, locale="en")
    deployment.clock.advance(seconds=1)
    await leave_cart(linen, phone=AINO, locale="en")
    await deployment.jump(minutes=30)
    await deployment.leave_credits(merchant, 2)
    await deployment.jump(minutes=15)
    assert await deployment.trace(linen) == [SCHEDULED, "credits drop insufficient_credits"]
    assert await deployment.trace(wool) == [SCHEDULED, SENT, ACCEPTED]


async def test_sibling_shops_draw_on_one_account(deployment: Deployment) -> None:
    merchant = await deployment.merchant(credits=0)
    linen, wool = await merchant.shop("Linas"), await merchant.shop("Vilna")
    await deployment.work()  # the month's credits arrive
    await leave_cart(linen, phone=RUTA)
    await leave_cart(wool, phone=AINO, locale="en")
    await deployment.jump(minutes=45)
    assert (await merchant.credits())["available_credits"] == 100 - 2 - 2, "two segments to Lithuania, one to Finland"


async def test_the_ledger_tells_the_whole_story_of_a_text(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    entries = [(e["entry_type"], e["credits"], e["balance_after"]) for e in await ledger(shop.merchant)]
    assert entries == [
        ("ADJUSTMENT", 100, 100),
        ("TIER_REFILL", 100, 200),
        ("SEND_RESERVE", -2, 198),
        ("SEND_CONFIRM", 0, 198),
    ]


async def test_a_text_the_carrier_refuses_costs_nothing(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.script(RUTA, outcome="rejected")
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert (await kinds(shop.merchant))[-2:] == ["SEND_RESERVE", "SEND_REFUND"]
    assert (await shop.merchant.credits())["available_credits"] == 200


async def test_a_text_that_did_not_arrive_is_refunded_once_however_often_the_carrier_says_so(
    deployment: Deployment,
) -> None:
    shop = await deployment.shop()
    await deployment.script(RUTA, outcome="undelivered")
    await deployment.faults(duplicate_callback_rate=1)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    await deployment.carrier_says(shop, "undelivered", "undelivered", ErrorCode="30003")
    await deployment.carrier_says(shop, "failed", ErrorCode="30003")
    assert (await kinds(shop.merchant))[-3:] == ["SEND_RESERVE", "SEND_CONFIRM", "DELIVERY_REFUND"]
    assert (await shop.merchant.credits())["available_credits"] == 200


async def test_a_plan_s_credits_come_once_a_month(deployment: Deployment) -> None:
    pro, ultra, free = [await deployment.merchant(plan, plan, credits=0) for plan in ("PRO", "ULTRA", "FREE")]

    async def balances() -> list[int]:
        return [(await each.credits())["available_credits"] for each in (pro, ultra, free)]

    await deployment.work()
    assert await balances() == [100, 500, 0]
    for _ in range(3):
        await deployment.jump(hours=1)
    assert await balances() == [100, 500, 0], "November was had"
    await deployment.jump(until=datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    assert await balances() == [100, 500, 0]
    await deployment.jump(until=datetime(2026, 12, 1, 0, 10, tzinfo=UTC))
    assert await balances() == [200, 1000, 0], "what is left of November stays"
    await deployment.jump(until=datetime(2027, 2, 1, 0, 10, tzinfo=UTC))
    assert await balances() == [300, 1500, 0], "a month that the scheduler slept through does not come twice"
    assert [entry["reference"] for entry in await ledger(pro)] == ["2026-11", "2026-12", "2027-02"]


async def test_two_schedulers_refill_once(deployment: Deployment) -> None:
    merchants = [await deployment.merchant(credits=0) for _ in range(5)]
    async with deployment.another_process() as second:
        await asyncio.gather(
            *(refill_plans(each, deployment.carrier) for each in (deployment.runtime, second, deployment.runtime))
        )
    assert [(await each.credits())["available_credits"] for each in merchants] == [100] * 5


async def test_the_month_s_credits_come_to_every_organization_of_a_large_deployment(deployment: Deployment) -> None:
    with psycopg.connect(deployment.database_url) as owner:
        owner.execute(
            "INSERT INTO organizations SELECT gen_random_uuid(), 'Merchant', 'PRO', %s FROM generate_series(1, 501)",
            [deployment.clock.now()],
        )
    await refill_plans(deployment.runtime, deployment.carrier)
    accounts = "SELECT available_credits, count(*) AS organizations FROM org_sms_credit_balances GROUP BY 1"
    assert await deployment.rows(accounts) == [{"available_credits": 100, "organizations": 501}]


async def test_changing_the_plan_mid_month_brings_no_second_refill(deployment: Deployment) -> None:
    merchant = await deployment.merchant(credits=0)
    await deployment.work()
    await deployment.change_plan(merchant, "ULTRA")
    await deployment.jump(hours=2)
    assert (await merchant.credits())["available_credits"] == 100
    await deployment.jump(days=7)
    assert (await merchant.credits())["available_credits"] == 600


async def test_the_merchant_is_warned_before_the_credits_run_out(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    shop = await merchant.shop(low_credits_at=3)
    await merchant.shop("Calm", low_credits_at=0)
    await deployment.leave_credits(merchant, 5)
    assert (await merchant.credits())["low"] is False
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await merchant.credits() == {"available_credits": 3, "reserved_credits": 0, "low": True}
    await merchant.add_credits(1)
    assert (await merchant.credits())["low"] is False


async def test_a_merchant_who_ran_out_sees_it_on_the_cart_and_in_the_warning(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    shop = await merchant.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    await deployment.leave_credits(merchant, 1)
    await deployment.jump(minutes=15)
    assert await deployment.trace(shop) == [SCHEDULED, "credits drop insufficient_credits"]
    assert (await merchant.credits())["low"] is True
    assert (await kinds(merchant))[-1] == "ADJUSTMENT", "a text that nobody can pay for is not reserved"


async def test_while_a_text_is_on_its_way_its_credits_are_nobody_else_s(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    linen, wool = await merchant.shop("Linas"), await merchant.shop("Vilna")
    await leave_cart(linen, phone=RUTA)
    await leave_cart(wool, phone=AINO, locale="lt")
    await deployment.jump(minutes=30)
    await deployment.leave_credits(merchant, 5)
    deployment.clock.advance(minutes=15)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    assert len(attempts) == 1, "2 to Lithuania and 4 to Finland are more than 5"
    balance = await merchant.credits()
    assert balance["available_credits"] + balance["reserved_credits"] == 5
    await deployment.send(attempts)
    await deployment.settle()
    assert (await merchant.credits())["reserved_credits"] == 0
