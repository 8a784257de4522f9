"""The cart, the shop and the text: gates 1, 2 and 7, each as a cart that passes and carts that do not.

What decided is read from the cart's trace, as a merchant would read it.
"""

from __future__ import annotations

from datetime import timedelta

import psycopg

from deployment import Deployment, leave_cart
from world import AINO, JONAS, RUTA

# Rūta Kazlauskaitė shops from Vilnius; Jonas Weber from Berlin; Camille Martin from Lyon; Emily Carter from Newark.
CAMILLE, EMILY = "+33612345678", "+12015550123"

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"

# --- 1. the cart -------------------------------------------------------------------------------------


async def test_ruta_leaves_her_cart_and_nothing_stands_in_the_way(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    assert await deployment.trace(shop) == [SCHEDULED]
    await deployment.jump(minutes=15)
    assert await deployment.trace(shop) == [SCHEDULED, SENT, ACCEPTED]
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_ruta_buys_at_the_last_moment(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=44)
    await shop.complete()
    await deployment.jump(minutes=1)
    assert await deployment.trace(shop) == [SCHEDULED, "cart drop completed"]
    assert await deployment.phone_shows(RUTA) == []


async def test_a_cart_is_texted_until_it_is_96_hours_old_and_not_after(deployment: Deployment) -> None:
    young, old = await deployment.shop("Young"), await deployment.shop("Old")
    await leave_cart(old)
    await deployment.jump(minutes=10)
    await leave_cart(young, phone=AINO)
    await deployment.jump(minutes=30)
    await deployment.world.operator.call("PUT", "/v1/kill-switch")
    await deployment.jump(hours=95, minutes=20)  # 96 hours after the one was left, 95:50 after the other
    await deployment.world.operator.call("DELETE", "/v1/kill-switch")
    await deployment.work()
    assert await deployment.trace(old) == [SCHEDULED, "cart drop stale"]
    assert await deployment.trace(young) == [SCHEDULED, SENT, ACCEPTED]
    assert (await old.session())["state"] == "expired"


async def test_a_bank_link_in_flight_holds_the_text_and_its_failure_lets_it_go(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=40)
    await shop.pay(status="pending")
    await deployment.jump(minutes=5)
    assert (await deployment.trace(shop))[1:] == ["cart hold payment_pending"]

    await deployment.jump(minutes=5)
    await shop.pay(status="failed")
    failed_at = deployment.clock.now()
    await deployment.pass_time(minutes=44)
    assert await deployment.phone_shows(RUTA) == [], "the payment was activity: 45 minutes begin anew"
    await deployment.pass_time(minutes=1)
    (text,) = await deployment.phone_shows(RUTA)
    assert text["created_at"] == (failed_at + timedelta(minutes=45)).isoformat()


async def test_a_payment_that_fails_at_once_does_not_delay_the_text_until_it_would_have_timed_out(
    deployment: Deployment,
) -> None:
    shop = await deployment.shop(payment_timeout_s=7 * 86_400)
    await leave_cart(shop)
    await deployment.jump(minutes=44)
    await shop.pay(status="pending")
    await deployment.jump(minutes=1)
    await shop.pay(status="failed")
    await deployment.pass_time(minutes=45)
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_a_payment_that_never_settles_stops_counting_after_an_hour(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=44)
    await shop.pay(status="pending")
    await deployment.pass_time(minutes=59)
    assert await deployment.phone_shows(RUTA) == []
    assert (await shop.session())["state"] == "payment_pending"
    await deployment.pass_time(minutes=2)
    assert (await deployment.trace(shop))[-2:] == [SENT, ACCEPTED]
    await deployment.jump(minutes=5)
    assert (await shop.session())["state"] == "abandoned"


async def test_a_cart_that_changes_while_it_is_being_paid_is_not_abandoned(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=10)
    await shop.pay(status="pending")
    await deployment.jump(minutes=1)
    await shop.put_session(cart_value_minor=6990)
    for minutes in (31, 15):
        await deployment.jump(minutes=minutes)
    assert (await shop.session())["state"] == "payment_pending"
    assert await deployment.trace(shop) == []


async def test_a_payment_that_goes_through_is_an_order_like_any_other(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=44)
    await shop.pay(status="pending")
    await deployment.jump(minutes=1)
    await shop.complete()
    await deployment.jump(hours=2)
    assert await deployment.trace(shop) == [SCHEDULED, "cart hold payment_pending", "cart drop completed"]
    assert (await shop.session())["state"] == "completed"


async def test_what_is_bought_or_being_paid_does_not_expire(deployment: Deployment) -> None:
    shop = await deployment.shop(payment_timeout_s=7 * 86_400)
    for external_id, number in (("bought", RUTA), ("being paid", AINO), ("left", JONAS)):
        await shop.put_session(external_id, phone=number)
    await shop.complete("bought")
    await shop.pay("being paid")
    await deployment.jump(hours=97)
    states = {cart: (await shop.session(cart))["state"] for cart in ("bought", "being paid", "left")}
    assert states == {"bought": "completed", "being paid": "payment_pending", "left": "expired"}


async def test_a_payment_for_an_old_cart_makes_it_young_again(deployment: Deployment) -> None:
    shop = await deployment.shop(stale_after_s=3600)
    await leave_cart(shop)
    await deployment.jump(minutes=44)
    await shop.pay(status="pending")
    await deployment.jump(minutes=20)  # 64 minutes after the cart was left, 20 after its shopper was last seen
    assert (await deployment.trace(shop))[1:] == ["cart hold payment_pending"]
    await shop.pay(status="failed")
    await deployment.jump(minutes=45)
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_a_shopper_who_comes_back_and_leaves_again_is_texted_the_full_delay_later(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=40)
    await shop.put_session(cart_value_minor=7500)
    back_at = deployment.clock.now()
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "cart hold active_again"]
    assert await deployment.held_until(shop) == back_at + timedelta(minutes=45)
    await deployment.jump(minutes=40)
    assert len(await deployment.phone_shows(RUTA)) == 1


