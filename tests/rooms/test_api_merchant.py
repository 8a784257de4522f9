"""What merchants and shop developers look at: credits, settings, texts, previews, tokens."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from cartwake.carts.links import RecoveryClaim, sign_recovery_token
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE
from cartwake.messages.schedule import scan
from world import AINO, TICKED, ShopClient, World


async def schedule_text(world: World, shop: ShopClient, clock: ManualClock, external_id: str = "cart-1") -> str:
    """Rūta leaves a cart, and her text is scheduled; its id."""
    await shop.put_session(external_id, consent=TICKED)
    clock.advance(minutes=31)
    async with world.runtime.db.transaction(ENGINE) as conn:
        await scan(conn, world.runtime.moment(), 100)
    message_id: str = (await shop.session(external_id))["message"]["message_id"]
    return message_id


async def test_credits_and_the_warning_that_they_run_low(world: World) -> None:
    merchant = await world.merchant(credits=21)
    assert await merchant.credits() == {"available_credits": 21, "reserved_credits": 0, "low": False}
    shop = await merchant.shop()
    assert (await merchant.credits())["low"] is False
    await merchant.add_credits(-1)
    assert (await merchant.credits())["low"] is True
    await shop.configure(low_credits_at=5)
    assert (await merchant.credits())["low"] is False


async def test_the_ledger_is_read_in_pages(world: World) -> None:
    merchant = await world.merchant(credits=0)
    for credits in (5, 6, 7):
        await merchant.add_credits(credits)
    page = await merchant.call("GET", "/v1/credits/ledger?limit=2")
    assert [(line["credits"], line["balance_after"]) for line in page["data"]] == [(7, 18), (6, 11)]
    assert page["data"][0]["entry_type"] == "ADJUSTMENT" and page["data"][0]["note"] == "for a test"
    rest = await merchant.call("GET", f"/v1/credits/ledger?limit=2&before={page['next']}")
    assert [line["credits"] for line in rest["data"]] == [5] and rest["next"] is None
    whole = await merchant.call("GET", "/v1/credits/ledger?limit=3")
    assert len(whole["data"]) == 3 and whole["next"] is None


async def test_settings_change_one_by_one(world: World) -> None:
    shop = await world.shop(enabled=False)
    before = await shop.call("GET", "/v1/sms-config")
    after = await shop.configure(window_closes="18:30", cycle_cap=50)
    assert after == before | {"window_closes": "18:30", "cycle_cap": 50}
    assert await shop.call("GET", "/v1/sms-config") == after
    assert await shop.configure() == after


@pytest.mark.parametrize(
    ("settings", "slug"),
    [
        ({"window_opens": "19:00"}, "invalid-send-window"),
        ({"window_opens": "18:00", "window_closes": "11:00"}, "invalid-send-window"),
        ({"window_closes": "23:00"}, "invalid-send-window"),
        ({"text_delay_s": 1799}, "text-before-abandonment"),
        ({"idle_s": 2701}, "text-before-abandonment"),
    ],
)
async def test_settings_must_not_contradict_each_other_or_the_law(
    world: World, settings: dict[str, object], slug: str
) -> None:
    shop = await world.shop()
    before = await shop.call("GET", "/v1/sms-config")
    answer = await shop.api("PUT", "/v1/sms-config", settings)
    assert answer.status_code == 400 and answer.json()["type"] == f"/problems/{slug}"
    assert answer.json()["errors"][0]["field"]
    assert await shop.call("GET", "/v1/sms-config") == before


async def test_texts_are_listed_newest_first_and_by_state(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    ids = [await schedule_text(world, shop, clock, f"cart-{number}") for number in range(3)]
    page = await shop.call("GET", "/v1/messages?limit=2")
    assert [each["message_id"] for each in page["data"]] == [ids[2], ids[1]]
    rest = await shop.call("GET", f"/v1/messages?limit=2&before={page['next']}")
    assert [each["external_id"] for each in rest["data"]] == ["cart-0"] and rest["next"] is None
    assert len((await shop.call("GET", "/v1/messages?state=scheduled"))["data"]) == 3
    assert (await shop.call("GET", "/v1/messages?state=delivered"))["data"] == []
    sibling = await shop.merchant.shop()
    assert (await sibling.call("GET", "/v1/messages"))["data"] == []
    assert (await sibling.api("GET", f"/v1/messages/{ids[0]}")).status_code == 404
    assert (await shop.api("GET", f"/v1/messages/{uuid.uuid4()}")).status_code == 404


async def test_a_text_tells_why(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    message_id = await schedule_text(world, shop, clock)
    story = await shop.call("GET", f"/v1/messages/{message_id}")
    assert story["state"] == "scheduled" and story["due_at"] == "2026-11-24T09:00:00Z"
    assert [(line["gate"], line["outcome"]) for line in story["decisions"]] == [("schedule", "schedule")]
    assert (await shop.session())["message"] == {name: story[name] for name in story if name != "decisions"}


async def test_a_recovery_token_is_verified_before_the_order(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    message_id = await schedule_text(world, shop, clock)
    async with world.runtime.db.transaction(ENGINE) as conn:
        cursor = await conn.execute("SELECT session_id FROM sms_messages")
        session_id = (await cursor.fetchall())[0]["session_id"]
    claim = RecoveryClaim(uuid.UUID(message_id), session_id)
    token = sign_recovery_token(world.runtime.vault, claim, clock.now() + timedelta(hours=1))
    path = "/v1/recovery-tokens/verification"
    assert await shop.call("POST", path, {"token": token}) == {"external_id": "cart-1", "message_id": message_id}
    other = await world.shop()
    clock.advance(minutes=59)
    for caller, wrong in ((other, token), (shop, token[:-1] + "A"), (shop, token[1:]), (shop, ""), (shop, "ąž" * 9)):
        answer = await caller.api("POST", path, {"token": wrong})
        assert answer.status_code == 400 and answer.json()["type"] == "/problems/bad-token", wrong
    clock.advance(minutes=1)
    assert (await shop.api("POST", path, {"token": token})).status_code == 400


async def test_previews_and_lists_leave_no_trace(world: World) -> None:
    shop = await world.shop()
    await shop.put_session(phone=AINO)
    await shop.call("POST", "/v1/previews", {"text": "{shop} {link} {opt_out}"})
    assert (await shop.call("GET", "/v1/messages")) == {"data": [], "next": None}
