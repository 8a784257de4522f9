"""The article's four layers of consent, one at a time.

In each story three of the layers would let the text go, and one alone stands between the shopper and it. At the
end the other three are taken out altogether; without any of the four the same stories end with a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from phonenumbers import PhoneNumberType

from cartwake.invariants import broken_invariants
from cartwake.kit import phones
from cartwake.kit.db import ENGINE
from deployment import Deployment, leave_cart
from world import RUTA, TICKED, UNTICKED, Json, ShopClient

OUR_NUMBER = "+37061000099"


async def shop_with_a_number(deployment: Deployment) -> ShopClient:
    return await deployment.shop(sender=OUR_NUMBER)


async def consent_of(shop: ShopClient, external_id: str = "cart-1") -> Json:
    consent: Json = (await shop.session(external_id))["consent"]
    return consent


async def test_without_any_layer_in_the_way_the_text_is_delivered(deployment: Deployment) -> None:
    shop = await shop_with_a_number(deployment)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(RUTA)
    assert text["status"] == "delivered"


# --- layer 1: the box in the browser -----------------------------------------------------------------


@pytest.mark.parametrize("box", [None, UNTICKED], ids=["no box was sent", "an unticked box"])
async def test_the_box_alone(deployment: Deployment, box: Json | None) -> None:
    """Her phone is good and agreed to texts before, no STOP anywhere: but for this cart Rūta did not tick the box."""
    shop = await shop_with_a_number(deployment)
    await leave_cart(shop, "cart-of-last-week")
    await shop.complete("cart-of-last-week")
    await shop.put_session(phone=RUTA, consent=box)
    await deployment.jump(minutes=45)
    await deployment.jump(hours=3)
    assert deployment.sandbox.state.stopped == set()
    (known,) = await deployment.rows("SELECT state, suppressed_at FROM consent_states")
    assert known == {"state": "granted", "suppressed_at": None}
    assert (await shop.session())["refusal"] == "no_consent"
    assert await deployment.phone_shows(RUTA) == []


# --- layer 2: the API, before any payment ------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (None, "consent-without-phone"),
        ("   ", "consent-without-phone"),
        ("12", "invalid-phone"),
        ("+370 5 212 3456", "invalid-phone"),  # a landline in Vilnius
        ("+37061234567890", "invalid-phone"),
        ("call me", "invalid-phone"),
    ],
)
async def test_the_api_alone(deployment: Deployment, number: str | None, problem: str) -> None:
    """The box is ticked, no STOP anywhere, nothing withdrawn: but there is no phone that could be texted."""
    shop = await shop_with_a_number(deployment)
    news = {"country": "LT", "checkout_url": "https://shop.example/cart/1", "consent": TICKED}
    answer = await shop.api("PUT", "/v1/checkout-sessions/cart-1", news | ({"phone": number} if number else {}))
    assert answer.status_code == 400
    assert answer.json()["type"] == f"/problems/{problem}"
    assert (await shop.api("GET", "/v1/checkout-sessions/cart-1")).status_code == 404, "nothing was taken"
    await deployment.jump(hours=3)
    assert await deployment.rows("SELECT * FROM consent_events") == []
    assert deployment.sandbox.state.accepted == 0


async def test_the_api_alone_refuses_consent_whose_wording_nobody_could_show(deployment: Deployment) -> None:
    shop = await shop_with_a_number(deployment)
    news = {"phone": RUTA, "checkout_url": "https://shop.example/cart/1", "consent": {"granted": True}}
    assert (await shop.api("PUT", "/v1/checkout-sessions/cart-1", news)).status_code == 400
    await deployment.jump(hours=3)
    assert await deployment.phone_shows(RUTA) == []


# --- layer 3: the carrier's STOP list ----------------------------------------------------------------


async def test_the_carrier_alone(deployment: Deployment) -> None:
    """The box is ticked, the phone is good, our database knows of nothing: but the carrier heard her STOP."""
    shop = await shop_with_a_number(deployment)
    await leave_cart(shop)
    deployment.sandbox.state.apply_keyword(OUR_NUMBER, RUTA, "STOP")  # and its webhook never reached us
    await deployment.jump(minutes=44)
    assert await consent_of(shop) == {"granted": True, "suppressed": False}
    await deployment.jump(minutes=1)
    assert (await deployment.trace(shop))[-2:] == ["carrier send all_gates_passed", "carrier drop carrier_opted_out"]
    assert await deployment.phone_shows(RUTA) == []
    assert (await shop.merchant.credits())["reserved_credits"] == 0

    # The refusal told us, so that from now on the fourth layer stands too.
    assert await consent_of(shop) == {"granted": False, "suppressed": True}
    await leave_cart(shop, "cart-2")
    await deployment.jump(hours=25)
    assert (await deployment.messages(shop, "cart-2")) == []


async def test_the_carrier_alone_reports_an_opt_out_with_a_receipt(deployment: Deployment) -> None:
    """As some carriers do, and as the article has it: the receipt of a text says `unsubscribed`."""
    shop = await shop_with_a_number(deployment)
    await deployment.script(RUTA, outcome="unsubscribed")
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await consent_of(shop) == {"granted": False, "suppressed": True}
    (event,) = await deployment.rows("SELECT action, channel FROM consent_events WHERE action <> 'granted'")
    assert event == {"action": "suppressed", "channel": "carrier"}


# --- layer 4: our own database -----------------------------------------------------------------------


async def test_our_database_alone_after_a_stop_that_the_carrier_does_not_understand(deployment: Deployment) -> None:
    """The box is ticked, the phone is good, the carrier blocks nothing: but she wrote to us in her own words."""
    shop = await shop_with_a_number(deployment)
    await leave_cart(shop)
    await deployment.reply(RUTA, "Prašau daugiau nerašykite", to=OUR_NUMBER)
    assert deployment.sandbox.state.stopped == set()
    await deployment.jump(minutes=45)
    assert (await shop.session())["refusal"] == "no_consent"
    assert await deployment.phone_shows(RUTA) == []


async def test_our_database_alone_after_a_withdrawal(deployment: Deployment) -> None:
    shop = await shop_with_a_number(deployment)
    await leave_cart(shop)
    await deployment.jump(minutes=40)
    await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA})
    await deployment.jump(minutes=5)
    assert deployment.sandbox.state.stopped == set()
    assert (await deployment.trace(shop))[-1] == "consent drop consent_withdrawn"
    assert await deployment.phone_shows(RUTA) == []


async def test_our_database_alone_when_the_carrier_has_lifted_its_block(deployment: Deployment) -> None:
    """STOP at the carrier, a new box at the shop, and a carrier that lost its list: her STOP to us still stands."""
    shop = await shop_with_a_number(deployment)
    await deployment.reply(RUTA, "STOP", to=OUR_NUMBER)
    deployment.sandbox.state.stopped.clear()
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    await deployment.jump(hours=3)
    assert await deployment.phone_shows(RUTA) == []


async def test_when_consent_was_given_and_taken_back_can_be_shown(deployment: Deployment) -> None:
    shop = await shop_with_a_number(deployment)
    given_at = deployment.clock.now()
    await leave_cart(shop)
    taken_back_at = deployment.clock.advance(minutes=10)
    await deployment.reply(RUTA, "STOP", to=OUR_NUMBER)
    events = await deployment.rows("SELECT action, channel, at FROM consent_events ORDER BY at")
    assert [tuple(event.values()) for event in events] == [
        ("granted", "checkbox", given_at),
        ("suppressed", "inbound_text", taken_back_at),
    ]


# --- each with the other three taken out -------------------------------------------------------------

LANDLINE = "+37052123456"
# A database that heeds no no: whatever is said, every phone that it knows has agreed.
HEED_NOTHING = """
CREATE FUNCTION heed_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.state := 'granted';
  NEW.suppressed_at := NULL;
  NEW.suppression_reason := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER heed_nothing BEFORE INSERT OR UPDATE ON consent_states FOR EACH ROW EXECUTE FUNCTION heed_nothing();
