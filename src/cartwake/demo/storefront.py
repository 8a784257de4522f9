"""The shops' servers: what they tell Cartwake, and the one way in which everybody here calls its API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import aiohttp

from cartwake.demo.traffic import Shopper, Traffic

TRIES = 5
TRY_AGAIN_AFTER_S = 0.1
# Addresses for documentation (RFC 5737): nobody's.
SHOPPERS_IP = "192.0.2.7"


class ApiRefused(Exception):
    """The API said no; `slug` is the last part of the problem document's type."""

    def __init__(self, status: int, slug: str, detail: str) -> None:
        super().__init__(f"{status} {slug}: {detail}")
        self.slug = slug


class Api:
    """Cartwake's public HTTP API."""

    def __init__(self, base_url: str, http: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self._http = http

    async def call(self, method: str, path: str, key: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a request, tried again while the database asks for it. Raises `ApiRefused`."""
        for attempt in range(1, TRIES + 1):
            async with self._http.request(
                method, self.base_url + path, json=body, headers={"Authorization": f"Bearer {key}"}
            ) as answer:
                document: dict[str, Any] = await answer.json(content_type=None)
                if answer.status < 400:
                    return document
                if answer.status != 503 or attempt == TRIES:
                    slug = str(document.get("type", "")).rpartition("/")[2]
                    raise ApiRefused(answer.status, slug, str(document.get("detail", "")))
            await asyncio.sleep(TRY_AGAIN_AFTER_S * attempt)
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class Storefront:
    """One shop's server, with its secret key."""

    api: Api
    traffic: Traffic
    key: str

    async def checkout(self, shopper: Shopper, at: datetime, *, phone: str) -> None:
        """The whole checkout, as its form was sent: with the box, ticked or not. Raises `ApiRefused`."""
        news = {
            "phone": phone,
            "country": shopper.country_code,
            "province": shopper.province_code,
            "locale": shopper.customer_locale,
            "time_zone": self.traffic.zones[shopper.city],
            "cart_value_minor": shopper.value_minor,
            "currency": shopper.currency,
            "checkout_url": f"{self._site(shopper)}/checkouts/cn/{shopper.token}?key={shopper.token[::-1]}",
            "consent": self._consent(shopper),
        }
        await self._put(shopper, "", news | {"occurred_at": at.isoformat()})

    async def activity(self, shopper: Shopper, at: datetime, *, phone: str | None = None) -> None:
        """The cart was touched, or the phone changed; nothing is said about the box."""
        await self._put(shopper, "", {"occurred_at": at.isoformat(), "phone": phone})

    async def payment(self, shopper: Shopper, at: datetime, status: str) -> None:
        """A payment is `pending`, or it `failed`."""
        await self._put(shopper, "/payment", {"status": status, "occurred_at": at.isoformat()})

    async def order(self, shopper: Shopper, token: str | None) -> dict[str, Any]:
        """The cart became an order; the answer says whether a text brought it back."""
        order = {"order_id": f"#{int(shopper.token[:4], 16) + 1001}", "recovery_token": token}
        return await self._put(
            shopper, "/completion", order | {"value_minor": shopper.value_minor, "currency": shopper.currency}
        )

    async def withdraw(self, shopper: Shopper) -> None:
        """The shopper took consent back in their account."""
        phone = shopper.e164 or shopper.phone
        await self.api.call("POST", "/v1/consent-withdrawals", self.key, {"phone": phone, "actor": "shopper"})

    async def story(self, shopper: Shopper) -> dict[str, Any] | None:
        """What Cartwake knows of the cart, with every decision; None when it knows no such cart."""
        try:
            return await self.api.call("GET", _path(shopper), self.key)
        except ApiRefused as refusal:
            if refusal.slug == "not-known":
                return None
            raise

    def _consent(self, shopper: Shopper) -> dict[str, Any]:
        if not shopper.consent:
            return {"granted": False}
        locale, wording = self.traffic.wording_for(shopper)
        return {
            "granted": True,
            "wording": wording,
            "wording_version": self.traffic.consent.version,
            "locale": locale,
            "page_url": f"{self._site(shopper)}/checkouts/cn/{shopper.token}",
            "form_field": "sms_marketing_consent",
            "ip": SHOPPERS_IP,
            "actor": "shopper",
        }

    async def _put(self, shopper: Shopper, part: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self.api.call("PUT", _path(shopper) + part, self.key, body)

    def _site(self, shopper: Shopper) -> str:
        return f"https://{quote(shopper.shop.lower().replace(' ', '-'))}.example"


def _path(shopper: Shopper) -> str:
    return f"/v1/checkout-sessions/{shopper.token}"
