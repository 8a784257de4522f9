"""Consent over HTTP: what gives it, what takes it back, and what does neither."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, rows
from cartwake.kit.phones import hash_phone
from world import AINO, RUTA, TICKED, UNTICKED, ShopClient, World, cart

PATH = "/v1/checkout-sessions/cart-1"


async def events_of(world: World) -> list[tuple[str, str]]:
    """What happened to consents, in order: action and channel."""
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await rows(conn, "SELECT action, channel FROM consent_events ORDER BY at, event_id")
    return [(each["action"], each["channel"]) for each in found]


async def state_of(world: World, shop: ShopClient, phone: str) -> str | None:
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await rows(
            conn,
            "SELECT state FROM consent_states WHERE shop_id = %s AND phone_hash = %s",
            [shop.shop_id, hash_phone(world.runtime.vault, phone)],
        )
    return found[0]["state"] if found else None


@pytest.mark.parametrize(
    ("phone", "slug"),
    [
        (None, "consent-without-phone"),
        ("", "consent-without-phone"),
        ("   ", "consent-without-phone"),
        ("+3706", "invalid-phone"),
        ("call me", "invalid-phone"),
        ("+37052123456", "invalid-phone"),
        ("6" * 100, "invalid-phone"),
    ],
)
async def test_consent_needs_a_phone_that_can_be_texted(world: World, phone: str | None, slug: str) -> None:
    shop = await world.shop()
    for consent in (TICKED, {"granted": True}):
        answer = await shop.api("PUT", PATH, cart(phone=phone, consent=consent))
        assert answer.status_code == 400
        assert answer.json()["type"] == f"/problems/{slug}"
        assert [error["field"] for error in answer.json()["errors"]] == ["phone"]
    assert (await shop.api("GET", PATH)).status_code == 404, "nothing was written"


async def test_consent_needs_its_wording(world: World) -> None:
    shop = await world.shop()
    answer = await shop.api("PUT", PATH, cart(consent={"granted": True}))
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/consent-without-wording"


async def test_a_ticked_box_is_recorded_once_with_its_proof(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    view = await shop.put_session(consent=TICKED)
    assert view["consent"] == {"granted": True, "suppressed": False}
    for _ in range(2):
        clock.advance(minutes=1)
        await shop.put_session(consent=TICKED)
    assert await events_of(world) == [("granted", "checkbox")]
    async with world.runtime.db.transaction(ENGINE) as conn:
        (proof,) = await rows(conn, "SELECT phone_hash, evidence_sealed FROM consent_evidence")
    vault = world.runtime.vault
    assert proof["phone_hash"] == hash_phone(vault, RUTA)
    evidence = json.loads(vault.open(proof["evidence_sealed"], "evidence"))
    assert evidence.pop("ip_hash") == vault.hash("203.0.113.9", "ip").hex()
    assert evidence.pop("phone") == RUTA
    assert evidence == {name: value for name, value in TICKED.items() if name not in ("granted", "ip")}


async def test_the_same_box_sent_twice_at_once_is_recorded_once(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    news = cart(consent=TICKED, occurred_at=clock.now())
    answers = await asyncio.gather(*(shop.api("PUT", PATH, news) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert await events_of(world) == [("granted", "checkbox")]


async def test_another_phone_has_no_consent_until_its_own_box_is_ticked(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    clock.advance(minutes=1)
    assert (await shop.put_session(phone=AINO))["consent"]["granted"] is False
    clock.advance(minutes=1)
    assert (await shop.put_session(phone=AINO, consent=TICKED))["consent"]["granted"] is True
    assert await events_of(world) == [("granted", "checkbox")] * 2
    clock.advance(minutes=1)
    assert (await shop.put_session(phone=RUTA))["consent"]["granted"] is False, "the box was Aino's"


async def test_unticking_takes_consent_back(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    for _ in range(2):
        clock.advance(minutes=1)
        assert (await shop.put_session(consent=UNTICKED))["consent"]["granted"] is False
    assert await events_of(world) == [("granted", "checkbox"), ("withdrawn", "checkbox")]
    assert await state_of(world, shop, RUTA) == "withdrawn"


async def test_unticking_with_another_phone_takes_back_the_one_that_was_given(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    clock.advance(minutes=1)
    await shop.put_session(phone=AINO, consent=UNTICKED)
    assert await state_of(world, shop, RUTA) == "withdrawn"
    assert await state_of(world, shop, AINO) is None


async def test_a_box_that_was_never_ticked_takes_nothing_back(world: World) -> None:
    shop = await world.shop()
    await shop.put_session("cart-1", consent=TICKED)
    await shop.put_session("cart-2", consent=UNTICKED)
    assert await state_of(world, shop, RUTA) == "granted"
    assert (await shop.session("cart-1"))["consent"]["granted"] is True
    assert (await shop.session("cart-2"))["consent"]["granted"] is False, "the box was ticked in another cart"


@pytest.mark.parametrize("age", [timedelta(seconds=1), timedelta(hours=5)])
async def test_old_news_cannot_give_consent_and_can_take_it_back(
    world: World, clock: ManualClock, age: timedelta
) -> None:
    shop = await world.shop()
    old = clock.now() - age
    await shop.put_session()
    assert (await shop.put_session(consent=TICKED, occurred_at=old))["consent"]["granted"] is False
    assert await events_of(world) == []
    clock.advance(minutes=1)
    await shop.put_session(consent=TICKED)
    view = await shop.put_session(consent=UNTICKED, occurred_at=old, cart_value_minor=1)
    assert view["consent"]["granted"] is False and view["cart_value_minor"] == 5990


async def test_after_the_order_consent_can_only_be_taken_back(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session("cart-1")
    await shop.put_session("cart-2", consent=TICKED)
    await shop.complete("cart-1")
    await shop.complete("cart-2")
    clock.advance(minutes=1)
    await shop.put_session("cart-1", consent=TICKED)
    await shop.put_session("cart-2", consent=UNTICKED)
    assert await events_of(world) == [("granted", "checkbox"), ("withdrawn", "checkbox")]


async def test_a_withdrawal_by_api_holds_against_repeats_but_not_against_a_new_tick(
    world: World, clock: ManualClock
) -> None:
    shop = await world.shop()
    news: dict[str, Any] = cart(consent=TICKED, occurred_at=clock.now())
    await shop.call("PUT", PATH, news)
    clock.advance(minutes=1)
    taken = await shop.call("POST", "/v1/consent-withdrawals", {"phone": "0612 34567"})
    assert taken["phone"] == "+370······67" and taken["granted"] is False
    assert (await shop.session())["consent"]["granted"] is False
    assert (await shop.call("PUT", PATH, news))["consent"]["granted"] is False, "the storefront sent it again"
    clock.advance(minutes=1)
    assert (await shop.put_session(consent=TICKED))["consent"]["granted"] is True
    assert [action for action, _ in await events_of(world)] == ["granted", "withdrawn", "granted"]


async def test_a_withdrawal_is_for_one_shop_and_its_number_may_be_unknown(world: World) -> None:
    lino, knygos = await world.shop("Lino Namai"), await world.shop("Knygos")
    await lino.put_session(consent=TICKED)
    await knygos.put_session(consent=TICKED)
    await knygos.call("POST", "/v1/consent-withdrawals", {"phone": RUTA})
    await knygos.call("POST", "/v1/consent-withdrawals", {"phone": AINO})
    assert await state_of(world, lino, RUTA) == "granted"
    assert await state_of(world, knygos, RUTA) == "withdrawn"
    answer = await knygos.api("POST", "/v1/consent-withdrawals", {"phone": "+3706"})
    assert answer.status_code == 400 and answer.json()["type"] == "/problems/invalid-phone"


async def test_no_phone_is_stored_in_plain_text(world: World) -> None:
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    async with world.runtime.db.transaction(ENGINE) as conn:
        for table in ("checkout_sessions", "consent_states", "consent_events", "consent_evidence"):
            text = str(await rows(conn, f"SELECT t::text FROM {table} t"))
            assert "61234567" not in text and "203.0.113.9" not in text and "3631323334353637" not in text
