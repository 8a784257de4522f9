"""Every arrow of the message table, walked.

The database notes each move as it happens (`Deployment.walked`). A story says which arrows it walks, it is
held to that, and the last test holds all stories together against the table. Receipts are the sandbox's own
where a story is about what a carrier does, and posted by hand, signed, where their order is the point.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import pytest

from cartwake.kit.db import ENGINE
from cartwake.messages import reconcile
from cartwake.messages.model import ENDED, TRANSITIONS
from cartwake.worker import dispatch_once, record, work_off_events
from deployment import Deployment, due_cart
from ports import free_port
from world import RUTA, ShopClient

Story = Callable[..., Awaitable[None]]
PROMISED: set[str] = set()

UNTOUCHED = (200, 0)  # the shop's 100 credits and PRO's 100, none reserved
PAID = (198, 0)  # Lithuanian letters make two segments


def walks(*arrows: str) -> Callable[[Story], Story]:
    """The story walks these arrows, written "source > target"."""
    PROMISED.update(arrows)

    def hold_to_it(story: Story) -> Story:
        @functools.wraps(story)
        async def told(deployment: Deployment, **facts: object) -> None:
            await story(deployment, **facts)
            assert set(arrows) - {" > ".join(arrow) for arrow in await deployment.walked()} == set()

        return told

    return hold_to_it


def walks_each(*arrows: str) -> Callable[[Story], Story]:
    """The story is told once for each of these arrows, and walks it."""
    PROMISED.update(arrows)

    def hold_to_it(story: Story) -> Story:
        @functools.wraps(story)
        async def told(deployment: Deployment, arrow: str) -> None:
            await story(deployment, arrow)
            assert tuple(arrow.split(" > ")) in await deployment.walked()

        return pytest.mark.parametrize("arrow", arrows)(told)

    return hold_to_it


async def accepted_text(deployment: Deployment) -> ShopClient:
    """The carrier has taken Rūta's text, and its own receipts are lost."""
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1)
    await deployment.work()
    assert await state_of(deployment, shop) == "accepted"
    return shop


async def forget(deployment: Deployment) -> None:
    """The carrier keeps no text for ever."""
    await deployment.http.delete(f"{deployment.sandbox.url}/sandbox")


async def unknown_text(deployment: Deployment, **fault: float) -> ShopClient:
    """Nobody knows whether the carrier took Rūta's text."""
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1, **fault)
    await deployment.work()
    assert await state_of(deployment, shop) == "unknown"
    assert await credits(shop) == (198, 2), "its credits stay reserved"
    await deployment.faults(lost_callback_rate=1)
    return shop


async def state_of(deployment: Deployment, shop: ShopClient) -> str:
    (message,) = await deployment.messages(shop)
    state: str = message["state"]
    return state


async def credits(shop: ShopClient) -> tuple[int, int]:
    balance = await shop.merchant.credits()
    return balance["available_credits"], balance["reserved_credits"]


# --- before the carrier ------------------------------------------------------------------------------


@walks("scheduled > sending", "sending > accepted", "accepted > sent", "sent > delivered")
async def test_a_text_goes_out_is_sent_and_arrives(deployment: Deployment) -> None:
    shop = await accepted_text(deployment)
    await deployment.carrier_says(shop, "sent")
    assert await state_of(deployment, shop) == "sent"
    await deployment.carrier_says(shop, "delivered")
    assert await state_of(deployment, shop) == "delivered"
    assert await credits(shop) == PAID


