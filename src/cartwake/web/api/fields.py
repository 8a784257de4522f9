"""The kinds of fields that requests and answers are made of, each with what it refuses and why.

Types are taken strictly: `"5"` is not a number and `1` is not true. Whoever sends those has a bug that
they would rather hear about now than find in a text.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import available_timezones

from babel import Locale
from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from cartwake.kit.codes import LOCALE_MAX_CHARACTERS, check_country, check_locale
from cartwake.kit.crypto import Vault
from cartwake.kit.errors import BadInput
from cartwake.kit.phones import mask, open_phone

BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1
CREDITS_MAX = 1_000_000_000

# A storefront's clock may be a little ahead of ours.
AHEAD_MAX = timedelta(minutes=5)
# No cart is older; earlier years are broken clocks, and some cannot be written in UTC at all.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Body(BaseModel):
    """What a request may hold, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def example(**fields: JsonValue) -> ConfigDict:
    """`model_config` of a form: how one looks, for the API's description."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


def _storable(text: str) -> str:
    if "\0" in text:  # PostgreSQL has no way to store it
        raise ValueError("must not contain the character U+0000")
    return text


def _currency(code: str) -> str:
    if code not in _currencies():
        raise ValueError("must be a currency code of ISO 4217: three capital letters, like EUR")
    return code


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        raise ValueError("must be a time zone of the IANA database, like Europe/Vilnius")
    return name


def _web_address(address: str) -> str:
    wrong = ValueError("must be an http or https address, like https://shop.example/cart/1")
    # A browser reads a backslash as a slash and drops line breaks; this must mean the same to everybody.
    if not address.isprintable() or any(char.isspace() or char == "\\" for char in address):
        raise wrong
    try:
        parts = urlsplit(address)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise wrong
    return address


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _instant(value: object) -> datetime:
    """An aware UTC time from RFC 3339."""
    wrong = ValueError("must be a time with its offset as in RFC 3339, like 2026-11-24T10:15:00Z")
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise wrong
    try:
        instant = datetime.fromisoformat(value.upper())
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None


def _plausible(instant: datetime) -> datetime:
    if instant < EARLIEST:
        raise ValueError(f"must not be before {EARLIEST:%Y}")
    return instant


ShortText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
LongText = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_storable)]
PhoneText = Annotated[str, Field(max_length=200), AfterValidator(_storable)]
TokenText = Annotated[str, Field(max_length=200), AfterValidator(_storable)]
ExternalId = Annotated[
    str,
    Path(min_length=1, max_length=200, description="The storefront's own id of the checkout; no slashes."),
    AfterValidator(_storable),
]
# One sentence for whatever is wrong with a code, its length too; so the length is told in the schema alone.
Country = Annotated[
    str, AfterValidator(check_country), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}$", "examples": ["LT"]})
]
Currency = Annotated[
    str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"]})
]
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_time_zone)]
LocaleTag = Annotated[str, Field(max_length=LOCALE_MAX_CHARACTERS), AfterValidator(check_locale)]
WebAddress = Annotated[str, Field(max_length=2048), AfterValidator(_web_address)]
IpAddress = Annotated[str, Field(max_length=45), AfterValidator(_ip)]
MinorUnits = Annotated[int, Field(ge=0, le=BIGINT_MAX, description="In the currency's smallest unit: cents, say.")]
# Strictly, a UUID is no text; in JSON it has to be.
Id = Annotated[UUID, Field(strict=False)]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    AfterValidator(_plausible),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

# In answers: whatever time zone the database connection has, people and programs read UTC.
UtcTime = Annotated[datetime, AfterValidator(lambda value: value.astimezone(UTC))]


def not_ahead(value: datetime | None, now: datetime, field: str) -> datetime:
    """When something happened: `value`, or `now` when the caller does not say.

    Raises `BadInput` (`time-in-future`) when it is more than 5 minutes ahead of our clock.
    """
    if value is None:
        return now
    if value > now + AHEAD_MAX:
        raise BadInput("The time lies more than 5 minutes in the future.", slug="time-in-future", field=field)
    return value


def masked(vault: Vault, phone_sealed: bytes | None) -> str | None:
    """A stored phone as people may see it."""
    return mask(open_phone(vault, phone_sealed)) if phone_sealed else None


@cache
def _currencies() -> frozenset[str]:
    return frozenset(Locale("en").currencies)


@cache
def _time_zones() -> frozenset[str]:
    # These two are in the database, but say nothing about where a person is.
    return frozenset(available_timezones()) - {"Factory", "localtime"}
