"""Checkout sessions over HTTP: upserts that may come twice or out of order, payments, orders."""

from __future__ import annotations

from datetime import timedelta

from cartwake.kit.clock import ManualClock
from world import AINO, RUTA, UNTICKED, World, cart, plain

PATH = "/v1/checkout-sessions/cart-1"


async def test_the_first_news_makes_a_session(world: World) -> None:
    shop = await world.shop()
    answer = await shop.api("PUT", PATH, cart())
    assert answer.status_code == 201
    view = answer.json()
    assert view["state"] == "open"
    assert view["phone"] == "+370······67" and view["phone_country"] == "LT"
    assert view["last_activity_at"] == "2026-11-24T08:15:00Z"
    assert view["consent"] == {"granted": False, "suppressed": False}
    assert view["has_checkout_url"] is True and "shop.example" not in answer.text and RUTA not in answer.text


async def test_repeating_it_changes_nothing(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    news = cart(occurred_at=clock.now())
    first = (await shop.api("PUT", PATH, news)).json()
    again = await shop.api("PUT", PATH, news)
    assert again.status_code == 200 and again.json() == first
    clock.advance(minutes=3)
    later = (await shop.api("PUT", PATH, news)).json()
    assert later["last_activity_at"] == first["last_activity_at"]


async def test_what_is_absent_or_null_stays(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session(province="VL", time_zone="Europe/Vilnius")
    clock.advance(minutes=1)
    body = {"cart_value_minor": 100, "phone": None, "province": None, "checkout_url": None}
    view = await shop.call("PUT", PATH, body)
    assert (view["cart_value_minor"], view["currency"], view["province"]) == (100, "EUR", "VL")
    assert view["phone"] and view["has_checkout_url"] and view["time_zone"] == "Europe/Vilnius"
    assert view["last_activity_at"] == "2026-11-24T08:16:00Z"


async def test_older_news_changes_nothing(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    now = clock.now()
    await shop.put_session(cart_value_minor=200, occurred_at=now)
    view = await shop.put_session(cart_value_minor=100, phone=AINO, occurred_at=now - timedelta(seconds=1))
    assert view["cart_value_minor"] == 200 and view["phone"] == "+370······67"


async def test_times_may_have_any_offset_and_are_answered_in_utc(world: World) -> None:
    shop = await world.shop()
    view = await shop.put_session(occurred_at="2026-11-24T10:15:00.123456+02:00")
    assert view["last_activity_at"] == "2026-11-24T08:15:00.123456Z"


async def test_a_national_number_is_read_in_the_country_of_the_address(world: World, clock: ManualClock) -> None:
    shop = await world.shop(country="LT")
    assert (await shop.put_session("a", phone="041 234 5678", country="FI"))["phone_country"] == "FI"
    assert (await shop.put_session("b", phone="0612 34567", country=None))["phone_country"] == "LT"
    clock.advance(minutes=1)
    await shop.put_session("c", phone=None, country="FI")
    clock.advance(minutes=1)
    assert (await shop.put_session("c", phone="041 234 5678", country=None))["phone_country"] == "FI"


async def test_a_phone_that_cannot_be_texted_is_left_out_without_consent(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    for number, phone in enumerate(("+3706", "call me", "+37052123456", "  ")):
        view = await shop.put_session(f"cart-{number}", phone=phone)
        assert view["phone"] is None
        assert view["phone_problem"] == ("invalid-phone" if phone.strip() else None)
    await shop.put_session("cart-9")
    clock.advance(minutes=1)
    view = await shop.put_session("cart-9", phone="+3706", consent=UNTICKED)
    assert view["phone"] == "+370······67" and view["phone_problem"] == "invalid-phone"


async def test_a_payment_under_way_and_one_that_failed(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session()
    clock.advance(minutes=1)
    pending = await shop.pay(status="pending")
    assert pending["state"] == "payment_pending" and pending["payment_until"] == "2026-11-24T09:16:00Z"
    assert await shop.pay(status="pending") == pending
    failed = await shop.pay(status="failed")
    assert failed["state"] == "open" and failed["payment_until"] is None
    assert await shop.pay(status="failed") == failed


async def test_a_second_payment_counts_as_long_as_the_first(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session()
    began_at = clock.now()
    await shop.pay(status="pending")
    clock.advance(minutes=50)
    second = await shop.pay(status="pending")
    assert second["payment_until"] == "2026-11-24T10:05:00Z"
    assert await shop.pay(status="pending", occurred_at=began_at) == second, "the first again"
    first_failed = await shop.pay(status="failed", occurred_at=began_at + timedelta(minutes=49))
    assert first_failed == second, "late news of the first ends nothing"
    clock.advance(minutes=2)
    await shop.put_session()
    failed = await shop.pay(status="failed", occurred_at=clock.now() - timedelta(minutes=1))
    assert (failed["state"], failed["last_activity_at"]) == ("open", "2026-11-24T09:07:00Z")


async def test_an_order_closes_the_cart_and_the_first_one_stands(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    await shop.put_session()
    order = await shop.complete(order_id="A", recovery_token="forged", completed_at=clock.now())
    assert order == {
        "external_id": "cart-1",
        "state": "completed",
        "order_id": "A",
        "value_minor": 5990,
        "currency": "EUR",
        "completed_at": "2026-11-24T08:15:00Z",
        "recovered": False,
        "message_id": None,
        "attribution": None,
    }
    clock.advance(minutes=1)
    assert await shop.complete(order_id="B", value_minor=1) == order
    view = await shop.put_session(cart_value_minor=1)
    assert view["state"] == "completed" and view["cart_value_minor"] == 5990
    refused = await shop.api("PUT", f"{PATH}/payment", {"status": "pending"})
    assert refused.status_code == 409 and refused.json()["type"] == "/problems/conflict"


async def test_an_unknown_cart_is_not_there(world: World) -> None:
    shop = await world.shop()
    order = plain({"order_id": "A", "value_minor": 1, "currency": "EUR"})
    for method, path, body in (
        ("GET", PATH, None),
        ("PUT", f"{PATH}/payment", {"status": "pending"}),
        ("PUT", f"{PATH}/completion", order),
    ):
        answer = await shop.api(method, path, body)
        assert answer.status_code == 404 and answer.json()["type"] == "/problems/not-known"


async def test_an_external_id_may_be_anything_without_a_slash(world: World) -> None:
    shop = await world.shop()
    for external_id in ("ŽŪ 100%", "a?b#c", "..", "gid:Checkout.7"):
        quoted = "".join(f"%{byte:02X}" for byte in external_id.encode())
        view = await shop.call("PUT", f"/v1/checkout-sessions/{quoted}", cart())
        assert view["external_id"] == external_id


async def test_the_whole_story_has_decisions_and_a_message(world: World) -> None:
    shop = await world.shop()
    await shop.put_session()
    story = await shop.session()
    assert story["decisions"] == [] and story["message"] is None
