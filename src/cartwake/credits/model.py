"""The words of the room, and the two rules that need no database: who can pay, and how entries chain."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

Account = NewType("Account", str)
SMS_ACCOUNT = Account("sms")


class EntryType(enum.StrEnum):
    """Why a balance changed."""

    PURCHASE = "PURCHASE"
    PURCHASE_REVERSAL = "PURCHASE_REVERSAL"
    TIER_REFILL = "TIER_REFILL"
    ADJUSTMENT = "ADJUSTMENT"  # an operator's correction, either way
    SEND_RESERVE = "SEND_RESERVE"
    SEND_CONFIRM = "SEND_CONFIRM"  # 0 credits: the reserve already took them
    SEND_REFUND = "SEND_REFUND"  # the reservation was released
    DELIVERY_REFUND = "DELIVERY_REFUND"  # the carrier took the text, and it did not arrive


@dataclass(frozen=True)
class Plan:
    """What an organization subscribes to."""

    monthly_credits: int
    allows_sms: bool


PLANS: Mapping[str, Plan] = {
    "FREE": Plan(monthly_credits=0, allows_sms=False),
    "PRO": Plan(monthly_credits=100, allows_sms=True),
    "ULTRA": Plan(monthly_credits=500, allows_sms=True),
}


def plan_allows_sms(plan: str) -> bool:
    """Whether an organization on this plan may text at all; credits alone do not open that door."""
    return PLANS[plan].allows_sms


@dataclass(frozen=True)
class Pack:
    """Credits as they are sold; the price is in euro cents."""

    credits: int
    price_cents: int


PACKS: Mapping[str, Pack] = {
    "Starter": Pack(credits=100, price_cents=300),
    "Standard": Pack(credits=500, price_cents=1250),
    "Large": Pack(credits=2000, price_cents=4000),
}


@dataclass(frozen=True)
class ReserveRequest:
    """Somebody wants to spend credits on something.

    `reservation_id` is the attempt's own id: asked again, it takes nothing more.
    """

    organization_id: UUID
    reservation_id: UUID
    subject_id: UUID
    credits: int

    def __post_init__(self) -> None:
        if self.credits < 1:
            raise ValueError("a reservation takes at least one credit")


@dataclass(frozen=True)
class Balance:
    """What can be spent, and what open reservations have already taken out of it."""

    available_credits: int
    reserved_credits: int


@dataclass(frozen=True)
class Head:
    """Where an account's ledger stands: the next entry continues from here."""

    available_credits: int
    last_entry_no: int


@dataclass(frozen=True)
class Change:
    """An entry that is to be made. `credits` is signed; `reference` is what makes it happen once."""

    organization_id: UUID
    entry_type: EntryType
    credits: int
    reservation_id: UUID | None = None
    reference: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the ledger. `entry_no` counts 1, 2, 3 … within the account, without a gap."""

    organization_id: UUID
    entry_no: int
    entry_type: EntryType
    credits: int
    balance_after: int
    reservation_id: UUID | None
    reference: str | None
    note: str | None
    at: datetime


def choose_affordable(available: Mapping[UUID, int], requests: Iterable[ReserveRequest]) -> list[ReserveRequest]:
    """The requests that can be paid, taken greedily in the given order.

    `available` is credits per organization; one that is missing has none. A request too dear for what
    is left does not stop cheaper ones after it. A reservation id counts once: the first time.
    """
    left = dict(available)
    seen: set[tuple[UUID, UUID]] = set()
    chosen = []
    for request in requests:
        key = (request.organization_id, request.reservation_id)
        if key not in seen and request.credits <= left.get(request.organization_id, 0):
            left[request.organization_id] -= request.credits
            chosen.append(request)
        seen.add(key)
    return chosen


def chain(heads: Mapping[UUID, Head], changes: Iterable[Change], now: datetime) -> list[Entry]:
    """The entries that `changes` become, in order, each continuing its organization's ledger."""
    heads = dict(heads)
    entries = []
    for change in changes:
        head = heads[change.organization_id]
        head = Head(head.available_credits + change.credits, head.last_entry_no + 1)
        heads[change.organization_id] = head
        entries.append(
            Entry(
                change.organization_id,
                head.last_entry_no,
                change.entry_type,
                change.credits,
                head.available_credits,
                change.reservation_id,
                change.reference,
                change.note,
                now,
            )
        )
    return entries