"""
# What was done to the database, undone: the next test gets it, and no text may have gone out after a no.
HEED_AGAIN = """
DROP FUNCTION IF EXISTS heed_nothing CASCADE;
ALTER TABLE consent_events DISABLE TRIGGER USER;
ALTER TABLE consent_links DISABLE TRIGGER USER;
DELETE FROM consent_links;
DELETE FROM consent_chains;
DELETE FROM consent_unsealed;
DELETE FROM consent_evidence USING consent_events AS e
  WHERE consent_evidence.event_id = e.event_id AND e.action = 'suppressed';
DELETE FROM consent_events WHERE action = 'suppressed';
INSERT INTO consent_unsealed SELECT organization_id, shop_id, at, event_id FROM consent_events;
ALTER TABLE consent_links ENABLE TRIGGER USER;
ALTER TABLE consent_events ENABLE TRIGGER USER;
"""


class NobodyListed(set[tuple[str, str]]):
    """A carrier's STOP list that nobody gets onto."""

    def add(self, _entry: tuple[str, str]) -> None:
        pass


@contextmanager
def only(standing: str | None, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Json | None]:
    """Take out every layer but `standing`; what comes from a box that the shopper has not ticked."""
    if standing != "api":
        monkeypatch.setattr(phones, "TEXTABLE_TYPES", phones.TEXTABLE_TYPES | {PhoneNumberType.FIXED_LINE})
    if standing != "carrier":
        deployment.sandbox.state.stopped = NobodyListed()
    with psycopg.connect(deployment.database_url, autocommit=True) as owner:
        if standing != "database":
            owner.execute(HEED_NOTHING)
        yield None if standing == "box" else TICKED
        owner.execute(HEED_AGAIN)