# --- 2. the shop -------------------------------------------------------------------------------------


async def test_the_merchant_switches_texts_off_mid_cycle(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=40)
    await shop.configure(enabled=False)
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "shop drop sms_disabled"]


async def test_the_merchant_goes_back_to_the_free_plan(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=40)
    await deployment.change_plan(shop.merchant, "FREE")
    await deployment.jump(minutes=5)
    assert await deployment.trace(shop) == [SCHEDULED, "shop drop plan"]
    assert (await shop.merchant.credits())["available_credits"] == 200, "credits that are there stay there"


async def test_a_name_as_sender_reaches_germany_and_not_america(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="LinoNamai")
    await leave_cart(shop, "berlin", phone=JONAS)
    await leave_cart(shop, "newark", phone=EMILY)
    await deployment.jump(minutes=45)
    assert (await deployment.trace(shop, "berlin"))[-1] == ACCEPTED
    assert (await deployment.trace(shop, "newark"))[-1] == "shop drop no_lawful_sender"
    (text,) = await deployment.phone_shows(JONAS)
    assert text["from"] == "LinoNamai"
    assert "/o/" in text["body"], "a name cannot be answered, so the text has a link to opt out"


async def test_a_number_that_can_be_answered_goes_before_a_name(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="LinoNamai")
    await deployment.add_sender(shop, "+37061000099")
    await leave_cart(shop, phone=AINO, locale="en")
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(AINO)
    assert text["from"] == "+37061000099"


