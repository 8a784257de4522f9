"""The pages behind the links in a text: the way back to the cart, and the way out."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from itertools import permutations
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cartwake.carriers.protocol import Carrier
from cartwake.carts.links import Purpose, link_id_of, link_path, read_recovery_token
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import DEVELOPMENT_SECRET
from cartwake.kit.crypto import Vault, b64url, un_b64url
from cartwake.kit.db import ENGINE, rows
from cartwake.messages.schedule import scan
from cartwake.messages.templates import LOCALES, opt_out_page
from cartwake.web.app import create_app
from cartwake.worker import dispatch_once
from world import AINO, RUTA, TICKED, ShopClient, World

PHONE_BROWSER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1"
APPLE_MESSAGES = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 "
    "Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"
)


@dataclass
class Text:
    """A text that went out, and the shop it came from."""

    world: World
    shop: ShopClient
    message_id: str
    recover: str
    opt_out: str

    async def open(self, path: str | None = None, method: str = "GET", agent: str = PHONE_BROWSER) -> httpx.Response:
        return await self.world.http.request(method, path or self.recover, headers={"User-Agent": agent})

    async def press(self, action: str) -> httpx.Response:
        return await self.world.http.post(self.opt_out, data={"action": action})

    async def clicks(self) -> int:
        async with self.world.runtime.db.transaction(ENGINE) as conn:
            found = await rows(conn, "SELECT clicks FROM short_links")
        return sum(each["clicks"] for each in found)

    async def consent_events(self) -> list[str]:
        async with self.world.runtime.db.transaction(ENGINE) as conn:
            found = await rows(conn, "SELECT action FROM consent_events ORDER BY at, event_id")
        return [each["action"] for each in found]


async def text_to_ruta(world: World, clock: ManualClock, shop: ShopClient | None = None, **news: object) -> Text:
    """Rūta leaves a cart, and a text with its two links is claimed for sending."""
    shop = shop or await world.shop("Lino & Co <Namai>", locale="en")
    await shop.put_session(consent=TICKED, **news)
    clock.advance(minutes=31)
    async with world.runtime.db.transaction(ENGINE) as conn:
        await scan(conn, world.runtime.moment(), 100)
    clock.advance(minutes=15)
    assert len((await dispatch_once(world.runtime)).attempts) == 1
    async with world.runtime.db.transaction(ENGINE) as conn:
        (found,) = await rows(conn, "SELECT message_id FROM sms_messages WHERE shop_id = %s", [shop.shop_id])
    vault = world.runtime.vault
    link_id = link_id_of(vault, found["message_id"])
    paths: dict[Purpose, str] = {
        "recover": link_path(vault, link_id, "recover"),
        "opt-out": link_path(vault, link_id, "opt-out"),
    }
    return Text(world, shop, str(found["message_id"]), paths["recover"], paths["opt-out"])


def assert_plain_page(answer: httpx.Response, locale: str) -> None:
    """A page for people: their language, one heading, nothing from elsewhere, nothing that runs."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    html = answer.text
    assert f'<html lang="{locale}">' in html and html.count("<h1>") == 1
    assert 'name="viewport"' in html and "prefers-color-scheme: dark" in html
    assert not re.search(r"<script|<img|<link|<iframe|\son\w+=|https?://", html)
    policy = answer.headers["content-security-policy"]
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


def assert_says(answer: httpx.Response, words: str) -> None:
    """The first sentence as the heading, the rest below it."""
    heading, _, rest = words.partition(". ")
    assert f"<h1>{heading}.</h1>" in answer.text and f"<p>{rest}</p>" in answer.text


async def test_a_tap_leads_to_the_cart_with_a_token(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock, checkout_url="https://shop.example/checkout?cart=ąž&x=1&x=2#pay")
    answer = await text.open()
    assert answer.status_code == 302 and answer.content == b""
    assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"
    address = urlsplit(answer.headers["location"])
    assert (address.scheme, address.netloc, address.path) == ("https", "shop.example", "/checkout")
    assert address.fragment == "pay"
    query = parse_qs(address.query)
    assert (query["cart"], query["x"], query["step"]) == (["ąž"], ["1", "2"], ["cart_recovery_sms"])
    claim = read_recovery_token(world.runtime.vault, clock.now(), query["cartwake_token"][0])
    assert claim is not None and str(claim.message_id) == text.message_id
    assert await text.clicks() == 1
    order = await text.shop.complete(recovery_token=query["cartwake_token"][0])
    assert (order["recovered"], order["attribution"], order["message_id"]) == (True, "token", text.message_id)


