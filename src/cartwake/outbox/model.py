"""An event for a shop, the address that it goes to, and when another try is due."""

from __future__ import annotations

import base64
import enum
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.tenants.model import ShopScope

REPLY_RECEIVED = "reply.received"

SECRET_PREFIX = "whsec_"  # noqa: S105 - tells what kind of secret leaked
SECRET_BYTES = 32
# So long after a rotation the former secret signs too: time to bring the new one to every receiver.
BOTH_SECRETS_FOR = timedelta(hours=24)

FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(hours=2)
# No try is due later than this after the event; each event has one at least.
GIVE_UP_AFTER = timedelta(hours=24)


class DeliveryState(enum.StrEnum):
    """Where an event stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"
    CANCELLED = "cancelled"  # the shop took its address back


@dataclass(frozen=True)
class NewEvent:
    """Something to tell a shop. `payload` is the body's JSON, which never changes between tries."""

    shop: ShopScope
    event_id: UUID
    kind: str
    payload: str


@dataclass(frozen=True, repr=False)
class Event:
    """An event to be told now."""

    event_id: UUID
    payload: str
    attempts: int  # before this one
    created_at: datetime


@dataclass(frozen=True, repr=False)
class Round:
    """One shop's due events, leased to one worker. It may hold none: then only the shop's next time was wrong."""

    shop: ShopScope
    url: str
    secrets: tuple[bytes, ...]  # the newest first
    events: tuple[Event, ...]
    lease_until: datetime


@dataclass(frozen=True)
class Try:
    """What came of telling one event."""

    event: Event
    status: int | None  # HTTP; None: no answer came
    error: str | None  # why none came; one word, never what the receiver said

    @property
    def heard(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def failure(self) -> str | None:
        """What went wrong, in a word or two; None when it was heard."""
        return None if self.heard else self.error or f"HTTP {self.status}"


@dataclass(frozen=True)
class Failing:
    """A shop whose server has taken nothing for a while."""

    shop: ShopScope
    since: datetime
    failure: str


@dataclass(frozen=True)
class Delivery:
    """An event as its shop sees it."""

    state: DeliveryState
    attempts: int
    next_try_at: datetime | None
    last_status: int | None
    last_error: str | None
    ended_at: datetime | None


def retry_delay(attempts: int) -> timedelta:
    """How long after the `attempts`-th failed try the next one is due."""
    return min(FIRST_RETRY * (1 << min(attempts - 1, 20)), LONGEST_RETRY)


def outcome(now: datetime, tried: Try) -> tuple[DeliveryState, datetime]:
    """The state after a try, and when the next is due, or would be."""
    if tried.heard:
        return DeliveryState.DELIVERED, now
    again_at = now + retry_delay(tried.event.attempts + 1)
    if again_at - tried.event.created_at > GIVE_UP_AFTER:
        return DeliveryState.GAVE_UP, again_at
    return DeliveryState.WAITING, again_at


def sign(secrets: Sequence[bytes], event_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows us (standardwebhooks.com): id, time, and a MAC over both and the body.

    `timestamp` in Unix seconds. Each secret adds its own signature, so that either end may change first.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    macs = (base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets)
    return {
        "webhook-id": str(event_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{mac}" for mac in macs),
    }


def show_secret(secret: bytes) -> str:
    """A secret as the shop's developer gets it, once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()
