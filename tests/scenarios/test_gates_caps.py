"""Gate 4: one text per phone and day whoever sends it, so many per shop and cycle, and each sender's own pace."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from cartwake.kit.clock import ManualClock
from cartwake.worker import deliver, dispatch_once
from deployment import Deployment, leave_cart, phone
from world import AINO, JONAS, RUTA

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"
RUSHED = {"segments_per_s": 1000}  # a sender whose pace stands in nobody's way


async def test_two_merchants_want_to_text_ruta_on_one_day(deployment: Deployment) -> None:
    linen, books = await deployment.shop("Lino Namai"), await deployment.shop("Knygos")
    await leave_cart(linen)
    await leave_cart(books)
    await deployment.jump(minutes=45)
    traces = sorted([await deployment.trace(linen), await deployment.trace(books)], key=len)
    assert traces == [[SCHEDULED, "caps drop recipient_cap"], [SCHEDULED, SENT, ACCEPTED]]
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_the_second_merchant_learns_nothing_about_the_first(deployment: Deployment) -> None:
    linen, books = await deployment.shop("Lino Namai"), await deployment.shop("Knygos")
    await leave_cart(linen)
    await deployment.jump(minutes=45)
    await deployment.jump(minutes=7)
    await leave_cart(books)
    await deployment.jump(minutes=45)
    assert (await deployment.trace(books))[-1] == "caps drop recipient_cap"
    answer = (await books.api("GET", "/v1/checkout-sessions/cart-1")).text
    (first,) = await deployment.messages(linen)
    strangers = ["Lino", str(linen.shop_id), str(linen.merchant.organization_id), str(first["message_id"])]
    assert [each for each in strangers if each in answer] == []
    texted_at = first["attempted_at"].isoformat()[:16]
    assert texted_at not in answer, "nor when the phone was texted"


async def test_a_day_later_ruta_may_be_texted_again_and_not_a_minute_earlier(deployment: Deployment) -> None:
    linen, books, wool = [await deployment.shop(name) for name in ("Linas", "Knygos", "Vilna")]
    await leave_cart(linen)
    await deployment.jump(minutes=45)
    await deployment.jump(hours=23)
    await leave_cart(books)
    await deployment.jump(minutes=15)
    await leave_cart(wool)
    await deployment.jump(minutes=44)
    await deployment.jump(minutes=1)
    assert (await deployment.trace(wool))[-1] == ACCEPTED
    assert (await deployment.trace(books))[-1] == "caps drop recipient_cap"


async def test_a_text_that_the_carrier_refused_does_not_count(deployment: Deployment) -> None:
    linen, books = await deployment.shop("Lino Namai"), await deployment.shop("Knygos")
    await deployment.script(RUTA, outcome="rejected", error_code=21612)
    await leave_cart(linen)
    await deployment.jump(minutes=45)
    await deployment.script(RUTA, outcome="delivered")
    await leave_cart(books)
    await deployment.jump(minutes=45)
    assert (await deployment.trace(linen))[-1] == "carrier drop carrier_recipient_soft"
    assert (await deployment.trace(books))[-1] == ACCEPTED


async def test_a_merchant_without_credits_does_not_use_up_the_day_of_the_one_who_can_pay(
    deployment: Deployment,
) -> None:
    poor, rich = await deployment.shop("Poor"), await deployment.shop("Rich")
    await leave_cart(poor)
    await deployment.jump(minutes=1)
    await leave_cart(rich)
    await deployment.jump(minutes=40)
    await deployment.leave_credits(poor.merchant, 1)
    await deployment.jump(minutes=5)  # both are due, the poor one first
    assert await deployment.trace(poor) == [SCHEDULED, "credits drop insufficient_credits"]
    assert await deployment.trace(rich) == [SCHEDULED, SENT, ACCEPTED]


async def test_a_text_that_waits_for_the_morning_spends_no_cap(deployment: Deployment) -> None:
    # Aino Virtanen is in Lisbon this week: it is half past eight in the morning there.
    waiting, quick = await deployment.shop("Waiting"), await deployment.shop("Quick")
    await leave_cart(waiting, phone=AINO, time_zone="Europe/Lisbon")
    await leave_cart(quick, phone=AINO)
    await deployment.jump(minutes=45)
    assert await deployment.trace(waiting) == [SCHEDULED, "quiet_hours hold quiet_hours"]
    assert await deployment.trace(quick) == [SCHEDULED, SENT, ACCEPTED]


async def test_seven_carts_and_a_cap_of_three_drain_in_three_cycles(deployment: Deployment) -> None:
    shop = await deployment.shop(cycle_cap=3)
    other = await deployment.shop("Other")
    for number in range(7):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
        deployment.clock.advance(seconds=1)
    await leave_cart(other, phone=JONAS)
    drained = []
    await deployment.jump(minutes=44)
    for _ in range(4):
        await deployment.jump(minutes=5)
        drained.append((await shop.texts()).count("delivered"))
        await deployment.work()
        assert (await shop.texts()).count("delivered") == drained[-1], "the cycle is spent, however often one looks"
    assert drained == [3, 6, 7, 7]
    assert await other.texts() == ["delivered"], "another shop's cap is its own"
    assert await deployment.trace(shop, "cart-6") == [SCHEDULED, SENT, ACCEPTED], (
        "a spent cycle is waited for in silence"
    )


async def test_what_becomes_due_within_a_cycle_gets_what_the_cycle_has_left(deployment: Deployment) -> None:
    shop = await deployment.shop(cycle_cap=3)
    for number in range(2):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    deployment.clock.advance(minutes=2)
    for number in range(2, 4):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=40)
    await deployment.jump(minutes=3)
    assert (await shop.texts()).count("delivered") == 2
    await deployment.jump(minutes=2)
    assert (await shop.texts()).count("delivered") == 3
    await deployment.jump(minutes=3)
    assert (await shop.texts()).count("delivered") == 4


async def test_machines_whose_clocks_differ_share_a_cycle(deployment: Deployment) -> None:
    """One of them is in the next cycle already; neither begins it anew for the other."""
    shop = await deployment.shop(cycle_cap=3)
    deployment.clock.advance(minutes=4)
    for number in range(6):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=30)
    behind = deployment.clock.advance(minutes=15, seconds=59)
    ahead = replace(deployment.runtime, clock=ManualClock(behind + timedelta(seconds=2)))
    assert (behind.minute, ahead.clock.now().minute) == (4, 5)
    claims = [await dispatch_once(ahead, 2), await dispatch_once(deployment.runtime), await dispatch_once(ahead)]
    assert [len(claimed.attempts) for claimed in claims] == [2, 1, 0]
    deployment.clock.advance(minutes=5)
    assert len((await dispatch_once(deployment.runtime)).attempts) == 0, "not before that cycle has ended"
    deployment.clock.advance(seconds=1)
    assert len((await dispatch_once(deployment.runtime)).attempts) == 3


async def test_texts_that_are_held_or_dropped_do_not_count_against_the_cycle(deployment: Deployment) -> None:
    shop = await deployment.shop(cycle_cap=2)
    for number in range(4):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
        deployment.clock.advance(seconds=1)
    await deployment.jump(minutes=40)
    await shop.complete("cart-0")
    await shop.pay("cart-1")
    await deployment.jump(minutes=5)
    assert await shop.texts() == ["dropped", "held", "delivered", "delivered"]


async def test_a_sender_of_one_segment_per_second_is_not_hurried(deployment: Deployment) -> None:
    shop = await deployment.shop(sender=None)
    await deployment.add_sender(shop, "+12015550199", segments_per_s=1)
    for number in range(5):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
        deployment.clock.advance(seconds=1)
    await deployment.jump(minutes=30)
    now = deployment.clock.advance(minutes=15)

    # Two segments each. What would leave more than five seconds ahead waits as a held message.
    attempts = (await dispatch_once(deployment.runtime)).attempts
    assert [attempt.slot - now for attempt in attempts] == [timedelta(seconds=second) for second in (0, 2, 4)]
    assert await shop.texts() == ["sending"] * 3 + ["held"] * 2
    assert (await deployment.trace(shop, "cart-3"))[-1] == "caps hold sender_pace"
    assert await deployment.held_until(shop, "cart-4") - now == timedelta(seconds=8)

    sending = asyncio.create_task(deliver(deployment.runtime, deployment.carrier, attempts))
    for handed_over in (1, 2, 3):
        while deployment.sandbox.state.accepted < handed_over:
            await asyncio.sleep(0)
        await shop.session("cart-0")  # a whole round trip, and the next one has still not gone
        assert deployment.sandbox.state.accepted == handed_over
        deployment.clock.advance(seconds=2)
    await sending
    await deployment.jump(seconds=2)
    assert await shop.texts() == ["delivered"] * 5


async def test_a_senders_pace_is_kept_over_batches_and_workers(deployment: Deployment) -> None:
    shop = await deployment.shop(sender=None)
    await deployment.add_sender(shop, "+12015550199", segments_per_s=1)
    for number in range(4):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=30)
    now = deployment.clock.advance(minutes=15)
    async with deployment.another_process() as other:
        claims = [await dispatch_once(worker, 1) for worker in (deployment.runtime, other, deployment.runtime, other)]
    slots = [attempt.slot - now for claimed in claims for attempt in claimed.attempts]
    assert slots == [timedelta(seconds=second) for second in (0, 2, 4)], "the fourth is held"


async def test_a_quick_sender_sends_them_all_at_once(deployment: Deployment) -> None:
    shop = await deployment.shop(sender=None)
    await deployment.add_sender(shop, "+37061000099", **RUSHED)
    for number in range(5):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=45)
    assert await shop.texts() == ["delivered"] * 5
