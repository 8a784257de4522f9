"""The abandonment scan: which carts get a text, why the others do not, and what makes it ask again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from cartwake.carriers.protocol import Carrier
from cartwake.carts.abandonment import ask_again
from cartwake.carts.model import Refusal
from cartwake.credits.balance import adjust
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.kit.runtime import Runtime
from cartwake.messages import schedule
from cartwake.scheduler import Task, run_due, scan_abandoned
from deployment import Deployment, leave_cart, phone
from world import AINO, RUTA, TICKED, UNTICKED, ShopClient

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"


# --- each refusal, and the news that makes it good -------------------------------------------------------


async def test_ruta_agrees_later(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await shop.put_session(phone=RUTA, consent=UNTICKED)
    await deployment.jump(minutes=30)
    assert (await shop.session())["refusal"] == "no_consent"
    await shop.put_session(consent=TICKED)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse no_consent", SCHEDULED, SENT, ACCEPTED]
    assert (await shop.session())["refusal"] is None


async def test_ruta_gives_her_phone_later(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await shop.put_session(phone=None)
    await deployment.jump(minutes=30)
    assert (await shop.session())["refusal"] == "no_phone"
    await shop.put_session(phone=RUTA, consent=TICKED)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse no_phone", SCHEDULED, SENT, ACCEPTED]


async def test_ruta_writes_start_after_her_stop(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="+37061000099")
    await deployment.reply(RUTA, "STOP", to="+37061000099")
    await leave_cart(shop)
    await shop.put_session("cart-2", phone=AINO)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse no_consent"]
    await deployment.reply(RUTA, "START", to="+37061000099")
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]
    assert await deployment.trace(shop, "cart-2") == ["schedule refuse no_consent"], "Aino said nothing"


async def test_the_merchant_switches_texts_on(deployment: Deployment) -> None:
    shop = await deployment.shop(enabled=False)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse sms_disabled"]
    await shop.configure(enabled=True)
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_merchant_subscribes(deployment: Deployment) -> None:
    shop = await deployment.shop(plan="FREE")
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse plan"], "credits alone do not open that door"
    await deployment.change_plan(shop.merchant, "PRO")
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_merchant_buys_credits(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.leave_credits(shop.merchant, 0)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse insufficient_credits"]
    await shop.merchant.add_credits(2)
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_what_is_left_would_pay_for_lithuania_and_not_for_finland(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.leave_credits(shop.merchant, 1)
    await leave_cart(shop, phone=AINO, locale="en")
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse insufficient_credits"]
    await shop.merchant.add_credits(1)
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_credits_that_come_with_a_new_plan_are_news_too(deployment: Deployment) -> None:
    shop = await deployment.shop(plan="FREE", credits=0)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    await deployment.change_plan(shop.merchant, "PRO")
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == ["schedule refuse plan", "schedule refuse insufficient_credits"]
    await deployment.jump(minutes=5)  # ten past nine: the hourly refill
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[2:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_storefront_says_where_the_cart_is(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, checkout_url=None)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse no_checkout_url"]
    await shop.put_session(checkout_url="https://shop.example/checkout?cart=1")
    await deployment.jump(minutes=45)
    assert (await deployment.trace(shop))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_questions_come_in_the_article_s_order(deployment: Deployment) -> None:
    shop = await deployment.shop(plan="FREE", enabled=False, credits=0)
    await shop.put_session(phone=None, checkout_url=None)
    asked = []

    async def refused() -> None:
        await deployment.jump(minutes=35)
        asked.append((await shop.session())["refusal"])

    await refused()
    await shop.put_session(phone=RUTA, checkout_url=None)
    await refused()
    await leave_cart(shop, checkout_url=None)
    await refused()
    await shop.configure(enabled=True)
    await refused()
    await deployment.change_plan(shop.merchant, "PRO")
    await deployment.leave_credits(shop.merchant, 0)
    await refused()
    await shop.merchant.add_credits(10)
    await refused()
    assert asked == ["no_phone", "no_consent", "sms_disabled", "plan", "insufficient_credits", "no_checkout_url"]


async def test_news_that_changes_nothing_is_not_asked_about(deployment: Deployment) -> None:
    shop = await deployment.shop(enabled=False)
    sibling = await shop.merchant.shop("Vilna")
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    await shop.merchant.add_credits(5)
    await shop.configure(spread_s=60)
    await sibling.configure(enabled=False)
    await sibling.configure(enabled=True)
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == ["schedule refuse sms_disabled"]


# --- too late ----------------------------------------------------------------------------------------


async def bring_consent(deployment: Deployment, shop: ShopClient) -> None:
    await deployment.reply(RUTA, "START", to="+37061000099")


async def bring_credits(deployment: Deployment, shop: ShopClient) -> None:
    await shop.merchant.add_credits(100)


async def bring_plan(deployment: Deployment, shop: ShopClient) -> None:
    await deployment.change_plan(shop.merchant, "PRO")


async def bring_texts(deployment: Deployment, shop: ShopClient) -> None:
    await shop.configure(enabled=True)


async def bring_address(deployment: Deployment, shop: ShopClient) -> None:
    await shop.put_session(checkout_url="https://shop.example/checkout?cart=1")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("lacking", "news"),
    [
        ("consent", bring_consent),
        ("credits", bring_credits),
        ("plan", bring_plan),
        ("enabled", bring_texts),
        ("checkout_url", bring_address),
    ],
)
async def test_after_96_hours_no_news_wakes_a_cart(
    deployment: Deployment, lacking: str, news: Callable[[Deployment, ShopClient], Awaitable[None]]
) -> None:
    shop = await deployment.shop(
        plan="FREE" if lacking == "plan" else "PRO", enabled=lacking != "enabled", sender="+37061000099"
    )
    if lacking == "consent":
        await deployment.reply(RUTA, "STOP", to="+37061000099")
    if lacking == "credits":
        await deployment.leave_credits(shop.merchant, 0)
    await leave_cart(shop, checkout_url=None if lacking == "checkout_url" else "https://shop.example/cart/1")
    await deployment.jump(minutes=30)
    await deployment.jump(hours=95, minutes=30)
    await news(deployment, shop)
    await deployment.jump(hours=1)
    session = await shop.session()
    assert session["state"] == "expired" and session["message"] is None
    assert [line["outcome"] for line in session["decisions"]] == ["refuse"]


async def test_a_scheduler_that_was_away_for_a_week_lets_old_carts_rest(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(days=7)
    session = await shop.session()
    assert session["state"] == "expired" and session["message"] is None and session["decisions"] == []
    assert await deployment.rows("SELECT * FROM cart_events") == [], "nor is there an e-mail about it"


# --- once --------------------------------------------------------------------------------------------


async def test_the_e_mail_is_due_once_however_often_the_cart_is_left_and_asked_about(deployment: Deployment) -> None:
    shop = await deployment.shop(plan="FREE", email_delay_s=120)
    await shop.put_session(phone=None)
    await deployment.jump(minutes=30)
    found_at = deployment.clock.now()
    await shop.put_session(phone=RUTA, consent=TICKED)
    await deployment.jump(minutes=30)
    await deployment.change_plan(shop.merchant, "PRO")
    await deployment.jump(minutes=30)
    (event,) = await deployment.rows("SELECT kind, due_at, at FROM cart_events")
    assert event == {"kind": "email_due", "due_at": found_at + timedelta(minutes=2), "at": found_at}


async def test_a_cart_without_a_phone_still_gets_its_e_mail(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await shop.put_session(phone=None)
    await deployment.jump(minutes=30)
    assert len(await deployment.rows("SELECT kind FROM cart_events")) == 1


@pytest.mark.thorough
async def test_two_schedulers_at_once_schedule_each_cart_once(deployment: Deployment) -> None:
    shop = await deployment.shop()
    async with deployment.another_process(abandonment_batch=7) as second, deployment.another_process() as third:
        for number in range(40):
            await leave_cart(shop, f"cart-{number}", phone=phone(number))
        deployment.clock.advance(minutes=30)
        # As whole schedulers, of which one has the task; and as two scans side by side, whoever started them.
        await asyncio.gather(*(run_due(each, deployment.carrier) for each in (deployment.runtime, second)))
        for number in range(40, 80):
            await leave_cart(shop, f"cart-{number}", phone=phone(number))
        deployment.clock.advance(minutes=30)
        await asyncio.gather(*(scan_abandoned(each, deployment.carrier) for each in (second, third)))
    (counts,) = await deployment.rows(
        "SELECT (SELECT count(*) FROM sms_messages) AS messages, (SELECT count(*) FROM cart_events) AS emails,"
        " (SELECT count(*) FROM sms_decisions WHERE outcome = 'schedule') AS decisions"
    )
    assert counts == {"messages": 80, "emails": 80, "decisions": 80}


async def test_a_scan_goes_on_while_it_finds_carts(deployment: Deployment) -> None:
    shop = await deployment.shop()
    carts = [f"cart-{number}" for number in range(3)]
    for number, external_id in enumerate(carts):
        await leave_cart(shop, external_id, phone=phone(number))
    deployment.clock.advance(minutes=30)
    async with deployment.another_process(abandonment_batch=1) as scheduler:
        await scan_abandoned(scheduler, deployment.carrier)
    assert [await deployment.trace(shop, external_id) for external_id in carts] == [[SCHEDULED]] * 3


async def test_two_schedulers_at_once_run_each_task_once(deployment: Deployment) -> None:
    runs = []

    async def count(_runtime: Runtime, _carrier: Carrier) -> None:
        runs.append(deployment.clock.now())

    tasks = [Task("abandonment_scan", "*/5 * * * *", count), Task("invariants", "0 * * * *", count)]
    async with deployment.another_process() as second:
        for _ in range(3):
            await asyncio.gather(*(run_due(each, deployment.carrier, tasks) for each in (deployment.runtime, second)))
            deployment.clock.advance(minutes=5)
    assert len(runs) == 3 + 1


async def test_a_second_abandonment_of_a_cart_is_no_second_text(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=35)
    await shop.put_session(cart_value_minor=1)
    await deployment.jump(minutes=35)
    assert await deployment.trace(shop) == [SCHEDULED, "schedule schedule scheduled_before", "cart hold active_again"]
    assert len(await deployment.messages(shop)) == 1


# --- news that comes while the scan asks -------------------------------------------------------------


async def test_a_plan_that_changes_while_the_scan_asks_is_not_missed(deployment: Deployment) -> None:
    shop = await deployment.shop(plan="FREE")
    await leave_cart(shop)
    deployment.clock.advance(minutes=30)
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await schedule.scan(conn, deployment.runtime.moment(), 100)  # it read FREE, and has not committed yet
        change = asyncio.create_task(deployment.change_plan(shop.merchant, "PRO"))
        await deployment.waits_for_a_lock_or_ends(change)
    await change
    await deployment.jump(minutes=15)
    assert await deployment.trace(shop) == ["schedule refuse plan", SCHEDULED, SENT, ACCEPTED]


async def test_credits_that_arrive_while_the_scan_asks_are_not_missed(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.leave_credits(shop.merchant, 0)
    await leave_cart(shop)
    now = deployment.clock.advance(minutes=30)
    organization_id = shop.merchant.organization_id
    async with deployment.runtime.db.transaction(OPERATOR) as conn:  # a purchase that has not committed yet
        await ask_again(conn, now, organization_id, [Refusal.INSUFFICIENT_CREDITS])
        await adjust(conn, now, organization_id, 10)
        scan = asyncio.create_task(scan_abandoned(deployment.runtime, deployment.carrier))
        await deployment.waits_for_a_lock_or_ends(scan)
    await scan
    await deployment.jump(minutes=15)
    assert (await deployment.trace(shop))[-3:] == [SCHEDULED, SENT, ACCEPTED]
