"""A world to test in: the application, merchants with shops, and a carrier that only writes down.

    async def test_something(world: World) -> None:
        shop = await world.shop()                       # a merchant on PRO, 100 credits, texts on, a sender
        await shop.put_session("cart-1", consent=TICKED)
        await shop.complete("cart-1")

Every call answers the parsed JSON and fails the test when the status is not 2xx; `api` gives the bare
response.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from twilio.request_validator import RequestValidator

from cartwake.carriers.open import open_carrier
from cartwake.carriers.protocol import Carrier
from cartwake.kit.db import OPERATOR
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind, ShopScope
from cartwake.web.app import create_app

Json = dict[str, Any]

# Rūta Kazlauskaitė shops from Vilnius; Aino Virtanen from Helsinki; Jonas Weber from Berlin.
RUTA, AINO, JONAS = "+37061234567", "+358412345678", "+4915112345678"

TICKED: Json = {
    "granted": True,
    "wording": "Text me about my cart, at most once. Reply STOP at any time.",
    "wording_version": "2026-11",
    "locale": "en",
    "page_url": "https://shop.example/checkout",
    "form_field": "sms_opt_in",
    "ip": "203.0.113.9",
    "actor": "shopper",
}
UNTICKED: Json = {"granted": False}


@dataclass(frozen=True)
class Caller:
    """Somebody with a key, or without one."""

    http: httpx.AsyncClient
    key: str | None

    async def api(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """The bare response. Options are httpx's (`content`, `headers`, `params`)."""
        headers = dict(options.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        body = {} if json is None else {"json": json}
        return await self.http.request(method, path, headers=headers, **body, **options)

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> Json:
        """The parsed answer of a call that must succeed."""
        response = await self.api(method, path, json, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        answer: Json = response.json()
        return answer


@dataclass(frozen=True)
class ShopClient(Caller):
    """A storefront's server."""

    merchant: MerchantClient
    shop_id: UUID
    publishable_key: str

    @property
    def scope(self) -> ShopScope:
        return ShopScope(self.merchant.organization_id, self.shop_id)

    async def put_session(self, external_id: str = "cart-1", /, **news: Any) -> Json:
        """A checkout's news; by default Rūta's cart of 59.90 euros. None leaves a field out; times may be datetimes."""
        return await self.call("PUT", f"/v1/checkout-sessions/{external_id}", cart(**news))

    async def session(self, external_id: str = "cart-1") -> Json:
        return await self.call("GET", f"/v1/checkout-sessions/{external_id}")

    async def texts(self) -> list[str]:
        """What became of the shop's texts, oldest first."""
        found = (await self.call("GET", "/v1/messages", params={"limit": 200}))["data"]
        return [each["state"] for each in found][::-1]

    async def pay(self, external_id: str = "cart-1", status: str = "pending", **more: Any) -> Json:
        return await self.call("PUT", f"/v1/checkout-sessions/{external_id}/payment", plain({"status": status} | more))

    async def complete(self, external_id: str = "cart-1", **order: Any) -> Json:
        body = {"order_id": f"order-of-{external_id}", "value_minor": 5990, "currency": "EUR"} | order
        return await self.call("PUT", f"/v1/checkout-sessions/{external_id}/completion", plain(body))

    async def configure(self, **settings: Any) -> Json:
        return await self.call("PUT", "/v1/sms-config", settings)


@dataclass(frozen=True)
class MerchantClient(Caller):
    """A merchant with an organization's key."""

    world: World
    organization_id: UUID

    async def shop(
        self,
        name: str = "Lino Namai",
        *,
        country: str = "LT",
        locale: str = "lt",
        sender: str | None = "",
        **sms_config: Any,
    ) -> ShopClient:
        """A shop that texts. `sender`: its number; None for none; a fresh Lithuanian one unless given."""
        base = f"/v1/organizations/{self.organization_id}/shops"
        made = await self.world.operator.call(
            "POST",
            base,
            {
                "name": name,
                "default_country": country,
                "default_locale": locale,
                "sms_config": {"enabled": True} | sms_config,
            },
        )
        if sender is not None:
            address = sender or self.world.next_number()
            await self.world.operator.call("POST", f"{base}/{made['shop_id']}/senders", {"address": address})
        return ShopClient(self.http, made["secret_key"], self, UUID(made["shop_id"]), made["publishable_key"])

    async def add_credits(self, credits: int) -> Json:
        path = f"/v1/organizations/{self.organization_id}/credit-adjustments"
        return await self.world.operator.call("POST", path, {"credits": credits, "note": "for a test"})

    async def credits(self) -> Json:
        return await self.call("GET", "/v1/credits")


@dataclass
class World:
    """The deployment under test."""

    app: FastAPI
    runtime: Runtime
    http: httpx.AsyncClient
    operator: Caller
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(61000001))

    async def merchant(self, name: str = "Lino Namai", plan: str = "PRO", credits: int = 100) -> MerchantClient:
        """An organization with its key."""
        made = await self.operator.call("POST", "/v1/organizations", {"name": name, "plan": plan})
        merchant = MerchantClient(self.http, made["api_key"], self, UUID(made["organization_id"]))
        if credits:
            await merchant.add_credits(credits)
        return merchant

    async def shop(self, name: str = "Lino Namai", *, plan: str = "PRO", credits: int = 100, **shop: Any) -> ShopClient:
        """A shop of a merchant of its own; what else is given goes to `MerchantClient.shop`."""
        merchant = await self.merchant(name, plan, credits)
        return await merchant.shop(name, **shop)

    def stranger(self) -> Caller:
        """Somebody without a key."""
        return Caller(self.http, None)

    def next_number(self) -> str:
        """A Lithuanian mobile number that no shop has yet."""
        return f"+370{next(self._numbers)}"

    async def carrier_posts(
        self, path: str, form: Mapping[str, str], *, signature: str | None = None
    ) -> httpx.Response:
        """A webhook as the carrier would send it, signed with its token unless a signature is given."""
        headers = {"X-Twilio-Signature": sign(self.runtime, path, form) if signature is None else signature}
        return await self.http.post(path, data=dict(form), headers=headers)


def sign(runtime: Runtime, path: str, form: Mapping[str, str]) -> str:
    """The carrier's signature of a webhook to `path` (with its query)."""
    validator = RequestValidator(  # type: ignore[no-untyped-call]
        runtime.settings.twilio_auth_token.get_secret_value()
    )
    url = runtime.settings.public_url + path
    return str(validator.compute_signature(url, dict(form)))  # type: ignore[no-untyped-call]


def cart(**news: Any) -> Json:
    """A checkout's news as JSON: Rūta's cart, but for what is given; None leaves a field out."""
    return plain(
        {
            "phone": RUTA,
            "country": "LT",
            "locale": "lt",
            "cart_value_minor": 5990,
            "currency": "EUR",
            "checkout_url": "https://shop.example/checkout?cart=1",
        }
        | news
    )


def plain(body: Mapping[str, Any]) -> Json:
    """`body` without what is None, and with times as text."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in body.items()
        if value is not None
    }


@pytest.fixture
async def carrier(runtime: Runtime) -> AsyncIterator[Carrier]:
    """The carrier's adapter, which nothing here sends with."""
    adapter = open_carrier(runtime.settings)
    yield adapter
    await adapter.close()


@pytest.fixture
async def world(runtime: Runtime, carrier: Carrier) -> AsyncIterator[World]:
    """The application on a fresh database, and its operator."""
    app = create_app(runtime, carrier)
    async with runtime.db.transaction(OPERATOR) as conn:
        key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield World(app, runtime, http, Caller(http, key))
