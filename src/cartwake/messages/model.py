"""A message, its states, and what the gates say about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.tenants.model import ShopScope


class MessageState(enum.StrEnum):
    """Where a text stands."""

    SCHEDULED = "scheduled"
    HELD = "held"
    SENDING = "sending"
    DROPPED = "dropped"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"  # handed over, and nobody knows whether it was taken
    NOT_ACCEPTED = "not_accepted"
    UNRESOLVED = "unresolved"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    DELIVERY_UNKNOWN = "delivery_unknown"


S = MessageState
_RECEIVED = {S.SENT, S.DELIVERED, S.UNDELIVERED, S.FAILED, S.DELIVERY_UNKNOWN}

# The only moves there are. Whatever moves messages takes its WHERE from here, through `sources`.
TRANSITIONS: dict[MessageState, frozenset[MessageState]] = {
    S.SCHEDULED: frozenset({S.SENDING, S.HELD, S.DROPPED}),
    S.HELD: frozenset({S.SENDING, S.HELD, S.DROPPED}),
    S.SENDING: frozenset({S.ACCEPTED, S.REJECTED, S.HELD, S.UNKNOWN}),
    S.UNKNOWN: frozenset({S.ACCEPTED, S.NOT_ACCEPTED, S.UNRESOLVED}),
    S.ACCEPTED: frozenset(_RECEIVED),
    S.SENT: frozenset(_RECEIVED - {S.SENT}),
    # The carrier may still say what became of a text that we stopped waiting for.
    S.DELIVERY_UNKNOWN: frozenset({S.DELIVERED, S.UNDELIVERED, S.FAILED}),
    S.DROPPED: frozenset(),
    S.REJECTED: frozenset(),
    S.NOT_ACCEPTED: frozenset(),
    S.UNRESOLVED: frozenset(),
    S.DELIVERED: frozenset(),
    S.UNDELIVERED: frozenset(),
    S.FAILED: frozenset(),
}
WAITING = frozenset({S.SCHEDULED, S.HELD})
ENDED = frozenset(state for state, targets in TRANSITIONS.items() if not targets) | {S.DELIVERY_UNKNOWN}


def sources(target: MessageState) -> list[str]:
    """The states from which `target` may be reached."""
    return [state.value for state, targets in TRANSITIONS.items() if target in targets]


CART_RECOVERY = "cart_recovery"
FIRST_STEP = 1


class Gate(enum.StrEnum):
    """The gates in the order in which they are reported."""

    SCHEDULE = "schedule"
    CART = "cart"
    SHOP = "shop"
    CONSENT = "consent"
    CAPS = "caps"
    QUIET_HOURS = "quiet_hours"
    CREDITS = "credits"
    TEXT = "text"
    CARRIER = "carrier"


class Outcome(enum.StrEnum):
    """What an evaluation came to."""

    REFUSE = "refuse"  # at scheduling: not now; asked again when a new fact arrives
    SCHEDULE = "schedule"
    HOLD = "hold"  # not yet; `until` says when it is asked again
    DROP = "drop"  # never
    SEND = "send"


@dataclass(frozen=True)
class Verdict:
    """One evaluation's result."""

    outcome: Outcome
    gate: Gate
    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class DueMessage:
    """A message that was claimed."""

    organization_id: UUID
    shop_id: UUID
    message_id: UUID
    session_id: UUID
    step: int
    due_at: datetime
    traceparent: str | None

    @property
    def shop(self) -> ShopScope:
        return ShopScope(self.organization_id, self.shop_id)

    @property
    def session_key(self) -> tuple[UUID, UUID, UUID]:
        return self.organization_id, self.shop_id, self.session_id

    @classmethod
    def of(cls, found: dict[str, Any]) -> DueMessage:
        return cls(**found)


@dataclass(frozen=True)
class Decision:
    """One line of the trace that answers "why was this cart (not) texted?"."""

    at: datetime
    gate: str
    outcome: str
    reason: str
    until: datetime | None