async def test_a_tap_alone_attributes_the_order(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    await text.open()
    clock.advance(minutes=5)
    order = await text.shop.complete()
    assert (order["recovered"], order["attribution"]) == (True, "click")
    assert (await text.shop.session())["recovered"] is True


@pytest.mark.parametrize(
    "agent",
    [APPLE_MESSAGES, "WhatsApp/2.24.1 A", "TelegramBot (like TwitterBot)", "Slackbot-LinkExpanding 1.0"],
)
async def test_a_preview_is_not_a_tap(world: World, clock: ManualClock, agent: str) -> None:
    text = await text_to_ruta(world, clock)
    assert (await text.open(agent=agent)).status_code == 302
    assert (await text.open(method="HEAD")).status_code == 302
    prefetch = {"User-Agent": PHONE_BROWSER, "Sec-Purpose": "prefetch;prerender"}
    assert (await world.http.get(text.recover, headers=prefetch)).status_code == 302
    assert await text.clicks() == 0
    assert (await text.shop.complete())["recovered"] is False


async def test_an_expired_recovery_link_says_so(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    clock.advance(days=60)
    for method in ("GET", "HEAD"):
        answer = await text.open(method=method)
        assert answer.status_code == 410
    answer = await text.open()
    assert_plain_page(answer, "lt")
    assert opt_out_page("lt").expired.partition(". ")[2] in answer.text
    assert await text.clicks() == 0


async def test_links_that_we_did_not_make_lead_nowhere(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    recover, opt_out = text.recover.removeprefix("/r/"), text.opt_out.removeprefix("/o/")
    vault = world.runtime.vault
    unknown: dict[str, str] = {
        "/r/": link_path(vault, b"123456789", "recover").removeprefix("/r/"),
        "/o/": link_path(vault, b"123456789", "opt-out").removeprefix("/o/"),
    }
    for prefix, good, other in (("/r/", recover, opt_out), ("/o/", opt_out, recover)):
        flipped = ("A" if good[0] != "A" else "B") + good[1:]
        for token in (other, flipped, good + "A", good[:-1], good + "=", "x", "%00", "ąž", unknown[prefix]):
            for method in ("GET", "HEAD"):
                answer = await text.open(prefix + token, method)
                assert answer.status_code == 404, (method, prefix + token)
            assert_plain_page(await text.open(prefix + token), "en")
        if prefix == "/o/":
            assert (await world.http.post(prefix + other, data={"action": "stop"})).status_code == 404
    german = await world.http.get("/r/x", headers={"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"})
    assert_plain_page(german, "de")
    assert await text.clicks() == 0 and await text.consent_events() == ["granted"]


async def test_no_part_of_a_link_serves_for_another(world: World, clock: ManualClock) -> None:
    """The id of one text with the MAC of another's link, or of its own link for the other purpose, or with none."""
    ruta = await text_to_ruta(world, clock)
    aino = await text_to_ruta(world, clock, await world.shop(), phone=AINO, country="FI")
    links = {
        (text.message_id, path[:3]): un_b64url(path[3:])
        for text in (ruta, aino)
        for path in (text.recover, text.opt_out)
    }
    assert len({raw[9:] for raw in links.values()}) == 4, "each link has a MAC of its own"
    for of_id, of_mac in permutations(links, 2):
        token = b64url(links[of_id][:9] + links[of_mac][9:])
        for prefix in ("/r/", "/o/"):
            if (of_id[0], prefix) == of_mac:
                continue  # the very link that it was made for
            for method in ("GET", "POST") if prefix == "/o/" else ("GET",):
                answer = await world.http.request(method, prefix + token, data={"action": "stop"})
                assert answer.status_code == 404, (method, prefix, of_id, of_mac)
    assert await ruta.clicks() == 0 and await ruta.consent_events() == ["granted", "granted"]
    for text in (ruta, aino):
        assert (await text.open()).status_code == 302
        assert (await text.open(text.opt_out)).status_code == 200


async def test_looking_at_the_opt_out_page_changes_nothing(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    for method in ("GET", "HEAD"):
        assert (await text.open(text.opt_out, method)).status_code == 200
    answer = await text.open(text.opt_out, agent=APPLE_MESSAGES)
    assert_plain_page(answer, "lt")
    words = opt_out_page("lt")
    for shown in (words.title, words.confirm, words.not_mine, words.not_mine_hint, "Lino &amp; Co &lt;Namai&gt;"):
        assert shown in answer.text
    assert "<Namai>" not in answer.text
    assert await text.consent_events() == ["granted"]


@pytest.mark.thorough
@pytest.mark.parametrize("locale", LOCALES)
async def test_the_page_speaks_the_language_of_the_text(world: World, clock: ManualClock, locale: str) -> None:
    text = await text_to_ruta(world, clock, locale=locale)
    assert_plain_page(await text.open(text.opt_out), locale)


async def test_stop_suppresses_the_phone_at_this_shop_once(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    for _ in range(2):
        answer = await text.press("stop")
        assert answer.status_code == 200
        assert_plain_page(answer, "lt")
        assert_says(answer, opt_out_page("lt").done)
        head = await text.shop.call("GET", "/v1/consent-chain")
        assert f" UTC · {head['position']} · {head['head']}</p>" in answer.text, "a receipt"
    assert await text.consent_events() == ["granted", "suppressed"]
    assert (await text.shop.session())["consent"] == {"granted": False, "suppressed": True}
    clock.advance(minutes=1)
    view = await text.shop.put_session("cart-2", consent=TICKED)
    assert view["consent"]["suppressed"] is True, "a box does not lift a STOP"
    other = await world.shop()
    assert (await other.put_session(consent=TICKED))["consent"] == {"granted": True, "suppressed": False}


async def test_not_my_number_stops_every_shop(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    other = await world.shop()
    await other.put_session(consent=TICKED)
    await text.press("stop")
    for _ in range(2):
        answer = await text.press("not_my_number")
        assert_says(answer, opt_out_page("lt").done_not_mine)
    await text.press("stop")
    assert await text.consent_events() == ["granted", "granted", "suppressed", "suppressed"]
    assert (await other.session())["consent"]["suppressed"] is True


async def test_an_opt_out_never_expires(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    clock.advance(days=400)
    assert (await text.open(text.opt_out)).status_code == 200
    assert (await text.press("stop")).status_code == 200
    assert await text.consent_events() == ["granted", "suppressed"]


async def test_opt_outs_and_their_links_outlive_a_new_secret_key(
    world: World, clock: ManualClock, carrier: Carrier
) -> None:
    before, after = await text_to_ruta(world, clock), await text_to_ruta(world, clock, phone=AINO)
    await before.press("stop")
    rotated = replace(
        world.runtime, vault=Vault([b"a new secret key, put before the old", DEVELOPMENT_SECRET.encode()])
    )
    app = create_app(rotated, carrier)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert (await http.post(after.opt_out, data={"action": "stop"})).status_code == 200
        shops = [replace(text.shop, http=http) for text in (before, after)]
        for shop, number in zip(shops, (RUTA, AINO), strict=True):
            view = await shop.put_session("cart-2", phone=number, consent=TICKED)
            assert view["consent"]["suppressed"] is True


async def test_it_is_the_phone_that_got_the_text_that_is_left_alone(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    await text.shop.put_session(phone="+358412345678")
    await text.press("stop")
    clock.advance(minutes=1)
    assert (await text.shop.session())["consent"]["suppressed"] is False
    assert (await text.shop.put_session(phone=RUTA))["consent"]["suppressed"] is True


@pytest.mark.parametrize("form", [{}, {"action": ""}, {"action": "start"}, {"other": "stop"}])
async def test_pressing_nothing_asks_again(world: World, clock: ManualClock, form: dict[str, str]) -> None:
    text = await text_to_ruta(world, clock)
    answer = await world.http.post(text.opt_out, data=form)
    assert answer.status_code == 400
    assert_plain_page(answer, "lt")
    assert (await world.http.post(text.opt_out, json={"action": "stop"})).status_code == 400
    assert await text.consent_events() == ["granted"]


async def test_a_large_form_is_refused(world: World, clock: ManualClock) -> None:
    text = await text_to_ruta(world, clock)
    assert (await world.http.post(text.opt_out, data={"action": "x" * 70_000})).status_code == 413
