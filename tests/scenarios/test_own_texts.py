"""A shop's own text on its way to a phone: the version in force when the text is claimed, and no other."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cartwake.kit.db import ENGINE, Connection
from cartwake.messages.dispatch import claim_batch
from deployment import Deployment, leave_cart, phone
from world import RUTA, ShopClient

OWN = {"lt": "{shop}: grįžkite: {link} {opt_out}", "de": "{shop}: dein Warenkorb wartet: {link} {opt_out}"}


async def save(shop: ShopClient, locale: str, text: str) -> int:
    version: int = (await shop.call("PUT", f"/v1/templates/{locale}", {"text": text}))["version"]
    return version


async def body_at(deployment: Deployment, recipient: str) -> str:
    (text,) = await deployment.phone_shows(recipient)
    body: str = text["body"]
    return body


async def test_the_text_is_the_one_in_force_when_it_is_claimed_and_says_so(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai", locale="lt")
    await save(shop, "lt", "{shop}: pirmas: {link} {opt_out}")
    await leave_cart(shop)
    await deployment.pass_time(minutes=40)
    assert (await shop.session())["message"]["locale"] is None
    await save(shop, "lt", OWN["lt"])
    await deployment.pass_time(minutes=10)
    assert (await body_at(deployment, RUTA)).startswith("Lino Namai: grįžkite: http")
    message = (await shop.session())["message"]
    assert (message["state"], message["locale"], message["template_version"]) == ("delivered", "lt", 2)
    await shop.call("DELETE", "/v1/templates/lt")
    assert (await shop.session())["message"]["template_version"] == 2
    history = (await shop.call("GET", "/v1/templates/lt/versions"))["data"]
    assert next(each["text"] for each in history if each["version"] == 2) == OWN["lt"], "what was sent is explained"


async def test_a_text_taken_back_is_not_sent(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai", locale="lt")
    await save(shop, "lt", OWN["lt"])
    await shop.call("DELETE", "/v1/templates/lt")
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    assert "išsaugojome" in await body_at(deployment, RUTA)
    assert (await shop.session())["message"]["template_version"] is None


async def test_every_shop_and_locale_of_a_batch_has_its_own(deployment: Deployment) -> None:
    lino, knygos = await deployment.shop("Lino Namai"), await deployment.shop("Knygos")
    await save(lino, "de", OWN["de"])
    await save(knygos, "lt", OWN["lt"])
    for number, (shop, locale) in enumerate([(lino, "de"), (lino, "lt"), (knygos, "de"), (knygos, "lt")]):
        await leave_cart(shop, f"cart-{number}", phone=phone(number), locale=locale)
    await deployment.outlast_a_cart()
    bodies = [await body_at(deployment, phone(number)) for number in range(4)]
    assert [any(word in body for word in ("dein Warenkorb", "grįžkite")) for body in bodies] == [
        True,
        False,
        False,
        True,
    ]


async def test_the_price_is_that_of_the_shop_s_own_text(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai", locale="lt", credits=100)
    await save(shop, "lt", "{shop}: grįžkite: {link} " + "ilgas " * 20 + "{opt_out}")
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    message = (await shop.session())["message"]
    assert message["credits"] == message["segments"] == 4


class Counting:
    """A connection that remembers what it was asked."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.asked: list[str] = []

    async def execute(self, query: Any, params: Any = None) -> Any:
        self.asked.append(str(query))
        return await self._conn.execute(query, params)


@pytest.mark.thorough
@pytest.mark.parametrize("carts", [1, 12])
async def test_a_batch_asks_once_however_large_it_is(deployment: Deployment, carts: int) -> None:
    shops = [await deployment.shop(f"Shop {number}", locale="lt") for number in range(min(carts, 3))]
    for shop in shops:
        await save(shop, "de", OWN["de"])
    for number in range(carts):
        locale = ("lt", "de", "en", "fr")[number % 4]
        await leave_cart(shops[number % len(shops)], f"cart-{number}", phone=phone(number), locale=locale)
    await deployment.pass_time(minutes=40)
    deployment.clock.advance(minutes=6)
    runtime = deployment.runtime
    async with runtime.db.transaction(ENGINE) as conn:
        counting = Counting(conn)
        claimed = await claim_batch(cast(Connection, counting), runtime.moment(), runtime.clock, runtime.settings)
    assert len(claimed.attempts) == carts
    assert sum("sms_template_versions" in query for query in counting.asked) == 1
