"""What the operator does over HTTP, and which carts are asked about again because of it."""

from __future__ import annotations

import uuid

from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, row
from cartwake.messages.schedule import scan
from world import TICKED, ShopClient, World


async def leave_cart(world: World, shop: ShopClient, clock: ManualClock) -> None:
    """Rūta ticks the box and goes; half an hour later the scan asks about her cart."""
    await shop.put_session(consent=TICKED)
    clock.advance(minutes=31)
    await scan_now(world)


async def scan_now(world: World) -> None:
    async with world.runtime.db.transaction(ENGINE) as conn:
        await scan(conn, world.runtime.moment(), 100)


async def test_an_organization_is_made_with_its_key(world: World) -> None:
    made = await world.operator.api("POST", "/v1/organizations", {"name": "Lino Namai", "plan": "ULTRA"})
    assert made.status_code == 201
    facts = made.json()
    assert facts.pop("api_key").startswith("cw_org_")
    path = f"/v1/organizations/{facts['organization_id']}"
    assert await world.operator.call("GET", path) == facts
    assert facts["plan"] == "ULTRA" and facts["created_at"] == "2026-11-24T08:15:00Z"


async def test_the_operator_sees_every_organization_and_its_shops(world: World) -> None:
    knygos = await world.merchant("Knygos", plan="FREE", credits=0)
    lino = await world.merchant("Lino Namai", credits=70)
    linas, vilna = await lino.shop("Linas"), await lino.shop("Vilna", enabled=False)
    base = f"/v1/organizations/{lino.organization_id}/shops"
    await world.operator.api("PUT", f"{base}/{linas.shop_id}/kill-switch")
    page = await world.operator.call("GET", "/v1/organizations")
    created_at = "2026-11-24T08:15:00Z"
    lino_row, knygos_row = page["data"]
    assert page["next"] is None
    assert lino_row == {
        "organization_id": str(lino.organization_id),
        "name": "Lino Namai",
        "plan": "PRO",
        "created_at": created_at,
        "available_credits": 70,
        "shops": 2,
        "paused_shops": 1,
    }
    assert (knygos_row["name"], knygos_row["available_credits"], knygos_row["shops"]) == ("Knygos", 0, 0)
    shops = (await world.operator.call("GET", base))["data"]
    assert [(shop["shop_id"], shop["enabled"], shop["paused_at"]) for shop in shops] == [
        (str(vilna.shop_id), False, None),
        (str(linas.shop_id), True, created_at),
    ]
    assert (await world.operator.call("GET", f"/v1/organizations/{knygos.organization_id}/shops"))["data"] == []


async def test_what_nobody_made_is_not_there(world: World) -> None:
    nobody = f"/v1/organizations/{uuid.uuid4()}"
    merchant = await world.merchant()
    shop = f"/v1/organizations/{merchant.organization_id}/shops/{uuid.uuid4()}"
    for method, path, body in (
        ("GET", nobody, None),
        ("GET", f"{nobody}/shops", None),
        ("PUT", f"{nobody}/plan", {"plan": "PRO"}),
        ("POST", f"{nobody}/shops", {"name": "x", "default_country": "LT", "default_locale": "lt"}),
        ("POST", f"{nobody}/credit-adjustments", {"credits": 1, "note": "x"}),
        ("PUT", f"{shop}/kill-switch", None),
        ("DELETE", f"{shop}/kill-switch", None),
        ("POST", f"{shop}/senders", {"address": "+37061000001"}),
    ):
        answer = await world.operator.api(method, path, body)
        assert answer.status_code == 404, (path, answer.text)


async def test_a_shop_is_made_with_its_keys_its_settings_and_its_queue(world: World) -> None:
    merchant = await world.merchant()
    body = {
        "name": "Lino Namai",
        "default_country": "LT",
        "default_locale": "lt",
        "sms_config": {"enabled": True, "window_opens": "11:00", "idle_s": 600},
    }
    made = await world.operator.call("POST", f"/v1/organizations/{merchant.organization_id}/shops", body)
    assert made["secret_key"].startswith("cw_shop_") and made["publishable_key"].startswith("cw_public_")
    settings = made["sms_config"]
    assert (settings["enabled"], settings["window_opens"], settings["window_closes"]) == (True, "11:00", "19:00")
    assert (settings["idle_s"], settings["text_delay_s"]) == (600, 2700)
    async with world.runtime.db.transaction(ENGINE) as conn:
        queue = await row(conn, "SELECT cycle_used FROM sms_shop_queues WHERE shop_id = %s", [made["shop_id"]])
    assert queue == {"cycle_used": 0}


async def test_a_shop_s_window_must_be_lawful(world: World) -> None:
    merchant = await world.merchant()
    body = {
        "name": "Toile",
        "default_country": "FR",
        "default_locale": "fr",
        "sms_config": {"window_opens": "00:00", "window_closes": "23:59"},
    }
    answer = await world.operator.api("POST", f"/v1/organizations/{merchant.organization_id}/shops", body)
    assert answer.status_code == 400 and answer.json()["type"] == "/problems/invalid-send-window"


