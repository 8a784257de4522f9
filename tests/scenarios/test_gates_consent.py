"""Gate 3: a text needs consent that is live, for the phone that would be texted, when the message is claimed."""

from __future__ import annotations

import re

import pytest

from deployment import Deployment, leave_cart
from world import AINO, JONAS, RUTA, TICKED, UNTICKED, ShopClient

OUR_NUMBER = "+37061000099"
OPT_OUT_LINK = re.compile(r"http://\S+/o/\S+")

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"


async def scheduled_cart(deployment: Deployment, **shop: str) -> ShopClient:
    """Rūta left her cart 40 minutes ago; in five her text is due."""
    made = await deployment.shop(**{"sender": OUR_NUMBER} | shop)
    await leave_cart(made)
    await deployment.jump(minutes=40)
    return made


async def press(deployment: Deployment, link: str, action: str) -> None:
    """The shopper opens the page behind an opt-out link and presses a button."""
    assert (await deployment.tap(link)).status_code == 200
    assert (await deployment.http.post(link, data={"action": action})).status_code == 200


async def test_consent_that_nobody_took_back_lets_the_text_go(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment)
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": False}
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, SENT, ACCEPTED]


async def test_ruta_tells_the_shop_that_she_does_not_want_texts(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment)
    await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA, "actor": "support desk"})
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "consent drop consent_withdrawn"]


async def test_ruta_unticks_the_box(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment)
    await shop.put_session(consent=UNTICKED)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [
        SCHEDULED,
        "schedule refuse no_consent",
        "consent drop no_consent_for_this_phone",
    ]


@pytest.mark.parametrize("words", ["STOP", "Nebesiųskit man žinučių!", "Please leave me alone"])
async def test_ruta_writes_stop_in_her_own_words(deployment: Deployment, words: str) -> None:
    shop = await scheduled_cart(deployment)
    await deployment.reply(RUTA, words, to=OUR_NUMBER)
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "consent drop suppressed"]
    assert await deployment.phone_shows(RUTA) == []


@pytest.mark.parametrize("words", ["When will it be delivered?", "HELP", "Thank you, I will be back"])
async def test_ruta_writes_something_else(deployment: Deployment, words: str) -> None:
    shop = await scheduled_cart(deployment)
    await deployment.reply(RUTA, words, to=OUR_NUMBER)
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, SENT, ACCEPTED]


async def test_a_stop_to_one_merchant_is_no_stop_to_another(deployment: Deployment) -> None:
    linen = await scheduled_cart(deployment)
    await deployment.shop("Knygos", sender="+37061000098")
    await deployment.reply(RUTA, "STOP", to="+37061000098")
    await deployment.jump(minutes=5)
    assert await deployment.trace(linen) == [SCHEDULED, SENT, ACCEPTED]


async def test_a_ticked_box_does_not_lift_a_stop_and_start_does(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment)
    await deployment.reply(RUTA, "STOP", to=OUR_NUMBER)
    await leave_cart(shop, "cart-2")
    assert (await shop.session("cart-2"))["consent"] == {"granted": True, "suppressed": True}
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop, "cart-2") == ["schedule refuse no_consent"]

    await deployment.reply(RUTA, "START", to=OUR_NUMBER)
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop, "cart-2"))[1:] == [SCHEDULED, SENT, ACCEPTED]


async def test_the_opt_out_link_stops_this_shop(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment, sender="LinoNamai")
    await deployment.jump(minutes=5)
    (text,) = await deployment.phone_shows(RUTA)
    link = OPT_OUT_LINK.search(text["body"])
    assert link
    await press(deployment, link.group(), "stop")
    await deployment.jump(hours=24)
    await leave_cart(shop, "cart-2")
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop, "cart-2") == ["schedule refuse no_consent"]
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_not_my_number_said_to_one_merchant_stops_every_merchant(deployment: Deployment) -> None:
    books = await deployment.shop("Knygos", sender="Knygos")
    await leave_cart(books)
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(RUTA)
    await deployment.jump(hours=24)

    linen, wool = await scheduled_cart(deployment), await deployment.shop("Vilna")
    link = OPT_OUT_LINK.search(text["body"])
    assert link
    await press(deployment, link.group(), "not_my_number")
    await leave_cart(wool)
    await deployment.jump(minutes=45)
    assert await deployment.trace(linen) == [SCHEDULED, "consent drop suppressed"]
    assert await deployment.trace(wool) == [SCHEDULED, "consent drop suppressed"], "asked for after it was said"
    assert "Knygos" not in (await linen.api("GET", "/v1/checkout-sessions/cart-1")).text
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_start_does_not_lift_not_my_number(deployment: Deployment) -> None:
    books = await deployment.shop("Knygos", sender="Knygos")
    await leave_cart(books)
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(RUTA)
    link = OPT_OUT_LINK.search(text["body"])
    assert link
    await deployment.jump(hours=24)
    shop = await scheduled_cart(deployment)
    await press(deployment, link.group(), "not_my_number")
    for words in ("STOP", "START"):
        await deployment.reply(RUTA, words, to=OUR_NUMBER)
    assert (await shop.session())["consent"]["suppressed"] is True
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "consent drop suppressed"]


async def test_the_phone_was_changed_after_the_box_was_ticked(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, phone=RUTA)
    await shop.put_session(phone=AINO)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == ["schedule refuse no_consent"]
    assert (await shop.session())["consent"]["granted"] is False


async def test_the_phone_was_changed_between_scheduling_and_sending(deployment: Deployment) -> None:
    shop = await deployment.shop(text_delay_s=3600)
    await leave_cart(shop, phone=RUTA)
    await deployment.jump(minutes=30)
    await shop.put_session(phone=JONAS)
    await deployment.jump(minutes=30)
    await deployment.jump(minutes=30)
    assert await deployment.trace(shop) == [
        SCHEDULED,
        "schedule refuse no_consent",
        "cart hold active_again",
        "consent drop no_consent_for_this_phone",
    ]
    assert deployment.sandbox.state.accepted == 0


async def test_the_phone_was_changed_and_changed_back(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, phone=RUTA)
    await shop.put_session(phone=AINO)
    await shop.put_session(phone=RUTA)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, SENT, ACCEPTED]
    assert await deployment.phone_shows(AINO) == []
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_consent_counts_for_the_shop_that_asked_for_it(deployment: Deployment) -> None:
    merchant = await deployment.merchant()
    linen, wool = await merchant.shop("Linas"), await merchant.shop("Vilna")
    await leave_cart(linen)
    await wool.put_session(phone=RUTA)
    await deployment.jump(minutes=45)
    assert await deployment.trace(wool) == ["schedule refuse no_consent"]


async def test_a_withdrawal_outlives_the_checkout_it_was_said_in(deployment: Deployment) -> None:
    shop = await scheduled_cart(deployment)
    await shop.put_session("cart-2", consent=TICKED)
    await shop.put_session("cart-2", consent=UNTICKED)
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "consent drop consent_withdrawn"], "one phone, one consent"
