"""A checkout session, its states, and what a storefront may tell about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


class SessionState(enum.StrEnum):
    """Where a checkout stands."""

    OPEN = "open"
    ABANDONED = "abandoned"
    PAYMENT_PENDING = "payment_pending"
    COMPLETED = "completed"
    EXPIRED = "expired"


# The only moves there are. A shopper's return reopens; a bank link's failure reopens too.
TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.OPEN: frozenset(
        {SessionState.ABANDONED, SessionState.PAYMENT_PENDING, SessionState.COMPLETED, SessionState.EXPIRED}
    ),
    SessionState.ABANDONED: frozenset(
        {SessionState.OPEN, SessionState.PAYMENT_PENDING, SessionState.COMPLETED, SessionState.EXPIRED}
    ),
    SessionState.PAYMENT_PENDING: frozenset({SessionState.OPEN, SessionState.ABANDONED, SessionState.COMPLETED}),
    SessionState.EXPIRED: frozenset({SessionState.COMPLETED}),
    SessionState.COMPLETED: frozenset(),
}


def sources(target: SessionState) -> list[str]:
    """The states from which `target` may be reached; for the WHERE of whatever moves sessions there."""
    return [state.value for state, targets in TRANSITIONS.items() if target in targets]


class Refusal(enum.StrEnum):
    """Why an abandoned cart was not scheduled for a text."""

    NO_CONSENT = "no_consent"
    NO_PHONE = "no_phone"
    SMS_DISABLED = "sms_disabled"
    PLAN = "plan"
    INSUFFICIENT_CREDITS = "insufficient_credits"
    NO_CHECKOUT_URL = "no_checkout_url"


@dataclass(frozen=True, kw_only=True)
class CheckoutFacts:
    """What a storefront tells about a checkout. None means that it says nothing new."""

    occurred_at: datetime
    phone_hash: bytes | None = None
    phone_sealed: bytes | None = None
    phone_country: str | None = None
    country: str | None = None
    province: str | None = None
    time_zone: str | None = None
    locale: str | None = None
    cart_value_minor: int | None = None
    currency: str | None = None
    checkout_url_sealed: bytes | None = None


@dataclass(frozen=True)
class Session:
    """One row of `checkout_sessions`."""

    organization_id: UUID
    shop_id: UUID
    session_id: UUID
    external_id: str
    state: str
    phone_sealed: bytes | None
    phone_hash: bytes | None
    phone_country: str | None
    consented_phone: bytes | None
    country: str | None
    province: str | None
    time_zone: str | None
    locale: str | None
    cart_value_minor: int | None
    currency: str | None
    checkout_url_sealed: bytes | None
    last_activity_at: datetime
    abandoned_at: datetime | None
    scan_at: datetime | None
    stale_at: datetime
    refusal: str | None
    payment_until: datetime | None
    completed_at: datetime | None
    order_id: str | None
    order_value_minor: int | None
    order_currency: str | None
    attributed_to: UUID | None
    attribution: str | None
    traceparent: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def consented(self) -> bool:
        """Whether the box was ticked in this session for the phone that it now has."""
        return self.phone_hash is not None and self.phone_hash == self.consented_phone

    @classmethod
    def of(cls, found: dict[str, Any]) -> Session:
        """From a database row with exactly these columns."""
        return cls(**found)


SESSION_FIELDS = tuple(Session.__dataclass_fields__)