async def test_a_better_plan_asks_again_about_carts(world: World, clock: ManualClock) -> None:
    shop = await world.shop(plan="FREE")
    await leave_cart(world, shop, clock)
    assert (await shop.session())["refusal"] == "plan"
    path = f"/v1/organizations/{shop.merchant.organization_id}/plan"
    assert (await world.operator.call("PUT", path, {"plan": "PRO"}))["plan"] == "PRO"
    await scan_now(world)
    story = await shop.session()
    assert story["refusal"] is None and story["message"]["state"] == "scheduled"
    assert [line["reason"] for line in story["decisions"]] == ["plan", "scheduled"]


async def test_credits_ask_again_about_carts(world: World, clock: ManualClock) -> None:
    shop = await world.shop(credits=0)
    await leave_cart(world, shop, clock)
    assert (await shop.session())["refusal"] == "insufficient_credits"
    await shop.merchant.add_credits(10)
    await scan_now(world)
    assert (await shop.session())["message"]["state"] == "scheduled"


async def test_switching_texts_on_asks_again_about_carts(world: World, clock: ManualClock) -> None:
    shop = await world.shop(enabled=False)
    await leave_cart(world, shop, clock)
    assert (await shop.session())["refusal"] == "sms_disabled"
    await shop.configure(enabled=True)
    await scan_now(world)
    assert (await shop.session())["message"]["state"] == "scheduled"


async def test_an_adjustment_with_a_reference_happens_once(world: World) -> None:
    merchant = await world.merchant(credits=0)
    path = f"/v1/organizations/{merchant.organization_id}/credit-adjustments"
    body = {"credits": 50, "reference": "ticket-7", "note": "goodwill"}
    for _ in range(2):
        answer = await world.operator.api("POST", path, body)
        assert answer.status_code == 201
        assert answer.json() == {"available_credits": 50, "reserved_credits": 0}
    taken = await world.operator.call("POST", path, {"credits": -20, "note": "mistake"})
    assert taken["available_credits"] == 30
    refused = await world.operator.api("POST", path, {"credits": -31, "note": "too much"})
    assert refused.status_code == 409 and refused.json()["type"] == "/problems/insufficient-credits"
    nothing = await world.operator.api("POST", path, {"credits": 0, "note": "nothing"})
    assert nothing.status_code == 400
    assert (await merchant.credits())["available_credits"] == 30


async def test_kill_switches_keep_their_first_time(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    one = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch"
    for path in ("/v1/kill-switch", one):
        thrown = await world.operator.call("PUT", path)
        clock.advance(minutes=1)
        assert await world.operator.call("PUT", path) == thrown
        assert thrown["paused_at"]
        if path == one:
            assert (await shop.call("GET", "/v1/sms-config"))["paused_at"] == thrown["paused_at"]
        for _ in range(2):
            assert await world.operator.call("DELETE", path) == {"paused_at": None}
    assert (await shop.call("GET", "/v1/sms-config"))["paused_at"] is None


async def test_senders(world: World) -> None:
    shop, other = await world.shop(sender=None), await world.shop(sender=None)
    path = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/senders"
    made = await world.operator.call("POST", path, {"address": "+37061000001"})
    assert (made["kind"], made["country"], made["segments_per_s"]) == ("long_code", "LT", 10.0)
    name = await world.operator.call("POST", path, {"address": "LinoNamai", "segments_per_s": 2.5})
    assert (name["kind"], name["country"], name["segments_per_s"]) == ("alphanumeric", None, 2.5)
    theirs = f"/v1/organizations/{other.merchant.organization_id}/shops/{other.shop_id}/senders"
    taken = await world.operator.api("POST", theirs, {"address": "+37061000001"})
    assert taken.status_code == 409 and taken.json()["type"] == "/problems/sender-in-use"
    assert (await world.operator.api("POST", theirs, {"address": "+370 (610) 00-001"})).status_code == 409, "the same"
    spaced = await world.operator.call("POST", theirs, {"address": "+370 610 00003 "})
    assert spaced["address"] == "+37061000003", "as the carrier tells to whom a STOP was sent"
    for wrong in ("+12", "+", "???", "a name too long"):
        answer = await world.operator.api("POST", path, {"address": wrong})
        assert answer.status_code == 400 and answer.json()["type"] == "/problems/invalid-sender"
    crossed = f"/v1/organizations/{other.merchant.organization_id}/shops/{shop.shop_id}/senders"
    assert (await world.operator.api("POST", crossed, {"address": "+37061000002"})).status_code == 404


async def test_a_stale_cart_is_not_asked_about_again(world: World, clock: ManualClock) -> None:
    shop = await world.shop(credits=0)
    await leave_cart(world, shop, clock)
    clock.advance(hours=96)
    await shop.merchant.add_credits(10)
    await scan_now(world)
    assert (await shop.session())["message"] is None