@walks("scheduled > dropped")
async def test_a_cart_is_bought_in_time(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await shop.complete()
    await deployment.work()
    assert await credits(shop) == UNTOUCHED


@walks("scheduled > held", "held > held", "held > sending")
async def test_a_text_waits_for_a_payment_and_then_for_the_shopper(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await shop.pay(status="pending")
    await deployment.work()
    await shop.pay(status="failed")
    deployment.clock.advance(minutes=30)
    await shop.put_session(cart_value_minor=1)
    await deployment.jump(minutes=15)
    await deployment.jump(minutes=30)
    assert await state_of(deployment, shop) == "delivered"


@walks("held > dropped")
async def test_a_text_waits_for_a_payment_that_succeeds(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await shop.pay(status="pending")
    await deployment.work()
    await shop.complete()
    await deployment.jump(hours=1)
    assert await credits(shop) == UNTOUCHED


# --- what the carrier answers ------------------------------------------------------------------------


@walks("sending > rejected")
async def test_the_carrier_refuses_a_number_that_is_no_mobile(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.script(RUTA, outcome="rejected", error_code=21614)
    await deployment.work()
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("rejected", "carrier_recipient_permanent")
    assert message["error_code"] == 21614 and message["ended_at"] == deployment.clock.now()
    assert await credits(shop) == UNTOUCHED
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": True}, "it says nothing about consent"


@walks("sending > held", "held > sending")
async def test_the_carrier_is_busy_and_the_text_goes_once_when_it_is_not(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(throttle_rate=1, retry_after_s=30)
    await deployment.work()
    now = deployment.clock.now()
    assert (await deployment.trace(shop))[-1] == "carrier hold throttled"
    assert ((await deployment.held_until(shop)) - now).total_seconds() == 30
    assert await credits(shop) == UNTOUCHED, "nothing is reserved for a text that waits"
    await deployment.jump(seconds=30)
    assert ((await deployment.held_until(shop)) - now).total_seconds() == 90, "twice as long after the second time"
    await deployment.faults()
    await deployment.jump(seconds=60)
    await deployment.jump(hours=1)
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["attempts"]) == ("delivered", 3)
    assert deployment.sandbox.state.accepted == 1
    assert await credits(shop) == PAID


async def test_the_carrier_cannot_be_reached_and_the_text_goes_once_when_it_can(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    async with deployment.carrier_with(twilio_api_base=f"http://127.0.0.1:{free_port()}") as nobody:
        await deployment.work(carrier=nobody)
    assert (await deployment.trace(shop))[-1] == "carrier hold carrier_not_reached"
    await deployment.jump(minutes=1)
    assert await state_of(deployment, shop) == "delivered"
    assert deployment.sandbox.state.accepted == 1


@walks("sending > unknown")
async def test_the_carrier_answers_too_late_and_is_found_to_have_taken_the_text(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1, latency_ms=2000)
    async with deployment.carrier_with(twilio_timeout_s=0.4) as impatient:
        await deployment.work(carrier=impatient)
    assert await state_of(deployment, shop) == "unknown"
    assert await credits(shop) == (198, 2)
    await deployment.jump(minutes=1)
    (message,) = await deployment.messages(shop)
    assert message["state"] == "delivered" and message["accepted_at"] == deployment.clock.now()
    assert await credits(shop) == PAID
    assert deployment.sandbox.state.accepted == 1


@pytest.mark.parametrize("fault", ["error_after_rate", "drop_after_rate"])
@walks("sending > unknown")
async def test_the_carrier_breaks_after_taking_the_text(deployment: Deployment, fault: str) -> None:
    shop = await unknown_text(deployment, **{fault: 1})
    await deployment.jump(minutes=1)
    assert await state_of(deployment, shop) == "delivered"
    assert deployment.sandbox.state.accepted == 1


@walks("unknown > accepted", "accepted > delivered")
async def test_a_receipt_settles_what_nobody_knew(deployment: Deployment) -> None:
    shop = await unknown_text(deployment, error_after_rate=1)
    await deployment.carrier_says(shop, "queued")
    assert await state_of(deployment, shop) == "accepted"
    assert await credits(shop) == PAID
    await deployment.carrier_says(shop, "delivered")
    assert await credits(shop) == PAID


@walks("unknown > not_accepted")
async def test_the_carrier_breaks_before_taking_the_text_and_half_an_hour_makes_it_certain(
    deployment: Deployment,
) -> None:
    shop = await unknown_text(deployment, error_before_rate=1)
    await deployment.jump(minutes=29)
    assert await state_of(deployment, shop) == "unknown", "it may still be on its way in"
    await deployment.jump(minutes=1)
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("not_accepted", "absent_at_carrier")
    assert await credits(shop) == UNTOUCHED
    await deployment.jump(hours=2)
    assert deployment.sandbox.state.accepted == 0, "it is not sent again"
    assert await deployment.rows("SELECT * FROM recipient_texts") == [], "another shop may text her today"


@walks("unknown > unresolved")
async def test_a_carrier_that_cannot_be_asked_for_a_day(deployment: Deployment) -> None:
    shop = await unknown_text(deployment, error_after_rate=1)
    async with deployment.carrier_with(twilio_api_base=f"http://127.0.0.1:{free_port()}") as nobody:
        for minutes in (60, 22 * 60 + 59):
            deployment.clock.advance(minutes=minutes)
            await deployment.work(carrier=nobody)
            assert await state_of(deployment, shop) == "unknown"
        deployment.clock.advance(minutes=1)
        await deployment.work(carrier=nobody)
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("unresolved", "carrier_cannot_be_asked")
    assert await credits(shop) == UNTOUCHED

    await deployment.carrier_says(shop, "delivered")
    assert await state_of(deployment, shop) == "unresolved"
    assert await credits(shop) == UNTOUCHED, "a later receipt charges nothing"
    await deployment.carrier_says(shop, "unsubscribed")
    assert (await shop.session())["consent"]["suppressed"], "but her wish to be left alone counts"


# --- a worker that dies, and one that comes back --------------------------------------------------------


@walks("sending > unknown", "unknown > accepted")
async def test_a_worker_comes_back_after_its_lease_and_says_that_the_carrier_took_it(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1)
    results = await deployment.send((await dispatch_once(deployment.runtime)).attempts)
    await lapse(deployment, shop)
    await record(deployment.runtime, results)
    assert await state_of(deployment, shop) == "accepted"
    assert await credits(shop) == PAID


@pytest.mark.parametrize("answer", ["rejected", "throttled"])
@walks("unknown > not_accepted")
async def test_a_worker_comes_back_after_its_lease_and_says_that_the_carrier_did_not(
    deployment: Deployment, answer: str
) -> None:
    shop = await due_cart(deployment)
    if answer == "rejected":
        await deployment.script(RUTA, outcome="rejected", error_code=21612)
    else:
        await deployment.faults(throttle_rate=1)
    results = await deployment.send((await dispatch_once(deployment.runtime)).attempts)
    await lapse(deployment, shop)
    await record(deployment.runtime, results)
    assert await state_of(deployment, shop) == "not_accepted", "settled, and not sent again"
    assert await credits(shop) == UNTOUCHED


async def lapse(deployment: Deployment, shop: ShopClient) -> None:
    """The lease runs out; nobody has asked the carrier yet."""
    for seconds, state in ((69, "sending"), (1, "unknown")):
        now = deployment.clock.advance(seconds=seconds)
        async with deployment.runtime.db.transaction(ENGINE) as conn:
            await reconcile.lapse_leases(conn, now, 100)
        assert await state_of(deployment, shop) == state


async def test_a_worker_dies_between_claiming_and_sending(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await dispatch_once(deployment.runtime)
    await deployment.jump(minutes=2)
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("unknown", "lease_lapsed")
    await deployment.jump(minutes=28)
    assert await state_of(deployment, shop) == "not_accepted"
    assert await credits(shop) == UNTOUCHED


async def test_a_worker_dies_between_sending_and_recording(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(lost_callback_rate=1)
    await deployment.send((await dispatch_once(deployment.runtime)).attempts)
    await deployment.jump(minutes=2)
    assert await state_of(deployment, shop) == "delivered", "the carrier was asked"
    await deployment.jump(hours=2)
    assert deployment.sandbox.state.accepted == 1
    assert await credits(shop) == PAID


# --- receipts ----------------------------------------------------------------------------------------


async def test_the_receipts_come_before_the_worker_has_recorded_the_acceptance(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    results = await deployment.send((await dispatch_once(deployment.runtime)).attempts)
    await deployment.settle()
    (before,) = await deployment.messages(shop)
    assert before["state"] == "delivered" and before["accepted_at"] is not None
    assert await credits(shop) == PAID
    await record(deployment.runtime, results)
    assert await deployment.messages(shop) == [before], "there is nothing left to say"
    assert await credits(shop) == PAID


@walks("accepted > delivered")
async def test_late_and_repeated_receipts_change_nothing(deployment: Deployment) -> None:
    shop = await accepted_text(deployment)
    await deployment.carrier_says(shop, "delivered")
    before = await deployment.messages(shop)
    for news in ("sent", "delivered", "queued", "undelivered", "failed"):
        deployment.clock.advance(minutes=1)
        await deployment.carrier_says(shop, news)
        assert await deployment.messages(shop) == before
    assert await credits(shop) == PAID


async def test_a_carrier_that_says_everything_twice_and_the_last_first(deployment: Deployment) -> None:
    shop = await due_cart(deployment)
    await deployment.faults(duplicate_callback_rate=1, reordered_callback_rate=1)
    await deployment.work()
    (text,) = await deployment.phone_shows(RUTA)
    assert [each["status"] for each in text["callbacks"]] == ["delivered", "delivered", "sent", "sent"]
    assert await state_of(deployment, shop) == "delivered"
    assert await credits(shop) == PAID


@walks_each("accepted > undelivered", "accepted > failed", "sent > undelivered", "sent > failed")
async def test_a_text_that_does_not_arrive_is_refunded_once(deployment: Deployment, arrow: str) -> None:
    source, outcome = arrow.split(" > ")
    shop = await accepted_text(deployment)
    if source == "sent":
        await deployment.carrier_says(shop, "sent")
    for _ in range(2):
        await deployment.carrier_says(shop, outcome, ErrorCode="30003")
        (message,) = await deployment.messages(shop)
        assert (message["state"], message["error_code"]) == (outcome, 30003)
        assert await credits(shop) == UNTOUCHED


@pytest.mark.parametrize(("outcome", "after"), [("undelivered", UNTOUCHED), ("failed", PAID)])
async def test_the_operator_decides_which_outcomes_are_refunded(
    deployment: Deployment, outcome: str, after: tuple[int, int]
) -> None:
    shop = await accepted_text(deployment)
    await deployment.receipts(shop, outcome)
    async with deployment.another_process(refund_on=("undelivered",)) as strict:
        await work_off_events(strict, 100)
    assert await state_of(deployment, shop) == outcome
    assert await credits(shop) == after


@walks("accepted > delivery_unknown")
async def test_a_text_without_a_receipt_is_waited_for_three_days(deployment: Deployment) -> None:
    shop = await accepted_text(deployment)
    await forget(deployment)
    await deployment.jump(hours=71, minutes=50)
    assert await state_of(deployment, shop) == "accepted"
    await deployment.jump(hours=1)
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("delivery_unknown", "no_receipt")
    assert await credits(shop) == PAID, "not refunded"


@walks("sent > delivery_unknown")
async def test_a_text_that_was_sent_and_never_heard_of_again(deployment: Deployment) -> None:
    shop = await accepted_text(deployment)
    await deployment.carrier_says(shop, "sent")
    await forget(deployment)
    await deployment.jump(hours=73)
    assert await state_of(deployment, shop) == "delivery_unknown"


@walks_each("delivery_unknown > delivered", "delivery_unknown > undelivered", "delivery_unknown > failed")
async def test_the_carrier_still_says_what_became_of_it(deployment: Deployment, arrow: str) -> None:
    outcome = arrow.split(" > ")[1]
    shop = await accepted_text(deployment)
    await forget(deployment)
    await deployment.jump(hours=73)
    await deployment.carrier_says(shop, "sent")
    assert await state_of(deployment, shop) == "delivery_unknown"
    await deployment.carrier_says(shop, outcome)
    assert await state_of(deployment, shop) == outcome
    assert await credits(shop) == (PAID if outcome == "delivered" else UNTOUCHED)


# --- the table ---------------------------------------------------------------------------------------


def test_every_arrow_of_the_table_is_walked_by_a_story() -> None:
    table = {f"{source} > {target}" for source, targets in TRANSITIONS.items() for target in targets}
    assert table == PROMISED


def test_what_has_ended_has_no_way_on() -> None:
    assert {state for state in ENDED if TRANSITIONS[state]} == {"delivery_unknown"}, "which may still be told otherwise"
