"""What happened, in one line each, for people: told by the acts, and read off two looks at the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cartwake.demo.traffic import Shopper, Traffic
from cartwake.demo.watch import Cart

# Reasons as people would say them, short enough for 80 columns; the rest reads well without its underscores.
WORDS = {
    "active_again": "active again",
    "carrier_recipient_permanent": "not a number that can be texted",
    "carrier_recipient_soft": "the phone cannot be reached",
    "completed": "already ordered",
    "consent_withdrawn": "consent was taken back",
    "insufficient_credits": "not enough credits",
    "invalid-phone": "not a mobile number",
    "no_consent": "no consent",
    "no_consent_for_this_phone": "no consent for this phone",
    "payment_pending": "payment under way",
    "plan": "the plan has no texts",
    "quiet_hours": "quiet hours",
    "recipient_cap": "texted within 24 hours",
    "sms_disabled": "the shop switched them off",
    "stale": "the cart is too old",
    "suppressed": "the owner said no",
}


@dataclass(frozen=True)
class Happening:
    """One line: who, where, what, and when on their own clock."""

    local: datetime
    city: str
    name: str
    words: str
    style: str = ""

    @property
    def clock(self) -> str:
        """`Tue 10:31`."""
        return clock(self.local)


def clock(local: datetime) -> str:
    """A local time as people write it: `Tue 10:31`."""
    return f"{local:%a %H:%M}"


def plain(reason: str | None) -> str:
    """A reason in words."""
    return WORDS.get(reason or "", (reason or "").replace("_", " "))


def amount(value: int | None, word: str) -> str:
    """`1 segment`, `2 segments`."""
    return f"{value} {word}{'' if value == 1 else 's'}"


def told_by(shopper: Shopper, traffic: Traffic, at: datetime, words: str, style: str = "") -> Happening:
    """A happening at `at` (aware), on the shopper's clock."""
    return Happening(at.astimezone(traffic.zone_of(shopper.city)), shopper.city, shopper.name, words, style)


def changes(shopper: Shopper, traffic: Traffic, before: Cart | None, now: Cart) -> Iterator[Happening]:
    """What is new about one cart since the last look."""
    zone = traffic.zone_of(shopper.city)
    if now.refusal and now.refusal != (before.refusal if before else None) and now.text is None:
        yield told_by(shopper, traffic, now.cart_at, f"not texted: {plain(now.refusal)}", "yellow")
    was = (before.text, before.due_at) if before else (None, None)
    if now.text is not None and now.text_at is not None and (now.text, now.due_at) != was:
        words, style = _text_words(now, zone)
        if words:
            yield told_by(shopper, traffic, now.text_at, words, style)


def _text_words(cart: Cart, zone: ZoneInfo) -> tuple[str, str]:
    """What to say of a text in its state, and how to colour it; nothing of the states that it only passes."""
    until = clock(cart.due_at.astimezone(zone)) if cart.due_at else ""
    credits = amount(cart.credits, "credit")
    words = {
        "scheduled": (f"cart abandoned; text due {until}", ""),
        "held": (f"held until {until}: {plain(cart.reason)}", "cyan"),
        "sending": ("", ""),
        "accepted": (f"text accepted: {amount(cart.segments, 'segment')}, {credits}", "blue"),
        "sent": ("", ""),
        "delivered": ("text delivered", "green"),
        "undelivered": (f"text undelivered: {credits} refunded", "red"),
        "rejected": (f"the carrier rejects it: {credits} released", "red"),
        "dropped": (f"text dropped: {plain(cart.reason)}", "yellow"),
    }
    return words.get(cart.text or "", (f"text {cart.text}: {plain(cart.reason)}", "red"))
