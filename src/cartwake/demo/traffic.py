"""The traffic file, read and checked. Pure: it knows no API and no clock."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cartwake.demo.acts import Act, local_moment, read_act
from cartwake.kit.errors import BadInput
from cartwake.kit.phones import parse_mobile
from cartwake.messages.templates import choose_locale
from cartwake.quiet_hours.zones import zone

TextEnd = Literal["delivered", "undelivered", "rejected", "dropped", "none"]
CartEnd = Literal["left", "ordered", "recovered by token", "recovered by click", "unknown"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(_Row):
    """How a story must end."""

    text: TextEnd
    why: str | None = None
    refused: str | None = None
    at: str | None = Field(None, pattern=r"^\w{3} \d\d:\d\d-\d\d:\d\d$")
    held: tuple[str, ...] = ()
    segments: int | None = None
    credits: int | None = None
    refunded: bool = False
    suppressed: bool = False
    cart: CartEnd


class CarrierScript(_Row):
    """What the sandbox does with texts to a shopper, where it does not simply deliver them."""

    outcome: Literal["undelivered", "failed", "rejected"]
    error_code: int


class Shopper(_Row):
    """One cart and the person who left it. Two carts of one person are two of these with one name and phone."""

    name: str
    story: str
    tags: tuple[str, ...] = ()
    shop: str
    phone: str  # as it was typed
    consent: bool = True
    carrier: CarrierScript | None = None
    city: str
    country_code: str
    province_code: str | None = None
    customer_locale: str
    total_price: str
    currency: str
    acts: tuple[str, ...]
    expect: Expectation

    @cached_property
    def script(self) -> tuple[Act, ...]:
        """The acts, read."""
        return tuple(read_act(line) for line in self.acts)

    @property
    def token(self) -> str:
        """The storefront's id of the checkout: 32 hex digits, as Shopify's."""
        return hashlib.sha256(f"{self.name}|{self.story}".encode()).hexdigest()[:32]

    @property
    def value_minor(self) -> int:
        """`total_price` in the smallest unit; every currency in the file has two decimals."""
        return int(Decimal(self.total_price) * 100)

    @property
    def e164(self) -> str | None:
        """The phone that the carrier will know; None for one that cannot be texted."""
        corrected = [act.detail for act in self.script if act.deed == "correct"]
        try:
            return parse_mobile((corrected or [self.phone])[-1], self.country_code).e164
        except BadInput:
            return None


class Shop(_Row):
    """A storefront."""

    name: str
    country: str
    locale: str
    senders: tuple[str, ...]
    settings: dict[str, Any] = {}


class Organization(_Row):
    """A merchant with its shops."""

    name: str
    plan: Literal["FREE", "PRO", "ULTRA"]
    credits: int = 0  # bought before the story begins
    shop: tuple[Shop, ...]


class MerchantAct(_Row):
    """What a merchant does during the story, on the home clock."""

    at: str
    story: str
    organization: str | None = None  # with `credits`
    credits: int | None = None
    shop: str | None = None  # with `settings`
    settings: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _whole(self) -> MerchantAct:
        if (self.organization is None) != (self.credits is None) or (self.shop is None) != (self.settings is None):
            raise ValueError("an organization gets credits, a shop gets settings")
        return self


class Consent(_Row):
    """What stands beside the box."""

    version: str
    wording: dict[str, str]


class Traffic(_Row):
    """The whole file."""

    title: str
    starts: str
    home: str
    zones: dict[str, str]
    consent: Consent
    organization: tuple[Organization, ...]
    merchant: tuple[MerchantAct, ...]
    shopper: tuple[Shopper, ...]

    @field_validator("zones")
    @classmethod
    def _known_zones(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            zone(name)
        return value

    @property
    def shops(self) -> dict[str, Shop]:
        """Every shop by its name."""
        return {shop.name: shop for organization in self.organization for shop in organization.shop}

    @property
    def starts_at(self) -> datetime:
        """The first moment, aware UTC."""
        local = datetime.fromisoformat(self.starts).replace(tzinfo=self.zone_of(self.home))
        return local.astimezone(UTC)

    def zone_of(self, city: str) -> ZoneInfo:
        """The clocks of a city."""
        return zone(self.zones[city])

    def moment(self, text: str, city: str) -> datetime:
        """When the clocks of `city` first show `text` ("Tue 09:47") in the story; aware UTC."""
        return local_moment(text, self.zone_of(city), self.starts_at)

    def wording_for(self, shopper: Shopper) -> tuple[str, str]:
        """The language that the shopper sees at the shop, and what stands beside the box in it."""
        locale = choose_locale(shopper.customer_locale, self.shops[shopper.shop].locale)
        return locale, self.consent.wording[locale]


def load_traffic() -> Traffic:
    """The traffic that ships with Cartwake."""
    text = files(__package__).joinpath("traffic.toml").read_text("utf-8")
    return Traffic.model_validate(tomllib.loads(text))