async def test_a_french_mobile_number_texts_germany_and_not_france(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="+33611111111")
    await leave_cart(shop, "berlin", phone=JONAS)
    await leave_cart(shop, "lyon", phone=CAMILLE, country="FR")
    await deployment.jump(minutes=45)
    assert (await deployment.trace(shop, "lyon"))[-1] == "shop drop no_lawful_sender"
    assert (await deployment.trace(shop, "berlin"))[-1] == ACCEPTED

    await deployment.add_sender(shop, "Maison")
    await leave_cart(shop, "lyon-2", phone=CAMILLE, country="FR")
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(CAMILLE)
    assert text["from"] == "Maison", "of two senders the lawful one"


async def test_a_shop_without_a_number_texts_nobody(deployment: Deployment) -> None:
    shop = await deployment.shop(sender=None)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, "shop drop no_lawful_sender"]


async def test_a_number_that_is_held_texts_nobody_and_still_hears_a_stop(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="+37061000099")
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    with psycopg.connect(deployment.database_url) as owner:
        owner.execute("UPDATE senders SET state = 'held'")
    await deployment.jump(minutes=15)
    assert await deployment.trace(shop) == [SCHEDULED, "shop drop no_lawful_sender"]
    await deployment.reply(RUTA, "STOP", to="+37061000099")
    assert (await shop.session())["consent"]["suppressed"] is True


async def test_the_operator_stops_one_shop_and_its_texts_wait(deployment: Deployment) -> None:
    noisy, quiet = await deployment.shop("Noisy"), await deployment.shop("Quiet")
    switch = f"/v1/organizations/{noisy.merchant.organization_id}/shops/{noisy.shop_id}/kill-switch"
    await leave_cart(noisy)
    await leave_cart(quiet, phone=JONAS)
    await deployment.world.operator.call("PUT", switch)
    await deployment.jump(minutes=50)
    assert await deployment.phone_shows(RUTA) == []
    assert len(await deployment.phone_shows(JONAS)) == 1, "no other shop is stopped"
    assert (await noisy.session())["message"]["state"] == "scheduled"
    assert (await noisy.call("GET", "/v1/sms-config"))["paused_at"] is not None

    await deployment.world.operator.call("DELETE", switch)
    await deployment.work()
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_the_operator_stops_everything_and_it_all_waits(deployment: Deployment) -> None:
    shops = {RUTA: await deployment.shop("One"), JONAS: await deployment.shop("Other")}
    for number, shop in shops.items():
        await leave_cart(shop, phone=number)
    await deployment.world.operator.call("PUT", "/v1/kill-switch")
    await deployment.jump(hours=2)
    assert deployment.sandbox.state.accepted == 0
    assert [(await shop.session())["message"]["state"] for shop in shops.values()] == ["scheduled"] * 2

    await deployment.world.operator.call("DELETE", "/v1/kill-switch")
    await deployment.work()
    assert [len(await deployment.phone_shows(number)) for number in shops] == [1, 1]


# --- 7. the text -------------------------------------------------------------------------------------


async def test_a_shop_whose_name_cannot_be_seen_cannot_say_who_writes(deployment: Deployment) -> None:
    shop = await deployment.shop("\u200b\u2060")
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, "text drop empty-shop-name"]
    assert (await shop.merchant.credits())["available_credits"] == 200, "what is not sent is not paid for"


async def test_a_shop_with_an_endless_name_is_named_in_40_characters(deployment: Deployment) -> None:
    shop = await deployment.shop("Namai " * 30)
    await leave_cart(shop, locale="en")
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(RUTA)
    assert text["body"].startswith("Namai Namai Namai Namai Namai Namai Nama: we saved your cart")


async def test_the_text_speaks_the_shopper_s_language_else_the_shop_s(deployment: Deployment) -> None:
    shop = await deployment.shop(locale="de")
    await leave_cart(shop, "in-french", phone=RUTA, locale="fr-CA")
    await leave_cart(shop, "in-german", phone=JONAS, locale="ja")
    await deployment.jump(minutes=45)
    (french,), (german,) = await deployment.phone_shows(RUTA), await deployment.phone_shows(JONAS)
    assert "votre panier vous attend" in french["body"]
    assert "Ihr Warenkorb ist noch da" in german["body"]
