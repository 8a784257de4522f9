"""The main job as stories: an abandoned cart becomes a text, a tap and an order."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deployment import Deployment
from world import AINO, JONAS, RUTA, TICKED, ShopClient

LINK = re.compile(r"http://\S+/r/\S+")
OPT_OUT_LINK = re.compile(r"http://\S+/o/\S+")


def link_in(text: dict[str, Any], pattern: re.Pattern[str] = LINK) -> str:
    found = pattern.search(text["body"])
    assert found, text["body"]
    return found.group()


async def leave_cart(shop: ShopClient, external_id: str = "cart-1", **news: Any) -> None:
    """Somebody ticks the box, fills the cart and goes away."""
    await shop.put_session(external_id, consent=TICKED, **news)


async def test_ruta_leaves_a_cart_is_texted_taps_and_buys(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai", credits=10)
    await leave_cart(shop)

    await deployment.pass_time(minutes=44)
    assert await deployment.phone_shows(RUTA) == [], "45 minutes have not passed"
    await deployment.pass_time(minutes=6)
    (text,) = await deployment.phone_shows(RUTA)
    assert text["status"] == "delivered"
    assert text["body"].startswith("Lino Namai")
    assert int(text["num_segments"]) == 2, "Lithuanian letters force UCS-2"

    tap = await deployment.tap(link_in(text))
    assert tap.status_code == 302
    query = parse_qs(urlsplit(tap.headers["location"]).query)
    assert query["cart"] == ["1"] and query["step"] == ["cart_recovery_sms"]

    order = await shop.complete(recovery_token=query["cartwake_token"][0])
    assert order["recovered"] is True
    assert order["attribution"] == "token"
    credits = await shop.merchant.credits()
    assert (credits["available_credits"], credits["reserved_credits"]) == (110 - 2, 0), "10, and PRO's 100 a month"
    session = await shop.session()
    assert [line["outcome"] for line in session["decisions"]] == ["schedule", "send", "send"]
    assert session["message"]["state"] == "delivered"


async def test_the_article_s_timing_email_first_then_the_text(deployment: Deployment) -> None:
    shop = await deployment.shop()
    left_at = deployment.clock.now()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    session = await shop.session()
    assert session["abandoned_at"].startswith(left_at.strftime("%Y-%m-%dT%H:%M"))
    (text,) = await deployment.phone_shows(RUTA)
    assert text["created_at"] >= (left_at.replace(minute=left_at.minute)).isoformat()


async def test_jonas_comes_back_before_the_text_and_buys(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.pass_time(minutes=40)
    await shop.complete()
    await deployment.pass_time(minutes=60)
    assert await deployment.phone_shows(RUTA) == []
    session = await shop.session()
    assert session["state"] == "completed"
    assert session["message"]["state"] == "dropped" and session["message"]["reason"] == "completed"
    assert (await shop.merchant.credits())["reserved_credits"] == 0


async def test_later_activity_slides_the_text(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.pass_time(minutes=40)
    await shop.put_session(cart_value_minor=7000)
    await deployment.pass_time(minutes=40)
    assert await deployment.phone_shows(RUTA) == []
    await deployment.pass_time(minutes=10)
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_a_tap_without_the_token_still_counts_within_the_window(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    await deployment.tap(link_in(text))
    await deployment.pass_time(hours=1)
    assert (await shop.complete())["attribution"] == "click"


async def test_an_order_long_after_the_tap_is_not_ours(deployment: Deployment) -> None:
    shop = await deployment.shop(attribution_window_s=3600)
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    tapped = await deployment.tap(link_in(text))
    token = parse_qs(urlsplit(tapped.headers["location"]).query)["cartwake_token"][0]
    deployment.clock.advance(hours=1)
    assert (await shop.complete(recovery_token=token))["attribution"] is None, "the token has expired too"


async def test_a_tap_after_the_order_did_not_bring_it(deployment: Deployment) -> None:
    """The storefront tells about both orders an hour later. Aino had tapped before hers too."""
    shop = await deployment.shop()
    await leave_cart(shop)
    await leave_cart(shop, "cart-2", phone=AINO)
    await deployment.outlast_a_cart()
    (to_ruta,), (to_aino,) = await deployment.phone_shows(RUTA), await deployment.phone_shows(AINO)
    await deployment.tap(link_in(to_aino))
    ordered_at = deployment.clock.now()
    deployment.clock.advance(hours=1)
    for text in (to_ruta, to_aino):
        await deployment.tap(link_in(text))
    assert (await shop.complete(completed_at=ordered_at))["attribution"] is None
    assert (await shop.complete("cart-2", completed_at=ordered_at))["attribution"] == "click"


async def test_an_order_without_a_tap_is_not_ours(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    order = await shop.complete()
    assert order["recovered"] is False and order["attribution"] is None


async def test_a_token_of_another_cart_attributes_nothing(deployment: Deployment) -> None:
    """Neither another cart of the shop, nor one of another shop, was brought back by that text."""
    shop, other = await deployment.shop(), await deployment.shop("Knygos")
    await leave_cart(shop)
    await leave_cart(shop, "cart-2", phone=AINO)
    await leave_cart(other, phone=JONAS)
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    token = parse_qs(urlsplit((await deployment.tap(link_in(text))).headers["location"]).query)["cartwake_token"][0]
    for order in (await shop.complete("cart-2", recovery_token=token), await other.complete(recovery_token=token)):
        assert (order["recovered"], order["attribution"]) == (False, None)
    assert (await shop.complete(recovery_token=token))["attribution"] == "token"


async def test_one_cart_one_text_however_often_it_is_abandoned(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    await deployment.jump(hours=24)  # the phone's own cap would no longer stand in the way
    await shop.put_session(cart_value_minor=100)
    await deployment.pass_time(hours=2)
    assert (await shop.session())["state"] == "abandoned"
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_two_organizations_never_see_each_other(deployment: Deployment) -> None:
    linen, books = await deployment.shop("Lino Namai"), await deployment.shop("Knygos")
    await leave_cart(linen)
    await deployment.outlast_a_cart()
    assert len((await linen.call("GET", "/v1/messages"))["data"]) == 1
    assert (await books.call("GET", "/v1/messages"))["data"] == []
    message_id = (await linen.call("GET", "/v1/messages"))["data"][0]["message_id"]
    assert (await books.api("GET", f"/v1/messages/{message_id}")).status_code == 404
    assert (await books.api("GET", "/v1/checkout-sessions/cart-1")).status_code == 404


async def test_sibling_shops_share_credits_and_nothing_else(deployment: Deployment) -> None:
    merchant = await deployment.merchant(credits=3, plan="PRO")
    linen, wool = await merchant.shop("Linas"), await merchant.shop("Vilna")
    await leave_cart(linen)
    await deployment.outlast_a_cart()
    assert (await wool.call("GET", "/v1/messages"))["data"] == []
    assert (await merchant.credits())["available_credits"] == 103 - 2
