"""Who may ask for what."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, time
from uuid import UUID


class KeyKind(enum.StrEnum):
    """The four kinds of API key, each opening less than the one before."""

    OPERATOR = "operator"
    ORGANIZATION = "organization"
    SHOP_SECRET = "shop_secret"  # noqa: S105 - a kind of key, not a key
    SHOP_PUBLISHABLE = "shop_publishable"


# Beginning of a key's text, so that a person sees what kind of key leaked.
KEY_PREFIXES = {
    KeyKind.OPERATOR: "cw_operator_",
    KeyKind.ORGANIZATION: "cw_org_",
    KeyKind.SHOP_SECRET: "cw_shop_",
    KeyKind.SHOP_PUBLISHABLE: "cw_public_",
}


@dataclass(frozen=True)
class Scope:
    """What a caller's rows are: an organization, narrowed to one shop unless `shop_id` is None."""

    organization_id: UUID
    shop_id: UUID | None = None


@dataclass(frozen=True)
class ShopScope:
    """Exactly one shop."""

    organization_id: UUID
    shop_id: UUID


@dataclass(frozen=True)
class Caller:
    """Whoever presented a good API key."""

    kind: KeyKind
    key_id: UUID
    organization_id: UUID | None
    shop_id: UUID | None


@dataclass(frozen=True)
class ApiKey:
    """A key without its text, which nobody can see again."""

    key_id: UUID
    kind: KeyKind
    organization_id: UUID | None
    shop_id: UUID | None
    created_at: datetime
    expires_at: datetime | None = None  # replaced by another; good until then
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None  # to the hour


@dataclass(frozen=True, kw_only=True)
class SmsConfig:
    """What a merchant chose for a shop's texts. Durations in seconds; window in the recipient's local time."""

    enabled: bool = False
    idle_s: int = 30 * 60
    email_delay_s: int = 0  # after detection
    text_delay_s: int = 45 * 60  # after the last activity
    stale_after_s: int = 96 * 3600
    payment_timeout_s: int = 3600
    window_opens: time = time(10)
    window_closes: time = time(19)
    spread_s: int = 15 * 60
    cycle_cap: int = 100
    attribution_window_s: int = 7 * 86400
    low_credits_at: int = 20


@dataclass(frozen=True)
class Shop:
    """A storefront of an organization."""

    organization_id: UUID
    shop_id: UUID
    name: str
    default_country: str
    default_locale: str
    created_at: datetime


@dataclass(frozen=True)
class ShopSummary(Shop):
    """A shop as the operator sees it among others."""

    enabled: bool  # its texts are switched on
    paused_at: datetime | None  # its kill switch is thrown


@dataclass(frozen=True)
class Organization:
    """A merchant: the owner of shops and of the credits they share."""

    organization_id: UUID
    name: str
    plan: str
    created_at: datetime


@dataclass(frozen=True)
class OrganizationSummary(Organization):
    """An organization as the operator sees it among others."""

    shops: int
    paused_shops: int
