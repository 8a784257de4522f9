"""Answers that meet, and whoever dies around asking for them: what was said last counts, and counts once."""

from __future__ import annotations

import asyncio

import pytest

from cartwake.carriers.open import STATUS_PATH
from cartwake.carriers.protocol import Absent, Accepted, Found
from cartwake.kit.db import ENGINE
from cartwake.messages import reconcile
from cartwake.messages.inbox import claim_events, finish_events, open_events
from cartwake.messages.receipts import apply_receipts
from cartwake.worker import dispatch_once, record
from deployment import Deployment, due_cart, leave_cart, phone
from world import RUTA, ShopClient


async def state_of(deployment: Deployment, shop: ShopClient, external_id: str = "cart-1") -> str:
    (message,) = await deployment.messages(shop, external_id)
    state: str = message["state"]
    return state


async def test_an_answer_waits_for_the_receipt_that_is_being_applied(deployment: Deployment) -> None:
    """Or a text that has arrived would be one that was just taken, and wait three days for its receipt."""
    shop = await due_cart(deployment)
    (attempt,) = (await dispatch_once(deployment.runtime)).attempts
    await deployment.receipts(shop, "delivered")
    moment = deployment.runtime.moment()
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        events = open_events(moment.vault, await claim_events(conn, 10))
        outcomes, _ = await apply_receipts(conn, moment, events, ["failed"])
        await finish_events(conn, moment, outcomes)
        answer = asyncio.create_task(
            record(deployment.runtime, [(attempt, Accepted("SM" + attempt.text.attempt_id.hex))])
        )
        await deployment.waits_for_a_lock_or_ends(answer)
        assert not answer.done()
    assert await answer == []
    assert await state_of(deployment, shop) == "delivered"


@pytest.mark.parametrize("fault", ["error_before_rate", "error_after_rate"])
async def test_a_scheduler_dies_after_asking_about_a_text_of_unknown_fate(deployment: Deployment, fault: str) -> None:
    """What it was told is lost with it. The next one asks again."""
    shop = await due_cart(deployment)
    await deployment.faults(**{fault: 1, "lost_callback_rate": 1})
    await deployment.dispatch()
    assert await state_of(deployment, shop) == "unknown"
    await deployment.faults(lost_callback_rate=1)
    moment, kind = deployment.runtime.moment(), Found if fault == "error_after_rate" else Absent
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        doubtful = await reconcile.read_doubtful(conn, moment.vault, moment.now, 10)
    assert [type(fate) for _, fate in await reconcile.ask(deployment.carrier, doubtful)] == [kind]
    assert await state_of(deployment, shop) == "unknown"
    assert (await shop.merchant.credits())["reserved_credits"] > 0
    await deployment.jump(minutes=31)
    ends = {"error_before_rate": "not_accepted", "error_after_rate": "delivered"}
    assert await state_of(deployment, shop) == ends[fault]
    assert (await shop.merchant.credits())["reserved_credits"] == 0
    assert len(await deployment.phone_shows(RUTA)) == (fault == "error_after_rate")


async def test_a_receipt_that_comes_while_the_carrier_is_asked_is_believed(deployment: Deployment) -> None:
    """The carrier did not list the text yet, and its receipt was on its way."""
    shop = await due_cart(deployment)
    await deployment.faults(error_before_rate=1)
    await deployment.dispatch()
    deployment.clock.advance(minutes=31)
    moment = deployment.runtime.moment()
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        doubtful = await reconcile.read_doubtful(conn, moment.vault, moment.now, 10)
    fates = await reconcile.ask(deployment.carrier, doubtful)
    assert [type(fate) for _, fate in fates] == [Absent]
    await deployment.carrier_says(shop, "sent")
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        assert await reconcile.record_fates(conn, moment, fates, []) == []
    assert await state_of(deployment, shop) == "sent"
    assert (await shop.merchant.credits())["reserved_credits"] == 0


async def test_a_scheduler_dies_after_asking_about_a_text_without_a_receipt(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1)
    await deployment.work()
    now = deployment.clock.advance(hours=72)
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        silent = await reconcile.read_silent(conn, now, 10)
    assert [type(fate) for _, fate in await reconcile.look_up(deployment.carrier, silent)] == [Found]
    assert await state_of(deployment, shop) == "accepted"
    await deployment.jump(hours=1)
    assert await state_of(deployment, shop) == "delivered"
    assert deployment.sandbox.state.accepted == 1


async def test_a_text_that_must_wait_is_not_taken_along_with_one_that_is_due(deployment: Deployment) -> None:
    """The carrier asked for five minutes' peace about the first; the shop's second text comes due before."""
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=1)
    await leave_cart(shop, "cart-2", phone=phone(2))
    await deployment.jump(minutes=40)
    await deployment.faults(throttle_rate=1, retry_after_s=300)
    await deployment.jump(minutes=4)
    assert await state_of(deployment, shop) == "held"
    await deployment.faults()
    await deployment.jump(minutes=1)
    assert await state_of(deployment, shop, "cart-2") == "delivered"
    assert await state_of(deployment, shop) == "held"
    await deployment.jump(minutes=4)
    assert await state_of(deployment, shop) == "delivered"


async def test_a_receipt_that_has_lost_our_attempt_is_known_by_the_carrier_s_id(deployment: Deployment) -> None:
    """A proxy in between may cut an address's query off."""
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1)
    await deployment.work()
    (message,) = await deployment.messages(shop)
    for sid, state in (("SM" + "f" * 32, "accepted"), (message["carrier_sid"], "delivered")):
        form = {"MessageSid": sid, "MessageStatus": "delivered", "AccountSid": "AC" + "0" * 32}
        await deployment.world.carrier_posts(STATUS_PATH, form)
        await deployment.settle()
        assert await state_of(deployment, shop) == state


async def test_a_text_that_was_thrown_back_leaves_its_phone_to_others(deployment: Deployment) -> None:
    """The attempt that failed is over: nobody who looks at what was sent today counts it."""
    shop, other = await due_cart(deployment), await deployment.shop("Knygos")
    await deployment.faults(throttle_rate=1, retry_after_s=3600)
    await deployment.work()
    await deployment.faults()
    (held,) = await deployment.messages(shop)
    assert (held["state"], held["attempt_id"]) == ("held", None)
    await leave_cart(other)
    await deployment.jump(minutes=45)
    assert await state_of(deployment, other) == "delivered"
    await deployment.sound()
    await deployment.jump(minutes=15)
    assert (await deployment.trace(shop))[-1] == "caps drop recipient_cap"


@pytest.mark.parametrize("fault", ["error_after_rate", "lost_callback_rate"])
async def test_a_carrier_that_never_answers_about_one_text_is_asked_about_the_others(
    deployment: Deployment, fault: str
) -> None:
    """Whoever was asked about last waits longest, or a few texts would keep the credits of all others."""
    shop = await deployment.shop()
    for number in range(3):
        await leave_cart(shop, f"cart-{number}", phone=phone(number))
    await deployment.jump(minutes=30)
    await deployment.faults(**{"lost_callback_rate": 1, fault: 1})
    deployment.clock.advance(minutes=15)
    await deployment.dispatch()
    deployment.clock.advance(hours=73)
    asked = set()
    for _ in range(3):
        moment = deployment.runtime.moment()
        async with deployment.runtime.db.transaction(ENGINE) as conn:
            doubtful = await reconcile.read_doubtful(conn, moment.vault, moment.now, 1)
            asked |= {each.attempt_id for each in doubtful or await reconcile.read_silent(conn, moment.now, 1)}
        deployment.clock.advance(seconds=1)
    assert len(asked) == 3
