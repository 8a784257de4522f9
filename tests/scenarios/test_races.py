"""Races: two workers, and shoppers who change their mind while a text is being claimed.

Where the order matters it is made, by holding one side's transaction open until the other waits for it. Where
it does not, both sides run at once, many times, and whatever happened must be one of the lawful stories.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from psycopg import sql

from cartwake.carts.completion import Order, complete
from cartwake.carts.sessions import begin_payment, lock_session
from cartwake.consent.events import withdraw
from cartwake.consent.model import Channel, ConsentChange
from cartwake.kit.db import ENGINE, Connection
from cartwake.kit.phones import hash_phone
from cartwake.messages.aside import set_aside
from cartwake.messages.dispatch import Claimed, claim_batch
from cartwake.messages.inbound import apply_inbound
from cartwake.messages.inbox import claim_events, finish_events, open_events
from cartwake.tenants.model import SmsConfig
from cartwake.tenants.scope import tenant_transaction
from cartwake.worker import dispatch_once, record, work_off_events
from deployment import Deployment, Json, due_cart, leave_cart, phone
from world import RUTA, UNTICKED, MerchantClient, ShopClient

OUR_NUMBER = "+37061000099"
GONE_OUT = {"sending", "accepted", "sent", "delivered"}


async def shops_of(merchant: MerchantClient, count: int) -> list[ShopClient]:
    """So many shops of one merchant, each with a sender of its own."""
    return [await merchant.shop(f"Shop {number}") for number in range(count)]


async def due_carts(deployment: Deployment, carts: list[tuple[ShopClient, str]]) -> list[str]:
    """At each shop the owner of that phone has left a cart, and all the texts are due. The carts' ids."""
    ids = [f"cart-of-{number[1:]}" for _, number in carts]
    for external_id, (shop, number) in zip(ids, carts, strict=True):
        await leave_cart(shop, external_id, phone=number)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    return ids


async def state_of(deployment: Deployment, shop: ShopClient, external_id: str) -> str:
    (message,) = await deployment.messages(shop, external_id)
    state: str = message["state"]
    return state


async def states(deployment: Deployment) -> Counter[str]:
    return Counter(found["state"] for found in await deployment.rows("SELECT state FROM sms_messages"))


async def texts_sent_twice(deployment: Deployment) -> list[Json]:
    answer = await deployment.http.get(f"{deployment.sandbox.url}/sandbox/counts", params={"at_least": 2})
    twice: list[Json] = answer.json()["texts"]
    return twice