async def nobody_ticks(deployment: Deployment, shop: ShopClient, box: Json | None) -> str:
    await leave_cart(shop, "cart-of-last-week")
    await shop.complete("cart-of-last-week")
    await shop.put_session(phone=RUTA, consent=box)
    return RUTA


async def a_landline_is_given(deployment: Deployment, shop: ShopClient, _box: Json | None) -> str:
    news = {"country": "LT", "checkout_url": "https://shop.example/cart/1", "phone": LANDLINE, "consent": TICKED}
    await shop.api("PUT", "/v1/checkout-sessions/cart-1", news)
    return LANDLINE


async def stop_is_said(deployment: Deployment, shop: ShopClient, _box: Json | None) -> str:
    await leave_cart(shop)
    await deployment.reply(RUTA, "STOP", to=OUR_NUMBER)
    return RUTA


STORIES = {"box": nobody_ticks, "api": a_landline_is_given, "carrier": stop_is_said, "database": stop_is_said}


@pytest.mark.parametrize("layer", STORIES)
@pytest.mark.parametrize("stands", [True, False], ids=["alone", "gone too"])
async def test_each_layer_with_the_other_three_taken_out(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, layer: str, stands: bool
) -> None:
    shop = await shop_with_a_number(deployment)
    with only(layer if stands else None, deployment, monkeypatch) as box:
        number = await STORIES[layer](deployment, shop, box)
        for minutes in (30, 15, 5):
            await deployment.jump(minutes=minutes)
        texts = [text["status"] for text in await deployment.phone_shows(number)]
        assert texts == ([] if stands else ["delivered"])
        if STORIES[layer] is stop_is_said and not stands:
            async with deployment.runtime.db.transaction(ENGINE) as conn:
                noticed = await broken_invariants(conn, deployment.clock.now())
            assert [broken.name for broken in noticed] == ["texted_with_consent"], "the last to notice"
