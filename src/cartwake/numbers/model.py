"""Senders, and the rules that say which may text whom."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


class SenderKind(enum.StrEnum):
    """What a text appears to come from."""

    LONG_CODE = "long_code"
    TOLL_FREE = "toll_free"
    ALPHANUMERIC = "alphanumeric"


# Where an alphanumeric sender works without a registration (Twilio's country guidelines, reviewed 2026-11).
# Left out on purpose: IE and AU want a registration; US, CA, BE and NZ do not carry them at all.
ALPHANUMERIC_COUNTRIES = frozenset(
    {"GB", "LT", "LV", "EE", "FI", "PL", "NL", "IT", "ES", "PT", "DE", "FR", "AT", "CH", "SE", "DK", "NO"}
)

# Segments per second that a carrier takes from one sender (Twilio: 1 for a US or Canadian long code, 3 for
# toll-free; European long codes and alphanumeric senders about 10). Slower than the carrier is safe.
SLOW_COUNTRIES = frozenset({"US", "CA"})


@dataclass(frozen=True)
class Sender:
    """One sender of one shop."""

    organization_id: UUID
    shop_id: UUID
    sender_id: UUID
    address: str
    kind: str
    country: str | None
    segments_per_s: float
    paced_until: datetime

    @property
    def two_way(self) -> bool:
        """Whether a shopper can answer it; if not, the text carries an opt-out link."""
        return self.kind != SenderKind.ALPHANUMERIC

    @classmethod
    def of(cls, found: dict[str, Any]) -> Sender:
        return cls(**found)


def may_text(sender: Sender, phone_country: str) -> bool:
    """Whether this sender may lawfully text a phone of that country, and would be delivered."""
    if sender.kind == SenderKind.ALPHANUMERIC:
        return phone_country in ALPHANUMERIC_COUNTRIES
    # France: marketing texts must not come from mobile numbers (06, 07), by the AF2M charter of 2024-09.
    return not (phone_country == "FR" and sender.address.startswith(("+336", "+337")))


def choose_sender(senders: Sequence[Sender], phone_country: str) -> Sender | None:
    """The shop's best sender for a phone: one of its own country, else one that can be answered, else any lawful."""
    lawful = [sender for sender in senders if may_text(sender, phone_country)]
    return min(
        lawful,
        key=lambda sender: (sender.country != phone_country, not sender.two_way, str(sender.sender_id)),
        default=None,
    )


def default_pace(kind: SenderKind, country: str | None) -> float:
    """Segments per second for a sender that nobody configured otherwise."""
    if kind is SenderKind.TOLL_FREE:
        return 3.0
    return 1.0 if country in SLOW_COUNTRIES else 10.0