# --- workers -----------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("shop_count", "texts_each"), [(6, 5), pytest.param(20, 10, marks=pytest.mark.slow)], ids=["30 texts", "200 texts"]
)
async def test_two_workers_send_the_texts_of_many_shops_once_each(
    deployment: Deployment, shop_count: int, texts_each: int
) -> None:
    count = shop_count * texts_each
    merchant = await deployment.merchant(credits=1000)
    shops = await shops_of(merchant, shop_count)
    await deployment.work()
    await due_carts(
        deployment, [(shop, phone(n * shop_count + i)) for i, shop in enumerate(shops) for n in range(texts_each)]
    )
    async with (
        deployment.another_process(dispatch_batch=count // 7) as one,
        deployment.another_process(dispatch_batch=count // 5) as two,
    ):
        await asyncio.gather(deployment.dispatch(one), deployment.dispatch(two))
    await deployment.settle()
    assert await states(deployment) == {"delivered": count}
    assert deployment.sandbox.state.accepted == count and await texts_sent_twice(deployment) == []
    assert (await merchant.credits())["available_credits"] == 1100 - 2 * count


@pytest.mark.thorough
async def test_two_workers_want_the_same_single_text(deployment: Deployment) -> None:
    shop = await deployment.shop()
    async with deployment.another_process() as second:
        for round_number in range(10):
            (cart,) = await due_carts(deployment, [(shop, phone(round_number))])
            claims = await asyncio.gather(dispatch_once(deployment.runtime), dispatch_once(second))
            assert sorted(len(claim.attempts) for claim in claims) == [0, 1]
            assert len(await deployment.trace(shop, cart)) == 2, "scheduled, and sent: it was decided about once"
            await deployment.send([attempt for claim in claims for attempt in claim.attempts])
            await deployment.settle()
    assert deployment.sandbox.state.accepted == 10 and await texts_sent_twice(deployment) == []


@pytest.mark.thorough
async def test_two_workers_and_two_merchants_want_to_text_one_phone(deployment: Deployment) -> None:
    linen, books = await deployment.shop("Linas"), await deployment.shop("Knygos")
    async with deployment.another_process(dispatch_batch=1) as one, deployment.another_process(dispatch_batch=1) as two:
        for round_number in range(10):
            (cart, _) = await due_carts(deployment, [(linen, phone(round_number)), (books, phone(round_number))])
            await asyncio.gather(deployment.dispatch(one), deployment.dispatch(two))
            await deployment.settle()
            ended = sorted([await state_of(deployment, linen, cart), await state_of(deployment, books, cart)])
            assert ended == ["delivered", "dropped"]
    assert deployment.sandbox.state.accepted == 10


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("texts", "small_shops"), [(60, 6), pytest.param(500, 50, marks=pytest.mark.slow)], ids=["60 texts", "500 texts"]
)
async def test_one_shop_with_many_texts_does_not_delay_those_with_one(
    deployment: Deployment, texts: int, small_shops: int
) -> None:
    merchant = await deployment.merchant(credits=2000)
    big, *small = await shops_of(merchant, 1 + small_shops)
    await deployment.add_sender(big, "+37069999999", segments_per_s=1000)
    await deployment.work()
    carts = [(big, phone(n)) for n in range(texts)] + [(shop, phone(texts + n)) for n, shop in enumerate(small)]
    await due_carts(deployment, carts)
    async with deployment.another_process(dispatch_batch=texts // 5) as worker:
        first = (await dispatch_once(worker)).attempts
    served = Counter(attempt.message.shop_id for attempt in first)
    assert all(served[shop.shop_id] == 1 for shop in small)
    assert 1 <= served[big.shop_id] <= 10, "a fair share of the batch, no more"
    await deployment.send(first)
    await deployment.settle()


async def test_shops_take_turns(deployment: Deployment) -> None:
    first, second = await shops_of(await deployment.merchant(), 2)
    await due_carts(
        deployment, [(shop, phone(2 * turn + at)) for at, shop in enumerate((first, second)) for turn in (0, 1)]
    )
    served = []
    async with deployment.another_process(dispatch_batch=1) as worker:
        for _ in range(4):
            deployment.clock.advance(seconds=1)
            (attempt,) = (await dispatch_once(worker)).attempts
            served.append(attempt.message.shop_id)
            await deployment.send([attempt])
    await deployment.settle()
    assert served == [first.shop_id, second.shop_id] * 2


# --- shoppers ----------------------------------------------------------------------------------------

Change = Callable[[ShopClient, str, str], Awaitable[Json]]


def withdraw_by_api(shop: ShopClient, _cart: str, number: str) -> Awaitable[Json]:
    return shop.call("POST", "/v1/consent-withdrawals", {"phone": number})


def untick(shop: ShopClient, cart: str, number: str) -> Awaitable[Json]:
    return shop.put_session(cart, phone=number, consent=UNTICKED)


def buy(shop: ShopClient, cart: str, _number: str) -> Awaitable[Json]:
    return shop.complete(cart)


def pay(shop: ShopClient, cart: str, _number: str) -> Awaitable[Json]:
    return shop.pay(cart)


@pytest.mark.parametrize(
    ("change", "kept_from", "rounds"),
    [
        (withdraw_by_api, {"dropped"}, 2),
        *(
            pytest.param(change, kept_from, 4, marks=pytest.mark.slow)
            for change, kept_from in (
                (withdraw_by_api, {"dropped"}),
                (untick, {"dropped", "held"}),
                (buy, {"dropped"}),
                (pay, {"held"}),
            )
        ),
    ],
)
async def test_whoever_commits_first_wins(
    deployment: Deployment, change: Change, kept_from: set[str], rounds: int
) -> None:
    """A change that was answered before its text was claimed keeps it from going out, in every interleaving."""
    shop = await deployment.shop(sender=None, credits=2000, cycle_cap=100)
    await deployment.add_sender(shop, OUR_NUMBER, segments_per_s=1000)
    seen: Counter[str] = Counter()

    async def change_their_minds(shoppers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        answers = []
        for cart, number in shoppers:
            await change(shop, cart, number)
            answers.append((cart, await state_of(deployment, shop, cart)))
        return answers

    async with deployment.another_process(dispatch_batch=6) as worker:
        await deployment.work()
        for round_number in range(rounds):
            phones = [phone(round_number * 100 + n) for n in range(24)]
            carts = await due_carts(deployment, [(shop, number) for number in phones])
            shoppers = list(zip(carts, phones, strict=True))
            queues = [change_their_minds(shoppers[first::4]) for first in range(4)]
            _, answered = await asyncio.gather(deployment.dispatch(worker), asyncio.gather(*queues))
            await deployment.settle()
            for cart, when_answered in itertools.chain(*answered):
                at_last = await state_of(deployment, shop, cart)
                seen[at_last] += 1
                assert at_last in kept_from or when_answered in GONE_OUT, f"{cart}: {when_answered}, then {at_last}"
    assert seen["delivered"] and seen.keys() & kept_from, f"the sides met in one order only: {seen}"


Write = Callable[[Connection, Deployment, ShopClient], Awaitable[object]]


async def write_withdrawal(conn: Connection, deployment: Deployment, shop: ShopClient) -> None:
    moment = deployment.runtime.moment()
    change = ConsentChange(shop.scope.organization_id, shop.scope.shop_id, hash_phone(moment.vault, RUTA))
    await withdraw(conn, moment, Channel.API, [change])


async def write_order(conn: Connection, deployment: Deployment, shop: ShopClient) -> None:
    moment = deployment.runtime.moment()
    session = await lock_session(conn, shop.scope, "cart-1")
    await complete(conn, moment, SmsConfig(), session, Order(completed_at=moment.now, order_id="1"))


async def write_payment(conn: Connection, deployment: Deployment, shop: ShopClient) -> None:
    moment = deployment.runtime.moment()
    session = await lock_session(conn, shop.scope, "cart-1")
    await begin_payment(conn, moment, SmsConfig(), session, moment.now)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("write", "ends"),
    [
        (write_withdrawal, "consent drop consent_withdrawn"),
        (write_order, "cart drop completed"),
        (write_payment, "cart hold payment_pending"),
    ],
)
async def test_a_change_that_is_being_written_when_the_worker_comes(
    deployment: Deployment, write: Write, ends: str
) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    async with tenant_transaction(deployment.runtime.db, shop.scope) as conn:
        await write(conn, deployment, shop)
        claim = asyncio.create_task(dispatch_once(deployment.runtime))
        await deployment.waits_for_a_lock_or_ends(claim)  # it waits for the change, or passes the cart over
    assert (await claim).attempts == []
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == ends
    assert await deployment.phone_shows(RUTA) == []


@pytest.mark.parametrize("change", [withdraw_by_api, untick, buy, pay])
async def test_a_change_that_comes_while_the_worker_claims_waits_for_it(deployment: Deployment, change: Change) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    runtime = deployment.runtime
    async with runtime.db.transaction(ENGINE) as conn:
        claimed = await claim_batch(conn, runtime.moment(), runtime.clock, runtime.settings)
        answer = asyncio.ensure_future(change(shop, "cart-1", RUTA))
        await deployment.waits_for_a_lock_or_ends(answer)
        assert not answer.done(), "answered, and the text would still have gone out"
    await answer
    assert len(claimed.attempts) == 1
    await deployment.send(claimed.attempts)
    await deployment.settle()
    assert await state_of(deployment, shop, "cart-1") == "delivered"


async def test_news_of_a_failed_payment_does_not_undo_the_order_that_is_being_written(deployment: Deployment) -> None:
    """The storefront tried twice, and tells both ends at once: the cart is an order, and stays one."""
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await shop.pay()
    async with tenant_transaction(deployment.runtime.db, shop.scope) as conn:
        await write_order(conn, deployment, shop)
        news = asyncio.ensure_future(shop.pay(status="failed"))
        await deployment.waits_for_a_lock_or_ends(news)
    await news
    assert (await shop.session())["state"] == "completed"
    deployment.clock.advance(hours=2)
    await deployment.work()
    assert await deployment.phone_shows(RUTA) == []


async def test_two_changes_of_a_shop_s_settings_do_not_undo_each_other(deployment: Deployment) -> None:
    """Or texts that the merchant has just switched off would be on again."""
    shop = await deployment.shop()
    async with await psycopg.AsyncConnection.connect(deployment.database_url) as blocker:
        await blocker.execute("SELECT FROM shop_sms_configs FOR UPDATE")
        changes = []
        for waiting, change in enumerate(({"enabled": False}, {"spread_s": 60}), 1):
            changes.append(asyncio.ensure_future(shop.call("PUT", "/v1/sms-config", change)))
            await deployment.waits_for_a_lock_or_ends(changes[-1], waiting)
        await blocker.rollback()
    await asyncio.gather(*changes)
    config = await shop.call("GET", "/v1/sms-config")
    assert (config["enabled"], config["spread_s"]) == (False, 60)


async def claim_while_recovery_ends_the_text(deployment: Deployment) -> asyncio.Task[Claimed]:
    """A claim that had begun when recovery after a restore, which asks no queue's row, ended its message."""
    async with await psycopg.AsyncConnection.connect(deployment.database_url) as other:
        await other.execute("SELECT FROM consent_states FOR UPDATE")
        claim = asyncio.create_task(dispatch_once(deployment.runtime))
        await deployment.waits_for_a_lock_or_ends(claim)
        await other.execute("UPDATE sms_messages SET state = 'dropped', reason = 'sent_before_restore'")
        await other.commit()
    return claim


async def test_a_message_that_ended_while_it_was_claimed_is_not_sent(deployment: Deployment) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    claim = await claim_while_recovery_ends_the_text(deployment)
    with pytest.raises(RuntimeError, match="moved on"):
        await claim
    assert (await deployment.messages(shop))[0]["reason"] == "sent_before_restore"
    assert (await shop.merchant.credits())["reserved_credits"] == 0
    await deployment.work()
    assert await deployment.phone_shows(RUTA) == []


@pytest.mark.parametrize("way", ["hold", "drop"])
async def test_a_message_that_ended_while_it_was_judged_stays_ended(deployment: Deployment, way: str) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await (shop.pay() if way == "hold" else shop.complete())
    claim = await claim_while_recovery_ends_the_text(deployment)
    assert [each.verdict.outcome for each in (await claim).decided] == [way]
    (message,) = await deployment.messages(shop)
    assert (message["state"], message["reason"]) == ("dropped", "sent_before_restore")


@pytest.mark.thorough
@pytest.mark.parametrize(("seconds", "sent"), [(30, 1), (31, 0)])
async def test_a_worker_that_dozes_off_does_not_send_what_it_claimed_too_long_ago(
    deployment: Deployment, seconds: int, sent: int
) -> None:
    """Consent was asked for at the claim; what has not begun half a minute later is asked about again."""
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    attempts = (await dispatch_once(deployment.runtime)).attempts
    deployment.clock.advance(seconds=seconds)
    await withdraw_by_api(shop, "cart-1", RUTA)
    await record(deployment.runtime, await deployment.send(attempts))
    await deployment.jump(minutes=1)
    assert len(await deployment.phone_shows(RUTA)) == sent
    assert (await deployment.trace(shop))[-1] == ("carrier send accepted" if sent else "consent drop consent_withdrawn")


# --- STOP and START ----------------------------------------------------------------------------------


async def write_to_us(deployment: Deployment, *bodies: str) -> None:
    """Rūta writes, and our web has stored it; no worker has looked yet."""
    for body in bodies:
        answer = await deployment.http.post(
            f"{deployment.sandbox.url}/sandbox/replies", json={"from": RUTA, "body": body, "to": OUR_NUMBER}
        )
        assert answer.json()["webhook"]["http_status"] == 200
        deployment.clock.advance(seconds=20)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("bodies", "ends"),
    [
        (("STOP", "START"), "carrier send accepted"),
        (("START", "STOP"), "consent drop suppressed"),
        (("STOP", "START", "Stop it!"), "consent drop suppressed"),
        (("STOP", "STOP", "START"), "carrier send accepted"),
    ],
)
async def test_stop_and_start_in_one_batch_the_last_word_counts(
    deployment: Deployment, bodies: tuple[str, ...], ends: str
) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await write_to_us(deployment, *bodies)
    assert await work_off_events(deployment.runtime, 100) == len(bodies)
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == ends


@pytest.mark.parametrize("before", [(), ("STOP",)], ids=["agreed", "stopped before"])
async def test_a_start_that_one_worker_is_slow_with_does_not_lift_a_later_stop(
    deployment: Deployment, before: tuple[str, ...]
) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await write_to_us(deployment, *before)
    await deployment.settle()
    await write_to_us(deployment, "START", "STOP")
    runtime = deployment.runtime
    async with runtime.db.transaction(ENGINE) as conn:
        start = open_events(runtime.vault, await claim_events(conn, 1))
        async with deployment.another_process() as quick:
            assert await work_off_events(quick, 100) == 1
        await finish_events(conn, runtime.moment(), await apply_inbound(conn, runtime.moment(), start))
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == "consent drop suppressed"


async def test_an_old_stop_that_one_worker_is_slow_with_does_not_make_a_later_one_older(deployment: Deployment) -> None:
    """STOP, START, STOP: the last is worked off first, and then the first, and then START."""
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await write_to_us(deployment, "STOP", "START", "STOP")
    runtime = deployment.runtime
    async with runtime.db.transaction(ENGINE) as slow:
        async with runtime.db.transaction(ENGINE) as slower:
            first = open_events(runtime.vault, await claim_events(slower, 1))
            start = open_events(runtime.vault, await claim_events(slow, 1))
            async with deployment.another_process() as quick:
                assert await work_off_events(quick, 100) == 1
            await finish_events(slower, runtime.moment(), await apply_inbound(slower, runtime.moment(), first))
        await finish_events(slow, runtime.moment(), await apply_inbound(slow, runtime.moment(), start))
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == "consent drop suppressed"


async def test_a_stop_that_one_worker_is_slow_with_still_counts_after_a_ticked_box(deployment: Deployment) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await write_to_us(deployment, "STOP")
    await leave_cart(shop, "cart-2")
    await deployment.settle()
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == "consent drop suppressed"
    assert (await shop.session("cart-2"))["consent"]["suppressed"] is True


# --- the database says no ----------------------------------------------------------------------------


async def test_a_deadlock_costs_a_moment_and_no_text(deployment: Deployment) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    url, phone_hash = deployment.database_url, hash_phone(deployment.runtime.vault, RUTA)
    with psycopg.connect(url) as stranger, psycopg.connect(url) as rival:
        quick = sql.SQL("ALTER ROLE cartwake_engine IN DATABASE {} SET deadlock_timeout = '20ms'")
        rival.execute(quick.format(sql.Identifier(rival.info.dbname)))
        rival.execute("SET deadlock_timeout = '1min'")  # so the worker is who finds out
        rival.commit()
        # Against the order that everybody keeps, the rival takes the balance first and the cart after it. The
        # stranger holds the worker up in between, with the cart in its hands.
        stranger.execute("INSERT INTO recipient_texts VALUES (%s, gen_random_uuid(), '2026-01-01')", [phone_hash])
        rival.execute("SELECT FROM org_sms_credit_balances FOR UPDATE")
        async with deployment.another_process() as worker:
            claim = asyncio.create_task(dispatch_once(worker))
            await deployment.waits_for_a_lock_or_ends(claim)
            take_cart = asyncio.create_task(
                asyncio.to_thread(rival.execute, "SELECT FROM checkout_sessions FOR UPDATE")
            )
            await deployment.waits_for_a_lock_or_ends(take_cart, waiting=2)
            stranger.rollback()
            await take_cart
            assert not claim.done(), "the worker gave way, and tries again"
            rival.rollback()
            attempts = (await claim).attempts
    assert len(attempts) == 1
    await deployment.send(attempts)
    await deployment.settle()
    assert await state_of(deployment, shop, "cart-1") == "delivered"
    assert deployment.sandbox.state.accepted == 1


async def test_an_event_that_is_set_aside_is_never_the_one_behind_it(deployment: Deployment) -> None:
    shop = await due_cart(deployment, sender=OUR_NUMBER)
    await write_to_us(deployment, "hello", "STOP")
    runtime = deployment.runtime
    async with runtime.db.transaction(ENGINE) as conn:
        (broken,) = await claim_events(conn, 1)  # another worker looks at it just now

        async def set_it_aside() -> None:
            async with runtime.db.transaction(ENGINE) as mine:
                await set_aside(mine, runtime.clock.now(), broken.event_id, ValueError())

        aside = asyncio.create_task(set_it_aside())
        await deployment.waits_for_a_lock_or_ends(aside)
    await aside
    assert await deployment.rows("SELECT event_id FROM carrier_events WHERE outcome = 'unreadable'") == [
        {"event_id": broken.event_id}
    ]
    await deployment.settle()
    await deployment.work()
    assert (await deployment.trace(shop))[-1] == "consent drop suppressed"
